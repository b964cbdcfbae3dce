"""The servers of the tests keep to the protocols that they stand in for."""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.servers import FileServer, HubServer, Server

BODY = bytes(range(256)) * 400  # 102,400 bytes
TRIES = 4  # of what is timed: on a busy machine one may be late, and none may be early
Answer = tuple[int, dict[str, str], bytes]


def ask(server: Server, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
    """One request; `If_Range` is the header If-Range."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[FileServer]:
    root = tmp_path / "files"
    (root / "sub").mkdir(parents=True)
    (root / "a b.bin").write_bytes(BODY)
    (root / "sub" / "empty").write_bytes(b"")
    (tmp_path / "secret").write_bytes(b"outside")
    with FileServer(root) as server:
        yield server


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    repo = tmp_path / "repos" / "org" / "tiny"
    (repo / "sub dir").mkdir(parents=True)
    (repo / "config.json").write_text("{}")
    (repo / "sub dir" / "model.safetensors").write_bytes(BODY)
    with HubServer(tmp_path / "repos") as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def _library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        for name in ("IMPLICIT_TOKEN", "TELEMETRY", "PROGRESS_BARS", "XET"):
            patch.setenv(f"HF_HUB_DISABLE_{name}", "1")
        import huggingface_hub  # noqa: F401 -- it reads its environment once

        yield


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("0-7", 0, 7),
        ("8-99", 8, 99),
        ("102000-", 102000, 102399),
        ("-5", 102395, 102399),
        ("9-999999", 9, 102399),
    ],
)
def test_a_range_is_answered_with_its_bytes(files: FileServer, asked: str, first: int, last: int):
    status, headers, body = ask(files, "/a%20b.bin", Range=f"bytes={asked}")
    assert (status, headers["content-range"], body) == (
        206,
        f"bytes {first}-{last}/102400",
        BODY[first : last + 1],
    )
    assert (files.log[0].status, files.log[0].sent, files.peak) == (206, last - first + 1, 1)


def test_what_is_no_range(files: FileServer):
    for asked in ("bytes=5-2", "bytes=-", "bytes=0-1,3-4", "lines=0-1"):
        assert ask(files, "/a%20b.bin", Range=asked)[::2] == (200, BODY)
    for path, asked in (
        ("/a%20b.bin", "bytes=102400-"),
        ("/a%20b.bin", "bytes=-0"),
        ("/sub/empty", "bytes=0-"),
    ):
        status, headers, _ = ask(files, path, Range=asked)
        assert (status, headers["content-range"][:8]) == (416, "bytes */")
    assert ask(files, "/sub/empty")[::2] == (200, b"")


def test_one_connection_serves_many_requests(files: FileServer):
    connection = http.client.HTTPConnection(urlsplit(files.url).netloc, timeout=10)
    for method, path, status in [
        ("HEAD", "/a%20b.bin", 200),
        ("GET", "/sub", 404),
        ("GET", "/a%20b.bin", 200),
        ("GET", "/../secret", 404),
        ("GET", "/%2e%2e/secret", 404),
        ("POST", "/a%20b.bin", 405),
        ("HEAD", "/none", 404),
        ("GET", "/", 404),
    ]:
        connection.request(method, path)
        answer = connection.getresponse()
        length = int(answer.headers["Content-Length"])
        assert (answer.status, len(answer.read())) == (status, 0 if method == "HEAD" else length)
    connection.close()
    assert len(files.connections) == 1
    assert [entry.sent for entry in files.log if entry.status == 200] == [0, len(BODY)]


def test_a_changed_file_fails_its_conditions(files: FileServer):
    tag = ask(files, "/a%20b.bin", "HEAD")[1]["etag"]
    assert ask(files, "/a%20b.bin", Range="bytes=0-1", If_Match=tag)[0] == 206
    assert ask(files, "/a%20b.bin", Range="bytes=0-1", If_Range=tag)[0] == 206
    files.faults.on_get = lambda path: os.utime(files.root / path[1:], ns=(1, 1))
    assert ask(files, "/a%20b.bin", Range="bytes=0-1", If_Match=tag)[0] == 412
    assert ask(files, "/a%20b.bin", Range="bytes=0-1", If_Range=tag)[::2] == (200, BODY)


def test_statuses_ignored_ranges_and_short_answers(files: FileServer):
    files.faults.statuses, files.faults.retry_after = [429, 503], True
    assert ask(files, "/a%20b.bin")[1]["retry-after"] == "0"
    assert [ask(files, "/a%20b.bin", "HEAD")[0] for _ in range(2)] == [503, 200]
    files.faults.wrong_length = True
    status, headers, body = ask(files, "/a%20b.bin", Range="bytes=100-199")
    assert (status, headers["content-range"], body) == (206, "bytes 100-149/102400", BODY[100:150])
    files.faults.ignore_range = True
    assert ask(files, "/a%20b.bin", Range="bytes=100-199")[::2] == (200, BODY)


def test_an_answer_is_cut(files: FileServer):
    files.faults.cut_after, files.faults.cuts = 1000, 1
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(files, "/a%20b.bin", Range="bytes=50-5049")
    assert (caught.value.partial, caught.value.expected) == (BODY[50:1050], 4000)
    assert files.log[0].sent == 1000
    assert ask(files, "/a%20b.bin", Range="bytes=50-5049")[2] == BODY[50:5050]


def test_an_answer_stalls(files: FileServer):
    def once() -> float:
        began = time.monotonic()
        assert ask(files, "/a%20b.bin", Range="bytes=0-999")[2] == BODY[:1000]
        return time.monotonic() - began

    files.faults.stall_seconds, files.faults.stalls = 0.2, TRIES
    stalled = [once() for _ in range(TRIES)]
    assert min(stalled) >= 0.2
    assert min(stalled) < 0.6
    assert min(once() for _ in range(TRIES)) < 0.15


@pytest.mark.parametrize("rate", [250_000, 100_000_000])
def test_each_answer_has_the_rate_for_itself(files: FileServer, rate: int):
    size = int(rate * 0.4)
    (files.root / "big").write_bytes(b"")
    os.truncate(files.root / "big", size)
    files.bytes_per_second = rate
    took: list[float] = []

    def fetch() -> None:
        began = time.monotonic()
        assert len(ask(files, "/big", Range=f"bytes=0-{size - 1}")[2]) == size
        took.append(time.monotonic() - began)

    for _ in range(TRIES):
        threads = [threading.Thread(target=fetch) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if max(took[-2:]) <= 0.46:
            break
    assert min(took) >= 0.34, took
    assert max(took[-2:]) <= 0.46, took
    assert files.peak == 2


def test_latency_and_a_close_in_the_middle(files: FileServer):
    def once() -> float:
        began = time.monotonic()
        ask(files, "/none")
        return time.monotonic() - began

    files.latency = 0.1
    late = [once() for _ in range(TRIES)]
    assert min(late) >= 0.1
    assert min(late) < 0.3
    files.bytes_per_second = 1000  # 102 s for all of it
    threading.Timer(0.2, files.close).start()
    began = time.monotonic()
    with pytest.raises(http.client.IncompleteRead):
        ask(files, "/a%20b.bin")
    assert time.monotonic() - began < 10


def test_a_huge_sparse_file_costs_no_memory(files: FileServer):
    (files.root / "huge").touch()
    os.truncate(files.root / "huge", 4 << 30)
    assert ask(files, "/huge", "HEAD")[1]["content-length"] == str(4 << 30)
    assert ask(files, "/huge", Range=f"bytes={(4 << 30) - 9}-")[2] == bytes(9)


def test_the_hubs_description(hub: HubServer):
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.url, token=False)
    hub.commits["org/tiny"] = "c" * 40
    info = api.model_info("org/tiny", files_metadata=True)
    assert (info.id, info.sha, info.private, info.gated) == ("org/tiny", "c" * 40, False, False)
    found = [(s.rfilename, s.size, s.lfs and s.lfs.size) for s in info.siblings]
    assert found == [("config.json", 2, None), ("sub dir/model.safetensors", len(BODY), len(BODY))]
    assert [s.size for s in api.model_info("org/tiny", revision="c" * 40).siblings] == [None, None]
    tree = list(api.list_repo_tree("org/tiny", recursive=True))
    assert [entry.path for entry in tree] == ["config.json", "sub dir", "sub dir/model.safetensors"]
    assert (tree[2].size, tree[2].lfs.sha256) == (len(BODY), info.siblings[1].lfs.sha256)
    assert [e.path for e in api.list_repo_tree("org/tiny", "sub dir")] == ["sub dir/model.safetensors"]
    assert [p.path for p in api.get_paths_info("org/tiny", ["config.json", "none"])] == ["config.json"]
    assert api.list_repo_refs("org/tiny").branches[0].target_commit == "c" * 40


@pytest.mark.parametrize("name", ["config.json", "sub dir/model.safetensors"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_download(hub: HubServer, tmp_path: Path, name: str, elsewhere: bool):
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    token = None
    with FileServer(hub.root) as cdn:
        if elsewhere:
            hub.cdn, hub.private["org/tiny"], token = cdn, "hf_opens", "hf_opens"
        url = hf_hub_url("org/tiny", name, endpoint=hub.url)
        about = get_hf_file_metadata(url, token=token or False)
        assert (about.size, about.commit_hash) == (
            (hub.root / "org/tiny" / name).stat().st_size,
            hub.commits["org/tiny"],
        )
        path = hf_hub_download(
            "org/tiny", name, endpoint=hub.url, cache_dir=tmp_path / "c", token=token or False
        )
        assert Path(path).read_bytes() == (hub.root / "org/tiny" / name).read_bytes()
        assert not any("hf_opens" in entry.path or "authorization" in entry.headers for entry in cdn.log)
        assert bool(cdn.log) == (elsewhere and "sub" in name)


def test_a_large_file_is_redirected(hub: HubServer):
    status, headers, body = ask(hub, "/org/tiny/resolve/main/sub%20dir/model.safetensors", Range="bytes=0-9")
    assert (status, body, headers["x-linked-size"]) == (302, b"", str(len(BODY)))
    path = headers["location"].removeprefix(hub.url)
    assert ask(hub, path, Range="bytes=3-9")[::2] == (206, BODY[3:10])
    assert ask(hub, path, If_Match=headers["x-linked-etag"])[0] == 200
    assert ask(hub, path.partition("?")[0])[0] == 404


def test_what_the_hub_refuses(hub: HubServer):
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
    from huggingface_hub import errors as hf

    api = HfApi(endpoint=hub.url, token=False)

    def head(repo: str, name: str = "config.json", token: str | bool = False, revision: str = "main") -> None:
        get_hf_file_metadata(hf_hub_url(repo, name, revision=revision, endpoint=hub.url), token=token)

    with pytest.raises(hf.RemoteEntryNotFoundError):
        head("org/tiny", "none")
    with pytest.raises(hf.RevisionNotFoundError):
        head("org/tiny", revision="v9")
    with pytest.raises(hf.RevisionNotFoundError):
        api.model_info("org/tiny", revision="v9")
    with pytest.raises(hf.RepositoryNotFoundError):
        api.model_info("org/none")
    hub.gated.add("org/tiny")
    assert api.model_info("org/tiny").gated == "manual"
    for token, status in ((False, 401), ("hf_known", 403)):
        with pytest.raises(hf.GatedRepoError) as caught:
            head("org/tiny", token=token)
        assert caught.value.response.status_code == status
    hub.gated.clear()
    hub.private["org/tiny"] = "hf_opens"
    for token in (False, "hf_wrong"):
        with pytest.raises(hf.RepositoryNotFoundError):
            head("org/tiny", token=token)
    head("org/tiny", token="hf_opens")
    assert hub.log[-1].headers["authorization"] == "Bearer hf_opens"
