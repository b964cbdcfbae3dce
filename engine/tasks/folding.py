"""Folding an adapter into its base: rows of base + dW, rounded once, counted, and written in place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.merge_methods.apply import Stored, round_into
from engine.nouns.dtypes import DTYPES
from engine.nouns.tasks import Into, Outcome, Part, Product, Task
from engine.sketch import Counter
from engine.tasks.adapters import run_products
from engine.tasks.blocks import BlockReader
from engine.tasks.forming import Floats, Former, Held
from engine.tasks.writing import Files


class FoldBody:
    """Runs the tasks that fold an adapter."""

    def __init__(self) -> None:
        self._reader, self._former = BlockReader(), Former()
        self._counters: dict[str, Counter] = {}

    def __call__(self, task: Task) -> Outcome[Any]:
        """Write and count every product of a task.

        Raises:
            FormatError: an input is not the one that was planned.
            TaskError: the output cannot be written.
        """
        counters, self._counters = self._counters, {}  # come back only when all went well
        parts: list[Part[Any]] = []
        with Files() as files:

            def write(product: Product, held: Held) -> None:
                into = _into(product)
                counter = counters.setdefault(into.dtype, Counter(DTYPES[into.dtype]))
                for start, data in self._blocks(product, held):
                    files.write(into, start, data)
                    counter.add(data)
                parts.append(Part(product.ordinal, product.span, counter.sketch()))

            run_products(task, self._reader, self._former, write)
        self._counters = counters
        return Outcome(task.key, task.nbytes, tuple(parts))

    def _blocks(self, product: Product, held: Held) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """What is written, with the number of its first byte in the tensor."""
        dtype = DTYPES[_into(product).dtype]
        for first, values in self._made(product, held):
            data = np.empty(values.size * dtype.bits // 8, np.uint8)
            round_into(values, Stored(data, dtype))
            yield first * product.columns * dtype.bits // 8, data

    def _made(self, product: Product, held: Held) -> Iterator[tuple[int, Floats]]:
        """Rows of base + dW, (n,) float32, with the number of the first; what was saved whole is itself."""
        source = product.other if product.make == "saved" else product.base
        assert source is not None
        rows = held.rows(source, *product.rows)
        if product.make == "saved":
            yield product.rows[0], rows.reshape(-1)
            return
        for start, stop, change in self._former.rows(product, held):
            with np.errstate(all="ignore"):
                yield product.rows[0] + start, rows[start:stop].reshape(-1) + change.view(np.float32)


def _into(product: Product) -> Into:
    assert product.into is not None
    return product.into
