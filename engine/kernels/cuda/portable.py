"""The same loops in Triton, with atomic additions to tables in the GPU's memory.

For GPUs without NVRTC and, interpreted, for tests on the CPU. Arguments as in `native`.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, unused-ignore]

from engine.kernels.cuda.native import KINDS, WIDTHS
from engine.kernels.cuda.tensors import on_device_of

CODES = tl.constexpr(65536)
_BLOCK = 4096
ELEMENT = {"f8": torch.uint8, "f16": torch.float16, "bf16": torch.int16, "f32": torch.int32}


def is_available(device: torch.device) -> bool:
    """Whether the kernels run on a device: a GPU, or the CPU under Triton's interpreter."""
    return device.type == "cuda" or bool(triton.knobs.runtime.interpret)


@triton.jit
def _count16(codes: tl.tensor, n: tl.tensor, counts: tl.tensor, block: tl.constexpr) -> None:
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    live = i < n
    code = tl.load(codes + i, mask=live, other=0).to(tl.int32) & 0xFFFF
    ones = tl.full([block], 1, tl.int64)
    tl.atomic_add(counts + code, ones, mask=live, sem="relaxed")


def room16(device: torch.device) -> torch.Tensor:
    """No memory: `count16` needs none."""
    return torch.empty(0, dtype=torch.int32, device=device)


def count16(codes: torch.Tensor, counts: torch.Tensor, room: torch.Tensor, skip: int = 0) -> None:
    """Count 16-bit patterns; see `native.count16`. `room` and `skip` change nothing here."""
    n = codes.numel() // 2
    if n:
        with on_device_of(codes):
            _count16[(triton.cdiv(n, _BLOCK),)](codes.view(torch.int16), n, counts, block=_BLOCK)


@triton.jit
def widen(data: tl.tensor, i: tl.tensor, live: tl.tensor, values: tl.tensor, kind: tl.constexpr) -> tl.tensor:
    """Load elements as float32."""
    element = tl.load(data + i, mask=live, other=0)
    if kind == 1:
        return tl.load(values + element.to(tl.int32), mask=live, other=0)
    if kind == 4:
        return element.to(tl.float32, bitcast=True)
    if kind == 3:  # the interpreter's own conversion loses subnormals
        return (element.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    return element.to(tl.float32)


@triton.jit
def _one_nan(value: tl.tensor) -> tl.tensor:
    """The int32 patterns of float32, of which NaN are all the same."""
    pattern = value.to(tl.int32, bitcast=True)
    return tl.where((pattern & 0x7FFFFFFF) > 0x7F800000, 0x7FC00000, pattern)


@triton.jit
def _add(pattern: tl.tensor, live: tl.tensor, state: tl.tensor) -> None:
    """Add int32 patterns of float32 up by their top halves; see `tally32.cu`."""
    magnitude = pattern & 0x7FFFFFFF
    low = pattern & 0xFFFF
    code = (pattern >> 16) & 0xFFFF
    short_nan = (low != 0) & ((code & 0x7FFF) == 0x7F80)
    code = tl.where(short_nan, code | 0x40, code)
    wide = low.to(tl.int64)
    tl.atomic_add(state + code, tl.full(pattern.shape, 1, tl.int64), mask=live, sem="relaxed")
    some = live & (low != 0)
    tl.atomic_add(state + CODES + code, wide, mask=some, sem="relaxed")
    tl.atomic_add(state + 2 * CODES + code, wide * wide, mask=some, sem="relaxed")
    finite = live & (magnitude < 0x7F800000)
    key = (pattern ^ ((pattern >> 31) & 0x7FFFFFFF)).to(tl.int64)
    end = state + 3 * CODES
    tl.atomic_add(end, tl.sum((live & (magnitude == 0)).to(tl.int64)), sem="relaxed")
    tl.atomic_min(end + 1, tl.min(tl.where(finite, key, 0x7FFFFFFF)), sem="relaxed")
    tl.atomic_max(end + 2, tl.max(tl.where(finite, key, -0x80000000)), sem="relaxed")


@triton.jit
def _form32(
    a: tl.tensor, b: tl.tensor, n: tl.tensor, values_a: tl.tensor, values_b: tl.tensor, state: tl.tensor,
    kind_a: tl.constexpr, kind_b: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    live = i < n
    if kind_b == 0:
        pattern = tl.load(a + i, mask=live, other=0)
    else:
        value = widen(a, i, live, values_a, kind_a) - widen(b, i, live, values_b, kind_b)
        pattern = _one_nan(value)
    _add(pattern, live, state)


def form32(
    a: torch.Tensor,
    kind_a: str,
    b: torch.Tensor | None,
    kind_b: str | None,
    values: tuple[torch.Tensor | None, torch.Tensor | None],
    state: torch.Tensor,
) -> None:
    """Add up 32-bit floats or differences; see `native.form32`."""
    n = a.numel() // WIDTHS[kind_a]
    if not n:
        return
    left = a.view(ELEMENT[kind_a])
    right = left if b is None or kind_b is None else b.view(ELEMENT[kind_b])
    tables = [state if v is None else v for v in values]  # an address is needed, and not used
    with on_device_of(a):
        _form32[(triton.cdiv(n, _BLOCK),)](
            left, right, n, *tables, state, kind_a=KINDS[kind_a], kind_b=KINDS[kind_b], block=_BLOCK
        )


@triton.jit
def _product32(
    b: tl.tensor, a: tl.tensor, scale: tl.tensor, rows: tl.tensor, columns: tl.tensor, rank: tl.tensor,
    state: tl.tensor, out: tl.tensor,
    store: tl.constexpr, side: tl.constexpr,
) -> None:  # fmt: skip
    across = tl.cdiv(columns, side)
    row = (tl.program_id(0) // across).to(tl.int64) * side + tl.arange(0, side)[:, None]
    column = (tl.program_id(0) % across).to(tl.int64) * side + tl.arange(0, side)[None, :]
    total = tl.zeros([side, side], tl.float32)
    for k in range(rank):
        left = tl.load(b + row * rank + k, mask=row < rows, other=0.0)
        right = tl.load(a + k * columns + column, mask=column < columns, other=0.0)
        total = tl.fma(tl.broadcast_to(left, [side, side]), tl.broadcast_to(right, [side, side]), total)
    value = total * scale
    live = (row < rows) & (column < columns)
    if store:
        tl.store(out + row * columns + column, value, mask=live)
    pattern = _one_nan(value)
    _add(tl.reshape(pattern, [side * side]), tl.reshape(live, [side * side]), state)


def product32(
    b: torch.Tensor, a: torch.Tensor, scale: float, state: torch.Tensor, out: torch.Tensor | None = None
) -> None:
    """Add up the elements of scale * (b @ a); see `native.product32`.

    `tl.dot` would be faster, but has an order of its own.
    """
    (rows, rank), columns = b.shape, a.shape[1]
    if rows and columns:
        grid = (triton.cdiv(rows, 64) * triton.cdiv(columns, 64),)
        with on_device_of(b):
            _product32[grid](
                b, a, scale, rows, columns, rank, state, state if out is None else out,
                store=out is not None, side=64, enable_fp_fusion=False,
            )  # fmt: skip
