"""Zarr metadata that is not valid, or not Zarr at all, is refused in one sentence that names the store."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import engine
from engine.errors import ConfigError
from tests.builders import write
from tests.integration.helpers import Ran, gaussmeter, made
from tests.zarr_stores import (
    CHUNKS,
    SMALL,
    Chunked,
    archive,
    chunk,
    edit,
    put,
    refusal,
    setting,
    store,
    tensor_refusal,
    without,
)


@pytest.fixture
def chunked(tmp_path: Path) -> Chunked:
    return Chunked(tmp_path)


Change = Callable[[dict[str, Any]], Any]


def codecs(*names: str, **configuration: Any) -> Change:
    return setting(codecs=[{"name": n, "configuration": configuration} for n in names])


def grid(*chunk_shape: Any, name: str = "regular") -> Change:
    return setting(chunk_grid={"name": name, "configuration": {"chunk_shape": list(chunk_shape)}})


WRONG: dict[str, Change] = {
    **{f"without {k}": without(k) for k in ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs", "zarr_format")},
    "unknown codec": codecs("zfp"), "a codec without its name": setting(codecs=[{}]), "no codecs": setting(codecs=[]),
    "codecs that are words": setting(codecs=["bytes"]), "a known codec of others": codecs("bytes", "lz4"),
    "shards without a shape": codecs("sharding_indexed"), "chunks of half elements": grid(1.5, 4),
    "unknown dtype": setting(data_type="float7"), "dtype that is a number": setting(data_type=7),
    "raw bits": setting(data_type="r16"), "version 2": setting(zarr_format=2), "version 4": setting(zarr_format=4),
    "negative shape": setting(shape=[-6, 8]), "half a shape": setting(shape=[6.5, 8]), "no shape": setting(shape=None),
    "shape of fewer dimensions": setting(shape=[6]), "shape of more dimensions": setting(shape=[6, 8, 1]),
    "negative chunks": grid(-3, 4), "another grid": grid(3, 4, name="rectilinear"), "a word for a grid": setting(chunk_grid="regular"),
    "another key encoding": setting(chunk_key_encoding={"name": "x"}),
    "keys that lead out": setting(chunk_key_encoding={"name": "default", "configuration": {"separator": "/../"}}),
    "what must be understood": setting(new={"must_understand": True}),
}  # fmt: skip
WRONG |= {
    "chunks of nothing": grid(0, 4),
    "shards of chunks of nothing": setting(codecs=[{"name": "sharding_indexed", "configuration": {
        "chunk_shape": [0, 0], "codecs": [{"name": "bytes"}], "index_codecs": [{"name": "bytes"}]}}]),
    "attributes in a list": setting(attributes=[1]), "attributes in a word": setting(attributes="x"),
    "no node type": without("node_type"), "another node type": setting(node_type="x"),
}  # fmt: skip


@pytest.mark.parametrize("change", WRONG.values(), ids=list(WRONG))
def test_metadata_that_is_not_valid(chunked, change):
    assert tensor_refusal(edit(chunked(), change))


WRONG_ROOTS = {
    "attributes in a list": setting(attributes=[1]), "attributes in a word": setting(attributes="x"),
    "a summary that is a list": setting(consolidated_metadata=[1]), "a summary in a word": setting(consolidated_metadata="x"),
    "a summary of a list": setting(consolidated_metadata={"metadata": ["w"]}),
    "a summary of numbers": setting(consolidated_metadata={"metadata": {"w": 7}}),
    **{f"aliases: {a}": setting(attributes={"gaussmeter": {"status": "whole", "aliases": a}}) for a in (
        ["a"], {"a": "b"}, {"a": {"of": "w", "shape": ["x"]}}, {"a": {"of": "w", "shape": 7}})},
}  # fmt: skip


@pytest.mark.parametrize("change", WRONG_ROOTS.values(), ids=list(WRONG_ROOTS))
def test_metadata_of_the_group_that_is_not_valid(chunked, change):
    assert refusal(edit(chunked(), change, ""))


def test_an_alias_of_nothing(chunked):
    mark = {"status": "whole", "aliases": {"a": {"of": "v", "shape": [6, 8]}}}
    assert "an alias of 'v'" in tensor_refusal(
        edit(chunked(), setting(attributes={"gaussmeter": mark}), ""), "a"
    )


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1]", b"7", b"\xff{}", b'{"a": 1, "a": 2}', b"{" * 10**5, b"null"]
)
@pytest.mark.parametrize("node", ["", "w"], ids=["group", "array"])
def test_what_is_not_json(chunked, node, text):
    place = chunked()
    write(place / node / "zarr.json", text)
    assert "zarr.json: " in refusal(place)


def test_stores_of_version_2(tmp_path):
    put(zarr.create_group(tmp_path / "v2", zarr_format=2), "w", SMALL)
    with pytest.raises(ConfigError, match=r"no zarr\.json"):
        engine.scan(tmp_path / "v2", warehouse=made(tmp_path / "w.duckdb"))
    assert "has Zarr format 2, expected 3" in refusal(
        edit(store(tmp_path / "s", {}), setting(zarr_format=2), "")
    )


# Archives


def test_an_archive_of_deflated_members(chunked, tmp_path):
    path = archive(
        chunked("none", CHUNKS, np.zeros((6, 8), "<f4")), tmp_path / "m.zarr.zip", zipfile.ZIP_DEFLATED
    )
    assert "is compressed" in refusal(path)


def test_a_truncated_archive(chunked, tmp_path):
    path = archive(chunked(), tmp_path / "m.zarr.zip")
    data = path.read_bytes()
    for length in (len(data) - 1, len(data) - 100, len(data) // 2, 30, 4):
        path.write_bytes(data[:length])
        assert "is no whole zip archive" in refusal(path)


def test_an_archive_of_something_else(tmp_path):
    write(tmp_path / "x" / "notes.txt", b"x")
    assert "without zarr.json" in refusal(archive(tmp_path / "x", tmp_path / "m.zarr.zip"))


# On the command line


def test_the_command_says_it_in_one_sentence(chunked, tmp_path):
    place = chunked("zstd")
    chunk(place).write_bytes(b"garbage")
    ran: Ran = gaussmeter("scan", place, "-w", tmp_path / "w.duckdb")
    assert ran.sentence(2).startswith(f"{place}/w/c/0/1: tensor 'w': ")


def test_a_codec_that_zarr_warns_of_is_one_sentence(chunked, tmp_path):
    place = edit(chunked(), setting(codecs=[{"name": "bytes", "configuration": {"endian": "little"}},
                                            {"name": "numcodecs.lz4", "configuration": {}}]))  # fmt: skip
    assert "'numcodecs.lz4' is not one of" in gaussmeter("scan", place, "-w", tmp_path / "w.duckdb").sentence(
        2
    )
