"""Every number of a summary that is exact, against whole-number arithmetic, numpy and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from engine.nouns.dtypes import DTYPES, code_table
from engine.sketch import observe
from engine.statistics.gaussianity import gaussian_entropy_bits
from engine.statistics.moments import Moments
from engine.statistics.quantiles import PROBABILITIES
from engine.statistics.summary import Summary, codes_to_refine, summarise
from tests.builders import COMPLETE, COUNTED, as_f32, raw, refinement_of, values_of
from tests.tensors import NAMES, assert_moments, kept_by_the_filter, patterns, truth

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning:numpy")


def exact_summary(dtype: str, found: np.ndarray) -> Summary:
    """The summary of patterns; for 32-bit floats after a second pass."""
    sketch = observe(raw(found), DTYPES[dtype])
    if sketch.low_sum is None:
        return summarise(sketch)
    with np.errstate(all="ignore"):
        narrow = as_f32(dtype, found)
    return summarise(sketch, refinement_of(narrow, codes_to_refine(sketch)))


@pytest.fixture(scope="module")
def cases() -> dict[tuple[str, str], tuple[Summary, np.ndarray]]:
    return {}


@pytest.fixture
def case(cases, dtype, tensor) -> tuple[Summary, np.ndarray]:
    """The summary and all its values, made once for all tests."""
    if (dtype, tensor) not in cases:
        found = patterns(tensor, dtype)
        cases[dtype, tensor] = exact_summary(dtype, found), values_of(dtype, found)
    return cases[dtype, tensor]


each_tensor = pytest.mark.parametrize("tensor", NAMES)
each_dtype = pytest.mark.parametrize("dtype", COUNTED)
each_complete = pytest.mark.parametrize("dtype", COMPLETE)


@each_tensor
@each_dtype
def test_counts_and_extremes(case):
    s, values = case
    finite = values[np.isfinite(values)]
    assert (s.n, s.nan) == (len(values), np.isnan(values).sum())
    assert (s.pos_inf, s.neg_inf) == ((values == np.inf).sum(), (values == -np.inf).sum())
    assert (s.zeros, s.small) == ((finite == 0).sum(), (np.abs(finite) < 1e-3).sum())
    low, high = (finite.min() + 0.0, finite.max() + 0.0) if len(finite) else (np.nan, np.nan)
    np.testing.assert_equal([s.minimum, s.maximum], [low, high])


@each_tensor
@each_dtype
def test_moments(case):
    s, values = case
    assert_moments(s.moments, values[np.isfinite(values)])
    assert s.error_bound == 0


@each_tensor
@each_dtype
def test_quantiles_are_numpys(case):
    s, values = case
    finite = values[np.isfinite(values)]
    if not len(finite):
        assert all(math.isnan(q) for q in s.quantiles.values())
        return
    with np.errstate(over="ignore"):
        expected = np.quantile(finite, list(PROBABILITIES.values()))
    np.testing.assert_array_equal(list(s.quantiles.values()), expected)


@each_tensor
@each_dtype
def test_filters(case):
    s, values = case
    finite = values[np.isfinite(values)]
    total = truth(finite)
    assert [(f.sigmas, f.floor) for f in s.filtered] == [(3, 0), (3, 1e-3), (2, 0), (2, 1e-3)]
    for f in s.filtered:
        kept = kept_by_the_filter(finite, total, f.sigmas, f.floor)
        assert f.kept == len(kept)
        np.testing.assert_equal(f.ratio, len(kept) / len(finite) if len(finite) else np.nan)
        assert_moments(f.moments, kept)
        assert f.error_bound == 0


@each_tensor
@each_complete
def test_kolmogorov_smirnov_distance_is_scipys(case):
    s, values = case
    finite = values[np.isfinite(values)]
    true = truth(finite)
    expected = stats.kstest(finite, "norm", args=(true.mean, true.std)).statistic if true.std > 0 else np.nan
    np.testing.assert_allclose(s.ks, expected, rtol=0, atol=1e-12)


@each_tensor
@each_complete
def test_entropy_is_that_of_the_values(case):
    s, values = case
    _, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    expected = stats.entropy(counts, base=2) if len(counts) else np.nan
    np.testing.assert_allclose(s.entropy, expected, rtol=0, atol=1e-12)


@each_tensor
@pytest.mark.parametrize("dtype", ["F32", "F64"])
def test_entropy_of_32_bit_floats_is_that_of_the_top_halves(case):
    s, values = case
    tops = values[np.isfinite(values)].astype("<f4").view("<u4") >> 16
    counts = np.unique(tops, return_counts=True)[1]
    expected = stats.entropy(counts, base=2) if len(counts) else np.nan
    np.testing.assert_allclose(s.entropy, expected, rtol=0, atol=1e-12)


def gaussian_entropy(coding: str, mean: float, std: float) -> float:
    """Of a Gaussian rounded to (for 32-bit floats: truncated to the top half of) the coding, by scipy."""
    table = code_table(coding)
    value = table.value[table.order]
    if coding == "f32":
        edges = np.unique(np.concatenate([value, value + 65536 * table.step[table.order]]))
    else:
        value = np.unique(value)
        edges = np.concatenate([[-np.inf], (value[1:] + value[:-1]) / 2, [np.inf]])
    z = (edges - mean) / std
    p = np.where(z[:-1] > 0, -np.diff(stats.norm.sf(z)), np.diff(stats.norm.cdf(z)))
    return float(stats.entropy(np.maximum(p, 0), base=2))


@each_tensor
@each_dtype
def test_entropy_of_the_gaussian_of_the_same_moments(case, dtype, tensor):
    # in "two neighbours" the mean lies on the edge of two cells that are wider than sigma
    s, values = case
    true = truth(values[np.isfinite(values)])
    coding = DTYPES[dtype].coding.name
    if not true.std > 0:
        assert math.isnan(s.gaussian_entropy)
    elif tensor != "huge":  # of a Gaussian that leaves the range of the coding it depends on the overflow
        assert s.gaussian_entropy == pytest.approx(gaussian_entropy(coding, true.mean, true.std), abs=1e-5)


@pytest.mark.parametrize("mean", [1.0, 1.00390625, -1.00390625, 0.0])
@pytest.mark.parametrize("std", [1e-8, 1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("coding", ["bf16", "f16", "f32", "f8_e4m3"])
def test_entropy_of_gaussians_on_the_edge_of_a_cell(coding, mean, std):
    found = gaussian_entropy_bits(coding, Moments(1.0, mean, std**2, 0.0, 3 * std**4))
    assert found == pytest.approx(gaussian_entropy(coding, mean, std), abs=1e-5)
