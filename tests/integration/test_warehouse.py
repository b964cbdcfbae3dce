"""What the warehouse refuses, what it survives, and that it is brought up to date without being asked."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest

import engine
from engine.errors import ConfigError, WarehouseError, WarehouseWriteError
from engine.nouns.dtypes import CODINGS, code_table
from engine.warehouse.sql_files import scripts
from engine.warehouse.store import Warehouse
from tests.builders import every_code, write_tensors
from tests.integration.helpers import (
    Ran,
    assert_consistent,
    contents,
    environment,
    gaussmeter,
    llama,
    no_file_added,
    normal,
    process,
    rows,
    subjects,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tensors(tmp_path_factory.mktemp("model") / "m.safetensors", llama(1))


@pytest.fixture(scope="module")
def template(model) -> Path:
    """A warehouse with one subject; tests take copies."""
    engine.scan(model, warehouse=model.parent / "w.duckdb")
    return model.parent / "w.duckdb"


@pytest.fixture
def warehouse(template, tmp_path) -> Path:
    return Path(shutil.copy(template, tmp_path / "w.duckdb"))


def change(warehouse: Path, *statements: str) -> None:
    """Do to a warehouse what this program would not."""
    with duckdb.connect(str(warehouse)) as connection:
        for statement in statements:
            connection.execute(statement)


# Not a warehouse


def use_in_every_way(warehouse: Path, model: Path) -> dict[str, Ran]:
    commands = {
        "scan": [model],
        "ls": [],
        "show": ["m"],
        "sql": ["SELECT 1"],
        "paper": ["table1"],
        "check": ["m"],
    }
    return {
        name: gaussmeter(name, *words, "-w", warehouse, cwd=model.parent) for name, words in commands.items()
    }


NOT_OURS = {
    "text": lambda p: p.write_text("hello " * 100),
    "a checkpoint": lambda p: write_tensors(p, llama(1)),
    "another database": lambda p: change(p, "CREATE TABLE orders (i INTEGER)"),
    "another schema of another database": lambda p: change(
        p, "CREATE SCHEMA s", "CREATE TABLE s.t (i INTEGER)"
    ),
    "another database with migrations": lambda p: change(p, "CREATE TABLE schema_migrations (id INTEGER)"),
    "a Rails database": lambda p: change(
        p,
        "CREATE TABLE schema_migrations (version VARCHAR)",
        "INSERT INTO schema_migrations VALUES ('20240101')",
    ),
    "only a view": lambda p: change(p, "CREATE VIEW v AS SELECT 1 AS one"),
    "a sqlite database": lambda p: _sqlite(p),  # noqa: PLW0108 - defined below
}


def _sqlite(path: Path) -> None:
    import sqlite3

    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (i INTEGER)")
        connection.commit()


@pytest.mark.parametrize("what", NOT_OURS)
def test_a_file_of_something_else_is_refused_and_left_as_it_is(model, tmp_path, what):
    # Other programs have a table schema_migrations too; a database with only a view is not an empty one; and for a
    # file of sqlite DuckDB would download an extension.
    foreign = tmp_path / "foreign.duckdb"
    NOT_OURS[what](foreign)
    before = foreign.read_bytes()
    for command, ran in use_in_every_way(foreign, model).items():
        sentence = ran.sentence(2)
        assert sentence.startswith(f"{foreign}: "), command
        assert "http" not in sentence
        assert foreign.read_bytes() == before, command


def test_a_newer_schema_is_refused_and_left_as_it_is(model, warehouse):
    newest = len(scripts("migrations"))
    change(warehouse, f"INSERT INTO schema_migrations VALUES ({newest + 1}, 'x', '9', current_timestamp)")
    before = warehouse.read_bytes()
    for ran in use_in_every_way(warehouse, model).values():
        assert f"has schema {newest + 1}" in ran.sentence(2)
        assert f"knows up to {newest}" in ran.sentence(2)
    assert warehouse.read_bytes() == before


def test_where_nothing_is_only_scan_makes_something(model, tmp_path):
    missing = tmp_path / "none.duckdb"
    for command, words in {"ls": [], "show": ["m"], "sql": ["SELECT 1"], "paper": ["table1"]}.items():
        assert "there is no such warehouse" in gaussmeter(command, *words, "-w", missing).sentence(2)
    assert gaussmeter("check", "nothing", "-w", missing, cwd=tmp_path).sentence(2)
    assert list(tmp_path.iterdir()) == []
    assert gaussmeter("scan", model, "-w", missing).code == 0
    assert subjects(missing) == [(1, "m", "complete")]


def test_a_missing_directory_is_not_made(model, tmp_path):
    place = tmp_path / "no" / "such" / "w.duckdb"
    assert gaussmeter("scan", model, "-w", place).sentence(2).startswith(f"{place}: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [".", "/", "/dev/null/w.duckdb", "w/../.."])
def test_a_directory_is_no_warehouse(model, tmp_path, place):
    for command, words in {"scan": [model], "ls": []}.items():
        with no_file_added(tmp_path):
            assert gaussmeter(command, *words, "-w", place, cwd=tmp_path).sentence(2)


def test_a_name_that_is_too_long_is_refused(model, tmp_path):
    place = tmp_path / ("x" * 300)
    for command, words in {"scan": [model], "ls": [], "check": ["m"]}.items():
        assert gaussmeter(command, *words, "-w", place, cwd=tmp_path).sentence(2)


def test_an_empty_file_becomes_a_warehouse(model, tmp_path):
    # A process killed at the wrong moment leaves one.
    place = tmp_path / "w.duckdb"
    place.touch()
    assert engine.scan(model, warehouse=place).status == "scanned"


def test_an_empty_database_becomes_a_warehouse(model, tmp_path):
    place = tmp_path / "w.duckdb"
    change(place)
    assert engine.scan(model, warehouse=place).status == "scanned"
    assert_consistent(place)


# Read-only


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take away the right to write, from root too."""
    if os.geteuid() != 0:
        for path in (*folder.iterdir(), folder):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield
        folder.chmod(0o755)
        return
    bound = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False)
    if bound.returncode:
        pytest.skip("root may write everywhere, and cannot mount here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], capture_output=True, check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # a test that failed may have a file open


def test_a_read_only_warehouse_can_be_asked_but_not_written(model, warehouse, tmp_path):
    other = write_tensors(model.parent / "other.safetensors", llama(2))
    with read_only(tmp_path):
        assert gaussmeter("show", "m", "-w", warehouse).code == 0
        assert gaussmeter("sql", "SELECT 1", "-w", warehouse).code == 0
        sentence = gaussmeter("scan", other, "-w", warehouse).sentence(2)
        assert sentence.startswith(f"{warehouse}: ")
        assert "Read-only" in sentence or "Permission denied" in sentence
    assert subjects(warehouse) == [(1, "m", "complete")]


def test_no_warehouse_is_made_where_nothing_may_be_written(model, tmp_path):
    with read_only(tmp_path):
        assert gaussmeter("scan", model, "-w", tmp_path / "new.duckdb").sentence(2)
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_warehouse_of_an_older_version_says_what_is_the_matter(warehouse, tmp_path):
    """Its views would have to be brought up to date."""
    change(warehouse, "UPDATE schema_views SET digest = 'older'")
    with read_only(tmp_path):
        assert gaussmeter("ls", "-w", warehouse).sentence(2).startswith(f"{warehouse}: ")


# Up to date


def test_views_of_another_version_are_replaced_by_whoever_comes(model, warehouse):
    for use in (lambda: engine.ls(warehouse=warehouse), lambda: engine.scan(model, warehouse=warehouse)):
        change(
            warehouse,
            "UPDATE schema_views SET digest = 'older'",
            "CREATE OR REPLACE VIEW tensor_stats AS SELECT 'old' AS name",
            "DROP VIEW subject_stats",
        )
        use()
        assert rows(warehouse, "SELECT subject FROM subject_stats") == [("m",)]
        assert rows(warehouse, "SELECT count(*) FROM tensor_stats WHERE finite > 0") == [(len(llama(1)),)]
        assert rows(warehouse, "SELECT count(*), max(length(digest)) FROM schema_views") == [(1, 64)]
    assert subjects(warehouse) == [(1, "m", "complete")]
    assert rows(warehouse, "SELECT count(*) FROM schema_migrations") == [(len(scripts("migrations")),)]


def test_a_warehouse_of_before_rows_of_zeros_were_known(model, warehouse):
    before = rows(warehouse, "SELECT * FROM tensor_stats ORDER BY tensor_id")
    change(
        warehouse,
        "ALTER TABLE tensors ADD COLUMN zero_rows UBIGINT",
        "ALTER TABLE iid DROP COLUMN zero_rows",
        "DELETE FROM schema_migrations WHERE version >= 6",
        "UPDATE schema_views SET digest = 'older'",
        "CREATE OR REPLACE VIEW tensor_stats AS SELECT zero_rows FROM tensors",
    )
    engine.scan(model, warehouse=warehouse)
    assert rows(warehouse, "SELECT * FROM tensor_stats ORDER BY tensor_id") == before
    engine.scan(model, warehouse=warehouse, iid=True)
    assert rows(warehouse, "SELECT DISTINCT zero_rows FROM tensor_stats WHERE is_matrix") == [(0,)]


def test_asking_a_current_warehouse_does_not_write_it(warehouse):
    before = warehouse.read_bytes(), warehouse.stat().st_mtime_ns
    engine.ls(warehouse=warehouse)
    engine.show("m", warehouse=warehouse)
    assert (warehouse.read_bytes(), warehouse.stat().st_mtime_ns) == before


@pytest.mark.parametrize("coding", CODINGS)
def test_the_codes_are_those_of_the_program(warehouse, coding):
    found = rows(warehouse, "SELECT code, value, step FROM codes WHERE coding = ? ORDER BY code", coding)
    table = code_table(coding)
    assert [f[0] for f in found] == list(range(CODINGS[coding].size))
    np.testing.assert_array_equal([f[1] for f in found], table.value)
    np.testing.assert_array_equal([f[2] for f in found], table.step)


# Transactions


def test_a_block_that_raises_leaves_nothing(warehouse):
    with pytest.raises(RuntimeError, match="stop"), Warehouse(warehouse).writing() as connection:
        connection.execute("DELETE FROM subjects")
        raise RuntimeError("stop")
    with pytest.raises(WarehouseWriteError, match="nosuch"), Warehouse(warehouse).writing() as connection:
        connection.execute("DELETE FROM subjects")
        connection.execute("SELECT * FROM nosuch")
    assert subjects(warehouse) == [(1, "m", "complete")]


def test_a_reader_that_fails_lets_go(model, tmp_path):
    # Not only when somebody drops the exception.
    foreign = tmp_path / "w.duckdb"
    change(foreign, "CREATE TABLE orders (i INTEGER)")
    with pytest.raises(WarehouseError) as kept:
        engine.ls(warehouse=foreign)
    change(foreign, "CREATE TABLE more (i INTEGER)")
    assert kept.value.exit_code == 2


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t (i INTEGER)",
        "INSERT INTO subjects SELECT * FROM subjects",
        "UPDATE tensors SET n = 0",
        "DELETE FROM bins",
        "DROP VIEW tensor_stats",
        "ALTER TABLE bins ADD COLUMN x INTEGER",
        "ATTACH '{place}/other.duckdb' AS other",
        "COPY bins TO '{place}/bins.csv'",
        "COPY bins FROM '{place}/bins.csv'",
        "EXPORT DATABASE '{place}/all'",
        "IMPORT DATABASE '{place}/all'",
        "SELECT * FROM read_csv('/etc/hostname')",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_blob('/etc/hostname')",
        "SELECT * FROM read_parquet('/etc/hostname')",
        "SELECT * FROM '/etc/hostname'",
        "SELECT * FROM glob('/etc/*')",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '1GB'",
        "SET enable_external_access = true",
        "PRAGMA enable_external_access",
        "RESET lock_configuration",
        "SELECT 1; DELETE FROM bins",
        "CREATE SECRET s (TYPE s3)",
    ],
)
def test_sql_only_reads_and_only_the_warehouse(warehouse, tmp_path, statement):
    before = warehouse.read_bytes()
    with no_file_added(tmp_path):
        sentence = gaussmeter("sql", statement.format(place=tmp_path), "-w", warehouse).sentence(2)
    assert sentence.startswith("the query failed: ")
    assert warehouse.read_bytes() == before


def test_python_is_held_to_the_same(warehouse):
    with pytest.raises(ConfigError, match="read-only"):
        engine.sql("DELETE FROM bins", warehouse=warehouse)


# A full disk


def fat_model(folder: Path) -> Path:
    """Few weights with many bins: some MB of rows."""
    return write_tensors(
        folder / "fat.safetensors",
        {f"layers.{i}.q_proj.weight": ("BF16", every_code("BF16")) for i in range(16)},
    )


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 12 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # a test that failed may have a file open


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(small_disk, template, tmp_path):
    warehouse = Path(shutil.copy(template, small_disk / "w.duckdb"))
    kept = contents(warehouse, 1)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()
    fat = fat_model(tmp_path)
    for _ in range(2):  # the second time there is a scan to go on with, or not
        sentence = gaussmeter("scan", fat, "-w", warehouse).sentence(3)
        assert sentence.startswith(f"{warehouse}: ")
        assert "No space left on device" in sentence
        assert contents(warehouse, 1) == kept
        assert engine.show("m", by="subject", warehouse=warehouse).records()[0]["subject"] == "m"
    filler.unlink()
    report = engine.scan(fat, warehouse=warehouse)
    assert rows(warehouse, "SELECT count(*) FROM tensors WHERE subject_id = ?", report.subject_id) == [(16,)]
    assert contents(warehouse, 1) == kept
    assert_consistent(warehouse)


def test_a_disk_that_is_full_from_the_beginning(small_disk, model):
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()
    sentence = gaussmeter("scan", model, "-w", small_disk / "w.duckdb").sentence(3)
    assert "No space left on device" in sentence
    (small_disk / "filler").unlink()
    assert engine.scan(model, warehouse=small_disk / "w.duckdb").status == "scanned"


def test_a_file_that_may_not_grow_is_one_sentence_and_nothing_is_lost(template, tmp_path):
    """The same for those who may not mount anything."""
    warehouse = Path(shutil.copy(template, tmp_path / "w.duckdb"))
    kept = contents(warehouse, 1)
    fat, limit = fat_model(tmp_path), warehouse.stat().st_size + 500_000

    def no_growth() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    ran = process("scan", fat, "-w", warehouse, preexec_fn=no_growth)
    assert ran.sentence(3).startswith(f"{warehouse}: ")
    assert contents(warehouse, 1) == kept
    report = engine.scan(fat, warehouse=warehouse)
    assert rows(warehouse, "SELECT count(*) FROM tensors WHERE subject_id = ?", report.subject_id) == [(16,)]
    assert_consistent(warehouse)


# Where it is


def test_the_environment_may_name_it(model, tmp_path):
    ran = process(
        "scan", model, cwd=tmp_path, env=environment(GAUSSMETER_WAREHOUSE=str(tmp_path / "mine.duckdb"))
    )
    assert (ran.code, ran.err) == (0, "")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.duckdb"]


def test_by_default_it_is_in_the_working_directory(model, tmp_path):
    assert gaussmeter("scan", model, cwd=tmp_path).code == 0
    assert [p.name for p in tmp_path.iterdir()] == ["stats.duckdb"]
    assert gaussmeter("ls", cwd=tmp_path).out.splitlines()[1].split()[:2] == ["1", "m"]


@pytest.mark.parametrize("name", ["with space 模型.db", "quote';%.duckdb", "-dash"])
def test_any_file_name_will_do(model, tmp_path, name):
    place = tmp_path / name
    assert gaussmeter("scan", model, f"--warehouse={place}").code == 0
    assert gaussmeter("ls", f"--warehouse={place}").code == 0
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_link_to_it_is_as_good(model, warehouse, tmp_path):
    link = tmp_path / "link.duckdb"
    link.symlink_to(warehouse.name)
    assert gaussmeter("ls", "-w", link).out == gaussmeter("ls", "-w", warehouse).out
    assert engine.scan(model, warehouse=link).status == "unchanged"


def test_many_matrices_fit_into_little_space(tmp_path):
    """A dozen MB for a model of tens of GB: about 5 bytes a bin."""
    path = write_tensors(
        tmp_path / "m.safetensors",
        {f"layers.{i}.q_proj.weight": normal("BF16", 400, 100, seed=i) for i in range(30)},
    )
    engine.scan(path, warehouse=tmp_path / "w.duckdb")
    ((bins,),) = rows(tmp_path / "w.duckdb", "SELECT count(*) FROM bins")
    assert bins > 60_000
    assert (tmp_path / "w.duckdb").stat().st_size < 6e6 + 10 * bins
