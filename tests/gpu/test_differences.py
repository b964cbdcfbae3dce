"""Differences and products, counted as they are formed, against forming them first and counting then."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.differences import DifferenceCounter, GpuDifferenceCounter, product
from engine.kernels.cuda.tallies import FloatTally
from engine.kernels.products import form, strips_of
from engine.nouns.dtypes import DTYPES, F32
from engine.sketch import from_totals
from tests.builders import COUNTED, assert_same, nasty_patterns, raw, reference_sketch, values_of
from tests.gpu.test_counting import noise, tensor

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # of the interpreter

PAIRS = [
    ("BF16", "BF16"),
    ("F32", "BF16"),
    ("F16", "F32"),
    ("F8_E4M3", "BF16"),
    ("F64", "F16"),
    ("F8_E5M2", "F64"),
]


def numpy_difference(dtype_a, a, dtype_b, b):
    with np.errstate(all="ignore"):
        x, y = values_of(dtype_a, a).astype(np.float32), values_of(dtype_b, b).astype(np.float32)
        patterns = (x - y).view(np.uint32)
    return np.where(np.isnan(patterns.view(np.float32)), np.uint32(0x7FC00000), patterns)


def pairs_of(dtype_a, dtype_b, n):
    """Noise, every nasty pattern minus every other, and elements that are equal."""
    a, b = nasty_patterns(dtype_a), nasty_patterns(dtype_b)
    x = np.concatenate([noise(dtype_a, n), np.repeat(a, len(b))])
    y = np.concatenate([noise(dtype_b, n, 2 if n % 2 else 1), np.tile(b, len(a))])
    return x, y


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.parametrize("n", [0, 1, 3000, 3001])
def test_differences_are_those_of_numpy_in_float32(device, first, second, n):
    x, y = pairs_of(first, second, n)
    expected = reference_sketch("F32", numpy_difference(first, x, second, y))
    on_cpu = DifferenceCounter(DTYPES[first], DTYPES[second])
    on_cpu.add(raw(x), raw(y))
    assert_same(on_cpu.sketch(), expected)
    counter = GpuDifferenceCounter(DTYPES[first], DTYPES[second], device, block=1 << 12)
    counter.add(raw(x), raw(y))
    assert_same(counter.sketch(), expected)
    counter.add_resident(tensor(first, x, device), tensor(second, y, device))
    assert_same(counter.sketch(), expected)


@pytest.mark.parametrize("dtype", COUNTED)
@pytest.mark.parametrize("skip", [1, 2, 4])
def test_differences_at_any_address_and_of_equal_elements(device, dtype, skip):
    x = noise(dtype, 4101)
    counter = GpuDifferenceCounter(DTYPES[dtype], DTYPES[dtype], device, block=1 << 12)
    counter.add_resident(tensor(dtype, x, device)[skip:], tensor(dtype, x, device)[skip:])
    found = counter.sketch()
    assert_same(found, reference_sketch("F32", numpy_difference(dtype, x[skip:], dtype, x[skip:])))
    assert found.zeros == int(np.isfinite(values_of(dtype, x[skip:])).sum())


def test_subnormal_differences_are_not_flushed(device):
    x = np.arange(1000, dtype=np.uint32) + 0x00800000
    y = np.full(1000, 0x00800000, np.uint32)
    counter = GpuDifferenceCounter(DTYPES["F32"], DTYPES["F32"], device, block=1 << 12)
    counter.add(raw(x), raw(y))
    found = counter.sketch()
    assert (found.zeros, found.count) == (1, 1000)
    assert found.maximum == float(np.uint32(999).view(np.float32))


def test_no_memory_leaves_differences_to_the_cpu(device, monkeypatch):
    from engine.kernels.cuda import feed

    def refuse(*_):
        raise torch.OutOfMemoryError("as if")

    monkeypatch.setattr(feed, "Slot", refuse)
    said = []
    counter = GpuDifferenceCounter(DTYPES["BF16"], DTYPES["F8_E4M3"], device, report=said.append)
    x, y = pairs_of("BF16", "F8_E4M3", 100)
    counter.add(raw(x), raw(y))
    counter.add_resident(tensor("BF16", x, device), tensor("F8_E4M3", y, device))
    expected = numpy_difference("BF16", x, "F8_E4M3", y)
    assert_same(counter.sketch(), reference_sketch("F32", np.tile(expected, 2)))
    assert "CPU" in said[0]


def test_differences_of_other_dtypes_or_shapes_are_refused(device):
    counter = GpuDifferenceCounter(DTYPES["BF16"], DTYPES["F32"], device)
    with pytest.raises(ValueError, match="float16"):
        counter.add_resident(torch.zeros(3, dtype=torch.float16), torch.zeros(3))
    with pytest.raises(ValueError, match="4"):
        counter.add_resident(torch.zeros(3, dtype=torch.bfloat16), torch.zeros(4))


def factors(rows, rank, columns, device, dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    b = torch.randn(rows, rank, generator=generator) * 0.02
    a = torch.randn(rank, columns, generator=generator) * 0.02
    return b.to(dtype).to(device), a.to(dtype).to(device)


@pytest.mark.parametrize("rank", [1, 4, 16, 17, 64])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (127, 130), (128, 128), (200, 257)])
def test_products_are_counted_as_they_are_formed(device, rows, columns, rank):
    b, a = factors(rows, rank, columns, device)
    b[0, 0] = float("nan") if rank == 17 else 0.5
    tally, out = FloatTally(torch.device(device)), torch.full((rows, columns), 7.0, device=device)
    tally.add_product(b, a, 2.0, out)
    formed = out.cpu().numpy()
    exact = 2 * (b.double() @ a.double()).cpu().numpy()
    np.testing.assert_allclose(formed, exact, rtol=1e-4, atol=1e-6)
    patterns = formed.ravel().view(np.uint32)
    patterns = np.where(np.isnan(formed.ravel()), np.uint32(0x7FC00000), patterns)
    expected = reference_sketch("F32", patterns)
    assert_same(from_totals(F32, *tally.take()), expected)
    assert_same(product(b, a, 2.0), expected)


def test_factors_of_16_bits_and_views(device):
    b, a = factors(70, 8, 90, device, torch.bfloat16)
    assert_same(product(b, a, 0.5), product(b.float(), a.float(), 0.5))
    assert_same(product(b.t().contiguous().t(), a, 0.5), product(b, a, 0.5))


def test_empty_products_and_shapes_that_do_not_fit(device):
    b, a = factors(5, 3, 7, device)
    assert product(b[:0], a).count == product(b, a[:, :0]).count == 0
    assert product(b[:, :0], a[:0]).zeros == 35
    with pytest.raises(ValueError, match="multiply"):
        product(a, b)


def fused(b, a, scale):
    """numpy: the chain of fused multiply-adds, each rounded once to float32 by way of rounding to odd."""
    total = np.zeros((b.shape[0], a.shape[1]), np.float32)
    for k in range(b.shape[1]):
        x = b[:, k, None].astype(np.float64) * a[None, k].astype(np.float64)
        y = total.astype(np.float64)
        s = x + y
        t = s - x
        error = (x - (s - t)) + (y - t)
        even = s.view(np.int64) & 1 == 0
        toward = np.where((error > 0) == (s > 0), 1, -1)
        odd = np.where((error != 0) & even, s.view(np.int64) + toward, s.view(np.int64)).view(np.float64)
        total = odd.astype(np.float32)
    return total * np.float32(scale)


@pytest.mark.parametrize("rank", [4, 33])
def test_native_products_are_the_chains_of_fused_multiply_adds_that_the_cpu_forms(device, rank):
    from engine.kernels.cuda import native

    b, a = factors(300, rank, 200, device)
    left, right = b.cpu().numpy(), a.cpu().numpy()
    expected = fused(left, right, 1.3)
    on_cpu = np.empty(300 * 200, np.uint32)
    form(left.ravel(), strips_of(right).ravel(), rank, 300, 0, 200, np.float32(1.3), False, on_cpu)
    np.testing.assert_array_equal(on_cpu, expected.ravel().view(np.uint32))
    if not native.is_available(torch.device(device)):
        pytest.skip("tl.dot has an order of its own")
    assert_same(product(b, a, 1.3), reference_sketch("F32", expected.ravel().view(np.uint32)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU's own errors")
def test_a_kernel_that_does_not_compile_says_why():
    from engine.errors import TaskError
    from engine.kernels.cuda import nvrtc

    with pytest.raises(TaskError, match="undefined"):
        nvrtc.load(0, "f", 'extern "C" __global__ void f() { nonsense(); }', 0, {})
