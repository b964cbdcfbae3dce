"""The empty warehouse that new ones are copies of."""

from __future__ import annotations

import errno
import os

import pytest

from engine.warehouse import create as creating
from engine.warehouse import template
from engine.warehouse.rows import all_rows
from engine.warehouse.store import Warehouse


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(template, "_FOLDER", tmp_path / "kept")
    return tmp_path / "kept"


@pytest.fixture
def made(monkeypatch):
    """The warehouses that are made and not copied."""
    paths = []
    fill = creating._fill
    monkeypatch.setattr(creating, "_fill", lambda new, path: (paths.append(path), fill(new, path)))
    return paths


def tables(path):
    with Warehouse(path).writing() as connection:
        names = all_rows(connection, "SELECT table_name FROM duckdb_tables() ORDER BY 1")
        return names, all_rows(
            connection, "SELECT coding, count(*), sum(code) FROM codes GROUP BY 1 ORDER BY 1"
        )


def test_the_second_is_a_copy_of_the_first(folder, made, tmp_path):
    one, two = tables(tmp_path / "1.duckdb"), tables(tmp_path / "2.duckdb")
    assert one == two
    assert len(one[0]) > 10
    assert made == [tmp_path / "1.duckdb"]
    assert len(list(folder.iterdir())) == 1


def test_what_was_damaged_or_is_of_another_version_is_made_again(folder, made, tmp_path, monkeypatch):
    tables(tmp_path / "1.duckdb")
    (kept,) = folder.iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    tables(tmp_path / "2.duckdb")
    monkeypatch.setattr(template, "_version", lambda: "other")
    tables(tmp_path / "3.duckdb")
    tables(tmp_path / "4.duckdb")
    assert made == [tmp_path / f"{n}.duckdb" for n in (1, 2, 3)]
    (kept,) = folder.iterdir()
    assert "-other-" in kept.name


def test_a_full_disk_leaves_nothing(folder, tmp_path, monkeypatch):
    def full(handle, mode):
        os.close(handle)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(template.os, "fdopen", full)
    tables(tmp_path / "1.duckdb")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_links_has_warehouses_too(folder, tmp_path, monkeypatch, number):
    def refuse(old, new):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(creating.os, "link", refuse)
    assert len(tables(tmp_path / "1.duckdb")[0]) > 10


@pytest.mark.parametrize("how", ["a file", "not readable"])
def test_without_a_place_for_it_warehouses_are_made(folder, made, tmp_path, monkeypatch, how):
    if how == "a file":
        folder.write_text("")
    else:

        def refuse(*_, **__):
            raise PermissionError

        monkeypatch.setattr(template.tempfile, "mkstemp", refuse)
    tables(tmp_path / "1.duckdb")
    tables(tmp_path / "2.duckdb")
    assert len(made) == 2
    assert list(tmp_path.glob(".*")) == []
