"""Edits of weights: which elements of a tensor are kept, by an interval of values."""

from __future__ import annotations

import math
from dataclasses import dataclass

_LARGEST = 1.7976931348623157e308

KEEPS = ("outliers", "gaussian")
"""What can be kept of a distribution: what lies beyond its interval, or what lies in it."""


@dataclass(frozen=True, slots=True)
class Band:
    """A closed interval, and which side of it is kept.

    Attributes:
        low: its lower end, float64; NaN for an interval that nothing is in.
        high: its upper end, likewise.
        inside: whether what lies in it is kept, or everything else. NaN and infinities are never in it.
    """

    low: float
    high: float
    inside: bool


@dataclass(frozen=True, slots=True)
class Edit:
    """What is kept of every tensor.

    Attributes:
        keep: `outliers` or `gaussian`, by [mean - t sigma, mean + t sigma]; None where there is a floor.
        t: how many sigma.
        floor: the least magnitude that is kept; None for the others.
    """

    keep: str | None
    t: float = 3.0
    floor: float | None = None

    @property
    def counted(self) -> bool:
        """Whether a tensor must be counted before it can be edited."""
        return self.floor is None

    @property
    def words(self) -> str:
        """What is kept, in words."""
        if self.floor is not None:
            return f"values of a magnitude of at least {self.floor:g} kept"
        return f"{'outliers beyond' if self.keep == 'outliers' else 'values within'} {self.t:g} sigma kept"

    def band(self, mean: float = math.nan, sigma: float = math.nan) -> Band:
        """The interval of one tensor.

        Args:
            mean: of its finite elements; NaN where there are none. A floor needs neither.
            sigma: their population standard deviation.

        Returns:
            the closed interval of the paper's filter (section 2 of arXiv 2501.10661); for a floor the one of
            all smaller magnitudes.
        """
        if self.floor is not None:
            below = math.nextafter(self.floor, 0.0)
            return Band(-below, below, inside=False)
        reach = self.t * sigma
        low, high = mean - reach, mean + reach
        ends = max(low, -_LARGEST), min(high, _LARGEST)  # what is infinite is beyond everything
        return Band(*ends, inside=self.keep == "gaussian")
