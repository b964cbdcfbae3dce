"""The journal of a job: what one process noted, another takes over once, whole records only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.nouns.dtypes import DTYPES
from engine.nouns.records import Checkpoint, TensorInfo
from engine.nouns.tasks import Part
from engine.sketch import Sketch, observe
from engine.warehouse.journal import Journal
from tests.builders import COUNTED, assert_same, nasty_patterns, raw


def checkpoint(fingerprint: str = "f", elements: int = 1000) -> Checkpoint:
    tensor = TensorInfo("w", "F32", (elements,), 0, 0, 4 * elements)
    return Checkpoint("/m", "m", "safetensors", (), (tensor,), fingerprint)


def part(dtype: str = "F32", first: int = 0) -> Part[Sketch]:
    patterns = nasty_patterns(dtype)
    return Part(0, (first, first + patterns.size), observe(raw(patterns), DTYPES[dtype]))


def left(folder: Path, *parts: Part[Sketch], of: Checkpoint | None = None) -> Path:
    """What a process that is no more has left."""
    journal = Journal(folder / "w.duckdb", of or checkpoint())
    journal.add(parts)
    path = journal._path
    assert path is not None
    journal.close()
    return path


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("*.journal"))


@pytest.mark.parametrize("dtype", COUNTED)
def test_what_is_taken_over_is_what_was_noted_to_the_last_bit(tmp_path, dtype):
    left(tmp_path, part(dtype), part(dtype, 5000), Part(0, (0, 0), observe(b"", DTYPES[dtype])))
    journal = Journal(tmp_path / "w.duckdb", checkpoint())
    found = journal.recover(keep=True)
    assert [p.span for p in found] == [part(dtype).span, part(dtype, 5000).span, (0, 0)]
    assert_same(found[0].found, part(dtype).found)
    assert_same(found[2].found, observe(b"", DTYPES[dtype]))
    assert len(files(tmp_path)) == 1, "it is in the new file, and no longer in the old one"
    journal.clear()
    journal.close()
    assert files(tmp_path) == []


def test_it_is_handed_on_until_it_is_in_the_warehouse(tmp_path):
    left(tmp_path, part())
    second = Journal(tmp_path / "w.duckdb", checkpoint())
    assert len(second.recover(keep=True)) == 1
    second.add([part(first=5000)])
    second.close()
    third = Journal(tmp_path / "w.duckdb", checkpoint())
    assert len(third.recover(keep=True)) == 2
    third.clear()
    assert Journal(tmp_path / "w.duckdb", checkpoint()).recover(keep=True) == []
    third.close()


@pytest.mark.parametrize("cut", [1, 7, 9, 60, -1, -9])
def test_a_record_that_is_not_whole_ends_it(tmp_path, cut):
    path = left(tmp_path, part())
    one = path.stat().st_size
    path.write_bytes(path.read_bytes() + path.read_bytes()[:cut])
    assert one < path.stat().st_size < 2 * one
    assert len(Journal(tmp_path / "w.duckdb", checkpoint()).recover(keep=True)) == 1


def test_a_record_that_was_changed_ends_it(tmp_path):
    path = left(tmp_path, part(), part(first=5000))
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    path.write_bytes(data)
    assert len(Journal(tmp_path / "w.duckdb", checkpoint()).recover(keep=True)) == 1


def test_what_somebody_writes_now_is_left_alone(tmp_path):
    writing = Journal(tmp_path / "w.duckdb", checkpoint())
    writing.add([part()])
    assert Journal(tmp_path / "w.duckdb", checkpoint()).recover(keep=True) == []
    assert len(files(tmp_path)) == 1
    writing.clear()
    writing.close()
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "other"),
    [("v.duckdb", checkpoint()), ("w.duckdb", replace(checkpoint(), uri="/n"))],
)
def test_another_job_s_is_not_taken(tmp_path, name, other):
    left(tmp_path, part())
    assert Journal(tmp_path / name, other).recover(keep=True) == []
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("other", [checkpoint("g"), checkpoint(elements=2000)])
def test_that_of_the_same_place_as_it_was_before_is_removed(tmp_path, other):
    left(tmp_path, part())
    assert Journal(tmp_path / "w.duckdb", other).recover(keep=True) == []
    assert files(tmp_path) == []


def test_what_is_not_wanted_is_removed(tmp_path):
    left(tmp_path, part())
    assert Journal(tmp_path / "w.duckdb", checkpoint()).recover(keep=False) == []
    assert files(tmp_path) == []


def test_on_a_disk_that_is_nearly_full_there_is_none(tmp_path, monkeypatch):
    """The rows need what there is."""
    journal = Journal(tmp_path / "w.duckdb", checkpoint())
    journal.add([part()])
    assert journal._path is not None
    size = journal._path.stat().st_size
    free = SimpleNamespace(f_bavail=2 * 4 * size + 400, f_frsize=1)
    monkeypatch.setattr("os.fstatvfs", lambda _: free)
    journal.add([part(first=5000)])
    assert len(files(tmp_path)) == 1
    free.f_bavail -= 800
    journal.add([part(first=9000)])
    assert files(tmp_path) == []


def test_a_full_disk_ends_the_journal_and_nothing_else(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "w.duckdb", checkpoint())
    journal.add([part()])

    class Full:
        def __getattr__(self, name: str) -> Any:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    monkeypatch.setattr(journal, "_file", Full())
    journal.add([part(first=5000)])
    journal.add([part(first=9000)])
    journal.clear()
    journal.close()
    assert files(tmp_path) == []
    nowhere = Journal(tmp_path / "none" / "w.duckdb", checkpoint())
    nowhere.add([part()])
    assert nowhere.recover(keep=True) == []
    nowhere.close()
