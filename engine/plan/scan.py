"""From an inventory and a budget to the tasks of a scan. Whatever cannot run is refused here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.errors import BudgetError, ConfigError
from engine.nouns.matrices import measured_matrix, spectrum_matrix
from engine.nouns.records import Checkpoint, Span, TensorInfo
from engine.nouns.tasks import Scaled, Task
from engine.plan.cutting import (
    base_bytes,
    cut_tensors,
    group_chunks,
    process_bytes,
    spectrum_bytes,
    sums_bytes,
    whole_chunks,
)
from engine.plan.limits import MIB, REFINE_BYTES, Fitted, Limits, Selection, fit


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done.

    Attributes:
        tasks: in file order.
        measured: ordinals of the tensors that have counts to make, whether or not they still need reading.
        listed: ordinals of the tensors that only get a row with a reason.
        projected_bytes: memory that the whole may take at its peak.
    """

    tasks: tuple[Task, ...]
    measured: tuple[int, ...]
    listed: tuple[int, ...]
    projected_bytes: int

    @property
    def nbytes(self) -> int:
        """Bytes that will be read."""
        return sum(t.nbytes for t in self.tasks)


def plan_scan(
    checkpoint: Checkpoint,
    selection: Selection,
    limits: Limits,
    covered: Mapping[int, Sequence[Span]],
    *,
    exact: bool = False,
    iid: int | None = None,
) -> Plan:
    """Cut the selected tensors of a checkpoint into tasks.

    Args:
        checkpoint: the inventory.
        selection: which tensors.
        limits: how to cut, and the memory limit.
        covered: for each ordinal the spans of elements that an earlier, interrupted scan has counted.
        exact: whether a second pass over 32-bit floats will follow, which takes more memory.
        iid: None if rows, columns and neighbours are not measured; else the largest smaller side of matrices
            whose singular values are looked at too, 0 for none.

    Raises:
        ConfigError: nothing is selected, or a limit makes no sense.
        BudgetError: it would not fit into the memory limit.
    """
    chosen = _chosen(checkpoint, selection)
    if not chosen and checkpoint.tensors:
        raise ConfigError(
            f"no tensor of {len(checkpoint.tensors):,} {selection.words()}", file=checkpoint.uri
        )
    measured = [i for i in chosen if checkpoint.tensors[i].coding is not None]
    listed = [i for i in chosen if checkpoint.tensors[i].coding is None]
    read = [i for i in measured if checkpoint.tensors[i].scaling is None]  # values come with their codes
    pending = sum(checkpoint.tensors[i].nbytes for i in read)
    fitted = fit(limits, pending, distant=checkpoint.distant)
    scaled = scaled_tensors(checkpoint)
    chunks = [
        replace(c, scaled=scaled[c.tensor]) if c.tensor in scaled else c
        for c in cut_tensors(checkpoint, covered, read, fitted, iid=iid is not None)
    ]
    tasks = tuple(group_chunks(checkpoint, chunks, fitted))
    refined = exact and any(_is_refined(checkpoint.tensors[i]) for i in measured)
    each = max((t.projected_bytes for t in tasks), default=0) + (REFINE_BYTES if refined else 0)
    if iid:
        each = max(each, *(_spectrum_bytes(checkpoint, i, iid) for i in measured), 0)
    each += process_bytes(checkpoint, fitted)
    base = base_bytes(checkpoint, fitted) + (_sums_bytes(checkpoint, measured) if iid is not None else 0)
    projected = base + min(limits.workers, len(tasks)) * each
    if limits.memory_bytes is not None and projected > limits.memory_bytes:
        _refuse(checkpoint, tasks, fitted, projected, base, each)
    return Plan(tasks, tuple(measured), tuple(listed), projected)


def _chosen(checkpoint: Checkpoint, selection: Selection) -> list[int]:
    """Ordinals of the selected tensors; values are selected with their codes."""
    tensors = checkpoint.tensors
    return [
        i for i, t in enumerate(tensors) if (tensors[t.scaling.codes] if t.scaling else t).name in selection
    ]


def scaled_tensors(checkpoint: Checkpoint) -> dict[int, Scaled]:
    """What to do with the chunks of each tensor of codes; files are still those of the checkpoint."""
    found = {}
    for ordinal, tensor in enumerate(checkpoint.tensors):
        if tensor.scaling is not None:
            number, matrix, block = tensor.scaling.factors, tensor.scaling.matrix, tensor.scaling.block
            factors = tuple(whole_chunks(number, checkpoint.tensors[number]))
            found[tensor.scaling.codes] = Scaled(ordinal, matrix, block, factors)
    return found


def plan_refine(
    checkpoint: Checkpoint, codes: Mapping[int, tuple[int, ...]], limits: Limits
) -> tuple[Task, ...]:
    """Cut the tensors of a second pass into tasks.

    Args:
        checkpoint: the inventory.
        codes: for each ordinal the codes to look into.
        limits: as for the first pass.
    """
    pending = sum(checkpoint.tensors[i].nbytes for i in codes)
    fitted = fit(limits, pending, distant=checkpoint.distant)
    scaled = {s.tensor: s for s in scaled_tensors(checkpoint).values()}
    chunks = [
        replace(c, scaled=scaled[c.tensor]) if c.tensor in scaled else c
        for c in cut_tensors(checkpoint, {}, sorted(codes), fitted)
    ]
    return tuple(
        replace(
            t,
            refine={c.tensor: codes[c.tensor] for c in t.chunks},
            projected_bytes=t.projected_bytes + REFINE_BYTES,
        )
        for t in group_chunks(checkpoint, chunks, fitted)
    )


def _sums_bytes(checkpoint: Checkpoint, measured: Sequence[int]) -> int:
    """What the driver keeps of the rows and columns of tensors that are not whole, with the next parts."""
    matrices = (measured_matrix(checkpoint.tensors[i]) for i in measured)
    return 2 * max((sums_bytes(m, m.elements) for m in matrices if m), default=0)


def _spectrum_bytes(checkpoint: Checkpoint, ordinal: int, side: int) -> int:
    matrix = spectrum_matrix(checkpoint.tensors[ordinal], side)
    return spectrum_bytes(matrix) if matrix else 0


def _is_refined(tensor: TensorInfo) -> bool:
    return tensor.coding is not None and not tensor.coding.complete and tensor.elements > 0


def _refuse(
    checkpoint: Checkpoint, tasks: tuple[Task, ...], limits: Fitted, projected: int, base: int, each: int
) -> None:
    message = (
        f"would take {projected / MIB:,.0f} MiB, over the limit of "
        f"{(limits.memory_bytes or 0) / MIB:,.0f} MiB: {base / MIB:,.0f} MiB for the process"
    )
    if tasks:
        worst = max(tasks, key=lambda t: t.projected_bytes)
        message += (
            f", and for each of {min(limits.workers, len(tasks))} workers up to {each / MIB:,.0f} MiB "
            f"(task {worst.key}, which begins with {worst.chunks[0].name!r})"
        )
    raise BudgetError(message, file=checkpoint.uri)
