"""The loop of a run: the same for one process and for many, from its beginning or from a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.nouns.tuning import RunSpec, Training
from engine.tuning import layers, models, state
from engine.tuning.data.batches import Order
from engine.tuning.data.examples import load_examples, sample
from engine.tuning.data.tokenise import tokenise
from engine.tuning.evaluation import Judge, Test
from engine.tuning.feeding import Feed, loss_sum
from engine.tuning.metrics import Metrics

State = dict[str, Any]


class Session(Protocol):
    """What a loop is told, and tells."""

    rank: int
    workers: int
    device: torch.device

    def wrap(self, model: Any) -> Any:
        """Bring a model to its device, as one that all workers train together."""

    def last(self) -> State | None:
        """The newest checkpoint, None at the beginning."""

    def keep(self, step: int, state: State) -> None:
        """Keep a checkpoint; all workers call it."""

    def tell(self, step: int, metrics: Metrics) -> None:
        """Say what was measured; only the first worker calls it."""

    def observe(self, step: int, weights: State) -> None:
        """Count weights as they are; likewise."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What became of a run.

    Attributes:
        steps: updates that were made.
        metrics: of the last evaluation, or of the best if the run was to keep that.
        parameters: how many numbers learnt, the head's among them.
        head: how many of them are the head's.
        scalars: of each matrix that has one.
    """

    steps: int
    metrics: Metrics
    parameters: int
    head: int
    scalars: dict[str, float]


@dataclass(slots=True)
class _Progress:
    """Where a run is."""

    step: int = 0
    metrics: Metrics = field(default_factory=dict)
    best: State | None = None
    worse: int = 0  # evaluations since the best
    ended: bool = False


def updates_of(training: Training, examples: int, workers: int) -> tuple[int, int]:
    """How many updates a run makes, and how many of them are an epoch."""
    group = training.batch * training.accumulate * workers
    epoch = max(1, math.ceil(examples / group))
    return training.steps or max(1, math.ceil(training.epochs * examples / group)), epoch


def rate_at(training: Training, step: int, updates: int) -> float:
    """The learning rate of an update, counted from 0: up in a line, and down in a line to 0."""
    warmup = training.warmup_steps or math.ceil(training.warmup * updates)
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    return training.learning_rate * (updates - step) / max(updates - warmup, 1)


class Loop:
    """One run.

    Args:
        run: which.
        session: with whom.
        observe: updates between two countings of what learns; 0 for none.

    Attributes:
        updates: how many it makes.
        bare: the model, in PEFT's wrapper if the method has one.
        parameters: numbers that learn.
        head: those of the head among them.
    """

    def __init__(self, run: RunSpec, session: Session, observe: int = 0) -> None:
        from engine.tuning.methods import method_module

        self._run, self._session, self._method = run, session, method_module(run.method.name)
        self._observe = observe
        models.quiet()
        self._tokenizer = models.load_tokenizer(run)
        self._feed = self._read(run.task.train, run.training.train_examples)[0]
        model = models.load_model(run, self._tokenizer)
        if run.training.recompute:
            models.recompute(model)
        self.bare = self._method.adapt(model, run.method, run.seed)
        self.parameters, self.head = state.count(self.bare)
        self.model = session.wrap(self.bare)
        self._judge = Judge(run, list(self._tests()), self._tokenizer, session.rank, session.workers)
        self.updates, self._epoch = updates_of(run.training, len(self._feed.tokens.ids), session.workers)
        self._order = Order(self._feed.tokens.lengths, self._group, self.updates, run.seed)
        self._optimiser = torch.optim.AdamW(state.groups(self.model, run.training.weight_decay), lr=1.0)
        self._scaler = torch.amp.GradScaler(session.device.type, enabled=run.training.precision == "float16")

    @property
    def _group(self) -> int:
        return self._run.training.batch * self._run.training.accumulate * self._session.workers

    def _read(self, path: str, most: int) -> tuple[Feed, list[Any]]:
        task = self._run.task
        examples = sample(load_examples(task, path).examples, most)
        tokens = tokenise(self._tokenizer, examples, task.kind, self._run.training.max_length)
        return Feed(tokens, task.kind, self._tokenizer.pad_token_id or 0, self._session.device), examples

    def _tests(self) -> Iterator[Test]:
        for name, path in self._run.task.tests:
            yield Test(name, *self._read(path, self._run.training.test_examples))

    def train(self) -> Learnt:
        """Train to the end."""
        at, training = self._begin(), self._run.training
        evaluate = training.evaluate_every or self._epoch
        keep = training.checkpoint_every or self._epoch
        while at.step < self.updates and not at.ended:
            loss = self._update(at.step)
            at.step += 1
            rate = rate_at(training, at.step - 1, self.updates)
            self._tell(at.step, {"loss": loss, "learning_rate": rate})
            if self._observe and at.step % self._observe == 0 and self._session.rank == 0:
                self._session.observe(at.step, state.learning(self.bare))
            if at.step % evaluate == 0 or at.step == self.updates:
                self._evaluate(at)
            if (at.step % keep == 0 or at.ended) and at.step < self.updates:
                self._session.keep(at.step, self._state(at))
        if training.patience and at.best is not None:
            state.load(self.bare, at.best["learnt"])
            at.metrics = at.best["metrics"]
        self._tell(at.step, at.metrics)
        scalars = {f"{n}.weight": state.number(m.noise_scale) for n, m in layers.scalars(self.bare)}
        return Learnt(at.step, at.metrics, self.parameters, self.head, scalars)

    @property
    def is_shared(self) -> bool:
        """Whether the workers share the weights, so that all must take part in saving."""
        return state.is_shared(self.bare)

    def save(self, folder: Path) -> None:
        """Write what was learnt."""
        self._method.save(self.bare, self._run, folder)

    def _begin(self) -> _Progress:
        state.seed(self._run.seed, self._session.rank)
        found = self._session.last()
        self.model.train()
        if found is None:
            return _Progress()
        state.load(self.bare, found["learnt"])
        state.load_optimiser(self._optimiser, found["optimiser"])
        self._scaler.load_state_dict(found["scaler"])
        state.load_random(found["random"])
        return _Progress(**found["progress"])

    def _state(self, at: _Progress) -> State:
        progress = {name: getattr(at, name) for name in _Progress.__slots__}
        return {
            "learnt": state.learnt(self.bare),
            "optimiser": state.optimiser(self._optimiser),
            "scaler": self._scaler.state_dict(),
            "random": state.random(),
            "progress": progress,
        }

    def _update(self, step: int) -> float:
        """Make an update; returns the mean loss before it."""
        training, session = self._run.training, self._session
        batches = self._order.share(step, session.rank, session.workers, training.batch)
        whole = int(self._feed.tokens.units[self._order.update(step)].sum())
        for group in self._optimiser.param_groups:
            group["lr"] = rate_at(training, step, self.updates)
        total = torch.zeros((), device=session.device)
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with nullcontext() if last else state.without_sync(self.model):
                loss = self._loss(batch.tolist())
                torch.autograd.backward(self._scaler.scale(loss * (session.workers / whole)))
            total += loss.detach()
        if training.clip:
            self._scaler.unscale_(self._optimiser)
            torch.nn.utils.clip_grad_norm_(
                [p for p in self.model.parameters() if p.requires_grad], training.clip
            )
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._optimiser.zero_grad(set_to_none=True)
        if session.workers > 1:
            torch.distributed.all_reduce(total)
        return float(total) / whole

    def _loss(self, batch: list[int]) -> Tensor:
        with models.autocast(self._session.device, self._run.training.precision):
            logits = self.model(**self._feed.inputs(batch)).logits
        return loss_sum(logits, self._feed.targets(batch), self._run.task.kind)

    def _evaluate(self, at: _Progress) -> None:
        at.metrics = self._judge(self.bare)  # DDP would synchronise
        self._tell(at.step, {f"eval_{name}": value for name, value in at.metrics.items()})
        patience = self._run.training.patience
        if not patience:
            return
        if at.best is None or at.metrics["score"] > at.best["metrics"]["score"]:
            at.best, at.worse = {"metrics": at.metrics, "learnt": state.learnt(self.bare)}, 0
        else:
            at.worse += 1
            at.ended = at.worse >= patience

    def _tell(self, step: int, metrics: Metrics) -> None:
        if self._session.rank == 0:
            self._session.tell(step, metrics)
