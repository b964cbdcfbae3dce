"""Stores that zarr writes are counted as numpy counts their arrays, however they are cut and compressed."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

import engine
from engine.formats.checkpoint import open_checkpoint
from engine.nouns.dtypes import DTYPES
from tests.builders import every_code, nasty_patterns
from tests.integration.helpers import made, records, rows
from tests.torch_files import Bins, bins_in
from tests.zarr_stores import (
    COMPRESSORS,
    LOGICAL_NAMES,
    NATIVE,
    archive,
    consolidate,
    edit,
    expected,
    logical,
    noise,
    put,
    refusal,
    scanned,
    setting,
    sharding,
    store,
    tensor_refusal,
    transposed,
    written,
)

CUTS = [
    {"workers": 1},
    {"workers": 4, "task_bytes": 13, "block_bytes": 8},
    {"workers": 4, "task_bytes": 1000, "block_bytes": 56},
]


def listed(warehouse: Path) -> dict[str, dict[str, Any]]:
    sql = "SELECT name, dtype, shape, n, reason, note, alias_of FROM tensors ORDER BY ordinal"
    return {r.pop("name"): r for r in records(warehouse, sql)}


# Dtypes


@pytest.mark.parametrize("shards", [None, (4, 10)], ids=["chunks", "shards"])
def test_every_dtype(shards, tmp_path):
    arrays = {name: noise(7, 9, dtype=name, seed=k) for k, name in enumerate(NATIVE)}
    place = store(tmp_path / "s", arrays, chunks=(2, 5), shards=shards)
    found, lines = scanned(place), listed(tmp_path / "w.duckdb")
    assert set(lines) == set(NATIVE)
    for name, data in arrays.items():
        dtype = DTYPES[NATIVE[name]]
        assert (lines[name]["dtype"], lines[name]["reason"], lines[name]["n"]) == (
            dtype.name,
            dtype.reason,
            63,
        )
        assert lines[name]["shape"] == [7, 9]
        assert found.get(name) == (expected(data, dtype.name) if dtype.coding else None)


@pytest.mark.parametrize("dtype", LOGICAL_NAMES)
def test_floats_that_are_stored_as_integers(dtype, tmp_path):
    data = every_code(dtype) if dtype != "F8_E8M0" else np.arange(256, dtype=np.uint8)
    place = store(tmp_path / "s", {"w": data}, chunks=(100,), compressors="auto", **logical(dtype))
    counted = DTYPES[dtype].coding is not None
    assert scanned(place) == ({"w": expected(data, dtype)} if counted else {})
    assert listed(tmp_path / "w.duckdb")["w"]["dtype"] == dtype


@pytest.mark.parametrize("word", ["bf16", "BFLOAT16", "torch.bfloat16", "ml_dtypes.bfloat16", "bfloat16"])
def test_the_words_for_bf16(word, tmp_path):
    data = nasty_patterns("BF16")
    place = store(tmp_path / "s", {"w": data}, attributes={"logical_dtype": word})
    assert scanned(place) == {"w": expected(data, "BF16")}


@pytest.mark.parametrize(("word", "stored"), [("bfloat16", "uint8"), ("float8_e5m2", "uint16"), ("x", "uint16"),
                                              ("bfloat16", "float32"), ("float16", "complex64")])  # fmt: skip
def test_a_word_that_does_not_fit(word, stored, tmp_path):
    place = store(tmp_path / "s", {"w": noise(4, dtype=stored)}, attributes={"logical_dtype": word})
    assert f"{word!r} cannot be stored as {stored}" in tensor_refusal(place)


FILL = "zarr is asked about uint16, which takes no fill value that only a float has"


@pytest.mark.parametrize(
    "fill",
    [0, 0.0, *(f
          for f in ("NaN", "0x7fc0", 1.5))],
)  # fmt: skip
def test_bfloat16_as_other_writers_name_it(fill, tmp_path):
    data = nasty_patterns("BF16")
    place = edit(store(tmp_path / "s", {"w": data}), setting(data_type="bfloat16", fill_value=fill))
    assert scanned(place) == {"w": expected(data, "BF16")}


# Chunks, shards and codecs

DATA = noise(7, 10, 9)
LAYOUTS: dict[str, dict[str, Any]] = {
    "one chunk": {},
    "rows": {"chunks": (2, 10, 9)},
    "parts of rows": {"chunks": (1, 3, 9)},
    "single elements": {"chunks": (1, 1, 2)},
    "tiles": {"chunks": (3, 4, 5)},
    "larger than the array": {"chunks": (8, 16, 10)},
    "shards of rows": {"chunks": (1, 10, 9), "shards": (4, 10, 9)},
    "shards of tiles": {"chunks": (2, 4, 5), "shards": (4, 8, 10)},
    "shards larger than the array": {"chunks": (4, 4, 4), "shards": (8, 12, 16)},
    "transposed": {"chunks": (3, 4, 5)} | transposed(2, 0, 1),
    "transposed as a whole": transposed(2, 1, 0),
    "v2 keys": {"chunks": (3, 4, 5), "chunk_key_encoding": {"name": "v2", "separator": "."}},
}


PAIRS = {*product(LAYOUTS, ("none", "zstd")), *product(("tiles", "shards of tiles"), COMPRESSORS)}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many layouts with many compressors, in one store."""
    place = tmp_path_factory.mktemp("layouts") / "s"
    group = zarr.create_group(place)
    for layout, compressor in PAIRS:
        put(
            group,
            f"{layout}: {compressor}",
            DATA,
            **({"compressors": COMPRESSORS[compressor]} | LAYOUTS[layout]),
        )
    return place


@pytest.mark.parametrize("how", CUTS, ids=str)
def test_layouts_and_compressors(layouts, how):
    found = scanned(layouts, **how)
    assert len(found) == len(PAIRS)
    true = expected(DATA, "F32")
    assert [name for name, bins in found.items() if bins != true] == []


@pytest.mark.parametrize("where", ["start", "end"])
@pytest.mark.parametrize("index", [(BytesCodec(),), (BytesCodec(), Crc32cCodec())], ids=["bare", "checked"])
@pytest.mark.parametrize(
    ("inner", "last"),
    [((), ()), ((TransposeCodec(order=(1, 2, 0)),), (ZstdCodec(),)), ((), (GzipCodec(), Crc32cCodec()))],
    ids=["plain", "transposed", "gzip"],
)
def test_indexes_of_every_kind(where, index, inner, last, tmp_path):
    how = sharding((2, 4, 5), *inner, last=last, index_location=where, index_codecs=index)
    place = store(tmp_path / "s", {"w": DATA}, chunks=(4, 8, 10), **how)
    for cut in CUTS[:2]:
        assert scanned(place, **cut) == {"w": expected(DATA, "F32")}


def test_transposed_twice(tmp_path):
    place = store(
        tmp_path / "s", {"w": DATA}, chunks=(3, 4, 5), filters=[TransposeCodec(order=(1, 2, 0))] * 2
    )
    assert scanned(place) == {"w": expected(DATA, "F32")}


@pytest.mark.parametrize("codecs", [(ZstdCodec(), GzipCodec()), (GzipCodec(), ZstdCodec())], ids=str)
def test_what_is_compressed_twice_is_refused(codecs, tmp_path):
    place = store(tmp_path / "s", {"w": DATA}, compressors=list(codecs))
    assert "compressed twice" in tensor_refusal(place)


@pytest.mark.parametrize("how", [{}, {"chunks": (3, 4, 5), "shards": (6, 8, 10)}], ids=["chunks", "shards"])
def test_big_endian_numbers_are_refused(how, tmp_path):
    place = store(tmp_path / "s", {"w": DATA}, serializer=BytesCodec(endian="big"), **how)
    assert "big endian" in tensor_refusal(place)


@pytest.mark.parametrize("compressor", ["none", "zstd", "gzip"])
@pytest.mark.parametrize("shape", [(), (1,), (9,), (0,), (0, 3), (3, 0), (1, 1, 1, 1)], ids=str)
def test_small_shapes(shape, compressor, tmp_path):
    data = noise(*shape)
    place = store(tmp_path / "s", {"w": data}, compressors=COMPRESSORS[compressor])
    if shape and 0 not in shape:
        group, shards = zarr.open_group(place), tuple(4 * s for s in shape)
        put(group, "sharded", data, chunks=tuple(2 * s for s in shape), shards=shards)
    found = scanned(place)
    assert set(map(str, found.values())) == {str(expected(data, "F32"))}
    assert listed(tmp_path / "w.duckdb")["w"]["shape"] == list(shape)


# Names and places


def test_names_of_nested_groups_are_joined_by_dots(tmp_path):
    names = ["top", "model/layers/0/q_proj/weight", "model/layers/10/q_proj/weight", "ünï cöde/b", "a.b/c"]
    arrays = {name: noise(3, 2, seed=k) for k, name in enumerate(names)}
    found = scanned(store(tmp_path / "s", arrays))
    assert found == {name.replace("/", "."): expected(data, "F32") for name, data in arrays.items()}


def test_an_attribute_may_name_a_tensor(tmp_path):
    place = store(tmp_path / "s", {"w": DATA}, attributes={"tensor_name": "a/b"})
    assert scanned(place) == {"a/b": expected(DATA, "F32")}


def test_two_arrays_of_one_name(tmp_path):
    place = store(tmp_path / "s", {"x/y": DATA, "x.y": DATA})
    assert "the name of two arrays, 'x.y' and 'x/y'" in tensor_refusal(place, "x.y")


@pytest.mark.parametrize("how", [{}, {"chunks": (3, 4, 5), "shards": (6, 8, 10)}], ids=["chunks", "shards"])
def test_a_store_that_is_one_array(how, tmp_path):
    put(zarr.create_group(tmp_path / "s"), "w", DATA, compressors="auto", **how)
    assert scanned(tmp_path / "s" / "w") == {"": expected(DATA, "F32")}
    assert scanned(tmp_path / "s" / "w" / "zarr.json") == {"": expected(DATA, "F32")}


@pytest.mark.parametrize("below", ["", "model/", "a/b/"])
def test_a_zip_archive_of_stored_members(below, tmp_path):
    arrays = {"a/w": DATA, "v": noise(40, dtype="f2")}
    place = store(tmp_path / "s", arrays, compressors="auto", consolidated=True)
    path = archive(place, tmp_path / "m.zarr.zip", below=below)
    assert (
        scanned(path) == scanned(place) == {"a.w": expected(DATA, "F32"), "v": expected(arrays["v"], "F16")}
    )
    assert rows(tmp_path / "w.duckdb", "SELECT name FROM subjects") == [("s",)]


def test_a_zip_archive_by_zarr_itself(tmp_path):
    with zarr.storage.ZipStore(tmp_path / "m.zarr.zip", mode="w") as zipped:
        put(zarr.create_group(zipped), "w", DATA, chunks=(2, 4, 5), shards=(4, 8, 10), compressors="auto")
    assert scanned(tmp_path / "m.zarr.zip") == {"w": expected(DATA, "F32")}


# Consolidated metadata


def test_with_and_without_consolidated_metadata_it_is_the_same(tmp_path):
    arrays = {"a/w": DATA, "v": noise(40, dtype="f2")}
    place = store(tmp_path / "s", arrays)
    before = scanned(place)
    consolidate(place)
    assert scanned(place) == before
    assert len(before) == 2


def test_consolidated_metadata_that_lacks_an_array_or_has_one_too_many(tmp_path):
    place = store(tmp_path / "s", {"a": DATA, "b": DATA}, consolidated=True)
    put(zarr.open_group(place, use_consolidated=False), "c", DATA)
    assert set(scanned(place)) == {"a", "b", "c"}
    shutil.rmtree(place / "a")
    assert set(scanned(place)) == {"b", "c"}


STALE = "consolidated metadata of the same arrays is believed, though their own metadata says otherwise"


@pytest.mark.parametrize(
    "other", [noise(14, 10, 9), DATA.view("<i4"), DATA.astype("<f8")], ids=["shape", "dtype", "bits"]
)
def test_consolidated_metadata_of_an_array_that_was_written_anew(other, tmp_path):
    place = store(tmp_path / "s", {"w": DATA}, chunks=(7, 10, 9), consolidated=True)
    put(zarr.open_group(place, use_consolidated=False), "w", other, chunks=(7, 10, 9), overwrite=True)
    found = scanned(place)
    assert listed(tmp_path / "w.duckdb")["w"]["shape"] == list(other.shape)
    assert found == ({} if other.dtype == "<i4" else {"w": expected(other, NATIVE[str(other.dtype)])})


def test_an_empty_group_has_no_tensors(tmp_path):
    assert scanned(store(tmp_path / "s", {})) == {}


# Whatever zarr can write


@settings(max_examples=20)
@given(
    arrays=st.lists(written(), min_size=1, max_size=5),
    workers=st.sampled_from([1, 4]),
    task_bytes=st.integers(1, 3000),
    block=st.integers(1, 60),
)
def test_whatever_zarr_writes(arrays, workers, task_bytes, block, scratch):
    shutil.rmtree(scratch / "s", ignore_errors=True)
    group = zarr.create_group(scratch / "s")
    true: dict[str, Bins] = {}
    for number, (data, how, dtype) in enumerate(arrays):
        put(group, str(number), data, **how)
        true[str(number)] = expected(data, dtype)
    warehouse = made(scratch / "w.duckdb")
    engine.scan(
        scratch / "s", warehouse=warehouse, workers=workers, task_bytes=task_bytes, block_bytes=8 * block
    )
    assert bins_in(warehouse) == true


def test_a_store_that_changes_is_another_checkpoint(tmp_path):
    place = store(tmp_path / "s", {"w": DATA}, chunks=(2, 4, 5), shards=(4, 8, 10))
    before = open_checkpoint(str(place)).fingerprint
    assert open_checkpoint(str(place)).fingerprint == before
    zarr.open_array(place, path="w", mode="r+")[0, 0, 0] = 1
    assert open_checkpoint(str(place)).fingerprint != before
    assert "w/c" in refusal(edit(place, setting(shape=[20, 10, 9])))


def test_an_array_of_words_beside_weights_is_listed(tmp_path):
    group = zarr.create_group(tmp_path / "s")
    put(group, "w", DATA)
    group.create_array("words", shape=(3,), dtype=str)[:] = ["a", "b", "c"]
    tensors = {t.name: t for t in open_checkpoint(str(tmp_path / "s")).tensors}
    assert tensors["w"].coding is not None
    assert (tensors["words"].dtype, tensors["words"].why) == ("OTHER", "not a number")
