"""A place that may hold a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import GaussmeterError


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a source of checkpoints names.

    Attributes:
        uri: the place.
        name: the subject's name; None for the usual one.
        nbytes: how large its files are, if that is known without opening them.
        skipped: why it is not to be opened.
        failed: why the source that it stands for could not be looked through.
    """

    uri: str
    name: str | None = None
    nbytes: int | None = None
    skipped: str | None = None
    failed: GaussmeterError | None = None
