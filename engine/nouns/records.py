"""Frozen values that say what a checkpoint holds, as its headers declare it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from engine.nouns.dtypes import CODINGS, DTYPES, Coding, Dtype

DEQUANTISED = ".dequantised"
"""What follows the name of a tensor of codes in the name of the tensor of its values."""

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
class View:
    """Some of the elements of a stretch of memory, by index arithmetic.

    Attributes:
        start: index of the first element.
        shape: how many there are along each dimension.
        strides: elements from one to the next along each dimension, none negative.
    """

    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements of a tensor that lie together in one file.

    Attributes:
        file: index into the checkpoint's files.
        offset: where its first byte lies in that file.
        nbytes: how many bytes it occupies there.
        elements: how many elements of the tensor it holds.
        codecs: what undoes its compression, in the order of undoing; none for plain bytes.
        memory: how many bytes it takes when undone.
        view: which of those are the tensor's; None for all.
        at: which elements of the tensor they are, in C order; None when they follow the piece before.
    """

    file: int
    offset: int
    nbytes: int
    elements: int
    codecs: tuple[str, ...] = ()
    memory: int = 0
    view: View | None = None
    at: View | None = None

    @property
    def plain(self) -> bool:
        """Whether it is nothing but the elements, so that it can be cut anywhere."""
        return not self.codecs and self.view is None and self.at is None


@dataclass(frozen=True, slots=True)
class Scaling:
    """What makes the values of a tensor of 8-bit codes: one factor for each block of a matrix.

    Attributes:
        codes: ordinal of the tensor of codes.
        factors: ordinal of the tensor of factors.
        matrix: rows and columns of a matrix; a tensor of more dimensions is several, one after the other.
        block: rows and columns of it that share a factor.
    """

    codes: int
    factors: int
    matrix: tuple[int, int]
    block: tuple[int, int]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a checkpoint, as its header declares it.

    Attributes:
        name: its name in the checkpoint.
        dtype: safetensors' spelling of the storage dtype.
        shape: its dimensions; () for a scalar.
        file: index into the checkpoint's files, of its first piece.
        offset: where its first byte lies in that file.
        nbytes: how many bytes its elements take, uncompressed.
        pieces: where its elements lie, in an order of their own; none given means together at `offset`.
        ordered: whether that order is C order.
        reason: why it is not counted, when its dtype is not the reason.
        note: what a reader should know about the counts, beside what its dtype says.
        alias_of: the tensor that is stored in the same place and is counted there.
        form: `codes` or `factors` of a scaled tensor, `dequantised` for its values, `unscaled` for codes
            whose factors do not fit, `outside` for what is no weight; None for plain weights.
        scaling: for a dequantised tensor, what it is made of.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: int
    offset: int
    nbytes: int
    pieces: tuple[Piece, ...] = ()
    ordered: bool = True
    reason: str | None = None
    note: str | None = None
    alias_of: str | None = None
    form: str | None = None
    scaling: Scaling | None = None

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def kind(self) -> Dtype:
        """The dtype's entry in the table."""
        return DTYPES[self.dtype]

    @property
    def coding(self) -> Coding | None:
        """How its elements are counted, None when they are not."""
        if self.reason or self.alias_of is not None:
            return None
        return CODINGS["f32"] if self.scaling else self.kind.coding

    @property
    def why(self) -> str | None:
        """Why it is not counted, None when it is."""
        if self.alias_of is not None:
            return f"stored and counted as {self.alias_of!r}"
        return self.reason or self.kind.reason

    @property
    def stored(self) -> tuple[Piece, ...]:
        """Its pieces."""
        return self.pieces or (Piece(self.file, self.offset, self.nbytes, self.elements),)


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
        distant: whether its files lie behind a network, and are best read by several large requests at once.
    """

    uri: str
    name: str
    format: str
    files: tuple[SourceFile, ...]
    tensors: tuple[TensorInfo, ...]
    fingerprint: str
    revision: str = ""
    faults: tuple[Fault, ...] = ()
    distant: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, each storage once."""
        return sum(t.nbytes for t in self.tensors if t.alias_of is None and t.scaling is None)
