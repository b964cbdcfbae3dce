"""Verifying merged models: sound ones, damaged ones, ones that are not what they say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.errors import ConfigError
from engine.verbs.merge_output import RECORD, STATE
from tests.integration.helpers import gaussmeter, made
from tests.integration.merges import Family, family
from tests.torch_files import archive, program, storage, tensor


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return family(tmp_path_factory.mktemp("family"), ["BF16", "F32", "BF16", "F16"])


@pytest.fixture(scope="module")
def whole(models: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    engine.merge(models.config("ties"), folder / "out", warehouse=folder / "w.duckdb", shard_bytes=5000)
    return folder / "out"


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


@pytest.mark.parametrize("method", ["outlier", "linear", "ties", "della", "slerp"])
def test_what_was_merged_is_sound_and_within_one_rounding(models, method, tmp_path):
    engine.merge(models.config(method), tmp_path / "out", warehouse=made(tmp_path / "w.duckdb"))
    report = engine.verify(tmp_path / "out", blocks=None)
    assert report.findings == ()
    found = report.recomputed
    assert found is not None
    assert (found.equal, found.rounded, found.wrong_count) == (found.elements, 0, 0)
    assert 0.25 < found.error < (0.51 if method != "linear" else 3)


def test_a_sample_is_a_sample(models, out):
    report = engine.verify(out, blocks=3)
    assert (report.blocks, report.findings) == (3, ())
    assert report.recomputed.elements < engine.verify(out, blocks=None).recomputed.elements
    samples = {engine.verify(out, blocks=2, seed=seed).recomputed.elements for seed in range(5)}
    assert len(samples) > 1
    none = engine.verify(out, blocks=0)
    assert (none.recomputed, none.findings) == (None, ())


def shard(out: Path, number: int = 0) -> Path:
    return sorted(out.glob("*.safetensors"))[number]


def flip(path: Path, back: int, bits: int) -> None:
    data = bytearray(path.read_bytes())
    data[-back] ^= bits
    path.write_bytes(data)


def damaged(out: Path, how: str) -> None:
    index = out / "model.safetensors.index.json"
    if how == "a bit":
        flip(shard(out), 7, 4)
    elif how == "a NaN":
        shard(out).write_bytes(shard(out).read_bytes()[:-2] + b"\xc0\x7f")
    elif how == "too short":
        shard(out).write_bytes(shard(out).read_bytes()[:-2])
    elif how == "too long":
        shard(out).write_bytes(shard(out).read_bytes() + b"xx")
    elif how == "a shard that is not there":
        shard(out).unlink()
    elif how == "a shard that nobody names":
        shutil.copy(shard(out), out / "model-00009-of-00009.safetensors")
    elif how == "a name that no shard has":
        data = json.loads(index.read_text())
        data["weight_map"]["nobody"] = shard(out).name
        index.write_text(json.dumps(data))
    elif how == "an unfinished merge":
        (out / STATE).write_text("{}")
    elif how == "no card":
        (out / "README.md").unlink()
    elif how == "a damaged record":
        (out / RECORD).write_text("{")


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ("a bit", "1 of "),
        ("a NaN", "NaN"),
        ("too short", "is truncated"),
        ("too long", "is too long"),
        ("a shard that is not there", "which is not there"),
        ("a shard that nobody names", "is no shard that the index names"),
        ("a name that no shard has", "nobody"),
        ("an unfinished merge", "an interrupted merge lies in it"),
        ("no card", "is not there, but the record names it"),
        ("a damaged record", "the record is not JSON"),
    ],
)
def test_what_is_off_is_found(out, how, part):
    damaged(out, how)
    ran = gaussmeter("verify", out, "--all")
    assert ran.code == 1, ran.out
    assert part in ran.out.replace("\n", " "), ran.out
    assert "finding" in ran.out


def test_what_differs_only_by_the_rounding_is_told_apart(models, out):
    """The last bit of an element that lies between two numbers may be either."""
    config = models.config("linear", dtype="float64", out_dtype="float32")
    engine.merge(config, out.parent / "wide", warehouse=out.parent / "w.duckdb")
    narrow = models.config("linear", out_dtype="float32")
    report = engine.verify(out.parent / "wide", config=narrow, blocks=None)
    assert report.findings == ()
    assert report.recomputed.rounded > 0
    assert report.recomputed.equal + report.recomputed.rounded == report.recomputed.elements


def test_another_merge_than_it_says(models, out):
    report = engine.verify(out, config=models.config("task_arithmetic"), blocks=None)
    assert {f.problem for f in report.findings} == {"values"}
    assert len(report.findings) >= 4


def test_a_folder_that_does_not_say_what_it_is(models, out, whole):
    (out / RECORD).unlink()
    ran = gaussmeter("verify", out)
    assert ran.code == 0
    assert "does not say what was merged; give --config" in ran.out
    config = out.parent / "c.json"
    config.write_text(json.dumps(models.config("ties")))
    ran = gaussmeter("verify", out, "--config", config, "--format", "json")
    found: dict[str, Any] = json.loads(ran.out)
    assert (found["ok"], found["recomputed"]["wrong_count"]) == (True, 0)


def test_inputs_that_are_gone(tmp_path):
    models = family(tmp_path / "in", ["F32"] * 4)
    engine.merge(models.config("linear"), tmp_path / "out", warehouse=tmp_path / "w.duckdb")
    shutil.rmtree(models.folders[1])
    report = engine.verify(tmp_path / "out")
    assert (report.findings, report.recomputed) == ((), None)
    assert "nothing was merged again" in report.note
    with pytest.raises(ConfigError):
        engine.verify(tmp_path / "out", config=models.config("linear"))


def test_inputs_that_have_changed(tmp_path):
    models = family(tmp_path / "in", ["F32"] * 4)
    engine.merge(models.config("linear"), tmp_path / "out", warehouse=tmp_path / "w.duckdb")
    flip(next(models.folders[1].glob("*.safetensors")), 2, 0x10)
    report = engine.verify(tmp_path / "out", blocks=None)
    assert [f.problem for f in report.findings] == ["values"]


def test_tensors_that_are_too_many_or_of_another_form(models, out):
    config = models.config("ties", out_dtype="float32")
    report = engine.verify(out, config=config, blocks=None)
    assert "is BF16 [50, 24], merging gives F32 [50, 24]" in [f.detail for f in report.findings]


def test_what_lies_in_another_order_is_not_compared(tmp_path):
    """It is not wrong, wherever its first byte lies."""
    of = storage("0", 12)
    several = {"a": tensor((3, 4), (4, 1), 0, of), "turned": tensor((4, 3), (1, 4), 0, storage("1", 12))}
    values = np.arange(12, dtype="<f4").tobytes()
    (tmp_path / "out").mkdir()
    file = tmp_path / "out" / "pytorch_model.bin"
    file.write_bytes(archive(program(several), {"0": values, "1": values}))
    config = {"merge_method": "linear", "models": [{"model": str(file), "parameters": {"weight": 1.0}}]}
    report = engine.verify(tmp_path / "out", config=config, blocks=None)
    assert report.findings == ()
    assert report.recomputed.elements == 12
    assert (
        report.note == "1 of its tensors lies in pieces, or in another order than merging gives: not compared"
    )


def test_wrong_words(tmp_path):
    assert "there is no such directory" in gaussmeter("verify", tmp_path / "none").sentence(2)
    assert "verify prints table or json" in gaussmeter("verify", tmp_path, "--format", "csv").sentence(2)
