"""As many requests at once as asked for, and the speed that comes of it where each connection is slow."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.storage.remote import HEAD_BYTES
from engine.verbs import limits as limiting
from tests.builders import Tensors, write_tensors
from tests.integration.helpers import Kept, contents, made
from tests.integration.servers import FileServer

RATE = 20e6  # bytes a second, of each connection


def random_weights(tensors: int, rows: int, columns: int) -> Tensors:
    codes = np.random.default_rng(0).integers(0, 1 << 16, (tensors, rows, columns), np.uint16)
    return {f"layers.{i}.weight": ("BF16", codes[i]) for i in range(tensors)}


def timed(place: str | Path, folder: Path, **options: int) -> tuple[float, dict[str, Kept]]:
    """Seconds of a scan, and what it counted."""
    warehouse = made(folder / "w.duckdb")
    began = time.monotonic()
    report = engine.scan(place, warehouse=warehouse, **options)
    return time.monotonic() - began, contents(warehouse, report.subject_id)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 kB in tensors that are cut into many ranges."""
    folder = tmp_path_factory.mktemp("small")
    write_tensors(folder / "model.safetensors", random_weights(3, 200, 500))
    return folder


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiting, "Limits", partial(limiting.Limits, range_bytes=10_000))


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("ranges", [1, 3, 8])
def test_there_are_as_many_requests_at_once_as_ranges(small, tmp_path, ranges, workers):
    """Whatever the number of workers, who share them."""
    _, expected = timed(small, tmp_path)
    with FileServer(small) as server:
        server.latency = 0.005
        _, found = timed(f"{server.url}/model.safetensors", tmp_path, workers=workers, ranges=ranges)
        assert server.peak == ranges
        assert len(server.log) > 60
    assert found == expected


@pytest.mark.usefixtures("small_ranges")
def test_the_bytes_are_read_once(small, tmp_path):
    """But for the first of the file, which tell what it is."""
    with FileServer(small) as server:
        timed(f"{server.url}/model.safetensors", tmp_path, ranges=8)
        first = f"bytes=0-{HEAD_BYTES - 1}"
        assert sum(r.sent for r in server.log if r.headers["range"] != first) == engine.dry_run(small).nbytes


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """164 MB."""
    folder = tmp_path_factory.mktemp("large")
    write_tensors(folder / "model.safetensors", random_weights(8, 4096, 2500))
    timed(
        folder, folder
    )  # the kernels are compiled, and the kernel of the other kind has the file in its cache
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_eight_slow_connections_are_eight_times_as_fast_as_one(large, tmp_path, workers):
    """Nearly, once the time is taken off that the same scan takes without a network."""
    local, expected = timed(large, tmp_path, workers=workers)
    with FileServer(large) as server:
        server.bytes_per_second = RATE
        one, by_one = timed(f"{server.url}/model.safetensors", tmp_path, workers=workers, ranges=1)
        eight, by_eight = timed(f"{server.url}/model.safetensors", tmp_path, workers=workers, ranges=8)
    assert by_one == by_eight == expected
    ratio = (one - local) / (eight - local)
    print(
        f"{workers} workers: {local:.2f} s local, {one:.2f} s by one, {eight:.2f} s by eight: {ratio:.2f} x"
    )
    assert ratio >= 0.8 * 8
