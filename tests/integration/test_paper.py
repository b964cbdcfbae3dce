"""The paper's tables and figures: its own numbers beside ours, of the nine models and of the simulation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.nouns.paper import paper_adapters, paper_models, recognise
from tests.builders import patterns_of, write_tensors
from tests.integration.helpers import gaussmeter, llama, normal


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory) -> Path:
    """LLaMA-7B and ConvNeXt-xlarge by name, an adapter by its spec, and a simulation."""
    folder = tmp_path_factory.mktemp("paper")
    path = folder / "stats.duckdb"
    write_tensors(folder / "llama-7b" / "model.safetensors", llama(2))
    stage = "convnextv2.encoder.stages.2.layers"
    blocks = {
        f"{stage}.{layer}.{module}.weight": normal("BF16", 32, 32, seed=layer, std=2e-3)
        for layer in (0, 10)
        for module in ("pwconv1", "pwconv2")
    }
    write_tensors(folder / "net.safetensors", blocks)
    engine.scan(folder / "llama-7b", warehouse=path)
    engine.scan(folder / "net.safetensors", warehouse=path, name="facebook/convnext-xlarge-384-22k-1k")
    engine.simulate(points=5000, warehouse=path)
    return path


def ask(warehouse: Path, *words: object) -> list[dict]:
    ran = gaussmeter("paper", *words, "-f", "json", "-w", warehouse)
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


def test_the_nine_models_are_those_of_table_8_with_their_numbers_of_table_1():
    models = paper_models()
    assert len(models) == 9
    assert [m.figure for m in models] == [f"fig{k}" for k in range(8, 17)]
    assert [(m.ratio_percent, m.kurtosis, m.kurtosis_std) for m in models] == [
        (99.51, 3.02, 0.24), (99.49, 3.06, 0.44), (99.36, 3.27, 1.32), (99.26, 3.26, 0.47), (99.18, 3.33, 0.44),
        (99.39, 3.12, 0.38), (99.39, 3.12, 0.36), (99.73, 2.83, 0.00), (99.40, 3.10, 0.22),
    ]  # fmt: skip
    (with_table5,) = (m for m in models if m.table5)
    assert len(with_table5.table5) == 36
    tenth = {line.module: line for line in with_table5.table5 if line.layer == 10}
    assert (tenth["pwconv1"].kurtosis_3s, tenth["pwconv2"].kurtosis_3s_floor) == (4.34, 2.97)
    assert sorted(paper_adapters(), key=lambda f: int(f[3:])) == [f"fig{k}" for k in range(17, 27)]
    assert paper_adapters()["fig25"] == ("dora", 32)


@pytest.mark.parametrize(
    ("name", "uri", "model"),
    [
        ("huggyllama/llama-7b", "hf://huggyllama/llama-7b@main", "LLaMA-7B"),
        ("mine", "hf://HuggyLlama/LLaMA-7b", "LLaMA-7B"),
        ("mine", "/models/llama-7b/", "LLaMA-7B"),
        ("segment", "/models/sam_vit_h_4b8939.pth", "SAM-h"),
        ("Qwen2.5-32B-Instruct", "s3://bucket/x", "Qwen2.5-32B"),
        ("Qwen2.5-32B", "hf://Qwen/Qwen2.5-32B", None),
        ("llama-7b-tuned", "/models/llama-7b-tuned", None),
        ("mine", "hf://someone/llama-7b-copy", None),
        ("", "", None),
    ],
)
def test_a_model_is_known_by_its_repository_or_its_name(name, uri, model):
    found = recognise(name, uri)
    assert (found.name if found else None) == model


def test_table_1_has_the_papers_numbers_beside_ours(warehouse):
    first, second, simulated = ask(warehouse, "table1")
    assert (first["paper_model"], first["paper_ratio_percent"]) == ("LLaMA-7B", 99.51)
    assert (second["paper_model"], second["paper_kurtosis"]) == ("ConvNeXt-xlarge", 3.33)
    assert (first["matrices"], simulated["paper_model"], simulated["paper_kurtosis"]) == (9, None, None)


def test_table_5_has_them_by_layer_and_module(warehouse):
    rows = {(r["layer"], r["module"]): r for r in ask(warehouse, "table5", "--subject", "facebook")}
    assert len(rows) == 4
    assert rows[10, "pwconv2"]["paper_kurtosis_3s"] == 4.50
    assert rows[0, "pwconv1"]["paper_kurtosis_3s_floor"] == 3.20
    assert all(r["paper_kurtosis_3s"] is None for r in ask(warehouse, "table5", "--subject", "llama"))


def test_table_8_says_which_models_are_here(warehouse):
    rows = ask(warehouse, "table8")
    assert [r["model"] for r in rows] == [m.name for m in paper_models()]
    here = {r["model"]: r["subject"] for r in rows if r["subject"]}
    assert here == {"LLaMA-7B": "llama-7b", "ConvNeXt-xlarge": "facebook/convnext-xlarge-384-22k-1k"}
    assert rows[0]["tensors"] == 11


def test_figure_1_counts_what_lies_in_each_bin(warehouse):
    name = "model.layers.1.mlp.up_proj.weight"
    rows = ask(
        warehouse, "fig1", "--subject", "llama", "-p", f"tensor={name}", "-p", "bins=7", "-p", "sigmas=3"
    )
    dtype, patterns = llama(2)[name]
    values = (patterns.astype(np.uint32) << 16).view(np.float32).astype(np.float64).ravel()
    edges = [r["low"] for r in rows] + [rows[-1]["high"]]
    assert dtype == "BF16"
    assert [r["n"] for r in rows] == np.histogram(values, edges)[0].tolist()
    assert rows[3]["gaussian_density"] == pytest.approx(1 / values.std() / np.sqrt(2 * np.pi))
    whole = sum(r["density"] * (r["high"] - r["low"]) for r in rows)
    assert whole == pytest.approx(np.mean(abs(values - values.mean()) < 3 * values.std()))


def test_figures_of_one_model_are_figure_1_of_it(warehouse):
    assert ask(warehouse, "fig8") == ask(warehouse, "fig1", "--subject", "llama-7b")
    small = ask(warehouse, "fig4", "-p", "bins=5")
    assert {r["subject"] for r in small} == {"facebook/convnext-xlarge-384-22k-1k"}
    assert sum(r["n"] for r in small) < sum(r["n"] for r in ask(warehouse, "fig12", "-p", "bins=5"))
    assert ask(warehouse, "fig10", "--subject", "llama-7b", "-p", "bins=1")
    assert ask(warehouse, "fig2") == []


@pytest.mark.parametrize(
    ("figure", "sentence"),
    [("fig10", "Qwen/Qwen2.5-32B-Instruct"), ("fig21", "an adapter of lora_dash with r = 64")],
)
def test_a_figure_of_what_is_not_here_says_so(warehouse, figure, sentence):
    assert sentence in gaussmeter("paper", figure, "-w", warehouse).sentence(2)


def test_figure_7_sets_the_papers_shapes_beside_ours(warehouse):
    rows = ask(warehouse, "fig7")
    assert len(rows) == 8
    assert all(r["shape_class"] == r["paper_shape"] for r in rows)
    assert rows[2]["noise"] == 0.01
    assert ask(warehouse, "fig7", "--subject", "llama-7b") == []


def test_the_adapter_of_a_figure_is_found_by_method_and_rank(tmp_path):
    path = tmp_path / "w.duckdb"
    patterns = patterns_of("F32", np.random.default_rng(0).normal(0, 1e-3, 64)).reshape(8, 8)
    write_tensors(tmp_path / "dW.safetensors", {"layers.0.q_proj.weight": ("F32", patterns)})
    engine.scan(tmp_path / "dW.safetensors", warehouse=path, name="dash")
    from engine.warehouse.store import Warehouse

    with Warehouse(path).writing() as connection:
        spec = json.dumps({"method": "lora_dash", "r": 16})
        connection.execute("UPDATE subjects SET kind = 'adapter', spec = ?", [spec])
    assert {r["subject"] for r in ask(path, "fig19", "-p", "bins=3")} == {"dash"}
    assert ask(path, "fig2", "-p", "bins=3") == ask(path, "fig19", "-p", "bins=3")
