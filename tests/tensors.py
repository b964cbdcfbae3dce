"""Tensors of every temper, and what numpy says of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.statistics.filtering import Filtered
from engine.statistics.moments import Moments
from tests.builders import SMALL, exact_moments, nasty_patterns, patterns_of, values_of

F64 = NDArray[np.float64]
Rng = np.random.Generator

ABOVE_FLOOR = np.float32(1e-3)  # the nearest float32 lies above 1e-3 and is kept
BELOW_FLOOR = np.nextafter(ABOVE_FLOOR, np.float32(0))
LARGEST = {"BF16": 3.3895e38, "F16": 65504.0, "F32": 3.4028e38, "F64": 3.4028e38}
SMALLEST = {"BF16": 2.0**-133, "F16": 2.0**-24, "F32": 2.0**-149, "F64": 2.0**-149}


def with_at(r: Rng, x: F64, share: float, choices: list[float]) -> F64:
    """Put some of the elements onto chosen values."""
    return np.where(r.random(len(x)) < share, r.choice(choices, len(x)), x)


def on_thresholds(r: Rng, n: int) -> F64:
    """Clumps just inside and outside of mean +- 2 and 3 sigma."""
    x = r.normal(0, 0.02, n)
    clump = r.choice([-3, -2, 2, 3], n // 20) * x.std() * (1 + 1e-3 * r.normal(size=n // 20))
    return np.concatenate([x[len(clump) :], x.mean() + clump])


GENTLE: dict[str, Callable[[Rng, int], F64]] = {
    "gaussian": lambda r, n: r.normal(0, 0.02, n),
    "shifted": lambda r, n: r.normal(0.3, 0.02, n),
    "heavy tails": lambda r, n: r.standard_t(2, n) * 0.01,
    "laplace": lambda r, n: r.laplace(0, 0.003, n),
    "narrow": lambda r, n: r.normal(0, 4e-4, n),
    "uniform": lambda r, n: r.uniform(-0.05, 0.05, n),
    "negative": lambda r, n: -r.exponential(0.01, n),
    "half zeros": lambda r, n: with_at(r, r.normal(0, 0.02, n), 0.5, [0.0, -0.0]),
    "one outlier": lambda r, n: np.append(r.normal(0, 1e-3, n - 1), 1.0),
    "few values": lambda r, n: r.choice(r.normal(0, 0.01, 5), n),
    "around the floor": lambda r, n: with_at(
        r, r.normal(0, 5e-3, n), 0.3, list(1e-3 * (1 + 2e-3 * r.normal(size=9)))
    ),
    "at the floor": lambda r, n: with_at(r, r.normal(0, 5e-3, n), 0.3, [ABOVE_FLOOR, -ABOVE_FLOOR]),
    "just below the floor": lambda r, n: with_at(r, r.normal(0, 5e-3, n), 0.3, [BELOW_FLOOR, -BELOW_FLOOR]),
    "on thresholds": on_thresholds,
}
"""Each is wide in comparison to the cells of 32-bit floats."""

EXTREME: dict[str, Callable[[Rng, int], F64]] = {
    "nothing": lambda r, n: np.zeros(0),
    "one element": lambda r, n: r.normal(size=1),
    "one zero": lambda r, n: np.zeros(1),
    "constant": lambda r, n: np.full(n, r.normal()),
    "constant, every bit set": lambda r, n: np.full(n, np.float32(1.99999988)),
    "zeros of both signs": lambda r, n: r.choice([0.0, -0.0], n),
    "two values": lambda r, n: r.choice([-0.03, 0.7], n),
    "two neighbours": lambda r, n: np.where(np.arange(n) % 2, 1.0, 1.0 + 2.0**-7),
    "one of many differs": lambda r, n: np.append(np.ones(n - 1), 1.125),
    "mean far above sigma": lambda r, n: 1 + 1e-6 * r.normal(size=n),
    "mean farther above sigma": lambda r, n: 3e4 + 1e-2 * r.normal(size=n),
    "all at the floor": lambda r, n: np.full(n, ABOVE_FLOOR),
    "outliers at the floor": lambda r, n: np.append(
        r.normal(0, 1e-5, n), [ABOVE_FLOOR, BELOW_FLOOR, -BELOW_FLOOR]
    ),
    "two sigma exactly": lambda r, n: np.array([2.0, -2.0, 0, 0, 0, 0, 0, 0]),
    "three sigma exactly": lambda r, n: np.array([3.0, -3.0] + 16 * [0.0]),
}


def patterns(name: str, dtype: str, seed: int = 0, n: int = 700) -> NDArray[Any]:
    """A named tensor in a dtype."""
    r = np.random.default_rng([seed, len(name)])
    if name == "huge":
        wide = LARGEST.get(dtype, 200.0) * r.uniform(-1, 1, n)
        return patterns_of(dtype, wide)
    if name == "subnormal":
        return patterns_of(dtype, SMALLEST.get(dtype, 2.0**-9) * r.integers(-200, 200, n))
    if name == "not finite":
        return np.concatenate([patterns("gaussian", dtype, seed, n), np.resize(nasty_patterns(dtype), 64)])
    if name == "nothing finite":
        nasty = nasty_patterns(dtype)
        return np.resize(nasty[~np.isfinite(values_of(dtype, nasty))], 20)
    scale = 20 if dtype in SMALL else 1
    values = (GENTLE | EXTREME)[name](r, n)
    return patterns_of(dtype, values * (scale if name in GENTLE else 1))


NAMES = [*GENTLE, *EXTREME, "huge", "subnormal", "not finite", "nothing finite"]


@dataclass(frozen=True)
class Truth:
    """Moments by whole numbers, and the sums of |x - mean|^k that their errors are measured against."""

    n: int
    mean: float
    m2: float
    m3: float
    m4: float
    mean_magnitude: float
    size3: float

    @property
    def std(self) -> float:
        return math.sqrt(self.m2 / self.n) if self.n else math.nan

    @property
    def skewness(self) -> float:
        return self.m3 / self.n / self.std**3 if self.std > 0 else math.nan

    @property
    def kurtosis(self) -> float:
        return self.m4 / self.n / self.std**4 if self.std > 0 else math.nan


def truth(x: F64) -> Truth:
    n, mean, m2, m3, m4 = exact_moments(x)
    magnitude = float(np.abs(x).mean()) if n else 0.0
    return Truth(n, mean, m2, m3, m4, magnitude, float((np.abs(x - mean) ** 3).sum()) if n else 0.0)


def kept_by_the_filter(x: F64, total: Truth, sigmas: float, floor: float) -> F64:
    reach = sigmas * total.std
    return x[(x >= total.mean - reach) & (x <= total.mean + reach) & (np.abs(x) >= floor)]


def on_a_knife_edge(x: F64, total: Truth, sigmas: float) -> int:
    """Elements so near to mean +- t sigma that the last digit of either decides."""
    edges = total.mean + sigmas * total.std * np.array([-1, 1])
    digit = 1e-13 * (abs(total.mean) + sigmas * total.std)
    return int((np.abs(x[:, None] - edges) <= digit).sum())


def assert_moments(found: Moments, x: F64, *, higher: bool = True, rel: float = 1e-12) -> None:
    """To 1e-12 of what each sum is made of; the higher ones only if they are claimed."""
    true = truth(x)
    assert found.n == true.n
    if not true.n:
        assert math.isnan(found.mean)
        return
    assert abs(found.mean - true.mean) <= rel * true.mean_magnitude
    assert abs(found.m2 - true.m2) <= rel * true.m2
    if higher:
        assert abs(found.m3 - true.m3) <= rel * true.size3
        assert abs(found.m4 - true.m4) <= rel * true.m4
        np.testing.assert_allclose(found.kurtosis, true.kurtosis, rtol=4 * rel)
        size = true.size3 / true.n / true.std**3 if true.std > 0 else 0.0
        np.testing.assert_allclose(found.skewness, true.skewness, rtol=0, atol=4 * rel * size)


def outside_the_bound(found: Filtered, x: F64, total: Truth) -> list[str]:
    """Which of the five numbers are off by more than the error bound; a number where none is, is off."""
    if found.error_bound == math.inf or not total.n:
        return []
    kept = truth(kept_by_the_filter(x, total, found.sigmas, found.floor))
    pairs = {"ratio": (found.ratio, kept.n / total.n)}
    pairs |= {
        k: (getattr(found.moments, k), getattr(kept, k)) for k in ("mean", "std", "skewness", "kurtosis")
    }
    return [
        f"{name}: {a} instead of {b}, bound {found.error_bound}"
        for name, (a, b) in pairs.items()
        if not (math.isnan(a) and math.isnan(b))
        and not abs(a - b) <= found.error_bound + 1e-11 * max(1.0, abs(b))
    ]
