"""Queries of adaptation runs, on runs that are planted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.nouns.glue import GLUE
from engine.nouns.tuning import RunSpec
from engine.tuning.sweep import runs_of
from engine.warehouse import runs as table
from engine.warehouse.store import Warehouse
from tests.integration.helpers import made
from tests.tuning import config_of

SCORES = {"head": 60.0, "full": 88.0, "noise": 75.0}


def plant(
    place: Path, run: RunSpec, score: float, scalars: dict[str, float] | None = None, **more: float
) -> int:
    metrics = {"score": score, **more}
    with Warehouse(place).writing() as connection:
        number = table.enter_run(connection, run, "/m/MiniLM", "")
        table.add_metrics(
            connection, [(number, 1, {"loss": 0.7}), (number, 2, {"loss": 0.5, "eval_score": 1})]
        )
        learnt = {"steps": 2, "metrics": metrics, "parameters": 806, "head": 770, "scalars": scalars or {}}
        table.finish_run(connection, number, learnt, None, 1.5)
    return number


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("runs") / "w.duckdb"
    given = {
        "job": "tune", "name": "glue", "model": "org/m", "seeds": [0, 1],
        "methods": list(SCORES), "tasks": ["sst2", "rte"],
    }  # fmt: skip
    for run in runs_of(config_of(given)):
        score = SCORES[run.method.name] + (run.task.name == "rte") * 10 + run.seed
        scalars = (
            {"a.weight": 0.1 + 0.02 * run.seed, "b.weight": -0.2} if run.method.name == "noise" else None
        )
        plant(place, run, score, scalars)
    given |= {"name": "common", "methods": ["lora", "lora_noise"], "tasks": ["commonsense"], "ranks": [16]}
    for run in runs_of(config_of(given)):
        gain = 4.0 * (run.method.name == "lora_noise")
        plant(
            place,
            run,
            70 + gain + run.seed,
            **{"accuracy/boolq": 60 + gain + run.seed, "accuracy/ARC-Easy": 80},
        )
    failed = replace(runs_of(config_of(given | {"name": "other"}))[0])
    with Warehouse(place).writing() as connection:
        table.fail_run(connection, table.enter_run(connection, failed, "m", ""), "no disk")
    return place


def paper(name: str, place: Path, **params: Any) -> list[dict[str, Any]]:
    return engine.paper(name, params=params, warehouse=place).records()


def test_table_2_is_ours_beside_the_papers(place):
    rows = paper("table2", place, sweep="glue")
    ours = {row["label"]: row for row in rows if row["source"] == "ours"}
    assert list(ours) == ["head", "full", "noise"]
    noise = ours["noise"]
    assert (noise["sst2"], noise["rte"], noise["average"], noise["cola"]) == (75.5, 85.5, 80.5, None)
    assert (noise["runs"], noise["parameters"]) == (2, 36)
    assert noise["std"] == pytest.approx(0.5**0.5)
    theirs = {row["label"]: row for row in rows if row["source"] == "paper"}
    assert list(theirs) == ["head", "full", "svdiff", "noise", "full_gaussian"]
    assert theirs["noise"]["average"] == pytest.approx(78.62, abs=0.01)
    assert theirs["full_gaussian"]["average"] == pytest.approx(45.13, abs=0.2)  # its own row gives 45.26
    assert theirs["noise"]["average_shared"] == pytest.approx((88.53 + 71.12) / 2)
    assert theirs["full"]["parameters"] == 184_000_000
    assert paper("table2", place, sweep="nothing") == []


def test_table_3_has_the_gain_over_plain_lora(place):
    rows = paper("table3", place)
    ours = {row["label"]: row for row in rows if row["source"] == "ours"}
    assert ours["lora_noise"]["gain"] == 4
    assert ours["lora"]["gain"] is None
    assert (ours["lora"]["boolq"], ours["lora"]["arc_e"], ours["lora"]["piqa"]) == (60.5, 80, None)
    theirs = {(r["model"], r["label"], r["r"]): r for r in rows if r["source"] == "paper"}
    assert len(theirs) == 12
    assert theirs["LLaMA2-7B", "lora_noise", 16]["gain"] == pytest.approx(7.8)


def test_the_papers_averages_are_those_of_its_rows(place):
    tasks = ("boolq", "piqa", "siqa", "hellaswag", "winogrande", "arc_e", "arc_c", "obqa")
    for row in paper("table3", place):
        if row["source"] == "paper":
            assert sum(row[t] for t in tasks) / 8 == pytest.approx(
                row["average"], abs=0.11
            )  # it rounds down once


def test_tables_9_to_11_say_what_runs_used(place):
    runs = {row["task"]: row["runs"] for row in paper("table9", place)}
    assert (runs["sst2"], runs["rte"], runs["cola"]) == (6, 6, 0)
    rows = [row for row in paper("table10", place, task="sst2") if row["source"] == "runs"]
    assert [(r["label"], r["runs"], r["learning_rate"], r["modules"]) for r in rows] == [
        ("full", 2, 5e-5, None), ("head", 2, 8e-4, None), ("noise", 2, 8e-4, "Q, K, V, O, Up, Down"),
    ]  # fmt: skip
    assert {(r["sweep"], r["epochs"], r["batch"], r["train_examples"]) for r in rows} == {
        ("glue", 24, 32, None)
    }
    rows = [row for row in paper("table11", place) if row["source"] == "runs"]
    assert [(r["label"], r["r"], r["alpha"], r["runs"], r["warmup_steps"], r["dropout"]) for r in rows] == [
        ("lora", 16, 32, 2, 100, 0.05), ("lora_noise", 16, 32, 2, 100, 0.05),
    ]  # fmt: skip
    assert all(row["source"] != "runs" for row in paper("table10", place, sweep="nothing"))


def test_tables_10_and_11_count_the_examples_of_all_workers(tmp_path):
    place = made(tmp_path / "w.duckdb")
    given = {"job": "tune", "model": "org/m", "run": {"workers": 4}, "ranks": [16]}
    for name, more in (("a", {}), ("before", {"train": {"accumulate": 2}})):
        for method, task in (("noise", "sst2"), ("lora", "commonsense")):
            (run,) = runs_of(config_of(given | more | {"name": name, "methods": [method], "tasks": [task]}))
            plant(place, run, 70.0)
    with Warehouse(place).writing() as connection:  # its rows say nothing of workers
        fields = "SELECT run_id, spec FROM runs WHERE sweep = 'before'"
        for number, spec in connection.execute(fields).fetchall():
            said = json.loads(spec)
            del said["training"]["workers"]
            connection.execute("UPDATE runs SET spec = ? WHERE run_id = ?", [json.dumps(said), number])
    for table_, of_a, before in (("table10", 4 * 32, 2 * 32), ("table11", 4 * 16, 2 * 16)):
        found = {row["sweep"]: row["batch"] for row in paper(table_, place) if row["source"] == "runs"}
        assert found == {"a": of_a, "before": before}


def test_scalars_of_two_seeds_are_compared(place):
    rows = paper("scalars", place)
    assert [(r["task"], r["matrices"], r["seeds"]) for r in rows] == [
        ("rte", 2, 2),
        ("sst2", 2, 2),
        (None, 2, 2),
    ]
    assert rows[0]["difference"] == pytest.approx(0.01)
    assert rows[-1]["difference"] == pytest.approx(0.01)
    assert rows[0]["paper_difference"] == 0.009
    assert rows[0]["magnitude"] == pytest.approx(0.155)


def test_curves_and_runs(place):
    rows = engine.sql("learning_curves", params={"run": "glue/noise-sst2-s0"}, warehouse=place).records()
    assert [(r["step"], r["value"]) for r in rows] == [(1, 0.7), (2, 0.5)]
    runs = engine.sql("runs", warehouse=place).records()
    assert len(runs) == 17
    assert (runs[-1]["status"], runs[-1]["reason"], runs[-1]["score"]) == ("failed", "no disk", None)
    assert (runs[0]["status"], runs[0]["score"], runs[0]["steps"]) == ("complete", 60, 2)


def test_observations_stand_beside_their_runs(place, tmp_path):
    import shutil

    import torch

    from engine.device.live import observe_all
    from engine.verbs.observe import keep

    shutil.copy(place, tmp_path / "w.duckdb")
    store, run = Warehouse(tmp_path / "w.duckdb"), "glue/noise-sst2-s0"
    for step in (20, 10):
        weights = {"encoder.layer.0.attention.self.query.weight": torch.arange(16.0).reshape(4, 4) * step}
        keep(observe_all(weights), f"{run}@{step}", store, spec={"run": run, "step": step}, began=0.0)
    engine.observe({"x": torch.ones(3)}, name="alone", warehouse=store.path)
    found = engine.sql("observations", params={"sweep": "glue"}, warehouse=store.path).records()
    assert [(r["run"], r["step"], r["subject"]) for r in found] == [(run, s, f"{run}@{s}") for s in (10, 20)]
    assert [(r["matrices"], r["largest"]) for r in found] == [(1, 150.0), (1, 300.0)]
    assert found[0]["std"] == pytest.approx(10 * 4.609772)
    assert (
        engine.sql("observations", params={"run": "glue/full-rte-s1"}, warehouse=store.path).records() == []
    )


def test_all_tasks_of_the_paper_are_known():
    assert list(GLUE) == ["mnli", "sst2", "cola", "qqp", "qnli", "rte", "mrpc", "stsb"]
