"""`gaussmeter tune` from end to end: a sweep on a private cluster, lost workers, and what is refused."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.errors import ConfigError
from engine.nouns.events import Event, RunBegun, RunEnded, RunStepped, TaskDone
from engine.warehouse.store import Warehouse
from tests.integration.clusters import listening_beyond_loopback
from tests.integration.helpers import ROOT, assert_consistent, gaussmeter, rows
from tests.tuning import make_bert, make_data, make_gpt2, settings, write_config

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, about itself

CHECKPOINT = 6
TRAIN = {
    "epochs": 4, "batch": 16, "max_length": 24, "learning_rate": 5e-3,
    "checkpoint_every": CHECKPOINT, "evaluate_every": 12, "test_examples": 20,
}  # fmt: skip


@contextmanager
def on_loopback() -> Iterator[None]:
    """One private cluster for several sweeps."""
    from engine.execution.ray_cluster import connected

    with connected("local", 3):  # starting takes longer than training, so all at once
        yield


class Killer:
    """Kills the worker of a run when it has come past its second checkpoint, once; Ray Train may lose the newest."""

    def __init__(self, run: str, folder: Path) -> None:
        self.run, self.folder, self.pid, self.killed = run, folder, 0, False
        self.events: list[Event] = []
        self.open: set[str] = set()
        self.kept: set[str] = set()  # runs whose checkpoints were there while something was counted
        self.counted: dict[str, set[str]] = {}  # the same, when a run was over

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, TaskDone):
            self.kept = {path.parent.name for path in self.folder.glob("*/checkpoints")}
        if isinstance(event, RunEnded):
            self.counted[event.name] = self.kept
        if isinstance(event, RunBegun) and event.name == self.run:
            self.pid = event.pid
        past = isinstance(event, RunStepped) and event.name == self.run and event.step > 2 * CHECKPOINT
        if past and not self.killed:
            os.kill(self.pid, signal.SIGKILL)
            self.killed = True
            self.open |= listening_beyond_loopback()


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    make_bert(folder / "bert")
    make_gpt2(folder / "gpt2")
    make_data(folder / "data")
    return folder


@pytest.fixture(scope="module")
def sweep(places) -> dict[str, Any]:
    """Runs of two methods, one of them twice; of one of the twins the worker is killed."""
    methods = [{"method": "noise", "label": "killed"}, "full", {"method": "noise", "label": "kept"}]
    given = settings(places / "bert", places / "data", places, methods=methods, train=TRAIN, observe=24)
    config = write_config(places / "sweep.yaml", given)
    killer = Killer("try/killed-sst2-s0", places / "runs" / "try")
    before = listening_beyond_loopback()
    with on_loopback():
        report = engine.tune(config, listener=killer)
    return {
        "report": report,
        "killer": killer,
        "config": config,
        "given": given,
        "opened": killer.open - before,
    }


def test_every_run_ends_with_its_score_in_the_warehouse(sweep, places):
    report = sweep["report"]
    assert report.complete
    assert [(r.name, r.steps) for r in report.runs] == [
        (f"try/{label}-sst2-s0", 24) for label in ("killed", "full", "kept")
    ]
    found = engine.sql("runs", warehouse=places / "w.duckdb").records()
    assert [(r["status"], r["score"]) for r in found] == [("complete", run.score) for run in report.runs]
    assert found[0]["parameters"] - found[0]["head_parameters"] == 12
    curve = engine.sql("learning_curves", params={"run": "try/full-sst2-s0"}, warehouse=places / "w.duckdb")
    assert [row["step"] for row in curve.records()] == list(range(1, 25))
    ((scores,),) = rows(
        places / "w.duckdb", "SELECT count(*) FROM metrics WHERE run_id = 1 AND name = 'eval_score'"
    )
    assert scores == 2


def test_what_learns_is_observed_and_linked_to_its_run(sweep, places):
    from safetensors.numpy import load_file

    found = engine.sql("observations", warehouse=places / "w.duckdb").records()
    names = [f"try/{label}-sst2-s0@24" for label in ("killed", "full", "kept")]
    assert [(row["subject"], row["step"]) for row in found] == [(name, 24) for name in names]
    assert found[0]["largest"] == found[2]["largest"]  # the same updates, whatever was killed
    learnt = load_file(places / "runs/try/full-sst2-s0/learnt/model.safetensors")
    sigmas = engine.sql(
        "SELECT name, std FROM tensor_stats WHERE subject = 'try/full-sst2-s0@24'",
        warehouse=places / "w.duckdb",
    ).records()
    assert {row["name"] for row in sigmas} == set(learnt)
    for row in sigmas:
        assert row["std"] == pytest.approx(learnt[row["name"]].astype(float).std(), rel=1e-6, abs=1e-12)


def test_a_killed_worker_changes_no_score(sweep, places):
    report, killer = sweep["report"], sweep["killer"]
    assert killer.killed
    killed, _, kept = report.runs
    assert (kept.status, killed.status) == ("trained", "resumed")
    assert killed.score == kept.score
    begun = [e.step for e in killer.events if isinstance(e, RunBegun) and e.name == killed.name]
    assert begun[0] == 0
    assert begun[1] in (CHECKPOINT, 2 * CHECKPOINT, 3 * CHECKPOINT)
    curves = [
        engine.sql("learning_curves", params={"run": run.name}, warehouse=places / "w.duckdb").records()
        for run in (kept, killed)
    ]
    assert [c["step"] for c in curves[1]] == list(range(1, 25))
    assert [c["value"] for c in curves[0]] == [c["value"] for c in curves[1]]
    scalars = "SELECT tensor, value FROM scalars WHERE run_id = ? ORDER BY tensor"
    assert rows(places / "w.duckdb", scalars, 3) == rows(places / "w.duckdb", scalars, 1)
    assert len(rows(places / "w.duckdb", scalars, 1)) == 12


def test_no_server_is_open_to_others(sweep):
    assert sweep["opened"] == set()


def test_what_each_run_changed_is_counted_and_linked(sweep, places):
    found = rows(
        places / "w.duckdb",
        "SELECT r.label, s.kind, s.name, (SELECT count(*) FROM delta_stats d WHERE d.subject_id = s.subject_id "
        "AND is_matrix AND std > 0) FROM runs r JOIN subjects s USING (subject_id) ORDER BY run_id",
    )
    assert [(label, kind, name) for label, kind, name, _ in found] == [
        ("killed", "adapter", "try/killed-sst2-s0"),
        ("full", "delta", "try/full-sst2-s0"),
        ("kept", "adapter", "try/kept-sst2-s0"),
    ]
    assert [found[0][3], found[2][3]] == [12, 12]
    assert found[1][3] > 12
    assert_consistent(places / "w.duckdb")
    (query,) = rows(
        places / "w.duckdb",
        "SELECT d.std, abs(s.value) FROM scalars s JOIN runs r USING (run_id) JOIN delta_stats d "
        "ON d.subject_id = r.subject_id AND d.name = s.tensor WHERE r.label = 'kept' AND d.layer = 0 AND d.role = 'query'",
    )
    assert query[0] == pytest.approx(query[1], rel=0.1)  # sigma of s N is |s|, for 1,024 numbers


def test_sigmas_are_set_against_scores(sweep, places):
    found = engine.paper(
        "fig5", params={"baseline": "try/full-sst2-s0"}, warehouse=places / "w.duckdb"
    ).records()
    by_name = {row["subject"]: row for row in found}
    assert by_name["try/kept-sst2-s0"]["matrices"] == 12
    assert by_name["try/kept-sst2-s0"]["std_gap"] > 0
    assert by_name["try/kept-sst2-s0"]["score_gap"] == abs(
        sweep["report"].runs[1].score - sweep["report"].runs[2].score
    )
    pair = engine.paper(
        "table7", params={"a": "try/kept-sst2-s0", "b": "try/killed-sst2-s0"}, warehouse=places / "w.duckdb"
    ).records()
    assert [(row["matrices"], row["std_gap"], row["score_gap"]) for row in pair] == [(12, 0, 0)]
    table2 = engine.paper("table2", warehouse=places / "w.duckdb").records()
    assert {"full", "kept", "killed"} <= {row["label"] for row in table2}


def test_only_what_was_learnt_is_left(sweep):
    for run in sweep["report"].runs:
        assert Path(run.folder).name in sweep["killer"].counted[run.name], (
            "a driver that dies then would lose it"
        )
        assert sorted(p.name for p in Path(run.folder).iterdir()) == ["learnt"]


def test_a_second_run_refuses_or_resumes_when_asked(sweep, places):
    ran = gaussmeter("tune", sweep["config"], cwd=places)
    assert (
        "3 of 3 runs are there already, first try/killed-sst2-s0 (complete): --resume goes on"
        in ran.sentence(2)
    )
    again = engine.tune(sweep["config"], resume=True)
    assert {run.status for run in again.runs} == {"unchanged"}
    assert [run.score for run in again.runs] == [run.score for run in sweep["report"].runs]
    other = sweep["given"] | {"train": TRAIN | {"learning_rate": 1e-3}}
    with pytest.raises(
        ConfigError, match=r"begun with another configuration: training.learning_rate was 0.005"
    ):
        engine.tune(write_config(places / "other.yaml", other), resume=True)


def test_a_sweep_of_one_name_runs_once_at_a_time(places):
    from engine.warehouse.lock import only_one

    given = settings(places / "bert", places / "data", places, name="busy")
    config = write_config(places / "busy.yaml", given)
    with only_one(places / "w.duckdb", "tune-busy"):
        ran = gaussmeter("tune", config, cwd=places)
    assert "the sweep 'busy' is running at this moment" in ran.sentence(2)


def test_all_faults_at_once_before_anything_starts(places, tmp_path):
    odd = tmp_path / "odd.tsv"
    odd.write_text("label\ttext_\n1\tfine\n")
    given = settings(places / "bert", places / "data", tmp_path, sedes=[1], modules=["Q", "Z"])
    given["tasks"] = ["sst2", {"task": "sst2", "train": str(odd), "label": "odd"}]
    given["methods"] = ["noise", {"method": "lora", "ranks": [64]}]
    ran = gaussmeter("tune", write_config(tmp_path / "x.yaml", given), cwd=tmp_path)
    assert ran.code == 2
    for sentence in (
        "has 4 faults", "did you mean 'seeds'?", "there is no module 'Z'", "of rank 64 does not fit",
        "odd.tsv: has no column 'sentence'; it has label, text_",
    ):  # fmt: skip
        assert sentence in ran.err
    assert ran.out == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["odd.tsv", "x.yaml"]


def test_a_dry_run_names_the_runs(places, tmp_path):
    given = settings(
        places / "bert", places / "data", tmp_path, methods=["lora", "head"], ranks=[2, 4], seeds=[0, 1]
    )
    ran = gaussmeter("tune", write_config(tmp_path / "x.yaml", given), "--dry-run", cwd=tmp_path)
    assert (ran.code, ran.out.count("planned")) == (0, 6)
    ran = gaussmeter("job", tmp_path / "x.yaml", "--dry-run", "--format", "json", cwd=tmp_path)
    assert len(json.loads(ran.out)["runs"]) == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.yaml"]
    given |= {"methods": ["head"], "seeds": [0]}
    ran = gaussmeter("tune", write_config(tmp_path / "x.yaml", given), "--dry-run", cwd=tmp_path)
    assert ran.out.splitlines()[-1].startswith("1 run in ")


# Longer


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_workers_are_one_with_the_doubled_batch(places, tmp_path, sharding):
    train = {"epochs": 2, "max_length": 24, "learning_rate": 1e-3, "dropout": 0.0}
    curves = []
    with on_loopback():
        for name, batch, workers in (("one", 16, 1), ("two", 8, 2)):
            given = settings(places / "bert", places / "data", tmp_path, name=name, methods=["full"])
            given |= {"train": train | {"batch": batch}, "run": {"workers": workers, "sharding": sharding}}
            report = engine.tune(write_config(tmp_path / f"{name}.yaml", given))
            assert report.complete, report
            found = engine.sql(
                "learning_curves", params={"sweep": name}, warehouse=tmp_path / "w.duckdb"
            ).records()
            curves.append([row["value"] for row in found])
    assert len(curves[0]) == 12
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)


@pytest.mark.slow
def test_a_run_that_fails_does_not_stop_the_others(places, tmp_path):
    given = settings(
        places / "bert", places / "data", tmp_path, methods=["head", "noise"], run={"failures": 0}
    )
    (tmp_path / "runs" / "try").mkdir(parents=True)
    (tmp_path / "runs" / "try" / "head-sst2-s0").write_text("in the way")
    ran = gaussmeter("tune", write_config(tmp_path / "x.yaml", given), "--resume", cwd=tmp_path)
    assert ran.code == 3
    assert "failed    try/head-sst2-s0" in ran.out
    assert "trained   try/noise-sst2-s0" in ran.out


@pytest.mark.slow
def test_commonsense_tasks_on_a_cluster(places, tmp_path):
    given = settings(
        places / "gpt2", places / "data", tmp_path, methods=["lora", "lora_noise"], tasks=["commonsense"]
    )
    given["train"] = {"epochs": 1, "new_tokens": 8, "max_length": 60, "test_examples": 10}
    ran = gaussmeter("tune", write_config(tmp_path / "x.yaml", given), cwd=tmp_path)
    assert ran.code == 0, ran.err
    found = engine.paper("table3", warehouse=tmp_path / "w.duckdb").records()
    assert {row["label"] for row in found if row["source"] == "ours"} == {"lora", "lora_noise"}


@pytest.mark.slow
def test_a_killed_driver_is_resumed_when_asked(places, tmp_path):
    import subprocess
    import sys
    import time

    given = settings(
        places / "bert", places / "data", tmp_path, methods=["noise"], train=TRAIN | {"epochs": 40}
    )
    config = write_config(tmp_path / "x.yaml", given)
    command = [sys.executable, "-m", "engine", "tune", str(config), "-q"]
    driver = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    folder = tmp_path / "runs/try/noise-sst2-s0/checkpoints"
    while not list(folder.glob("checkpoint_*/rank-0.pt")):
        assert driver.poll() is None
        time.sleep(0.2)
    driver.kill()
    driver.wait()
    time.sleep(3)  # its cluster notices
    assert gaussmeter("tune", config, cwd=tmp_path).code == 2
    report = engine.tune(config, resume=True)
    assert [run.status for run in report.runs] == ["resumed"]
    curve = engine.sql("learning_curves", warehouse=tmp_path / "w.duckdb").records()
    assert [row["step"] for row in curve] == list(range(1, 241))
    assert Warehouse(tmp_path / "w.duckdb")
    assert RunEnded
