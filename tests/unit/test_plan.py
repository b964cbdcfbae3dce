"""A plan reads what is selected and missing, each element once, and is refused before anything runs."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from itertools import pairwise
from math import prod

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import BudgetError, ConfigError
from engine.nouns.dtypes import DTYPES
from engine.nouns.records import Checkpoint, Span
from engine.plan import (
    BASE_BYTES,
    COUNTER_BYTES,
    MIB,
    REFINE_BYTES,
    RESULT_BYTES,
    TASK_BYTES,
    Limits,
    Plan,
    Selection,
    plan_refine,
    plan_scan,
)
from tests.builders import COUNTED, imagine

ALL = Selection()
SHAPES = st.lists(st.integers(0, 7), max_size=3).map(tuple)
TENSORS = st.lists(
    st.tuples(st.sampled_from([*COUNTED, "I8", "BOOL", "C64"]), SHAPES, st.integers(0, 2)), max_size=8
).map(lambda t: imagine(*sorted(t, key=lambda x: x[2])))
SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=4)
LIMITS = st.builds(
    Limits,
    workers=st.integers(1, 9),
    task_bytes=st.one_of(st.none(), st.integers(1, 400)),
    block_bytes=st.integers(1, 9).map(lambda k: 8 * k),
)


def elements_of(spans: list[Span]) -> list[int]:
    return sorted(i for start, stop in spans for i in range(start, stop))


def check_chunks(checkpoint: Checkpoint, plan: Plan) -> dict[int, list[Span]]:
    """Every chunk lies where its tensor says; returns the spans that are read of each tensor."""
    spans: dict[int, list[Span]] = {}
    for task in plan.tasks:
        for chunk in task.chunks:
            info = checkpoint.tensors[chunk.tensor]
            assert task.files[chunk.file] == checkpoint.files[info.file]
            assert (chunk.name, chunk.dtype) == (info.name, info.dtype)
            assert chunk.offset == info.offset + chunk.first * info.kind.bits // 8
            assert chunk.nbytes > 0
            start, stop = chunk.span
            assert (stop - start) * info.kind.bits == chunk.nbytes * 8
            spans.setdefault(chunk.tensor, []).append((start, stop))
    return spans


@example(imagine(), Limits(), {})
@example(imagine(("F32", (30,))), Limits(), {0: [(5, 20), (8, 2), (5, 3)]})
@example(imagine(("F32", (5, 3)), ("F64", (7,))), Limits(task_bytes=1), {0: [(0, 15)], 1: [(3, 1)]})
@given(TENSORS, LIMITS, st.dictionaries(st.integers(0, 7), SPANS))
def test_every_element_that_is_not_covered_is_read_once(checkpoint, limits, covered):
    covered = {
        i: [(a, min(a + n, t.elements)) for a, n in covered.get(i, []) if a < t.elements]
        for i, t in enumerate(checkpoint.tensors)
    }
    plan = plan_scan(checkpoint, ALL, limits, covered)
    spans = check_chunks(checkpoint, plan)
    for i, info in enumerate(checkpoint.tensors):
        expected = set(range(info.elements)) - set(elements_of(covered[i])) if info.kind.coding else ()
        assert elements_of(spans.get(i, [])) == sorted(expected)
    assert [t.key for t in plan.tasks] == list(range(len(plan.tasks)))
    assert plan.nbytes == sum(t.nbytes for t in plan.tasks)


@pytest.mark.parametrize("shape", [(3, 0), (0, 3), (0,), (2, 0, 5)])
def test_empty_tensors_are_measured_without_being_read(shape):
    # the rows of (3, 0) have no elements, and nothing is divided by that
    plan = plan_scan(imagine(("F32", shape), ("BF16", (2,))), ALL, Limits(), {})
    assert plan.measured == (0, 1)
    assert [c.tensor for t in plan.tasks for c in t.chunks] == [1]


@given(TENSORS, LIMITS)
def test_chunks_are_whole_rows_of_a_tasks_size_wherever_rows_fit(checkpoint, limits):
    for task in plan_scan(checkpoint, ALL, limits, {}).tasks:
        for chunk in task.chunks:
            info = checkpoint.tensors[chunk.tensor]
            row, item = prod(info.shape[1:]), info.kind.bits // 8
            most = limits.task_bytes or TASK_BYTES
            assert chunk.nbytes <= max(most, item)
            if row * item <= most:
                assert chunk.first % row == 0
                assert chunk.nbytes % (row * item) == 0


@given(TENSORS, LIMITS)
def test_tasks_go_through_the_files_in_order_and_keep_to_their_size(checkpoint, limits):
    tasks = plan_scan(checkpoint, ALL, limits, {}).tasks
    places = [(t.files[c.file].uri, c.offset) for t in tasks for c in t.chunks]
    assert places == sorted(places)
    for task in tasks:
        assert len(task.files) == len({c.file for c in task.chunks})
        assert 8 <= task.block_bytes <= limits.block_bytes
        assert task.block_bytes % 8 == 0
        if limits.task_bytes is not None and len(task.chunks) > 1:
            assert task.nbytes <= limits.task_bytes
    for a, b in pairwise(tasks):  # no task could have taken the next chunk too
        more = a.nbytes + b.chunks[0].nbytes
        moved_on = a.files[-1] != b.files[0] and a.nbytes >= 8 * MIB
        assert moved_on or more > (limits.task_bytes or TASK_BYTES)


def test_tasks_are_values_that_can_be_sent():
    plan = plan_scan(imagine(("F32", (4, 4)), ("BF16", (9,))), ALL, Limits(task_bytes=20), {})
    assert pickle.loads(pickle.dumps(plan)) == plan
    with pytest.raises(AttributeError):
        plan.tasks[0].key = 7


def test_small_tensors_share_a_task_and_large_ones_are_cut():
    small = plan_scan(imagine(*[("BF16", (10, 10))] * 5), ALL, Limits(), {})
    assert [len(t.chunks) for t in small.tasks] == [5]
    large = plan_scan(imagine(("BF16", (1 << 20, 1 << 10))), ALL, Limits(workers=2), {})
    assert [t.nbytes for t in large.tasks] == [256 * MIB] * 8


def test_a_checkpoint_below_a_few_tasks_is_shared_among_the_workers():
    plan = plan_scan(imagine(("BF16", (1 << 15, 1 << 10))), ALL, Limits(workers=2), {})  # 64 MiB
    assert [t.nbytes for t in plan.tasks] == [8 * MIB] * 8


def test_dtypes_without_a_coding_are_listed_and_not_read():
    plan = plan_scan(imagine(("I64", (3,)), ("F32", (2,)), ("F4", (4,)), ("BOOL", (0,))), ALL, Limits(), {})
    assert (plan.measured, plan.listed, plan.nbytes) == ((1,), (0, 2, 3), 8)


@pytest.mark.parametrize(
    ("include", "exclude", "chosen"),
    [
        ((), (), [0, 1, 2, 10]), (("t1*",), (), [1, 10]), ((), ("t1*",), [0, 2]), (("t?",), ("t2",), [0, 1]),
        (("t0", "t2"), (), [0, 2]), (("t[01]",), (), [0, 1]), (("*",), ("t0", "t10"), [1, 2]),
    ],
)  # fmt: skip
def test_include_and_exclude(include, exclude, chosen):
    plan = plan_scan(imagine(*[("F32", (1,))] * 11), Selection(include, exclude), Limits(), {})
    assert [i for i in plan.measured if i in (0, 1, 2, 10)] == chosen
    assert {c.tensor for t in plan.tasks for c in t.chunks} == set(plan.measured)


def test_patterns_know_upper_from_lower_case():
    assert "Layer.0" in Selection(("Layer*",))
    assert "layer.0" not in Selection(("Layer*",))


def test_a_selection_of_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"no tensor of 2 matches.*head"):
        plan_scan(imagine(("F32", (1,)), ("F32", (1,))), Selection(("head",)), Limits(), {})
    assert plan_scan(imagine(), Selection(("head",)), Limits(), {}).tasks == ()


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(workers=0), "workers.*not 0"),
        (Limits(block_bytes=0), "multiple of 8 bytes, not 0"),
        (Limits(block_bytes=1001), "not 1,001"),
        (Limits(block_bytes=-8), "not -8"),
        (Limits(task_bytes=0), "task size must be positive"),
    ],
)
def test_senseless_limits_are_refused(limits, says):
    with pytest.raises(ConfigError, match=says):
        plan_scan(imagine(("F32", (1,))), ALL, limits, {})


# Memory


def test_the_projection_is_the_process_and_the_largest_task_of_each_worker_that_gets_one():
    checkpoint = imagine(("BF16", (1 << 22,)), ("F32", (1 << 22,), 1))
    largest = MIB + COUNTER_BYTES["f32"] + RESULT_BYTES  # block, tables, results
    plan = plan_scan(checkpoint, ALL, Limits(workers=2), {})
    assert plan.tasks[-1].projected_bytes == largest
    assert plan.projected_bytes == BASE_BYTES + 2 * largest
    many = plan_scan(checkpoint, ALL, Limits(workers=50), {})
    assert many.projected_bytes == BASE_BYTES + len(many.tasks) * largest


def test_a_second_pass_is_projected_where_there_are_32_bit_floats():
    for dtype, more in (("F32", REFINE_BYTES), ("F64", REFINE_BYTES), ("BF16", 0), ("I8", 0)):
        plans = [
            plan_scan(imagine((dtype, (9,))), ALL, Limits(workers=3), {}, exact=x) for x in (False, True)
        ]
        assert plans[1].projected_bytes - plans[0].projected_bytes == more
        assert plans[1].tasks == plans[0].tasks


def test_a_plan_over_the_budget_is_refused_with_all_numbers_and_the_worst_task():
    checkpoint = imagine(("BF16", (100, 100)), ("F32", (1 << 23,), 1))
    needed = plan_scan(checkpoint, ALL, Limits(workers=4), {}).projected_bytes
    assert plan_scan(checkpoint, ALL, Limits(workers=4, memory_bytes=needed), {}).projected_bytes == needed
    with pytest.raises(BudgetError) as caught:
        plan_scan(checkpoint, ALL, Limits(workers=4, memory_bytes=needed - 1), {})
    text = str(caught.value)
    worst = f"{(needed - BASE_BYTES) / 4 / MIB:,.0f}"
    assert caught.value.file == checkpoint.uri
    for fact in (
        f"{needed / MIB:,.0f} MiB",
        f"{BASE_BYTES / MIB:,.0f} MiB",
        "4 workers",
        f"up to {worst}",
        "'t1'",
    ):
        assert fact in text


@pytest.mark.parametrize(("workers", "exact"), [(1, False), (9, False), (1, True)])
def test_the_numbers_of_a_refusal_add_up(workers, exact):
    limits = Limits(workers=workers, memory_bytes=MIB)
    with pytest.raises(BudgetError) as caught:
        plan_scan(imagine(("F32", (1 << 23,))), ALL, limits, {}, exact=exact)
    total, _, base, *rest = map(int, re.findall(r"(\d+) (?:MiB|workers?)", str(caught.value)))
    count, *each = rest
    assert total == base + count * sum(each)


def test_nothing_to_read_and_no_memory_is_refused_too():
    with pytest.raises(BudgetError, match=f"{BASE_BYTES // MIB} MiB"):
        plan_scan(imagine(("I8", (4,))), ALL, Limits(memory_bytes=MIB), {})


def test_blocks_that_are_larger_than_every_chunk_are_not_projected_nor_taken():
    (task,) = plan_scan(imagine(("BF16", (4,))), ALL, Limits(block_bytes=64 * MIB), {}).tasks
    assert task.block_bytes <= task.projected_bytes


# The second pass


def test_a_second_pass_reads_whole_tensors_and_carries_their_codes():
    checkpoint = imagine(("F32", (10, 3)), ("BF16", (4,)), ("F64", (6,)))
    codes = {0: (5, 9), 2: (7,)}
    limits = Limits(task_bytes=36)
    tasks = plan_refine(checkpoint, codes, limits)
    first = plan_scan(checkpoint, Selection(exclude=("t1",)), limits, {}).tasks
    assert [t.chunks for t in tasks] == [t.chunks for t in first]
    for task, before in zip(tasks, first, strict=True):
        assert task.refine == {c.tensor: codes[c.tensor] for c in task.chunks}
        assert task.projected_bytes > before.projected_bytes


def test_a_second_pass_over_nothing_is_no_task():
    assert plan_refine(imagine(("F32", (3,))), {}, Limits()) == ()


def test_every_coding_is_projected():
    for dtype in COUNTED:
        (task,) = plan_scan(imagine((dtype, (8,))), ALL, Limits(), {}).tasks
        assert task.projected_bytes >= MIB + DTYPES[dtype].bits


# Workers with connections of their own


def test_tasks_of_processes_that_read_a_distant_checkpoint_shrink_towards_the_end():
    shapes = [("BF16", (1 << 12, 1 << 12))] * 100  # 32 MiB each
    distant = replace(imagine(*shapes), distant=True)
    limits = Limits(workers=8, ranges=1, worker_bytes=MIB)
    sizes = [t.nbytes for t in plan_scan(distant, ALL, limits, {}).tasks]
    assert sum(sizes) == distant.nbytes
    for position, nbytes in enumerate(sizes):
        left = sum(sizes[position:]) + 32 * MIB  # when the tensor was cut
        assert nbytes <= max(8 * MIB, left // 16)  # half of what is left for each
    assert sizes[0] > 100 * MIB
    assert sizes[-1] == 8 * MIB
    covered = {i: [(0, 1 << 24)] for i in range(90)}
    resumed = [t.nbytes for t in plan_scan(distant, ALL, limits, covered).tasks]
    assert sum(resumed) == 320 * MIB
    assert max(resumed) <= 20 * MIB


def test_the_last_tasks_of_processes_keep_all_their_connections_busy():
    distant = replace(imagine(("BF16", (1 << 15, 1 << 15))), distant=True)  # 2 GiB
    limits = Limits(workers=4, ranges=8, worker_bytes=MIB)
    for task in plan_scan(distant, ALL, limits, {}).tasks[:-1]:
        assert task.nbytes >= task.ahead.ranges * task.ahead.range_bytes


@pytest.mark.parametrize("limits", [Limits(workers=8), Limits(workers=8, worker_bytes=MIB, task_bytes=MIB)])
def test_tasks_of_threads_and_those_of_a_given_size_do_not_shrink(limits):
    distant = replace(imagine(("BF16", (1 << 13, 1 << 13))), distant=True)
    assert len({t.nbytes for t in plan_scan(distant, ALL, limits, {}).tasks}) == 1
