"""`check` finds what is wrong with a checkpoint, says so with its exit code, and leaves nothing behind."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.errors import ConfigError
from engine.nouns.events import Planned
from tests.builders import Tensors, f32, pack_tensors, patterns_of, write, write_sharded, write_tensors
from tests.integration.helpers import gaussmeter, made, no_file_added, normal

NAN, INF = float("nan"), float("inf")


def sound() -> Tensors:
    return {
        "layers.0.q_proj.weight": normal("BF16", 8, 8, seed=1),
        "layers.0.norm.weight": normal("F32", 8, seed=2, mean=1),
        "layers.0.ids": ("I64", np.zeros(4, "<i8")),  # zeros are nothing wrong where they are not counted
        "layers.0.nothing": ("F16", np.zeros(0, "<u2")),
        "layers.0.scalar": ("F32", np.zeros((), "<f4")),  # one zero is a value like any other
    }


def with_values(dtype: str, *values: float) -> tuple[str, Any]:
    """A matrix of Gaussian values that begins with the given ones."""
    matrix = np.random.default_rng(0).normal(0, 0.02, (6, 8)).reshape(-1)
    matrix[: len(values)] = values
    return dtype, patterns_of(dtype, matrix).reshape(6, 8)


def problems(report: engine.verbs.check.CheckReport) -> list[tuple[str, str]]:
    return [(f.where, f.problem) for f in report.findings]


def of(path: Path, **options: Any) -> list[tuple[str, str]]:
    return problems(engine.check(path, **options))


DAMAGE = {
    "nan": (with_values("BF16", NAN), "1 of 48 elements are NaN"),
    "infinite": (with_values("F32", INF, -INF, INF), "2 elements are +infinity and 1 are -infinity, of 48"),
    "zero": (("F16", np.array([[0, 0x8000], [0, 0]], "<u2")), "all 4 elements are zero"),
    "constant": (("BF16", np.full((4, 4), 0x3F80, "<u2")), "all 16 elements are 1.0"),
    "magnitude": (with_values("F32", 1.5e5, -3e6), "values reach -3000000.0 and 150000.0, beyond 100000.0"),
}


# Values


def test_a_sound_checkpoint_has_no_findings(tmp_path):
    path = write_tensors(tmp_path / "m.safetensors", sound())
    ran = gaussmeter("check", path, cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "m: 5 tensors, nothing wrong\n"


@pytest.mark.parametrize("problem", DAMAGE)
def test_a_damaged_tensor_is_found_among_sound_ones(tmp_path, problem):
    tensor, detail = DAMAGE[problem]
    path = write_tensors(tmp_path / "m.safetensors", sound() | {"bad": tensor})
    ran = gaussmeter("check", path, cwd=tmp_path)
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.splitlines()[1].split() == ["bad", problem, *detail.split()]
    assert len(ran.out.splitlines()) == 3


def test_all_of_them_are_found_in_the_order_of_the_checkpoint(tmp_path):
    tensors = {f"{k}": tensor for k, (tensor, _) in enumerate(DAMAGE.values())}
    path = write_tensors(tmp_path / "m.safetensors", tensors)
    assert of(path) == [(str(k), problem) for k, problem in enumerate(DAMAGE)]


@pytest.mark.parametrize("dtype", ["F16", "F64", "F8_E4M3FNUZ"])
def test_one_nan_among_many_is_found_in_every_dtype(tmp_path, dtype):
    assert of(write_tensors(tmp_path / "m.safetensors", {"a": with_values(dtype, NAN)})) == [("a", "nan")]


def test_several_things_may_be_wrong_with_one_tensor(tmp_path):
    path = write_tensors(tmp_path / "m.safetensors", {"a": with_values("F32", NAN, INF, 1e9)})
    assert of(path) == [("a", "infinite"), ("a", "magnitude"), ("a", "nan")]


def test_a_constant_with_a_nan_is_only_the_nan(tmp_path):
    path = write_tensors(tmp_path / "m.safetensors", {"a": f32(2, 2, 2, NAN), "b": f32(NAN, NAN)})
    assert of(path) == [("a", "nan"), ("b", "nan")]


@pytest.mark.parametrize("value", [1e300, 1e-60])
def test_a_finite_double_beyond_single_precision_is_not_infinite_or_zero(tmp_path, value):
    # F64 is rounded to F32, and what that makes of a number is not what is in the file.
    path = write_tensors(tmp_path / "m.safetensors", {"a": ("F64", np.array([value, 2 * value]))})
    assert not {problem for _, problem in of(path)} & {"infinite", "zero"}


@pytest.mark.parametrize(("limit", "found"), [(0.9, True), (1.0, False), (1e9, False)])
def test_what_is_too_large_is_the_users_to_say(tmp_path, limit, found):
    path = write_tensors(tmp_path / "m.safetensors", {"a": f32(-1.0, 0.5)})
    ran = gaussmeter("check", path, "--max-magnitude", limit)
    assert (ran.code, "magnitude" in ran.out) == (int(found), found)


# Ignoring


def test_kinds_of_findings_can_be_left_out(tmp_path):
    path = write_tensors(tmp_path / "m.safetensors", {"a": with_values("F32", NAN, INF)})
    assert of(path, ignore_problems=["nan"]) == [("a", "infinite")]
    assert gaussmeter("check", path, "--ignore", "nan", "--ignore", "infinite").code == 0


def test_an_unknown_kind_is_refused(tmp_path):
    path = write_tensors(tmp_path / "m.safetensors", sound())
    with pytest.raises(ConfigError, match="'Nan'"):
        engine.check(path, ignore_problems=["Nan"])
    assert "damaged, missing, nan" in gaussmeter("check", path, "--ignore", "x").sentence(2)


# Files


def test_a_truncated_file_is_damaged(tmp_path):
    path = write(tmp_path / "m.safetensors", pack_tensors(sound())[:-3])
    (finding,) = engine.check(path).findings
    assert (finding.where, finding.problem) == (str(path), "damaged")
    assert "is truncated" in finding.detail
    ran = gaussmeter("check", path)
    assert (ran.code, ran.err) == (1, "")
    assert "damaged" in ran.out


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x00" * 7, b"\xff" * 8, b"\x02" + b"\x00" * 7 + b"[]", b"\x02" + b"\x00" * 7 + b"{]",
        pack_tensors({"a": f32(1, 2)}) + b"x", b"GGUF" + b"\x00" * 100,
    ],
)  # fmt: skip
def test_any_other_damage_is_a_finding_too(tmp_path, data):
    assert of(write(tmp_path / "m.safetensors", data))[0][1] == "damaged"


def test_a_tensor_that_the_index_names_and_no_shard_has_is_missing(tmp_path):
    index = write_sharded(tmp_path, sound(), {"b": with_values("F32", NAN)})
    told = json.loads(index.read_text())
    told["weight_map"]["not.there"] = "model-00002-of-00002.safetensors"
    index.write_text(json.dumps(told))
    report = engine.check(tmp_path)
    assert problems(report) == [("not.there", "missing"), ("b", "nan")]  # the rest is looked at nevertheless
    assert "model-00002-of-00002.safetensors" in report.findings[0].detail
    assert gaussmeter("check", index, "--ignore", "missing", "--ignore", "nan").code == 0


def test_a_shard_that_the_index_names_is_missing(tmp_path):
    index = write_sharded(tmp_path, sound(), {"b": f32(1, 2), "c": f32(3, 4)})
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    (finding,) = engine.check(index).findings
    assert (finding.problem, finding.where) == ("missing", str(index))
    assert "model-00002-of-00002.safetensors" in finding.detail
    assert "2 tensors" in finding.detail


def test_every_shard_may_be_missing(tmp_path):
    index = write_sharded(tmp_path, sound(), {"b": f32(1, 2)})
    for shard in tmp_path.glob("*.safetensors"):
        shard.unlink()
    assert [p for _, p in of(index)] == ["missing", "missing"]


def test_a_shard_that_no_index_names_is_missed(tmp_path):
    write_sharded(tmp_path, sound(), {"b": f32(1, 2)}, {"c": f32(1, 2)}).unlink()
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    (finding,) = engine.check(tmp_path).findings
    assert "model-00002-of-00003.safetensors" in finding.detail


def test_a_damaged_shard_is_a_finding(tmp_path):
    index = write_sharded(tmp_path, sound(), {"b": f32(1, 2)})
    shard = tmp_path / "model-00002-of-00002.safetensors"
    os.truncate(shard, shard.stat().st_size - 1)
    assert of(index) == [(str(shard), "damaged")]


def test_a_file_that_changes_while_it_is_checked_is_a_finding(tmp_path):
    path = write_tensors(tmp_path / "m.safetensors", sound())

    def listener(event: object) -> None:
        if isinstance(event, Planned):
            os.utime(path, ns=(1, 1))

    (finding,) = engine.check(path, listener=listener).findings
    assert "changed after the scan began" in finding.detail


# Where there is nothing to check


PLACES = [
    "nothing",
    "nothing.safetensors",
    "./no/such/place",
    "s3://bucket/model",
    "",
    "~no-such-user/x",
    "x" * 300,
]


@pytest.mark.parametrize("place", PLACES)
def test_a_place_where_nothing_is_is_wrong_use(tmp_path, place):
    # Path.expanduser raises RuntimeError for ~no-such-user, and Path.exists OSError for a name that is too long.
    assert gaussmeter("check", place, cwd=tmp_path).sentence(2)


def test_an_empty_directory_is_wrong_use(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no *.safetensors file" in gaussmeter("check", tmp_path / "empty").sentence(2)


def test_a_file_of_another_kind_is_wrong_use(tmp_path):
    assert "is not a checkpoint" in gaussmeter("check", write(tmp_path / "m.txt", b"1234")).sentence(2)


def test_a_checkpoint_without_tensors_is_sound(tmp_path):
    ran = gaussmeter("check", write_tensors(tmp_path / "m.safetensors", {}))
    assert (ran.code, ran.out) == (0, "m: 0 tensors, nothing wrong\n")


def test_a_directory_named_like_a_file_is_damage_or_wrong_use(tmp_path):
    # A directory can be opened like a file; only its reading fails.
    (tmp_path / "x.safetensors").mkdir()
    assert gaussmeter("check", tmp_path).code in (1, 2)


# Subjects of a warehouse


def test_a_subject_of_the_warehouse_is_checked_without_its_file(tmp_path):
    folder = tmp_path / "place"
    path = write_tensors(folder / "m.safetensors", sound() | {"bad": DAMAGE["nan"][0]})
    warehouse = tmp_path / "w.duckdb"
    engine.scan(path, warehouse=made(warehouse))
    expected = engine.check(path)
    shutil.rmtree(folder)
    for wanted in ("m", "1"):
        ran = gaussmeter("check", wanted, "-w", warehouse, cwd=tmp_path)
        assert (ran.code, ran.err) == (1, "")
    assert engine.check("m", warehouse=warehouse) == expected
    assert gaussmeter("check", "m", "-w", warehouse, "--ignore", "nan").code == 0
    assert "there are: m" in gaussmeter("check", "other", "-w", warehouse).sentence(2)


def test_a_place_comes_before_a_subject_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tensors(tmp_path / "m" / "a.safetensors", {"a": f32(1, 2)})
    engine.scan("m", warehouse=made(Path("w.duckdb")))
    os.utime(tmp_path / "m" / "a.safetensors")
    write_tensors(tmp_path / "m" / "a.safetensors", {"a": f32(NAN, 2)})
    assert of(Path("m"), warehouse="w.duckdb") == [("a", "nan")]


def test_checking_a_place_enters_no_warehouse(tmp_path):
    path, warehouse = write_tensors(tmp_path / "m.safetensors", sound()), tmp_path / "w.duckdb"
    engine.scan(path, warehouse=made(warehouse))
    before = warehouse.read_bytes()
    engine.check(path, warehouse=warehouse)
    assert warehouse.read_bytes() == before


# What it leaves, and what it prints


@pytest.mark.parametrize("fate", ["sound", "nan", "truncated", "missing", "nothing"])
def test_it_leaves_no_file_behind(tmp_path, monkeypatch, fate):
    scratch, place, work = (tmp_path / name for name in ("scratch", "place", "work"))
    for folder in (scratch, place, work):
        folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    index = write_sharded(place, sound(), {"b": DAMAGE["nan"][0] if fate == "nan" else f32(1, 2)})
    if fate == "truncated":
        os.truncate(place / "model-00001-of-00002.safetensors", 100)
    if fate == "missing":
        (place / "model-00001-of-00002.safetensors").unlink()
    if fate == "nothing":
        index = place / "other"
    with no_file_added(tmp_path):
        code = gaussmeter("check", index, cwd=work).code
    assert code == {"sound": 0, "nothing": 2}.get(fate, 1)


def test_an_interrupted_check_leaves_nothing_either(tmp_path, monkeypatch):
    path = write_tensors(tmp_path / "m.safetensors", sound())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def listener(event: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.check(path, listener=listener)
    assert list(scratch.iterdir()) == []


def test_json_has_everything(tmp_path):
    path = write_tensors(tmp_path / "m.safetensors", sound() | {'q"uo\nte\x1b': DAMAGE["nan"][0]})
    ran = gaussmeter("check", path, "-f", "json")
    assert (ran.code, ran.err) == (1, "")
    assert json.loads(ran.out) == {
        "ok": False,
        "subject": "m",
        "tensors": 6,
        "findings": [{"where": 'q"uo\nte\x1b', "problem": "nan", "detail": "1 of 48 elements are NaN"}],
    }


def test_csv_has_the_findings(tmp_path):
    path = write_tensors(tmp_path / "m.safetensors", {"a,b": DAMAGE["nan"][0], "c": f32(1, 2)})
    ran = gaussmeter("check", path, "-f", "csv")
    assert ran.code == 1
    assert list(csv.reader(io.StringIO(ran.out))) == [
        ["where", "problem", "detail"], ["a,b", "nan", "1 of 48 elements are NaN"]
    ]  # fmt: skip
    assert gaussmeter("check", path, "-f", "csv", "--ignore", "nan").out == "where,problem,detail\n"


@pytest.mark.parametrize("fate", [0, 1])
def test_quiet_prints_nothing(tmp_path, fate):
    path = write_tensors(tmp_path / "m.safetensors", sound() | ({"bad": DAMAGE["nan"][0]} if fate else {}))
    ran = gaussmeter("check", path, "-q")
    assert (ran.code, ran.out, ran.err) == (fate, "", "")


def test_parquet_is_refused(tmp_path):
    path = write_tensors(tmp_path / "m.safetensors", sound())
    assert "parquet" in gaussmeter("check", path, "-f", "parquet").sentence(2)


@pytest.mark.parametrize("name", ["new\nline", "esc\x1b[31mred", "\x9b31m rtl\u202e"])
def test_a_name_cannot_write_to_the_terminal(tmp_path, name):
    path = write_tensors(tmp_path / "m.safetensors", {name: DAMAGE["nan"][0]})
    out = gaussmeter("check", path).out
    assert len(out.splitlines()) == 3
    assert all(c.isprintable() for line in out.split("\n") for c in line)


def test_what_a_difference_did_not_change_is_no_damage(tmp_path):
    tuned = sound() | {"layers.0.q_proj.weight": with_values("BF16", NAN)}
    base = sound() | {"layers.0.q_proj.weight": with_values("BF16", 0.5)}
    write_tensors(tmp_path / "base.safetensors", base)
    write_tensors(tmp_path / "tuned.safetensors", tuned)
    warehouse = made(tmp_path / "w.duckdb")
    engine.delta(tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", warehouse=warehouse)
    assert of("tuned-minus-base", warehouse=warehouse) == [("layers.0.q_proj.weight", "nan")]
