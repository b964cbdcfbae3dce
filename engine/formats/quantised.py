"""Quantised weights: which tensors are codes, which are their factors, and which are packed beyond counting.

8-bit floats with a factor a block, a row or a tensor (DeepSeek-V3's `weight_scale_inv`, the `weight_scale` of
compressed-tensors and ModelOpt, the exponents of MXFP8) get a second tensor beside the codes, of the
values. Packed formats are listed with a reason: GPTQ, AWQ, MXFP4, NVFP4, bitsandbytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from engine.nouns.dtypes import DTYPES
from engine.nouns.records import DEQUANTISED, Scaling, TensorInfo

BLOCK = 128
"""Rows and columns that share a factor in DeepSeek-V3."""

_SCALE_SUFFIXES = ("_scale_inv", "_scale")
_EXPONENTS = ("U8", "F8_E8M0")
Sides = tuple[int, int]
Named = Mapping[str, TensorInfo]


def mark_quantised(tensors: Sequence[TensorInfo]) -> tuple[TensorInfo, ...]:
    """Say of every tensor what it is, and append the dequantised ones.

    Args:
        tensors: of a whole checkpoint, in their order, which is kept.
    """
    named = {t.name: t for t in tensors}
    marks = _packed(named)
    ordinals = {t.name: i for i, t in enumerate(tensors)}
    values = []
    for tensor in tensors:
        factors = _factors_of(tensor, named)
        if factors is None:
            continue
        layout = _layout(tensor, factors)
        marks[factors.name] = replace(factors, form="factors")
        why = _hindrance(tensor, factors, layout, named)
        if layout is None or why:
            marks[tensor.name] = replace(tensor, form="unscaled", note=f"not dequantised: {why}")
            continue
        marks[tensor.name] = replace(tensor, form="codes")
        matrix, block = layout
        scaling = Scaling(ordinals[tensor.name], ordinals[factors.name], matrix, block)
        name = tensor.name + DEQUANTISED
        note = f"{tensor.dtype} x {factors.dtype} by blocks of {block[0]} x {block[1]}"
        values.append(replace(tensor, name=name, form="dequantised", note=note, scaling=scaling))
    return (*(marks.get(t.name, t) for t in tensors), *values)


def _hindrance(
    codes: TensorInfo, factors: TensorInfo, layout: tuple[Sides, Sides] | None, named: Named
) -> str | None:
    """Why the values of a tensor of codes are not counted."""
    if layout is None:
        return "its factors do not fit its shape"
    if not codes.ordered or not factors.ordered:
        return "its rows are not stored whole"
    if codes.name + DEQUANTISED in named:
        return "another tensor has the name of its values"
    return None


def _factors_of(tensor: TensorInfo, named: Named) -> TensorInfo | None:
    """The factors of a tensor of 8-bit floats."""
    if not tensor.dtype.startswith("F8_") or tensor.coding is None or not tensor.shape or not tensor.elements:
        return None
    stems = [tensor.name + suffix for suffix in _SCALE_SUFFIXES]
    if tensor.name.endswith(".weight"):
        stems.append(tensor.name.removesuffix("weight") + "scale")
    for stem in stems:
        found = named.get(stem)
        if found is not None and _can_scale(found):
            return found
    return None


def _can_scale(tensor: TensorInfo) -> bool:
    return tensor.alias_of is None and (tensor.coding is not None or tensor.dtype in _EXPONENTS)


def _layout(codes: TensorInfo, factors: TensorInfo) -> tuple[Sides, Sides] | None:
    """Sides of a matrix, and of the block that shares a factor; None when the shapes do not fit."""
    shape = codes.shape if len(codes.shape) > 1 else (1, *codes.shape)
    rows, columns = shape[-2:]
    if factors.elements == 1:
        whole = prod(shape[:-1]), columns
        return whole, whole
    scale = factors.shape
    if len(scale) == 1 and len(shape) == 2 and scale[0] == rows:
        return (rows, columns), (1, columns)
    if len(scale) != len(shape) or scale[:-2] != shape[:-2]:
        return None
    down, across = _side(rows, scale[-2]), _side(columns, scale[-1])
    return ((rows, columns), (down, across)) if down and across else None


def _side(size: int, factors: int) -> int | None:
    if factors == 1:
        return size
    if -(-size // BLOCK) == factors:
        return BLOCK
    return size // factors if factors and size % factors == 0 else None


def _packed(named: Named) -> dict[str, TensorInfo]:
    """Tensors that belong to a packed format, each with a reason or a form."""
    marks: dict[str, TensorInfo] = {}

    def listed(name: str, reason: str) -> None:
        if name in named and DTYPES[named[name].dtype].coding is None:
            marks[name] = replace(named[name], reason=reason)

    def factors(name: str) -> None:
        if name in named:
            marks[name] = replace(named[name], form="factors")

    for name, tensor in named.items():
        stem, _, last = name.rpartition(".")
        base = f"{stem}." if stem else ""
        if last == "qweight" and tensor.dtype == "I32":
            kind = "GPTQ" if f"{base}g_idx" in named else "AWQ"
            listed(name, f"packed integers ({kind})")
            listed(f"{base}qzeros", f"packed zero points ({kind})")
            listed(f"{base}g_idx", "group numbers (GPTQ)")
            factors(f"{base}scales")
        elif name.endswith("_blocks") and tensor.dtype == "U8":
            scales = name.removesuffix("_blocks") + "_scales"
            if scales in named:
                listed(name, "packed 4-bit floats (MXFP4)")
                listed(scales, "exponents of blocks (MXFP4)")
        elif last == "weight_packed":
            kind = _packing(base, named, tensor)
            listed(name, f"packed {kind}")
            factors(f"{base}weight_scale")
            factors(f"{base}weight_global_scale")
            listed(f"{base}weight_scale", f"exponents of blocks: {kind}")
            listed(f"{base}weight_shape", f"shape of packed {kind}")
        elif f"{name}_scale_2" in named and tensor.dtype == "U8":
            listed(name, "packed 4-bit floats (NVFP4)")
            factors(f"{name}_scale")
            factors(f"{name}_scale_2")
        elif f"{name}.absmax" in named or (f"{base}SCB" in named and last == "weight"):
            listed(name, "packed by bitsandbytes")
            factors(f"{name}.absmax")
            factors(f"{base}SCB")
    return marks


def _packing(base: str, named: Named, tensor: TensorInfo) -> str:
    if f"{base}weight_global_scale" in named:
        return "4-bit floats (NVFP4)"
    if tensor.dtype == "U8":
        return "4-bit floats (MXFP4)"
    return "integers (compressed-tensors)"
