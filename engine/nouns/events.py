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


Event = (
    Planned
    | TaskStarted
    | TaskDone
    | TaskRetried
    | TaskFailed
    | WorkerJoined
    | WorkerLost
    | NoWorkers
    | Waiting
    | Found
    | Judged
    | Ended
)
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listen to nothing."""
