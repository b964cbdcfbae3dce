"""Configurations of sweeps: what they mean, and every fault of them at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.config.jobs import load_job
from engine.config.strict import examine_further
from engine.config.tune import TuneConfig
from engine.errors import ConfigError
from engine.nouns.glue import GLUE
from engine.nouns.paper import paper_commonsense
from engine.tuning.preflight import faults_of
from engine.tuning.sweep import runs_of
from engine.tuning.targets import misfits, targets, words_of
from tests.tuning import config_of, make_bert, make_data, make_gpt2, one_run, settings

ROOT = Path(__file__).resolve().parents[2]
PLAIN = {"job": "tune", "model": "org/model", "methods": ["noise"], "tasks": ["sst2"]}


def wrong(**more: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config_of(PLAIN | more)
    first, *rest = caught.value.message.split("\n  ")
    return rest or [first]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"sedes": [1]}, "sedes: there is no such key; did you mean 'seeds'?"),
        ({"modules": ["Q", "Z"]}, "modules.1: there is no module 'Z'; there are Q, K, V, O, Gate, Up, Down"),
        ({"methods": ["noize"]}, "methods.0.method: there is no method 'noize'; did you mean 'noise'?"),
        ({"methods": []}, "methods: is empty"),
        ({"tasks": ["sst3"]}, "there is no task 'sst3'; did you mean 'sst2'?"),
        ({"seeds": [1, 1]}, "seeds: one is there twice"),
        ({"seeds": [-1]}, "seeds.0: "),
        ({"methods": ["lora", {"method": "lora", "alpha": 3}]}, "two are called 'lora'; give one of them a label"),
        ({"methods": [{"method": "noise", "ranks": [4]}]}, "ranks: noise has no factors"),
        ({"methods": [{"method": "lora", "noise": "weights"}]}, "noise: lora has no choice of noise"),
        ({"methods": [{"method": "full", "modules": ["Q"]}]}, "modules: full adapts no single modules"),
        ({"tasks": [{"task": "sst2", "columns": {"sentense": "x"}}]}, "there is no column 'sentense'"),
        ({"tasks": ["prompts"]}, "train, test: prompts need both"),
        ({"train": {"epochs": 1, "steps": 3}}, "expected one of epochs, steps"),
        ({"train": {"warmup": 1.0}}, "train.warmup: "),
        ({"train": {"precision": "float8"}}, "train.precision: "),
        ({"run": {"workers": 0}}, "run.workers: "),
        ({"run": {"sharding": "zero"}}, "run.sharding: "),
        ({"name": "../x"}, "name: "),
        ({"job": "tuna"}, "job: "),
    ],
)  # fmt: skip
def test_a_fault_is_a_sentence(more, sentence):
    assert any(sentence in fault for fault in wrong(**more)), wrong(**more)


def test_all_faults_are_said_at_once():
    found = wrong(sedes=1, modules=["Z"], methods=["noize"], train={"batch": 0}, ranks=["a"])
    assert len(found) == 5


def test_what_is_sound_of_a_faulty_file_is_looked_at_too(tmp_path):
    data = make_data(tmp_path / "data")
    (data / "sst2_train.tsv").write_text("label\tsentense\n1\tx\n")
    (data / "cola_dev.tsv").write_text("s\t0\t\tfine\ns\t2\t\tfine\ns\t3\t\tfine\ns\t2\t\tfine\n")
    given = settings(make_bert(tmp_path / "bert"), data, tmp_path) | {
        "sedes": [1],
        "modules": ["Q", "Z"],
        "tasks": ["sst2", "cola", "nothing"],
        "methods": ["noise", {"method": "lora", "ranks": [64], "learning_rat": 1}],
    }
    config, faults = examine_further(given, TuneConfig, "x.yaml")
    assert config is not None
    assert len(faults) == 4
    more = faults_of(config)
    assert any("has no column 'sentence'; it has label, sentense" in fault for fault in more)
    assert any("line 2: the label is '2', expected 0 or 1 (and 1 more like it)" in fault for fault in more)
    assert any("line 3: the label is '3'" in fault for fault in more)
    assert any("lora of rank 64 does not fit" in fault for fault in more)
    assert len(more) == 4


def test_defaults_are_the_papers():
    for task, glue in GLUE.items():
        run = one_run(PLAIN | {"tasks": [task]})
        training = run.training
        assert (training.learning_rate, training.epochs) == (glue.learning_rate, glue.epochs)
        assert (training.max_length, training.batch, training.warmup) == (glue.max_length, 32, 0.1)
        assert run.method.modules == ("Q", "K", "V", "O", "Up", "Down")
    assert (GLUE["rte"].learning_rate, GLUE["mnli"].epochs, GLUE["qnli"].max_length) == (1.2e-3, 12, 512)
    run = one_run(PLAIN | {"tasks": ["commonsense"], "methods": ["lora"], "ranks": [16]})
    assert (run.training.batch, run.training.warmup_steps, run.training.epochs) == (16, 100, 3)
    assert (run.method.alpha, run.method.adapter_dropout) == (32, 0.05)
    assert run.method.modules == ("Q", "K", "V", "Up", "Down")


def test_an_update_is_that_of_the_paper_however_many_workers_share_it():
    assert one_run(PLAIN | {"run": {"workers": 3}}).training.workers == 3
    rates = {row["r"]: row for row in paper_commonsense() if row["model"] == "LLaMA-7B"}
    for name, r in (("commonsense-r16", 16), ("commonsense", 32)):
        config = load_job(ROOT / "jobs" / "configs" / f"{name}.yaml")
        assert isinstance(config, TuneConfig)
        for run in runs_of(config):
            training = run.training
            assert run.method.rank == r
            assert training.batch * training.accumulate * training.workers == rates[r]["batch"]
            assert training.learning_rate == rates[r]["learning_rate"]


def test_the_more_special_word_goes_first():
    given = PLAIN | {
        "methods": ["head", {"method": "noise", "learning_rate": "1e-1"}],
        "tasks": ["cola", {"task": "sst2", "learning_rate": 3e-4, "epochs": 2.5}],
        "train": {"learning_rate": 2e-4, "steps": 7},
    }
    found = {run.name: run.training for run in runs_of(config_of(given))}
    assert found["tune/head-cola-s0"].learning_rate == 2e-4
    assert found["tune/head-sst2-s0"].learning_rate == 3e-4
    assert found["tune/noise-sst2-s0"].learning_rate == 0.1
    assert (found["tune/head-cola-s0"].steps, found["tune/head-sst2-s0"].steps) == (7, 0)
    assert found["tune/head-sst2-s0"].epochs == 2.5


def test_a_sweep_is_all_its_runs():
    given = PLAIN | {
        "methods": ["full", "lora", "lora_noise"], "tasks": ["sst2", "rte"], "seeds": [0, 1, 2], "ranks": [4, 8],
    }  # fmt: skip
    names = [run.name for run in runs_of(config_of(given))]
    assert len(names) == len(set(names)) == 2 * 3 * (1 + 2 + 2)
    assert "tune/lora_noise-r8-rte-s2" in names


def test_modules_are_found_by_their_roles():
    bert = ["bert.encoder.layer.0.attention.self.query.weight", "bert.encoder.layer.0.output.dense.weight"]
    assert [words_of(name) for name in bert] == [("Q",), ("Down",)]
    assert words_of("bert.pooler.dense.weight") == words_of("classifier.weight") == ()
    gpt2 = {
        "h.0.attn.c_attn.weight": (8, 24),
        "h.0.attn.c_proj.weight": (8, 8),
        "h.0.mlp.c_fc.weight": (8, 32),
    }
    assert targets(list(gpt2), ("Q", "K", "V", "Up")) == ["h.0.attn.c_attn.weight", "h.0.mlp.c_fc.weight"]
    assert misfits(gpt2, ("Q", "K", "V", "O", "Up", "Down"), explicit=False) == []
    assert misfits(gpt2, ("Q",), explicit=True) == [
        "keeps Q, K, V in one matrix, which is adapted as a whole or not at all"
    ]
    assert misfits(gpt2, ("Gate", "Up"), explicit=True) == ["has no Gate; it has Q, K, V, O, Up"]
    assert misfits({"a.weight": (2, 2)}, ("Q",), explicit=False)[0].startswith("has no modules")


@pytest.mark.parametrize(
    ("model", "more", "sentence"),
    [
        ("gpt2", {"modules": ["Gate"]}, "it has no Gate; it has Q, K, V, O, Up, Down"),
        ("gpt2", {"methods": [{"method": "svdiff", "modules": ["K"]}]}, "keeps Q, K, V in one matrix"),
        ("gpt2", {"methods": ["head"], "tasks": ["commonsense"]}, "head does not fit commonsense"),
        ("bert", {"tasks": ["commonsense"]}, "bert reads in both directions and cannot write"),
        ("none", {}, "there is no such folder"),
        ("data", {}, "config.json: cannot be read"),
        ("bert", {"tasks": ["rte"]}, "rte: there is no file to train on"),
        (
            "bert",
            {"tasks": [{"task": "sst2", "train": "none.tsv"}]},
            "none.tsv: cannot be read: No such file",
        ),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, model, more, sentence):
    data = make_data(tmp_path / "data")
    make = {"gpt2": make_gpt2, "bert": make_bert, "none": Path, "data": lambda _: data}[model]
    found = faults_of(config_of(settings(make(tmp_path / model), data, tmp_path) | more))
    assert any(sentence in fault for fault in found), found


def test_looking_for_faults_loads_no_torch(tmp_path):
    data, model = make_data(tmp_path / "data"), make_bert(tmp_path / "bert")
    script = (
        "import sys; from tests.tuning import settings, config_of; from pathlib import Path as P;"
        "from engine.tuning.preflight import faults_of;"
        f"print(faults_of(config_of(settings(P({str(model)!r}), P({str(data)!r}), P({str(tmp_path)!r})))));"
        "print({'torch', 'ray', 'transformers', 'duckdb'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == ["[]", "set()"]
