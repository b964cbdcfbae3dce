"""Magnitudes by rank, from counts and the low halves of two codes, against sorting."""

from __future__ import annotations

import numpy as np
import pytest

from engine.nouns.dtypes import DTYPES
from engine.sketch import observe
from engine.statistics.magnitudes import locate
from engine.tasks.lockstep import Elements
from engine.tasks.ranks import BandSink
from tests.builders import nasty_patterns, raw


def sorted_magnitudes(patterns: np.ndarray) -> np.ndarray:
    """Magnitudes in order, NaN as infinite."""
    with np.errstate(invalid="ignore"):
        sizes = np.sort(np.abs(patterns.view(np.float32)))
    return np.where(np.isnan(sizes), np.inf, sizes)


def found(patterns: np.ndarray, low: int, high: int) -> tuple[float, float]:
    sketch = observe(raw(patterns), DTYPES["F32"])
    sink = BandSink((locate(sketch, low), locate(sketch, high)))
    sink.add(patterns[: patterns.size // 2])
    sink.add(patterns[patterns.size // 2 :])
    return sink.take()


@pytest.mark.parametrize("name", ["nasty", "gauss", "equal", "zeros"])
def test_every_rank_is_that_of_sorting(name):
    r = np.random.default_rng(0)
    patterns = {
        "nasty": nasty_patterns("F32"),
        "gauss": r.normal(0, 1e-3, 5000).astype("<f4").view("<u4"),
        "equal": np.full(300, 1.5, "<f4").view("<u4"),
        "zeros": np.where(r.random(999) < 0.7, 0, r.normal(0, 1, 999)).astype("<f4").view("<u4"),
    }[name]
    expected, size = sorted_magnitudes(patterns), patterns.size
    for low, high in [
        (0, size - 1),
        (size // 2, size - 1),
        (size // 3, size // 3),
        *r.integers(0, size, (20, 2)),
    ]:
        assert found(patterns, int(low), int(high)) == (expected[low], expected[high])


def test_differences_of_bf16_are_counted_as_they_are_formed():
    r = np.random.default_rng(1)
    tuned, base = (r.normal(0, 1, 4000).astype("<f4").view("<u4") >> 16 for _ in range(2))
    tuned, base = tuned.astype("<u2"), base.astype("<u2")
    a, b = ((x.astype("<u4") << 16).view("<f4") for x in (tuned, base))
    patterns = (a - b).view("<u4")
    sketch, expected = observe(raw(patterns), DTYPES["F32"]), sorted_magnitudes(patterns)
    sink = BandSink((locate(sketch, 1000), locate(sketch, 3000)))
    assert sink.subtract(Elements("BF16", tuned), Elements("BF16", base))
    assert sink.take() == (expected[1000], expected[3000])


def test_zeros_that_were_not_looked_at_count():
    sketch = observe(raw(np.array([0, 0, 0, 1, 2], "<f4").view("<u4")), DTYPES["F32"])
    sink = BandSink((locate(sketch, 1), locate(sketch, 4)))
    sink.add_zeros(3)
    sink.add(np.array([1, 2], "<f4").view("<u4"))
    assert sink.take() == (0.0, 2.0)
    nothing = BandSink(None)
    nothing.add_zeros(5)
    assert nothing.take() == (np.inf, np.inf)


def test_there_is_no_rank_beyond_the_last():
    sketch = observe(raw(np.zeros(3, "<u4")), DTYPES["F32"])
    with pytest.raises(ValueError, match="there is no rank 3 among 3"):
        locate(sketch, 3)
