"""Small loops on their own, where a whole summary would not show their last digit."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from engine.kernels.reals import compensated_sum, normal_cdf
from engine.nouns.dtypes import code_table
from engine.sketch import Sketch
from engine.statistics.distribution import distribution

FLOATS = st.lists(st.floats(-1e100, 1e100, allow_subnormal=False), max_size=30)


@example([], [])
@example([1e16], [1.0])
@example([1e100, -1e50], [1.0, 1e-30])
@given(FLOATS, FLOATS)
def test_a_compensated_sum_survives_cancellation(terms, more):
    whole = [*terms, *more, *(-x for x in terms)]
    found = compensated_sum(np.array(whole, np.float64))
    spread = len(whole) ** 2 * sum(map(abs, whole)) * 2.0**-104
    assert abs(found - math.fsum(whole)) <= 2.0**-52 * abs(math.fsum(whole)) + spread


def test_a_compensated_sum_adds_long_columns():
    x = np.random.default_rng(1).normal(size=100_000) * 10.0 ** np.random.default_rng(2).integers(
        -8, 8, 100_000
    )
    assert compensated_sum(x) == pytest.approx(math.fsum(x), rel=1e-15)


def test_the_normal_cdf_is_precise_far_into_the_lower_tail():
    z = np.concatenate([np.linspace(-37, 9, 2001), [-np.inf, np.inf, 0.0]])
    np.testing.assert_allclose(normal_cdf(z), stats.norm.cdf(z), rtol=2e-13, atol=0)


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
