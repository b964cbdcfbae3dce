"""Histograms from counts: exact at the edges that are chosen, close at any others."""

from __future__ import annotations

import numpy as np
import pytest

from engine.nouns.dtypes import DTYPES
from engine.sketch import combine, empty, observe
from engine.statistics.histogram import between_values, histogram
from tests.builders import patterns_of, values_of


def sketch_of(dtype: str, values: np.ndarray):
    patterns = patterns_of(dtype, values)
    return observe(patterns.view(np.uint8), DTYPES[dtype]), values_of(dtype, patterns)


VALUES = {
    "gaussian": np.random.default_rng(0).normal(0, 0.02, 50_000),
    "far from zero": np.random.default_rng(1).normal(1, 0.01, 20_000),
    "sparse": np.where(np.arange(20_000) % 3, 0.0, np.random.default_rng(2).normal(0, 0.1, 20_000)),
    "signed zeros": np.array([0.0, -0.0, 1e-30, -1e-30, 0.5, -0.5]),
    "with infinities": np.array([np.inf, -np.inf, np.nan, 0.25, 0.5, -0.25]),
}


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F8_E4M3", "F8_E5M2"])
@pytest.mark.parametrize("kind", VALUES)
def test_counts_between_values_are_exact(dtype, kind):
    sketch, stored = sketch_of(dtype, VALUES[kind])
    finite = stored[np.isfinite(stored)].astype(np.float64)
    edges = finite.mean() + max(finite.std(), 1e-6) * np.linspace(-4.5, 4.5, 65)
    edges = between_values(edges, sketch.coding)
    found = histogram([sketch], edges)
    assert (np.diff(edges) > 0).all()
    inside = finite[finite < edges[-1]]  # numpy counts what equals the last edge too
    assert np.array_equal(found.n, np.histogram(inside, edges)[0])
    assert found.total == len(finite)


def test_the_density_has_no_comb_although_values_lie_far_apart():
    sketch, _ = sketch_of("BF16", np.random.default_rng(3).normal(0, 0.02, 1_000_000))
    edges = between_values(0.02 * np.linspace(-3, 3, 61), "bf16")
    found = histogram([sketch], edges)
    z = (edges[1:] + edges[:-1]) / 2 / 0.02
    expected = np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    assert np.abs(found.density * 0.02 - expected).max() < 0.006


def test_cells_that_an_edge_cuts_are_split_evenly():
    sketch, stored = sketch_of("F32", np.random.default_rng(4).uniform(0.5, 1, 100_000))
    edges = np.array([0.5, 0.61803, 0.7071, 1.0])
    found = histogram([sketch], edges)
    expected = np.histogram(stored, edges)[0]
    assert found.n == pytest.approx(expected, abs=60)  # a cell has some 780 elements
    assert found.n.sum() == pytest.approx(100_000, abs=1)


def test_several_tensors_add_up():
    a, _ = sketch_of("BF16", VALUES["gaussian"])
    b, _ = sketch_of("BF16", VALUES["sparse"])
    edges = np.linspace(-0.1, 0.1, 30)
    together = histogram([a, b], edges)
    assert np.array_equal(together.n, histogram([combine(a, b)], edges).n)
    assert together.total == 70_000


def test_of_nothing_there_is_nothing():
    found = histogram([empty("f32"), empty("bf16")], np.array([0.0, 1.0]))
    assert found.total == 0
    assert found.n.tolist() == [0]
    assert found.density.tolist() == [0]


def test_edges_closer_than_values_become_one():
    edges = between_values(np.linspace(1.001, 1.003, 50), "bf16")
    assert edges.tolist() == [1.00390625]  # half-way between 1 and 1.0078125
