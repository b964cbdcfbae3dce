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
class TaskDone:
    """A task ended well."""

    key: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody else holds the warehouse."""

    holder: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A checkpoint is finished, one way or the other."""

    name: str


Event = Planned | TaskDone | Waiting | Ended
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listen to nothing."""
