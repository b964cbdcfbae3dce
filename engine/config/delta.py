"""The configuration of a delta."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from engine.config.parts import CountingJob, Place


class DeltaConfig(CountingJob):
    """Differences of one base and what was tuned from it: checkpoints, or adapters.

    Attributes:
        job: what to do; `delta`.
        base: the checkpoint that was tuned; adapters that need no base may do without.
        tuned: checkpoints.
        adapters: folders of adapters in PEFT's format.
        strict: refuse if anything cannot be compared.
    """

    job: Literal["delta"]
    base: Place | None = None
    tuned: tuple[Place, ...] = ()
    adapters: tuple[Place, ...] = ()
    strict: bool = False

    @model_validator(mode="after")
    def _either(self) -> DeltaConfig:
        if bool(self.tuned) == bool(self.adapters):
            raise ValueError("expected exactly one of tuned, adapters")
        if self.tuned and self.base is None:
            raise ValueError("base: is missing")
        return self
