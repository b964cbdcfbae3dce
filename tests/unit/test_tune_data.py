"""Examples, their order, and scores."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyarrow import parquet
from scipy import stats

from engine.nouns.glue import GLUE
from engine.nouns.tuning import Task
from engine.tuning.data.batches import Order, Tokens, padded
from engine.tuning.data.commonsense import extract, prompt_of
from engine.tuning.data.examples import load_examples, sample
from engine.tuning.data.files import glue_file, is_distant
from engine.tuning.metrics import accuracy, f1, judge, matthews, pearson, spearman


def task(name: str, **columns: str) -> Task:
    kind = "text" if name in ("prompts", "commonsense") else "score" if name == "stsb" else "labels"
    return Task(name, kind, name, 2, "accuracy", "", (), columns)


def load(path, name, text, **columns):
    path.write_text(text)
    found = load_examples(task(name, **columns), path)
    return found.examples, [fault.removeprefix(f"{path}: ") for fault in found.faults]


# Files


@pytest.mark.parametrize(
    ("name", "file", "text", "texts", "label"),
    [
        ("sst2", "a.tsv", "label\tsentence\n1\tfine\n", ("fine",), 1),
        ("sst2", "a.tsv", "sentence\tlabel\nfine\t0\n", ("fine",), 0),
        ("sst2", "a.tsv", 'label\tcontent\n1\tit "is\n', ('it "is',), 1),
        ("sst2", "a.csv", 'label,sentence\n1,"a, b"\n', ("a, b",), 1),
        ("sst2", "a.jsonl", '{"label": 1, "sentence": "a"}\n\n', ("a",), 1),
        ("cola", "a.tsv", "gj04\t1\t\tThe sailors.\n", ("The sailors.",), 1),
        ("rte", "a.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n", ("a", "b"), 1),
        ("mnli", "a.tsv", "sentence1\tsentence2\tgold_label\na\tb\tcontradiction\n", ("a", "b"), 2),
        ("stsb", "a.tsv", "g\tf\ty\t1\t3.800\ta\tb\tmore\n", ("a", "b"), 3.8),
        ("qqp", "a.json", '[{"question1": "a", "question2": "b", "label": 0}]', ("a", "b"), 0),
        ("sst2", "a.jsonl", '{"label": 1, "sentence": "a\u2028b\x85c"}\r\n', ("a\u2028b\x85c",), 1),
        ("sst2", "a.tsv", "label\tsentence\r\n1\ta\rb\r\n", ("a\rb",), 1),
        ("sst2", "a.csv", 'label,sentence\r\n1,"a\rb\nc"\r\n', ("a\rb\nc",), 1),
    ],
)
def test_files_of_glue_are_read_as_they_come(tmp_path, name, file, text, texts, label):
    (example,), faults = load(tmp_path / file, name, text)
    assert (example.texts, example.label, faults) == (texts, label, [])


def test_parquet_as_on_the_hub(tmp_path):
    path = tmp_path / "train-00000-of-00001.parquet"
    parquet.write_table(pa.table({"sentence": ["a", "b"], "label": [1, 0], "idx": [0, 1]}), path)
    found = load_examples(task("sst2"), path)
    assert [e.label for e in found.examples] == [1, 0]
    parquet.write_table(pa.table({"sentence": ["a"], "label": [-1]}), path)
    assert "the label is '-1', expected 0 or 1" in load_examples(task("sst2"), path).faults[0]


@pytest.mark.parametrize(
    ("name", "file", "text", "faults"),
    [
        ("sst2", "a.tsv", "label\ttext_\n1\ta\n", ["has no column 'sentence'; it has label, text_"]),
        ("sst2", "a.tsv", "label\tsentence\n2\ta\n3\ta\n2\tb\n",
         ["line 2: the label is '2', expected 0 or 1 (and 1 more like it)", "line 3: the label is '3', expected 0 or 1"]),
        ("sst2", "a.tsv", "label\tsentence\n1\n", ["line 2 has 1 columns, expected 2"]),
        ("sst2", "a.tsv", "", ["is empty"]),
        ("sst2", "a.tsv", "label\tsentence\n", ["holds no example"]),
        ("rte", "a.tsv", "sentence1\tsentence2\tlabel\na\tb\tmaybe\n",
         ["line 2: the label is 'maybe', expected entailment or not_entailment or 0 to 1"]),
        ("stsb", "a.tsv", "g\tf\ty\t1\t5.1\ta\tb\n", ["line 1: the score is '5.1', expected 0 to 5"]),
        ("stsb", "a.tsv", "g\tf\ty\t1\tnan\ta\tb\n", ["line 1: the score is 'nan', expected 0 to 5"]),
        ("prompts", "a.jsonl", '{"prompt": "a"}\n', ["has no column 'completion'; it has prompt"]),
        ("prompts", "a.jsonl", '{"prompt": "a", "completion": ""}\n',
         ["line 1: prompt and completion must be texts, the prompt not blank and the completion not empty"]),
        ("prompts", "a.jsonl", '{"prompt": " ", "completion": "b"}\n',
         ["line 1: prompt and completion must be texts, the prompt not blank and the completion not empty"]),
        ("prompts", "a.jsonl", '{"prompt": "a", "completion": "b"}\n{', ["line 2 is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"]),
        ("commonsense", "a.json", '{"a": 1}', ["is a JSON dict, expected a list of objects"]),
        ("commonsense", "a.json", '[{"instruction": "a", "output": "b", "answer": "maybe"}]',
         ["line 1: the answer is 'maybe', expected true, false, answer1, solution2, option1, ..."]),
        ("sst2", "a.xlsx", "", ["is no .tsv, .txt, .csv, .jsonl, .json or .parquet file"]),
        ("sst2", "a.parquet", "PAR1", None),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(tmp_path, name, file, text, faults):
    _, found = load(tmp_path / file, name, text)
    assert found if faults is None else found == faults


def test_lines_are_counted_as_editors_count_them(tmp_path):
    text = '{"prompt": "a\u2028", "completion": "b"}\n{"prompt": "a", "completion": ""}\n'
    assert load(tmp_path / "a.jsonl", "prompts", text)[1][0].startswith("line 2: ")


def test_the_few_torn_lines_of_one_archive_are_left_out(tmp_path):
    """QQP's training file has some; elsewhere, and where they are many, a line that lacks columns is a fault."""
    text = "question1\tquestion2\tis_duplicate\n" + "a\tb\t1\n" * 1000
    examples, faults = load(tmp_path / "a.tsv", "qqp", text + "torn\tline\n")
    assert (len(examples), faults) == (1000, [])
    assert load(tmp_path / "a.tsv", "qqp", text + "torn\tline\n" * 2)[1] == [
        "line 1,002 has 2 columns, expected 3", "line 1,003 has 2 columns, expected 3",
    ]  # fmt: skip
    assert load(tmp_path / "a.tsv", "qqp", "")[1] == ["is empty"]
    assert load(
        tmp_path / "a.tsv", "mrpc", "#1 String\t#2 String\tQuality\n" + "a\tb\t1\n" * 1000 + "torn\n"
    )[1]


def test_other_words_for_columns(tmp_path):
    (example,), _ = load(tmp_path / "a.jsonl", "prompts", '{"q": "a", "a": "b"}', prompt="q", completion="a")
    assert example.texts == ("a", "b")
    (example,), _ = load(tmp_path / "a.tsv", "sst2", "y\tx\n1\ta\n", sentence="x", label="y")
    assert example.texts == ("a",)


def test_files_are_found_by_their_usual_names(tmp_path):
    for name in ("sst2_train.tsv", "SST-2/dev.tsv", "mnli/validation_matched-00000-of-00001.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert glue_file("sst2", "train", str(tmp_path)) == str(tmp_path / "sst2_train.tsv")
    assert glue_file("sst2", "test", str(tmp_path)) == str(tmp_path / "SST-2/dev.tsv")
    assert glue_file("mnli", "test", str(tmp_path)).endswith("matched-00000-of-00001.parquet")
    assert glue_file("rte", "train", str(tmp_path)) is None
    assert is_distant(glue_file("rte", "test", "hub"))


def test_prompts_of_commonsense_tasks_are_those_of_llm_adapters():
    prompt, completion, answer = prompt_of(
        {"instruction": "Is it?", "input": "", "output": "the correct answer is true", "answer": "true"}
    )
    assert prompt.startswith("Below is an instruction that describes a task. Write a response")
    assert prompt.endswith("### Instruction:\nIs it?\n\n### Response:\n")
    assert (completion, answer) == ("the correct answer is true", "true")
    assert (
        "### Input:\nx\n"
        in prompt_of({"instruction": "a", "input": "x", "output": "b", "answer": "option2"})[0]
    )


@pytest.mark.parametrize(
    ("text", "expected", "answer"),
    [("the correct answer is answer3", "answer1", "answer3"), ("false, or true", "true", "false"),
     ("solution1solution2", "solution2", "solution1"), ("", "true", ""), ("ending4.", "ending4", "ending4"),
     ("answer9", "answer1", ""), ("Option2 option1", "option2", "option1"),
     ("it is true that solution1 is right", "solution2", "solution1"), ("answer1: true", "false", "true"),
     ("option1", "ending1", "")],
)  # fmt: skip
def test_an_answer_is_the_first_of_its_kind_that_is_written(text, expected, answer):
    assert extract(text, expected) == answer


def test_a_sample_is_always_the_same():
    everything = list(range(100))
    assert sample(everything, 10) == sample(everything, 10) != everything[:10]
    assert sample(everything, 0) == sample(everything, 200) == everything
    assert sample(everything, 10) == sorted(sample(everything, 10))


# Order


@hypothesis_settings(max_examples=50)
@given(
    count=st.integers(1, 50),
    batch=st.integers(1, 4),
    workers=st.integers(1, 3),
    updates=st.integers(1, 60),
    seed=st.integers(0, 5),
)
def test_every_epoch_sees_every_example_once(count, batch, workers, updates, seed):
    lengths = list(np.random.default_rng(seed).integers(1, 9, count))
    group = batch * workers
    order = Order(lengths, group, updates, seed)
    seen = np.concatenate([order.update(i) for i in range(updates)])
    assert len(seen) == updates * group
    times = np.bincount(seen, minlength=count)
    assert times.max() - times.min() <= 1
    shares = [i for r in range(workers) for part in order.share(0, r, workers, batch) for i in part]
    assert sorted(shares) == sorted(order.update(0))


def test_two_workers_see_what_one_with_a_doubled_batch_sees():
    lengths = list(range(1, 41))
    two, one = Order(lengths, 8, 9, 3), Order(lengths, 8, 9, 3)
    for update in range(9):
        parts = [two.share(update, rank, 2, 4)[0] for rank in (0, 1)]
        assert sorted(np.concatenate(parts)) == sorted(one.share(update, 0, 1, 8)[0])


def test_examples_of_a_batch_are_about_equally_long():
    lengths = list(np.random.default_rng(0).integers(1, 100, 512))
    order = Order(lengths, 16, 32, 0)
    spread = np.mean([np.ptp(np.asarray(lengths)[order.update(i)]) for i in range(32)])
    assert spread < 10
    assert not np.array_equal(order.update(0), Order(lengths, 16, 32, 1).update(0))


def test_what_a_loss_is_a_mean_of_is_counted_once():
    """A first token is never asked for, so it does not count where a tokenizer makes nothing of a prompt."""
    tokens = Tokens([[5, 6, 7], [5, 6, 7], []], None, [1, 0, 0], [0.0] * 3)
    assert tokens.units.tolist() == [2, 2, 0]
    assert tokens.lengths == [3, 3, 0]
    assert tokens.units is tokens.units
    assert tokens.lengths is tokens.lengths
    assert Tokens([[5], [6, 7]], None, None, [0.0, 1.0]).units.tolist() == [1, 1]


def test_rows_are_filled_up():
    assert padded([[1, 2], [3]], 9).tolist() == [[1, 2], [3, 9]]
    assert padded([[1, 2], [3]], 9, left=True).tolist() == [[1, 2], [9, 3]]


# Scores


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=60))
def test_matthews_is_that_of_the_table_of_outcomes(pairs):
    predicted, labels = zip(*pairs, strict=True)
    tp, tn, fp, fn = (pairs.count(pair) for pair in ((1, 1), (0, 0), (1, 0), (0, 1)))
    below = ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    expected = 100 * (tp * tn - fp * fn) / below if below else 0
    assert matthews(predicted, labels) == pytest.approx(expected, abs=1e-9)
    assert accuracy(predicted, labels) == pytest.approx(100 * np.mean(np.equal(predicted, labels)))
    assert f1(predicted, labels) == pytest.approx(200 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=60))
def test_correlations_are_those_of_scipy(pairs):
    x, y = (np.asarray(v, float) for v in zip(*pairs, strict=True))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert pearson(x, y) == spearman(x, y) == 0
        return
    assert pearson(x, y) == pytest.approx(100 * stats.pearsonr(x, y).statistic, abs=1e-7)
    assert spearman(x, y) == pytest.approx(100 * stats.spearmanr(x, y).statistic, abs=1e-7)


def test_the_score_of_each_task():
    assert judge("accuracy", [1, 0, 1, 1], [1, 0, 0, 1]) == {"accuracy": 75, "score": 75}
    assert judge("matthews", [1, 0], [1, 0])["score"] == pytest.approx(100)
    found = judge("accuracy", [1, 0, 1, 1], [1, 0, 0, 1], GLUE["mrpc"].further)
    assert found == {"accuracy": 75, "f1": pytest.approx(80), "score": 75}
    found = judge("correlation", [1.0, 2.0, 9.0], [1.0, 2.0, 3.0])
    assert found["score"] == pytest.approx((found["pearson"] + 100) / 2)
    assert json.dumps(found)
