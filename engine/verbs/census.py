"""`census`: scan many checkpoints, as one stream of tasks that keeps every worker busy."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from engine.errors import TaskError
from engine.execution.choose import choose_executor
from engine.execution.drive import drive
from engine.execution.executor import Executor
from engine.nouns.candidate import Candidate
from engine.nouns.defaults import AHEAD, RANGES, WAREHOUSE
from engine.nouns.events import Found, Judged, Listener, ignore
from engine.plan import Selection
from engine.tasks.count import CountBody
from engine.verbs.census_feed import CensusFeed, Entry
from engine.verbs.entrance import Budget, Entrance, Options
from engine.verbs.limits import limits_of
from engine.verbs.opening import Opener
from engine.verbs.scan_job import depth
from engine.verbs.scribe import Scribe
from engine.warehouse.known import Refusal, keep_refusals, known
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import Spec

_PATIENCE = 1.0
_FLUSH_ENTRIES = 1_000
_OUT = ("refused", "failed")


@dataclass(frozen=True, slots=True)
class CensusReport:
    """What a census did.

    Attributes:
        entries: what became of each checkpoint, in the order in which that was known.
        seconds: how long it took.
    """

    entries: tuple[Entry, ...]
    seconds: float

    @property
    def counts(self) -> dict[str, int]:
        """How many checkpoints have each status."""
        return dict(Counter(e.status for e in self.entries))

    @property
    def nbytes_read(self) -> int:
        """Bytes that were read."""
        return sum(e.nbytes_read for e in self.entries)

    @property
    def complete(self) -> bool:
        """Whether nothing was refused and nothing failed."""
        return not any(e.status in _OUT for e in self.entries)


def census(
    checkpoints: Iterable[str | Candidate],
    *,
    warehouse: str | Path = WAREHOUSE,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    selection: Selection = Selection(),  # noqa: B008 - frozen
    budget: Budget = Budget(),  # noqa: B008 - frozen
    exact: bool = False,
    iid: bool = False,
    spectrum: int = 0,
    force: bool = False,
    ray: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    executor: Executor | None = None,
    task_bytes: int | None = None,
    memory_bytes: int | None = None,
    ranges: int = RANGES,
    ahead: int = AHEAD,
    dry_run: bool = False,
    listener: Listener = ignore,
) -> CensusReport:
    """Scan what is new or has changed of many checkpoints.

    A checkpoint that cannot be read is reported, and never stops the others. What was scanned before and has
    not changed is not read; neither is what was found to be damaged. Killed at any moment, the next census
    completes it.

    Args:
        checkpoints: their places, such as `engine.formats.find.find_checkpoints` finds; asked for as needed.
        warehouse: the DuckDB file, made when missing.
        include: shell patterns; only checkpoints whose place matches one are scanned.
        exclude: shell patterns; checkpoints whose place matches one are not scanned.
        selection: which tensors of each.
        budget: what each may take.
        exact: as for `engine.scan`.
        iid: likewise.
        spectrum: likewise.
        force: scan again even what has not changed, and what was refused.
        ray: as for `engine.scan`.
        workers: likewise.
        device: likewise; `auto` takes a GPU whatever there is to count, which is not known.
        executor: likewise.
        task_bytes: likewise.
        memory_bytes: likewise, for each checkpoint.
        ranges: likewise.
        ahead: how many checkpoints are opened before their turn.
        dry_run: find and open them, and do no more.
        listener: told what happens.

    Returns:
        what became of each checkpoint.

    Raises:
        ConfigError, WarehouseError: nothing can be scanned at all.
        TaskError: there are no workers; what was counted is kept.
    """
    began = time.monotonic()
    store = Warehouse(warehouse, listener=listener)
    spec, deep = {**asdict(selection), "exact": exact}, depth(iid=iid, spectrum=spectrum)
    with store.writing() as connection:  # makes it, should it be missing
        before = known(connection, spec, deep)
    with ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(choose_executor(ray, workers, device=device, listener=listener))
        limits = limits_of(executor, task_bytes=task_bytes, memory_bytes=memory_bytes, ranges=ranges)
        judge = _Judge(store, spec, listener)
        options = Options(selection, exact, deep, force, spec)
        entrance = Entrance(store, before, options, budget, limits, listener)
        wanted = _wanted(checkpoints, include, exclude, listener)
        with Opener(wanted, entrance.open, ahead) as opener:
            begin = None if dry_run else entrance.begin
            feed = CensusFeed(opener, begin, Scribe(store, listener), judge.hear, budget.seconds)
            try:
                _run(feed, executor, limits.device)
            finally:
                if not dry_run:
                    judge.flush()
    return CensusReport(tuple(judge.entries), time.monotonic() - began)


def _run(feed: CensusFeed, executor: Executor, device: str) -> None:
    """Begin, and start workers only when there is something to do."""
    try:
        while not feed.has_task() and not feed.ended():
            feed.wait(_PATIENCE)
        if not feed.ended():
            with executor.open(partial(CountBody, device)) as pool:
                drive(pool, feed)
    except (TaskError, KeyboardInterrupt):
        feed.stop()
        raise
    finally:
        feed.close()


def _wanted(
    checkpoints: Iterable[str | Candidate], include: Sequence[str], exclude: Sequence[str], listener: Listener
) -> Iterator[Candidate]:
    """Each place once; what is not asked for, or no checkpoint, with the reason."""
    seen: set[str] = set()
    for found in checkpoints:
        candidate = Candidate(found) if isinstance(found, str) else found
        if candidate.uri in seen:
            continue
        seen.add(candidate.uri)
        listener(Found(1))
        yield _filtered(candidate, include, exclude)


def _filtered(candidate: Candidate, include: Sequence[str], exclude: Sequence[str]) -> Candidate:
    if candidate.skipped is not None:
        return candidate
    left_out = next((p for p in exclude if fnmatchcase(candidate.uri, p)), None)
    if left_out is not None:
        return Candidate(candidate.uri, candidate.name, candidate.nbytes, f"excluded by {left_out!r}")
    if include and not any(fnmatchcase(candidate.uri, p) for p in include):
        wanted = " or ".join(map(repr, include))
        return Candidate(candidate.uri, candidate.name, candidate.nbytes, f"matches no {wanted}")
    return candidate


class _Judge:
    """Keeps what became of each checkpoint, here and in the warehouse."""

    def __init__(self, store: Warehouse, spec: Spec, listener: Listener) -> None:
        self._store, self._spec, self._listener = store, spec, listener
        self._written = 0
        self.entries: list[Entry] = []

    def hear(self, entry: Entry) -> None:
        """Take an entry."""
        self.entries.append(entry)
        self._listener(Judged(entry.uri, entry.status, entry.reason))
        if len(self.entries) - self._written >= _FLUSH_ENTRIES:
            self.flush()

    def flush(self) -> None:
        """Write what the table of refusals does not know."""
        new, self._written = self.entries[self._written :], len(self.entries)
        refusals = {e.uri: Refusal(e.uri, e.fingerprint, e.status, e.reason) for e in new if e.status in _OUT}
        accepted = [e.uri for e in new if e.complete]
        if new:
            with self._store.writing() as connection:
                keep_refusals(connection, refusals.values(), accepted, self._spec)
