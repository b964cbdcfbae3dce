"""Parallel reads arrive in order and whole, their buffers come back, and nobody waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import TaskError
from engine.execution.in_process import InProcessExecutor
from engine.nouns.tasks import Ahead, Task
from engine.storage import ahead as module
from engine.storage.ahead import SPARE, Extent, pool_bytes, read_ahead

FILE = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8).tobytes()
PATIENCE = 20  # seconds; whoever waits longer waits for ever
_sizes = count(1)


class Fake:
    """A reader over bytes that counts the requests under way, and may be slow or fail."""

    def __init__(self, content: bytes = FILE, *, delay: float = 0.0, failing: int | None = None) -> None:
        self.content, self.delay, self.failing = content, delay, failing
        self.requests: list[tuple[int, int]] = []
        self.serving = self.peak = 0
        self.lock = threading.Lock()

    def read_into(self, buffer: memoryview, offset: int) -> None:
        with self.lock:
            self.requests.append((offset, len(buffer)))
            number = len(self.requests)
            self.serving += 1
            self.peak = max(self.peak, self.serving)
        try:
            time.sleep(self.delay)
            if self.failing is not None and number >= self.failing:
                raise TaskError("cannot be read", file="fake")
            assert offset + len(buffer) <= len(self.content)
            buffer[:] = self.content[offset : offset + len(buffer)]
        finally:
            with self.lock:
                self.serving -= 1


def fresh(ranges: int) -> Ahead:
    """A setting of a pool that no other test has used."""
    return Ahead(ranges, 4096 + 8 * next(_sizes))


def within(work: Callable[[], Any]) -> Any:
    """The work's result; a deadlock fails instead of hanging."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "deadlock"
    assert found, "it failed in its thread"
    return found[0]


def assert_all_buffers_back(ahead: Ahead, patience: float = PATIENCE) -> None:
    """Soon: requests that were abandoned end first."""
    free = module._shared(ahead)._free
    deadline = time.monotonic() + patience
    while free.qsize() < ahead.ranges + SPARE and time.monotonic() < deadline:
        time.sleep(0.001)
    assert free.qsize() == ahead.ranges + SPARE


def blocks_of(readers: list[Fake], extents: list[Extent], ahead: Ahead) -> list[bytes]:
    return [bytes(block) for block in read_ahead(readers, iter(extents), ahead)]


def shared_out(blocks: list[bytes], extents: list[Extent]) -> Iterator[list[bytes]]:
    """The blocks of each extent, none of which may hold bytes of two."""
    left = iter(blocks)
    for extent in extents:
        mine: list[bytes] = []
        while (got := sum(map(len, mine))) < extent.nbytes:
            mine.append(next(left))
        assert got == extent.nbytes
        yield mine
    assert b"".join(left) == b""


def far_apart(number: int, nbytes: int) -> list[Extent]:
    """Extents that share no request."""
    return [Extent(0, i * (len(FILE) // number), nbytes) for i in range(number)]


# What arrives


GAPS = st.one_of(st.integers(0, 64), st.integers(0, 70_000))
LENGTHS = st.one_of(st.integers(0, 40), st.integers(0, 3000), st.sampled_from([8, 64, 65, 128, 4096]))


@given(
    steps=st.lists(st.tuples(st.integers(0, 2), GAPS, LENGTHS, st.booleans()), max_size=30),
    ranges=st.sampled_from([1, 2, 5]),
    range_bytes=st.sampled_from([8, 64, 1000, 1 << 16]),
)
def test_the_blocks_are_the_extents(steps, ranges, range_bytes):
    """In any order, over several files, touching, overlapping, far apart, empty."""
    extents, position = [], 0
    for file, gap, nbytes, back in steps:
        position = max(0, position - gap) if back else position + gap
        position = position if position + nbytes <= len(FILE) else 0
        extents.append(Extent(file, position, nbytes))
        position += nbytes
    files = [FILE, FILE[::-1], bytes(b ^ 0x55 for b in FILE[: 1 << 10]) + FILE[1 << 10 :]]
    readers = [Fake(content) for content in files]
    ahead = Ahead(ranges, range_bytes)
    blocks = within(lambda: blocks_of(readers, extents, ahead))
    for extent, mine in zip(extents, shared_out(blocks, extents), strict=True):
        wanted = files[extent.file][extent.offset : extent.offset + extent.nbytes]
        assert b"".join(mine) == wanted
        assert all(len(block) % 8 == 0 for block in mine[:-1])
    assert all(nbytes <= range_bytes for reader in readers for _, nbytes in reader.requests)
    assert all(reader.peak <= ranges for reader in readers)
    assert_all_buffers_back(ahead)


@pytest.mark.parametrize(
    ("gap", "requests"),
    [(0, 1), (module._GAP // 64, 1), (module._GAP + 1, 8)],
)
def test_small_neighbours_share_a_request(gap, requests):
    """What lies between them is read with them, if it is little."""
    extents = [Extent(0, i * (gap + 24), 24) for i in range(8)]
    reader = Fake()
    assert blocks_of([reader], extents, Ahead(2, 1 << 16)) == [
        FILE[e.offset : e.offset + e.nbytes] for e in extents
    ]
    assert len(reader.requests) == requests
    assert sum(nbytes for _, nbytes in reader.requests) == 8 * 24 + (7 * gap if requests == 1 else 0)


def test_neighbours_of_two_files_share_none():
    readers = [Fake(), Fake(FILE[::-1])]
    extents = [Extent(i % 2, 32 * (i // 2), 32) for i in range(6)]
    assert len(blocks_of(readers, extents, Ahead(2, 1 << 16))) == 6
    assert [len(reader.requests) for reader in readers] == [3, 3]


def test_nothing_is_read_twice_or_for_nobody():
    reader = Fake()
    blocks_of([reader], [Extent(0, 8, 100_000)], ahead := fresh(3))
    asked = sorted(reader.requests)
    assert sum(nbytes for _, nbytes in asked) == 100_000
    assert [o for o, _ in asked] == list(range(8, 100_008, ahead.range_bytes))


def test_no_extent_is_no_block():
    reader = Fake()
    assert blocks_of([reader], [], fresh(2)) == []
    assert blocks_of([reader], [Extent(0, 5, 0)], fresh(2)) == []
    assert reader.requests == []


# How many at once


@pytest.mark.parametrize("ranges", [1, 2, 7])
def test_as_many_requests_at_once_as_ranges(ranges):
    reader = Fake(delay=0.005)
    ahead = fresh(ranges)
    within(lambda: blocks_of([reader], [Extent(0, 0, 30 * ahead.range_bytes)], ahead))
    assert reader.peak == ranges


@pytest.mark.parametrize("ranges", [1, 3])
def test_consumers_in_threads_share_one_pool(ranges):
    """More of them than there are buffers."""
    ahead, reader = fresh(ranges), Fake(delay=0.0005)
    consumers = 4 * (ranges + SPARE)

    def consume(number: int) -> bool:
        extents = [Extent(0, 1000 * number, 9 * ahead.range_bytes), *far_apart(4, 100 + number)]
        whole = b"".join(FILE[e.offset : e.offset + e.nbytes] for e in extents)
        return b"".join(blocks_of([reader], extents, ahead)) == whole

    def work() -> list[bool]:
        with ThreadPoolExecutor(consumers) as pool:
            return list(pool.map(consume, range(consumers)))

    assert within(work) == [True] * consumers
    assert 1 <= reader.peak <= ranges
    assert module._shared(ahead).threads._max_workers == ranges
    assert_all_buffers_back(ahead)


def test_a_slow_consumer_does_not_hold_up_another():
    """One keeps its block for long, with all the requests that it has under way."""
    ahead = fresh(2)
    slow = read_ahead([Fake()], [Extent(0, 0, 20 * ahead.range_bytes)], ahead)
    first = bytes(next(slow))
    other = threading.Thread(target=blocks_of, args=([Fake()], [Extent(0, 0, 20 * ahead.range_bytes)], ahead))
    other.start()
    other.join(PATIENCE)
    finished = not other.is_alive()
    rest = within(lambda: b"".join(bytes(block) for block in slow))
    other.join(PATIENCE)
    assert first + rest == FILE[: 20 * ahead.range_bytes]
    assert finished
    assert_all_buffers_back(ahead)


def test_a_pool_has_a_few_buffers_more_than_ranges():
    assert pool_bytes(Ahead(6, 1000)) == (6 + SPARE) * 1000


# When it goes wrong


@pytest.mark.parametrize("ranges", [1, 2, 5])
def test_buffers_come_back_after_errors(ranges):
    """Time after time; a leak of one would block the last rounds."""
    ahead = fresh(ranges)
    extents = [Extent(0, 0, 12 * ahead.range_bytes)]
    for failing in [1, 2, 5, 12] * 3:
        reader = Fake(failing=failing, delay=0.0005)
        with pytest.raises(TaskError, match="cannot be read"):
            within_raising(lambda reader=reader: blocks_of([reader], extents, ahead))
    assert_all_buffers_back(ahead)
    assert b"".join(within(lambda: blocks_of([Fake()], extents, ahead))) == FILE[: extents[0].nbytes]


@pytest.mark.parametrize("ranges", [1, 2, 5])
def test_buffers_come_back_when_nobody_wants_the_rest(ranges):
    ahead = fresh(ranges)
    extents = [Extent(0, 0, 12 * ahead.range_bytes)]

    def abandon(after: int) -> bool:
        blocks = read_ahead([Fake(delay=0.0005)], extents, ahead)
        for _ in range(after):
            next(blocks)
        blocks.close()
        return True

    assert all(within(lambda n=n: abandon(n)) for n in [0, 1, 2, 7, 12] * 3)
    assert_all_buffers_back(ahead)


def test_an_abandoned_buffer_is_not_written_into_by_an_old_request():
    """A request under way when its consumer leaves must not spoil the block of the next."""
    ahead = fresh(2)
    old = read_ahead([Fake(FILE[::-1], delay=0.02)], [Extent(0, 0, 9 * ahead.range_bytes)], ahead)
    next(old)
    old.close()
    for _ in range(3):
        blocks = within(lambda: blocks_of([Fake()], [Extent(0, 0, 9 * ahead.range_bytes)], ahead))
        assert b"".join(blocks) == FILE[: 9 * ahead.range_bytes]


def test_an_error_of_the_caller_s_extents_gives_buffers_back():
    ahead = fresh(2)

    def extents() -> Iterator[Extent]:
        yield Extent(0, 0, 3 * ahead.range_bytes)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        within_raising(lambda: [bytes(b) for b in read_ahead([Fake()], extents(), ahead)])
    assert_all_buffers_back(ahead, patience=0.2)


def test_workers_that_fail_beside_what_they_read_give_buffers_back():
    """Two fail at once with all buffers in their hands, and a third waits for one of them."""
    ahead = fresh(2)
    together = threading.Barrier(3, timeout=PATIENCE)

    def body(task: Task) -> int:
        blocks = read_ahead([Fake()], [Extent(0, 0, 9 * ahead.range_bytes)], ahead)
        if task.key == 2:
            together.wait()
        for number, _ in enumerate(blocks):
            if task.key != 2 and number == 0:
                together.wait()
                try:
                    raise ValueError("damaged")
                except ValueError as error:  # as of a library, whose frames are kept too
                    raise TaskError("is damaged", file=f"{task.key}") from error
        return task.key

    def run() -> list[int]:
        tasks = [Task(key, (), (), 8, 0) for key in range(3)]
        return list(InProcessExecutor(3).run(lambda: body, tasks))

    try:
        with pytest.raises(TaskError, match="is damaged"):
            within_raising(run)
        assert_all_buffers_back(ahead, patience=2)
    finally:  # or the threads would wait on
        for _ in range(2 * ahead.ranges):
            module._shared(ahead).give(bytearray(ahead.range_bytes))


def within_raising(work: Callable[[], Any]) -> Any:
    """As `within`, but an error of the work comes out."""

    def caught() -> tuple[Any, BaseException | None]:
        try:
            return work(), None
        except (TaskError, ValueError) as error:
            return None, error

    found, error = within(caught)
    if error is not None:
        raise error
    return found
