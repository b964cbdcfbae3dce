"""`paper`: the tables and figures of arXiv 2501.10661 over whatever was scanned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from engine.nouns.defaults import WAREHOUSE
from engine.nouns.events import Listener, ignore
from engine.nouns.paper import BENCHMARKS, PaperModel, paper_adapters, paper_models, recognise
from engine.verbs import paper_tuning
from engine.verbs.look import find_subject
from engine.verbs.scores import read_scores
from engine.warehouse.queries import Query, Value, named_queries, pick, run_query
from engine.warehouse.result import Result
from engine.warehouse.rows import Connection, all_rows
from engine.warehouse.store import Warehouse

_SUBJECTS = ("subject", "baseline", "a", "b")
"""Parameters that mean a subject; a query takes its number, because several may have one name."""

_MERGES = "table4"
_HISTOGRAMS = "fig1"
_OTHER_FIGURES: dict[str, dict[str, Value]] = {
    "fig2": {"kind": "adapter"},
    "fig4": {"sigmas": 3, "floor": 1e-3},
}
"""Figures that are another one with these parameters."""
_SHOWN_IN_FIG4 = "ConvNeXt-xlarge"
_OF_TUNING = {
    "table9": paper_tuning.tasks,
    "table10": paper_tuning.settings_of_glue,
    "table11": paper_tuning.settings_of_commonsense,
}


def paper(
    table: str,
    *,
    subject: str | int | None = None,
    params: Mapping[str, Value] | None = None,
    scores: str | Path | None = None,
    warehouse: str | Path = WAREHOUSE,
    listener: Listener = ignore,
) -> Result:
    """One of the paper's tables or figures; beside our numbers its own, of subjects that are its models.

    Args:
        table: the name of a query of `sql/paper`, such as `table1` or `fig5`; or one of the figures that show
            the histograms of one model or adapter, `fig8` to `fig26`.
        subject: only this one, by number, name, place or the beginning of its name (of several with one name
            the newest); all by default, or what the figure shows.
        params: values of the query's parameters; those that name a subject take the same words.
        scores: a CSV file with the columns `subject` and `score`, for the queries that set sigma or methods
            against scores; by default these are those of the warehouse's runs. For `table4` it may have a
            column for each of the paper's seven benchmarks.
        warehouse: the DuckDB file.
        listener: told while waiting for a writer.

    Raises:
        ConfigError: no such table, subject, parameter or warehouse, or a file of scores that is none.
        WarehouseError: see `engine.errors`.
    """
    name = _HISTOGRAMS if table in _figures() else table
    query = pick(name, named_queries("paper"), "table")
    given = _OTHER_FIGURES.get(table, {}) | dict(params or {})
    given |= {} if subject is None else {"subject": str(subject)}
    if scores is not None and "scores" not in query.defaults:
        takers = ", ".join(q.name for q in papers() if "scores" in q.defaults)
        raise ConfigError(f"{table} has nothing to do with scores; these have: {takers}")
    with Warehouse(warehouse, listener=listener).reading() as connection:
        if given.get("subject") is None and table in _figures():
            given["subject"] = _shown_in(connection, table)
        for parameter in _SUBJECTS:
            if parameter in query.defaults and given.get(parameter) is not None:
                given[parameter] = find_subject(connection, str(given[parameter]))
        if scores is not None:
            benchmarks = BENCHMARKS if name == _MERGES else ()
            given["scores"] = read_scores(scores, lambda word: find_subject(connection, word), benchmarks)
        if "paper" in query.defaults and given.get("paper") is None:
            given["paper"] = json.dumps(own_numbers(name, models_of(connection)))
        return run_query(connection, query, given)


def papers() -> list[Query]:
    """List the tables and figures, table 2 before table 10."""
    return sorted(
        named_queries("paper").values(), key=lambda q: (q.name.rstrip("0123456789"), len(q.name), q.name)
    )


def models_of(connection: Connection) -> list[tuple[int, PaperModel]]:
    """Which complete checkpoints of a warehouse are models of the paper."""
    rows = all_rows(
        connection,
        "SELECT subject_id, name, uri FROM subjects WHERE status = 'complete' AND kind = 'checkpoint' "
        "ORDER BY subject_id",
    )
    found = ((number, recognise(name, uri)) for number, name, uri in rows)
    return [(number, model) for number, model in found if model is not None]


def own_numbers(table: str, models: list[tuple[int, PaperModel]]) -> list[dict[str, Any]]:
    """What the paper says of subjects or of tuning, as rows of the parameter `paper` of a query."""
    if table in _OF_TUNING:
        return _OF_TUNING[table]()
    if table == "table5":
        return [{"subject_id": number, **asdict(line)} for number, model in models for line in model.table5]
    if table == "table8":
        return [row for k, model in enumerate(paper_models()) for row in _of_table8(k, model, models)]
    plain = ("ratio_percent", "skewness", "kurtosis", "kurtosis_std")
    return [
        {"subject_id": number, "model": model.name, **{key: getattr(model, key) for key in plain}}
        for number, model in models
    ]


def _of_table8(number: int, model: PaperModel, models: list[tuple[int, PaperModel]]) -> list[dict[str, Any]]:
    """One row for each subject that is the model, or one without a subject."""
    told = {key: getattr(model, key) for key in ("repository", "parameters", "figure")}
    numbers: list[int | None] = [subject for subject, found in models if found == model]
    return [{"number": number, "subject_id": i, "model": model.name, **told} for i in numbers or [None]]


def _figures() -> set[str]:
    """Figures that are histograms of something."""
    return {*_OTHER_FIGURES, *paper_adapters(), *(model.figure for model in paper_models())}


def _shown_in(connection: Connection, figure: str) -> str | None:
    """Number of the newest subject that a figure shows; None for any.

    Raises:
        ConfigError: it is not in the warehouse.
    """
    if figure == "fig2":
        return None
    if figure in paper_adapters():
        method, rank = paper_adapters()[figure]
        what = f"an adapter of {method} with r = {rank}"
        rows = all_rows(
            connection,
            "SELECT subject_id FROM subjects WHERE status = 'complete' AND kind = 'adapter' "
            "AND spec ->> 'method' = ? AND try_cast(spec ->> 'r' AS INTEGER) = ? ORDER BY subject_id",
            [method, rank],
        )
        numbers = [row[0] for row in rows]
    else:
        shown = _SHOWN_IN_FIG4 if figure == "fig4" else None
        (model,) = (m for m in paper_models() if shown == m.name or figure == m.figure)
        what = f"a subject that is {model.name} ({model.repository})"
        numbers = [number for number, found in models_of(connection) if found == model]
    if not numbers:
        raise ConfigError(f"{figure} shows {what}, and there is none here; --subject names another")
    return str(numbers[-1])
