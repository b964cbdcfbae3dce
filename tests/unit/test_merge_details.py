"""Details of merge methods: limits, trimming, signs, masks, angles, numbers of whole tensors, and signatures."""

from __future__ import annotations

import math
from inspect import signature

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.merge_methods.apply import SPAN, Stored, merge, widen
from engine.merge_methods.breadcrumbs import ranks as breadcrumbs_ranks
from engine.merge_methods.model_stock import ratio_of
from engine.merge_methods.registry import METHODS, SCHEMAS
from engine.merge_methods.signature import schema_of
from engine.merge_methods.ties import ranks as ties_ranks
from engine.merge_methods.wholes import InnerProducts, magnitudes_at, sigma_of
from engine.nouns.dtypes import DTYPES
from engine.nouns.merging import Stretch
from tests.merging import FUSED, PARAMETERS, TENSOR, arguments, defined, merged, noisy, stored

# Alg. 2


def test_an_element_at_the_limit_is_noise():
    """At 2 sigma exactly: sigma of the first is 0.5, of the second 1."""
    base = stored("F32", np.zeros(4, np.float32).view(np.uint32))
    models = [np.float32([0.5, -0.5, 0.5, -0.5]), np.float32([1, -1, 1, -1])]
    inputs = [base, *(stored("F32", m.view(np.uint32)) for m in models)]
    given = arguments("outlier", inputs, {"t": 2.0})
    assert given["sigma"] == [0.5, 1.0]
    assert merged("outlier", inputs, "F32", given).view(np.float32).tolist() == [0.75, -0.75, 0.75, -0.75]
    definition = defined("outlier", inputs, given, stretch=Stretch(TENSOR, 0, 4))
    assert definition.tolist() == [0.75, -0.75, 0.75, -0.75]
    less = given | {"t": 1.9}
    assert merged("outlier", inputs, "F32", less).view(np.float32).tolist() == [1.25, -1.25, 1.25, -1.25]


def test_a_model_without_a_change_makes_outliers_of_all():
    """Its sigma is 0, and the smallest counts."""
    inputs = noisy(["F32"] * 3, 100)
    inputs[1] = inputs[0]
    given = arguments("outlier", inputs, {"t": 3.0})
    found = merged("outlier", inputs, "F32", given)
    np.testing.assert_array_equal(found, merged("task_arithmetic", inputs, "F32", {"weight": 1.0}))


# Trimming


@pytest.mark.parametrize("density", [0.0, 0.001, 0.1, 0.29, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("size", [1, 7, 100, 3001])
def test_trimming_keeps_exactly_the_largest(size, density):
    r = np.random.default_rng(size)
    base = np.zeros(size, np.float32)
    model = r.permutation(np.arange(1, size + 1)).astype(np.float32) * r.choice([-1, 1], size)
    inputs = [stored("F32", x.astype(np.float32).view(np.uint32)) for x in (base, model)]
    parameters = {"weight": 1.0, "density": density}
    found = merged("ties", inputs, "F32", arguments("ties", inputs, parameters)).view(np.float32)
    kept = int(density * size)
    assert sorted(np.abs(found[found != 0])) == list(range(size - kept + 1, size + 1))
    np.testing.assert_array_equal(found[found != 0], model[found != 0])


def test_trimming_keeps_what_is_as_large_as_the_smallest_that_it_keeps():
    inputs = [stored("F32", np.float32(x).view(np.uint32)) for x in ([0] * 5, [1, -2, 2, 2, 3])]
    given = arguments("ties", inputs, {"weight": 1.0, "density": 0.4})
    assert given["band"] == [(2.0, 3.0)]
    assert merged("ties", inputs, "F32", given).view(np.float32).tolist() == [0, -2, 2, 2, 3]


@pytest.mark.parametrize(
    ("size", "density", "gamma", "expected"),
    [
        (100, 0.9, 0.01, (9, 98)), (100, 0.9, 0.0, (10, 99)), (100, 1.0, 0.01, (0, 99)), (32, 0.5, 0.01, (16, 31)),
        (100, 0.9, 0.5, (0, 89)), (100, 0.0, 0.1, None), (1, 0.5, 0.1, None), (1, 1.0, 1.0, (0, 0)),
    ],
)  # fmt: skip
def test_breadcrumbs_keep_so_many_whatever_gamma_is(size, density, gamma, expected):
    """Also where no element is to be dropped at the top."""
    assert breadcrumbs_ranks(size, 1, density=density, gamma=gamma) == [expected]
    if expected:
        assert expected[1] - expected[0] + 1 == int(density * size)


def test_ranks_are_per_model():
    assert ties_ranks(10, 3, density=(0.0, 0.5, 1.0)) == [None, (5, 9), (0, 9)]


# Signs


def test_models_that_disagree_with_the_elected_sign_do_not_count():
    base = [0.0] * 5
    models = [[3, 1, 1, 0, 1], [-1, -2, 1, 0, -1], [1, -2, 4, 0, 0]]
    inputs = [stored("F32", np.float32(x).view(np.uint32)) for x in (base, *models)]
    given = arguments("ties", inputs, {"weight": 1.0})
    assert merged("ties", inputs, "F32", given).view(np.float32).tolist() == [2, -2, 2, 0, 1]
    plain = given | {"normalize": False}
    assert merged("ties", inputs, "F32", plain).view(np.float32).tolist() == [4, -4, 6, 0, 1]


# Random masks


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della"])
def test_masks_have_their_density_and_no_two_are_alike(method):
    size = 40_000
    base = stored("F32", np.zeros(size, np.float32).view(np.uint32))
    model = stored("F32", np.linspace(1, 2, size, dtype=np.float32).view(np.uint32))
    kept = {}
    for seed, tensor, count in ((0, "a", 1), (1, "a", 1), (0, "b", 1)):
        given = {"weight": 1.0, "density": 0.4, "seed": seed, "rescale": False, "normalize": False}
        found = merged(method, [base, model], "F32", given, stretch=Stretch(tensor, 0, 400))
        kept[seed, tensor, count] = found.view(np.float32) != 0
    for mask in kept.values():
        assert abs(mask.mean() - 0.4) < 5 * math.sqrt(0.4 * 0.6 / size)
    first, *others = kept.values()
    for other in others:
        assert abs((first & other).mean() - (0.16 if method != "della" else 0.16 + 0.3**2 / 12)) < 0.012
    both = {"weight": (1.0, 1.0), "density": 0.4, "rescale": False, "normalize": False}
    two = merged(method, [base, model, model], "F32", both, stretch=Stretch("a", 0, 400)).view(np.float32)
    once, twice = model.data.view(np.float32), 2 * model.data.view(np.float32)
    assert 0.3 < ((two == once).mean()) < 0.55  # models draw for themselves
    assert 0.1 < ((two == twice).mean()) < 0.25


def test_della_prefers_large_elements():
    size = 40_000
    base = stored("F32", np.zeros(size, np.float32).view(np.uint32))
    model = stored("F32", np.tile(np.float32([1, -5, 3, 2]), size // 4).view(np.uint32))
    given = {"weight": 1.0, "density": 0.5, "epsilon": 0.3, "rescale": False}
    found = merged("della", [base, model], "F32", given, stretch=Stretch("a", 0, 4)).view(np.float32)
    shares = (found.reshape(-1, 4) != 0).mean(axis=0)
    np.testing.assert_allclose(shares, [0.2, 0.8, 0.6, 0.4], atol=0.03)


def test_what_della_refuses():
    inputs = noisy(["F32"] * 2, 12)
    for density, epsilon in ((0.1, 0.1), (0.9, 0.15)):
        with pytest.raises(ConfigError, match="leaves the range"):
            merged("della", inputs, "F32", {"weight": 1.0, "density": density, "epsilon": epsilon})
    with pytest.raises(ValueError, match="are no rows of 5"):
        merged("della", inputs, "F32", {"weight": 1.0}, stretch=Stretch("a", 0, 5))
    for density in (0.0, 1.0):  # the two ends are not random
        found = merged("della", inputs, "F32", {"weight": 1.0, "density": density, "epsilon": 0.5})
        close = widen(inputs[int(density)])
        np.testing.assert_allclose(found.view(np.float32), close, rtol=1e-6)


# Angles


def test_slerp_keeps_the_length_of_unit_vectors():
    r = np.random.default_rng(0)
    a, b = (x / np.linalg.norm(x) for x in r.normal(size=(2, 5000)))
    inputs = [stored("F32", x.astype(np.float32).view(np.uint32)) for x in (a, b)]
    given = arguments("slerp", inputs, {"t": 0.5})
    assert abs(np.linalg.norm(merged("slerp", inputs, "F32", given).view(np.float32)) - 1) < 1e-5
    for t, end in ((0.0, a), (1.0, b)):
        found = merged("slerp", inputs, "F32", given | {"t": t}).view(np.float32)
        np.testing.assert_array_equal(found, end.astype(np.float32))


@pytest.mark.parametrize("other", ["same", "opposite", "nothing", "twice", "near"])
def test_slerp_without_an_arc_goes_straight(other):
    r = np.random.default_rng(0)
    a = r.normal(size=100).astype(np.float32)
    a[0], near = 1000, r.normal(0, 1e-4, 100).astype(np.float32)  # one element decides on the angle
    near[0] = 1000
    b = {"same": a, "opposite": -a, "nothing": 0 * a, "twice": 2 * a, "near": near}[other]
    inputs = [stored("F32", x.view(np.uint32)) for x in (a, b)]
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        found = merged("slerp", inputs, "F32", arguments("slerp", inputs, {"t": t})).view(np.float32)
        np.testing.assert_allclose(found, (1 - t) * a + t * b, rtol=1e-6, atol=2e-7)
        if other == "same" or t in (0, 1):
            np.testing.assert_array_equal(found, b if t else a)


@pytest.mark.parametrize(
    ("cosines", "expected"),
    [([[1.0]], None), ([[1, 1], [1, 1]], 1), ([[1, 0], [0, 1]], 0), ([[1, -0.5], [-0.5, 1]], 0), ([[4, 1], [1, 1]], 2 / 3),
     ([[0, 0], [0, 1]], 0), ([[1, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 1]], 0.75)],
)  # fmt: skip
def test_the_ratio_of_model_stock(cosines, expected):
    if expected is not None:
        assert ratio_of(np.array(cosines, float)) == pytest.approx(expected, abs=1e-15)


# Numbers of whole tensors


def test_inner_products_are_the_same_in_any_order_and_from_anywhere():
    r = np.random.default_rng(0)
    blocks = [r.normal(size=200_001).astype(np.float32) for _ in range(3)]
    whole = InnerProducts(3)
    whole.add(blocks, 0)
    cut, elsewhere = InnerProducts(3), InnerProducts(3)
    cut.add([b[131072:] for b in blocks], 131072)
    elsewhere.add([b[:131072] for b in blocks], 0)
    cut.join(elsewhere.state())
    np.testing.assert_array_equal(cut.total(), whole.total())
    exact = np.array(blocks, np.float64) @ np.array(blocks, np.float64).T
    np.testing.assert_allclose(whole.total(), exact, rtol=1e-10, atol=1e-9)
    with pytest.raises(ValueError, match="not at a multiple"):
        whole.add(blocks, 100)


def test_what_is_not_finite_counts_for_nothing():
    x = np.float32([1, math.nan, 2, math.inf])
    sums = InnerProducts(2)
    sums.add([x, np.ones(4, np.float32)], 0)
    assert sums.total().tolist() == [[5, 3], [3, 4]]
    assert sigma_of(x) == 0.5
    assert sigma_of(x[1:2]) == 0
    assert magnitudes_at(x, (0, 1)) == (1, 2)
    assert magnitudes_at(x, (2, 3)) == (math.inf, math.inf)


# Schemas


def test_signatures_are_schemas():
    assert list(METHODS) == list(PARAMETERS)
    needs = {name: {need.value for need in s.needs} for name, s in SCHEMAS.items() if s.needs}
    assert needs == {
        "outlier": {"sigma"}, "ties": {"band"}, "breadcrumbs": {"band"}, "slerp": {"inner"}, "model_stock": {"task_inner"},
        "dare_linear": {"stretch"}, "dare_ties": {"stretch"}, "della": {"stretch", "rows"},
    }  # fmt: skip
    assert [n for n, s in SCHEMAS.items() if not s.base] == ["linear"]
    assert [(n, s.least, s.most) for n, s in SCHEMAS.items() if (s.least, s.most) != (1, math.inf)] == [
        ("slerp", 1, 1),
        ("model_stock", 2, math.inf),
    ]
    ties = {p.name: (p.kind, p.per_model, p.default, p.low, p.high) for p in SCHEMAS["ties"].parameters}
    assert ties == {
        "weight": (float, True, None, -math.inf, math.inf),
        "density": (float, True, 1.0, 0, 1),
        "lambda": (float, False, 1.0, -math.inf, math.inf),
        "normalize": (bool, False, True, -math.inf, math.inf),
    }
    assert [(p.name, p.kind, p.default, p.low) for p in SCHEMAS["outlier"].parameters] == [
        ("t", float, 3.0, 0)
    ]
    assert {p.name: p.kind for p in SCHEMAS["dare_ties"].parameters}["seed"] is int
    for name in FUSED:  # what a fused loop takes is what the definition takes
        keywords = [[p for p in signature(f).parameters.values() if p.kind is p.KEYWORD_ONLY]
                    for f in (METHODS[name].fused, METHODS[name].function)]  # fmt: skip
        assert [(p.name, p.default) for p in keywords[0]] == [(p.name, p.default) for p in keywords[1]]


def test_a_signature_that_says_nothing_is_refused():
    def wrong(models: list[object], *, mode: str = "x") -> None: ...

    with pytest.raises(TypeError, match="mode is neither a number nor a truth"):
        schema_of("wrong", wrong)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base": None}, "ties needs a base"),
        ({"models": 0}, "does not merge 0 models"),
        ({"out": "F8_E4M3"}, "nothing is rounded to F8_E4M3"),
        ({"out": "F64"}, "nothing is rounded to F64"),
        ({"size": 9}, "blocks have 9 and 10 elements"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    size = change.get("size", 10)
    inputs = noisy(["F32"] * 3, 10)
    dtype = DTYPES[change.get("out", "F32")]
    into = Stored(np.zeros(size * dtype.bits // 8, np.uint8), dtype)
    with pytest.raises(ValueError, match=said):
        merge(
            METHODS["ties"], change.get("base", inputs[0]), inputs[1 : change.get("models", 2) + 1], into,
            {"weight": 1.0, "band": [(0, math.inf)] * 2}, stretch=Stretch("a", 0, 10),
        )  # fmt: skip


def test_weights_that_add_up_to_nothing_divide_nothing():
    inputs = noisy(["F32"] * 3, 10)
    with pytest.raises(ConfigError, match="add up to 0"):
        merged("linear", inputs, "F32", {"weight": (1.0, -1.0, 0.0)[:2]})
    plain = {"weight": (1.0, -1.0), "normalize": False}
    np.testing.assert_array_equal(
        merged("task_arithmetic", inputs, "F32", plain | {"normalize": True}),
        merged("task_arithmetic", inputs, "F32", plain),
    )
    with pytest.raises(ValueError, match="3 numbers for 2 models"):
        merged("linear", inputs, "F32", {"weight": (1.0, 1.0, 1.0)})


def test_spans_of_the_plain_path_are_whole_rows():
    """A row longer than a span, and rows that do not divide it."""
    for columns in (SPAN + 7, 1000):
        inputs = noisy(["F32", "F32", "BF16"], columns * 2 if columns > SPAN else columns * 70)
        given = arguments("della", inputs, {"weight": 1.0, "density": 0.5})
        stretch = Stretch("a", 0, columns)
        expected = defined("della", inputs, given, stretch=stretch).view(np.uint32)
        np.testing.assert_array_equal(merged("della", inputs, "F32", given, stretch=stretch), expected)
