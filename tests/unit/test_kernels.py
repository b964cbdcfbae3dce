"""Small loops on their own, where a whole summary would not show their last digit."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from engine.kernels.cells import central_sums, gaussian_entropy
from engine.nouns.dtypes import code_table
from engine.sketch import Sketch
from engine.statistics.distribution import distribution

FLOATS = st.lists(st.floats(-1e100, 1e100, allow_subnormal=False), max_size=30)


def total(terms):
    """Their sum, by way of the mean of as many cells."""
    x = np.array(terms, np.float64)
    none = np.zeros(x.size)
    count, mean, *_ = central_sums(np.ones(x.size), x, none, none, none, np.array([[0, x.size]]))
    return count * mean


@example([], [])
@example([1e16], [1.0])
@example([1e100, -1e50], [1.0, 1e-30])
@given(FLOATS, FLOATS)
def test_a_sum_over_cells_survives_cancellation(terms, more):
    whole = [*terms, *more, *(-x for x in terms)]
    spread = len(whole) ** 2 * sum(map(abs, whole)) * 2.0**-104
    assert abs(total(whole) - math.fsum(whole)) <= 2.0**-51 * abs(math.fsum(whole)) + spread


def test_a_sum_over_cells_is_right_for_long_columns():
    powers = np.random.default_rng(2).integers(-8, 8, 100_000)
    x = np.random.default_rng(1).normal(size=100_000) * 10.0**powers
    assert total(x) == pytest.approx(math.fsum(x), rel=1e-15)


def test_moments_of_ranges_are_those_of_their_cells():
    rng = np.random.default_rng(3)
    n, offset, w2, w3, w4 = rng.integers(1, 99, 50).astype(float), *rng.normal(size=(4, 50))
    some = np.r_[3:10, 20:41]
    found = central_sums(n, offset, w2, w3, w4, np.array([[3, 10], [20, 41]]))
    mean = np.average(offset[some], weights=n[some])
    d = offset[some] - mean
    m2 = n[some] @ d**2 + w2[some].sum()
    m3 = n[some] @ d**3 + 3 * d @ w2[some] + w3[some].sum()
    m4 = n[some] @ d**4 + 6 * d**2 @ w2[some] + 4 * d @ w3[some] + w4[some].sum()
    np.testing.assert_allclose(found, [n[some].sum(), mean, m2, m3, m4], rtol=1e-13)


@pytest.mark.parametrize("place", [(-37.0, -5.0), (-8.0, 9.0), (5.0, 37.0)])
def test_the_entropy_of_a_gaussian_is_precise_far_into_its_tails(place):
    edges = np.linspace(*place, 501) * 3.0 + 1.0
    z = (edges - 1.0) / 3.0
    p = np.where(z[:-1] > 0, stats.norm.sf(z[:-1]) - stats.norm.sf(z[1:]), np.diff(stats.norm.cdf(z)))
    expected = -(p * np.log2(p)).sum()
    assert gaussian_entropy(edges, 1.0, 3.0) == pytest.approx(expected, rel=1e-11)


COUNT = st.integers(1, (1 << 31) - 1)
LOW = st.integers(0, 65535)


@example(code=0x3F80, a=65535, b=65534, p=(1 << 31) - 1, q=(1 << 31) - 1)
@example(code=0xBF80, a=0, b=65535, p=(1 << 31) - 1, q=1)
@given(st.integers(0, 0x7F7F) | st.integers(0x8000, 0xFF7F), LOW, LOW, COUNT, COUNT)
def test_the_spread_inside_a_cell_of_billions_is_exact(code, a, b, p, q):
    n, total, squares = p + q, p * a + q * b, p * a * a + q * b * b
    u64 = [np.array([x], np.uint64) for x in (n, total, squares)]
    cells = distribution(Sketch("f32", np.array([code], np.uint16), *u64, 0, 0.0, 0.0))
    step = Fraction(float(code_table("f32").step[code]))
    assert cells.w2[0] == pytest.approx(float(step**2 * Fraction(n * squares - total**2, n)), rel=1e-13)
    assert cells.n[0] == n
