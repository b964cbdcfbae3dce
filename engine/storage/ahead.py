"""Reading what is far away: several large requests at once, ahead of whoever counts, in order.

A process has one pool for each setting, whatever the number of its workers: so many requests are under way at
once, and a few more buffers than that exist. A worker with nothing under way may wait for a buffer; one
that has something takes another only if one is free. So nobody waits for anybody who waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from queue import Empty, SimpleQueue

from engine.nouns.tasks import Ahead
from engine.storage.reader import Reader

SPARE = 2
"""Buffers beyond the requests under way: those that are being counted."""
_GAP = 32 << 10  # bytes between two stretches that are cheaper to read than to skip


@dataclass(frozen=True, slots=True)
class Extent:
    """A stretch of a file.

    Attributes:
        file: which of the task's files.
        offset: its first byte.
        nbytes: its length.
    """

    file: int
    offset: int
    nbytes: int


@dataclass(slots=True)
class _Request:
    file: int
    offset: int
    nbytes: int
    wanted: list[tuple[int, int]]  # where the stretches lie in it: offset, length


class _Queue:
    """Requests that can be looked at before they are taken."""

    def __init__(self, requests: Iterator[_Request]) -> None:
        self._requests = requests
        self._first: _Request | None = None

    def peek(self) -> _Request | None:
        if self._first is None:
            self._first = next(self._requests, None)
        return self._first

    def drop(self) -> None:
        self._first = None


class Buffers:
    """Requests at once, and the buffers that they fill.

    Args:
        ahead: how many, and how large.
    """

    def __init__(self, ahead: Ahead) -> None:
        self.threads = ThreadPoolExecutor(ahead.ranges, thread_name_prefix="gaussmeter-range")
        self._free: SimpleQueue[bytearray | None] = SimpleQueue()
        self._range_bytes = ahead.range_bytes
        for _ in range(ahead.ranges + SPARE):
            self._free.put(None)  # made when first needed

    def take(self, *, wait: bool) -> bytearray | None:
        """A buffer; None if there is none now."""
        try:
            buffer = self._free.get(block=wait)
        except Empty:
            return None
        return buffer if buffer is not None else bytearray(self._range_bytes)

    def give(self, buffer: bytearray) -> None:
        """Let somebody else have it."""
        self._free.put(buffer)


@lru_cache(maxsize=1)  # the buffers of a setting that is no longer used are given up
def _shared(ahead: Ahead) -> Buffers:
    return Buffers(ahead)


def pool_bytes(ahead: Ahead) -> int:
    """Memory of a process's buffers."""
    return (ahead.ranges + SPARE) * ahead.range_bytes


def read_ahead(
    readers: Sequence[Reader], extents: Iterable[Extent], ahead: Ahead, own: Buffers | None = None
) -> Iterator[memoryview]:
    """Read stretches of files by parallel requests.

    Args:
        readers: the open files.
        extents: in the order in which their bytes are wanted.
        ahead: how many requests at once, and their size.
        own: buffers that nobody else takes, for a thread that reads several things side by side: with shared
            ones it could wait for what it holds itself.

    Yields:
        the bytes of the extents one after the other, in blocks that never hold bytes of two; all blocks of an
        extent but its last are a multiple of 8 bytes. A block is valid until the next is asked for.

    Raises:
        FormatError, TaskError: as for `Reader.read_into`.
    """
    pool = own or _shared(ahead)
    requests = _Queue(_requests(extents, ahead.range_bytes))
    under_way: deque[tuple[_Request, bytearray, Future[None]]] = deque()
    held: bytearray | None = None
    try:
        while True:
            _send(pool, readers, requests, under_way, ahead.ranges)
            if not under_way:
                return
            request, held, done = under_way.popleft()
            done.result()
            view = memoryview(held)
            for offset, nbytes in request.wanted:
                yield view[offset : offset + nbytes]
            pool.give(held)
            held = None
    finally:
        if held is not None:
            pool.give(held)
        _abandon(pool, under_way)


def _send(
    pool: Buffers,
    readers: Sequence[Reader],
    requests: _Queue,
    under_way: deque[tuple[_Request, bytearray, Future[None]]],
    most: int,
) -> None:
    while len(under_way) < most and (request := requests.peek()) is not None:
        buffer = pool.take(wait=not under_way)
        if buffer is None:
            return
        part = memoryview(buffer)[: request.nbytes]
        done = pool.threads.submit(readers[request.file].read_into, part, request.offset)
        under_way.append((request, buffer, done))
        requests.drop()


def _abandon(pool: Buffers, under_way: deque[tuple[_Request, bytearray, Future[None]]]) -> None:
    """Give buffers back once nobody writes into them."""
    for _, buffer, done in under_way:
        done.cancel()
        done.add_done_callback(lambda _, b=buffer: pool.give(b))  # type: ignore[misc]


def _requests(extents: Iterable[Extent], most: int) -> Iterator[_Request]:
    """Join stretches that lie close together, and cut those that are larger than a request."""
    current: _Request | None = None
    for extent in extents:
        if current is not None and _joins(current, extent, most):
            current.wanted.append((extent.offset - current.offset, extent.nbytes))
            current.nbytes = extent.offset + extent.nbytes - current.offset
            continue
        if current is not None:
            yield current
        current = None
        for start in range(0, extent.nbytes, most):
            if current is not None:
                yield current
            nbytes = min(most, extent.nbytes - start)
            current = _Request(extent.file, extent.offset + start, nbytes, [(0, nbytes)])
    if current is not None:
        yield current


def _joins(request: _Request, extent: Extent, most: int) -> bool:
    gap = extent.offset - (request.offset + request.nbytes)
    together = extent.offset + extent.nbytes - request.offset
    return extent.file == request.file and 0 <= gap <= _GAP and together <= most
