"""The laws of the sketch: whatever the split, the order and the blocks, the same integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine import sketch as sketches
from engine.errors import TaskError
from engine.nouns.dtypes import CODINGS, DTYPES
from engine.sketch import Counter, Sketch, combine, empty, observe
from tests.builders import (
    COMPLETE,
    COUNTED,
    assert_same,
    every_code,
    nasty_patterns,
    patterns_of,
    raw,
    reference_sketch,
    unsigned,
)


@dataclass(frozen=True)
class Runs:
    """Elements of any dtype: (nasty?, word, how often in a row)."""

    runs: tuple[tuple[bool, int, int], ...]

    def of(self, dtype: str) -> NDArray[Any]:
        nasty = nasty_patterns(dtype)
        words = [int(nasty[w % len(nasty)]) if odd else w for odd, w, _ in self.runs]
        mask = (1 << DTYPES[dtype].bits) - 1
        patterns = np.array([w & mask for w in words], unsigned(dtype))
        return np.repeat(patterns, [length for *_, length in self.runs])


@dataclass(frozen=True)
class Nasty:
    """The nasty patterns again and again, up to a size."""

    size: int

    def of(self, dtype: str) -> NDArray[Any]:
        return np.resize(nasty_patterns(dtype), self.size)


class Everything:
    """Every pattern of 8 and 16 bits, every top half of wider ones."""

    of = staticmethod(every_code)

    def __repr__(self) -> str:
        return "Everything()"


RUN_LENGTHS = st.sampled_from([1, 1, 1, 2, 3, 8, 15, 16, 17, 31, 32, 33, 64])
RUNS = st.lists(st.tuples(st.booleans(), st.integers(0, 2**64 - 1), RUN_LENGTHS), max_size=20)
ELEMENTS = RUNS.map(tuple).map(Runs)
CUTS = st.lists(st.integers(0, 200), max_size=5)
ALWAYS = [*(Nasty(size) for size in (0, 1, 63, 64, 65)), Everything()]


def always(*arguments: Any) -> Callable[[Any], Any]:
    """Put the inputs that must never be missing among the examples."""

    def decorate(test: Any) -> Any:
        for elements in ALWAYS:
            test = example(elements, *arguments)(test)
        return test

    return decorate


def sketch(dtype: str, patterns: NDArray[Any]) -> Sketch:
    return observe(raw(patterns), DTYPES[dtype])


def split(patterns: NDArray[Any], cuts: list[int]) -> list[NDArray[Any]]:
    edges = sorted([0, len(patterns), *(c % (len(patterns) + 1) for c in cuts)])
    return [patterns[a:b] for a, b in pairwise(edges)]


each_dtype = pytest.mark.parametrize("dtype", COUNTED)
some = settings(max_examples=25)


@each_dtype
@always([1, 7, 7, 40])
@given(ELEMENTS, CUTS)
@some
def test_a_sketch_is_the_combination_of_the_sketches_of_any_split(dtype, elements, cuts):
    patterns = elements.of(dtype)
    parts = [sketch(dtype, p) for p in split(patterns, cuts)]
    whole = sketch(dtype, patterns)
    assert_same(combine(*parts), whole)
    assert_same(combine(*reversed(parts)), whole)


@each_dtype
@always(Nasty(9), Nasty(30))
@given(ELEMENTS, ELEMENTS, ELEMENTS)
@some
def test_combine_is_associative_commutative_and_empty_is_neutral(dtype, x, y, z):
    a, b, c = (sketch(dtype, elements.of(dtype)) for elements in (x, y, z))
    assert_same(combine(combine(a, b), c), combine(a, combine(b, c)))
    assert_same(combine(a, b), combine(b, a))
    assert_same(combine(a, empty(a.coding)), a)
    assert_same(combine(empty(a.coding), a), a)


@each_dtype
@always()
@given(ELEMENTS)
@some
def test_a_sketch_equals_what_plain_numpy_counts(dtype, elements):
    patterns = elements.of(dtype)
    found = sketch(dtype, patterns)
    assert_same(found, reference_sketch(dtype, patterns))
    assert found.count == len(patterns)


@each_dtype
@always(3)
@given(ELEMENTS, st.integers(1, 70))
@some
def test_blocks_of_any_size_give_the_same_sketch(dtype, elements, block):
    patterns = elements.of(dtype)
    block = max(block, len(patterns) // 50)
    counter = Counter(DTYPES[dtype])
    for start in range(0, len(patterns), block):
        counter.add(raw(patterns[start : start + block]))
    assert_same(counter.sketch(), sketch(dtype, patterns))


@each_dtype
@always(Nasty(70))
@given(ELEMENTS, ELEMENTS)
@some
def test_a_counter_starts_again_from_nothing(dtype, first, second):
    counter = Counter(DTYPES[dtype])
    for elements in (first, second, Nasty(0), second):
        patterns = elements.of(dtype)
        counter.add(raw(patterns))
        assert_same(counter.sketch(), sketch(dtype, patterns))


@each_dtype
def test_bytes_views_and_writable_arrays_are_the_same_elements(dtype):
    data = raw(Nasty(65).of(dtype)).tobytes()
    expected = observe(np.frombuffer(bytearray(data), np.uint8), DTYPES[dtype])
    assert_same(observe(data, DTYPES[dtype]), expected)
    assert_same(observe(memoryview(b"x" + data)[1:], DTYPES[dtype]), expected)  # not aligned


@pytest.mark.parametrize("dtype", ["F32", "F64"])
@pytest.mark.parametrize("value", [-0.0, 0.02])
@pytest.mark.parametrize("size", [(1 << 24) - 1, 1 << 24, (1 << 24) + 1])
def test_sixteen_million_equal_floats_are_all_counted(dtype, value, size):
    # a packed counter has 24 bits for the count, and 2**24 needs 25
    patterns = np.broadcast_to(patterns_of(dtype, [value]), (1 << 18,))
    counter, block = Counter(DTYPES[dtype]), raw(patterns.copy())
    for _ in range(size >> 18):
        counter.add(block)
    counter.add(block[: size % (1 << 18) * patterns.itemsize])
    found = counter.sketch()
    expected = sketch(dtype, patterns[:1])
    assert found.count == size
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(found.low_sum, expected.low_sum * np.uint64(size))
    np.testing.assert_array_equal(found.low_square_sum, expected.low_square_sum * np.uint64(size))
    assert found.zeros == expected.zeros * size


def test_one_block_of_more_than_sixteen_million_floats():
    patterns = np.full((1 << 24) + 100, 0x3F80FFFF, "<u4")
    found = sketch("F32", patterns)
    assert found.n.tolist() == [len(patterns)]
    assert found.low_sum.tolist() == [len(patterns) * 0xFFFF]


def test_more_than_four_billion_equal_elements_are_all_counted():
    block = raw(np.zeros(1 << 25, "<u2"))
    counter = Counter(DTYPES["BF16"])
    for _ in range(129):
        counter.add(block)
    assert counter.sketch().zeros == 129 << 25


def test_sums_of_squares_without_room_are_refused():
    one = sketch("F32", patterns_of("F32", [1.5]))
    many = replace(one, n=np.array([(1 << 32) - 1], np.uint64))
    assert combine(many, empty("f32")).count == (1 << 32) - 1
    with pytest.raises(TaskError, match="4,294,967,295"):
        combine(many, one)


def test_complete_codings_have_room_for_more():
    one = sketch("BF16", patterns_of("BF16", [1.5]))
    many = replace(one, n=np.array([1 << 40], np.uint64))
    assert combine(many, many).count == 1 << 41


def test_sketches_of_different_codings_do_not_combine():
    with pytest.raises(ValueError, match=r"bf16.*f16"):
        combine(empty("bf16"), empty("f16"))
    with pytest.raises(ValueError, match="cannot combine"):
        combine()


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d not in COUNTED])
def test_what_has_no_coding_is_not_counted(dtype):
    with pytest.raises(ValueError, match=dtype):
        Counter(DTYPES[dtype])


@pytest.mark.parametrize("coding", CODINGS)
def test_empty_is_the_sketch_of_nothing(coding):
    dtype = next(d for d in COUNTED if DTYPES[d].coding.name == coding)
    assert_same(empty(coding), sketch(dtype, Nasty(0).of(dtype)))


@pytest.mark.parametrize("dtype", [d for d in COMPLETE if d != "F8_E4M3FNUZ" and d != "F8_E5M2FNUZ"])
def test_both_zeros_are_zeros_and_the_extremes_have_no_sign_of_zero(dtype):
    found = sketch(dtype, patterns_of(dtype, [-0.0, 0.0, -0.0]))
    assert (found.zeros, found.count) == (3, 3)
    assert (str(found.minimum), str(found.maximum)) == ("0.0", "0.0")


@pytest.mark.parametrize("sign", [1, -1])
def test_rounding_f64_makes_no_number_infinite_and_none_but_zero_zero(sign):
    largest, smallest = float(np.finfo("<f4").max), 2.0**-149
    numbers = [0.0, 5e-324, 1e-46, smallest / 2, 0.7 * smallest, 1.0, largest, 3.5e38, 1e300, np.inf, np.nan]
    expected = [0.0, smallest, smallest, smallest, smallest, 1.0, largest, largest, largest, np.inf, np.nan]
    found = sketch("F64", (sign * np.array(numbers)).view("<u8"))
    assert_same(found, sketch("F32", (sign * np.array(expected)).astype("<f4").view("<u4")))
    assert found.zeros == 1


@pytest.mark.parametrize("dtype", ["F8_E4M3", "BF16", "F16"])
def test_a_block_larger_than_counters_hold_is_counted_in_parts(dtype, monkeypatch):
    """With counters that are full much sooner than those of 32 bits."""
    monkeypatch.setattr(sketches, "_FULL", 1 << 12)
    patterns = np.full(5003, nasty_patterns(dtype)[1])
    counter, fullest = Counter(DTYPES[dtype]), [0]
    fold = counter._fold

    def watched() -> None:
        fullest.append(int(counter._table.sum()))
        fold()

    monkeypatch.setattr(counter, "_fold", watched)
    counter.add(raw(patterns))
    assert_same(counter.sketch(), reference_sketch(dtype, patterns))
    assert 0 < max(fullest) < 1 << 12
