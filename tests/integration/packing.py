"""Packed checkpoints: what they must hold, and how they are read back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

import engine
from engine.formats.zarr.array import LOGICAL, TENSOR_NAME
from engine.nouns.dtypes import DTYPES, SAFETENSORS
from tests.builders import Tensors, raw
from tests.integration.distant import counts
from tests.integration.helpers import normal
from tests.zarr_stores import LOGICAL_NAMES

Truth = Mapping[str, tuple[str, tuple[int, ...], bytes]]
"""By name: dtype, shape and bytes."""

KEPT = [d for d in DTYPES if d not in ("F4", "F6_E2M3", "F6_E3M2", "C32", "OTHER")]


def tensors(seed: int = 0) -> Tensors:
    found = {f"layers.{k}.weight": normal("BF16", 12, 20, seed=seed + k) for k in range(8)}
    return found | {"odd/name": normal("F32", 9, seed=seed), "nothing": ("F32", np.zeros((0, 4), "<u4"))}


def truth(tensors: Tensors) -> Truth:
    return {name: (dtype, data.shape, raw(data).tobytes()) for name, (dtype, data) in tensors.items()}


def of_every_dtype() -> dict[str, tuple[str, NDArray[Any]]]:
    """Every one of safetensors; random bits, so that there are payloads in NaNs."""
    found = {}
    for number, name in enumerate(d for d in KEPT if d in SAFETENSORS):
        item = DTYPES[name].bits // 8
        bits = np.random.default_rng(number).integers(
            0, 2 if name == "BOOL" else 256, (5, 7 * item), np.uint8
        )
        found[f"a.{name}"] = name, bits.view(f"V{item}")
    return found | {
        "model.norm": normal("BF16", 9),
        "scalar": normal("F32"),
        "nothing": ("F16", np.zeros((0, 3), "<u2")),
    }


def read_back(place: Any) -> Truth:
    """What zarr itself finds in a pack."""
    if str(place).endswith(".zip"):
        with zarr.storage.ZipStore(place, mode="r") as store:
            return _read(zarr.open_group(store, mode="r"))
    return _read(zarr.open_group(place, mode="r", use_consolidated=False))


def _read(group: Any) -> Truth:
    native = {"bool": "BOOL", "complex64": "C64", "complex128": "C128"}
    found = {}
    for path, array in group.arrays():
        name = str(array.dtype)
        short = native.get(name, name[0].upper() + name.lstrip("abcdefghijklmnopqrstuvwxyz"))
        word = array.attrs.get(LOGICAL)
        dtype = {v: k for k, v in LOGICAL_NAMES.items()}[word] if word else short
        data = np.ascontiguousarray(array[...]).tobytes()
        found[array.attrs.get(TENSOR_NAME, path)] = dtype, array.shape, data
    return found


def assert_same_counts(one: str | Path, other: str | Path, folder: Path, **options: Any) -> None:
    """Every column of every tensor, alias, bin and filter."""
    left, right = counts(one, folder, **options), counts(other, folder, **options)
    assert sorted(left) == sorted(right)
    for by_name in (left, right):
        for kept in by_name.values():
            del kept.row["ordinal"]
    assert left == right


def files(folder: Path) -> dict[str, str]:
    """A digest of every file below a folder."""
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def packed(uri: str | Path, out: str | Path, **options: Any) -> engine.PackReport:
    report = engine.pack(uri, out, **({"workers": 1} | options))
    assert report.status == "packed"
    return report
