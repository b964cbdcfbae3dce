"""What of a folder is the checkpoint: its format and the files that belong to it."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass

from engine.errors import ConfigError, FormatError
from engine.formats.marks import METADATA, ROOT, ZIP_MAGIC
from engine.storage import Folder, Place, open_reader, read_bytes

INDEX = ".index.json"
TORCH_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt")
_BESIDE = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|trainer_state).*")
"""What training programs write beside the weights in files that look the same."""
SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)$")
_USUAL = (
    "model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin",
    ROOT, METADATA, "adapter_model.safetensors", "adapter_model.bin",
)  # fmt: skip
"""What to ask a server for that lists nothing, in this order."""


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint's format and files.

    Attributes:
        format: `safetensors`, `torch`, `zarr` or `distcp`.
        index: file name of the index, if there is one.
        files: file names, where there is none; empty for a folder that is the checkpoint as a whole.
    """

    format: str
    index: str | None = None
    files: tuple[str, ...] = ()


def is_weights(name: str) -> bool:
    """Whether a file is weights, or an index of them, as far as its name tells."""
    lower = name.lower()
    known = _by_name(name) is not None or lower.endswith((*TORCH_SUFFIXES, ".zarr.zip"))
    return known and not name.startswith(".") and not _BESIDE.match(name)


def looks_like_checkpoint(names: Iterable[str]) -> bool:
    """Whether files that lie side by side are a checkpoint, as far as their names tell."""
    return any((is_weights(n) and not n.endswith(".zarr.zip")) or n == METADATA for n in names)


def owns_what_is_below(names: Container[str]) -> bool:
    """Whether the folders below such files belong to the same checkpoint."""
    return ROOT in names or METADATA in names


def discover(place: Place) -> Found:
    """Find out what a place holds.

    Raises:
        ConfigError: no checkpoint, or several.
        FormatError: a shard is missing.
    """
    if place.file is not None:
        return _by_name(place.file) or _by_content(place.folder, place.file)
    names = place.folder.names() or _ask(place.folder)
    found = _in_folder(place.folder, names)
    if found is None:
        if (refusal := place.folder.refusal()) is not None:
            raise refusal
        raise ConfigError(
            f"has no *.safetensors file and no index of one, no torch file ({', '.join(TORCH_SUFFIXES)}), no "
            f"{ROOT} and no {METADATA}",
            file=place.uri,
        )
    _check_all_shards(place.folder, found.files)
    return found


def _ask(folder: Folder) -> tuple[str, ...]:
    return tuple(name for name in _USUAL if folder.has(name))


def _by_name(name: str) -> Found | None:
    lower = name.lower()
    if lower.endswith(f".safetensors{INDEX}"):
        return Found("safetensors", index=name)
    if lower.endswith(tuple(f"{s}{INDEX}" for s in TORCH_SUFFIXES)):
        return Found("torch", index=name)
    if lower.endswith(".safetensors"):
        return Found("safetensors", files=(name,))
    if name == ROOT:
        return Found("zarr")
    if name == METADATA or lower.endswith(".distcp"):
        return Found("distcp")
    return None


def _by_content(folder: Folder, name: str) -> Found:
    """Look into a file whose name does not tell, or not enough."""
    uri = folder.address(name)
    with open_reader(uri) as reader:
        start = read_bytes(reader, 0, min(16, reader.describe().size))
    if name.lower().endswith(TORCH_SUFFIXES):
        return Found("torch", files=(name,))
    if start[:4] == ZIP_MAGIC:
        return Found("zarr" if name.lower().endswith(".zip") else "torch", files=(name,))
    if start[8:9] == b"{":
        return Found("safetensors", files=(name,))
    raise ConfigError(
        "is not a checkpoint: expected a safetensors or torch file, an index of them, a zipped Zarr "
        "store, or a folder",
        file=uri,
    )


def _in_folder(folder: Folder, names: tuple[str, ...]) -> Found | None:
    """Of several formats side by side the one that is read best."""
    visible = [n for n in names if not n.startswith(".")]
    safetensors = [n for n in visible if n.endswith(".safetensors")]
    if ROOT in names:
        return Found("zarr")
    if index := _index(folder, visible, (".safetensors",), "model"):
        return Found("safetensors", index=index)
    if safetensors:
        return Found("safetensors", files=tuple(safetensors))
    if METADATA in names:
        return Found("distcp")
    if index := _index(folder, visible, TORCH_SUFFIXES, "pytorch_model"):
        return Found("torch", index=index)
    torch = [n for n in visible if n.endswith(TORCH_SUFFIXES) and not _BESIDE.match(n)]
    usual = [n for n in torch if n.startswith("pytorch_model")]
    return Found("torch", files=tuple(usual or torch)) if torch else None


def _index(folder: Folder, names: list[str], suffixes: tuple[str, ...], stem: str) -> str | None:
    indexes = [n for n in names if n.endswith(tuple(f"{s}{INDEX}" for s in suffixes))]
    preferred = [n for n in indexes if n.startswith(f"{stem}.") and n.count(".") == 3]
    if preferred:
        return preferred[0]
    if len(indexes) > 1:
        raise ConfigError(f"has several indexes ({', '.join(indexes)}): name one of them", file=folder.uri)
    return indexes[0] if indexes else None


def _check_all_shards(folder: Folder, files: tuple[str, ...]) -> None:
    """Without an index the numbers in the shards' names tell whether all are there."""
    seen: dict[tuple[str, int, str], set[int]] = {}
    for file in files:
        if match := SHARD.match(file):
            key = match["stem"], int(match["count"]), match["suffix"]
            seen.setdefault(key, set()).add(int(match["number"]))
    for (stem, count, suffix), numbers in seen.items():
        if missing := sorted(set(range(1, count + 1)) - numbers):
            name = f"{stem}-{missing[0]:05d}-of-{count:05d}{suffix}"
            raise FormatError(
                f"the shard {name!r} is not there ({len(missing)} of {count} missing)", file=folder.uri
            )
