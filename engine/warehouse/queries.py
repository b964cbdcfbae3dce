"""Named queries: SQL files whose first line asks a question and whose next lines declare parameters.

-- Which matrices have the heaviest tails?
-- param limit = 20: how many rows
SELECT ... LIMIT $limit;
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from engine.errors import ConfigError
from engine.warehouse.result import Result
from engine.warehouse.rows import Connection, one_line
from engine.warehouse.sql_files import scripts

Value = str | int | float | None

_NAME = re.compile(r"[\w-]+")
_NUMBER = re.compile(
    r"[+-]?(inf(inity)?|nan|((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?)", re.IGNORECASE
)
_PARAMETER = re.compile(r"^-- param (\w+) = (.*?): (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Query:
    """SQL with what its header says.

    Attributes:
        name: the file's name without its suffix; "" for SQL typed in.
        question: its first line.
        sql: all of it.
        defaults: value of each declared parameter.
        help: what each parameter is.
    """

    name: str
    question: str
    sql: str
    defaults: dict[str, Value]
    help: dict[str, str]


def parse_query(sql: str, name: str = "") -> Query:
    """Read the header of a query."""
    first = sql.lstrip().split("\n", 1)[0]
    question = first.removeprefix("--").strip() if first.startswith("--") else ""
    declared = _PARAMETER.findall(sql)
    return Query(
        name, question, sql, {k: parse_value(v) for k, v, _ in declared}, {k: text for k, _, text in declared}
    )


class Typed(str):
    """A value as somebody typed it: whether it is a number, the parameter's default tells."""

    __slots__ = ()


def typed(text: str) -> Value:
    """A value that was typed: NULL, or what `run_query` makes of it."""
    return None if text.upper() == "NULL" else Typed(text)


def parse_value(text: str) -> Value:
    """Read NULL, a whole number, a number or, failing these, a word; 007 and 1_0 are words."""
    if text.upper() == "NULL":
        return None
    if not _NUMBER.fullmatch(text):
        return str(text)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def named_queries(folder: str = "queries") -> dict[str, Query]:
    """Read the queries of a folder of `sql/`, by name."""
    return {p.stem: parse_query(p.read_text(encoding="utf-8"), p.stem) for p in scripts(folder)}


def find_query(text: str) -> Query:
    """Take a name from `sql/queries`, a path to a .sql file, or SQL itself.

    Raises:
        ConfigError: a single word that is no query's name, or a file that cannot be read.
    """
    text = text.strip()
    if text.lower().endswith(".sql") and "\n" not in text:
        try:
            return parse_query(Path(text).read_text(encoding="utf-8"), Path(text).stem)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the query cannot be read: {error}", file=text) from error
    if _NAME.fullmatch(text):
        return pick(text, named_queries(), "query")
    return parse_query(text)


def pick(name: str, queries: Mapping[str, Query], what: str) -> Query:
    """Take a query by name.

    Raises:
        ConfigError: with the nearest name, or all of them.
    """
    return queries[pick_name(name, queries, what)]


def pick_name(name: str, names: Iterable[str], what: str) -> str:
    """Make sure that a name is one of several; errors as for `pick`."""
    known = list(names)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise ConfigError(f"there is no {what} {name!r}; {hint}")
    return name


def run_query(connection: Connection, query: Query, given: Mapping[str, Value]) -> Result:
    """Run a query to its end.

    Args:
        connection: open for reading.
        query: what to run.
        given: parameters by name; those of a named query are optional and must be declared. What was typed
            is a number where the default is one, and where nothing is declared and it looks like one.

    Raises:
        ConfigError: the SQL is wrong, or a parameter is unknown or missing.
    """
    if query.name and (unknown := sorted(set(given) - set(query.defaults))):
        known = ", ".join(query.defaults) or "none"
        raise ConfigError(f"the query {query.name} has no parameter {unknown[0]!r}; it has: {known}")
    parameters: dict[str, Any] = {k: _as_default(k, v, query) for k, v in {**query.defaults, **given}.items()}
    if not all(_is_unicode(text) for text in (query.sql, *parameters.values())):
        raise ConfigError("the query or a parameter is not valid Unicode")
    try:
        cursor = connection.execute(query.sql, parameters) if parameters else connection.execute(query.sql)
        if cursor is None or not cursor.description:
            raise ConfigError("the query is empty: there is nothing to run")
        description, rows = cursor.description, cursor.fetchall()
    except duckdb.Error as error:
        raise ConfigError(f"the query failed: {one_line(error)}") from error
    return Result([d[0] for d in description], rows)


def _is_unicode(value: object) -> bool:
    return not isinstance(value, str) or not any("\ud800" <= c <= "\udfff" for c in value)


def _as_default(name: str, value: Value, query: Query) -> Value:
    """Give a parameter the type of its default: a subject named 007 is a name."""
    default = query.defaults.get(name)
    if name in query.defaults and not isinstance(default, (int, float)):
        return None if value is None else str(value)
    if isinstance(value, Typed):
        value = parse_value(value)
    if isinstance(default, (int, float)) and isinstance(value, str):
        raise ConfigError(f"the parameter {name} of {query.name} must be a number, not {value!r}")
    return value
