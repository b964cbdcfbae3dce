"""The index of a sharded checkpoint is not trusted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine.errors import FormatError
from engine.formats.checkpoint import open_checkpoint, require_sound
from engine.formats.index import read_index
from engine.storage import locate
from tests.builders import f32, write, write_sharded, write_tensors

SHARD = "model-00001-of-00001.safetensors"


def refusal(index: Path) -> str:
    """The one-line message, which names the index, whether it is opened itself or by its directory."""
    texts = []
    for uri in (index, index.parent):
        with pytest.raises(FormatError) as caught:
            require_sound(open_checkpoint(str(uri)))
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert "\n" not in texts[0]
    assert texts[0].startswith(f"{index}: ")
    return texts[0]


def index_of(directory: Path, content: Any) -> Path:
    """One good shard with the tensor w, beside an index of any content."""
    write_tensors(directory / SHARD, {"w": f32(1, 2)})
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return write(directory / "model.safetensors.index.json", data)


def test_an_index_lists_its_shards_by_name(tmp_path):
    path = write_sharded(tmp_path, {"b": f32(1), "c": f32(2)}, {"a": f32(3)})
    index = read_index(locate(str(tmp_path)).folder, path.name)
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    assert index.shards == {name: str(tmp_path / name) for name in names}
    assert index.weight_map == {"b": names[0], "c": names[0], "a": names[1]}
    assert index.faults == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"{", "not JSON"),
        (b"[]", "expected an object"),
        (b'{"weight_map":{}', "not JSON"),
        (b'{"weight_map":{"w":"a","w":"a"}}', "'w' occurs twice"),
        (b'{"weight_map":{},"weight_map":{}}', "'weight_map' occurs twice"),
        (b'{"weight_map":{},"metadata":{"total_size":NaN}}', "NaN"),
        (b'{"weight_map":{"\\ud800":"a"}}', "not valid Unicode"),
        (b'{"weight_map":' + b"[" * 100_000, "nested too deeply"),
        (b'{"weight_map":{"w":' + b"1" * 5000 + b"}}", "not valid"),
        (b"{}\0\0", "not JSON"),
        ({}, "no weight_map"),
        ({"weight_map": None}, "no weight_map"),
        ({"weight_map": [SHARD]}, "no weight_map"),
    ],
)
def test_a_malformed_index_is_refused(tmp_path, content, says):
    assert says in refusal(index_of(tmp_path, content))


@pytest.mark.parametrize(
    "shard",
    [
        "../model.safetensors", "a/../../model.safetensors", "..", "/etc/passwd", "//etc/passwd", "a\\..\\b",
        "", 1, 1.5, None, True, [SHARD], {"file": SHARD}, "a\0b",
    ],
)  # fmt: skip
def test_a_shard_outside_the_directory_or_of_no_name_is_refused_with_the_tensor_named(tmp_path, shard):
    text = refusal(index_of(tmp_path / "here", {"weight_map": {"w": SHARD, "v": shard}}))
    assert "tensor 'v'" in text


@pytest.mark.parametrize("depth", [10, *range(900, 1010, 3)])
def test_no_depth_of_nesting_escapes_as_another_error(tmp_path, depth):
    nested = b"[" * depth + b"]" * depth
    refusal(index_of(tmp_path, b'{"weight_map":{"w":' + nested + b"}}"))


@pytest.mark.parametrize("shard", ["model-00002-of-00002.safetensors", "nowhere/x.safetensors", ".", "\n"])
def test_a_missing_shard_is_a_fault_with_the_number_of_its_tensors(tmp_path, shard):
    path = index_of(tmp_path, {"weight_map": {"w": SHARD, "u": shard, "v": shard}})
    checkpoint = open_checkpoint(str(path))
    assert [t.name for t in checkpoint.tensors] == ["w"]
    assert [(f.file, f.tensor) for f in checkpoint.faults] == [(str(path), None)]
    text = refusal(path)
    assert repr(shard) in text
    assert "(2 tensors)" in text


def test_a_shard_name_too_long_for_any_file_system_is_a_shard_that_is_not_there(tmp_path):
    # Path.is_file lets ENAMETOOLONG through
    text = refusal(index_of(tmp_path, {"weight_map": {"w": SHARD, "v": "x" * 300}}))
    assert "x" * 20 in text


def test_a_missing_tensor_is_a_fault_that_names_it(tmp_path):
    path = index_of(tmp_path, {"weight_map": {"w": SHARD, "v": SHARD}})
    assert [f.tensor for f in open_checkpoint(str(path)).faults] == ["v"]
    text = refusal(path)
    assert "tensor 'v'" in text
    assert SHARD in text


def test_the_first_fault_is_told_with_the_number_of_the_others(tmp_path):
    path = index_of(tmp_path, {"weight_map": {"w": SHARD, "a": SHARD, "b": SHARD, "c": "x.safetensors"}})
    assert len(open_checkpoint(str(path)).faults) == 3
    assert "(and 2 more like it)" in refusal(path)


def test_a_tensor_in_the_wrong_shard_is_a_fault(tmp_path):
    first, second = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    path = write_sharded(
        tmp_path, {"a": f32(1)}, {"b": f32(2)}, weight_map={"a": second, "b": second, "c": first}
    )
    assert {f.tensor for f in open_checkpoint(str(path)).faults} == {"a", "c"}


def test_a_damaged_shard_is_refused_by_its_own_name(tmp_path):
    index = index_of(tmp_path, {"weight_map": {"w": SHARD}})
    os.truncate(tmp_path / SHARD, (tmp_path / SHARD).stat().st_size - 1)
    with pytest.raises(FormatError, match="truncated") as caught:
        open_checkpoint(str(index))
    assert caught.value.file == str(tmp_path / SHARD)


# Links


def test_a_link_that_stays_in_the_directory_is_followed(tmp_path):
    index = index_of(tmp_path, {"weight_map": {"w": "link.safetensors"}})
    (tmp_path / "link.safetensors").symlink_to(SHARD)
    assert [t.name for t in open_checkpoint(str(index)).tensors] == ["w"]


@pytest.mark.parametrize("shard", ["link.safetensors", "folder/x.safetensors"])
def test_a_link_that_leads_out_is_refused(tmp_path, shard):
    write_tensors(tmp_path / "elsewhere" / "x.safetensors", {"w": f32(1)})
    index = index_of(tmp_path / "here", {"weight_map": {"w": shard}})
    (tmp_path / "here" / "link.safetensors").symlink_to("../elsewhere/x.safetensors")
    (tmp_path / "here" / "folder").symlink_to("../elsewhere")
    text = refusal(index)
    assert "leads outside" in text
    assert shard in text


def test_a_neighbour_whose_name_begins_alike_is_outside(tmp_path):
    write_tensors(tmp_path / "here2" / "x.safetensors", {"w": f32(1)})
    index = index_of(tmp_path / "here", {"weight_map": {"w": "x.safetensors"}})
    (tmp_path / "here" / "x.safetensors").symlink_to("../here2/x.safetensors")
    assert "leads outside" in refusal(index)


@pytest.mark.parametrize("target", ["x.safetensors", "nowhere.safetensors"])
def test_a_link_to_itself_or_nowhere_is_a_shard_that_is_not_there(tmp_path, target):
    index = index_of(tmp_path, {"weight_map": {"w": "x.safetensors"}})
    (tmp_path / "x.safetensors").symlink_to(target)
    assert "not there" in refusal(index)


def hub_cache(root: Path) -> Path:
    """A snapshot as huggingface_hub lays it out: every file a link into blobs/."""
    home = root / "models--org--tiny"
    snapshot = home / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    write_tensors(home / "blobs" / "b1", {"w": f32(1)})
    write(home / "blobs" / "b2", json.dumps({"weight_map": {"w": SHARD}}).encode())
    (snapshot / SHARD).symlink_to("../../blobs/b1")
    (snapshot / "model.safetensors.index.json").symlink_to("../../blobs/b2")
    return snapshot


def test_a_hub_snapshot_may_link_into_its_blobs(tmp_path):
    snapshot = hub_cache(tmp_path)
    checkpoint = open_checkpoint(str(snapshot))
    assert [t.name for t in checkpoint.tensors] == ["w"]
    assert (checkpoint.name, checkpoint.revision) == ("org/tiny", "0123abc")


def test_a_hub_snapshot_may_not_link_elsewhere(tmp_path):
    snapshot = hub_cache(tmp_path)
    write_tensors(tmp_path / "models--org--other" / "blobs" / "b1", {"w": f32(1)})
    (snapshot / SHARD).unlink()
    (snapshot / SHARD).symlink_to("../../../models--org--other/blobs/b1")
    assert "leads outside" in refusal(snapshot / "model.safetensors.index.json")
