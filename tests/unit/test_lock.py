"""Of censuses of one name one runs at a time; who comes second is told who was first, whatever the file holds."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import signal
import time
from pathlib import Path

import pytest

from engine.errors import AlreadyRunning, WarehouseError
from engine.warehouse.lock import only_one
from tests.integration.helpers import finish, start

HOLDER = """
import sys, time
from engine.warehouse.lock import only_one
with only_one(sys.argv[1], "night"):
    print("held", flush=True)
    sys.stdin.read()
"""


def taken(warehouse: Path, name: str = "night") -> str:
    with pytest.raises(AlreadyRunning) as caught, only_one(warehouse, name):
        raise AssertionError("both hold it")
    return str(caught.value)


def lock_file(warehouse: Path) -> Path:
    [path] = warehouse.parent.glob("*.lock")
    return path


def test_the_second_is_told_who_was_first_and_since_when(tmp_path):
    began = int(time.time())
    with only_one(tmp_path / "w.duckdb", "night"):
        sentence = taken(tmp_path / "w.duckdb")
        since = time.strptime(sentence.rpartition("since ")[2], "%Y-%m-%d %H:%M:%S UTC)")
        start = f"night is running already (process {os.getpid()} on {platform.node()}, since "
        assert sentence.startswith(start)
        zone = time.mktime(time.gmtime(0))
        assert began <= time.mktime(since) - zone <= time.time()
    assert AlreadyRunning.exit_code == 0


def test_it_is_free_again_after_the_first(tmp_path):
    for _ in range(3):
        with only_one(tmp_path / "w.duckdb", "night"):
            taken(tmp_path / "w.duckdb")
    with pytest.raises(KeyError), only_one(tmp_path / "w.duckdb", "night"):
        raise KeyError
    with only_one(tmp_path / "w.duckdb", "night"):
        pass
    assert lock_file(tmp_path / "w.duckdb").read_bytes() == b""


def test_who_was_turned_away_changes_nothing(tmp_path):
    with only_one(tmp_path / "w.duckdb", "night"):
        first = taken(tmp_path / "w.duckdb")
        assert [taken(tmp_path / "w.duckdb") for _ in range(3)] == [first] * 3


def test_other_names_and_other_warehouses_do_not_mind(tmp_path):
    with (
        only_one(tmp_path / "w.duckdb", "night"),
        only_one(tmp_path / "w.duckdb", "day"),
        only_one(tmp_path / "v.duckdb", "night"),
    ):
        assert len(list(tmp_path.glob("*.lock"))) == 3


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_holder_that_is_killed_leaves_no_lock(tmp_path, how):
    warehouse = tmp_path / "w.duckdb"
    process = start(["-c", HOLDER, warehouse], stdin=-1)
    assert process.stdout.readline() == "held\n"
    assert f"(process {process.pid} on " in taken(warehouse)
    process.send_signal(how)
    finish(process)
    with only_one(warehouse, "night"):
        assert f"(process {os.getpid()} on " in taken(warehouse)


@pytest.mark.parametrize(
    "name", ["../../etc/x", "a/b", "/abs", "..", "", "a\0b", "a\nb\x1b[31m", "日本", "a b;rm -rf *"]
)
def test_a_hostile_name_stays_beside_the_warehouse(tmp_path, name):
    folder = tmp_path / "in"
    folder.mkdir()
    with only_one(folder / "w.duckdb", name):
        [path] = [p for p in tmp_path.rglob("*") if p != folder]
        assert (path.parent, path.name.isascii(), path.name.isprintable()) == (folder, True, True)
        assert (path.name[:9], path.name[-5:]) == ("w.duckdb.", ".lock")
        taken(folder / "w.duckdb", name)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe", b"{", b"[]", b"null", b"3", b'"x"', b"{}", b'{"pid": 1}', b'{"pid": 1, "host": "h"}',
        b'{"pid": 1, "host": "h", "since": "x"}', b'{"pid": 1, "host": "h", "since": null}',
        b'{"pid": 1, "host": "h", "since": 1e300}', b'{"pid": 1, "host": "h", "since": NaN}',
        b'{"pid": 1, "host": "h", "since": -Infinity}', b'{"pid": 1, "host": "h", "since": ' + b"9" * 500 + b"}",
        b"[" * 100_000, b'{"pid": 1, "host": "' + b"h" * 5_000_000 + b'", "since": 1}', b"\0" * 100,
    ],
    ids=range(19),
)  # fmt: skip
def test_whatever_the_file_holds(tmp_path, content):
    with only_one(tmp_path / "w.duckdb", "night"):
        lock_file(tmp_path / "w.duckdb").write_bytes(content)
        assert taken(tmp_path / "w.duckdb") == "night is running already"


def test_what_was_in_the_file_goes(tmp_path):
    (tmp_path / "w.duckdb.night.lock").write_bytes(b"x" * 10_000)
    with only_one(tmp_path / "w.duckdb", "night"):
        assert json.loads(lock_file(tmp_path / "w.duckdb").read_bytes())["pid"] == os.getpid()


def test_a_link_is_not_followed(tmp_path):
    """Or a file elsewhere would be emptied."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"all my work")
    (tmp_path / "w.duckdb.night.lock").symlink_to(precious)
    with pytest.raises(WarehouseError, match="cannot be written"), only_one(tmp_path / "w.duckdb", "night"):
        pass
    assert precious.read_bytes() == b"all my work"


def test_nobody_waits_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "w.duckdb.night.lock")
    with pytest.raises(WarehouseError, match="cannot be written"), only_one(tmp_path / "w.duckdb", "night"):
        pass


@pytest.mark.parametrize("place", ["none/w.duckdb", "file/w.duckdb", "x" * 300, "a\0b"])
def test_where_there_can_be_no_file(tmp_path, place):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WarehouseError, match="cannot be written"), only_one(tmp_path / place, "night"):
        pass
    with pytest.raises(WarehouseError, match="cannot be written"), only_one(tmp_path / "w.duckdb", "n" * 300):
        pass


def test_where_there_can_be_no_lock(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(WarehouseError, match=r"night\.lock: cannot be locked: No locks available"),
        only_one(tmp_path / "w.duckdb", "night"),
    ):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_no_child_inherits_it(tmp_path):
    with only_one(tmp_path / "w.duckdb", "night"):
        child = start(["-c", "import sys; print(1, flush=True); sys.stdin.read()"], stdin=-1, close_fds=False)
        assert child.stdout.readline() == "1\n"
    with only_one(tmp_path / "w.duckdb", "night"):
        pass
    assert finish(child).code == 0
