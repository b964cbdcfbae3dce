"""Launches the kernels in CUDA C++. See `count16.cu`, `tally32.cu`, `form32.cu`, `product32.cu`."""

from __future__ import annotations

from ctypes import Structure, c_float, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

import torch

from engine.kernels.cuda import nvrtc

THREADS, PRODUCT_THREADS = 1024, 512
TILE, PRODUCT_TILE = 57344, 32768
"""Elements that a block adds up between two looks at its tables, at most 65,536."""

_STEP = 4 * 2 * THREADS  # elements that a block of form32 reads at once

KINDS = {None: 0, "f8": 1, "f16": 2, "bf16": 3, "f32": 4}
WIDTHS = {"f8": 1, "f16": 2, "bf16": 2, "f32": 4}

_LAST_EXPONENT = 135  # 2**8: larger weights are rare
_FACTOR_BYTES = 2 * 16 * (132 + 256) * 4  # of product32: two buffers
_BYTES_OF_AN_EXPONENT = 256 * 4 * 4
_PER_BLOCK_16 = THREADS * 32


def is_available(device: torch.device) -> bool:
    """Whether the kernels run on a device: a GPU of compute capability 8.0 or newer, and NVRTC."""
    if device.type != "cuda" or nvrtc.compiler() is None:
        return False
    return torch.cuda.get_device_capability(device)[0] >= 8


def room16(device: torch.device) -> torch.Tensor:
    """Memory that `count16` works in, by one launch at a time."""
    with torch.cuda.device(device):
        entries = _entries16(torch.cuda.current_device())
        n = torch.cuda.get_device_properties().multi_processor_count * max(65536 - entries, 1)
    return torch.empty(n, dtype=torch.int32, device=device)


def count16(codes: torch.Tensor, counts: torch.Tensor, room: torch.Tensor, skip: int = 0) -> None:
    """Count 16-bit patterns.

    Args:
        codes: (2n,) uint8 on the GPU at an even address.
        counts: (65536 or more,) int64, added to.
        room: of `room16`.
        skip: the codes that have no counter in shared memory are those from place `skip - k` to `skip`
            in the order of magnitudes, for the k that do not fit; 0: the largest.
    """
    n = codes.numel() // 2
    if not n:
        return
    with torch.cuda.device(codes.device):
        device = torch.cuda.current_device()
        entries = _entries16(device)
        run = nvrtc.kernel(device, "count16", ("count16.cu",), entries * 4, ENTRIES=entries, THREADS=THREADS)
        run(_blocks(n, _PER_BLOCK_16), THREADS, codes, c_uint64(n), counts, room, c_uint32(skip))


def _entries16(device: int) -> int:
    return min(_shared_bytes(device) // 4 // 256 * 256, 65536)


def form32(
    a: torch.Tensor,
    kind_a: str,
    b: torch.Tensor | None,
    kind_b: str | None,
    values: tuple[torch.Tensor | None, torch.Tensor | None],
    state: torch.Tensor,
) -> None:
    """Add up 32-bit floats, or float32 differences a - b of floats of any width.

    Args:
        a: (bytes,) uint8 on the GPU.
        kind_a: a key of KINDS.
        b: likewise, as many elements; None: the elements of `a`, which are f32, as they are.
        kind_b: likewise.
        values: of f8 kinds, the (256,) float32 that the codes stand for.
        state: (196611,) int64, added to.
    """
    n = a.numel() // WIDTHS[kind_a]
    if not n:
        return
    aligned = all(
        t.data_ptr() % (4 * WIDTHS[k]) == 0 for t, k in ((a, kind_a), (b, kind_b)) if t is not None and k
    )
    with torch.cuda.device(a.device):
        device = torch.cuda.current_device()
        window = _shared_bytes(device) // _BYTES_OF_AN_EXPONENT
        macros = {"A": KINDS[kind_a], "B": KINDS[kind_b], "DEPTH": 2, **_tables(window, TILE, THREADS)}
        sources = ("tally32.cu", "form32.cu")
        run = nvrtc.kernel(device, "form32", sources, window * _BYTES_OF_AN_EXPONENT, **macros)
        whole = n // 4 * 4 if aligned else 0
        share = -(-n // _blocks(n, _STEP))
        tile = min(TILE, -(-share // _STEP) * _STEP)
        sizes = c_uint64(n), c_uint64(whole), c_uint32(tile)
        run(_blocks(n, tile), THREADS, a, b, *sizes, *values, state)


def product32(
    b: torch.Tensor, a: torch.Tensor, scale: float, state: torch.Tensor, out: torch.Tensor | None = None
) -> None:
    """Add up the elements of scale * (b @ a) as they are formed.

    Each is a chain of fused multiply-adds from k = 0 on, then times `scale`, all in float32.

    Args:
        b: (rows, rank) float32, C order, on the GPU.
        a: (rank, columns) float32, likewise.
        scale: rounded to float32.
        state: (196611,) int64, added to.
        out: (rows, columns) float32 for the elements, None to store them nowhere.
    """
    rows, columns = b.shape[0], a.shape[1]
    if not rows * columns:
        return
    if columns % 4 or a.data_ptr() % 16:
        a = torch.nn.functional.pad(a, (0, -columns % 4)).clone()
    with torch.cuda.device(b.device):
        device = torch.cuda.current_device()
        window = (_shared_bytes(device) - _FACTOR_BYTES) // _BYTES_OF_AN_EXPONENT
        macros = {"STORE": int(out is not None), **_tables(window, PRODUCT_TILE, PRODUCT_THREADS)}
        shared = window * _BYTES_OF_AN_EXPONENT + _FACTOR_BYTES
        run = nvrtc.kernel(device, "product32", ("tally32.cu", "product32.cu"), shared, **macros)
        factors = _Factors(b.data_ptr(), a.data_ptr(), rows, columns, a.shape[1], len(a))
        tiles = -(-rows // 128) * -(-columns // 256)
        run(_blocks(tiles, 1), PRODUCT_THREADS, factors, c_float(scale), out, state)


class _Factors(Structure):
    """`Factors` of product32.cu."""

    _fields_ = (
        ("b", c_void_p), ("a", c_void_p), ("rows", c_uint32), ("columns", c_uint32), ("pitch", c_uint32),
        ("rank", c_uint32),
    )  # fmt: skip


def _tables(window: int, tile: int, threads: int) -> dict[str, int]:
    first = max(_LAST_EXPONENT + 1 - window, 1)
    return {"WINDOW": window, "FIRST_EXPONENT": first, "THREADS": threads, "TILE": tile}


@cache
def _properties(device: int) -> Any:
    return torch.cuda.get_device_properties(device)


def _shared_bytes(device: int) -> int:
    return int(_properties(device).shared_memory_per_block_optin)


def _blocks(n: int, per_block: int) -> int:
    most = int(_properties(torch.cuda.current_device()).multi_processor_count)
    return max(1, min(most, -(-n // per_block)))
