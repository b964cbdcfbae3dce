"""The laws of merging: what must hold for every method, whatever the tensors, the blocks and the order."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.merge_methods.apply import Stored, merge, widen
from engine.merge_methods.registry import METHODS, SCHEMAS
from engine.nouns.dtypes import DTYPES
from engine.nouns.merging import Stretch
from tests.builders import nasty_patterns, patterns_of, unsigned, values_of
from tests.merging import PARAMETERS, TENSOR, arguments, merged, models_of, noisy, stored

DTYPE = st.sampled_from(["BF16", "F16", "F32"])
SIZES = st.sampled_from([1, 2, 63, 64, 65, 1023, 1024, 1025, 2047, 2049, 5000])
SEEDS = st.integers(0, 2**32 - 1)
NUMBERS = st.floats(-4, 4, width=16)
OF_A_BASE = [name for name, schema in SCHEMAS.items() if schema.base]


def nasty(inputs: list[Stored], seed: int, share: float = 0.2) -> list[Stored]:
    """The same with whatever patterns a dtype has here and there."""
    r = np.random.default_rng(seed)
    for block in inputs:
        elements = block.data.view(unsigned(block.dtype.name))
        at = r.random(elements.size) < share
        elements[at] = r.choice(nasty_patterns(block.dtype.name), int(at.sum()))
    return inputs


def values(out: str, patterns: Any) -> Any:
    return values_of(out, patterns)


# Blocks


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=20)
@given(
    dtypes=st.one_of(DTYPE.map(lambda d: [d] * 4), st.just(["F32", "BF16", "F16", "F64"])), rows=st.integers(1, 90),
    columns=st.sampled_from([1, 3, 64, 1000]), seed=SEEDS, wide=st.booleans(), out=st.sampled_from(["BF16", "F32"]),
)  # fmt: skip
def test_how_a_tensor_is_cut_never_changes_a_bit(method, dtypes, rows, columns, seed, wide, out):
    inputs = nasty(noisy(dtypes[: models_of(method) + 1], rows * columns, seed), seed)
    known = arguments(method, inputs, wide=wide)
    whole = merged(method, inputs, out, known, stretch=Stretch(TENSOR, 0, columns), wide=wide)
    step = columns if method == "della" else 1
    r = np.random.default_rng(seed)
    cuts = sorted({0, rows * columns, *(r.integers(0, rows * columns // step + 1, 4) * step).tolist()})
    parts = [
        merged(
            method, [i.part(a, b) for i in inputs], out, known,
            stretch=Stretch(TENSOR, a, columns), wide=wide,
        )
        for a, b in pairwise(cuts)
    ]  # fmt: skip
    np.testing.assert_array_equal(np.concatenate(parts), whole)


# Averages


@given(dtype=DTYPE, size=SIZES, seed=SEEDS, weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=7))
@settings(max_examples=40)
def test_the_average_of_equal_models_is_that_model(dtype, size, seed, weights):
    [a] = nasty(noisy([dtype], size, seed), seed)
    finite = np.isfinite(widen(a))
    found = values(dtype, merged("linear", [a] * (len(weights) + 1), dtype, {"weight": tuple(weights)}))
    np.testing.assert_array_equal(found[finite], widen(a)[finite])
    assert not np.isfinite(found[~finite]).any()


@given(dtype=DTYPE, size=SIZES, seed=SEEDS, t=st.floats(0, 1))
@settings(max_examples=40)
def test_on_the_way_from_a_model_to_itself_there_is_nothing_else(dtype, size, seed, t):
    [a] = noisy([dtype], size, seed)
    found = values(dtype, merged("slerp", [a, a], dtype, arguments("slerp", [a, a], {"t": t})))
    np.testing.assert_array_equal(found, widen(a))


@pytest.mark.parametrize("method", OF_A_BASE)
@given(dtype=DTYPE, size=SIZES, seed=SEEDS)
@settings(max_examples=10)
def test_models_that_are_the_base_make_the_base(method, dtype, size, seed):
    [a] = noisy([dtype], size, seed)
    inputs = [a] * (models_of(method) + 1)
    found = merged(method, inputs, dtype, arguments(method, inputs))
    np.testing.assert_array_equal(values(dtype, found), widen(a))


@given(dtype=DTYPE, size=SIZES, seed=SEEDS, weight=st.floats(0.01, 10))
@settings(max_examples=40)
def test_one_model_alone_is_itself(dtype, size, seed, weight):
    """To the bit, signs of zeros and infinities included, but that every NaN is one."""
    [a] = nasty(noisy([dtype], size, seed), seed)
    found = merged("linear", [a, a], dtype, {"weight": weight})
    expected = a.data.view(unsigned(dtype))
    np.testing.assert_array_equal(found, np.where(np.isnan(widen(a)), merged_nan(dtype), expected))


def merged_nan(dtype: str) -> int:
    return {"BF16": 0x7FC0, "F16": 0x7E00, "F32": 0x7FC00000}[dtype]


@given(size=SIZES, seed=SEEDS)
@settings(max_examples=40)
def test_a_task_vector_of_weight_1_leads_to_its_model(size, seed):
    """In float64, where the differences of f16 are exact."""
    base, model = noisy(["F16", "F16"], size, seed)
    found = merged("task_arithmetic", [base, model], "F16", {"weight": 1.0}, wide=True)
    np.testing.assert_array_equal(values("F16", found), widen(model))


# Alg. 2


@given(dtype=DTYPE, size=SIZES, seed=SEEDS, count=st.integers(1, 5), wide=st.booleans())
@settings(max_examples=40)
def test_at_t_0_every_element_is_kept_whole(dtype, size, seed, count, wide):
    inputs = nasty(noisy([dtype] * (count + 1), size, seed), seed)
    found = merged("outlier", inputs, dtype, arguments("outlier", inputs, {"t": 0.0}, wide=wide), wide=wide)
    np.testing.assert_array_equal(found, merged("task_arithmetic", inputs, dtype, {"weight": 1.0}, wide=wide))


@given(dtype=DTYPE, size=SIZES, seed=SEEDS, count=st.integers(1, 5))
@settings(max_examples=40)
def test_at_t_infinity_it_is_plain_averaging(dtype, size, seed, count):
    """In float64 the same bits as the average, but where the exact one lies on a tie; never more than a digit off."""
    inputs = noisy([dtype] * (count + 1), size, seed)
    found = merged(
        "outlier", inputs, dtype, arguments("outlier", inputs, {"t": math.inf}, wide=True), wide=True
    )
    average = merged("linear", inputs, dtype, {"weight": 1.0}, wide=True)
    mean = np.mean([widen(i, True) for i in inputs[1:]], axis=0)
    for one in (values(dtype, found), values(dtype, average)):
        bound = np.abs(values(dtype, patterns_of(dtype, mean)) - mean) + 1e-15
        np.testing.assert_array_less(np.abs(one - mean) - bound, 1e-15)


@given(seed=SEEDS, t=st.sampled_from([0.5, 1.0, 2.0, 3.0]), count=st.integers(2, 4))
@settings(max_examples=30)
def test_what_is_small_everywhere_is_averaged_and_what_is_large_is_kept(seed, t, count):
    r = np.random.default_rng(seed)
    tasks = r.normal(size=(count, 500)).astype(np.float32)
    inputs = [stored("F32", x.view(np.uint32)) for x in (np.zeros(500, np.float32), *tasks)]
    found = merged("outlier", inputs, "F32", arguments("outlier", inputs, {"t": t})).view(np.float32)
    limit = np.float32(t * min(x.astype(np.float64).std() for x in tasks))
    all_small, all_large = (np.abs(tasks) <= limit).all(axis=0), (np.abs(tasks) > limit).all(axis=0)
    np.testing.assert_allclose(found[all_small], tasks.mean(axis=0)[all_small], atol=1e-5)
    np.testing.assert_allclose(found[all_large], tasks.sum(axis=0)[all_large], atol=1e-5)


# Order


def swapped(value: Any) -> Any:
    return value[::-1] if isinstance(value, tuple) else value


@pytest.mark.parametrize("method", ["outlier", "task_arithmetic", "ties", "breadcrumbs", "model_stock"])
@given(dtype=DTYPE, size=SIZES, seed=SEEDS)
@settings(max_examples=15)
def test_of_two_models_neither_is_the_first(method, dtype, size, seed):
    base, a, b = noisy([dtype] * 3, size, seed)
    pair = {k: v[:2] if isinstance(v, tuple) else v for k, v in PARAMETERS[method].items()}
    other = {k: swapped(v) for k, v in pair.items()}
    found = merged(method, [base, a, b], dtype, arguments(method, [base, a, b], pair))
    turned = merged(method, [base, b, a], dtype, arguments(method, [base, b, a], other))
    np.testing.assert_array_equal(found, turned)


@pytest.mark.parametrize("method", ["outlier", "linear", "task_arithmetic", "model_stock"])
@given(size=SIZES, seed=SEEDS, order=st.permutations(range(4)))
@settings(max_examples=15)
def test_of_more_models_the_order_decides_about_last_digits_only(method, size, seed, order):
    base, *models = noisy(["F32"] * 5, size, seed)
    weights = (0.5, 1.0, 0.25, 2.0)
    given_ = {"weight": weights} if "weight" in [p.name for p in SCHEMAS[method].parameters] else {}
    other = {"weight": tuple(weights[i] for i in order)} if given_ else {}
    mixed = [base, *(models[i] for i in order)]
    found = values("F32", merged(method, [base, *models], "F32", arguments(method, [base, *models], given_)))
    turned = values("F32", merged(method, mixed, "F32", arguments(method, mixed, other)))
    np.testing.assert_allclose(found, turned, rtol=0, atol=2.0**-21 * 4)


# What is not finite


@pytest.mark.parametrize("method", METHODS)
@given(dtype=DTYPE, size=SIZES, seed=SEEDS, wide=st.booleans(), weight=st.sampled_from([None, 0.0]))
@settings(max_examples=20)
def test_damage_does_not_disappear_and_does_not_spread(method, dtype, size, seed, wide, weight):
    """Whatever is not finite in the base or a model, of weight 0 too, is not finite in the end, and nothing else is."""
    inputs = noisy([dtype] * (models_of(method) + 1), size, seed)
    r = np.random.default_rng(seed)
    first = 0 if SCHEMAS[method].base else 1
    for block in inputs[first:]:
        elements = block.data.view(unsigned(dtype))
        at = r.random(size) < 0.1
        kinds = patterns_of(dtype, [math.nan, math.inf, -math.inf])
        elements[at] = r.choice(kinds, int(at.sum()))
    damaged = ~np.all([np.isfinite(widen(i)) for i in inputs[first:]], axis=0)
    parameters = dict(PARAMETERS[method])
    if weight is not None and "weight" in parameters:
        parameters["weight"] = (0.0, 1.0, 0.0)
    known = arguments(method, inputs, parameters, wide=wide)
    found = values(dtype, merged(method, inputs, dtype, known, stretch=Stretch(TENSOR, 0, size), wide=wide))
    np.testing.assert_array_equal(~np.isfinite(found), damaged)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_merges_to_nothing(method):
    inputs = noisy(["BF16"] * (models_of(method) + 1), 0)
    known = {**PARAMETERS[method], "sigma": [0.0] * 3, "band": [(0.0, 1.0)] * 3}
    known |= {"inner": np.eye(2), "task_inner": np.eye(3)}
    wanted = {need.value for need in SCHEMAS[method].needs} | set(PARAMETERS[method])
    into = Stored(np.zeros(0, np.uint8), DTYPES["BF16"])
    merge(
        METHODS[method], inputs[0], inputs[1:], into, {k: v for k, v in known.items() if k in wanted},
        stretch=Stretch("a", 0, 1),
    )  # fmt: skip
