"""Scores of predictions, in per cent, as the paper gives them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Metrics = dict[str, float]
Floats = NDArray[np.float64]


def accuracy(predicted: ArrayLike, labels: ArrayLike) -> float:
    """Share of equal labels, 0 to 100; NaN of none."""
    equal = np.asarray(predicted) == np.asarray(labels)
    return 100 * float(equal.mean()) if equal.size else math.nan


def f1(predicted: ArrayLike, labels: ArrayLike) -> float:
    """Harmonic mean of precision and recall of label 1, 0 to 100; 0 where there is none and none is said."""
    p, t = np.asarray(predicted) == 1, np.asarray(labels) == 1
    of_all = int(p.sum()) + int(t.sum())
    return 200 * int((p & t).sum()) / of_all if of_all else 0.0


def matthews(predicted: ArrayLike, labels: ArrayLike) -> float:
    """Matthews' correlation of two labels, -100 to 100; 0 where one of the four margins is empty.

    Source: Matthews 1975, as scikit-learn's `matthews_corrcoef` has it.
    """
    p, t = np.asarray(predicted, float), np.asarray(labels, float)
    return pearson(p, t)


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's correlation, -100 to 100; 0 without spread."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if not a.size:
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return 100 * float((a * b).sum()) / norm if norm > 0 else 0.0


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's correlation, Pearson's of the ranks, equal values sharing theirs; range as `pearson`."""
    return pearson(_ranks(x), _ranks(y))


def _ranks(x: ArrayLike) -> Floats:
    values, place, count = np.unique(np.asarray(x, np.float64), return_inverse=True, return_counts=True)
    del values
    ends = np.cumsum(count)
    ranks: Floats = (ends - (count - 1) / 2)[place]
    return ranks


def judge(
    metric: str, predicted: Sequence[float], labels: Sequence[float], further: Sequence[str] = ()
) -> Metrics:
    """The numbers of a task with labels or a score, and `score`, the one that counts.

    Args:
        metric: `accuracy`, `matthews` or `correlation`, whose score is the mean of Pearson's and Spearman's.
        predicted: numbers of labels, or scores.
        labels: what they should be.
        further: `f1`, if that is wanted beside the accuracy.
    """
    if metric == "correlation":
        both = {"pearson": pearson(predicted, labels), "spearman": spearman(predicted, labels)}
        return both | {"score": sum(both.values()) / 2}
    if metric == "matthews":
        found = {"matthews": matthews(predicted, labels), "accuracy": accuracy(predicted, labels)}
        return found | {"score": found["matthews"]}
    right = accuracy(predicted, labels)
    beside = {"f1": f1(predicted, labels)} if "f1" in further else {}
    return {"accuracy": right, **beside, "score": right}
