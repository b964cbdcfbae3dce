"""Two processes that share a model (FSDP2): what they learn, write, keep and go on from is what one process does."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engine.nouns.tuning import RunSpec
from engine.tuning.loop import Loop
from engine.tuning.sharding import _layers
from tests.tuning import Alone, make_data, make_gpt2, make_llama, one_run, settings

WRITES = {"recompute": True, "evaluate_every": 1, "checkpoint_every": 1, "patience": 1}
"""Nothing is written right so soon, so the first evaluation is the best and the second the last."""


class Sharing(Alone):
    """A session of one of two workers."""

    workers = 2

    def __init__(self, rank: int, state: dict[str, Any] | None = None) -> None:
        super().__init__(state)
        self.rank = rank

    def wrap(self, model: Any) -> Any:
        from engine.tuning.sharding import share

        return share(model, self.device)


def work(rank: int, folder: Path, runs: dict[str, RunSpec]) -> None:
    """What one of the processes does."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    for name, run in runs.items():
        torch.save(trained(run, Sharing(rank), folder / f"{name}-{rank}"), folder / f"{name}-{rank}.pt")
    again = trained(
        runs["head"], Sharing(rank, torch.load(folder / f"head-{rank}.pt")["kept"][0]), folder / "no"
    )
    torch.save(again, folder / f"again-{rank}.pt")
    torch.distributed.destroy_process_group()


def trained(run: RunSpec, session: Alone, folder: Path) -> dict[str, Any]:
    """Train and save; what became of it."""
    from engine.tuning import state

    loop = Loop(run, session)
    learnt = loop.train()
    loop.save(folder)
    return {
        "losses": session.losses(),
        "metrics": learnt.metrics,
        "scalars": learnt.scalars,
        "kept": [kept for _, kept in session.kept],
        "values": state.learnt(loop.bare),
        "files": {n: v for path in folder.glob("*.safetensors") for n, v in load_file(path).items()},
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, RunSpec]:
    folder = tmp_path_factory.mktemp("shared")
    make_llama(folder / "llama")
    make_gpt2(folder / "gpt2")
    data = make_data(folder / "data", train=48, dev=8)

    def run_of(method: str, model: str, task: str, **train: Any) -> RunSpec:
        files = {"train": str(data / "train.jsonl"), "test": str(data / "dev.jsonl")}
        task_ = {"task": task, **files, "metric": "exact", "new_tokens": 3} if task == "prompts" else task
        given = settings(folder / model, data, folder, methods=[method], tasks=[task_])
        given["train"] |= {"batch": 8, "learning_rate": 1e-3, "dropout": 0.0, **train}
        return replace(one_run(given), folder=str(folder))

    return {
        "lora": run_of("lora", "llama", "prompts", **WRITES),
        "scalar": run_of("lora_noise", "llama", "prompts", precision="bfloat16", **WRITES),
        "head": run_of("lora_noise", "llama", "sst2", checkpoint_every=1),
        "svdiff": run_of("svdiff", "llama", "sst2"),
        "tied": run_of("full", "gpt2", "prompts", **WRITES),
        "whole": run_of("full", "llama", "sst2", **WRITES | {"learning_rate": 1e-6}),  # scores stay the same
    }


@pytest.fixture(scope="module")
def found(runs, tmp_path_factory) -> dict[str, Any]:
    """What both processes found, and one alone with the doubled batch."""
    folder = tmp_path_factory.mktemp("found")
    torch.multiprocessing.spawn(work, (folder, runs), 2)
    named = [*runs, "again"]
    both = {name: [torch.load(folder / f"{name}-{rank}.pt") for rank in (0, 1)] for name in named}
    torch.set_num_threads(1)
    for name, run in runs.items():
        doubled = replace(run, training=replace(run.training, batch=16))
        both[name].append(trained(doubled, Alone(), folder / f"{name}-alone"))
    return both


NAMES = ["lora", "scalar", "head", "svdiff", "tied", "whole"]


@pytest.mark.parametrize("name", NAMES)
def test_two_that_share_a_model_learn_what_one_learns(found, name):
    first, second, alone = found[name]
    near = 2e-2 if name == "scalar" else 1e-4  # bfloat16
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=near)
    assert first["metrics"] == second["metrics"]
    assert first["metrics"].keys() == alone["metrics"].keys()
    assert first["files"].keys() == alone["files"].keys()
    assert first["scalars"].keys() == alone["scalars"].keys()
    for key, value in alone["values"].items():
        torch.testing.assert_close(first["values"][key], value, rtol=near, atol=2e-3)  # two updates of 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_both_write_what_was_learnt(found, name):
    writers = 1 if name in ("tied", "whole") else 2  # of a whole model the second writes nothing
    for own in found[name][:writers]:
        for key, value in own["values"].items():
            word = key.replace(".default", "").replace(".base_layer", "").replace(".modules_to_save", "")
            if name == "svdiff" and word.endswith(".shift"):
                word = f"base_model.model.{word.removesuffix('.shift')}.svdiff_shift"
                torch.testing.assert_close(own["files"][word], value, rtol=1e-3, atol=1e-6)
            elif name == "svdiff":
                assert torch.equal(own["files"][f"base_model.model.{word}"], value)
            else:
                assert torch.equal(own["files"][word], value), word


@pytest.mark.parametrize("name", ["lora", "scalar", "tied", "whole"])
def test_the_best_is_kept_and_not_the_last(found, name):
    for own in found[name]:
        best, last = (kept["learnt"] for kept in own["kept"])
        assert all(torch.equal(own["values"][key], value) for key, value in best.items())
        assert not all(torch.equal(last[key], value) for key, value in best.items())


def test_from_a_checkpoint_two_go_on_to_the_same_bits(found):
    for whole, again in zip(found["head"], found["again"], strict=False):
        assert again["losses"] == whole["losses"][1:]
        assert all(torch.equal(again["values"][key], value) for key, value in whole["values"].items())


def test_layers_are_shared_and_what_is_within_them_is_not():
    """Experts within a layer are run by some workers and not by others, who would wait for them for ever."""
    layers = [
        torch.nn.ModuleDict({"experts": torch.nn.ModuleList([torch.nn.Linear(2, 2)])}) for _ in range(2)
    ]
    nested = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    model = torch.nn.ModuleDict({"a": torch.nn.ModuleDict({"list": torch.nn.ModuleList([*layers, nested])})})
    assert list(_layers(model)) == [*layers, nested[0]]
