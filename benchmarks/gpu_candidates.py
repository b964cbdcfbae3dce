"""Other ways to count patterns that lie on a GPU, against which the engine's own is measured by `gpu.py`."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_uint64
from functools import cache
from pathlib import Path

import torch
import triton
import triton.language as tl

from engine.kernels.cuda import native, nvrtc, portable

HERE = Path(__file__).resolve().parent
CODES = 65536
PART = 1 << 26  # elements that torch's own functions get at once: they need 8 to 24 bytes of memory for each

Count = Callable[[torch.Tensor], torch.Tensor]


@triton.jit
def _tables16(codes, n, tables, count: tl.constexpr, block: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    live = i < n
    code = tl.load(codes + i, mask=live, other=0).to(tl.int32) & 0xFFFF
    table = tables + (tl.program_id(0) % count) * 65536
    tl.atomic_add(table + code, tl.full([block], 1, tl.int32), mask=live, sem="relaxed")


@triton.jit
def _histogram8(data, n, counts, block: tl.constexpr, rounds: tl.constexpr):
    total = tl.zeros([256], tl.int32)
    for r in range(rounds):
        i = (tl.program_id(0).to(tl.int64) * rounds + r) * block + tl.arange(0, block)
        total += tl.histogram(tl.load(data + i, mask=i < n, other=0).to(tl.int32), 256, mask=i < n)
    tl.atomic_add(counts + tl.arange(0, 256), total.to(tl.int64), sem="relaxed")


def shared_table(codes: torch.Tensor) -> torch.Tensor:
    """The engine's: 32-bit counters in shared memory."""
    counts = torch.zeros(CODES, dtype=torch.int64, device=codes.device)
    native.count16(codes.view(torch.uint8), counts, native.room16(codes.device))
    return counts


@cache
def _packed(device: int) -> nvrtc.Kernel:
    return nvrtc.load(device, "packed16", (HERE / "packed16.cu").read_text(), CODES * 2, {})


def packed_table(codes: torch.Tensor) -> torch.Tensor:
    """16-bit counters in shared memory."""
    counts = torch.zeros(CODES, dtype=torch.int64, device=codes.device)
    run = _packed(torch.cuda.current_device())
    run(
        torch.cuda.get_device_properties().multi_processor_count, 1024, codes, c_uint64(codes.numel()), counts
    )
    return counts


def triton_tables(count: int) -> Count:
    """Triton's atomic additions to some tables of 32-bit counters in the GPU's memory."""

    def run(codes: torch.Tensor) -> torch.Tensor:
        tables = torch.zeros((count, CODES), dtype=torch.int32, device=codes.device)
        grid = (triton.cdiv(codes.numel(), 4096),)
        _tables16[grid](codes, codes.numel(), tables, count=count, block=4096)
        return tables.sum(0)

    return run


def triton_portable(codes: torch.Tensor) -> torch.Tensor:
    """The engine's where NVRTC is missing: one table of 64-bit counters."""
    counts = torch.zeros(CODES, dtype=torch.int64, device=codes.device)
    portable.count16(codes.view(torch.uint8), counts, counts)
    return counts


def torch_bincount(codes: torch.Tensor) -> torch.Tensor:
    """`torch.bincount` of int32."""
    parts = [torch.bincount(p.int() & 0xFFFF, minlength=CODES) for p in codes.split(PART)]
    return torch.stack(parts).sum(0)


def torch_histc(codes: torch.Tensor) -> torch.Tensor:
    """`torch.histc` of float32."""
    parts = [
        torch.histc((p.int() & 0xFFFF).float(), CODES, -0.5, CODES - 0.5).long() for p in codes.split(PART)
    ]
    return torch.stack(parts).sum(0)


def torch_sort(codes: torch.Tensor) -> torch.Tensor:
    """Sorted runs: `torch.sort` and `torch.unique_consecutive`."""
    counts = torch.zeros(CODES, dtype=torch.int64, device=codes.device)
    for part in codes.split(PART):
        values, n = torch.unique_consecutive(part.sort()[0], return_counts=True)
        counts[values.int() & 0xFFFF] += n
    return counts


SIXTEEN: dict[str, Count] = {
    "shared table, 32-bit counters (ours)": shared_table,
    "shared table, 16-bit counters": packed_table,
    "Triton, 1 table, 64-bit (ours without NVRTC)": triton_portable,
    "Triton, 1 table, 32-bit": triton_tables(1),
    "Triton, 4 tables, 32-bit": triton_tables(4),
    "Triton, 16 tables, 32-bit": triton_tables(16),
    "torch.bincount": torch_bincount,
    "torch.histc": torch_histc,
    "torch.sort, runs": torch_sort,
}


def byte_pairs(data: torch.Tensor) -> torch.Tensor:
    """The engine's: pairs of bytes in shared memory."""
    from engine.kernels.cuda.tallies import CodeTally

    tally = CodeTally(8, data.device)
    tally.add(data)
    return tally.counts()


def byte_histogram(data: torch.Tensor) -> torch.Tensor:
    """Triton's `tl.histogram`."""
    counts = torch.zeros(256, dtype=torch.int64, device=data.device)
    grid = (triton.cdiv(data.numel(), 4096 * 32),)
    _histogram8[grid](data, data.numel(), counts, block=4096, rounds=32)
    return counts


def byte_bincount(data: torch.Tensor) -> torch.Tensor:
    """`torch.bincount` of uint8."""
    return torch.bincount(data, minlength=256)


EIGHT: dict[str, Count] = {
    "pairs in a shared table (ours)": byte_pairs,
    "Triton, tl.histogram": byte_histogram,
    "torch.bincount": byte_bincount,
}
