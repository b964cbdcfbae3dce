"""The configuration of a report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.config.parts import Job, Place

_NOT_OF_A_REPORT = ("force", "run", "export")


class ReportConfig(Job):
    """A page about subjects that are in the warehouse.

    Attributes:
        job: what to do; `report`.
        subjects: numbers, names, places, or beginnings of names.
        output: the file to write.
    """

    job: Literal["report"]
    subjects: Annotated[tuple[Place, ...], Field(min_length=1)]
    output: Place = "report.html"

    @model_validator(mode="after")
    def _reads_no_weights(self) -> ReportConfig:
        if needless := [key for key in _NOT_OF_A_REPORT if key in self.model_fields_set]:
            raise ValueError(f"{needless[0]}: a report reads no weights and has no such key")
        return self
