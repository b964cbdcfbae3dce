"""The configuration of adaptation runs: a sweep over methods, tasks, seeds and ranks."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from engine.config.parts import Device, Name, Part, Place
from engine.nouns.defaults import WAREHOUSE
from engine.nouns.glue import GLUE
from engine.nouns.tuning import METHODS, MODULES, RANKED

TASKS = (*GLUE, "commonsense", "prompts")


def _number(value: Any) -> Any:
    """Take 5e-4 for a number, which YAML 1.1 takes for a word."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value


_Positive = Annotated[int, Field(gt=0)]
_Count = Annotated[int, Field(ge=0)]
_Share = Annotated[float, BeforeValidator(_number), Field(ge=0, lt=1)]
_Rate = Annotated[float, BeforeValidator(_number), Field(gt=0, allow_inf_nan=False)]
_Weight = Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]
_Seed = Annotated[int, Field(ge=0, lt=1 << 31)]
_Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$")]


def _known(word: Any, known: tuple[str, ...], what: str) -> Any:
    if isinstance(word, str) and word not in known:
        near = get_close_matches(word, known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"there is no {what} {word[:60]!r}; {hint}")
    return word


def _some(value: Any) -> Any:
    if isinstance(value, (tuple, list)) and not value:
        raise ValueError("is empty")
    return tuple(value) if isinstance(value, list) else value


Module = Annotated[str, BeforeValidator(lambda v: _known(v, tuple(MODULES), "module"))]
Modules = Annotated[tuple[Module, ...], BeforeValidator(_some), Field(min_length=1)]


class Rates(Part):
    """How long and how fast; what is left out comes from the method, the task and the paper, in this order.

    Attributes: see `engine.nouns.tuning.Training`.
    """

    epochs: _Rate | None = None
    steps: _Positive | None = None
    batch: _Positive | None = None
    accumulate: _Positive | None = None
    learning_rate: _Rate | None = None
    warmup: _Share | None = None
    warmup_steps: _Count | None = None
    weight_decay: _Weight | None = None
    clip: _Weight | None = None
    max_length: Annotated[int, Field(ge=2)] | None = None
    dropout: _Share | None = None
    precision: Literal["float32", "float16", "bfloat16"] | None = None
    recompute: bool | None = None
    train_examples: _Positive | None = None
    test_examples: _Positive | None = None
    new_tokens: _Positive | None = None
    evaluate_every: _Positive | None = None
    checkpoint_every: _Positive | None = None
    patience: _Positive | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Rates:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("expected one of epochs, steps")
        if self.warmup is not None and self.warmup_steps is not None:
            raise ValueError("expected one of warmup, warmup_steps")
        return self


class MethodPart(Rates):
    """A method; a string stands for its name.

    Attributes:
        method: one of `engine.nouns.tuning.METHODS`.
        label: what its runs are called; by default the method.
        modules: in place of the sweep's.
        ranks: in place of the sweep's.
        alpha: of the factors; by default twice the rank.
        adapter_dropout: of what goes into the factors.
        noise: what the scalar is multiplied with: `gaussian` noise (the default of `noise`) or the `weights`
            (that of `lora_noise`).
    """

    method: Annotated[str, BeforeValidator(lambda v: _known(v, METHODS, "method"))]
    label: _Label | None = None
    modules: Modules | None = None
    ranks: Annotated[tuple[_Positive, ...], BeforeValidator(_some)] | None = None
    alpha: _Rate | None = None
    adapter_dropout: _Share | None = None
    noise: Literal["gaussian", "weights"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> MethodPart:
        if self.method not in RANKED:
            for key in ("ranks", "alpha", "adapter_dropout"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key}: {self.method} has no factors")
        if self.noise is not None and self.method not in ("noise", "lora_noise"):
            raise ValueError(f"noise: {self.method} has no choice of noise")
        if self.modules is not None and self.method in ("head", "full"):
            raise ValueError(f"modules: {self.method} adapts no single modules")
        return self


class TaskPart(Rates):
    """A task; a string stands for its name.

    Attributes:
        task: one of the eight of GLUE (`sst2`, `cola`, ...), `commonsense` or `prompts`.
        label: what its runs are called; by default the task.
        data: in place of the sweep's.
        train: the file to train on, where it is not found in `data` by its name.
        test: likewise; or several, by name.
        columns: words of the files for `prompt` and `completion`, or the columns of the task of GLUE.
        metric: of `prompts`: `tokens` (share of the completion's tokens that come out right) or `exact`.
    """

    task: Annotated[str, BeforeValidator(lambda v: _known(v, TASKS, "task"))]
    label: _Label | None = None
    data: Place | None = None
    train: Place | None = None
    test: Place | dict[_Label, Place] | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    metric: Literal["tokens", "exact"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> TaskPart:
        known = [*GLUE[self.task].texts, "label"] if self.task in GLUE else ["prompt", "completion"]
        if self.task == "commonsense" and self.columns:
            raise ValueError("columns: those of commonsense tasks are fixed")
        for key in self.columns:
            _known(key, tuple(known), "column")
        if self.metric is not None and self.task != "prompts":
            raise ValueError("metric: only prompts have a choice")
        if self.task == "prompts" and (self.train is None or self.test is None):
            raise ValueError("train, test: prompts need both")
        if isinstance(self.test, dict) and not self.test:
            raise ValueError("test: is empty")
        return self


class TuneRun(Part):
    """How it is run; the command line says otherwise.

    Attributes:
        ray: `local` (a private cluster of this machine's cores), `auto` or an address.
        workers: of each run.
        gpu: whether each worker has a GPU; by default if the cluster has some.
        device: the same in the words of other jobs, and where dW is counted: `cpu`, `cuda` (each worker has a
            GPU) or `auto`.
        threads: of each worker; by default its share of the cores.
        parallel: runs at once; by default as many as there are resources for.
        failures: how often lost workers of a run are replaced.
        sharding: `ddp`, or `fsdp` for models that are too large for one GPU.
    """

    ray: str = "local"
    workers: _Positive = 1
    gpu: bool | None = None
    device: Device = "auto"
    threads: _Positive | None = None
    parallel: _Positive | None = None
    failures: _Count = 3
    sharding: Literal["ddp", "fsdp"] = "ddp"

    @model_validator(mode="after")
    def _one_device(self) -> TuneRun:
        if self.gpu is not None and self.device != "auto" and self.gpu != (self.device == "cuda"):
            raise ValueError(f"device: {self.device} contradicts gpu: {str(self.gpu).lower()}")
        return self

    @property
    def on_gpus(self) -> bool | None:
        """Whether each worker has a GPU; None if the cluster decides."""
        return self.gpu if self.device == "auto" else self.device == "cuda"


def _named(key: str) -> BeforeValidator:
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class TuneConfig(Part):
    """Adaptation runs of one model.

    Attributes:
        job: what to do; `tune`.
        name: of the sweep; two of one name never run at once. By default that of the file.
        warehouse: the DuckDB file.
        output: the folder in which each run has one, `OUTPUT/NAME/RUN`.
        model: a local directory, or a name of the Hub.
        revision: of a model of the Hub.
        methods: which; a string stands for a `method`.
        tasks: which; a string stands for a `task`.
        data: a folder with the files of the tasks, or `hub` for GLUE from the Hub.
        seeds: a run for each.
        ranks: likewise, of methods with factors.
        modules: that are adapted; by default Q, K, V, O, Up, Down, and without O for tasks of text.
        train: for all runs.
        run: how it is run.
        measure: whether dW is counted at the end of each run.
        observe: updates between two countings of what learns, each a subject `RUN@UPDATE`; 0 for none.
    """

    job: Literal["tune"]
    name: Name = "tune"
    warehouse: Place = WAREHOUSE
    output: Place = "runs"
    model: Place
    revision: Place | None = None
    methods: Annotated[tuple[Annotated[MethodPart, _named("method")], ...], BeforeValidator(_some)]
    tasks: Annotated[tuple[Annotated[TaskPart, _named("task")], ...], BeforeValidator(_some)]
    data: Place | None = None
    seeds: Annotated[tuple[_Seed, ...], BeforeValidator(_some)] = (0,)
    ranks: Annotated[tuple[_Positive, ...], BeforeValidator(_some)] = (8,)
    modules: Modules | None = None
    train: Rates = Rates()
    run: TuneRun = TuneRun()
    measure: bool = True
    observe: _Count = 0

    @model_validator(mode="after")
    def _all_differ(self) -> TuneConfig:
        for key in ("seeds", "ranks"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"{key}: one is there twice")
        for key, word in (("methods", "method"), ("tasks", "task")):
            labels = [part.label or getattr(part, word) for part in getattr(self, key)]
            twice = next((label for label in labels if labels.count(label) > 1), None)
            if twice is not None:
                raise ValueError(f"{key}: two are called {twice!r}; give one of them a label")
        if self.observe and self.run.sharding == "fsdp":
            raise ValueError("observe: weights that workers share are nowhere whole; see run.sharding")
        return self
