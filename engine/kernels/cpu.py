"""Counting loops for one CPU core (numba, `nogil`).

A table has several lanes, one per position in the word that is read. Lanes keep an element that recurs
(half of a pruned tensor is zero) from waiting for its own last increment; the lanes are added at the end.
More lanes also take more cache, so the number fits the dtype: see LANES in `engine.sketch`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

COUNT_SHIFT = 40
"""In a packed counter of `count32` the count starts at this bit; the sum of low halves lies below."""

_8, _16, _32, _40, _48, _56 = (np.uint64(s) for s in (8, 16, 32, 40, 48, 56))
_BYTE, _HALF = np.uint64(0xFF), np.uint64(0xFFFF)
_COUNT = np.uint64(1 << COUNT_SHIFT)
_SIXTEEN = np.uint32(16)
_MAGNITUDE, _LOW, _NOTHING, _FAR = (np.uint32(s) for s in (0x7FFFFFFF, 0xFFFF, 0, 0xFFFFFFFF))
_LOWS = np.uint64(0x0000FFFF0000FFFF)
_FEW = 8  # where more than one of so many has a low half, all are taken as if they had
_PATIENCE = 31  # and as many stretches behind them
_QUIET_NAN = np.uint32(0x7FC00000)


@njit(nogil=True, cache=True)
def count8(codes: Any, table: Any) -> None:
    """Count bytes.

    Args:
        codes: (n,) uint8.
        table: (8, 256) uint32, added to.
    """
    whole = codes.size // 8 * 8
    words = codes[:whole].view(np.uint64)
    one = np.uint32(1)
    t0, t1, t2, t3, t4, t5, t6, t7 = (
        table[0], table[1], table[2], table[3], table[4], table[5], table[6], table[7],
    )  # fmt: skip
    for i in range(words.size):
        w = words[i]
        t0[w & _BYTE] += one
        t1[(w >> _8) & _BYTE] += one
        t2[(w >> _16) & _BYTE] += one
        t3[(w >> np.uint64(24)) & _BYTE] += one
        t4[(w >> _32) & _BYTE] += one
        t5[(w >> _40) & _BYTE] += one
        t6[(w >> _48) & _BYTE] += one
        t7[w >> _56] += one
    for i in range(whole, codes.size):
        t0[codes[i]] += one


@njit(nogil=True, cache=True)
def count16(codes: Any, table: Any) -> None:
    """Count 16-bit patterns.

    Args:
        codes: (n,) uint16.
        table: (lanes, 65536) uint32, added to.
    """
    whole = codes.size // 32 * 32
    words = codes[:whole].view(np.uint64)
    lanes = table.shape[0]
    t0, t1, t2, t3 = table[0], table[1 % lanes], table[2 % lanes], table[3 % lanes]
    t4, t5, t6, t7 = table[4 % lanes], table[5 % lanes], table[6 % lanes], table[7 % lanes]
    one = np.uint32(1)
    for i in range(0, words.size, 8):
        first = words[i]
        differ = first ^ ((first >> _16) | (first << _48))
        for k in range(i + 1, i + 8):
            differ |= words[k] ^ first
        if differ == 0:  # 32 equal elements: zeroed blocks and constant tensors
            t0[first & _HALF] += np.uint32(32)
            continue
        for k in range(i, i + 8, 2):
            a, b = words[k], words[k + 1]
            t0[a & _HALF] += one
            t1[(a >> _16) & _HALF] += one
            t2[(a >> _32) & _HALF] += one
            t3[a >> _48] += one
            t4[b & _HALF] += one
            t5[(b >> _16) & _HALF] += one
            t6[(b >> _32) & _HALF] += one
            t7[b >> _48] += one
    for i in range(whole, codes.size):
        t0[codes[i]] += one


@njit(nogil=True, cache=True)
def count32(patterns: Any, table: Any) -> None:
    """Count the top halves of 32-bit patterns, and add up the low halves and their squares.

    Args:
        patterns: (n,) uint32, fewer than 2**24 of them between two readings of the table.
        table: (4, 65536, 2) uint64, added to: [lane, top half] holds the packed count and sum of low
            halves (see COUNT_SHIFT), and the sum of their squares.
    """
    whole = patterns.size // 16 * 16
    words = patterns[:whole].view(np.uint64)
    t0, t1, t2, t3 = table[0], table[1], table[2], table[3]
    for i in range(0, words.size, 8):
        first = words[i]
        differ = first ^ ((first >> _32) | (first << _32))
        for k in range(i + 1, i + 8):
            differ |= words[k] ^ first
        if differ == 0:  # 16 equal elements
            low, top = first & _HALF, (first >> _16) & _HALF
            t0[top, 0] += np.uint64(16) * (_COUNT + low)
            t0[top, 1] += np.uint64(16) * low * low
            continue
        for k in range(i, i + 8, 2):
            a, b = words[k], words[k + 1]
            low, top = a & _HALF, (a >> _16) & _HALF
            t0[top, 0] += _COUNT + low
            t0[top, 1] += low * low
            low, top = (a >> _32) & _HALF, a >> _48
            t1[top, 0] += _COUNT + low
            t1[top, 1] += low * low
            low, top = b & _HALF, (b >> _16) & _HALF
            t2[top, 0] += _COUNT + low
            t2[top, 1] += low * low
            low, top = (b >> _32) & _HALF, b >> _48
            t3[top, 0] += _COUNT + low
            t3[top, 1] += low * low
    for i in range(whole, patterns.size):
        word = np.uint64(patterns[i])
        low, top = word & _HALF, word >> _16
        t0[top, 0] += _COUNT + low
        t0[top, 1] += low * low


@njit(nogil=True, cache=True)
def has_lows(table: Any) -> Any:
    """Whether low halves were added under the codes of infinities, and under those of zeros.

    Args:
        table: (4, 65536, 2) uint64, as `count32` leaves it.

    Returns:
        bool, bool.
    """
    found = np.zeros(4, np.uint64)
    for lane in range(table.shape[0]):  # only the lanes' sum is right, modulo 2**64
        found[0] += table[lane, 0x7F80, 0]
        found[1] += table[lane, 0xFF80, 0]
        found[2] += table[lane, 0, 0]
        found[3] += table[lane, 0x8000, 0]
    lows = found & (_COUNT - np.uint64(1))
    return (lows[0] | lows[1]) != 0, (lows[2] | lows[3]) != 0


@njit(nogil=True, cache=True)
def move_short_nans(patterns: Any, table: Any) -> None:
    """Refile NaNs whose payload lies in the low half only, which `count32` took for infinities.

    They move to the quiet NaN of the same sign, top half 0x7FC0 or 0xFFC0.

    Args:
        patterns: (n,) uint32, as just given to `count32`.
        table: (4, 65536, 2) uint64; the lanes' sum is right afterwards, modulo 2**64.
    """
    for i in range(patterns.size):
        word = np.uint64(patterns[i])
        low, top = word & _HALF, word >> _16
        if low != 0 and (top & np.uint64(0x7FFF)) == np.uint64(0x7F80):
            quiet = top | np.uint64(0x40)
            table[0, top, 0] -= _COUNT + low
            table[0, top, 1] -= low * low
            table[0, quiet, 0] += _COUNT + low
            table[0, quiet, 1] += low * low


@njit(nogil=True, cache=True)
def extremes32(patterns: Any) -> Any:
    """Find the extreme patterns, which order like the floats within a sign.

    Args:
        patterns: (n,) uint32, n >= 1.

    Returns:
        the largest as int32, the largest and the smallest as uint32.
    """
    signed = patterns.view(np.int32)
    top, high, low = signed[0], patterns[0], patterns[0]
    for i in range(patterns.size):
        top = max(top, signed[i])
        high = max(high, patterns[i])
        low = min(low, patterns[i])
    return top, high, low


@njit(nogil=True, cache=True)
def subtract_bf16(tuned: Any, base: Any, out: Any) -> None:
    """Subtract bf16 patterns.

    Args:
        tuned: (n,) uint16.
        base: (n,) uint16.
        out: (n,) uint32, the patterns of tuned - base in float32.
    """
    for i in range(out.size):
        a = np.uint32(np.uint32(tuned[i]) << _SIXTEEN).view(np.float32)
        b = np.uint32(np.uint32(base[i]) << _SIXTEEN).view(np.float32)
        d = np.float32(a - b)
        out[i] = np.float32(d).view(np.uint32) if d == d else _QUIET_NAN  # noqa: PLR0124 - NaN differs from itself


@njit(nogil=True, cache=True)
def keep_near(patterns: Any, low: Any, width: Any, found: Any, kept: Any) -> Any:
    """Keep the magnitudes of 32-bit floats that lie in a range, and whose low half is not 0.

    Args:
        patterns: (n,) uint32.
        low: uint32, the smallest pattern of the range.
        width: uint32, how many patterns it has.
        found: (m,) uint32, the first of which are filled.
        kept: how many are; -1 when there was not room enough.

    Returns:
        how many are now.
    """
    for start in range(0, patterns.size if kept >= 0 else 0, 64):
        some = patterns[start : start + 64]
        if _nearest(some, low) < width:  # few are
            if kept + some.size > found.size:
                return -1
            for i in range(some.size):
                size = some[i] & _MAGNITUDE
                if np.uint32(size - low) < width and size & _LOW:
                    found[kept] = size
                    kept += 1
    return kept


@njit(nogil=True, cache=True)
def _nearest(patterns: Any, low: Any) -> Any:
    """How far above a pattern the next magnitude with a low half is; a loop that is compiled to vectors."""
    best = _FAR
    for i in range(patterns.size):
        size = patterns[i] & _MAGNITUDE
        above = np.uint32(size - low)
        best = min(best, above if (size & _LOW) != _NOTHING else _FAR)
    return best


@njit(nogil=True, cache=True)
def count_bf16(
    tuned: Any, base: Any, room: Any, table: Any, tops: Any, low: Any, width: Any, found: Any, kept: Any
) -> Any:
    """Subtract bf16 patterns and count the differences, by stretches that stay in the first-level cache.

    Few differences of similar numbers have a low half: they are put aside, and the others counted by their
    top halves alone. It lies in the file of the loops that it calls, because numba's cache looks at no other
    for changes.

    Args:
        tuned: (n,) uint16, n >= 1.
        base: (n,) uint16.
        room: (3, m) uint32, for the differences of a stretch; m a multiple of 4.
        table: as for `count32`, which takes stretches with many low halves; no NaN is short. Otherwise only
            the sums of its first lane are added to.
        tops: (4, 65536) uint32, added to: the counts of the other stretches.
        low: as for `keep_near`.
        width: likewise.
        found: likewise; nothing is kept where it has no room.
        kept: likewise.

    Returns:
        the extreme patterns of all differences, as `extremes32`, how many were kept, and whether other lanes
        of the table were used.
    """
    top, high, least = np.int32(-(1 << 31)), np.uint32(0), np.uint32(0xFFFFFFFF)
    is_dense, patience = False, 0
    for start in range(0, tuned.size, room.shape[1]):
        stop = min(start + room.shape[1], tuned.size)
        some = stretch = room[0, : stop - start]
        subtract_bf16(tuned[start:stop], base[start:stop], stretch)
        extremes = extremes32(stretch)
        top, high, least = max(top, extremes[0]), max(high, extremes[1]), min(least, extremes[2])
        if patience == 0 and extremes[1] != extremes[2]:
            some = room[1, : _with_lows(stretch, room[2], room[1])]
        if some.size > stretch.size // _FEW:  # or all are equal
            patience = patience - 1 if patience > 0 else _PATIENCE * (extremes[1] != extremes[2])
            count32(stretch, table)
            is_dense = True
        else:
            _count_tops(stretch, tops)
            _add_lows(some, table[0])
        if found.size:
            kept = keep_near(some, low, width, found, kept)
    return top, high, least, kept, is_dense


@njit(nogil=True, cache=True)
def _with_lows(patterns: Any, groups: Any, found: Any) -> Any:
    """Put aside the patterns that have a low half, without a branch, first by groups of four.

    Args:
        patterns: (n,) uint32.
        groups: (n,) uint32, room.
        found: (n,) uint32, the first of which are filled.

    Returns:
        how many there are.
    """
    whole = patterns.size // 4
    words = patterns[: whole * 4].view(np.uint64)
    count = 0
    for group in range(whole):
        groups[count] = group
        count += ((words[2 * group] | words[2 * group + 1]) & _LOWS) != 0
    kept = 0
    for i in range(count):
        for k in range(groups[i] * 4, groups[i] * 4 + 4):
            found[kept] = patterns[k]
            kept += (patterns[k] & _LOW) != 0
    for k in range(whole * 4, patterns.size):
        found[kept] = patterns[k]
        kept += (patterns[k] & _LOW) != 0
    return kept


@njit(nogil=True, cache=True)
def _count_tops(patterns: Any, tops: Any) -> None:
    """Count the top halves of (n,) uint32."""
    whole = patterns.size // 4 * 4
    words = patterns[:whole].view(np.uint64)
    t0, t1, t2, t3 = tops[0], tops[1], tops[2], tops[3]
    one = np.uint32(1)
    for i in range(0, words.size, 2):
        a, b = words[i], words[i + 1]
        t0[(a >> _16) & _HALF] += one
        t1[a >> _48] += one
        t2[(b >> _16) & _HALF] += one
        t3[b >> _48] += one
    for i in range(whole, patterns.size):
        t0[patterns[i] >> _SIXTEEN] += one


@njit(nogil=True, cache=True)
def _add_lows(patterns: Any, lane: Any) -> None:
    """Add up the low halves of (n,) uint32, and their squares, by top half."""
    for i in range(patterns.size):
        word = np.uint64(patterns[i])
        low, top = word & _HALF, word >> _16
        lane[top, 0] += low
        lane[top, 1] += low * low


@njit(nogil=True, cache=True)
def drain(table: Any, totals: Any) -> None:
    """Add the lanes of a table of 32-bit counters to the totals, and clear it.

    Args:
        table: (lanes, size) uint32, zero afterwards.
        totals: (size,) uint64, added to.
    """
    for lane in range(table.shape[0]):
        row = table[lane]
        for code in range(row.size):
            totals[code] += np.uint64(row[code])
            row[code] = np.uint32(0)


@njit(nogil=True, cache=True)
def drain32(table: Any, totals: Any) -> None:
    """Unpack the lanes of a table of `count32` into the totals, and clear it.

    Args:
        table: (lanes, 65536, 2) uint64, zero afterwards.
        totals: (3, 65536) uint64, added to: counts, sums of low halves, sums of their squares.
    """
    for code in range(table.shape[1]):
        packed, squares = np.uint64(0), np.uint64(0)
        for lane in range(table.shape[0]):
            packed += table[lane, code, 0]
            squares += table[lane, code, 1]
            table[lane, code, 0] = np.uint64(0)
            table[lane, code, 1] = np.uint64(0)
        totals[0, code] += packed >> np.uint64(COUNT_SHIFT)
        totals[1, code] += packed & (_COUNT - np.uint64(1))
        totals[2, code] += squares
