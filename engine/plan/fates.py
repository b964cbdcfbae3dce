"""What becomes of every tensor of the models that are merged: merged, copied or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from engine.errors import FormatError
from engine.merge_methods.apply import OUTPUTS
from engine.nouns.names import place
from engine.nouns.prefixes import match_names
from engine.nouns.records import Checkpoint, TensorInfo
from engine.plan.pairing import by_name
from engine.plan.rows import RowMap

_VOCABULARY = ("embedding", "head")


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a tensor.

    Attributes:
        tensor: as it will be written; of a refused one as it is.
        kind: `merged`, `copied` or `refused`.
        reason: why it is not merged.
        sources: its ordinal in each operand, the first being the one whose names are kept; None where an
            operand does not have it.
        rows: which rows of the operands are one token's; None where rows are not moved.
        tied: the tensor that it is stored with, in all operands, and that is written in its stead.
    """

    tensor: TensorInfo
    kind: str
    sources: tuple[int | None, ...]
    reason: str = ""
    rows: RowMap | None = None
    tied: str | None = None


def decide(
    operands: Sequence[Checkpoint],
    models: Sequence[int],
    *,
    dtype: str | None,
    wide: bool,
    rows: RowMap | None = None,
    tables: Sequence[int] = (),
) -> list[Fate]:
    """Decide what becomes of every tensor.

    What the first operand has and no model, is copied; so is what is no float. What only a model has is
    refused, which means left out; and so is what is no weight.

    Args:
        operands: the first gives the names.
        models: numbers of those that are merged; others than the first are all of them models.
        dtype: what is written, None for what the first operand has.
        wide: whether it is computed in float64.
        rows: which rows of embeddings and heads are one token's, where vocabularies differ.
        tables: how many rows for tokens each operand has.

    Returns:
        the first operand's tensors in its order, then the models' that it lacks.

    Raises:
        FormatError: something of the first operand can neither be merged nor copied.
    """
    first, *others = operands
    names = by_name(first)
    theirs = [by_name(c) for c in others]
    partners = [match_names(list(names), list(own)) for own in theirs]
    decider = _Decider(operands, tuple(models), dtype, wide, rows, tuple(tables))
    fates = []
    for name, ordinal in names.items():
        found = [own[p[name]] if name in p else None for own, p in zip(theirs, partners, strict=True)]
        fates.append(decider.decide(name, (ordinal, *found)))
    left = [f for f in fates if f.kind == "refused" and f.tensor.form != "outside"]
    if left:
        message = (
            f"cannot be merged: {len(left):,} of {len(fates):,} tensors cannot be, "
            f"the first of them {left[0].tensor.name!r}: {left[0].reason}"
        )
        raise FormatError(message, file=first.uri)
    for number, (own, partner) in enumerate(zip(theirs, partners, strict=True), 1):
        taken = set(partner.values())
        extra = [ordinal for name, ordinal in own.items() if name not in taken]
        fates += (_extra(operands, number, ordinal) for ordinal in extra)
    return fates


def _extra(operands: Sequence[Checkpoint], number: int, ordinal: int) -> Fate:
    tensor = operands[number].tensors[ordinal]
    sources = tuple(ordinal if n == number else None for n in range(len(operands)))
    return Fate(tensor, "refused", sources, f"{operands[number].uri} has it, {operands[0].uri} does not")


def tie_of(checkpoint: Checkpoint, tensor: TensorInfo) -> str | None:
    """The tensor of which another one is but a second name.

    None for one that has the same elements in another order or shape, as the transposed has: without bytes of
    its own, nobody could tell what it was.
    """
    if tensor.alias_of is None:
        return None
    of = next((t for t in checkpoint.tensors if t.name == tensor.alias_of), None)
    same = of is not None and (of.shape, of.stored) == (tensor.shape, tensor.stored)
    return tensor.alias_of if same else None


def is_lost(checkpoint: Checkpoint, tensor: TensorInfo) -> str:
    """Why the elements of an alias cannot be read; "" if they can."""
    unknown = checkpoint.format == "zarr" and tensor.alias_of is not None and not tensor.pieces
    if not unknown or not tensor.elements or tie_of(checkpoint, tensor):
        return ""
    return f"has it as {tensor.alias_of!r} in another form, and does not say in which order"


@dataclass(frozen=True, slots=True)
class _Decider:
    operands: Sequence[Checkpoint]
    models: tuple[int, ...]
    dtype: str | None
    wide: bool
    rows: RowMap | None
    tables: tuple[int, ...]

    def decide(self, name: str, sources: tuple[int | None, ...]) -> Fate:
        tensors = [
            None if ordinal is None else checkpoint.tensors[ordinal]
            for checkpoint, ordinal in zip(self.operands, sources, strict=True)
        ]
        first = tensors[0]
        assert first is not None
        there = [t for t in tensors if t is not None]
        ties = [tie_of(c, t) for c, t in zip(self.operands, tensors, strict=True) if t is not None]
        if None not in ties:
            return Fate(_written(name, first, first.dtype, first.shape), "merged", sources, tied=ties[0])
        if first.form == "outside":
            return _refused(first, sources, str(first.reason))
        own = tensors[1:]
        if own and not any(own) and 0 not in self.models:
            return self._copied(name, first, sources, "no model has it")
        for checkpoint, tensor in zip(self.operands, tensors, strict=True):
            if tensor is not None and (lost := is_lost(checkpoint, tensor)):
                return _refused(first, sources, f"{checkpoint.uri}: {lost}")
        why = next((w for t in there if (w := _why_not(t)) is not None), None)
        if why is not None:
            fits = all(t.shape == first.shape for t in there)
            return self._copied(name, first, sources, why) if fits else _refused(first, sources, why)
        for number, tensor in enumerate(tensors):
            if tensor is None:
                lacking = f"{self.operands[number].uri} has no such tensor"
                return _refused(first, sources, lacking)
        return self._merged(name, there, sources)

    def _merged(self, name: str, tensors: Sequence[TensorInfo], sources: tuple[int | None, ...]) -> Fate:
        first = tensors[0]
        dtype = self.dtype or first.dtype
        if dtype not in OUTPUTS or (dtype == "F64" and not self.wide):
            hint = "`dtype: float64` computes in it" if dtype == "F64" else "`dtype: bfloat16` writes another"
            return _refused(first, sources, f"{dtype} is not written; {hint}")
        rows, shape = None, first.shape
        if self.rows is not None and self._has_tokens(name, tensors):
            rows, shape = self.rows, (self.rows.rows, *first.shape[1:])
            if not all(t.ordered and all(p.plain for p in t.stored) for t in tensors):
                return _refused(first, sources, "its rows cannot be read one by one, as it is stored")
        else:
            for number, tensor in enumerate(tensors):
                if tensor.shape != shape:
                    theirs, ours = _shape(tensor.shape), _shape(shape)
                    where = self.operands[number].uri
                    return _refused(first, sources, f"shapes differ: {theirs} in {where} against {ours}")
        return Fate(_written(name, first, dtype, shape), "merged", sources, rows=rows)

    def _has_tokens(self, name: str, tensors: Sequence[TensorInfo]) -> bool:
        """Whether it has a row for each token."""
        return (
            place(name).role in _VOCABULARY
            and len({t.shape[1:] for t in tensors}) == 1
            and [t.shape[:1] for t in tensors] == [(rows,) for rows in self.tables]
        )

    def _copied(self, name: str, first: TensorInfo, sources: tuple[int | None, ...], why: str) -> Fate:
        if first.form in ("codes", "factors", "dequantised", "unscaled") or first.scaling is not None:
            return _refused(first, sources, "quantised weights are not merged; dequantise them first")
        if first.kind.bits % 8:
            return _refused(first, sources, f"{first.dtype} cannot be copied")
        if first.reason is not None and first.kind.reason is None:
            return _refused(first, sources, first.reason)
        return Fate(_written(name, first, first.dtype, first.shape), "copied", sources, why)


def _why_not(tensor: TensorInfo) -> str | None:
    if tensor.scaling is not None:
        return "quantised weights are not merged; dequantise them first"
    return tensor.reason or tensor.kind.reason


def _refused(tensor: TensorInfo, sources: tuple[int | None, ...], why: str) -> Fate:
    return Fate(tensor, "refused", sources, why)


def _written(name: str, tensor: TensorInfo, dtype: str, shape: tuple[int, ...]) -> TensorInfo:
    made = TensorInfo(name, dtype, shape, 0, 0, 0)
    nbytes = made.kind.nbytes(prod(shape))
    assert nbytes is not None
    note = tensor.kind.note if dtype == tensor.dtype else None
    return TensorInfo(name, dtype, shape, 0, 0, nbytes, note=note)


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def counts(fates: Sequence[Fate]) -> Mapping[str, int]:
    """How many tensors end in each way."""
    return {kind: sum(f.kind == kind for f in fates) for kind in ("merged", "copied", "refused")}
