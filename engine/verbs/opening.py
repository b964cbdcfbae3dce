"""Opening the checkpoints of a census: found on one thread, opened on several, ahead of their turn."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

_PATIENCE = 0.2  # seconds after which what was found is handed on, be it little
Item = TypeVar("Item")
Opened = TypeVar("Opened")


@dataclass(frozen=True, slots=True)
class _Found(Generic[Item]):
    items: list[Item]
    error: BaseException | None  # what ended the search before its end
    all: bool


@dataclass(frozen=True, slots=True)
class Tried(Generic[Item, Opened]):
    """What became of an item.

    Attributes:
        item: None when no item could be found at all.
        opened: None when it could not be opened.
        error: why.
    """

    item: Item | None
    opened: Opened | None = None
    error: BaseException | None = None


class Opener(Generic[Item, Opened]):
    """Has items opened; no more than a few are open, or about to be, and not yet taken.

    Args:
        items: what to open; asked for on a thread.
        open_one: opens one, on several threads.
        ahead: how many.
    """

    def __init__(self, items: Iterable[Item], open_one: Callable[[Item], Opened], ahead: int) -> None:
        self._items: Iterator[Item] = iter(items)
        self._open, self._ahead = open_one, ahead
        self._finder = ThreadPoolExecutor(1, thread_name_prefix="find")
        self._openers = ThreadPoolExecutor(ahead, thread_name_prefix="open")
        self._search: Future[_Found[Item]] | None = None
        self._found: deque[Item] = deque()
        self._opening: dict[Future[Opened], Item] = {}
        self._ready: deque[Tried[Item, Opened]] = deque()
        self._found_all = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for threads in (self._finder, self._openers):
            threads.shutdown(wait=False, cancel_futures=True)

    def next(self) -> Tried[Item, Opened] | None:
        """What was opened next; None if nothing is ready now."""
        self._advance()
        return self._ready.popleft() if self._ready else None

    def ended(self) -> bool:
        """Whether everything was opened and taken."""
        return self._found_all and not (self._found or self._opening or self._ready)

    def wait(self, seconds: float) -> None:
        """Wait until something is ready, at most so long."""
        self._advance()
        under_way: list[Future[Any]] = [*self._opening, *([self._search] if self._search else [])]
        if not self._ready and under_way:
            wait(under_way, seconds, FIRST_COMPLETED)

    def _advance(self) -> None:
        self._take_what_was_opened()
        self._take_what_was_found()
        while self._found and len(self._opening) + len(self._ready) < self._ahead:
            item = self._found.popleft()
            self._opening[self._openers.submit(self._open, item)] = item
        if not (self._found or self._found_all or self._search):
            self._search = self._finder.submit(self._look_for_more)

    def _take_what_was_opened(self) -> None:
        for future in [f for f in self._opening if f.done()]:
            item, error = self._opening.pop(future), future.exception()
            self._ready.append(Tried(item, None, error) if error else Tried(item, future.result()))

    def _look_for_more(self) -> _Found[Item]:
        """Find a few, on the finder's thread; what was found before an error counts."""
        found: list[Item] = []
        until = time.monotonic() + _PATIENCE
        try:
            for item in self._items:
                found.append(item)
                if len(found) == self._ahead or time.monotonic() > until:
                    return _Found(found, None, all=False)
        except BaseException as error:  # noqa: BLE001 - told to whoever takes what was opened
            return _Found(found, error, all=True)
        return _Found(found, None, all=True)

    def _take_what_was_found(self) -> None:
        if self._search is None or not self._search.done():
            return
        found, self._search = self._search.result(), None
        self._found.extend(found.items)
        self._found_all = found.all
        if found.error is not None:
            self._ready.append(Tried(None, None, found.error))
