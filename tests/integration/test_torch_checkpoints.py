"""Checkpoints of torch as they lie about: sharded, beside an optimizer, distributed. All are the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine
from tests import distributed
from tests.builders import write
from tests.integration.helpers import assert_consistent, contents, gaussmeter, made, rows
from tests.torch_files import (
    archive,
    bins_in,
    call,
    expected_bins,
    noise,
    program,
    refused_scan,
)

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:torch", "ignore:.*:FutureWarning")


def model() -> dict[str, Any]:
    return {
        "model.embed_tokens.weight": noise(40, 12, dtype=torch.bfloat16),
        "model.layers.0.self_attn.q_proj.weight": noise(12, 12, seed=1),
        "model.layers.0.mlp.down_proj.weight": noise(30, 12, seed=2, dtype=torch.float16),
        "model.layers.0.input_layernorm.weight": noise(12, seed=3),
        "scale": torch.tensor(0.5),
        "nothing": torch.empty(0, 12),
        "ids": torch.arange(5),
    }


def scanned(uri: Path, warehouse: Path, **how: Any) -> int:
    return engine.scan(uri, warehouse=warehouse, **({"workers": 1} | how)).subject_id


# Sharded


def write_sharded(folder: Path, *shards: dict[str, Any], weight_map: dict[str, Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    truth = {}
    for number, shard in enumerate(shards, 1):
        name = f"pytorch_model-{number:05d}-of-{len(shards):05d}.bin"
        torch.save(shard, folder / name)
        truth |= dict.fromkeys(shard, name)
    text = json.dumps({"metadata": {}, "weight_map": truth if weight_map is None else weight_map})
    return write(folder / "pytorch_model.bin.index.json", text.encode())


def halves(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    items = list(state.items())
    return dict(items[::2]), dict(items[1::2])


@pytest.mark.parametrize(
    "how", [{"workers": 4, "task_bytes": 99, "block_bytes": 16}, {"exact": True}], ids=str
)
def test_sharded_and_single_and_distributed_and_safetensors_are_the_same(how, tmp_path):
    state = model()
    single, whole = tmp_path / "single", tmp_path / "whole.safetensors"
    single.mkdir()
    torch.save(state, single / "pytorch_model.bin")
    safetensors.save_file(state, whole)
    places = [
        whole, single, single / "pytorch_model.bin", write_sharded(tmp_path / "sharded", *halves(state)), tmp_path / "sharded",
        distributed.save(tmp_path / "dcp", state), distributed.save(tmp_path / "cut", state, grid=(3,), files=2, one_each=True),
        distributed.save(tmp_path / "grid", state, grid=(4, 5)), tmp_path / "grid" / ".metadata",
    ]  # fmt: skip
    warehouse = made(tmp_path / "w.duckdb")
    subjects = [scanned(place, warehouse, name=str(k), **how) for k, place in enumerate(places)]
    assert_consistent(warehouse)
    true = contents(warehouse, subjects[0], ordinals=False)
    assert bins_in(warehouse, subjects[0]) == expected_bins(state)
    for subject in subjects[1:]:
        assert contents(warehouse, subject, ordinals=False) == true


def test_a_shard_is_missing(tmp_path):
    index = write_sharded(tmp_path / "m", *halves(model()))
    (tmp_path / "m" / "pytorch_model-00002-of-00002.bin").unlink()
    assert "'pytorch_model-00002-of-00002.bin', which is not there" in refused_scan(tmp_path / "m", index)
    index.unlink()
    assert "'pytorch_model-00002-of-00002.bin' is not there (1 of 2 missing)" in refused_scan(
        tmp_path / "m", tmp_path / "m"
    )


@pytest.mark.parametrize("name", ["../x.bin", "/etc/x.bin", "a/../../x.bin", "..\\x.bin"])
def test_an_index_that_leads_out(name, tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "x.bin")
    index = write_sharded(tmp_path / "m", {"w": torch.ones(2)}, weight_map={"w": name})
    assert "outside its directory" in refused_scan(tmp_path / "m", index)


def test_a_link_that_leads_out(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "x.bin")
    index = write_sharded(tmp_path / "m", weight_map={"w": "x.bin"})
    (tmp_path / "m" / "x.bin").symlink_to(tmp_path / "x.bin")
    refused_scan(tmp_path / "m", index)


def test_a_tensor_in_two_shards_and_one_in_none(tmp_path):
    write_sharded(tmp_path / "m", {"w": torch.ones(2)}, {"w": torch.ones(2)})
    second = tmp_path / "m" / "pytorch_model-00002-of-00002.bin"
    (tmp_path / "m" / "pytorch_model.bin.index.json").unlink()
    assert "is also in pytorch_model-00001-of-00002.bin" in refused_scan(tmp_path / "m", second)
    shard = "pytorch_model-00001-of-00001.bin"
    index = write_sharded(tmp_path / "n", {"w": torch.ones(2)}, weight_map={"w": shard, "v": shard})
    assert "'v'" in refused_scan(tmp_path / "n", index)


def test_two_shards_that_hold_one_tensor_which_the_index_puts_into_one(tmp_path):
    shards = {"w": torch.ones(2)}, {"w": torch.ones(2), "v": torch.ones(3)}
    names = [f"pytorch_model-{k:05d}-of-00002.bin" for k in (1, 2)]
    write_sharded(tmp_path / "m", *shards, weight_map={"w": names[0], "v": names[1]})
    assert "is also in" in refused_scan(tmp_path / "m", tmp_path / "m" / names[1])


# Folders of training programs


def train(folder: Path) -> Path:
    folder.mkdir()
    torch.save(model(), folder / "pytorch_model.bin")
    for name in (
        "optimizer.pt",
        "scheduler.pt",
        "scaler.pt",
        "rng_state.pth",
        "rng_state_0.pth",
        "random_states_0.pkl",
    ):
        torch.save({"state": {"w": torch.ones(3)}}, folder / name)
    write(folder / "training_args.bin", archive(program(call("transformers", "TrainingArguments"))))
    write(folder / "trainer_state.json", b"{}")
    return folder


def test_what_lies_beside_the_weights_is_left_alone(tmp_path):
    folder, warehouse = train(tmp_path / "run"), made(tmp_path / "w.duckdb")
    scanned(folder, warehouse)
    assert bins_in(warehouse) == expected_bins(model())
    assert rows(warehouse, "SELECT name FROM subjects") == [("run",)]
    (folder / "pytorch_model.bin").rename(folder / "consolidated.00.pth")
    scanned(folder / "consolidated.00.pth", warehouse, name="file")
    scanned(folder, warehouse, name="folder")
    assert bins_in(warehouse, 2) == bins_in(warehouse, 3) == expected_bins(model())


def test_safetensors_go_before_the_same_in_torch(tmp_path):
    folder, warehouse = train(tmp_path / "run"), made(tmp_path / "w.duckdb")
    safetensors.save_file({"w": torch.ones(4)}, folder / "model.safetensors")
    scanned(folder, warehouse)
    assert list(bins_in(warehouse)) == ["w"]


def test_the_arguments_of_training_themselves_are_refused_by_name(tmp_path):
    folder = train(tmp_path / "run")
    said = gaussmeter("scan", folder / "training_args.bin", "--warehouse", tmp_path / "w.duckdb").sentence(2)
    assert "'transformers.TrainingArguments'" in said
    assert "training_args.bin" in said


# Whatever torch can save

SCALARS = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.float8_e4m3fn]


@st.composite
def viewed(draw: st.DrawFn) -> Any:
    """A random view of one of a few tensors, which many views share."""
    base = noise(6, 5, 4, seed=draw(st.integers(0, 2)), dtype=draw(st.sampled_from(SCALARS)))
    for _ in range(draw(st.integers(0, 3))):
        dimension = draw(st.integers(0, base.ndim - 1))
        size = base.shape[dimension]
        first = draw(st.integers(0, max(size - 1, 0)))
        after = base.ndim - dimension
        choices = [
            base.transpose(0, dimension),
            base.narrow(dimension, first, size - first),
            base.unsqueeze(dimension).expand(*[-1] * dimension, 2, *[-1] * after),
            base[(slice(None),) * dimension + (slice(first, None, 2),)],
        ]
        base = choices[draw(st.integers(0, 3))]
    return base


@settings(max_examples=20)
@given(
    state=st.dictionaries(st.text("abc.é", min_size=1, max_size=6), viewed(), max_size=6),
    task_bytes=st.integers(1, 5000),
    protocol=st.sampled_from([2, 4]),
)
def test_random_views_come_out_as_torch_loads_them(state, task_bytes, protocol, scratch):
    path, warehouse = scratch / "random.pt", made(scratch / "w.duckdb")
    torch.save(state, path, pickle_protocol=protocol)
    scanned(path, warehouse, task_bytes=task_bytes, block_bytes=16)
    found, loaded = bins_in(warehouse), torch.load(path, weights_only=protocol == 2)
    aliases = dict(rows(warehouse, "SELECT name, alias_of FROM tensors WHERE alias_of IS NOT NULL"))
    for name, of in aliases.items():
        assert loaded[name].untyped_storage().data_ptr() == loaded[of].untyped_storage().data_ptr()
    assert found | {name: found[of] for name, of in aliases.items()} == expected_bins(loaded)
