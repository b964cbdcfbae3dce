"""Frozen values that say how an adapter changes the weights of its base."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.nouns.records import Checkpoint, Span

METHODS = {"lora": "LoRA", "rslora": "rsLoRA", "dora": "DoRA", "lora_dash": "LoRA-Dash"}
"""Methods that are known, and what people call them."""


@dataclass(frozen=True, slots=True)
class Dash:
    """What LoRA-Dash adds: U diag(c) V along directions of the base's weight (arXiv 2409.01035).

    Attributes:
        left: ordinal of U, out x k.
        weights: ordinal of c, k numbers.
        right: ordinal of V, k x in.
    """

    left: int
    weights: int
    right: int


@dataclass(frozen=True, slots=True)
class Module:
    """A module that an adapter changes, dW = scale x B A and what its method makes of that.

    Ordinals are those of the tensors of the adapter's own checkpoint.

    Attributes:
        name: of the base's tensor, without the adapter's wrappers.
        shape: of dW, as the base stores it.
        a: ordinal of A, rank x in; None for a module of which DoRA changes nothing but the magnitudes.
        b: ordinal of B, out x rank; likewise.
        rank: columns of B; 0 without factors.
        scale: what the product is multiplied with.
        transposed: whether the base stores (B A)^T, as embeddings do, and linear layers by `fan_in_fan_out`.
        magnitude: ordinal of DoRA's magnitudes, one for each output; None for other methods.
        dash: what LoRA-Dash adds; None for other methods.
    """

    name: str
    shape: tuple[int, ...]
    a: int | None
    b: int | None
    rank: int
    scale: float
    transposed: bool = False
    magnitude: int | None = None
    dash: Dash | None = None

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows and columns of dW as the base stores it; of a convolution, its kernels are rows."""
        rows, columns = self.shape[0], 1
        for size in self.shape[1:]:
            columns *= size
        return rows, columns


@dataclass(frozen=True, slots=True)
class Saved:
    """A tensor that the adapter replaces as a whole: `modules_to_save`, biases, embeddings that have grown.

    Attributes:
        name: of the base's tensor, without the adapter's wrappers.
        tensor: ordinal in the adapter's own checkpoint.
    """

    name: str
    tensor: int


@dataclass(frozen=True, slots=True)
class Other:
    """A tensor of the adapter of which no dW is made.

    Attributes:
        tensor: ordinal in the adapter's own checkpoint.
        reason: why not.
    """

    tensor: int
    reason: str


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter says of itself, before any weight is read.

    Attributes:
        uri: the directory, absolute.
        name: a short name taken from the place.
        fingerprint: hexadecimal digest that changes when the settings or the weights' file change.
        revision: the commit of a versioned store, "" elsewhere.
        method: a key of `METHODS`.
        r: the rank that the settings give for modules without a rule of their own.
        base: name of the base that it was made for, "" if it does not say.
        checkpoint: the file of its weights.
        modules: what it changes, in the file's order.
        saved: what it replaces, likewise.
        others: what is left, likewise.
        note: what a reader should know about every dW, None if nothing.
    """

    uri: str
    name: str
    fingerprint: str
    revision: str
    method: str
    r: int
    base: str
    checkpoint: Checkpoint
    modules: tuple[Module, ...]
    saved: tuple[Saved, ...] = ()
    others: tuple[Other, ...] = ()
    note: str | None = None


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
class Product:
    """Some rows of one dW, and what they are made of.

    Attributes:
        ordinal: of the tensor of differences.
        make: `product` (the sum of the terms), `rows` (DoRA's difference, a magnitude for each row),
            `squares` (nothing that is counted yet: the sums that `columns` needs), `columns` (DoRA's, a
            magnitude for each column) or `saved` (saved - base).
        rows: which, of dW as the base stores it.
        columns: of dW.
        terms: whose sum is scale x B A.
        base: the base's tensor; None for a `product`.
        other: the magnitudes, or what was saved; None for a `product`.
    """

    ordinal: int
    make: str
    rows: Span
    columns: int
    terms: tuple[Term, ...] = ()
    base: Factor | None = None
    other: Factor | None = None

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
