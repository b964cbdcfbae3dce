"""Models and examples of the Hub: looked at before they are used, and pinned to a commit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from engine.errors import ConfigError, TaskError
from engine.tuning import fetching
from engine.tuning.data import files
from engine.tuning.fetching import fetched
from engine.tuning.preflight import faults_of
from engine.tuning.sweep import runs_of
from tests.integration.servers import HubServer
from tests.tuning import config_of, make_bert, make_data, settings


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    make_bert(folder / "repos" / "org" / "bert")
    make_data(folder / "data")
    return folder


@pytest.fixture
def hub(places, tmp_path, monkeypatch) -> Iterator[HubServer]:
    from huggingface_hub import constants
    from huggingface_hub.utils import _detect_agent

    monkeypatch.setattr(_detect_agent, "_registry", _detect_agent._EMPTY_REGISTRY)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer(places / "repos") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def sweep(places: Path, tmp_path: Path, **more: object):
    config = config_of(settings(Path("org/bert"), places / "data", tmp_path, **more))
    return config, runs_of(config)


def test_a_model_of_the_hub_is_pinned_to_its_commit(hub, places, tmp_path):
    config, runs = sweep(places, tmp_path)
    assert faults_of(config) == []
    assert runs[0].model == "org/bert"
    (run,) = fetched(config, runs)
    assert len(run.revision) == 40
    asked = [request for request in hub.log if "model.safetensors" in str(request) and request.status == 206]
    assert (
        sum(request.sent for request in asked) < (places / "repos/org/bert/model.safetensors").stat().st_size
    )


def test_what_does_not_fit_is_said_before_anything_large_is_fetched(hub, places, tmp_path):
    config, runs = sweep(places, tmp_path, modules=["Gate"], tasks=["sst2", "commonsense"])
    with pytest.raises(ConfigError) as caught:
        fetched(config, runs)
    assert "it has no Gate; it has Q, K, V, O, Up, Down" in str(caught.value)
    assert "bert reads in both directions and cannot write" in str(caught.value)


def test_what_is_nowhere_is_said(hub, places, tmp_path):
    config = config_of(settings(Path("org/none"), places / "data", tmp_path))
    with pytest.raises(ConfigError, match="is neither a folder nor a model of the Hub"):
        fetched(config, runs_of(config))


def test_a_sweep_that_is_resumed_keeps_to_its_commit(hub, places, tmp_path):
    config, runs = sweep(places, tmp_path, seeds=[0, 1, 2])
    begun = {runs[0].name: hub.commits["org/bert"], runs[1].name: "e" * 40}
    found = fetched(config, runs, begun)
    assert [run.revision for run in found] == [begun[runs[0].name], "e" * 40, begun[runs[0].name]]
    assert any(hub.commits["org/bert"] in request.path for request in hub.log)
    assert not any("/main" in request.path for request in hub.log)  # whatever the newest is
    with pytest.raises(ConfigError, match=f"was begun with org/bert@{'e' * 40}, and revision main is "):
        fetched(config.model_copy(update={"revision": "main"}), runs, begun)


def test_a_gated_model_and_a_wrong_revision_are_called_so(hub, places, tmp_path, monkeypatch):
    def fetch(path: str) -> str:
        raise AssertionError("the model comes first")

    monkeypatch.setattr(fetching, "fetch", fetch)
    config = config_of(settings(Path("org/bert"), Path("hub"), tmp_path))
    hub.gated.add("org/bert")
    with pytest.raises(
        ConfigError, match=f"org/bert: the repository is gated: ask for access on {hub.url}/org"
    ):
        fetched(config, runs_of(config))
    hub.gated.clear()
    config = config.model_copy(update={"revision": "v9"})
    with pytest.raises(ConfigError, match="model: org/bert: the repository has no revision 'v9'"):
        fetched(config, runs_of(config))


def test_examples_of_the_hub_are_fetched_and_looked_at(places, tmp_path, monkeypatch):
    def get(path: str) -> str:
        name = path.removeprefix("hub:").replace("/", "-")
        label = 2 if "validation" in name and places.name == "bad" else 1
        table = pa.table({"sentence": ["fine"], "label": [label], "idx": [0]})
        parquet.write_table(table, tmp_path / name)
        return str(tmp_path / name)

    monkeypatch.setattr(fetching, "fetch", get)
    config = config_of(settings(places / "repos/org/bert", Path("hub"), tmp_path))
    assert faults_of(config) == []
    (run,) = runs_of(config)
    assert run.task.train == "hub:sst2/train-00000-of-00001.parquet"
    (here,) = fetched(config, [run])
    assert here.task.train == str(tmp_path / "sst2-train-00000-of-00001.parquet")
    assert here.revision == ""
    monkeypatch.setattr(
        fetching, "fetch", lambda path: str(shutil.copy(places / "data/sst2_dev.tsv", tmp_path / "x.parquet"))
    )
    with pytest.raises(ConfigError, match="is no Parquet file"):
        fetched(config, [run])


@pytest.mark.slow  # the library tries again for 20 seconds
def test_a_hub_that_does_not_answer_is_no_fault_of_the_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(TaskError, match="cannot be fetched"):
        files.fetch("hub:sst2/train-00000-of-00001.parquet")
