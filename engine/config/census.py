"""The configuration of a census."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from engine.config.parts import CountingJob, Part, Patterns, Place, Seconds, Size, named
from engine.config.strict import load

_KINDS = ("uri", "glob", "hub", "under", "list")


def _source(value: Any) -> Any:
    return {"uri": value} if isinstance(value, str) else value


def _some(value: Any) -> Any:
    if isinstance(value, tuple) and not value:
        raise ValueError("names no place")
    return value


class Source(Part):
    """Where checkpoints are: exactly one of `uri`, `glob`, `hub`, `under` and `list`.

    Attributes:
        uri: one checkpoint.
        glob: local files and folders, by a pattern; `**` stands for any depth.
        hub: an organisation of the Hub, or a user.
        under: every checkpoint at or below a folder or a bucket's prefix.
        list: a file with one place a line, beside the configuration.
        name: the subject's name, of a `uri`.
        include: shell patterns; only places that match one.
        exclude: shell patterns; no places that match one.
        newest: of a `hub`, only so many, the last modified.
    """

    uri: Place | None = None
    glob: Place | None = None
    hub: Place | None = None
    under: Place | None = None
    list: Place | None = None
    name: str | None = None
    include: Patterns = ()
    exclude: Patterns = ()
    newest: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Source:
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"expected exactly one of {', '.join(_KINDS)}, found {found}")
        if self.name is not None and self.uri is None:
            raise ValueError(f"name: only one checkpoint has a name, not a {given[0]}")
        if self.newest is not None and self.hub is None:
            raise ValueError(f"newest: only a hub knows what is new, not a {given[0]}")
        return self


class Budget(Part):
    """What one checkpoint may take.

    Attributes:
        bytes: a larger one is skipped.
        seconds: one that takes longer is stopped, and goes on next time.
    """

    bytes: Size | None = None
    seconds: Seconds | None = None


class CensusConfig(CountingJob):
    """A census.

    Attributes:
        job: what to do; `scan`.
        checkpoints: where they are; a string stands for a `uri`.
        include: shell patterns; only places that match one, of all sources.
        exclude: shell patterns; no places that match one.
        budget: what one checkpoint may take.
        iid: look at rows, columns and neighbours too.
        spectrum_side: look at singular values too, of matrices whose smaller side is at most this; 0 for
            none.
    """

    job: Literal["scan"]
    checkpoints: Annotated[tuple[Annotated[Source, BeforeValidator(_source)], ...], BeforeValidator(_some)]
    include: Patterns = ()
    exclude: Patterns = ()
    budget: Budget = Budget()
    iid: bool = False
    spectrum_side: Annotated[int, Field(ge=0)] = 0


def load_census(path: str | Path) -> CensusConfig:
    """Read the configuration of a census.

    Raises:
        ConfigError: with every fault of it.
    """
    return named(load(path, CensusConfig), path)
