"""Files that kvikio brings to the GPU: a pretended kvikio, which reads for whoever asks."""

from __future__ import annotations

import importlib.machinery
import os
import sys
import types

import numpy as np
import pytest
import torch

import engine
from engine.errors import FormatError, TaskError
from engine.storage.direct import DirectReader
from tests.builders import write_tensors
from tests.gpu.conftest import HAS_GPU
from tests.gpu.test_commands import TITLE, both, model, pretended, said

__all__ = ["pretended"]  # a fixture

pytestmark = pytest.mark.skipif(HAS_GPU, reason="a pretended kvikio writes to the host's memory")


class CuFile:
    """What is used of kvikio's, whose `pread` returns a future."""

    opened = closed = 0
    reads: list[tuple[int, int]] = []  # noqa: RUF012 - of all files

    def __init__(self, path: str, flags: str) -> None:
        assert flags == "r"
        self._descriptor = os.open(path, os.O_RDONLY)
        CuFile.opened += 1

    def pread(self, memory: torch.Tensor, size: int, file_offset: int) -> types.SimpleNamespace:
        assert memory.numel() == size
        data = os.pread(self._descriptor, size, file_offset)
        memory.numpy()[: len(data)] = np.frombuffer(data, np.uint8)
        CuFile.reads.append((file_offset, size))
        return types.SimpleNamespace(get=lambda: len(data))

    def close(self) -> None:
        os.close(self._descriptor)
        CuFile.closed += 1


@pytest.fixture
def kvikio(monkeypatch):
    module = types.ModuleType("kvikio")
    module.CuFile = CuFile
    module.__spec__ = importlib.machinery.ModuleSpec("kvikio", None)
    monkeypatch.setitem(sys.modules, "kvikio", module)
    monkeypatch.setattr(CuFile, "reads", [])
    return CuFile


def test_a_scan_gives_the_rows_of_the_cpu(tmp_path, pretended, kvikio):
    write_tensors(tmp_path / "m.safetensors", {n: t for n, t in model().items() if n != "e"})
    events = both(tmp_path, lambda **where: engine.scan(tmp_path / "m.safetensors", **where))
    assert said(events) == [f"counting on {TITLE}, and reading local files by kvikio"]
    assert len(kvikio.reads) >= 6
    assert max(size for _, size in kvikio.reads) == 1 << 14  # a block
    assert kvikio.opened == kvikio.closed


def test_what_the_cpu_must_see_is_read_as_ever(tmp_path, pretended, kvikio):
    write_tensors(tmp_path / "m.safetensors", model())  # one of F64 is in every task
    both(tmp_path, lambda **where: engine.scan(tmp_path / "m.safetensors", **where))
    write_tensors(tmp_path / "n.safetensors", {"a": model()["a"]})
    engine.scan(
        tmp_path / "n.safetensors", warehouse=tmp_path / "gpu.duckdb", device="cuda", workers=1, iid=True
    )
    assert kvikio.reads == []


def test_a_file_that_is_replaced_meanwhile_is_read_as_it_was_opened(tmp_path, kvikio, monkeypatch):
    (tmp_path / "x").write_bytes(b"1234")
    (tmp_path / "y").write_bytes(b"5678")
    opening = CuFile.__init__

    def replaced(self, path, flags):
        (tmp_path / "y").replace(tmp_path / "x")
        opening(self, path, flags)

    monkeypatch.setattr(CuFile, "__init__", replaced)
    memory = torch.empty(4, dtype=torch.uint8)
    with DirectReader(str(tmp_path / "x")) as reader:
        reader.read_onto(memory, 4, 0)
    assert bytes(memory.tolist()) == b"1234"


def test_a_file_that_ends_too_early_or_fails_is_one_sentence(tmp_path, kvikio, monkeypatch):
    (tmp_path / "x").write_bytes(b"1234")
    with DirectReader(str(tmp_path / "x")) as reader:
        reader.read_onto(torch.empty(4, dtype=torch.uint8), 4, 0)
        with pytest.raises(FormatError, match="x: is truncated: it ends at byte 4, expected 6 or more"):
            reader.read_onto(torch.empty(4, dtype=torch.uint8), 4, 2)

        def fail(*_):
            raise RuntimeError("cuFile: no driver")

        monkeypatch.setattr(CuFile, "pread", fail)
        with pytest.raises(TaskError, match="cannot be read at byte 0 by kvikio: cuFile: no driver"):
            reader.read_onto(torch.empty(4, dtype=torch.uint8), 4, 0)
    with pytest.raises(FormatError):
        DirectReader(str(tmp_path / "none"))
