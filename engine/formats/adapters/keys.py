"""From the names of an adapter's tensors to the modules that they belong to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.errors import FormatError
from engine.nouns.records import TensorInfo

WRAPPER = "base_model.model."
"""What PEFT puts before the names of the model that it wraps."""

PARTS = {
    "lora_A": "a",
    "lora_B": "b",
    "lora_embedding_A": "embedding_a",
    "lora_embedding_B": "embedding_b",
    "lora_magnitude_vector": "magnitude",
    "weight_m_wdecomp": "magnitude",
    "lora_index": "dash_weights",
    "lora_w_u": "dash_left",
    "lora_w_vt": "dash_right",
    "svdiff_left": "dash_left",
    "svdiff_shift": "dash_weights",
    "svdiff_right": "dash_right",
    "noise_scale": "noise",
}
"""Parts of an adapted module by their names in files: PEFT's, those of other methods' authors, and ours."""

_PART = re.compile(
    rf"(?P<module>.+?)\.(?P<part>{'|'.join(PARTS)}|lora_\w+)(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?"
    r"(?P<leaf>\.weight|\.bias)?",
    re.DOTALL,
)
_SAVED = re.compile(r"\.modules_to_save(?:\.default)?(?=\.)")
_LONGEST = 2000

_REASONS = {
    ".original_module.": "the base's own weight, beside what was trained",
    ".base_layer.": "the base's own weight of an adapted module",
    "trainable_tokens": "trained rows of an embedding",
}
"""What a part of a name says of tensors of which no dW is made."""


@dataclass(slots=True)
class Found:
    """The tensors of one adapted module.

    Attributes:
        name: its path.
        parts: ordinal of each part, by the values of `PARTS`.
        unknown: ordinals of parts that are not known, by their names.
        tensors: all ordinals.
    """

    name: str
    parts: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    tensors: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Sorted:
    """The tensors of an adapter, sorted.

    Attributes:
        modules: adapted modules by their path.
        saved: ordinals of whole tensors, by the name of the base's.
        others: ordinals of the rest, with the reason.
    """

    modules: dict[str, Found] = field(default_factory=dict)
    saved: dict[str, int] = field(default_factory=dict)
    others: dict[int, str] = field(default_factory=dict)


def sort_tensors(tensors: Sequence[TensorInfo], uri: str) -> Sorted:
    """Find out what each tensor of an adapter's file is.

    Raises:
        FormatError: two tensors are the same part, or there are several adapters.
    """
    found = Sorted()
    adapters: dict[str, str] = {}
    for ordinal, tensor in enumerate(tensors):
        name = tensor.name.removeprefix(WRAPPER)
        match = _PART.fullmatch(name) if len(name) < _LONGEST else None
        if match is None:
            _sort_whole(found, ordinal, name)
            continue
        adapters.setdefault(match["adapter"] or "", tensor.name)
        if len(adapters) > 1:
            names = " and ".join(repr(n) if n else "one without a name" for n in adapters)
            raise FormatError(f"holds several adapters: {names}", file=uri, tensor=tensor.name)
        _sort_part(found, ordinal, match, tensor, uri)
    return found


def _sort_part(found: Sorted, ordinal: int, match: re.Match[str], tensor: TensorInfo, uri: str) -> None:
    if match["leaf"] == ".bias":
        found.others[ordinal] = "a bias of the adapter"
        return
    module = found.modules.setdefault(match["module"], Found(match["module"]))
    module.tensors.append(ordinal)
    part = PARTS.get(match["part"])
    if part is None:
        module.unknown[match["part"]] = ordinal
        return
    if part in module.parts:
        raise FormatError(f"is a second {match['part']} of its module", file=uri, tensor=tensor.name)
    module.parts[part] = ordinal


def _sort_whole(found: Sorted, ordinal: int, name: str) -> None:
    for sign, reason in _REASONS.items():
        if sign in name:
            found.others[ordinal] = reason
            return
    name = _SAVED.sub("", name)
    if name in found.saved:
        found.others[ordinal] = f"another tensor is {name!r} too"
    else:
        found.saved[name] = ordinal
