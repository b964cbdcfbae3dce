"""Whatever a scan, a delta or an adapter asks of a worker: first passes and second ones, in any order."""

from __future__ import annotations

from engine.nouns.tasks import Outcome, Task
from engine.sketch import Sketch
from engine.statistics.refinement import Refinement
from engine.statistics.spectrum import Spectrum
from engine.tasks.adapters import AdapterBody
from engine.tasks.delta import DeltaBody
from engine.tasks.refine import RefineBody
from engine.tasks.scan import ScanBody
from engine.tasks.spectrum import SpectrumBody


class CountBody:
    """Runs the tasks of scans, deltas and adapters; what a kind of them needs is made for its first."""

    def __init__(self) -> None:
        self._scan = ScanBody()
        self._refine: RefineBody | None = None
        self._delta: DeltaBody | None = None
        self._adapter: AdapterBody | None = None
        self._spectrum: SpectrumBody | None = None

    def __call__(self, task: Task) -> Outcome[Sketch | Refinement | Spectrum]:
        """Do what the task says."""
        if task.spectrum is not None:
            self._spectrum = self._spectrum or SpectrumBody()
            return self._spectrum(task)
        if task.steps:
            self._delta = self._delta or DeltaBody()
            return self._delta(task)
        if task.products:
            self._adapter = self._adapter or AdapterBody()
            return self._adapter(task)
        if not task.refine:
            return self._scan(task)
        self._refine = self._refine or RefineBody()
        return self._refine(task)
