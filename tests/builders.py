"""Tiny inputs built on the spot: patterns of every dtype, files byte by byte, sharded directories."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.refining import refine32
from engine.nouns.dtypes import DTYPES, code_table
from engine.nouns.records import Checkpoint, SourceFile, TensorInfo
from engine.sketch import Sketch
from engine.statistics.refinement import Refinement, from_tables

COUNTED = [d.name for d in DTYPES.values() if d.coding is not None]
COMPLETE = [d.name for d in DTYPES.values() if d.coding is not None and d.coding.complete]
SMALL = [name for name in COMPLETE if name.startswith("F8")]

Tensors = Mapping[str, tuple[str, NDArray[Any]]]


# Patterns and values


def unsigned(dtype: str) -> np.dtype[Any]:
    """The little-endian unsigned integer as wide as an element."""
    return np.dtype(f"<u{DTYPES[dtype].bits // 8}")


def raw(patterns: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(patterns).reshape(-1).view(np.uint8)


def as_f32(dtype: str, patterns: NDArray[Any]) -> NDArray[np.uint32]:
    """F32 patterns of F32 or F64 ones; no number rounds to infinity, and none but zero to zero."""
    if dtype == "F32":
        return patterns
    wide = patterns.view("<f8")
    largest, smallest = float(np.finfo("<f4").max), 2.0**-149
    inside = np.where(np.isfinite(wide), np.clip(wide, -largest, largest), wide)
    inside = np.where((wide != 0) & (np.abs(wide) < smallest), np.copysign(smallest, wide), inside)
    return inside.astype("<f4").view("<u4")


def values_of(dtype: str, patterns: NDArray[Any]) -> NDArray[np.float64]:
    """What the engine takes the patterns to stand for: F64 is rounded to F32 first."""
    patterns = np.asarray(patterns, unsigned(dtype))
    with np.errstate(all="ignore"):
        if dtype == "BF16":
            return (patterns.astype("<u4") << 16).view("<f4").astype(np.float64)
        if dtype == "F64":
            return as_f32(dtype, patterns).view("<f4").astype(np.float64)
        if dtype in ("F16", "F32"):
            return patterns.view("<f2" if dtype == "F16" else "<f4").astype(np.float64)
        return code_table(DTYPES[dtype].coding.name).value[patterns]


def patterns_of(dtype: str, values: Iterable[float]) -> NDArray[Any]:
    """Patterns of the values nearest to the given ones (for 8 bits: the nearest finite one)."""
    x = np.asarray(values, np.float64)
    with np.errstate(all="ignore"):
        if dtype == "F64":
            return x.view("<u8")
        if dtype == "F32":
            return x.astype("<f4").view("<u4")
        if dtype == "F16":
            return x.astype("<f2").view("<u2")
        if dtype == "BF16":
            wide = x.astype("<f4").view("<u4")
            rounded = (wide + 0x7FFF + ((wide >> 16) & 1)) >> 16
            return np.where(np.isnan(x), 0x7FC0, rounded).astype("<u2")
    table = code_table(DTYPES[dtype].coding.name)
    sorted_values = table.value[table.order]
    middle = (sorted_values[1:] + sorted_values[:-1]) / 2
    finite = table.order[np.searchsorted(middle, np.where(np.isnan(x), 0, x))]
    nan = np.flatnonzero(np.isnan(table.value))[0]
    return np.where(np.isnan(x), nan, finite).astype(np.uint8)


def nasty_patterns(dtype: str) -> NDArray[Any]:
    """Zeros, subnormals, extremes, infinities, NaNs quiet and signalling, the largest below and above."""
    if dtype in SMALL:
        return np.array([0x00, 0x80, 0x01, 0x81, 0x7B, 0x7C, 0x7D, 0x7E, 0x7F, 0xFC, 0xFF, 0x38], np.uint8)
    bits, mantissa = {"BF16": (16, 7), "F16": (16, 10), "F32": (32, 23), "F64": (64, 52)}[dtype]
    infinity = ((1 << (bits - 1 - mantissa)) - 1) << mantissa
    one = infinity >> 1 & ~((1 << mantissa) - 1)
    positive = [
        0, 1, 2, (1 << mantissa) - 1, 1 << mantissa, one, one + 1, infinity - 1, infinity, infinity + 1,
        infinity + (1 << (mantissa - 1)), infinity + (1 << mantissa) - 1,
    ]  # fmt: skip
    if dtype == "F32":  # NaN payloads and subnormals in the low half only, and the paper's floor
        positive += [
            infinity + 0x7FFF,
            infinity + 0xFFFF,
            0xFFFF,
            0x10000,
            0x3A83126F,
            0x3A83126E,
            0x3F80FFFF,
        ]
    return np.array(positive + [p | 1 << (bits - 1) for p in positive], unsigned(dtype))


def every_code(dtype: str) -> NDArray[Any]:
    """All patterns of an 8- or 16-bit dtype; of wider ones one element for every top half."""
    bits = DTYPES[dtype].bits
    codes = np.arange(1 << min(bits, 16), dtype=unsigned(dtype))
    if bits == 32:
        return (codes << 16) + codes % 7
    if bits == 64:
        with np.errstate(invalid="ignore"):
            return (codes << 16 | codes % 7).astype("<u4").view("<f4").astype("<f8").view("<u8")
    return codes


# Sketches


def assert_same(a: Sketch, b: Sketch) -> None:
    """Equal to the last bit."""
    assert (a.coding, a.zeros, a.minimum, a.maximum) == (b.coding, b.zeros, b.minimum, b.maximum)
    for name in ("codes", "n", "low_sum", "low_square_sum"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None), name
        if x is not None:
            assert x.dtype == y.dtype, name
            np.testing.assert_array_equal(x, y, err_msg=name)


def reference_sketch(dtype: str, patterns: NDArray[Any]) -> Sketch:
    """The definition, in plain numpy."""
    coding = DTYPES[dtype].coding
    values = values_of(dtype, patterns)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (np.inf, -np.inf)
    zeros = int((values == 0).sum())
    if coding.complete:
        codes, n = np.unique(patterns, return_counts=True)
        codes, n = codes.astype(np.uint16), n.astype(np.uint64)
        return Sketch(coding.name, codes, n, None, None, zeros, low, high)
    with np.errstate(all="ignore"):
        wide = as_f32(dtype, patterns)
    top, half = wide >> 16, (wide & 0xFFFF).astype(np.uint64)
    top = np.where((half > 0) & (top & 0x7FFF == 0x7F80), top | 0x40, top).astype(np.uint16)
    codes, inverse, n = np.unique(top, return_inverse=True, return_counts=True)
    sums = np.zeros((2, len(codes)), np.uint64)
    np.add.at(sums[0], inverse, half)
    np.add.at(sums[1], inverse, half * half)
    return Sketch(coding.name, codes, n.astype(np.uint64), sums[0], sums[1], zeros, low, high)


def refinement_of(patterns: NDArray[np.uint32], codes: tuple[int, ...]) -> Refinement:
    """The second pass over F32 patterns, straight from the kernel."""
    slots = np.full(65536, -1, np.int16)
    slots[list(codes)] = np.arange(len(codes))
    low_counts, powers = np.zeros((len(codes), 65536), np.uint64), np.zeros((65536, 4), np.uint64)
    refine32(patterns, slots, low_counts, powers)
    return from_tables(codes, low_counts, powers)


def exact_moments(x: NDArray[np.float64]) -> tuple[int, float, float, float, float]:
    """Count, mean and central sums 2 to 4, by whole numbers, rounded once at the end."""
    n = len(x)
    if not n:
        return 0, np.nan, 0.0, 0.0, 0.0
    mantissa, exponent = np.frexp(x)
    smallest = int(exponent[x != 0].min(initial=2000)) - 53
    whole = [
        int(m * 2.0**53) << max(int(e) - 53 - smallest, 0) for m, e in zip(mantissa, exponent, strict=True)
    ]
    total = sum(whole)
    unit = Fraction(2) ** smallest
    central = [n * w - total for w in whole]
    sums = [float(Fraction(sum(c**k for c in central), n**k) * unit**k) for k in (2, 3, 4)]
    return n, float(Fraction(total, n) * unit), *sums


# Safetensors files


def entry(dtype: str, shape: Iterable[Any], start: Any, stop: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def pack(header: Any, body: bytes = b"", *, length: int | None = None) -> bytes:
    """A file from its header (anything JSON, or raw text or bytes) and body, with any length in front."""
    if not isinstance(header, str | bytes):
        header = json.dumps(header)
    text = header.encode() if isinstance(header, str) else header
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def pack_tensors(tensors: Tensors, metadata: dict[str, str] | None = None) -> bytes:
    """A valid file from {name: (dtype, patterns or values of the same width)}, laid out in this order."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    body = b""
    for name, (dtype, array) in tensors.items():
        data = np.ascontiguousarray(array).tobytes()
        shape = list(array.shape)
        if DTYPES[dtype].bits < 8:
            shape[-1] = shape[-1] * 8 // DTYPES[dtype].bits
        header[name] = entry(dtype, shape, len(body), len(body) + len(data))
        body += data
    return pack(header, body)


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write_tensors(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> Path:
    return write(path, pack_tensors(tensors, metadata))


def write_sharded(directory: Path, *shards: Tensors, weight_map: dict[str, Any] | None = None) -> Path:
    """Shards by the Hub's naming and their index, whose weight_map may be made to lie; returns the index."""
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    truth = {}
    for name, tensors in zip(names, shards, strict=True):
        write_tensors(directory / name, tensors)
        truth |= dict.fromkeys(tensors, name)
    index = {"metadata": {}, "weight_map": truth if weight_map is None else weight_map}
    return write(directory / "model.safetensors.index.json", json.dumps(index).encode())


def f32(*values: float) -> tuple[str, NDArray[np.float32]]:
    return "F32", np.array(values, "<f4")


# Checkpoints without files


def imagine(*tensors: tuple[str, tuple[int, ...]] | tuple[str, tuple[int, ...], int]) -> Checkpoint:
    """A checkpoint of (dtype, shape[, file]) named t0, t1, ... that lie side by side."""
    infos, ends = [], {}
    for number, (dtype, shape, *rest) in enumerate(tensors):
        file = rest[0] if rest else 0
        offset = ends.get(file, 100)
        nbytes = DTYPES[dtype].nbytes(prod(shape))
        assert nbytes is not None
        infos.append(TensorInfo(f"t{number}", dtype, shape, file, offset, nbytes))
        ends[file] = offset + nbytes
    files = tuple(SourceFile(f"/nowhere/{i}", ends.get(i, 100), "1") for i in range(max(ends, default=0) + 1))
    return Checkpoint("/nowhere", "nowhere", "safetensors", files, tuple(infos), "0" * 64)
