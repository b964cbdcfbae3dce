"""Distributed checkpoints of torch: parts that are missing, elsewhere, or not what the metadata says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import engine
from engine.errors import FormatError
from tests import distributed
from tests.builders import write
from tests.integration.helpers import made, rows
from tests.torch_files import (
    archive,
    bins_in,
    call,
    expected_bins,
    glob,
    noise,
    program,
    refused_scan,
    storage,
    tensor,
)

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:torch", "ignore:.*:FutureWarning")


def scanned(uri: Path, warehouse: Path, **how: Any) -> int:
    return engine.scan(uri, warehouse=warehouse, **({"workers": 1} | how)).subject_id


def test_a_training_state_by_torch_keeps_weights_and_optimizer_apart(tmp_path):
    net = torch.nn.Linear(6, 4)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(6)).sum().backward()
    optimizer.step()
    state = {"model": net.state_dict(), "optim": optimizer.state_dict(), "step": 7}
    scanned(distributed.save(tmp_path / "dcp", state, grid=(2, 2)), made(tmp_path / "w.duckdb"))
    assert bins_in(tmp_path / "w.duckdb") == expected_bins(net.state_dict())
    beside = dict(rows(tmp_path / "w.duckdb", "SELECT name, reason FROM tensors WHERE reason IS NOT NULL"))
    assert beside["optim.state.0.exp_avg"] == "not a weight: it lies under 'optim'"
    assert len(beside) == 6


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    return distributed.save(tmp_path / "dcp", {"w": noise(6, 4), "v": noise(9, seed=1)}, grid=(3,), files=2)


def test_a_file_is_missing_or_cut_off(cut):
    files = sorted(cut.glob("*.distcp"))
    assert len(files) == 2
    data = files[1].read_bytes()
    for end in (0, 1, 100, len(data) // 2, len(data) - 1):
        files[1].write_bytes(data[:end])
        assert "ends at byte" in refused_scan(cut, files[1]).partition(": ")[2]
    files[1].unlink()
    assert f"{files[1].name!r}, which is not there" in refused_scan(cut, cut / ".metadata")


def test_a_metadata_cut_off(cut):
    data = (cut / ".metadata").read_bytes()
    for end in range(0, len(data), 97):
        (cut / ".metadata").write_bytes(data[:end])
        refused_scan(cut, cut / ".metadata")


@pytest.mark.parametrize(
    "body",
    [
        glob("posix", "system"),
        call("builtins", "eval", "1"),
        {"state_dict_metadata": call("os", "system", "x")},
    ],
)
def test_a_metadata_that_asks_for_more(body, cut):
    write(cut / ".metadata", program(body))
    assert "was not run" in refused_scan(cut, cut / ".metadata")


@pytest.mark.parametrize("path", ["../x.distcp", "/etc/passwd", "a/../../x", "..\\x", "", "gone", 5, None])
def test_a_part_elsewhere(path, cut):
    def redirect(metadata: Any) -> None:
        for place in metadata.storage_data.values():
            place.relative_path = path

    distributed.change(cut, redirect)
    refused_scan(cut, cut / ".metadata")


CHUNK = ["torch.distributed.checkpoint.metadata", "ChunkStorageMetadata"]


def lies(metadata: Any, lie: str) -> None:
    record = metadata.state_dict_metadata["w"]
    first, second, *_ = record.chunks
    places = [p for i, p in metadata.storage_data.items() if i.fqn == "w"]
    if lie == "overlap":
        second.offsets = torch.Size([1, 0])
        for index in metadata.storage_data:
            if index.fqn == "w" and index.offset == torch.Size([2, 0]):
                object.__setattr__(index, "offset", second.offsets)
    elif lie == "outside":
        second.offsets = torch.Size([60, 0])
        for index in metadata.storage_data:
            if index.fqn == "w" and index.offset == torch.Size([2, 0]):
                object.__setattr__(index, "offset", second.offsets)
    elif lie == "lost chunk":
        record.chunks.pop()
    elif lie == "lost place":
        metadata.storage_data.pop(next(i for i in metadata.storage_data if i.fqn == "w"))
    elif lie == "size":
        record.size = torch.Size([60, 4])
    elif lie == "huge size":
        record.size = torch.Size([1 << 62, 1 << 62])
    elif lie == "shape":
        first.sizes, second.sizes = torch.Size([1, 4]), torch.Size([3, 4])
    elif lie == "offset":
        places[0].offset += 1
    elif lie == "beyond":
        places[0].offset = 1 << 62
    elif lie == "negative":
        places[0].offset = -1
    elif lie == "length":
        places[0].length //= 2
    elif lie == "no length":
        places[0].length = None
    elif lie == "chunks of nothing":
        record.chunks = [None]
    elif lie == "a number of chunks":
        record.chunks = 3


LIES = ["overlap", "outside", "lost chunk", "lost place", "size", "huge size", "shape", "offset", "beyond", "negative", "length",
        "no length", "chunks of nothing", "a number of chunks"]  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_metadata_that_does_not_add_up(lie, cut):
    distributed.change(cut, lambda m: lies(m, lie))
    with pytest.raises(FormatError) as caught:
        engine.scan(cut, warehouse=made(cut.parent / "w.duckdb"), workers=1)
    assert str(cut) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def replaced(cut: Path, archived: bytes) -> Path:
    """Put another archive behind the others, as the first part of w."""
    file = sorted(cut.glob("*.distcp"))[0]
    length = file.stat().st_size
    file.write_bytes(file.read_bytes() + archived)

    def redirect(metadata: Any) -> None:
        index = next(i for i in metadata.storage_data if i.fqn == "w" and i.offset == torch.Size([0, 0]))
        place = metadata.storage_data[index]
        place.relative_path, place.offset, place.length = file.name, length, len(archived)

    return distributed.change(cut, redirect)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"w": tensor()}, "is no plain tensor"),
        (tensor(), "has shape (2, 2), expected (2, 4)"),
        (tensor((2, 4), (0, 1), of=storage(elements=99)), "declares 396 bytes"),
        (call("os", "system", "x"), "'os.system'"),
        (tensor((2, 4), (0, 1), of=storage(elements=8, kind="HalfStorage")), "F16"),
        (call("torch._utils", "_rebuild_sparse_tensor", (2, 4)), "is no plain tensor"),
    ],
)  # fmt: skip
def test_a_part_that_is_something_else(body, expected, cut):
    with pytest.raises(FormatError) as caught:
        engine.scan(replaced(cut, archive(program(body))), warehouse=made(cut.parent / "w.duckdb"), workers=1)
    assert expected in str(caught.value)
    assert str(cut) in str(caught.value)
