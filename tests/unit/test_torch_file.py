"""Torch files that are damaged, foreign or made to harm: one sentence that names the file, or the weights."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.errors import FormatError
from engine.formats.header import Header
from engine.formats.torch import archive as torch_file
from engine.formats.torch.archive import read_torch
from tests.builders import write
from tests.integration.helpers import made, rows
from tests.torch_files import archive, call, frugal, glob, op, program, sentence, storage, tensor

torch = pytest.importorskip("torch")

VALUES = np.arange(24, dtype="<f4")
HUGE = 10**5000  # more digits than Python turns into text


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def small() -> bytes:
    return saved({"w": torch.from_numpy(VALUES[:16].copy()).reshape(4, 4), "b": torch.tensor([7.0, 8.0])})


def refusal(tmp_path: Path, data: bytes) -> str:
    path = write(tmp_path / "weights.pth", data)
    with pytest.raises(FormatError) as caught, frugal():
        read_torch(str(path))
    return sentence(caught.value, path)


def values(path: Path, header: Header) -> dict[str, list[float]]:
    """What the places of plain tensors hold."""
    data = path.read_bytes()
    return {t.name: np.frombuffer(data, "<f4", t.elements, t.offset).tolist() for t in header.tensors}


TRUE = {"w": VALUES[:16].tolist(), "b": [7.0, 8.0]}


def refused_or_true(tmp_path: Path, data: bytes) -> bool:
    path = write(tmp_path / "weights.pth", data)
    try:
        assert values(path, read_torch(str(path))) == TRUE
    except FormatError as error:
        sentence(error, path)
        return False
    return True


# The archive


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a name is there twice
        for number, (name, data) in enumerate((("archive/data.pkl", program({"w": tensor()})), *members)):
            file.writestr(name, data, method if number else zipfile.ZIP_STORED)
    return buffer.getvalue()


def entries(data: bytes) -> list[int]:
    """Where the entries of the central directory begin."""
    start = struct.unpack_from("<I", data, data.rindex(b"PK\5\6") + 16)[0]
    found = []
    while data[start : start + 4] == b"PK\1\2":
        found.append(start)
        start += 46 + sum(struct.unpack_from("<3H", data, start + 28))
    return found


def patched(data: bytes, *changes: tuple[int, str, int]) -> bytes:
    """Bytes with numbers at places changed: (place, struct's letter, number)."""
    result = bytearray(data)
    for place, letter, number in changes:
        struct.pack_into("<" + letter, result, place, number)
    return bytes(result)


def test_what_these_tests_start_from(tmp_path):
    assert refused_or_true(tmp_path, small())
    data = zipped(("archive/data/0", bytes(16)))
    assert [t.name for t in read_torch(str(write(tmp_path / "x.pth", data))).tensors] == ["w"]
    assert len(entries(data)) == 2


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_member(method, tmp_path):
    message = refusal(tmp_path, zipped(("archive/data/0", bytes(1 << 20)), method=method))
    assert "'archive/data/0' is compressed" in message
    assert "1,048,576" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([(20, "I", 16), (24, "I", 1 << 31)], "compressed"),
        ([(20, "I", 0xFFFFFFF0), (24, "I", 0xFFFFFFF0)], "outside"),
        ([(42, "I", 0)], "overlaps"),
        ([(42, "I", 1)], "no member"),
        ([(42, "I", 0x7FFFFFFF)], "outside"),
        ([(42, "I", 0xFFFFFFFE)], "outside"),
        ([(8, "H", 1)], "encrypted"),
        ([(10, "H", 8)], "compressed"),
        ([(10, "H", 99)], "compressed"),
    ],
    ids=repr,
)
def test_a_directory_that_lies(changes, expected, tmp_path):
    data = zipped(("archive/data/0", bytes(16)))
    second = entries(data)[1]
    assert expected in refusal(tmp_path, patched(data, *((second + p, x, n) for p, x, n in changes)))


def test_a_member_that_quotes_the_next(tmp_path):
    data = zipped(("archive/data/0", bytes(64)), ("archive/data/1", bytes(64)))
    second = entries(data)[1]
    assert "overlaps" in refusal(tmp_path, patched(data, (second + 20, "I", 150), (second + 24, "I", 150)))


def test_a_thousand_names_for_one_place(tmp_path):
    data = zipped(*((f"archive/data/{k}", bytes(16)) for k in range(1000)))
    assert "overlaps" in refusal(tmp_path, patched(data, *((e + 42, "I", 0) for e in entries(data)[1:])))


@pytest.mark.parametrize("size", [1 << 40, 1 << 62, (1 << 64) - 1])
def test_a_member_of_sizes_beyond_32_bits(size, tmp_path):
    data = zipped(("archive/data/0", bytes(16)))
    second, end = entries(data)[1], data.rindex(b"PK\5\6")
    extra = struct.pack("<HHQQ", 1, 16, size, size)
    longer = data[:end] + extra + data[end:]
    changes = [(second + 20, "I", 0xFFFFFFFF), (second + 24, "I", 0xFFFFFFFF), (second + 30, "H", len(extra))]
    message = refusal(
        tmp_path, patched(longer, *changes, (end + len(extra) + 12, "I", end - entries(data)[0] + len(extra)))
    )
    assert "outside" in message


@pytest.mark.parametrize(
    ("place", "letter"), [(8, "H"), (10, "H"), (12, "I"), (16, "I"), (20, "H"), (4, "H"), (6, "H")]
)
@pytest.mark.parametrize("number", [0, 1, 0x7FFF, -1])
def test_an_end_of_directory_that_lies(place, letter, number, tmp_path):
    data = small()
    number &= 0xFFFF if letter == "H" else 0xFFFFFFFF
    with frugal():
        refused_or_true(tmp_path, patched(data, (data.rindex(b"PK\5\6") + place, letter, number)))


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "archive/../../x",
        "archive/data/../1",
        "..",
        "..\\x",
        "C:\\x",
        "archive/data/1\0.txt",
    ],
)
def test_names_that_lead_out(name, tmp_path):
    stand_in = name.replace("\0", "~")
    data = zipped(("archive/data/0", bytes(16)), (stand_in, b"x")).replace(stand_in.encode(), name.encode())
    assert "outside of itself" in refusal(tmp_path, data)


def test_two_members_of_one_name(tmp_path):
    twice = zipped(("archive/data/0", bytes(16)), ("archive/data/0", bytes(16)))
    assert refusal(tmp_path, twice) == "has two members 'archive/data/0'"
    assert "two members" in refusal(tmp_path, zipped(("archive/data.pkl", b"N.")))


def test_a_member_before_the_first_byte(tmp_path):
    data = zipped(("archive/data/0", bytes(16)))
    refusal(tmp_path, patched(data, (data.rindex(b"PK\5\6") + 16, "I", 0x7FFF)))


def test_cut_off_anywhere(tmp_path):
    data = small()
    for end in [*range(0, len(data), 13), len(data) - 1]:
        refusal(tmp_path, data[:end])


@pytest.mark.parametrize(
    "junk", [b"\0", b"junk" * 50, b"PK\3\4" + bytes(60), b"PK\5\6" + bytes(18), bytes(70_000)]
)
def test_junk_before_and_behind(junk, tmp_path):
    data = small()
    for both in (junk + data, data + junk, junk + data + junk, data[:700] + junk + data[700:]):
        refused_or_true(tmp_path, both)


def test_one_archive_behind_another_is_the_last_or_none(tmp_path):
    refused_or_true(tmp_path, saved({"w": torch.ones(99)}) + small())


@pytest.mark.parametrize("seed", range(3))
def test_bytes_changed_at_random(seed, tmp_path):
    chance, data = (
        random.Random(seed),
        saved({"w": torch.ones(2, 2), "e": torch.ones(3, dtype=torch.float8_e5m2)}),
    )
    path, refused = tmp_path / "weights.pth", 0
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(chance.choice([1, 1, 3, 30])):
            changed[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(changed)
        try:
            read_torch(str(path))
        except FormatError as error:
            sentence(error, path)
            refused += 1
    assert 30 < refused < 300


# The storages


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (tensor((5,), (1,)), "20 bytes of its storage"),
        (tensor((2, 2), (3, 2)), "24 bytes"),
        (tensor((4,), (1,), 1), "20 bytes"),
        (tensor((1,), (1,), 1 << 62), "bytes of its storage"),
        (tensor((1 << 62, 1 << 62), (1, 1)), "bytes of its storage"),
        (tensor((2,), (1 << 62,)), "bytes of its storage"),
        (tensor(of=storage(elements=5)), "declares 20 bytes and has 16"),
        (tensor(of=storage(elements=1 << 62)), "and has 16"),
        (tensor(of=storage("1")), "storage '1' is not in the archive"),
        (tensor(of=storage("../data.pkl")), "not in the archive"),
        (tensor((-1,), (1,)), "-1 is no size"),
        (tensor((2,), (-1,)), "-1 is no size"),
        (tensor((2,), (1,), -1), "-1 is no size"),
        (tensor(of=storage(elements=-4)), "-4 is no size"),
        (tensor((2, 2), (1,)), "2 dimensions have 1 strides"),
        (tensor((4,), (1,), of=storage(elements=2)), "needs 16 bytes of its storage, which has 8"),
        (tensor((HUGE,), (1,)), "no size"),
        (tensor((1,), (1,), HUGE), "no size"),
        (tensor(of=storage(elements=HUGE)), "no size"),
        (tensor(of=storage() + op(("0", "NOPE", 4)) + b"b"), "cannot be read"),
    ],
)  # fmt: skip
def test_a_tensor_that_its_storage_cannot_hold(body, expected, tmp_path):
    assert expected in refusal(tmp_path, archive(program({"w": body})))


def test_a_storage_shorter_in_the_archive(tmp_path):
    assert "declares 16 bytes and has 15" in refusal(
        tmp_path, archive(program({"w": tensor()}), {"0": bytes(15)})
    )


@pytest.mark.parametrize(
    "state",
    [
        pytest.param({"w": tensor((1 << 40, 1 << 40), (0, 0))}, id="repeated"),
        pytest.param({"w": tensor((0, 1 << 70), (1, 1))}, id="empty"),
        pytest.param(
            {"w": call("torch._utils", "_rebuild_qtensor", storage(), 0, (1 << 62, 4), (0, 0), None, False)},
            id="quantised",
        ),
        pytest.param({"\ud800": tensor()}, id="surrogate"),
    ],
)
def test_what_no_table_can_hold_is_refused_or_kept(state, tmp_path):
    path = write(tmp_path / "weights.pth", archive(program(state)))
    try:
        assert engine.scan(path, warehouse=made(tmp_path / "w.duckdb"), workers=1).tensors == 1
    except FormatError as error:
        sentence(error, path)


def test_a_tensor_that_repeats_without_end_is_listed(tmp_path):
    path = write(
        tmp_path / "weights.pth", archive(program({"w": tensor((1 << 20, 1 << 20), (0, 0)), "b": tensor()}))
    )
    engine.scan(path, warehouse=made(tmp_path / "w.duckdb"), workers=1)
    assert dict(rows(tmp_path / "w.duckdb", "SELECT name, reason FROM tensors")) == {
        "w": "repeats the 4 elements of its storage",
        "b": None,
    }


# Other files


def scripted() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def legacy(protocol: int = 2) -> Callable[[], bytes]:
    return lambda: saved({"w": torch.ones(2)}, _use_new_zipfile_serialization=False, pickle_protocol=protocol)


def big() -> bytes:
    return archive(program({"w": tensor()}), byteorder=b"big")


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (scripted, "scripted program"),
        (legacy(2), "before 1.6"),
        (legacy(3), "before 1.6"),
        (legacy(4), "before 1.6"),
        (big, "b'big' endian, expected little"),
        (lambda: b"", "no torch file"),
        (lambda: b"PK", "no torch file"),
        (lambda: b"PK\3\4", "no whole zip archive"),
        (lambda: bytes(1000), "no torch file"),
        (lambda: b"PK\5\6" + bytes(18), "no torch file"),
        (lambda: zipped(("other/data.pkl", b"N.")), "data.pkl"),
        (lambda: archive(b"N.").replace(b"data.pkl", b"data.pkx"), "has no data.pkl"),
        (lambda: archive(b"", {}), "cannot be read"),
        (lambda: archive(program({"w": glob("os", "system")})), "'os.system'"),
    ],
)  # fmt: skip
def test_what_is_no_torch_file(build, expected, tmp_path):
    assert expected in refusal(tmp_path, build())


def test_a_pickle_over_the_limit_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "MAX_PICKLE_BYTES", 100)
    assert "over the limit" in refusal(tmp_path, small())


def test_a_refusal_leaves_no_subject(tmp_path):
    path = write(tmp_path / "weights.pth", big())
    with pytest.raises(FormatError):
        engine.scan(path, warehouse=made(tmp_path / "w.duckdb"))
    assert rows(tmp_path / "w.duckdb", "SELECT count(*) FROM subjects") == [(0,)]
