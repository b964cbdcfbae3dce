"""The configuration of a job that merges; what is merged is read by `engine.config.merge`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import PlainValidator, model_validator

from engine.config.parts import Job, Place, Size


def _recipe(value: Any) -> Any:
    if not value or not isinstance(value, (dict, str)):
        raise ValueError("expected mergekit's keys and values, or the path of a file with them")
    return value


class MergeConfig(Job):
    """A merge of several models into one, or of an adapter into its base.

    Attributes:
        job: what to do; `merge`.
        merge: what is merged and how: mergekit's keys, or the path of a file with them, relative to the
            folder of this one.
        adapter: the folder of an adapter, in place of `merge`.
        base: the model that the adapter changes; by default the one that it names.
        out: the directory of the merged model; all machines must see the same.
        shard_size: how much of the weights a file holds at most.
    """

    job: Literal["merge"]
    merge: Annotated[str | dict[str, Any] | None, PlainValidator(_recipe)] = None
    adapter: Place | None = None
    base: Place | None = None
    out: Place
    shard_size: Size | None = None

    @model_validator(mode="after")
    def _either(self) -> MergeConfig:
        if (self.merge is None) == (self.adapter is None):
            raise ValueError("expected exactly one of merge, adapter")
        if self.base is not None and self.adapter is None:
            raise ValueError("base: goes with adapter; under merge it is base_model")
        if self.run.device == "cuda":
            raise ValueError("run.device: a merge has none: it reads and writes, and counts on the way")
        return self
