"""32-bit floats from one pass: what is exact is exact, what is estimated is within its bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.nouns.dtypes import DTYPES
from engine.sketch import observe
from engine.statistics.distribution import distribution
from engine.statistics.filtering import FLOORS, SIGMAS, filtered, interval_edges
from engine.statistics.moments import moments
from engine.statistics.quantiles import PROBABILITIES
from engine.statistics.summary import Summary, codes_to_refine, summarise
from tests.builders import patterns_of, raw, refinement_of, values_of
from tests.tensors import (
    ABOVE_FLOOR,
    BELOW_FLOOR,
    EXTREME,
    GENTLE,
    NAMES,
    assert_moments,
    kept_by_the_filter,
    on_a_knife_edge,
    outside_the_bound,
    patterns,
    truth,
)

each_tensor = pytest.mark.parametrize("tensor", NAMES)


def one_pass(found: np.ndarray) -> Summary:
    return summarise(observe(raw(found), DTYPES["F32"]))


def finite_values(found: np.ndarray) -> np.ndarray:
    values = values_of("F32", found)
    return values[np.isfinite(values)]


def from_values(*values: float) -> np.ndarray:
    return patterns_of("F32", values)


@each_tensor
def test_mean_and_second_sum_are_exact_and_the_others_within_the_bound(tensor):
    found = patterns(tensor, "F32")
    s, true = one_pass(found), truth(finite_values(found))
    assert_moments(s.moments, finite_values(found), higher=False)
    if true.std > 0:
        assert abs(s.moments.skewness - true.skewness) <= s.error_bound + 1e-11 * max(1, abs(true.skewness))
        assert abs(s.moments.kurtosis - true.kurtosis) <= s.error_bound + 1e-11 * true.kurtosis


def test_the_one_pass_bound_is_small_where_cells_are_narrow():
    for tensor in ("gaussian", "laplace", "heavy tails", "half zeros"):
        found = patterns(tensor, "F32", n=5000)
        s, true = one_pass(found), truth(finite_values(found))
        assert s.error_bound < 1e-2
        assert abs(s.moments.kurtosis - true.kurtosis) < 1e-5 * true.kurtosis


WIDE = {"gaussian", "shifted", "heavy tails", "laplace", "uniform", "half zeros", "negative"}


@pytest.mark.parametrize("n", [50, 2000])
@pytest.mark.parametrize("tensor", GENTLE)
def test_filters_are_within_their_bound(tensor, n):
    for seed in range(25):
        found = patterns(tensor, "F32", seed, n)
        s, x = one_pass(found), finite_values(found)
        for f in s.filtered:
            assert f.error_bound < math.inf or tensor not in WIDE or n < 100
            problems = outside_the_bound(f, x, truth(x))
            # one element, in a cut cell, is kept in part: there skewness and kurtosis are nobody's
            assert not [p for p in problems if f.kept > 1 or "nan" not in p], (seed, f)


@pytest.mark.parametrize("tensor", EXTREME)
def test_filters_of_extreme_tensors_are_within_their_bound_or_have_none(tensor):
    # in "two sigma exactly" a cut cell holds all that gives the truth a sigma: no bound there
    found = patterns(tensor, "F32")
    x = finite_values(found)
    for f in one_pass(found).filtered:
        assert not outside_the_bound(f, x, truth(x)), f


CLUMP = st.tuples(
    st.sampled_from([
        0.0, ABOVE_FLOOR, BELOW_FLOOR, np.float32(0.00099945068), np.float32(0.0010070801),
        np.float32(0.0012), np.float32(0.002), np.float32(-0.001), np.float32(0.0005),
    ]),
    st.sampled_from([1, 2, 5, 20, 100]),
)  # fmt: skip


@example([(0.0, 20), (ABOVE_FLOOR, 1), (BELOW_FLOOR, 1), (np.float32(0.0012), 2)])
@example(
    [(0.0, 5), (7.121641e-4, 1), (9.994507e-4, 5), (1.00708e-3, 1), (2.3659472e-3, 10), (2.3710846e-3, 2)]
)
@example(
    [(0.0, 42), (BELOW_FLOOR, 6), (1.00708e-3, 1), (1.8993786e-3, 1), (1.9318089e-3, 3), (2.4666043e-3, 5)]
)
@given(st.lists(CLUMP, min_size=1, max_size=5))
@settings(max_examples=200)
def test_clumps_on_either_side_of_the_floor_are_within_the_bound(clumps):
    # a cut cell that holds most of what is kept may leave more than any of its corners tells
    found = from_values(*np.concatenate([np.full(n, value, np.float64) for value, n in clumps]))
    x = finite_values(found)
    for f in one_pass(found).filtered:
        if f.kept > 1 and not on_a_knife_edge(x, truth(x), f.sigmas):
            assert not outside_the_bound(f, x, truth(x)), f


@each_tensor
def test_small_values_are_counted_but_for_the_two_cut_cells(tensor):
    found = patterns(tensor, "F32")
    x = finite_values(found)
    in_cut_cells = np.isin(found >> 16, [0x3A83, 0xBA83]).sum()
    assert abs(one_pass(found).small - (np.abs(x) < 1e-3).sum()) <= in_cut_cells


@each_tensor
def test_quantiles_are_off_by_less_than_a_cell(tensor):
    found = patterns(tensor, "F32")
    x = finite_values(found)
    if not len(x):
        return
    probabilities = list(PROBABILITIES.values())
    lower, upper = (np.quantile(x, probabilities, method=m) for m in ("lower", "higher"))
    width = np.maximum(2.0**-7 * np.maximum(np.abs(lower), np.abs(upper)), 2.0**-133)
    off = np.abs(np.array(list(one_pass(found).quantiles.values())) - np.quantile(x, probabilities))
    assert (off <= width).all()


@each_tensor
def test_kolmogorov_smirnov_distance_is_short_by_no_more_than_a_cell(tensor):
    found = patterns(tensor, "F32")
    x, sketch = finite_values(found), observe(raw(found), DTYPES["F32"])
    true, cells = truth(x), distribution(sketch)
    if not true.std > 0:
        return
    normal = stats.norm(true.mean, true.std)
    widest = (normal.cdf(cells.high) - normal.cdf(cells.low)).max()
    found_ks, exact = summarise(sketch).ks, stats.kstest(x, normal.cdf).statistic
    assert exact - widest - 1e-11 <= found_ks <= exact + 1e-11


# The codes that a second pass looks into


def test_complete_codings_need_no_second_pass():
    assert codes_to_refine(observe(b"\x00\x3c" * 9, DTYPES["F16"])) == ()
    assert codes_to_refine(observe(b"", DTYPES["F32"])) == ()


@each_tensor
def test_every_code_that_a_threshold_cuts_is_refined(tensor):
    found = patterns(tensor, "F32", n=3000)
    sketch = observe(raw(found), DTYPES["F32"])
    codes = codes_to_refine(sketch)
    assert list(codes) == sorted(set(codes))
    assert set(codes) <= set(sketch.codes.tolist())
    assert len(codes) <= 64
    cells = distribution(sketch)
    edges = [*interval_edges(moments(cells)), 1e-3, -1e-3] if len(cells) else []
    for edge in edges:
        code = int(patterns_of("F32", [edge])[0] >> 16)
        cut = sketch.codes[sketch.codes == code]
        low, high = sorted(values_of("F32", np.array([code << 16, (code << 16) + 0xFFFF], "<u4")))
        assert not len(cut) or code in codes or not low < edge < high


@pytest.mark.parametrize(
    "tensor", ["on thresholds", "around the floor", "at the floor", "just below the floor"]
)
def test_after_the_second_pass_the_filters_are_exact_whatever_the_seed(tensor):
    for seed in range(10):
        found = patterns(tensor, "F32", seed, n=1000)
        sketch, x = observe(raw(found), DTYPES["F32"]), finite_values(found)
        s = summarise(sketch, refinement_of(found, codes_to_refine(sketch)))
        for f in s.filtered:
            kept = kept_by_the_filter(x, truth(x), f.sigmas, f.floor)
            assert (f.kept, f.error_bound) == (len(kept), 0)
            assert_moments(f.moments, kept)


VALUES = [
    0.0,
    -0.0,
    2.0,
    -2.0,
    1.0,
    3.0,
    1e-3,
    -1e-3,
    9.9999e-4,
    1.00390625,
    np.float32(1.99999988),
    1e-45,
    3e38,
]


@example([2.0, -2.0] + 6 * [0.0])
@example([3.0, -3.0] + 16 * [0.0])
@example([float(ABOVE_FLOOR), float(BELOW_FLOOR)])
@given(st.lists(st.one_of(st.sampled_from(VALUES), st.floats(-4, 4, width=32)), min_size=1, max_size=30))
@settings(max_examples=100)
def test_after_the_second_pass_any_tensor_is_as_exact_as_a_complete_one(values):
    found = from_values(*values)
    sketch, x = observe(raw(found), DTYPES["F32"]), finite_values(found)
    s = summarise(sketch, refinement_of(found, codes_to_refine(sketch)))
    total = truth(x)
    assert_moments(s.moments, x, rel=1e-10)
    assert s.small == (np.abs(x) < 1e-3).sum()
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(
            list(s.quantiles.values()), np.quantile(x, list(PROBABILITIES.values()))
        )
    for f in s.filtered:
        assert f.error_bound == 0
        right = len(kept_by_the_filter(x, total, f.sigmas, f.floor))
        assert abs(f.kept - right) <= on_a_knife_edge(x, total, f.sigmas)


@pytest.mark.parametrize(("values", "kept"), [([2.0, -2.0] + 6 * [0.0], 8), ([3.0, -3.0] + 16 * [0.0], 18)])
def test_the_interval_is_closed(values, kept):
    found = from_values(*values)
    sketch = observe(raw(found), DTYPES["F32"])
    refined = distribution(sketch, refinement_of(found, codes_to_refine(sketch)))
    assert filtered(refined, moments(refined), values[0]).kept == kept
    assert filtered(refined, moments(refined), values[0] - 1e-9).kept == kept - 2


def test_the_floor_keeps_what_equals_it():
    found = from_values(ABOVE_FLOOR, -ABOVE_FLOOR, BELOW_FLOOR, -BELOW_FLOOR, 0.0)
    sketch = observe(raw(found), DTYPES["F32"])
    refined = distribution(sketch, refinement_of(found, codes_to_refine(sketch)))
    for sigmas in SIGMAS:
        assert filtered(refined, moments(refined), sigmas, FLOORS[1]).kept == 2
        assert filtered(refined, moments(refined), sigmas, float(ABOVE_FLOOR)).kept == 2
        assert filtered(refined, moments(refined), sigmas, float(BELOW_FLOOR)).kept == 4


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, 1.5, -0.02, 1.99999988, 1e-45, 3.4e38])
def test_one_value_is_kept_whole_or_not_bounded(value):
    x = finite_values(from_values(*3 * [value]))
    for f in one_pass(from_values(*3 * [value])).filtered:
        assert not outside_the_bound(f, x, truth(x)), f


@pytest.mark.parametrize("value", [0.0, 1.0, 1.5, -0.02, 1.99999988, 1e-45, 3.4e38])
def test_a_constant_tensor_is_exact_after_one_pass(value):
    found = from_values(*5 * [value])
    s, (exact, *_) = one_pass(found), finite_values(found)
    assert set(s.quantiles.values()) == {exact}
    assert s.small == (5 if abs(exact) < 1e-3 else 0)
    for f in s.filtered:
        kept = 5 if abs(exact) >= f.floor else 0
        assert (f.kept, f.ratio, f.error_bound) == (kept, kept / 5, 0)
