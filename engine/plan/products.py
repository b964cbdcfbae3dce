"""From the changes of adapters to tasks that form dW by blocks of rows. What cannot run is refused here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

from engine.nouns.adapters import Module, Noise, Saved
from engine.nouns.records import Checkpoint, SourceFile, Span
from engine.nouns.tasks import Ahead, Chunk, Factor, Into, Product, Scaled, Task, Term
from engine.plan.adapters import Stock
from engine.plan.cutting import cut_tensor, whole_chunks
from engine.plan.limits import (
    BASE_BYTES,
    COUNTER_BYTES,
    FREE_TENSORS,
    MIB,
    MOST_CHUNKS,
    REFINE_BYTES,
    RESULT_BYTES,
    SMALLEST_TASK,
    TASK_BYTES,
    TASKS_PER_WORKER,
    TENSOR_BYTES,
    Fitted,
    Limits,
    fit,
    require_room,
)
from engine.plan.product_memory import held_bytes
from engine.plan.scan import scaled_tensors
from engine.plan.shared import Covered, SharedPlan, without_tasks
from engine.storage.ahead import pool_bytes

SLICE_BYTES = 16 * MIB
"""Of a base's weights, as float32, that are in memory at once while all adapters change them."""
_FORMED_BYTES = 4 * MIB
"""Of a worker: the block that is formed and counted, and what a product needs beside its factors."""
_EVERYTHING = 1 << 62
_BASE = -1  # in place of a stock's number


def plan_adapters(
    stocks: Sequence[Stock],
    limits: Limits,
    covered: Sequence[Covered] = (),
    *,
    exact: bool = False,
    refine: Mapping[int, tuple[int, ...]] | None = None,
) -> SharedPlan:
    """Cut the changes of one or several adapters into tasks; rows of one base's tensor are read once for all.

    Args:
        stocks: of adapters, all of one base or of none.
        limits: how to cut, and the memory limit; a task's bytes are those of the dW that it forms.
        covered: for each stock, by ordinal, the spans that an earlier, interrupted run has counted.
        exact: whether a second pass will follow, which takes more memory.
        refine: for that second pass, the codes of each ordinal, counted over all stocks; no other is formed.

    Raises:
        ConfigError: a limit makes no sense.
        BudgetError: it would not fit into the memory limit.
    """
    offsets = tuple(sum(len(s.inventory.tensors) for s in stocks[:i]) for i in range(len(stocks)))
    jobs = _missing(stocks, offsets, covered or [{}] * len(stocks), refine)
    fitted = fit_products(stocks, jobs, limits)
    tasks = tuple(Cutter(stocks, fitted, refine).tasks(jobs))
    each = max((t.projected_bytes for t in tasks), default=0) + (REFINE_BYTES if exact else 0)
    projected = _base_bytes(stocks, tasks, fitted)
    projected += min(limits.workers, len(tasks)) * (each + fitted.worker_bytes + fitted.device_bytes)
    require_room(limits, projected, stocks[0].inventory.uri)
    plans = tuple(without_tasks(s.inventory, s.changes, projected) for s in stocks)
    return SharedPlan(tasks, offsets, plans, projected)


@dataclass(frozen=True, slots=True)
class Job:
    """The rows of one dW that are to be formed."""

    stock: int
    row: int
    ordinal: int
    matrix: tuple[int, int]
    missing: tuple[Span, ...]


def _missing(
    stocks: Sequence[Stock],
    offsets: Sequence[int],
    covered: Sequence[Covered],
    refine: Mapping[int, tuple[int, ...]] | None,
) -> list[Job]:
    found = []
    for number, (stock, offset, spans) in enumerate(zip(stocks, offsets, covered, strict=True)):
        for row in stock.changes:
            matrix = matrix_of(stock.inventory.tensors[row].shape)
            if not prod(matrix) or (refine is not None and offset + row not in refine):
                continue
            missing = tuple(row_gaps(spans.get(row, ()), matrix))
            if missing:
                found.append(Job(number, row, offset + row, matrix, missing))
    return found


def matrix_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a tensor as a matrix."""
    return (shape[0], prod(shape[1:])) if shape else (1, 1)


def row_gaps(covered: Sequence[Span], matrix: tuple[int, int]) -> Iterator[Span]:
    """Rows that are not covered; what was counted before is whole rows too."""
    rows, columns = matrix
    position = 0
    for start, stop in (*sorted(covered), (rows * columns, rows * columns)):
        if start > position:
            yield position // columns, start // columns
        position = max(position, stop)


def fit_products(stocks: Sequence[Stock], jobs: Sequence[Job], limits: Limits) -> Fitted:
    """Limits for what is formed; those of requests for what is read."""
    formed = sum(4 * (b - a) * job.matrix[1] for job in jobs for a, b in job.missing)
    fair = -(-formed // (limits.workers * TASKS_PER_WORKER))
    read = sum(s.adapter.checkpoint.nbytes for s in stocks)
    bases = {b: s.base for s in stocks if s.base is not None for b in s.bases.values()}
    read += sum(base.tensors[i].nbytes for i, base in bases.items())
    fitted = fit(limits, read, distant=any(s.inventory.distant for s in stocks))
    most = limits.task_bytes or min(TASK_BYTES, max(SMALLEST_TASK, fair))
    return replace(fitted, task_bytes=most)


def _base_bytes(stocks: Sequence[Stock], tasks: Sequence[Task], fitted: Fitted) -> int:
    rows = sum(len(s.inventory.tensors) + len(s.adapter.checkpoint.tensors) for s in stocks)
    buffers = max((pool_bytes(t.ahead) for t in tasks if t.ahead is not None), default=0)
    return BASE_BYTES + max(0, rows - FREE_TENSORS) * TENSOR_BYTES + buffers


class Cutter:
    """Cuts products, and gathers them into tasks.

    Args:
        stocks: of adapters.
        fitted: how to cut.
        refine: as for `plan_adapters`.
        into: for ordinals that are written, where.
    """

    def __init__(
        self,
        stocks: Sequence[Stock],
        fitted: Fitted,
        refine: Mapping[int, tuple[int, ...]] | None = None,
        into: Mapping[int, Into] | None = None,
    ) -> None:
        self._stocks, self._fitted, self._refine, self._into = stocks, fitted, refine, into or {}
        self._base = next((s.base for s in stocks if s.base is not None), None)
        self._scaled = scaled_tensors(self._base) if self._base is not None else {}
        read = sum(c.nbytes for c in (*(s.adapter.checkpoint for s in stocks), self._base) if c is not None)
        self._passing = fitted.cache_bytes is not None and read > fitted.cache_bytes
        self._distant = any(s.inventory.distant for s in stocks)
        self._key = 0
        self._clear()

    def _clear(self) -> None:
        self._files: dict[SourceFile, int] = {}
        self._chunks: list[Chunk] = []
        self._products: list[Product] = []
        self._seen: dict[tuple[int, int, Span], Span] = {}
        self._measured: set[int] = set()
        self._formed = 0

    def tasks(self, jobs: Sequence[Job]) -> Iterator[Task]:
        """The tasks of all jobs: first what needs no base, then the base's tensors in order."""
        own: dict[int, list[Job]] = defaultdict(list)
        for job in jobs:
            if job.row in self._stocks[job.stock].bases:
                own[self._stocks[job.stock].bases[job.row]].append(job)
            else:
                yield from self._alone(job)
        for ordinal in sorted(own):
            yield from self._together(ordinal, own[ordinal])
        if self._products:
            yield self._task()

    def _alone(self, job: Job) -> Iterator[Task]:
        """Products that need nothing but the factors."""
        step = max(self._fitted.task_bytes // (4 * job.matrix[1]), 1)
        for first, last in job.missing:
            for start in range(first, last, step):
                rows = start, min(start + step, last)
                yield from self._make_room(rows, job.matrix[1])
                self._products.append(self._product(job, rows))

    def _product(self, job: Job, rows: Span) -> Product:
        """Rows of a dW that need nothing but the adapter."""
        terms, noise = self._terms(job, rows), self._noise(job)
        if noise is None:
            return Product(job.ordinal, "product", rows, job.matrix[1], terms)
        return Product(job.ordinal, "noise", rows, job.matrix[1], terms, None, self._scale(job, noise), noise)

    def _noise(self, job: Job) -> Noise | None:
        change = self._stocks[job.stock].changes[job.row]
        return change.noise if isinstance(change, Module) else None

    def _scale(self, job: Job, noise: Noise) -> Factor:
        return self._factor(job.stock, noise.scale, (0, 1), (1, 1))

    def _together(self, ordinal: int, jobs: Sequence[Job]) -> Iterator[Task]:
        """Products of all adapters that need a tensor of the base."""
        columns = jobs[0].matrix[1]
        assert self._base is not None
        for first, last, own in _stretches(jobs):
            by_column = any(self._make(job) == "columns" for job in own)
            cuttable = not by_column and self._is_plain(self._base, ordinal)
            most = max(self._fitted.task_bytes // (4 * columns * len(own)), 1) if cuttable else last - first
            for start in range(first, last, most):
                rows = start, min(start + most, last)
                yield from self._make_room(rows, columns * len(own))
                if by_column:
                    self._measure(ordinal, own)
                for part in self._slices(ordinal, rows, columns):
                    self._change(ordinal, own, part, rows)

    def _slices(self, ordinal: int, rows: Span, columns: int) -> Iterator[Span]:
        """Cut rows of the base so that a slice of it may stay in memory."""
        assert self._base is not None
        if not self._is_plain(self._base, ordinal):
            yield rows
            return
        step = max(min(SLICE_BYTES, self._fitted.task_bytes) // (4 * columns), 1)
        for start in range(rows[0], rows[1], step):
            yield start, min(start + step, rows[1])

    def _measure(self, ordinal: int, jobs: Sequence[Job]) -> None:
        """Have the columns of base + scale x B A measured, once a task, which takes all of their rows."""
        jobs = [j for j in jobs if self._make(j) == "columns" and j.ordinal not in self._measured]
        if not jobs:
            return
        self._measured |= {job.ordinal for job in jobs}
        whole = 0, jobs[0].matrix[0]
        parts = list(self._slices(ordinal, whole, jobs[0].matrix[1]))
        for part in parts:
            base = self._factor(_BASE, ordinal, part, jobs[0].matrix)
            for job in jobs:
                terms = self._terms(job, whole)
                self._products.append(Product(job.ordinal, "squares", part, job.matrix[1], terms, base))
        if len(parts) > 1:  # what is too much to be held is read again
            self._seen = {key: chunks for key, chunks in self._seen.items() if key[0] != _BASE}

    def _change(self, ordinal: int, jobs: Sequence[Job], part: Span, rows: Span) -> None:
        base = self._factor(_BASE, ordinal, part, jobs[0].matrix)
        for job in jobs:
            make, change = self._make(job), self._stocks[job.stock].changes[job.row]
            other: Factor | None
            if isinstance(change, Saved):
                terms: tuple[Term, ...] = ()
                other = self._factor(job.stock, change.tensor, part, job.matrix)
            elif change.noise is not None:
                terms, other = self._terms(job, rows), self._scale(job, change.noise)
            elif change.magnitude is None:
                terms, other = self._terms(job, rows), None
            else:
                terms = self._terms(job, rows)
                outputs = job.matrix[1 if make == "columns" else 0]
                other = self._factor(job.stock, change.magnitude, (0, outputs), (outputs, 1))
            noise, into = self._noise(job), self._into.get(job.ordinal)
            product = Product(job.ordinal, make, part, job.matrix[1], terms, base, other, noise, into)
            self._products.append(product)

    def _make(self, job: Job) -> str:
        change = self._stocks[job.stock].changes[job.row]
        if isinstance(change, Saved):
            return "saved"
        if change.noise is not None:
            return "noise"
        if change.magnitude is None:
            return "product"
        return "columns" if change.transposed else "rows"

    def _terms(self, job: Job, rows: Span) -> tuple[Term, ...]:
        """What makes up scale x B A, as the base stores it; where possible, only what these rows need."""
        module = self._stocks[job.stock].changes[job.row]
        assert isinstance(module, Module)
        terms, dash = [], module.dash
        if module.a is not None and module.b is not None:
            terms.append(self._term(job, module, module.b, module.a, module.rank, rows))
        if dash is not None:
            count = prod(self._stocks[job.stock].adapter.checkpoint.tensors[dash.weights].shape)
            weights = self._factor(job.stock, dash.weights, (0, 1), (1, count))
            term = self._term(job, module, dash.left, dash.right, count, rows)
            terms.append(replace(term, scale=1.0, weights=weights))
        return tuple(terms)

    def _term(self, job: Job, module: Module, left: int, right: int, rank: int, rows: Span) -> Term:
        outputs, inputs = job.matrix[::-1] if module.transposed else job.matrix
        own = (0, outputs) if module.transposed else rows
        b = self._factor(job.stock, left, own, (outputs, rank))
        a = self._factor(job.stock, right, (0, rank), (rank, inputs))
        if module.transposed:
            return Term(replace(a, transposed=True), replace(b, transposed=True), module.scale)
        return Term(b, a, module.scale)

    def _factor(self, stock: int, ordinal: int, rows: Span, matrix: tuple[int, int]) -> Factor:
        """Rows of a matrix, or all of one that cannot be cut, among the chunks of the task."""
        checkpoint = self._base if stock == _BASE else self._stocks[stock].adapter.checkpoint
        assert checkpoint is not None
        if not self._is_plain(checkpoint, ordinal):
            rows = 0, matrix[0]
        key = stock, ordinal, rows
        if key not in self._seen:
            first = len(self._chunks)
            span = rows[0] * matrix[1], rows[1] * matrix[1]
            self._chunks += (self._own(c, checkpoint) for c in self._cut(checkpoint, ordinal, span))
            self._seen[key] = first, len(self._chunks)
        return Factor(self._seen[key], *matrix)

    def _cut(self, checkpoint: Checkpoint, ordinal: int, span: Span) -> Iterator[Chunk]:
        """Chunks that hold a span; of what cannot be cut, all."""
        tensor, scaled = checkpoint.tensors[ordinal], None
        if tensor.scaling is not None:  # the values are made of the codes
            ordinal = tensor.scaling.codes
            tensor, scaled = checkpoint.tensors[ordinal], self._scaled[ordinal]
        if not self._is_plain(checkpoint, ordinal):
            chunks = whole_chunks(ordinal, tensor)
        else:
            outside = (0, span[0]), (span[1], tensor.elements)
            chunks = cut_tensor(ordinal, tensor, outside, _EVERYTHING)
        yield from (replace(c, scaled=scaled) for c in chunks)

    def _is_plain(self, checkpoint: Checkpoint, ordinal: int) -> bool:
        scaling = checkpoint.tensors[ordinal].scaling
        tensor = checkpoint.tensors[ordinal if scaling is None else scaling.codes]
        return all(p.plain for p in tensor.stored)

    def _own(self, chunk: Chunk, checkpoint: Checkpoint) -> Chunk:
        """The same chunk, its files counted among those of the task."""
        scaled: Scaled | None = chunk.scaled
        if scaled is not None:
            scaled = replace(scaled, factors=tuple(self._own(c, checkpoint) for c in scaled.factors))
        number = self._files.setdefault(checkpoint.files[chunk.file], len(self._files))
        return replace(chunk, file=number, scaled=scaled)

    def _make_room(self, rows: Span, columns: int) -> Iterator[Task]:
        """End the task if it would become too large; nothing that another one needs is read for it."""
        size = 4 * (rows[1] - rows[0]) * columns
        full = self._formed + size > self._fitted.task_bytes or len(self._chunks) >= MOST_CHUNKS
        if self._products and full:
            yield self._task()
        self._formed += size
        self._seen = {}

    def _task(self) -> Task:
        block = min(self._fitted.block_bytes, -(-max((c.nbytes for c in self._chunks), default=8) // 8) * 8)
        ahead = Ahead(self._fitted.ranges, self._fitted.range_bytes) if self._distant else None
        counted = {p.ordinal for p in self._products}
        results = sum(min(RESULT_BYTES // 8, 32 * (p.span[1] - p.span[0])) for p in self._products)
        memory = (
            block
            + COUNTER_BYTES["f32"]
            + results
            + RESULT_BYTES
            + _FORMED_BYTES
            + held_bytes(self._chunks, self._products)
        )
        codes = {o: self._refine[o] for o in sorted(counted)} if self._refine is not None else {}
        task = Task(
            self._key,
            tuple(self._files),
            tuple(self._chunks),
            block,
            memory,
            self._passing,
            codes,
            ahead,
            products=tuple(self._products),
        )
        self._key += 1
        self._clear()
        return task


def _stretches(jobs: Sequence[Job]) -> Iterator[tuple[int, int, list[Job]]]:
    """Rows that are missing of the same jobs, as (first, behind the last, those jobs)."""
    edges = sorted({edge for job in jobs for span in job.missing for edge in span})
    for first, last in pairwise(edges):
        own = [j for j in jobs if any(start <= first and last <= stop for start, stop in j.missing)]
        if own:
            yield first, last, own
