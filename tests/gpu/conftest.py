"""The GPU's loops: on the GPU where there is one, else on the CPU under Triton's interpreter."""

import os
from importlib.util import find_spec

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
    return "cuda" if HAS_GPU else "cpu"
