"""Where a pack cannot be written it says so in one sentence, with the right exit code, and leaves what is there."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import engine
from tests.builders import entry, every_code, patterns_of, write_tensors
from tests.integration.helpers import PATIENCE, environment, gaussmeter, process, start
from tests.integration.packing import assert_same_counts, files, packed, tensors
from tests.zarr_stores import edit, noise, put, refusal, setting


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tensors(tmp_path_factory.mktemp("source") / "m.safetensors", tensors())


# What is there already


def foreign(folder: Path) -> dict[str, Callable[[Path], Any]]:
    other = write_tensors(folder / "other.safetensors", tensors(5))
    return {
        "a folder of something": lambda p: (p.mkdir(), (p / "notes.txt").write_text("x")),
        "a zarr group": lambda p: put(zarr.create_group(p), "w", noise(3)),
        "a group of version 2": lambda p: zarr.create_group(p, zarr_format=2),
        "a pack of another checkpoint": lambda p: engine.pack(other, p),
        "a pack with another codec": lambda p: engine.pack(folder / "m.safetensors", p, codec="zstd"),
        "an unfinished pack of another": lambda p: edit(
            (engine.pack(other, p), p)[1], setting(attributes={"gaussmeter": {"status": "packing"}}), ""),
        "a file": lambda p: p.write_text("x"),
        "a zarr array": lambda p: zarr.create_array(p, shape=(3,), dtype="f4")[:].sum(),
        "a damaged group": lambda p: (p.mkdir(), (p / "zarr.json").write_text("{")),
        "a link to nothing": lambda p: p.symlink_to(folder / "nothing"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "what",
    ["a folder of something", "a zarr group", "a group of version 2", "a pack of another checkpoint",
     "a pack with another codec", "an unfinished pack of another",
     *(w for w in ("a file", "a zarr array", "a damaged group", "a link to nothing"))],
)  # fmt: skip
def test_what_is_there_already_is_left_alone(tmp_path, what):
    path, out = write_tensors(tmp_path / "m.safetensors", tensors()), tmp_path / "out.zarr"
    foreign(tmp_path)[what](out)
    before = files(tmp_path)
    ran = gaussmeter("pack", path, out)
    assert files(tmp_path) == before
    assert ran.sentence(2).startswith(f"{out}: ")


def test_a_mark_without_a_status(source, tmp_path):
    packed(source, tmp_path / "out.zarr")
    edit(tmp_path / "out.zarr", lambda d: d["attributes"]["gaussmeter"].pop("status") and None, "")
    gaussmeter("pack", source, tmp_path / "out.zarr").sentence(2)


def test_an_archive_where_a_folder_is(source, tmp_path):
    (tmp_path / "out.zarr.zip").mkdir()
    gaussmeter("pack", source, tmp_path / "out.zarr.zip").sentence(2)
    assert [p.name for p in tmp_path.iterdir()] == ["out.zarr.zip"]


def test_an_archive_of_any_name_can_be_scanned(source, tmp_path):
    packed(source, tmp_path / "out.zip")
    assert_same_counts(source, tmp_path / "out.zip", tmp_path)


def test_a_group_is_not_packed_into_itself(source, tmp_path):
    packed(source, tmp_path / "out.zarr")
    before = files(tmp_path)
    gaussmeter("pack", tmp_path / "out.zarr", tmp_path / "out.zarr" / "copy.zarr").sentence(2)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("out", "words"),
    [("none/out.zarr", "no such directory"), ("file/out.zarr", "no such directory"), ("hf://a/b", "a directory or a bucket"),
     ("https://example.com/x.zarr", "a directory or a bucket")],
)  # fmt: skip
def test_places_that_cannot_be(source, tmp_path, out, words):
    (tmp_path / "file").write_text("x")
    said = gaussmeter("pack", source, out if "://" in out else tmp_path / out).sentence(2)
    assert words in said
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# Disks


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", *options, folder], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def small_disk(folder: Path, size: str) -> contextlib.AbstractContextManager[Path]:
    return mounted(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs")


def test_a_directory_that_may_not_be_written_to(source, tmp_path):
    folder = tmp_path / "fixed"
    folder.mkdir()
    with mounted(folder, "--bind", str(folder)):
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        said = gaussmeter("pack", source, folder / "out.zarr").sentence(3)
        assert said == f"{folder / 'out.zarr'}: could not be written: Read-only file system"


def fat(folder: Path) -> Path:
    codes = {f"layers.{k}.weight": ("BF16", every_code("BF16")[::-1] ^ k) for k in range(12)}
    return write_tensors(folder / "fat.safetensors", codes)


def test_a_disk_that_is_too_small_is_refused_at_once(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        said = gaussmeter("pack", fat(tmp_path), disk / "out.zarr").sentence(2)
        assert "1,572,864 bytes are to be written, the disk has " in said


def test_a_disk_that_becomes_full(tmp_path):
    """What zstd makes of it is known only afterwards."""
    path, other = fat(tmp_path), tmp_path / "other.zarr"
    with small_disk(tmp_path / "disk", "600k") as disk:
        for _ in range(2):
            said = gaussmeter("pack", path, disk / "out.zarr", "--codec", "zstd").sentence(3)
            assert said == f"{disk / 'out.zarr'}: could not be written: No space left on device"
            assert "not finished" in gaussmeter(
                "scan", disk / "out.zarr", "-w", tmp_path / "w.duckdb"
            ).sentence(2)
        subprocess.run(["mount", "-o", "remount,size=30m", disk], check=True)
        assert engine.pack(path, disk / "out.zarr", codec="zstd").status == "resumed"
        packed(path, other, codec="zstd")
        assert files(disk / "out.zarr") == files(other)


def limited(limit: int) -> Callable[[], None]:
    def apply() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return apply


def test_files_that_may_not_grow(tmp_path):
    """The same for those who may not mount anything."""
    ran = process("pack", fat(tmp_path), tmp_path / "out.zarr", preexec_fn=limited(100_000))
    assert ran.sentence(3) == f"{tmp_path / 'out.zarr'}: could not be written: File too large"
    assert engine.pack(tmp_path / "fat.safetensors", tmp_path / "out.zarr").status in ("packed", "resumed")


def scattered(folder: Path) -> Path:
    put(zarr.create_group(folder / "tiles"), "w", noise(1024, 512), chunks=(512, 256))
    return folder / "tiles"


def test_a_scratch_file_that_may_not_grow(tmp_path):
    ran = process("pack", scattered(tmp_path), tmp_path / "out.zarr", preexec_fn=limited(1_000_000))
    assert "File too large" in ran.sentence(3)


def test_a_scratch_disk_that_is_too_small(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        ran = process("pack", scattered(tmp_path), tmp_path / "out.zarr", env=environment(TMPDIR=str(disk)))
        assert "No space left on device" in ran.sentence(3)


# Large

MIB = 1 << 20
MEASURED = """
import os, sys
words = [sys.executable, "-m", "engine", "pack", *sys.argv[1:]]
pid = os.spawnv(os.P_NOWAIT, sys.executable, words)  # by the tests it would be charged with their memory
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss >> 10, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def large(path: Path) -> Path:
    """2.2 GB of BF16 in 21 matrices, each the same Gaussian values with another mask over their last bits."""
    values = patterns_of("BF16", np.random.default_rng(0).normal(0, 0.02, 12_800 * 4096))
    shape, size = (12_800, 4096), 2 * values.size
    header = json.dumps(
        {f"layers.{k}.weight": entry("BF16", shape, k * size, (k + 1) * size) for k in range(21)}
    )
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header.encode())
        for k in range(21):
            file.write((values ^ np.uint16(k)).data)
    return path


@pytest.mark.slow
def test_a_large_checkpoint_takes_little_memory_and_survives_a_kill(tmp_path):
    if shutil.disk_usage(tmp_path).free < 8 << 30:
        pytest.skip("8 GB of disk are needed")
    path, out = large(tmp_path / "large.safetensors"), tmp_path / "out.zarr"
    first = start(["-m", "engine", "pack", path, out])
    while first.poll() is None and sum(p.stat().st_size for p in out.glob("*/c/*/*")) < 1 << 30:
        time.sleep(0.05)
    first.kill()
    first.communicate(timeout=PATIENCE)
    assert first.returncode == -signal.SIGKILL
    assert "not finished" in refusal(out)
    second = start(["-c", MEASURED, path, out, "--format", "json"])
    text, peak = second.communicate(timeout=10 * PATIENCE)
    report = json.loads(text)
    print(f"peak {peak.strip()} MiB, {report}")
    assert (second.returncode, report["status"]) == (0, "resumed")
    assert report["nbytes_written"] < report["nbytes"] == 21 * 2 * 12_800 * 4096
    assert int(peak) < 500
    assert_same_counts(path, out, tmp_path)
    assert not list(out.rglob("*.partial"))
