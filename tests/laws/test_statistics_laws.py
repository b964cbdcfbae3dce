"""Laws of what is computed from sketches: parts add up to the whole."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.nouns.dtypes import DTYPES
from engine.sketch import observe
from engine.statistics.distribution import distribution, points
from engine.statistics.moments import NOTHING, Moments, combine_moments, moments
from engine.statistics.quantiles import quantiles
from engine.statistics.refinement import Refinement, combine_refinements
from engine.statistics.summary import summarise
from tests.builders import COUNTED, exact_moments, raw, refinement_of, unsigned

STEPS = st.integers(-4000, 4000).map(lambda k: k / 64)
SETS = st.lists(STEPS, max_size=30)
MEANS = st.sampled_from([0.0, 1.0, 1000.0])


def moments_of(values: list[float]) -> Moments:
    distinct, n = np.unique(values, return_counts=True)
    return moments(points(distinct, n.astype(np.float64))) if values else NOTHING


def assert_close(a: Moments, b: Moments, values: list[float]) -> None:
    """Equal up to the rounding of the means, which the central sums feel."""
    assert a.n == b.n
    if not values:
        return
    x = np.array(values)
    slip = 1e-15 * np.abs(x).max()
    d = np.abs(x - x.mean())
    assert a.mean == pytest.approx(b.mean, rel=0, abs=2 * slip)
    for k, name in ((2, "m2"), (3, "m3"), (4, "m4")):
        size = (d**k).sum()
        tolerance = 1e-12 * size + 20 * k * slip * (d ** (k - 1)).sum() + len(x) * (20 * slip) ** k
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=0, abs=tolerance), name


@example([], [1.0], [], 0.0)
@example([1.0, 1.0], [1.0], [1.0], 1.0)
@example([0.0], [-1.0, 1.0], [62.5, -62.5], 1000.0)
@given(SETS, SETS, SETS, MEANS)
def test_moments_of_parts_combine_to_the_moments_of_the_whole(a, b, c, mean):
    a, b, c = ([mean + x for x in part] for part in (a, b, c))
    left = combine_moments(combine_moments(moments_of(a), moments_of(b)), moments_of(c))
    right = combine_moments(moments_of(a), combine_moments(moments_of(c), moments_of(b)))
    values = a + b + c
    assert_close(left, moments_of(values), values)
    assert_close(right, moments_of(values), values)
    assert_close(moments_of(values), Moments(*exact_moments(np.array(values))), values)


def test_nothing_is_neutral_among_moments():
    some = moments_of([1.0, 2.0, 4.0])
    assert combine_moments(some, NOTHING) == some == combine_moments(NOTHING, some)


PATTERNS = st.lists(
    st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1 << 31, 0x3F80FFFF, 0x3F800000, 0xFF800001])),
    max_size=80,
).map(lambda p: np.array(p, "<u4"))


def assert_same_refinement(a: Refinement, b: Refinement) -> None:
    assert (a.cubes, a.fourths, set(a.lows)) == (b.cubes, b.fourths, set(b.lows))
    for code, (low, n) in a.lows.items():
        np.testing.assert_array_equal(low, b.lows[code][0])
        np.testing.assert_array_equal(n, b.lows[code][1])


@given(PATTERNS, st.lists(st.integers(0, 80), max_size=4))
@settings(max_examples=40)
def test_refinements_of_parts_combine_to_the_refinement_of_the_whole(patterns, cuts):
    codes = tuple(sorted({0, 0x3F80, 0x8000, *(patterns[:3] >> 16).tolist()}))
    edges = sorted([0, len(patterns), *(min(c, len(patterns)) for c in cuts)])
    parts = [refinement_of(patterns[a:b], codes) for a, b in pairwise(edges)]
    whole = refinement_of(patterns, codes)
    assert_same_refinement(combine_refinements(*parts), whole)
    assert_same_refinement(combine_refinements(*reversed(parts)), whole)


def test_power_sums_of_a_refinement_are_exact_beyond_64_bits():
    low, n = 0xFFFF, 1 << 18
    found = refinement_of(np.full(n, 0x3F80_0000 + low, "<u4"), (0x3F80,))
    twice = combine_refinements(found, found)
    assert (found.cubes, found.fourths) == ({0x3F80: n * low**3}, {0x3F80: n * low**4})
    assert (twice.cubes, twice.fourths) == ({0x3F80: 2 * n * low**3}, {0x3F80: 2 * n * low**4})
    assert found.fourths[0x3F80] > 1 << 64
    assert found.lows[0x3F80][1].tolist() == [n]


@pytest.mark.parametrize("dtype", COUNTED)
@given(st.data())
@settings(max_examples=40)
def test_a_summary_of_any_patterns_keeps_its_order(dtype, data):
    top = (1 << DTYPES[dtype].bits) - 1
    patterns = np.array(data.draw(st.lists(st.integers(0, top), max_size=50)), unsigned(dtype))
    s = summarise(observe(raw(patterns), DTYPES[dtype]))
    finite = s.n - s.nan - s.pos_inf - s.neg_inf
    assert s.n == len(patterns)
    assert s.moments.n == finite
    assert 0 <= s.zeros <= s.small <= finite
    if not finite:
        assert math.isnan(s.minimum)
        assert math.isnan(s.ks)
        return
    ladder = list(s.quantiles.values())
    assert ladder == sorted(ladder)
    assert s.minimum <= s.moments.mean * (1 + 1e-15) or s.minimum <= s.moments.mean * (1 - 1e-15)
    assert 0 <= s.entropy <= math.log2(finite) + 1e-9
    assert math.isnan(s.ks) or 0 <= s.ks <= 1
    for f in s.filtered:
        assert 0 <= f.kept <= finite
        assert 0 <= f.ratio <= 1 + 1e-12


@pytest.mark.parametrize("dtype", COUNTED)
@given(st.data())
@settings(max_examples=40)
def test_quantiles_never_fall(dtype, data):
    top = (1 << DTYPES[dtype].bits) - 1
    patterns = np.array(data.draw(st.lists(st.integers(0, top), min_size=1, max_size=50)), unsigned(dtype))
    cells = distribution(observe(raw(patterns), DTYPES[dtype]))
    found = quantiles(cells, np.linspace(0, 1, 23))
    assert len(cells) == 0 or (np.diff(found) >= 0).all()
