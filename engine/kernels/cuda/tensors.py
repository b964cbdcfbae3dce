"""What a torch tensor is to the engine: a dtype by safetensors' spelling, and bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import torch
from numpy.typing import NDArray
from torch import nn

Tensor: TypeAlias = torch.Tensor
Weights: TypeAlias = nn.Module | Mapping[str, Any]
"""A model, or what its `state_dict` gives."""

NAMES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
}
"""The dtypes that are counted, by safetensors' spelling."""

_OTHERS = {
    torch.bool: "BOOL",
    torch.complex64: "C64",
    torch.complex128: "C128",
    torch.complex32: "C32",
    **{
        getattr(torch, f"{sign}int{bits}"): f"{letter}{bits}"
        for sign, letter in (("", "I"), ("u", "U"))
        for bits in (8, 16, 32, 64)
    },
    **{
        getattr(torch, name): spelling
        for name, spelling in (("float8_e8m0fnu", "F8_E8M0"), ("float4_e2m1fn_x2", "F4"))
        if hasattr(torch, name)
    },
}

_BLOCK = 1 << 22  # elements that `narrow` gets at once


def name_of(tensor: torch.Tensor) -> str:
    """Safetensors' spelling of a tensor's dtype.

    Raises:
        ValueError: it is not counted.
    """
    if tensor.dtype not in NAMES:
        raise ValueError(f"{str(tensor.dtype).removeprefix('torch.')} is not counted")
    return NAMES[tensor.dtype]


def spelling_of(tensor: torch.Tensor) -> str:
    """Safetensors' spelling of any dtype, `OTHER` where it has none."""
    return NAMES.get(tensor.dtype) or _OTHERS.get(tensor.dtype, "OTHER")


def named(weights: Weights) -> Iterator[tuple[str, Any]]:
    """The entries of a model's state, what modules keep there beside tensors left out."""
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    return ((name, value) for name, value in state.items() if not str(name).endswith("_extra_state"))


def flaw_of(value: Any) -> str | None:
    """Why the elements of an entry cannot be looked at; None when they can."""
    if not isinstance(value, torch.Tensor):
        return f"is no tensor but a {type(value).__name__}"
    if hasattr(value, "full_tensor"):
        return "is spread over several processes: give it whole"
    if value.is_meta:
        return "is on the meta device: it has a shape and no values"
    if value.layout != torch.strided or value.is_quantized:
        return "is sparse or quantised: its elements do not lie side by side"
    return None


def identity_of(tensor: torch.Tensor) -> tuple[Any, ...] | None:
    """Two tensors of one identity are the same elements, perhaps in another order; None for no elements."""
    if not tensor.numel():
        return None
    place = str(tensor.device), tensor.data_ptr(), tensor.dtype
    steps = sorted((step, size) for step, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1)
    expected = 1
    for step, size in steps:
        if step != expected:
            return *place, tuple(tensor.shape), tensor.stride()
        expected *= size
    return *place, tensor.numel()


def on_device_of(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Let Triton launch where a tensor lies, whatever the current GPU is; nothing for the CPU's."""
    cuda: Any = torch.cuda  # untyped in part
    guard: AbstractContextManager[object] = cuda.device_of(tensor)
    return guard


def is_on_gpu(tensor: torch.Tensor) -> bool:
    """Whether a tensor lies in a GPU's memory."""
    return tensor.device.type == "cuda"


def to_device(values: NDArray[Any], device: str) -> torch.Tensor:
    """Copy an array to a device."""
    return torch.from_numpy(values).to(device)


def flat_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The elements of a tensor in C order, (bytes,) uint8; copied only if they do not lie so."""
    if not tensor.numel():
        return torch.empty(0, dtype=torch.uint8, device=tensor.device)
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def bytes_in_any_order(tensor: torch.Tensor) -> torch.Tensor:
    """The elements in the order in which they lie, (bytes,) uint8; a transposed matrix is not copied."""
    by_stride = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return flat_bytes(tensor.permute(by_stride))


def brought(
    tensor: torch.Tensor, tried: Callable[[Callable[[], torch.Tensor]], torch.Tensor | None]
) -> Iterator[NDArray[Any]]:
    """The elements in the host's memory, (bytes,) uint8, in parts that their device has room to put in order.

    Args:
        tensor: on any device.
        tried: as `engine.kernels.cuda.claims.tried`.
    """
    found = tried(lambda: bytes_in_any_order(tensor).cpu())
    if found is not None:
        yield found.numpy()
    elif tensor.dim() and len(tensor) > 1:
        for half in tensor.tensor_split(2):
            yield from brought(half, tried)
    elif tensor.dim():
        yield from brought(tensor[0], tried)
    else:
        raise torch.OutOfMemoryError(f"no memory left on {tensor.device} for a single element")


def parts(data: torch.Tensor, width: int, narrowed: bool) -> list[torch.Tensor]:
    """Cut elements into parts that `narrow` can work on; one part if nothing is to be narrowed.

    Args:
        data: (bytes,) uint8.
        width: bytes of an element.
        narrowed: whether these elements, or others in step with them, are float64.

    Returns:
        views; float64 is rounded to float32.
    """
    if not narrowed:
        return [data]
    return [narrow(part) if width == 8 else part for part in torch.split(data, _BLOCK * width)]


def narrow(data: torch.Tensor) -> torch.Tensor:
    """Round (bytes,) uint8 of float64 to those of float32, by the rule of `engine.sketch.as_f32_patterns`."""
    wide = data.view(torch.float64)
    bits = data.view(
        torch.int64
    )  # a NaN keeps its sign and the top of its payload, whatever a device makes of it
    quiet = bits >> 32 & 0x80000000 | 0x7FC00000 | bits >> 29 & 0x3FFFFF
    out = torch.where(wide.isnan(), quiet.to(torch.int32).view(torch.float32), wide.float())
    limits = torch.finfo(torch.float32)
    beyond = (out.isinf() & ~wide.isinf()) | ((out == 0) & (wide != 0))
    tiny = torch.full_like(out, limits.smallest_normal * limits.eps)
    nearest = torch.where(wide.abs() > 1, torch.full_like(out, limits.max), tiny)
    return torch.where(beyond, torch.copysign(nearest, wide.float()), out).view(torch.uint8)
