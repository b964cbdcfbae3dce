"""Frozen values that travel to workers and back. They describe work; they do none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from engine.nouns.adapters import Noise
from engine.nouns.dtypes import DTYPES
from engine.nouns.matrices import Matrix
from engine.nouns.records import Piece, SourceFile, Span

Found_co = TypeVar("Found_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Scaled:
    """That a chunk of codes is to be counted by its values too.

    Attributes:
        tensor: ordinal of the tensor of values.
        matrix: as in `Scaling`.
        block: as in `Scaling`.
        factors: where the factors lie, in C order.
    """

    tensor: int
    matrix: tuple[int, int]
    block: tuple[int, int]
    factors: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive elements of one tensor that lie together in one file.

    Attributes:
        tensor: the tensor's ordinal in the checkpoint.
        name: its name, for messages.
        dtype: its storage dtype.
        file: index into the task's files.
        offset: first byte in the file.
        nbytes: length in bytes, as stored.
        first: index of the first element in the tensor, in the order of its pieces.
        piece: how to get at the elements, None when the bytes are the elements.
        scaled: for codes with a factor a block, what to do with them.
        matrix: what its rows and columns are measured as; None if they are not.
    """

    tensor: int
    name: str
    dtype: str
    file: int
    offset: int
    nbytes: int
    first: int
    piece: Piece | None = None
    scaled: Scaled | None = None
    matrix: Matrix | None = None

    @property
    def elements(self) -> int:
        """How many elements it holds."""
        return self.piece.elements if self.piece else self.nbytes * 8 // DTYPES[self.dtype].bits

    @property
    def span(self) -> Span:
        """The elements it covers."""
        return self.first, self.first + self.elements


@dataclass(frozen=True, slots=True)
class Ahead:
    """How to read what is far away.

    Attributes:
        ranges: requests at once, of all the workers of a process together.
        range_bytes: how many bytes one of them asks for.
    """

    ranges: int
    range_bytes: int


@dataclass(frozen=True, slots=True)
class Factor:
    """A matrix, or some of its rows, among the chunks of a task.

    Attributes:
        chunks: the numbers of the chunks that hold it, as first and behind the last.
        rows: of the whole matrix as it is stored, in C order.
        columns: likewise.
        transposed: whether its transpose is meant.
    """

    chunks: Span
    rows: int
    columns: int
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Term:
    """scale x (left diag(weights) right), of the shape of a whole dW.

    Attributes:
        left: rows x rank.
        right: rank x columns.
        scale: rounded to float32.
        weights: 1 x rank; None for ones.
    """

    left: Factor
    right: Factor
    scale: float
    weights: Factor | None = None


@dataclass(frozen=True, slots=True)
class Into:
    """Where a tensor is written, in a file that is there already, in full length.

    Attributes:
        name: of the tensor.
        dtype: its dtype.
        path: of the file.
        offset: where the tensor's first byte lies in it.
    """

    name: str
    dtype: str
    path: str
    offset: int


@dataclass(frozen=True, slots=True)
class Product:
    """Some rows of one dW, and what they are made of.

    Attributes:
        ordinal: of the tensor of differences.
        make: `product` (the sum of the terms), `rows` (DoRA's difference, a magnitude for each row),
            `squares` (nothing that is counted yet: the sums that `columns` needs), `columns` (DoRA's, a
            magnitude for each column), `saved` (saved - base) or `noise` (the terms and what a scalar adds).
        rows: which, of dW as the base stores it.
        columns: of dW.
        terms: whose sum is scale x B A.
        base: the base's tensor; None for a `product`, and for noise that is added to it.
        other: the magnitudes, what was saved, or the scalar; None for a `product`.
        noise: of a `noise`, what it is.
        into: where base + dW is written and counted, in place of dW; every product but `squares` has the base
            then.
    """

    ordinal: int
    make: str
    rows: Span
    columns: int
    terms: tuple[Term, ...] = ()
    base: Factor | None = None
    other: Factor | None = None
    noise: Noise | None = None
    into: Into | None = None

    @property
    def span(self) -> Span:
        """The elements it covers."""
        return self.rows[0] * self.columns, self.rows[1] * self.columns

    @property
    def factors(self) -> Iterator[Factor]:
        """Everything it is made of."""
        for term in self.terms:
            yield term.left
            yield term.right
            if term.weights is not None:
                yield term.weights
        yield from (f for f in (self.base, self.other) if f is not None)

    @property
    def chunks(self) -> set[int]:
        """Numbers of the chunks that it needs."""
        return {n for factor in self.factors for n in range(*factor.chunks)}


@dataclass(frozen=True, slots=True)
class Step:
    """Elements of several tensors that are read in lockstep, in C order, to count their differences.

    Attributes:
        first: index of the first element, the same in all of them.
        elements: how many.
        chunks: how many of the next chunks of each operand hold them; 0 for an operand that takes no part.
        held: how many elements those chunks have, which may be more.
        differences: (operand, ordinal) for each difference operand - operand 0 that is counted.
        gathered: operands whose elements must be put in order first.
    """

    first: int
    elements: int
    chunks: tuple[int, ...]
    held: tuple[int, ...]
    differences: tuple[tuple[int, int], ...]
    gathered: tuple[int, ...] = ()

    @property
    def span(self) -> Span:
        """The elements it covers."""
        return self.first, self.first + self.elements


Sought = tuple[int, int]
"""A magnitude by its rank: the code that it has, and how many smaller ones there are of that code."""


@dataclass(frozen=True, slots=True)
class Merge:
    """Elements of one tensor that are made of those of several, and written.

    Attributes:
        ordinal: of the tensor that is written.
        into: where.
        columns: elements of a row.
        steps: what is read in lockstep; an operand that takes no part in one is absent there.
        arguments: of the method; None where the first operand is copied.
        measured: of a whole tensor, what must be found out first: for each model the ordinal of its
            difference from the base, whose counts are wanted, None where they are not; empty if no difference
            need be counted. Of a copy, whose counts are the copy's too.
        bands: for each model where the ends of its band lie, None where nothing is kept; None if that is not
            known, or not asked for.
        kept: whether what is read stays in memory until all of it is merged.
    """

    ordinal: int
    into: Into
    columns: int
    steps: tuple[Step, ...]
    arguments: dict[str, Any] | None
    measured: tuple[int | None, ...] = ()
    bands: tuple[tuple[Sought, Sought] | None, ...] | None = None
    kept: bool = False

    @property
    def ordinals(self) -> tuple[int, ...]:
        """Of everything that is found out."""
        return self.ordinal, *(o for o in self.measured if o is not None)


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
        ahead: for distant files, how to read them; None for local ones.
        operands: of differences, what is read side by side, the base first; each says where its chunks lie.
        steps: of differences, what is subtracted from what; `files` and `chunks` are empty then.
        products: of adapters, what is multiplied with what.
        merges: what is merged and written; its steps' differences are empty.
        spectrum: the matrix that the chunks are, if its singular values are wanted.
    """

    key: int
    files: tuple[SourceFile, ...]
    chunks: tuple[Chunk, ...]
    block_bytes: int
    projected_bytes: int
    passing: bool = False
    refine: dict[int, tuple[int, ...]] = field(default_factory=dict)
    ahead: Ahead | None = None
    operands: tuple[Task, ...] = ()
    steps: tuple[Step, ...] = ()
    products: tuple[Product, ...] = ()
    merges: tuple[Merge, ...] = ()
    spectrum: Matrix | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that the task reads."""
        return sum(c.nbytes for c in self.chunks) + sum(o.nbytes for o in self.operands)

    @property
    def effort(self) -> int:
        """Bytes that could be read and counted meanwhile, roughly and at the most."""
        if self.spectrum is None:
            return self.nbytes
        return self.nbytes + min(self.spectrum.rows, self.spectrum.columns) ** 3


@dataclass(frozen=True, slots=True)
class Part(Generic[Found_co]):
    """What was found out about a span of a tensor's elements.

    Attributes:
        tensor: the tensor's ordinal.
        span: the elements.
        found: what was found, such as their sketch.
    """

    tensor: int
    span: Span
    found: Found_co


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Found_co]):
    """What a task found: a few tens of kB, however many weights it read.

    Attributes:
        key: the task's.
        nbytes: bytes that it read.
        parts: what it found.
        notes: what its worker has to say of the device that it counts on, a sentence each.
    """

    key: int
    nbytes: int
    parts: tuple[Part[Found_co], ...]
    notes: tuple[str, ...] = ()
