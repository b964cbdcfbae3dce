"""One table of storage dtypes, and the value that each 16-bit code stands for.

A *coding* maps an element to a code of at most 16 bits. It is complete when the code says everything
about the element (every 8- and 16-bit float); the coding of 32-bit floats keeps the top half of the
pattern as the code and leaves the low half to sums beside the count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

LOW = 1 << 16
"""How many low halves a 32-bit code can have."""


@dataclass(frozen=True, slots=True)
class Coding:
    """How the elements of a dtype become codes.

    Attributes:
        name: its name in the warehouse.
        size: how many codes there are, 256 or 65,536.
        complete: whether a code is the whole element. If not, the element is `value + low * step`,
            with `low` in 0..65535.
    """

    name: str
    size: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Dtype:
    """A storage dtype by safetensors' spelling.

    Attributes:
        name: safetensors' spelling, such as `BF16`.
        bits: bits of one element.
        coding: how its elements are counted, None when they are not.
        reason: why they are not counted, None when they are.
        note: what a reader should know about the counts, None if nothing.
    """

    name: str
    bits: int
    coding: Coding | None = None
    reason: str | None = None
    note: str | None = None

    def nbytes(self, elements: int) -> int | None:
        """Bytes of `elements` elements, None when they do not fill whole bytes."""
        bits = self.bits * elements
        return bits // 8 if bits % 8 == 0 else None


BF16 = Coding("bf16", 65536, complete=True)
F16 = Coding("f16", 65536, complete=True)
F32 = Coding("f32", 65536, complete=False)
F8_E4M3 = Coding("f8_e4m3", 256, complete=True)
F8_E4M3FNUZ = Coding("f8_e4m3fnuz", 256, complete=True)
F8_E5M2 = Coding("f8_e5m2", 256, complete=True)
F8_E5M2FNUZ = Coding("f8_e5m2fnuz", 256, complete=True)

CODINGS: dict[str, Coding] = {c.name: c for c in (BF16, F16, F32, F8_E4M3, F8_E4M3FNUZ, F8_E5M2, F8_E5M2FNUZ)}

SAFETENSORS: dict[str, Dtype] = {
    d.name: d
    for d in (
        Dtype("BF16", 16, BF16),
        Dtype("F16", 16, F16),
        Dtype("F32", 32, F32),
        Dtype("F64", 64, F32, note="F64 rounded to F32, within its range"),
        Dtype("F8_E4M3", 8, F8_E4M3),
        Dtype("F8_E4M3FNUZ", 8, F8_E4M3FNUZ),
        Dtype("F8_E5M2", 8, F8_E5M2),
        Dtype("F8_E5M2FNUZ", 8, F8_E5M2FNUZ),
        *(Dtype(f"{sign}{bits}", bits, reason="integer") for sign in "IU" for bits in (8, 16, 32, 64)),
        Dtype("BOOL", 8, reason="boolean"),
        Dtype("C64", 64, reason="complex"),
        Dtype("F8_E8M0", 8, reason="exponent-only scale"),
        Dtype("F4", 4, reason="packed 4-bit float"),
        Dtype("F6_E2M3", 6, reason="packed 6-bit float"),
        Dtype("F6_E3M2", 6, reason="packed 6-bit float"),
    )
}
"""The dtypes that safetensors has."""

DTYPES: dict[str, Dtype] = {
    **SAFETENSORS,
    "C32": Dtype("C32", 32, reason="complex"),
    "C128": Dtype("C128", 128, reason="complex"),
    "OTHER": Dtype("OTHER", 8, reason="not a number"),
}
"""All dtypes, those of other formats too."""


@dataclass(frozen=True, slots=True)
class CodeTable:
    """What the codes of a coding stand for.

    Attributes:
        value: (size,) float64, the element of each code; for an incomplete coding the element whose low
            half is 0. NaN and infinities are themselves.
        step: (size,) float64, how much one unit of the low half adds, with the sign of the code; 0 for
            a complete coding.
        order: (k,) int64, the finite codes by increasing value; of equal values (the two zeros) the
            negative one first.
    """

    value: NDArray[np.float64]
    step: NDArray[np.float64]
    order: NDArray[np.int64]


def small_float_values(
    exponent_bits: int, mantissa_bits: int, *, bias: int, kind: str
) -> NDArray[np.float64]:
    """Values of every pattern of an 8-bit float.

    Args:
        exponent_bits: width of the exponent field.
        mantissa_bits: width of the mantissa field.
        bias: the exponent's bias.
        kind: `ieee` (top exponent holds infinity and NaN), `fn` (only all ones is NaN, no infinity) or
            `fnuz` (only negative zero's pattern is NaN). OCP OFP8 specification 1.0, section 5; the
            FNUZ variants are those of Noune et al., arXiv 2206.02915.

    Returns:
        (256,) float64.
    """
    pattern = np.arange(256)
    sign = np.where(pattern & 0x80, -1.0, 1.0)
    exponent = (pattern >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = pattern & ((1 << mantissa_bits) - 1)
    normal = np.ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits)
    subnormal = np.ldexp(mantissa.astype(np.float64), 1 - bias - mantissa_bits)
    value = sign * np.where(exponent > 0, normal, subnormal)
    if kind == "ieee":
        top = exponent == (1 << exponent_bits) - 1
        value = np.where(top, np.where(mantissa == 0, sign * np.inf, np.nan), value)
    elif kind == "fn":
        value = np.where((pattern & 0x7F) == 0x7F, np.nan, value)
    else:
        value = np.where(pattern == 0x80, np.nan, value)
    return value


_SMALL = {
    "f8_e4m3": (4, 3, 7, "fn"),
    "f8_e4m3fnuz": (4, 3, 8, "fnuz"),
    "f8_e5m2": (5, 2, 15, "ieee"),
    "f8_e5m2fnuz": (5, 2, 16, "fnuz"),
}


def _values(coding: Coding) -> NDArray[np.float64]:
    if coding.name in _SMALL:
        exponent_bits, mantissa_bits, bias, kind = _SMALL[coding.name]
        return small_float_values(exponent_bits, mantissa_bits, bias=bias, kind=kind)
    patterns = np.arange(65536, dtype=np.uint16)
    if coding is F16:
        halves: NDArray[np.float64] = patterns.view(np.float16).astype(np.float64)
        return halves
    tops: NDArray[np.float64] = (patterns.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return tops


def _steps(coding: Coding) -> NDArray[np.float64]:
    if coding.complete:
        return np.zeros(coding.size)
    code = np.arange(coding.size)
    exponent = np.maximum((code >> 7) & 0xFF, 1)
    steps: NDArray[np.float64] = np.where(code & 0x8000, -1.0, 1.0) * np.ldexp(1.0, exponent - 150)
    return steps


@cache
def code_table(coding_name: str) -> CodeTable:
    """The code table of a coding, built once a process.

    Raises:
        KeyError: there is no such coding.
    """
    coding = CODINGS[coding_name]
    with np.errstate(invalid="ignore"):  # signalling NaN patterns are converted on purpose
        value = _values(coding)
    code = np.arange(coding.size)
    negative = code >= coding.size // 2
    descending = code[negative][::-1]
    by_value = np.concatenate([descending, code[~negative]])
    order = by_value[np.isfinite(value[by_value])].astype(np.int64)
    return CodeTable(value, _steps(coding), order)
