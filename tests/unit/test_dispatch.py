"""Who gets which task, and what becomes of it when workers are lost, fail, or take too long; on a clock of our own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.execution.dispatch import (
    FIRST_LIMIT,
    GIVE_UP,
    LEAST_LIMIT,
    MOST_COPIES,
    MOST_FAILURES,
    SLOWER,
    Dispatch,
    Late,
)
from engine.execution.executor import IN_FLIGHT
from engine.nouns.matrices import Matrix
from engine.nouns.tasks import Chunk, Task

MIB = 1 << 20


def task(key: int, nbytes: int = 0) -> Task:
    chunks = (Chunk(0, "t", "U8", 0, 0, nbytes, 0),) if nbytes else ()
    return Task(key, (), chunks, 8, 0)


def pool(*nodes: str, tasks: int = 0, task_seconds: float | None = None) -> Dispatch:
    """Workers w0, w1, ... on these nodes, and tasks 0, 1, ... that wait."""
    dispatch = Dispatch(task_seconds)
    for number, node in enumerate(nodes):
        dispatch.join(f"w{number}", node)
    for key in range(tasks):
        dispatch.submit(task(key))
    return dispatch


def sent(dispatch: Dispatch, now: float = 0.0) -> list[tuple[str, int]]:
    return [(name, one.key) for name, one, _ in dispatch.hand_out(now)]


def keys(tasks: list[Task] | tuple[Task, ...]) -> list[int]:
    return [one.key for one in tasks]


def seen(found: list[Late]) -> list[tuple[str, list[int], bool]]:
    return [(late.worker, keys(late.tasks), late.silent) for late in found]


# Who gets what


def test_everybody_gets_one_before_anybody_gets_two():
    assert IN_FLIGHT == 2
    dispatch = pool("a", "a", "b", tasks=9)
    given = sent(dispatch)
    assert given == [("w0", 0), ("w1", 1), ("w2", 2), ("w0", 3), ("w1", 4), ("w2", 5)]
    assert sent(dispatch) == []
    assert dispatch.unfinished() == 9


def test_who_answers_gets_the_next_in_order():
    dispatch = pool("a", "a", tasks=7)
    sent(dispatch)
    assert dispatch.done("w1", 1, 1.0, 1.0)
    assert sent(dispatch, 1.0) == [("w1", 4)]
    assert dispatch.done("w0", 0, 2.0, 1.0)
    assert dispatch.done("w0", 2, 2.0, 1.0)
    assert sent(dispatch, 2.0) == [("w0", 5), ("w0", 6)]
    assert dispatch.unfinished() == 4


def test_without_workers_tasks_wait_and_a_worker_that_joins_gets_them():
    dispatch = pool(tasks=3)
    assert sent(dispatch) == []
    dispatch.join("w9", "a")
    assert sent(dispatch) == [("w9", 0), ("w9", 1)]


def test_a_task_knows_which_attempt_it_is():
    dispatch = pool("a", tasks=1)
    for attempt in range(1, MOST_FAILURES + 1):
        assert dispatch.hand_out(0.0) == [("w0", task(0), attempt)]
        assert dispatch.failed("w0", 0, 0.0, again=True) is (attempt == MOST_FAILURES)


# Failures


def test_a_task_that_fails_goes_elsewhere_before_all_that_waits():
    dispatch = pool("a", "b", tasks=6)
    assert sent(dispatch) == [("w0", 0), ("w1", 1), ("w0", 2), ("w1", 3)]
    assert not dispatch.failed("w0", 0, 1.0, again=True)
    assert sent(dispatch, 1.0) == [("w0", 4)]  # 0 waits for the other node
    assert dispatch.done("w1", 1, 2.0, 1.0)
    assert sent(dispatch, 2.0) == [("w1", 0)]


def test_a_node_that_failed_a_task_gets_it_when_all_have():
    dispatch = pool("a", "a", "b", tasks=1)
    assert sent(dispatch) == [("w0", 0)]
    assert not dispatch.failed("w0", 0, 1.0, again=True)
    assert sent(dispatch) == [("w2", 0)]
    assert not dispatch.failed("w2", 0, 1.0, again=True)
    assert sent(dispatch) == [("w1", 0)]


def test_a_node_that_failed_a_task_gets_it_when_it_is_the_last():
    dispatch = pool("a", "b", tasks=1)
    sent(dispatch)
    dispatch.failed("w0", 0, 1.0, again=True)
    dispatch.lost("w1")
    assert sent(dispatch) == [("w0", 0)]
    dispatch.join("w2", "b")
    dispatch.failed("w0", 0, 2.0, again=True)
    assert sent(dispatch) == [("w2", 0)]


def test_a_broken_node_keeps_no_task_from_the_others():
    """It is the first to be free again, with a queue of what it has failed."""
    dispatch = pool("broken", "broken", *"abc", tasks=10)
    ended: list[int] = []
    for now in range(100):
        for name, one, _ in dispatch.hand_out(float(now)):
            if name in ("w0", "w1"):
                assert not dispatch.failed(name, one.key, now, again=True)
            else:
                assert dispatch.done(name, one.key, now, 1.0)
                ended.append(one.key)
    assert sorted(ended) == list(range(10))


def test_who_has_a_task_already_leaves_it_to_a_neighbour():
    dispatch = pool("a", "b", "b", tasks=1, task_seconds=5.0)
    sent(dispatch)
    dispatch.late(6.0)
    assert sent(dispatch, 6.0) == [("w1", 0)]
    dispatch.submit(task(1))
    assert sent(dispatch, 6.0) == [("w2", 1)]
    dispatch.failed("w0", 0, 7.0, again=True)  # of the others, w1 is asked first
    assert sent(dispatch, 7.0) == [("w2", 0)]


@pytest.mark.parametrize("nodes", [("a",), ("a", "a"), ("a", "b"), ("a", "b", "c", "d", "e")])
def test_a_task_that_fails_too_often_fails_for_good(nodes):
    dispatch = pool(*nodes, tasks=1)
    for failure in range(1, MOST_FAILURES + 1):
        [(name, _)] = sent(dispatch)
        assert dispatch.failed(name, 0, 0.0, again=True) is (failure == MOST_FAILURES)
    assert (dispatch.unfinished(), sent(dispatch)) == (0, [])


def test_a_failure_that_every_worker_would_see_is_final_at_once():
    dispatch = pool("a", "b", tasks=1, task_seconds=1.0)
    sent(dispatch)
    dispatch.late(2.0)
    assert sent(dispatch, 2.0) == [("w1", 0)]
    assert dispatch.failed("w0", 0, 2.0, again=False)
    assert dispatch.unfinished() == 0
    assert not dispatch.done("w1", 0, 3.0, 1.0)  # nobody waits for it
    assert not dispatch.failed("w1", 0, 3.0, again=False)


# Losses


def test_only_the_task_that_a_lost_worker_was_at_is_blamed():
    dispatch = pool("a", tasks=2)
    for loss in range(1, MOST_FAILURES + 1):
        assert sent(dispatch) == [(f"w{loss - 1}", 0), (f"w{loss - 1}", 1)]
        again, gone = dispatch.lost(f"w{loss - 1}")
        last = loss == MOST_FAILURES
        assert (keys(again), keys(gone)) == (([1], [0]) if last else ([0, 1], []))
        dispatch.join(f"w{loss}", "a")
    assert sent(dispatch) == [("w4", 1)]
    assert dispatch.done("w4", 1, 0.0, 1.0)


def test_what_a_lost_worker_had_goes_before_what_waits_in_its_order():
    dispatch = pool("a", "a", tasks=6)
    sent(dispatch)
    again, gone = dispatch.lost("w0")
    assert (keys(again), gone) == ([0, 2], [])
    dispatch.join("w2", "a")
    dispatch.join("w3", "a")
    assert sent(dispatch) == [("w2", 0), ("w3", 2), ("w2", 4), ("w3", 5)]


def test_who_was_lost_is_not_heard():
    dispatch = pool("a", "a", tasks=1)
    sent(dispatch)
    dispatch.lost("w0")
    assert not dispatch.done("w0", 0, 1.0, 1.0)
    assert not dispatch.failed("w0", 0, 1.0, again=False)
    assert sent(dispatch) == [("w1", 0)]
    assert dispatch.done("w1", 0, 1.0, 1.0)


def test_failures_and_losses_count_together():
    dispatch = pool("a", tasks=1)
    for number in range(MOST_FAILURES):
        sent(dispatch)
        if number % 2:
            assert not dispatch.failed(f"w{number}", 0, 0.0, again=True) or number == MOST_FAILURES - 1
        again, gone = dispatch.lost(f"w{number}")
        assert (again, gone) == ([], []) if number % 2 else keys(again) == [0]
        dispatch.join(f"w{number + 1}", "a")
    assert dispatch.unfinished() == 0


def test_a_task_with_too_many_failures_is_left_to_who_is_still_at_it():
    dispatch = pool(*"abcde", tasks=1, task_seconds=10.0)
    assert sent(dispatch) == [("w0", 0)]
    dispatch.late(11.0)
    for name in ("w1", "w2", "w3"):
        assert sent(dispatch, 11.0) == [(name, 0)]
        assert not dispatch.failed(name, 0, 11.0, again=True)
    assert sent(dispatch, 11.0) == [("w4", 0)]
    assert not dispatch.failed("w4", 0, 11.0, again=True)  # the fourth, but w0 may end it
    assert sent(dispatch, 12.0) == []
    assert dispatch.done("w0", 0, 12.0, 12.0)


@pytest.mark.parametrize("lost", [True, False])
def test_and_fails_when_they_fail_too(lost):
    dispatch = pool(*"abcde", tasks=1, task_seconds=10.0)
    sent(dispatch)
    dispatch.late(11.0)
    for name in ("w1", "w2", "w3", "w4"):
        sent(dispatch, 11.0)
        dispatch.failed(name, 0, 11.0, again=True)
    if lost:
        assert [keys(found) for found in dispatch.lost("w0")] == [[], [0]]
    else:
        assert dispatch.failed("w0", 0, 12.0, again=True)
    assert dispatch.unfinished() == 0


# Time


def test_the_first_answer_wins_and_a_late_one_frees_its_worker():
    dispatch = pool("a", "b", tasks=1, task_seconds=5.0)
    assert sent(dispatch) == [("w0", 0)]
    assert dispatch.late(5.0) == []
    assert seen(dispatch.late(5.1)) == [("w0", [0], False)]
    assert dispatch.hand_out(6.0) == [("w1", task(0), 2)]
    assert dispatch.done("w1", 0, 7.0, 1.0)
    dispatch.submit(task(1))
    dispatch.submit(task(2))
    assert sent(dispatch, 7.0) == [("w1", 1), ("w1", 2)]  # nothing for who has not answered
    dispatch.submit(task(3))
    assert sent(dispatch, 7.0) == []
    assert not dispatch.done("w0", 0, 8.0, 8.0)
    assert sent(dispatch, 8.0) == [("w0", 3)]
    assert [x[0] for x in seen(dispatch.late(13.0))] == ["w1"]  # w0 has been at it since 8.0


def test_the_straggler_may_win():
    dispatch = pool("a", "b", tasks=2, task_seconds=5.0)
    assert sent(dispatch) == [("w0", 0), ("w1", 1)]
    assert dispatch.done("w1", 1, 1.0, 1.0)
    dispatch.late(6.0)
    assert sent(dispatch, 6.0) == [("w1", 0)]
    assert dispatch.done("w0", 0, 7.0, 7.0)
    assert not dispatch.done("w1", 0, 8.0, 2.0)
    assert dispatch.unfinished() == 0


def test_what_waits_behind_a_straggler_is_begun_elsewhere_in_order():
    dispatch = pool("a", "b", tasks=5, task_seconds=5.0)
    assert sent(dispatch) == [("w0", 0), ("w1", 1), ("w0", 2), ("w1", 3)]
    assert dispatch.done("w1", 1, 4.0, 4.0)
    assert dispatch.done("w1", 3, 4.5, 0.5)
    assert seen(dispatch.late(5.5)) == [("w0", [0, 2], False)]
    assert sent(dispatch, 5.5) == [("w1", 0), ("w1", 2)]


def test_a_worker_is_late_with_a_task_from_when_it_could_begin_it():
    dispatch = pool("a", tasks=2, task_seconds=5.0)
    assert sent(dispatch) == [("w0", 0), ("w0", 1)]
    assert dispatch.done("w0", 0, 4.0, 4.0)
    assert dispatch.late(9.0) == []
    assert seen(dispatch.late(9.1)) == [("w0", [1], False)]


def test_a_worker_that_stays_silent_is_reported_until_it_is_replaced():
    dispatch = pool("a", "b", tasks=1, task_seconds=5.0)
    sent(dispatch)
    assert seen(dispatch.late(6.0)) == [("w0", [0], False)]
    assert dispatch.late(5.0 * GIVE_UP) == []
    assert seen(dispatch.late(5.0 * GIVE_UP + 0.1)) == [("w0", [], True)]
    assert seen(dispatch.late(5.0 * GIVE_UP + 0.2)) == [("w0", [], True)]
    dispatch.lost("w0")
    assert dispatch.late(100.0) == []


def test_a_driver_that_was_busy_elsewhere_replaces_nobody_at_once():
    dispatch = pool("a", tasks=1, task_seconds=5.0)
    sent(dispatch)
    assert seen(dispatch.late(1000.0)) == [("w0", [0], False)]
    assert dispatch.done("w0", 0, 1000.1, 1000.0)


def test_no_task_has_more_than_so_many_copies():
    dispatch = pool(*"abcdef", tasks=1)
    dispatch.done("w5", 99, 0.0, 0.0)  # an answer to a question that nobody asked
    now, holders = 0.0, []
    for _ in range(6):
        holders += sent(dispatch, now)
        now += 100 * FIRST_LIMIT
        dispatch.late(now)
    assert holders == [("w0", 0), ("w1", 0), ("w2", 0)]
    assert len(holders) == MOST_COPIES
    again, _ = dispatch.lost("w1")
    assert keys(again) == [0]
    assert sent(dispatch, now) == [("w3", 0)]
    assert dispatch.done("w2", 0, now, 1.0)


def test_the_only_worker_may_be_slow():
    """There is nobody else to begin what it has; when it answers, it goes on."""
    dispatch = pool("a", tasks=4)
    assert sent(dispatch) == [("w0", 0), ("w0", 1)]
    now = FIRST_LIMIT + 1
    assert seen(dispatch.late(now)) == [("w0", [0, 1], False)]
    assert sent(dispatch, now) == []
    ended = []
    for key in (0, 1, 2, 3):
        now += 50.0
        assert dispatch.late(now) == []
        assert dispatch.done("w0", key, now, 50.0)
        ended += sent(dispatch, now)
    assert ended == [("w0", 2), ("w0", 3)]


@pytest.mark.parametrize("needs", [70.0, 200.0, 1000.0])
def test_a_task_that_takes_long_everywhere_is_done_in_the_end(needs):
    """Workers that are replaced lose what they did, so patience must grow; even while nobody knows how long tasks take."""
    dispatch = pool("a", tasks=1)
    now, worker, began = 0.0, 0, 0.0
    while dispatch.unfinished():
        for _ in dispatch.hand_out(now):
            began = now
        if now - began >= needs:
            assert dispatch.done(f"w{worker}", 0, now, needs)
        for late in dispatch.late(now):
            if late.silent:
                assert dispatch.lost(late.worker)[1] == []
                worker += 1
                dispatch.join(f"w{worker}", "a")
        now += 0.5
    assert worker < MOST_FAILURES


def test_a_task_that_never_answers_fails_for_good():
    dispatch = pool("a", tasks=2)
    now, worker, ended, failed = 0.0, 0, [], []
    while dispatch.unfinished():
        assert now < 1e6
        for name, one, _ in dispatch.hand_out(now):
            if one.key == 1 and dispatch.workers[name].has[0].standing.task.key == 1:
                assert dispatch.done(name, 1, now, 1.0)
                ended.append(1)
        for late in dispatch.late(now):
            if late.silent:
                failed += keys(dispatch.lost(late.worker)[1])
                worker += 1
                dispatch.join(f"w{worker}", "a")
        now += 10.0
    assert (ended, failed, worker) == ([1], [0], MOST_FAILURES)


def test_a_task_is_exhausted_when_as_many_attempts_as_are_made_were_too_long():
    dispatch = pool(*"abcd", tasks=1, task_seconds=5.0)
    now = 0.0
    for attempt in range(MOST_COPIES):
        assert dispatch.exhausted() == []
        assert sent(dispatch, now) == [(f"w{attempt}", 0)]
        now += 6.0
        dispatch.late(now)
    assert keys(dispatch.exhausted()) == [0]
    assert dispatch.exhausted() == []
    assert (dispatch.unfinished(), sent(dispatch, now)) == (0, [])
    assert not dispatch.done("w0", 0, now, 20.0)


def test_what_only_waited_behind_a_straggler_is_not_exhausted():
    """One worker after the other hangs on the first; the second was never begun."""
    dispatch = pool("a", tasks=2, task_seconds=5.0)
    now = 0.0
    for attempt in range(MOST_COPIES):
        assert sent(dispatch, now) == [(f"w{attempt}", 0), (f"w{attempt}", 1)]
        dispatch.late(now + 6.0)
        assert keys(dispatch.exhausted()) == ([0] if attempt == MOST_COPIES - 1 else [])
        dispatch.lost(f"w{attempt}")
        dispatch.join(f"w{attempt + 1}", "a")
        now += 20.0
    assert sent(dispatch, now) == [(f"w{MOST_COPIES}", 1)]


def test_nothing_is_exhausted_without_a_limit_of_the_user():
    dispatch = pool(*"abcd", tasks=1)
    for now in (0.0, 1e5, 2e5, 3e5):
        sent(dispatch, now)
        dispatch.late(now + 9e4)
    assert dispatch.exhausted() == []


# Pace


def limit(dispatch: Dispatch, nbytes: int) -> float:
    """How long the only worker, which has nothing, may take for a task; to half a second."""
    [name] = [n for n, w in dispatch.workers.items() if not w.has]
    dispatch.submit(task(777, nbytes))
    assert sent(dispatch, 0.0) == [(name, 777)]
    now = 0.0
    while not dispatch.late(now):
        now += 0.5
    assert dispatch.failed(name, 777, now, again=False)
    return now - 0.5


def test_a_limit_follows_the_pace_and_the_bytes():
    dispatch = pool("a")
    assert limit(dispatch, 1) == limit(dispatch, 1 << 40) == FIRST_LIMIT
    dispatch.submit(task(0, 100 * MIB))
    sent(dispatch)
    assert dispatch.done("w0", 0, 0.0, 50.0)  # half a second a MiB
    assert limit(dispatch, 100 * MIB) == SLOWER * 50
    assert limit(dispatch, 10 * MIB) == SLOWER * 5
    assert limit(dispatch, 0) == limit(dispatch, MIB) == LEAST_LIMIT


def test_singular_values_take_longer_than_reading():
    dispatch = pool("a")
    own = replace(task(5, MIB), spectrum=Matrix(4096, 6000))
    dispatch.submit(own)
    sent(dispatch)
    assert dispatch.late(FIRST_LIMIT + 1) == []
    assert dispatch.done("w0", 5, 0.0, 30.0)
    dispatch.submit(replace(own, key=6))
    sent(dispatch)
    assert dispatch.late(200.0) == []
    assert seen(dispatch.late(250.0)) == [("w0", [6], False)]


def test_a_slow_task_counts_at_once_and_quick_ones_by_and_by():
    dispatch = pool("a")

    def took(seconds: float) -> float:
        dispatch.submit(task(0, 100 * MIB))
        sent(dispatch)
        dispatch.done("w0", 0, 0.0, seconds)
        return limit(dispatch, 100 * MIB)

    assert took(100.0) == SLOWER * 100
    assert took(200.0) == SLOWER * 200
    assert took(100.0) == SLOWER * 190
    for _ in range(100):
        least = took(0.0)
    assert least == LEAST_LIMIT


def test_a_limit_of_the_user_stays():
    dispatch = pool("a", task_seconds=7.0)
    dispatch.submit(task(0, 100 * MIB))
    sent(dispatch)
    dispatch.done("w0", 0, 0.0, 50.0)
    assert limit(dispatch, 100 * MIB) == 7.0


def test_patience_with_a_task_doubles():
    dispatch = pool(*"abcd", tasks=1)
    now = 0.0
    for attempt, seconds in enumerate((FIRST_LIMIT, 2 * FIRST_LIMIT, 4 * FIRST_LIMIT)):
        assert sent(dispatch, now) == [(f"w{attempt}", 0)]
        assert [x for x in seen(dispatch.late(now + seconds)) if not x[2]] == []
        now += seconds + 0.5
        assert [x[0] for x in seen(dispatch.late(now)) if not x[2]] == [f"w{attempt}"] * (attempt < 2)


# Keys that come again


def test_a_late_answer_is_not_taken_for_one_about_a_later_task_of_the_same_key():
    """A second pass numbers its tasks anew, and a straggler of the first may still answer."""
    dispatch = pool("a", "b", tasks=1, task_seconds=5.0)
    sent(dispatch)
    dispatch.late(6.0)
    assert sent(dispatch, 6.0) == [("w1", 0)]
    assert dispatch.done("w1", 0, 7.0, 1.0)
    dispatch.submit(task(0, 5))
    assert dispatch.hand_out(7.0) == [("w1", task(0, 5), 1)]
    assert not dispatch.done("w0", 0, 8.0, 8.0)
    assert dispatch.unfinished() == 1
    assert dispatch.done("w1", 0, 9.0, 2.0)
    assert dispatch.unfinished() == 0


def test_a_worker_that_has_a_task_and_a_later_one_of_its_key_answers_in_order():
    dispatch = pool("a", "b", tasks=1, task_seconds=5.0)
    sent(dispatch)
    dispatch.late(6.0)
    assert sent(dispatch, 6.0) == [("w1", 0)]
    assert dispatch.done("w0", 0, 7.0, 7.0)
    dispatch.lost("w0")
    dispatch.submit(task(0, 5))
    assert dispatch.hand_out(7.0) == [("w1", task(0, 5), 1)]
    assert not dispatch.done("w1", 0, 8.0, 2.0)
    assert dispatch.unfinished() == 1
    assert dispatch.done("w1", 0, 9.0, 1.0)
    assert dispatch.unfinished() == 0


def test_a_place_in_the_queue_ends_with_its_task():
    dispatch = pool("a", tasks=1, task_seconds=5.0)
    sent(dispatch)
    dispatch.late(6.0)  # queued again
    assert dispatch.done("w0", 0, 7.0, 7.0)
    dispatch.submit(task(0))
    dispatch.join("w1", "b")
    assert sent(dispatch, 7.0) == [("w0", 0)]  # once


# Whatever happens


def check(dispatch: Dispatch) -> None:
    """What is true at any moment."""
    copies: Counter[int] = Counter()
    for name, worker in dispatch.workers.items():
        assert worker.name == name
        assert len(worker.has) <= IN_FLIGHT
        held = [id(a.standing) for a in worker.has]
        assert len(held) == len(set(held))
        copies.update(a.standing.task.key for a in worker.has if not a.standing.over)
        rooms = [depth for depth, free in enumerate(dispatch._free) if name in free]
        has_room = len(worker.has) < IN_FLIGHT and not worker.suspect
        assert rooms == ([len(worker.has)] if has_room else [])
    assert all(name in dispatch.workers for free in dispatch._free for name in free)
    assert dispatch._nodes == Counter(w.node for w in dispatch.workers.values())
    queued = [s for s in dispatch._queue if not s.over]
    assert len(queued) == len({id(s) for s in queued})
    for standing in dispatch._tasks.values():
        key = standing.task.key
        assert not standing.over
        assert standing.copies == copies[key] <= MOST_COPIES
        assert standing.queued == any(s is standing for s in queued)
        assert standing.queued or standing.copies  # somebody is at it, or will be


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["join", "lose", "done", "fail", "hopeless", "wait", "long"]), st.integers(0, 99)
    ),
    max_size=120,
)


@settings(max_examples=150)
@given(steps=STEPS, nodes=st.integers(1, 3), count=st.integers(1, 12), own=st.booleans())
def test_every_task_ends_exactly_once(steps, nodes, count, own):
    dispatch = Dispatch(20.0 if own else None)
    names = iter(range(10**6))
    now, waiting = 0.0, list(range(count))
    ended: Counter[int] = Counter()

    def join(number: int) -> None:
        dispatch.join(f"w{next(names)}", f"n{number % nodes}")

    def lose(name: str) -> None:
        ended.update(keys(dispatch.lost(name)[1]))

    def answer(name: str, what: str) -> None:
        key = dispatch.workers[name].has[0].standing.task.key
        if what == "done":
            ended[key] += dispatch.done(name, key, now, 1.0)
        else:
            ended[key] += dispatch.failed(name, key, now, again=what == "fail")

    def look() -> None:
        while waiting and dispatch.unfinished() < IN_FLIGHT * 2:
            dispatch.submit(task(waiting.pop(0)))
        for late in dispatch.late(now):
            if late.silent:
                lose(late.worker)
                join(len(late.worker))
        ended.update(keys(dispatch.exhausted()))
        for name, *_ in dispatch.hand_out(now):
            assert not dispatch.workers[name].suspect
        check(dispatch)

    join(0)
    for what, number in steps:
        busy = [n for n, w in dispatch.workers.items() if w.has]
        if what == "join" and len(dispatch.workers) < 5:
            join(number)
        elif what == "lose" and dispatch.workers:
            lose(list(dispatch.workers)[number % len(dispatch.workers)])
        elif what in ("wait", "long"):
            now += number if what == "wait" else 100.0 * number
        elif busy and what in ("done", "fail", "hopeless"):
            answer(busy[number % len(busy)], what)
        check(dispatch)
        look()

    for _ in range(2):  # from here all is well
        join(0)
    for _ in range(20 * count + 100):
        look()
        for name in [n for n, w in dispatch.workers.items() if w.has]:
            answer(name, "done")
        now += 1.0
    assert dispatch.unfinished() == 0
    assert ended == Counter(range(count))
    assert not any(w.has for w in dispatch.workers.values())
    assert not any(w.suspect for w in dispatch.workers.values())
