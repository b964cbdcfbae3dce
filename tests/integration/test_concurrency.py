"""Several processes, and several threads of one, share a warehouse without losing or mixing anything."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import engine
from engine.errors import FormatError, TaskError, WarehouseBusyError
from engine.nouns.events import Waiting
from engine.verbs import scribe
from engine.warehouse.store import Warehouse
from tests.builders import write_tensors
from tests.integration.helpers import (
    Recorder,
    assert_consistent,
    contents,
    finish,
    gaussmeter,
    made,
    normal,
    process,
    rows,
    start,
    subjects,
)


def write_model(folder: Path, name: str, seed: int, tensors: int = 8) -> Path:
    """Many small tensors, so that there are many transactions to fight over."""
    return write_tensors(
        folder / f"{name}.safetensors",
        {f"layers.{i}.q_proj.weight": normal("BF16", 16, 24, seed=seed + i) for i in range(tensors)},
    )


def alone(path: Path, folder: Path) -> dict:
    """What an undisturbed scan of a checkpoint leaves."""
    warehouse = folder / f"alone-{path.stem}.duckdb"
    return contents(warehouse, engine.scan(path, warehouse=warehouse).subject_id)


WRITER = """
import sys, time
from pathlib import Path
from engine.cli import app
from engine.verbs import scribe

scribe.FLUSH_SECONDS = -1.0
go = Path(sys.argv.pop(1))
Path(f"{go}-{sys.argv.pop(1)}").touch()
while not go.exists():
    time.sleep(0.002)
app.main()
"""
"""Runs a command when a file appears; every task of its scans is a transaction."""

READER = """
import sys, time
from pathlib import Path
from engine.cli import app

go, stop, warehouse = map(Path, sys.argv[1:])
query = ("SELECT s.name, count(DISTINCT t.ordinal) AS tensors, sum(b.n)::BIGINT AS n FROM subjects s "
    "JOIN tensors t USING (subject_id) JOIN bins b USING (tensor_id) WHERE s.status = 'complete' GROUP BY ALL")
sys.argv = ["gaussmeter", "sql", query, "-w", str(warehouse), "-f", "csv"]
asked = 0
Path(f"{go}-reader").touch()
while not stop.exists():
    if not warehouse.exists():
        time.sleep(0.002)
        continue
    try:
        app.main()
    except SystemExit as end:
        if end.code:
            raise
    asked += 1
    time.sleep(0.05)
print("asked", asked)
"""


def race(folder: Path, *commands: tuple[object, ...]) -> list:
    """Run commands in processes that begin at the same moment."""
    go = folder / "go"
    processes = [start(["-c", WRITER, go, k, *command]) for k, command in enumerate(commands)]
    wait_for(*(folder / f"go-{k}" for k in range(len(commands))))
    go.touch()
    return [finish(p) for p in processes]


def wait_for(*files: Path) -> None:
    deadline = time.monotonic() + 60
    while not all(f.exists() for f in files):
        assert time.monotonic() < deadline, files
        time.sleep(0.005)


# Processes


def test_two_scans_and_a_reader_share_a_warehouse(tmp_path):
    warehouse, stop = made(tmp_path / "w.duckdb"), tmp_path / "stop"
    paths = [write_model(tmp_path, f"m{k}", 100 * k) for k in range(4)]
    reader = start(["-c", READER, tmp_path / "go", stop, warehouse])
    try:
        wait_for(tmp_path / "go-reader")
        options = ("-w", warehouse, "--task-size", 1600)
        ran = race(tmp_path, ("scan", *paths[:2], *options), ("scan", *paths[2:], *options))
    finally:
        stop.touch()
        read = finish(reader)
    assert [(r.code, r.err) for r in ran] == [(0, ""), (0, "")]
    assert (read.code, read.err) == (0, "")
    answers = [line for line in read.out.splitlines() if line.startswith("m")]
    assert int(read.out.split()[-1]) >= 2  # it did ask
    assert set(answers) <= {f"m{k},8,{8 * 16 * 24}" for k in range(4)}  # and never saw half of a subject
    assert sorted((name, status) for _, name, status in subjects(warehouse)) == [
        (f"m{k}", "complete") for k in range(4)
    ]
    for subject_id, name, _ in subjects(warehouse):
        assert contents(warehouse, subject_id) == alone(tmp_path / f"{name}.safetensors", tmp_path)
    assert_consistent(warehouse)


def test_two_scans_of_one_checkpoint_leave_one_subject(tmp_path):
    warehouse = made(tmp_path / "w.duckdb")
    path = write_model(tmp_path, "m", 0, tensors=10)
    command = ("scan", path, "-w", warehouse, "-j", 1, "--task-size", 900)
    ran = race(tmp_path, command, command)
    assert [(r.code, r.err) for r in ran] == [(0, ""), (0, "")]
    assert subjects(warehouse) == [(1, "m", "complete")]
    assert contents(warehouse, 1) == alone(path, tmp_path)
    assert rows(warehouse, "SELECT count(*) FROM partials") == [(0,)]
    assert_consistent(warehouse)


FOUNDER = """
import sys, time
from pathlib import Path
from engine.warehouse.store import Warehouse

folder, me, other = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
(folder / me).touch()
while not (folder / other).exists():
    time.sleep(0.001)
began = max((folder / name).stat().st_mtime for name in (me, other)) + 0.1
for k in range(4):
    time.sleep(max(0, began + 0.3 * k - time.time()))
    with Warehouse(folder / f"{k}.duckdb").writing():
        pass
"""
"""Makes warehouses at the same moments as another process does."""


@pytest.mark.slow
def test_two_processes_may_make_one_warehouse_at_once(tmp_path):
    # If one sees what the other has only begun to write, it takes it for a broken file. A matter of luck, but it
    # takes only a few rounds.
    processes = [start(["-c", FOUNDER, tmp_path, *names]) for names in ("ab", "ba")]
    ran = [finish(p) for p in processes]
    assert [r.err.splitlines()[-1] for r in ran if r.code] == []


def test_a_second_scan_of_the_same_checkpoint_while_the_first_is_under_way(tmp_path, monkeypatch):
    """The same, at a known moment: the other one finishes first, and the first adds nothing to it."""
    monkeypatch.setattr(scribe, "FLUSH_SECONDS", -1.0)
    warehouse, path = made(tmp_path / "w.duckdb"), write_model(tmp_path, "m", 0)
    other: list = []

    def meanwhile() -> None:
        other.append(engine.scan(path, warehouse=warehouse, task_bytes=1000))

    mine = engine.scan(path, warehouse=warehouse, workers=1, task_bytes=800, listener=Recorder(5, meanwhile))
    assert other[0].status == "resumed"
    assert mine.subject_id == other[0].subject_id
    assert subjects(warehouse) == [(1, "m", "complete")]
    assert contents(warehouse, 1) == alone(path, tmp_path)
    assert_consistent(warehouse)


def test_a_forced_scan_while_another_is_under_way(tmp_path, monkeypatch):
    monkeypatch.setattr(scribe, "FLUSH_SECONDS", -1.0)
    warehouse, path = made(tmp_path / "w.duckdb"), write_model(tmp_path, "m", 0)

    def meanwhile() -> None:
        engine.scan(path, warehouse=warehouse, force=True)

    try:
        engine.scan(path, warehouse=warehouse, workers=1, task_bytes=800, listener=Recorder(5, meanwhile))
    except TaskError as error:
        assert "removed by another process" in str(error)
    assert [s[1:] for s in subjects(warehouse)] == [("m", "complete")]
    assert contents(warehouse, subjects(warehouse)[0][0]) == alone(path, tmp_path)
    assert_consistent(warehouse)


def test_a_scan_that_fails_does_not_touch_a_subject_that_was_given_its_number(tmp_path, monkeypatch):
    # Two scans of one file that changes: the first to notice discards the subject, and if somebody else's checkpoint
    # got its number, the second would discard that, finished as it is.
    monkeypatch.setattr(scribe, "FLUSH_SECONDS", -1.0)
    warehouse, path = made(tmp_path / "w.duckdb"), write_model(tmp_path, "changing", 0, tensors=16)
    other = write_model(tmp_path, "other", 500)

    def meanwhile() -> None:
        with pytest.raises(FormatError):
            engine.scan(
                path, warehouse=warehouse, workers=1, task_bytes=800,
                listener=Recorder(3, lambda: os.utime(path, ns=(5, 5))),
            )  # fmt: skip
        assert engine.scan(other, warehouse=warehouse).status == "scanned"

    with pytest.raises((FormatError, TaskError)):
        engine.scan(path, warehouse=warehouse, workers=1, task_bytes=800, listener=Recorder(3, meanwhile))
    assert [s[1:] for s in subjects(warehouse)] == [("other", "complete")]
    assert contents(warehouse, subjects(warehouse)[0][0]) == alone(other, tmp_path)


# Somebody who does not let go


HOLDER = """
import sys, time
import duckdb
connection = duckdb.connect(sys.argv[1])
connection.execute("CREATE TABLE IF NOT EXISTS subjects_of_mine (i INTEGER); DROP TABLE subjects_of_mine")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def held(tmp_path):
    """A warehouse with one subject, and what makes another process hold it."""
    warehouse = made(tmp_path / "w.duckdb")
    engine.scan(write_model(tmp_path, "first", 0), warehouse=warehouse)
    processes = []

    def hold(seconds: float) -> int:
        processes.append(start(["-c", HOLDER, warehouse, seconds]))
        assert processes[-1].stdout.readline() == "held\n"
        return processes[-1].pid

    yield warehouse, hold
    for holder in processes:
        holder.kill()
        holder.communicate()


def test_a_foreign_holder_is_waited_for_by_writers_and_readers(held, tmp_path):
    warehouse, hold = held
    second = write_model(tmp_path, "second", 100)
    began = time.monotonic()
    pid = hold(3)
    reader = start(["-m", "engine", "ls", "-w", warehouse, "-f", "csv"])
    waited = Recorder()
    report = engine.scan(second, warehouse=warehouse, listener=waited)
    assert time.monotonic() - began >= 3
    events = [e for e in waited.events if isinstance(e, Waiting)]
    assert len(events) > 5
    assert str(pid) in events[0].holder  # later it may be the reader
    assert max(e.seconds for e in events) > 2
    assert report.status == "scanned"
    read = finish(reader)
    assert (read.code, read.err) == (0, "")
    assert read.out.splitlines()[1].startswith("1,first,")
    assert [s[1] for s in subjects(warehouse)] == ["first", "second"]


def test_waiting_has_an_end_and_names_who_is_in_the_way(held, tmp_path):
    warehouse, hold = held
    pid = hold(60)
    for use in (
        Warehouse(warehouse, wait_seconds=0.3).writing,
        Warehouse(warehouse, wait_seconds=0.3).reading,
    ):
        began = time.monotonic()
        with pytest.raises(WarehouseBusyError, match=f"process {pid}") as failure, use():
            pass
        assert 0.3 <= time.monotonic() - began < 3
        assert failure.value.file == str(warehouse)


@pytest.mark.parametrize("command", ["scan", "show", "sql", "check"])
def test_on_the_command_line_it_is_exit_code_3(held, tmp_path, monkeypatch, command):
    warehouse, hold = held
    pid = hold(60)
    monkeypatch.setitem(Warehouse.__init__.__kwdefaults__, "wait_seconds", 0.1)
    words = {
        "scan": [write_model(tmp_path, "second", 100)],
        "show": ["first"],
        "sql": ["SELECT 1"],
        "check": ["first"],
    }
    ran = gaussmeter(command, *words[command], "-w", warehouse)
    sentence = ran.sentence(3)
    assert sentence.startswith(f"{warehouse}: ")
    assert str(pid) in sentence
    assert ran.out == ""


# Threads of one process, as in a notebook


def in_threads(*functions: Callable[[], object]) -> list[BaseException]:
    """Run functions at once; returns what they raised."""
    errors: list[BaseException] = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test shows it
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return errors


def test_two_writers_of_one_process_wait_for_each_other(tmp_path):
    # Inside of one process DuckDB lets a second connection in; both would take the same next numbers.
    warehouse = made(tmp_path / "w.duckdb")
    engine.scan(write_model(tmp_path, "m", 0), warehouse=warehouse)
    inside = threading.Event()

    def second() -> None:
        with Warehouse(warehouse).writing():
            inside.set()

    thread = threading.Thread(target=second)
    with Warehouse(warehouse).writing():
        thread.start()
        overlapped = inside.wait(0.5)
    thread.join(60)
    assert inside.is_set()
    assert not overlapped


def test_scans_in_two_threads_do_not_mix(tmp_path, monkeypatch):
    monkeypatch.setattr(scribe, "FLUSH_SECONDS", -1.0)
    warehouse = made(tmp_path / "w.duckdb")
    engine.scan(write_model(tmp_path, "first", 900), warehouse=warehouse)
    paths = [write_model(tmp_path, f"m{k}", 100 * k, tensors=6) for k in range(4)]

    def scan(some: list[Path]) -> None:
        for path in some:
            engine.scan(path, warehouse=warehouse, workers=1, task_bytes=1500)

    assert in_threads(lambda: scan(paths[:2]), lambda: scan(paths[2:])) == []
    assert_consistent(warehouse)
    for subject_id, name, _ in subjects(warehouse):
        assert contents(warehouse, subject_id) == alone(tmp_path / f"{name}.safetensors", tmp_path)


def test_a_thread_can_ask_while_another_scans(tmp_path, monkeypatch):
    monkeypatch.setattr(scribe, "FLUSH_SECONDS", -1.0)
    warehouse = made(tmp_path / "w.duckdb")
    engine.scan(write_model(tmp_path, "first", 900), warehouse=warehouse)
    done = threading.Event()

    def scan() -> None:
        try:
            path = write_model(tmp_path, "m", 100)
            engine.scan(path, warehouse=warehouse, workers=1, task_bytes=1500)
        finally:
            done.set()

    def ask() -> None:
        while not done.is_set():
            counts = engine.sql("SELECT tensors FROM subject_stats", warehouse=warehouse).rows
            assert {n for (n,) in counts} == {8}

    assert in_threads(scan, ask, ask) == []
    assert len(subjects(warehouse)) == 2
    assert_consistent(warehouse)


@pytest.mark.slow
def test_a_listener_may_ask_the_warehouse(tmp_path, monkeypatch):
    """Between two transactions a scan does not hold it."""
    monkeypatch.setattr(scribe, "FLUSH_SECONDS", -1.0)
    warehouse, path = made(tmp_path / "w.duckdb"), write_model(tmp_path, "m", 0)
    counts: list[int] = []

    def listener(event: object) -> None:
        counts.append(engine.sql("SELECT count(*) FROM tensors", warehouse=warehouse).rows[0][0])

    engine.scan(path, warehouse=warehouse, workers=1, task_bytes=1500, listener=listener)
    assert counts == sorted(counts)
    assert len(set(counts)) > 3


def test_between_its_transactions_a_scan_leaves_the_warehouse_to_others(tmp_path):
    """So a process that is killed, or thinks for hours, blocks nobody."""
    warehouse, path = made(tmp_path / "w.duckdb"), write_model(tmp_path, "m", 0)
    ran: list = []
    listener = Recorder(
        2, lambda: ran.append(process("sql", "SELECT 1 AS one", "-w", warehouse, "-f", "csv"))
    )
    engine.scan(path, warehouse=warehouse, workers=1, task_bytes=1500, listener=listener)
    assert (ran[0].code, ran[0].out, ran[0].err) == (0, "one\n1\n", "")
