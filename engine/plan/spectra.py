"""Which matrices are read a second time for their singular values, each by one task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from engine.nouns.matrices import measured_matrix
from engine.nouns.records import Checkpoint
from engine.nouns.tasks import Task
from engine.plan.cutting import cut_tensor, make_task, spectrum_bytes
from engine.plan.limits import Limits, fit
from engine.plan.scan import scaled_tensors

_EVERYTHING = 1 << 62


def plan_spectra(checkpoint: Checkpoint, ordinals: Iterable[int], limits: Limits) -> tuple[Task, ...]:
    """Make a task of each matrix.

    Args:
        checkpoint: the inventory.
        ordinals: of the matrices.
        limits: as for the first pass.
    """
    wanted = list(ordinals)
    fitted = fit(limits, sum(checkpoint.tensors[i].nbytes for i in wanted), distant=checkpoint.distant)
    scaled = {s.tensor: s for s in scaled_tensors(checkpoint).values()}
    tasks = []
    for key, ordinal in enumerate(wanted):
        info = checkpoint.tensors[ordinal]
        matrix = measured_matrix(info)
        assert matrix is not None
        chunks = [
            replace(c, scaled=scaled.get(ordinal), matrix=None)
            for c in cut_tensor(ordinal, info, (), _EVERYTHING)
        ]
        task = make_task(key, checkpoint, chunks, fitted)
        tasks.append(
            replace(task, spectrum=matrix, projected_bytes=task.projected_bytes + spectrum_bytes(matrix))
        )
    return tuple(tasks)
