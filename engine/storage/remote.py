"""Files behind HTTP, in buckets and on the Hub: ranged requests that are checked, repeated and resumed."""

from __future__ import annotations

import random
import re
import time
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from engine.errors import ConfigError, FormatError, GaussmeterError, MissingError, TaskError, shown
from engine.nouns.records import SourceFile
from engine.storage.reader import changed

if TYPE_CHECKING:
    from obstore.store import ObjectStore

HEAD_BYTES = 64 << 10
"""The first request asks for this much: it tells size and version, and holds most headers."""
ATTEMPTS = 8
"""How often a request may fail in a row; one that brought bytes starts the count again."""
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_STREAM_BYTES = 256 << 10
_STATUS = re.compile(r"status(?: code)?: (\d{3})")
_WORTH_REPEATING = {408, 425, 429}


class StoreError(Exception):
    """What a store said, without what of it may be secret; for tracebacks."""


class RemoteReader:
    """A file of an object store or a web server.

    Args:
        uri: where it is, for messages.
        store: the store.
        path: the file's place in it.
    """

    def __init__(self, uri: str, store: ObjectStore, path: str) -> None:
        self.uri, self._store, self._path = uri, store, path
        self._planned: SourceFile | None = None
        self._head: tuple[SourceFile, bytes] | None = None
        self._lock = Lock()

    def describe(self) -> SourceFile:
        """Look up size and ETag (or time of modification) with the file's first bytes."""
        return self._first()[0]

    def require(self, planned: SourceFile) -> None:
        """Compare every answer with the plan from now on; see `Reader`."""
        self._planned = planned

    def forget(self, offset: int, nbytes: int) -> None:
        """Do nothing: there is no cache to relieve."""

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the buffer; see `Reader`. What a broken connection has brought is kept."""
        if self._from_head(buffer, offset):
            return
        done = failures = 0
        while done < len(buffer):
            before = done
            try:
                for part in self._get(offset + done, offset + len(buffer), failures):
                    buffer[done : done + len(part)] = part
                    done += len(part)
            except store_errors() as error:
                failures = failures + 1 if done == before else 1
                self._judge(error, failures, offset + done)
            else:
                if done == before:
                    end = offset + len(buffer)
                    raise FormatError(
                        f"ends at byte {offset + done:,}, expected {end:,} or more", file=self.uri
                    )

    def _from_head(self, buffer: memoryview, offset: int) -> bool:
        if self._head is None or self._planned is not None:
            return False
        head = self._head[1]
        if offset + len(buffer) > len(head):
            return False
        buffer[:] = head[offset : offset + len(buffer)]
        return True

    def _get(self, start: int, end: int, failures: int) -> Any:
        """Ask for a range, check what the answer says of the file, and stream it.

        After a failure every piece is taken as it comes: what the store has gathered is lost when it breaks.
        """
        import obstore

        answer = obstore.get(self._store, self._path, options={"range": (start, end)})
        now = self._source(answer.meta)
        planned = self._planned or (self._head[0] if self._head else None)
        if planned is not None and (now.size, now.version) != (planned.size, planned.version):
            raise changed(planned, f"{now.size:,} (version {now.version})")
        if answer.range[0] != start or answer.range[1] > end:
            raise TaskError(
                f"bytes {start:,} to {end:,} were asked for, the server sent {answer.range[0]:,} to "
                f"{answer.range[1]:,}",
                file=self.uri,
            )
        return answer.stream(min_chunk_size=1 if failures else _STREAM_BYTES)

    def _source(self, meta: Any) -> SourceFile:
        version = meta["e_tag"] or meta["last_modified"].isoformat()
        return SourceFile(self.uri, meta["size"], version.strip('"'))

    def _first(self) -> tuple[SourceFile, bytes]:
        with self._lock:
            failures = 0
            while self._head is None:
                try:
                    self._head = self._fetch_head()
                except store_errors() as error:
                    if _status(error) == 416:  # no byte to give
                        self._head = SourceFile(self.uri, 0, ""), b""
                        break
                    failures += 1
                    self._judge(error, failures, 0)
            return self._head

    def _fetch_head(self) -> tuple[SourceFile, bytes]:
        import obstore

        answer = obstore.get(self._store, self._path, options={"range": (0, HEAD_BYTES)})
        return self._source(answer.meta), b"".join(answer.stream(min_chunk_size=HEAD_BYTES))

    def refusal(self) -> str:
        """Say what a server means that does not let us read."""
        return "may not be read with the credentials that were found, or without any"

    def _judge(self, error: Exception, failures: int, position: int) -> None:
        """Wait before the next attempt, or say why there is none."""
        final = final_error(error, self.uri, self.refusal())
        if isinstance(final, MissingError) and self._planned is not None:
            raise changed(self._planned, "gone") from cause(error)
        if final is not None:
            raise final from cause(error)
        pause_or_give_up(error, failures, self.uri, f"at byte {position:,}")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: connections belong to the store."""


def pause_or_give_up(error: Exception, failures: int, uri: str, where: str) -> None:
    """Wait before the next attempt, longer from time to time.

    Raises:
        TaskError: there were too many.
    """
    if failures >= ATTEMPTS:
        raise TaskError(
            f"could not be read {where} in {failures} attempts: {one_line(error)}", file=uri
        ) from cause(error)
    pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (failures - 1))
    time.sleep(pause * random.uniform(0.7, 1.3))


def final_error(error: Exception, uri: str, refusal: str) -> GaussmeterError | None:
    """Translate an error that no repetition will mend; None for one that it may."""
    from obstore import exceptions

    if isinstance(error, FileNotFoundError):
        return MissingError("there is no such file", file=uri)
    if isinstance(error, (exceptions.UnauthenticatedError, exceptions.PermissionDeniedError)):
        return ConfigError(refusal, file=uri)
    if isinstance(error, exceptions.NotSupportedError):
        return FormatError("its server ignores Range, so that parts of it cannot be read", file=uri)
    if isinstance(error, (exceptions.InvalidPathError, exceptions.UnknownConfigurationKeyError, ValueError)):
        return ConfigError(f"cannot be addressed: {one_line(error)}", file=uri)
    status = _status(error)
    if status == 404:
        return MissingError("there is no such bucket or file", file=uri)
    if status in (401, 403):
        return ConfigError(refusal, file=uri)
    if status is not None and 400 <= status < 500 and status not in _WORTH_REPEATING:
        return ConfigError(f"the server refuses it with status {status}", file=uri)
    return None


def cause(error: Exception) -> Exception:
    """The same error for a traceback, without what of its text may be secret."""
    return StoreError(shown(str(error)))


def _status(error: Exception) -> int | None:
    match = _STATUS.search(str(error))
    return int(match[1]) if match else None


def one_line(error: Exception) -> str:
    """Tell the first line of a store's message, without the queries of URLs: they may hold signatures."""
    status = _status(error)
    text = str(error).split("\n", maxsplit=1)[0].rpartition(" - ")[2].removeprefix("HTTP error: ")
    return f"status {status}" if status else shown(text)[:200]


def store_errors() -> tuple[type[Exception], ...]:
    """Everything that the store raises."""
    from obstore import exceptions

    return (exceptions.BaseError, FileNotFoundError, OSError, ValueError)
