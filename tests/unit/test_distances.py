"""Wasserstein-1 and Kolmogorov-Smirnov between two tensors, against scipy on the elements themselves."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from engine.nouns.dtypes import DTYPES
from engine.sketch import observe
from engine.statistics.distance import Distance, distance
from engine.statistics.distribution import Distribution, distribution, points
from tests.builders import COMPLETE, COUNTED, every_code, nasty_patterns, patterns_of, raw, values_of

Array = NDArray[Any]

WIDE = [d for d in COUNTED if d not in COMPLETE]
PAIRS = [*itertools.combinations_with_replacement(COUNTED, 2)]


def cells(dtype: str, patterns: Array) -> Distribution:
    return distribution(observe(raw(patterns), DTYPES[dtype]))


def truth(x: Array, y: Array) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # only the p-value is approximate, which is not used
        return stats.wasserstein_distance(x, y), stats.ks_2samp(x, y, method="asymp").statistic


def assert_right(found: Distance, x: Array, y: Array) -> None:
    w1, ks = truth(x, y)
    scale = max(np.abs(x).max(), np.abs(y).max())
    assert abs(found.w1 - w1) <= found.w1_error + 1e-12 * (w1 + scale)
    assert abs(found.ks - ks) <= found.ks_error + 1e-12


def measured(dtype_a: str, a: Array, dtype_b: str, b: Array) -> tuple[Distance, Array, Array]:
    x, y = values_of(dtype_a, a), values_of(dtype_b, b)
    return (
        distance(cells(dtype_a, a), cells(dtype_b, b)),
        x[np.isfinite(x)].ravel(),
        y[np.isfinite(y)].ravel(),
    )


def samples(seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.02, 5000)
    return {
        "gaussian": x,
        "tuned": x + rng.normal(0, 1e-4, 5000),
        "fewer": x[:700],
        "wide": 3 * x,
        "sparse": np.where(rng.random(5000) < 0.6, 0, x),
        "shifted": 1 + x,
        "one": np.array([0.02]),
        "constant": np.full(9, 1 / 3),
        "heavy": rng.standard_t(2, 3000) * 0.01,
    }


@pytest.mark.parametrize(("dtype_a", "dtype_b"), PAIRS)
def test_the_truth_lies_within_the_error_for_every_pair_of_dtypes(dtype_a, dtype_b):
    others = samples(0)
    for x, y in itertools.combinations_with_replacement(others.values(), 2):
        found, a, b = measured(dtype_a, patterns_of(dtype_a, x), dtype_b, patterns_of(dtype_b, y))
        assert_right(found, a, b)
        if dtype_a in COMPLETE and dtype_b in COMPLETE:
            assert (found.w1_error, found.ks_error) == (0, 0)


@pytest.mark.parametrize(("dtype_a", "dtype_b"), PAIRS)
def test_zeros_of_both_signs_subnormals_and_extremes(dtype_a, dtype_b):
    for make_a, make_b in itertools.product((nasty_patterns, every_code), repeat=2):
        found, a, b = measured(dtype_a, make_a(dtype_a), dtype_b, make_b(dtype_b))
        assert_right(found, a, b)


@pytest.mark.parametrize("dtype", COUNTED)
def test_equal_distributions_are_at_no_distance(dtype):
    for x in samples(1).values():
        a = cells(dtype, patterns_of(dtype, x))
        assert (distance(a, a).w1, distance(a, a).ks) == (0, 0)
        twice = cells(dtype, np.concatenate([patterns_of(dtype, x)] * 2))
        assert distance(a, twice).w1 == pytest.approx(0, abs=1e-17)


def test_the_two_zeros_are_one_value():
    a, b = cells("BF16", np.array([0x8000, 0x3F80], "<u2")), cells("F32", np.array([0, 0x3F800000], "<u4"))
    assert distance(a, b) == Distance(0, 0, 0, 0)


def test_16_bit_values_that_are_stored_in_32_bits_are_compared_exactly():
    x = samples(2)
    narrow = patterns_of("BF16", x["gaussian"])
    wide = values_of("BF16", narrow).astype("<f4").view("<u4")
    assert distance(cells("BF16", narrow), cells("F32", wide)) == Distance(0, 0, 0, 0)
    found, a, b = measured("BF16", patterns_of("BF16", x["tuned"]), "F32", wide)
    assert (found.w1_error, found.ks_error) == (0, 0)
    assert_right(found, a, b)


@pytest.mark.parametrize("other", ["F32", "BF16", "F16"])
def test_smooth_32_bit_distributions_are_measured_far_better_than_the_error_says(other):
    rng = np.random.default_rng(3)
    x = rng.normal(0, 0.02, 200_000)
    found, a, b = measured("F32", patterns_of("F32", x), other, patterns_of(other, 1.01 * x))
    w1, ks = truth(a, b)
    assert found.w1 == pytest.approx(w1, rel=2e-3)
    assert found.ks == pytest.approx(ks, abs=2e-4)
    assert found.w1_error < 0.005 * 0.02


def test_32_bit_distributions_that_do_not_overlap_are_compared_exactly():
    rng = np.random.default_rng(4)
    x, y = rng.normal(1, 1e-3, 3000), rng.normal(-1, 1e-3, 3000)
    found, a, b = measured("F32", patterns_of("F32", x), "F32", patterns_of("F32", y))
    assert (found.w1, found.ks) == (pytest.approx(a.mean() - b.mean(), rel=1e-12), 1)
    assert found.w1_error <= 1e-15
    assert found.ks_error == 0


def test_a_shift_of_all_is_the_distance_by_which_they_were_shifted():
    a = points(np.array([0.0, 1.0, 5.0]), np.array([1.0, 2.0, 1.0]))
    b = points(np.array([0.25, 1.25, 5.25]), np.array([10.0, 20.0, 10.0]))
    assert distance(a, b) == Distance(0.25, 0, 0.5, 0)


def test_nothing_is_at_no_known_distance():
    nothing, some = cells("F32", np.array([0x7FC00000], "<u4")), cells("BF16", np.array([0x3F80], "<u2"))
    for found in (distance(nothing, some), distance(some, nothing), distance(nothing, nothing)):
        assert all(math.isnan(v) for v in (found.w1, found.w1_error, found.ks, found.ks_error))


@pytest.mark.parametrize("dtype", WIDE)
def test_elements_far_below_the_median_keep_their_place(dtype):
    x = np.array([1e-6, 1e-5, 1.0, 1.0, 1.5])
    found, a, b = measured(
        dtype, patterns_of(dtype, x), dtype, patterns_of(dtype, [1e-6, 1e-5, 2.0, 2.0, 2.5])
    )
    assert_right(found, a, b)
    assert found.ks == 0.6
