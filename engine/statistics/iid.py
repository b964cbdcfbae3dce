"""Whether a matrix could be what it is if its elements had been shuffled: neighbours, rows and columns.

The null hypothesis is that elements are exchangeable, which i.i.d. ones are, of whatever distribution. What
chance does under it follows from the elements themselves: their kurtosis is in every limit, so heavy tails
alone are no departure, and Gaussian noise is inside each limit in 95 % of all cases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.bands.known import Bands, Run, add_columns, as_float
from engine.statistics.distribution import Distribution
from engine.statistics.moments import Moments
from engine.statistics.tails import NORMAL, Squares, beta_quantile, mean_limit, squares

F64 = NDArray[np.float64]

CONFIDENCE = 0.95
_BROKEN, _CONSTANT, _FEW = "NaN or infinities", "all elements are equal", "too few elements"
_COARSE = "the mean is too far above sigma for the counts to resolve rows and columns"
_LEAST = 8  # elements
_SHORTEST = 4  # elements of a line: of fewer the limits do not hold


@dataclass(frozen=True, slots=True)
class Lag:
    """Correlation of neighbours.

    Attributes:
        r: the correlation, less the -1 / (n - 1) that is expected by chance; NaN without neighbours.
        limit: |r| is below in 95 % of cases, by chance.
    """

    r: float = math.nan
    limit: float = math.nan


@dataclass(frozen=True, slots=True)
class Lines:
    """How much rows differ from each other, or columns. A line's mean square is about the mean of the tensor.

    Attributes:
        spread: variance of the mean squares, in units of what is expected by chance; NaN if not defined.
        low: spread is above in 97.5 % of cases, by chance.
        high: it is below in as many.
        sigma_cv: standard deviation of the sigmas beyond chance, relative to sigma; 0 if there is none.
        outliers: lines whose mean square is beyond what any of them has in 95 % of cases; None if not
            defined.
        worst: the line that is the furthest beyond, or the nearest to that, from 0.
        ratio: its root mean square / sigma of the tensor.
    """

    spread: float = math.nan
    low: float = math.nan
    high: float = math.nan
    sigma_cv: float = math.nan
    outliers: int | None = None
    worst: int | None = None
    ratio: float = math.nan


@dataclass(frozen=True, slots=True)
class Iid:
    """What was found out about a matrix; whatever is not defined is NaN or None.

    Attributes:
        matrix: rows and columns; None if it was not measured.
        row_lag: of neighbours in a row.
        column_lag: of neighbours in a column.
        row: about its rows.
        column: about its columns.
        reason: why numbers are missing.
        zero_rows: rows that are zeros throughout; None if that is not known.
    """

    matrix: tuple[int, int] | None
    row_lag: Lag = Lag()
    column_lag: Lag = Lag()
    row: Lines = Lines()
    column: Lines = Lines()
    reason: str | None = None
    zero_rows: int | None = None


def judge(bands: Bands, cells: Distribution, total: Moments) -> Iid:
    """Compare a matrix with what chance makes of its elements.

    Args:
        bands: of the whole matrix.
        cells: the distribution of the same elements.
        total: their moments.

    Raises:
        ValueError: the bands are not those of the whole matrix.
    """
    matrix, whole = bands.matrix, bands.whole
    if bands.broken:
        return Iid((matrix.rows, matrix.columns), reason=_BROKEN)
    if whole is None:
        raise ValueError(f"bands of part of {matrix}")
    return replace(_judge(bands, whole, cells, total), zero_rows=bands.zero_rows)


def _judge(bands: Bands, whole: Run, cells: Distribution, total: Moments) -> Iid:
    matrix = bands.matrix
    shape = matrix.rows, matrix.columns
    if matrix.elements < _LEAST:
        return Iid(shape, reason=_FEW)
    if not _has_spread(total):
        return Iid(shape, reason=_CONSTANT)
    of_columns = add_columns(whole)
    first, last = of_columns[0, [0, -1]]
    top, bottom = whole.of_rows[0, [0, -1]]
    lags = (
        _lag(as_float(bands.across), float(first + last), matrix.rows, matrix.columns, total),
        _lag(as_float(bands.down), float(top + bottom), matrix.columns, matrix.rows, total),
    )
    if not _resolves(cells, total):
        return Iid(shape, *lags, reason=_COARSE)
    distances = _distances(cells, total)
    return Iid(
        shape,
        *lags,
        _lines(_squares_of(whole.of_rows, matrix.columns, total), matrix.columns, total, distances),
        _lines(_squares_of(of_columns, matrix.rows, total), matrix.rows, total, distances),
    )


def _has_spread(total: Moments) -> bool:
    return total.m2 > 0 and math.isfinite(total.kurtosis)


def _distances(cells: Distribution, total: Moments) -> Squares:
    """The squared distances of all elements from the mean.

    A cell that is no point counts as two, which have its mean and its second central sum.
    """
    d = cells.offset - (total.mean - cells.origin)
    s = np.sqrt(np.maximum(cells.w2 / cells.n, 0.0))
    if not s.any():
        return squares(d * d, cells.n)
    return squares(np.concatenate([(d - s) ** 2, (d + s) ** 2]), np.concatenate([cells.n, cells.n]))


def _resolves(cells: Distribution, total: Moments) -> bool:
    """Whether cells are so narrow that they tell the distances from the mean."""
    return float((cells.n * (cells.high - cells.low)).sum()) <= total.n * total.std


def _squares_of(sums: F64, size: int, total: Moments) -> F64:
    """Sum of squared distances from the tensor's mean, of each line: from its sum, and that of squares."""
    found: F64 = np.maximum(sums[1] - 2 * total.mean * sums[0] + size * total.mean**2, 0.0)
    return found


def _lag(products: float, ends: float, lines: int, size: int, total: Moments) -> Lag:
    """Moran's I of neighbours, with its moments under randomisation.

    Source: Cliff and Ord, Spatial Processes (1981), equations 1.37 and 1.38, for weights of 1 between
        neighbours.

    Args:
        products: sum of the products of neighbours.
        ends: sum of all elements that are first or last in their line.
        lines: how many lines there are.
        size: elements of a line.
        total: moments of all.
    """
    if size < 2 or total.n < _LEAST:
        return Lag()
    n, k, pairs = total.n, total.kurtosis, lines * (size - 1)
    about = products - total.mean * (2 * n * total.mean - ends) + pairs * total.mean**2
    expected = -1 / (n - 1)
    s0, s1, s2 = 2 * pairs, 4 * pairs, 4 * lines * (4 * size - 6)  # two neighbours, at the ends one
    of_any = n * ((n * n - 3 * n + 3) * s1 - n * s2 + 3 * s0 * s0)
    of_tails = k * ((n * n - n) * s1 - 2 * n * s2 + 6 * s0 * s0)
    variance = (of_any - of_tails) / ((n - 1) * (n - 2) * (n - 3) * s0 * s0) - expected**2
    if not variance > 0:
        return Lag()
    z = NORMAL.inv_cdf((1 + CONFIDENCE) / 2)
    return Lag(about / pairs / (total.m2 / n) - expected, z * math.sqrt(variance))


def _lines(of_lines: F64, size: int, total: Moments, distances: Squares) -> Lines:
    """Analysis of variance of the squared distances from the mean, by line; and the lines at its ends.

    Under randomisation the share of the variance that lies between equal groups has the mean of a beta
    variable, and nearly its variance, whatever is analysed.

    Source: Pitman, Biometrika 29 (1938); Box and Andersen, Journal of the Royal Statistical Society B 17
        (1955).
    """
    lines, n = len(of_lines), total.n
    within_all = total.m4 - total.m2**2 / n
    if lines < 2 or size < _SHORTEST or not within_all > 1e-9 * total.m4:
        return Lines()
    means = of_lines / (of_lines.sum() / lines)  # in units of the mean of all
    spread_all = within_all * (n / total.m2) ** 2
    between = size * float(((means - 1) ** 2).sum())
    unit = (lines - 1) / (n - 1)
    a, b = (lines - 1) / 2, (n - lines) / 2
    tail = (1 - CONFIDENCE) / 2
    excess = between / (lines - 1) - max(spread_all - between, 0.0) / (n - lines)
    low, high = _outer(lines, size, n, distances)
    outliers = np.flatnonzero((means > high) | (means < low))
    worst = int(np.argmax(np.where(means > 1, (means - 1) / (high - 1), (1 - means) / (1 - low))))
    return Lines(
        between / spread_all / unit,
        beta_quantile(tail, a, b) / unit,
        beta_quantile(1 - tail, a, b) / unit,
        math.sqrt(max(excess, 0.0) / size) / 2,
        len(outliers),
        worst,
        math.sqrt(float(means[worst])),
    )


def _outer(lines: int, size: int, n: float, distances: Squares) -> tuple[float, float]:
    """Between which mean squares all lines lie in 95 % of cases (Šidák), drawn without replacement."""
    each = -math.expm1(math.log(CONFIDENCE) / lines) / 2
    finite = math.sqrt((n - size) / (n - 1))
    low = 1 - (1 - mean_limit(distances, size, each, upper=False)) * finite
    high = 1 + (mean_limit(distances, size, each, upper=True) - 1) * finite
    return low, high
