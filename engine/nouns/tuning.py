"""Frozen values that say what an adaptation run does. They travel to the workers of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MODULES = {
    "Q": "query",
    "K": "key",
    "V": "value",
    "O": "attention output",
    "Gate": "gate",
    "Up": "intermediate",
    "Down": "output",
}
"""The paper's words for the modules that are adapted, and the roles of `engine.nouns.names`."""

FUSED = {"query key value": ("Q", "K", "V"), "key value": ("K", "V"), "gate intermediate": ("Gate", "Up")}
"""Modules that hold several; they are adapted where all that they hold is asked for."""

METHODS = ("head", "full", "svdiff", "noise", "full_gaussian", "lora", "dora", "lora_noise")
RANKED = ("lora", "dora", "lora_noise")
"""Methods that have a rank."""

OPTIMISER = "AdamW"
SCHEDULE = "linear"
"""How every run learns: the rate rises while it warms up, then falls in a line."""


@dataclass(frozen=True, slots=True)
class Method:
    """How a model is adapted.

    Attributes:
        name: one of `METHODS`.
        label: what tells it from others of a sweep.
        modules: keys of `MODULES`.
        rank: of the factors; 0 for methods without.
        alpha: the product of the factors is scaled by alpha / rank.
        adapter_dropout: of what goes into the factors.
        noise: `gaussian` or `weights`, what a scalar is multiplied with; "" for methods without.
    """

    name: str
    label: str
    modules: tuple[str, ...]
    rank: int = 0
    alpha: float = 0.0
    adapter_dropout: float = 0.0
    noise: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """What a model is adapted to.

    Attributes:
        name: one of those of `engine.nouns.glue.GLUE`, `commonsense` or `prompts`.
        kind: `labels`, `score` (a number to be predicted) or `text` (a completion to be written).
        label: what tells it from others of a sweep.
        labels: how many; 1 for a score, 0 for text.
        metric: which number is the score, see `engine.tuning.metrics`.
        train: the file to train on.
        tests: the files to evaluate on, by name.
        columns: words of the files for what is needed of them.
    """

    name: str
    kind: str
    label: str
    labels: int
    metric: str
    train: str
    tests: tuple[tuple[str, str], ...]
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Training:
    """How long and how fast.

    Attributes:
        epochs: times that each example is seen; may be a fraction.
        steps: updates, in place of epochs; 0 for as many as those take.
        batch: examples of a worker in one pass; an update sees batch x accumulate x workers.
        accumulate: passes of an update.
        learning_rate: the highest.
        warmup: share of the updates in which the rate rises; then it falls in a line to 0.
        warmup_steps: updates, in place of the share; 0 for the share.
        weight_decay: AdamW's, of matrices.
        clip: the longest that a gradient may be; 0 for any length.
        max_length: tokens of an example.
        dropout: in place of the model's; negative for the model's own.
        precision: `float32`, `bfloat16` or `float16`.
        recompute: compute activations again in the backward pass instead of keeping them.
        train_examples: at most, drawn by the seed of 0 so that all runs have the same; 0 for all.
        test_examples: likewise, of each file.
        new_tokens: at most, of a completion.
        evaluate_every: updates; 0 for at the end of each epoch.
        checkpoint_every: likewise.
        patience: evaluations without a better score after which a run ends; 0 for never.
        workers: that share an update.
    """

    epochs: float
    steps: int
    batch: int
    accumulate: int
    learning_rate: float
    warmup: float
    warmup_steps: int
    weight_decay: float
    clip: float
    max_length: int
    dropout: float
    precision: str
    recompute: bool
    train_examples: int
    test_examples: int
    new_tokens: int
    evaluate_every: int
    checkpoint_every: int
    patience: int
    workers: int


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One adaptation run.

    Attributes:
        name: in the warehouse, the sweep's name and its own.
        folder: where it keeps what it learns, absolute.
        model: a local directory, or a name of the Hub.
        revision: of a model of the Hub, "" for the newest.
        method: how it is adapted.
        task: to what.
        training: how long and how fast.
        seed: of the head, the factors, the noise, the order of the examples and dropout.
    """

    name: str
    folder: str
    model: str
    revision: str
    method: Method
    task: Task
    training: Training
    seed: int


@dataclass(frozen=True, slots=True)
class Means:
    """With what runs are made.

    Attributes:
        workers: of each run, as in its `Training`.
        gpu: whether each has a GPU.
        threads: of each worker; 0 for its share of the cores.
        parallel: runs at once; 0 for as many as there are resources for.
        failures: how often lost workers of a run are replaced.
        sharding: `ddp` (each worker has the model) or `fsdp` (they share it).
        observe: updates between two countings of what learns; 0 for none.
    """

    workers: int = 1
    gpu: bool = False
    threads: int = 0
    parallel: int = 0
    failures: int = 3
    sharding: str = "ddp"
    observe: int = 0
