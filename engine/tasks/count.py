"""Whatever a scan, a delta or an adapter asks of a worker: first passes and second ones, in any order."""

from __future__ import annotations

from dataclasses import replace

from engine.device.worker import Device
from engine.errors import DeviceError, first_line
from engine.nouns.tasks import Outcome, Task
from engine.sketch import Sketch
from engine.statistics.refinement import Refinement
from engine.statistics.spectrum import Spectrum
from engine.tasks.adapters import AdapterBody
from engine.tasks.delta import DeltaBody
from engine.tasks.direct import DirectBody
from engine.tasks.refine import RefineBody
from engine.tasks.scan import ScanBody
from engine.tasks.spectrum import SpectrumBody


class CountBody:
    """Runs the tasks of scans, deltas and adapters; what a kind of them needs is made for its first.

    Second passes and singular values are the CPU's, whatever the device.

    Args:
        device: where first passes count, one of `engine.device.choosing.DEVICES`; made in the worker's own
            process.

    Raises:
        ConfigError: a GPU was asked for, and the worker has none.
        DeviceError: a GPU was asked for, and the worker's cannot be used.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = Device(device)
        self._scan = ScanBody(self._device)
        self._refine: RefineBody | None = None
        self._delta: DeltaBody | None = None
        self._adapter: AdapterBody | None = None
        self._spectrum: SpectrumBody | None = None
        self._direct = DirectBody(self._device) if self._device.is_direct else None

    def __call__(self, task: Task) -> Outcome[Sketch | Refinement | Spectrum]:
        """Do what the task says; the outcome tells what is to be said of the device.

        Raises:
            DeviceError: the GPU failed.
        """
        try:
            outcome = self._run(task)
        except RuntimeError as error:  # of torch, CUDA or Triton
            if self._device.name == "cpu":
                raise
            raise DeviceError(f"{self._device.name} failed: {first_line(error)}") from error
        notes = self._device.take_notes()
        return replace(outcome, notes=notes) if notes else outcome

    def _run(self, task: Task) -> Outcome[Sketch | Refinement | Spectrum]:
        if task.spectrum is not None:
            self._spectrum = self._spectrum or SpectrumBody()
            return self._spectrum(task)
        if task.steps:
            self._delta = self._delta or DeltaBody(self._device)
            return self._delta(task)
        if task.products:
            self._adapter = self._adapter or AdapterBody(self._device)
            return self._adapter(task)
        if not task.refine:
            direct = self._direct is not None and self._direct.takes(task)
            return self._direct(task) if self._direct and direct else self._scan(task)
        self._refine = self._refine or RefineBody()
        return self._refine(task)
