"""Parts come in any order; tensors come out whole, once, and the same to the last bit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.execution.fold import Fold, Partial
from engine.nouns.dtypes import DTYPES
from engine.nouns.records import Span
from engine.nouns.tasks import Part
from engine.sketch import Sketch, combine, observe
from tests.builders import assert_same, raw

CUTS = st.lists(st.integers(1, 49), max_size=6)


def values(tensor: int) -> np.ndarray:
    return np.random.default_rng(tensor).normal(size=50).astype("<f4")


def part(tensor: int, span: Span) -> Part[Sketch]:
    return Part(tensor, span, observe(raw(values(tensor)[slice(*span)]), DTYPES["F32"]))


def whole(tensor: int) -> Sketch:
    return part(tensor, (0, 50)).found


def parts_of(cuts_by_tensor: list[list[int]]) -> list[Part[Sketch]]:
    return [
        part(tensor, span)
        for tensor, cuts in enumerate(cuts_by_tensor)
        for span in pairwise(sorted({0, 50, *cuts}))
    ]


@given(st.lists(CUTS, min_size=1, max_size=3), st.randoms(use_true_random=False), st.integers(1, 5))
@settings(max_examples=60)
def test_every_tensor_becomes_whole_once_whatever_the_order(cuts, random, at_once):
    parts = parts_of(cuts)
    random.shuffle(parts)
    fold = Fold(dict.fromkeys(range(len(cuts)), 50), combine)
    found = []
    for start in range(0, len(parts), at_once):
        found += fold.add(parts[start : start + at_once])
    assert sorted(tensor for tensor, _ in found) == list(range(len(cuts)))
    for tensor, sketch in found:
        assert_same(sketch, whole(tensor))
    assert fold.partials == {}


@given(CUTS, st.randoms(use_true_random=False), st.integers(0, 6))
@settings(max_examples=60)
def test_an_interrupted_fold_goes_on_from_its_partials(cuts, random, stop):
    parts = parts_of([cuts])
    random.shuffle(parts)
    before = Fold({0: 50}, combine)
    found = before.add(parts[:stop])
    for partial in before.partials.values():
        assert partial.covered == sum(b - a for a, b in partial.spans) < 50
        assert all(a[1] < b[0] for a, b in pairwise(partial.spans))  # touching spans are one
    found += Fold({0: 50}, combine, before.partials).add(parts[stop:])
    assert [tensor for tensor, _ in found] == [0]
    assert_same(found[0][1], whole(0))


def test_the_partials_given_are_not_changed():
    given_partials = {0: Partial(((0, 10),), part(0, (0, 10)).found)}
    Fold({0: 50}, combine, given_partials).add([part(0, (10, 50))])
    assert list(given_partials) == [0]


@pytest.mark.parametrize("again", [(10, 20), (0, 50), (5, 11), (19, 30), (12, 15)])
def test_elements_that_were_added_before_are_refused(again):
    fold = Fold({0: 50}, combine)
    fold.add([part(0, (10, 20))])
    with pytest.raises(ValueError, match="counted before"):
        fold.add([part(0, again)])


def test_a_part_of_a_tensor_that_is_whole_already_is_refused():
    fold = Fold({0: 50}, combine)
    assert len(fold.add([part(0, (0, 50))])) == 1
    with pytest.raises(ValueError, match="counted before"):
        fold.add([part(0, (0, 50))])
