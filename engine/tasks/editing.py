"""Editing: blocks of a checkpoint in which some elements are kept, written in place and counted.

It is a merge of one operand, or of two with a base, that keeps or drops instead of adding up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.merge_methods.apply import Stored
from engine.merge_methods.editing import edit
from engine.nouns.dtypes import DTYPES
from engine.nouns.editing import Band, Edit
from engine.nouns.merging import Roles
from engine.nouns.tasks import Merge, Outcome, Part, Task
from engine.sketch import Counter, Sketch
from engine.statistics.distribution import distribution
from engine.statistics.moments import moments
from engine.tasks.delta import Subtraction
from engine.tasks.measuring import Passes
from engine.tasks.merge import Found, Manner, MergeBody
from engine.tasks.sinks import CountSink
from engine.tasks.tally import Note, Tally
from engine.tasks.together import BLOCK, stored


class EditBody(MergeBody):
    """Runs the tasks of an edit: everything is read, copied, counted and written as in a merge.

    Args:
        change: what is kept.
        roles: the one model, and maybe a base.
    """

    def __init__(self, change: Edit, roles: Roles) -> None:
        super().__init__(Manner("linear", roles))
        self._change = change
        self._own, self._base = roles.models[0], roles.base
        self._measure = self._band
        self._counting: dict[str, Counter] = {}
        self._sink: CountSink | None = None
        self._subtract = Subtraction()
        self._tally, self._notes = Tally(), list[Note]()

    def __call__(self, task: Task) -> Outcome[Found]:
        """Do what the task says, and note what was kept; errors as for `MergeBody`."""
        self._notes = []
        outcome = super().__call__(task)
        if self._notes:
            self._tally.add(Path(task.merges[0].into.path).parent, self._notes)
        return outcome

    def _is_measured(self, one: Merge) -> bool:
        return one.arguments is not None and bool(one.measured)

    def _merge(self, one: Merge, *rest: Any) -> Iterator[Part[Found]]:
        """As a merge; what is copied is counted for the model itself too."""
        for part in super()._merge(one, *rest):
            yield part
            if one.arguments is None:
                yield from (replace(part, tensor=o) for o in one.measured if o is not None)

    def _band(self, one: Merge, blocks: Passes) -> tuple[dict[str, Any], list[Sketch]]:
        """Count a whole tensor, or its difference from the base, and find the interval."""
        sketch = self._observe(one.into.dtype, blocks)
        return {"band": band_of(self._change, sketch)}, [sketch]

    def _observe(self, dtype: str, blocks: Passes) -> Sketch:
        if self._base is None:
            counter = self._counting.pop(dtype, None) or Counter(DTYPES[dtype])  # comes back if all goes well
            for _, elements in blocks(None):
                counter.add(stored(elements[self._own]).data)
            self._counting[dtype] = counter
            return counter.sketch()
        sink, self._sink = self._sink or CountSink(), None
        for _, elements in blocks(None):
            self._subtract(elements[self._own], elements[self._base], sink)
            self._subtract.forget()
        self._sink = sink
        return sink.take()

    def _made(
        self, one: Merge, start: int, blocks: Sequence[Stored], arguments: dict[str, Any] | None
    ) -> NDArray[np.uint8]:
        if arguments is None:
            return super()._made(one, start, blocks, arguments)
        model = blocks[self._own]
        if self._out.size < model.data.size:
            self._out = np.empty(max(model.data.size, BLOCK * model.dtype.bits // 8), np.uint8)
        out = Stored(self._out[: model.data.size], model.dtype)
        base = None if self._base is None else blocks[self._base]
        kept = edit(model, base, arguments["band"], out)
        self._notes.append((one.into.name, start, start + model.size, kept))
        return out.data


def band_of(change: Edit, sketch: Sketch) -> Band:
    """The interval of a tensor, from its counts."""
    found = moments(distribution(sketch))
    return change.band(found.mean, found.std)
