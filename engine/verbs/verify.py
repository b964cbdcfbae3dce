"""`verify`: is a merged model what it says it is? Its files, its values, and a sample of it merged again."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, FormatError
from engine.execution.executor import MakeBody
from engine.execution.in_process import InProcessExecutor
from engine.formats.checkpoint import open_checkpoint
from engine.nouns.events import Ended, Listener, Planned, TaskDone, ignore
from engine.nouns.records import Checkpoint, Span, TensorInfo
from engine.nouns.tasks import Into, Outcome
from engine.plan.cutting import gaps
from engine.tasks.compare import CompareBody, Compared, CompareEditBody, joined
from engine.verbs.check import Finding, check
from engine.verbs.edit_inputs import wish_of
from engine.verbs.edit_job import EditJob
from engine.verbs.fold_job import MANNER, FoldJob
from engine.verbs.limits import limits_of
from engine.verbs.merge_inputs import open_inputs
from engine.verbs.merge_job import MergeJob
from engine.verbs.merge_output import STATE, Output
from engine.verbs.merge_record import RECORD, Record, read_record, size_of

BLOCKS = 64
_BLOCK = 1 << 18  # elements
_IRRELEVANT = ("zero", "constant", "dead rows", "magnitude")
"""What may be wrong with a model without being the merge's fault."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found.

    Attributes:
        out: the folder.
        tensors: how many it has.
        nbytes: bytes of them.
        findings: what is wrong; empty for a sound model.
        recomputed: what the comparison with the inputs found; None if there was none.
        blocks: how many blocks were compared.
        note: why nothing was recomputed, or what is worth knowing.
    """

    out: str
    tensors: int
    nbytes: int
    findings: tuple[Finding, ...]
    recomputed: Compared | None
    blocks: int
    note: str


def verify(
    out: str | Path,
    *,
    config: str | Path | Mapping[str, Any] | None = None,
    blocks: int | None = BLOCKS,
    seed: int = 0,
    workers: int | None = None,
    listener: Listener = ignore,
) -> VerifyReport:
    """Look whether a merged model is sound, and whether it is what its inputs give.

    Headers, index and sizes are compared with each other, every value is read for NaN and infinities, and a
    sample of blocks is merged again from the inputs: it must be equal to the bit, or within one rounding of
    what float64 gives.

    Args:
        out: its folder, whoever merged it.
        config: what it was merged by; what its record says by default.
        blocks: how many blocks of 262,144 elements to merge again, None for everything. Of a method that must
            know whole tensors, these are read whole.
        seed: another one chooses other blocks.
        workers: threads; one per core by default.
        listener: told what happens.

    Raises:
        ConfigError: there is no such folder; or the configuration is wrong, or its inputs are not there.
        TaskError: see `engine.errors`.
    """
    output = Output(str(out))
    if not output.path.is_dir():
        raise ConfigError("there is no such directory", file=str(output.path))
    findings = _files(output.path)
    try:
        values = check(output.path, ignore_problems=_IRRELEVANT, workers=workers, listener=listener)
    except ConfigError as error:  # there are no weights
        if not findings:
            raise
        return VerifyReport(str(output.path), 0, 0, tuple(findings), None, 0, str(error))
    findings += values.findings
    try:
        checkpoint = open_checkpoint(str(output.path))
        record = read_record(output.path)
    except FormatError as error:
        known = {(f.where, f.detail) for f in findings}
        where = error.tensor or error.file or str(out)
        more = [] if (where, error.message) in known else [Finding(where, "damaged", error.message)]
        return VerifyReport(str(output.path), 0, 0, (*findings, *more), None, 0, "")
    wanted, note = _wanted(config, record)
    compared, count = None, 0
    if wanted is not None:
        try:
            again = _Again(output, checkpoint, wanted, blocks, seed)
            findings += again.misfits()
            note = again.note
            compared, wrong, count = again.compare(workers, listener)
            findings += wrong
        except (ConfigError, FormatError) as error:
            if config is not None:
                raise
            note = f"nothing was merged again: {error}"
    nbytes = checkpoint.nbytes
    return VerifyReport(
        str(output.path), len(checkpoint.tensors), nbytes, tuple(findings), compared, count, note
    )


def _files(folder: Path) -> list[Finding]:
    """What is wrong with the names and sizes of files."""
    found = []
    if (folder / STATE).exists() or any(folder.glob("*.partial")):
        found.append(Finding(str(folder), "unfinished", "an interrupted merge lies in it"))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = set(index.read_text("utf-8", "replace").split('"'))
        for path in sorted(folder.glob("*.safetensors")):
            if path.name not in named:
                found.append(Finding(str(path), "unknown", "is no shard that the index names"))
    try:
        record = read_record(folder)
    except FormatError as error:
        return [*found, Finding(error.file or str(folder), "damaged", error.message)]
    for name, size in record.files.items() if record is not None else ():
        now = size_of(folder / name)
        if now < 0:
            found.append(Finding(name, "missing", "is not there, but the record names it"))
        elif now != size:
            found.append(Finding(name, "size", f"has {now:,} bytes, the record says {size:,}"))
    return found


def _wanted(
    config: str | Path | Mapping[str, Any] | None, record: Record | None
) -> tuple[str | Path | Mapping[str, Any] | None, str]:
    """The configuration to merge by again, or the record of an edit or a fold, and why there is none."""
    if config is not None:
        return config, ""
    if record is None:
        return None, "nothing was merged again: the folder does not say what was merged; give --config"
    if "edit" in record.data or "adapter" in record.data:
        return record.data, ""
    if record.config is None:
        return None, "nothing was merged again: it was made in another way than by a configuration"
    return record.config, ""


class _Again:
    """A merge that is made again, in part."""

    def __init__(
        self,
        output: Output,
        checkpoint: Checkpoint,
        config: str | Path | Mapping[str, Any],
        blocks: int | None,
        seed: int,
    ) -> None:
        self._checkpoint, self._blocks, self._seed = checkpoint, blocks, seed
        self._job, self._body = _job_of(config, output, checkpoint.name)
        self._found = {t.name: t for t in checkpoint.tensors}
        fitting = [t for t in self._job.written.layout.tensors if self._fits(t, self._found.get(t.name))]
        self._tensors = tuple(t for t in fitting if _lies_plainly(self._found[t.name]))
        self._others = len(fitting) - len(self._tensors)

    @staticmethod
    def _fits(expected: TensorInfo, found: TensorInfo | None) -> bool:
        return found is not None and (found.dtype, found.shape) == (expected.dtype, expected.shape)

    @property
    def note(self) -> str:
        """What cannot be compared."""
        lie = "lies" if self._others == 1 else "lie"
        why = f"{lie} in pieces, or in another order than merging gives"
        return f"{self._others:,} of its tensors {why}: not compared" if self._others else ""

    def misfits(self) -> list[Finding]:
        """Tensors that are missing, too many, or of another form than merging gives."""
        expected = {t.name: t for t in self._job.written.layout.tensors}
        wrong = []
        for name, tensor in expected.items():
            found = self._found.get(name)
            if found is None:
                wrong.append(Finding(name, "missing", "merging gives it, but it is not there"))
            elif not self._fits(tensor, found):
                says = (
                    f"is {found.dtype} {list(found.shape)}, merging gives {tensor.dtype} {list(tensor.shape)}"
                )
                wrong.append(Finding(name, "form", says))
        tied = {f.tensor.name for f in self._job.fates if f.tied is not None}
        extra = [n for n in self._found if n not in expected and n not in tied]
        wrong += (Finding(name, "unknown", "merging does not give it") for name in extra)
        return wrong

    def compare(self, workers: int | None, listener: Listener) -> tuple[Compared | None, list[Finding], int]:
        """Merge blocks again; what was found, what is wrong, and how many blocks there were."""
        chosen = self._chosen()
        if not chosen:
            return None, [], 0
        inventory = Checkpoint(
            self._checkpoint.uri, self._checkpoint.name, "safetensors", (), self._tensors, ""
        )
        covered = {i: tuple(gaps(chosen.get(i, ()), t.elements)) for i, t in enumerate(self._tensors)}
        executor = InProcessExecutor(workers)
        plan = self._job.again(inventory, self._into, limits_of(executor), covered)
        found: dict[int, list[Compared]] = {}
        listener(Planned("merging again", len(chosen), len(plan.tasks), plan.nbytes))
        for outcome in executor.run(self._body, plan.tasks):
            listener(TaskDone(outcome.key, outcome.nbytes, "merging again"))
            for part in outcome.parts:
                found.setdefault(part.tensor, []).append(part.found)
        listener(Ended("merging again"))
        wrong = []
        for ordinal, several in sorted(found.items()):
            one = joined(several)
            if one.wrong_count:
                first = ", ".join(f"{i:,}" for i in one.wrong)
                says = (
                    f"{one.wrong_count:,} of {one.elements:,} elements are not what merging gives, at {first}"
                )
                wrong.append(Finding(self._tensors[ordinal].name, "values", says))
        return (
            joined([c for several in found.values() for c in several]),
            wrong,
            sum(map(len, chosen.values())),
        )

    def _into(self, tensor: TensorInfo) -> Into:
        found = self._found[tensor.name]
        return Into(tensor.name, found.dtype, self._checkpoint.files[found.file].uri, found.offset)

    def _chosen(self) -> dict[int, list[Span]]:
        """The blocks that are merged again, by tensor."""
        every = [
            (i, (first, min(first + _BLOCK, t.elements)))
            for i, t in enumerate(self._tensors)
            for first in range(0, t.elements, _BLOCK)
        ]
        if self._blocks is not None and self._blocks < len(every):
            every = sorted(random.Random(self._seed).sample(every, self._blocks))
        chosen: dict[int, list[Span]] = {}
        for ordinal, span in every:
            chosen.setdefault(ordinal, []).append(span)
        return chosen


def _lies_plainly(tensor: TensorInfo) -> bool:
    """Whether its elements are side by side in a file, in C order."""
    return tensor.ordered and len(tensor.stored) == 1 and tensor.stored[0].plain


def _job_of(
    wanted: str | Path | Mapping[str, Any], output: Output, name: str
) -> tuple[MergeJob | EditJob | FoldJob, MakeBody[Outcome[Any]]]:
    """The merge, the edit or the fold, and what compares what it gives."""
    if isinstance(wanted, Mapping) and "adapter" in wanted:
        fold = FoldJob(wanted["adapter"], wanted["base"], output, 1 << 62, name)
        return fold, partial(CompareBody, MANNER)
    if isinstance(wanted, Mapping) and "edit" in wanted:
        edit = EditJob(wish_of(wanted, str(output.path / RECORD)), output, 1 << 62, name)
        return edit, partial(CompareEditBody, *edit.manner)
    job = MergeJob(open_inputs(wanted), output, 1 << 62, name)
    return job, partial(CompareBody, job.manner)


def is_sound(report: VerifyReport) -> bool:
    """Whether nothing is wrong."""
    return not report.findings
