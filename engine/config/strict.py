"""From a YAML file to a frozen model, or to one error that names every fault of it.

An unknown key is a fault, and the nearest known one is named; so is a key that is there twice, which YAML
libraries pass over.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from engine.errors import ConfigError

MOST_BYTES = 10 << 20
_MOST_DEPTH = 50
_MOST_FAULTS = 100
_MOST_SHOWN = 100  # characters of a value
_MOST_DIGITS = 100  # of a whole number: Python does not even print those of thousands


class Strict(BaseModel):
    """A part of a configuration: no other keys, no guesses at types, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Model = TypeVar("Model", bound=Strict)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads plain data: no key twice, no tags, no aliases, by which a short file can stand for gigabytes."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: Any, index: int) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases are not read", problem_mark=self.peek_event().start_mark
            )
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:  # with a tag, a value need not be what it says
            raise yaml.MarkedYAMLError(problem="tags are not read", problem_mark=event.start_mark)
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem=f"more than {_MOST_DEPTH} levels", problem_mark=mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(problem="'<<' is not read", problem_mark=key.start_mark)
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is not None and name in seen:
                raise yaml.MarkedYAMLError(problem=f"{name!r} is there twice", problem_mark=key.start_mark)
            seen.add(name)
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made

    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > _MOST_DIGITS:
            said = f"a whole number of {len(node.value):,} characters is not read"
            raise yaml.MarkedYAMLError(problem=said, problem_mark=node.start_mark)
        return int(super().construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def load(path: str | Path, model: type[Model]) -> Model:
    """Read a configuration file.

    Args:
        path: the file.
        model: what it must be.

    Raises:
        ConfigError: it cannot be read, or is something else; with every fault on a line of its own.
    """
    return validate(read_yaml(path), model, str(path))


def read_yaml(path: str | Path) -> Any:
    """Read plain data; errors as for `load`."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except ValueError as error:  # a NUL in it
        raise ConfigError(f"is not a usable path: {error}", file=str(path)) from error
    if len(raw) > MOST_BYTES:
        raise ConfigError(f"is no configuration: larger than {MOST_BYTES:,} bytes", file=str(path))
    try:
        loader = _Loader(raw.decode("utf-8"))
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise ConfigError("is no text in UTF-8", file=str(path)) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{where}{error.problem or error.context}", file=str(path)) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ConfigError(f"is no YAML: {' '.join(str(error).split())}", file=str(path)) from error


def write_yaml(path: Path, data: Any) -> None:
    """Write plain data."""
    path.write_text(dump_yaml(data), encoding="utf-8")


def dump_yaml(data: Any) -> str:
    """Spell plain data as YAML."""
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def validate(data: Any, model: type[Model], file: str) -> Model:
    """Make a model of plain data; errors as for `load`."""
    made, faults = examine(data, model, file)
    if made is None:
        raise refusal(faults, file)
    return made


def examine(data: Any, model: type[Model], file: str) -> tuple[Model | None, list[str]]:
    """Make a model of plain data, or say every fault, with empty texts for those beyond the first hundred.

    Raises:
        ConfigError: it is no mapping.
    """
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"expected keys and values, found {found}", file=file)
    if broken := [f"{place}: is not valid Unicode" for place in _surrogates(data)]:
        return None, broken
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        faults = list(dict.fromkeys(_faults(error, model)))
        return None, faults + [""] * (error.error_count() - min(error.error_count(), _MOST_FAULTS))


def _surrogates(data: Any, place: str = "") -> Iterator[str]:
    """Places of keys and values that hold halves of characters, which no file could: YAML can spell them."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _surrogates(key, f"{place}.{key}" if place else str(key))
            yield from _surrogates(value, f"{place}.{key}" if place else str(key))
    elif isinstance(data, (list, tuple)):
        for i, value in enumerate(data):
            yield from _surrogates(value, f"{place}.{i}")
    elif isinstance(data, str) and not data.isascii() and any("\ud800" <= c <= "\udfff" for c in data):
        yield _short(place).encode("utf-8", "backslashreplace").decode()


def examine_further(data: Any, model: type[Model], file: str) -> tuple[Model | None, list[str]]:
    """As `examine`, but what is sound of a faulty file is made too, so that it can be looked at further.

    Returns:
        what is sound, None if that is too little; and the faults.
    """
    made, faults = examine(data, model, file)
    left = deepcopy(data)
    for _ in range(_MOST_FAULTS):
        if made is not None:
            break
        try:
            made = model.model_validate(left)
        except ValidationError as error:
            places = [fault["loc"] for fault in error.errors(include_url=False)]
            if not _cut(left, places):
                break
    return made, faults


def _cut(data: dict[Any, Any], places: list[tuple[int | str, ...]]) -> bool:
    """Take the innermost values at some places away, the last ones of lists first; whether any was."""
    found = []
    for place in places:
        holder: Any = data
        last: tuple[Any, Any] | None = None
        for part in place:
            inside = isinstance(holder, list) and isinstance(part, int) and part < len(holder)
            if not inside and not (isinstance(holder, dict) and part in holder):
                break
            last = holder, part
            holder = holder[part]
        if last is not None:
            found.append(last)
    unique = {(id(holder), part): (holder, part) for holder, part in found}
    for holder, part in sorted(unique.values(), key=lambda pair: str(pair[1]).zfill(9), reverse=True):
        del holder[part]
    return bool(unique)


def refusal(faults: list[str], file: str) -> ConfigError:
    """One error that says all of at least one faults, or the first hundred and how many more there are."""
    shown = [fault for fault in faults[:_MOST_FAULTS] if fault]
    if len(faults) == 1:
        return ConfigError(faults[0], file=file)
    if more := len(faults) - len(shown):
        shown.append(f"and {more:,} more")
    return ConfigError("\n  ".join([f"has {len(faults):,} faults:", *shown]), file=file)


def _faults(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    for fault in error.errors(include_url=False)[:_MOST_FAULTS]:
        place = fault["loc"]
        where = _short(".".join(str(part) or "''" for part in place) or "the file")
        found = "" if isinstance(fault["input"], (dict, list, tuple)) else f", found {fault['input']!r}"
        if fault["type"] == "extra_forbidden":
            near = get_close_matches(str(place[-1])[:_MOST_SHOWN], _keys(model, place[:-1]), 1, 0.5)
            yield f"{where}: there is no such key" + (f"; did you mean {near[0]!r}?" if near else "")
        elif fault["type"] == "missing":
            yield f"{where}: is missing"
        elif fault["type"] in ("model_type", "dict_type"):
            yield f"{where}: expected keys and values{_short(found)}"
        elif fault["type"] == "value_error":
            yield f"{where}: {_short(fault['msg'].removeprefix('Value error, '), 2 * _MOST_SHOWN)}"
        else:
            message = fault["msg"][0].lower() + fault["msg"][1:]
            message = message.replace("input should be", "expected").replace("valid tuple", "list")
            yield f"{where}: {message}{_short(found)}"


def _short(text: str, most: int = _MOST_SHOWN) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _keys(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The keys that are known at a place."""
    models = [model]
    for part in place:
        if isinstance(part, str):
            fields = [m.model_fields[part].annotation for m in models if part in m.model_fields]
            models = [m for field in fields for m in _models(field)]
    return [name for m in models for name in m.model_fields]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
