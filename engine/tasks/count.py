"""Whatever a scan or a delta asks of a worker: first passes and second ones, in any order."""

from __future__ import annotations

from engine.nouns.records import Outcome, Task
from engine.sketch import Sketch
from engine.statistics.refinement import Refinement
from engine.tasks.delta import DeltaBody
from engine.tasks.refine import RefineBody
from engine.tasks.scan import ScanBody


class CountBody:
    """Runs the tasks of scans and deltas; what a kind of them needs is made for its first."""

    def __init__(self) -> None:
        self._scan = ScanBody()
        self._refine: RefineBody | None = None
        self._delta: DeltaBody | None = None

    def __call__(self, task: Task) -> Outcome[Sketch | Refinement]:
        """Do what the task says."""
        if task.steps:
            self._delta = self._delta or DeltaBody()
            return self._delta(task)
        if not task.refine:
            return self._scan(task)
        self._refine = self._refine or RefineBody()
        return self._refine(task)
