"""What `adapter_config.json` says, as far as dW depends on it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.errors import FormatError
from engine.formats.adapters.own_settings import OWN_TYPES, Own, read_own
from engine.formats.strict_json import parse_object

TYPES = ("LORA", "DORA")
"""Values of `peft_type` that are known; DORA is that of DoRA's authors."""

_CHANGE_DW = {
    "use_qalora": "QA-LoRA",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "Arrow's routing",
    "kasa_config": "KaSA",
    "lora_use_map": "LoMAP",
    "enable_lora": "adapters of some outputs of merged layers",
}
"""Settings that make of the factors something else than is known here, and what that is called."""

_HARMLESS = frozenset(
    """
    alora_invocation_tokens alpha_pattern auto_mapping base_model_name_or_path bias corda_config dora_simple
    ensure_weight_tying eva_config exclude_modules fan_in_fan_out inference_mode init_lora_weights
    layer_replication layers_pattern layers_to_transform loftq_config lora_alpha lora_bias lora_dropout
    lora_ga_config lora_use_dash lora_use_dash_pattern lora_use_map_pattern megatron_config megatron_core
    merge_weights modules_to_save monteclora_config peft_type peft_version qalora_group_size r rank_pattern
    revision runtime_config target_modules target_modules_to_tie target_parameters task_type
    trainable_token_indices use_dora use_rslora velora_config Wdecompose_target_modules
    """.split()  # noqa: SIM905 - a list of eighty lines says no more
)
"""Settings that are read here, that say how the adapter was trained, or that its tensors tell."""

_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values of `init_lora_weights` that take the first product out of the base's weights."""

_NESTED = re.compile(r"[*+}]\)[*+{]")
_LONGEST = 500


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that matter.

    Attributes:
        file: where they were read.
        kind: `peft_type`.
        r: the rank.
        alpha: `lora_alpha`.
        ranks: exceptions by pattern.
        alphas: likewise.
        dora: whether there are magnitudes.
        rslora: whether the scale is alpha / sqrt r instead of alpha / r (arXiv 2312.03732).
        dash: whether LoRA-Dash is asked for; None if the settings do not tell.
        fan_in_fan_out: whether linear layers are stored in x out.
        parameters: `target_parameters`, adapted tensors that are no module's weight.
        base: name of the base.
        note: what a reader should know about every dW.
        own: what is ours alone; None for PEFT's adapters.
    """

    file: str
    kind: str
    r: int
    alpha: float
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    dora: bool = False
    rslora: bool = False
    dash: bool | None = None
    fan_in_fan_out: bool = False
    parameters: tuple[str, ...] = ()
    base: str = ""
    note: str | None = None
    own: Own | None = None

    def rank_of(self, module: str) -> int:
        """The rank of a module, by its path."""
        return self.ranks.get(_matching(self.ranks, module), self.r)

    def scale_of(self, module: str, rank: int) -> float:
        """What a module's product is multiplied with."""
        alpha = self.alphas.get(_matching(self.alphas, module), self.alpha)
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank


def parse_settings(data: bytes, file: str) -> Settings:
    """Read and check the settings.

    Raises:
        FormatError: they are malformed, contradictory or unknown.
    """
    found = parse_object(data, file=file, what="the file")
    if found.get("peft_type") in OWN_TYPES:
        own, lora = read_own(found, file)
        settings = _Reader(lora, file).settings()
        r = settings.r if "r" in found else 0
        return replace(settings, kind=str(found["peft_type"]), r=r, own=own)
    return _Reader(found, file).settings()


class _Reader:
    def __init__(self, found: Mapping[str, Any], file: str) -> None:
        self._found, self._file = found, file

    def settings(self) -> Settings:
        kind = self._found.get("peft_type")
        if kind not in TYPES:
            known = f"{', '.join((*TYPES, *OWN_TYPES)[:-1])} and {OWN_TYPES[-1]}"
            raise self._refuse(f"peft_type {_shown(kind)} is not known; known are {known}")
        self._refuse_what_is_unknown()
        dash = self._flag("lora_use_dash") if "lora_use_dash" in self._found else None
        dora = kind == "DORA" or self._flag("use_dora")
        if dash and dora:
            raise self._refuse("lora_use_dash and use_dora contradict each other")
        alpha = self._number("lora_alpha", self._found.get("lora_alpha"))
        ranks, alphas = self._patterns("rank_pattern"), self._patterns("alpha_pattern")
        return Settings(
            self._file,
            kind,
            self._rank("r", self._found.get("r")),
            alpha,
            {p: self._rank(f"rank_pattern of {_shown(p)}", v) for p, v in ranks.items()},
            {p: self._number(f"alpha_pattern of {_shown(p)}", v) for p, v in alphas.items()},
            dora,
            self._flag("use_rslora"),
            dash,
            self._flag("fan_in_fan_out"),
            self._parameters(),
            self._text("base_model_name_or_path"),
            self._note(),
        )

    def _refuse(self, message: str) -> FormatError:
        return FormatError(message, file=self._file)

    def _refuse_what_is_unknown(self) -> None:
        for key, value in self._found.items():
            if value in (None, False, "", [], {}) or key in _HARMLESS:
                continue
            what = _CHANGE_DW.get(key)
            if what is not None:
                raise self._refuse(f"the setting {key} is {_shown(value)}, and dW of {what} is not known")
            raise self._refuse(f"the setting {_shown(key)} is not known, and may change dW: {_shown(value)}")

    def _flag(self, key: str) -> bool:
        value = self._found.get(key)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise self._refuse(f"{key} is {_shown(value)}, expected true or false")

    def _rank(self, what: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 31:
            raise self._refuse(f"{what} is {_shown(value)}, expected a rank above 0")
        return value

    def _number(self, what: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
            raise self._refuse(f"{what} is {_shown(value)}, expected a number")
        return float(value)

    def _text(self, key: str) -> str:
        value = self._found.get(key)
        if value is not None and not isinstance(value, str):
            raise self._refuse(f"{key} is {_shown(value)}, expected a text")
        return value or ""

    def _patterns(self, key: str) -> Mapping[str, Any]:
        value = self._found.get(key) or {}
        if not isinstance(value, dict):
            raise self._refuse(f"{key} is {_shown(value)}, expected an object")
        for pattern in value:
            if len(pattern) > _LONGEST or _NESTED.search(pattern):
                raise self._refuse(f"{key}: the pattern {_shown(pattern)} may take for ever to match")
            try:
                re.compile(pattern)
            except (re.error, RecursionError, OverflowError) as error:
                raise self._refuse(f"{key}: {_shown(pattern)} is no regular expression: {error}") from error
        return value

    def _parameters(self) -> tuple[str, ...]:
        value = self._found.get("target_parameters") or []
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self._refuse(f"target_parameters is {_shown(value)}, expected a list of names")
        return tuple(value)

    def _note(self) -> str | None:
        start = self._found.get("init_lora_weights")
        if isinstance(start, str) and start.lower().startswith(_CHANGED_BASE):
            return f"relative to a base that {start} has changed before training"
        return None


def _matching(patterns: Mapping[str, object], module: str) -> str:
    """The first pattern that matches the end of a module's path, PEFT's rule (`get_pattern_key`)."""
    if len(module) > _LONGEST:
        return module
    for pattern in patterns:
        if re.match(rf"(.*\.)?({pattern})$", module):
            return pattern
    return module


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
