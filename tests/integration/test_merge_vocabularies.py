"""Models whose vocabularies differ: refused, or merged token by token with a tokenizer that knows all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models

import engine
from engine.errors import FormatError
from tests.builders import write, write_tensors
from tests.integration.servers import FileServer

EMBEDDING = "model.embed_tokens.weight"
SETTINGS = {
    "added_tokens_decoder": {"0": {"content": "<s>", "special": True}},
    "tokenizer_class": "GPT2Tokenizer",
}


def model(folder: Path, tokens: list[str], added: list[str], rows: int, seed: int) -> np.ndarray:
    """Write a model of one table of tokens, whose numbers are small and whole."""
    table = np.random.default_rng(seed).integers(-8, 8, (rows, 4)).astype("<f4")
    write_tensors(folder / "model.safetensors", {EMBEDDING: ("F32", table.view("<u4"))})
    made = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, "<s>"))
    made.add_special_tokens(["<s>"])
    made.add_tokens(added)
    write(folder / "tokenizer.json", made.to_str(pretty=True).encode())
    write(folder / "tokenizer_config.json", json.dumps(SETTINGS, indent=2).encode())
    write(folder / "config.json", json.dumps({"dtype": "float32", "vocab_size": rows}).encode())
    return table


@pytest.fixture
def merging(tmp_path: Path) -> dict[str, Any]:
    model(tmp_path / "a", ["<s>", "a", "b", "c"], [], 5, 1)
    model(tmp_path / "b", ["<s>", "b", "a"], ["<new>", "<more>"], 5, 2)
    both = [{"model": str(tmp_path / name), "parameters": {"weight": 1.0}} for name in "ab"]
    return {"merge_method": "linear", "models": both, "out_dtype": "float32"}


def merged(config: Any, folder: Path, **more: Any) -> tuple[np.ndarray, Path]:
    folder.mkdir(exist_ok=True)
    out = folder / "out"
    engine.merge(config | more, out, warehouse=folder / "w.duckdb")
    (weights,) = out.glob("*.safetensors")
    return load_file(weights)[EMBEDDING], out


def table_of(tmp_path: Path, name: str) -> np.ndarray:
    return load_file(tmp_path / name / "model.safetensors")[EMBEDDING]


def test_without_a_word_about_it_they_are_refused(merging, tmp_path):
    with pytest.raises(FormatError) as caught:
        merged(merging, tmp_path)
    assert "has 2 tokens" in str(caught.value)
    assert "('<new>', '<more>')" in str(caught.value)
    assert "set 'tokenizer: base' or 'tokenizer: union'" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_by_the_tokens_of_the_first(merging, tmp_path):
    found, out = merged(merging, tmp_path, tokenizer="base")
    a, b = (table_of(tmp_path, name) for name in "ab")
    np.testing.assert_array_equal(found, (a + np.stack([b[0], b[2], b[1], a[3], a[4]])) / 2)
    assert (out / "tokenizer.json").read_bytes() == (tmp_path / "a" / "tokenizer.json").read_bytes()


def test_by_the_tokens_of_both(merging, tmp_path):
    found, out = merged(merging, tmp_path, tokenizer="union")
    a, b = (table_of(tmp_path, name) for name in "ab")
    expected = (a[:4] + np.stack([b[0], b[2], b[1], a[3]])) / 2
    np.testing.assert_array_equal(found, [*expected, b[3], b[4]])
    made = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert made.encode("<new>a<more>", add_special_tokens=False).ids == [4, 1, 5]
    assert json.loads((out / "config.json").read_text())["vocab_size"] == 6
    listed = json.loads((out / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert {i: t["content"] for i, t in listed.items()} == {"0": "<s>", "4": "<new>", "5": "<more>"}


def test_from_a_server_that_lists_nothing(merging, tmp_path):
    expected, _ = merged(merging, tmp_path / "local", tokenizer="union")
    with FileServer(tmp_path) as server:
        merging["models"] = [
            m | {"model": f"{server.url}/{name}"} for name, m in zip("ab", merging["models"], strict=True)
        ]
        found, out = merged(merging, tmp_path / "distant", tokenizer="union")
    np.testing.assert_array_equal(found, expected)
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        assert (out / name).read_bytes() == (tmp_path / "local" / "out" / name).read_bytes()
