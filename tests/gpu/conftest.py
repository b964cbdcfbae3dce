"""The GPU's loops: on the GPU where there is one, else on the CPU under Triton's interpreter."""

import os
from importlib.util import find_spec

import numpy as np
import pytest

HAS_GPU = False
if find_spec("triton") is None or find_spec("torch") is None:
    collect_ignore_glob = ["test_[!p]*.py"]  # test_presence.py says why
else:
    import torch

    HAS_GPU = torch.cuda.is_available()
    if not HAS_GPU:
        os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported for the first time


@pytest.fixture(params=["native", "portable"] if HAS_GPU else ["portable"])
def device(request, monkeypatch):
    """Where to count, with the kernels in CUDA C++ and with those in Triton."""
    import triton

    from engine.kernels.cuda import native

    if request.param == "native":
        if not native.is_available(torch.device("cuda")):
            pytest.skip("no GPU of compute capability 8.0 with NVRTC")
        return "cuda"
    if not HAS_GPU and not triton.knobs.runtime.interpret:
        pytest.skip("triton was imported before its interpreter was asked for")
    monkeypatch.setattr(native, "is_available", lambda device: False)
    return "cuda" if HAS_GPU else "cpu:0"  # torch's CPU; plain `cpu` asks for the CPU's own kernels


@np.errstate(all="ignore")
def fma(x, y, z):
    """x * y + z of float32, rounded once."""
    x, y = x.astype(np.float64) * y.astype(np.float64), z.astype(np.float64)
    s = x + y
    t = s - x
    error = (x - (s - t)) + (y - t)
    even = s.view(np.int64) & 1 == 0
    toward = np.where((error > 0) == (s > 0), 1, -1)
    inexact = (error != 0) & even & np.isfinite(s)
    odd = np.where(inexact, s.view(np.int64) + toward, s.view(np.int64))
    return odd.view(np.float64).astype(np.float32)


@pytest.fixture
def fusing(monkeypatch):
    """Triton's interpreter rounds twice where a GPU rounds once."""
    from triton.runtime import interpreter

    def create_fma(self, x, y, z):
        return interpreter.TensorHandle(fma(x.data, y.data, z.data), z.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_fma", create_fma)
