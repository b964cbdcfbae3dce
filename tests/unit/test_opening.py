"""Checkpoints are found on one thread and opened on several, a few ahead of their turn; nothing that was found is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.verbs import opening
from engine.verbs.opening import Opener, Tried

PATIENCE = 30.0  # seconds; a hang is a failure


def taken(opener: Opener[Any, Any], most: int | None = None) -> list[Tried[Any, Any]]:
    """Everything, or so many, in the order in which it was ready."""
    found: list[Tried[Any, Any]] = []
    while not opener.ended() and len(found) != most:
        tried = opener.next()
        if tried is None:
            opener.wait(PATIENCE)
        else:
            found.append(tried)
    return found


def until(opener: Opener[Any, Any], true: Callable[[], bool]) -> None:
    """Let it work without taking anything."""
    for _ in range(3000):
        if true():
            return
        opener.wait(0.01)
        threading.Event().wait(0.001)
    raise AssertionError("it never came true")


class Gate:
    """Opens only what may pass, and counts."""

    def __init__(self) -> None:
        self.passing, self.lock = threading.Event(), threading.Lock()
        self.begun: list[Any] = []
        self.threads: set[str] = set()

    def __call__(self, item: Any) -> Any:
        with self.lock:
            self.begun.append(item)
            self.threads.add(threading.current_thread().name)
        assert self.passing.wait(PATIENCE)
        return -item


@pytest.mark.parametrize("ahead", [1, 2, 16])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 15, 16, 17, 100])
def test_everything_is_opened_once(count, ahead):
    with Opener(range(count), lambda x: -x, ahead) as opener:
        found = taken(opener)
        assert opener.next() is None
        assert opener.ended()
    assert sorted((t.item, t.opened, t.error) for t in found) == [(i, -i, None) for i in range(count)]


def test_one_after_the_other_comes_in_order():
    with Opener(range(50), lambda x: x, 1) as opener:
        assert [t.item for t in taken(opener)] == list(range(50))


def test_what_cannot_be_opened_is_told_and_stops_nothing():
    errors = {3: ValueError("three"), 5: KeyboardInterrupt(), 7: MemoryError()}

    def open_one(item: int) -> int:
        if item in errors:
            raise errors[item]
        return item

    with Opener(range(10), open_one, 4) as opener:
        found = {t.item: t for t in taken(opener)}
    assert {i: t.error for i, t in found.items() if t.error is not None} == errors
    assert sorted(t.opened for t in found.values() if t.error is None) == [0, 1, 2, 4, 6, 8, 9]


@pytest.mark.parametrize("before", [0, 1, 3, 4, 5, 9])
@pytest.mark.parametrize("error", [ValueError("a disk"), PermissionError(13, "no"), KeyboardInterrupt()])
def test_what_was_found_before_an_error_is_opened(before, error):
    def items() -> Iterator[int]:
        yield from range(before)
        raise error

    with Opener(items(), lambda x: x, 4) as opener:
        found = taken(opener)
    assert sorted(t.opened for t in found if t.item is not None) == list(range(before))
    assert [t.error for t in found if t.item is None] == [error]


def test_no_more_than_a_few_are_open_and_not_taken():
    gate = Gate()
    with Opener(range(100), gate, 3) as opener:
        until(opener, lambda: len(gate.begun) >= 3)
        gate.passing.set()
        until(opener, lambda: opener.next() is not None)
        until(opener, lambda: len(gate.begun) >= 4)
        opener.wait(0.05)
        assert len(gate.begun) == 4
        assert len(taken(opener)) == 99
    assert sorted(gate.begun) == list(range(100))
    assert len(gate.threads) == 3


def test_no_more_are_found_than_will_soon_be_opened():
    asked: list[int] = []

    def items() -> Iterator[int]:
        for i in range(1000):
            asked.append(i)
            yield i

    gate = Gate()
    with Opener(items(), gate, 3) as opener:
        until(opener, lambda: len(gate.begun) >= 3)
        opener.wait(0.05)
        assert len(asked) <= 2 * 3
        gate.passing.set()
        assert len(taken(opener)) == 1000


def test_the_first_is_opened_while_the_next_is_looked_for(monkeypatch):
    """A large tree may hold few checkpoints."""
    monkeypatch.setattr(opening, "_PATIENCE", 0.0)
    more = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        assert more.wait(PATIENCE)
        yield 1

    with Opener(items(), lambda x: x, 16) as opener:
        assert [t.item for t in taken(opener, 1)] == [0]
        assert not opener.ended()
        more.set()
        assert [t.item for t in taken(opener)] == [1]


def test_items_are_found_on_one_thread_and_opened_on_others():
    finders: set[str] = set()
    gate = Gate()
    gate.passing.set()

    def items() -> Iterator[int]:
        for i in range(40):
            finders.add(threading.current_thread().name)
            yield i

    with Opener(items(), gate, 4) as opener:
        taken(opener)
    assert len(finders) == 1
    assert not finders & gate.threads
    assert threading.current_thread().name not in finders | gate.threads


def test_waiting_ends_when_something_is_ready_and_when_there_is_nothing_to_wait_for():
    with Opener([1], lambda x: x, 2) as opener:
        while opener.next() is None:
            opener.wait(PATIENCE)
        while not opener.ended():
            opener.wait(PATIENCE)
        opener.wait(PATIENCE)  # at once
    gate = Gate()
    with Opener([1], gate, 2) as opener:
        until(opener, lambda: bool(gate.begun))
        opener.wait(0.01)
        assert opener.next() is None
        gate.passing.set()


def test_who_leaves_early_has_nothing_more_begun():
    gate = Gate()
    with Opener(range(100), gate, 2) as opener:
        until(opener, lambda: len(gate.begun) >= 2)
        gate.passing.set()
    for thread in threading.enumerate():
        if thread.name.startswith(("open", "find")):
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert len(gate.begun) == 2
