"""What the configurations of all jobs have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from engine.config.strict import Strict
from engine.nouns.defaults import AHEAD, RANGES, WAREHOUSE
from engine.nouns.sizes import parse_size


def _size(value: Any) -> Any:
    try:
        return parse_size(value) if isinstance(value, str) else value
    except OverflowError as error:
        raise ValueError("expected a size, found one beyond all bounds") from error


Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
Place = Annotated[str, Field(min_length=1)]
Patterns = tuple[str, ...]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Device = Literal["auto", "cpu", "cuda"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Part(Strict):
    """A part whose lists may be written as YAML's."""

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}


class Tensors(Part):
    """Which tensors of each checkpoint, by shell patterns."""

    include: Patterns = ()
    exclude: Patterns = ()


class Run(Part):
    """How it is run; the command line says otherwise.

    Attributes:
        ray: `local`, `auto` or an address; None for the threads of one process.
        workers: how many.
        device: where each counts: `cpu`, `cuda`, or `auto`, which takes a GPU that it sees.
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
    device: Device = "auto"
    per_gpu: Annotated[int, Field(gt=0)] = 1
    gpu: bool | None = None
    memory: Size | None = None
    ranges: Annotated[int, Field(gt=0, le=256)] = RANGES
    task_size: Size | None = None
    task_seconds: Seconds | None = None
    ahead: Annotated[int, Field(gt=0, le=256)] = AHEAD


class Job(Part):
    """What every job says.

    Attributes:
        name: of the job; two of one name never run at once. By default that of the file.
        warehouse: the DuckDB file.
        force: do again what has not changed.
        run: how it is run.
        export: where each subject is exported to as Parquet, if anywhere.
    """

    name: Name = "census"
    warehouse: Place = WAREHOUSE
    force: bool = False
    run: Run = Run()
    export: Place | None = None


class CountingJob(Job):
    """What every job says that counts what is there.

    Attributes:
        tensors: which tensors of each checkpoint.
        exact: read 32-bit floats twice.
    """

    tensors: Tensors = Tensors()
    exact: bool = False


AnyJob = TypeVar("AnyJob", bound=Part)


def named(config: AnyJob, path: str | Path) -> AnyJob:
    """The same, called as its file if it has no name of its own."""
    if "name" in config.model_fields_set:
        return config
    return config.model_copy(update={"name": _name_of(Path(path))})


def _name_of(path: Path) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in path.stem)
    return kept.lstrip("._-")[:100] or "census"
