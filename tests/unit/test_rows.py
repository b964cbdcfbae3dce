"""Rows of models are matched by token: the segments say what a plain dictionary would say, in fewest words."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, event, example, given, settings
from hypothesis import strategies as st

from engine.config.merge import parse_merge
from engine.errors import FormatError
from engine.merge_methods.registry import METHODS
from engine.nouns.vocabulary import MOST_ROWS, NewToken, Vocabulary
from engine.plan.rows import RowMap, Segment, Table, map_rows
from engine.plan.vocabularies import compare

Line = tuple[int | None, ...]


def vocabulary(model: str, tokens: Any, file: str = "tokenizer.json", **more: Any) -> Vocabulary:
    """Of a text, one token a letter, with a space for a hole; or of ids by token."""
    ids = tokens if isinstance(tokens, dict) else {t: i for i, t in enumerate(tokens) if t != " "}
    return Vocabulary(ids, f"/m/{model}/{file}", **more)


def table(
    model: str, tokens: Any, rows: int | None = None, file: str = "tokenizer.json", **more: Any
) -> Table:
    known = None if tokens is None else vocabulary(model, tokens, file, **more)
    return Table(f"/m/{model}", len(tokens) if rows is None else rows, known)


def lines(found: RowMap) -> list[Line]:
    """Every row's own, for each model."""
    return [
        tuple(None if start is None else start + i for start in segment.starts)
        for segment in found.segments
        for i in range(segment.count)
    ]


def plain(tables: list[Table], mode: str) -> tuple[list[Line], list[str]] | None:
    """The same by dictionaries, row by row; and the new tokens. None where rows would belong to nobody."""
    ids = dict(tables[0].vocabulary.tokens)
    following = max(ids.values(), default=-1) + 1
    new = []
    for other in tables[1:] if mode == "union" else ():
        for token, row in sorted(other.vocabulary.tokens.items(), key=lambda item: item[1]):
            if token not in ids and row < other.rows:
                ids[token] = following
                following += 1
                new.append(token)
    token_of = {row: token for token, row in ids.items()}

    def own(side: Table, row: int) -> int | None:
        tokens = side.vocabulary.tokens
        theirs = tokens.get(token_of[row]) if row in token_of else None if row in tokens.values() else row
        return theirs if theirs is not None and theirs < side.rows else None

    rows = tables[0].rows
    if mode == "union":
        owned = [row for row in token_of if any(own(side, row) is not None for side in tables)]
        rows = max([rows, *(row + 1 for row in owned)])
    found = [tuple(own(side, row) for side in tables) for row in range(rows)]
    owned_by_nobody = any(all(o is None for o in line) for line in found)
    behind = any(row not in token_of for row in range(tables[0].rows, rows))  # somebody's padding is no token
    return None if owned_by_nobody or behind else (found, new)


def joins(one: Segment, other: Segment) -> bool:
    """Whether two neighbours are one segment."""
    ends = [None if s is None else s + one.count for s in one.starts]
    return ends == list(other.starts)


@st.composite
def tables_of(draw: st.DrawFn) -> list[Table]:
    """Models with some of twelve tokens, in stretches that they share or in any order, with holes and padding."""
    found = []
    for model in "abcd"[: draw(st.integers(1, 4))]:
        start, end = sorted(draw(st.tuples(st.integers(0, 12), st.integers(0, 12))))
        tokens = list("ABCDEFGHIJKL"[start:end])
        if draw(st.booleans()):
            tokens = draw(st.permutations(tokens))
        for _ in range(draw(st.integers(0, 2))):
            tokens.insert(draw(st.integers(0, len(tokens))), " ")
        rows = max(0, len(tokens) + draw(st.sampled_from([0, 0, 0, 1, 3, -1, -2])))
        special = frozenset(draw(st.sets(st.sampled_from("ABCDEFGHIJKL"), max_size=3)))
        found.append(table(model, "".join(tokens), rows, special=special))
    return found


@given(tables_of(), st.sampled_from(["base", "union"]))
@example([table("a", "AB", 2), table("b", "AB", 2)], "base")
@example([table("a", "", 3), table("b", "", 2)], "union")
@example([table("a", "AB", 5), table("b", "BCD", 5), table("c", "XA", 1)], "union")
@example([table("a", " A", 0), table("b", "", 1), table("c", "A", 1)], "union")
def test_segments_say_what_a_dictionary_says(tables, mode):
    expected = plain(tables, mode)
    if expected is None:
        event("rows of nobody")
        assert mode == "union"
        with pytest.raises(FormatError, match="and no model has the"):
            map_rows(tables, mode)
        return
    found = map_rows(tables, mode)
    every, new = expected
    assert lines(found) == every
    assert found.rows == len(every) == sum(s.count for s in found.segments)
    assert [s.first for s in found.segments] == [
        sum(s.count for s in found.segments[:i]) for i in range(len(found.segments))
    ]
    assert all(s.count > 0 for s in found.segments)
    assert not any(joins(a, b) for a, b in pairwise(found.segments))
    assert [a.token for a in found.added] == new
    for a in found.added:
        owner = next(t for t in tables[1:] if t.vocabulary.tokens.get(a.token, t.rows) < t.rows)
        assert a.special == (a.token in owner.vocabulary.special)
    event(f"{mode}: {min(len(found.segments), 3)} segments, {min(len(new), 2)} new")


@settings(max_examples=40)
@given(tables_of())
def test_every_row_of_the_reference_is_its_own_in_base_mode(tables):
    found = map_rows(tables, "base")
    assert [line[0] for line in lines(found)] == list(range(tables[0].rows))


@settings(max_examples=40)
@given(tables_of())
def test_equal_models_are_one_segment_in_every_mode(tables):
    one = tables[0]
    assume(one.rows)
    for mode in (None, "base", "union"):
        try:
            found = map_rows([one, one, one], mode)
        except FormatError:  # it has tokens behind its rows
            assert mode == "union"
            continue
        assert found.segments == (Segment(0, one.rows, (0, 0, 0)),)
        assert not found.added


# One by one


def test_tokens_that_a_model_lacks_and_padding():
    found = map_rows([table("a", "ABCD", 7), table("b", "ABD", 6), table("c", "ABCDE", 7)], "base")
    assert found == RowMap(
        7,
        (
            Segment(0, 2, (0, 0, 0)),
            Segment(2, 1, (2, None, 2)),
            Segment(3, 1, (3, 2, 3)),
            Segment(4, 1, (4, 4, None)),
            Segment(5, 1, (5, 5, 5)),
            Segment(6, 1, (6, None, 6)),
        ),
    )


def test_new_tokens_take_padding_and_then_new_rows():
    whole = {"added": frozenset("XYZ"), "special": frozenset("Y")}
    found = map_rows([table("a", "AB", 3), table("b", "YBAX", **whole), table("c", "ABXZ", **whole)], "union")
    assert found == RowMap(
        5,
        (
            Segment(0, 1, (0, 2, 0)),
            Segment(1, 1, (1, 1, 1)),
            Segment(2, 1, (None, 0, None)),
            Segment(3, 1, (None, 3, 2)),
            Segment(4, 1, (None, None, 3)),
        ),
        (NewToken("Y", 2, True), NewToken("X", 3), NewToken("Z", 4)),
    )


def test_rows_that_a_token_should_have_are_missing():
    found = map_rows([table("a", "ABCD", 3), table("b", "DCBA", 2)], "base")
    assert lines(found) == [(0, None), (1, None), (2, 1)]
    assert found.notes == (
        "/m/a has no row for 1 token ('D'): it has 3 rows",
        "/m/b has no row for 2 tokens ('B', 'A'): it has 2 rows",
    )


def test_a_row_that_only_another_model_has_is_taken_into_a_union():
    found = map_rows([table("a", "ABC", 2), table("b", "CBA", 3)], "union")
    assert lines(found) == [(0, 2), (1, 1), (None, 0)]
    assert not found.added


def test_ordinary_pieces_that_are_added_are_noted():
    (note,) = map_rows([table("a", "AB"), table("b", "ABXY", added=frozenset("Y"))], "union").notes
    assert "1 of the 2 new tokens are ordinary pieces in their own models ('X')" in note
    assert not map_rows([table("a", "AB"), table("b", "ABXY", added=frozenset("XY"))], "union").notes


def test_models_without_a_vocabulary_are_taken_for_the_others():
    unread = Vocabulary({}, "/m/c/tekken.json", reason="is for tiktoken")
    tables = [table("a", "AB", 3), table("b", None, 3), Table("/m/c", 3, unread), table("d", "BA", 3)]
    notes = (
        "/m/b has no vocabulary; its rows are taken for those of the others",
        "/m/c has no known vocabulary: tekken.json is for tiktoken; its rows are taken for those of the others",
    )
    found = map_rows(tables, "base")
    assert lines(found) == [(0, 0, 0, 1), (1, 1, 1, 0), (2, 2, 2, 2)]
    assert found.notes == notes
    assert map_rows(tables[:3], None).notes == notes
    assert map_rows([table("b", None, 3), table("c", None, 3)], None) == RowMap(3, (Segment(0, 3, (0, 0)),))
    assert map_rows([table("b", None, 3), table("c", None, 3)], "union").segments == (Segment(0, 3, (0, 0)),)


def test_a_model_whose_tokens_are_not_known_has_no_row_for_a_new_one():
    found = map_rows([table("a", "AB", 4), table("b", None, 4), table("c", "ABX", 4)], "union")
    assert lines(found) == [(0, 0, 0), (1, 1, 1), (None, None, 2), (3, 3, 3)]


@pytest.mark.parametrize(
    ("tables", "mode", "says"),
    [
        ([table("a", "A", 2), table("b", None, 3)], "base", "/m/b: has no vocabulary, and its 3 rows for tokens are not the 2 of /m/a"),
        ([table("a", None, 2), table("b", None, 3)], "union", "/m/b: has no vocabulary, and its 3 rows"),
        ([table("a", None, 2), table("b", "AB")], "base", "/m/a: has no vocabulary, so that rows cannot be matched by 'tokenizer: base'"),
        ([table("a", "AB", file="vocab.txt"), table("b", "ABC")], "union", "/m/a/vocab.txt: 'tokenizer: union' would give it 1 token more ('C'), which only a tokenizer.json can be given"),
        ([table("a", "ABC", 2), table("b", "ABX")], "union", "/m/a: has 2 rows and a last token with the id 2, and no model has the 1"),
        ([table("a", {"A": 0, "B": MOST_ROWS - 1}, 2), table("b", "ABX")], "union", "no room for 1 token more"),
        ([table("a", {"A": 0, "B": 1 << 30}, 2), table("b", "AX")], "union", "no model has the 1,073,741,823"),
    ],
)  # fmt: skip
def test_what_cannot_be_matched(tables, mode, says):
    with pytest.raises(FormatError) as caught:
        map_rows(tables, mode)
    assert says in str(caught.value)
    if "vocab.txt" in says:
        assert map_rows([tables[0], table("b", "BA")], "union").rows == 2


# Without a mode, and in words


def test_without_a_mode_rows_and_tokens_must_be_equal():
    same = [table("a", "ABC", 5), table("b", {"C": 2, "B": 1, "A": 0}, 5)]
    assert map_rows(same, None) == RowMap(5, (Segment(0, 5, (0, 0)),))
    assert map_rows([table("a", "", 0)], None) == RowMap(0, ())
    with pytest.raises(FormatError) as caught:
        map_rows([*same, table("c", "ABC", 4), table("d", "ABX", 5), table("e", None, 6)], None)
    assert str(caught.value) == (
        "the models differ in their tokens: /m/d/tokenizer.json has 1 token that /m/a/tokenizer.json lacks ('X') "
        "and lacks 1 token that it has ('C'); /m/c has 4 rows for tokens, /m/a has 5; /m/e has 6 rows for tokens, "
        "/m/a has 5; set 'tokenizer: base' or 'tokenizer: union' to match rows by token"
    )


def test_the_hint_is_something_that_a_configuration_may_say():
    with pytest.raises(FormatError) as caught:
        map_rows([table("a", "A"), table("b", "B")], None)
    for key, value in re.findall(r"'(\w+): (\w+)'", str(caught.value)):
        models = [{"model": "/m/a"}, {"model": "/m/b"}]
        data = {"merge_method": "linear", "models": models, "parameters": {"weight": 1}, key: value}
        assert parse_merge(data, {name: m.schema for name, m in METHODS.items()}, "x.yaml").tokenizer == value


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        ("ABC", None),
        ({"C": 2, "A": 0, "B": 1}, None),
        ("ABCD", "has 1 token that /m/a/tokenizer.json lacks ('D')"),
        ("A", "lacks 2 tokens that /m/a/tokenizer.json has ('B', 'C')"),
        ("ACB", "has other ids than in /m/a/tokenizer.json for 2 tokens ('C', 'B')"),
        ("XAYZW", "has 4 tokens that /m/a/tokenizer.json lacks ('X', 'Y', 'Z', ...), lacks 2 tokens that it has ('B', 'C') and has other ids for 1 token ('A')"),
        ({"A": 0, "B": 1, "C": 2, "\u202e" + "x" * 30: 3, "\n\0": 4}, r"has 2 tokens that /m/a/tokenizer.json lacks ('\u202exxxxxxxxxxxxxxxxxxx'..., '\n\x00')"),
    ],
)  # fmt: skip
def test_a_difference_in_words(tokens, says):
    found = compare([vocabulary("a", "ABC"), None, vocabulary("b", tokens)])
    assert found == (() if says is None else (f"/m/b/tokenizer.json {says}",))
    assert all(sentence.isprintable() for sentence in found)


def test_differences_are_those_to_the_first_that_is_known():
    unread = Vocabulary({}, "/m/x/tekken.json", reason="is for tiktoken")
    assert compare([None, unread]) == ()
    (sentence,) = compare(
        [unread, None, vocabulary("a", "A"), vocabulary("b", "A"), vocabulary("c", "B"), unread]
    )
    assert sentence.startswith("/m/c/tokenizer.json has 1 token that /m/a/tokenizer.json lacks")
    web = Vocabulary({"B": 0}, "https://user:word@host/m/tokenizer.json?key=secret")
    (sentence,) = compare([web, vocabulary("a", "A")])
    assert "secret" not in sentence
    assert "word" not in sentence


def test_a_quarter_of_a_million_rows_in_any_order():
    size = 250_000
    tokens = [f"t{i}" for i in range(size)]
    base = table("a", {t: i for i, t in enumerate(tokens)}, size + 64)
    turned = table("b", {t: (i + 1000) % size for i, t in enumerate(tokens)}, size + 64)
    found = map_rows([base, turned, base, base], "union")
    assert found.segments == (
        Segment(0, size - 1000, (0, 1000, 0, 0)),
        Segment(size - 1000, 1000, (size - 1000, 0, size - 1000, size - 1000)),
        Segment(size, 64, (size,) * 4),
    )
