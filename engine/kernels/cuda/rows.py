"""What of a matrix depends on order, for many bands at once: the sums of `engine.kernels.rows`, to the bit.

A program reads a strip of the columns of one band, four rows at a time, with a lane for each column, and adds
up in the CPU's order: down the columns by fours, along the rows by halves. Nothing is contracted. What the
CPU adds up from strip to strip is added up by whoever asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from subprocess import SubprocessError

import torch
import triton  # type: ignore[import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, unused-ignore]
from triton.errors import TritonError  # type: ignore[import-untyped, unused-ignore]

from engine.errors import first_line
from engine.kernels.cuda.native import KINDS, WIDTHS
from engine.kernels.cuda.portable import ELEMENT, widen
from engine.kernels.cuda.tensors import on_device_of

WIDTH = 512
"""Columns of a strip, as in `engine.kernels.rows`."""


@dataclass(frozen=True, slots=True)
class Strips:
    """Sums of consecutive bands, on their device.

    Attributes:
        of_rows: (2, strips, rows) float64, of each row and of its squares.
        of_columns: (bands, 2, columns) float32, the same of each column of a band.
        of_pairs: (bands, 2, strips) float64, of the products of neighbours in a row and in a column.
    """

    of_rows: torch.Tensor
    of_columns: torch.Tensor
    of_pairs: torch.Tensor


@triton.jit
def _eighth(x: tl.tensor, m: tl.constexpr) -> tl.tensor:
    """Add up 8 m numbers that lie m apart: ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))."""
    a, b = tl.split(tl.permute(tl.reshape(x, [4, 2, m]), [0, 2, 1]))
    c, d = tl.split(tl.permute(tl.reshape(a + b, [2, 2, m]), [0, 2, 1]))
    e, f = tl.split(tl.permute(c + d, [1, 0]))
    return e + f


@triton.jit
def _total(x: tl.tensor) -> tl.tensor:
    """Add up a strip, the last eight numbers in float64: (1,)."""
    return _eighth(_eighth(_eighth(x, 64), 8).to(tl.float64), 1)


@triton.jit
def _measure(
    data: tl.tensor, values: tl.tensor, columns: tl.tensor, band: tl.tensor, rows: tl.tensor,
    strips: tl.tensor, of_rows: tl.tensor, of_columns: tl.tensor, of_pairs: tl.tensor,
    kind: tl.constexpr, width: tl.constexpr,
) -> None:  # fmt: skip
    number, strip = tl.program_id(0) // strips, tl.program_id(0) % strips
    column = strip * width + tl.arange(0, width)
    here, beside = column < columns, column + 1 < columns
    first = number.to(tl.int64) * band
    count = tl.minimum(band, rows - first)
    one = tl.arange(0, 1)
    before = tl.zeros([width], tl.float32)
    sums, squares = tl.zeros([width], tl.float32), tl.zeros([width], tl.float32)
    across, down = tl.zeros([width], tl.float32), tl.zeros([width], tl.float32)
    for row in range(0, count, 4):
        at = (first + row) * columns + column
        l1, l2, l3 = row + 1 < count, row + 2 < count, row + 3 < count
        x0, n0 = widen(data, at, here, values, kind), widen(data, at + 1, beside, values, kind)
        at += columns
        x1, n1 = widen(data, at, here & l1, values, kind), widen(data, at + 1, beside & l1, values, kind)
        at += columns
        x2, n2 = widen(data, at, here & l2, values, kind), widen(data, at + 1, beside & l2, values, kind)
        at += columns
        x3, n3 = widen(data, at, here & l3, values, kind), widen(data, at + 1, beside & l3, values, kind)
        sums += (x0 + x1) + (x2 + x3)
        squares += (x0 * x0 + x1 * x1) + (x2 * x2 + x3 * x3)
        across += (x0 * n0 + x1 * n1) + (x2 * n2 + x3 * n3)
        down += (before * x0 + x0 * x1) + (x1 * x2 + x2 * x3)
        before = x3
        place = of_rows + strip * rows + first + row + one
        again = strips * rows  # where the squares begin
        tl.store(place, _total(x0))
        tl.store(place + again, _total(x0 * x0))
        tl.store(place + 1, _total(x1), mask=l1)
        tl.store(place + 1 + again, _total(x1 * x1), mask=l1)
        tl.store(place + 2, _total(x2), mask=l2)
        tl.store(place + 2 + again, _total(x2 * x2), mask=l2)
        tl.store(place + 3, _total(x3), mask=l3)
        tl.store(place + 3 + again, _total(x3 * x3), mask=l3)
    place = of_columns + number * 2 * columns + column
    tl.store(place, sums, mask=here)
    tl.store(place + columns, squares, mask=here)
    place = of_pairs + number * 2 * strips + strip + one
    tl.store(place, _total(across))
    tl.store(place + strips, _total(down))


def measure_rows(
    data: torch.Tensor, kind: str, values: torch.Tensor | None, columns: int, band: int
) -> Strips:
    """Measure consecutive bands, in float32.

    Args:
        data: (bytes,) uint8, whole rows in C order, from the first of a band on.
        kind: of the elements, a key of `native.KINDS`.
        values: of f8, the (256,) float32 that the codes stand for.
        columns: of the matrix.
        band: rows of a band; the last may have fewer.
    """
    rows = data.numel() // (columns * WIDTHS[kind])
    bands, strips = triton.cdiv(rows, band), triton.cdiv(columns, WIDTH)
    made = Strips(
        torch.empty((2, strips, rows), dtype=torch.float64, device=data.device),
        torch.empty((bands, 2, columns), dtype=torch.float32, device=data.device),
        torch.empty((bands, 2, strips), dtype=torch.float64, device=data.device),
    )
    if rows:
        table = made.of_columns if values is None else values  # an address is needed, and not used
        with on_device_of(data):
            _measure[(bands * strips,)](
                data.view(ELEMENT[kind]), table, columns, band, rows, strips,
                made.of_rows, made.of_columns, made.of_pairs,
                kind=KINDS[kind], width=WIDTH, enable_fp_fusion=False,
            )  # fmt: skip
    return made


@cache
def why_not(device: str) -> str | None:
    """Why Triton's loops do not run on a device, None where they do: found out once, by running one.

    Triton compiles its launcher when it is first used, for which it needs a C compiler and Python's headers.
    """
    try:
        measure_rows(torch.zeros(512, dtype=torch.uint8, device=device), "bf16", None, 32, 8).of_rows.cpu()
    except (RuntimeError, OSError, ImportError, AssertionError, SubprocessError, TritonError) as error:
        return first_line(error)
    return None
