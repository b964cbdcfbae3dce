"""Adapters through the reference executor: every variant against dW formed whole in numpy."""

from __future__ import annotations

import pytest

from tests.adapters import (
    PREFIX,
    assert_adapter,
    assert_counted,
    factors,
    magnitudes,
    numbers,
    run,
    tensor,
    write_adapter,
)
from tests.builders import assert_same, write_tensors

CUTS = [{}, {"workers": 3, "task_bytes": 1000, "block_bytes": 64}, {"workers": 2, "task_bytes": 40_000}]


@pytest.mark.parametrize("how", CUTS, ids=str)
@pytest.mark.parametrize("rslora", [False, True])
def test_lora(how, rslora, tmp_path):
    tensors = factors("h.0.q", 30, 20) | factors("h.1.q", 300, 520, seed=1)
    write_adapter(tmp_path, tensors, use_rslora=rslora)
    assert_adapter(tmp_path, tensors, **how)


@pytest.mark.parametrize("how", CUTS, ids=str)
def test_fan_in_fan_out(how, tmp_path):
    tensors = factors("h.0.c_attn", 30, 20) | factors("h.1.c_attn", 300, 130, seed=1)
    write_adapter(tmp_path, tensors, fan_in_fan_out=True)
    formed = assert_adapter(tmp_path, tensors, **how)
    assert formed["h.1.c_attn.weight"].shape == (130, 300)


def test_embeddings(tmp_path):
    tensors = {
        f"{PREFIX}wte.lora_embedding_A": tensor("F32", 4, 301, seed=0),
        f"{PREFIX}wte.lora_embedding_B": tensor("F32", 24, 4, seed=1),
    }
    write_adapter(tmp_path, tensors)
    for how in CUTS:
        formed = assert_adapter(tmp_path, tensors, **how)
        assert formed["wte.weight"].shape == (301, 24)


def test_convolutions(tmp_path):
    tensors = {
        f"{PREFIX}c.lora_A.weight": tensor("F32", 4, 6, 3, 3, seed=0),
        f"{PREFIX}c.lora_B.weight": tensor("F32", 10, 4, 1, 1, seed=1),
        f"{PREFIX}d.lora_A.weight": tensor("F32", 4, 5, 7, seed=2),
        f"{PREFIX}d.lora_B.weight": tensor("F32", 3, 4, 1, seed=3),
    }
    result = run([write_adapter(tmp_path, tensors)])
    assert [t.shape for t in result.stocks[0].inventory.tensors] == [(10, 6, 3, 3), (3, 5, 7)]
    for how in CUTS:
        assert_adapter(tmp_path, tensors, **how)


@pytest.mark.parametrize("how", CUTS, ids=str)
def test_lora_dash(how, tmp_path):
    tensors = factors("q", 30, 20) | {
        f"{PREFIX}q.lora_index.weight": tensor("F32", 1, 8, seed=5),
        f"{PREFIX}q.lora_w_u": tensor("F32", 30, 8, seed=6),
        f"{PREFIX}q.lora_w_vt": tensor("F32", 8, 20, seed=7),
    }
    write_adapter(tmp_path, tensors)
    assert_adapter(tmp_path, tensors, **how)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("how", CUTS, ids=str)
def test_dora(how, dtype, tmp_path):
    tensors = factors("q", 30, 21) | magnitudes("q", 30) | factors("v", 9, 600, seed=3) | magnitudes("v", 9)
    base = {"q.weight": tensor(dtype, 30, 21, seed=8), "v.weight": tensor(dtype, 9, 600, seed=9)}
    path = write_tensors(tmp_path / "base" / "model.safetensors", base)
    adapter = write_adapter(tmp_path / "a", tensors, use_dora=True)
    assert_adapter(adapter, tensors, (path, base), **how)


@pytest.mark.parametrize("how", CUTS, ids=str)
def test_dora_of_what_is_stored_transposed(how, tmp_path):
    tensors = factors("q", 30, 21) | magnitudes("q", 30)
    tensors |= {
        f"{PREFIX}wte.lora_embedding_A": tensor("F32", 4, 301, seed=0),
        f"{PREFIX}wte.lora_embedding_B": tensor("F32", 24, 4, seed=1),
    } | magnitudes("wte", 24)
    base = {"q.weight": tensor("F32", 21, 30, seed=8), "wte.weight": tensor("BF16", 301, 24, seed=9)}
    path = write_tensors(tmp_path / "base" / "model.safetensors", base)
    adapter = write_adapter(tmp_path / "a", tensors, use_dora=True, fan_in_fan_out=True)
    assert_adapter(adapter, tensors, (path, base), **how)


@pytest.mark.parametrize("how", CUTS, ids=str)
def test_several_adapters_read_a_base_once(how, tmp_path):
    base = {
        "model.q.weight": tensor("BF16", 30, 21, seed=8),
        "model.v.weight": tensor("BF16", 12, 21, seed=9),
        "lm_head.weight": tensor("BF16", 50, 21, seed=10),
        "model.norm.weight": tensor("F32", 21, seed=11),
    }
    path = write_tensors(tmp_path / "base" / "model.safetensors", base)
    adapters, states = [], []
    for k in range(3):
        tensors = factors("model.q", 30, 21, seed=k) | magnitudes("model.q", 30, k)
        tensors |= factors("model.v", 12, 21, seed=k + 9) | magnitudes("model.v", 12, k)
        tensors |= {f"{PREFIX}lm_head.weight": tensor("F32", 50, 21, seed=20 + k)}
        states.append(tensors | {f"{PREFIX}model.norm.weight": tensor("F16", 21, seed=30 + k)})
        adapters.append(write_adapter(tmp_path / str(k), states[-1], use_dora=True))
    result = run(adapters, path, **how)
    for k, tensors in enumerate(states):
        for name in ("lm_head.weight", "model.norm.weight"):
            difference = numbers(tensors[PREFIX + name]) - numbers(base[name])
            assert_counted(result.parts[k][name], difference)
        assert_adapter(adapters[k], tensors, (path, {n.removeprefix(PREFIX): t for n, t in base.items()}))
        alone = run([adapters[k]], path)
        for name, sketch in alone.sketches[0].items():
            assert_same(sketch, result.sketches[k][name])
