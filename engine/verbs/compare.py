"""`compare`: two subjects tensor by tensor, from their counts alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.errors import ConfigError
from engine.nouns.defaults import WAREHOUSE
from engine.nouns.events import Listener, ignore
from engine.nouns.prefixes import match_names
from engine.sketch import Sketch
from engine.statistics.distance import Distance, distance
from engine.statistics.distribution import distribution
from engine.verbs.look import find_subject
from engine.warehouse.columns import insert_records
from engine.warehouse.queries import named_queries, pick, run_query
from engine.warehouse.result import Result
from engine.warehouse.rows import Connection, all_rows, one_value
from engine.warehouse.sketches import read_sketches
from engine.warehouse.store import Warehouse

By = Literal["tensor", "layer", "role", "subject"]

FAMILY_CORRELATION = 0.95
FAMILY_DISTANCE = 0.05
"""Tuning changes sigma by a few per cent; two models that were trained apart differ by more."""

_AT_ONCE = 32  # tensors whose counts are held at once, of each subject
_PAIRS = """
CREATE TEMP TABLE pairs (
    tensor_a INTEGER, tensor_b INTEGER, identical BOOLEAN,
    w1 DOUBLE, w1_error DOUBLE, ks DOUBLE, ks_error DOUBLE
)
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found.

    Attributes:
        a: name of the first subject.
        b: name of the second.
        verdict: one line.
        result: a row for each tensor, layer or role, or one for all.
    """

    a: str
    b: str
    verdict: str
    result: Result


def compare(
    a: str | int,
    b: str | int,
    *,
    by: By = "tensor",
    warehouse: str | Path = WAREHOUSE,
    listener: Listener = ignore,
) -> Comparison:
    """Compare two subjects of any kind, tensor by tensor.

    Tensors match by name; the wrappers of `engine.nouns.prefixes` are looked through. Tensors are `identical`
    when their counts are: of formats up to 16 bits the same values, in whatever order; of 32-bit floats the
    counts, sums and sums of squares of all codes agree.

    Args:
        a: its number, name, place, or the beginning of its name.
        b: the other.
        by: one row for each `tensor`, `layer` or `role`, or one for the `subject`.
        warehouse: the DuckDB file.
        listener: told while waiting for a writer.

    Raises:
        ConfigError: no such subject or warehouse, or the two have no tensor in common.
        WarehouseError: see `engine.errors`.
    """
    query = pick(f"compare_{by}", named_queries("verbs"), "view")
    with Warehouse(warehouse, listener=listener).reading() as connection:
        id_a, id_b = (find_subject(connection, str(wanted)) for wanted in (a, b))
        name_a, name_b = (_name(connection, i) for i in (id_a, id_b))
        pairs = _pairs(connection, id_a, id_b)
        if not pairs:
            raise ConfigError(f"no tensor of {name_a!r} has the name of one of {name_b!r}")
        connection.execute(_PAIRS)
        insert_records(connection, "pairs", [*_measured(connection, pairs)])
        tensors = named_queries("verbs")["compare_tensor"].sql.rstrip().rstrip(";")
        connection.execute(f"CREATE TEMP TABLE compared AS {tensors}", {"a": id_a, "b": id_b})
        given = {"a": id_a, "b": id_b} if by == "tensor" else {}
        result = run_query(connection, query, given)
        whole = run_query(connection, named_queries("verbs")["compare_subject"], {}).records()[0]
    return Comparison(name_a, name_b, verdict(whole), result)


def _name(connection: Connection, subject_id: int) -> str:
    return str(one_value(connection, "SELECT name FROM subjects WHERE subject_id = ?", [subject_id]))


def _pairs(connection: Connection, id_a: int, id_b: int) -> list[tuple[int, int]]:
    """Match the tensors of two subjects, in the order of the first."""
    listing = "SELECT name, tensor_id FROM tensors WHERE subject_id = ? ORDER BY ordinal"
    a: dict[str, int] = dict(all_rows(connection, listing, [id_a]))
    b: dict[str, int] = dict(all_rows(connection, listing, [id_b]))
    return [(a[x], b[y]) for x, y in match_names(list(a), list(b)).items()]


def _measured(connection: Connection, pairs: Sequence[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    for start in range(0, len(pairs), _AT_ONCE):
        some = pairs[start : start + _AT_ONCE]
        of_a = read_sketches(connection, [a for a, _ in some])
        of_b = read_sketches(connection, [b for _, b in some])
        for a, b in some:
            yield {"tensor_a": a, "tensor_b": b} | _difference(of_a.get(a), of_b.get(b))


def _difference(a: Sketch | None, b: Sketch | None) -> dict[str, Any]:
    if a is None or b is None:
        return {"identical": False, "w1": None, "w1_error": None, "ks": None, "ks_error": None}
    identical = _same(a, b)
    far = Distance(0, 0, 0, 0) if identical else distance(distribution(a), distribution(b))
    numbers = {"w1": far.w1, "w1_error": far.w1_error, "ks": far.ks, "ks_error": far.ks_error}
    return {"identical": identical, **{k: None if math.isnan(v) else float(v) for k, v in numbers.items()}}


def _same(a: Sketch, b: Sketch) -> bool:
    if a.coding != b.coding or (a.zeros, a.minimum, a.maximum) != (b.zeros, b.minimum, b.maximum):
        return False
    columns = ((a.codes, b.codes), (a.n, b.n), (a.low_sum, b.low_sum), (a.low_square_sum, b.low_square_sum))
    return all(x is y or (x is not None and y is not None and np.array_equal(x, y)) for x, y in columns)


def verdict(whole: Mapping[str, Any]) -> str:
    """Say in one line how two subjects compare, from the one row of `compare_subject`."""
    tensors, identical = whole["tensors"] - whole["not_counted"], whole["identical"]
    alone = [f"{whole[f'only_in_{x}']:,} only in {x}" for x in "ab" if whole[f"only_in_{x}"]]
    counts = "; ".join([f"{identical:,} of {tensors:,} tensors identical", *alone])
    if 0 < identical == tensors and not alone:
        return f"identical: all {tensors:,} tensors have the same counts"
    if whole["std_gap"] is None:
        return f"no matrices to compare; {counts}"
    numbers = [f"mean |dsigma| {whole['std_gap']:.1e}"]
    if whole["w1"] is not None:
        error = f" (off by {whole['w1_error']:.1e} at most)" if whole["w1_error"] else ""
        numbers.append(f"W1 {whole['w1']:.1e}{error}")
    if whole["correlation"] is not None:
        numbers.insert(0, f"sigma profiles correlate {whole['correlation']:.3f}")
    return f"{_family(whole)}: {', '.join(numbers)}; {counts}"


def _family(whole: Mapping[str, Any]) -> str:
    if whole["correlation"] is None or whole["distance"] is None:
        return "too few matrices for a profile"
    if whole["correlation"] >= FAMILY_CORRELATION and whole["distance"] <= FAMILY_DISTANCE:
        return "same family"
    return "not the same family"
