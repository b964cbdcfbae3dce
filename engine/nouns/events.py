"""What happens during a run, as values. The driver emits them; whoever listens prints, draws or logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Planned:
    """A checkpoint is about to be read."""

    name: str
    tensors: int
    tasks: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """A task was handed to a worker."""

    key: int
    worker: str
    attempt: int


@dataclass(frozen=True, slots=True)
class TaskDone:
    """A task ended well."""

    key: int
    nbytes: int
    name: str = ""
    worker: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskRetried:
    """A task is given to somebody else: its worker was lost, failed or takes too long."""

    key: int
    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """A task failed for good."""

    key: int
    name: str
    error: str


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker is ready.

    Attributes:
        worker: its name.
        node: its machine.
        pid: its process there.
        gpus: the devices that it sees, as CUDA_VISIBLE_DEVICES names them; "" for none.
    """

    worker: str
    node: str
    pid: int
    gpus: str


@dataclass(frozen=True, slots=True)
class Placed:
    """A worker counts on a GPU, or does so no longer as it was meant to.

    Attributes:
        worker: its name.
        text: such as `counting on NVIDIA H100`, or that the GPU's memory does not suffice and what follows.
    """

    worker: str
    text: str


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker is gone: its process or its node died, or it did not answer."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class NoWorkers:
    """No worker has come yet, after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody else holds the warehouse."""

    holder: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Found:
    """A census came upon checkpoints.

    Attributes:
        checkpoints: so many more than before.
    """

    checkpoints: int


@dataclass(frozen=True, slots=True)
class Judged:
    """A census is done with a checkpoint.

    Attributes:
        uri: where it is.
        status: `scanned`, `resumed`, `unchanged`, `skipped`, `refused` or `failed`.
        reason: why it was skipped or refused.
    """

    uri: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A checkpoint is finished, one way or the other."""

    name: str


@dataclass(frozen=True, slots=True)
class RunBegun:
    """An adaptation run begins, or goes on after its worker was lost.

    Attributes:
        name: of the run.
        step: updates that it has made.
        updates: how many it will make.
        pid: process of its first worker.
    """

    name: str
    step: int
    updates: int
    pid: int


@dataclass(frozen=True, slots=True)
class RunStepped:
    """Something was measured of an adaptation run.

    Attributes:
        name: of the run.
        step: after which update.
        metrics: by name.
    """

    name: str
    step: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class RunEnded:
    """An adaptation run is over.

    Attributes:
        name: of the run.
        status: `trained`, `resumed` or `failed`.
        score: in per cent; None without one.
        reason: why it failed.
    """

    name: str
    status: str
    score: float | None
    reason: str


Event = (
    Planned
    | TaskStarted
    | TaskDone
    | TaskRetried
    | TaskFailed
    | WorkerJoined
    | Placed
    | WorkerLost
    | NoWorkers
    | Waiting
    | Found
    | Judged
    | Ended
    | RunBegun
    | RunStepped
    | RunEnded
)
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listen to nothing."""
