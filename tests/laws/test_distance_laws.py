"""Laws of the distances between distributions: a metric, and blind to how the elements were counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.nouns.dtypes import DTYPES
from engine.sketch import combine, observe
from engine.statistics.distance import distance
from engine.statistics.distribution import Distribution, distribution, points
from tests.builders import COMPLETE, COUNTED, raw, unsigned

MULTISETS = st.lists(st.integers(-400, 400).map(lambda k: k / 64), min_size=1, max_size=30)


def cells(values: list[float]) -> Distribution:
    distinct, n = np.unique(values, return_counts=True)
    return points(distinct, n.astype(np.float64))


def some_patterns(data: st.DataObject, dtype: str) -> np.ndarray:
    top = (1 << DTYPES[dtype].bits) - 1
    near = st.integers(0, 3).map(lambda k: top // 4 + k * (top // 4000))  # that share a cell or nearly so
    return np.array(
        data.draw(st.lists(st.one_of(st.integers(0, top), near), min_size=1, max_size=40)), unsigned(dtype)
    )


@given(MULTISETS, MULTISETS, MULTISETS)
def test_distances_are_metrics(x, y, z):
    a, b, c = cells(x), cells(y), cells(z)
    ab, ba, bc, ac = distance(a, b), distance(b, a), distance(b, c), distance(a, c)
    assert ab == ba
    assert ac.w1 <= ab.w1 + bc.w1 + 1e-12
    assert ac.ks <= ab.ks + bc.ks + 1e-12
    assert 0 <= ab.ks <= 1
    assert ab.w1 >= 0
    equal = np.array_equal(a.low, b.low) and np.allclose(a.n / a.n.sum(), b.n / b.n.sum(), rtol=1e-15)
    assert (ab.w1 < 1e-14) == (ab.ks < 1e-14) == equal
    assert (distance(a, a).w1, distance(a, a).ks) == (0, 0)


@given(MULTISETS, MULTISETS, st.integers(-8, 8), st.sampled_from([0.25, 2.0, -1.0]))
def test_w1_moves_with_the_unit_and_not_with_the_origin(x, y, shift, factor):
    plain = distance(cells(x), cells(y))
    moved = distance(cells([factor * v + shift for v in x]), cells([factor * v + shift for v in y]))
    assert moved.w1 == pytest.approx(abs(factor) * plain.w1, abs=1e-12)
    assert moved.ks == pytest.approx(plain.ks, abs=1e-12)


@given(MULTISETS, MULTISETS)
def test_w1_is_at_least_the_distance_of_the_means(x, y):
    assert distance(cells(x), cells(y)).w1 >= abs(np.mean(x) - np.mean(y)) - 1e-12


@pytest.mark.parametrize("other", ["BF16", "F32"])
@pytest.mark.parametrize("dtype", COUNTED)
@given(st.data())
@settings(max_examples=30)
def test_parts_that_are_counted_apart_are_at_the_distance_of_the_whole(dtype, other, data):
    x, y = some_patterns(data, dtype), some_patterns(data, other)
    cut = data.draw(st.integers(0, len(x)))
    kind = DTYPES[dtype]
    whole = distribution(observe(raw(x), kind))
    parts = distribution(combine(observe(raw(x[cut:]), kind), observe(raw(x[:cut]), kind)))
    there = distribution(observe(raw(y), DTYPES[other]))
    assert repr(distance(whole, there)) == repr(distance(parts, there))
    one, two = distance(whole, there), distance(there, whole)
    for number in ("w1", "w1_error", "ks", "ks_error"):  # sums are taken in the order of the first
        unit = one.w1 if number.startswith("w1") and np.isfinite(one.w1) else 1.0
        a, b = getattr(one, number), getattr(two, number)
        assert a == pytest.approx(b, rel=1e-12, abs=1e-12 * unit, nan_ok=True), number
    if len(whole) and len(there):
        assert one.w1_error >= 0
        assert 0 <= one.ks <= 1 + 1e-12
        if dtype in COMPLETE and other in COMPLETE:
            assert (one.w1_error, one.ks_error) == (0, 0)
