"""Ranks that are found while a tensor is counted, and tensors that stay in memory meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.kernels import cpu
from engine.near import Near
from engine.nouns.dtypes import DTYPES
from engine.nouns.tasks import Chunk, Into, Merge, Step, Task
from engine.plan.keeping import MOST_BYTES, keep
from engine.sketch import Counter
from engine.statistics.magnitudes import locate
from engine.tasks.keeping import Kept
from engine.tasks.lockstep import Elements
from engine.tasks.ranks import ends_of, guess, room_for
from engine.tasks.together import BLOCK
from tests.builders import raw
from tests.unit.test_magnitudes import sorted_magnitudes

SIZE = 1 << 20


def pair(dtype: str, seed: int, size: int = SIZE) -> tuple[Elements, Elements]:
    """A tensor and its base."""
    r = np.random.default_rng(seed)
    base = r.normal(0, 0.02, size).astype("<f4")
    tuned = base + r.normal(0, 1e-3, size).astype("<f4")
    if dtype == "BF16":
        return tuple(Elements(dtype, (x.view("<u4") >> 16).astype("<u2")) for x in (tuned, base))
    return Elements(dtype, tuned.view("<u4")), Elements(dtype, base.view("<u4"))


def counted(tuned: Elements, base: Elements, near: Near | None) -> tuple[Any, np.ndarray]:
    """The sketch of the differences, counted by blocks, and their patterns."""
    counter = Counter(DTYPES["F32"])
    counter.near = near
    patterns = (tuned.floats() - base.floats()).view("<u4")
    for start in range(0, patterns.size, 100_000):
        part = slice(start, start + 100_000)
        if tuned.dtype == "BF16":
            counter.add_bf16_differences(tuned.patterns[part], base.patterns[part])
        else:
            counter.add(raw(patterns[part]))
    return counter.sketch(), patterns


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_sample_says_where_a_rank_will_lie(dtype, share):
    tuned, base = pair(dtype, 3)
    rank = int(share * SIZE)
    near = guess(tuned, base, rank, np.empty(room_for(SIZE), np.uint32))
    sketch, patterns = counted(tuned, base, near)
    expected = sorted_magnitudes(patterns)
    band = (locate(sketch, rank), locate(sketch, SIZE - 1))
    assert near is not None
    assert near.kept >= 0
    assert ends_of(band, sketch, near) == (expected[rank], expected[-1])
    assert ends_of(band, sketch, None) is None  # without it another pass has to look


def test_every_rank_of_what_was_kept_is_that_of_sorting():
    tuned, base = pair("BF16", 5, 50_000)
    near = Near(14800, 15000, np.empty(50_000, np.uint32))
    sketch, patterns = counted(tuned, base, near)
    expected = sorted_magnitudes(patterns)
    inside = 0
    for rank in range(0, 50_000, 37):
        code, place = locate(sketch, rank)
        known = 14800 <= code < 15000
        inside += known
        ends = ends_of(((code, place), (code, place)), sketch, near)
        assert ends == ((expected[rank], expected[rank]) if known else None)
    assert inside > 500


def test_too_many_are_not_kept_and_a_small_tensor_is_not_sampled():
    tuned, base = pair("F32", 7)
    near = Near(1, 0x7F80, np.empty(5000, np.uint32))
    sketch, _ = counted(tuned, base, near)
    assert near.kept == -1
    assert ends_of((locate(sketch, 5), locate(sketch, 9)), sketch, near) is None
    few = [Elements(e.dtype, e.patterns[:1000]) for e in (tuned, base)]
    assert guess(*few, 500, np.empty(100, np.uint32)) is None
    same = Elements("F32", base.patterns)
    assert guess(same, base, SIZE // 2, np.empty(room_for(SIZE), np.uint32)) is None  # all are 0


def test_nothing_is_kept_twice_or_lost_between_groups():
    patterns = np.arange(0x3F800000, 0x3F800000 + 1000, dtype="<u4")
    found = np.empty(2000, np.uint32)
    kept = cpu.keep_near(patterns, np.uint32(0x3F800000), np.uint32(0x10000), found, 0)
    np.testing.assert_array_equal(found[:kept], patterns[1:])  # the first has no low half
    assert cpu.keep_near(patterns, np.uint32(0x3F800000), np.uint32(0x10000), found, 1500) == -1
    assert cpu.keep_near(patterns[:9], np.uint32(0x3F800000), np.uint32(0x10000), found, -1) == -1


def test_the_largest_needs_no_pass_unless_something_is_not_finite():
    tuned, base = pair("BF16", 9, 5000)
    sketch, patterns = counted(tuned, base, None)
    last = locate(sketch, 4999)
    assert ends_of((last, last), sketch, None) == (np.abs(patterns.view("<f4")).max(),) * 2
    assert ends_of(None, sketch, None) == (np.inf, np.inf)
    tuned.patterns[17] = 0x7FC0
    sketch, _ = counted(tuned, base, None)
    last, before = locate(sketch, 4999), locate(sketch, 4998)
    assert ends_of((last, last), sketch, None) == (np.inf, np.inf)
    assert ends_of((before, before), sketch, None) is None  # the extremes tell only of the very last


def blocks(*operands: Elements, size: int):
    for start in range(0, operands[0].patterns.size, size):
        yield start, [Elements(o.dtype, o.patterns[start : start + size]) for o in operands]


@pytest.mark.parametrize(("size", "steady"), [(SIZE, True), (SIZE, False), (70_001, False), (70_001, True)])
def test_what_is_kept_is_what_was_read(size, steady):
    kept = Kept()
    for seed in (1, 2):  # the room is used again
        operands = pair("BF16", seed)
        kept.fill(blocks(*operands, size=size), SIZE, steady=steady)
        for unit in (None, 1000):
            found = list(kept.blocks(unit))
            assert all(start % (unit or BLOCK) == 0 for start, _ in found)
            for n, one in enumerate(operands):
                np.testing.assert_array_equal(np.concatenate([e[n].patterns for _, e in found]), one.patterns)
        shared = np.shares_memory(kept.held[0].patterns, operands[0].patterns)
        assert shared == (steady and size == SIZE)


def task(elements: int, *, steps: int = 1, kept: bool = True) -> Task:
    chunk = Chunk(0, "w", "BF16", 0, 0, 2 * elements, 0)
    operand = Task(0, (), (chunk,), 8, 100)
    step = Step(0, elements, (1, 1), (elements, elements), ())
    merge = Merge(0, Into("w", "BF16", "f", 0), 1, (step,) * steps, {}, kept=kept)
    return Task(0, (), (), 8, 1000, operands=(operand, operand), merges=(merge,))


def test_tensors_stay_in_memory_where_there_is_room():
    one = task(1000)
    (made,) = keep([one], None)
    assert made.merges[0].kept
    assert made.projected_bytes == 1000 + 4000 + 500
    for again in (keep([one], 3999), keep([task(MOST_BYTES)], None), keep([task(9, steps=2)], None)):
        assert not again[0].merges[0].kept
        assert again[0].projected_bytes == 1000
    once = replace(one, merges=(replace(one.merges[0], kept=False),))
    assert keep([once], None) == [once]
