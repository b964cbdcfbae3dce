"""`plot`: a picture of what is in the warehouse, as PNG, SVG or a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError, TaskError
from engine.nouns.defaults import WAREHOUSE
from engine.nouns.events import Listener, ignore
from engine.pictures.picture import require_libraries
from engine.pictures.render import FORMS, render
from engine.plan import Selection
from engine.verbs.drawing import PICTURES, How, Subject, draw
from engine.verbs.look import find_subject
from engine.verbs.scores import read_scores
from engine.warehouse.queries import Value, pick_name
from engine.warehouse.rows import Connection, first_row
from engine.warehouse.store import Warehouse

_MOST_BINS = 1000


@dataclass(frozen=True, slots=True)
class PlotReport:
    """A picture that was drawn.

    Attributes:
        path: where it was written.
        picture: which it is.
        title: what stands above it.
        nbytes: of the file.
    """

    path: str
    picture: str
    title: str
    nbytes: int


def plot(
    *subjects: str | int,
    picture: str | None = None,
    output: str | Path | None = None,
    log: bool = False,
    bins: int | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    scores: str | Path | None = None,
    scale: float | None = None,
    warehouse: str | Path = WAREHOUSE,
    listener: Listener = ignore,
) -> PlotReport:
    """Draw a picture from the counts; nothing else is read.

    Args:
        subjects: numbers, names, places, or beginnings of names.
        picture: `histograms` by layer and module, `overlay` of two subjects, `sigma` by depth, `kurtosis` and
            `ratio` by layer and role, `iid` likewise, `scores` against sigma, `simulation`, or `learning`
            curves of runs. By default the histograms of one subject, the overlay of two, sigma of more.
        output: a file that ends in .png, .svg or .html; by default a PNG in the working directory.
        log: histograms on a logarithmic axis.
        bins: of each histogram; 81 by default, and 49 where there are many.
        include: shell patterns; only histograms of tensors whose name matches one.
        exclude: shell patterns; none of tensors whose name matches one.
        scores: CSV with the columns `subject` and `score`, for `scores`; else those of runs.
        scale: pixels of a PNG for each point; 2 by default, and less for large pictures.
        warehouse: the DuckDB file.
        listener: told while waiting for a writer.

    Raises:
        ConfigError: no such subject, picture, form or warehouse, or nothing to draw.
        TaskError: the file cannot be written.
        WarehouseError: see `engine.errors`.
    """
    if bins is not None and not 1 <= bins <= _MOST_BINS:
        raise ConfigError(f"a histogram has 1 to {_MOST_BINS:,} bins, not {bins:,}")
    if scale is not None and not 0.1 <= scale <= 10:
        raise ConfigError(f"a scale lies between 0.1 and 10, not at {scale}")
    form = _form(output)
    if picture is not None:
        pick_name(picture, PICTURES, "picture")
    require_libraries()
    with Warehouse(warehouse, listener=listener).reading() as connection:
        found = [look_up(connection, wanted) for wanted in subjects]
        which = picture or _usual(found)
        given: dict[str, Value] = {}
        if scores is not None:
            if which != "scores":
                raise ConfigError(f"the picture {which} has nothing to do with scores")
            given["scores"] = read_scores(scores, lambda wanted: find_subject(connection, wanted))
        how = How(Selection(tuple(include), tuple(exclude)), bins, log, given)
        drawn = draw(connection, which, found, how)
    path = Path(output) if output is not None else Path(_file_name(found, which))
    data = render(drawn, form, scale=scale)
    write_file(path, data)
    return PlotReport(str(path), which, drawn.title, len(data))


def look_up(connection: Connection, wanted: str | int) -> Subject:
    """Find a subject; errors as for `find_subject`."""
    number = find_subject(connection, str(wanted))
    row = first_row(connection, "SELECT name, kind FROM subjects WHERE subject_id = ?", [number])
    assert row is not None
    return Subject(number, *row)


def write_file(path: Path, data: bytes) -> None:
    """Write a file.

    Raises:
        TaskError: it cannot be written.
    """
    try:
        path.write_bytes(data)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TaskError(f"cannot be written: {reason}", file=str(path)[:300]) from error


def _form(output: str | Path | None) -> str:
    if output is None:
        return FORMS[0]
    form = str(output).lower().rpartition(".")[2]
    if form not in FORMS:
        raise ConfigError(f"a picture's file ends in .{', .'.join(FORMS)}", file=str(output)[:300])
    return form


def _usual(subjects: Sequence[Subject]) -> str:
    if not subjects:
        raise ConfigError("which subject? only the pictures scores and learning can do without")
    if len(subjects) == 1:
        return "simulation" if subjects[0].kind == "simulation" else "histograms"
    return "overlay" if len(subjects) == 2 else "sigma"


def _file_name(subjects: Sequence[Subject], picture: str) -> str:
    words = [re.sub(r"[^A-Za-z0-9._-]+", "-", s.name).strip("-.")[:40] for s in subjects[:3]]
    return "-".join([*filter(None, words), picture]) + ".png"
