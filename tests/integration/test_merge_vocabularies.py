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
from engine.errors import ConfigError, FormatError
from engine.merge_methods.registry import METHODS
from tests.builders import Tensors, patterns_of, write, write_tensors
from tests.integration.merges import configured
from tests.integration.servers import FileServer
from tests.merging import models_of

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


def long_model(folder: Path, tokens: list[str], seed: int) -> None:
    """Write a model whose runs of rows begin at no multiple of what inner products are added up by."""
    table = patterns_of("F32", np.random.default_rng(seed).normal(size=len(tokens) * 400))
    tensors: Tensors = {
        EMBEDDING: ("F32", table.reshape(-1, 400)),
        "model.layers.0.mlp.up_proj.weight": ("F32", table.reshape(400, -1)),
    }
    write_tensors(folder / "model.safetensors", tensors)
    made = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, tokens[0]))
    write(folder / "tokenizer.json", made.to_str().encode())


@pytest.mark.parametrize("method", [m for m in METHODS if m != "linear"])
def test_every_method_merges_rows_that_were_moved(method, tmp_path):
    """What it gives is what models give whose rows were moved before, but for the last bit of inner products."""
    tokens = [str(i) for i in range(400)]
    moved = [*tokens[:100], *tokens[101:], tokens[100]]
    count = models_of(method) + 1
    for number in range(count):
        long_model(tmp_path / str(number), tokens if number != 1 else moved, number)
    long_model(tmp_path / "1 in order", moved, 1)
    (tmp_path / "1 in order" / "tokenizer.json").unlink()
    file = tmp_path / "1 in order" / "model.safetensors"
    stored = load_file(file)
    order = [moved.index(token) for token in tokens]
    stored[EMBEDDING] = stored[EMBEDDING][order]
    write_tensors(file, {n: ("F32", a.view("<u4")) for n, a in stored.items()})
    own, shared = configured(method, count - 1)
    found = []
    for first, more in (("1", {"tokenizer": "base"}), ("1 in order", {})):
        places = [first, *map(str, range(2, count))]
        listed = [{"model": str(tmp_path / p), "parameters": o} for p, o in zip(places, own, strict=False)]
        config = {
            "merge_method": method,
            "base_model": str(tmp_path / "0"),
            "models": listed,
            "parameters": shared,
        }
        found.append(merged(config, tmp_path / f"to {first}", **more)[0])
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)


def test_another_tokenizer_is_another_merge(merging, tmp_path):
    """Which rows belong together follows from files beside the weights."""
    merged(merging, tmp_path, tokenizer="union")
    file = tmp_path / "b" / "tokenizer.json"
    file.write_text(
        file.read_text().replace('"b": 1', '"b": 9').replace('"a": 2', '"a": 1').replace('"b": 9', '"b": 2')
    )
    with pytest.raises(ConfigError, match="holds another merge"):
        merged(merging, tmp_path, tokenizer="union")
