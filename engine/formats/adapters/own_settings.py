"""`adapter_config.json` of what `gaussmeter tune` learns beyond LoRA and DoRA, which PEFT saves.

PEFT refuses these `peft_type`s, so that nobody loads half of an adapter by mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.errors import FormatError

PARTS_OF = {
    "NOISE": ("noise",),
    "FULL_GAUSSIAN": ("noise",),
    "SVDIFF": ("dash_weights", "dash_left", "dash_right"),
    "LORA_NOISE": ("a", "b", "noise"),
    "HEAD": (),
}
"""What every module of such an adapter has, in the words of `keys.PARTS`."""
OWN_TYPES = tuple(PARTS_OF)
FORMAT = 1

_COMMON = ("peft_type", "format", "base_model_name_or_path", "base_revision", "task_type")
_NOISE = ("noise", "seed", "shapes")
_LORA = ("r", "lora_alpha", "lora_dropout", "fan_in_fan_out")
_KEYS = {
    "NOISE": (*_COMMON, *_NOISE),
    "FULL_GAUSSIAN": (*_COMMON, *_NOISE),
    "SVDIFF": _COMMON,
    "LORA_NOISE": (*_COMMON, *_NOISE, *_LORA),
    "HEAD": _COMMON,
}
_FORMS = {
    "NOISE": ("gaussian", "weights"),
    "LORA_NOISE": ("gaussian", "weights"),
    "FULL_GAUSSIAN": ("replaced",),
}


@dataclass(frozen=True, slots=True)
class Own:
    """Settings that only our adapters have.

    Attributes:
        noise: one of `engine.nouns.adapters.NOISES`; "" for adapters without a scalar.
        seed: of the noise.
        shapes: of each weight that has a scalar, as the base stores it.
    """

    noise: str = ""
    seed: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def read_own(found: Mapping[str, Any], file: str) -> tuple[Own, dict[str, Any]]:
    """Read and check the settings of an adapter of ours.

    Args:
        found: the file's contents; its `peft_type` is one of ours.
        file: for messages.

    Returns:
        what is ours, and the same adapter's settings as LoRA's.

    Raises:
        FormatError: a key is missing, unknown, or says what it may not.
    """
    kind = found["peft_type"]
    for key in found:
        if key not in _KEYS[kind]:
            raise FormatError(f"the setting {key!r} is not known in an adapter of {kind}", file=file)
    for key in ("format", *(k for k in _KEYS[kind] if k not in _COMMON and k != "lora_dropout")):
        if key not in found:
            raise FormatError(f"an adapter of {kind} must say {key}", file=file)
    if found["format"] != FORMAT or isinstance(found["format"], bool):
        raise FormatError(f"format is {found['format']!r}, known is {FORMAT}", file=file)
    lora = {key: found[key] for key in ("base_model_name_or_path", *_LORA) if key in found}
    lora = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, **lora}
    return (_noise(found, kind, file) if kind in _FORMS else Own()), lora


def _noise(found: Mapping[str, Any], kind: str, file: str) -> Own:
    noise, seed, shapes = found["noise"], found["seed"], found["shapes"]
    if noise not in _FORMS[kind]:
        raise FormatError(f"noise is {noise!r}, expected {' or '.join(_FORMS[kind])}", file=file)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise FormatError(f"seed is {seed!r}, expected a whole number", file=file)
    if not isinstance(shapes, dict):
        raise FormatError("shapes is no object", file=file)
    for name, shape in shapes.items():
        sizes = shape if isinstance(shape, list) and len(shape) == 2 else [None]
        if not all(isinstance(s, int) and not isinstance(s, bool) and 0 < s < 1 << 40 for s in sizes):
            raise FormatError(f"shapes: {name[:100]!r} has {shape!r}, expected two sizes above 0", file=file)
    return Own(noise, seed, {name: tuple(shape) for name, shape in shapes.items()})
