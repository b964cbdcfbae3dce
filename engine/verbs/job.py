"""`job`: do what a configuration file says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from engine.config.census import CensusConfig
from engine.config.delta import DeltaConfig
from engine.config.jobs import RESUMES_BY_ITSELF, JobConfig, parse_job
from engine.config.merge_job import MergeConfig
from engine.config.report import ReportConfig
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
from engine.verbs.merge import SHARD_BYTES, MergeReport, merge
from engine.verbs.merge_recipe import read_recipe
from engine.verbs.report import Report, report
from engine.verbs.tune import TuneReport, parse_tune, tune
from engine.warehouse.lock import only_one

AnyReport = CensusReport | DeltaReport | MergeReport | Report | TuneReport


def job(
    config: str | Path | JobConfig,
    *,
    warehouse: str | Path | None = None,
    ray: str | None = None,
    workers: int | None = None,
    device: str | None = None,
    dry_run: bool = False,
    resume: bool = False,
    listener: Listener = ignore,
) -> AnyReport:
    """Do what a configuration says: a census, a delta or a merge, exported if wanted; runs; or a report.

    Args:
        config: its file; see `engine.config`.
        warehouse: in place of the configuration's.
        ray: likewise.
        workers: likewise.
        device: likewise.
        dry_run: of a census: only find and open what would be scanned; of adaptation runs: only name them.
        resume: of adaptation runs: go on with those of this name that are there.
        listener: told what happens.

    Returns:
        what was done.

    Raises:
        ConfigError: the configuration is wrong, with all its faults; or there is no place to export to.
        AlreadyRunning: another process runs the job of this name.
        GaussmeterError: as for `engine.census`, `engine.delta`, `engine.merge`, `engine.export`,
            `engine.tune` and `engine.report`.
    """
    base = Path(config).parent if isinstance(config, (str, Path)) else Path.cwd()
    settings = _load(config) if isinstance(config, (str, Path)) else config
    if isinstance(settings, TuneConfig):
        if workers is not None:
            settings = settings.model_copy(
                update={"run": settings.run.model_copy(update={"workers": workers})}
            )
        return tune(
            settings,
            warehouse=warehouse,
            ray=ray,
            device=device,
            resume=resume,
            dry_run=dry_run,
            listener=listener,
        )
    if resume:
        raise ConfigError(RESUMES_BY_ITSELF)
    if dry_run and not isinstance(settings, CensusConfig):
        raise ConfigError("only a census has a dry run")
    recipe: dict[str, Any] | None = None
    if device is not None and isinstance(settings, (MergeConfig, ReportConfig)):
        raise ConfigError(f"job: {settings.job} has no device: a scan, a delta and adaptation runs have")
    if isinstance(settings, MergeConfig):  # what is wrong with it is said before anything starts
        where = str(config) if isinstance(config, (str, Path)) else "the configuration"
        recipe, _ = read_recipe(settings, base, where)
    place = warehouse or settings.warehouse
    with only_one(place, settings.name):
        if isinstance(settings, ReportConfig):
            return report(*settings.subjects, output=settings.output, warehouse=place, listener=listener)
        with _executor(settings, ray, workers, device, listener) as executor:
            done: CensusReport | DeltaReport | MergeReport
            if isinstance(settings, DeltaConfig):
                done = _delta(settings, place, executor, listener)
            elif isinstance(settings, MergeConfig):
                done = _merge(settings, recipe, place, executor, listener)
            else:
                done = _census(settings, base, place, executor, dry_run, listener)
        present = _subjects(done)
        if settings.export is not None and present and not dry_run:
            export(present, settings.export, warehouse=place, refusals=True)
    return done


def _load(path: str | Path) -> JobConfig:
    data = read_yaml(path)
    if isinstance(data, dict) and data.get("job") == "tune":
        return parse_tune(data, path)
    return parse_job(data, path)


def _executor(
    settings: CensusConfig | DeltaConfig | MergeConfig,
    ray: str | None,
    workers: int | None,
    device: str | None,
    listener: Listener,
) -> AbstractContextManager[Executor]:
    run = settings.run
    return choose_executor(
        ray or run.ray,
        workers or run.workers,
        per_gpu=run.per_gpu,
        gpu=run.gpu,
        task_seconds=run.task_seconds,
        device="cpu" if isinstance(settings, MergeConfig) else device or run.device,
        listener=listener,
    )


def _subjects(report: CensusReport | DeltaReport | MergeReport) -> list[int]:
    """Numbers of the subjects that are in the warehouse now."""
    if isinstance(report, MergeReport):
        return [report.subject_id] if report.subject_id is not None else []
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
        iid=settings.iid,
        spectrum=settings.spectrum_side,
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


def _merge(
    settings: MergeConfig,
    recipe: dict[str, Any] | None,
    place: str | Path,
    executor: Executor,
    listener: Listener,
) -> MergeReport:
    run = settings.run
    return merge(
        recipe,
        settings.out,
        adapter=settings.adapter,
        base=settings.base,
        warehouse=place,
        shard_bytes=settings.shard_size or SHARD_BYTES,
        executor=executor,
        force=settings.force,
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
