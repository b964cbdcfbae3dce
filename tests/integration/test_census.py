"""Many checkpoints as one stream: all that can be read are in, the others are reported, and none stops another."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.execution.in_process import InProcessExecutor
from engine.nouns.events import Event, Judged, TaskDone, WorkerJoined
from engine.plan import Selection
from engine.verbs.entrance import Budget
from engine.warehouse.store import Warehouse
from tests import torch_files, zarr_stores
from tests.builders import write, write_sharded, write_tensors
from tests.integration.clusters import cluster
from tests.integration.helpers import (
    assert_consistent,
    contents,
    gaussmeter,
    killed,
    llama,
    normal,
    program,
    records,
    rows,
)

KINDS = ("one file", "sharded", "torch", "zarr", "folder")


def make(folder: Path, number: int) -> Path:
    """A small checkpoint, of another format each time."""
    kind, name = KINDS[number % len(KINDS)], f"m{number:03}"
    model = {"model.layers.0.mlp.up_proj.weight": normal("F32", 8, 8, seed=number), "b": normal("BF16", 4)}
    if kind == "one file":
        return write_tensors(folder / f"{name}.safetensors", model)
    if kind == "sharded":
        first, second = list(model.items())
        return write_sharded(folder / name, dict([first]), dict([second]))
    if kind == "torch":
        state = {"w": torch_files.tensor((2, 2), (2, 1))}
        weights = np.random.default_rng(number).normal(size=4).astype("<f4").tobytes()
        return write(folder / f"{name}.pth", torch_files.archive(torch_files.program(state), {"0": weights}))
    if kind == "zarr":
        return zarr_stores.store(folder / f"{name}.zarr", {"w": zarr_stores.noise(4, 4, seed=number)})
    write_tensors(folder / name / "model.safetensors", model)
    return folder / name


def damage(places: list[Path]) -> dict[str, str]:
    """Damage five, each in another way; the word that its reason must have."""
    whole, sharded, torch, zarr, folder = (places[40 * i + i] for i in range(5))
    whole.write_bytes(whole.read_bytes()[:-1])
    index = (
        next(sharded.parent.glob("*.index.json")) if sharded.is_file() else next(sharded.glob("*.index.json"))
    )
    content = json.loads(index.read_text())
    content["weight_map"]["b"] = "model-00009-of-00009.safetensors"
    index.write_text(json.dumps(content))
    torch.write_bytes(torch.read_bytes().replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v9"))
    next(p for p in (zarr / "w" / "c").rglob("*") if p.is_file()).unlink()
    (folder / "model.safetensors").write_bytes(b"")
    return {
        str(whole): "bytes",
        str(sharded): "00009",
        str(torch): "rebuild",
        str(zarr): "chunk",
        str(folder): "",
    }


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], dict[str, str]]:
    """Two hundred small checkpoints of five formats, five of them damaged."""
    folder = tmp_path_factory.mktemp("zoo")
    places = [make(folder, number) for number in range(200)]
    return places, damage(places)


def test_two_hundred_checkpoints_with_five_that_are_damaged(zoo, tmp_path):
    places, damaged = zoo
    warehouse, heard = tmp_path / "w.duckdb", []
    report = engine.census([str(p) for p in places], warehouse=warehouse, listener=heard.append)
    assert report.counts == {"scanned": 195, "refused": 5}
    assert not report.complete
    reasons = {e.uri: e.reason for e in report.entries if e.status == "refused"}
    assert {Path(uri).stem for uri in reasons} == {Path(uri).stem for uri in damaged}
    for uri, reason in reasons.items():
        word = next(w for place, w in damaged.items() if Path(place).stem == Path(uri).stem)
        assert word in reason, (uri, reason)
        assert len(reason.splitlines()) == 1
    assert len([e for e in heard if isinstance(e, Judged)]) == 200
    assert len(rows(warehouse, "SELECT 1 FROM subjects WHERE status = 'complete'")) == 195
    assert len(rows(warehouse, "SELECT 1 FROM refusals")) == 5
    assert_consistent(warehouse)

    heard.clear()
    again = engine.census([str(p) for p in places], warehouse=warehouse, listener=heard.append)
    assert again.counts == {"unchanged": 195, "refused": 5}
    assert {e.uri: e.reason for e in again.entries if e.status == "refused"} == reasons
    assert again.nbytes_read == 0
    assert not [e for e in heard if isinstance(e, (TaskDone, WorkerJoined))]


def test_only_what_has_changed_is_read_again(tmp_path):
    places = [make(tmp_path / "zoo", number) for number in range(5)]
    warehouse = tmp_path / "w.duckdb"
    assert engine.census(map(str, places), warehouse=warehouse).counts == {"scanned": 5}
    write_tensors(places[0], {"w": normal("F32", 8, 8, seed=99)})
    places.append(make(tmp_path / "zoo", 5))
    report = engine.census(map(str, places), warehouse=warehouse)
    assert report.counts == {"scanned": 2, "unchanged": 4}
    scanned = sorted(e.uri for e in report.entries if e.status == "scanned")
    assert scanned == sorted(map(str, (places[0], places[5])))
    forced = engine.census(map(str, places), warehouse=warehouse, force=True)
    assert forced.counts == {"scanned": 6}
    assert_consistent(warehouse)


def test_a_checkpoint_that_was_mended_is_taken_in_and_leaves_the_refusals(tmp_path):
    path, warehouse = make(tmp_path, 0), tmp_path / "w.duckdb"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    assert engine.census([str(path)], warehouse=warehouse).counts == {"refused": 1}
    (one,) = records(warehouse, "SELECT * FROM refusals")
    assert engine.census([str(path)], warehouse=warehouse).counts == {"refused": 1}
    (two,) = records(warehouse, "SELECT * FROM refusals")
    assert one["first_at"] == two["first_at"] < two["last_at"]
    path.write_bytes(good)
    assert engine.census([str(path)], warehouse=warehouse).counts == {"scanned": 1}
    assert rows(warehouse, "SELECT 1 FROM refusals") == []


def test_a_scan_of_any_kind_takes_a_place_from_the_refusals(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    warehouse = tmp_path / "w.duckdb"
    tensors = [{"w": normal("F32", 8, 8, seed=k)} for k in range(4)]
    paths = [write_tensors(tmp_path / "zoo" / f"{k}.safetensors", t) for k, t in enumerate(tensors)]
    good = [path.read_bytes() for path in paths]
    places = [str(path.relative_to(tmp_path)) for path in paths]  # another way to name them

    def census(**options):
        return engine.census(places, warehouse=warehouse, **options).counts

    def refused() -> list[str]:
        return [
            Path(uri).stem for (uri,) in rows(warehouse, "SELECT DISTINCT uri FROM refusals ORDER BY uri")
        ]

    for path, data in zip(paths, good, strict=True):
        path.write_bytes(data[:-1])
    paths[2].unlink()
    assert census() == census(selection=Selection(("*",))) == {"refused": 4}
    assert rows(warehouse, "SELECT count(*) FROM refusals") == [(8,)]
    assert all(Path(uri).is_absolute() for (uri,) in rows(warehouse, "SELECT uri FROM refusals"))
    stems = refused()
    for path, data in zip(paths[:3], good, strict=False):
        path.write_bytes(data)
    engine.scan(paths[0], warehouse=warehouse, exact=True)  # with other options
    assert refused() == stems[1:]
    assert census() == {"scanned": 3, "refused": 1}
    assert refused() == stems[3:]
    with Warehouse(warehouse).writing() as connection:
        connection.execute("INSERT INTO refusals SELECT * REPLACE (? AS uri) FROM refusals", [str(paths[0])])
    assert engine.scan(paths[0], warehouse=warehouse).status == "unchanged"
    assert refused() == stems[3:]


def test_what_is_counted_is_what_single_scans_count(tmp_path):
    places = [make(tmp_path, number) for number in range(5)]
    places.append(write_tensors(tmp_path / "big.safetensors", llama(3, "F32", 24)))
    together, alone = tmp_path / "together.duckdb", tmp_path / "alone.duckdb"
    report = engine.census(map(str, places), warehouse=together, exact=True, task_bytes=1500, workers=2)
    assert report.counts == {"scanned": 6}
    for entry in report.entries:
        single = engine.scan(entry.uri, warehouse=alone, exact=True, workers=1)
        assert contents(together, entry.subject_id) == contents(alone, single.subject_id)


def test_checkpoints_are_interleaved_so_that_every_worker_has_something_to_do(tmp_path):
    """The next checkpoint begins while the last tasks of the one before are still under way."""
    for number in range(6):
        write_tensors(tmp_path / f"m{number}.safetensors", llama(1, "F32", 24, seed=number))
    places = sorted(str(p) for p in tmp_path.glob("*.safetensors"))
    slow = _Slow(InProcessExecutor(4))
    report = engine.census(places, warehouse=tmp_path / "w.duckdb", executor=slow, task_bytes=3000)
    assert report.counts == {"scanned": 6}
    assert slow.most_files_at_once >= 2


class _Slow(InProcessExecutor):
    """Threads whose tasks take a while, and that know how many checkpoints are under way."""

    def __init__(self, inner: InProcessExecutor) -> None:
        super().__init__(inner.workers)
        self._running: Counter[str] = Counter()
        self.most_files_at_once = 0

    def open(self, make_body: Any) -> Any:
        def make_slow() -> Any:
            body = make_body()

            def run(task: Any) -> Any:
                uri = task.files[0].uri
                self._running[uri] += 1
                self.most_files_at_once = max(
                    self.most_files_at_once, sum(v > 0 for v in self._running.values())
                )
                time.sleep(0.01)
                try:
                    return body(task)
                finally:
                    self._running[uri] -= 1

            return run

        return super().open(make_slow)


def test_budgets_skip_what_is_large_and_stop_what_is_slow(tmp_path):
    small = write_tensors(tmp_path / "small.safetensors", {"w": normal("F32", 4)})
    large = write_tensors(tmp_path / "large.safetensors", llama(2, "F32", 24))
    warehouse = tmp_path / "w.duckdb"
    report = engine.census([str(small), str(large)], warehouse=warehouse, budget=Budget(nbytes=1000))
    assert report.counts == {"scanned": 1, "skipped": 1}
    (skipped,) = (e for e in report.entries if e.status == "skipped")
    assert "more than the budget of 1,000" in skipped.reason
    assert report.complete, "what was not asked for is no failure"

    slow = _Slow(InProcessExecutor(1))
    report = engine.census(
        [str(large)], warehouse=warehouse, budget=Budget(seconds=0.05), executor=slow, task_bytes=600
    )
    assert report.counts == {"failed": 1}
    assert "budget of 0.05 s" in report.entries[0].reason
    report = engine.census([str(large)], warehouse=warehouse)
    assert report.counts == {"resumed": 1}
    assert report.nbytes_read < large.stat().st_size
    assert_consistent(warehouse)


def test_a_place_under_two_names_is_scanned_once(tmp_path):
    path = make(tmp_path, 4)
    places = [str(path), str(path), f"{path}/", f"file://{path}"]
    report = engine.census(places, warehouse=tmp_path / "w.duckdb")
    assert report.counts["scanned"] == 1
    assert report.counts.get("skipped", 0) == 2


def test_nothing_at_all_is_no_failure(tmp_path):
    report = engine.census([], warehouse=tmp_path / "w.duckdb")
    assert (report.entries, report.complete) == ((), True)


def test_a_shard_that_changes_in_mid_scan_is_refused_and_the_others_are_in(tmp_path):
    places = [write_tensors(tmp_path / f"m{n}.safetensors", llama(2, "F32", 24, seed=n)) for n in range(3)]

    def listen(event: Event) -> None:
        if isinstance(event, TaskDone) and event.name == "m1" and places[1].stat().st_size > 2000:
            os.truncate(places[1], 2000)

    warehouse = tmp_path / "w.duckdb"
    report = engine.census(map(str, places), warehouse=warehouse, workers=1, task_bytes=1500, listener=listen)
    assert report.counts == {"scanned": 2, "refused": 1}
    assert_consistent(warehouse)
    assert len(rows(warehouse, "SELECT 1 FROM subjects")) == 2


KILLED_AT_THE_FIFTH = """
import os, signal, sys, engine
from engine.nouns.events import Judged
from engine.verbs import scribe

scribe.FLUSH_SECONDS = 0.0
heard = []

def listen(event):
    if isinstance(event, Judged):
        heard.append(event)
    if len(heard) == 5:
        os.kill(os.getpid(), signal.SIGKILL)

engine.census(sys.argv[2:], warehouse=sys.argv[1], workers=1, ahead=1, task_bytes=600, listener=listen)
"""


def test_a_census_that_was_killed_reads_no_finished_checkpoint_again(tmp_path):
    for number in range(12):
        write_tensors(tmp_path / f"m{number:02}.safetensors", llama(1, "F32", 16, seed=number))
    places = sorted(str(p) for p in tmp_path.glob("*.safetensors"))
    warehouse = tmp_path / "w.duckdb"
    assert killed(program(KILLED_AT_THE_FIFTH, warehouse, *places))
    complete = rows(warehouse, "SELECT uri FROM subjects WHERE status = 'complete'")
    assert 5 <= len(complete) < 12
    report = engine.census(places, warehouse=warehouse)
    assert report.counts["unchanged"] == len(complete)
    assert sum(report.counts.values()) == 12
    assert report.complete
    assert_consistent(warehouse)


@pytest.mark.slow
def test_on_a_cluster_a_census_counts_the_same(zoo, tmp_path):
    places, _ = zoo
    chosen = [str(p) for p in places[:25]]
    threads, ray = tmp_path / "threads.duckdb", tmp_path / "ray.duckdb"
    first = engine.census(chosen, warehouse=threads)
    with cluster({"num_cpus": 2}) as nodes:
        second = engine.census(chosen, warehouse=ray, ray=nodes.address)
    assert first.counts == second.counts
    ids = {e.uri: e.subject_id for e in first.entries if e.subject_id}
    others = {e.uri: e.subject_id for e in second.entries if e.subject_id}
    assert ids.keys() == others.keys()
    for uri, number in ids.items():
        assert contents(threads, number) == contents(ray, others[uri])


# The command


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    for number in (0, 1, 2):
        make(tmp_path / "zoo", number)
    (tmp_path / "zoo" / "m000.safetensors").write_bytes(b"no")
    config = tmp_path / "small.yaml"
    config.write_text(
        f"job: scan\nwarehouse: {tmp_path}/w.duckdb\ncheckpoints: [{{glob: {tmp_path}/zoo/*}}]\n"
    )
    yield config
    shutil.rmtree(tmp_path / "zoo")


def test_job_says_what_became_of_each_and_ends_with_3_if_one_was_refused(small):
    ran = gaussmeter("job", small)
    assert ran.code == 3
    assert "3 checkpoints: 2 scanned, 1 refused" in ran.out
    assert "m000.safetensors: " in ran.out
    assert gaussmeter("job", small, "-q").out == ""
    again = gaussmeter("job", small)
    assert "2 unchanged, 1 refused; read 0 B" in again.out


def test_job_dry_run_touches_nothing(small, tmp_path):
    ran = gaussmeter("job", small, "--dry-run")
    assert "2 planned" in ran.out
    assert rows(tmp_path / "w.duckdb", "SELECT 1 FROM subjects") == []


def test_job_exports_each_subject_that_it_scanned(small, tmp_path):
    small.write_text(small.read_text() + f"export: {tmp_path}/out\n")
    assert gaussmeter("job", small).code == 3
    exported = sorted(p.parent.name for p in (tmp_path / "out" / "tensor_stats").glob("*/*.parquet"))
    assert len(exported) == 2
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.parquet")}
    gaussmeter("job", small)
    again = {p for p, when in written.items() if p.stat().st_mtime_ns != when}
    assert again == {tmp_path / "out" / "refusals" / "refusals.parquet"}  # it was refused once more, just now


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected keys and values, found nothing"),
        ("job: scan\ncheckpoints: [a]\nworkers: 3", "workers: there is no such key"),
        ("job: scan\ncheckpoints: []", "checkpoints"),
        ("job: guess\ncheckpoints: [a]", "job"),
        ("job: scan\ncheckpoints: [{uri: a, glob: b}]", "exactly one of"),
        ("job: scan\njob: scan\ncheckpoints: [a]", "is there twice"),
    ],
)
def test_a_wrong_configuration_is_one_sentence_before_anything_is_begun(tmp_path, text, sentence):
    config = tmp_path / "wrong.yaml"
    config.write_text(text)
    ran = gaussmeter("job", config, cwd=tmp_path)
    assert sentence in ran.sentence(2)
    assert not (tmp_path / "stats.duckdb").exists()


def test_fired_twice_the_second_does_nothing(small, tmp_path):
    from engine.warehouse.lock import only_one

    with only_one(tmp_path / "w.duckdb", "small"):
        ran = gaussmeter("job", small)
    assert ran.code == 0
    assert "is running already" in ran.err
    assert not (tmp_path / "w.duckdb").exists()
