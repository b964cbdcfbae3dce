"""How much memory forming the products of a task takes."""

from __future__ import annotations

from collections.abc import Sequence

from engine.nouns.tasks import Chunk, Product


def held_bytes(chunks: Sequence[Chunk], products: Sequence[Product]) -> int:
    """The most that is held of the chunks at once, as float32, and what one product makes of its factors."""
    last: dict[int, int] = {}
    for number, product in enumerate(products):
        last |= dict.fromkeys(product.chunks, number)
    held = most = done = 0
    for number, product in enumerate(products):
        needed = max(product.chunks, default=-1) + 1
        held += sum(_in_memory(c) for c in chunks[done:needed])
        done = max(done, needed)
        most = max(most, held + _prepared_bytes(product))
        held -= sum(_in_memory(chunks[n]) for n in product.chunks if last[n] == number)
    return most


def _in_memory(chunk: Chunk) -> int:
    """As float32, and while it is read as stored, decompressed and picked out."""
    piece = chunk.piece
    return 4 * chunk.elements + (chunk.nbytes + piece.memory if piece is not None else 0)


def _prepared_bytes(product: Product) -> int:
    """Copies of the factors, laid out for the kernel, and rows that are formed whole."""
    size = 0
    for term in product.terms:
        rank = term.left.rows if term.left.transposed else term.left.columns
        rows = product.rows[1] - product.rows[0]
        size += 4 * rank * (rows + 2 * product.columns + 1024)
    by_parts = product.make in ("product", "saved") and product.into is None
    whole_rows = 0 if by_parts else 4 * 4 * product.columns
    return size + whole_rows + 8 * product.columns * (product.make in ("squares", "columns"))
