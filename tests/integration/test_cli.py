"""The command line: exit codes, one sentence for every failure, forms of output, and what it does not load."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
import unicodedata
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet
import pytest
import typer.main

import engine
from engine.cli.app import app
from engine.verbs import look as looking
from tests.builders import Tensors, f32, pack, pack_tensors, write, write_sharded, write_tensors
from tests.integration.helpers import (
    Ran,
    environment,
    finish,
    gaussmeter,
    llama,
    made,
    no_file_added,
    normal,
    process,
    program,
    rows,
    start,
    subjects,
)

COMMANDS = [
    "scan", "check", "delta", "merge", "edit", "verify", "pack", "export", "import", "job", "ls", "show", "compare", "nearest", "sql", "paper", "tune",
    "simulate", "plot", "report",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A directory with a model, one in shards, and a warehouse that both are in."""
    folder = tmp_path_factory.mktemp("cli")
    write_tensors(folder / "model.safetensors", llama(2) | {"ids": ("I64", np.arange(5))})
    write_sharded(folder / "shards", llama(1), {"lm_head.weight": normal("F32", 48, 16)})
    assert gaussmeter("scan", "model.safetensors", "--name", "model", "shards", cwd=folder).code == 2
    assert gaussmeter("scan", "model.safetensors", "--name", "llama", cwd=folder).code == 0
    assert gaussmeter("scan", "shards", cwd=folder).code == 0
    return folder


def run(folder: Path, *words: object) -> Ran:
    return gaussmeter(*words, cwd=folder)


def lines(ran: Ran) -> list[str]:
    assert (ran.code, ran.err) == (0, "")
    return ran.out.splitlines()


# Bad input: an exit code and one sentence


def bad_inputs(folder: Path) -> None:
    """Everything that the cases name, in a directory."""
    good = pack_tensors({"a": f32(1, 2, 3)})
    write(folder / "good.safetensors", good)
    write(folder / "truncated.safetensors", good[:-1])
    write(folder / "longer.safetensors", good + b"x")
    write(folder / "empty.safetensors", b"")
    write(folder / "short.safetensors", b"1234567")
    write(folder / "huge_header.safetensors", pack("{}", length=1 << 60))
    write(folder / "header_beyond.safetensors", pack("{}", length=1000))
    write(folder / "not_json.safetensors", pack("{'a': 1}"))
    write(folder / "not_utf8.safetensors", pack(b'{"\xff": 1}'))
    write(folder / "list.safetensors", pack([]))
    write(folder / "twice.safetensors", pack('{"a": 1, "a": 2}'))
    write(
        folder / "dtype.safetensors",
        pack({"a": {"dtype": "F128", "shape": [1], "data_offsets": [0, 16]}}, b"0" * 16),
    )
    write(folder / "weights.bin", b"PK\x03\x04")
    (folder / "empty").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "x.safetensors").symlink_to("nowhere")
    (folder / "loop.safetensors").symlink_to("loop.safetensors")
    write_sharded(folder / "no_shard", {"a": f32(1)}, {"b": f32(2)})
    (folder / "no_shard" / "model-00001-of-00002.safetensors").unlink()
    write_sharded(folder / "no_tensor", {"a": f32(1)}, weight_map={"b": "model-00001-of-00001.safetensors"})
    write_sharded(folder / "outside", {"a": f32(1)}, weight_map={"a": "../good.safetensors"})
    write(folder / "bad_index" / "model.safetensors.index.json", b"{")
    write(folder / "query.sql", b"SELECT nosuch FROM tensors")
    write(folder / "latin1.sql", "SELECT 'é'".encode("latin-1"))
    engine.scan(folder / "good.safetensors", warehouse=folder / "stats.duckdb")


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    bad_inputs(folder)
    return folder


BAD = {
    # command: what the sentence must say
    "scan nothing": "nothing: there is no such file or directory",
    "scan truncated.safetensors": "is truncated",
    "scan longer.safetensors": "is too long",
    "scan empty.safetensors": "has 0 bytes",
    "scan short.safetensors": "has 7 bytes",
    "scan huge_header.safetensors": "over the limit",
    "scan header_beyond.safetensors": "claims a header of 1,000 bytes",
    "scan not_json.safetensors": "is not JSON",
    "scan not_utf8.safetensors": "is not UTF-8",
    "scan list.safetensors": "expected an object",
    "scan twice.safetensors": "occurs twice",
    "scan dtype.safetensors": "unknown dtype 'F128'",
    "scan weights.bin": "is no whole zip archive",
    "scan empty": "has no *.safetensors file",
    "scan broken": "x.safetensors",
    "scan loop.safetensors": "loop.safetensors",
    "scan no_shard": "model-00001-of-00002.safetensors",
    "scan no_tensor": "tensor 'b'",
    "scan outside": "outside its directory",
    "scan bad_index": "is not JSON",
    "scan ftp://bucket/model": "ftp:// is no store",
    "scan ~no-such-user/x": "",
    "scan " + "x" * 300: "",
    "scan good.safetensors --chunk-size 0": "multiple of 8",
    "scan good.safetensors --chunk-size 12": "multiple of 8",
    "scan good.safetensors --chunk-size -8": "--chunk-size takes a size",
    "scan good.safetensors --chunk-size 1.5XB": "--chunk-size takes a size",
    "scan good.safetensors --chunk-size nan": "--chunk-size takes a size",
    "scan good.safetensors --task-size 0": "must be positive",
    "scan good.safetensors --task-size 0.5": "must be positive",
    "scan good.safetensors --task-size -1": "--task-size takes a size",
    "scan good.safetensors --memory 1KB": "over the limit",
    "scan good.safetensors --memory much": "--memory takes a size",
    "scan good.safetensors --include nothing": "no tensor of 1 matches",
    "scan good.safetensors --exclude *": "no tensor of 1 is left without",
    "scan good.safetensors -f csv": "not csv",
    "scan good.safetensors -f parquet": "not parquet",
    "scan good.safetensors empty --name two": "--name",
    "scan good.safetensors --dry-run --memory 1KB": "over the limit",
    f"scan good.safetensors --memory {'9' * 310}": "--memory takes a size",
    "scan nothing --dry-run": "there is no such file or directory",
    "check nothing": "nothing",
    "check empty": "has no *.safetensors file",
    "check good.safetensors --ignore everything": "'everything'",
    "check ~no-such-user/x": "",
    "check " + "x" * 300: "",
    "ls -w nothing.duckdb": "there is no such warehouse",
    "show nothing": "no subject goes by 'nothing'; there are: good",
    "show 7": "there are: good",
    "show ~no-such-user": "",
    "show " + "x" * 300: "",
    "show good -w nothing.duckdb": "there is no such warehouse",
    "sql": "--list",
    "sql nothing": "there is no query 'nothing'",
    "sql heaviest_tail": "did you mean heaviest_tails?",
    "sql nothing.sql": "No such file",
    "sql query.sql": "nosuch",
    "sql latin1.sql": "cannot be read",
    "sql SELEC+1": "syntax error",
    "sql SELECT+error('boom')": "boom",
    "sql SELECT+$x": "x",
    "sql SELECT+$x -p x": "NAME=VALUE",
    "sql SELECT+$x -p =1": "NAME=VALUE",
    "sql SELECT+$x -p y=1": "y",
    "sql heaviest_tails -p nothing=1": "'nothing'",
    "sql heaviest_tails -p limit=many": "must be a number",
    "sql heaviest_tails -p limit=-1": "",
    "sql SELECT+*+FROM+nosuch": "nosuch",
    "sql +": "",
    "sql -- --+": "",
    "sql ;+": "",
    "sql SELECT+'\udcff'": "",
    "sql SELECT+$x -p x=\udcff": "",
    "paper table99": "there is no table 'table99'",
    "paper table1 -w nothing.duckdb": "there is no such warehouse",
}  # fmt: skip


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(bad, command):
    # Among them: what Path.expanduser, Path.exists and Path.is_dir raise on, queries that leave no cursor, and
    # words that are not UTF-8.
    words = [word.replace("+", " ") for word in command.split(" ")]
    before = (bad / "stats.duckdb").read_bytes()
    with no_file_added(bad):
        ran = gaussmeter(*words, cwd=bad)
    assert BAD[command] in ran.sentence(2)
    assert ran.out == ""
    assert (bad / "stats.duckdb").read_bytes() == before


USAGE = [
    [], ["nothing"], ["scan"], ["scan", "x", "--nothing"], ["scan", "x", "--workers", "0"], ["check"],
    ["scan", "x", "--workers", "-3"], ["scan", "x", "--workers", "many"], ["scan", "x", "--format", "xml"],
    ["check", "x", "--max-magnitude", "big"], ["show"], ["show", "x", "--by", "column"], ["paper"],
    ["ls", "x"], ["sql", "SELECT 1", "--format", "xml"], ["--nothing"],
]  # fmt: skip


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_wrong_use_is_exit_code_2(folder, words):
    ran = run(folder, *words)
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert ("Usage" in ran.err) or not words


def test_in_a_process_of_its_own_it_is_the_same(bad):
    assert process("scan", "truncated.safetensors", cwd=bad).sentence(2).endswith("the header describes 82")


def test_debug_shows_where_it_failed(bad):
    ran = process("--debug", "scan", "truncated.safetensors", cwd=bad)
    assert ran.code == 2
    assert "Traceback (most recent call last)" in ran.err
    assert ran.err.splitlines()[-1].startswith("engine.errors.FormatError: ")


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), KeyError("x"), EOFError(), BrokenPipeError(), OSError()], ids=repr
)
def test_what_nobody_foresaw_is_no_answer(folder, monkeypatch, error):
    # Python ends with 1, and so does typer after some of them; that would be "the answer is no".
    monkeypatch.setattr(looking, "ls", Mock(side_effect=error))
    ran = run(folder, "--debug", "ls")
    assert ran.code == 3
    assert "Traceback (most recent call last)" in ran.err
    assert type(error).__name__ in ran.err


def test_a_command_without_a_sentence_of_its_own_says_that_it_was_stopped(folder, monkeypatch):
    # typer ends without a word.
    monkeypatch.setattr(looking, "ls", Mock(side_effect=KeyboardInterrupt))
    assert run(folder, "ls").sentence(130) == "interrupted"


def test_a_directory_among_the_shards_is_bad_input(tmp_path):
    # A directory can be opened like a file; only its reading fails.
    (tmp_path / "x.safetensors").mkdir()
    assert gaussmeter("scan", tmp_path, "-w", tmp_path / "w.duckdb").sentence(2)


@pytest.mark.parametrize("command", ["scan", "check"])
def test_a_pipe_among_the_shards_is_not_waited_for(tmp_path, command):
    # Opening a FIFO waits for somebody to write into it, forever.
    write_tensors(tmp_path / "a.safetensors", {"a": f32(1)})
    os.mkfifo(tmp_path / "b.safetensors")
    waiting = start(["-m", "engine", command, tmp_path, "-w", tmp_path / "w.duckdb"])
    try:
        _, err = waiting.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        pytest.fail("it waits")
    finally:
        waiting.kill()
        waiting.communicate()
    assert waiting.returncode in (1, 2)
    assert "Traceback" not in err


# Several checkpoints


def test_a_bad_one_in_the_middle_does_not_stop_the_others(bad, tmp_path):
    write_tensors(tmp_path / "one.safetensors", {"a": f32(1, 2)})
    write_tensors(tmp_path / "two.safetensors", {"a": f32(3, 4)})
    names = ("one.safetensors", bad / "truncated.safetensors", "nothing", "two.safetensors")
    ran = gaussmeter("scan", *names, cwd=tmp_path)
    assert ran.code == 3
    assert [line.split(":")[0] for line in ran.out.splitlines()] == ["one", "two"]
    told = ran.err.splitlines()
    assert len(told) == 3
    assert all(line.startswith("gaussmeter: ") for line in told[:2])
    assert "truncated.safetensors: is truncated" in told[0]
    assert "nothing: there is no such file" in told[1]
    assert told[2] == "2 of 4 could not be scanned"
    assert [s[1:] for s in subjects(tmp_path / "stats.duckdb")] == [("one", "complete"), ("two", "complete")]


def test_in_json_every_checkpoint_has_its_record(bad, tmp_path):
    write_tensors(tmp_path / "one.safetensors", {"a": f32(1, 2)})
    ran = gaussmeter("scan", "one.safetensors", bad / "truncated.safetensors", "-f", "json", cwd=tmp_path)
    assert ran.code == 3
    good, failed = json.loads(ran.out)
    assert (good["name"], good["status"], good["nbytes_read"]) == ("one", "scanned", 8)
    assert (failed["status"], failed["uri"]) == ("failed", str(bad / "truncated.safetensors"))
    assert "is truncated" in failed["error"]


def test_quiet_says_only_what_failed(bad, tmp_path):
    write_tensors(tmp_path / "one.safetensors", {"a": f32(1, 2)})
    ran = gaussmeter("scan", "one.safetensors", "-q", cwd=tmp_path)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    ran = gaussmeter("scan", "one.safetensors", "nothing", "-q", cwd=tmp_path)
    assert (ran.code, ran.out) == (3, "")
    assert "nothing" in ran.err


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are always UTF-8")
def test_a_path_that_is_not_utf8_does_not_stop_the_others(tmp_path):
    # Such a place cannot be stored as it is.
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff"))
    odd.mkdir()
    paths = [tmp_path / "a.safetensors", odd / "m.safetensors", tmp_path / "c.safetensors"]
    for path in paths:
        write_tensors(path, {"a": f32(1, 2)})
    assert gaussmeter("scan", *paths, "-w", tmp_path / "w.duckdb").code in (0, 3)
    assert {s[1] for s in subjects(tmp_path / "w.duckdb")} >= {"a", "c"}
    assert gaussmeter("check", odd).code in (0, 2)


# Dry runs


def test_a_dry_run_says_what_would_be_done_and_does_nothing(folder, tmp_path):
    ran = None
    with no_file_added(tmp_path):
        ran = gaussmeter(
            "scan", folder / "model.safetensors", "--dry-run", "-j", 3, "--task-size", "1KiB", cwd=tmp_path
        )
    plan = engine.dry_run(folder / "model.safetensors", workers=3, task_bytes=1024)
    first, *rest = lines(ran)
    assert str(folder / "model.safetensors") in first
    told = {line.split()[0]: line for line in rest}
    assert list(told) == ["tensors", "bytes", "tasks", "memory"]
    assert f"{plan.tensors} to count, 1 to list" in told["tensors"]
    assert "5.7 kB in 1 file" in told["bytes"]
    assert told["tasks"].split()[1].rstrip(",") == str(plan.tasks)
    assert "3 at a time" in told["tasks"]
    assert f"{plan.projected_bytes / 2**20:,.0f} MiB" in told["memory"]


def test_a_dry_run_in_json(folder, tmp_path):
    with no_file_added(tmp_path):
        ran = gaussmeter(
            "scan", folder / "model.safetensors", folder / "shards", "--dry-run", "-f", "json", cwd=tmp_path
        )
    one, two = json.loads(ran.out)
    assert (one["tensors"], one["listed"], one["files"], two["files"]) == (len(llama(2)), 1, 1, 2)
    assert one["nbytes"] == sum(a.nbytes for _, a in llama(2).values())
    assert one["projected_bytes"] > 100e6


def test_more_workers_than_tasks_need_no_more_memory(folder):
    # Most workers will never get a task, and need no tables.
    few, many = (engine.dry_run(folder / "model.safetensors", workers=n) for n in (few_tasks(folder), 1000))
    assert many.projected_bytes == few.projected_bytes


def few_tasks(folder: Path) -> int:
    return engine.dry_run(folder / "model.safetensors", workers=1).tasks


# Forms of output


def test_ls_lists_what_was_scanned(folder):
    header, *rest = lines(run(folder, "ls"))
    assert header.split()[:3] == ["id", "name", "kind"]
    assert [line.split()[:2] for line in rest] == [["1", "llama"], ["2", "shards"]]
    told = json.loads(run(folder, "ls", "-f", "json").out)
    assert [(r["id"], r["status"], r["tensors"]) for r in told] == [(1, "complete", 12), (2, "complete", 7)]
    assert told[0]["uri"] == str(folder / "model.safetensors")


@pytest.mark.parametrize(("by", "count", "columns"), [
    ("subject", 1, {"subject", "tensors", "ratio_3s"}),
    ("layer", 3, {"layer", "matrices", "kurtosis_3s"}),
    ("role", 7, {"role", "std"}),
    ("tensor", 12, {"name", "shape", "reason"}),
])  # fmt: skip
def test_show_by_each(folder, by, count, columns):
    table = lines(run(folder, "show", "llama", "--by", by))
    assert len(table) == 1 + count
    assert columns <= set(table[0].split())
    records = json.loads(run(folder, "show", "llama", "--by", by, "-f", "json").out)
    assert len(records) == count
    assert columns <= set(records[0])
    parsed = list(csv.DictReader(io.StringIO(run(folder, "show", "1", "--by", by, "-f", "csv").out)))
    assert [list(r) for r in parsed] == [list(r) for r in records]
    assert (
        engine.show("llama", by=by, warehouse=folder / "stats.duckdb").records()[0].keys()
        == records[0].keys()
    )


def test_show_is_by_layer_unless_told(folder):
    assert run(folder, "show", "llama").out == run(folder, "show", "llama", "--by", "layer").out


@pytest.mark.parametrize("wanted", ["llama", "1", "ll", "LLA", "model.safetensors", "./model.safetensors"])
def test_a_subject_by_number_name_beginning_or_place(folder, wanted):
    assert (
        run(folder, "show", wanted, "--by", "subject").out == run(folder, "show", "1", "--by", "subject").out
    )


def test_names_that_begin_alike_are_asked_back(tmp_path):
    made(tmp_path / "stats.duckdb")
    for name in ("base-7b", "base-13b"):
        write_tensors(tmp_path / f"{name}.safetensors", {"a": f32(1, 2)})
    assert gaussmeter("scan", "base-7b.safetensors", "base-13b.safetensors", cwd=tmp_path).code == 0
    assert "could be base-13b, base-7b" in gaussmeter("show", "base", cwd=tmp_path).sentence(2)
    assert gaussmeter("show", "base-7b", cwd=tmp_path).code == 0


def test_numbers_in_machine_forms_are_exact(folder):
    query = "SELECT mean, m2, n, shape, reason FROM tensor_stats ORDER BY tensor_id"
    expected = engine.sql(query, warehouse=folder / "stats.duckdb").records()
    assert json.loads(run(folder, "sql", query, "-f", "json").out) == expected
    parsed = list(csv.DictReader(io.StringIO(run(folder, "sql", query, "-f", "csv").out)))
    assert [float(r["mean"]) if r["mean"] else None for r in parsed] == [r["mean"] for r in expected]


@pytest.mark.parametrize(
    "words", [["ls"], ["show", "llama", "--by", "tensor"], ["paper", "table5"], ["sql", "--list"]]
)
def test_parquet_is_readable(folder, tmp_path, words):
    assert lines(run(folder, *words, "-f", "parquet", "-o", tmp_path / "out.parquet")) == []
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    expected = json.loads(run(folder, *words, "-f", "json").out)
    assert (table.num_rows, table.column_names) == (len(expected), list(expected[0]))


def test_parquet_can_be_piped(folder):
    command = [sys.executable, "-m", "engine", "ls", "-f", "parquet"]
    piped = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, check=True)
    assert pyarrow.parquet.read_table(io.BytesIO(piped.stdout)).num_rows == 2


def test_parquet_of_nothing_is_readable(folder, tmp_path):
    empty = "SELECT name, n FROM tensors WHERE false"
    assert run(folder, "sql", empty, "-f", "parquet", "-o", tmp_path / "out.parquet").code == 0
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").column_names == ["name", "n"]


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_output_goes_into_a_file(folder, tmp_path, form):
    printed = run(folder, "ls", "-f", form).out
    assert run(folder, "ls", "-f", form, "-o", tmp_path / "out").out == ""
    assert (tmp_path / "out").read_text() == printed


def test_a_file_that_cannot_be_written_is_one_sentence(folder, tmp_path):
    for place in (tmp_path, tmp_path / "no" / "such", "/dev/full"):
        assert str(place) in run(folder, "ls", "-f", "csv", "-o", place).sentence(3)


def test_an_answer_of_nothing_has_its_header(folder):
    empty = "SELECT name, n FROM tensors WHERE false"
    assert lines(run(folder, "sql", empty)) == ["name  n"]
    assert run(folder, "sql", empty, "-f", "csv").out == "name,n\n"
    assert run(folder, "sql", empty, "-f", "json").out == "[]\n"


VALUES = """SELECT NULL AS a, true AS b, 1.5 AS c, 'nan'::DOUBLE AS d, '-inf'::DOUBLE AS e, [1, 2] AS f, {'x': 1} AS g,
DATE '2026-01-02' AS h, 'a,b"c' AS i, 9223372036854775807::HUGEINT AS j, '\\x01'::BLOB AS k,
INTERVAL 1 DAY AS l, 0.1::DECIMAL(5, 2) AS m, 'é😀' AS n, '7b2f6c1a-9a0c-4d5e-8f3b-1c2d3e4f5a6b'::UUID AS o,
MAP {'k': 1} AS p, [18446744073709551616::HUGEINT] AS q, [uuid()] AS r"""


@pytest.mark.parametrize("form", ["table", "csv", "json", "parquet"])
def test_every_kind_of_value_can_be_printed(folder, tmp_path, form):
    ran = run(folder, "sql", VALUES, "-f", form, "-o", tmp_path / "out")
    assert (ran.code, ran.err) == (0, "")
    if form == "parquet":
        (record,) = pyarrow.parquet.read_table(tmp_path / "out").to_pylist()
        assert (record["n"], str(record["o"])[:8], record["q"]) == ("é😀", "7b2f6c1a", f"[{2**64}]")
    if form == "json":
        (record,) = json.loads((tmp_path / "out").read_text())
        assert (record["a"], record["b"], record["c"], record["d"], record["e"]) == (
            None,
            True,
            1.5,
            None,
            None,
        )
        assert (record["f"], record["i"], record["j"], record["n"]) == ([1, 2], 'a,b"c', 2**63 - 1, "é😀")


def test_whole_numbers_of_any_size_can_be_printed(folder, tmp_path):
    # sum() of DuckDB is a HUGEINT, and Arrow's integers end at 64 bits.
    huge = "SELECT sum(18446744073709551615::UBIGINT) AS n FROM range(2)"
    for form in ("table", "csv", "json", "parquet"):
        assert run(folder, "sql", huge, "-f", form, "-o", tmp_path / form).code == 0
    assert json.loads((tmp_path / "json").read_text()) == [{"n": 2 * (2**64 - 1)}]


def test_columns_of_one_name_are_all_there(folder):
    assert json.loads(run(folder, "sql", "SELECT 1 AS x, 2 AS x", "-f", "json").out) == [{"x": 1, "x_2": 2}]
    assert run(folder, "sql", "SELECT 1 AS x, 2 AS x", "-f", "csv").out == "x,x\n1,2\n"


# sql


def test_a_query_by_name_and_its_parameters(folder):
    whole = json.loads(run(folder, "sql", "heaviest_tails", "-f", "json").out)
    some = json.loads(
        run(folder, "sql", "heaviest_tails", "-p", "limit=2", "--param", "subject=llama", "-f", "json").out
    )
    assert len(some) == 2 < len(whole)
    assert {r["subject"] for r in some} == {"llama"}


def test_a_query_in_a_file_and_its_parameters(folder, tmp_path):
    query = tmp_path / "q.sql"
    query.write_text(
        "-- How many?\n-- param least = 5: elements\nSELECT count(*) AS k FROM tensors WHERE n >= $least"
    )
    assert run(folder, "sql", query, "-f", "csv").out == "k\n19\n"
    assert run(folder, "sql", query, "-p", "least=700", "-f", "csv").out == "k\n3\n"
    assert "least" in run(folder, "sql", query, "-p", "most=700").sentence(2)


@pytest.mark.parametrize(
    "text",
    ["SELECT\t1 AS k", "SELECT\n1 AS k", "  SELECT 1 AS k  ", "SELECT/**/1 AS k;", "FROM(SELECT(1)AS k)"],
)
def test_sql_is_sql_however_it_is_spaced(folder, text):
    assert run(folder, "sql", text, "-f", "csv").out == "k\n1\n"


@pytest.mark.parametrize("name", ["my query.sql", "sub dir/q.sql", "Q.SQL"])
def test_a_query_file_may_have_any_name(folder, tmp_path, name):
    write(tmp_path / name, b"SELECT 1 AS k")
    assert gaussmeter("sql", name, "-w", folder / "stats.duckdb", "-f", "csv", cwd=tmp_path).out == "k\n1\n"


def test_parameters_of_typed_sql(folder):
    ran = run(
        folder,
        "sql",
        "SELECT $a + 1 AS a, $b AS b, $c AS c",
        "-p",
        "a=41",
        "-p",
        "b=x=y z",
        "-p",
        "c=null",
        "-f",
        "json",
    )
    assert json.loads(ran.out) == [{"a": 42, "b": "x=y z", "c": None}]


def test_what_is_typed_is_a_number_where_one_is_wanted(folder, tmp_path):
    query = tmp_path / "q.sql"
    query.write_text(
        "-- What?\n-- param word = NULL: a word\n-- param least = 5: a number\nSELECT $word AS word, $least AS least"
    )
    for word in ("007", "1e5", "1_0", "7"):
        ran = run(folder, "sql", query, "-p", f"word={word}", "-p", "least=1e3", "-f", "json")
        assert json.loads(ran.out) == [{"word": word, "least": 1000}]
        ran = run(folder, "sql", "SELECT $word AS word", "-p", f"word={word}", "-f", "json")
        assert json.loads(ran.out) == [{"word": {"1e5": 100000, "7": 7}.get(word, word)}]
    assert json.loads(run(folder, "sql", query, "-p", "word=Null", "-f", "json").out)[0]["word"] is None
    assert "must be a number, not '007'" in run(folder, "sql", query, "-p", "least=007").sentence(2)


def test_the_list_has_every_query_with_its_question(folder, tmp_path):
    told = json.loads(gaussmeter("sql", "--list", "-f", "json", cwd=tmp_path).out)
    files = sorted(p.stem for p in (Path(__file__).parents[2] / "sql" / "queries").glob("*.sql"))
    assert [q["query"] for q in told] == files
    assert all(q["question"].endswith("?") for q in told)


# paper


def test_the_papers_first_table(folder):
    table = json.loads(run(folder, "paper", "table1", "-f", "json").out)
    assert [(r["subject"], r["matrices"]) for r in table] == [("llama", 9), ("shards", 6)]
    assert all(95 < r["ratio_percent"] <= 100 for r in table)
    assert [
        r["subject"]
        for r in json.loads(run(folder, "paper", "table1", "--subject", "shards", "-f", "json").out)
    ] == ["shards"]


def test_the_papers_fifth_table(folder):
    table = json.loads(run(folder, "paper", "table5", "--subject", "llama", "-f", "json").out)
    assert len(table) == 9
    assert {"layer", "module", "kurtosis_3s", "kurtosis_3s_floor", "ratio_3s", "small_ratio"} <= set(table[0])
    assert table[0]["module"] == "mlp.down_proj"


def test_a_table_of_a_subject_that_is_not_there_is_wrong_use(folder):
    for table in ("table1", "table5"):
        assert "nothing" in run(folder, "paper", table, "--subject", "nothing").sentence(2)


# Help


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_has_help(folder, command, option):
    ran = run(folder, command, option)
    assert (ran.code, ran.err) == (0, "")
    assert f"Usage: gaussmeter {command}" in ran.out


def test_every_command_and_option_says_what_it_is_for(folder):
    assert sorted(c.name or c.callback.__name__ for c in app.registered_commands) == sorted(COMMANDS)
    for name, command in typer.main.get_command(app).commands.items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), (name, parameter.name)
        assert name in run(folder, "--help").out


def test_defaults_in_the_help_are_not_eaten(folder):
    # Rich takes what stands in brackets for markup.
    assert "256MiB" in run(folder, "scan", "--help").out


def test_the_version(folder):
    assert lines(run(folder, "--version")) == [f"gaussmeter {engine.__version__}"]


# Pipes


def broken(folder: Path, *words: object) -> Ran:
    """Run a command whose reader has gone before it says anything."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return finish(start(["-m", "engine", *words], cwd=folder, stdout=writing))
    finally:
        os.close(writing)


@pytest.mark.parametrize(
    "words",
    [["ls"], ["sql", "FROM range(100000)", "-f", "csv"], ["scan", "shards"], ["--help"]],
    ids=str,
)
def test_a_reader_that_has_gone_is_no_error(folder, words):
    # Left to itself, typer exits with 1 there, which means that the answer is no.
    ran = broken(folder, *words)
    assert ran.err == ""
    assert ran.code == 0


def test_head_takes_what_it_wants(folder):
    writer = start(["-m", "engine", "sql", "FROM range(300000) t(i)"], cwd=folder)
    assert writer.stdout.readline().strip() == "i"
    writer.stdout.close()
    assert writer.stderr.read() == ""
    assert writer.wait(30) == 0
    writer.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("words", [["ls", "-f", "json"], ["--version"], ["--help"]], ids=str)
def test_output_that_cannot_be_written_is_one_sentence(folder, words):
    with Path("/dev/full").open("w") as full:
        assert "No space left on device" in finish(
            start(["-m", "engine", *words], cwd=folder, stdout=full)
        ).sentence(3)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_where_nothing_can_be_said_the_exit_code_tells(folder):
    with Path("/dev/full").open("w") as full:
        assert finish(start(["-m", "engine", "show", "nothing"], cwd=folder, stderr=full)).code == 2


def test_no_output_at_all_is_no_traceback(folder):
    # There sys.stdout is None.
    closed = [
        "-c",
        "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])",
        "-m",
        "engine",
        "ls",
    ]
    assert "Traceback" not in finish(start(closed, cwd=folder)).err


@pytest.mark.parametrize("encoding", ["latin-1"])
def test_a_terminal_that_lacks_characters_gets_others(folder, encoding):
    settings = environment(PYTHONIOENCODING=encoding)
    ran = finish(start(["-m", "engine", "sql", "SELECT '模型' AS name, 7 AS n"], cwd=folder, env=settings))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[1].split()[-1] == "7"


# Hostile names


NAMES = [
    "it's", 'a "quoted" one', "new\nline", "re\rturn", "tab\there", "esc\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b31m",
    "nul\0", "back\x08\x08\x08", "del\x7f", "rtl\u202eabc\u202c", "zero\u200bwidth", "line\u2028separator", "😀", "模型.权重",
    "e\u0301", "ﬀ", "[bold]markup[/bold]", "{braces}", "%s %n", "$(reboot)", "'; DROP TABLE bins; --", "../../etc/passwd",
    "", " ", "L" * 10_240, "a,b;c\t|d", "\\", "NULL", "\ufeffbom", "\U000e0001tag",
]  # fmt: skip


def hostile() -> Tensors:
    return {name: normal("BF16", 4, 4, seed=k) for k, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    write_tensors(folder / "m.safetensors", hostile())
    ran = gaussmeter("scan", "m.safetensors", cwd=folder)
    assert (ran.code, ran.err) == (0, "")
    return folder


def raw_controls(text: str) -> set[str]:
    """Characters that would do something to a terminal."""
    return {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")}


def test_names_come_through_unchanged_to_machines(hostile_folder):
    told = json.loads(run(hostile_folder, "show", "m", "--by", "tensor", "-f", "json").out)
    assert [r["name"] for r in told] == NAMES
    assert rows(hostile_folder / "stats.duckdb", "SELECT name FROM tensors ORDER BY ordinal") == [
        (n,) for n in NAMES
    ]


def test_names_come_through_csv(hostile_folder):
    # A carriage return must be quoted, or it begins a new row.
    text = run(hostile_folder, "show", "m", "--by", "tensor", "-f", "csv").out
    assert [r["name"] for r in csv.DictReader(io.StringIO(text, newline=""))] == NAMES


def test_names_cannot_write_to_the_terminal(hostile_folder):
    table = lines(run(hostile_folder, "show", "m", "--by", "tensor"))
    assert len(table) == 1 + len(NAMES)
    assert raw_controls("\n".join(table)) == set()
    found = run(hostile_folder, "sql", "SELECT name FROM tensors").out
    assert raw_controls(found) == set()
    assert "\\x1b[31mred" in found


def test_names_can_be_asked_for(hostile_folder):
    for name in ("it's", "esc\x1b[31mred\x1b[0m", "'; DROP TABLE bins; --", "nul\0"):
        (row,) = engine.sql(
            "SELECT n FROM tensor_stats WHERE name = $name", warehouse=hostile_folder / "stats.duckdb",
            params={"name": name},
        ).rows  # fmt: skip
        assert row == (16,)


def test_names_can_be_selected(hostile_folder, tmp_path):
    path = hostile_folder / "m.safetensors"
    report = engine.scan(path, warehouse=tmp_path / "w.duckdb", include=["esc\x1b*", "it's", "😀", "L*"])
    assert report.tensors == 4


@pytest.mark.parametrize("name", ["esc\x1b[31mred\nrtl\u202e \x9b31m", "7", "it's 😀" * 500])
def test_a_subjects_name_cannot_write_to_the_terminal(tmp_path, name):
    write_tensors(tmp_path / "m.safetensors", {"a": f32(1, 2)})
    made(tmp_path / "stats.duckdb")
    outputs = []
    for words in (["scan", "m.safetensors", "--name", name], ["scan", "m.safetensors"], ["ls"], ["check", name],
                  ["show", name, "--by", "subject"], ["paper", "table1"]):  # fmt: skip
        ran = gaussmeter(*words, cwd=tmp_path)
        assert (ran.code, ran.err) == (0, ""), words
        outputs.append(ran.out)
    assert raw_controls("".join(outputs)) == set()
    assert len(outputs[0].splitlines()) == len(outputs[3].splitlines()) == 1
    assert json.loads(gaussmeter("ls", "-f", "json", cwd=tmp_path).out)[0]["name"] == name


ODD = "esc\x1b[31m\x9b\u202e\nred"


@pytest.mark.parametrize("words", [["scan", ODD], ["scan", ODD, "--dry-run"], ["check", ODD]], ids=len)
def test_a_path_cannot_write_to_the_terminal(tmp_path, words):
    write_tensors(tmp_path / ODD / "model.safetensors", {"a": f32(1, 2)})
    ran = gaussmeter(*words, cwd=tmp_path)
    assert (ran.code, ran.err, raw_controls(ran.out)) == (0, "", set())
    assert len(ran.out.splitlines()) == (5 if "--dry-run" in words else 1)


@pytest.mark.parametrize("command", ["scan", "check", "show", "sql", "paper"])
def test_nor_can_what_is_refused(folder, command):
    assert raw_controls(run(folder, command, ODD).sentence(2)) == set()
    assert raw_controls(run(folder, command, "x", "-w", ODD).sentence(2)) == set()


def in_a_terminal(cwd: Path, *words: object, columns: int = 250) -> str:
    """What a command writes when its output, but not its error output, is a terminal; then both."""
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    settings = {k: v for k, v in environment(TERM="xterm").items() if k != "COLUMNS"}
    child = subprocess.Popen(
        [sys.executable, "-m", "engine", *map(str, words)], cwd=cwd, env=settings, stdin=subprocess.DEVNULL, stdout=its,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(its)
    written, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([mine], [], [], 0.5)[0]:
            try:
                more = os.read(mine, 65536)
            except OSError:  # the other side has closed it
                break
            if not more:
                break
            written += more
        elif child.poll() is not None:
            break
    os.close(mine)
    _, err = child.communicate(timeout=60)
    return (written + err).decode()


def test_on_a_terminal_tables_are_framed_and_escaped(hostile_folder):
    names = "SELECT name, n FROM tensors WHERE length(name) < 40"
    text = in_a_terminal(hostile_folder, "sql", names)
    assert "─" in text  # it is the table for terminals
    assert "\\x1b[31mred" in text
    assert "[bold]markup[/bold]" in text
    for forbidden in ("\x1b[31m", "\x1b]0;", "\x07", "\x9b", "\x08", "\u202e", "\x7f"):
        assert forbidden not in text


def test_parquet_is_not_written_to_a_terminal(folder):
    assert "Parquet is not for reading" in in_a_terminal(folder, "ls", "-f", "parquet")


# What it does not load, and how much memory it takes


HEAVY = ["pandas", "torch", "ray", "zarr", "matplotlib", "altair", "scipy", "transformers", "obstore", "PIL"]


def loaded_from(stubs: Path, folder: Path, names: list[str]) -> str:
    """What a scan and a check load of these, with stand-ins first on the path that say so, installed or not."""
    told = stubs.with_suffix(".told")
    stubs.mkdir()
    for name in names:
        (stubs / f"{name}.py").write_text(
            f"with open({str(told)!r}, 'a') as f: f.write('{name} ')\n__version__ = '99'\n"
        )
    settings = environment(PYTHONPATH=os.pathsep.join([str(stubs), environment()["PYTHONPATH"]]))
    assert finish(start(["-c", f"import {names[0]}"], env=settings)).code == 0
    assert told.read_text() == f"{names[0]} "  # the stand-ins work
    told.write_text("")
    for words in (
        ["scan", folder / "model.safetensors", "-w", stubs.parent / "w.duckdb"],
        ["check", folder / "shards"],
    ):
        finish(start(["-m", "engine", *words], env=settings))
    return told.read_text()


def test_a_scan_loads_nothing_heavy(folder, tmp_path):
    # pyarrow imports pandas, wherever it is installed, to look whether an array is one of its own; that takes
    # longer than a small scan.
    assert loaded_from(tmp_path / "stubs", folder, HEAVY) == ""


def modules_after(folder: Path, *words: object) -> set[str]:
    text = "import sys; from engine.cli.app import main\ntry: main()\nfinally: print('\\n', *sys.modules)"
    return set(program(text, *words, cwd=folder).out.splitlines()[-1].split())


def test_asking_does_not_even_load_the_kernels(folder):
    loaded = modules_after(folder, "ls", "-f", "csv")
    assert "duckdb" in loaded
    assert not {"numba", "llvmlite", "rich.progress", *HEAVY} & set(loaded)


def test_help_loads_neither_duckdb_nor_numba(folder):
    loaded = modules_after(folder, "scan", "--help")
    assert "typer" in loaded
    assert not {"duckdb", "pyarrow", "numba", "numpy"} & set(loaded)


def sparse_checkpoint(path: Path, dtype: str, nbytes: int, tensors: int = 20) -> Path:
    """Zeros that take no room on the disk."""
    item = {"BF16": 2, "F32": 4}[dtype]
    rows = nbytes // tensors // item // 4096
    size = rows * 4096 * item
    header = {
        f"model.layers.{i}.mlp.up_proj.weight": {"dtype": dtype, "shape": [rows, 4096], "data_offsets": [i * size, (i + 1) * size]}
        for i in range(tensors)
    }  # fmt: skip
    data = pack(header)
    with path.open("wb") as file:
        file.write(data)
        file.truncate(len(data) + tensors * size)
    return path


PEAK = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
"""
"""A small parent: a child begins with the peak of the one that started it."""


def peak(*words: object, cwd: Path) -> int:
    """Peak resident memory in bytes of a command that must end well."""
    code, most = program(PEAK, sys.executable, "-m", "engine", *words, cwd=cwd).out.split()
    assert code == "0"
    return int(most) * (1 if sys.platform == "darwin" else 1024)


MEMORY: dict[str, tuple[str, list[Any]]] = {
    "bf16": ("BF16", []),
    "f32": ("F32", []),
    "f32, two passes": ("F32", ["--exact"]),
    "four workers": ("BF16", ["-j", "4"]),
    "large chunks": ("BF16", ["-j", "2", "--chunk-size", "256MiB"]),
}


@pytest.mark.parametrize(
    "how",
    [pytest.param(h, marks=[] if "two passes" in h or h == "bf16" else pytest.mark.slow) for h in MEMORY],
)
def test_the_peak_memory_is_below_500_mb_and_below_what_was_projected(tmp_path, how):
    dtype, options = MEMORY[how]
    path = sparse_checkpoint(tmp_path / "m.safetensors", dtype, 300_000_000)
    plan = json.loads(
        gaussmeter("scan", path, *[o for o in options if o != "--exact"], "--dry-run", "-f", "json").out
    )[0]
    assert plan["nbytes"] > 299e6
    took = peak("scan", path, "-w", tmp_path / "w.duckdb", *options, cwd=tmp_path)
    if how != "large chunks":
        assert took < 500e6
    assert took < plan["projected_bytes"]


def test_a_budget_is_kept_in_the_second_pass_too(tmp_path):
    path = write_tensors(tmp_path / "m.safetensors", {"a": normal("F32", 64, 64)})
    plain = engine.dry_run(path, workers=1).projected_bytes
    with pytest.raises(engine.errors.BudgetError):
        engine.scan(path, warehouse=tmp_path / "w.duckdb", workers=1, exact=True, memory_bytes=plain + 1000)
