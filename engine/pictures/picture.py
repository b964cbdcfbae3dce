"""A picture as a value: what is drawn, whatever it is drawn on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from engine.nouns.words import printable, shortened

if TYPE_CHECKING:
    import altair as alt

Rows = Sequence[Mapping[str, Any]]

_LONGEST = 60  # characters of a name in a picture


@dataclass(frozen=True, slots=True)
class Picture:
    """Something to draw.

    Attributes:
        name: a word for it, such as `kurtosis`.
        title: a line of text.
        spec: Vega-Lite's, with the data in it.
    """

    name: str
    title: str
    spec: Mapping[str, Any]


def require_libraries() -> None:
    """Make sure that the libraries which pictures are made with are there.

    Raises:
        ConfigError: they are not.
    """
    missing = [name for name in ("altair", "vl_convert") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"pictures need {missing[0]}, which is not here: pip install 'gaussmeter[plot]'")


def label(text: str, most: int = _LONGEST) -> str:
    """A name as it may stand in a picture."""
    return shortened(printable(text), most)


def labels(words: Iterable[str], most: int = _LONGEST) -> dict[str, str]:
    """What stands for each name in a picture; long ones are shortened, and no two are alike."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for word in dict.fromkeys(words):
        found[word] = next(short for short in _candidates(word, most) if short not in taken)
        taken.add(found[word])
    return found


def _candidates(word: str, most: int) -> Iterator[str]:
    yield label(word, most)
    number = 2
    while True:
        yield f"{label(word, most - 5)} ({number})"
        number += 1


def finish(
    name: str, title: str, subtitle: Sequence[str], chart: alt.TopLevelMixin, data: Mapping[str, Rows]
) -> Picture:
    """Make a picture of a chart whose data have names.

    Args:
        name: a word for it.
        title: what it shows.
        subtitle: lines that say how to read it.
        chart: refers to its data by name.
        data: by that name.
    """
    import altair as alt

    from engine.pictures.theme import CONFIG

    shown = label(title, 120)
    whole = chart.properties(title=alt.TitleParams(shown, subtitle=list(subtitle))).configure(**CONFIG)
    spec = whole.to_dict()
    spec["datasets"] = {key: list(rows) for key, rows in data.items()}
    return Picture(name, shown, spec)


def distinct(values: Iterable[str]) -> list[str]:
    """Each value once, in the order in which they come."""
    return list(dict.fromkeys(values))
