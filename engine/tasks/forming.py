"""Forming what adapters change, by blocks of rows.

The change is formed in float32, whatever the dtypes of the factors and of the base, which are converted
first: scale x (B A) as PEFT's `get_delta_weight` has it (LoRA, arXiv 2106.09685; rsLoRA, 2312.03732), plus
U diag(c) V of LoRA-Dash (2409.01035); DoRA's (m / ||W + dW||) (W + dW) - W (2402.09353, eq. 5); s N or s W
of a learnt scalar (2501.10661), N drawn again by position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.kernels import differences, noise, products
from engine.nouns.dtypes import DTYPES
from engine.nouns.tasks import Chunk, Factor, Product, Task, Term
from engine.tasks.blocks import Block
from engine.tasks.lockstep import Elements
from engine.tasks.scaled import Dequantiser

_BLOCK = 1 << 17  # elements that are formed and used while they stay in the second-level cache
_WIDTH = 4 * products.STRIP  # columns of a block, so that a strip of the right factor serves many rows

Floats = NDArray[np.float32]
Patterns = NDArray[np.uint32]


class Former:
    """Forms the changes of one product after the other; what it yields is valid until more is asked for."""

    def __init__(self) -> None:
        self._out = np.empty(_BLOCK, np.uint32)
        self._squares: dict[int, NDArray[np.float64]] = {}

    def forget(self) -> None:
        """Begin another task."""
        self._squares = {}

    def parts(self, product: Product, held: Held) -> Iterator[Patterns]:
        """Form everything, in any order: (n,) uint32 patterns of float32 at a time."""
        if product.make == "product" and product.base is None:
            yield from self._multiplied(product, held)
            return
        for _, _, change in self.rows(product, held):
            yield change

    def rows(self, product: Product, held: Held) -> Iterator[tuple[int, int, Patterns]]:
        """Form whole rows, in order.

        Yields:
            the first row among those of the product, the one behind the last, and their changes, flat.
        """
        if product.make == "saved":
            yield from self._subtracted(product, held)
        elif product.make == "product":
            yield from self._summed(product, held)
        elif product.make == "noise":
            yield from self._noisy(product, held)
        else:
            yield from self._normalised(product, held)

    def _multiplied(self, product: Product, held: Held) -> Iterator[Patterns]:
        """Form scale x B A in blocks that need not be whole rows."""
        sums = Sums(product, held)
        count = product.rows[1] - product.rows[0]
        width = min(_WIDTH, product.columns)
        for start, stop in _blocks(count, _BLOCK // width):
            for column in range(0, product.columns, width):
                w = min(width, product.columns - column)
                out = self._buffer((stop - start) * w)
                sums.form(start, stop, column, w, out)
                yield out

    def _subtracted(self, product: Product, held: Held) -> Iterator[tuple[int, int, Patterns]]:
        """Form saved - base."""
        assert product.base is not None
        assert product.other is not None
        base, saved = (held.rows(f, *product.rows) for f in (product.base, product.other))
        for start, stop in self._row_blocks(product):
            out = self._buffer((stop - start) * product.columns)
            differences.subtract_f32(saved[start:stop].reshape(-1), base[start:stop].reshape(-1), out)
            yield start, stop, out

    def _summed(self, product: Product, held: Held) -> Iterator[tuple[int, int, Patterns]]:
        """Form scale x B A."""
        sums = Sums(product, held)
        for start, stop in self._row_blocks(product):
            out = self._buffer((stop - start) * product.columns)
            sums.form(start, stop, 0, product.columns, out)
            yield start, stop, out

    def _row_blocks(self, product: Product) -> Iterator[tuple[int, int]]:
        return _blocks(product.rows[1] - product.rows[0], _BLOCK // max(product.columns, 1))

    def _noisy(self, product: Product, held: Held) -> Iterator[tuple[int, int, Patterns]]:
        """Form scale x B A + s N, or what the scalar makes of the base's rows."""
        assert product.noise is not None
        assert product.other is not None
        key, sums = np.uint64(product.noise.key), Sums(product, held)
        scale = held.rows(product.other, 0, 1)[0, 0]
        base = held.rows(product.base, *product.rows) if product.base is not None else None
        for start, stop in self._row_blocks(product):
            out = self._buffer((stop - start) * product.columns)
            sums.form(start, stop, 0, product.columns, out)
            own = base[start:stop].reshape(-1) if base is not None else None
            if product.noise.form == "weights":
                noise.add_scaled(own, scale, out)
            else:
                first = (product.rows[0] + start) * product.columns
                noise.add_gaussian(key, np.uint64(first), scale, out)
                if product.noise.form == "replaced":
                    noise.subtract(own, out)
            yield start, stop, out

    def measure(self, product: Product, held: Held) -> None:
        """Add up the squares of each column, for magnitudes of columns."""
        if product.ordinal not in self._squares:
            self._squares[product.ordinal] = np.zeros(product.columns)
        sums = self._squares[product.ordinal]
        for _, _, base, delta in self._whole_rows(product, held):
            products.add_column_squares(base, delta.view(np.float32), sums)

    def _normalised(self, product: Product, held: Held) -> Iterator[tuple[int, int, Patterns]]:
        """Form DoRA's difference."""
        assert product.other is not None
        magnitudes = held.rows(product.other, 0, product.other.rows).reshape(-1)
        by_column = product.make == "columns"
        factors = np.empty(product.columns if by_column else _BLOCK, np.float32)
        if by_column:
            products.column_factors(magnitudes, self._squares[product.ordinal], factors)
        for start, stop, base, delta in self._whole_rows(product, held):
            if not by_column:
                factors = np.empty(stop - start, np.float32)
                own = magnitudes[product.rows[0] + start : product.rows[0] + stop]
                products.norm_factors(base, delta.view(np.float32), own, factors)
            products.rescale(base, delta, factors, by_column)
            yield start, stop, delta.reshape(-1)

    def _whole_rows(self, product: Product, held: Held) -> Iterator[tuple[int, int, Floats, Patterns]]:
        """Form scale x B A in blocks of whole rows; with the first, behind the last, and the base's rows."""
        assert product.base is not None
        base, sums = held.rows(product.base, *product.rows), Sums(product, held)
        for start, stop in self._row_blocks(product):
            out = self._buffer((stop - start) * product.columns)
            sums.form(start, stop, 0, product.columns, out)
            yield start, stop, base[start:stop], out.reshape(-1, product.columns)

    def _buffer(self, elements: int) -> NDArray[np.uint32]:
        """Room for a block; long rows take more than usual, and give it back."""
        return self._out[:elements] if elements <= self._out.size else np.empty(elements, np.uint32)


class Held:
    """The chunks of a task that were read and are still needed, as float32.

    Args:
        task: whose products say what is needed.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._arrays: dict[int, Floats] = {}
        self._uses: dict[int, int] = {}
        for product in task.products:
            for number in product.chunks:
                self._uses[number] = self._uses.get(number, 0) + 1

    def put(self, number: int, chunk: Chunk, blocks: Iterator[Block]) -> None:
        """Keep a chunk."""
        out = np.empty(chunk.elements, np.float32)
        dequantiser = Dequantiser(self._task, chunk) if chunk.scaled is not None else None
        done = 0
        for block in blocks:
            dtype, data = ("F32", dequantiser.values(block)) if dequantiser else (chunk.dtype, block)
            found = Elements(dtype, data.view(f"<u{DTYPES[dtype].bits // 8}")).floats()
            out[done : done + found.size] = found
            done += found.size
        self._arrays[number] = out

    def drop(self, product: Product) -> None:
        """Say that a product is done with its chunks."""
        for number in product.chunks:
            self._uses[number] -= 1
            if not self._uses[number]:
                del self._arrays[number]

    def rows(self, factor: Factor, start: int, stop: int) -> Floats:
        """Some rows of a matrix as it is stored, (stop - start, columns) float32."""
        chunks = [self._task.chunks[n] for n in range(*factor.chunks)]
        arrays = [self._arrays[n] for n in range(*factor.chunks)]
        if any(c.piece is not None and c.piece.at is not None for c in chunks):
            first, flat = 0, _in_place(chunks, arrays, factor.rows * factor.columns)
        elif not chunks:
            first, flat = 0, np.empty(0, np.float32)
        else:
            first, flat = chunks[0].first, arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        flat = flat[start * factor.columns - first : stop * factor.columns - first]
        return flat.reshape(stop - start, factor.columns)


def _in_place(chunks: list[Chunk], arrays: list[Floats], elements: int) -> Floats:
    """Put the elements of pieces that lie in another order into C order."""
    out = np.empty(elements, np.float32)
    for chunk, array in zip(chunks, arrays, strict=True):
        at = chunk.piece.at if chunk.piece is not None else None
        if at is None:
            out[chunk.first : chunk.first + array.size] = array
        else:
            strides = tuple(4 * s for s in at.strides)
            np.lib.stride_tricks.as_strided(out[at.start :], at.shape, strides)[...] = array.reshape(at.shape)
    return out


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A term, laid out for the kernel."""

    left: Floats
    right: Floats
    rank: int
    scale: np.float32


class Sums:
    """Forms blocks of the sum of a product's terms, in their order.

    Args:
        product: whose.
        held: its factors.
    """

    def __init__(self, product: Product, held: Held) -> None:
        self._terms = [_prepare(term, product, held) for term in product.terms]

    def form(self, start: int, stop: int, column: int, width: int, out: NDArray[np.uint32]) -> None:
        """Form a block.

        Args:
            start: its first row among those of the product, a multiple of the kernel's tile.
            stop: behind its last row.
            column: its first column, a multiple of the kernel's strip.
            width: how many columns.
            out: ((stop - start) * width,) uint32, patterns of float32.
        """
        if not self._terms:
            out[:] = 0
        for number, term in enumerate(self._terms):
            left = term.left[start * term.rank :]
            products.form(
                left,
                term.right,
                term.rank,
                stop - start,
                column // products.STRIP,
                width,
                term.scale,
                number > 0,
                out,
            )


@dataclass(frozen=True, slots=True)
class Factors:
    """A product as it is asked for: scale x (left @ right).

    Attributes:
        left: (rows, rank) float32.
        right: (rank, columns) float32.
        scale: rounded to float32.
    """

    left: Floats
    right: Floats
    scale: float


def only_factors(product: Product, held: Held) -> Factors | None:
    """What a change is the product of; None where it is more than one product."""
    if product.make != "product" or product.base is not None or len(product.terms) != 1:
        return None
    return _factors(product.terms[0], product, held)


def _factors(term: Term, product: Product, held: Held) -> Factors:
    left = _meant(term.left, held, *product.rows)
    if term.weights is not None:
        left = left * held.rows(term.weights, 0, 1)
    return Factors(left, _meant(term.right, held, 0, left.shape[1]), term.scale)


def _prepare(term: Term, product: Product, held: Held) -> _Prepared:
    factors = _factors(term, product, held)
    rows, rank = factors.left.shape
    padded = np.zeros((-(-rows // products.TILE) * products.TILE, rank), np.float32)
    padded[:rows] = factors.left
    right = np.ascontiguousarray(factors.right)
    return _Prepared(padded.reshape(-1), products.strips_of(right), rank, np.float32(term.scale))


def _meant(factor: Factor, held: Held, start: int, stop: int) -> Floats:
    """Rows of a matrix, or of its transpose if that is meant."""
    if factor.transposed:
        return held.rows(factor, 0, factor.rows)[:, start:stop].T
    return held.rows(factor, start, stop)


def _blocks(count: int, most: int) -> Iterator[tuple[int, int]]:
    """Cut so many rows, or elements, into blocks that begin where a tile of the kernel does."""
    step = max(most // products.TILE * products.TILE, products.TILE)
    for start in range(0, count, step):
        yield start, min(start + step, count)
