"""Tensors of torch, sketched where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.device.counter import Report, warn
from engine.nouns.dtypes import DTYPES
from engine.sketch import Counter, Sketch, from_totals

if TYPE_CHECKING:
    from engine.kernels.cuda.tensors import Tensor


def observe(tensor: Tensor, report: Report = warn) -> Sketch:
    """Sketch a torch tensor of a counted dtype, whatever its shape, on the GPU if it lies there.

    Args:
        tensor: of any device.
        report: is told when the GPU's memory does not suffice, and the CPU counts.

    Raises:
        ValueError: its dtype is not counted.
    """
    from engine.kernels.cuda import claims, tensors

    dtype = DTYPES[tensors.name_of(tensor)]
    tally = None
    if tensor.device.type == "cuda":
        tally = claims.tally(dtype.bits, str(tensor.device))
        if tally is None:
            report(f"no memory left on {tensor.device}: {dtype.name} is counted on the CPU")
    data = tensors.bytes_in_any_order(tensor)
    if tally is None or dtype.coding is None:
        on_cpu = Counter(dtype)
        on_cpu.add(data.cpu().numpy())
        return on_cpu.sketch()
    for part in tensors.parts(data, dtype.bits // 8, dtype.bits == 64):
        tally.add(part)
    return from_totals(dtype.coding, *tally.take())
