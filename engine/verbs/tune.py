"""`tune`: adaptation runs, driven by Ray Train, kept in the warehouse and measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.config.parts import named
from engine.config.strict import examine_further, read_yaml, refusal
from engine.config.tune import TuneConfig
from engine.device.choosing import require_known
from engine.errors import AlreadyRunning, ConfigError, GaussmeterError
from engine.nouns.events import Listener, RunBegun, RunEnded, RunStepped, ignore
from engine.nouns.tuning import Means, RunSpec
from engine.tuning.fetching import fetched
from engine.tuning.preflight import faults_of
from engine.tuning.sweep import is_local, runs_of
from engine.tuning.trainer import Begun, Finished, Message, Seen, Stepped, forget_checkpoints, trainer
from engine.verbs.delta import delta
from engine.verbs.observe import keep
from engine.verbs.tune_standing import mark, standing
from engine.warehouse import runs as table
from engine.warehouse.lock import only_one
from engine.warehouse.rows import Connection
from engine.warehouse.store import Warehouse

_WRITE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class RunReport:
    """What became of a run.

    Attributes:
        name: its name.
        status: `planned`, `trained`, `resumed`, `unchanged` or `failed`.
        score: in per cent; None if there is none.
        steps: updates that it has made.
        seconds: how long it took.
        subject_id: of its dW in the warehouse; None if that was not counted.
        folder: where what was learnt is.
        reason: why it failed, or why its dW was not counted.
    """

    name: str
    status: str
    score: float | None = None
    steps: int = 0
    seconds: float = 0.0
    subject_id: int | None = None
    folder: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What a sweep did.

    Attributes:
        runs: one report for each, in the sweep's order.
        seconds: how long it took.
    """

    runs: tuple[RunReport, ...]
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether no run failed."""
        return all(run.status != "failed" for run in self.runs)


def load_tune(path: str | Path) -> TuneConfig:
    """Read the configuration of a sweep, and look at everything that it names on this machine.

    Raises:
        ConfigError: with every fault of it.
    """
    return parse_tune(read_yaml(path), path)


def parse_tune(data: Any, path: str | Path) -> TuneConfig:
    """Make a configuration of plain data; errors as for `load_tune`."""
    config, faults = examine_further(data, TuneConfig, str(path))
    if config is not None:
        faults = [*faults, *faults_of(config)]
    if faults or config is None:
        raise refusal(faults, str(path))
    return named(config, path)


def tune(
    config: str | Path | TuneConfig,
    *,
    warehouse: str | Path | None = None,
    ray: str | None = None,
    device: str | None = None,
    resume: bool = False,
    dry_run: bool = False,
    listener: Listener = ignore,
) -> TuneReport:
    """Train all runs of a sweep, count what each has changed, and keep scores and scalars in the warehouse.

    Args:
        config: its file; see `engine.config.tune`.
        warehouse: in place of the configuration's.
        ray: likewise.
        device: likewise: `cuda` gives each worker a GPU, `cpu` none; `auto` takes what the cluster has.
        resume: go on with a sweep of this name that is there already; what is complete is not trained again.
        dry_run: only find out what would be trained.
        listener: told what happens.

    Returns:
        what was done.

    Raises:
        ConfigError: the configuration is wrong, with all its faults; runs of this name are there already or
            running now; or the cluster has no room.
        GaussmeterError: as for `engine.delta`.
    """
    began = time.monotonic()
    settings = load_tune(config) if isinstance(config, (str, Path)) else _checked(config)
    if device is not None:
        settings = placed(settings, device)
    runs = runs_of(settings)
    place = warehouse or settings.warehouse
    if dry_run:
        reports = tuple(RunReport(run.name, "planned", folder=run.folder) for run in runs)
        return TuneReport(reports, time.monotonic() - began)
    _require_libraries()
    with _the_only_one(place, settings.name):
        store = Warehouse(place, listener=listener)
        there = standing(store, runs, resume=resume)
        complete = [run for run in runs if run.name in there.complete]
        done = {run.name: _report_of(store, run, there.complete[run.name]) for run in complete}
        left = [run for run in runs if run.name not in done]
        if left:
            done |= _Sweep(store, settings, left, there.commits, listener).run(ray or settings.run.ray)
    return TuneReport(tuple(done[run.name] for run in runs), time.monotonic() - began)


def placed(settings: TuneConfig, device: str) -> TuneConfig:
    """The same on another device.

    Raises:
        ConfigError: there is no such device.
    """
    require_known(device)
    run = settings.run.model_copy(update={"device": device, "gpu": None})
    return settings.model_copy(update={"run": run})


def _require_libraries() -> None:
    lacking = [name for name in ("torch", "transformers", "peft", "pandas") if find_spec(name) is None]
    if lacking:
        raise ConfigError(f"tuning needs {' and '.join(lacking)}: pip install 'gaussmeter[tune]'")


def _checked(config: TuneConfig) -> TuneConfig:
    if faults := faults_of(config):
        raise refusal(faults, config.name)
    return config


@contextmanager
def _the_only_one(place: str | Path, name: str) -> Iterator[None]:
    try:
        with only_one(place, f"tune-{name}"):
            yield
    except AlreadyRunning as error:
        raise ConfigError(f"the sweep {name!r} is running at this moment: {error.message}") from error


def _report_of(store: Warehouse, run: RunSpec, known: table.KnownRun) -> RunReport:
    """A report of a run that is complete; if something was left to resume it from, that goes."""
    forget_checkpoints(run.folder)
    with store.reading() as connection:
        score, steps, subject = connection.execute(
            "SELECT (SELECT arg_max(value, step) FROM metrics WHERE run_id = r.run_id AND name = 'score'), "
            "steps, subject_id FROM runs r WHERE run_id = ?",
            [known.run_id],
        ).fetchall()[0]
    return RunReport(run.name, "unchanged", score, int(steps or 0), 0.0, subject, known.folder)


class _Sweep:
    """Runs on their way into the warehouse."""

    def __init__(
        self,
        store: Warehouse,
        settings: TuneConfig,
        runs: Sequence[RunSpec],
        commits: Mapping[str, str],
        listener: Listener,
    ) -> None:
        self._store, self._settings, self._listener = store, settings, listener
        self._described = runs
        self._runs = {run.name: run for run in fetched(settings, runs, commits)}
        self._numbers: dict[str, int] = {}
        self._began: dict[str, float] = {}
        self._resumed: set[str] = set()
        self._from: dict[str, int] = {}
        self._waiting: list[tuple[int, int, dict[str, float]]] = []
        self._written = time.monotonic()
        self._reports: dict[str, RunReport] = {}

    def run(self, address: str) -> dict[str, RunReport]:
        """Train everything; returns a report of each run, by name."""
        wanted = self._settings.run
        means = Means(
            workers=wanted.workers,
            threads=wanted.threads or 0,
            parallel=wanted.parallel or 0,
            failures=wanted.failures,
            sharding=wanted.sharding,
            observe=self._settings.observe,
        )
        with trainer(address) as made:
            means = made.fit_means(means, wanted.on_gpus, len(self._runs))
            with self._store.writing() as connection:
                self._numbers = {run.name: self._enter(connection, run) for run in self._described}
            for run in self._described:
                mark(run, self._runs[run.name].revision)
            for message in made.train(list(self._runs.values()), means):
                self._hear(message)
        return self._reports

    def _enter(self, connection: Connection, run: RunSpec) -> int:
        return table.enter_run(connection, run, run.model, self._runs[run.name].revision)

    def _hear(self, message: Message) -> None:
        match message:
            case Begun():
                self._begin(message)
            case Stepped():
                self._waiting.append((self._numbers[message.run], message.step, message.metrics))
                if message.step > self._from.get(message.run, 0):
                    self._listener(RunStepped(message.run, message.step, message.metrics))
            case Seen():
                self._keep(message)
            case Finished():
                self._end(message)
        if time.monotonic() - self._written > _WRITE_SECONDS:
            self._write()

    def _keep(self, message: Seen) -> None:
        """Enter what was counted as a subject; after a loss it is said again, on a GPU with other bits."""
        name, spec = f"{message.run}@{message.step}", {"run": message.run, "step": message.step}
        keep(message.tensors, name, self._store, spec=spec, began=time.monotonic(), replacing=True)

    def _begin(self, message: Begun) -> None:
        self._write()
        self._began.setdefault(message.run, time.monotonic())
        self._from[message.run] = message.step
        if message.step:
            self._resumed.add(message.run)
        with self._store.writing() as connection:
            table.drop_metrics(connection, self._numbers[message.run])
        self._listener(RunBegun(message.run, message.step, message.updates, message.pid))

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._written = time.monotonic()
        if waiting:
            with self._store.writing() as connection:
                table.add_metrics(connection, waiting)

    def _end(self, message: Finished) -> None:
        self._write()
        run = self._runs[message.run]
        now = time.monotonic()
        seconds = now - self._began.get(run.name, now)
        if message.learnt is None:
            with self._store.writing() as connection:
                table.fail_run(connection, self._numbers[run.name], message.reason)
            report = RunReport(run.name, "failed", seconds=seconds, folder=run.folder, reason=message.reason)
        else:
            report = self._finish(run, message.learnt, seconds)
        self._reports[run.name] = report
        self._listener(RunEnded(run.name, report.status, report.score, report.reason))

    def _finish(self, run: RunSpec, learnt: dict[str, Any], seconds: float) -> RunReport:
        subject, reason = self._measure(run) if self._settings.measure else (None, "")
        with self._store.writing() as connection:
            table.finish_run(connection, self._numbers[run.name], learnt, subject, seconds)
        forget_checkpoints(run.folder)  # not before: whoever is interrupted here goes on from them
        return RunReport(
            run.name,
            "resumed" if run.name in self._resumed else "trained",
            learnt["metrics"]["score"],
            learnt["steps"],
            seconds,
            subject,
            run.folder,
            reason,
        )

    def _measure(self, run: RunSpec) -> tuple[int | None, str]:
        """Count what a run has changed; what cannot be counted does not undo what was learnt."""
        base = run.model if is_local(run.model) else f"hf://{run.model}@{run.revision}".rstrip("@")
        learnt = str(Path(run.folder) / "learnt")
        on = "cpu" if self._settings.run.device == "cpu" else "auto"  # this machine may have no GPU
        common: dict[str, Any] = {"warehouse": self._store.path, "name": run.name, "workers": 1, "device": on}
        try:
            if run.method.name == "full":
                found = delta(base, learnt, listener=self._listener, **common)
            else:
                found = delta(base, adapters=[learnt], listener=self._listener, **common)
        except GaussmeterError as error:
            return None, f"its dW was not counted: {error}"
        return found.subject_id, ""
