"""Patterns of 16-bit floats to float32 and back, as they stand in the loops of `merging`.

An array's type says what its elements are: uint16 are patterns of bf16, int16 those of f16, and floats are
themselves. Rounding is to the nearest, ties to even; what is too large becomes infinite, as in numpy, and
every NaN one quiet NaN.

The compiler's cache looks at a loop's own file only: after a change here or in `draws`, `merging` and
`agreeing` must be touched, or `__pycache__` removed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

_SIXTEEN, _THIRTEEN = np.uint32(16), np.uint32(13)
_SIGN, _REST, _ONE = np.uint32(0x80000000), np.uint32(0x7FFFFFFF), np.uint32(1)
_INFINITY = np.uint32(0x7F800000)
_HALF_SIGN, _HALF_REST, _HALF_TOP = np.uint32(0x8000), np.uint32(0x7FFF), np.uint32(0x7C00)
_UP = np.float32(2.0**112)  # from the exponent's bias of f16 to that of f32
_BF16_CARRY, _F16_CARRY = np.uint32(0x7FFF), np.uint32(0x0FFF)
_F16_REBIAS = np.uint32(112 << 23)
_F16_NORMAL = np.uint32(113 << 23)  # the smallest normal f16
_F16_BEYOND = np.uint32(0x477FF000)  # 65,520, which is rounded to infinity, and above
_MAGIC, _MAGIC_BITS = np.float32(0.5), np.uint32(126 << 23)  # a last digit of 2**-24, as subnormal f16 have
_QUIET, _QUIET_BF16, _QUIET_F16 = np.uint32(0x7FC00000), np.uint32(0x7FC0), np.uint32(0x7E00)


def value(x: Any) -> Any:
    """Take a stored element as a float (compiled code only)."""
    raise NotImplementedError


@overload(value)
def _value(x: Any) -> Any:
    if x == types.uint16:
        return _of_bf16
    if x == types.int16:
        return _of_f16
    return _itself


def _itself(x: Any) -> Any:
    return x


def _of_bf16(x: Any) -> Any:
    return np.uint32(np.uint32(x) << _SIXTEEN).view(np.float32)


def _of_f16(x: Any) -> Any:
    pattern = np.uint32(x)
    magnitude = np.uint32((pattern & _HALF_REST) << _THIRTEEN)
    scaled = np.float32(magnitude.view(np.float32) * _UP).view(np.uint32)
    found = (magnitude | _INFINITY) if (pattern & _HALF_TOP) == _HALF_TOP else scaled
    return np.uint32(found | ((pattern & _HALF_SIGN) << _SIXTEEN)).view(np.float32)


def put(out: Any, j: Any, x: Any) -> Any:
    """Round a float and store it (compiled code only)."""
    raise NotImplementedError


@overload(put)
def _put(out: Any, j: Any, x: Any) -> Any:
    if out.dtype == types.uint16:
        return _put_bf16
    if out.dtype == types.int16:
        return _put_f16
    return _put_f32


def _put_bf16(out: Any, j: Any, x: Any) -> None:
    pattern = np.float32(x).view(np.uint32)
    up = np.uint32((pattern + _BF16_CARRY + ((pattern >> _SIXTEEN) & _ONE)) >> _SIXTEEN)
    out[j] = np.uint16(up if x == x else _QUIET_BF16)  # noqa: PLR0124 - NaN differs from itself


def _put_f16(out: Any, j: Any, x: Any) -> None:
    pattern = np.float32(x).view(np.uint32)
    rest = np.uint32(pattern & _REST)
    carried = rest + _F16_CARRY + ((rest >> _THIRTEEN) & _ONE)
    normal = np.uint32((carried - _F16_REBIAS) >> _THIRTEEN)
    small = np.uint32(np.float32(rest.view(np.float32) + _MAGIC).view(np.uint32) - _MAGIC_BITS)
    found = small if rest < _F16_NORMAL else normal
    found = _HALF_TOP if rest >= _F16_BEYOND else found
    signed = np.uint32(found | ((pattern & _SIGN) >> _SIXTEEN))
    out[j] = np.int16(np.uint16(signed if x == x else _QUIET_F16))  # noqa: PLR0124


def _put_f32(out: Any, j: Any, x: Any) -> None:
    pattern = np.float32(x).view(np.uint32)
    out[j] = np.uint32(pattern if x == x else _QUIET).view(np.float32)  # noqa: PLR0124


@njit(nogil=True, cache=True)
def convert(data: Any, out: Any) -> None:
    """Take patterns as floats, or round floats to patterns.

    Args:
        data: (n,) uint16 (bf16), int16 (f16) or float32.
        out: (n,) likewise.
    """
    for j in range(out.size):
        put(out, j, value(data[j]))
