"""What a scan has counted since its last transaction, in a file beside the warehouse.

A transaction opens the warehouse, which takes longer than many a task; adding to a file does not. So a
process that is killed loses the tasks that were running, and none that had ended.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from engine.bands.packing import pack_bands, unpack_bands
from engine.nouns.dtypes import CODINGS
from engine.nouns.records import Checkpoint
from engine.nouns.tasks import Part
from engine.sketch import Sketch

_HEAD = struct.Struct("<II")  # length and CRC-32 of what follows
_KINDS = {"codes": "<u2", "n": "<u8", "low_sum": "<u8", "low_square_sum": "<u8"}
_MOST = 1 << 30
_SHARE = 4  # the rows that its parts become need the disk more than it does


class Journal:
    """The file of one job; it is there while there is something in it.

    A lock on it, which the kernel gives back however a process ends, tells one that is written from one that
    was left.

    Args:
        warehouse: beside which it lies.
        checkpoint: what is scanned; the file is named for it, so that no other job takes it for its own.
    """

    def __init__(self, warehouse: Path, checkpoint: Checkpoint) -> None:
        uri = checkpoint.uri.encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(f"journal 1\0{checkpoint.fingerprint}".encode())
        for tensor in checkpoint.tensors:
            coding = tensor.coding.name if tensor.coding else None
            digest.update(repr((tensor.name, tensor.elements, coding)).encode("utf-8", "backslashreplace"))
        self._folder = warehouse.parent
        self._place = f"{warehouse.name}.{hashlib.sha256(uri).hexdigest()[:16]}-"
        self._stem = f"{self._place}{digest.hexdigest()[:24]}-"
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._size = 0
        self._broken = False

    def recover(self, *, keep: bool) -> list[Part[Sketch]]:
        """Take over what processes that are no more have left: it is in our file then, not in theirs.

        What they have left of the same place as it was before is removed.

        Args:
            keep: whether it is wanted; if not, it is only removed.
        """
        try:
            names = sorted(n for n in os.listdir(self._folder) if n.startswith(self._place))  # noqa: PTH208
        except OSError:
            return []
        wanted = ((self._folder / n, keep and n.startswith(self._stem)) for n in names)
        return [part for path, ours in wanted for part in self._take_over(path, ours)]

    def _take_over(self, path: Path, keep: bool) -> list[Part[Sketch]]:
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = list(_records(file)) if keep else []
                self.add(found)
                if not self._broken:
                    path.unlink()
        except OSError:  # somebody writes it, or took it over first
            return []
        return found

    def add(self, parts: Iterable[Part[Sketch]]) -> None:
        """Note parts. A disk that is nearly full ends the journal, not the scan."""
        data = b"".join(map(_packed, parts))
        if self._broken or not data:
            return
        try:
            if self._file is None:
                self._create()
            assert self._file is not None
            disk = os.fstatvfs(self._file.fileno())
            if self._size + len(data) > disk.f_bavail * disk.f_frsize // _SHARE:
                self._break()
                return
            self._file.write(data)
            self._size += len(data)
        except OSError:
            self._break()

    def clear(self) -> None:
        """Everything in it is in the warehouse."""
        if self._file is None:
            return
        try:
            self._file.seek(0)
            self._file.truncate()
            self._size = 0
        except OSError:
            self._break()

    def close(self) -> None:
        """Leave it: to the next scan, if there is something in it."""
        if self._file is not None:
            self._file.close()
        if self._path is not None and not self._size:
            self._path.unlink(missing_ok=True)
        self._file = self._path = None

    def _break(self) -> None:
        self._broken, self._size = True, 0
        self.close()

    def _create(self) -> None:
        self._path = self._folder / f"{self._stem}{secrets.token_hex(8)}.journal"
        self._file = self._path.open("xb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _packed(part: Part[Sketch]) -> bytes:
    sketch = part.found
    low = sketch.low_sum is not None
    head = {
        "tensor": part.tensor, "span": part.span, "coding": sketch.coding, "size": len(sketch.codes),
        "low": low,
        "zeros": sketch.zeros, "minimum": sketch.minimum.hex(), "maximum": sketch.maximum.hex(),
        "bands": sketch.bands is not None,
    }  # fmt: skip
    arrays = [getattr(sketch, name) for name in _names(low)]
    text = json.dumps(head).encode() + b"\n"
    body = text + b"".join(a.astype(_KINDS[n]).tobytes() for n, a in zip(_names(low), arrays, strict=True))
    if sketch.bands is not None:
        body += pack_bands(sketch.bands)
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def _names(low: bool) -> list[str]:
    return list(_KINDS)[: 4 if low else 2]


def _records(file: BinaryIO) -> Iterator[Part[Sketch]]:
    """Read records up to the first that is not whole."""
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        length, checksum = _HEAD.unpack(head)
        body = file.read(length) if length < _MOST else b""
        if len(body) != length or zlib.crc32(body) != checksum:
            return
        text, _, rest = body.partition(b"\n")
        said = json.loads(text)
        arrays: dict[str, np.ndarray | None] = dict.fromkeys(_KINDS)
        for name in _names(said["low"]):
            kind = np.dtype(_KINDS[name])
            arrays[name] = np.frombuffer(rest, kind, said["size"]).copy()
            rest = rest[said["size"] * kind.itemsize :]
        sketch = Sketch(
            CODINGS[said["coding"]].name,
            **arrays,  # type: ignore[arg-type]
            zeros=said["zeros"],
            minimum=float.fromhex(said["minimum"]),
            maximum=float.fromhex(said["maximum"]),
            bands=unpack_bands(rest) if said.get("bands") else None,
        )
        yield Part(said["tensor"], (said["span"][0], said["span"][1]), sketch)
