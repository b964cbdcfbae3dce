"""The commands on a GPU: the rows of the CPU, bit for bit, and a word of where they were counted."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.device import counter as counters
from engine.errors import ConfigError
from engine.kernels.cuda import claims
from engine.nouns.events import Event, Placed
from tests.adapters import factors, write_adapter
from tests.builders import write_tensors
from tests.gpu.conftest import HAS_GPU
from tests.gpu.test_counting import noise
from tests.integration.helpers import made

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # of the interpreter

TITLE = "a pretended GPU"


@pytest.fixture
def pretended(device, monkeypatch):
    """A machine with a GPU, which is Triton's interpreter where there is none; blocks are small."""
    from engine.device import choosing

    if not HAS_GPU:
        monkeypatch.setattr(choosing, "_what_is_missing", lambda: None)
        monkeypatch.setattr(claims, "lacks", lambda: None)
    monkeypatch.setattr(claims, "next_gpu", lambda: (device, TITLE))
    monkeypatch.setattr(counters, "BLOCK", 1 << 14)
    return device


def everything(warehouse: Path) -> dict[str, list[tuple]]:
    """All rows that say what was counted, by table."""
    from engine.warehouse.store import Warehouse

    queries = {
        "tensors": "SELECT s.name, t.* EXCLUDE (tensor_id, subject_id) FROM tensors t JOIN subjects s USING (subject_id) ORDER BY 1, t.ordinal",
        "bins": "SELECT s.name, t.ordinal, b.* EXCLUDE (tensor_id) FROM bins b JOIN tensors t USING (tensor_id) JOIN subjects s USING (subject_id) ORDER BY 1, 2, code",
        "iid": "SELECT s.name, t.ordinal, i.* EXCLUDE (tensor_id) FROM iid i JOIN tensors t USING (tensor_id) JOIN subjects s USING (subject_id) ORDER BY 1, 2",
    }
    with Warehouse(warehouse).reading() as connection:
        return {name: connection.execute(query).fetchall() for name, query in queries.items()}


def model(seed: int = 1) -> dict[str, tuple[str, np.ndarray]]:
    """Tensors of every width, odd sizes, and some that are small."""
    return {
        "a": ("BF16", noise("BF16", 40 * 321, seed).reshape(40, 321)),
        "b": ("F16", noise("F16", 3 * 33, seed).reshape(3, 33)),
        "c": ("F32", noise("F32", 64 * 65, seed).reshape(64, 65)),
        "d": ("F8_E4M3", noise("F8_E4M3", 999, seed)),
        "e": ("F64", noise("F64", 501, seed)),
        "f": ("BF16", noise("BF16", 1, seed)),
        "g": ("I32", np.arange(5, dtype=np.int32)),
    }


def both(tmp_path: Path, run) -> list[Event]:
    """Run something on the CPU and on the GPU; everything in the warehouses must be the same.

    Returns:
        what the second had to say.
    """
    events: list[Event] = []
    run(warehouse=made(tmp_path / "cpu.duckdb"), device="cpu", workers=1)
    run(warehouse=made(tmp_path / "gpu.duckdb"), device="cuda", workers=1, listener=events.append)
    found = everything(tmp_path / "gpu.duckdb")
    assert found["bins"]
    assert repr(found) == repr(everything(tmp_path / "cpu.duckdb"))  # NaN among them
    return events


def said(events: list[Event]) -> list[str]:
    return [e.text for e in events if isinstance(e, Placed)]


@pytest.mark.parametrize("iid", [False, True])
def test_a_scan_gives_the_rows_of_the_cpu(tmp_path, pretended, iid):
    write_tensors(tmp_path / "m.safetensors", model())
    events = both(
        tmp_path,
        lambda **where: engine.scan(
            tmp_path / "m.safetensors", iid=iid, exact=not iid, block_bytes=4096, **where
        ),
    )
    assert said(events) == [f"counting on {TITLE}"]


def test_a_delta_gives_the_rows_of_the_cpu(tmp_path, pretended):
    base, first, second = model(), model(2), model()
    second["a"] = ("F32", noise("F32", 40 * 321, 3).reshape(40, 321))
    second["d"] = ("F8_E5M2", noise("F8_E5M2", 999, 3))
    for name, tensors in (("base", base), ("first", first), ("second", second)):
        write_tensors(tmp_path / f"{name}.safetensors", tensors)
    places = [tmp_path / f"{name}.safetensors" for name in ("base", "first", "second")]
    assert said(both(tmp_path, lambda **where: engine.delta(*places, **where))) == [f"counting on {TITLE}"]


def test_products_of_adapters_give_the_rows_of_the_cpu(tmp_path, pretended, fusing, monkeypatch):
    from engine.device.counter import GpuCounter

    products = []
    real = GpuCounter.multiply
    monkeypatch.setattr(GpuCounter, "multiply", lambda *a: products.append(real(*a)) or products[-1])
    tensors = (
        factors("q", 70, 33) | factors("k", 5, 9, dtypes=("BF16", "F16")) | factors("v", 40, 300, seed=2)
    )
    write_adapter(tmp_path / "lora", tensors)
    run = partial(engine.delta, adapters=[tmp_path / "lora"], task_bytes=4096)
    assert said(both(tmp_path, run)) == [f"counting on {TITLE}"]
    assert len(products) >= 3
    assert all(products)


@pytest.mark.parametrize("what", ["Slot", "CodeTally"])
def test_no_memory_is_told_and_changes_no_row(tmp_path, pretended, monkeypatch, what):
    import torch

    from engine.kernels.cuda import feed

    def refuse(*_):
        raise torch.OutOfMemoryError("as if")

    monkeypatch.setattr(feed if what == "Slot" else claims, what, refuse)
    write_tensors(tmp_path / "m.safetensors", model())
    events = both(tmp_path, lambda **where: engine.scan(tmp_path / "m.safetensors", **where))
    told = said(events)
    assert told[0] == f"counting on {TITLE}"
    assert f"no memory left on {pretended}: BF16 is counted on the CPU" in told
    assert len(told) == (6 if what == "Slot" else 4)


def test_auto_leaves_little_to_the_cpu(tmp_path, pretended, monkeypatch):
    from engine.device import choosing

    write_tensors(tmp_path / "m.safetensors", model())
    events: list[Event] = []
    engine.scan(tmp_path / "m.safetensors", warehouse=tmp_path / "w.duckdb", listener=events.append)
    assert said(events) == []
    monkeypatch.setattr(choosing, "LEAST_BYTES", 1000)
    engine.scan(
        tmp_path / "m.safetensors",
        warehouse=tmp_path / "w.duckdb",
        workers=1,
        force=True,
        listener=events.append,
    )
    assert said(events) == [f"counting on {TITLE}"]


def test_memory_of_the_host_is_projected(tmp_path, pretended):
    write_tensors(tmp_path / "m.safetensors", model())
    plans = [engine.dry_run(tmp_path / "m.safetensors", workers=1, device=d) for d in ("cpu", "auto", "cuda")]
    assert plans[0].projected_bytes == plans[1].projected_bytes
    assert plans[2].projected_bytes - plans[0].projected_bytes == (1024 + 192) << 20


def test_a_gpu_is_made_the_threads_own_and_its_context_made(monkeypatch):
    import torch

    done: list[object] = []
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("context"))
    for name in ("cpu:0", "cuda", "cuda:1"):
        claims.use(name)
    assert done == ["context", torch.device("cuda:1"), "context"]


def test_a_gpu_without_nvrtc_needs_a_triton_that_runs(monkeypatch):
    import torch

    from engine.kernels.cuda import native, rows

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(native, "is_available", lambda device: False)
    monkeypatch.setattr(rows, "why_not", lambda device: None)
    assert claims.lacks() is None
    monkeypatch.setattr(rows, "why_not", lambda device: "Failed to find C compiler.")
    assert claims.lacks() == "no kernels of NVRTC, and Triton's do not run: Failed to find C compiler."

    def fail(device):
        raise RuntimeError("CUDA unknown error\n- this may be due to ...")

    monkeypatch.setattr(native, "is_available", fail)
    assert claims.lacks() == "CUDA unknown error"


def test_a_gpu_that_is_not_there_is_one_sentence(tmp_path, monkeypatch):
    from engine.device import choosing

    monkeypatch.setattr(choosing, "_what_is_missing", lambda: "there is no NVIDIA driver")
    write_tensors(tmp_path / "m.safetensors", model())
    with pytest.raises(ConfigError, match="cannot count on a GPU: there is no NVIDIA driver"):
        engine.scan(tmp_path / "m.safetensors", warehouse=tmp_path / "w.duckdb", device="cuda")
    assert not (tmp_path / "w.duckdb").exists()
    with pytest.raises(ConfigError, match="unknown device 'gpu'"):
        engine.scan(tmp_path / "m.safetensors", warehouse=tmp_path / "w.duckdb", device="gpu")
