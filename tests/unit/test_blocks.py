"""Bytes by blocks, from files that must not change between the plan and the last read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from engine.errors import FormatError
from engine.formats.checkpoint import open_checkpoint
from engine.nouns.records import SourceFile
from engine.nouns.tasks import Chunk, Task
from engine.plan import Limits, Selection, plan_refine, plan_scan
from engine.statistics.summary import codes_to_refine
from engine.storage import LocalReader, describe_all, open_reader
from engine.tasks.blocks import BlockReader
from engine.tasks.refine import RefineBody
from engine.tasks.scan import ScanBody
from tests.builders import assert_same, patterns_of, reference_sketch, refinement_of, write, write_tensors


def task_for(path: Path, *chunks: tuple[int, int], block_bytes: int = 8) -> Task:
    """Chunks of bytes, given as (offset, nbytes)."""
    cut = tuple(Chunk(i, f"t{i}", "F8_E4M3", 0, at, n, 0) for i, (at, n) in enumerate(chunks))
    return Task(0, (describe_all([str(path)])[0],), cut, block_bytes, 0)


def contents(task: Task, reader: BlockReader | None = None) -> list[list[bytes]]:
    return [[bytes(b) for b in blocks] for _, blocks in (reader or BlockReader()).read(task)]


@pytest.mark.parametrize("block_bytes", [8, 16, 24, 104, 4096])
def test_chunks_come_in_order_and_in_blocks_of_the_size_asked_for(tmp_path, block_bytes):
    data = bytes(range(200))
    path = write(tmp_path / "x", data)
    found = contents(task_for(path, (0, 16), (100, 100), (50, 3), block_bytes=block_bytes))
    assert [b"".join(blocks) for blocks in found] == [data[:16], data[100:200], data[50:53]]
    for blocks in found:
        assert all(len(b) == block_bytes for b in blocks[:-1])
        assert len(blocks[-1]) <= block_bytes


def test_a_reader_serves_tasks_of_growing_and_shrinking_blocks(tmp_path):
    path, reader = write(tmp_path / "x", bytes(range(100))), BlockReader()
    for block_bytes in (16, 64, 8):
        assert b"".join(contents(task_for(path, (3, 90), block_bytes=block_bytes), reader)[0]) == bytes(
            range(3, 93)
        )


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_files_are_closed_even_if_nobody_reads_to_the_end(tmp_path):
    before = open_files()
    chunks = BlockReader().read(task_for(write(tmp_path / "x", bytes(64)), (0, 64)))
    next(chunks)
    chunks.close()
    assert open_files() == before


# Files that change


@pytest.fixture
def path(tmp_path) -> Path:
    return write(tmp_path / "x.safetensors", bytes(100))


def touch(path: Path) -> None:
    stamp = path.stat()
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1000))


CHANGES = {
    "grown": lambda p: p.write_bytes(bytes(101)),
    "truncated": lambda p: os.truncate(p, 60),
    "touched": touch,
    "replaced": lambda p: (p.unlink(), p.write_bytes(b"\1" * 100), touch(p)),
    "gone": lambda p: p.unlink(),
}


def refused(path: Path, read) -> str:
    with pytest.raises(FormatError) as caught:
        read()
    assert caught.value.file == str(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_changed_after_the_plan_is_refused(path, change):
    task = task_for(path, (0, 40))
    change(path)
    text = refused(path, lambda: next(next(BlockReader().read(task))[1]))  # before a byte of it is read
    assert "changed" in text or "No such file" in text


def test_the_refusal_tells_both_sizes(path):
    task = task_for(path, (0, 40))
    os.truncate(path, 60)
    text = refused(path, lambda: contents(task))
    assert "100 bytes" in text
    assert "now 60" in text


@pytest.mark.parametrize("change", ["grown", "truncated", "touched"])
def test_a_file_changed_while_it_is_read_is_refused(path, change):
    # "gone" and "replaced" leave the open file as it was: what is read is still what was planned
    def read():
        for number, (_, blocks) in enumerate(BlockReader().read(task_for(path, (0, 40), (40, 40)))):
            list(blocks)
            if number == 1:
                CHANGES[change](path)

    refused(path, read)


def test_a_file_truncated_in_mid_read_is_refused_with_the_byte_where_it_ends(path):
    def read():
        for _, blocks in BlockReader().read(task_for(path, (20, 80))):
            next(blocks)
            os.truncate(path, 50)
            list(blocks)

    assert "is truncated: it ends at byte 50, expected" in refused(path, read)


def test_a_chunk_beyond_the_end_is_refused(path):
    assert "ends at byte 100, expected 104" in refused(path, lambda: contents(task_for(path, (96, 8))))


# Bodies


def scan_tasks(path: Path, *values: float, block_bytes: int = 8) -> tuple[Task, ...]:
    write_tensors(path, {"w": ("F32", np.array(values, "<f4"))})
    return plan_scan(open_checkpoint(str(path)), Selection(), Limits(block_bytes=block_bytes), {}).tasks


def test_a_scan_body_counts_each_chunk_apart(tmp_path):
    path = write_tensors(
        tmp_path / "x.safetensors",
        {d: (d, patterns_of(d, [1.0, -0.5, 0.0, 2.0, 1.0])) for d in ("BF16", "F32", "F64", "F8_E5M2")},
    )
    checkpoint = open_checkpoint(str(path))
    (task,) = plan_scan(checkpoint, Selection(), Limits(), {}).tasks
    outcome = ScanBody()(task)
    assert (outcome.key, outcome.nbytes) == (0, checkpoint.nbytes)
    for part in outcome.parts:
        info = checkpoint.tensors[part.tensor]
        assert part.span == (0, 5)
        assert_same(
            part.found, reference_sketch(info.dtype, patterns_of(info.dtype, [1.0, -0.5, 0.0, 2.0, 1.0]))
        )


def test_a_scan_body_that_failed_starts_the_next_task_from_nothing(tmp_path):
    # the blocks counted before the failure must not turn up in the next tensor of that dtype
    (bad,) = scan_tasks(tmp_path / "bad.safetensors", *[7.0] * 30)
    (good,) = scan_tasks(tmp_path / "good.safetensors", 1.0, 2.0)
    body = ScanBody()
    stamp = (tmp_path / "bad.safetensors").stat()
    os.truncate(tmp_path / "bad.safetensors", stamp.st_size - 16)
    size = stamp.st_size - 16
    now = SourceFile(bad.files[0].uri, size, describe_all([bad.files[0].uri])[0].version)
    with pytest.raises(FormatError, match="ends at byte"):
        body(Task(bad.key, (now,), bad.chunks, bad.block_bytes, 0))
    (part,) = body(good).parts
    assert part.found.count == 2


def test_a_refining_body_finds_what_the_kernel_finds(tmp_path):
    r = np.random.default_rng(3)
    values = r.normal(0, 0.02, 5000)
    for dtype in ("F32", "F64"):
        narrow = patterns_of("F32", values)
        wide = patterns_of(dtype, values)
        path = write_tensors(tmp_path / f"{dtype}.safetensors", {"w": (dtype, wide)})
        codes = codes_to_refine(reference_sketch("F32", narrow))
        (task,) = plan_refine(open_checkpoint(str(path)), {0: codes}, Limits(block_bytes=64))
        (part,) = RefineBody()(task).parts
        expected = refinement_of(narrow, codes)
        assert part.span == (0, 5000)
        assert (part.found.cubes, part.found.fourths) == (expected.cubes, expected.fourths)
        assert list(part.found.lows) == list(codes)
        for code in codes:
            for a, b in zip(part.found.lows[code], expected.lows[code], strict=True):
                np.testing.assert_array_equal(a, b)


# Storage


def test_a_reader_fills_any_buffer_from_any_offset(tmp_path):
    data = bytes(range(256)) * 10
    with open_reader(str(write(tmp_path / "x", data))) as reader:
        assert isinstance(reader, LocalReader)
        for offset, size in ((0, 1), (7, 2000), (2559, 1), (100, 0)):
            buffer = bytearray(size)
            reader.read_into(memoryview(buffer), offset)
            assert bytes(buffer) == data[offset : offset + size]


def test_a_description_follows_the_file(tmp_path):
    path = write(tmp_path / "x", b"abc")
    first = describe_all([str(path)])[0]
    assert (first.uri, first.size) == (str(path), 3)
    assert describe_all([str(path)])[0] == first
    touch(path)
    assert describe_all([str(path)])[0].version != first.version


def test_what_cannot_be_opened_is_a_damaged_file(tmp_path):
    refused(tmp_path / "nothing", lambda: open_reader(str(tmp_path / "nothing")))
