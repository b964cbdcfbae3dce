"""A merge that is killed, starved or disturbed: the same bytes in the end, or nothing but a sentence."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine
from engine.errors import ConfigError, FormatError, TaskError
from engine.nouns.events import TaskDone
from engine.verbs import merge_output
from engine.verbs.merge_output import RECORD, STATE
from tests.integration.clusters import cluster
from tests.integration.helpers import (
    Killed,
    Recorder,
    assert_consistent,
    gaussmeter,
    killed,
    made,
    program,
    raising,
    rows,
)
from tests.integration.merges import Family, data_of, family

TASK = 900


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return family(tmp_path_factory.mktemp("family"), ["BF16"] * 4)


@pytest.fixture(scope="module", params=["outlier", "ties"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def expected(models: Family, method: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed merge writes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    engine.merge(models.config(method), folder / "out", warehouse=folder / "w.duckdb", shard_bytes=4000)
    return data_of(folder / "out")


def complete(models: Family, method: str, tmp_path: Path, expected: dict[str, bytes], **options) -> None:
    """Merge again, and compare."""
    warehouse = tmp_path / "w.duckdb"
    report = engine.merge(
        models.config(method), tmp_path / "out", warehouse=warehouse, shard_bytes=4000, **options
    )
    assert data_of(tmp_path / "out") == expected
    assert report.status in ("merged", "resumed")
    assert {r[0] for r in rows(warehouse, "SELECT status FROM subjects")} == {"complete"}
    assert rows(warehouse, "SELECT count(*) FROM partials") == [(0,)]
    assert_consistent(warehouse)
    assert not list(tmp_path.glob("*.journal"))


DRIVER = """
import json, os, signal, sys
import engine
from engine.nouns.events import TaskDone
from engine.tasks import writing
from engine.verbs import merge_output, scribe

config, out, warehouse, where, at = sys.argv[1:]
scribe.FLUSH_SECONDS = -1.0 if int(at) % 2 else 1e9
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
    if isinstance(event, TaskDone) and where == "task":
        count_down()

if where == "write":
    writing.Files.write = after(writing.Files.write)
if where == "finish":
    merge_output._sync = after(merge_output._sync)
engine.merge(json.load(open(config)), out, warehouse=warehouse, shard_bytes=4000, task_bytes=900, workers=2,
             listener=listener)
"""


@pytest.mark.parametrize(
    ("where", "at"),
    [("task", 1), ("task", 4), ("write", 2), ("write", 7), ("finish", 1), ("finish", 2)],
)
def test_killed_with_sigkill_it_ends_with_the_same_bytes(models, method, expected, tmp_path, where, at):
    config = tmp_path / "c.json"
    config.write_text(json.dumps(models.config(method)))
    ran = program(DRIVER, config, tmp_path / "out", made(tmp_path / "w.duckdb"), where, at)
    assert killed(ran), ran.err
    assert not (tmp_path / "out" / RECORD).exists()
    complete(models, method, tmp_path, expected, task_bytes=500, workers=3)


@pytest.mark.parametrize("at", [1, 3, 8])
def test_what_was_done_is_not_read_again(models, tmp_path, at):
    config, out = models.config("task_arithmetic"), tmp_path / "out"
    listener = Recorder(at, raising(Killed()))
    with pytest.raises(Killed):
        engine.merge(config, out, warehouse=tmp_path / "w", task_bytes=TASK, workers=1, listener=listener)
    report = engine.merge(config, out, warehouse=tmp_path / "w", task_bytes=TASK)
    whole = engine.merge(config, tmp_path / "other", warehouse=tmp_path / "w", task_bytes=TASK)
    left = whole.nbytes_read - sum(listener.nbytes)
    copied = 56  # numbers are not counted, so that nobody knows that they are there
    assert report.status == "resumed"
    assert left <= report.nbytes_read <= left + copied


def test_killed_again_and_again_at_moments_that_nobody_chose(models, expected, method, tmp_path):
    for at in range(1, 40, 4):
        with contextlib.suppress(Killed):
            engine.merge(
                models.config(method), tmp_path / "out", warehouse=tmp_path / "w.duckdb", shard_bytes=4000,
                task_bytes=300 + 100 * (at % 5), workers=1, listener=Recorder(at % 7 + 1, raising(Killed())),
            )  # fmt: skip
    if (tmp_path / "out" / RECORD).exists():
        assert data_of(tmp_path / "out") == expected
    else:
        complete(models, method, tmp_path, expected)


def test_files_that_were_lost_are_written_again(models, expected, method, tmp_path):
    with pytest.raises(Killed):
        engine.merge(
            models.config(method), tmp_path / "out", warehouse=tmp_path / "w.duckdb", shard_bytes=4000,
            task_bytes=TASK, workers=1, listener=Recorder(5, raising(Killed())),
        )  # fmt: skip
    next((tmp_path / "out").glob("*.partial")).unlink()
    complete(models, method, tmp_path, expected)


def test_an_interrupted_merge_of_something_else_is_kept_unless_forced(models, expected, method, tmp_path):
    with pytest.raises(Killed):
        engine.merge(
            models.config("linear"), tmp_path / "out", warehouse=tmp_path / "w.duckdb", task_bytes=TASK,
            workers=1, listener=Recorder(3, raising(Killed())),
        )  # fmt: skip
    before = data_of(tmp_path / "out")
    with pytest.raises(ConfigError, match="holds an interrupted merge of something else"):
        complete(models, method, tmp_path, expected)
    assert data_of(tmp_path / "out") == before
    complete(models, method, tmp_path, expected, force=True)


def test_two_at_once_do_not_write_into_one_directory(models, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with (out / STATE).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="is being written by another process"):
            engine.merge(models.config("linear"), out, warehouse=tmp_path / "w.duckdb")
    engine.merge(models.config("linear"), out, warehouse=tmp_path / "w.duckdb")


def test_an_input_that_changes_meanwhile_leaves_nothing(tmp_path):
    models = family(tmp_path / "in", ["BF16"] * 4)
    path = next(models.folders[1].glob("*.safetensors"))

    def touch(event: object) -> None:
        if isinstance(event, TaskDone):
            os.utime(path, ns=(1, 1))

    with pytest.raises(FormatError, match="changed after the scan began"):
        engine.merge(
            models.config("linear"), tmp_path / "out", warehouse=tmp_path / "w.duckdb", workers=1,
            task_bytes=TASK, listener=touch,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    assert rows(tmp_path / "w.duckdb", "SELECT count(*) FROM subjects") == [(0,)]


# A full disk


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def written(models: Family, tmp_path: Path) -> Path:
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps(models.config("linear")))
    return config


def test_a_disk_without_room_is_refused_before(models, small_disk, tmp_path):
    (small_disk / "filler").write_bytes(bytes((1 << 20) - (8 << 10)))
    before = [data_of(f) for f in models.folders]
    ran = gaussmeter("merge", written(models, tmp_path), small_disk / "out", "-w", tmp_path / "w.duckdb")
    assert "bytes are to be written, the disk has" in ran.sentence(2)
    assert [p.name for p in small_disk.iterdir()] == ["filler"]
    assert [data_of(f) for f in models.folders] == before


def test_a_disk_that_fills_up_is_one_sentence_and_leaves_nothing(models, small_disk, tmp_path, monkeypatch):
    (small_disk / "filler").write_bytes(bytes((1 << 20) - (12 << 10)))
    monkeypatch.setattr(merge_output.Output, "_require_room", lambda *_: None)
    before = [data_of(f) for f in models.folders]
    out = small_disk / "out"
    ran = gaussmeter("merge", written(models, tmp_path), out, "-w", tmp_path / "w.duckdb")
    sentence = ran.sentence(3)
    assert sentence.startswith(str(out))
    assert "could not be written: No space left on device" in sentence
    assert [p.name for p in small_disk.iterdir()] == ["filler"]
    assert [data_of(f) for f in models.folders] == before


def test_a_file_that_cannot_be_named_is_a_sentence(models, tmp_path, monkeypatch):
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(TaskError, match="could not be written: Permission denied"):
            engine.merge(models.config("linear"), tmp_path / "out", warehouse=tmp_path / "w.duckdb")
    report = engine.merge(models.config("linear"), tmp_path / "out", warehouse=tmp_path / "w.duckdb")
    assert (report.status, report.nbytes_read) == ("resumed", 0)


# On Ray


def test_on_ray_with_a_worker_killed_the_bytes_are_the_same(models, tmp_path):
    from engine.execution.ray_executor import RayExecutor

    folder = tmp_path / "threads"
    folder.mkdir()
    engine.merge(models.config("ties"), folder / "out", warehouse=folder / "w.duckdb", shard_bytes=4000)
    struck: list[int] = []

    def strike(event: object) -> None:
        if isinstance(event, TaskDone) and not struck:
            struck.append(int(event.worker.split(":")[1]))
            os.kill(struck[0], 9)

    with cluster({"num_cpus": 2}) as nodes, RayExecutor(nodes.address) as executor:
        engine.merge(
            models.config("ties"), tmp_path / "out", warehouse=tmp_path / "w.duckdb", shard_bytes=4000,
            task_bytes=300, executor=executor, listener=strike,
        )  # fmt: skip
    assert struck
    shutil.rmtree(tmp_path / "in", ignore_errors=True)
    assert data_of(tmp_path / "out") == data_of(folder / "out")
