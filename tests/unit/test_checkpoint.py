"""From a path to a checkpoint."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError, FormatError
from engine.formats.checkpoint import open_checkpoint, require_sound
from tests.builders import f32, pack, pack_tensors, write, write_sharded, write_tensors


def test_a_single_file(tmp_path):
    path = write_tensors(
        tmp_path / "tiny.safetensors", {"b": f32(1, 2), "a": ("F16", np.ones((2, 3), "<f2"))}
    )
    checkpoint = open_checkpoint(str(path))
    assert (checkpoint.uri, checkpoint.name, checkpoint.format) == (str(path), "tiny", "safetensors")
    assert [f.uri for f in checkpoint.files] == [str(path)]
    assert [(t.name, t.dtype, t.shape, t.file, t.nbytes) for t in checkpoint.tensors] == [
        ("b", "F32", (2,), 0, 8),
        ("a", "F16", (2, 3), 0, 12),
    ]
    assert checkpoint.nbytes == 20
    require_sound(checkpoint)


def test_an_index_and_its_directory_are_the_same_checkpoint(tmp_path):
    index = write_sharded(tmp_path, {"b": f32(1), "c": f32(2)}, {"a": f32(3)})
    by_index, by_directory = open_checkpoint(str(index)), open_checkpoint(str(tmp_path))
    assert by_index.tensors == by_directory.tensors
    assert by_index.fingerprint == by_directory.fingerprint
    assert [(t.name, t.file) for t in by_index.tensors] == [("b", 0), ("c", 0), ("a", 1)]
    assert [Path(f.uri).name for f in by_index.files] == [
        f"model-0000{i}-of-00002.safetensors" for i in (1, 2)
    ]


def test_a_directory_without_index_is_all_its_files_in_order_of_name(tmp_path):
    for name in "ba":
        write_tensors(tmp_path / f"{name}.safetensors", {name: f32(1)})
    write(tmp_path / "config.json", b"{}")
    assert [t.name for t in open_checkpoint(str(tmp_path)).tensors] == ["a", "b"]


def test_the_index_of_the_model_goes_before_others(tmp_path):
    write_sharded(tmp_path, {"w": f32(1)})
    write(tmp_path / "adapter.safetensors.index.json", b"damaged")
    assert [t.name for t in open_checkpoint(str(tmp_path)).tensors] == ["w"]


def test_several_other_indexes_are_a_question(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.safetensors.index.json", b'{"weight_map":{}}')
    with pytest.raises(ConfigError, match=r"a\.safetensors\.index\.json, b\.safetensors\.index\.json"):
        open_checkpoint(str(tmp_path))


def test_a_file_url_and_a_relative_path_are_the_same_place(tmp_path, monkeypatch):
    path = write_tensors(tmp_path / "x.safetensors", {"w": f32(1)})
    monkeypatch.chdir(tmp_path)
    assert open_checkpoint("x.safetensors") == open_checkpoint(f"file://{path}") == open_checkpoint(str(path))


def test_an_empty_header_is_a_checkpoint_of_nothing(tmp_path):
    checkpoint = open_checkpoint(str(write(tmp_path / "x.safetensors", pack({}))))
    assert (checkpoint.tensors, checkpoint.nbytes) == ((), 0)


# Names and revisions


@pytest.mark.parametrize(
    ("place", "name", "revision"),
    [
        ("llama/model.safetensors", "llama", ""),
        ("llama/other.safetensors", "other", ""),
        ("llama", "llama", ""),
        ("models--org--tiny-v2/snapshots/abc/model.safetensors", "org/tiny-v2", "abc"),
        ("models--org--tiny/snapshots/abc", "org/tiny", "abc"),
        ("datasets--org--tiny/snapshots/abc", "abc", ""),
    ],
)
def test_names(tmp_path, place, name, revision):
    path = tmp_path / place
    file = path if path.suffix else path / "model.safetensors"
    write_tensors(file, {"w": f32(1)})
    checkpoint = open_checkpoint(str(path))
    assert (checkpoint.name, checkpoint.revision) == (name, revision)


# Fingerprints


def test_the_fingerprint_follows_size_time_and_header_but_not_the_directory(tmp_path):
    a, b = tmp_path / "a" / "x.safetensors", tmp_path / "b" / "x.safetensors"
    write_tensors(a, {"w": f32(1)})
    b.parent.mkdir()
    shutil.copy2(a, b)
    first = open_checkpoint(str(a)).fingerprint
    assert open_checkpoint(str(b)).fingerprint == first
    stamp = a.stat()

    os.utime(b, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert open_checkpoint(str(b)).fingerprint != first

    write_tensors(b, {"v": f32(1)})
    os.utime(b, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert open_checkpoint(str(b)).fingerprint != first


def test_the_fingerprint_follows_the_index(tmp_path):
    index = write_sharded(tmp_path, {"w": f32(1)})
    first = open_checkpoint(str(index)).fingerprint
    index.write_bytes(index.read_bytes().replace(b'"metadata": {}', b'"metadata": {"a": 1}'))
    assert open_checkpoint(str(index)).fingerprint != first


# Refused


def test_a_tensor_in_two_shards_is_refused_with_both_named(tmp_path):
    index = write_sharded(tmp_path, {"a": f32(1), "w": f32(1)}, {"w": f32(2)})
    for uri in (tmp_path, index):
        with pytest.raises(FormatError) as caught:
            open_checkpoint(str(uri))
        text = str(caught.value)
        assert (
            "model-00002-of-00002.safetensors: tensor 'w': is also in model-00001-of-00002.safetensors"
            in text
        )


def test_a_missing_numbered_shard_without_index_is_refused(tmp_path):
    for number in (1, 4):
        write_tensors(tmp_path / f"model-0000{number}-of-00004.safetensors", {f"w{number}": f32(1)})
    with pytest.raises(
        FormatError, match=r"'model-00002-of-00004.safetensors' is not there \(2 of 4 missing\)"
    ) as caught:
        open_checkpoint(str(tmp_path))
    assert caught.value.file == str(tmp_path)


def test_all_numbered_shards_without_index_open(tmp_path):
    for number in (1, 2):
        write_tensors(tmp_path / f"model-0000{number}-of-00002.safetensors", {f"w{number}": f32(1)})
    assert len(open_checkpoint(str(tmp_path)).tensors) == 2


def test_one_damaged_file_of_a_directory_is_named(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"a": f32(1)})
    write(tmp_path / "b.safetensors", pack_tensors({"b": f32(1)})[:-1])
    with pytest.raises(FormatError, match="truncated") as caught:
        open_checkpoint(str(tmp_path))
    assert caught.value.file == str(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("nowhere.safetensors", "no such file"),
        ("nowhere", "no such file"),
        ("ftp://host/model", "ftp:// is no store"),
        ("hf://datasets/org/name", "is no model on the Hub"),
        ("x" * 5000, ""),
        ("a\0b.safetensors", ""),
    ],
)
def test_what_is_not_there_is_a_mistake_in_the_request(uri, says):
    with pytest.raises(ConfigError) as caught:
        open_checkpoint(uri)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_home_of_nobody_is_a_mistake_in_the_request():
    with pytest.raises(ConfigError):
        open_checkpoint("~no-such-user-anywhere/model.safetensors")


def test_other_files_and_empty_directories_are_no_checkpoints(tmp_path):
    with pytest.raises(ConfigError, match="is not a checkpoint"):
        open_checkpoint(str(write(tmp_path / "notes.txt", b"")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no .*safetensors"):
        open_checkpoint(str(tmp_path / "empty"))


def test_a_file_name_that_is_not_utf8(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.safetensors"))
    write_tensors(path, {"w": f32(1)})
    with suppress(ConfigError, FormatError):  # a clear refusal is as good
        assert len(open_checkpoint(str(path)).tensors) == 1
