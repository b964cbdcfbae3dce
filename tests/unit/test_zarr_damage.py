"""A damaged Zarr store is refused in one sentence that names the store and the tensor; nothing is made up."""

from __future__ import annotations

import struct
from pathlib import Path

import numcodecs
import numpy as np
import pyarrow
import pytest
from google_crc32c import value as crc32c
from zarr.codecs import BytesCodec, Crc32cCodec

from tests.integration.helpers import made, program
from tests.zarr_stores import (
    CHUNKS,
    COMPRESSORS,
    SHARDS,
    SMALL,
    Chunked,
    archive,
    chunk,
    edit,
    expected,
    noise,
    refusal,
    scanned,
    setting,
    sharding,
    store,
    tensor_refusal,
)


@pytest.fixture
def chunked(tmp_path: Path) -> Chunked:
    return Chunked(tmp_path)


# Missing


@pytest.mark.parametrize(("how", "key"), [(CHUNKS, "1/0"), (CHUNKS, "0/0"), (SHARDS, "0/1")], ids=str)
def test_a_missing_file(chunked, how, key):
    place = chunked(how=how)
    chunk(place, key).unlink()
    assert f"its chunk w/c/{key} is missing" in tensor_refusal(place)
    chunk(place, key).mkdir()
    assert f"its chunk w/c/{key} is missing" in tensor_refusal(place)
    chunk(place, key).rmdir()
    chunk(place, key).symlink_to("nothing")
    assert f"its chunk w/c/{key} is missing" in tensor_refusal(place)


def test_a_missing_member_of_an_archive(chunked, tmp_path):
    place = chunked()
    chunk(place).unlink()
    assert "w/c/0/1 is missing" in tensor_refusal(archive(place, tmp_path / "m.zarr.zip"))


@pytest.mark.parametrize("compressor", ["none", "zstd"])
@pytest.mark.parametrize("how", [CHUNKS, SHARDS], ids=["chunks", "shards"])
def test_chunks_of_zeros_that_zarr_left_out(tmp_path, how, compressor):
    """Zarr reads them as zeros, whether they were left out or lost: nobody can tell."""
    data = SMALL.copy()
    data[:3, 4:] = 0
    codec = COMPRESSORS[compressor]
    place = store(tmp_path / "s", {"w": data}, compressors=codec, config={}, **how)
    text = tensor_refusal(place)
    assert (
        "its chunk 0/0 of w/c/0/1 is missing" if "shards" in how else "its chunk w/c/0/1 is missing"
    ) in text
    assert "write_empty_chunks" in text
    whole = store(tmp_path / "t", {"w": data}, compressors=codec, **how)
    assert scanned(whole) == {"w": expected(data, "F32")}


# Damaged chunks


def spoil(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.write_bytes({
        "empty": b"", "short": data[:-1], "very short": data[:5], "long": data + b"\0",
        "garbage": np.random.default_rng(1).bytes(len(data)), "zeros": bytes(len(data)),
    }[how])  # fmt: skip


@pytest.mark.parametrize("how", ["empty", "short", "very short", "long"])
def test_a_plain_chunk_of_another_length(chunked, how):
    place = chunked()
    spoil(chunk(place), how)
    text = tensor_refusal(place)
    assert text.startswith("/w/c/0/1: ")
    assert "expected 48" in text


GZIP_END = "a gzip chunk need not have its end, and may have more behind it"
BLOSC_END = "blosc reads beyond the end of a chunk that is shorter than its header says"
DAMAGE = [
    *((c, h) for c in ("zstd", "zstd checked", "gzip", "blosc", "crc32c") for h in ("empty", "garbage", "zeros")),
    *((c, h) for c in ("zstd", "zstd checked", "crc32c") for h in ("short", "very short")), ("gzip", "very short"), *((c, "long") for c in ("zstd", "crc32c")),
    ("gzip", "short"), ("gzip", "long"),
    *(("blosc", h) for h in ("short", "very short")),
]  # fmt: skip


@pytest.mark.parametrize("how", [CHUNKS, SHARDS], ids=["chunks", "shards"])
@pytest.mark.parametrize(("compressor", "damage"), DAMAGE)
def test_a_damaged_compressed_chunk(chunked, compressor, damage, how):
    place = chunked(compressor, how)
    if how == CHUNKS:
        spoil(chunk(place), damage)
    else:
        replace_in_shard(chunk(place), damage)
    assert tensor_refusal(place)


def replace_in_shard(path: Path, damage: str) -> None:
    """Damage the first of two chunks of a shard, and write an index that is right."""
    data = path.read_bytes()
    chunks = [data[o : o + n] for o, n in struct.iter_unpack("<QQ", data[-36:-4])]
    path.write_bytes(chunks[0])
    spoil(path, damage)
    chunks[0] = path.read_bytes()
    index = struct.pack("<4Q", 0, len(chunks[0]), len(chunks[0]), len(chunks[1]))
    path.write_bytes(b"".join(chunks) + index + crc32c(index).to_bytes(4, "little"))


@pytest.mark.parametrize("compressor", ["zstd checked", "gzip", "crc32c", "zstd and crc32c"])
def test_any_flipped_bit_under_a_checksum(chunked, compressor):
    place = chunked(compressor)
    data = chunk(place).read_bytes()
    start = 10 if compressor == "gzip" else 0  # its header holds a time and an operating system
    for at in range(start, len(data), 5):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        chunk(place).write_bytes(changed)
        assert tensor_refusal(place), at


SHORTER = "what a chunk lacks is filled with whatever the memory held"


@pytest.mark.parametrize("elements", [0, 11, 13, 5000])
@pytest.mark.parametrize("codec", [numcodecs.Zstd(), numcodecs.Blosc()], ids=["zstd", "blosc"])
def test_a_chunk_of_another_size_when_decompressed(chunked, codec, elements):
    place = chunked(type(codec).__name__.lower())
    chunk(place).write_bytes(codec.encode(noise(elements)))
    assert tensor_refusal(place)


def test_a_gzip_chunk_of_another_size_when_decompressed(chunked):
    place = chunked("gzip")
    for elements in (0, 11, 13, 5000):
        chunk(place).write_bytes(numcodecs.GZip().encode(noise(elements)))
        assert "expected 48" in tensor_refusal(place)


# Indexes of shards


def test_a_damaged_index(chunked):
    place = chunked("zstd", SHARDS)
    data = chunk(place).read_bytes()
    for at in (-1, -4, -5, -20, -36):
        changed = bytearray(data)
        changed[at] ^= 4
        chunk(place).write_bytes(changed)
        assert "the index of its shard w/c/0/1 is damaged" in tensor_refusal(place)
    for length in (0, 1, 35):
        chunk(place).write_bytes(data[-length:] if length else b"")
        assert f"has {length} bytes, fewer than its index" in tensor_refusal(place)


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize(
    ("offset", "nbytes"), [(0, 10**6), (10**6, 48), (2**63, 48), (2**64 - 2, 48), (120, 48), (0, 2**64 - 1)]
)
def test_an_index_that_points_outside(tmp_path, offset, nbytes, checked):
    how = sharding((3, 4), index_codecs=(BytesCodec(), *([Crc32cCodec()] if checked else [])))
    place = store(tmp_path / "s", {"w": SMALL}, chunks=(6, 4), **how)
    index = struct.pack("<4Q", 0, 48, offset, nbytes)
    body = chunk(place).read_bytes()[:96]
    chunk(place).write_bytes(body + index + (crc32c(index).to_bytes(4, "little") if checked else b""))
    assert "a chunk of its shard w/c/0/1 ends at byte" in tensor_refusal(place)


# Bombs


def streamed(mib: int) -> bytes:
    """A zstd frame that does not say how long its content is."""
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as out:
        for _ in range(mib):
            out.write(bytes(1 << 20))
    return sink.getvalue().to_pybytes()


BOMBS = {
    "zstd": lambda: numcodecs.Zstd().encode(np.zeros(1 << 30, np.uint8)),
    "zstd streamed": lambda: streamed(1 << 10),
    "zstd lying": lambda: b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 45) + b"\x01\x00\x00",
    "gzip": lambda: numcodecs.GZip(1).encode(np.zeros(1 << 30, np.uint8)),
    "blosc": lambda: numcodecs.Blosc().encode(np.zeros(1 << 30, np.uint8)),
}
SCAN_AND_MEASURE = """
import resource, sys, engine
from engine.errors import FormatError
engine.scan(sys.argv[2], warehouse=sys.argv[3], workers=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    engine.scan(sys.argv[1], warehouse=sys.argv[3], workers=1)
except FormatError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    return {name: make() for name, make in BOMBS.items()}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_does_not_take_the_memory(chunked, tmp_path, bombs, kind):
    place, sound = chunked(kind.partition(" ")[0]), chunked(kind.partition(" ")[0])
    chunk(place).write_bytes(bombs[kind])
    ran = program(SCAN_AND_MEASURE, place, sound, made(tmp_path / "w.duckdb"))
    assert (ran.code, ran.err) == (0, "")
    kib, _, text = ran.out.partition(" ")
    assert int(kib) < 32 << 10
    assert text.startswith(f"{place}/w/c/0/1: tensor 'w': its piece at byte 0 ")


HUGE = {"name": "regular", "configuration": {"chunk_shape": [10**7, 10**6]}}


@pytest.mark.parametrize("compressor", ["none", "gzip", *(
    c
    for c in ("zstd", "blosc"))])  # fmt: skip
def test_a_chunk_that_claims_to_be_huge(chunked, compressor):
    assert tensor_refusal(edit(chunked(compressor), setting(chunk_grid=HUGE)))


LIMITED = """
import resource
from engine.cli import app
resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
app.main()
"""


def test_an_array_that_claims_to_have_many_chunks(chunked, tmp_path):
    assert program(LIMITED, "scan", chunked(), "-w", tmp_path / "w.duckdb").code == 0
    place = edit(chunked(), setting(shape=[10**9, 8]))
    ran = program(LIMITED, "scan", place, "-w", tmp_path / "w.duckdb")
    assert "is missing" in ran.sentence(2)


def test_an_array_that_claims_more_elements_than_there_are_numbers(chunked):
    grid = {"name": "regular", "configuration": {"chunk_shape": [2**70, 8]}}
    assert refusal(edit(chunked("zstd"), setting(shape=[2**70, 8], chunk_grid=grid)))
