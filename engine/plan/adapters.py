"""Which rows an adapter makes, and on which tensors of a base they depend. Misfits are refused here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from engine.errors import ConfigError
from engine.nouns.adapters import METHODS, Adapter, Module, Saved
from engine.nouns.prefixes import match_names
from engine.nouns.records import Checkpoint, TensorInfo
from engine.plan.limits import Selection
from engine.plan.pairing import by_name

Change = Module | Saved
LACKING = "the base has no such tensor"
"""Why a whole tensor is not compared: a new head, say."""


@dataclass(frozen=True, slots=True)
class Stock:
    """What an adapter changes, on a base or without one.

    Attributes:
        adapter: whose.
        base: what it was made for; None if it is not needed and was not given.
        inventory: the changes as a checkpoint: a tensor for each row that there will be, dW by the name of
            the base's tensor and in its shape, what is only listed by its name in the adapter's file.
        changes: for the ordinals of the inventory that are counted, what makes them; of a module, with the
            shape that the base gives it.
        bases: for those of them that need the base, the ordinal of its tensor.
        places: for those of them that change a tensor of a base that is given, its ordinal.
    """

    adapter: Adapter
    base: Checkpoint | None
    inventory: Checkpoint
    changes: dict[int, Change]
    bases: dict[int, int]
    places: dict[int, int]


def take_stock(adapter: Adapter, base: Checkpoint | None, selection: Selection) -> Stock:
    """Find out which rows an adapter makes.

    Args:
        adapter: what changes weights.
        base: whose weights; only DoRA and whole tensors need it, but if it is given, all must fit.
        selection: which rows, by their names.

    Raises:
        ConfigError: nothing is selected; DoRA has no base; or a module or its shape is not in the base.
    """
    there = by_name(base) if base is not None else {}
    partners = _partners(adapter, there)
    if base is not None:
        _require_fit(adapter, base, there, partners)
    rows: list[TensorInfo] = []
    changes: dict[int, Change] = {}
    bases: dict[int, int] = {}
    places: dict[int, int] = {}
    for change in _changes(adapter):
        ordinal = there.get(partners.get(change.name, "")) if not isinstance(change, int) else None
        info, made = _row(adapter, base, change, ordinal)
        if info.name not in selection:
            continue
        if made is not None:
            changes[len(rows)] = made
            if ordinal is not None:
                places[len(rows)] = ordinal
            if ordinal is not None and needs_base(made):
                bases[len(rows)] = ordinal
        rows.append(info)
    if not rows:
        raise ConfigError(f"no tensor {selection.words()}", file=adapter.uri)
    _require_base(adapter, base, changes)
    return Stock(adapter, base, _inventory(adapter, base if bases else None, rows), changes, bases, places)


def needs_base(change: Change) -> bool:
    """Whether dW depends on the base's weights, and not on the adapter's alone."""
    if isinstance(change, Saved) or change.magnitude is not None:
        return True
    return change.noise is not None and change.noise.form != "gaussian"


def _partners(adapter: Adapter, there: Mapping[str, int]) -> dict[str, str]:
    names = dict.fromkeys([*(m.name for m in adapter.modules), *(s.name for s in adapter.saved)])
    return match_names(list(names), list(there))


def _changes(adapter: Adapter) -> Iterator[Module | Saved | int]:
    """What an adapter changes, and the numbers of its other tensors; in the file's order."""
    first: list[tuple[int, Module | Saved | int]] = []
    for module in adapter.modules:
        first.append((min(module.tensors), module))
    first += [(saved.tensor, saved) for saved in adapter.saved]
    first += [(other.tensor, number) for number, other in enumerate(adapter.others)]
    yield from (change for _, change in sorted(first, key=lambda pair: pair[0]))


def _row(
    adapter: Adapter, base: Checkpoint | None, change: Module | Saved | int, ordinal: int | None
) -> tuple[TensorInfo, Change | None]:
    """The row of a change, and what it is made of; None for one that is only listed."""
    if isinstance(change, int):
        other = adapter.others[change]
        return _listed(adapter.checkpoint.tensors[other.tensor], other.reason), None
    there = base.tensors[ordinal] if base is not None and ordinal is not None else None
    if isinstance(change, Saved):
        own = adapter.checkpoint.tensors[change.tensor]
        why = _why_not_saved(own, there, with_base=base is not None)
        return (
            (_listed(own, why), None) if why else (_difference(change.name, own.shape, adapter.note), change)
        )
    if needs_base(change) and there is not None:
        if not change.is_whole:
            change = replace(change, shape=there.shape)
        if why := _why_no_floats(there):
            return replace(
                _difference(change.name, change.shape, None), reason=f"the base's tensor is {why}"
            ), None
    return _difference(change.name, change.shape, adapter.note), change


def _difference(name: str, shape: tuple[int, ...], note: str | None) -> TensorInfo:
    return TensorInfo(name, "F32", shape, 0, 0, 4 * prod(shape), note=note)


def _listed(tensor: TensorInfo, reason: str) -> TensorInfo:
    return TensorInfo(tensor.name, tensor.dtype, tensor.shape, 0, 0, tensor.nbytes, reason=reason)


def _why_not_saved(own: TensorInfo, there: TensorInfo | None, *, with_base: bool) -> str | None:
    """Why a whole tensor is not compared with the base's."""
    if why := _why_no_floats(own):
        return why
    if not with_base:
        return "a whole tensor: its dW needs the base"
    if there is None:
        return LACKING
    if why := _why_no_floats(there):
        return f"the base's tensor is {why}"
    if own.shape != there.shape:
        return f"shapes differ: {shown(own.shape)} against the base's {shown(there.shape)}"
    return None


def _why_no_floats(tensor: TensorInfo) -> str | None:
    if tensor.reason or tensor.kind.reason:
        return tensor.reason or tensor.kind.reason
    return "codes without factors" if tensor.form == "unscaled" else None


def shown(shape: tuple[int, ...]) -> str:
    """A shape, for messages."""
    return "(" + ", ".join(map(str, shape)) + ")"


def _require_base(adapter: Adapter, base: Checkpoint | None, changes: Mapping[int, Change]) -> None:
    if base is not None or not any(isinstance(c, Module) and needs_base(c) for c in changes.values()):
        return
    made_for = f"; it was made for {adapter.base!r}" if adapter.base else ""
    raise ConfigError(
        f"{METHODS[adapter.method]} needs the base, whose weights its dW depends on: give --base{made_for}",
        file=adapter.uri,
    )


def _require_fit(
    adapter: Adapter, base: Checkpoint, there: Mapping[str, int], partners: Mapping[str, str]
) -> None:
    """Refuse a base that an adapter was not made for."""
    lacking = [m for m in adapter.modules if m.name not in partners]
    if lacking:
        message = (
            f"was not made for {base.uri}: {len(lacking):,} of {len(adapter.modules):,} adapted tensors are "
            "not there, the first of them this"
        )
        raise ConfigError(message, file=adapter.uri, tensor=lacking[0].name)
    shapes = {m.name: base.tensors[there[partners[m.name]]].shape for m in adapter.modules}
    misfits = [m for m in adapter.modules if not _fits(m, shapes[m.name])]
    if misfits:
        first = misfits[0]
        what = f"dW has shape {shown(first.shape)}" if first.is_whole else f"{first.shape[0]:,} magnitudes"
        message = f"{what}, the base's tensor {shown(shapes[first.name])}{_more(misfits)}"
        raise ConfigError(message, file=adapter.uri, tensor=first.name)


def _fits(module: Module, shape: tuple[int, ...]) -> bool:
    if module.is_whole:
        return module.shape == shape
    return len(shape) == 2 and shape[-1 if module.transposed else 0] == module.shape[0]


def _more(misfits: Sequence[Module]) -> str:
    return f" (and {len(misfits) - 1:,} more like it)" if len(misfits) > 1 else ""


def _inventory(adapter: Adapter, base: Checkpoint | None, rows: Sequence[TensorInfo]) -> Checkpoint:
    """The changes as a checkpoint; it depends on a base only if some of them do."""
    identity = f"adapter 1\0{adapter.fingerprint}"
    if base is not None:
        identity += f"\0{base.uri}\0{base.fingerprint}"
    return Checkpoint(
        uri=adapter.uri,
        name=adapter.name,
        format="peft",
        files=(*adapter.checkpoint.files, *(base.files if base is not None else ())),
        tensors=tuple(rows),
        fingerprint=hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest(),
        revision=adapter.revision,
        distant=adapter.checkpoint.distant or (base is not None and base.distant),
    )
