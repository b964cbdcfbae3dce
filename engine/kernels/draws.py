"""Random numbers by position: the number of an element depends on its key and its index, and on nothing else.

SplitMix64 (Steele, Lea, Flood 2014) read at an index instead of in turn: its state is a counter, so element i
of a stream is `mix(key + (i + 1) * golden)`. It passes BigCrush.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_STEP = 2.0**-53
_LAST = np.uint64((1 << 53) - 1)


@njit(nogil=True, cache=True)
def bits(key: Any, index: Any) -> Any:
    """Draw 53 bits.

    Args:
        key: uint64, of the stream.
        index: uint64, of the element.

    Returns:
        uint64 below 2**53.
    """
    z = key + (index + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> _30)) * _FIRST
    z = (z ^ (z >> _27)) * _SECOND
    return (z ^ (z >> _31)) >> _11


@njit(nogil=True, cache=True)
def uniform(key: Any, first: Any, out: Any) -> None:
    """Draw numbers from [0, 1), evenly spaced by 2**-53.

    Args:
        key: uint64, of the stream.
        first: uint64, index of the first element.
        out: (n,) float64.
    """
    for j in range(out.size):
        out[j] = np.float64(bits(key, first + np.uint64(j))) * _STEP


# The normal distribution's inverse, by Wichura's PPND16 (Applied Statistics 37, 1988, AS 241): ratios of
# polynomials, good to about 1e-16. Only additions, multiplications, divisions and square roots, all of which
# IEEE 754 fixes to the bit; the logarithm of a library would not be the same on every machine.


@njit(nogil=True, cache=True)
def _logarithm(x: Any) -> Any:
    """Natural logarithm of a normal, positive float64, within a few units of the last place."""
    pattern = np.float64(x).view(np.uint64)
    exponent = np.int64(pattern >> np.uint64(52)) - np.int64(1023)
    digits = (pattern & np.uint64(0xFFFFFFFFFFFFF)) | np.uint64(0x3FF0000000000000)
    mantissa = np.uint64(digits).view(np.float64)
    if mantissa > 1.4142135623730951:
        mantissa, exponent = mantissa * 0.5, exponent + 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    z = s * s
    total = 1.0 / 23.0
    for odd in range(21, 0, -2):
        total = total * z + 1.0 / odd
    return exponent * 0.6931471805599453 + 2.0 * s * total


@njit(nogil=True, cache=True)
def _middle(q: Any) -> Any:
    """Quantile of 0.5 + q, |q| <= 0.425."""
    r = 0.180625 - q * q
    top = 2.5090809287301226727e3
    top = top * r + 3.3430575583588128105e4
    top = top * r + 6.7265770927008700853e4
    top = top * r + 4.5921953931549871457e4
    top = top * r + 1.3731693765509461125e4
    top = top * r + 1.9715909503065514427e3
    top = top * r + 1.3314166789178437745e2
    top = top * r + 3.3871328727963666080
    bottom = 5.2264952788528545610e3
    bottom = bottom * r + 2.8729085735721942674e4
    bottom = bottom * r + 3.9307895800092710610e4
    bottom = bottom * r + 2.1213794301586595867e4
    bottom = bottom * r + 5.3941960214247511077e3
    bottom = bottom * r + 6.8718700749205790830e2
    bottom = bottom * r + 4.2313330701600911252e1
    bottom = bottom * r + 1.0
    return q * top / bottom


@njit(nogil=True, cache=True)
def _tail(p: Any) -> Any:
    """Minus the quantile of a p below 0.075."""
    r = math.sqrt(-_logarithm(p))
    if r <= 5.0:
        r -= 1.6
        top = 7.74545014278341407640e-4
        top = top * r + 2.27238449892691845833e-2
        top = top * r + 2.41780725177450611770e-1
        top = top * r + 1.27045825245236838258
        top = top * r + 3.64784832476320460504
        top = top * r + 5.76949722146069140550
        top = top * r + 4.63033784615654529590
        top = top * r + 1.42343711074968357734
        bottom = 1.05075007164441684324e-9
        bottom = bottom * r + 5.47593808499534494600e-4
        bottom = bottom * r + 1.51986665636164571966e-2
        bottom = bottom * r + 1.48103976427480074590e-1
        bottom = bottom * r + 6.89767334985100004550e-1
        bottom = bottom * r + 1.67638483018380384940
        bottom = bottom * r + 2.05319162663775882187
        return top / (bottom * r + 1.0)
    r -= 5.0
    top = 2.01033439929228813265e-7
    top = top * r + 2.71155556874348757815e-5
    top = top * r + 1.24266094738807843860e-3
    top = top * r + 2.65321895265761230930e-2
    top = top * r + 2.96560571828504891230e-1
    top = top * r + 1.78482653991729133580
    top = top * r + 5.46378491116411436990
    top = top * r + 6.65790464350110377720
    bottom = 2.04426310338993978564e-15
    bottom = bottom * r + 1.42151175831644588870e-7
    bottom = bottom * r + 1.84631831751005468180e-5
    bottom = bottom * r + 7.86869131145613259100e-4
    bottom = bottom * r + 1.48753612908506148525e-2
    bottom = bottom * r + 1.36929880922735805310e-1
    bottom = bottom * r + 5.99832206555887937690e-1
    return top / (bottom * r + 1.0)


@njit(nogil=True, cache=True)
def normal(key: Any, index: Any) -> Any:
    """Draw from the standard normal distribution, by inversion of the middle of the uniform's step.

    Args:
        key: uint64, of the stream.
        index: uint64, of the element.

    Returns:
        float64, at most 8.3 in magnitude.
    """
    n = bits(key, index)
    q = (np.float64(n) + 0.5) * _STEP - 0.5
    if abs(q) <= 0.425:
        return _middle(q)
    low = np.float64(min(n, _LAST - n)) + 0.5  # of both tails the same digits
    z = _tail(low * _STEP)
    return -z if q < 0.0 else z


@njit(nogil=True, cache=True)
def gaussian(key: Any, first: Any, out: Any) -> None:
    """Draw standard normal numbers, rounded to float32.

    Args:
        key: uint64, of the stream.
        first: uint64, index of the first element.
        out: (n,) float32.
    """
    for j in range(out.size):
        out[j] = np.float32(normal(key, first + np.uint64(j)))
