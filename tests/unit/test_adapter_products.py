"""The kernels of products: their bits, whatever the block that is formed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels import products
from tests.adapters import product

QUIET = 0x7FC00000


def matrices(rows: int, columns: int, rank: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, rank)).astype("<f4"), rng.normal(size=(rank, columns)).astype("<f4")


def formed(b, a, scale=1.0, *, first=0, rows=None, strip=0, width=None, add=None):
    """A block of scale x (B A), as float32."""
    rows = len(b) - first if rows is None else rows
    width = a.shape[1] - strip * products.STRIP if width is None else width
    padded = np.zeros((-(-len(b) // products.TILE) * products.TILE, b.shape[1]), "<f4")
    padded[: len(b)] = b
    out = np.zeros(rows * width, np.uint32) if add is None else add.reshape(-1).view(np.uint32).copy()
    left = padded.reshape(-1)[first * b.shape[1] :]
    products.form(
        left, products.strips_of(a), b.shape[1], rows, strip, width, np.float32(scale), add is not None, out
    )
    return out.view("<f4").reshape(rows, width)


@settings(max_examples=40)
@given(
    rows=st.integers(1, 40), columns=st.integers(1, 700), rank=st.integers(1, 19),
    first=st.integers(0, 9), strip=st.integers(0, 2), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_block_has_the_bits_of_the_whole(rows, columns, rank, first, strip, seed):
    b, a = matrices(rows, columns, rank, seed)
    whole = formed(b, a, 0.3)
    np.testing.assert_array_equal(whole.view("<u4"), product(b, a, 0.3).view("<u4"))
    first, start = (
        min(first * products.TILE, rows - 1) // products.TILE * products.TILE,
        strip * products.STRIP,
    )
    if start < columns:
        block = formed(b, a, 0.3, first=first, strip=strip)
        np.testing.assert_array_equal(block, whole[first:, start:])
        np.testing.assert_array_equal(formed(b, a, 0.3, rows=1, width=1), whole[:1, :1])


def test_a_chain_is_rounded_once_a_step():
    """(1 + 2^-12)^2 - 1 - 2^-11 is 2^-24, which a product rounded by itself loses."""
    x = np.float32(1 + 2.0**-12)
    b, a = np.array([[1, x]], "<f4"), np.array([[-1 - 2.0**-11], [x]], "<f4")
    assert formed(b, a)[0, 0] == 2.0**-24


def test_sums_begin_at_plus_zero():
    assert formed(np.array([[-1]], "<f4"), np.array([[0.0]], "<f4")).view("<u4")[0, 0] == 0


@pytest.mark.parametrize("pattern", [0x7F800001, 0xFFC01234, 0x7FFFFFFF, 0x7F800000])
def test_what_is_no_number_is_one_pattern(pattern):
    b = np.array([[pattern, 0x3F800000]], "<u4").view("<f4")
    out = formed(b, np.zeros((2, 300), "<f4")).view("<u4")
    assert set(out.ravel().tolist()) == {QUIET}


def test_terms_are_added_each_rounded():
    b, a = matrices(9, 300, 5)
    more = np.random.default_rng(5).normal(size=(9, 300)).astype("<f4")
    np.testing.assert_array_equal(formed(b, a, 0.7, add=more), more + product(b, a, 0.7))


@pytest.mark.parametrize("columns", [1, 255, 256, 257, 600])
def test_strips_hold_every_column(columns):
    _, a = matrices(1, columns, 3)
    strips = products.strips_of(a).reshape(-1, 3, products.STRIP)
    laid_out = strips.transpose(1, 0, 2).reshape(3, -1)
    np.testing.assert_array_equal(laid_out[:, :columns], a)
    assert not laid_out[:, columns:].any()


@pytest.mark.parametrize("columns", [1, 7, 63, 64, 65, 1000])
def test_norms(columns):
    rng = np.random.default_rng(columns)
    base, delta = (rng.normal(size=(5, columns)).astype("<f4") for _ in range(2))
    m, out = rng.normal(size=5).astype("<f4"), np.empty(5, "<f4")
    products.norm_factors(base, delta, m, out)
    norms = np.linalg.norm((base + delta).astype(np.float64), axis=1)
    np.testing.assert_allclose(out, m / norms, rtol=1e-7)
    turned, sums = np.empty(5, "<f4"), np.zeros(5)
    for part in (slice(0, 3), slice(3, None)):
        products.add_column_squares(base.T[part].copy(), delta.T[part].copy(), sums)
    products.column_factors(m, sums, turned)
    np.testing.assert_allclose(turned, m / norms, rtol=1e-7)


def test_norms_of_zero_are_as_ieee_has_them():
    zero, out = np.zeros((3, 4), "<f4"), np.empty(3, "<f4")
    products.norm_factors(zero, zero, np.array([0, 1, -2], "<f4"), out)
    assert np.isnan(out[0])
    assert (out[1], out[2]) == (np.inf, -np.inf)
