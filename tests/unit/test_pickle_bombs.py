"""Pickles that are damaged, or made to take all memory or for ever: a refusal at once, or the weights."""

from __future__ import annotations

import io
import pickle
import pickletools
import random
import struct
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import pytest

from engine.errors import FormatError
from engine.formats.torch import state_dict
from engine.formats.torch.state_dict import find_weights
from engine.formats.torch.vocabulary import _ALLOWED, load
from tests.integration.helpers import program as run_program
from tests.torch_files import (
    FILE,
    MIB,
    STOP,
    call,
    frugal,
    glob,
    op,
    program,
    refusal,
    sentence,
    storage,
    tensor,
    text,
)

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    "data",
    [
        b"Nr" + struct.pack("<I", (1 << 31) - 1) + b".", b"Nr\xff\xff\xff\xff.", b"Np999999999999\n.",
        b"Np99999999999999999999999999\n.", b"Nj\xff\xff\xff\x7f.", b"h\x05.", b"g-1\n.", b"Np-1\n.", b"Npx\n.",
        b"\x8e" + struct.pack("<Q", 1 << 60) + b"x.", b"\x8d" + struct.pack("<Q", 1 << 60) + b"x.",
        b"\x96" + struct.pack("<Q", 1 << 60) + b"x.", b"\x96" + b"\xff" * 8 + b"x.", b"B\xff\xff\xff\xffx.",
        b"X\xff\xff\xff\xffx.", b"T\xff\xff\xff\x7fx.", b"T\xff\xff\xff\xffx.", b"\x8b\xff\xff\xff\x7fx.",
        b"\x8b\xff\xff\xff\xff.", b"\x95" + struct.pack("<Q", 1 << 60) + b"N.", b"Vno end", b"I" + b"9" * 5000 + b"\n.",
        b"Iten\n.", b"Fx\n.", b"S'open\n.", b"S'\\x'\n.", b"X\x01\0\0\0\xff.", b"\x80\xff.", b"\x97.", b"\x98.", b"", b".", b"N",
        b"0.", b"1.", b"t.", b"R.", b"b.", b"s.", b"e.", b"u.", b"\x81.", b"N)R.", b"\xff\xff", bytes(100),
    ],
    ids=repr,
)  # fmt: skip
def test_damage_and_lengths_that_lie(data):
    with frugal():
        for whole in (data, b"\x80\x02" + data):
            try:
                assert load(whole, FILE) is None
            except FormatError as error:
                sentence(error, FILE)


def test_the_memo_may_be_as_sparse_as_torch_writes_it():
    assert load(b"N" + b"q\x05q\xffr\x00\x01\0\0h\xff.", FILE) is None


def test_a_mark_is_no_result():
    refusal(b"(.")


def names_in(body: bytes) -> list[str]:
    """The names of the weights, as far as there are any."""
    with suppress(ValueError):
        return [n.name for n in find_weights(load(program(body), FILE))]
    return []


def test_a_dict_that_holds_itself():
    with frugal():
        assert names_in(b"}q\0(" + text("w") + tensor() + text("again") + b"h\0u") in (["w"], [])


GRAPHS = {
    "a dict and a list that hold each other": b"}q\0(" + text("w") + tensor() + text("again") + b"h\0" + text("list") + b"]q\1(h\0h\1eu",
    "lists of ten times the same": tensor() + b"".join(b"q" + bytes([k]) + b"](" + (b"h" + bytes([k])) * 10 + b"e" for k in range(60)),
}  # fmt: skip


@pytest.mark.parametrize("graph", [
    "a dict and a list that hold each other",
    "lists of ten times the same",
])  # fmt: skip
def test_what_is_there_a_million_times_is_not_gone_through_each_time(graph, monkeypatch):
    monkeypatch.setattr(state_dict, "_MOST_ENTRIES", 20_000)  # a fiftieth
    with frugal(seconds=2), suppress(ValueError):
        names_in(GRAPHS[graph])


def test_long_names_of_nested_dicts():
    key = text("a" * 10_000) + b"q\0"
    body = key + b"0" + (b"}h\0") * 60 + b"](" + tensor() + b"q\1" + b"h\1" * 200 + b"e" + b"s" * 60
    with frugal(), suppress(ValueError):
        names_in(body)


def test_a_large_tuple_as_a_key_again_and_again():
    wide = b"N"
    for place in range(3):
        wide += b"q" + bytes([place]) + b"(" + (b"h" + bytes([place])) * 99 + b"t"
    with frugal(), suppress(FormatError):
        load(program(wide + b"q\x030}" + b"h\x03Ns" * 5), FILE)


@pytest.mark.parametrize(("opening", "closing"), [(b"]", b"a"), (b")", b"\x85"), (b"}", None)])
def test_nested_deeply(opening, closing):
    depth = 30_000
    body = b"]" + b"\x85" * depth if closing == b"\x85" else opening * depth + (closing or b"") * (depth - 1)
    if closing is None:
        body = b"}" + (text("k") + b"}") * depth + b"s" * depth
    with frugal(80):
        assert names_in(body) == []


def in_a_process(data: bytes, folder: Path) -> None:
    """Load what may take the interpreter down with it."""
    path = folder / "data.pkl"
    path.write_bytes(data)
    ran = run_program(
        "import sys, pathlib; from engine.formats.torch.vocabulary import *\n"
        "try: load(pathlib.Path(sys.argv[1]).read_bytes(), 'x')\nexcept FormatError: pass",
        path,
    )
    assert ran.code == 0, (ran.code, ran.err)


def test_a_deep_tuple_as_a_key(tmp_path):
    in_a_process(b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns.", tmp_path)


def test_a_function_that_calls_itself(tmp_path):
    function = glob("torch._utils", "_rebuild_parameter") + b"q\0"
    in_a_process(program(function + op((b"h\0", (), {}, None)) + b"bK\x01\x85R"), tmp_path)


def doubled(times: int) -> bytes:
    return b")" + b"2\x86" * times


def test_tuples_of_tuples_as_a_key():
    with frugal(), suppress(FormatError):
        load(program(b"}" + doubled(28) + b"Ns"), FILE)


@pytest.mark.parametrize(
    "body",
    [
        call("torch", "Size", (doubled(19),)),
        call("_codecs", "encode", "x", doubled(19)),
        call("torch._utils", "_rebuild_tensor_v3", storage(), 0, (1,), (1,), False, {}, doubled(19)),
    ],
    ids=["size", "encoding", "dtype"],
)
def test_tuples_of_tuples_in_a_message(body):
    with frugal(4):
        refusal(program(body))


REPEATED = {
    "builtins set": b"](" + b"K\1" * 100_000 + b"e",
    "_codecs encode": text("a" * MIB),
    "builtins bytearray": b"\x96" + struct.pack("<Q", MIB) + bytes(MIB),
    "torch Size": b"](" + b"K\1" * 100_000 + b"e",
    "collections OrderedDict": b"}("
    + b"".join(b"M" + struct.pack("<H", k) + b"N" for k in range(3_000))
    + b"u",
}


@pytest.mark.parametrize("name", REPEATED)
def test_copies_of_copies(name):
    function = glob(*name.split()[:2]) + b"q\0" + REPEATED[name] + b"q\1"
    with frugal(80), suppress(FormatError):
        load(program(function + b"](" + b"h\0h\1\x85R" * 200 + b"e", 5), FILE)


# Damage to a real one


@pytest.fixture(scope="module")
def real() -> bytes:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    state = {"model": module.state_dict(), "epoch": 3, "lr": 1e-3, "tied": torch.nn.Parameter(torch.ones(2))}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with zipfile.ZipFile(buffer) as file:
        return next(file.read(n) for n in file.namelist() if n.endswith("data.pkl"))


def test_a_real_one(real):
    names = [n.name for n in find_weights(load(real, FILE))]
    assert names[:3] == ["0.weight", "0.bias", "1.weight"]
    assert names[-1] == "tied"


def test_cut_off_anywhere(real):
    with frugal():
        for end in range(len(real)):
            refusal(real[:end])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
def test_bytes_changed_at_random(real, seed):
    chance = random.Random(seed)
    refused = 0
    with frugal():
        for _ in range(400):
            data = bytearray(real)
            for _ in range(chance.choice([1, 1, 1, 2, 5, 20])):
                data[chance.randrange(len(data))] = chance.randrange(256)
            try:
                load(bytes(data), FILE)
            except FormatError as error:
                sentence(error, FILE)
                refused += 1
    assert 100 < refused < 400  # most changes show, some do not


def test_opcodes_at_random():
    chance = random.Random(0)
    codes = [ord(o.code) for o in pickletools.opcodes if o.name not in ("EXT1", "EXT2", "EXT4")]
    parts = (
        [glob(*key) for key in _ALLOWED]
        + [op(v) for v in ((), (1,), {}, [], {"a": 1}, "0", 4)]
        + [storage(), tensor()]
    )
    with frugal():
        for _ in range(3000):
            body = b"".join(
                bytes([chance.choice(codes)]) if chance.random() < 0.4 else chance.choice(parts)
                for _ in range(chance.randrange(1, 12))
            )
            try:
                load(b"\x80\x04" + body + STOP, FILE)
            except FormatError as error:
                sentence(error, FILE)


def test_what_torch_may_write_beside_tensors_is_read():
    value = {"set": {1, 2}, "bytes": b"\xff\0", "array": bytearray(b"ab"), "size": torch.Size([2]),
             "dtype": torch.bfloat16, "device": torch.device("cpu"), "layout": torch.strided, "order": OrderedDict(a=1)}  # fmt: skip
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with zipfile.ZipFile(buffer) as file:
        found = load(file.read("archive/data.pkl"), FILE)
    assert set(found["set"]) == {1, 2}
    assert (found["bytes"], found["array"]) == (b"\xff\0", b"ab")
    assert (found["size"], found["dtype"].name, dict(found["order"])) == ((2,), "BF16", {"a": 1})


def test_a_complex_number_as_torch_writes_it():
    assert load(pickle.dumps({"z": 1j}, 2), FILE) == {"z": 1j}
