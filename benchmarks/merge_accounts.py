"""Where two results of one merge differ, element by element, and which step of the rules made each differ."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import merge_rules
import merge_samples
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

import engine
from engine.config.merge import load_merge
from engine.merge_methods.apply import Stored, merge, widen
from engine.merge_methods.registry import METHODS, SCHEMAS, Method
from engine.merge_methods.wholes import measure
from engine.nouns.dtypes import DTYPES, Dtype
from engine.nouns.merging import Stretch
from engine.nouns.names import place

NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
DIGITS = {"F32": (24, -149), "BF16": (8, -133), "F16": (11, -24)}
"""Binary digits of a dtype, and the exponent of its smallest number."""


@dataclass
class Account:
    """Where the elements of one configuration went.

    Attributes:
        elements: in all.
        differ: of them have other bits.
        most: the largest difference, in units of the last place of the result.
        farthest: the largest difference, in units of the last place of the largest input at that element.
        filed: elements that differ, by step.
        reach: as `farthest`, by step.
        unexplained: for which the rules do not give mergekit's bits.
        broken: for which the rules without a step do not give ours.
        right: for how many the merge in float64, rounded once, gives mergekit's bits, and ours.
    """

    elements: int = 0
    differ: int = 0
    most: int = 0
    farthest: float = 0.0
    filed: Counter[str] = field(default_factory=Counter)
    reach: dict[str, float] = field(default_factory=dict)
    unexplained: int = 0
    broken: int = 0
    right: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Merged:
    """A tensor, merged by us.

    Attributes:
        name: of the tensor.
        inputs: the base, if there is one, and the models.
        given: the method's parameters.
        own: what was written.
        right: the definition, computed in float64.
    """

    name: str
    inputs: list[Stored]
    given: dict[str, Any]
    own: Stored
    right: Stored


def read(folder: Path) -> dict[str, Stored]:
    """Every tensor of a model."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            data = tensor.reshape(-1).view(torch.uint8).numpy()
            found[name] = Stored(data, DTYPES[NAMES[tensor.dtype]])
    return found


def ours(path: Path, written: Path) -> Iterator[Merged]:
    """Merge as a configuration says, and go through the tensors with all that belongs to them.

    Args:
        path: the configuration.
        written: the folder to write into, which must not exist; whole tensors are merged in memory beside it.
    """
    engine.merge(path, written, warehouse=written.with_suffix(".duckdb"))
    results, recipe = read(written), load_merge(path, SCHEMAS)
    method = METHODS[recipe.schema.name]
    first = 0 if recipe.base and recipe.schema.base else None
    models = [read(Path(p)) for p in (*([recipe.base] if first == 0 else []), *recipe.models)]
    for name, own in results.items():
        inputs = [m[name] for m in models]
        given = recipe.resolve(name, place(name).layer, merge_samples.LAYERS)
        yield Merged(name, inputs, given, own, _right(method, inputs, given, own.dtype))


def _right(method: Method, inputs: list[Stored], given: dict[str, Any], dtype: Dtype) -> Stored:
    """Merge a whole tensor in float64, and round once."""
    base, models = (inputs[0], inputs[1:]) if method.schema.base else (None, inputs)
    wide = [widen(m, wide=True) for m in models]
    wholes = measure(method, None if base is None else widen(base, wide=True), wide, given)
    out = Stored(np.zeros(inputs[0].size * dtype.bits // 8, np.uint8), dtype)
    merge(method, base, models, out, given | wholes, stretch=Stretch("", 0, 1), wide=True)
    return out


def patterns(block: Stored) -> NDArray[Any]:
    """Bit patterns of stored elements, as whole numbers."""
    whole: NDArray[Any] = block.data.view({16: np.uint16, 32: np.uint32}[block.dtype.bits])
    return whole


def places_apart(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    """How many numbers of the dtype lie between, from patterns; the two zeros are one."""
    top = 1 << (a.dtype.itemsize * 8 - 1)
    places = [np.where(p >= top, top - p, p) for p in (a.astype(np.int64), b.astype(np.int64))]
    return np.abs(places[0] - places[1])


def last_place(values: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    """A unit in the last place of (m,) numbers."""
    digits, least = DIGITS[dtype]
    return np.exp2(np.maximum(np.frexp(values)[1] - digits, least).astype(np.float64))


def account(path: Path, inner: str, merged: Path, written: Path) -> Account:
    """Compare what mergekit has written with what we write.

    Args:
        path: the configuration.
        inner: the dtype that mergekit computes in.
        merged: the folder that mergekit has written.
        written: the folder that we write.
    """
    theirs, found = read(merged), Account()
    method = load_merge(path, SCHEMAS).schema.name
    for one in ours(path, written):
        if one.name not in theirs:
            sys.exit(f"mergekit has not written {one.name}")
        _compare(found, method, one, theirs[one.name], inner)
    return found


def _compare(found: Account, method: str, one: Merged, other: Stored, inner: str) -> None:
    """Add a tensor to an account."""
    if other.dtype != one.own.dtype:
        sys.exit(f"{one.name}: mergekit has written {other.dtype.name}, we have {one.own.dtype.name}")
    own, theirs, right = map(patterns, (one.own, other, one.right))
    differ = own != theirs
    inputs = np.max([np.abs(widen(i)) for i in one.inputs], axis=0)
    apart = np.abs(widen(one.own).astype(np.float64) - widen(other))
    reach = apart / last_place(inputs, other.dtype.name)
    found.elements += own.size
    found.differ += int(differ.sum())
    found.most = max(found.most, int(places_apart(own, theirs).max()))
    found.farthest = max(found.farthest, float(reach.max()))
    found.right = (found.right[0] + int((theirs == right).sum()), found.right[1] + int((own == right).sum()))
    rungs = list(climb(method, one, inner))
    found.broken += int((rungs[0] != own).sum())
    found.unexplained += int((rungs[-1] != theirs).sum())
    moves = [places_apart(a, b) * 2 + (a != b) for a, b in pairwise(rungs)]
    causes = np.argmax(moves, axis=0)
    for k, step in enumerate(merge_rules.LADDERS[method]):
        here = differ & (causes == k)
        if here.any():
            found.filed[step] += int(here.sum())
            found.reach[step] = max(found.reach.get(step, 0.0), float(reach[here].max()))


def climb(method: str, one: Merged, inner: str) -> Iterator[NDArray[Any]]:
    """Patterns of the merged tensor, from our definition to mergekit's, a step more each time."""
    values = [widen(i) for i in one.inputs]
    base, models = (values[0], values[1:]) if METHODS[method].schema.base else (None, values)
    ladder, out = merge_rules.LADDERS[method], one.own.dtype.name
    for count in range(len(ladder) + 1):
        with np.errstate(all="ignore"):
            steps = frozenset(ladder[:count])
            value = merge_rules.restated(method, base, models, one.given, inner, steps)
            value = merge_rules.rounding(inner)(value) if count == len(ladder) else value
            yield value.astype(merge_rules.NUMPY[out]).view(patterns(one.own).dtype)
