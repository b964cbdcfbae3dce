"""Examples of a task from its file, and everything that is wrong with them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.nouns.glue import ALIASES, GLUE
from engine.nouns.tuning import Task
from engine.tuning.data import commonsense
from engine.tuning.data.tables import Table, read_table

_MOST_SCORE = 5.0  # STS-B's scores are from 0 to 5


@dataclass(frozen=True, slots=True)
class Example:
    """One example.

    Attributes:
        texts: one or two; of tasks of text the prompt and its completion.
        label: number of the label, or the score; 0 for text.
        answer: what a completion is judged by, for commonsense tasks.
    """

    texts: tuple[str, ...]
    label: float = 0.0
    answer: str = ""


@dataclass(slots=True)
class Loaded:
    """Examples of a file, and what is wrong with it."""

    examples: list[Example] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def load_examples(task: Task, path: str | Path) -> Loaded:
    """Read the examples of a task; what is wrong is said once for each kind of fault, with the first line."""
    if task.name in GLUE:
        return _load_glue(task, Path(path))
    table = read_table(Path(path))
    if task.name == "commonsense":
        return _load(table, commonsense.COLUMNS, _commonsense)
    words = {key: task.columns.get(key, key) for key in ("prompt", "completion")}

    def prompt(row: Mapping[str, Any]) -> Example | str:
        return _text(row, words)

    return _load(table, tuple(words.values()), prompt)


def sample(examples: list[Example], most: int) -> list[Example]:
    """At most so many, always the same, in their order; 0 for all."""
    if not most or most >= len(examples):
        return examples
    chosen = sorted(random.Random(0).sample(range(len(examples)), most))
    return [examples[i] for i in chosen]


def _load(
    table: Table, columns: tuple[str, ...], make: Callable[[Mapping[str, Any]], Example | str]
) -> Loaded:
    loaded, wrong = Loaded(faults=_once(table)), dict[str, list[int]]()
    missing = [c for c in columns if c not in table.header] if table.header else []
    for column in missing:
        loaded.faults.append(
            f"{table.path}: has no column {column!r}; it has {', '.join(table.header)[:200]}"
        )
    if missing:
        return loaded
    for number, row in table.rows:
        made = make(row)
        if isinstance(made, Example):
            loaded.examples.append(made)
        else:
            wrong.setdefault(made, []).append(number)
    for text, numbers in list(wrong.items())[:10]:
        more = f" (and {len(numbers) - 1:,} more like it)" if len(numbers) > 1 else ""
        loaded.faults.append(f"{table.path}: line {numbers[0]:,}: {text}{more}")
    if len(wrong) > 10:
        loaded.faults.append(f"{table.path}: and {len(wrong) - 10:,} more kinds of fault")
    if not loaded.examples and not loaded.faults:
        loaded.faults.append(f"{table.path}: holds no example")
    return loaded


def _once(table: Table) -> list[str]:
    if len(table.faults) <= 3:
        return list(table.faults)
    return [*table.faults[:3], f"{table.path}: and {len(table.faults) - 3:,} more lines that cannot be read"]


def _load_glue(task: Task, path: Path) -> Loaded:
    glue = GLUE[task.name]
    wanted = (*glue.texts, "label")
    words = {
        key: ((task.columns[key],) if key in task.columns else ALIASES.get(key, (key,))) for key in wanted
    }
    known = tuple(word for group in words.values() for word in group)
    table = read_table(path, glue.bare, known, torn=glue.torn)
    columns = {key: next((w for w in group if w in table.header), group[0]) for key, group in words.items()}

    def make(row: Mapping[str, Any]) -> Example | str:
        texts = tuple(row.get(columns[key]) for key in glue.texts)
        label = _label(row.get(columns["label"]), glue.labels)
        if not all(isinstance(t, str) for t in texts):
            return "a text is missing"
        return label if isinstance(label, str) else Example(tuple(map(str, texts)), label)

    return _load(table, tuple(columns.values()), make)


def _label(found: Any, labels: tuple[str, ...]) -> float | str:
    """Number of a label, or the score; what is wrong with it otherwise."""
    if labels:
        word = str(found)
        if word in labels:
            return float(labels.index(word))
        if word.isdecimal() and int(word) < len(labels):
            return float(word)
        expected = " or ".join(labels if labels[0].isdecimal() else (*labels, f"0 to {len(labels) - 1}"))
        return f"the label is {word[:40]!r}, expected {expected}"
    try:
        score = float(found)
    except (TypeError, ValueError):
        score = math.nan
    if not 0 <= score <= _MOST_SCORE:
        return f"the score is {str(found)[:40]!r}, expected 0 to {_MOST_SCORE:g}"
    return score


def _text(row: Mapping[str, Any], words: Mapping[str, str]) -> Example | str:
    prompt, completion = (row.get(words[key]) for key in ("prompt", "completion"))
    if not isinstance(prompt, str) or not isinstance(completion, str) or not prompt.strip() or not completion:
        return "prompt and completion must be texts, the prompt not blank and the completion not empty"
    return Example((prompt, completion), answer=completion)


def _commonsense(row: Mapping[str, Any]) -> Example | str:
    made = commonsense.prompt_of(row)
    return made if isinstance(made, str) else Example((made[0], made[1]), answer=made[2])
