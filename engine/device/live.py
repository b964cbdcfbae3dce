"""Tensors of torch, sketched where they lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.device.counter import Report, make_counter, warn
from engine.errors import ConfigError
from engine.nouns.dtypes import DTYPES
from engine.nouns.records import TensorInfo
from engine.sketch import Sketch, from_totals

if TYPE_CHECKING:
    from engine.kernels.cuda.tensors import Tensor, Weights


@dataclass(frozen=True, slots=True)
class Observed:
    """A tensor as it was at a moment.

    Attributes:
        info: what it is; its place in a file means nothing.
        sketch: its counts, None where it is not counted.
    """

    info: TensorInfo
    sketch: Sketch | None


def observe_all(weights: Weights, *, host: str = "cpu", report: Report = warn) -> tuple[Observed, ...]:
    """Sketch the weights of a model, each where it lies.

    Tensors that are the same elements are counted once, as in a checkpoint of torch; what is no float is
    listed with its reason.

    Args:
        weights: a model, or its `state_dict`; nothing of it is changed.
        host: where tensors in the host's memory are counted: `cpu`, or a GPU's name.
        report: is told when a GPU's memory does not suffice.

    Raises:
        ConfigError: an entry has no elements that could be looked at.
    """
    from engine.kernels.cuda import tensors

    found: list[Observed] = []
    first: dict[Any, str] = {}
    for name, value in tensors.named(weights):
        if flaw := tensors.flaw_of(value):
            raise ConfigError(flaw, tensor=str(name))
        info = _info(str(name), value)
        key = tensors.identity_of(value) if info.coding is not None else None
        if key is not None and first.setdefault(key, info.name) != info.name:
            info = replace(info, alias_of=first[key])
        sketch = None if info.coding is None else observe(value, host=host, report=report)
        found.append(Observed(info, sketch))
    return tuple(found)


def _info(name: str, tensor: Tensor) -> TensorInfo:
    from engine.kernels.cuda import tensors

    shape, dtype = tuple(tensor.shape), DTYPES[tensors.spelling_of(tensor)]
    if dtype.name == "F4" and shape:  # torch counts two packed floats of 4 bits as one
        shape = (*shape[:-1], 2 * shape[-1])
    return TensorInfo(name, dtype.name, shape, 0, 0, tensor.numel() * tensor.element_size())


def observe(tensor: Tensor, *, host: str = "cpu", report: Report = warn) -> Sketch:
    """Sketch a torch tensor of a counted dtype, whatever its shape, on the GPU if it lies there.

    Args:
        tensor: of any device.
        host: where a tensor in the host's memory is counted: `cpu`, or a GPU's name.
        report: is told when a GPU's memory does not suffice, and the CPU counts.

    Raises:
        ValueError: its dtype is not counted.
    """
    from engine.kernels.cuda import claims, tensors

    dtype = DTYPES[tensors.name_of(tensor)]
    if tensors.is_on_gpu(tensor):
        found = claims.tried(lambda: observe_there(tensor))
        if found is not None:
            return found
        report(f"no memory left on {tensor.device}: {dtype.name} is counted on the CPU")
        host = "cpu"
    counter = make_counter(dtype, host, report=report)
    for part in tensors.brought(tensor, claims.tried):
        counter.add(part)
    return counter.sketch()


def observe_there(tensor: Tensor) -> Sketch:
    """Sketch a tensor of a counted dtype by the loops for GPUs, where it lies.

    Raises:
        ValueError: its dtype is not counted, or no such loop runs there.
        OutOfMemoryError: the GPU's memory does not suffice.
    """
    from engine.kernels.cuda import claims, tensors

    dtype = DTYPES[tensors.name_of(tensor)]
    assert dtype.coding is not None
    tally = claims.new_tally(dtype.bits, tensor.device)
    data = tensors.bytes_in_any_order(tensor)
    for part in tensors.parts(data, dtype.bits // 8, dtype.bits == 64):
        tally.add(part)
    return from_totals(dtype.coding, *tally.take())
