"""A census without weights: made-up headers, and workers that answer at once. Each run is a process.

python benchmarks/simulation.py write DIRECTORY [--checkpoints 1000] [--tensors 800] [--width 5120]
python benchmarks/simulation.py census DIRECTORY WAREHOUSE [--checkpoints 1000] [--workers 64] [--codes 1]
python benchmarks/simulation.py dispatch DIRECTORY WAREHOUSE [--checkpoints 20] [--workers 64]
python benchmarks/simulation.py opening DIRECTORY [--checkpoints 20]
python benchmarks/simulation.py transactions DIRECTORY WAREHOUSE [--subjects 1000]
python benchmarks/simulation.py known WAREHOUSE [--subjects 100000]

All but the first print an object of JSON. Opening, planning, dispatch, adding up, statistics and warehouse
are those of a census; only reading, counting and Ray are left out.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from checkpoints import write_shard
from layouts import Layout

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.execution.dispatch import Dispatch
from engine.execution.drive import drive
from engine.execution.executor import IN_FLIGHT, Done, Executor, Failed
from engine.execution.process import few_arenas, without_scipy
from engine.formats.checkpoint import open_checkpoint
from engine.nouns.dtypes import DTYPES
from engine.nouns.events import ignore
from engine.nouns.records import Checkpoint
from engine.nouns.tasks import Outcome, Part, Task
from engine.plan import Limits, Plan, Selection, plan_scan
from engine.sketch import Sketch
from engine.statistics.summary import summarise
from engine.verbs.census import census
from engine.verbs.census_feed import CensusFeed, Entry, Ready
from engine.verbs.limits import limits_of
from engine.verbs.opening import Opener
from engine.verbs.scan_job import ScanJob
from engine.verbs.scribe import Scribe
from engine.warehouse.ingest import Finished, write_tensors
from engine.warehouse.journal import Journal
from engine.warehouse.known import known
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import begin, finish

Numbers = dict[str, float]

_SPEC = {"include": [], "exclude": [], "exact": False}
_NODE = 8  # workers of one machine


def write(directory: Path, checkpoints: int, tensors: int, width: int) -> None:
    """Write the headers of checkpoints; their weights are holes."""
    layers, heads = -(-tensors // 9), max(width // 128, 1)
    model = Layout("llama", layers, width, width * 27 // 5, heads, max(heads // 5, 1), width * 30)
    shapes = dict(islice(model.tensors().items(), tensors))
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(checkpoints):
        write_shard(directory / f"model-{number:06d}.safetensors", shapes, "bf16", "sparse")


def _places(directory: Path, checkpoints: int) -> list[str]:
    return [str(path) for path in sorted(directory.iterdir())[:checkpoints]]


class Simulated(Executor):
    """Workers that have done a task when they are given it; one answers at a time.

    Args:
        workers: how many.
        codes: how many each sketch has that they answer with; 0 for answers without sketches.
    """

    worker_bytes = 260 << 20  # as if they were processes

    def __init__(self, workers: int, codes: int) -> None:
        self.workers, self._codes = workers, codes
        self.tasks = 0

    @contextmanager
    def open(self, make_body: object) -> Iterator[_Answers]:  # type: ignore[override]
        """See `Executor`."""
        yield _Answers(self)

    def answer(self, task: Task) -> Outcome[Sketch]:
        """What a worker might find."""
        self.tasks += 1
        parts: tuple[Part[Sketch], ...] = ()
        if self._codes:
            parts = tuple(
                Part(c.tensor, c.span, _even(c.dtype, c.elements, self._codes)) for c in task.chunks
            )
        return Outcome(task.key, task.nbytes, parts)


def _even(dtype: str, elements: int, codes: int) -> Sketch:
    """A sketch of so many neighbouring codes, each as frequent as the others."""
    coding = DTYPES[dtype].coding
    assert coding is not None
    k = min(codes, elements)
    n = np.full(k, elements // k, np.uint64)
    n[0] += np.uint64(elements % k)
    first = 0x3000  # small positive numbers
    return Sketch(coding.name, np.arange(first, first + k, dtype=np.uint16), n, None, None, 0, 1e-9, 1.0)


class _Answers:
    """The pool of simulated workers: who gets what is decided as on Ray."""

    def __init__(self, executor: Simulated) -> None:
        self._executor, self._dispatch = executor, Dispatch()
        self._sent: deque[tuple[str, Task]] = deque()
        for number in range(executor.workers):
            self._dispatch.join(f"worker {number}", f"node {number // _NODE}")

    def room(self) -> int:
        return IN_FLIGHT * self._executor.workers - self._dispatch.unfinished()

    def submit(self, task: Task) -> None:
        self._dispatch.submit(task)
        self._send()

    def busy(self) -> bool:
        return self._dispatch.unfinished() > 0

    def collect(self, seconds: float) -> list[Done[Any] | Failed]:
        name, task = self._sent.popleft()
        self._dispatch.done(name, task.key, time.monotonic(), 1.0)
        self._send()
        return [Done(task, self._executor.answer(task), 1.0, name)]

    def _send(self) -> None:
        self._sent.extend((name, task) for name, task, _ in self._dispatch.hand_out(time.monotonic()))


def run_census(directory: Path, warehouse: Path, checkpoints: int, workers: int, codes: int) -> Numbers:
    """The whole verb."""
    executor = Simulated(workers, codes)
    began = time.process_time()
    report = census(_places(directory, checkpoints), warehouse=warehouse, executor=executor)
    if not report.complete:
        sys.exit(str(next(e for e in report.entries if e.status != "scanned")))
    return {
        "seconds": report.seconds,
        "processor_seconds": time.process_time() - began,
        "tasks": executor.tasks,
        "warehouse_bytes": warehouse.stat().st_size,
    }


def run_dispatch(directory: Path, warehouse: Path, checkpoints: int, workers: int) -> Numbers:
    """Feed, dispatch and their loop: all is opened and planned before, and no sketch comes back."""
    executor = Simulated(workers, 0)
    limits, store = limits_of(executor), Warehouse(warehouse)
    opened = [open_checkpoint(place) for place in _places(directory, checkpoints)]
    ready = iter([Ready(c, _plan(c, limits), c.name) for c in opened])
    judged: list[Entry] = []

    def enter(them: Sequence[Ready]) -> list[ScanJob]:
        with store.writing() as connection:
            jobs = [_job(connection, store, one.checkpoint, limits) for one in them]
        for job, one in zip(jobs, them, strict=True):
            job.begin(one.plan)
        return jobs

    with Opener(ready, lambda one: one, 8) as opener:
        feed = CensusFeed(opener, enter, Scribe(store, ignore), judged.append)  # type: ignore[arg-type]
        began = time.perf_counter()
        with executor.open(None) as pool:
            drive(pool, feed)
        return {"seconds": time.perf_counter() - began, "tasks": executor.tasks}


def _job(connection: Any, store: Warehouse, checkpoint: Checkpoint, limits: Limits) -> ScanJob:
    standing = begin(connection, checkpoint, name=checkpoint.name, spec=_SPEC, force=False)
    journal = Journal(store.path, checkpoint)
    return ScanJob(checkpoint, standing, exact=False, limits=limits, listener=ignore, journal=journal)


def _plan(checkpoint: Checkpoint, limits: Limits) -> Plan:
    return plan_scan(checkpoint, Selection(), limits, {})


def run_opening(directory: Path, checkpoints: int) -> Numbers:
    """Seconds of opening a checkpoint and of planning it, on one thread."""
    opening, planning = [], []
    for place in _places(directory, checkpoints):
        began = time.perf_counter()
        checkpoint = open_checkpoint(place)
        opened = time.perf_counter()
        _plan(checkpoint, Limits(64))
        planning.append(time.perf_counter() - opened)
        opening.append(opened - began)
    return {"open": median(opening), "plan": median(planning)}


def run_transactions(directory: Path, warehouse: Path, subjects: int) -> Numbers:
    """Seconds of what a checkpoint costs in a warehouse that has so many subjects already."""
    from warehouse import fill

    if subjects:
        fill(warehouse, subjects)
    store = Warehouse(warehouse)
    with store.writing() as connection:
        for _ in range(subjects):
            connection.execute("SELECT nextval('subject_numbers')")
    costs: dict[str, list[float]] = {"empty": [], "begin": [], "rows": [], "finish": []}
    for place in _places(directory, 6):
        checkpoint = open_checkpoint(place)
        _enter(store, checkpoint, costs)
    return {name: median(seconds) for name, seconds in costs.items()} | {
        "warehouse_bytes": warehouse.stat().st_size
    }


def _enter(store: Warehouse, checkpoint: Checkpoint, costs: dict[str, list[float]]) -> None:
    """Bring a checkpoint in: its subject, the rows of all tensors, its completion."""
    sketches = [_even(t.dtype, t.elements, 1) for t in checkpoint.tensors]
    finished = [Finished(i, checkpoint.tensors[i], s, summarise(s)) for i, s in enumerate(sketches)]
    subject = 0

    def enter(connection: Any) -> None:
        nonlocal subject
        subject = begin(connection, checkpoint, name=checkpoint.name, spec=_SPEC, force=False).subject_id

    steps: dict[str, Callable[[Any], None]] = {
        "empty": lambda connection: None,
        "begin": enter,
        "rows": lambda connection: write_tensors(connection, subject, finished),
        "finish": lambda connection: finish(connection, subject),
    }
    for name, step in steps.items():
        began = time.perf_counter()
        with store.writing() as connection:
            step(connection)
        costs[name].append(time.perf_counter() - began)


_SUBJECTS = """
INSERT INTO subjects BY NAME
SELECT range + 1 AS subject_id, format('organisation-{}/model-{:06}', range % 5000, range) AS name,
       'checkpoint' AS kind, format('hf://organisation-{}/model-{:06}', range % 5000, range) AS uri,
       sha1(range::VARCHAR) AS revision, sha256(range::VARCHAR) AS fingerprint, 'safetensors' AS format,
       [] AS parent_ids, ? AS spec, 'benchmark' AS engine_version, 17 AS files, 65527752704 AS bytes,
       now()::TIMESTAMP AS started_at, now()::TIMESTAMP AS finished_at, 'complete' AS status
FROM range(?)
"""


def run_known(warehouse: Path, subjects: int) -> Numbers:
    """What a census reads at its beginning, of so many subjects."""
    store = Warehouse(warehouse)
    spec = json.dumps(_SPEC, sort_keys=True, separators=(",", ":"))
    with store.writing() as connection:
        connection.execute(_SUBJECTS, [spec, subjects])
    with store.writing() as connection:
        before, began = _resident(), time.perf_counter()
        found = known(connection, _SPEC)
        seconds = time.perf_counter() - began
    if len(found.complete) != subjects:
        sys.exit(f"{len(found.complete)} subjects are known of {subjects}")
    return {"seconds": seconds, "bytes": _resident() - before}


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["write", "census", "dispatch", "opening", "transactions", "known"])
    parser.add_argument("places", nargs="+", type=Path)
    for name, default in (
        ("checkpoints", 1000), ("tensors", 800), ("width", 5120), ("workers", 64), ("codes", 1),
        ("subjects", 1000),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    a = parser.parse_args()
    without_scipy()
    few_arenas()  # both as the command does
    runs: dict[str, Callable[[], Numbers | None]] = {
        "write": lambda: write(*a.places, a.checkpoints, a.tensors, a.width),
        "census": lambda: run_census(*a.places, a.checkpoints, a.workers, a.codes),
        "dispatch": lambda: run_dispatch(*a.places, a.checkpoints, a.workers),
        "opening": lambda: run_opening(*a.places, a.checkpoints),
        "transactions": lambda: run_transactions(*a.places, a.subjects),
        "known": lambda: run_known(*a.places, a.subjects),
    }
    numbers = runs[a.what]()
    if numbers is not None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(json.dumps(numbers | {"peak": peak}))


if __name__ == "__main__":
    main()
