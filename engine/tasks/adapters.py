"""What adapters change: formed by blocks of rows, counted, and stored nowhere; see `engine.tasks.forming`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from engine.device.worker import Device
from engine.nouns.tasks import Outcome, Part, Product, Task
from engine.sketch import Sketch
from engine.statistics.refinement import Refinement
from engine.tasks.blocks import BlockReader
from engine.tasks.forming import Former, Held, only_factors
from engine.tasks.sinks import Sink, Sinks

Found = Sketch | Refinement


class AdapterBody:
    """Runs the tasks of adapters.

    Args:
        device: where it is counted.
    """

    def __init__(self, device: Device) -> None:
        self._reader = BlockReader()
        self._sinks = Sinks(device)
        self._former = Former()

    def __call__(self, task: Task) -> Outcome[Found]:
        """Count, or refine, every product of a task."""
        sinks, self._sinks = self._sinks, self._sinks.afresh()  # come back only when all went well
        found = _Findings(task, sinks)

        def count(product: Product, held: Held) -> None:
            sink = found.begin(product)
            if sink.multiply(partial(only_factors, product, held)):
                return
            for part in self._former.parts(product, held):
                sink.add(part)

        run_products(task, self._reader, self._former, count)
        parts = found.all()
        self._sinks = sinks
        return Outcome(task.key, task.nbytes, parts)


def run_products(
    task: Task, reader: BlockReader, former: Former, use: Callable[[Product, Held], None]
) -> None:
    """Read a task, and use every product as soon as what it is made of is there."""
    held, due = Held(task), deque(task.products)
    former.forget()

    def run(number: int) -> None:
        while due and max(due[0].chunks, default=-1) <= number:
            product = due.popleft()
            if product.make == "squares":
                former.measure(product, held)
            else:
                use(product, held)
            held.drop(product)

    run(-1)
    for number, (chunk, blocks) in enumerate(reader.read(task)):
        held.put(number, chunk, blocks)
        run(number)


class _Findings:
    """What was found of each dW; rows that follow each other are counted as one part."""

    def __init__(self, task: Task, sinks: Sinks) -> None:
        self._task, self._sinks = task, sinks
        self._parts: list[Part[Found]] = []
        self._open: tuple[int, int, int] | None = None  # ordinal, first element, behind the last
        self._sink: Sink[Found] | None = None

    def begin(self, product: Product) -> Sink[Found]:
        """A sink for a product."""
        start, stop = product.span
        if self._sink is not None and self._open is not None and self._open[::2] == (product.ordinal, start):
            self._open = product.ordinal, self._open[1], stop
            return self._sink
        self._close()
        self._open = product.ordinal, start, stop
        (self._sink,) = self._sinks.of(self._task, (product.ordinal,))
        return self._sink

    def all(self) -> tuple[Part[Found], ...]:
        """Everything; the task is over."""
        self._close()
        return tuple(self._parts)

    def _close(self) -> None:
        if self._open is not None and self._sink is not None:
            ordinal, start, stop = self._open
            self._parts.append(Part(ordinal, (start, stop), self._sink.take()))
        self._open = self._sink = None
