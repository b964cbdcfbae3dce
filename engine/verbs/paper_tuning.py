"""How the paper tuned and how we tune unless told otherwise, as rows of the parameter `paper` of a query."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.nouns.glue import GLUE
from engine.nouns.paper import paper_commonsense, paper_tasks
from engine.nouns.tuning import OPTIMISER, SCHEDULE, RunSpec

_OF_TABLE_9 = ("task", "group", "kind", "train", "dev", "test", "labels", "metrics")


def tasks() -> list[dict[str, Any]]:
    """Rows of Table 9, and what is known here of the same task."""
    return [
        {"number": k, **{f"paper_{key}": row[key] for key in _OF_TABLE_9}, **_of_ours(row["task"])}
        for k, row in enumerate(paper_tasks())
    ]


def _of_ours(task: str) -> dict[str, Any]:
    glue = GLUE[task]
    return {
        "task": task,
        "title": glue.title,
        "labels": len(glue.labels) or 1,
        "metric": glue.metric,
        "evaluated_on": glue.test,
    }


def settings_of_glue() -> list[dict[str, Any]]:
    """Rows of Table 10, the paper's and our defaults, in the order of its columns."""
    theirs = [{"source": "paper", **row} for row in paper_tasks()]
    ours = [
        {**_settings_of(run), "label": row["label"], "task": run.task.name}
        for row, run in zip(
            paper_tasks(), _defaults("noise", [r["task"] for r in paper_tasks()]), strict=True
        )
    ]
    places = {task: k for k, task in enumerate(GLUE)}
    return [{"number": places[row["task"]], **row} for row in (*theirs, *ours)]


def settings_of_commonsense() -> list[dict[str, Any]]:
    """Rows of Table 11, the paper's and our defaults at the same ranks."""
    theirs = [{"source": "paper", **row} for row in paper_commonsense()]
    ranks = sorted({row["r"] for row in theirs})
    label = theirs[0]["label"]
    ours = [{**_settings_of(run), "label": label} for run in _defaults("lora_noise", ["commonsense"], ranks)]
    return [{"number": k, **row} for k, row in enumerate((*theirs, *ours))]


def _defaults(method: str, named: list[str], ranks: list[int] | None = None) -> Iterator[RunSpec]:
    """The runs of a sweep that says nothing but this."""
    from engine.config.tune import TuneConfig
    from engine.tuning.sweep import runs_of

    said = {"job": "tune", "model": "a/model", "methods": [method], "tasks": named, "ranks": ranks or [1]}
    yield from runs_of(TuneConfig.model_validate(said))


def _settings_of(run: RunSpec) -> dict[str, Any]:
    training, method = run.training, run.method
    return {
        "source": "default",
        "optimiser": OPTIMISER,
        "schedule": SCHEDULE,
        "warmup": None if training.warmup_steps else training.warmup,
        "warmup_steps": training.warmup_steps or None,
        "max_length": training.max_length,
        "batch": training.batch * training.accumulate * training.workers,
        "learning_rate": training.learning_rate,
        "epochs": training.epochs,
        "r": method.rank or None,
        "alpha": method.alpha or None,
        "dropout": method.adapter_dropout if method.rank else None,
        "modules": ", ".join(method.modules),
    }
