"""The loop in one process: it learns, it stops, and from any checkpoint it goes on as if nothing had been."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.nouns.tuning import RunSpec
from engine.tuning.loop import Loop, rate_at, updates_of
from tests.tuning import Alone, make_bert, make_data, make_gpt2, one_run, settings

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("loop")
    make_bert(folder / "bert")
    make_gpt2(folder / "gpt2")
    make_data(folder / "data")
    return folder


def run_of(
    places: Path, method: str = "lora", task: object = "sst2", model: str = "bert", **train: object
) -> RunSpec:
    given = settings(places / model, places / "data", places, methods=[method], tasks=[task])
    given["train"] = given["train"] | train
    return one_run(given)


def trained(run: RunSpec, session: Alone | None = None) -> tuple[Loop, Alone]:
    session = session or Alone()
    loop = Loop(run, session)
    loop.result = loop.train()
    return loop, session


@pytest.mark.parametrize("method", ["full", "lora", "lora_noise", "dora"])
def test_it_learns(places, method):
    loop, session = trained(run_of(places, method, epochs=8, evaluate_every=12, learning_rate=5e-3))
    losses = session.losses()
    assert len(losses) == 48
    assert np.mean(losses[-6:]) < np.mean(losses[:6]) - 0.1
    assert loop.result.metrics["score"] > 70
    assert [step for step, m in session.told if "eval_score" in m] == [12, 24, 36, 48]
    assert session.told[-1] == (48, loop.result.metrics)


def test_what_learns_is_seen_every_so_many_updates_and_nothing_changes(places):
    run = run_of(places, "lora", epochs=1)
    session, alone = Alone(), trained(run)[1]
    loop = Loop(run, session, observe=2)
    loop.train()
    assert session.losses() == alone.losses()
    assert [step for step, _ in session.seen] == [2, 4, 6]
    assert alone.seen == []
    learning = {name: p for name, p in loop.bare.named_parameters() if p.requires_grad}
    first, last = session.seen[0][1], session.seen[-1][1]
    assert first.keys() == last.keys() == learning.keys()
    assert all(torch.equal(last[name], learning[name].detach()) for name in last)
    assert not all(torch.equal(last[name], first[name]) for name in last)


def test_scores_and_correlations(places):
    loop, _ = trained(run_of(places, "full", "stsb", epochs=2, learning_rate=1e-3))
    assert set(loop.result.metrics) == {"pearson", "spearman", "score"}
    loop, _ = trained(run_of(places, "noise", "cola"))
    assert set(loop.result.metrics) == {"matthews", "accuracy", "score"}
    assert len(loop.result.scalars) == 12
    assert next(iter(loop.result.scalars)) == "bert.encoder.layer.0.attention.self.query.weight"


def prompts(places: Path, **more: object) -> dict[str, object]:
    return {
        "task": "prompts",
        "train": str(places / "data/train.jsonl"),
        "test": str(places / "data/dev.jsonl"),
        **more,
    }


def test_completions_are_learnt(places):
    run = run_of(places, "full", prompts(places), "gpt2", epochs=8, learning_rate=5e-3)
    loop, session = trained(run)
    assert loop.result.metrics["score"] > 70
    assert session.losses()[-1] < 0.5 * session.losses()[0]


def test_answers_are_written_and_read(places):
    boolq = str(places / "data/boolq.test.json")
    task = {"task": "commonsense", "test": {"boolq": boolq, "piqa": boolq}, "new_tokens": 8, "max_length": 60}
    run = run_of(places, "lora_noise", task, "gpt2", epochs=1, learning_rate=1e-3)
    loop, _ = trained(run)
    assert set(loop.result.metrics) == {"accuracy/boolq", "accuracy/piqa", "score"}
    exact = run_of(places, "full", prompts(places, metric="exact", new_tokens=8), "gpt2", epochs=1)
    assert 0 <= trained(exact)[0].result.metrics["score"] <= 100


@pytest.mark.parametrize(
    ("method", "task", "precision"),
    [("lora", "sst2", "float32"), ("noise", "sst2", "float32"), ("full", "sst2", "bfloat16"),
     ("lora", "sst2", "float16"), ("full", "prompts", "float32"), ("noise", "stsb", "float32")],
)  # fmt: skip
def test_from_a_checkpoint_it_goes_on_to_the_same_bits(places, method, task, precision):
    model, task = ("gpt2", prompts(places)) if task == "prompts" else ("bert", task)
    rest = {"epochs": 2, "checkpoint_every": 5, "patience": 9, "evaluate_every": 4}
    run = run_of(places, method, task, model, precision=precision, **rest)
    whole, session = trained(run)
    step, state = session.kept[0]
    assert step == 5
    assert (state["scaler"].get("scale", 1.0) > 1.0) == (
        precision == "float16"
    )  # else small gradients are lost
    torch.manual_seed(77)  # whatever was drawn meanwhile
    resumed, again = trained(run, Alone(state))
    assert again.losses() == session.losses()[5:]
    assert resumed.result == whole.result


def test_passes_of_an_update_add_up(places):
    """Four examples at a time make the same updates as sixteen, to rounding; completions differ in length."""
    for task, model in (("sst2", "bert"), (prompts(places), "gpt2")):
        big = trained(run_of(places, "full", task, model, batch=16, dropout=0.0, learning_rate=1e-3))[1]
        small = trained(
            run_of(places, "full", task, model, batch=4, accumulate=4, dropout=0.0, learning_rate=1e-3)
        )[1]
        np.testing.assert_allclose(small.losses(), big.losses(), rtol=2e-4)


def test_activations_can_be_computed_again(places):
    kept = trained(run_of(places, "lora", dropout=0.0))[1].losses()
    again = trained(run_of(places, "lora", dropout=0.0, recompute=True))[1].losses()
    np.testing.assert_allclose(again, kept, rtol=1e-5)


def test_it_stops_where_nothing_gets_better_and_keeps_the_best(places):
    run = run_of(places, "full", epochs=20, learning_rate=1e-9, evaluate_every=2, patience=2)
    loop, session = trained(run)
    assert loop.result.steps == 6
    scores = [m["eval_score"] for _, m in session.told if "eval_score" in m]
    assert loop.result.metrics["score"] == max(scores) == scores[0]


def test_seeds_are_the_only_difference(places):
    run = run_of(places, "noise")
    first, second = trained(run)[1].losses(), trained(run)[1].losses()
    assert first == second
    assert trained(replace(run, seed=1))[1].losses() != first


def test_the_rate_goes_up_and_down(places):
    training = run_of(places, learning_rate=1.0, warmup=0.1, epochs=1).training
    rates = [rate_at(training, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1
    assert rates[-1] == pytest.approx(1 / 90)
    assert rate_at(replace(training, warmup=0.0), 0, 4) == 1
    assert rate_at(replace(training, warmup_steps=4), 1, 10) == 0.5


def test_how_many_updates(places):
    training = run_of(places, epochs=2.5, batch=8, accumulate=2).training
    assert updates_of(training, 100, 1) == (16, 7)
    assert updates_of(training, 100, 2) == (8, 4)
    assert updates_of(replace(training, steps=5), 100, 1)[0] == 5
