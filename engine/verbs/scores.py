"""Scores of subjects from a CSV file, for queries that set them against sigma or methods."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from engine.errors import ConfigError

_NAMED = "subject"
_SCORE = "score"


def read_scores(path: str | Path, find: Callable[[str], int], benchmarks: Sequence[str] = ()) -> str:
    """Read a file of scores.

    Args:
        path: CSV with a header line; of its columns `subject`, `score` and those of the benchmarks are read.
        find: the number of the subject that a word means; raises ConfigError if there is none.
        benchmarks: names, in lower case, of columns that may stand in place of `score`, or beside it; a cell
            of theirs may be empty.

    Returns:
        JSON, `[{"subject_id": 3, "score": 78.4}, ...]`, which is what the queries take; with benchmarks their
        numbers beside it, and null for what is not there.

    Raises:
        ConfigError: the file cannot be read or lacks a column, or a line has no score, an unknown subject, or
            one that another line has.
    """
    scores: dict[int, dict[str, float | None]] = {}
    for line, row in _lines(path, benchmarks):
        word = row.pop(_NAMED)
        try:
            subject_id = find(word)
        except ConfigError as error:
            raise ConfigError(f"line {line}: {error.message}", file=str(path)) from error
        found = {name: _number(text, line, path) for name, text in row.items() if text or not benchmarks}
        if not found:
            raise ConfigError(f"line {line}: has no score", file=str(path))
        if subject_id in scores:
            raise ConfigError(f"line {line}: {word!r} has a score already", file=str(path))
        scores[subject_id] = dict.fromkeys((_SCORE, *benchmarks)) | found
    return json.dumps([{"subject_id": i, **found} for i, found in scores.items()])


def _number(text: str, line: int, path: str | Path) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise ConfigError(f"line {line}: the score is no number: {text!r}", file=str(path))
    return score


def _lines(path: str | Path, benchmarks: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines with their numbers, and of each the columns that count, by their names in lower case."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # noqa: PTH123 - a path may be a string
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = _columns(reader.fieldnames or [], benchmarks, path)
            for row in reader:
                yield reader.line_num, {name: row[column] or "" for name, column in columns.items()}
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"cannot be read as CSV in UTF-8: {error}", file=str(path)) from error


def _columns(names: Sequence[str], benchmarks: Sequence[str], path: str | Path) -> dict[str, str]:
    found = {name: name for name in (_NAMED, _SCORE) if name in names}
    found |= {name.lower(): name for name in names if name.lower() in benchmarks}
    if _NAMED in found and len(found) > 1:
        return found
    missing = _NAMED if _NAMED not in found else _SCORE
    wanted = f"score, or benchmarks ({', '.join(benchmarks)})" if benchmarks else "score"
    raise ConfigError(f"has no column {missing!r}; it needs subject and {wanted}", file=str(path))
