"""The order of examples, and batches of token numbers: the same for any number of workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

_WINDOW = 16
"""Updates whose examples are sorted by length, so that those of a batch are about equally long."""

Indices = NDArray[np.int64]


class Order:
    """Which examples each update sees.

    The epochs' permutations follow each other without a gap, so that every update is full.

    Args:
        lengths: tokens of each example.
        group: examples of an update, of all workers.
        updates: how many there are.
        seed: of the permutations.
    """

    def __init__(self, lengths: Sequence[int], group: int, updates: int, seed: int) -> None:
        self._lengths = np.asarray(lengths)
        self._group, self._updates, self._seed = group, updates, seed
        self._window = lru_cache(maxsize=2)(self._sorted)

    def update(self, number: int) -> Indices:
        """(group,) indices of the examples of an update, counted from 0."""
        found: Indices = self._window(number // _WINDOW)[number % _WINDOW]
        return found

    def share(self, number: int, rank: int, workers: int, batch: int) -> list[Indices]:
        """The batches of a worker in an update, (batch,) indices each."""
        parts = self.update(number).reshape(-1, batch)
        return list(parts[rank::workers])

    def _sorted(self, window: int) -> Indices:
        first = window * _WINDOW
        count = min(_WINDOW, self._updates - first)
        flat = np.arange(first * self._group, (first + count) * self._group)
        indices = np.concatenate([
            self._permutation(int(epoch))[flat[flat // len(self._lengths) == epoch] % len(self._lengths)]
            for epoch in np.unique(flat // len(self._lengths))
        ])  # fmt: skip
        indices = indices[np.argsort(self._lengths[indices], kind="stable")]
        shuffled = np.random.default_rng((self._seed, 1, window)).permutation(count)
        groups: Indices = indices.reshape(count, self._group)[shuffled]
        return groups

    def _permutation(self, epoch: int) -> Indices:
        return np.random.default_rng((self._seed, 0, epoch)).permutation(len(self._lengths))


@dataclass(frozen=True)
class Tokens:
    """Tokenised examples.

    Attributes:
        ids: token numbers of each.
        types: segment of each token, for models that know them; None otherwise.
        prompts: of text, how many tokens of each belong to the prompt; None otherwise.
        labels: number of the label, or the score.
    """

    ids: list[list[int]]
    types: list[list[int]] | None
    prompts: list[int] | None
    labels: list[float]

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each."""
        return [len(ids) for ids in self.ids]

    @cached_property
    def units(self) -> Indices:
        """What the loss is a mean of: 1 for each example, or the tokens of its completion that follow one."""
        if self.prompts is None:
            return np.ones(len(self.ids), np.int64)
        pairs = zip(self.ids, self.prompts, strict=True)
        return np.asarray([len(ids[max(prompt, 1) :]) for ids, prompt in pairs], np.int64)


def padded(rows: Sequence[Sequence[int]], fill: int, *, left: bool = False) -> Indices:
    """(rows, longest) int64; shorter rows are filled up on the right, or on the left."""
    longest = max(len(row) for row in rows)
    out = np.full((len(rows), longest), fill, np.int64)
    for i, row in enumerate(rows):
        if left:
            out[i, longest - len(row) :] = row
        else:
            out[i, : len(row)] = row
    return out
