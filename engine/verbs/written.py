"""A model that is being written: its folder, its subject, and what becomes of both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import FormatError, TaskError
from engine.formats.checkpoint import open_checkpoint
from engine.formats.safetensors_writer import Layout
from engine.nouns.records import Checkpoint, TensorInfo
from engine.nouns.tasks import Into
from engine.verbs.derive import Means, Source
from engine.verbs.merge_output import Output
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import Spec, Standing, find_written, settle

Where = Callable[[TensorInfo], Into]
"""Where each tensor is written, or was."""

_HEADERS = 1 << 26  # and blocks of which a part is no hole


class Written:
    """A model that is being written.

    Args:
        output: its folder.
        layout: of its files.
        identity: digest of everything that it depends on.
        kind: of the subject.
        name: of the subject.
        inputs: what it is made of.

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
    ) -> None:
        self.output, self.layout = output, layout
        self._inputs = inputs
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
        if self.output.check(self._identity, force=means.force):
            self.status = "unchanged"
            self._find(means.store)
            return
        beside = files()  # before hours of work
        if means.force:
            self.output.replace_old()
        with self.output.writing(self._identity, self.layout, self._most_bytes()) as nonce:
            inventory = self.inventory(nonce)
            try:
                standing, self.nbytes_read = write(inventory)
            except (TaskError, FormatError) as error:
                if isinstance(error, FormatError) or "No space left" in error.message:
                    self.output.abandon(self.layout)
                raise
            self.subject_id, self.name = standing.subject_id, standing.name
            self.status = "resumed" if standing.resumed or standing.complete else "merged"
            files_more, record_more = last()
            whole = {"identity": self._identity, **record, **record_more}
            self.output.finish(self.layout, {**beside, **files_more}, whole)
        with means.store.writing() as connection:
            settle(connection, self.subject_id, open_checkpoint(str(self.output.path)))

    def _most_bytes(self) -> int | None:
        """What the weights can take on the disk; None if nothing tells.

        Of zeros come zeros, and blocks of zeros are not written: so no more than all that is not a hole in
        the inputs, four times as wide at the most.
        """
        try:
            blocks = sum(Path(file.uri).stat().st_blocks for c in self._inputs for file in c.files)
        except OSError:  # they are elsewhere
            return None
        return 4 * 512 * blocks + _HEADERS if self._inputs else None

    def _find(self, store: Warehouse) -> None:
        """Look for the subject of a model that is complete."""
        if not store.path.exists():
            return
        with store.reading() as connection:
            found = find_written(connection, open_checkpoint(str(self.output.path)), self._kind)
        if found is not None:
            self.subject_id, self.name = found
