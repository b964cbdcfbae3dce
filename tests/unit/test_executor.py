"""The in-process executor: every task once, whatever the order; the first failure ends it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.errors import TaskError
from engine.execution.fold import Fold
from engine.execution.in_process import InProcessExecutor, available_cores
from engine.formats.checkpoint import open_checkpoint
from engine.nouns.tasks import Task
from engine.plan import Limits, Selection, plan_refine, plan_scan
from engine.sketch import Sketch, combine
from engine.statistics.refinement import combine_refinements
from engine.statistics.summary import codes_to_refine
from engine.tasks.refine import RefineBody
from engine.tasks.scan import ScanBody
from tests.builders import COUNTED, assert_same, every_code, nasty_patterns, reference_sketch, write_sharded

WORKERS = [1, 2, 5]
each_workers = pytest.mark.parametrize("workers", WORKERS)


def dummies(count: int) -> tuple[Task, ...]:
    return tuple(Task(key, (), (), 8, 0) for key in range(count))


class Handed:
    """Tasks that count how many were taken."""

    def __init__(self, count: int) -> None:
        self.tasks, self.taken = dummies(count), 0

    def __iter__(self) -> Iterator[Task]:
        for task in self.tasks:
            self.taken += 1
            yield task


@each_workers
@pytest.mark.parametrize("count", [0, 1, 7, 60])
def test_every_task_runs_once(workers, count):
    found = InProcessExecutor(workers).run(lambda: lambda task: task.key, dummies(count))
    assert sorted(found) == list(range(count))


@each_workers
def test_at_most_two_tasks_a_worker_are_in_flight_and_one_body_a_worker_is_made(workers):
    handed, lock = Handed(60), threading.Lock()
    finished, running, bodies, problems = [], set(), [], []

    def make_body():
        bodies.append(threading.get_ident())

        def body(task: Task) -> int:
            with lock:
                running.add(task.key)
                if len(running) > workers or handed.taken - len(finished) > 2 * workers:
                    problems.append((len(running), handed.taken, len(finished)))
            time.sleep(0.0005)
            with lock:
                running.remove(task.key)
                finished.append(task.key)
            return task.key

        return body

    assert sorted(InProcessExecutor(workers).run(make_body, handed)) == list(range(60))
    assert problems == []
    assert len(bodies) == len(set(bodies)) <= workers


def test_tasks_really_run_side_by_side():
    barrier = threading.Barrier(3, timeout=10)
    found = InProcessExecutor(3).run(lambda: lambda task: barrier.wait() and task.key, dummies(3))
    assert len(list(found)) == 3


def no_threads_left() -> bool:
    return not [t for t in threading.enumerate() if t.name.startswith("gaussmeter_")]


@each_workers
def test_a_failure_stops_the_rest_and_comes_out_as_it_is(workers):
    handed, failure = Handed(1000), TaskError("the disk is gone", file="f", tensor="t")

    def body(task: Task) -> int:
        if task.key == 5:
            raise failure
        time.sleep(0.0005)
        return task.key

    outcomes = []
    with pytest.raises(TaskError) as caught:
        outcomes.extend(InProcessExecutor(workers).run(lambda: body, handed))
    assert caught.value is failure
    assert handed.taken <= 6 + 6 * workers
    assert 5 not in outcomes
    assert no_threads_left()


def test_a_body_that_cannot_be_made_is_a_failure():
    def make_body():
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        list(InProcessExecutor(2).run(make_body, dummies(3)))
    assert no_threads_left()


def test_who_stops_asking_stops_the_work():
    handed = Handed(1000)
    outcomes = InProcessExecutor(2).run(lambda: lambda task: task.key, handed)
    next(outcomes)
    outcomes.close()
    assert handed.taken < 1000
    assert no_threads_left()


def test_without_a_number_there_is_one_worker_per_core():
    assert InProcessExecutor().workers == available_cores() >= 1


# Bit for bit


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Every dtype that is counted, in two shards, with every 16-bit pattern and rows of odd length."""
    r = np.random.default_rng(7)
    first, second = {}, {}
    for dtype in COUNTED:
        codes = every_code(dtype)
        first[f"all.{dtype}"] = (dtype, r.permutation(codes[:: max(len(codes) // 6000, 1)]))
        second[f"nasty.{dtype}"] = (dtype, np.resize(nasty_patterns(dtype), (13, 37)))
    first["scalar"] = ("F32", np.array(1.5, "<f4").view("<u4"))
    first["ids"] = ("I64", np.arange(3))
    return open_checkpoint(str(write_sharded(tmp_path_factory.mktemp("ckpt"), first, second)))


def scan(checkpoint, limits: Limits, seed: int | None = None) -> dict[str, Sketch]:
    tasks = list(plan_scan(checkpoint, Selection(), limits, {}).tasks)
    if seed is not None:
        np.random.default_rng(seed).shuffle(tasks)
    fold = Fold({i: t.elements for i, t in enumerate(checkpoint.tensors)}, combine)
    found = {}
    for outcome in InProcessExecutor(limits.workers).run(ScanBody, tasks):
        found |= {checkpoint.tensors[i].name: sketch for i, sketch in fold.add(outcome.parts)}
    assert fold.partials == {}
    return found


@pytest.fixture(scope="module")
def expected(checkpoint):
    """By numpy, straight from the files."""
    found = {}
    for t in checkpoint.tensors:
        if t.kind.coding is not None:
            data = Path(checkpoint.files[t.file].uri).read_bytes()[t.offset : t.offset + t.nbytes]
            found[t.name] = reference_sketch(t.dtype, np.frombuffer(data, f"<u{t.kind.bits // 8}"))
    return found


@each_workers
@pytest.mark.parametrize(
    ("task_bytes", "block_bytes"), [(None, 1 << 20), (3001, 64), (20_000, 4096), (1 << 20, 8), (257, 1 << 12)]
)
def test_workers_sizes_and_order_change_no_bit(checkpoint, expected, workers, task_bytes, block_bytes):
    limits = Limits(workers=workers, task_bytes=task_bytes, block_bytes=block_bytes)
    for seed in (None, workers):
        found = scan(checkpoint, limits, seed)
        assert found.keys() == expected.keys()
        for name, sketch in found.items():
            assert_same(sketch, expected[name])


@each_workers
@pytest.mark.parametrize("task_bytes", [None, 3001])
def test_the_second_pass_changes_no_bit_either(checkpoint, expected, workers, task_bytes):
    limits = Limits(workers=workers, task_bytes=task_bytes, block_bytes=512)
    codes = {
        i: codes_to_refine(expected[t.name])
        for i, t in enumerate(checkpoint.tensors)
        if t.dtype in ("F32", "F64") and t.elements
    }
    fold = Fold({i: t.elements for i, t in enumerate(checkpoint.tensors)}, combine_refinements)
    found = {}
    for outcome in InProcessExecutor(workers).run(RefineBody, plan_refine(checkpoint, codes, limits)):
        found |= dict(fold.add(outcome.parts))
    assert found.keys() == codes.keys()
    for i, refinement in found.items():
        sketch = expected[checkpoint.tensors[i].name]
        n = dict(zip(sketch.codes.tolist(), sketch.n.tolist(), strict=True))
        low_sum = dict(zip(sketch.codes.tolist(), sketch.low_sum.tolist(), strict=True))
        assert tuple(refinement.lows) == codes[i]
        for code, (low, count) in refinement.lows.items():
            assert int(count.sum()) == n[code]
            assert int((low * count).sum()) == low_sum[code]
