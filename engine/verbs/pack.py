"""`pack`: any checkpoint as a Zarr group, out of core, to be resumed after a crash."""

from __future__ import annotations

import hashlib
import shutil
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from engine.errors import ConfigError, FormatError, TaskError
from engine.execution.executor import Executor
from engine.execution.fold import Fold
from engine.execution.in_process import InProcessExecutor
from engine.formats.checkpoint import open_checkpoint, require_sound
from engine.formats.zarr.group import pack_mark
from engine.formats.zarr.layout import layout_of, stored_form
from engine.formats.zarr.objects import ZipObjects
from engine.formats.zarr.writer import CODECS, GroupWriter
from engine.nouns.defaults import RANGES
from engine.nouns.events import Ended, Listener, Planned, TaskDone, ignore
from engine.nouns.records import Checkpoint, Span, TensorInfo
from engine.nouns.tasks import Task
from engine.plan import Limits, plan_pack
from engine.storage.local import usable_path
from engine.storage.uris import scheme_of
from engine.tasks.pack import Checksums, PackBody
from engine.verbs.limits import limits_of
from engine.version import __version__

_PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class PackReport:
    """What a pack did.

    Attributes:
        uri: what was packed.
        out: where it is now.
        status: `packed`, `resumed` (an interrupted pack was completed) or `unchanged` (nothing was written).
        tensors: tensors in the group.
        skipped: those that are not in it, with the reason.
        nbytes: bytes of the group's tensors, uncompressed.
        nbytes_written: bytes that this run has written, uncompressed.
        seconds: how long it took.
    """

    uri: str
    out: str
    status: str
    tensors: int
    skipped: dict[str, str]
    nbytes: int
    nbytes_written: int
    seconds: float


def pack(
    uri: str | Path,
    out: str | Path,
    *,
    codec: Literal["none", "zstd"] = "none",
    workers: int | None = None,
    memory_bytes: int | None = None,
    ranges: int = RANGES,
    listener: Listener = ignore,
) -> PackReport:
    """Copy a checkpoint into a Zarr version 3 group, one array a tensor.

    Every shard is read back and must have the sketch that its source has. A pack that was interrupted is
    taken up: tensors that are whole are not copied again.

    Args:
        uri: a checkpoint's place; see `engine.formats.checkpoint.open_checkpoint`.
        out: a directory, a `.zip` file, or an address in a bucket.
        codec: `none` keeps plain bytes, which is read at the speed of the storage; `zstd` compresses.
        workers: threads; one per core by default.
        memory_bytes: refuse the plan if it may take more.
        ranges: how many requests at once read a distant checkpoint.
        listener: told what happens.

    Returns:
        what was done.

    Raises:
        ConfigError, FormatError, BudgetError, TaskError: see `engine.errors`.
    """
    began = time.monotonic()
    if codec not in CODECS:
        raise ConfigError(f"there is no codec {codec!r}; there are: {', '.join(CODECS)}")
    checkpoint = open_checkpoint(str(uri))
    require_sound(checkpoint)
    place = _place(str(out), checkpoint)
    executor = InProcessExecutor(workers)
    limits = limits_of(executor, memory_bytes=memory_bytes, ranges=ranges)
    job = _Pack(checkpoint, place, codec, executor, limits, listener)
    written = job.run()
    return PackReport(
        uri=checkpoint.uri,
        out=str(place.archive or place.folder),
        status=job.status,
        tensors=len(job.tensors),
        skipped=job.skipped,
        nbytes=sum(t.nbytes for t in job.tensors.values()),
        nbytes_written=written,
        seconds=time.monotonic() - began,
    )


@dataclass(frozen=True, slots=True)
class _Place:
    folder: str
    archive: Path | None = None


def _place(out: str, checkpoint: Checkpoint) -> _Place:
    """Where the group is written."""
    if scheme_of(out) != "file":
        return _Place(out.rstrip("/"))
    path = usable_path(out)
    if not path.parent.is_dir():
        raise ConfigError("there is no such directory to pack into", file=str(path.parent))
    if checkpoint.format == "zarr" and path.is_relative_to(checkpoint.uri):
        raise ConfigError("lies within the group that is to be packed", file=str(path))
    if path.suffix == ".zip":
        return _Place(str(path.with_name(path.name + _PARTIAL)), path)
    return _Place(str(path))


def _is_packed(place: _Place, checkpoint: Checkpoint, codec: str) -> bool:
    """Whether an archive is there already, and is the one that is wanted.

    Raises:
        ConfigError: something else is there.
    """
    archive = place.archive
    if archive is None or not (archive.exists() or archive.is_symlink()):
        return False
    try:
        mark = pack_mark(ZipObjects(str(archive)))
    except FormatError as error:
        raise ConfigError("is there already, and is no packed archive", file=str(archive)) from error
    if (mark.get("fingerprint"), mark.get("codec")) != (checkpoint.fingerprint, codec):
        raise ConfigError("is there already, and holds something else", file=str(archive))
    shutil.rmtree(place.folder, ignore_errors=True)  # left when a pack was killed at its very end
    return True


class _Pack:
    """Copies what is missing of one checkpoint."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        place: _Place,
        codec: str,
        executor: Executor,
        limits: Limits,
        listener: Listener,
    ) -> None:
        self._checkpoint, self._place, self._codec = checkpoint, place, codec
        self._executor, self._limits, self._listener = executor, limits, listener
        self._writer = GroupWriter(place.folder, codec)
        self.skipped = _skipped(checkpoint)
        self.tensors = {
            i: replace(t, pieces=()) for i, t in enumerate(checkpoint.tensors) if _is_kept(t, self.skipped)
        }
        self.status = "packed"

    def run(self) -> int:
        """Copy, and return how many bytes were written."""
        archive = self._place.archive
        if archive is not None and _is_packed(self._place, self._checkpoint, self._codec):
            self.status = "unchanged"
            return 0
        written = self._complete()
        if archive is not None:
            _zip(Path(self._place.folder), archive)
        return written

    def _complete(self) -> int:
        """Write what is missing of the group."""
        mark = self._mark("packing")
        tasks = self._plan(self.tensors)  # refuses before anything is made
        before = self._writer.begin(mark)
        done = self._writer.done()
        if before["status"] == "whole" and self._writer.is_consolidated():
            self.status = "unchanged"
            return 0
        missing = {i: t for i, t in self.tensors.items() if t.name not in done}
        if done:
            self.status = "resumed"
            tasks = self._plan(missing)
        _check_room(self._writer.uri, sum(t.nbytes for t in missing.values()), self._codec)
        for ordinal, tensor in missing.items():
            self._writer.create(ordinal, tensor)
            if not tensor.elements:
                self._writer.mark(ordinal, tensor, "empty")
        written = self._copy(tasks, missing)
        self._writer.finish(self._mark("whole"))
        return written

    def _mark(self, status: str) -> dict[str, object]:
        aliases = {
            t.name: {"of": t.alias_of, "shape": list(t.shape), "in_order": t.ordered}
            for t in self._checkpoint.tensors
            if t.alias_of is not None
        }
        return {
            "source": self._checkpoint.uri,
            "revision": self._checkpoint.revision,
            "fingerprint": self._checkpoint.fingerprint,
            "codec": self._codec,
            "engine_version": __version__,
            "aliases": aliases,
            "status": status,
        }

    def _plan(self, tensors: Mapping[int, TensorInfo]) -> tuple[Task, ...]:
        shards: dict[int, list[Span]] = {}
        largest = 0
        for ordinal, tensor in tensors.items():
            form = stored_form(tensor)
            if form is None or not tensor.elements:
                continue
            shards[ordinal] = list(layout_of(form[1], form[2]).spans())
            largest = max(largest, *((stop - start) * form[2] for start, stop in shards[ordinal]))
        return plan_pack(self._checkpoint, shards, largest, self._limits)

    def _copy(self, tasks: tuple[Task, ...], tensors: Mapping[int, TensorInfo]) -> int:
        name = self._checkpoint.name
        self._listener(Planned(name, len(tensors), len(tasks), sum(t.nbytes for t in tasks)))
        fold: Fold[Checksums] = Fold({i: t.elements for i, t in tensors.items()}, _join)
        body = partial(PackBody, self._writer.uri, self._codec, dict(tensors))
        written = 0
        try:
            for outcome in self._executor.run(body, tasks):
                self._listener(TaskDone(outcome.key, outcome.nbytes, name))
                for ordinal, checksums in fold.add(outcome.parts):
                    self._writer.mark(ordinal, tensors[ordinal], _digest(checksums))
                    written += tensors[ordinal].nbytes
        finally:
            self._listener(Ended(name))
        return written


def _is_kept(tensor: TensorInfo, skipped: Mapping[str, str]) -> bool:
    return tensor.alias_of is None and tensor.scaling is None and tensor.name not in skipped


def _skipped(checkpoint: Checkpoint) -> dict[str, str]:
    """Tensors that a group does not hold, with the reason."""
    reasons = {}
    for tensor in checkpoint.tensors:
        if tensor.alias_of is not None or tensor.scaling is not None:
            continue
        if tensor.form == "outside":
            reasons[tensor.name] = str(tensor.reason)
        elif stored_form(tensor) is None:
            reasons[tensor.name] = f"Zarr has no {tensor.dtype}"
        elif tensor.reason and not tensor.pieces and not tensor.offset and tensor.elements:
            reasons[tensor.name] = tensor.reason
    return reasons


def _join(one: Checksums, other: Checksums) -> Checksums:
    return tuple(sorted((*one, *other)))


def _digest(checksums: Checksums) -> str:
    return hashlib.sha256(repr(sorted(checksums)).encode()).hexdigest()


def _check_room(uri: str, nbytes: int, codec: str) -> None:
    """Refuse what a disk has no room for; what zstd makes of it nobody knows before."""
    if scheme_of(uri) != "file" or codec != "none":
        return
    free = shutil.disk_usage(Path(uri)).free
    if free < nbytes:
        raise ConfigError(f"{nbytes:,} bytes are to be written, the disk has {free:,} free", file=uri)


def _zip(folder: Path, archive: Path) -> None:
    """Put a group into one file of stored members, and remove the folder."""
    beside = archive.with_name(archive.name + ".tmp")
    try:
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED, allowZip64=True) as out:
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                out.write(path, path.relative_to(folder).as_posix())
        beside.replace(archive)
    except OSError as error:
        raise TaskError(f"could not be written: {error.strerror}", file=str(archive)) from error
    shutil.rmtree(folder)
