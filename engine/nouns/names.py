"""Where a tensor sits in its model, read from its name alone.

The knowledge is data, in `names.toml`; this file only applies it, in the order of that file.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

RULES_FILE: Final = Path(__file__).with_name("names.toml")
LONGEST_NAME: Final = 1000
"""A longer name is no module's path, and the time to read it would grow with the square of its length."""

ROLES: Final = (
    "query", "key", "value", "query key value", "key value", "attention output",
    "gate", "intermediate", "gate intermediate", "output", "router",
    "embedding", "position embedding", "type embedding", "patch embedding", "head", "pooler", "convolution",
    "norm", "bias", "scale", "connector", "adapter", "other",
)  # fmt: skip
"""Of attention, of the MLP, of the model's two ends, of the rest; "output" is the MLP's down projection."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor sits.

    Attributes:
        part: The tower or stage ("vision", "text", "connector", "decoder", "stage 2"); "" for a plain model.
        layer: The index in the repeated stack of the part, None outside of it.
        module: The model's own words, without the layer's index, wrappers and the suffix (".weight").
        role: What the tensor does, one of `ROLES`, the same word for every architecture.
    """

    part: str
    layer: int | None
    module: str
    role: str


class _Part(NamedTuple):
    starts: re.Pattern[str]
    part: str  # may refer to groups of `starts`
    keep: str


class _Role(NamedTuple):
    pattern: str  # compiled when first needed: a model seldom comes to the keywords, the last of the rules
    whole: bool  # searched in module and suffix, not in the module
    stacked: bool | None
    role: str


class _Rules(NamedTuple):
    wrappers: re.Pattern[str]
    front: re.Pattern[str]
    holders: re.Pattern[str]
    suffixes: list[tuple[re.Pattern[str], str]]
    parts: list[_Part]
    stack: re.Pattern[str]
    unstacked: re.Pattern[str]
    roles: list[_Role]


def place(name: str) -> Place:
    """Read where the tensor called `name` sits; never raises, whatever the name.

    The name is all it sees: what only the shape or the rest of the model could tell is not distinguished.
    """
    if len(name) > LONGEST_NAME:
        return Place("", None, name, "other")
    rules = _rules()
    path = rules.wrappers.sub("", name.replace("/", ".").strip("."))
    path, suffix, role = _cut_suffix(rules, path)
    part, path = _cut_part(rules, path)
    layer, module = _cut_layer(rules, rules.front.sub("", path))
    return Place(part, layer, module, role or _role(module, suffix, layer is not None))


def _cut_suffix(rules: _Rules, path: str) -> tuple[str, str, str]:
    for ends, role in rules.suffixes:
        if match := ends.search(path):
            return path[: match.start()], match[0], role
    return path, "", ""


def _cut_part(rules: _Rules, path: str) -> tuple[str, str]:
    for starts, part, keep in rules.parts:
        if match := starts.match(path):
            return match.expand(part), keep + path[match.end() :]
    return "", path


def _cut_layer(rules: _Rules, path: str) -> tuple[int | None, str]:
    match = rules.stack.search(path)
    if not match or rules.unstacked.search(path, 0, match.end()):
        return None, path
    before = path[: match.start()]
    words = ("" if rules.holders.fullmatch(before) else before, match["kept"], path[match.end() :])
    return int(match["layer"]), ".".join(filter(None, words))


@functools.lru_cache(maxsize=4096)
def _role(module: str, suffix: str, stacked: bool) -> str:
    # cached, for a model repeats a dozen modules in each of its layers
    for rule in _rules().roles:
        text = module + suffix if rule.whole else module
        if rule.stacked in (None, stacked) and _compile(rule.pattern).search(text):
            return rule.role
    return "other"


@functools.cache
def _rules() -> _Rules:
    import tomllib

    data = tomllib.loads(RULES_FILE.read_text(encoding="utf-8"))
    prefix = {table["where"]: _any(table["words"]) for table in data["prefix"]}
    stack = {table["use"]: _any(table["words"]) for table in data["stack"]}
    return _Rules(
        wrappers=_compile(rf"(?:^|(?<=\.)){prefix['anywhere']}\."),
        front=_compile(rf"^(?:{prefix['front']}\.)+"),
        holders=_compile(rf"(?:(?:{prefix['front']}|{prefix['stack']})(?:\.|$))*"),
        suffixes=[(_compile(_any(table["ends"]) + "$"), table.get("role", "")) for table in data["suffix"]],
        parts=[_Part(_compile(s), t["part"], t.get("keep", "")) for t in data["part"] for s in t["starts"]],
        # nine digits at most: int() refuses very long ones, and the warehouse's column has 32 bits
        stack=_compile(
            rf"(?:^|\.)(?:{stack['drop']}|(?P<kept>{stack['keep']}))\.(?P<layer>[0-9]{{1,9}})(?:\.|$)"
        ),
        unstacked=_compile(rf"(?:^|\.){stack['never']}\."),
        roles=[_read_role(table) for table in data["role"]],
    )


def _read_role(table: dict[str, Any]) -> _Role:
    whole = "path" in table
    pattern = _any(table["path"]) if whole else rf"(?:^|\.){_any(table['module'])}$"
    return _Role(pattern, whole, table.get("stacked"), table["role"])


def _any(alternatives: list[str]) -> str:
    return f"(?:{'|'.join(alternatives)})"


@functools.cache
def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII | re.DOTALL)
