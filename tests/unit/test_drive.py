"""The loops between a pool and whoever has tasks, with a pool that does as it is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import TaskError
from engine.execution.drive import drive
from engine.execution.executor import Done, Executor, Failed, MakeBody
from engine.nouns.tasks import Task


def task(key: int) -> Task:
    return Task(key, (), (), 8, 0)


class Scripted:
    """A pool that gives back as many tasks at a time as its script says, the last first; `fails` fail."""

    def __init__(self, room: int, script: Iterable[int] = (), fails: Iterable[int] = ()) -> None:
        self.most, self.script, self.fails = room, deque(script), set(fails)
        self.running: list[Task] = []
        self.log: list[str] = []

    def room(self) -> int:
        return self.most - len(self.running)

    def submit(self, one: Task) -> None:
        assert self.room() > 0, "more than the pool has room for"
        assert one.key not in [t.key for t in self.running]
        self.running.append(one)
        self.log.append(f"+{one.key}")

    def busy(self) -> bool:
        return bool(self.running)

    def collect(self, seconds: float) -> list[Done[int] | Failed]:
        assert self.running, "nothing will ever come"
        assert seconds > 0
        count = self.script.popleft() if self.script else 1
        ended = [self.running.pop() for _ in range(min(count, len(self.running)))]
        self.log.append("-" + ",".join(str(t.key) for t in ended))
        return [self._ended(t) for t in ended]

    def _ended(self, one: Task) -> Done[int] | Failed:
        if one.key in self.fails:
            return Failed(one, TaskError(f"task {one.key}"))
        return Done(one, -one.key, 0.1, "w")


class Feed:
    """Has `now` tasks, and after each wait and each answer those that the script brings."""

    def __init__(
        self, now: Iterable[int], later: Iterable[list[int]] = (), after: dict[int, list[int]] | None = None
    ) -> None:
        self.queue, self.later, self.after = deque(now), deque(later), after or {}
        self.heard: list[Any] = []
        self.waits = 0

    def take(self) -> Task | None:
        return task(self.queue.popleft()) if self.queue else None

    def add(self, ended: Done[int] | Failed) -> None:
        self.heard.append(ended.outcome if isinstance(ended, Done) else str(ended.error))
        self.queue.extend(self.after.pop(ended.task.key, []))

    def ended(self) -> bool:
        return not (self.queue or self.later)

    def wait(self, seconds: float) -> None:
        assert 0 < seconds < 10
        self.waits += 1
        self.queue.extend(self.later.popleft())


def test_the_pool_is_filled_before_anything_is_waited_for():
    pool, feed = Scripted(3), Feed(range(5))
    drive(pool, feed)
    assert pool.log == ["+0", "+1", "+2", "-2", "+3", "-3", "+4", "-4", "-1", "-0"]
    assert feed.heard == [-2, -3, -4, -1, 0]
    assert feed.waits == 0


def test_nothing_to_do_ends_at_once():
    pool = Scripted(3)
    drive(pool, Feed([]))
    assert pool.log == []


def test_several_and_none_may_come_back_at_a_time():
    pool, feed = Scripted(4, [0, 3, 0, 0, 2]), Feed(range(6))
    drive(pool, feed)
    assert pool.log == ["+0", "+1", "+2", "+3", "-", "-3,2,1", "+4", "+5", "-", "-", "-5,4", "-0"]
    assert sorted(feed.heard) == [-5, -4, -3, -2, -1, 0]


def test_a_feed_that_has_nothing_now_is_waited_for_only_when_nothing_is_under_way():
    pool, feed = Scripted(2), Feed([0], later=[[1, 2], [], [], [3]])
    drive(pool, feed)
    assert pool.log == ["+0", "-0", "+1", "+2", "-2", "-1", "+3", "-3"]
    assert feed.waits == 4


def test_what_an_answer_brings_is_begun_while_others_are_under_way():
    pool, feed = Scripted(2), Feed([0, 1], after={1: [2, 3], 3: [4]})
    drive(pool, feed)
    assert pool.log == ["+0", "+1", "-1", "+2", "-2", "+3", "-3", "+4", "-4", "-0"]


def test_what_the_last_answer_brings_is_begun_too():
    pool, feed = Scripted(2), Feed([0], after={0: [1], 1: [2]})
    drive(pool, feed)
    assert feed.heard == [0, -1, -2]


def test_a_feed_hears_of_failures_and_goes_on():
    feed = Feed(range(4))
    drive(Scripted(2, fails=[1, 3]), feed)
    assert feed.heard == ["task 1", -2, "task 3", 0]


def test_a_feed_that_raises_stops_everything():
    class Strict(Feed):
        def add(self, ended: Done[int] | Failed) -> None:
            if isinstance(ended, Failed):
                raise ended.error
            super().add(ended)

    pool, feed = Scripted(2, fails=[2]), Strict(range(100))
    with pytest.raises(TaskError, match="task 2"):
        drive(pool, feed)
    assert pool.log == ["+0", "+1", "-1", "+2", "-2"]


@given(
    room=st.integers(1, 5),
    script=st.lists(st.integers(0, 5), max_size=30),
    later=st.lists(st.integers(0, 4), max_size=6),
    fails=st.sets(st.integers(0, 30)),
)
def test_every_task_is_heard_of_once(room, script, later, fails):
    numbers = iter(range(1000))
    batches = [[next(numbers) for _ in range(count)] for count in later]
    feed = Feed([], batches)
    drive(Scripted(room, script, fails), feed)
    total = next(numbers)
    expected = [f"task {k}" if k in fails else -k for k in range(total)]
    assert sorted(map(str, feed.heard)) == sorted(map(str, expected))


# Executor.run, which is the same for a fixed row of tasks


class OnScript(Executor):
    def __init__(self, pool: Scripted) -> None:
        self.workers, self.pool, self.open_now = 1, pool, False

    @contextmanager
    def open(self, make_body: MakeBody[Any]) -> Iterator[Any]:
        self.open_now = True
        try:
            yield self.pool
        finally:
            self.open_now = False


class Handed:
    def __init__(self, count: int) -> None:
        self.left, self.taken = iter(range(count)), 0

    def __iter__(self) -> Iterator[Task]:
        for key in self.left:
            self.taken += 1
            yield task(key)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("script", [[], [0, 0, 2, 0, 1, 2], [9] * 20])
def test_run_runs_every_task_once_and_closes_the_pool(count, script):
    executor = OnScript(Scripted(2, script))
    assert sorted(executor.run(lambda: None, Handed(count))) == [-k for k in reversed(range(count))]
    assert [x for x in executor.pool.log if x[0] == "+"] == [f"+{k}" for k in range(count)]
    assert not executor.open_now


def test_run_asks_for_a_task_only_when_there_is_room():
    handed = Handed(100)
    executor = OnScript(Scripted(2))
    outcomes = executor.run(lambda: None, handed)
    assert (handed.taken, executor.open_now) == (0, False)
    for ended in range(1, 5):
        next(outcomes)
        assert handed.taken == ended + 1
    outcomes.close()
    assert not executor.open_now


def test_run_raises_the_failure_and_begins_nothing_more():
    handed = Handed(100)
    executor = OnScript(Scripted(2, fails=[3]))
    outcomes = []
    with pytest.raises(TaskError, match="task 3"):
        outcomes.extend(executor.run(lambda: None, handed))
    assert outcomes == [-1, -2]
    assert handed.taken == 4
    assert not executor.open_now


def test_run_yields_what_ended_before_a_failure_that_came_with_it():
    executor = OnScript(Scripted(3, [3], fails=[0]))
    outcomes = []
    with pytest.raises(TaskError, match="task 0"):
        outcomes.extend(executor.run(lambda: None, Handed(9)))
    assert outcomes == [-2, -1]


def test_tasks_that_cannot_be_made_end_a_run():
    def tasks() -> Iterator[Task]:
        yield task(0)
        raise KeyError("a plan that is wrong")

    executor = OnScript(Scripted(2))
    with pytest.raises(KeyError):
        list(executor.run(lambda: None, tasks()))
    assert not executor.open_now
