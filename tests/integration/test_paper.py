"""The paper's tables and figures: its own numbers beside ours, of the nine models and of the simulation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.nouns.paper import (
    BENCHMARKS,
    paper_adapters,
    paper_commonsense,
    paper_models,
    paper_tasks,
    recognise,
)
from engine.warehouse.store import Warehouse
from tests.builders import patterns_of, write, write_tensors
from tests.integration.helpers import gaussmeter, llama, made, normal


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
    with Warehouse(path).writing() as connection:
        spec = json.dumps({"method": "lora_dash", "r": 16})
        connection.execute("UPDATE subjects SET kind = 'adapter', spec = ?", [spec])
    assert {r["subject"] for r in ask(path, "fig19", "-p", "bins=3")} == {"dash"}
    assert ask(path, "fig2", "-p", "bins=3") == ask(path, "fig19", "-p", "bins=3")


# Table 4: merges. What merging writes into a warehouse is planted here, and test_merge.py has it written.


def plant(path: Path, *subjects: tuple[str, str, dict]) -> None:
    with Warehouse(path).writing() as connection:
        for name, kind, spec in subjects:
            connection.execute(
                "INSERT INTO subjects (name, kind, uri, revision, fingerprint, format, parent_ids, spec, "
                "engine_version, files, bytes, started_at, status) "
                "VALUES (?, ?, '/m/' || ?, '', ?, 'safetensors', [], ?, '', 1, 1, now()::TIMESTAMP, 'complete')",
                [name, kind, name, name, json.dumps(spec)],
            )


def merged(method: str, models: list[str], own: list[dict] | None = None, **parameters: object) -> dict:
    base = None if method == "linear" else "/m/base"
    return {
        "method": method, "models": models, "base": base, "parameters": parameters,
        "own_parameters": own or [{} for _ in models],
    }  # fmt: skip


@pytest.fixture
def merges(tmp_path) -> Path:
    path = made(tmp_path / "w.duckdb")
    pair = ["/m/math", "/m/talk"]
    plant(
        path,
        ("base", "checkpoint", {}),
        ("math", "checkpoint", {}),
        ("talk-minus-base", "delta", {"tuned": "/m/talk"}),
        ("three", "merge", merged("outlier", pair)),
        ("two", "merge", merged("outlier", pair[::-1], t=2.0)),
        ("plain", "merge", merged("linear", pair, weight=0.5)),
        ("uneven", "merge", merged("linear", pair, own=[{"weight": 0.9}, {"weight": 0.1}])),
        ("other", "merge", merged("ties", [*pair, "hf://org/third@main"], density=0.5)),
        ("endless", "merge", merged("outlier", ["/m/x", "/m/y"], t=float("inf"))),
        ("folded", "merge", {"adapter": "/a", "base": "/m/base"}),
    )
    return path


def test_table_4_sets_merges_beside_what_went_into_them_and_the_papers(merges, tmp_path):
    lines = ["subject, score, MathVista, MMStar, mmmu, wemath, ai2d, dynamath, geoqa"]
    lines += [
        f"{name}, , " + ", ".join([str(n)] * 7) for name, n in (("plain", 40), ("two", 44), ("math", 39))
    ]
    lines += ["three, 43,,,,,,,", "uneven,,1,,,,,,", "talk-minus-base, 12.5"]
    scores = write(tmp_path / "s.csv", "\n".join(lines).encode())
    rows = ask(merges, "table4", "--scores", scores)
    ours = [r for r in rows if r["source"] == "ours"]
    assert [(r["subject"], r["kind"], r["method"], r["t"], r["average"], r["gain"]) for r in ours[:7]] == [
        ("base", "base", None, None, None, None),
        ("math", "tuned", None, None, 39, None),
        ("talk", "tuned", None, None, 12.5, None),  # not scanned: the score of what it changed
        ("plain", "merge", "linear", None, 40, None),
        ("three", "merge", "outlier", 3, 43, 3),  # the default of t
        ("two", "merge", "outlier", 2, 44, 4),  # the same models in another order
        ("uneven", "merge", "linear", None, None, None),  # one benchmark of seven is no average
    ]
    assert (ours[4]["mmstar"], ours[5]["mmstar"], ours[6]["mathvista"], ours[6]["mmstar"]) == (
        None,
        44,
        1,
        None,
    )
    assert [r["subject"] for r in ours[7:]] == [
        "base",
        "math",
        "talk",
        "third",
        "other",
        "base",
        "x",
        "y",
        "endless",
    ]
    theirs = [r for r in rows if r["source"] == "paper"]
    assert [round(r["average"], 1) for r in theirs if r["average"]] == [36.9, 43.0, 42.5, 43.7, 44.5]
    assert [round(r["gain"], 1) for r in theirs if r["gain"]] == [1.2, 2.0]
    assert (theirs[0]["subject"], theirs[0]["ai2d"], theirs[0]["average"]) == ("LLaVA-v1.5-13B", 61.1, None)


def test_table_4_of_one_merge_and_of_none(merges, warehouse):
    rows = ask(merges, "table4", "--subject", "two")
    assert [r["subject"] for r in rows if r["source"] == "ours"] == ["base", "math", "talk", "two"]
    assert ask(warehouse, "table4") == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("subject, MMStar\nplain, many\n", "line 2: the score is no number: 'many'"),
        ("subject, MMStar\nplain,\n", "line 2: has no score"),
        ("subject, MMStar\nplain, 1\n6, 2\n", "line 3: '6' has a score already"),
        ("subject, other\nplain, 1\n", f"has no column 'score'; it needs subject and score, or benchmarks ({BENCHMARKS[0]}"),
    ],
)  # fmt: skip
def test_a_file_of_benchmarks_that_is_wrong_is_one_sentence(merges, tmp_path, text, sentence):
    scores = write(tmp_path / "s.csv", text.encode())
    assert sentence in gaussmeter("paper", "table4", "--scores", scores, "-w", merges).sentence(2)


def test_a_merge_leaves_what_table_4_asks_for(tmp_path):
    path = made(tmp_path / "w.duckdb")
    for k, name in enumerate(("base", "a", "b")):
        tensors = {"layers.0.q_proj.weight": normal("BF16", 8, 8, seed=k)}
        write_tensors(tmp_path / name / "model.safetensors", tensors)
    models = [{"model": str(tmp_path / name)} for name in "ab"]
    outlier = {"merge_method": "outlier", "base_model": str(tmp_path / "base"), "models": models}
    engine.merge(outlier | {"parameters": {"t": 2}}, tmp_path / "two", warehouse=path)
    engine.merge(
        {"merge_method": "linear", "models": models, "parameters": {"weight": 1.0}}, tmp_path / "plain", warehouse=path
    )  # fmt: skip
    scores = write(tmp_path / "s.csv", b"subject,score\ntwo,5\nplain,3\n")
    rows = [r for r in ask(path, "table4", "--scores", scores) if r["source"] == "ours"]
    assert [(r["subject"], r["method"], r["t"], r["gain"]) for r in rows] == [
        ("base", None, None, None), ("a", None, None, None), ("b", None, None, None),
        ("plain", "linear", None, None), ("two", "outlier", 2, 2),
    ]  # fmt: skip


# Tables 9 to 11: with what models are tuned


def test_table_9_has_the_papers_tasks_and_our_metrics(warehouse):
    rows = {r["task"]: r for r in ask(warehouse, "table9")}
    assert list(rows) == ["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte"]
    assert all(r["labels"] == r["paper_labels"] for r in rows.values())
    assert (rows["cola"]["metric"], rows["cola"]["paper_metrics"]) == ("matthews", "Matthews corr")
    assert (rows["mnli"]["evaluated_on"], rows["mnli"]["paper_train"]) == ("validation_matched", "393k")
    assert rows["rte"]["runs"] == 0


def test_tables_10_and_11_our_defaults_are_the_papers_settings(warehouse):
    rows = ask(warehouse, "table10")
    assert [r["task"] for r in rows[::2]] == ["mnli", "sst2", "cola", "qqp", "qnli", "rte", "mrpc", "stsb"]
    for theirs, ours in zip(rows[::2], rows[1::2], strict=True):
        assert (theirs["source"], ours["source"]) == ("paper", "default")
        assert ours == theirs | {"source": "default"}
    assert [(r["max_length"], r["learning_rate"], r["epochs"]) for r in rows[::2]] == [
        (256, 5e-4, 12), (128, 8e-4, 24), (64, 8e-4, 25), (320, 1e-3, 5),
        (512, 5e-4, 5), (320, 1.2e-3, 50), (320, 1e-3, 30), (128, 5e-4, 25),
    ]  # fmt: skip
    rows = ask(warehouse, "table11")
    assert [(r["model"], r["r"], r["learning_rate"]) for r in rows[:6]] == [
        ("LLaMA-7B", 16, 7e-5), ("LLaMA-7B", 32, 3e-4), ("LLaMA2-7B", 16, 2e-4), ("LLaMA2-7B", 32, 3e-4),
        ("LLaMA3-8B", 16, 3e-4), ("LLaMA3-8B", 32, 3e-4),
    ]  # fmt: skip
    free = {"source": "default", "model": None, "max_length": 256}
    assert rows[6:] == [r | free for r in rows[4:6]]


def test_what_the_paper_says_of_tuning_is_whole():
    assert len(paper_tasks()) == 8
    assert {task["batch"] for task in paper_tasks()} == {32}
    assert [(row["alpha"], row["warmup_steps"]) for row in paper_commonsense()] == [(32, 100), (64, 100)] * 3


def test_figure_3_is_that_of_many_gaussians_on_one_axis(tmp_path):
    path = tmp_path / "w.duckdb"
    tensors = {f"layers.{k}.q_proj.weight": normal("F32", 64, 64, seed=k, std=2.0**-k) for k in range(3)}
    write_tensors(tmp_path / "m" / "model.safetensors", tensors)
    engine.scan(tmp_path / "m", warehouse=path)
    rows = ask(path, "fig3", "-p", "bins=81", "-p", "sigmas=8")
    assert sum(r["n"] for r in rows) == 3 * 64 * 64
    for column in ("density", "mixture_density", "gaussian_density"):
        assert sum(r[column] * (r["high"] - r["low"]) for r in rows) == pytest.approx(1, abs=0.05), column
    middle = rows[40]
    assert middle["mixture_density"] > 1.3 * middle["gaussian_density"]
    values = np.concatenate([patterns.view(np.float32).ravel() for _, patterns in tensors.values()])
    assert middle["low"] + middle["high"] == pytest.approx(2 * values.mean(dtype=np.float64), rel=1e-6)
    assert rows[-1]["high"] - rows[0]["low"] == pytest.approx(16 * values.std(dtype=np.float64), rel=1e-6)


# Differences that may be set beside each other, and subjects of one name


@pytest.fixture(scope="module")
def learnt(tmp_path_factory) -> Path:
    """Five adapters of rank 16: of two bases, from runs of two tasks, two of them of one name."""
    folder = tmp_path_factory.mktemp("learnt")
    path = made(folder / "w.duckdb")
    rows = [
        ("first", "lora_dash", "/m/base", "cola", 70.0),
        ("twin", "dora", "/m/base", "cola", 72.0),
        ("twin", "dora", "/m/base", None, None),
        ("elsewhere", "dora", "/m/other", "cola", 60.0),
        ("reviews", "dora", "/m/base", "sst2", 95.0),
    ]
    for k, (name, *_) in enumerate(rows, start=1):
        tensors = {"layers.0.q_proj.weight": normal("F32", 8, 8, seed=k, std=1e-3 * k)}
        engine.scan(write_tensors(folder / f"{k}.safetensors", tensors), warehouse=path, name=name, workers=1)
    with Warehouse(path).writing() as connection:
        for k, (_, method, base, task, score) in enumerate(rows, start=1):
            spec = json.dumps({"method": method, "r": 16, "base": base})
            connection.execute(
                "UPDATE subjects SET kind = 'adapter', spec = ? WHERE subject_id = ?", [spec, k]
            )
            if task:
                connection.execute(
                    "INSERT INTO runs BY NAME SELECT ? AS run_id, ? AS name, ? AS task, ? AS subject_id",
                    [k, f"run {k}", task, k],
                )
                connection.execute("INSERT INTO metrics VALUES (?, 1, 'score', ?)", [k, score])
    return path


def test_figure_5_compares_differences_of_one_base_and_one_task(learnt):
    rows = ask(learnt, "fig5")
    pairs = {(r["baseline_id"], r["subject_id"]) for r in rows}
    together = {(1, 2), (1, 3), (2, 3), (3, 5)}  # of the third the task is not known
    assert pairs == together | {(b, a) for a, b in together}
    assert [r["score_gap"] for r in rows if (r["baseline_id"], r["subject_id"]) == (1, 2)] == [2]


def test_table_7_pairs_methods_of_one_base_and_one_task(learnt):
    assert [(r["subject_a"], r["subject_b"]) for r in ask(learnt, "table7")] == [("twin", "first")] * 2
    (row,) = ask(learnt, "table7", "-p", "a=4", "-p", "b=5")  # asked for is asked for
    assert (row["subject_a"], row["subject_b"], row["score_gap"]) == ("elsewhere", "reviews", 35)


def test_a_number_means_one_subject_whatever_others_are_called(learnt):
    for table in ("table1", "table5", "table6", "fig1", "fig3", "fig6"):
        one, other, newest = (ask(learnt, table, "--subject", word) for word in ("2", "3", "twin"))
        assert one, table
        assert one != other == newest, table
    assert len(ask(learnt, "table1", "--subject", "2")) == 1
    assert len(ask(learnt, "table7", "-p", "a=1", "-p", "b=3")) == 1
    assert {r["baseline_id"] for r in ask(learnt, "fig5", "-p", "baseline=3")} == {3}
