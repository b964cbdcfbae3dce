"""Everything that is kept about one tensor, from its sketch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from engine.nouns.dtypes import code_table
from engine.sketch import Sketch
from engine.statistics.distribution import Distribution, by_value, distribution
from engine.statistics.filtering import FLOORS, SIGMAS, Filtered, filtered, interval_edges
from engine.statistics.gaussianity import entropy_bits, gaussian_entropy_bits, kolmogorov_smirnov
from engine.statistics.moments import Moments, moments, shape_error
from engine.statistics.quantiles import PROBABILITIES, quantiles, ranks_cells
from engine.statistics.refinement import Refinement

SMALL = 1e-3
"""Magnitudes below this are the paper's small values (App. A.1)."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Numbers of one tensor. Moments and what follows are those of the finite elements.

    Attributes:
        n: all elements.
        zeros, nan, pos_inf, neg_inf: how many of each.
        small: finite elements of magnitude below 1e-3, zeros among them.
        minimum, maximum: extreme finite elements, NaN when there is none.
        moments: central moments.
        error_bound: of skewness and kurtosis; 0 when exact.
        quantiles: by column of `PROBABILITIES`.
        entropy: bits per element; see `gaussianity.entropy_bits`.
        gaussian_entropy: the same of a Gaussian with these moments in this coding.
        ks: Kolmogorov-Smirnov distance to the fitted normal.
        filtered: the k-sigma filter at the standard thresholds.
    """

    n: int
    zeros: int
    nan: int
    pos_inf: int
    neg_inf: int
    small: int
    minimum: float
    maximum: float
    moments: Moments
    error_bound: float
    quantiles: dict[str, float]
    entropy: float
    gaussian_entropy: float
    ks: float
    filtered: tuple[Filtered, ...]


def summarise(sketch: Sketch, refinement: Refinement | None = None) -> Summary:
    """Work out every number that the warehouse keeps of a tensor.

    Args:
        sketch: of any coding.
        refinement: the second pass of 32-bit floats, if one was made.
    """
    cells = distribution(sketch, refinement)
    total = moments(cells)
    values = code_table(sketch.coding).value[sketch.codes]
    has_finite = len(cells) > 0
    return Summary(
        n=sketch.count,
        zeros=sketch.zeros,
        nan=int(sketch.n[np.isnan(values)].sum()),
        pos_inf=int(sketch.n[values == np.inf].sum()),
        neg_inf=int(sketch.n[values == -np.inf].sum()),
        small=_small(cells),
        minimum=sketch.minimum if has_finite else np.nan,
        maximum=sketch.maximum if has_finite else np.nan,
        moments=total,
        error_bound=shape_error(cells, total),
        quantiles=dict(zip(PROBABILITIES, quantiles(cells, [*PROBABILITIES.values()]).tolist(), strict=True)),
        entropy=entropy_bits(sketch),
        gaussian_entropy=gaussian_entropy_bits(sketch.coding, total),
        ks=kolmogorov_smirnov(cells, total),
        filtered=tuple(filtered(cells, total, t, floor) for t, floor in product(SIGMAS, FLOORS)),
    )


def _small(cells: Distribution) -> int:
    """Elements of magnitude below SMALL; cells that the threshold cuts count in proportion."""
    reach = np.minimum(cells.high, np.nextafter(SMALL, 0)) - np.maximum(cells.low, -np.nextafter(SMALL, 0))
    width = cells.high - cells.low
    inside = (cells.high < SMALL) & (cells.low > -SMALL)
    share = np.where(inside, 1.0, np.clip(reach / np.where(width > 0, width, np.inf), 0, 1))
    return round(float((cells.n * share).sum()))


def codes_to_refine(sketch: Sketch) -> tuple[int, ...]:
    """Find the codes of 32-bit floats whose low halves decide a filter, a quantile or the small values.

    Args:
        sketch: a complete first pass.

    Returns:
        increasing codes, a few dozen at most; none for complete codings.
    """
    if sketch.low_sum is None:
        return ()
    cells = distribution(sketch)
    if not len(cells):
        return ()
    edges = np.array([*interval_edges(moments(cells)), SMALL, -SMALL])
    cut = np.searchsorted(cells.high, edges, "left")
    cut = np.concatenate([cut[cut < len(cells)], ranks_cells(cells, [*PROBABILITIES.values()])])
    return tuple(np.unique(sketch.codes[by_value(sketch)[cut]]).tolist())
