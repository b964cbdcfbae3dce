"""Merges n tuned models of one base on a GPU, one reading and one writing, the same bits as numpy in float32.

    out = round(W + (f(W_1 - W) + f(W_2 - W) + ... + f(W_n - W)))

Every operation is one IEEE float32 operation, the sum from left to right; `round` is to the nearest, ties to
even, of the base's dtype, and every NaN becomes one quiet NaN. f of model i divides or multiplies:

    outliers   d / n where |d| <= limit_i, d elsewhere      (t * sigma of the paper, section 5.2)
    weighted   d * weight_i                                 (the average of n models: every weight 1 / n)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import triton  # type: ignore[import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, unused-ignore]

from engine.kernels.cuda.portable import is_available
from engine.kernels.cuda.tensors import on_device_of

_BLOCK = 2048
_STORED = {torch.bfloat16: torch.int16, torch.float16: torch.float16, torch.float32: torch.float32}


@triton.jit
def _rounded(value: tl.tensor, kind: tl.constexpr) -> tl.tensor:
    """Round float32 to what is stored: int16 patterns of bf16, float16 or float32."""
    pattern = value.to(tl.int32, bitcast=True)
    is_nan = (pattern & 0x7FFFFFFF) > 0x7F800000
    if kind == "bf16":
        up = pattern + 0x7FFF + ((pattern >> 16) & 1)
        rounded = (tl.where(is_nan, 0x7FC00000, up) >> 16).to(tl.int16)
    elif kind == "f16":
        half = value.to(tl.float16).to(tl.int16, bitcast=True)  # what becomes of NaN is the device's affair
        rounded = tl.where(is_nan, 0x7E00, half).to(tl.int16).to(tl.float16, bitcast=True)
    else:
        rounded = tl.where(is_nan, 0x7FC00000, pattern).to(tl.float32, bitcast=True)
    return rounded


@triton.jit
def _loaded(data: tl.tensor, i: tl.tensor, live: tl.tensor, kind: tl.constexpr) -> tl.tensor:
    """Load what is stored as float32."""
    element = tl.load(data + i, mask=live, other=0)
    if kind == "bf16":
        return (element.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    return element.to(tl.float32)


@triton.jit
def _merge(
    base: tl.tensor, models: tl.tensor, factors: tl.tensor, out: tl.tensor, size: tl.tensor,
    kind: tl.constexpr, outliers: tl.constexpr, halves: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    live = i < size
    start = _loaded(base, i, live, kind)
    total = tl.zeros([block], tl.float32)
    for m in tl.static_range(len(models)):
        factor = tl.load(factors + m)
        part = _loaded(models[m], i, live, kind) - start
        if outliers:
            if halves:  # multiplying by a power of two rounds like dividing, and is faster
                divided = part * (1.0 / len(models))
            else:
                divided = tl.div_rn(part, tl.full([block], len(models), tl.float32))
            part = tl.where(tl.abs(part) <= factor, divided, part)
        else:
            part = part * factor
        total = part if m == 0 else total + part
    tl.store(out + i, _rounded(start + total, kind), mask=live)


def merge(
    base: torch.Tensor, models: Sequence[torch.Tensor], factors: Sequence[float], *, outliers: bool
) -> torch.Tensor:
    """Merge tensors.

    Args:
        base: BF16, F16 or F32, contiguous, on the GPU.
        models: tensors of the same dtype and shape.
        factors: one for each model, rounded to float32: its limit, or its weight.
        outliers: whether the factors are limits.

    Returns:
        a tensor like `base`.

    Raises:
        ValueError: dtypes, shapes or numbers do not fit, or the tensors lie on no GPU.
    """
    if base.dtype not in _STORED:
        raise ValueError(f"{str(base.dtype).removeprefix('torch.')} is not merged")
    if len(factors) != len(models) or not models:
        raise ValueError(f"{len(factors)} factors for {len(models)} models")
    if any(m.dtype != base.dtype or m.shape != base.shape for m in models):
        raise ValueError("the models' dtypes and shapes must be the base's")
    if not all(t.is_contiguous() for t in (base, *models)):
        raise ValueError("the tensors must be contiguous")
    if not is_available(base.device):
        raise ValueError(f"no GPU kernel runs on {base.device}")
    out = torch.empty_like(base)
    stored = partial(torch.Tensor.view, dtype=_STORED[base.dtype])
    kind = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32"}[base.dtype]
    halves = len(models).bit_count() == 1
    numbers = torch.tensor(factors, dtype=torch.float32).to(base.device)
    if base.numel():
        with on_device_of(base):
            _merge[(triton.cdiv(base.numel(), _BLOCK),)](
                stored(base), tuple(map(stored, models)), numbers, stored(out), base.numel(),
                kind=kind, outliers=outliers, halves=halves, block=_BLOCK, enable_fp_fusion=False,
            )  # fmt: skip
    return out
