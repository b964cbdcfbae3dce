"""`observe`: the weights of a model that is in memory, as a subject like any other."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.device import choosing
from engine.device.live import Observed, observe_all
from engine.errors import ConfigError
from engine.nouns.defaults import WAREHOUSE
from engine.nouns.events import Listener, Placed, ignore
from engine.nouns.records import Checkpoint
from engine.statistics.summary import summarise
from engine.warehouse.ingest import Finished, write_tensors
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import Spec, begin, discard_others, finish

if TYPE_CHECKING:
    from engine.kernels.cuda.tensors import Weights

KIND = "observation"


@dataclass(frozen=True, slots=True)
class ObserveReport:
    """What an observation came to.

    Attributes:
        subject_id: its number in the warehouse.
        name: its name there.
        status: `observed`, or `unchanged` if a subject of this name has the same counts.
        tensors: tensors in the warehouse, those only listed with a reason among them.
        listed: tensors that are not counted.
        nbytes: bytes of the tensors, each storage once.
        seconds: how long it took.
    """

    subject_id: int
    name: str
    status: str
    tensors: int
    listed: int
    nbytes: int
    seconds: float


def observe(
    module: Weights,
    *,
    name: str,
    warehouse: str | Path = WAREHOUSE,
    device: str = "auto",
    listener: Listener = ignore,
) -> ObserveReport:
    """Count the weights of a model as they are now, where they lie, and keep the counts as a subject.

    Its rows are those that a scan of the saved weights would have: of `state_dict()`, with its buffers, tied
    weights once. Codes of 8 bits are counted as codes, whatever lies beside them. Nothing of the model is
    copied as a whole or changed; whoever trains it must not meanwhile.

    Args:
        module: a module of torch, or what its `state_dict()` gives.
        name: of the subject.
        warehouse: the DuckDB file, made when missing.
        device: where weights in the host's memory are counted: `cuda`, or by default on the CPU; those on a
            GPU are counted there.
        listener: told when a GPU's memory does not suffice, and while waiting for a writer.

    Returns:
        what was done.

    Raises:
        ConfigError: a tensor has no values that can be looked at (the meta device, sparse, spread over
            processes), or there is no such device.
        WarehouseError: see `engine.errors`.
    """
    began = time.monotonic()
    if not name:
        raise ConfigError("an observation needs a name")
    choosing.require_known(device)
    host = choosing.place("cuda" if device == "cuda" else "cpu")

    def report(note: str) -> None:
        listener(Placed("observe", note))

    if host.title:
        report(f"counting on {host.title}")
    found = observe_all(module, host=host.name, report=report)
    store = Warehouse(warehouse, listener=listener)
    return keep(found, name, store, spec={}, began=began)


def keep(
    found: Sequence[Observed],
    name: str,
    store: Warehouse,
    *,
    spec: Spec,
    began: float,
    replacing: bool = False,
) -> ObserveReport:
    """Enter what was observed.

    Args:
        found: the tensors.
        name: of the subject.
        store: the warehouse.
        spec: what it is of, beside its name.
        began: when the work began, by the monotonic clock.
        replacing: drop what was entered before by this name and `spec`, if it has other counts.
    """
    source = _as_checkpoint(found, name)
    finished = [
        Finished(i, o.info, o.sketch, None if o.sketch is None else summarise(o.sketch))
        for i, o in enumerate(found)
    ]
    with store.writing() as connection:
        standing = begin(connection, source, name=name, spec=spec, force=False, kind=KIND)
        if not standing.complete:
            write_tensors(connection, standing.subject_id, finished)
            finish(connection, standing.subject_id)
        if replacing:
            discard_others(connection, standing.subject_id)
    return ObserveReport(
        subject_id=standing.subject_id,
        name=standing.name,
        status="unchanged" if standing.complete else "observed",
        tensors=len(found),
        listed=sum(o.sketch is None for o in found),
        nbytes=source.nbytes,
        seconds=time.monotonic() - began,
    )


def _as_checkpoint(found: Sequence[Observed], name: str) -> Checkpoint:
    """Describe what was observed as what the warehouse takes in: a checkpoint without files."""
    digest = hashlib.sha256()
    for observed in found:
        digest.update(repr(observed.info).encode())
        if (sketch := observed.sketch) is not None:
            for array in (sketch.codes, sketch.n, sketch.low_sum, sketch.low_square_sum):
                digest.update(b"" if array is None else array.tobytes())
            digest.update(repr((sketch.zeros, sketch.minimum, sketch.maximum)).encode())
    return Checkpoint(
        uri=f"{KIND}:{name}",
        name=name,
        format="torch",
        files=(),
        tensors=tuple(observed.info for observed in found),
        fingerprint=digest.hexdigest(),
    )
