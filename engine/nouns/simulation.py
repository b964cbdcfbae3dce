"""What the paper's simulation of weights is made of (App. C.6)."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

LEVELS = (0.001, 0.005, 0.01, 0.03, 0.05, 0.1, 0.2, 0.3)
"""The paper's levels of noise."""

SHAPES = ("line", "line", "inverted_t", "sharp", "sharp", "gaussian", "gaussian", "gaussian")
"""What the paper sees at each of them (App. B.2)."""

MOST_POINTS = 1 << 31
"""As many elements of one code as the counts of 32-bit floats are sure to have room for."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """A simulation of weights: optimal ones, and noise of several levels on top of them.

    Attributes:
        seed: of the generators, not negative.
        points: how many weights there are.
        sigma: standard deviation of the Gaussian that the optimal weights are cut from.
        levels: standard deviations of the noise.
    """

    seed: int = 42
    points: int = 10_000_000
    sigma: float = 0.1
    levels: tuple[float, ...] = LEVELS

    @property
    def nonzero(self) -> int:
        """Points that are drawn; those that the truncation sets to zero are among them."""
        return self.points // 5

    @property
    def outliers(self) -> int:
        """Drawn points that are outliers: half a per cent."""
        return self.nonzero // 200

    @property
    def truncation(self) -> tuple[float, float]:
        """Smaller and larger magnitudes of the Gaussian are set to zero."""
        return 0.001, 0.5

    @property
    def outlier_range(self) -> tuple[float, float]:
        """Where outliers lie."""
        return 0.6, 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix that the points are, as square as it gets."""
        rows = next(k for k in range(isqrt(self.points), 0, -1) if self.points % k == 0)
        return rows, self.points // rows

    def tensor(self, level: float) -> str:
        """Name of the tensor of one level."""
        return f"noise-{level!r}"
