"""A model that is being written: its folder, its subject, and what becomes of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, FormatError, TaskError
from engine.formats.checkpoint import open_checkpoint
from engine.formats.safetensors_writer import Layout
from engine.nouns.records import Checkpoint, TensorInfo
from engine.nouns.tasks import Into
from engine.storage.uris import scheme_of
from engine.verbs.derive import Means, Source
from engine.verbs.merge_output import Output, Wanted
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import Spec, Standing, find_written, settle

Where = Callable[[TensorInfo], Into]
"""Where each tensor is written, or was."""

CARD = "README.md"
_HEADERS = 1 << 26  # and blocks of which a part is no hole


class Written:
    """A model that is being written.

    Args:
        output: its folder.
        layout: of its files.
        identity: digest of everything that it depends on.
        kind: of the subject.
        name: of the subject.
        inputs: what it is made of, element by element: of zeros in all of them come zeros.
        also: what else is read.

    Attributes:
        status: `merged`, `resumed` (an interrupted run was completed) or `unchanged` (nothing was written).
        subject_id: its number; None if nothing was written, and the warehouse does not know it.
        name: its name.
        nbytes_read: bytes that were read.
    """

    def __init__(
        self,
        output: Output,
        layout: Layout,
        identity: str,
        kind: str,
        name: str,
        inputs: Sequence[Checkpoint] = (),
        also: Sequence[Checkpoint] = (),
    ) -> None:
        self.output, self.layout = output, layout
        self._inputs, self._also = inputs, also
        self._identity, self._kind, self.name = identity, kind, name
        self.status, self.nbytes_read = "merged", 0
        self.subject_id: int | None = None

    def inventory(self, nonce: str = "") -> Checkpoint:
        """The output as a checkpoint, another one whenever its files were begun anew."""
        return Checkpoint(
            uri=str(self.output.path),
            name=self.name,
            format="safetensors",
            files=(),
            tensors=self.layout.tensors,
            fingerprint=hashlib.sha256(f"{self._identity} {nonce}".encode()).hexdigest(),
        )

    def into(self, tensor: TensorInfo) -> Into:
        """Where a tensor is written."""
        path = self.output.partials(self.layout)[tensor.file]
        return Into(tensor.name, tensor.dtype, str(path), tensor.offset)

    def source(self, inventory: Checkpoint, parents: tuple[Checkpoint, ...], spec: Spec) -> Source:
        """What its subject is made of."""
        return Source(
            uri=inventory.uri,
            inventory=inventory,
            kind=self._kind,
            name=self.name,
            spec=spec,
            parents=parents,
            plan_second=lambda codes: (),
            replaces=True,
        )

    def run(
        self,
        means: Means,
        write: Callable[[Checkpoint], tuple[Standing, int]],
        files: Callable[[], Mapping[str, bytes]],
        record: Mapping[str, Any],
        last: Callable[[], tuple[Mapping[str, bytes], Mapping[str, Any]]] = lambda: ({}, {}),
    ) -> None:
        """Write what is missing.

        Args:
            means: with what; `force` is whether an earlier model may be replaced.
            write: writes and counts what is missing of the output, and returns how its subject stood before,
                and how many bytes were read.
            files: what else there is to be in the folder.
            record: what was merged.
            last: more files, and more of the record, which are only known when everything is written.

        Raises:
            GaussmeterError: something failed; what was written is kept, if it can be of use.
        """
        self._require_elsewhere()
        beside = files()  # before hours of work
        wanted = Wanted(self._identity, _mark(self._identity, beside), self.layout, self._most_bytes())
        if self.output.check(wanted.mark, force=means.force):
            self.output.tidy()
            self.status = "unchanged"
            self._find(means.store)
            return
        with self.output.writing(wanted, force=means.force) as nonce:
            inventory = self.inventory(nonce)
            try:
                standing, self.nbytes_read = write(inventory)
            except (TaskError, FormatError) as error:
                if isinstance(error, FormatError) or "No space left" in error.message:
                    self.output.abandon()
                raise
            self.subject_id, self.name = standing.subject_id, standing.name
            self.status = "resumed" if standing.resumed or standing.complete else "merged"
            files_more, record_more = last()
            whole = {"identity": wanted.mark, **record, **record_more}
            self.output.finish(self.layout, {**beside, **files_more}, whole)
        with means.store.writing() as connection:
            settle(connection, self.subject_id, open_checkpoint(str(self.output.path)))

    def _require_elsewhere(self) -> None:
        """Refuse to write where the inputs lie: what is replaced would be gone before it is read."""
        out = self.output.path.resolve()
        files = (f.uri for c in (*self._inputs, *self._also) for f in c.files)
        paths = [Path(uri) for uri in files if scheme_of(uri) == "file"]
        links = {path.resolve().parent for path in paths if path.is_symlink()}
        if out in links | {folder.resolve() for folder in {path.parent for path in paths}}:
            message = "is read from too; choose another directory to write to"
            raise ConfigError(message, file=str(self.output.path))

    def _most_bytes(self) -> int:
        """What the weights can take on the disk.

        Of zeros come zeros, and blocks of zeros are not written: so no more than all that is not a hole in
        the inputs, four times as wide at the most.
        """
        nbytes = self.layout.nbytes
        try:
            blocks = sum(Path(file.uri).stat().st_blocks for c in self._inputs for file in c.files)
        except OSError:  # they are elsewhere
            return nbytes
        return min(nbytes, 4 * 512 * blocks + _HEADERS) if self._inputs else nbytes

    def _find(self, store: Warehouse) -> None:
        """Look for the subject of a model that is complete."""
        if not store.path.exists():
            return
        with store.reading() as connection:
            found = find_written(connection, open_checkpoint(str(self.output.path)), self._kind)
        if found is not None:
            self.subject_id, self.name = found


def identity_of(what: str, spec: Spec, fingerprints: Iterable[str], layout: Layout, *more: bytes) -> str:
    """Digest of everything that weights depend on.

    Args:
        what: is done.
        spec: how.
        fingerprints: of what it is done to.
        layout: of the files.
        more: what else decides.
    """
    digest = hashlib.sha256(f"{what} 1\0".encode())
    digest.update(json.dumps(spec, sort_keys=True).encode())
    for fingerprint in fingerprints:
        digest.update(f"\0{fingerprint}".encode())
    for shard in layout.shards:
        digest.update(f"\0{shard.name}\0".encode() + shard.header)
    for data in more:
        digest.update(b"\0" + data)
    return digest.hexdigest()


def _mark(identity: str, beside: Mapping[str, bytes]) -> str:
    """Digest of the weights' identity and of what lies beside them, but for the card."""
    digest = hashlib.sha256(identity.encode())
    for name in sorted(beside.keys() - {CARD}):
        digest.update(f"\0{name}\0{len(beside[name])}\0".encode("utf-8", "surrogateescape"))
        digest.update(beside[name])
    return digest.hexdigest()
