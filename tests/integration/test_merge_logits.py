"""A merged model loads in transformers, and computes what the reference merge computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import engine

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")


def llama(folder: Path, seed: int, base: Any = None) -> Any:
    """A small Llama; a tuned one is its base with noise."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=99, hidden_size=32, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    if base is not None:
        with torch.no_grad():
            for mine, its in zip(model.parameters(), base.parameters(), strict=True):
                mine.copy_(its + 0.01 * torch.randn_like(its))
    model.save_pretrained(folder)
    return model


def reference(base: Any, models: list[Any], t: float) -> dict[str, Any]:
    """Algorithm 2 on whole tensors."""
    import torch

    merged = {}
    for name, weight in base.state_dict().items():
        tasks = [m.state_dict()[name].double() - weight.double() for m in models]
        sigma = min(float(d.std(correction=0)) for d in tasks)
        parts = [torch.where(d.abs() <= t * sigma, d / len(tasks), d) for d in tasks]
        merged[name] = (weight.double() + sum(parts)).float()
    return merged


@pytest.mark.parametrize("shard_bytes", [5_000_000_000, 20_000])
def test_the_merged_model_gives_the_logits_of_the_reference(tmp_path, shard_bytes):
    import torch
    from transformers import AutoModelForCausalLM

    base = llama(tmp_path / "base", 0)
    models = [llama(tmp_path / f"m{i}", i, base) for i in (1, 2)]
    config = {
        "merge_method": "outlier", "base_model": str(tmp_path / "base"), "parameters": {"t": 2.0},
        "models": [{"model": str(tmp_path / f"m{i}")} for i in (1, 2)],
    }  # fmt: skip
    report = engine.merge(config, tmp_path / "out", warehouse=tmp_path / "w.duckdb", shard_bytes=shard_bytes)
    assert (report.files > 1) == (shard_bytes < 1_000_000)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    expected = llama(tmp_path / "scratch", 0)
    expected.load_state_dict(reference(base, models, 2.0))
    tokens = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        ours, theirs = (m.eval()(tokens).logits for m in (merged, expected))
        before = base.eval()(tokens).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(ours, before, atol=1e-3)
