"""Differences and products, counted as they are formed, against forming them first and counting then."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from engine.device.counter import make_counter
from engine.kernels.cuda.tallies import FloatTally
from engine.kernels.products import TILE, form, strips_of
from engine.nouns.dtypes import DTYPES, F32
from engine.sketch import from_totals
from tests.builders import COUNTED, assert_same, nasty_patterns, raw, reference_sketch, values_of
from tests.gpu.conftest import fma
from tests.gpu.test_counting import noise

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


def difference(counter, first, x, second, y):
    """The sketch of x - y, of patterns of two dtypes."""
    counter.subtract(raw(x), DTYPES[first], raw(y), DTYPES[second])
    return counter.sketch()


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.parametrize("n", [0, 1, 3000, 3001])
def test_differences_are_those_of_numpy_in_float32(device, first, second, n):
    x, y = pairs_of(first, second, n)
    expected = reference_sketch("F32", numpy_difference(first, x, second, y))
    counter = make_counter(DTYPES["F32"], device, block=1 << 12)
    assert_same(difference(counter, first, x, second, y), expected)


@pytest.mark.parametrize("dtype", COUNTED)
def test_differences_of_equal_elements(device, dtype):
    x = noise(dtype, 4101)
    counter = make_counter(DTYPES["F32"], device, block=1 << 12)
    found = difference(counter, dtype, x, dtype, x)
    assert_same(found, reference_sketch("F32", numpy_difference(dtype, x, dtype, x)))
    assert found.zeros == int(np.isfinite(values_of(dtype, x)).sum())


def test_a_counter_takes_whatever_comes_in_any_order(device):
    """Blocks of several pairs of dtypes, in pieces, between floats that are counted as they are, and zeros."""
    counter = make_counter(DTYPES["F32"], device, block=1 << 12)
    every = []
    for number, (first, second) in enumerate(PAIRS * 2):
        x, y = pairs_of(first, second, 700 + number)
        for part in (slice(0, 333), slice(333, None)):
            counter.subtract(raw(x[part]), DTYPES[first], raw(y[part]), DTYPES[second])
        floats = noise("F32", 101 + number)
        counter.add(raw(floats))
        counter.add_zeros(number)
        every += [numpy_difference(first, x, second, y), floats, np.zeros(number, np.uint32)]
    assert_same(counter.sketch(), reference_sketch("F32", np.concatenate(every)))


def test_subnormal_differences_are_not_flushed(device):
    x = np.arange(1000, dtype=np.uint32) + 0x00800000
    y = np.full(1000, 0x00800000, np.uint32)
    found = difference(make_counter(DTYPES["F32"], device, block=1 << 12), "F32", x, "F32", y)
    assert (found.zeros, found.count) == (1, 1000)
    assert found.maximum == float(np.uint32(999).view(np.float32))


def factors(rows, rank, columns):
    rng = np.random.default_rng(5)
    return [rng.normal(0, 0.02, shape).astype(np.float32) for shape in ((rows, rank), (rank, columns))]


def fused(b, a, scale):
    """numpy: the chain of fused multiply-adds, each rounded once to float32 by way of rounding to odd."""
    total = np.zeros((b.shape[0], a.shape[1]), np.float32)
    for k in range(b.shape[1]):
        total = fma(b[:, k, None], a[None, k], total)
    return total * np.float32(scale)


def formed_on_cpu(left, right, scale):
    """(rows * columns,) uint32, as the CPU's kernel forms it."""
    (rows, rank), columns = left.shape, right.shape[1]
    padded = np.zeros((-(-rows // TILE) * TILE, rank), np.float32)
    padded[:rows] = left
    out = np.empty(rows * columns, np.uint32)
    form(padded.ravel(), strips_of(right), rank, rows, 0, columns, np.float32(scale), False, out)
    return out


@pytest.mark.parametrize("rank", [1, 4, 17])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (65, 130), (70, 257)])
def test_products_are_counted_as_they_are_formed(device, fusing, rows, columns, rank):
    b, a = factors(rows, rank, columns)
    b[0, 0] = float("nan") if rank == 17 else 0.5
    patterns = formed_on_cpu(b, a, 1.3)
    tally, out = FloatTally(torch.device(device)), torch.full((rows, columns), 7.0, device=device)
    tally.add_product(torch.from_numpy(b).to(device), torch.from_numpy(a).to(device), 1.3, out)
    found = out.cpu().numpy().ravel()
    found = np.where(np.isnan(found), np.uint32(0x7FC00000), found.view(np.uint32))
    np.testing.assert_array_equal(found, patterns)
    assert_same(from_totals(F32, *tally.take()), reference_sketch("F32", patterns))
    counter = make_counter(DTYPES["F32"], device, block=1 << 12)
    assert counter.multiply(b, a, 1.3)
    assert_same(counter.sketch(), reference_sketch("F32", patterns))


def test_the_cpu_forms_chains_of_fused_multiply_adds():
    b, a = factors(30, 33, 40)
    np.testing.assert_array_equal(formed_on_cpu(b, a, 1.3), fused(b, a, 1.3).ravel().view(np.uint32))


def test_factors_may_be_views_and_empty(device, fusing):
    b, a = factors(70, 8, 90)
    counter = make_counter(DTYPES["F32"], device, block=1 << 12)
    assert counter.multiply(np.ascontiguousarray(b.T).T, a[:, ::-1], 0.5)
    assert_same(
        counter.sketch(), reference_sketch("F32", formed_on_cpu(b, np.ascontiguousarray(a[:, ::-1]), 0.5))
    )
    assert counter.multiply(b[:0], a, 1.0)
    assert counter.multiply(b, a[:, :0], 1.0)
    assert counter.sketch().count == 0
    assert counter.multiply(b[:5, :0], a[:0, :7], 1.0)
    assert counter.sketch().zeros == 35


def test_no_memory_for_factors_leaves_products_to_the_cpu(device, monkeypatch):
    from engine.kernels.cuda import tensors

    def refuse(*_):
        raise torch.OutOfMemoryError("as if")

    said = []
    counter = make_counter(DTYPES["F32"], device, block=1 << 12, report=said.append)
    monkeypatch.setattr(tensors, "to_device", refuse)
    b, a = factors(3, 2, 4)
    assert not counter.multiply(b, a, 1.0)
    assert not counter.multiply(b, a, 1.0)
    assert said == [f"no memory left on {device}: products are formed on the CPU"]


@pytest.mark.parametrize("failing", ["nvrtcCreateProgram", "nvrtcGetCUBINSize", "nvrtcGetCUBIN"])
def test_what_the_compiler_answers_is_looked_at(monkeypatch, failing):
    from engine.errors import TaskError
    from engine.kernels.cuda import nvrtc

    library = Mock()
    for name in ("CreateProgram", "CompileProgram", "GetCUBINSize", "GetCUBIN", "DestroyProgram"):
        getattr(library, f"nvrtc{name}").return_value = 0
    monkeypatch.setattr(nvrtc, "compiler", lambda: library)
    assert nvrtc.compile_source("", "sm_90", {}) == b""
    getattr(library, failing).return_value = 5
    with pytest.raises(TaskError, match="does not compile: NVRTC gives the error 5"):
        nvrtc.compile_source("", "sm_90", {})


def test_a_driver_that_refuses_is_a_failed_gpu(monkeypatch):
    from engine.errors import DeviceError
    from engine.kernels.cuda import claims, nvrtc

    def explain(status, text):
        text._obj.value = b"out of memory"

    monkeypatch.setattr(nvrtc, "_driver", lambda: SimpleNamespace(cuGetErrorString=explain))
    with pytest.raises(DeviceError, match="driver refused a kernel: out of memory"):
        nvrtc._check(2)
    assert claims.tried(lambda: nvrtc._check(2)) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU's own errors")
def test_a_kernel_that_does_not_compile_says_why():
    from engine.errors import TaskError
    from engine.kernels.cuda import nvrtc

    with pytest.raises(TaskError, match="undefined"):
        nvrtc.load(0, "f", 'extern "C" __global__ void f() { nonsense(); }', 0, {})
