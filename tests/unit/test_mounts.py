"""What lies on a network file system is read like what lies in a bucket: by parallel reads."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.storage import folders
from engine.storage.local import LocalReader
from engine.storage.mounts import is_on_network
from tests.builders import write_sharded, write_tensors
from tests.integration.helpers import contents, llama, made, normal


def mount(point: str, kind: str, *tags: str) -> str:
    """A line of proc_pid_mountinfo(5), with any number of optional fields."""
    return " ".join(
        ["36 35 98:0", "/", point, "rw,noatime", *tags, "-", kind, "source", "rw,errors=continue"]
    )


def judge(folder: Path, path: str | Path, *lines: str) -> bool:
    table = folder / "mountinfo"
    table.write_text("".join(f"{line}\n" for line in lines), errors="surrogateescape")
    return is_on_network(path, str(table))


ROOT = mount("/", "overlay", "master:1")


@pytest.mark.parametrize(
    "kind",
    ["nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "gpfs", "beegfs", "9p", "virtiofs", "afs",
     "fuse.gcsfuse", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.juicefs", "fuse.mount-s3", "fuse.blobfuse2"],
)  # fmt: skip
def test_a_server_is_asked_for_every_page(tmp_path, kind):
    assert judge(tmp_path, "/mnt/data/model", ROOT, mount("/mnt/data", kind, "shared:2", "master:3"))
    assert judge(tmp_path, "/mnt/data", ROOT, mount("/mnt/data", kind))


@pytest.mark.parametrize(
    "kind",
    ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "ntfs3", "vfat", "squashfs", "ramfs", "apfs",
     "fuse.fuseblk", "fuse.ntfs-3g", "fuse.overlayfs", "fuse.bindfs", "fuse.gocryptfs",
     "fuse.fuse-overlayfs"],
)  # fmt: skip
def test_a_disk_is_here(tmp_path, kind):
    assert not judge(tmp_path, "/mnt/data/model", ROOT, mount("/mnt/data", kind, "shared:2"))


@pytest.mark.parametrize(
    ("path", "distant"),
    [("/", False), ("/home/x", False), ("/mnt", True), ("/mnt/x", True), ("/mntx/y", False), ("/mnt/fast", False),
     ("/mnt/fast/x", False), ("/mnt/faster", True), ("/mnt/fast/far/away", True), ("/nowhere/else", False)],
)  # fmt: skip
@pytest.mark.parametrize("reverse", [False, True])
def test_the_innermost_mount_decides(tmp_path, path, distant, reverse):
    table = [ROOT, mount("/mnt", "nfs4"), mount("/mnt/fast", "ext4"), mount("/mnt/fast/far", "fuse.sshfs")]
    assert judge(tmp_path, path, *table[:: -1 if reverse else 1]) is distant


def test_a_network_root(tmp_path):
    table = [mount("/", "nfs"), mount("/tmp", "tmpfs")]
    assert judge(tmp_path, "/home", *table)
    assert not judge(tmp_path, "/tmp/x", *table)


def test_of_mounts_at_one_place_the_last_counts(tmp_path):
    local, distant = mount("/mnt", "ext4"), mount("/mnt", "lustre")
    assert judge(tmp_path, "/mnt/x", ROOT, local, distant)
    assert not judge(tmp_path, "/mnt/x", ROOT, distant, local)


@pytest.mark.parametrize(
    ("escaped", "path"),
    [
        (r"/mnt/my\040data", "/mnt/my data/x"),
        (r"/mnt/tab\011here", "/mnt/tab\there/x"),
        (r"/mnt/line\012feed", "/mnt/line\nfeed/x"),
        (r"/mnt/back\134slash", "/mnt/back\\slash/x"),
        (r"/mnt/back\134040", r"/mnt/back\040/x"),
        ("/mnt/ünï", "/mnt/ünï/x"),
        ("/mnt/\udcff", "/mnt/\udcff/x"),
        ("/mnt/a-b - c".replace(" ", r"\040"), "/mnt/a-b - c/x"),
    ],
)
def test_names_are_unescaped(tmp_path, escaped, path):
    assert judge(tmp_path, path, ROOT, mount(escaped, "nfs4"))
    assert not judge(tmp_path, "/mnt/other", ROOT, mount(escaped, "nfs4"))


def test_links_are_followed(tmp_path):
    (tmp_path / "far" / "model").mkdir(parents=True)
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far" / "model")
    table = [ROOT, mount(os.path.realpath(tmp_path / "far"), "nfs4")]
    assert judge(tmp_path, tmp_path / "near" / "link", *table)
    assert not judge(tmp_path, tmp_path / "near", *table)


@pytest.mark.parametrize(
    "lines", [[], ["nonsense"], ["- nfs4"], ["1 2 3 /mnt - nfs4"], ["36 35 98:0 / / rw - "]]
)
def test_what_is_no_table_names_nothing_distant(tmp_path, lines):
    assert not judge(tmp_path, "/mnt/x", *lines)


def test_without_a_table_nothing_is_distant(tmp_path):
    assert not is_on_network(tmp_path, str(tmp_path / "none"))
    assert not is_on_network(tmp_path, str(tmp_path))


def test_the_tests_own_folder_can_be_judged(tmp_path):
    assert isinstance(is_on_network(tmp_path), bool)


# A scan


@pytest.mark.parametrize("layout", ["file", "folder", "sharded"])
@pytest.mark.parametrize("workers", [1, 4])
def test_a_distant_folder_is_counted_the_same_by_parallel_reads(tmp_path, monkeypatch, layout, workers):
    folder = tmp_path / "model"
    if layout == "sharded":
        write_sharded(folder, llama(width=48), {"more.weight": normal("F32", 300, 90)})
    else:
        write_tensors(folder / "m.safetensors", llama(3, width=48))
    place = folder / "m.safetensors" if layout == "file" else folder
    scans: list[Any] = []
    threads: set[str] = set()
    read_into = LocalReader.read_into

    def watched(self: LocalReader, buffer: memoryview, offset: int) -> None:
        threads.add(threading.current_thread().name)
        read_into(self, buffer, offset)

    monkeypatch.setattr(LocalReader, "read_into", watched)
    for distant in (False, True):
        monkeypatch.setattr(folders, "is_on_network", lambda path, distant=distant: distant)
        threads.clear()
        warehouse = made(tmp_path / f"{distant}.duckdb")
        report = engine.scan(place, warehouse=warehouse, workers=workers, task_bytes=9000, ranges=3)
        ranged = {name for name in threads if name.startswith("gaussmeter-range")}
        assert bool(ranged) is distant
        assert len(ranged) <= 3
        scans.append((contents(warehouse, report.subject_id), report.nbytes_read))
        assert engine.scan(place, warehouse=warehouse).status == "unchanged"
    assert scans[0] == scans[1]
