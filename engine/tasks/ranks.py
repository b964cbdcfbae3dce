"""Finding the magnitudes at the ends of a band to the bit, with no more passes than it takes.

The counts of a tensor say in which code a rank lies, and maybe more: the largest magnitude is among them.
What lies inside the code is looked up among the magnitudes that were kept while it was counted, if a sample
had told where to look; otherwise in another pass.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from engine.kernels import lows
from engine.near import Near
from engine.nouns.tasks import Sought
from engine.sketch import Sketch
from engine.statistics.magnitudes import from_halves, is_largest, largest, magnitude, number_of
from engine.tasks.lockstep import Elements
from engine.tasks.sinks import Form, are_bf16

INFINITE = 0x7F80
Band = tuple[Sought, Sought] | None
_STRETCH = 4096  # elements between two looks at what was found
_RUNS, _RUN = 32, 1024  # of a sample
_SMALL = 1 << 20  # of fewer elements another pass is cheap
_DOUBT = 0.012  # of a sample's rank: four standard errors of the share below the median of 32,768 draws
_SHARE = 16  # no more than a sixteenth of the elements is kept


class BandSink:
    """Finds the magnitudes at the ends of a band; see `engine.tasks.sinks.Sink`.

    Args:
        band: where they lie; None where nothing is kept.
    """

    def __init__(self, band: Band) -> None:
        self._band = band
        codes = [np.uint32(code) for code, _ in band] if band else [np.uint32(0)] * 2
        self._first, self._second = codes
        self._lows = np.zeros((2, 1 << 16) if band else (2, 0), np.int64)
        self._room = np.empty((2, _STRETCH), np.uint32)

    def begin(self, ordinal: int) -> None:
        """See `Sink`."""

    def add(self, patterns: NDArray[np.uint32]) -> None:
        """See `Sink`."""
        if self._band:
            lows.count_lows(patterns, self._first, self._second, self._lows)

    def subtract(self, tuned: Elements, base: Elements) -> bool:
        """See `Sink`."""
        if not are_bf16(tuned, base):
            return False
        if self._band:
            ends = self._first, self._second
            lows.count_bf16_lows(tuned.patterns, base.patterns, *ends, self._room, self._lows)
        return True

    def multiply(self, factors: Form) -> bool:
        """See `Sink`."""
        return False

    def add_zeros(self, count: int) -> None:
        """See `Sink`."""
        if self._band is None:
            return
        if self._first == 0:
            self._lows[0, 0] += count
        elif self._second == 0:
            self._lows[1, 0] += count

    def take(self) -> tuple[float, float]:
        """The two magnitudes, infinite where nothing is kept."""
        if self._band is None:
            return math.inf, math.inf
        (first, low), (second, high) = self._band
        own = self._lows[0 if first == second else 1]
        return magnitude(self._lows[0], first, low), magnitude(own, second, high)


def ends_of(band: Band, sketch: Sketch, near: Near | None) -> tuple[float, float] | None:
    """The magnitudes at the ends of a band, if what was counted tells; infinite where nothing is kept.

    Args:
        band: where they lie.
        sketch: of all elements.
        near: what was kept meanwhile.
    """
    if band is None:
        return math.inf, math.inf
    first, second = (_end(sought, sketch, near) for sought in band)
    return None if first is None or second is None else (first, second)


def _end(sought: Sought, sketch: Sketch, near: Near | None) -> float | None:
    code, rank = sought
    if code >= INFINITE:
        return math.inf
    half = near.low(code, number_of(sketch, code), rank) if near is not None else None
    if half is not None:
        return from_halves(code, half)
    return largest(sketch) if is_largest(sketch, code, rank) else None


def guess(tuned: Elements, base: Elements, rank: int, found: NDArray[np.uint32]) -> Near | None:
    """Where the magnitude of a difference with a rank will lie, by a sample.

    Args:
        tuned: all elements of a tensor.
        base: likewise.
        rank: of the magnitude, from 0, the smallest.
        found: (m,) uint32, room for what is to be kept.

    Returns:
        None where a pass more is cheap, or a sample does not help.
    """
    size = tuned.patterns.size
    if size < _SMALL:
        return None
    sample = _sampled(tuned, base)
    places = [rank / size - _DOUBT, rank / size + _DOUBT]
    ends = np.clip([int(place * sample.size) for place in places], 0, sample.size - 1)
    low, high = (int(pattern >> 16) for pattern in np.partition(sample, ends)[ends])
    if low == 0 or high >= INFINITE:
        return None
    return Near(low, high + 1, found[: size // _SHARE])


def room_for(size: int) -> int:
    """How many magnitudes are kept at the most, of so many elements."""
    return size // _SHARE


def _sampled(tuned: Elements, base: Elements) -> NDArray[np.uint32]:
    """Magnitudes of differences, in runs that lie far apart."""
    size = tuned.patterns.size
    starts = [size * k // _RUNS // 8 * 8 for k in range(_RUNS)]
    return np.concatenate([_run(tuned, base, slice(s, s + _RUN)) for s in starts])


def _run(tuned: Elements, base: Elements, run: slice) -> NDArray[np.uint32]:
    ours, theirs = Elements(tuned.dtype, tuned.patterns[run]), Elements(base.dtype, base.patterns[run])
    with np.errstate(all="ignore"):
        sizes: NDArray[np.float32] = np.abs(ours.floats() - theirs.floats())
    return sizes.view(np.uint32)
