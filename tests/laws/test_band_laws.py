"""The laws of bands: whatever the cuts, the order and the blocks, the same bits; and numpy's numbers."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.bands.counter import BandCounter
from engine.bands.gathering import combine_bands
from engine.bands.known import Bands, add_columns, as_float
from engine.bands.packing import pack_bands, unpack_bands
from engine.nouns.matrices import Matrix
from tests.builders import patterns_of, values_of

KINDS = {"BF16": np.uint16, "F16": np.int16, "F32": np.float32}
SHAPES = [(1, 1), (1, 700), (700, 1), (3, 2), (130, 65), (2050, 3), (40, 1030), (9, 40000)]


def drawn(dtype: str, shape: tuple[int, int], seed: int, mean: float = 0.0) -> NDArray[Any]:
    values = np.random.default_rng(seed).normal(mean, 0.02, shape)
    return patterns_of(dtype, values.ravel()).view(KINDS[dtype])


def measured(matrix: Matrix, values: NDArray[Any], first: int = 0, cuts: list[int] | None = None) -> Bands:
    """Some elements of a matrix, given block by block."""
    counter = BandCounter(matrix, first)
    for start, stop in pairwise([0, *sorted(cuts or []), values.size]):
        counter.add(values[start:stop])
    return counter.bands()


def assert_equal(a: Bands, b: Bands) -> None:
    assert pack_bands(a) == pack_bands(b)  # which is all of it


@settings(max_examples=60)
@given(
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from(list(KINDS)),
    seed=st.integers(0, 2**32 - 1),
    places=st.lists(st.floats(0, 1), max_size=5),
    blocks=st.lists(st.floats(0, 1), max_size=3),
    order=st.randoms(use_true_random=False),
)
@example((2050, 3), "BF16", 0, [0.5, 0.49993], [], None)
def test_no_cut_and_no_order_shows(shape, dtype, seed, places, blocks, order):
    matrix = Matrix(*shape)
    values = drawn(dtype, shape, seed)
    whole = measured(matrix, values)
    edges = [0, *sorted({round(p * values.size) for p in places}), values.size]
    parts = [
        measured(matrix, values[a:b], a, [round(x * (b - a)) for x in blocks]) for a, b in pairwise(edges)
    ]
    if order is not None:
        order.shuffle(parts)
    assert_equal(reduce(combine_bands, parts), whole)
    if len(parts) > 2:  # associative too, and through bytes
        head, *rest = parts
        tail = unpack_bands(pack_bands(reduce(combine_bands, rest)))
        assert_equal(combine_bands(head, tail), whole)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [0.0, 0.05, 30.0])
def test_sums_are_those_of_numpy(dtype, shape, mean):
    values = drawn(dtype, shape, 7, mean)
    x = values_of(dtype, values.view(f"<u{values.itemsize}")).reshape(shape)
    bands = measured(Matrix(*shape), values)
    assert bands.whole is not None
    columns = add_columns(bands.whole)
    scale = float((x * x).sum()) + 1e-30
    for found, expected in (
        (bands.whole.of_rows, (x.sum(1), (x * x).sum(1))),
        (columns, (x.sum(0), (x * x).sum(0))),
    ):
        np.testing.assert_allclose(found[1], expected[1], rtol=2e-6)
        np.testing.assert_allclose(found[0], expected[0], rtol=2e-6, atol=1e-7 * np.abs(x).sum())
    assert as_float(bands.across) == pytest.approx((x[:, 1:] * x[:, :-1]).sum(), abs=1e-6 * scale)
    assert as_float(bands.down) == pytest.approx((x[1:] * x[:-1]).sum(), abs=1e-6 * scale)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e15, 1e30])
def test_what_float32_squares_cannot_hold_is_measured_all_the_same(scale):
    x = (np.random.default_rng(0).normal(size=(24, 70)) * scale).astype(np.float32)
    whole = measured(Matrix(24, 70), x.ravel()).whole
    assert whole is not None
    wide = x.astype(np.float64)
    np.testing.assert_allclose(whole.of_rows[1], (wide * wide).sum(1), rtol=2e-6)
    np.testing.assert_allclose(add_columns(whole)[1], (wide * wide).sum(0), rtol=2e-6)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("places", [[], [0], [1234], [2602]])
def test_bands_of_zeros_are_those_of_zeros(dtype, places):
    matrix = Matrix(2603, 300)  # of which most are +0, and some -0
    values = np.zeros(matrix.elements, KINDS[dtype])
    x = np.zeros((matrix.rows, matrix.columns))
    for row in places:
        values[row * 300 : row * 300 + 2] = patterns_of(dtype, [-0.0, 0.5]).view(KINDS[dtype])
        x[row, 1] = 0.5
    whole = measured(matrix, values).whole
    assert whole is not None
    assert (whole.of_rows == [x.sum(1), (x * x).sum(1)]).all()
    assert (add_columns(whole) == [x.sum(0), (x * x).sum(0)]).all()


def test_a_mean_far_above_sigma_keeps_its_digits():
    x = np.random.default_rng(0).normal(100, 1e-3, (40, 300)).astype(np.float32)
    whole = measured(Matrix(40, 300), x.ravel()).whole
    assert whole is not None
    wide = x.astype(np.float64)
    variance = whole.of_rows[1] / 300 - (whole.of_rows[0] / 300) ** 2
    np.testing.assert_allclose(variance, wide.var(1), rtol=1e-4)


@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", KINDS)
def test_what_is_no_number_breaks_a_matrix_wherever_it_is(what, dtype):
    matrix = Matrix(50, 30)
    values = drawn(dtype, (50, 30), 0)
    values[777:778] = patterns_of(dtype, [what]).view(KINDS[dtype])
    parts = [measured(matrix, values[a:b], a) for a, b in ((0, 700), (700, 800), (800, 1500))]
    assert [p.broken for p in parts] == [False, False, False]  # its band is not there yet
    assert_equal(reduce(combine_bands, parts), Bands(matrix, broken=True))
    assert_equal(measured(matrix, values), Bands(matrix, broken=True))


def test_different_matrices_are_not_put_together():
    with pytest.raises(ValueError, match="cannot combine"):
        combine_bands(Bands(Matrix(2, 3)), Bands(Matrix(3, 2)))
