"""How good a model is at its task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.nouns.glue import GLUE
from engine.nouns.tuning import RunSpec
from engine.tuning import state
from engine.tuning.data.commonsense import extract
from engine.tuning.data.examples import Example
from engine.tuning.feeding import Feed
from engine.tuning.metrics import Metrics, accuracy, judge
from engine.tuning.models import autocast

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Test:
    """What a model is tried on.

    Attributes:
        name: of the file, "" for the only one.
        feed: its examples.
        examples: the same, as texts.
    """

    name: str
    feed: Feed
    examples: Sequence[Example]


class Judge:
    """Evaluates a model, all workers together.

    Args:
        run: whose task.
        tests: on what.
        tokenizer: of the model, to read what it writes.
        rank: of this worker.
        workers: how many there are.
    """

    def __init__(self, run: RunSpec, tests: Sequence[Test], tokenizer: Any, rank: int, workers: int) -> None:
        self._run, self._tests, self._tokenizer = run, tests, tokenizer
        self._rank, self._workers = rank, workers

    def __call__(self, model: Any) -> Metrics:
        """The numbers of each test, and `score`, their mean; the same on every worker."""
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                found = [(test.name, self._one(model, test)) for test in self._tests]
        finally:
            model.train(was_training)
            state.let_go(model)
        scores = [metrics["score"] for _, metrics in found]
        named = {
            f"{key}/{name}" if name else key: value
            for name, metrics in found
            for key, value in metrics.items()
            if key != "score"
        }
        return named | {"score": sum(scores) / len(scores)}

    def _one(self, model: Any, test: Test) -> Metrics:
        lengths = test.feed.tokens.lengths
        order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
        batches = [order[i : i + _BATCH] for i in range(0, len(order), _BATCH)]
        if state.is_shared(model):  # all must take part
            own, rounds = batches, range(0)
        else:
            own, rounds = batches[self._rank :: self._workers], range(len(batches))
        predicted: dict[int, float] = {}
        for batch in own:
            predicted |= zip(batch, self._batch(model, test, batch), strict=True)
        everything = self._gathered(predicted) if rounds else predicted
        values = [everything[i] for i in range(len(lengths))]
        if self._run.task.kind != "text":
            further = GLUE[self._run.task.name].further
            return judge(self._run.task.metric, values, test.feed.tokens.labels, further)
        right = accuracy(values, [1.0] * len(values))
        if self._run.task.metric == "tokens":
            right = 100 * sum(values) / max(int(test.feed.tokens.units.sum()), 1)
        return {"accuracy": right, "score": right}

    def _batch(self, model: Any, test: Test, batch: Sequence[int]) -> list[float]:
        task, device = self._run.task, next(model.parameters()).device
        with autocast(device, self._run.training.precision):
            if task.kind == "text" and task.metric != "tokens":
                return self._written(model, test, batch)
            logits = model(**test.feed.inputs(batch)).logits
        if task.kind == "score":
            return [float(v) for v in logits.float().squeeze(-1).cpu()]
        if task.kind == "labels":
            return [float(v) for v in logits.argmax(-1).cpu()]
        targets = test.feed.targets(batch)[:, 1:]
        right = (logits[:, :-1].argmax(-1) == targets) & (targets >= 0)
        return [float(v) for v in right.sum(-1).cpu()]

    def _written(self, model: Any, test: Test, batch: Sequence[int]) -> list[float]:
        """Let the model go on with prompts; 1 for each completion that has the right answer."""
        inputs = test.feed.prompts(batch)
        out = model.generate(
            **inputs,
            max_new_tokens=self._run.training.new_tokens,
            do_sample=False,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        texts = self._tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        answers = [test.examples[i].answer for i in batch]
        if self._run.task.metric == "answers":
            return [float(extract(t, answer) == answer) for t, answer in zip(texts, answers, strict=True)]
        return [float(text.strip() == answer.strip()) for text, answer in zip(texts, answers, strict=True)]

    def _gathered(self, own: dict[int, float]) -> dict[int, float]:
        if self._workers == 1:
            return own
        parts: list[Any] = [None] * self._workers
        torch.distributed.all_gather_object(parts, own)
        return {i: value for part in parts for i, value in part.items()}
