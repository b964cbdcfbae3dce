"""A pack holds the source's tensors bit for bit, whatever the source, the codec, the workers and the place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

import engine
from engine.errors import ConfigError, TaskError
from engine.formats.zarr import layout as zarr_layout
from engine.formats.zarr.writer import GroupWriter
from tests import distributed
from tests.builders import write_sharded, write_tensors
from tests.integration.helpers import Recorder, gaussmeter, llama, normal
from tests.integration.packing import (
    KEPT,
    Truth,
    assert_same_counts,
    of_every_dtype,
    packed,
    read_back,
    truth,
)
from tests.integration.servers import FileServer, HubServer
from tests.torch_files import DTYPE_NAMES, data_of
from tests.zarr_stores import archive, noise, put, refusal, written

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:UserWarning:torch", "ignore:.*:FutureWarning:torch", "ignore:ComplexHalf"
)
EVERY = of_every_dtype()
HOW = [{"codec": "none", "workers": 1}, {"codec": "zstd", "workers": 4}]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so small that tensors of a test have many, and shards too."""
    monkeypatch.setattr(zarr_layout, "CHUNK_BYTES", 64)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    keys = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    for name, value in ({"AWS_ENDPOINT_URL": moto, "AWS_DEFAULT_REGION": "us-east-1"} | keys).items():
        monkeypatch.setenv(name, value)
    name = f"packs-{abs(hash(tmp_path)):x}"  # stores are kept by their names
    boto3.client("s3", endpoint_url=moto).create_bucket(Bucket=name)
    return f"s3://{name}"


# Sources


def torch_state() -> dict[str, Any]:
    """Tied, transposed, with gaps, expanded, and of every dtype that torch and Zarr share."""
    w = torch.from_numpy(np.random.default_rng(3).normal(0, 1, (12, 10)).astype("<f4"))
    state = {
        "embed.weight": w, "lm_head.weight": w, "flipped": w.T, "step": w[::2, 1::3], "wide": w[:1].expand(9, 10),
        "cube": w.reshape(4, 3, 10).permute(2, 0, 1).to(torch.bfloat16), "scalar": torch.tensor(0.5), "nothing": torch.empty(0, 12),
    }  # fmt: skip
    for number, (name, dtype) in enumerate(DTYPE_NAMES.items()):
        if dtype in KEPT:
            bits = np.random.default_rng(number).integers(
                0, 2 if dtype == "BOOL" else 256, 96, dtype=np.uint8
            )
            state[f"of.{name}"] = torch.from_numpy(bits).view(getattr(torch, name)).reshape(6, -1).T
    return state


def torch_truth(state: dict[str, Any], *aliases: str) -> Truth:
    return {
        n: (DTYPE_NAMES[str(t.dtype).removeprefix("torch.")], tuple(t.shape), data_of(t).tobytes())
        for n, t in state.items() if n not in aliases
    }  # fmt: skip


def without_uncounted(state: dict[str, Any]) -> dict[str, Any]:
    return {n: t.contiguous() for n, t in state.items() if n not in ("wide", "lm_head.weight", "flipped")}


TILES = {
    "a/w": noise(7, 10, 9),
    "b": noise(40, dtype="f2"),
    "c": noise(13, 5, dtype="f8"),
    "zero": noise(),
    "no": noise(0, 4),
}


def make_safetensors(folder: Path) -> tuple[Path, Truth]:
    return write_tensors(folder / "model.safetensors", EVERY), truth(EVERY)


def make_shards(folder: Path) -> tuple[Path, Truth]:
    tensors = llama(2)
    return write_sharded(folder, dict(list(tensors.items())[:4]), dict(list(tensors.items())[4:])), truth(
        tensors
    )


def make_torch(folder: Path) -> tuple[Path, Truth]:
    torch.save(torch_state(), folder / "pytorch_model.bin")
    return folder, torch_truth(torch_state(), "lm_head.weight", "flipped")


def make_distcp(folder: Path) -> tuple[Path, Truth]:
    state = without_uncounted(torch_state())
    return distributed.save(folder / "dcp", state, grid=(3, 4), files=2), torch_truth(state)


def make_zarr(folder: Path, **how: Any) -> tuple[Path, Truth]:
    group = zarr.create_group(folder / "tiles.zarr")
    for name, data in TILES.items():
        put(group, name, data, chunks=(3, 4, 5)[: data.ndim], compressors="auto", **how)
    return folder / "tiles.zarr", {
        n.replace("/", "."): (f"F{8 * d.itemsize}", d.shape, d.tobytes()) for n, d in TILES.items()
    }


def make_zip(folder: Path) -> tuple[Path, Truth]:
    place, true = make_zarr(folder)
    return archive(place, folder / "m.zarr.zip"), true


SOURCES = {f.__name__.removeprefix("make_"): f for f in (
    make_safetensors, make_shards, make_torch, make_distcp, make_zarr, make_zip)}  # fmt: skip


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Truth]:
    (tmp_path / "source").mkdir()
    return SOURCES[request.param](tmp_path / "source")


@pytest.mark.parametrize("how", HOW, ids=str)
def test_a_pack_is_the_source_bit_for_bit(source, how, tmp_path):
    uri, true = source
    out = tmp_path / "out.zarr"
    report = packed(uri, out, **how)
    assert (report.tensors, report.skipped) == (len(true), {})
    assert report.nbytes == report.nbytes_written == sum(len(data) for _, _, data in true.values())
    assert read_back(out) == true
    assert_same_counts(uri, out, tmp_path)


@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("name", ["torch", "safetensors"])
def test_to_an_archive(name, how, tmp_path):
    uri, true = SOURCES[name](tmp_path)
    out = tmp_path / "out.zarr.zip"
    report = packed(uri, out, **how)
    assert report.out == str(out)
    assert read_back(out) == true
    assert_same_counts(uri, out, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if "out" in p.name) == ["out.zarr.zip"]
    assert engine.pack(uri, out, **how).status == "unchanged"
    other = {**how, "codec": "zstd" if how["codec"] == "none" else "none"}
    with pytest.raises(ConfigError, match="is there already"):
        engine.pack(uri, out, **other)


@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("name", ["torch", "shards"])
def test_to_a_bucket_and_over_http(bucket, name, how, tmp_path):
    """What lies in a bucket is read where it is; a web server needs the consolidated metadata that packs have."""
    uri, true = SOURCES[name](tmp_path)
    out = f"{bucket}/a/out.zarr"
    packed(uri, out, **how)
    packed(out, tmp_path / "copy.zarr", **how)
    assert read_back(tmp_path / "copy.zarr") == true
    assert_same_counts(uri, out, tmp_path)
    assert engine.pack(uri, out, **how).status == "unchanged"
    with FileServer(tmp_path) as server:
        assert_same_counts(uri, f"{server.url}/copy.zarr", tmp_path)
        packed(f"{server.url}/copy.zarr", tmp_path / "again.zarr", **how)
    assert read_back(tmp_path / "again.zarr") == true


def test_from_the_hub(tmp_path, monkeypatch):
    (tmp_path / "repos" / "org" / "m").mkdir(parents=True)
    uri, true = make_torch(tmp_path / "repos" / "org" / "m")
    with HubServer(tmp_path / "repos") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        packed("hf://org/m", tmp_path / "out.zarr", workers=4)
        mark = zarr.open_group(tmp_path / "out.zarr").attrs["gaussmeter"]
        assert (mark["revision"], mark["source"]) == (hub.commits["org/m"], "hf://org/m")
    assert read_back(tmp_path / "out.zarr") == true
    assert_same_counts(uri, tmp_path / "out.zarr", tmp_path)


def test_a_tied_tensor_that_is_transposed_is_noted_as_such(tmp_path):
    w = torch.eye(6)
    torch.save({"w": w, "same": w, "flipped": w.T}, tmp_path / "m.pt")
    packed(tmp_path / "m.pt", tmp_path / "out.zarr")
    aliases = zarr.open_group(tmp_path / "out.zarr").attrs["gaussmeter"]["aliases"]
    assert set(aliases) == {"same", "flipped"}
    assert aliases["same"] != aliases["flipped"]


def test_quantised_weights_keep_their_factors(tmp_path):
    tensors = {"l.weight": normal("F8_E4M3", 256, 128), "l.weight_scale_inv": normal("F32", 2, 1, mean=1)}
    uri = write_tensors(tmp_path / "m.safetensors", tensors)
    packed(uri, tmp_path / "out.zarr")
    assert read_back(tmp_path / "out.zarr") == truth(tensors)
    assert_same_counts(uri, tmp_path / "out.zarr", tmp_path)


@settings(max_examples=20)
@given(array=written(), codec=st.sampled_from(["none", "zstd"]), chunk=st.integers(1, 300))
def test_whatever_zarr_writes_is_put_in_order(array, codec, chunk, scratch):
    data, how, dtype = array
    for name in ("s", "out.zarr"):
        shutil.rmtree(scratch / name, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zarr_layout, "CHUNK_BYTES", chunk)
        put(zarr.create_group(scratch / "s"), "w", data, **how)
        packed(scratch / "s", scratch / "out.zarr", codec=codec)
    assert read_back(scratch / "out.zarr") == {"w": (dtype, data.shape, data.tobytes())}


@pytest.mark.parametrize("shape", [(3, 5 << 18), (2, 3, 3 << 17), (1, 1, 9 << 17), (9 << 17,)], ids=str)
def test_rows_that_are_larger_than_a_chunk(shape, tmp_path, monkeypatch):
    monkeypatch.undo()  # chunks of 4 MiB
    tensors = {"w": normal("F32", *shape)}
    uri = write_tensors(tmp_path / "m.safetensors", tensors)
    packed(uri, tmp_path / "out.zarr", workers=2)
    assert read_back(tmp_path / "out.zarr") == truth(tensors)
    assert max(p.stat().st_size for p in (tmp_path / "out.zarr").rglob("*") if p.is_file()) < (17 << 20)
    assert_same_counts(uri, tmp_path / "out.zarr", tmp_path)


# Names

ODD = ["", "a/b", "a.b", "c/0", "ünï 日", "x" * 200, "x" * 300, ".", "..", "__x", "_x", "A", "a", "zarr.json", "c", "0",
       "zarr", ".zarray", "a\nb", "a b", "\\", "%2F", "-", "a..b", "c.json", "ÅNGSTRÖM", "tensor-1"]  # fmt: skip


@pytest.mark.parametrize("place", ["out.zarr", "out.zarr.zip"])
def test_odd_names(place, tmp_path):
    tensors = {name: normal("F32", 3, 4, seed=k) for k, name in enumerate(ODD)}
    uri = write_tensors(tmp_path / "m.safetensors", tensors)
    packed(uri, tmp_path / place)
    assert read_back(tmp_path / place) == truth(tensors)
    assert_same_counts(uri, tmp_path / place, tmp_path)


def test_odd_names_in_a_bucket(bucket, tmp_path):
    tensors = {name: normal("F32", 3, 4, seed=k) for k, name in enumerate(ODD)}
    uri = write_tensors(tmp_path / "m.safetensors", tensors)
    packed(uri, f"{bucket}/out.zarr")
    assert_same_counts(uri, f"{bucket}/out.zarr", tmp_path)


@pytest.mark.parametrize("names", [("tensor-00001", "a/b"), ("a/b", "tensor-00000")], ids=str)
@pytest.mark.parametrize("shapes", [((4, 4), (4, 4)), ((4, 4), (9,))], ids=str)
def test_a_name_that_another_tensor_is_given(names, shapes, tmp_path):
    tensors = {n: normal("F32", *s, seed=k) for k, (n, s) in enumerate(zip(names, shapes, strict=True))}
    packed(write_tensors(tmp_path / "m.safetensors", tensors), tmp_path / "out.zarr")
    assert read_back(tmp_path / "out.zarr") == truth(tensors)


def test_what_zarr_has_no_dtype_for_is_skipped_and_named(tmp_path):
    torch.save({"a": torch.zeros(2, 4, dtype=torch.complex32), "b": torch.ones(3)}, tmp_path / "m.pt")
    ran = gaussmeter("pack", tmp_path / "m.pt", tmp_path / "out.zarr")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("not packed: a: Zarr has no C32\n")
    assert set(read_back(tmp_path / "out.zarr")) == {"b"}


# Damage


def test_what_is_read_back_otherwise_is_an_error_and_is_written_again(tmp_path, monkeypatch):
    uri, true = make_safetensors(tmp_path)
    read = GroupWriter.read

    def flipped(self: GroupWriter, ordinal: int, tensor: Any, span: tuple[int, int]) -> Any:
        found = read(self, ordinal, tensor, span).copy()
        found[-1] ^= tensor.name == "a.F64" and span[0] > 0
        return found

    with monkeypatch.context() as patch:
        patch.setattr(GroupWriter, "read", flipped)
        with pytest.raises(TaskError, match="read back otherwise than they were written") as caught:
            engine.pack(uri, tmp_path / "out.zarr", workers=1)
    assert (caught.value.file, caught.value.tensor) == (str(tmp_path / "out.zarr"), "a.F64")
    assert caught.value.exit_code == 3
    assert "not finished: run gaussmeter pack again" in refusal(tmp_path / "out.zarr")
    report = engine.pack(uri, tmp_path / "out.zarr")
    assert report.status == "resumed"
    assert 0 < report.nbytes_written < report.nbytes
    assert read_back(tmp_path / "out.zarr") == true


def test_a_flipped_bit_in_a_compressed_chunk_is_found(tmp_path):
    tensors = {"w": normal("BF16", 40, 40), "v": ("F32", noise(500))}
    packed(write_tensors(tmp_path / "m.safetensors", tensors), tmp_path / "out.zarr", codec="zstd")
    for name in tensors:
        shard = tmp_path / "out.zarr" / name / "c" / "0" / ("0" if name == "w" else "")
        data = shard.read_bytes()
        for at in range(0, len(data), 29):
            shard.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            refusal(tmp_path / "out.zarr")
        shard.write_bytes(data)


def test_a_lost_shard_is_found(tmp_path):
    packed(make_torch(tmp_path)[0], tmp_path / "out.zarr")
    (tmp_path / "out.zarr" / "step" / "c" / "0" / "0").unlink()
    assert "tensor 'step': its chunk step/c/0/0 is missing" in refusal(tmp_path / "out.zarr")


# On the command line


def test_it_says_what_it_did(tmp_path):
    uri, true = make_shards(tmp_path)
    out, words = tmp_path / "out.zarr", ("--format", "json")
    ran = gaussmeter("pack", uri, out, "-j", 2)
    assert (ran.code, ran.err, ran.out.count("\n")) == (0, "", 1)
    assert ran.out.startswith(f"{out}: {len(true)} tensors, ")
    ran = gaussmeter("pack", uri, out)
    assert (ran.code, ran.err, ran.out) == (0, "", f"{out}: unchanged, {len(true)} tensors\n")
    found = json.loads(gaussmeter("pack", uri, out, *words).out)
    assert (found["status"], found["nbytes_written"], found["skipped"]) == ("unchanged", 0, {})
    found = json.loads(gaussmeter("pack", uri, tmp_path / "z.zarr", *words, "--codec", "zstd").out)
    assert (found["status"], found["tensors"], found["out"]) == (
        "packed",
        len(true),
        str(tmp_path / "z.zarr"),
    )
    assert found["nbytes"] == found["nbytes_written"] == sum(len(d) for _, _, d in true.values())
    ran = gaussmeter("pack", uri, tmp_path / "q.zarr", "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert "table or json" in gaussmeter("pack", uri, out, "--format", "csv").sentence(2)
    assert (
        gaussmeter("pack", uri, out, "--codec", "lz4").code == gaussmeter("pack", uri, out, "-j", 0).code == 2
    )


def test_the_listener_hears_of_every_byte(tmp_path):
    listener = Recorder()
    report = packed(make_safetensors(tmp_path)[0], tmp_path / "out.zarr", workers=4, listener=listener)
    assert sum(listener.nbytes) == report.nbytes


def test_a_pack_that_would_take_too_much_memory_makes_nothing(tmp_path):
    uri, _ = make_safetensors(tmp_path)
    said = gaussmeter("pack", uri, tmp_path / "out.zarr", "--memory", "10MB").sentence(2)
    assert "over the limit of 10 MiB" in said
    assert not (tmp_path / "out.zarr").exists()
