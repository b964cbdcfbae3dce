"""A pack that was killed, interrupted or overtaken by a change loses nothing: the same command goes on."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

import engine
from engine.errors import ConfigError, FormatError
from engine.formats.zarr import layout as zarr_layout
from tests.builders import write_tensors
from tests.integration.distant import counts
from tests.integration.helpers import (
    Killed,
    Recorder,
    environment,
    gaussmeter,
    killed,
    process,
    program,
    raising,
    start,
)
from tests.integration.packing import files, packed, read_back, tensors, truth
from tests.zarr_stores import refusal

CHUNK = 64  # bytes, so that tensors of a test have many chunks
QUIET = environment(PYTHONWARNINGS="ignore")  # of zarr's own, which have a test of their own


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr_layout, "CHUNK_BYTES", CHUNK)


def kept(out: Path) -> dict[str, str]:
    """The files of a pack, less what zarr was writing in its root when it was killed: that has its own test."""
    return {
        name: digest
        for name, digest in files(out).items()
        if not fnmatch(name, "zarr.*.partial") or "/" in name
    }


class Case:
    """A checkpoint, and what an undisturbed pack of it leaves."""

    def __init__(self, folder: Path) -> None:
        self.path = write_tensors(folder / "m.safetensors", tensors())
        packed(self.path, folder / "undisturbed.zarr")
        self.files = files(folder / "undisturbed.zarr")
        self.scan = counts(folder / "undisturbed.zarr", folder)

    def assert_completed_by_another_pack(self, out: Path, status: str = "resumed") -> None:
        report = engine.pack(self.path, out, workers=2)
        assert report.status == status
        assert kept(out) == self.files
        assert counts(out, out.parent) == self.scan
        again = engine.pack(self.path, out)
        assert (again.status, again.nbytes_written) == ("unchanged", 0)
        assert kept(out) == self.files


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zarr_layout, "CHUNK_BYTES", CHUNK)
        return Case(tmp_path_factory.mktemp("case"))


# Killed

KILLED = """
import os, signal, sys, time
import engine
from engine.formats.zarr import layout as zarr_layout
from zarr.storage import _local
zarr_layout.CHUNK_BYTES = 64
uri, out, when, workers = sys.argv[1:]
seen, replace = 0, _local.Path.replace

def counting(self, target):
    global seen
    seen += 1
    if seen == int(when):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return replace(self, target)

_local.Path.replace = counting
print("ready", flush=True)
print(engine.pack(uri, out, workers=int(workers)).status)
print(seen)
"""
"""Packs slowly, and kills itself when the given file is written, but not yet under its name."""


@pytest.mark.filterwarnings("ignore:Object at:zarr.errors.ZarrUserWarning")
def test_killed_at_random_moments_again_and_again(case, tmp_path):
    out, chance = tmp_path / "out.zarr", random.Random(7)
    kills = 0
    for pause in [0.25, *(chance.uniform(0.05, 0.6) for _ in range(5))]:
        pack = start(["-c", KILLED, case.path, out, 0, 2], env=QUIET)
        try:
            assert pack.stdout is not None
            assert pack.stdout.readline() == "ready\n"
            time.sleep(pause)
        finally:
            pack.kill()
            _, err = pack.communicate()
        assert "Error" not in err
        kills += pack.returncode == -signal.SIGKILL
        if out.exists() and (out / "zarr.json").exists() and kills:
            assert "not finished: run gaussmeter pack again" in refusal(out)
    assert kills == 6
    status = engine.pack(case.path, out).status
    assert status in ("resumed", "packed")
    assert read_back(out) == truth(tensors())
    assert kept(out) == case.files


@pytest.fixture(scope="module")
def last(case: Case, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many files are written in all, some of them several times."""
    ran = program(KILLED, case.path, tmp_path_factory.mktemp("last") / "out.zarr", 0, 1)
    assert ran.out.split()[:2] == ["ready", "packed"]
    return int(ran.out.split()[2])


UNLISTED = (
    "called whole before its metadata is consolidated, which is then never done: no web server can serve it"
)


@pytest.mark.filterwarnings("ignore:Object at:zarr.errors.ZarrUserWarning")
@pytest.mark.parametrize(
    ("at", "status"),
    [
        (1, "packed"),
        (2, "packed"),
        (4, "packed"),
        (14, "resumed"),
        (15, "resumed"),
        (-2, "resumed"),
        (-1, "resumed"),
    ],
)
def test_killed_while_a_file_is_written(case, last, tmp_path, at, status):
    out = tmp_path / "out.zarr"
    ran = program(KILLED, case.path, out, at if at > 0 else last + 1 + at, 1, env=QUIET)
    assert killed(ran), ran
    case.assert_completed_by_another_pack(out, status)


@pytest.mark.filterwarnings("ignore:Object at:zarr.errors.ZarrUserWarning")
def test_nothing_stays_of_a_file_that_was_being_written(case, last, tmp_path):
    assert killed(program(KILLED, case.path, tmp_path / "out.zarr", last - 1, 1, env=QUIET))
    engine.pack(case.path, tmp_path / "out.zarr")
    assert not list(tmp_path.rglob("*.partial"))


def test_going_on_it_says_nothing_of_what_it_cleans_up(case, tmp_path):
    assert killed(program(KILLED, case.path, tmp_path / "out.zarr", 2, 1))
    ran = process("pack", case.path, tmp_path / "out.zarr", env=environment(PYTHONWARNINGS="default"))
    assert (ran.code, ran.err) == (0, "")


def test_it_copies_only_what_is_missing(case, tmp_path):
    listener, out = Recorder(20, raising(Killed())), tmp_path / "out.zarr"
    with pytest.raises(Killed):
        engine.pack(case.path, out, workers=1, listener=listener)
    assert "not finished: run gaussmeter pack again" in refusal(out)
    assert "not finished" in gaussmeter("scan", out, "-w", tmp_path / "w.duckdb").sentence(2)
    before = {p: d for p, d in files(out).items() if "layers.0" in p}
    second = Recorder()
    report = engine.pack(case.path, out, workers=1, listener=second)
    assert report.status == "resumed"
    assert report.nbytes_written == sum(second.nbytes) < report.nbytes
    assert before.items() <= files(out).items() == case.files.items()


def test_killed_while_an_archive_is_written(case, tmp_path, monkeypatch):
    out = tmp_path / "out.zarr.zip"
    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "write", lambda *_: raising(Killed())())
        with pytest.raises(Killed):
            engine.pack(case.path, out)
    assert not out.exists()
    engine.pack(case.path, out)
    assert read_back(out) == truth(tensors())
    assert [p.name for p in tmp_path.iterdir()] == ["out.zarr.zip"]


def test_killed_while_the_folder_of_an_archive_is_removed(case, tmp_path, monkeypatch):
    out = tmp_path / "out.zarr.zip"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda _: raising(Killed())())
        with pytest.raises(Killed):
            engine.pack(case.path, out)
    with contextlib.suppress(ConfigError):
        engine.pack(case.path, out)
    assert read_back(out) == truth(tensors())
    assert [p.name for p in tmp_path.iterdir()] == ["out.zarr.zip"]
    assert engine.pack(case.path, out).status == "unchanged"


INTERRUPTED = """
import contextlib, os, signal, sys
from engine.cli import app, packing
from engine.formats.zarr import layout as zarr_layout
from engine.nouns.events import TaskDone
zarr_layout.CHUNK_BYTES = 64
seen = 0

def listener(event):
    global seen
    seen += isinstance(event, TaskDone)
    if seen == 20 and isinstance(event, TaskDone):
        os.kill(os.getpid(), signal.SIGINT)

@contextlib.contextmanager
def progress(**options):
    yield listener

packing.progress = progress
app.main()
"""


def test_control_c_ends_with_a_sentence_and_130(case, tmp_path):
    ran = program(INTERRUPTED, "pack", case.path, tmp_path / "out.zarr", "-j", 1)
    assert "goes on with it" in ran.sentence(130)
    case.assert_completed_by_another_pack(tmp_path / "out.zarr")


# The source


@pytest.mark.parametrize("how", ["touched", "truncated", "gone"])
def test_a_source_that_changes_meanwhile(tmp_path, how):
    path, out = write_tensors(tmp_path / "m.safetensors", tensors()), tmp_path / "out.zarr"
    spoil = {
        "touched": lambda: os.utime(path, ns=(7, 7)), "gone": path.unlink,
        "truncated": lambda: os.truncate(path, path.stat().st_size - 100),
    }[how]  # fmt: skip
    with pytest.raises(FormatError) as caught:
        engine.pack(path, out, workers=1, listener=Recorder(5, spoil))
    assert (caught.value.file, caught.value.exit_code) == (str(path), 2)
    assert "not finished" in refusal(out)
    write_tensors(path, tensors(1))
    said = gaussmeter("pack", path, out).sentence(2)
    assert said.startswith(f"{out}: holds a pack of {path} with another fingerprint")
