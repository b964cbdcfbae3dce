"""Web servers: the same counts as from a disk, one clear sentence where there are none, and no secret kept."""

from __future__ import annotations

import base64
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import engine
from engine.errors import ConfigError, FormatError, TaskError
from engine.storage import remote
from tests.builders import pack_tensors, write, write_sharded, write_tensors
from tests.integration.distant import SECRET, assert_no_secret, counts, refused
from tests.integration.helpers import Kept, contents, llama, made, normal, process, rows
from tests.integration.servers import AnswerError, FileServer

TENSORS = llama(2, width=32) | {"more.weight": normal("F32", 60, 50)}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(remote, "ATTEMPTS", 3)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "files" / "model" / "model.safetensors", TENSORS)
    return tmp_path / "files"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kept]:
    folder = tmp_path_factory.mktemp("expected")
    return counts(write_tensors(folder / "model.safetensors", TENSORS), folder)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"]
)
def test_a_web_folder_is_found_by_its_usual_names(tmp_path, name, workers):
    folder = tmp_path / "files" / "a model"
    if name.endswith("json"):
        write_sharded(folder, llama(1), {"more.weight": normal("F32", 70, 9)})
    else:
        write_tensors(folder / name, TENSORS)
    local = counts(folder, tmp_path)
    with FileServer(tmp_path / "files") as server:
        assert (
            counts(f"{server.url}/a%20model", tmp_path, workers=workers, task_bytes=2000, ranges=3) == local
        )
        assert counts(f"{server.url}/a%20model/{name}", tmp_path, workers=workers) == local


@pytest.mark.parametrize(
    "name", ["100% x+y.safetensors", "ünï #1?.safetensors", "@[m]&a=b;c'(1).safetensors"]
)
def test_names_on_a_web_server(tmp_path, expected, name):
    write(tmp_path / "files" / "dir é" / name, pack_tensors(TENSORS))
    with FileServer(tmp_path / "files") as server:
        assert counts(f"{server.url}/{quote('dir é/' + name)}", tmp_path) == expected


class Signed(FileServer):
    """Lets nobody in without the query."""

    def route(self, request: Any) -> None:
        if request.query.get("signature") != [SECRET]:
            raise AnswerError(403)
        super().route(request)


@pytest.mark.parametrize("place", ["model/model.safetensors", "model"])
@pytest.mark.parametrize(
    "before",
    [
        "",
        "a=%2F%2B&",
        "a='b'(c)&",
    ],
)
def test_a_signed_address_works_and_is_not_kept(files, tmp_path, expected, place, before):
    with Signed(files) as server:
        uri = f"{server.url}/{place}?{before}signature={SECRET}"
        assert counts(uri, tmp_path) == expected
        server.faults.ignore_range = True
        assert "ignores Range" in refused(FormatError, uri, tmp_path)
        server.faults.statuses = [500] * 90
        assert "could not be read" in refused(TaskError, uri, tmp_path)


def test_a_signed_address_in_capitals_is_not_kept(files, tmp_path, expected):
    with Signed(files) as server:
        uri = f"{server.url}/model?signature={SECRET}".replace("http", "HTTP")
        assert counts(uri, tmp_path) == expected


@pytest.mark.parametrize("place", ["model/model.safetensors", "model"])
def test_a_wrong_signature(files, tmp_path, place):
    with Signed(files) as server:
        assert "may not be read" in refused(ConfigError, f"{server.url}/{place}?signature=x", tmp_path)


class Locked(FileServer):
    """Wants a name and a password."""

    def route(self, request: Any) -> None:
        login = base64.b64encode(f"me:{SECRET}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {login}":
            raise AnswerError(401)
        super().route(request)


@pytest.mark.parametrize("place", ["model", "model/model.safetensors"])
def test_a_wrong_password(files, tmp_path, place):
    with Locked(files) as server:
        uri = f"{server.url}/{place}".replace("//", f"//me:{SECRET}wrong@")
        assert "may not be read" in refused(ConfigError, uri, tmp_path)


@pytest.mark.parametrize("place", ["model", "model/model.safetensors"])
def test_a_password_works_and_is_not_kept(files, tmp_path, expected, place):
    with Locked(files) as server:
        assert counts(f"{server.url}/{place}".replace("//", f"//me:{SECRET}@"), tmp_path) == expected


class Moved(FileServer):
    """Sends everybody elsewhere."""

    to = ""

    def route(self, request: Any) -> None:
        raise AnswerError(302, Location=f"{self.to}{request.target}?moved=1")


def test_a_redirect_is_followed(files, tmp_path, expected):
    with Moved(files) as server, FileServer(files) as other:
        server.to = other.url
        assert counts(f"{server.url}/model/model.safetensors?signature={SECRET}", tmp_path) == expected
        assert counts(f"{server.url}/model".replace("//", f"//me:{SECRET}@"), tmp_path) == expected
        assert not [r.headers for r in other.log if "authorization" in r.headers]


class Bare(FileServer):
    """Leaves headers out."""

    without: tuple[str, ...] = ()

    def route(self, request: Any) -> None:
        def start(status: int, length: int, headers: dict[str, str]) -> None:
            type(request).start(
                request, status, length, {k: v for k, v in headers.items() if k not in self.without}
            )

        request.start = start
        super().route(request)


@pytest.mark.parametrize(
    "without", [("ETag",), ("Last-Modified",), ("ETag", "Last-Modified", "Accept-Ranges")]
)
def test_a_server_that_tells_little(files, tmp_path, expected, without):
    warehouse = made(tmp_path / "w.duckdb")
    with Bare(files) as server:
        server.without = without
        report = engine.scan(f"{server.url}/model", warehouse=warehouse)
        assert contents(warehouse, report.subject_id) == expected
        assert engine.scan(f"{server.url}/model", warehouse=warehouse).status == "unchanged"


@pytest.mark.parametrize(
    ("status", "part"),
    [(404, "there is no such file"), (403, "may not be read"), (401, "may not be read"), (410, "status 410")],
)
def test_a_web_server_says_no(files, tmp_path, status, part):
    with FileServer(files) as server:
        server.faults.statuses = [status] * 9
        assert part in refused(ConfigError, f"{server.url}/model/model.safetensors", tmp_path)
        assert len(server.log) == 1


@pytest.mark.parametrize("place", ["x.safetensors", "x"])
def test_nobody_listens(tmp_path, place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}/{place}?signature={SECRET}"
        assert "could not be read at byte 0 in 3 attempts" in refused(TaskError, uri, tmp_path)


@pytest.mark.parametrize(
    "uri",
    [*(u for u in ("http://", "https://", "http://?signature=x")), "http:///x"],
)
def test_an_address_of_nobody(tmp_path, uri):
    refused(ConfigError, uri, tmp_path)


@pytest.mark.parametrize(
    "uri",
    [
        f"ftp://host/x?signature={SECRET}",
        f"ftp://me:{SECRET}@host/x",
        f"http://me:{SECRET}@127.0.0.1:1/x.safetensors",
        f"http://me:p@{SECRET}@127.0.0.1:1/x",
    ],
)
def test_no_sentence_holds_a_login(tmp_path, uri):
    refused(ConfigError if uri.startswith("ftp") else TaskError, uri, tmp_path)


def test_rows_hold_the_address_without_its_query(files, tmp_path):
    warehouse = made(tmp_path / "w.duckdb")
    with Signed(files) as server:
        engine.scan(f"{server.url}/model/?signature={SECRET}", warehouse=warehouse)
        assert rows(warehouse, "SELECT uri, name, revision FROM subjects") == [
            (f"{server.url}/model", "model", "")
        ]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "has 0 bytes"),
        (b"1234567", "has 7 bytes"),
        (b"<html><body>Not found</body></html>", "claims a header of"),
        (pack_tensors(TENSORS)[:-1], "is truncated"),
        (pack_tensors(TENSORS) + b"x", "is too long"),
    ],
)
def test_a_damaged_file(tmp_path, content, part):
    write(tmp_path / "files" / "m.safetensors", content)
    with FileServer(tmp_path / "files") as server:
        assert part in refused(FormatError, f"{server.url}/m.safetensors?signature={SECRET}", tmp_path)


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (["scan"], "model"),
        (["scan", "--dry-run"], "model"),
        (["check"], "model"),
        (["scan"], "none.safetensors"),
    ],
)
def test_the_command_line_prints_no_query(files, tmp_path, command, place):
    warehouse = made(tmp_path / "w.duckdb")
    with Signed(files) as server:
        ran = process(*command, f"{server.url}/{place}?signature={SECRET}", "-w", warehouse)
    assert ran.code == (0 if place == "model" else 2), ran.err
    assert_no_secret((ran.out + ran.err).encode() + warehouse.read_bytes())


def test_a_traceback_holds_no_query(files, tmp_path):
    with FileServer(files) as server:
        refused(ConfigError, f"{server.url}/none.safetensors?signature={SECRET}", tmp_path, debug=True)


def test_a_file_whose_name_has_no_dot(tmp_path, expected):
    write_tensors(tmp_path / "files" / "download" / "12345", TENSORS)
    with FileServer(tmp_path / "files") as server:
        assert counts(f"{server.url}/download/12345", tmp_path) == expected
