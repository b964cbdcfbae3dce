"""What a sweep that is resumed takes up and what it refuses; nothing is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config.tune import TuneConfig
from engine.errors import ConfigError, TaskError
from engine.nouns.tuning import RunSpec
from engine.tuning.sweep import runs_of
from engine.tuning.trainer import CHECKPOINTS, Seen
from engine.verbs import tune as verb
from engine.verbs.tune_standing import MARK, mark, standing
from engine.warehouse import runs as table
from engine.warehouse.store import Warehouse
from tests.integration.helpers import made, rows
from tests.tuning import config_of, settings

LEARNT = {"steps": 2, "metrics": {"score": 50.0}, "parameters": 8, "head": 2, "scalars": {}}


def sweep(folder: Path, **more: Any) -> tuple[TuneConfig, RunSpec]:
    config = config_of(settings(Path("org/m"), folder / "data", folder) | more)
    (run,) = runs_of(config)
    return config, run


def entered(place: Path, run: RunSpec, commit: str = "") -> Warehouse:
    """A warehouse in which a run has begun."""
    store = Warehouse(made(place))
    with store.writing() as connection:
        table.enter_run(connection, run, run.model, commit)
    return store


def checkpoint(run: RunSpec) -> Path:
    """What Ray Train leaves in the folder of a run that was interrupted."""
    folder = Path(run.folder) / CHECKPOINTS
    (folder / "checkpoint_2026").mkdir(parents=True)
    return folder


def change(store: Warehouse, changed: str, *values: Any) -> None:
    with store.writing() as connection:
        connection.execute(f"UPDATE runs SET {changed}", list(values))


def test_the_number_of_workers_belongs_to_the_configuration(tmp_path):
    _, run = sweep(tmp_path, run={"workers": 2})
    store = entered(tmp_path / "w.duckdb", run)
    assert standing(store, [run], resume=True).complete == {}
    _, alone = sweep(tmp_path)
    with pytest.raises(ConfigError, match=r"another configuration: training.workers was 2 and is 1"):
        standing(store, [alone], resume=True)
    spec = table.fields_of(run)
    del spec["training"]["workers"]  # a row of before
    change(store, "spec = ?", json.dumps(spec))
    for now in (run, alone):
        assert standing(store, [now], resume=True).complete == {}


def test_a_column_that_is_no_longer_named_is_a_difference(tmp_path):
    task = {"task": "sst2", "columns": {"sentence": "text"}}
    _, run = sweep(tmp_path, tasks=[task])
    store = entered(tmp_path / "w.duckdb", run)
    _, other = sweep(tmp_path, tasks=["sst2"])
    with pytest.raises(ConfigError, match=r"task.columns was {'sentence': 'text'} and is {}"):
        standing(store, [other], resume=True)


def test_checkpoints_of_another_configuration_are_not_taken_up(tmp_path):
    _, run = sweep(tmp_path)
    empty = Warehouse(made(tmp_path / "other.duckdb"))  # -w, or the first was deleted
    folder = checkpoint(run)
    with pytest.raises(ConfigError, match="has checkpoints, and nothing says of which run: remove it"):
        standing(empty, [run], resume=True)
    known = entered(tmp_path / "w.duckdb", run)
    assert standing(known, [run], resume=True).complete == {}  # a version wrote them that left no mark
    mark(run, "")
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint_2026", MARK]
    assert standing(empty, [run], resume=True).complete == {}
    train = settings(Path(), Path(), tmp_path)["train"]
    for changed, sentence in (
        ({"train": train | {"learning_rate": 1e-3}}, "training.learning_rate was 0.01 and is 0.001"),
        ({"tasks": [{"task": "sst2", "train": "/x.tsv"}]}, "task.train was '' and is '/x.tsv'"),
        ({"run": {"workers": 3}}, "training.workers was 1 and is 3"),
        ({"model": "org/n"}, "model was 'org/m' and is 'org/n'"),
    ):
        _, other = sweep(tmp_path, **changed)
        with pytest.raises(ConfigError, match=f"has checkpoints of another configuration: .*{sentence}"):
            standing(empty, [other], resume=True)
    (folder / "checkpoint_2026").rmdir()
    assert standing(empty, [other], resume=True).complete == {}  # nothing would be gone on with


def test_a_run_is_gone_on_with_from_the_commit_that_it_began_with(tmp_path):
    _, run = sweep(tmp_path)
    store = entered(tmp_path / "w.duckdb", run, "a" * 40)
    assert standing(store, [run], resume=True).commits == {run.name: "a" * 40}
    change(store, "status = 'complete'")
    found = standing(store, [run], resume=True)
    assert (list(found.complete), found.commits) == ([run.name], {run.name: "a" * 40})
    empty = Warehouse(made(tmp_path / "other.duckdb"))
    checkpoint(run)
    mark(run, "b" * 40)
    assert standing(empty, [run], resume=True).commits == {run.name: "b" * 40}
    change(store, "status = 'running'")
    with pytest.raises(ConfigError, match=f"checkpoints of org/m@{'b' * 40}, and .* with commit {'a' * 40}"):
        standing(store, [run], resume=True)


def test_the_row_of_a_run_has_the_folder_that_it_went_on_in(tmp_path):
    _, run = sweep(tmp_path)
    store = entered(tmp_path / "w.duckdb", run)
    moved = replace(run, folder=str(tmp_path / "moved"))
    assert standing(store, [moved], resume=True).complete == {}
    with store.writing() as connection:
        number = table.enter_run(connection, moved, moved.model, "")
    assert rows(store.path, "SELECT run_id, folder FROM runs") == [(number, moved.folder)]


@pytest.fixture
def under_way(tmp_path) -> Any:
    """A sweep of one run of a model of this machine, which has begun."""
    (tmp_path / "m").mkdir()
    config, run = sweep(tmp_path, model=str(tmp_path / "m"))
    store = Warehouse(made(tmp_path / "w.duckdb"))
    found = verb._Sweep(store, config, [run], {}, lambda event: None)
    with store.writing() as connection:
        found._numbers = {run.name: found._enter(connection, run)}
    return found, store, run


def test_whoever_is_interrupted_while_dw_is_counted_keeps_the_checkpoints(under_way, monkeypatch):
    sweep, store, run = under_way
    folder = checkpoint(run)

    def interrupted(*args: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, "delta", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep._finish(run, LEARNT, 1.0)
    assert folder.is_dir()
    assert rows(store.path, "SELECT status FROM runs") == [("running",)]

    def refused(*args: Any, **more: Any) -> Any:
        assert folder.is_dir()
        raise TaskError("no disk")

    monkeypatch.setattr(verb, "delta", refused)
    assert sweep._finish(run, LEARNT, 1.0).reason == "its dW was not counted: no disk"
    assert not folder.exists()
    assert rows(store.path, "SELECT status FROM runs") == [("complete",)]
    checkpoint(run)  # a driver that died between the two
    report = verb._report_of(store, run, standing(store, [run], resume=True).complete[run.name])
    assert (report.status, report.score, folder.exists()) == ("unchanged", 50.0, False)


def test_what_is_observed_again_with_other_bits_replaces_what_was(under_way):
    import torch

    from engine.device.live import observe_all

    sweep, store, run = under_way
    for values in ([1.0, 2.0], [1.0, 2.5], [1.0, 2.5]):
        sweep._hear(Seen(run.name, 4, observe_all({"head.weight": torch.tensor([values])})))
    sweep._hear(Seen(run.name, 8, observe_all({"head.weight": torch.ones(1, 2)})))
    found = rows(
        store.path, "SELECT s.name, max FROM subjects s JOIN tensors USING (subject_id) ORDER BY ALL"
    )
    assert found == [(f"{run.name}@4", 2.5), (f"{run.name}@8", 1.0)]
    assert rows(
        store.path, "SELECT count(*) FROM bins WHERE tensor_id NOT IN (SELECT tensor_id FROM tensors)"
    ) == [(0,)]
