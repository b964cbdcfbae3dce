"""compare, nearest and the paper's figures with scores: whole commands over real scans."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import engine
from engine.errors import ConfigError
from engine.verbs.nearest import KINDS
from engine.warehouse.store import Warehouse
from tests.builders import Tensors, patterns_of, values_of, write_tensors
from tests.integration.helpers import Ran, gaussmeter, llama, made, normal

HOSTILE = "<script>alert('1')</script>\n\"x\"\x1b[31m\u202e.weight"


def renamed(tensors: Tensors, prefix: str) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def cast(tensors: Tensors, dtype: str, scale: float = 1.0) -> dict[str, Any]:
    return {
        name: (dtype, patterns_of(dtype, scale * values_of(*tensor).ravel()).reshape(tensor[1].shape))
        for name, tensor in tensors.items()
    }


BASE = llama(4, width=24)
ODD = {
    "ids": ("I64", np.arange(4)),
    HOSTILE: normal("BF16", 8, 8, seed=99),
    "empty": ("F32", np.zeros((0, 3), "<f4")),
}
MODELS: dict[str, Tensors] = {
    "base": BASE | ODD,
    "copy": BASE | ODD,
    "wrapped": renamed(BASE, "module."),
    "tuned": cast(BASE, "BF16", 1.01) | {"lm_head.weight": normal("BF16", 72, 24, seed=7)},
    "wide": cast(BASE, "F32"),
    "other": llama(4, width=24, seed=500) | {"model.embed_tokens.weight": normal("BF16", 80, 24, std=0.3)},
    "alien": {"conv.weight": normal("F32", 4, 4), "conv.ids": ("I64", np.arange(3))},
    "vectors": {f"model.layers.{i}.input_layernorm.weight": normal("BF16", 24, seed=i) for i in range(4)},
    "dW 1": cast({k: v for k, v in BASE.items() if "proj" in k}, "F32", 0.01),
    "dW 2": cast({k: v for k, v in BASE.items() if "proj" in k}, "F32", 0.02),
}
NUMBERS = {name: i for i, name in enumerate(MODELS, start=1)}


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("compare")
    warehouse = made(home / "stats.duckdb")
    for name, tensors in MODELS.items():
        path = write_tensors(home / f"{NUMBERS[name]}.safetensors", tensors)
        engine.scan(path, warehouse=warehouse, name=name, workers=1)
    with Warehouse(warehouse).writing() as connection:
        for name, kind, spec in (
            ("dW 1", "delta", {"base": "b", "tuned": "t"}),
            ("dW 2", "adapter", {"adapter": "a", "base": "b", "method": "dora", "r": 4}),
        ):
            connection.execute(
                "UPDATE subjects SET kind = ?, parent_ids = [1], spec = ? WHERE name = ?",
                [kind, json.dumps(spec), name],
            )
    return warehouse


def run(warehouse: Path, *words: object) -> Ran:
    return gaussmeter(*words, "-w", warehouse, cwd=warehouse.parent)


def records(warehouse: Path, a: str, b: str, **options: Any) -> list[dict[str, Any]]:
    return engine.compare(a, b, warehouse=warehouse, **options).result.records()


# Tensor by tensor


def test_every_number_is_that_of_the_elements(warehouse):
    rows = {r["name"]: r for r in records(warehouse, "base", "tuned")}
    assert rows.keys() == MODELS["base"].keys() | MODELS["tuned"].keys()
    for name in BASE:
        x, y = (values_of(*MODELS[m][name]).ravel() for m in ("base", "tuned"))
        row = rows[name]
        assert row["state"] == "different"
        assert row["std_gap"] == pytest.approx(abs(x.std() - y.std()))
        assert row["std_ratio"] == pytest.approx(y.std() / x.std())
        assert row["w1"] == pytest.approx(stats.wasserstein_distance(x, y))
        assert row["ks"] == pytest.approx(stats.ks_2samp(x, y, method="asymp").statistic)
        assert (row["w1_error"], row["ks_error"]) == (0, 0)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_same_counts_are_said_to_be_identical(warehouse, prefix):
    found = engine.compare("base", "wrapped" if prefix else "copy", warehouse=warehouse)
    states = {r["name"]: r["state"] for r in found.result.records()}
    assert {states[name] for name in BASE} == {"identical"}
    assert states["ids"] == ("only in a" if prefix else "not counted")
    partners = {r["name"]: r["name_b"] for r in found.result.records()}
    assert partners["model.embed_tokens.weight"] == (prefix + "model.embed_tokens.weight" if prefix else None)
    if not prefix:
        assert found.verdict == f"identical: all {len(BASE) + 2} tensors have the same counts"


def test_values_that_are_stored_wider_are_at_no_distance_but_not_identical(warehouse):
    rows = [r for r in records(warehouse, "base", "wide") if r["name"] in BASE]
    assert {r["state"] for r in rows} == {"different"}
    assert {(r["w1"], r["w1_error"], r["ks"], r["ks_error"]) for r in rows} == {(0, 0, 0, 0)}


def test_a_tensor_of_another_shape_is_compared_and_said_to_be_one(warehouse):
    (row,) = [r for r in records(warehouse, "base", "other") if r["name"] == "model.embed_tokens.weight"]
    assert row["state"] == "other shape"
    assert row["ks"] > 0.3


def test_a_comparison_is_symmetric(warehouse):
    one = {r["name"]: r for r in records(warehouse, "tuned", "wide")}
    for row in records(warehouse, "wide", "tuned"):
        there = one[row["name"]]
        assert [row[k] for k in ("w1", "w1_error", "ks", "ks_error", "std_gap")] == [
            there[k] for k in ("w1", "w1_error", "ks", "ks_error", "std_gap")
        ]


# Taken together


def test_layers_and_roles_are_means_over_their_matrices(warehouse):
    tensors = [r for r in records(warehouse, "base", "other") if r["is_matrix"]]
    for by in ("layer", "role"):
        rows = records(warehouse, "base", "other", by=by)
        for row in (r for r in rows if r["matrices"]):
            members = [t for t in tensors if t[by] == row[by]]
            assert row["matrices"] == len(members)
            for number in ("std_gap", "w1", "ks"):
                assert row[number] == pytest.approx(np.mean([t[number] for t in members]))
            assert row["std_ratio"] == pytest.approx(
                np.exp(np.mean([np.log(t["std_ratio"]) for t in members]))
            )
    assert sum(r["tensors"] + r["only_in_a"] for r in rows) == len(MODELS["base"])


def test_the_profile_of_a_role_is_compared_over_depth(warehouse):
    (query,) = [r for r in records(warehouse, "base", "other", by="role") if r["role"] == "query"]
    sigmas = [
        [values_of(*MODELS[m][f"model.layers.{i}.self_attn.q_proj.weight"]).std() for i in range(4)]
        for m in ("base", "other")
    ]
    assert query["correlation"] == pytest.approx(np.corrcoef(np.log(sigmas))[0, 1])


def test_the_whole_has_distance_and_correlation(warehouse):
    (row,) = records(warehouse, "base", "tuned", by="subject")
    assert row["distance"] == pytest.approx(np.log(1.01), rel=0.05)
    assert row["correlation"] > 0.999
    assert (row["tensors"], row["identical"], row["only_in_a"], row["only_in_b"]) == (len(BASE), 0, 3, 1)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("base", "tuned", ["same family: sigma profiles correlate", "mean |dsigma|", "W1", f"0 of {len(BASE)} tensors",
                           "3 only in a", "1 only in b"]),
        ("base", "other", ["not the same family"]),
        ("base", "vectors", ["no matrices to compare", "0 of 4 tensors identical"]),
        ("dW 1", "base", ["not the same family", "off by"]),
    ],
)  # fmt: skip
def test_the_verdict_is_one_line(warehouse, a, b, words):
    verdict = engine.compare(a, b, warehouse=warehouse).verdict
    assert all(word in verdict for word in words), verdict
    assert "\n" not in verdict


# Nearest


def names(warehouse: Path, subject: str, **options: Any) -> list[str]:
    return [r["subject"] for r in engine.nearest(subject, warehouse=warehouse, **options).records()]


def test_the_base_of_a_tuned_model_is_the_nearest(warehouse):
    rows = engine.nearest("tuned", warehouse=warehouse).records()
    assert {r["subject"] for r in rows[:4]} == {"base", "copy", "wrapped", "wide"}
    assert [r["subject"] for r in rows[4:]] == [
        "other"
    ]  # which shares too little is not the nearest by chance
    assert rows[0]["distance"] == pytest.approx(np.log(1.01), rel=0.05)
    assert rows[0]["correlation"] > 0.999
    assert (rows[0]["matched"], rows[0]["matrices"], rows[0]["kind"]) == (17, 18, "checkpoint")


def test_wrappers_are_looked_through_from_both_sides(warehouse):
    rows = engine.nearest("wrapped", warehouse=warehouse).records()
    assert [(r["subject"], r["distance"]) for r in rows[:3]] == [("base", 0), ("copy", 0), ("wide", 0)]
    assert {r["matched"] for r in rows} == {17}


def test_what_was_learnt_is_compared_among_its_like(warehouse):
    assert names(warehouse, "dW 1") == ["dW 2"]
    assert names(warehouse, "dW 1", kind="delta") == []
    assert "dW 1" not in names(warehouse, "base", limit=None)
    assert set(names(warehouse, "base", kind="all")) == set(MODELS) - {"base", "alien", "vectors"}
    assert names(warehouse, "base", kind="adapter") == ["dW 2"]


def test_every_kind_that_is_offered_can_be_asked_for(warehouse):
    offered = run(warehouse, "nearest", "--help").out
    for kind in KINDS:
        assert kind in offered
        assert isinstance(names(warehouse, "base", kind=kind), list)
    assert "observation" in KINDS


def test_the_limit_and_subjects_without_matrices(warehouse):
    assert len(names(warehouse, "base", limit=2)) == 2
    assert names(warehouse, "vectors") == []
    assert names(warehouse, "alien") == []


# The command line


def test_compare_prints_its_verdict_and_a_table(warehouse):
    ran = run(warehouse, "compare", "base", "tuned")
    first, empty, header, *rows = ran.out.splitlines()
    assert first.startswith("a = base, b = tuned: same family: ")
    assert empty == ""
    assert header.split()[:3] == ["name", "state", "layer"]
    assert len(rows) == len(MODELS["base"]) + 1
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("command", [["compare", "base", "tuned"], ["nearest", "base"]])
def test_every_format_says_the_same(warehouse, command, tmp_path):
    rows = json.loads(run(warehouse, *command, "-f", "json").out)
    lines = list(csv.DictReader(io.StringIO(run(warehouse, *command, "-f", "csv").out, newline="")))
    assert [[*r] for r in rows] == [[*r] for r in lines]
    assert len(rows) == len(lines)
    file = tmp_path / "out.parquet"
    assert run(warehouse, *command, "-f", "parquet", "-o", file).code == 0
    from pyarrow import parquet

    assert parquet.read_table(file).num_rows == len(rows)


def test_hostile_names_are_spelt_out(warehouse):
    for words in (["compare", "base", "copy"], ["compare", "base", "base", "--by", "role"]):
        out = run(warehouse, *words).out
        assert not any(c in out for c in "\x1b\u202e")
    lines = run(warehouse, "compare", "base", "copy").out.splitlines()
    assert len(lines) == 3 + len(MODELS["base"])
    assert any(r"\n" in line and "<script>" in line for line in lines)
    rows = json.loads(run(warehouse, "compare", "base", "copy", "-f", "json").out)
    assert HOSTILE in {r["name"] for r in rows}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("compare base alien", "no tensor of 'base' has the name of one of 'alien'"),
        ("compare base nothing", "no subject goes by 'nothing'"),
        ("compare base w", "'w' could be"),
        ("nearest nothing", "no subject goes by 'nothing'"),
        ("nearest base --kind model", "there is no kind 'model'; there are: checkpoint"),
        ("paper fig33", "there is no table 'fig33'; did you mean"),
        ("paper table7 -p nothing=1", "has no parameter 'nothing'; it has: a, b, metric, scores"),
        ("paper table7 --subject base", "has no parameter 'subject'"),
        ("paper fig5 -p baseline=nothing", "no subject goes by 'nothing'"),
        ("paper table1 --scores s.csv", "has nothing to do with scores; these have: fig5, table4, table7"),
        ("paper fig5 --scores missing.csv", "missing.csv: cannot be read"),
        ("paper fig5 -p scores=words", "the query failed"),
    ],
)
def test_what_is_wrong_is_one_sentence(warehouse, words, sentence):
    assert sentence in run(warehouse, *words.split()).sentence(2)


def test_the_verbs_refuse_what_the_command_line_cannot_say(warehouse):
    with pytest.raises(ConfigError, match="no view"):
        engine.compare("base", "copy", by="colour", warehouse=warehouse)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="limit"):
        engine.nearest("base", limit=0, warehouse=warehouse)


# The paper's figures, with scores from a file


def test_scores_come_from_a_file(warehouse, tmp_path):
    file = tmp_path / "scores.csv"
    file.write_text("note,subject,score\r\nx, dW 1, 78.5\r\ny,10,70\r\n", encoding="utf-8-sig")
    (row,) = json.loads(
        run(warehouse, "paper", "fig5", "-p", "baseline=dW 1", "--scores", file, "-f", "json").out
    )
    assert (row["baseline"], row["subject"], row["method"], row["r"]) == ("dW 1", "dW 2", "dora", 4)
    assert (row["score"], row["score_gap"]) == (70, 8.5)
    (row,) = engine.paper(
        "table7", params={"a": "dW 1", "b": "dW 2"}, scores=file, warehouse=warehouse
    ).records()
    assert (row["score_a"], row["score_b"]) == (78.5, 70)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "has no column 'subject'"),
        (b"subject,value\n1,2\n", "has no column 'score'"),
        (b"subject,score\nbase,high\n", "line 2: the score is no number: 'high'"),
        (b"subject,score\nbase,nan\n", "line 2: the score is no number"),
        (b"subject,score\nbase\n", "line 2: the score is no number: ''"),
        (b"subject,score\nbase,1\nnobody,2\n", "line 3: no subject goes by 'nobody'"),
        (b"subject,score\nbase,1\n1,2\n", "line 3: '1' has a score already"),
        (b"subject,score\n\xff,1\n", "cannot be read as CSV in UTF-8"),
    ],
)
def test_a_file_of_scores_that_is_none_is_refused(warehouse, tmp_path, text, sentence):
    (tmp_path / "scores.csv").write_bytes(text)
    assert sentence in run(warehouse, "paper", "fig5", "--scores", tmp_path / "scores.csv").sentence(2)


def test_help_and_list_name_every_table_and_figure(warehouse):
    listed = [r["table"] for r in json.loads(run(warehouse, "paper", "--list", "-f", "json").out)]
    tables = [f"table{k}" for k in range(1, 12)]
    assert listed == ["fig1", "fig3", "fig5", "fig6", "fig7", "scalars", *tables]
    text = run(warehouse, "paper", "--help").out
    assert "table1 to table11" in text
    assert all(name in text for name in listed if name not in tables)
