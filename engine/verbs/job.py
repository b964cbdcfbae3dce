"""`job`: do what a configuration file says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.config.census import CensusConfig, load_census
from engine.errors import GaussmeterError
from engine.execution.choose import choose_executor
from engine.formats.find import find_checkpoints
from engine.nouns.candidate import Candidate
from engine.nouns.events import Listener, ignore
from engine.plan import Selection
from engine.verbs.census import CensusReport, census
from engine.verbs.entrance import Budget
from engine.verbs.export import export
from engine.warehouse.lock import only_one


def job(
    config: str | Path | CensusConfig,
    *,
    warehouse: str | Path | None = None,
    ray: str | None = None,
    workers: int | None = None,
    dry_run: bool = False,
    listener: Listener = ignore,
) -> CensusReport:
    """Run a census as a configuration describes it, and export what is in.

    Args:
        config: its file; see `engine.config.census.CensusConfig`.
        warehouse: in place of the configuration's.
        ray: likewise.
        workers: likewise.
        dry_run: only find and open what would be scanned.
        listener: told what happens.

    Returns:
        what became of each checkpoint.

    Raises:
        ConfigError: the configuration is wrong, with all its faults; or there is no place to export to.
        AlreadyRunning: another process runs the census of this name.
        WarehouseError, TaskError: as for `engine.census` and `engine.export`.
    """
    base = Path.cwd() if isinstance(config, CensusConfig) else Path(config).parent
    settings = config if isinstance(config, CensusConfig) else load_census(config)
    place = warehouse or settings.warehouse
    with only_one(place, settings.name):
        report = _census(settings, base, place, ray, workers, dry_run, listener)
        if settings.export is not None and not dry_run:
            present = [e.subject_id for e in report.entries if e.complete and e.subject_id is not None]
            if present:
                export(present, settings.export, warehouse=place)
    return report


def _census(
    settings: CensusConfig,
    base: Path,
    place: str | Path,
    ray: str | None,
    workers: int | None,
    dry_run: bool,
    listener: Listener,
) -> CensusReport:
    run = settings.run
    with choose_executor(
        ray or run.ray,
        workers or run.workers,
        per_gpu=run.per_gpu,
        gpu=run.gpu,
        task_seconds=run.task_seconds,
        listener=listener,
    ) as executor:
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


def _found(settings: CensusConfig, base: Path) -> Iterator[Candidate]:
    """Go through all sources; one that cannot be looked through does not stop the others."""
    for source in settings.checkpoints:
        try:
            yield from find_checkpoints(source, base)
        except GaussmeterError as error:
            where = error.file or "a source"
            yield Candidate(where, failed=error)
