"""Frozen values that travel between the floors. They describe work; they do none."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Generic, TypeVar

from engine.nouns.dtypes import DTYPES, Dtype

Found = TypeVar("Found")

Span = tuple[int, int]
"""A half-open range of element indices of one tensor, in C order."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as it was when the plan was made.

    Attributes:
        uri: where it is; a path for local files.
        size: its length in bytes.
        version: what changes when its bytes do: modification time in ns, or an ETag.
    """

    uri: str
    size: int
    version: str


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a checkpoint, as its header declares it.

    Attributes:
        name: its name in the checkpoint.
        dtype: safetensors' spelling of the storage dtype.
        shape: its dimensions; () for a scalar.
        file: index into the checkpoint's files.
        offset: where its first byte lies in that file.
        nbytes: how many bytes it occupies there.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: int
    offset: int
    nbytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def kind(self) -> Dtype:
        """The dtype's entry in the table."""
        return DTYPES[self.dtype]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a checkpoint that its remaining parts survive."""

    file: str
    tensor: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint says of itself, before any weight is read.

    Attributes:
        uri: where it is, absolute.
        name: a short name taken from the place.
        format: the format's name, such as `safetensors`.
        files: the files that hold weights, in reading order.
        tensors: every tensor, in file order.
        fingerprint: hexadecimal digest that changes when a file's size, version or header changes.
        revision: the commit of a versioned store, "" elsewhere.
        faults: contradictions between the index and the shards.
    """

    uri: str
    name: str
    format: str
    files: tuple[SourceFile, ...]
    tensors: tuple[TensorInfo, ...]
    fingerprint: str
    revision: str = ""
    faults: tuple[Fault, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.nbytes for t in self.tensors)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive elements of one tensor that lie together in one file.

    Attributes:
        tensor: the tensor's ordinal in the checkpoint.
        name: its name, for messages.
        dtype: its storage dtype.
        file: index into the task's files.
        offset: first byte in the file.
        nbytes: length in bytes.
        first: index of the first element in the tensor, C order.
    """

    tensor: int
    name: str
    dtype: str
    file: int
    offset: int
    nbytes: int
    first: int

    @property
    def span(self) -> Span:
        """The elements it covers."""
        return self.first, self.first + self.nbytes * 8 // DTYPES[self.dtype].bits


@dataclass(frozen=True, slots=True)
class Task:
    """A unit of work: what to read, and how much memory reading it takes.

    Attributes:
        key: its number in the plan.
        files: the files that its chunks lie in.
        chunks: what to read, in file order.
        block_bytes: how many bytes one read asks for.
        projected_bytes: memory that the task takes while it runs.
        passing: whether the kernel need not keep what was read, because its cache could not hold it all.
        refine: for a second pass over 32-bit floats, the codes of each tensor whose low halves are
            counted one by one.
    """

    key: int
    files: tuple[SourceFile, ...]
    chunks: tuple[Chunk, ...]
    block_bytes: int
    projected_bytes: int
    passing: bool = False
    refine: dict[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes that the task reads."""
        return sum(c.nbytes for c in self.chunks)


@dataclass(frozen=True, slots=True)
class Part(Generic[Found]):
    """What was found out about a span of a tensor's elements.

    Attributes:
        tensor: the tensor's ordinal.
        span: the elements.
        found: what was found, such as their sketch.
    """

    tensor: int
    span: Span
    found: Found


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Found]):
    """What a task found: a few tens of kB, however many weights it read."""

    key: int
    nbytes: int
    parts: tuple[Part[Found], ...]
