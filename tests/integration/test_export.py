"""Results leave a warehouse and come into another: the same bits, whatever happens on the way."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import dataset, parquet

import engine
from engine.errors import ConfigError, TaskError
from engine.storage.depot import Depot
from engine.version import __version__
from engine.warehouse import export as writing
from engine.warehouse.exchange import MARK, file_of, identity_of, key_in, key_of
from engine.warehouse.store import Warehouse
from tests import tensors as tempers
from tests.builders import COUNTED, every_code, nasty_patterns, write, write_tensors
from tests.integration.helpers import (
    Killed,
    assert_consistent,
    contents,
    gaussmeter,
    killed,
    llama,
    made,
    normal,
    program,
    records,
    rows,
    subjects,
)
from tests.integration.packing import files
from tests.integration.test_object_stores import bucket, moto  # noqa: F401 - fixtures
from tests.torch_files import archive, tensor
from tests.torch_files import program as pickled

TABLES = ("subjects", "tensors", "filtered", "bins", "iid", "tensor_stats")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every dtype that is counted and some that are not, dequantised and tied weights, and no values at all."""
    folder = tmp_path_factory.mktemp("source")
    everything: dict[str, Any] = {f"{d}.nasty": (d, nasty_patterns(d)) for d in COUNTED}
    everything |= {"all.bf16": ("BF16", every_code("BF16")), "all.f32": ("F32", every_code("F32")[::7])}
    everything |= {
        f"{n}.f32": ("F32", tempers.patterns(n, "F32")) for n in ("gaussian", "constant", "nothing finite")
    }
    everything |= {"numbers": ("I64", np.arange(3)), "nothing": ("F32", np.zeros((0, 4), "<u4"))}
    everything |= {"l.weight": normal("F8_E4M3", 256, 128), "l.weight_scale_inv": normal("F32", 2, 1, mean=1)}
    write_tensors(folder / "everything.safetensors", everything)
    write_tensors(folder / "llama.safetensors", llama(1))
    write(folder / "tied.pth", archive(pickled({"a": tensor(), "b": tensor()})))
    warehouse = folder / "w.duckdb"
    for name in ("everything.safetensors", "llama.safetensors", "tied.pth"):
        engine.scan(folder / name, warehouse=warehouse, iid=name.startswith("llama"))
    return warehouse


@pytest.fixture
def warehouse(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(template, tmp_path / "w.duckdb"))


@pytest.fixture(scope="module")
def exported(template: Path) -> Path:
    engine.export(None, template.parent / "out", warehouse=template)
    return template.parent / "out"


@pytest.fixture
def out(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "out"))


@pytest.fixture
def small(exported: Path, tmp_path: Path) -> Path:
    """Without the subject that takes longest."""
    large = shutil.ignore_patterns("*=everything@*")
    return Path(shutil.copytree(exported, tmp_path / "out", ignore=large))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """With a subject of its own, so that all numbers differ."""
    warehouse = made(tmp_path / "other.duckdb")
    engine.scan(write_tensors(tmp_path / "own.safetensors", llama(2, seed=5)), warehouse=warehouse)
    return warehouse


def everything_of(warehouse: Path, subject_id: int) -> tuple[Any, ...]:
    """All that is known of a subject but its numbers; NaN equals NaN."""
    (row,) = records(
        warehouse, "SELECT * EXCLUDE (subject_id) FROM subjects WHERE subject_id = ?", subject_id
    )
    stats = "SELECT * EXCLUDE (subject_id, tensor_id) FROM tensor_stats WHERE subject_id = ? ORDER BY ordinal"
    return row, contents(warehouse, subject_id), repr(rows(warehouse, stats, subject_id))


def statuses(report: Any) -> list[str]:
    return [s.status for s in report.subjects]


def number(warehouse: Path, name: str) -> int:
    ((found,),) = rows(warehouse, "SELECT max(subject_id) FROM subjects WHERE name = ?", name)
    return int(found)


def assert_imports_all(template: Path, place: Path | str, other: Path) -> None:
    assert statuses(engine.import_(place, warehouse=other)) == ["imported"] * 3
    for subject_id, name, _ in subjects(template):
        assert everything_of(other, number(other, name)) == everything_of(template, subject_id)
    assert_consistent(other)


# There and back


def test_what_comes_back_is_the_same_to_the_last_bit(template, out, other):
    ids = {row[0] for row in rows(template, "SELECT subject_id FROM subjects")}
    assert_imports_all(template, out, other)
    assert ids != {number(other, name) for _, name, _ in subjects(template)}
    notes = rows(
        other,
        "SELECT count(alias_of), count(form), count(reason), count(low_sum) FROM tensors t LEFT JOIN bins USING (tensor_id)",
    )
    assert all(n > 0 for n in notes[0])  # the template has what it is meant to have


def test_an_import_of_an_import_exports_the_same_files(template, out, tmp_path):
    engine.import_(out, warehouse=tmp_path / "new.duckdb")
    engine.export(None, tmp_path / "again", warehouse=tmp_path / "new.duckdb")
    assert files(tmp_path / "again") == files(out)


def test_importing_again_writes_nothing(out, other):
    assert statuses(engine.import_(out, warehouse=other)) == ["imported"] * 3
    before = other.read_bytes()
    assert statuses(engine.import_(out, warehouse=other)) == ["unchanged"] * 3
    assert rows(other, "SELECT count(*) FROM subjects") == [(4,)]
    assert len(other.read_bytes()) == len(before)


def order_of(warehouse: Path) -> tuple[Any, ...]:
    """What is known of the order of elements in the newest `llama`."""
    of = "SELECT t.name, i.* EXCLUDE (tensor_id) FROM iid i JOIN tensors t USING (tensor_id) JOIN subjects s USING (subject_id)"
    depth = rows(warehouse, "SELECT iid FROM subjects WHERE name = 'llama'")
    return depth, repr(rows(warehouse, f"{of} WHERE s.name = 'llama' ORDER BY ordinal"))


@pytest.mark.parametrize(
    ("here", "there", "status"),
    [
        ({}, {"iid": True}, "added"),
        ({"iid": True}, {}, "unchanged"),
        ({"iid": True}, {"spectrum": 64}, "added"),
    ],
)
def test_a_complete_subject_meets_one_that_knows_more_or_less_of_order(
    template, tmp_path, here, there, status
):
    path = template.parent / "llama.safetensors"
    for name, options in (("here", here), ("there", there)):
        engine.scan(path, warehouse=made(tmp_path / f"{name}.duckdb"), **options)
    engine.export("llama", tmp_path / "out", warehouse=tmp_path / "there.duckdb")
    own = tmp_path / "here.duckdb"
    before, counts = order_of(own), contents(own, 1)
    ran = gaussmeter("import", tmp_path / "out", "-w", own)
    assert (ran.code, f"1 subject, 1 {status} in " in ran.out, ran.err) == (0, True, "")
    assert order_of(own) == (order_of(tmp_path / "there.duckdb") if status == "added" else before)
    assert contents(own, 1) == counts
    assert ("added to llama: what --iid found" in ran.out) == (status == "added")
    assert statuses(engine.import_(tmp_path / "out", warehouse=own)) == ["unchanged"]
    assert_consistent(own)


def test_damaged_order_is_refused_and_nothing_is_lost(template, out, tmp_path):
    engine.scan(template.parent / "llama.safetensors", warehouse=made(tmp_path / "w.duckdb"))
    before = everything_of(tmp_path / "w.duckdb", 1)
    rewrite(out, "iid", with_column("ordinal", lambda c: [*c.to_pylist()[:-1], 10**6]))
    ran = gaussmeter("import", out, "-w", tmp_path / "w.duckdb")
    assert "has rows of tensors that are not in `tensors`" in ran.sentence(3)
    assert everything_of(tmp_path / "w.duckdb", 1) == before


def test_two_clusters_meet(template, out, other, tmp_path):
    engine.export("own", out, warehouse=other)
    engine.import_(out, warehouse=tmp_path / "both.duckdb")
    assert {s[1] for s in subjects(tmp_path / "both.duckdb")} == {"everything", "llama", "own", "tied"}
    assert statuses(engine.export(None, out, warehouse=tmp_path / "both.duckdb")) == ["unchanged"] * 4


def test_an_import_takes_the_place_of_an_interrupted_scan(template, out, warehouse):
    change(warehouse, "UPDATE subjects SET status = 'running', finished_at = NULL WHERE name = 'llama'")
    assert sorted(statuses(engine.import_(out, warehouse=warehouse))) == [
        "imported",
        "unchanged",
        "unchanged",
    ]
    assert_consistent(warehouse)
    assert everything_of(warehouse, number(warehouse, "llama")) == everything_of(template, 2)


def test_children_find_their_parents(warehouse, tmp_path):
    change(warehouse, "UPDATE subjects SET parent_ids = [1, 2], finished_at = '2000-01-01' WHERE name = 'tied'",
           "UPDATE subjects SET finished_at = '1999-01-01' WHERE name = 'llama'")  # fmt: skip
    engine.export(["tied", "llama"], tmp_path / "out", warehouse=warehouse)
    made(tmp_path / "other.duckdb")
    ran = gaussmeter("import", tmp_path / "out", "-w", tmp_path / "other.duckdb")
    assert (ran.code, "imported tied without its parent" in ran.out) == (0, True)
    assert rows(tmp_path / "other.duckdb", "SELECT name, parent_ids FROM subjects ORDER BY subject_id") == [
        ("llama", []),
        ("tied", [1]),
    ]


# For any tool


def test_one_pattern_reads_all_subjects(template, out, other):
    engine.export("own", out, warehouse=other)
    with duckdb.connect() as plain:

        def ask(sql: str) -> list[tuple[Any, ...]]:
            return plain.execute(sql).fetchall()

        stats = ask(
            f"SELECT subject, count(*), any_value(split_part(subject_key, '@', 1)) FROM read_parquet('{out}/tensor_stats/*/*.parquet', hive_partitioning = true) GROUP BY ALL ORDER BY ALL"
        )
        assert [(s, k) for s, _, k in stats] == [(s, s) for s in ("everything", "llama", "own", "tied")]
        counts = ask(
            f"SELECT subject, sum(n)::BIGINT FROM '{out}/bins/*/*.parquet' GROUP BY ALL ORDER BY ALL"
        )
        sql = "SELECT s.name, sum(b.n)::BIGINT FROM bins b JOIN tensors USING (tensor_id) JOIN subjects s USING (subject_id) GROUP BY ALL"
        assert counts == sorted(rows(template, sql) + rows(other, sql))
        values = ask(
            f"SELECT b.name, min(c.value), max(c.value) FROM '{out}/bins/*/*.parquet' b JOIN '{out}/codes/*.parquet' c USING (coding, code) "
            f"JOIN '{out}/tensors/*/*.parquet' t USING (subject_key, ordinal) WHERE t.subject = 'llama' GROUP BY ALL ORDER BY ALL")  # fmt: skip
        assert values == rows(
            template, "SELECT name, min, max FROM tensor_stats WHERE subject = 'llama' ORDER BY ALL"
        )


def test_pyarrow_reads_it_as_one_dataset(out):
    table = dataset.dataset(out / "tensor_stats", partitioning="hive").to_table(
        columns=["subject", "subject_key", "std"]
    )
    assert set(table["subject"].to_pylist()) == {"everything", "llama", "tied"}
    for name in TABLES:
        read = parquet.read_table(out / name)
        assert read.num_rows == sum(parquet.read_metadata(p).num_rows for p in out.glob(f"{name}/*/*")) > 0


# Again, and half way


def test_exporting_again_writes_nothing(template, out):
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    report = engine.export(None, out, warehouse=template)
    assert (statuses(report), report.nbytes_written) == (["unchanged"] * 3, 0)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


CHANGES: dict[str, Callable[[Path, Path], Any]] = {
    "a lost file": lambda out, w: next(out.glob("bins/*llama*/*")).unlink(),
    "a cut file": lambda out, w: os.truncate(next(out.glob("tensors/*llama*/*")), 100),
    "no manifest": lambda out, w: next(out.glob("subjects/*llama*/*")).write_bytes(b"PAR1PAR1"),
    "scanned again": lambda out, w: change(
        w, "UPDATE subjects SET finished_at = '2031-01-01' WHERE name = 'llama'"
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_only_what_has_changed_is_written_again(warehouse, out, tmp_path, what):
    before = files(out)
    CHANGES[what](out, warehouse)
    assert statuses(engine.export(None, out, warehouse=warehouse)) == ["unchanged", "exported", "unchanged"]
    assert files(out).keys() == before.keys()
    engine.export(None, tmp_path / "new", warehouse=warehouse)
    assert files(out) == files(tmp_path / "new")


def test_another_name_does_not_make_another_copy(warehouse, out):
    change(warehouse, "UPDATE subjects SET name = 'alpaca' WHERE name = 'llama'")
    assert statuses(engine.export("alpaca", out, warehouse=warehouse)) == ["exported"]
    assert sorted(parquet.read_table(out / "subjects")["subject"].to_pylist()) == [
        "alpaca",
        "everything",
        "tied",
    ]


@pytest.mark.parametrize("at", [1, 2, 4, 6])
def test_killed_between_two_files(template, tmp_path, monkeypatch, at):
    put, count = Depot.put, iter(range(1, 100))

    def failing(self: Depot, source: Path, name: str) -> None:
        if next(count) == at:
            raise Killed
        put(self, source, name)

    monkeypatch.setattr(Depot, "put", failing)
    with pytest.raises(Killed):
        engine.export("llama", tmp_path / "out", warehouse=template)
    monkeypatch.undo()
    for path in (tmp_path / "out").rglob("*.parquet"):
        parquet.read_table(path)
    if at > 2:
        report = engine.import_(tmp_path / "out", warehouse=tmp_path / "new.duckdb")
        assert (statuses(report), "interrupted" in report.subjects[0].reason) == (["refused"], True)
    assert statuses(engine.export("llama", tmp_path / "out", warehouse=template)) == ["exported"]
    assert statuses(engine.import_(tmp_path / "out", warehouse=tmp_path / "new.duckdb")) == ["imported"]


DRIVER = """
import os, signal, sys
from pyarrow import parquet
import engine
close, count = parquet.ParquetWriter.close, iter(range(100))
def last(self):
    if next(count) == 4: os.kill(os.getpid(), signal.SIGKILL)
    close(self)
parquet.ParquetWriter.close = last
engine.export(None, sys.argv[2], warehouse=sys.argv[1])
"""


def test_a_kill_in_the_middle_of_a_file_leaves_nothing_that_is_read(template, out, tmp_path):
    half = tmp_path / "half"
    ran = program(DRIVER, template, half)
    assert killed(ran), ran.err
    (left,) = half.glob(".export-*")
    assert list(left.iterdir())
    assert [p.name for p in half.rglob("*.parquet") if left not in p.parents] == ["codes.parquet"]
    os.utime(left, (time.time() - 10_000,) * 2)
    engine.export(None, half, warehouse=template)
    assert files(half) == files(out)


def test_a_subject_that_is_replaced_meanwhile(warehouse, tmp_path, monkeypatch):
    with Warehouse(warehouse).reading() as connection:
        cards = writing.read_cards(connection)
    change(warehouse, "DELETE FROM subjects WHERE name = 'llama'")
    monkeypatch.setattr("engine.verbs.export._choose", lambda *_: (list(cards.values()), []))
    with pytest.raises(TaskError, match="'llama' was replaced meanwhile"):
        engine.export("llama", tmp_path / "out", warehouse=warehouse)


def test_many_bins_are_written_and_read_in_pieces(template, out, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_GROUP_ROWS", 3000)
    monkeypatch.setattr("engine.warehouse.parquet._BATCH_ROWS", 1000)
    engine.export("everything", tmp_path / "pieces", warehouse=template)
    (path,) = (tmp_path / "pieces").glob("bins/*/*")
    assert parquet.read_metadata(path).num_row_groups > 10
    (whole,) = out.glob("bins/*everything*/*")
    assert parquet.ParquetFile(path).read() == parquet.ParquetFile(whole).read()
    engine.import_(tmp_path / "pieces", warehouse=tmp_path / "new.duckdb")
    assert everything_of(tmp_path / "new.duckdb", 1) == everything_of(template, 1)


def test_tensors_in_which_every_value_occurs_once(tmp_path):
    """DuckDB 2.0.0 takes a guess at the rows of a filter for their number, and with it decides what sums can be."""
    tensors = {f"t{i}": ("BF16", every_code("BF16")) for i in range(3)}
    engine.scan(write_tensors(tmp_path / "m.safetensors", tensors), warehouse=made(tmp_path / "w.duckdb"))
    engine.export("m", tmp_path / "out", warehouse=tmp_path / "w.duckdb")
    report = engine.import_(tmp_path / "out", warehouse=made(tmp_path / "new.duckdb"))
    assert [s.reason for s in report.subjects] == [""]


# Names


HOSTILE = [
    "..",
    "../../etc",
    "/",
    "a/b",
    "a-b",
    "a b",
    "A",
    "a",
    "ä",
    "日本",
    "x" * 300,
    "NUL\0",
    "*?[!a]{b}",
    "k=v/w",
    "-",
    ".hidden",
    "%2e%2e",
    "a\nb\x1b[31m",
]


def test_any_name_has_a_folder_of_its_own(warehouse, tmp_path):
    with duckdb.connect(str(warehouse)) as connection:
        for i, name in enumerate(HOSTILE):
            connection.execute(
                "INSERT INTO subjects SELECT * REPLACE (? AS subject_id, ? AS name, ? AS uri) FROM subjects WHERE name = 'tied'",
                [100 + i, name, name],
            )
    (tmp_path / "place").mkdir()
    engine.export(
        [str(100 + i) for i in range(len(HOSTILE))], tmp_path / "place" / "out", warehouse=warehouse
    )
    written = [str(p.relative_to(tmp_path / "place")) for p in (tmp_path / "place").rglob("*.parquet")]
    assert all(p.startswith("out/") and p.isascii() and p.isprintable() for p in written)
    assert len(written) == len(TABLES) * len(HOSTILE) + 1
    assert len({p.lower() for p in written}) == len(written)
    with duckdb.connect() as plain:
        found = plain.execute(
            f"SELECT subject FROM read_parquet('{tmp_path}/place/out/subjects/*/*.parquet', hive_partitioning = true)"
        ).fetchall()
    assert sorted(n for (n,) in found) == sorted(HOSTILE)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_key_is_found_in_its_path(name):
    key = key_of(name, identity_of(name, "", "", ""))
    assert key_in(file_of("bins", key)) == key
    assert key_in(f"bins/{key}/bins.parquet") is key_in(f"bins/subject_key={key}/x.parquet") is None


# Damaged


def change(warehouse: Path, *statements: str) -> None:
    with duckdb.connect(str(warehouse)) as connection:
        for statement in statements:
            connection.execute(statement)


def of(out: Path, table: str) -> Path:
    (path,) = out.glob(f"{table}/*llama*/*")
    return path


def rewrite(out: Path, table: str, alter: Callable[[pa.Table], pa.Table]) -> None:
    """Change a file, and the manifest with it, as somebody would who means harm."""
    path, head = of(out, table), of(out, "subjects")
    before = parquet.ParquetFile(path).read()
    after = alter(before)
    parquet.write_table(after.replace_schema_metadata(before.schema.metadata), path)

    def follow(manifest: dict[str, Any]) -> None:
        if table != "subjects":
            manifest["files"][table] = {"rows": after.num_rows, "nbytes": path.stat().st_size}

    remark(head, follow)


def remark(path: Path, alter: Callable[[dict[str, Any]], Any]) -> None:
    table = parquet.ParquetFile(path).read()
    mark = json.loads(table.schema.metadata[MARK])
    alter(mark)
    parquet.write_table(table.replace_schema_metadata({MARK: json.dumps(mark).encode()}), path)


def with_column(name: str, values: Callable[[pa.ChunkedArray], Any]) -> Callable[[pa.Table], pa.Table]:
    def alter(table: pa.Table) -> pa.Table:
        i = table.schema.get_field_index(name)
        new = values(table[name])
        typed = new if isinstance(new, pa.Array | pa.ChunkedArray) else pa.array(new, table[name].type)
        return table.set_column(i, name, typed)

    return alter


def first(value: Any) -> Callable[[pa.ChunkedArray], list[Any]]:
    return lambda column: [value, *column.to_pylist()[1:]]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 0x10
    path.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a missing file": (lambda out: of(out, "bins").unlink(), "has no bins/"),
    "no manifest": (lambda out: of(out, "subjects").unlink(), "its export was interrupted"),
    "a cut file": (lambda out: os.truncate(of(out, "bins"), 99), "has 99 bytes, its manifest says "),
    "a flipped bit": (lambda out: flip(of(out, "bins")), "damaged"),
    "a foreign file": (lambda out: parquet.write_table(pa.table({"a": [1]}), of(out, "subjects")), "was not written by"),
    "text": (lambda out: of(out, "subjects").write_text("hello " * 9), "is no Parquet file"),
    "a folder": (lambda out: (of(out, "subjects").unlink(), (out / "subjects/x").mkdir()), "interrupted"),
    "the folder of another": (lambda out: [of(out, t).parent.rename(out / t / f"subject_key=llama@{'0' * 16}") for t in TABLES], "lies in the folder of"),
    "a newer schema": (lambda out: remark(of(out, "subjects"), lambda m: m.update(schema=99)), f"this gaussmeter ({__version__}) knows up to "),
    "a newer format": (lambda out: remark(of(out, "subjects"), lambda m: m.update(format=2)), "is an export of format 2"),
    "no sizes": (lambda out: remark(of(out, "subjects"), lambda m: m.update(files={})), "has no usable manifest"),
    "sizes that are none": (lambda out: remark(of(out, "subjects"), lambda m: m["files"]["bins"].update(rows=True)), "has no usable manifest"),
    "another export's file": (lambda out: (remark(of(out, "filtered"), lambda m: m.update(made_of="x")), rewrite_size(out, "filtered")), "of another export"),
    "fewer rows than said": (lambda out: remark(of(out, "subjects"), lambda m: m["files"]["bins"].update(rows=9)), "rows, 9 were expected"),
    "an unknown column": (lambda out: rewrite(out, "tensors", lambda t: t.append_column("evil", t["n"])), "'evil' that does not belong"),
    "a column of another type": (lambda out: rewrite(out, "bins", with_column("n", lambda c: c.cast("int64"))), "'n' of int64, not uint64"),
    "no column": (lambda out: rewrite(out, "bins", lambda t: t.drop_columns(["low_sum"])), "has no column 'low_sum'"),
    "a NULL": (lambda out: rewrite(out, "bins", with_column("n", first(None))), "has rows without 'n'"),
    "no Unicode": (lambda out: rewrite(out, "tensors", with_column("name", lambda c: pa.array([b"\xff"] * len(c), pa.binary()).view(pa.string()))), "damaged"),
    "two subjects": (lambda out: rewrite(out, "subjects", lambda t: pa.concat_tables([t, t])), "has 2 rows, 1 were expected"),
    "another uri": (lambda out: rewrite(out, "subjects", with_column("uri", first("s3://x"))), "lies in the folder of"),
    "a spec that is none": (lambda out: rewrite(out, "subjects", with_column("spec", first("{"))), "a spec"),
    "rows twice": (lambda out: rewrite(out, "bins", lambda t: pa.concat_tables([t, t])), "order of its tensors"),
    "tensors twice": (lambda out: rewrite(out, "tensors", lambda t: pa.concat_tables([t.slice(0, 1), t])), "twice"),
    "bins of no tensor": (lambda out: rewrite(out, "bins", with_column("ordinal", lambda c: [*c.to_pylist()[:-1], 10**6])), "not in `tensors`"),
    "too few counts": (lambda out: rewrite(out, "bins", lambda t: t.slice(1)), " elements and counts of "),
    "too many counts": (lambda out: rewrite(out, "bins", with_column("n", first(2**63))), " elements and counts of "),
    "a code that is none": (lambda out: rewrite(out, "tensors", with_column("coding", first("f8_e4m3"))), "none of f8_e4m3"),
    "a coding that is none": (lambda out: rewrite(out, "tensors", with_column("coding", first("f77"))), "not known here"),
    "low halves of bf16": (lambda out: rewrite(out, "bins", with_column("low_sum", first(1))), "none of bf16"),
    "counts of what is not counted": (lambda out: rewrite(out, "tensors", with_column("reason", first("x"))), "and yet has counts"),
    "a shape that is none": (lambda out: rewrite(out, "tensors", with_column("shape", first([-1]))), "impossible shape"),
}  # fmt: skip


def rewrite_size(out: Path, table: str) -> None:
    nbytes = of(out, table).stat().st_size
    remark(of(out, "subjects"), lambda m: m["files"][table].update(nbytes=nbytes))


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_damaged_is_refused_and_the_rest_taken_in(small, tmp_path, what):
    alter, part = DAMAGE[what]
    alter(small)
    warehouse = made(tmp_path / "new.duckdb")
    report = engine.import_(small, warehouse=warehouse)
    assert sorted(statuses(report)) == ["imported", "refused"]
    (refused,) = [s for s in report.subjects if s.status == "refused"]
    assert part in refused.reason
    assert "\n" not in refused.reason
    assert "llama" in refused.reason
    assert [s[1] for s in subjects(warehouse)] == ["tied"]
    assert_consistent(warehouse)


def test_an_export_of_an_older_schema_may_lack_columns(small, tmp_path):
    rewrite(small, "tensors", lambda t: t.drop_columns(["alias_of", "form"]))
    remark(of(small, "subjects"), lambda m: m.update(schema=1))
    assert engine.import_(small, warehouse=made(tmp_path / "new.duckdb")).complete
    rewrite(small, "tensors", lambda t: t.drop_columns(["name"]))
    report = engine.import_(small, warehouse=made(tmp_path / "new.duckdb"))
    assert "has no column 'name'" in "".join(s.reason for s in report.subjects)


# Runs and refusals


RUN_TABLES = ("runs", "metrics", "scalars")


@pytest.fixture
def alone(template: Path, tmp_path: Path) -> Path:
    """A warehouse with the subject `llama`."""
    change(
        Path(shutil.copy(template, tmp_path / "alone.duckdb")), "DELETE FROM subjects WHERE name <> 'llama'"
    )
    return tmp_path / "alone.duckdb"


def plant_runs(warehouse: Path, *names: str, status: str = "complete", spec: str = '{"seed":1}') -> None:
    """Runs, of which the first has the subject `llama` for its dW."""
    with duckdb.connect(str(warehouse)) as connection:
        (start,) = connection.execute("SELECT coalesce(max(run_id), 0) + 1 FROM runs").fetchone()
        for k, name in enumerate(names, start):
            connection.execute(
                "INSERT INTO runs BY NAME SELECT ? AS run_id, ? AS name, 'noise' AS method, 'rte' AS task, 1 AS seed, "
                "?::JSON AS spec, ? AS status, TIMESTAMP '2026-01-01' AS started_at, TIMESTAMP '2026-01-02' AS finished_at, "
                "(SELECT subject_id FROM subjects WHERE name = 'llama' AND ? = 1) AS subject_id, 0.5 AS seconds",
                [k, name, spec, status, k],
            )
            connection.execute(
                "INSERT INTO metrics SELECT ?, i, 'loss', 1 / (1 + i) FROM range(50) t(i)", [k]
            )
            connection.execute("INSERT INTO metrics VALUES (?, 50, 'score', 'nan'::DOUBLE)", [k])
            connection.execute("INSERT INTO scalars VALUES (?, 'a.weight', ?)", [k, 0.1 * k])


def runs_of(warehouse: Path) -> list[Any]:
    """All that is known of runs but their numbers, and the name of what they learnt."""
    return [
        repr(rows(warehouse, "SELECT * EXCLUDE (run_id, subject_id), (SELECT name FROM subjects s WHERE s.subject_id = r.subject_id) FROM runs r ORDER BY name")),
        *(repr(rows(warehouse, f"SELECT r.name, t.* EXCLUDE (run_id) FROM {table} t JOIN runs r USING (run_id) ORDER BY ALL")) for table in RUN_TABLES[1:]),
    ]  # fmt: skip


def test_runs_go_with_their_metrics_and_scalars_and_find_what_they_learnt(alone, tmp_path):
    plant_runs(alone, "sweep/a", "sweep/b")
    plant_runs(alone, "sweep/c", status="failed")
    plant_runs(alone, "sweep/d", status="running")
    out, other = tmp_path / "out", made(tmp_path / "other.duckdb")
    plant_runs(other, "own/x", spec='{"seed":2}')
    ran = gaussmeter("export", "--all", "-o", out, "-w", alone)
    assert "1 subject, 1 exported; 4 runs, 3 exported, 1 skipped; wrote" in ran.out
    assert "not exported: sweep/d: the run is running" in ran.out
    with duckdb.connect() as plain:
        sql = f"SELECT run, count(*), min(step) FROM '{out}/metrics/*/*.parquet' GROUP BY ALL ORDER BY ALL"
        assert plain.execute(sql).fetchall() == [(f"sweep/{n}", 51, 0) for n in "abc"]
    ran = gaussmeter("import", out, "-w", other)
    assert (ran.code, "1 subject, 1 imported; 3 runs, 3 imported in " in ran.out, ran.err) == (0, True, "")
    whole = runs_of(other)
    change(alone, "DELETE FROM runs WHERE name = 'sweep/d'", "DELETE FROM metrics WHERE run_id = 4",
           "DELETE FROM scalars WHERE run_id = 4")  # fmt: skip
    change(other, *(f"DELETE FROM {t} WHERE run_id = 1" for t in RUN_TABLES))
    assert runs_of(other) == runs_of(alone)
    assert engine.import_(out, warehouse=other).runs[0].status == "unchanged"
    assert len(whole) == 3
    assert [r.status for r in engine.export(None, out, warehouse=alone).runs] == ["unchanged"] * 3
    assert [r.status for r in engine.export(None, out, warehouse=other).runs] == ["unchanged"] * 3
    assert [r.subject for r in engine.export("llama", tmp_path / "one", warehouse=alone).runs] == ["sweep/a"]


def test_a_run_meets_one_of_its_name(alone, tmp_path):
    plant_runs(alone, "s/a", "s/b", "s/c")
    engine.export(["llama"], tmp_path / "llama", warehouse=alone)
    change(alone, "UPDATE subjects SET status = 'running' WHERE name = 'llama'")
    engine.export(None, tmp_path / "out", warehouse=alone)
    change(alone, "UPDATE subjects SET status = 'complete' WHERE name = 'llama'")
    other = made(tmp_path / "other.duckdb")
    plant_runs(other, "s/c", spec='{"seed":7}')
    plant_runs(other, "s/b", status="running")
    ran = gaussmeter("import", tmp_path / "out", "-w", other)
    assert "a run of another configuration has the name 's/c' here" in ran.sentence(3)
    assert rows(other, "SELECT name, status, spec ->> 'seed', subject_id FROM runs ORDER BY name") == [
        ("s/a", "complete", "1", None), ("s/b", "complete", "1", None), ("s/c", "complete", "7", None),
    ]  # fmt: skip
    assert rows(other, "SELECT count(*) FROM metrics") == [(3 * 51,)]
    report = engine.import_(tmp_path / "llama", warehouse=other)  # what it learnt comes later
    assert [(r.subject, r.status) for r in report.runs] == [("s/a", "unchanged")]
    assert rows(other, "SELECT r.name, s.name FROM runs r JOIN subjects s USING (subject_id)") == [
        ("s/a", "llama")
    ]


@pytest.mark.parametrize(
    ("table", "alter", "part"),
    [
        ("metrics", lambda t: t.slice(1), "rows, 51 were expected"),
        ("scalars", lambda t: t.append_column("evil", t["value"]), "'evil' that does not belong"),
        ("runs", with_column("status", first("running")), "'running', which is no end"),
        ("runs", with_column("run", first("other")), "lies in the folder of"),
        ("runs", with_column("spec", first("{")), "a spec that is no JSON"),
    ],
)  # fmt: skip
def test_a_damaged_run_is_refused_and_the_rest_taken_in(alone, tmp_path, table, alter, part):
    plant_runs(alone, "s/a", "s/b")
    change(alone, "DELETE FROM subjects")
    out, other = tmp_path / "out", made(tmp_path / "other.duckdb")
    engine.export(None, out, warehouse=alone)
    (path,) = out.glob(f"{table}/run_key=s-a@*/*")
    whole = parquet.ParquetFile(path).read()
    parquet.write_table(alter(whole).replace_schema_metadata(whole.schema.metadata), path)
    if table != "runs":
        (head,) = out.glob("runs/run_key=s-a@*/*")
        remark(head, lambda m: m["files"][table].update(nbytes=path.stat().st_size))
    report = engine.import_(out, warehouse=other)
    assert sorted(r.status for r in report.runs) == ["imported", "refused"]
    assert part in next(r.reason for r in report.runs if r.status == "refused")
    assert rows(other, "SELECT name FROM runs") == [("s/b",)]
    assert not report.complete


def refuse(warehouse: Path, uri: str, reason: str, day: int) -> None:
    change(warehouse, f"INSERT INTO refusals VALUES ('{uri}', '', '{{}}', 'refused', '{reason}', '0', "
                      f"TIMESTAMP '2026-01-0{day}', TIMESTAMP '2026-01-0{day}')")  # fmt: skip


def test_refusals_of_several_warehouses_come_together(alone, tmp_path):
    out, other, third = tmp_path / "out", *(made(tmp_path / f"{n}.duckdb") for n in ("other", "third"))
    refuse(alone, "/m/a", "cut", 1)
    refuse(alone, "/m/b", "cut", 1)
    ran = gaussmeter("export", "--all", "-o", out, "-w", alone)
    assert "1 exported; refusals exported; wrote" in ran.out
    refuse(other, "/m/a", "gone", 3)
    refuse(other, "/m/c", "empty", 2)
    assert engine.export(None, out, warehouse=other).refusals.status == "exported"
    assert engine.export(None, out, warehouse=other).refusals.status == "unchanged"
    ran = gaussmeter("import", out, "-w", third)
    assert "1 subject, 1 imported; 3 refusals in " in ran.out
    found = "SELECT uri, reason, day(first_at), day(last_at) FROM refusals ORDER BY uri"
    expected = [("/m/a", "gone", 1, 3), ("/m/b", "cut", 1, 1), ("/m/c", "empty", 2, 2)]
    assert rows(third, found) == expected
    assert engine.import_(out, warehouse=third).refusals == 0
    assert rows(third, found) == expected
    # what was taken in since is refused no more
    change(alone, "UPDATE subjects SET uri = '/m/b', finished_at = '2026-02-01'",
           "DELETE FROM refusals WHERE uri = '/m/b'")  # fmt: skip
    engine.import_(out, warehouse=alone)
    assert [uri for uri, *_ in rows(alone, found)] == ["/m/a", "/m/c"]
    (out / "refusals" / "refusals.parquet").write_text("hello " * 9)
    ran = gaussmeter("import", out, "-w", third)
    assert "refusals.parquet: is no Parquet file" in ran.sentence(3)
    assert engine.export(None, out, warehouse=alone).refusals.status == "exported"


# The command line


def test_what_the_commands_say(template, tmp_path):
    out = tmp_path / "out"
    ran = gaussmeter("export", "llama", "tied", "-o", out, "-w", template)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{out}: 2 subjects, 2 exported; wrote ")
    ran = gaussmeter("export", "--all", "-o", out, "-w", template, "--format", "json")
    assert [s["status"] for s in json.loads(ran.out)["subjects"]] == ["exported", "unchanged", "unchanged"]
    assert gaussmeter("export", "--all", "-o", out, "-w", template, "--quiet").out == ""
    of(out, "bins").unlink()
    ran = gaussmeter("import", out, "-w", tmp_path / "new.duckdb")
    assert "export it again" in ran.sentence(3)
    assert ran.out.startswith(f"{out}: 3 subjects, 2 imported, 1 refused in ")
    ran = gaussmeter("import", out, "-w", tmp_path / "new.duckdb", "--format", "json")
    assert (ran.code, len(json.loads(ran.out)["subjects"])) == (3, 3)


@pytest.mark.parametrize(
    ("words", "part"),
    [(["export", "-o", "out"], "--all"), (["export", "llama", "--all", "-o", "out"], "--all"), (["export", "nobody", "-o", "out"], "'nobody'"),
     (["export", "llama", "-o", "none/out"], "none: there is no such directory"), (["export", "llama", "-o", "w.duckdb"], "is no directory"),
     (["export", "llama", "-o", "hf://a/b"], "hf://a/b"), (["export", "llama", "-o", "out", "--format", "csv"], "table or json"),
     (["import", "none"], "none: there is no such directory"), (["import", "."], "holds no subject"), (["import", "https://example.com/x"], "https://")],
)  # fmt: skip
def test_wrong_use(warehouse, tmp_path, words, part):
    assert part in gaussmeter(*words, "-w", warehouse, cwd=tmp_path).sentence(2)
    assert [p.name for p in tmp_path.iterdir()] == ["w.duckdb"]


def test_a_scan_that_is_not_finished_is_not_exported(warehouse, tmp_path):
    change(warehouse, "UPDATE subjects SET status = 'running', name = 'ti' WHERE name = 'tied'",
           "UPDATE subjects SET name = 'tied-too' WHERE name = 'llama'")  # fmt: skip
    for word in ("ti", "3"):
        assert "'ti' (subject 3) is not finished" in gaussmeter(
            "export", word, "-o", "out", "-w", warehouse, cwd=tmp_path
        ).sentence(2)
    ran = gaussmeter("export", "--all", "-o", "out", "-w", warehouse, cwd=tmp_path)
    assert (ran.code, "not exported: ti: its scan is not finished" in ran.out) == (0, True)
    assert len(list(tmp_path.glob("out/subjects/*"))) == 2


# Buckets


def test_there_and_back_through_a_bucket(bucket, template, out, other, tmp_path):  # noqa: F811
    place = f"s3://{bucket.name}/results/v1"
    assert statuses(engine.export(None, place, warehouse=template)) == ["exported"] * 3
    report = engine.export(None, f"{place}/", warehouse=template)
    assert (statuses(report), report.nbytes_written, report.out) == (["unchanged"] * 3, 0, place)
    listed = bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"]
    assert {o["Key"].removeprefix("results/v1/"): o["Size"] for o in listed} == {
        str(p.relative_to(out)): p.stat().st_size for p in out.rglob("*.parquet")
    }
    assert_imports_all(template, place, other)
    bucket.client.delete_object(
        Bucket=bucket.name, Key=next(o["Key"] for o in listed if "/bins/" in o["Key"])
    )
    assert gaussmeter("import", place, "-w", tmp_path / "new.duckdb").code == 3
    assert sorted(statuses(engine.export(None, place, warehouse=template))) == [
        "exported",
        "unchanged",
        "unchanged",
    ]


def test_a_bucket_that_is_not_there(bucket, template, out):  # noqa: F811
    with pytest.raises((ConfigError, TaskError), match=f"no-{bucket.name}"):
        engine.export(None, f"s3://no-{bucket.name}/x", warehouse=template)
    assert f"s3://no-{bucket.name}" in gaussmeter("import", f"s3://no-{bucket.name}/x").sentence(2)
