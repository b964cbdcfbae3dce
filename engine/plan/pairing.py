"""Which tensors of two checkpoints are subtracted from each other, and why others are not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

from engine.errors import ConfigError, FormatError
from engine.nouns.names import place
from engine.nouns.prefixes import match_names
from engine.nouns.records import DEQUANTISED, Checkpoint, TensorInfo
from engine.plan.limits import Selection

_VOCABULARY = ("embedding", "head")
_LEAST_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Match:
    """Two tensors whose elements are subtracted.

    Attributes:
        base: ordinal in the base.
        tuned: ordinal in the tuned checkpoint.
        elements: how many of the first elements both have.
    """

    base: int
    tuned: int
    elements: int


@dataclass(frozen=True, slots=True)
class Pairing:
    """What a difference of two checkpoints consists of.

    Attributes:
        base: from which is subtracted.
        tuned: what is measured against it.
        inventory: the difference as a checkpoint: a tensor for each row that it will have.
        matches: for the ordinals of the inventory that are counted, what they are made of.
    """

    base: Checkpoint
    tuned: Checkpoint
    inventory: Checkpoint
    matches: dict[int, Match]


Row = tuple[TensorInfo, Match | None]
"""What a difference says of a tensor, and what it is made of."""


def pair(base: Checkpoint, tuned: Checkpoint, selection: Selection, *, strict: bool = False) -> Pairing:
    """Pair the tensors of two checkpoints by name, known wrappers stripped.

    Args:
        base: the one that was tuned.
        tuned: what came of it.
        selection: which tensors, by the base's names, or the tuned one's that the base lacks.
        strict: refuse what cannot be compared.

    Raises:
        FormatError: they do not belong together, or `strict` and something cannot be compared.
        ConfigError: nothing is selected.
    """
    every = list(_rows(base, tuned))
    _require_kinship(base, tuned, every)
    chosen = [(info, match) for info, match in every if info.name in selection]
    if not chosen and every:
        raise ConfigError(f"no tensor of {len(every):,} {selection.words()}", file=tuned.uri)
    if strict:
        _require_all(base, tuned, chosen)
    matches = {row: match for row, (_, match) in enumerate(chosen) if match is not None}
    return Pairing(base, tuned, _inventory(base, tuned, [info for info, _ in chosen]), matches)


def _rows(base: Checkpoint, tuned: Checkpoint) -> Iterator[Row]:
    ours, theirs = by_name(base), by_name(tuned)
    partners = match_names(list(ours), list(theirs))
    for name, ordinal in ours.items():
        if name not in partners:
            yield _listed(name, base.tensors[ordinal], "the tuned checkpoint has no such tensor"), None
            continue
        other = theirs.pop(partners[name])
        yield from _compared(name, base, ordinal, tuned, other)
    for name, ordinal in theirs.items():
        yield _listed(name, tuned.tensors[ordinal], "the base has no such tensor"), None


def by_name(checkpoint: Checkpoint) -> dict[str, int]:
    """Ordinals by name; of quantised weights those of the values, under the weights' own name."""
    plain = {
        t.name: i
        for i, t in enumerate(checkpoint.tensors)
        if t.form not in ("codes", "factors", "dequantised")
    }
    for ordinal, tensor in enumerate(checkpoint.tensors):
        if tensor.scaling is not None:
            plain[tensor.name.removesuffix(DEQUANTISED)] = ordinal
    return dict(sorted(plain.items(), key=lambda item: item[1]))


def _compared(name: str, base: Checkpoint, ours: int, tuned: Checkpoint, theirs: int) -> Iterator[Row]:
    a, b = base.tensors[ours], tuned.tensors[theirs]
    why = _why_not(a) or _why_not(b)
    if why is not None:
        yield _listed(name, a, why), None
    elif a.alias_of is not None and b.alias_of is not None:
        yield replace(_difference(name, a, b, a.shape), alias_of=a.alias_of), None
    elif a.shape == b.shape:
        yield _difference(name, a, b, a.shape), Match(ours, theirs, a.elements)
    elif _is_vocabulary(name, a, b):
        rows = min(a.shape[0], b.shape[0])
        shape = (rows, *a.shape[1:])
        yield _difference(name, a, b, shape), Match(ours, theirs, prod(shape))
        more, owner = (b, "the base") if b.shape[0] > rows else (a, "the tuned checkpoint")
        extra = replace(more, shape=(more.shape[0] - rows, *more.shape[1:]))
        lacking = f"{owner} has only {rows:,} rows"
        yield _listed(f"{name}[{rows}:{more.shape[0]}]", extra, lacking), None
    else:
        yield _listed(name, b, f"shapes differ: {_shape(b)} against the base's {_shape(a)}"), None


def _why_not(tensor: TensorInfo) -> str | None:
    """Why a tensor has no values to subtract."""
    return tensor.reason or tensor.kind.reason


def _is_vocabulary(name: str, a: TensorInfo, b: TensorInfo) -> bool:
    """Whether rows were added to one of two tables with a row for each token."""
    return bool(a.shape) and a.shape[1:] == b.shape[1:] and place(name).role in _VOCABULARY


def _shape(tensor: TensorInfo) -> str:
    return "(" + ", ".join(map(str, tensor.shape)) + ")"


def _difference(name: str, a: TensorInfo, b: TensorInfo, shape: tuple[int, ...]) -> TensorInfo:
    notes = [] if a.dtype == b.dtype else [f"{b.dtype} - {a.dtype}"]
    notes += dict.fromkeys(n for t in (a, b) if (n := t.kind.note))
    if a.shape != b.shape:
        notes.append(f"the {shape[0]:,} rows that both have")
    return TensorInfo(name, "F32", shape, 0, 0, 4 * prod(shape), note="; ".join(notes) or None)


def _listed(name: str, tensor: TensorInfo, reason: str) -> TensorInfo:
    return TensorInfo(name, tensor.dtype, tensor.shape, 0, 0, tensor.nbytes, reason=reason)


def _inventory(base: Checkpoint, tuned: Checkpoint, rows: Sequence[TensorInfo]) -> Checkpoint:
    identity = f"delta 1\0{base.uri}\0{base.fingerprint}\0{tuned.uri}\0{tuned.fingerprint}"
    return Checkpoint(
        uri=f"{tuned.uri} - {base.uri}",
        name=f"{tuned.name}-minus-{base.name}",
        format="delta",
        files=(*base.files, *tuned.files),
        tensors=tuple(rows),
        fingerprint=hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest(),
        distant=base.distant or tuned.distant,
    )


def _require_kinship(base: Checkpoint, tuned: Checkpoint, rows: Sequence[Row]) -> None:
    """Refuse two models of which one is not made of the other."""
    common = sum(match.elements for _, match in rows if match is not None)
    smaller = min(_countable(base), _countable(tuned))
    if common >= _LEAST_SHARE * smaller:
        return
    matched = sum(match is not None for _, match in rows)
    message = (
        f"is not tuned from {base.uri}: {matched:,} of {len(rows):,} tensors, "
        f"{common / smaller:.1%} of the elements, can be compared; {_example(rows)}"
    )
    raise FormatError(message, file=tuned.uri)


def _require_all(base: Checkpoint, tuned: Checkpoint, rows: Sequence[Row]) -> None:
    """Refuse if anything cannot be compared."""
    left_out = [info for info, match in rows if match is None and info.alias_of is None]
    if left_out:
        message = (
            f"cannot be compared with {base.uri} as a whole: {len(left_out):,} of {len(rows):,} tensors "
            f"cannot be; {_example(rows)}"
        )
        raise FormatError(message, file=tuned.uri)


def _example(rows: Sequence[Row]) -> str:
    first = next(info for info, match in rows if match is None and info.alias_of is None)
    return f"the first that cannot be: {first.name!r}: {first.why}"


def _countable(checkpoint: Checkpoint) -> int:
    return sum(t.elements for t in checkpoint.tensors if t.coding is not None and t.form != "codes")
