"""From a configuration to its runs: every default is filled in here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.config.tune import MethodPart, Rates, TaskPart, TuneConfig
from engine.nouns.glue import GLUE
from engine.nouns.tuning import RANKED, Method, RunSpec, Task, Training
from engine.tuning.data.files import commonsense_files, glue_file, is_distant

_COMMON = {
    "steps": 0,
    "accumulate": 1,
    "weight_decay": 0.01,
    "clip": 1.0,
    "dropout": -1.0,
    "precision": "float32",
    "recompute": False,
    "train_examples": 0,
    "test_examples": 0,
    "new_tokens": 32,
    "evaluate_every": 0,
    "checkpoint_every": 0,
    "patience": 0,
}
_GLUE = {"batch": 32, "warmup": 0.1, "warmup_steps": 0}
_TEXT = {
    "epochs": 3.0,
    "batch": 16,
    "warmup": 0.0,
    "warmup_steps": 100,
    "learning_rate": 3e-4,
    "max_length": 256,
}
"""Table 11 of arXiv 2501.10661, and LLM-Adapters' length."""

_FULL_RATE = 5e-5
"""Of `full`: Table 10's rates are those of SVDiff and of scalars; for all weights the paper gives none."""

_MODULES = ("Q", "K", "V", "O", "Up", "Down")
_MODULES_OF_TEXT = ("Q", "K", "V", "Up", "Down")
_NOISE = {"noise": "gaussian", "lora_noise": "weights", "full_gaussian": "replaced"}


def runs_of(config: TuneConfig) -> list[RunSpec]:
    """All runs of a sweep, those of a task together."""
    return [spec for part in config.tasks for spec in _runs_of_task(config, part)]


def _runs_of_task(config: TuneConfig, part: TaskPart) -> Iterator[RunSpec]:
    task = task_of(part, config.data)
    for method in config.methods:
        for rank in _ranks(config, method):
            made = _method(config, method, rank, task)
            training = _training(config, method, part)
            for seed in config.seeds:
                own = "-".join([made.label, *([f"r{rank}"] if rank else []), task.label, f"s{seed}"])
                yield RunSpec(
                    name=f"{config.name}/{own}",
                    folder=str(Path(config.output).expanduser().absolute() / config.name / own),
                    model=_absolute(config.model) if is_local(config.model) else config.model,
                    revision=config.revision or "",
                    method=made,
                    task=task,
                    training=training,
                    seed=seed,
                )


def _absolute(path: str) -> str:
    """A path that means the same in another folder; workers of Ray Train have one of their own."""
    return path if not path or is_distant(path) else str(Path(path).expanduser().absolute())


def is_local(model: str) -> bool:
    """Whether a model is a folder of this machine, and no name of the Hub."""
    return Path(model).expanduser().exists() or model.startswith((".", "/", "~")) or model.count("/") > 1


def task_of(part: TaskPart, data: str | None) -> Task:
    """A task with its files; of those that are not found, the path is empty."""
    folder, label = part.data or data, part.label or part.task
    given = part.test if isinstance(part.test, dict) else {"": part.test} if part.test else None
    if part.task in GLUE:
        glue = GLUE[part.task]
        train = part.train or (glue_file(part.task, "train", folder) if folder else None)
        test = glue_file(part.task, "test", folder) if folder and given is None else None
        tests = given or {"": test or ""}
        kind, labels = ("labels", len(glue.labels)) if glue.labels else ("score", 1)
        train = _absolute(train or "")
        return Task(part.task, kind, label, labels, glue.metric, train, _pairs(tests), part.columns)
    train, tests, metric = part.train, given or {}, str(part.metric or "tokens")
    if part.task == "commonsense":
        metric = "answers"
        found, all_tests = commonsense_files(folder) if folder else (None, {})
        train, tests = train or found, given if given is not None else all_tests
    return Task(part.task, "text", label, 0, metric, _absolute(train or ""), _pairs(tests), part.columns)


def _pairs(tests: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _absolute(path)) for name, path in tests.items())


def _ranks(config: TuneConfig, part: MethodPart) -> tuple[int, ...]:
    return (part.ranks or config.ranks) if part.method in RANKED else (0,)


def modules_of(config: TuneConfig, part: MethodPart, kind: str) -> tuple[str, ...]:
    """Which modules a method adapts."""
    if part.method in ("head", "full"):
        return ()
    default = _MODULES_OF_TEXT if kind == "text" else _MODULES
    return part.modules or config.modules or default


def _method(config: TuneConfig, part: MethodPart, rank: int, task: Task) -> Method:
    dropout = part.adapter_dropout
    if dropout is None:
        dropout = 0.05 if rank and task.kind == "text" else 0.0
    return Method(
        name=part.method,
        label=part.label or part.method,
        modules=modules_of(config, part, task.kind),
        rank=rank,
        alpha=(part.alpha or 2.0 * rank) if rank else 0.0,
        adapter_dropout=dropout,
        noise=part.noise or _NOISE.get(part.method, ""),
    )


def _training(config: TuneConfig, method: MethodPart, task: TaskPart) -> Training:
    """The more special word goes first: the method's, the task's, the sweep's, then the defaults."""
    values: dict[str, Any]
    if task.task in GLUE:
        glue = GLUE[task.task]
        values = {**_COMMON, **_GLUE, "max_length": glue.max_length, "epochs": float(glue.epochs)}
        values["learning_rate"] = glue.learning_rate
    else:
        values = {**_COMMON, **_TEXT}
    if method.method == "full":
        values["learning_rate"] = _FULL_RATE
    for part in (config.train, task, method):
        given = {name: v for name in Rates.model_fields if (v := getattr(part, name)) is not None}
        if "warmup" in given:
            values["warmup_steps"] = 0
        if "epochs" in given:
            values["steps"] = 0
        values |= given
    return Training(**values, workers=config.run.workers)
