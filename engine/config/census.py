"""The configuration of a census."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from engine.config.strict import Strict, load
from engine.nouns.defaults import AHEAD, RANGES, WAREHOUSE
from engine.nouns.sizes import parse_size

_KINDS = ("uri", "glob", "hub", "under", "list")


def _size(value: Any) -> Any:
    try:
        return parse_size(value) if isinstance(value, str) else value
    except OverflowError as error:
        raise ValueError("expected a size, found one beyond all bounds") from error


def _source(value: Any) -> Any:
    return {"uri": value} if isinstance(value, str) else value


def _some(value: Any) -> Any:
    if isinstance(value, tuple) and not value:
        raise ValueError("names no place")
    return value


Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
Place = Annotated[str, Field(min_length=1)]
Patterns = tuple[str, ...]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Part(Strict):
    """A part whose lists may be written as YAML's."""

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}


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


class Tensors(Part):
    """Which tensors of each checkpoint, by shell patterns."""

    include: Patterns = ()
    exclude: Patterns = ()


class Budget(Part):
    """What one checkpoint may take.

    Attributes:
        bytes: a larger one is skipped.
        seconds: one that takes longer is stopped, and goes on next time.
    """

    bytes: Size | None = None
    seconds: Seconds | None = None


class Run(Part):
    """How it is run; the command line says otherwise.

    Attributes:
        ray: `local`, `auto` or an address; None for the threads of one process.
        workers: how many.
        per_gpu: actors on each GPU.
        gpu: whether each actor asks for a GPU; by default if the cluster has some. With `workers`, a cluster
            that grows is made to grow.
        memory: refuse a checkpoint whose plan may take more.
        ranges: requests at once for what is behind a network, of each process.
        task_size: about how much a task reads.
        task_seconds: how long an attempt at a task may take.
        ahead: checkpoints opened before their turn.
    """

    ray: str | None = None
    workers: Annotated[int, Field(gt=0)] | None = None
    per_gpu: Annotated[int, Field(gt=0)] = 1
    gpu: bool | None = None
    memory: Size | None = None
    ranges: Annotated[int, Field(gt=0, le=256)] = RANGES
    task_size: Size | None = None
    task_seconds: Seconds | None = None
    ahead: Annotated[int, Field(gt=0, le=256)] = AHEAD


class CensusConfig(Part):
    """A census.

    Attributes:
        job: what to do; `scan`.
        name: of the census; two of one name never run at once. By default that of the file.
        warehouse: the DuckDB file.
        checkpoints: where they are; a string stands for a `uri`.
        include: shell patterns; only places that match one, of all sources.
        exclude: shell patterns; no places that match one.
        tensors: which tensors of each.
        exact: read 32-bit floats twice.
        force: scan again what has not changed.
        budget: what one checkpoint may take.
        run: how it is run.
        export: where each subject is exported to as Parquet, if anywhere.
    """

    job: Literal["scan"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "census"
    warehouse: Place = WAREHOUSE
    checkpoints: Annotated[tuple[Annotated[Source, BeforeValidator(_source)], ...], BeforeValidator(_some)]
    include: Patterns = ()
    exclude: Patterns = ()
    tensors: Tensors = Tensors()
    exact: bool = False
    force: bool = False
    budget: Budget = Budget()
    run: Run = Run()
    export: Place | None = None


def load_census(path: str | Path) -> CensusConfig:
    """Read the configuration of a census.

    Raises:
        ConfigError: with every fault of it.
    """
    return named(load(path, CensusConfig), path)


def named(config: CensusConfig, path: str | Path) -> CensusConfig:
    """The same, called as its file if it has no name of its own."""
    if "name" in config.model_fields_set:
        return config
    return config.model_copy(update={"name": _name_of(Path(path))})


def _name_of(path: Path) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in path.stem)
    return kept.lstrip("._-")[:100] or "census"
