"""Merged checkpoints: every method, dtype and way of running gives what whole tensors in memory give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.errors import BudgetError, ConfigError, FormatError
from engine.merge_methods.registry import METHODS
from engine.nouns.merging import Stretch
from engine.plan import keeping
from engine.verbs.merge_output import RECORD, STATE
from tests.builders import raw, unsigned, write_tensors
from tests.integration.helpers import gaussmeter, made, normal, records, rows
from tests.integration.merges import (
    NUMBERS,
    SHAPES,
    Family,
    assert_one_rounding,
    data_of,
    family,
    shapes,
    values,
    weights,
)
from tests.merging import arguments, merged, models_of, noisy
from tests.torch_files import archive, program, storage, tensor

MIXES = [["BF16", "BF16", "BF16", "BF16"], ["F32"] * 4, ["F16"] * 4, ["BF16", "F32", "F16", "BF16"]]


@pytest.fixture(scope="module", params=MIXES, ids=lambda m: "-".join(dict.fromkeys(m)))
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return family(tmp_path_factory.mktemp("family"), request.param)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return family(tmp_path_factory.mktemp("family"), ["BF16"] * 4)


def assert_merged(models: Family, method: str, out: Path, dtype: str, **options: Any) -> None:
    found = weights(out)
    assert set(found) == {*SHAPES, "model.position_ids"}
    assert found["model.position_ids"].data.tobytes() == raw(NUMBERS[1]).tobytes()
    assert shapes(out) == {**SHAPES, "model.position_ids": (7,)}
    for name in SHAPES:
        expected = models.expected(method, name, dtype, **options)
        assert (found[name].dtype.name, found[name].data.tobytes()) == (dtype, expected.tobytes()), name


@pytest.mark.parametrize("method", METHODS)
def test_it_is_what_whole_tensors_give_however_it_is_cut(models, method, tmp_path):
    config, warehouse = models.config(method), made(tmp_path / "w.duckdb")
    dtype = models.elements["model.scale"][0 if method != "linear" else 1].dtype.name
    report = engine.merge(config, tmp_path / "a", warehouse=warehouse, workers=1)
    assert (report.status, report.merged, len(report.copied)) == ("merged", len(SHAPES), 1)
    assert_merged(models, method, tmp_path / "a", dtype)
    # with what the warehouse knows by now, in other pieces, in several files
    again = engine.merge(
        config, tmp_path / "b", warehouse=warehouse, workers=3, task_bytes=700, shard_bytes=3000
    )
    assert again.files > 1
    assert_merged(models, method, tmp_path / "b", dtype)


@pytest.mark.parametrize("method", METHODS)
def test_a_task_that_is_smaller_than_a_row(plain, method, tmp_path):
    engine.merge(plain.config(method), tmp_path / "out", warehouse=made(tmp_path / "w.duckdb"), task_bytes=90)
    assert_merged(plain, method, tmp_path / "out", "BF16")


@pytest.mark.parametrize(
    ("method", "shared", "part"),
    [
        ("della", {"density": 0.9}, "density 0.9 -+ epsilon 0.15 leaves the range from 0 to 1"),
        ("della", {"density": [0.5, 1.0, 0.95]}, "tensor 'model.layers.1.mlp.up_proj.weight': density 0.95"),
        ("linear", {"weight": [1.0, 0.0]}, "layers.1.mlp.up_proj.weight': the weights add up to 0"),
    ],
)
def test_parameters_that_cannot_work_are_refused_before_anything_is_made(
    plain, method, shared, part, tmp_path
):
    config = plain.config(method) | {"parameters": shared}
    for model in config["models"]:
        model["parameters"] = {"weight": 1.0} if method == "della" else {}
    with pytest.raises(ConfigError, match="tensor 'model") as refused:
        engine.merge(config, tmp_path / "out", warehouse=tmp_path / "w.duckdb")
    assert part in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", METHODS)
def test_in_float64_and_other_dtypes(plain, method, tmp_path):
    config = plain.config(method, dtype="float64", out_dtype="float32")
    engine.merge(config, tmp_path / "out", warehouse=made(tmp_path / "w.duckdb"))
    assert_merged(plain, method, tmp_path / "out", "F32", wide=True)


@pytest.mark.parametrize("t", [0.5, 2.0, 3.0])
def test_outliers_are_algorithm_2_to_one_rounding(models, t, tmp_path):
    config = models.config("outlier") | {"parameters": {"t": t}}
    engine.merge(config, tmp_path / "out", warehouse=made(tmp_path / "w.duckdb"))
    found = weights(tmp_path / "out")
    for name, inputs in models.elements.items():
        base, *others = map(values, inputs)
        task = [o - base for o in others]
        sigma = min((d.std() for d in task if d.size), default=0.0)
        merged = base + sum(np.where(np.abs(d) <= t * sigma, d / len(task), d) for d in task)
        assert_one_rounding(found[name], merged, [base, *others])


def test_averages_are_those_of_whole_tensors_to_one_rounding(models, tmp_path):
    config = models.config("linear")
    engine.merge(config, tmp_path / "out", warehouse=made(tmp_path / "w.duckdb"))
    found = weights(tmp_path / "out")
    for name, inputs in models.elements.items():
        several = [values(i) for i in inputs[1:]]
        merged = sum(w * v for w, v in zip((0.5, 1.0, 0.25), several, strict=True)) / 1.75
        assert_one_rounding(found[name], merged, several)


# What it leaves


def test_the_differences_are_subjects_as_a_delta_would_leave_them(plain, tmp_path):
    base, *others = map(str, plain.folders)
    engine.delta(base, *others, warehouse=tmp_path / "d.duckdb")
    engine.merge(plain.config("outlier"), tmp_path / "out", warehouse=tmp_path / "m.duckdb")
    query = """
        SELECT s.name, t.name, t.n, t.zeros, t.mean, t.m2, t.m4, t.reason, list((b.code, b.n, b.low_sum) ORDER BY b.code)
        FROM subjects s JOIN tensors t USING (subject_id) LEFT JOIN bins b USING (tensor_id)
        WHERE s.kind = 'delta' GROUP BY ALL ORDER BY 1, 2
    """
    assert rows(tmp_path / "m.duckdb", query) == rows(tmp_path / "d.duckdb", query)
    again = engine.delta(base, *others, warehouse=tmp_path / "m.duckdb")
    assert {s.status for s in again.subjects} == {"unchanged"}


def test_the_merged_model_is_a_subject_with_parents(plain, tmp_path):
    warehouse = tmp_path / "w.duckdb"
    parents = [engine.scan(f, warehouse=warehouse).subject_id for f in plain.folders]
    report = engine.merge(plain.config("ties"), tmp_path / "out", warehouse=warehouse, name="mine")
    (found,) = records(warehouse, "SELECT * FROM subjects WHERE kind = 'merge'")
    assert (found["name"], found["status"], list(found["parent_ids"])) == ("mine", "complete", parents)
    assert found["uri"] == str(tmp_path / "out")
    scanned = engine.scan(tmp_path / "out", warehouse=warehouse)
    query = (
        "SELECT t.name, t.n, t.mean, t.m2, t.zeros, t.min, t.max FROM tensors t "
        "WHERE subject_id = ? ORDER BY t.name"
    )
    assert rows(warehouse, query, report.subject_id) == rows(warehouse, query, scanned.subject_id)
    kinds = "SELECT fingerprint FROM subjects WHERE subject_id IN (?, ?) GROUP BY ALL"
    assert len(rows(warehouse, kinds, report.subject_id, scanned.subject_id)) == 1


def test_files_beside_the_base_come_along_and_the_card_says_what_was_merged(tmp_path):
    models = family(tmp_path / "in", ["BF16"] * 4)
    base = models.folders[0]
    (base / "config.json").write_text('{\n  "model_type": "llama",\n  "torch_dtype": "bfloat16"\n}\n')
    (base / "tokenizer_config.json").write_text("{}")
    (base / "optimizer.pt").write_bytes(b"no")
    config = models.config("task_arithmetic", out_dtype="float16")
    engine.merge(config, tmp_path / "out", warehouse=tmp_path / "w.duckdb")
    found = data_of(tmp_path / "out")
    assert set(found) == {
        "README.md", RECORD, "config.json", "tokenizer_config.json", "model.safetensors",
    }  # fmt: skip
    assert json.loads(found["config.json"]) == {"model_type": "llama", "torch_dtype": "float16"}
    card = found["README.md"].decode()
    assert "the method `task_arithmetic`" in card
    assert f"model: {models.folders[1]}" in card
    assert not (tmp_path / "out" / STATE).exists()


def test_again_is_unchanged_and_another_merge_is_refused(plain, tmp_path):
    out, warehouse = tmp_path / "out", tmp_path / "w.duckdb"
    first = engine.merge(plain.config("outlier"), out, warehouse=warehouse)
    before = data_of(out)
    again = engine.merge(plain.config("outlier"), out, warehouse=warehouse)
    assert (again.status, again.nbytes_read, again.subject_id) == ("unchanged", 0, first.subject_id)
    with pytest.raises(ConfigError, match="holds another merge"):
        engine.merge(plain.config("ties"), out, warehouse=warehouse)
    assert data_of(out) == before
    replaced = engine.merge(plain.config("ties"), out, warehouse=warehouse, force=True)
    assert replaced.status == "merged"
    assert_merged(plain, "ties", out, "BF16")


def test_what_is_zero_takes_no_disk(tmp_path):
    """A file of holes stays one."""
    zeros = ("BF16", np.zeros((1024, 1024), "<u2"))
    config = pair_of(tmp_path, {A: zeros}, {A: zeros})
    engine.merge(config, tmp_path / "out", warehouse=tmp_path / "w.duckdb")
    found = (tmp_path / "out" / "model.safetensors").stat()
    assert found.st_size > 2 << 20
    assert found.st_blocks * 512 < 1 << 20


# Wrong input


def changed(folder: Path, tensors: dict[str, Any], name: str = "changed") -> str:
    """A model of these tensors alone."""
    write_tensors(folder / name / "model.safetensors", tensors)
    return str(folder / name)


def pair_of(tmp_path: Path, base: dict[str, Any], model: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "merge_method": "task_arithmetic",
        "base_model": changed(tmp_path, base, "base"),
        "models": [{"model": changed(tmp_path, model, "model"), "parameters": {"weight": 1.0}}],
        **more,
    }


A, B = "layers.0.q_proj.weight", "layers.0.k_proj.weight"


@pytest.mark.parametrize(
    ("base", "model", "part"),
    [
        ({A: normal("BF16", 4, 4), B: normal("BF16", 4, 4)}, {A: normal("BF16", 4, 4)}, None),
        ({A: normal("BF16", 4, 4)}, {A: normal("BF16", 4, 5)}, "shapes differ: (4, 5) in"),
        ({A: normal("F64", 4, 4)}, {A: normal("F64", 4, 4)}, "F64 is not written; `dtype: float64`"),
        ({A: normal("BF16", 4, 4)}, {A: ("I32", np.zeros((4, 4), "<i4"))}, None),
    ],
)
def test_what_does_not_fit_is_copied_or_refused(tmp_path, base, model, part):
    config, out = pair_of(tmp_path, base, model), tmp_path / "out"
    if part is None:
        report = engine.merge(config, out, warehouse=tmp_path / "w.duckdb")
        ((name, reason),) = report.copied
        assert reason
        assert weights(out)[name].data.tobytes() == raw(base[name][1]).tobytes()
        return
    with pytest.raises(FormatError, match="cannot be merged: 1 of 1 tensors") as failed:
        engine.merge(config, out, warehouse=tmp_path / "w.duckdb")
    assert part in str(failed.value)
    assert not out.exists()
    assert not (tmp_path / "w.duckdb").exists()


def test_a_tensor_that_one_of_two_models_lacks_refuses_the_merge(tmp_path):
    config = pair_of(tmp_path, {A: normal("BF16", 4, 4), B: normal("BF16", 4, 4)}, {A: normal("BF16", 4, 4)})
    whole = changed(tmp_path, {A: normal("BF16", 4, 4), B: normal("BF16", 4, 4)}, "whole")
    config["models"].append({"model": whole, "parameters": {"weight": 1.0}})
    with pytest.raises(
        FormatError, match=r"first of them 'layers.0.k_proj.weight': .*model has no such tensor"
    ):
        engine.merge(config, tmp_path / "out", warehouse=tmp_path / "w.duckdb")


def test_a_tensor_that_only_a_model_has_is_left_out_with_a_reason(tmp_path):
    config = pair_of(
        tmp_path, {A: normal("BF16", 4, 4)}, {A: normal("BF16", 4, 4), "score": normal("BF16", 4)}
    )
    report = engine.merge(config, tmp_path / "out", warehouse=tmp_path / "w.duckdb")
    (model,) = (m["model"] for m in config["models"])
    assert report.refused == (("score", f"{model} has it, {config['base_model']} does not"),)
    assert list(weights(tmp_path / "out")) == [A]


@pytest.mark.parametrize(
    ("prepare", "words", "code", "part"),
    [
        (lambda out: out.write_text("x"), [], 2, "is there already, and is no directory"),
        (lambda out: (out.mkdir(), (out / "x").touch()), [], 2, "is there already, and is not empty"),
        (lambda out: None, ["--memory", "1MB"], 2, "over the limit"),
        (lambda out: None, ["--shard-size", "much"], 2, "--shard-size takes a size"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(plain, tmp_path, prepare, words, code, part):
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps(plain.config("linear")))
    prepare(tmp_path / "out")
    ran = gaussmeter("merge", config, tmp_path / "out", "-w", tmp_path / "w.duckdb", *words)
    assert part in ran.sentence(code)


def test_a_plan_that_is_too_large_makes_nothing(plain, tmp_path):
    with pytest.raises(BudgetError):
        engine.merge(
            plain.config("linear"), tmp_path / "out", warehouse=tmp_path / "w.duckdb", memory_bytes=1
        )
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_became_of_the_tensors(plain, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps(plain.config("linear")))
    ran = gaussmeter("merge", config, tmp_path / "out", "-w", tmp_path / "w.duckdb")
    assert ran.code == 0
    assert "7 tensors merged, 1 copied, 0 left out, subject 1 in" in ran.out
    assert "copied: model.position_ids: integer" in ran.out
    again = gaussmeter("merge", config, tmp_path / "out", "-w", tmp_path / "w.duckdb", "--format", "json")
    assert json.loads(again.out)["status"] == "unchanged"


def test_slerp_takes_one_model(plain):
    assert models_of("slerp") == 1


def test_tensors_that_lie_in_another_order_are_written_in_theirs(tmp_path):
    """All of them alike, so that differences could be counted as they lie: a copy and a merge could not."""
    values = np.arange(24, dtype="<f4")
    transposed = {
        "w": tensor((6, 4), (1, 6), 0, storage("0", 24)),
        "n": tensor((3,), (1,), 0, storage("1", 3)),
    }
    for name, more in (("a", 0), ("b", 10)):
        data = {"0": (values + more).tobytes(), "1": bytes(12)}
        (tmp_path / f"{name}.pt").write_bytes(archive(program(transposed), data))
    listed = [{"model": str(tmp_path / f"{n}.pt"), "parameters": {"weight": 1.0}} for n in "ab"]
    config = {"merge_method": "linear", "models": listed}
    engine.merge(config, tmp_path / "out", warehouse=tmp_path / "w.duckdb")
    expected = (values + 5).reshape(4, 6).T
    found = weights(tmp_path / "out")["w"].data.view("<f4").reshape(6, 4)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "outlier", "model_stock"])
def test_large_tensors_are_the_same_whether_they_stay_in_memory_or_not(dtype, method, tmp_path, monkeypatch):
    size, name = (1 << 20) + 4096, "model.layers.0.mlp.up_proj.weight"  # so many that a sample is taken
    elements = noisy([dtype] * 3, size, seed=4)
    parameters = {"ties": {"weight": 0.5, "density": 0.4}, "breadcrumbs": {"weight": 0.5, "gamma": 0.2}}
    for number, one in enumerate(elements):
        (tmp_path / str(number)).mkdir()
        patterns = one.data.view(unsigned(dtype)).reshape(-1, 1024)
        write_tensors(tmp_path / str(number) / "model.safetensors", {name: (dtype, patterns)})
    config = {
        "merge_method": method,
        "base_model": str(tmp_path / "0"),
        "models": [{"model": str(tmp_path / n), "parameters": parameters.get(method, {})} for n in "12"],
    }
    given = {"t": 3.0} if method == "outlier" else parameters.get(method, {})
    known = arguments(method, elements, dict(given))
    expected = raw(merged(method, elements, dtype, known, stretch=Stretch(name, 0, 1024))).tobytes()
    for out, most in (("kept", keeping.MOST_BYTES), ("again", 0)):
        monkeypatch.setattr(keeping, "MOST_BYTES", most)
        engine.merge(config, tmp_path / out, warehouse=made(tmp_path / f"{out}.duckdb"))
        assert weights(tmp_path / out)[name].data.tobytes() == expected
