"""The folder of a merge when things go wrong: inputs in it, kills at every step, two at once, damaged records."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.errors import ConfigError, FormatError
from engine.formats.safetensors_writer import Layout, lay_out
from engine.nouns.records import TensorInfo
from engine.verbs import merge_output
from engine.verbs.merge_output import STATE, Output, Wanted
from engine.verbs.merge_record import RECORD, read_record
from tests.builders import write_tensors
from tests.integration.helpers import Killed, Recorder, gaussmeter, made, normal, raising
from tests.integration.merges import Family, data_of, family

LAYOUT = lay_out([TensorInfo(n, "F32", (1000,), 0, 0, 4000) for n in "ab"], 4000, {"format": "pt"})


def wanted(identity: str, mark: str = "") -> Wanted:
    return Wanted(identity, mark or identity, LAYOUT, LAYOUT.nbytes)


def word(out: Output, identity: str, **options: Any) -> str:
    with out.writing(wanted(identity), **options) as nonce:
        return nonce


def finish(out: Output, mark: str) -> None:
    out.finish(LAYOUT, {"config.json": b"{}"}, {"identity": mark})


@pytest.fixture
def out(tmp_path: Path) -> Output:
    return Output(str(tmp_path / "out"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return family(tmp_path_factory.mktemp("family"), ["BF16"] * 4)


def first_partial(out: Output) -> Path:
    return out.partials(LAYOUT)[0]


# Killed


@pytest.mark.parametrize("other", [False, True])
def test_killed_while_files_are_begun_anew_their_word_is_gone(out, monkeypatch, other):
    """Else blank files would pass for those that the warehouse says are written."""
    before = word(out, "x")
    first_partial(out).unlink()
    make = Output._make

    def stop(self: Output, layout: Layout) -> None:
        make(self, layout)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Output, "_make", stop)
        with pytest.raises(Killed):
            word(out, "y" if other else "x", force=other)
    assert all(path.exists() for path in out.partials(LAYOUT))
    assert word(out, "x") != before


@pytest.mark.parametrize("at", [1, 2])
def test_killed_while_files_are_named_they_are_taken_back(out, monkeypatch, at):
    before = word(out, "x")
    calls = iter(range(1, 9))
    sync = merge_output._sync

    def stop(path: Path) -> None:
        sync(path)
        if next(calls) == at:
            raise Killed

    monkeypatch.setattr(merge_output, "_sync", stop)
    with contextlib.suppress(Killed), out.writing(wanted("x")):
        finish(out, "x")
    assert word(out, "x") == before
    assert [p.stat().st_size for p in out.partials(LAYOUT)] == [shard.nbytes for shard in LAYOUT.shards]
    finish(out, "x")
    assert out.check("x", force=False)
    assert not (out.path / STATE).exists()


def test_killed_after_the_record_and_run_again_it_is_tidy(models, tmp_path, monkeypatch):
    put, how = Output._put, {"warehouse": made(tmp_path / "w.duckdb")}

    def stop(self: Output, name: str, data: bytes) -> None:
        put(self, name, data)
        if name == RECORD:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Output, "_put", stop)
        with pytest.raises(Killed):
            engine.merge(models.config("linear"), tmp_path / "out", **how)
    assert (tmp_path / "out" / STATE).exists()
    assert engine.merge(models.config("linear"), tmp_path / "out", **how).status == "unchanged"
    assert engine.verify(tmp_path / "out").findings == ()


def test_killed_at_the_end_and_run_again_without_what_the_warehouse_knew(models, tmp_path, monkeypatch):
    """Files that have their names already are written to again."""
    out, config = tmp_path / "out", models.config("linear")
    (tmp_path / "whole").mkdir()
    engine.merge(config, tmp_path / "whole" / "out", warehouse=tmp_path / "v")
    put = Output._put

    def stop(self: Output, name: str, data: bytes) -> None:
        if name == RECORD:
            raise Killed
        put(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Output, "_put", stop)
        with pytest.raises(Killed):
            engine.merge(config, out, warehouse=tmp_path / "w")
    assert (out / "model.safetensors").exists()
    engine.merge(config, out, warehouse=tmp_path / "other")
    assert data_of(out) == data_of(tmp_path / "whole" / "out")


# Two at once, and --force


def test_what_another_process_finished_meanwhile_is_not_replaced(out):
    assert not out.check("x", force=False)
    word(out, "y")
    finish(out, "y")
    before = data_of(out.path)
    with pytest.raises(ConfigError, match="holds another merge"):
        word(out, "x")
    with pytest.raises(ConfigError, match="was written by another process meanwhile"):
        word(out, "y")
    assert data_of(out.path) == before


def test_a_lock_on_a_file_that_is_gone_is_none(out, monkeypatch):
    def replaced(descriptor: int, how: int) -> None:
        (out.path / STATE).unlink()
        (out.path / STATE).touch()

    monkeypatch.setattr(merge_output.fcntl, "flock", replaced)
    with pytest.raises(ConfigError, match="was written by another process meanwhile"):
        word(out, "x")


def test_a_file_system_without_locks_is_called_that(out, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(merge_output.fcntl, "flock", refuse)
    with pytest.raises(ConfigError, match="cannot be locked: No locks available"):
        word(out, "x")


def test_force_without_room_keeps_the_old(out, monkeypatch):
    word(out, "x")
    finish(out, "x")
    before, usage = data_of(out.path), shutil.disk_usage(out.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    huge = Wanted("y", "y", LAYOUT, 1 << 40)
    with pytest.raises(ConfigError, match="bytes are to be written"), out.writing(huge, force=True):
        pass
    assert data_of(out.path) == before
    assert word(out, "y", force=True)  # the old one makes room
    assert not (out.path / RECORD).exists()


@pytest.mark.parametrize("verb", ["merge", "edit", "fold"])
def test_what_is_read_is_never_replaced(models, tmp_path, verb):
    model, how = tmp_path / "model", {"warehouse": tmp_path / "w", "force": True}
    shutil.copytree(models.folders[1], model)
    (model / RECORD).write_text(json.dumps({"identity": "x", "files": {p.name: 1 for p in model.iterdir()}}))
    config = models.config("linear")
    config["models"][0]["model"] = str(model)
    before = data_of(model)
    with pytest.raises(ConfigError, match="is read from too"):
        if verb == "merge":
            engine.merge(config, model, **how)
        elif verb == "edit":
            engine.edit(model, model, floor=1e-3, **how)
        else:
            engine.merge(None, model, adapter=adapter_of(tmp_path), base=model, **how)
    assert data_of(model) == before


def adapter_of(tmp_path: Path) -> Path:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    tensors = {name.format("A"): normal("F32", 2, 24), name.format("B"): normal("F32", 24, 2)}
    write_tensors(tmp_path / "adapter" / "adapter_model.safetensors", tensors)
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    return tmp_path / "adapter"


# What lies beside


def test_another_configuration_beside_the_weights_is_another_merge(tmp_path):
    models = family(tmp_path / "in", ["BF16"] * 4)
    settings = models.folders[0] / "config.json"
    settings.write_text('{"a": 1}')
    how = {"warehouse": made(tmp_path / "w.duckdb")}
    config = models.config("task_arithmetic")
    engine.merge(config, tmp_path / "out", **how)
    assert engine.merge(config, tmp_path / "out", **how).status == "unchanged"
    settings.write_text('{"a": 2}')
    with pytest.raises(ConfigError, match="holds another merge"):
        engine.merge(config, tmp_path / "out", **how)
    engine.merge(config, tmp_path / "out", force=True, **how)
    assert (tmp_path / "out" / "config.json").read_text() == '{"a": 2}'
    with pytest.raises(Killed):
        stop = Recorder(3, raising(Killed()))
        engine.merge(config, tmp_path / "two", workers=1, task_bytes=900, listener=stop, **how)
    settings.write_text('{"a": 3}')
    assert engine.merge(config, tmp_path / "two", **how).status == "resumed"  # the weights are the same
    assert (tmp_path / "two" / "config.json").read_text() == '{"a": 3}'


# Paths and records


@pytest.mark.parametrize("where", ["~nosuchuser/out", "x" * 300, "a\0b", "\ud800", os.fsdecode(b"\xff")])
def test_what_can_be_no_path_is_one_sentence(models, tmp_path, where):
    place = where if where.startswith("~") else f"{tmp_path}/{where}"
    with pytest.raises(ConfigError, match=r"is not a usable path|is not UTF-8"):
        engine.merge(models.config("linear"), place, warehouse=tmp_path / "w")
    if where != os.fsdecode(b"\xff"):
        with pytest.raises(ConfigError, match="is not a usable path"):
            engine.pack(models.folders[0], place)


def test_a_model_with_too_long_a_name_is_one_sentence(models, tmp_path):
    config = models.config("linear")
    config["models"][0]["model"] = "a/" + "b" * 300
    with pytest.raises(ConfigError):
        engine.merge(config, tmp_path / "out", warehouse=tmp_path / "w")


@pytest.mark.parametrize(
    "record",
    [{"files": []}, {"files": None}, {"files": {"x": None}}, {"config": 5}, {"adapter": "x"}, {"files": {"../x": 1}},
     {"files": {"/x": 1}}, {"kept": {"x": 3}}, {"adapter": 1, "base": "x"}, {"files": {"x": True}}],
)  # fmt: skip
def test_a_record_that_makes_no_sense_is_found(tmp_path, record):
    write_tensors(tmp_path / "m" / "model.safetensors", {"a": normal("BF16", 4, 4)})
    (tmp_path / "m" / RECORD).write_text(json.dumps(record))
    with pytest.raises(FormatError, match="the record"):
        read_record(tmp_path / "m")
    if record in ({"files": []}, {"config": 5}, {"adapter": "x"}):
        ran = gaussmeter("verify", tmp_path / "m")
        assert (ran.code, "damaged" in ran.out) == (1, True)


def test_a_folder_in_place_of_the_index_and_an_unfinished_merge_are_found(out):
    word(out, "x")
    ran = gaussmeter("verify", out.path)
    assert (ran.code, "an interrupted merge lies in it" in ran.out.replace("\n", " ")) == (1, True)
    (out.path / "model.safetensors.index.json").mkdir()
    assert gaussmeter("verify", out.path).code == 1


def test_an_endless_threshold_comes_back_from_the_record(models, tmp_path):
    config = models.config("outlier") | {"parameters": {"t": float("inf")}}
    how = {"warehouse": made(tmp_path / "w.duckdb")}
    engine.merge(config, tmp_path / "out", **how)
    assert engine.merge(config, tmp_path / "out", **how).status == "unchanged"
    assert (engine.verify(tmp_path / "out").findings, engine.verify(tmp_path / "out").note) == ((), "")
