"""Limits of chance: what tails say, what noise keeps to, and what is found."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from engine.bands.counter import BandCounter
from engine.nouns.dtypes import DTYPES
from engine.nouns.matrices import (
    MOST_COLUMNS,
    MOST_ROWS,
    Matrix,
    as_matrix,
    measured_matrix,
    spectrum_matrix,
    why_unmeasured,
)
from engine.nouns.records import TensorInfo
from engine.sketch import observe
from engine.statistics.distribution import distribution
from engine.statistics.iid import Iid, judge
from engine.statistics.moments import moments
from engine.statistics.spectrum import compare_spectrum, marchenko_pastur, spectrum
from engine.statistics.tails import beta_quantile, gamma_quantile, mean_limit, squares


def judged(x: NDArray[Any], dtype: str = "F32") -> Iid:
    values = x.astype(np.float16).view(np.int16) if dtype == "F16" else x.astype(np.float32)
    counter = BandCounter(Matrix(*x.shape), 0)
    counter.add(values.ravel())
    cells = distribution(observe(values.ravel().view(np.uint8), DTYPES[dtype]))
    return judge(counter.bands(), cells, moments(cells))


def noise(*shape: int, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(0, 0.02, shape)


def outside(iid: Iid) -> set[str]:
    found = {
        n for n, lag in (("row lag", iid.row_lag), ("column lag", iid.column_lag)) if abs(lag.r) > lag.limit
    }
    for name, lines in (("row", iid.row), ("column", iid.column)):
        if not lines.low <= lines.spread <= lines.high:
            found.add(f"{name} spread")
        if lines.outliers:
            found.add(f"outlier {name}s")
    return found


# Tails


@pytest.mark.parametrize("p", [0.025, 0.5, 0.975])
@pytest.mark.parametrize(
    ("a", "b"), [(0.5, 60.0), (3.5, 28.0), (31.5, 8000.0), (255.5, 3840.0), (999.5, 1000.0)]
)
def test_quantiles_of_a_beta_variable(p, a, b):
    sigma = stats.beta.std(a, b)
    assert beta_quantile(p, a, b) == pytest.approx(stats.beta.ppf(p, a, b), abs=1e-2 * sigma)


@pytest.mark.parametrize("shape", [0.5, 3.0, 80.0])
@pytest.mark.parametrize("p", [1e-3, 0.3, 0.999])
def test_quantiles_of_a_gamma_variable(p, shape):
    assert gamma_quantile(p, shape) == pytest.approx(special.gammaincinv(shape, p), rel=1e-9)


@pytest.mark.parametrize("size", [8, 64, 4096])
@pytest.mark.parametrize("p", [1e-2, 1e-6])
@pytest.mark.parametrize("upper", [True, False])
def test_limits_of_a_mean_of_squares_are_those_of_chi_square(size, p, upper):
    z = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    found = mean_limit(squares(z * z, np.ones(len(z))), size, p, upper=upper)
    expected = (stats.chi2.isf if upper else stats.chi2.ppf)(p, size) / size
    assert abs(found - expected) < 0.02 * abs(expected - 1)


# Laws


@pytest.mark.parametrize("shape", [(64, 256), (300, 12)])
def test_noise_is_inside_each_limit_as_often_as_they_say(shape):
    rng, trials = np.random.default_rng(1), 250
    count: Counter[str] = Counter()
    for _ in range(trials):
        count.update(outside(judged(rng.normal(0, 0.02, shape))))
    limits = stats.binom.ppf([1e-4, 1 - 1e-4], trials, 0.05)
    names = ("row lag", "column lag", "row spread", "column spread", "outlier rows", "outlier columns")
    assert {name: count[name] for name in names if not limits[0] <= count[name] <= limits[1]} == {}


def test_heavy_tails_alone_are_no_departure():
    rng, trials = np.random.default_rng(2), 150
    count: Counter[str] = Counter()
    for _ in range(trials):
        count.update(outside(judged(rng.standard_t(5, (64, 256)))))
    assert max(count.values()) <= stats.binom.ppf(1 - 1e-4, trials, 0.06)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(64, 256), (512, 16), (17, 1000), (32, 32), (300, 4), (4, 300)])
@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_noise_is_inside_each_limit_in_95_of_100_of_a_thousand(shape, dtype):
    rng, trials = np.random.default_rng(3), 1000
    count: Counter[str] = Counter()
    for _ in range(trials):
        count.update(outside(judged(rng.normal(0, 0.02, shape), dtype)))
    assert {name: n for name, n in count.items() if not 30 <= n <= 70} == {}


# Numbers


def test_correlations_are_those_of_numpy():
    x = noise(60, 80) + 0.01
    x[:, 1:] += 0.3 * x[:, :-1]
    iid = judged(x)
    z = x.astype(np.float32).astype(np.float64)
    z -= z.mean()
    n = z.size
    across = (z[:, 1:] * z[:, :-1]).mean() / z.var() + 1 / (n - 1)
    down = (z[1:] * z[:-1]).mean() / z.var() + 1 / (n - 1)
    assert iid.row_lag.r == pytest.approx(across, abs=1e-7)
    assert iid.column_lag.r == pytest.approx(down, abs=1e-7)
    assert outside(iid) >= {"row lag"}
    assert iid.row_lag.limit == pytest.approx(1.96 / math.sqrt(60 * 79), rel=0.02)


def test_the_variance_of_a_lag_is_that_of_all_orders():
    x = np.random.default_rng(0).laplace(size=(6, 7))
    rng = np.random.default_rng(1)
    shuffled = [judged(rng.permutation(x.ravel()).reshape(6, 7)) for _ in range(600)]
    for lag in ("row_lag", "column_lag"):
        found = np.array([getattr(one, lag).r for one in shuffled])
        assert found.mean() == pytest.approx(0, abs=4 * found.std() / math.sqrt(600))
        assert found.std() == pytest.approx(getattr(shuffled[0], lag).limit / 1.96, rel=0.12)


def test_a_row_and_a_column_that_are_planted_are_named():
    x = noise(200, 300)
    x[17] *= 1.8
    x[:, 250] *= 0.4
    iid = judged(x)
    assert (iid.row.outliers, iid.row.worst) == (1, 17)
    assert (iid.column.outliers, iid.column.worst) == (1, 250)
    z = x.astype(np.float32).astype(np.float64)
    z -= z.mean()
    assert iid.row.ratio == pytest.approx(math.sqrt((z[17] ** 2).mean()) / z.std(), rel=1e-6)
    assert outside(iid) == {"row spread", "column spread", "outlier rows", "outlier columns"}


def test_sigmas_that_vary_are_measured():
    sigmas = np.random.default_rng(5).normal(1, 0.1, (400, 1))
    iid = judged(noise(400, 500) * sigmas)
    assert iid.row.sigma_cv == pytest.approx(0.1, rel=0.15)
    assert iid.column.sigma_cv < 0.02
    assert "row spread" in outside(iid)
    assert (
        judged(np.tile(noise(1, 500), (400, 1))).row.spread < 0.01
    )  # rows that are alike are none of chance's


def test_a_dead_column_is_an_outlier():
    x = noise(100, 100)
    x[:, 3] = 0
    assert (judged(x).column.outliers, judged(x).column.worst) == (1, 3)


# What is not defined


def test_a_vector_has_neighbours_in_its_row_alone():
    iid = judged(noise(1, 500))
    assert abs(iid.row_lag.r) < 0.2
    assert math.isnan(iid.column_lag.r)
    assert (iid.row.outliers, iid.column.outliers) == (None, None)


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (np.ones((8, 8)), "all elements are equal"),
        (np.zeros((8, 8)), "all elements are equal"),
        (np.full((8, 8), np.nan), "NaN or infinities"),
        (np.ones((1, 3)) * [1, 2, 3], "too few elements"),
    ],
)
def test_what_has_no_numbers_says_why(x, reason):
    iid = judged(x)
    assert iid.reason == reason
    assert math.isnan(iid.row_lag.r)
    assert iid.row.outliers is None


def test_signs_alone_have_neighbours_but_no_sigmas():
    iid = judged(np.random.default_rng(0).permutation(np.repeat([-1.0, 1.0], 1000)).reshape(40, 50))
    assert abs(iid.row_lag.r) < 0.2
    assert math.isnan(iid.row.spread)


def test_counts_that_do_not_resolve_sigma_are_not_judged_by():
    iid = judged(np.random.default_rng(0).normal(1000, 0.1, (50, 60)))
    assert iid.reason is not None
    assert "too far above sigma" in iid.reason
    assert abs(iid.row_lag.r) < 0.2


# Shapes


@pytest.mark.parametrize(
    ("shape", "matrix"),
    [
        ((), None),
        ((0, 4), None),
        ((5,), (1, 5)),
        ((7, 5), (7, 5)),
        ((8, 100, 64), (800, 64)),
        ((64, 3, 7, 7), (192, 49)),
        ((512, 256, 3, 3), (512, 2304)),
        ((16, 2, 2), (16, 4)),
    ],
)
def test_shapes_as_matrices(shape, matrix):
    found = as_matrix(shape)
    assert (found and (found.rows, found.columns)) == matrix


def test_what_is_not_measured():
    info = TensorInfo("w", "F32", (64, 64), 0, 0, 4 * 64 * 64)
    assert measured_matrix(info) == Matrix(64, 64)
    large = [(MOST_ROWS + 1, 32), (2, MOST_COLUMNS + 1)]
    assert all("more than" in (why_unmeasured(TensorInfo("w", "F32", s, 0, 0, 0)) or "") for s in large)
    assert why_unmeasured(TensorInfo("w", "I64", (4, 4), 0, 0, 0)) == "integer"
    assert "order" in (why_unmeasured(TensorInfo("w", "F32", (4, 4), 0, 0, 64, ordered=False)) or "")
    assert spectrum_matrix(info, 64) == Matrix(64, 64)
    assert spectrum_matrix(info, 63) is None


# Singular values


def test_the_law_is_the_integral_of_its_density():
    for ratio in (1.0, 0.5, 0.1):
        low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
        x = np.linspace(low, high, 400_001)[1:-1]
        density = np.sqrt((high - x) * (x - low)) / (2 * math.pi * ratio * x)
        upto = np.cumsum(density) * (x[1] - x[0])
        np.testing.assert_allclose(marchenko_pastur(x, ratio), upto, atol=2e-3)
    assert marchenko_pastur(np.array([-1.0, 0.0, 5.0]), 0.5).tolist() == [0, 0, 1]


@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (64, 64)])
def test_singular_values_of_noise_are_inside(shape):
    rng, trials = np.random.default_rng(4), 200
    count: Counter[str] = Counter()
    for _ in range(trials):
        one = spectrum(rng.normal(0.1, 1, shape).astype(np.float32))
        count.update({"distance": one.distance > one.limit, "beyond": one.beyond > 0})
    limits = stats.binom.ppf([1e-4, 1 - 1e-4], trials, 0.05)
    assert all(limits[0] <= n <= limits[1] for n in count.values())


def test_a_part_of_low_rank_is_found_and_counted():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 300))
    x += 3 * math.sqrt(300) / math.sqrt(200 * 300) * rng.normal(size=(200, 2)) @ rng.normal(size=(2, 300))
    one = spectrum(x.astype(np.float32))
    assert (one.values, one.beyond) == (200, 2)
    assert one.ratio > 1.3
    values = np.linalg.svd((x - x.mean()).astype(np.float32), compute_uv=False)[::-1] ** 2
    other = compare_spectrum(values / values.mean() * 300, 200, 300)
    assert (one.distance, one.ratio) == pytest.approx((other.distance, other.ratio), rel=1e-4)


@pytest.mark.parametrize("x", [np.ones((20, 20)), np.full((20, 20), np.inf)])
def test_what_has_no_spectrum(x):
    assert spectrum(x.astype(np.float32)).values == 0
