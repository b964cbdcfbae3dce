"""Merges on the GPU against the same operations in numpy, bit for bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from engine.kernels import merging as loops
from engine.kernels.cuda.merging import merge
from tests.builders import raw
from tests.gpu.test_counting import noise, tensor

NUMPY = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}


def reference(base, models, factors, outliers):
    """The definition in `engine.kernels.cuda.merging`, in numpy."""
    start, total = base.astype(np.float32), None
    for model, factor in zip(models, factors, strict=True):
        d = model.astype(np.float32) - start
        small = np.abs(d) <= np.float32(factor)
        part = np.where(small, d / np.float32(len(models)), d) if outliers else d * np.float32(factor)
        total = part if total is None else total + part
    return (start + total).astype(base.dtype)


def one_nan(x):
    """Patterns, of which NaN are all the same."""
    return np.where(np.isnan(x.astype(np.float32)), 0, x.view(f"<u{x.dtype.itemsize}"))


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("outliers", [True, False])
@pytest.mark.parametrize("models", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [0, 1, 2047, 5001])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_merges_are_those_of_numpy_in_float32(device, dtype, outliers, models, size):
    patterns = [noise(dtype, size, seed) for seed in range(models + 1)]
    factors = [0.01 * (i + 1) for i in range(models)]
    tensors = [tensor(dtype, p, device) for p in patterns]
    found = merge(tensors[0], tensors[1:], factors, outliers=outliers).cpu().view(torch.uint8).numpy()
    arrays = [raw(p).view(NUMPY[dtype]) for p in patterns]
    expected = reference(arrays[0], arrays[1:], factors, outliers)
    np.testing.assert_array_equal(one_nan(found.view(NUMPY[dtype])), one_nan(expected))


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("outliers", [True, False])
@pytest.mark.parametrize("models", [1, 2, 3])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_gpu_gives_the_bits_of_the_loops_for_the_cpu(device, dtype, outliers, models):
    patterns = [noise(dtype, 5001, seed) for seed in range(models + 1)]
    factors = [0.01] * models
    tensors = [tensor(dtype, p, device) for p in patterns]
    found = merge(tensors[0], tensors[1:], factors, outliers=outliers).cpu().view(torch.uint8).numpy()
    view = {"BF16": np.uint16, "F16": np.int16, "F32": np.float32}[dtype]
    base, *tuned = (raw(p).view(view) for p in patterns)
    expected = np.empty_like(base)
    if outliers:
        loops.outliers(base, tuple(tuned), np.float32(factors[0]), expected)
    else:
        loops.weighted(base, tuple(tuned), np.array(factors, np.float32), expected)
    np.testing.assert_array_equal(found, expected.view(np.uint8))


def test_an_element_at_the_limit_counts_as_inside(device):
    base = torch.zeros(4, device=device)
    models = [torch.tensor([0.5, -0.5, 0.75, 0.0], device=device), torch.zeros(4, device=device)]
    assert merge(base, models, [0.5, 0.5], outliers=True).tolist() == [0.25, -0.25, 0.75, 0.0]


def test_nan_is_one_quiet_nan(device):
    base = torch.tensor([float("nan")], device=device)
    for dtype, pattern in ((torch.bfloat16, 0x7FC0), (torch.float16, 0x7E00), (torch.float32, 0x7FC00000)):
        found = merge(base.to(dtype), [base.to(dtype)], [1.0], outliers=False)
        assert int.from_bytes(bytes(found.cpu().view(torch.uint8).tolist()), "little") == pattern


@pytest.mark.skipif(torch.cuda.is_available(), reason="for those of Triton's interpreter")
def test_nan_is_that_one_whatever_a_device_makes_of_it(device, monkeypatch):
    from triton.runtime import interpreter

    convert = interpreter.InterpreterBuilder.cast_impl

    def hardware(self, src, dst_type):
        found = convert(self, src, dst_type)
        if found.data.dtype == np.float16:
            found.data = np.where(np.isnan(found.data), np.uint16(0x7FFF), found.data.view(np.uint16)).view(
                np.float16
            )
        return found

    monkeypatch.setattr(interpreter.InterpreterBuilder, "cast_impl", hardware)
    test_nan_is_one_quiet_nan(device)


@pytest.mark.parametrize(
    ("models", "factors", "why"),
    [
        ([torch.zeros(3)], [0.1, 0.2], "2 factors for 1 models"),
        ([], [], "0 factors"),
        ([torch.zeros(4)], [0.1], "shapes"),
        ([torch.zeros(3, dtype=torch.float16)], [0.1], "dtypes"),
        ([torch.zeros(6)[::2]], [0.1], "contiguous"),
    ],
)
def test_what_does_not_fit_is_refused(models, factors, why):
    with pytest.raises(ValueError, match=why):
        merge(torch.zeros(3), models, factors, outliers=True)
    with pytest.raises(ValueError, match="float64"):
        merge(torch.zeros(3, dtype=torch.float64), models, factors, outliers=True)
