"""Whatever a scan asks of a worker: first passes and second ones, in any order."""

from __future__ import annotations

from engine.nouns.records import Outcome, Task
from engine.sketch import Sketch
from engine.statistics.refinement import Refinement
from engine.tasks.refine import RefineBody
from engine.tasks.scan import ScanBody


class CountBody:
    """Runs scan tasks, and refining tasks with what they need, which is made for the first of them."""

    def __init__(self) -> None:
        self._scan = ScanBody()
        self._refine: RefineBody | None = None

    def __call__(self, task: Task) -> Outcome[Sketch] | Outcome[Refinement]:
        """Do what the task says."""
        if not task.refine:
            return self._scan(task)
        self._refine = self._refine or RefineBody()
        return self._refine(task)
