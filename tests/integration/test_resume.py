"""Scans that were killed, interrupted or overtaken by a change go on, or are begun anew; nothing is lost or twice."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import duckdb
import numpy as np
import pytest

import engine
from engine.errors import FormatError, TaskError, WarehouseBusyError, WarehouseError
from engine.storage.local import LocalReader
from engine.verbs import scribe
from tests.builders import Tensors, write_sharded, write_tensors
from tests.integration.helpers import (
    Kept,
    Killed,
    Recorder,
    assert_consistent,
    contents,
    gaussmeter,
    killed,
    made,
    normal,
    program,
    raising,
    rows,
    start,
    subjects,
)

TASK = 1600  # bytes; most tensors take several tasks, small ones share one


def tensors(seed: int = 0) -> Tensors:
    """Several codings, tensors of more than one task and tasks of more than one tensor."""
    return {
        "layers.0.q_proj.weight": normal("BF16", 20, 40, seed=seed),
        "layers.0.k_proj.weight": normal("F32", 12, 40, seed=seed + 1),
        "layers.0.bias": normal("F16", 30, seed=seed + 2),
        "layers.0.scale": normal("F32", seed=seed + 3),
        "layers.0.ids": ("I64", np.arange(9)),
        "layers.1.nothing": ("F32", np.zeros(0, "<u4")),
        "layers.1.q_proj.weight": normal("F64", 8, 30, seed=seed + 4),
        "layers.1.k_proj.weight": normal("F8_E4M3", 40, 40, seed=seed + 5),
        "layers.1.one_row": normal("F32", 1, 600, seed=seed + 6),
        "norm": normal("BF16", 40, seed=seed + 7, mean=1),
    }


class Case:
    """A checkpoint, and what an undisturbed scan of it leaves."""

    def __init__(self, folder: Path, *, exact: bool = False) -> None:
        self.path = write_tensors(folder / "model" / "m.safetensors", tensors())
        self.exact = exact
        listener = Recorder()
        warehouse = folder / "undisturbed.duckdb"
        report = engine.scan(
            self.path, warehouse=warehouse, exact=exact, workers=1, task_bytes=TASK, listener=listener
        )
        self.nbytes = report.nbytes_read
        self.tasks = listener.nbytes
        self.expected: dict[str, Kept] = contents(warehouse, report.subject_id)

    def assert_completed_by_another_scan(
        self, warehouse: Path, *, reads: int | range | None = None, **options
    ) -> None:
        """One more scan leaves what an undisturbed one does; by default with other tasks than the first."""
        options = {"workers": 2, "task_bytes": 450, "block_bytes": 64} | options
        report = engine.scan(self.path, warehouse=warehouse, exact=self.exact, **options)
        assert report.status == "resumed"
        assert contents(warehouse, report.subject_id) == self.expected
        assert subjects(warehouse) == [(report.subject_id, "m", "complete")]
        assert rows(warehouse, "SELECT count(*) FROM partials") == [(0,)]
        assert_consistent(warehouse)
        if reads is not None:
            assert report.nbytes_read in (reads if isinstance(reads, range) else (reads,))
        again = engine.scan(self.path, warehouse=warehouse, exact=self.exact)
        assert (again.status, again.nbytes_read) == ("unchanged", 0)


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    return Case(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def exact_case(tmp_path_factory) -> Case:
    return Case(tmp_path_factory.mktemp("exact"), exact=True)


@pytest.fixture
def every_task_flushes(monkeypatch) -> None:
    monkeypatch.setattr(scribe, "FLUSH_SECONDS", -1.0)


def test_the_case_has_enough_tasks_to_be_killed_between(case, exact_case):
    assert len(case.tasks) >= 8
    assert sum(case.tasks) == case.nbytes
    assert len(exact_case.tasks) >= len(case.tasks) + 4


# Killed


DRIVER = """
import os, signal, sys
import engine
from engine.nouns.events import TaskDone
from engine.verbs import scan_job, scribe

path, warehouse, where, at, exact = sys.argv[1:]
scribe.FLUSH_SECONDS = 1e9 if where == "before any flush" else -1.0
seen = 0

def count_down():
    global seen
    seen += 1
    if seen == int(at):
        os.kill(os.getpid(), signal.SIGKILL)

def after(function):
    def wrapped(*args, **kwargs):
        result = function(*args, **kwargs)
        count_down()
        return result
    return wrapped

def listener(event):
    if isinstance(event, TaskDone):
        print(event.nbytes, flush=True)
        if where in ("after a flush", "before any flush"):
            count_down()

if where == "in a transaction":
    scan_job.write_partials = after(scan_job.write_partials)
if where == "in the last transaction":
    scan_job.finish = after(scan_job.finish)
engine.scan(path, warehouse=warehouse, exact=exact == "True", workers=1, task_bytes=1600, listener=listener)
"""
"""Scans, tells how many bytes each task read, and kills itself at the given task, transaction or finish."""


@pytest.mark.parametrize(
    ("where", "at"),
    [("after a flush", 6), ("before any flush", 5), ("in a transaction", 4), ("in the last transaction", 1)],
)
def test_a_scan_killed_with_sigkill_reads_no_finished_task_again(case, tmp_path, where, at):
    warehouse = made(tmp_path / "w.duckdb")
    ran = program(DRIVER, case.path, warehouse, where, at, False)
    assert killed(ran)
    read = [int(line) for line in ran.out.splitlines()]
    assert read
    # it can be asked at once, and shows nothing of what is not finished
    assert engine.sql("SELECT count(*) FROM tensor_stats", warehouse=warehouse).rows == [(0,)]
    assert engine.ls(warehouse=warehouse).records()[0]["status"] == "running"
    assert_consistent(warehouse)
    assert len(list(tmp_path.glob("*.journal"))) == 1
    case.assert_completed_by_another_scan(warehouse, reads=case.nbytes - sum(read))
    assert not list(tmp_path.glob("*.journal"))


def test_a_scan_killed_in_the_second_pass_goes_on(exact_case, tmp_path):
    """The first pass is not made again."""
    case, warehouse = exact_case, made(tmp_path / "w.duckdb")
    first_pass = engine.dry_run(case.path, workers=1, task_bytes=TASK)
    assert killed(program(DRIVER, case.path, warehouse, "after a flush", first_pass.tasks + 2, True))
    report = engine.scan(case.path, warehouse=warehouse, exact=True, workers=2, task_bytes=450)
    assert report.status == "resumed"
    assert 0 < report.nbytes_read <= case.nbytes - first_pass.nbytes
    assert contents(warehouse, report.subject_id) == case.expected
    assert_consistent(warehouse)


@pytest.mark.slow
def test_a_scan_killed_again_and_again_is_completed(tmp_path):
    """At moments that nobody chose."""
    many = {f"layers.{i}.q_proj.weight": normal("BF16", 24, 32, seed=i) for i in range(30)}
    path, warehouse = write_tensors(tmp_path / "m" / "m.safetensors", many), tmp_path / "w.duckdb"
    slow = DRIVER.replace(
        "def listener(event):\n", "def listener(event):\n    import time; time.sleep(0.02)\n"
    )
    for pause in (0.4, 0.2):
        scan = start(["-c", slow, path, warehouse, "after a flush", 0, False])
        try:
            deadline = time.monotonic() + 30
            while not warehouse.exists() and scan.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(pause)
        finally:
            scan.kill()
            scan.communicate()
    report = engine.scan(path, warehouse=warehouse, task_bytes=1000)
    assert report.status in ("resumed", "scanned")
    undisturbed = engine.scan(path, warehouse=tmp_path / "v.duckdb")
    assert contents(warehouse, report.subject_id) == contents(tmp_path / "v.duckdb", undisturbed.subject_id)
    assert_consistent(warehouse)


@pytest.mark.parametrize("at", [1, 2, pytest.param(5, marks=pytest.mark.slow), 7])
def test_killed_at_any_task_it_reads_only_what_is_missing(case, tmp_path, every_task_flushes, at):
    """Every task but the last one was flushed when the next one came; that one may still be in the journal."""
    warehouse = made(tmp_path / "w.duckdb")
    listener = Recorder(at, raising(Killed()))
    with pytest.raises(Killed):
        engine.scan(case.path, warehouse=warehouse, workers=1, task_bytes=TASK, listener=listener)
    assert_consistent(warehouse)
    most, last = case.nbytes - sum(listener.nbytes[: at - 1]), listener.nbytes[at - 1]
    case.assert_completed_by_another_scan(warehouse, reads=range(most - last, most + 1, last))


def test_what_could_not_be_written_is_kept_for_the_next_scan(case, tmp_path, monkeypatch):
    """Somebody else had the warehouse all the while."""
    warehouse, listener = made(tmp_path / "w.duckdb"), Recorder()

    def busy(*_):
        raise WarehouseBusyError("is being written", file=str(warehouse))

    with monkeypatch.context() as patch:
        patch.setattr(scribe.Scribe, "_put", busy)
        with pytest.raises(WarehouseBusyError):
            engine.scan(case.path, warehouse=warehouse, workers=1, task_bytes=TASK, listener=listener)
    assert sum(listener.nbytes) == case.nbytes
    case.assert_completed_by_another_scan(warehouse, reads=0)
    assert not list(tmp_path.glob("*.journal"))


@pytest.mark.parametrize("back", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_anywhere_in_the_second_pass_it_keeps_the_first(
    exact_case, tmp_path, every_task_flushes, back
):
    case, warehouse = exact_case, made(tmp_path / "w.duckdb")
    at = len(case.tasks) - back
    with pytest.raises(Killed):
        engine.scan(
            case.path, warehouse=warehouse, exact=True, workers=1, task_bytes=TASK,
            listener=Recorder(at, raising(Killed())),
        )  # fmt: skip
    second_pass = case.nbytes - engine.dry_run(case.path).nbytes
    assert rows(warehouse, "SELECT count(*) > 0 FROM partials") == [(True,)]
    listener = Recorder()
    case.assert_completed_by_another_scan(warehouse, listener=listener)
    assert 0 < sum(listener.nbytes) <= second_pass


def test_killed_again_and_again_with_other_tasks_each_time(case, tmp_path, every_task_flushes):
    warehouse = made(tmp_path / "w.duckdb")
    read = ended = 0
    for task, block, workers in ((300, 8, 1), (1000, 64, 2), (TASK, 16, 1), (64, 1024, 3)):
        listener = Recorder(3, raising(Killed()))
        with pytest.raises(Killed):
            engine.scan(
                case.path, warehouse=warehouse, task_bytes=task, block_bytes=block, workers=workers,
                listener=listener,
            )  # fmt: skip
        read, ended = read + sum(listener.nbytes[:-1]), ended + sum(listener.nbytes)
    case.assert_completed_by_another_scan(warehouse, reads=range(case.nbytes - ended, case.nbytes - read + 1))


def test_it_writes_as_soon_as_many_bins_wait(case, tmp_path, monkeypatch):
    monkeypatch.setattr(scribe, "FLUSH_BINS", 0)
    monkeypatch.setattr(scribe, "FLUSH_SECONDS", 1e9)
    warehouse = made(tmp_path / "w.duckdb")
    with pytest.raises(Killed):
        engine.scan(
            case.path,
            warehouse=warehouse,
            workers=1,
            task_bytes=TASK,
            listener=Recorder(7, raising(Killed())),
        )
    assert rows(warehouse, "SELECT count(*) > 2 FROM tensors") == [(True,)]
    case.assert_completed_by_another_scan(warehouse)


# Interrupted and failed


def test_an_interrupt_keeps_what_was_done(case, tmp_path):
    """Without waiting for the next flush."""
    warehouse = made(tmp_path / "w.duckdb")
    listener = Recorder(6, raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        engine.scan(case.path, warehouse=warehouse, workers=1, task_bytes=TASK, listener=listener)
    case.assert_completed_by_another_scan(warehouse, reads=case.nbytes - sum(listener.nbytes[:5]))


# Left to itself, typer takes the KeyboardInterrupt and exits without a word.
INTERRUPTED = """
import contextlib, os, signal, sys
from engine.cli import app, listeners
from engine.nouns.events import TaskDone

read = []

def listener(event):
    if isinstance(event, TaskDone):
        read.append(event.nbytes)
        if len(read) == 6:
            print(sum(read[:5]), flush=True)
            os.kill(os.getpid(), signal.SIGINT)

@contextlib.contextmanager
def progress(**options):
    yield listener

listeners.progress = progress
app.main()
"""


def test_control_c_ends_with_a_sentence_and_130(case, tmp_path):
    warehouse = made(tmp_path / "w.duckdb")
    ran = program(INTERRUPTED, "scan", case.path, "-w", warehouse, "-j", 1, "--task-size", TASK)
    report = engine.scan(case.path, warehouse=warehouse)
    assert (report.status, report.nbytes_read) == ("resumed", case.nbytes - int(ran.out))
    assert contents(warehouse, report.subject_id) == case.expected
    assert "goes on with it" in ran.sentence(130)


def test_a_failing_disk_costs_only_what_it_fails(case, tmp_path, monkeypatch):
    warehouse = made(tmp_path / "w.duckdb")
    read_into, calls = LocalReader.read_into, 0

    def failing(self, buffer, offset):
        nonlocal calls
        calls += 1
        if calls > 8:
            raise TaskError("cannot be read at byte 1: Input/output error", file=self.path)
        read_into(self, buffer, offset)

    monkeypatch.setattr(LocalReader, "read_into", failing)
    with pytest.raises(TaskError, match="Input/output error"):
        engine.scan(case.path, warehouse=warehouse, workers=1, task_bytes=TASK)
    monkeypatch.undo()
    assert subjects(warehouse)[0][2] == "running"
    assert rows(warehouse, "SELECT count(*) > 0 FROM tensors") == [(True,)]
    listener = Recorder()
    case.assert_completed_by_another_scan(warehouse, listener=listener)
    assert sum(listener.nbytes) < case.nbytes


# Unchanged, changed, forced


def newest(warehouse: Path) -> tuple:
    return subjects(warehouse)[-1]


def test_a_touched_file_is_a_new_subject_and_the_old_one_stays(case, tmp_path):
    path, warehouse = write_tensors(tmp_path / "m.safetensors", tensors()), made(tmp_path / "w.duckdb")
    first = engine.scan(path, warehouse=warehouse)
    assert engine.scan(path, warehouse=warehouse).nbytes_read == 0
    os.utime(path, ns=(1, 1))
    second = engine.scan(path, warehouse=warehouse)
    assert (second.status, second.nbytes_read) == ("scanned", first.nbytes_read)
    assert [s[2] for s in subjects(warehouse)] == ["complete", "complete"]
    assert contents(warehouse, first.subject_id) == contents(warehouse, second.subject_id) == case.expected
    assert_consistent(warehouse)


def test_other_weights_are_a_new_subject(tmp_path):
    path, warehouse = write_tensors(tmp_path / "m.safetensors", tensors()), made(tmp_path / "w.duckdb")
    first = engine.scan(path, warehouse=warehouse)
    kept = contents(warehouse, first.subject_id)
    write_tensors(path, tensors(seed=100))
    second = engine.scan(path, warehouse=warehouse)
    assert second.status == "scanned"
    assert contents(warehouse, first.subject_id) == kept
    assert contents(warehouse, second.subject_id) != kept


def test_an_interrupted_scan_of_a_file_that_changed_is_not_taken_up(tmp_path, every_task_flushes):
    path, warehouse = write_tensors(tmp_path / "m.safetensors", tensors()), made(tmp_path / "w.duckdb")
    with pytest.raises(Killed):
        engine.scan(
            path, warehouse=warehouse, workers=1, task_bytes=TASK, listener=Recorder(6, raising(Killed()))
        )
    write_tensors(path, tensors(seed=100))
    report = engine.scan(path, warehouse=warehouse)
    assert (report.status, report.nbytes_read) == ("scanned", engine.dry_run(path).nbytes)
    undisturbed = engine.scan(path, warehouse=tmp_path / "v.duckdb")
    assert contents(warehouse, report.subject_id) == contents(tmp_path / "v.duckdb", undisturbed.subject_id)


def test_force_replaces_what_was_there(case, tmp_path):
    warehouse = made(tmp_path / "w.duckdb")
    first = engine.scan(case.path, warehouse=warehouse)
    second = engine.scan(case.path, warehouse=warehouse, force=True)
    assert (second.status, second.nbytes_read) == ("scanned", case.nbytes)
    assert second.subject_id != first.subject_id
    assert subjects(warehouse) == [(second.subject_id, "m", "complete")]
    assert contents(warehouse, second.subject_id) == case.expected
    assert_consistent(warehouse)


def test_until_a_forced_scan_is_finished_the_old_numbers_stay(case, tmp_path, every_task_flushes):
    warehouse = made(tmp_path / "w.duckdb")
    first = engine.scan(case.path, warehouse=warehouse)
    for at in (6, 2):
        with pytest.raises(Killed):
            engine.scan(
                case.path, warehouse=warehouse, workers=1, task_bytes=TASK, force=True,
                listener=Recorder(at, raising(Killed())),
            )  # fmt: skip
        assert contents(warehouse, first.subject_id) == case.expected
        assert [s[2] for s in subjects(warehouse)] == ["complete", "running"]
    report = engine.scan(case.path, warehouse=warehouse, force=True)
    assert subjects(warehouse) == [(report.subject_id, "m", "complete")]
    assert_consistent(warehouse)


def test_force_leaves_other_subjects_alone(case, tmp_path):
    warehouse = made(tmp_path / "w.duckdb")
    other = engine.scan(write_tensors(tmp_path / "o.safetensors", tensors(seed=50)), warehouse=warehouse)
    some = engine.scan(case.path, warehouse=warehouse, include=["*q_proj*"])
    kept = [contents(warehouse, s.subject_id) for s in (other, some)]
    engine.scan(case.path, warehouse=warehouse)
    engine.scan(case.path, warehouse=warehouse, force=True)
    assert [contents(warehouse, s.subject_id) for s in (other, some)] == kept
    assert len(subjects(warehouse)) == 3


# Changed while it is read


def spoil(path: Path, how: str) -> None:
    if how == "touched":
        os.utime(path, ns=(7, 7))
    elif how == "truncated":
        os.truncate(path, path.stat().st_size - 100)
    elif how == "replaced":
        path.with_suffix(".new").write_bytes(path.read_bytes()[::-1])
        path.with_suffix(".new").replace(path)
    else:
        path.unlink()


@pytest.mark.parametrize(
    "how", ["touched", "truncated", "gone", pytest.param("replaced", marks=pytest.mark.slow)]
)
def test_a_file_that_changes_during_the_scan_is_refused_and_leaves_nothing(tmp_path, every_task_flushes, how):
    path, warehouse = write_tensors(tmp_path / "m.safetensors", tensors()), made(tmp_path / "w.duckdb")
    other = engine.scan(write_tensors(tmp_path / "other.safetensors", tensors(9)), warehouse=warehouse)
    kept = contents(warehouse, other.subject_id)
    with pytest.raises(FormatError) as failure:
        engine.scan(
            path,
            warehouse=warehouse,
            workers=1,
            task_bytes=500,
            listener=Recorder(5, lambda: spoil(path, how)),
        )
    assert failure.value.file == str(path)
    told = {"gone": "cannot be read", "truncated": "changed after the scan began|ends at byte"}
    assert re.search(told.get(how, "changed after the scan began"), failure.value.message)
    assert subjects(warehouse) == [(other.subject_id, "other", "complete")]
    assert contents(warehouse, other.subject_id) == kept
    assert_consistent(warehouse)


def test_a_change_during_the_second_pass_leaves_nothing_either(tmp_path):
    path, warehouse = write_tensors(tmp_path / "m.safetensors", tensors()), made(tmp_path / "w.duckdb")
    at = engine.dry_run(path, workers=1, task_bytes=500).tasks + 2
    with pytest.raises(FormatError, match="changed after the scan began"):
        engine.scan(
            path, warehouse=warehouse, exact=True, workers=1, task_bytes=500,
            listener=Recorder(at, lambda: spoil(path, "touched")),
        )  # fmt: skip
    assert subjects(warehouse) == []
    assert_consistent(warehouse)


CHANGING = INTERRUPTED.replace("== 6", "== 2").replace(
    "os.kill(os.getpid(), signal.SIGINT)", "os.utime(sys.argv[2], ns=(7, 7))"
)


def test_the_command_line_says_so_with_exit_code_2(tmp_path):
    path, warehouse = write_tensors(tmp_path / "m.safetensors", tensors()), made(tmp_path / "w.duckdb")
    ran = program(CHANGING, "scan", path, "-w", warehouse, "-j", 1, "--task-size", TASK)
    sentence = ran.sentence(2)
    assert sentence.startswith(f"{path}: changed after the scan began")
    assert subjects(warehouse) == []
    ran = gaussmeter("scan", path, "-w", warehouse)
    assert (ran.code, ran.err) == (0, "")
    assert newest(warehouse)[2] == "complete"


def test_a_shard_that_changes_between_two_others_is_noticed(tmp_path, every_task_flushes):
    shards = [{f"{k}.{n}": normal("BF16", 20, 20, seed=k) for n in "abc"} for k in range(3)]
    index, warehouse = write_sharded(tmp_path / "m", *shards), made(tmp_path / "w.duckdb")
    last = sorted((tmp_path / "m").glob("*.safetensors"))[2]
    with pytest.raises(FormatError) as failure:
        engine.scan(
            index, warehouse=warehouse, workers=1, task_bytes=TASK,
            listener=Recorder(1, lambda: os.utime(last, ns=(5, 5))),
        )  # fmt: skip
    assert failure.value.file == str(last)
    assert subjects(warehouse) == []


# Removed meanwhile


def test_a_subject_that_somebody_removes_stops_the_scan(case, tmp_path, every_task_flushes):
    warehouse = made(tmp_path / "w.duckdb")

    def remove() -> None:
        with duckdb.connect(str(warehouse), config={"memory_limit": "512MB"}) as connection:
            for table in ("bins", "filtered", "tensors", "partials", "subjects"):
                connection.execute(f"DELETE FROM {table}")

    with pytest.raises(TaskError, match="removed by another process"):
        engine.scan(case.path, warehouse=warehouse, workers=1, task_bytes=TASK, listener=Recorder(4, remove))
    assert subjects(warehouse) == []


def test_a_warehouse_that_goes_away_stops_the_scan(case, tmp_path, every_task_flushes):
    """Deleting it during a scan is no way to lose half of the tensors without a word."""
    warehouse = made(tmp_path / "w.duckdb")
    with pytest.raises((TaskError, WarehouseError)):
        engine.scan(
            case.path, warehouse=warehouse, workers=1, task_bytes=TASK, listener=Recorder(4, warehouse.unlink)
        )
    report = engine.scan(case.path, warehouse=warehouse)
    assert contents(warehouse, report.subject_id) == case.expected
