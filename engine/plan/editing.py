"""What becomes of every tensor of a model that is edited, and what must be counted for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.errors import ConfigError, FormatError
from engine.merge_methods.editing import can_stand_in
from engine.nouns.prefixes import match_names
from engine.nouns.records import Checkpoint, TensorInfo
from engine.plan.fates import Fate, is_lost, tie_of
from engine.plan.limits import Selection
from engine.plan.pairing import Match, Pairing, by_name


@dataclass(frozen=True, slots=True)
class Choice:
    """Which tensors are edited.

    Attributes:
        selection: by name.
        matrices: whether, of these, only those of two or more dimensions.
    """

    selection: Selection
    matrices: bool

    def __contains__(self, tensor: TensorInfo) -> bool:
        """Whether a tensor is one of them."""
        return tensor.name in self.selection and (not self.matrices or len(tensor.shape) > 1)

    def words(self) -> str:
        """The same, for messages."""
        return self.selection.words() if self.selection != Selection() else "has two dimensions or more"


def decide_edits(model: Checkpoint, base: Checkpoint | None, choice: Choice) -> list[Fate]:
    """Decide what becomes of every tensor of a model: `merged`, which means edited, `copied` or `refused`.

    What is not chosen is copied without a reason; what is chosen and cannot be edited, with one. Refused is
    only what is no weight.

    Args:
        model: what is edited.
        base: what it is compared with, if anything.
        choice: which tensors.

    Returns:
        in the model's order; the sources are those of the model, and of the base.

    Raises:
        ConfigError: nothing is chosen that could be edited.
        FormatError: something can neither be edited nor copied.
    """
    names = by_name(model)
    theirs = by_name(base) if base is not None else {}
    partners = match_names(list(names), list(theirs)) if base is not None else {}
    fates = []
    for name, ordinal in names.items():
        other = theirs[partners[name]] if name in partners else None
        sources = (ordinal, other) if base is not None else (ordinal,)
        fate = _fate(name, sources, model, choice)
        edited = fate.kind == "merged" and fate.tied is None
        fates.append(_compared(fate, model, base) if edited and base is not None else fate)
    if not any(f.kind == "merged" and f.tied is None for f in fates):
        raise ConfigError(f"no tensor of {len(fates):,} that can be edited {choice.words()}", file=model.uri)
    return fates


def _fate(name: str, sources: tuple[int | None, ...], model: Checkpoint, choice: Choice) -> Fate:
    assert sources[0] is not None
    tensor = model.tensors[sources[0]]
    if tensor.form == "outside":
        return Fate(tensor, "refused", sources, str(tensor.reason))
    written = TensorInfo(name, tensor.dtype, tensor.shape, 0, 0, tensor.nbytes, note=tensor.kind.note)
    tied = tie_of(model, tensor)
    if tied is not None:
        return Fate(written, "merged", sources, tied=tied)
    why = is_lost(model, tensor) or None
    if tensor.form is not None or tensor.scaling is not None:
        why = "quantised weights are not edited; dequantise them first"
    elif tensor.reason is not None and tensor.kind.reason is None:
        why = tensor.reason
    elif tensor.kind.bits % 8:
        why = f"{tensor.dtype} cannot be copied"
    if why is not None:
        raise FormatError(f"cannot be edited: {why}", file=model.uri, tensor=name)
    if written not in choice:
        return Fate(written, "copied", sources)
    if tensor.kind.reason is not None:
        return Fate(written, "copied", sources, tensor.kind.reason)
    return Fate(written, "merged", sources)


def _compared(fate: Fate, model: Checkpoint, base: Checkpoint) -> Fate:
    """What becomes of a tensor with a base."""
    if fate.sources[1] is None:
        return replace(fate, kind="copied", reason=f"{base.uri} has no such tensor")
    other, tensor = base.tensors[fate.sources[1]], fate.tensor
    why = other.reason or other.kind.reason
    if other.scaling is not None:
        why = "quantised weights are not compared; dequantise them first"
    elif other.shape != tensor.shape:
        why = f"shapes differ: {_shape(tensor)} against {_shape(other)} in {base.uri}"
    elif why is None and not can_stand_in(other.kind, tensor.kind):
        why = f"nothing is rounded to {tensor.dtype}, and in {base.uri} it is {other.dtype}"
    if why is not None:
        message = f"cannot be edited: {why}; `--exclude` leaves it as it is"
        raise FormatError(message, file=model.uri, tensor=tensor.name)
    return fate


def alone(model: Checkpoint) -> Pairing:
    """What a scan of a model counts, as if it were a difference: every row is its tensor's own."""
    counted = {i: Match(i, i, t.elements) for i, t in enumerate(model.tensors) if t.coding is not None}
    return Pairing(model, model, model, counted)


def _shape(tensor: TensorInfo) -> str:
    return "(" + ", ".join(map(str, tensor.shape)) + ")"
