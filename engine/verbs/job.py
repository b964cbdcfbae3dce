"""`job`: do what a configuration file says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from engine.config.census import CensusConfig
from engine.config.delta import DeltaConfig
from engine.config.jobs import JobConfig, parse_job
from engine.config.parts import Run
from engine.config.strict import read_yaml
from engine.config.tune import TuneConfig
from engine.errors import ConfigError, GaussmeterError
from engine.execution.choose import choose_executor
from engine.execution.executor import Executor
from engine.formats.find import find_checkpoints
from engine.nouns.candidate import Candidate
from engine.nouns.events import Listener, ignore
from engine.plan import Selection
from engine.verbs.census import CensusReport, census
from engine.verbs.delta import DeltaReport, delta
from engine.verbs.entrance import Budget
from engine.verbs.export import export
from engine.verbs.tune import TuneReport, parse_tune, tune
from engine.warehouse.lock import only_one


def job(
    config: str | Path | JobConfig,
    *,
    warehouse: str | Path | None = None,
    ray: str | None = None,
    workers: int | None = None,
    dry_run: bool = False,
    resume: bool = False,
    listener: Listener = ignore,
) -> CensusReport | DeltaReport | TuneReport:
    """Run a census, a delta or adaptation runs as a configuration describes it, and export what is in.

    Args:
        config: its file; see `engine.config`.
        warehouse: in place of the configuration's.
        ray: likewise.
        workers: likewise.
        dry_run: of a census: only find and open what would be scanned; of adaptation runs: only name them.
        resume: of adaptation runs: go on with those of this name that are there.
        listener: told what happens.

    Returns:
        what was done.

    Raises:
        ConfigError: the configuration is wrong, with all its faults; or there is no place to export to.
        AlreadyRunning: another process runs the job of this name.
        GaussmeterError: as for `engine.census`, `engine.delta`, `engine.tune` and `engine.export`.
    """
    base = Path(config).parent if isinstance(config, (str, Path)) else Path.cwd()
    settings = _load(config) if isinstance(config, (str, Path)) else config
    if isinstance(settings, TuneConfig):
        if workers is not None:
            settings = settings.model_copy(
                update={"run": settings.run.model_copy(update={"workers": workers})}
            )
        return tune(settings, warehouse=warehouse, ray=ray, resume=resume, dry_run=dry_run, listener=listener)
    if resume:
        raise ConfigError("what is not adaptation runs resumes by itself; --resume goes with job: tune")
    if dry_run and isinstance(settings, DeltaConfig):
        raise ConfigError("only a census has a dry run")
    place = warehouse or settings.warehouse
    with only_one(place, settings.name):
        with _executor(settings.run, ray, workers, listener) as executor:
            report: CensusReport | DeltaReport
            if isinstance(settings, DeltaConfig):
                report = _delta(settings, place, executor, listener)
            else:
                report = _census(settings, base, place, executor, dry_run, listener)
        present = _subjects(report)
        if settings.export is not None and present and not dry_run:
            export(present, settings.export, warehouse=place)
    return report


def _load(path: str | Path) -> JobConfig:
    data = read_yaml(path)
    if isinstance(data, dict) and data.get("job") == "tune":
        return parse_tune(data, path)
    return parse_job(data, path)


def _executor(
    run: Run, ray: str | None, workers: int | None, listener: Listener
) -> AbstractContextManager[Executor]:
    return choose_executor(
        ray or run.ray,
        workers or run.workers,
        per_gpu=run.per_gpu,
        gpu=run.gpu,
        task_seconds=run.task_seconds,
        listener=listener,
    )


def _subjects(report: CensusReport | DeltaReport) -> list[int]:
    """Numbers of the subjects that are in the warehouse now."""
    if isinstance(report, DeltaReport):
        return [s.subject_id for s in report.subjects]
    return [e.subject_id for e in report.entries if e.complete and e.subject_id is not None]


def _census(
    settings: CensusConfig,
    base: Path,
    place: str | Path,
    executor: Executor,
    dry_run: bool,
    listener: Listener,
) -> CensusReport:
    run = settings.run
    return census(
        _found(settings, base),
        warehouse=place,
        include=settings.include,
        exclude=settings.exclude,
        selection=Selection(settings.tensors.include, settings.tensors.exclude),
        budget=Budget(settings.budget.bytes, settings.budget.seconds),
        exact=settings.exact,
        force=settings.force,
        executor=executor,
        task_bytes=run.task_size,
        memory_bytes=run.memory,
        ranges=run.ranges,
        ahead=run.ahead,
        dry_run=dry_run,
        listener=listener,
    )


def _delta(settings: DeltaConfig, place: str | Path, executor: Executor, listener: Listener) -> DeltaReport:
    run = settings.run
    return delta(
        settings.base,
        *settings.tuned,
        adapters=settings.adapters,
        warehouse=place,
        strict=settings.strict,
        include=settings.tensors.include,
        exclude=settings.tensors.exclude,
        exact=settings.exact,
        force=settings.force,
        executor=executor,
        task_bytes=run.task_size,
        memory_bytes=run.memory,
        ranges=run.ranges,
        listener=listener,
    )


def _found(settings: CensusConfig, base: Path) -> Iterator[Candidate]:
    """Go through all sources; one that cannot be looked through does not stop the others."""
    for source in settings.checkpoints:
        try:
            yield from find_checkpoints(source, base)
        except GaussmeterError as error:
            where = error.file or "a source"
            yield Candidate(where, failed=error)
