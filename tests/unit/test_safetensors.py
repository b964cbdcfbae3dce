"""Headers of single files: valid oddities open, every kind of damage is one clear sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from engine.errors import FormatError
from engine.formats.safetensors import MAX_HEADER_BYTES, read_header
from engine.nouns.dtypes import DTYPES, SAFETENSORS
from tests.builders import entry, f32, pack, pack_tensors, write, write_tensors

FOUR = b"\x00\x00\x80\x3f"


def library_accepts(data: bytes) -> bool:
    """What the safetensors library itself says."""
    try:
        safetensors.deserialize(data)
    except safetensors.SafetensorError:
        return False
    return True


def refusal(path: Path) -> str:
    """The message, which must be one line and name the file once."""
    with pytest.raises(FormatError) as caught:
        read_header(str(path))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    assert text.count(str(path)) == 1
    return text


def one(
    dtype: Any = "F32", shape: Any = (1,), start: Any = 0, stop: Any = 4, name: str = "w"
) -> dict[str, Any]:
    return {name: {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}}


def two(a: tuple[int, int], b: tuple[int, int]) -> dict[str, Any]:
    """Two tensors of bytes at the given offsets."""
    return {"a": entry("U8", [a[1] - a[0]], *a), "b": entry("U8", [b[1] - b[0]], *b)}


# Valid


@pytest.mark.parametrize("dtype", SAFETENSORS)
def test_every_dtype_opens_with_its_place_in_the_file(tmp_path, dtype):
    shape = [4, 2] if DTYPES[dtype].bits >= 8 else [8, 8 // DTYPES[dtype].bits]
    nbytes = DTYPES[dtype].nbytes(shape[0] * shape[1])
    header = {"x": entry("U8", [3], 0, 3), "w": entry(dtype, shape, 3, 3 + nbytes)}
    data = pack(header, bytes(3 + nbytes))
    assert library_accepts(data)
    found = read_header(str(write(tmp_path / "x.safetensors", data)))
    x, w = found.tensors
    assert (w.name, w.dtype, w.shape, w.nbytes) == ("w", dtype, tuple(shape), nbytes)
    assert (x.offset, w.offset) == (len(data) - nbytes - 3, len(data) - nbytes)
    assert found.file.size == len(data)


ODDITIES = {
    "no tensors": pack({}),
    "metadata only": pack({"__metadata__": {"format": "pt", "": "ü"}}),
    "leading spaces": pack("   " + json.dumps(one()), FOUR),
    "trailing spaces": pack(json.dumps(one()) + " " * 5, FOUR),
    "any length of header": pack(json.dumps(one()).ljust(83), FOUR),
    "0-d": pack(one(shape=[]), FOUR),
    "empty": pack(one(shape=[0, 3], stop=0)),
    "empty with columns of zero": pack(one(shape=[3, 0], stop=0)),
    "many dimensions": pack(one(shape=[1] * 40), FOUR),
    "empty name": pack(one(name=""), FOUR),
    "name in any script": pack(one(name="层.0\t权重 \U0001f9f2"), FOUR),
    "escaped name": pack('{"\\u0077":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', FOUR),
    "packed 4-bit floats": pack(one("F4", [3, 2], 0, 3), b"abc"),
    "unsorted entries": pack(two((2, 5), (0, 2)), b"abcde"),
    "empty tensors between": pack({**two((0, 2), (2, 4)), "c": entry("F64", [0], 2, 2)}, FOUR),
    "an entry's fields in any order": pack('{"w":{"data_offsets":[0,4],"dtype":"F32","shape":[1]}}', FOUR),
}


@pytest.mark.parametrize("data", ODDITIES.values(), ids=ODDITIES)
def test_valid_oddities_open(tmp_path, data):
    assert library_accepts(data)
    found = read_header(str(write(tmp_path / "x.safetensors", data)))
    expected = dict(safetensors.deserialize(data))
    assert {t.name: list(t.shape) for t in found.tensors} == {n: t["shape"] for n, t in expected.items()}
    for t in found.tensors:
        assert data[t.offset : t.offset + t.nbytes] == bytes(expected[t.name]["data"])
    assert [t.offset for t in found.tensors] == sorted(t.offset for t in found.tensors)


def test_tensors_are_found_where_the_library_puts_them(tmp_path):
    arrays = {f"w{i}": np.full((i, 3), i, t) for i, t in enumerate(["<f4", "<f2", "<f8", "i1", "?"])}
    path = tmp_path / "x.safetensors"
    save_file(arrays, path, metadata={"format": "np"})
    data = path.read_bytes()
    found = {t.name: t for t in read_header(str(path)).tensors}
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        t = found[name]
        assert data[t.offset : t.offset + t.nbytes] == array.tobytes()
        assert t.shape == array.shape


def test_the_digest_is_that_of_the_header_alone(tmp_path):
    first = read_header(str(write_tensors(tmp_path / "a", {"w": f32(1)})))
    second = read_header(str(write_tensors(tmp_path / "b", {"w": f32(2)})))
    third = read_header(str(write_tensors(tmp_path / "c", {"v": f32(1)})))
    assert first.digest == second.digest != third.digest


# Damaged. (file, what the message must say, whether the library lets it pass)


VALID = pack_tensors({"w": f32(1, 2), "v": f32(3)})

DAMAGE = {
    "empty file": (b"", "0 bytes, too few"),
    "seven bytes": (b"\x02" + bytes(6), "7 bytes, too few"),
    "length of zero": (pack(b""), "not JSON"),
    "length beyond the file": (pack({}, length=3), "claims a header of 3 bytes, but the file has 10"),
    "length beyond 100 MB": (
        pack({}, length=MAX_HEADER_BYTES + 1),
        "100,000,001 bytes, over the limit of 100,000,000",
    ),
    "length of all ones": (b"\xff" * 8 + b"{}", "over the limit"),
    "length cuts the header": (pack(one(), FOUR, length=20), "not JSON"),
    "length reaches into the body": (pack({}, FOUR, length=6), "not"),
    "truncated body": (VALID[:-1], "truncated"),
    "truncated to the header": (VALID[:-12], "truncated"),
    "one byte too many": (VALID + b"\0", "too long"),
    "body without tensors": (pack({}, FOUR), "too long"),
    "not UTF-8": (pack(b'{"\xff": 1}'), "not UTF-8 at byte 2"),
    "UTF-16": (pack("{}".encode("utf-16")), "not UTF-8"),
    "byte order mark": (pack("\ufeff{}"), "not JSON"),
    "not JSON": (pack("{w: 1}"), "not JSON"),
    "two objects": (pack("{}{}"), "not JSON"),
    "NUL padding": (pack(b"{}\0\0\0\0\0\0"), "not JSON"),
    "a control character in a name": (pack('{"a\nb": 1}'), "not JSON"),
    "NaN": (pack('{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', FOUR), "NaN is not"),
    "infinity": (
        pack('{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,Infinity]}}', FOUR),
        "Infinity is not",
    ),
    "a list": (pack("[]"), "list, expected an object"),
    "a string": (pack('"x"'), "str, expected an object"),
    "null": (pack("null"), "expected an object"),
    "deep nesting": (pack('{"a":' * 100_000), "nested too deeply"),
    "deep nesting in a shape": (
        pack(one(shape=json.loads("[" * 300 + "]" * 300))),
        "not a list of whole numbers",
    ),
    "an integer of 5,000 digits": (pack(json.dumps(one()).replace("4]", "4" * 5000 + "]")), "not valid"),
    "an integer of 4,000 digits": (
        pack(json.dumps(one()).replace("4]", "4" * 4000 + "]")),
        "data_offsets span",
    ),
    "lone surrogate in a name": (pack(one(name="\ud800"), FOUR), "not valid Unicode"),
    "metadata of numbers": (pack({"__metadata__": {"a": 1}}), "__metadata__"),
    "metadata is a list": (pack({"__metadata__": []}), "__metadata__"),
}

DAMAGED_TENSORS = {
    "unknown dtype": (one("F8_E3M4"), "unknown dtype 'F8_E3M4'"),
    "dtype in lower case": (one("f32"), "unknown dtype"),
    "dtype is a number": (one(32), "unknown dtype"),
    "dtype is a list": (one([]), "unknown dtype"),
    "a field missing": ({"w": {"dtype": "F32", "shape": [1]}}, "must have exactly"),
    "entry is a list": ({"w": [1]}, "must have exactly"),
    "entry is null": ({"w": None}, "must have exactly"),
    "shape is a number": (one(shape=1), "shape 1 is not"),
    "shape is null": (one(shape=None), "is not a list"),
    "shape of floats": (one(shape=[1.0]), "shape [1.0]"),
    "shape of booleans": (one(shape=[True]), "shape [True]"),
    "shape of strings": (one(shape=["1"]), "is not a list of whole numbers"),
    "negative shape": (one(shape=[-1, -1]), "shape [-1, -1]"),
    "shape overflows": (one(shape=[1 << 32, 1 << 32]), "overflows 64 bits"),
    "shape overflows in bytes": (one(shape=[1 << 62]), "overflows 64 bits"),
    "offsets are floats": (one(start=0.0), "data_offsets [0.0, 4]"),
    "offset is a float with exponent": (one(stop=4e0), "data_offsets"),
    "offsets are booleans": (one(start=False), "data_offsets [False, 4]"),
    "offsets are strings": (one(stop="4"), "data_offsets"),
    "offsets are negative": (one(start=-4, stop=0), "data_offsets [-4, 0]"),
    "offsets are one": ({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4]}}, "pair"),
    "offsets are three": ({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, "pair"),
    "offsets are reversed": (one(start=4, stop=0), "reversed: 4 to 0"),
    "size below the shape's": (one(shape=[2]), "takes 8 bytes, but data_offsets span 4"),
    "size above the shape's": (one("F16"), "takes 2 bytes, but data_offsets span 4"),
    "0-d with the size of none": (one(shape=[], stop=0), "takes 4 bytes"),
    "half a byte": (one("F4", [7], 0, 4), "do not fill whole bytes"),
}  # fmt: skip

DAMAGED_LAYOUTS = {
    "overlap": (two((0, 3), (2, 4)), "b", "overlaps the tensor before it: it starts at 2, expected 3"),
    "the same bytes twice": (two((0, 4), (0, 4)), "b", "overlaps"),
    "hole at the start": (two((1, 2), (2, 4)), "a", "leaves a hole before it: it starts at 1, expected 0"),
    "hole between": (two((0, 1), (2, 4)), "b", "leaves a hole"),
    "empty tensor beyond the end": (two((0, 4), (9, 9)), "b", "leaves a hole"),
    "empty tensor inside another": (two((0, 4), (2, 2)), "b", "overlaps"),
}

W = json.dumps(one()["w"])
STRICTER = {
    "the same key twice": f'{{"w":{W},"w":{W}}}',
    "the same key twice, once escaped": f'{{"w":{W},"\\u0077":{W}}}',
    "a key twice in the metadata": f'{{"__metadata__":{{"a":"1","a":"2"}},"w":{W}}}',
    "a field that nobody knows": json.dumps({"w": {**one()["w"], "stride": [1]}}),
}


@pytest.mark.parametrize(("data", "says"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_refused(tmp_path, data, says):
    assert not library_accepts(data)
    assert says in refusal(write(tmp_path / "x.safetensors", data))


@pytest.mark.parametrize(("header", "says"), DAMAGED_TENSORS.values(), ids=DAMAGED_TENSORS)
def test_damaged_entries_are_refused_with_the_tensor_named(tmp_path, header, says):
    data = pack(header, FOUR)
    assert not library_accepts(data)
    text = refusal(write(tmp_path / "x.safetensors", data))
    assert says in text
    assert "tensor 'w'" in text


@pytest.mark.parametrize(("header", "tensor", "says"), DAMAGED_LAYOUTS.values(), ids=DAMAGED_LAYOUTS)
def test_bytes_of_no_tensor_or_of_two_are_refused(tmp_path, header, tensor, says):
    data = pack(header, FOUR)
    assert not library_accepts(data)
    text = refusal(write(tmp_path / "x.safetensors", data))
    assert says in text
    assert f"tensor {tensor!r}" in text


@pytest.mark.parametrize("header", STRICTER.values(), ids=STRICTER)
def test_ambiguous_headers_are_refused_though_the_library_takes_them(tmp_path, header):
    data = pack(header, FOUR)
    assert library_accepts(data)
    refusal(write(tmp_path / "x.safetensors", data))


@pytest.mark.parametrize(
    "header",
    [
        one(shape=[1 << 63, 1 << 63, 0], stop=0),
        one(shape=[0, 10**30], stop=0),
        json.dumps(one(shape=[0], stop=0)).replace("[0, 0]", "[-0, 0]"),
        {"__metadata__": {"a": "\ud800"}},
    ],
    ids=[
        "overflow times zero",
        "a dimension above 64 bits",
        "negative zero",
        "lone surrogate in a metadata value",
    ],
)
def test_whatever_the_library_refuses_is_refused(tmp_path, header):
    # a dimension above 64 bits is the one that matters: no table has room for it
    data = pack(header)
    assert not library_accepts(data)
    refusal(write(tmp_path / "x.safetensors", data))


@pytest.mark.parametrize("depth", [2, 30, *range(900, 1010, 3)])
@pytest.mark.parametrize("field", ["dtype", "shape", "data_offsets"])
def test_no_depth_of_nesting_escapes_as_another_error(scratch, field, depth):
    fields = {k: json.dumps(v) for k, v in one()["w"].items()} | {field: "[" * depth + "]" * depth}
    text = '{"w":{' + ",".join(f'"{k}":{v}' for k, v in fields.items()) + "}}"
    refusal(write(scratch / "x.safetensors", pack(text, FOUR)))


def test_a_header_above_100_mb_is_refused_even_if_it_is_there(tmp_path):
    path = write(tmp_path / "x.safetensors", pack(b"", length=MAX_HEADER_BYTES + 1))
    os.truncate(path, MAX_HEADER_BYTES + 9)  # a hole: it takes no disk
    assert "over the limit" in refusal(path)


def test_a_file_that_is_not_there(tmp_path):
    assert "No such file" in refusal(tmp_path / "x.safetensors")


def test_a_directory_in_place_of_a_file(tmp_path):
    (tmp_path / "x.safetensors").mkdir()
    assert "not a regular file" in refusal(tmp_path / "x.safetensors")


def test_a_pipe_in_place_of_a_file_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "x.safetensors")
    assert "not a regular file" in refusal(tmp_path / "x.safetensors")


def test_long_values_are_not_repeated_in_full(tmp_path):
    for header in (one("x" * 10_000), one(shape=[0.5] * 10_000), one(shape=[1 << 70] * 10_000)):
        assert len(refusal(write(tmp_path / "x.safetensors", pack(header, FOUR)))) < 1000


def test_a_long_shape_of_the_wrong_size_is_not_repeated_in_full(tmp_path):
    assert (
        len(refusal(write(tmp_path / "x.safetensors", pack(one(shape=[1] * 10_000, stop=8), bytes(8)))))
        < 1000
    )


# Fuzz

BASE = pack_tensors(
    {"a.w": f32(1, 2, 3), "b": f32(), "c": ("F16", np.zeros((2, 3), "<f2"))}, {"format": "pt"}
)
HEADER_END = len(BASE) - 24
BYTES = st.one_of(st.sampled_from(list(b'{}[]",:0123456789-+.eE \\untf\0\xff')), st.integers(0, 255))
EDITS = st.lists(
    st.tuples(st.sampled_from(["set", "insert", "delete", "repeat"]), st.integers(0, HEADER_END - 1), BYTES),
    min_size=1,
    max_size=4,
)


def refusal_of(path: Path) -> str | None:
    """The message of a FormatError, None when the header opens; nothing else may come out."""
    try:
        read_header(str(path))
    except FormatError as error:
        return str(error)
    return None


def edit(data: bytes, edits: list[tuple[str, int, int]], keep_length: bool) -> bytes:
    body, header = data[HEADER_END:], bytearray(data[:HEADER_END])
    for kind, place, byte in edits:
        at = place % max(len(header), 1)
        if kind == "set":
            header[at : at + 1] = bytes([byte])
        elif kind == "insert":
            header[at:at] = bytes([byte])
        elif kind == "delete":
            del header[at]
        else:
            header[at:at] = header[at : at + 12]
    if not keep_length:
        header[:8] = (len(header) - 8).to_bytes(8, "little")
    return bytes(header) + body


@example([("set", 7, 255)], True)
@given(EDITS, st.booleans())
@settings(max_examples=600)
def test_a_mutated_header_opens_or_is_refused(scratch, edits, keep_length):
    data = edit(BASE, edits, keep_length)
    assume(len(data) >= 8)
    path = write(scratch / "fuzz.safetensors", data)
    refused = refusal_of(path)
    if refused is None:
        assert library_accepts(data) or b"-0" in data
    else:
        assert refused.startswith(f"{path}: ")
        assert "\n" not in refused


SCALARS = [
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from([0, 4, "F32"]),
]
KEYS = st.sampled_from(["w", "dtype", "shape", "data_offsets", "__metadata__", "\ud800"])
DOCUMENTS = st.recursive(
    st.one_of(SCALARS), lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner))
)


@given(DOCUMENTS)
@settings(max_examples=300)
def test_any_json_opens_or_is_refused(scratch, document):
    path = write(scratch / "fuzz.safetensors", pack(document, FOUR))
    assert "\n" not in (refusal_of(path) or "")
