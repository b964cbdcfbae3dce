"""From a URI to an adapter, whatever its store."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from engine.errors import ConfigError, FormatError
from engine.formats.adapters.keys import Sorted, sort_tensors
from engine.formats.adapters.modules import Assembler
from engine.formats.adapters.settings import Settings, parse_settings
from engine.formats.checkpoint import open_checkpoint, require_sound
from engine.nouns.adapters import Adapter, Module, Other, Saved
from engine.storage import Place, locate, read_whole

SETTINGS = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

_VERSION = "1"  # part of every fingerprint: raise it when dW would come out differently
_MOST_BYTES = 1 << 20


def open_adapter(uri: str) -> Adapter:
    """Read the settings of an adapter and the header of its weights.

    Args:
        uri: a directory with `adapter_config.json` and `adapter_model.safetensors` or `.bin`, or either
            file; a path, or an address of a store, as for `open_checkpoint`.

    Raises:
        ConfigError: there is no adapter, or it may not be read.
        FormatError: settings or weights are damaged, unknown, or contradict each other.
        TaskError: the store does not answer.
    """
    place = locate(uri)
    if place.file in (SETTINGS, *WEIGHTS):
        folder_uri = place.uri.removesuffix(place.file or "").rstrip("/")
        place = replace(place, uri=folder_uri, file=None)
    if place.file is not None:
        raise ConfigError(f"is no adapter: expected a directory with {SETTINGS}", file=place.uri)
    weights = _weights(place)
    file = place.folder.address(SETTINGS)
    raw = read_whole(file, _MOST_BYTES)
    settings = parse_settings(raw, file)
    checkpoint = open_checkpoint(uri, replace(place, file=weights))
    require_sound(checkpoint)
    tensors = tuple(t for t in checkpoint.tensors if t.scaling is None)
    uri_of_weights = checkpoint.files[0].uri
    found = sort_tensors(tensors, uri_of_weights)
    modules, others = _assembled(found, Assembler(settings, tensors, uri_of_weights))
    if not modules and not others and not found.saved:
        raise FormatError("holds no tensor of an adapter", file=uri_of_weights)
    digest = hashlib.sha256(f"{_VERSION}\0{checkpoint.fingerprint}\0".encode() + raw)
    return Adapter(
        uri=checkpoint.uri,
        name=checkpoint.name,
        fingerprint=digest.hexdigest(),
        revision=checkpoint.revision,
        method=_method(settings, modules),
        r=settings.r,
        base=settings.base,
        checkpoint=checkpoint,
        modules=tuple(modules),
        saved=tuple(Saved(name, i) for name, i in found.saved.items()),
        others=tuple(Other(i, others[i]) for i in sorted(others)),
        note=settings.note,
    )


def _assembled(found: Sorted, assembler: Assembler) -> tuple[list[Module], dict[int, str]]:
    """Modules, and the tensors of which no dW is made; whole tensors of adapted modules go there too."""
    modules, others = [], dict(found.others)
    for tensors in found.modules.values():
        made = assembler.module(tensors)
        if not isinstance(made, Module):
            others |= dict.fromkeys(tensors.tensors, made)
            continue
        modules.append(made)
        if made.name in found.saved:
            others[found.saved.pop(made.name)] = "the base's own weight of an adapted module"
    return modules, others


def _weights(place: Place) -> str:
    """The name of the weights' file.

    Raises:
        ConfigError: settings or weights are missing.
    """
    folder = place.folder
    if not folder.has(SETTINGS):
        raise folder.refusal() or ConfigError(f"is no adapter: there is no {SETTINGS}", file=place.uri)
    for name in WEIGHTS:
        if folder.has(name):
            return name
    raise folder.refusal() or ConfigError(f"has no {' and no '.join(WEIGHTS)}", file=place.uri)


def _method(settings: Settings, modules: list[Module]) -> str:
    if settings.own is not None:
        return settings.kind.lower()
    if any(m.dash for m in modules):
        return "lora_dash"
    if settings.dora:
        return "dora"
    return "rslora" if settings.rslora else "lora"
