"""Scores of subjects from a CSV file, for queries that set them against sigma."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.errors import ConfigError

COLUMNS = ("subject", "score")


def read_scores(path: str | Path, find: Callable[[str], int]) -> str:
    """Read a file of scores.

    Args:
        path: CSV with a header line; of its columns `subject` and `score` are read.
        find: the number of the subject that a word means; raises ConfigError if there is none.

    Returns:
        JSON, `[{"subject_id": 3, "score": 78.4}, ...]`, which is what the queries take.

    Raises:
        ConfigError: the file cannot be read or lacks a column, or a line has no score, an unknown subject, or
            one that another line has.
    """
    scores: dict[int, float] = {}
    for line, row in _lines(path):
        try:
            subject_id, score = find(row["subject"]), float(row["score"])
        except ConfigError as error:
            raise ConfigError(f"line {line}: {error.message}", file=str(path)) from error
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise ConfigError(f"line {line}: the score is no number: {row['score']!r}", file=str(path))
        if subject_id in scores:
            raise ConfigError(f"line {line}: {row['subject']!r} has a score already", file=str(path))
        scores[subject_id] = score
    return json.dumps([{"subject_id": i, "score": score} for i, score in scores.items()])


def _lines(path: str | Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # noqa: PTH123 - a path may be a string
            reader = csv.DictReader(file, skipinitialspace=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise ConfigError(f"has no column {missing[0]!r}; it needs subject and score", file=str(path))
            for row in reader:
                yield reader.line_num, {name: row[name] or "" for name in COLUMNS}
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"cannot be read as CSV in UTF-8: {error}", file=str(path)) from error
