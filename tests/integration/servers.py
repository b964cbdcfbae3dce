"""Servers on this machine's loopback: files over HTTP and the Hugging Face Hub's protocol, with faults on order."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote

RANGE = re.compile(r"bytes=(\d*)-(\d*)")
STEP = 4 << 20  # bytes a send when nothing limits the rate
SLICE = 64 << 10  # bytes a send at most when something does
LFS_OVER = 10_000  # bytes; a larger file of a repository comes from the /cdn/
HASHED = 64 << 20  # bytes; hashing a larger file takes too long, so its sha256 is one of its size and time


@dataclass
class Request:
    """One request and its answer. Names of headers are in lower case; the path is as sent, with its query."""

    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0  # bytes of the answer's body


@dataclass
class Faults:
    """What goes wrong. Only GETs with a Range are cut, stalled, shortened or announced to `on_get`."""

    ignore_range: bool = False
    cut_after: int | None = None
    cuts: int = 0
    statuses: list[int] = field(default_factory=list)
    retry_after: bool = False
    wrong_length: bool = False
    stall_seconds: float = 0.0
    stalls: int = 0
    on_get: Callable[[str], None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def take(self, counter: str) -> bool:
        """Uses up one of that counter, if one is left."""
        with self._lock:
            left = getattr(self, counter)
            setattr(self, counter, max(0, left - 1))
            return left > 0


class AnswerError(Exception):
    """An answer that is a status, and on the Hub its name for the reason."""

    def __init__(self, status: int, code: str = "", **headers: str) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.headers = ({"X-Error-Code": code, "X-Error-Message": code} if code else {}) | headers


def span(text: str, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None for a Range to ignore, nothing between them for a 416."""
    match = RANGE.fullmatch(text.strip())
    first, last = match.groups() if match else ("", "")
    if not first:
        return (max(0, size - int(last)), size) if last else None
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size


def below(root: Path, parts: Sequence[str]) -> Path | None:
    """The path of those names, if it stays in the folder."""
    names = "/".join(parts).split("/") if parts else []
    return None if any(n in ("", ".", "..") or "\0" in n for n in names) else root.joinpath(*names)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the body follows the headers in a second packet

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self.owner: Server = self.server.owner
        self.entry = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        self.owner.log.append(self.entry)  # atomic, and only this thread changes the entry
        self.content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.target, _, query = self.path.partition("?")
        self.query = parse_qs(query)
        self.ranged = self.counted = self.command == "GET" and "Range" in self.headers
        self.owner.count(self.ranged)
        try:
            self.owner.rest(self.owner.latency)
            self.owner.route(self)
        except AnswerError as error:
            self.reply(error.status, {"error": str(error)}, error.headers)
        finally:
            self.leave()

    do_HEAD = do_POST = do_GET  # noqa: N815 -- the base class calls them so

    def leave(self) -> None:
        """Counts as served. Before the last byte goes out: the client may send its next request at once after."""
        self.owner.count(-self.counted)
        self.counted = False

    def start(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.entry.status = status
        self.send_response(status)
        always = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
        for name, value in (always | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def reply(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        """An answer that is not a file."""
        self.leave()
        payload = b"" if document is None else json.dumps(document).encode()
        body = b"" if self.command == "HEAD" else payload
        self.entry.sent = len(body)
        self.start(status, len(payload), {"Content-Type": "application/json"} | (headers or {}))
        self.wfile.write(body)

    def send_file(self, path: Path | None, headers: dict[str, str] | None = None) -> None:
        """The bytes that were asked for, and what is to go wrong with them."""
        faults = self.owner.faults
        with contextlib.suppress(IndexError):
            raise AnswerError(faults.statuses.pop(0), **({"Retry-After": "0"} if faults.retry_after else {}))
        if self.ranged and faults.on_get:
            faults.on_get(unquote(self.target))
        if path is None or not path.is_file():
            raise AnswerError(404)
        with path.open("rb") as file:
            state, tag = os.fstat(file.fileno()), self.owner.tag(path)
            modified = formatdate(state.st_mtime, usegmt=True)
            start, stop, found = self._part(state.st_size, tag, modified)
            found |= {"ETag": tag, "Last-Modified": modified, "Accept-Ranges": "bytes"} | (headers or {})
            self.start(206 if "Content-Range" in found else 200, stop - start, found)
            if self.command == "GET":
                self._deliver(file.fileno(), start, stop - start)

    def _part(self, size: int, tag: str, modified: str) -> tuple[int, int, dict[str, str]]:
        faults = self.owner.faults
        if not {"*", tag} & {t.strip() for t in self.headers.get("If-Match", "*").split(",")}:
            raise AnswerError(412, ETag=tag)
        unchanged = self.headers.get("If-Range", tag) in (tag, modified)
        part = span(self.headers["Range"], size) if self.ranged and unchanged else None
        start, stop = part or (0, size)
        if part is None or faults.ignore_range:
            return 0, size, {}
        if start >= stop:
            raise AnswerError(416, **{"Content-Range": f"bytes */{size}"})
        stop = start + max(1, (stop - start) // 2) if faults.wrong_length else stop
        return start, stop, {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}

    def _deliver(self, fd: int, start: int, length: int) -> None:
        faults, sending = self.owner.faults, length
        if self.ranged and faults.cut_after is not None and faults.cut_after < length and faults.take("cuts"):
            sending, self.close_connection = faults.cut_after, True
        pause = faults.stall_seconds if self.ranged and faults.take("stalls") else 0.0
        self.began = time.monotonic() + pause
        half = sending // 2 if pause else 0
        self._pump(fd, start, half)
        self.owner.rest(pause)
        self._pump(fd, start + half, max(0, sending - half - 1))
        self.leave()
        self._pump(fd, start + sending - 1, min(1, sending))

    def _pump(self, fd: int, offset: int, count: int) -> None:
        rate = self.owner.bytes_per_second
        step = min(SLICE, max(1, int(rate / 50))) if rate else STEP  # at a low rate, 50 slices a second
        sent = 1
        while count and sent:
            n = min(step, count)
            self.entry.sent += n  # before they leave: a test reads the log as soon as it has the last of them
            if rate:
                self.owner.rest(self.began + self.entry.sent / rate - time.monotonic())
            sent = os.sendfile(self.connection.fileno(), fd, offset, n)
            self.entry.sent -= n - sent
            offset, count = offset + sent, count - sent
        self.close_connection |= count > 0  # the file is shorter than it was


class _Listener(ThreadingHTTPServer):
    request_queue_size = 256  # the default of 5 delays the many connections of a parallel scan

    def process_request(self, request: Any, address: Any) -> None:
        thread = threading.Thread(target=self.process_request_thread, args=(request, address), daemon=True)
        self.owner.connections.append((thread, request))
        thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # that is a client which went away
            super().handle_error(request, client_address)


class Server(contextlib.AbstractContextManager):
    """What both servers share: the thread that listens, the log, the faults, the rate and the count of requests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[Request] = []
        self.faults = Faults()
        self.bytes_per_second: float | None = None  # of each answer
        self.latency = 0.0  # seconds before each answer
        self.peak = 0  # most GETs with a Range that were served at one time
        self.connections: list[tuple[threading.Thread, socket.socket]] = []
        self._serving = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._listener = _Listener(("127.0.0.1", 0), _Handler)
        self._listener.owner = self
        self.url = f"http://127.0.0.1:{self._listener.server_port}"
        threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every connection, also those in the middle of an answer."""
        self._closing.set()
        self._listener.shutdown()
        self._listener.server_close()
        for thread, connection in self.connections:
            with contextlib.suppress(OSError):  # most are closed
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(2)

    def tag(self, path: Path) -> str:
        return '"{0.st_size:x}-{0.st_mtime_ns:x}"'.format(path.stat())

    def rest(self, seconds: float) -> None:
        """Sleeps, unless the server closes."""
        self._closing.wait(max(0.0, seconds))

    def count(self, change: int) -> None:
        """So many more GETs with a Range are being served."""
        with self._lock:
            self._serving += change
            self.peak = max(self.peak, self._serving)


class FileServer(Server):
    """The files below a folder."""

    def route(self, request: _Handler) -> None:
        if request.command == "POST":
            raise AnswerError(405)
        request.send_file(below(self.root, unquote(request.target)[1:].split("/")))


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@lru_cache(4096)
def _blob(path: Path, size: int, changed: int) -> dict[str, Any]:
    if size <= LFS_OVER:
        return {"size": size, "oid": _git(path.read_bytes())}
    content = path.read_bytes() if size <= HASHED else b"%d %d" % (size, changed)
    sha = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {size}\n".encode()
    lfs = {"oid": sha, "sha256": sha, "size": size, "pointerSize": len(pointer)}
    return {"size": size, "oid": _git(pointer), "lfs": lfs}


def blob(path: Path) -> dict[str, Any]:
    """What the Hub says of the file as it is now; a large one is a pointer in git and an lfs object."""
    state = path.stat()
    return _blob(path, state.st_size, state.st_mtime_ns)


def entry(folder: Path, path: Path) -> dict[str, Any]:
    """A line of a repository's tree."""
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": _git(name.encode()), "size": 0}
    return {"type": "file", "path": name} | blob(path)


class Commits(dict[str, str]):  # a repository's is made of its name until a test sets another
    def __missing__(self, repo: str) -> str:
        return hashlib.sha1(repo.encode()).hexdigest()


class HubServer(Server):
    """The Hub, with the repositories `org/name` below a folder."""

    def __init__(self, repos: Path) -> None:
        self.commits = Commits()
        self.gated: set[str] = set()
        self.private: dict[str, str] = {}  # the token that opens it
        self.cdn: FileServer | None = None  # over the same folder: large files then come from another host
        super().__init__(repos)

    def tag(self, path: Path) -> str:
        made = blob(path)
        return f'"{made.get("lfs", made)["oid"]}"'

    def route(self, request: _Handler) -> None:
        match [unquote(part) for part in request.target.split("/")[1:]]:
            case ["api", "models", org, name, *rest]:
                self._api(request, f"{org}/{name}", rest)
            case ["cdn", org, name, commit, *rest] if request.query.get("signature") == ["SECRETSIG"]:
                # Clients of the Hub follow a redirect to the same host, and want the commit of the last answer.
                request.send_file(below(self.root, [org, name, *rest]), {"X-Repo-Commit": commit})
            case [org, name, "resolve", revision, *rest]:
                self._resolve(request, f"{org}/{name}", revision, rest)
            case _:
                raise AnswerError(404)

    def _open(self, request: _Handler, repo: str, revision: str) -> tuple[Path, str]:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        folder, commit = below(self.root, [repo]), self.commits[repo]
        if folder is None or not folder.is_dir():  # to a stranger, missing and private look the same
            raise AnswerError(404 if token else 401, "RepoNotFound")
        if self.private.get(repo, token) != token:
            raise AnswerError(401, "RepoNotFound")
        if revision not in ("main", commit):
            raise AnswerError(404, "RevisionNotFound")
        return folder, commit

    def _resolve(self, request: _Handler, repo: str, revision: str, parts: list[str]) -> None:
        folder, commit = self._open(request, repo, revision)
        if repo in self.gated:
            raise AnswerError(403 if "Authorization" in request.headers else 401, "GatedRepo")
        headers = {"X-Repo-Commit": commit}
        path = below(folder, parts)
        if path is None or not path.is_file():
            raise AnswerError(404, "EntryNotFound", **headers)
        made = blob(path)
        if "lfs" not in made:
            return request.send_file(path, headers)
        base = f"{self.cdn.url}/{repo}" if self.cdn else f"{self.url}/cdn/{repo}/{commit}"
        headers |= {"ETag": f'"{made["oid"]}"', "X-Linked-Size": str(made["size"])}
        headers["X-Linked-Etag"] = self.tag(path)
        headers["Location"] = f"{base}/{quote('/'.join(parts))}?signature=SECRETSIG"
        return request.reply(302, None, headers)

    def _api(self, request: _Handler, repo: str, rest: list[str]) -> None:
        folder, commit = self._open(request, repo, rest[1] if len(rest) > 1 else "main")
        asked = {name for name, values in request.query.items() if values[0].lower() in ("1", "true")}
        match rest:
            case [] | ["revision", _]:
                request.reply(200, self._info(repo, commit, folder, "blobs" in asked))
            case ["tree", _, *parts]:
                top = below(folder, parts)
                if top is None or not top.is_dir():
                    raise AnswerError(404, "EntryNotFound")
                paths = sorted(top.rglob("*") if "recursive" in asked else top.iterdir())
                request.reply(200, [entry(folder, path) for path in paths])
            case ["paths-info", _] if request.command == "POST":
                read = json.loads if "json" in request.headers.get("Content-Type", "") else parse_qs
                paths = [below(folder, [name]) for name in read(request.content.decode()).get("paths", [])]
                request.reply(200, [entry(folder, path) for path in paths if path and path.exists()])
            case ["refs"]:
                main = {"name": "main", "ref": "refs/heads/main", "targetCommit": commit}
                request.reply(200, {"branches": [main], "converts": [], "tags": [], "pullRequests": []})
            case _:
                raise AnswerError(404)

    def _info(self, repo: str, commit: str, folder: Path, blobs: bool) -> dict[str, Any]:
        files = [entry(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()]
        siblings = [{"rfilename": f["path"]} | ({"blobId": f["oid"]} | f if blobs else {}) for f in files]
        access = {"private": repo in self.private, "gated": "manual" if repo in self.gated else False}
        return {"id": repo, "modelId": repo, "sha": commit, "tags": [], "siblings": siblings} | access
