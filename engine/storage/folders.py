"""Folders, wherever they are: what lies in them, and the address of each file.

A local directory and a bucket can be listed; the Hub is asked once for everything; a web server lists
nothing, so that files there are found by their usual names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar

from engine.errors import ConfigError, FormatError, MissingError
from engine.nouns.records import SourceFile
from engine.storage.hub import HubAddress, Repository
from engine.storage.mounts import is_on_network
from engine.storage.opening import describe, describe_all
from engine.storage.remote import cause, final_error, pause_or_give_up, store_errors
from engine.storage.stores import open_store, split_address

Answer = TypeVar("Answer")


class Folder(Protocol):
    """Files side by side, and below."""

    uri: str
    distant: bool

    def names(self) -> tuple[str, ...]:
        """Names of what lies in it, not below; empty where nothing can be listed."""
        ...

    def names_below(self, wanted: Callable[[str], bool]) -> tuple[str, ...]:
        """Paths of what lies in those of its folders whose names are wanted; empty as for `names`."""
        ...

    def tree(self) -> dict[str, SourceFile] | None:
        """All files in and below it by their path, as they are now; None where nothing can be listed."""
        ...

    def has(self, name: str) -> bool:
        """Whether a file is there, by its path."""
        ...

    def address(self, name: str) -> str:
        """Where a file is, by its path; for `open_reader`."""
        ...

    def refusal(self) -> ConfigError | None:
        """Why some file that was asked for could not be seen, so that nobody takes it for missing."""
        ...

    def check_inside(self, name: str, claimed_by: str) -> None:
        """Refuse a file that lies elsewhere.

        Raises:
            FormatError: it is a link that leads out.
        """
        ...


class LocalFolder:
    """A directory.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.uri = path, str(path)
        self.distant = is_on_network(path)

    def names(self) -> tuple[str, ...]:
        """List everything, so that what is no file is not passed over; see `Folder`."""
        try:
            with os.scandir(self.path) as entries:
                return tuple(sorted(e.name for e in entries))
        except OSError as error:
            raise FormatError(f"cannot be listed: {error.strerror}", file=self.uri) from error

    def names_below(self, wanted: Callable[[str], bool]) -> tuple[str, ...]:
        """See `Folder`."""
        folders = [LocalFolder(self.path / n) for n in self.names() if wanted(n) and (self.path / n).is_dir()]
        return tuple(f"{folder.path.name}/{name}" for folder in folders for name in folder.names())

    def tree(self) -> dict[str, SourceFile]:
        """List the files below; links to directories are not followed. See `Folder`.

        Raises:
            FormatError: something cannot be looked at: a link to itself, a folder of somebody else.
        """
        found = {}
        for directory, _, names in os.walk(self.path, onerror=_unlisted):
            for name in names:
                path = os.path.join(directory, name)  # noqa: PTH118 - of thousands of chunks
                try:
                    status = os.stat(path)  # noqa: PTH116
                except FileNotFoundError:  # a link to nothing
                    continue
                except OSError as error:
                    raise FormatError(f"cannot be read: {error.strerror}", file=path) from error
                source = SourceFile(path, status.st_size, str(status.st_mtime_ns))
                found[os.path.relpath(path, self.path)] = source
        return found

    def has(self, name: str) -> bool:
        """See `Folder`."""
        try:
            return (self.path / name).is_file()
        except OSError:  # a name that no file system takes
            return False

    def address(self, name: str) -> str:
        """See `Folder`."""
        return str(self.path / name)

    def refusal(self) -> None:
        """Nothing is refused; see `Folder`."""

    def check_inside(self, name: str, claimed_by: str) -> None:
        """Follow links; see `Folder`. The blob store of a Hub cache belongs to its snapshots."""
        real, directory = (self.path / name).resolve(), self.path.resolve()
        allowed = [directory]
        if directory.parent.name == "snapshots":  # a Hub cache keeps the bytes in blobs/ and links to them
            allowed.append(directory.parent.parent / "blobs")
        if not any(real.is_relative_to(place) for place in allowed):
            raise FormatError(
                f"the shard {name!r} is a link that leads outside its directory", file=claimed_by
            )


def _unlisted(error: OSError) -> None:
    """Refuse a folder that cannot be listed; one that is not there holds nothing."""
    if not isinstance(error, FileNotFoundError):
        raise FormatError(f"cannot be listed: {error.strerror}", file=str(error.filename)) from error


class DistantFolder:
    """What all folders behind a network share."""

    distant = True

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._refusal: ConfigError | None = None

    def refusal(self) -> ConfigError | None:
        """See `Folder`."""
        return self._refusal

    def _sees(self, name: str) -> bool:
        """Ask for a file; a refusal is kept for whoever finds nothing at all."""
        try:
            describe(self.address(name))
        except MissingError:
            return False
        except ConfigError as error:
            self._refusal = error
            return False
        return True

    def address(self, name: str) -> str:
        """See `Folder`."""
        return f"{self.uri}/{name}"

    def check_inside(self, name: str, claimed_by: str) -> None:
        """Do nothing: there are no links."""


class HubFolder(DistantFolder):
    """A folder of a repository, at one commit.

    Args:
        address: of the folder.
        repository: what the repository holds.
    """

    def __init__(self, address: HubAddress, repository: Repository) -> None:
        super().__init__(str(HubAddress(address.repo, repository.commit, address.path)))
        prefix = f"{address.path}/" if address.path else ""
        self._paths = {p.removeprefix(prefix) for p in repository.paths if p.startswith(prefix)}

    def names(self) -> tuple[str, ...]:
        """See `Folder`."""
        return tuple(name for name in self.tree_names() if "/" not in name)

    def names_below(self, wanted: Callable[[str], bool]) -> tuple[str, ...]:
        """See `Folder`."""
        return tuple(n for n in self.tree_names() if n.count("/") == 1 and wanted(n.partition("/")[0]))

    def tree_names(self) -> list[str]:
        """Paths of all files in and below it."""
        return sorted(self._paths)

    def tree(self) -> dict[str, SourceFile]:
        """See `Folder`."""
        names = self.tree_names()
        return dict(zip(names, describe_all([self.address(n) for n in names]), strict=True))

    def has(self, name: str) -> bool:
        """See `Folder`."""
        return name in self._paths


class BucketFolder(DistantFolder):
    """A prefix of a bucket."""

    def names(self) -> tuple[str, ...]:
        """See `Folder`."""
        return self._listed()[0]

    def names_below(self, wanted: Callable[[str], bool]) -> tuple[str, ...]:
        """See `Folder`."""
        folders = [name for name in self._listed()[1] if wanted(name)]
        return tuple(f"{f}/{name}" for f in folders for name in BucketFolder(self.address(f)).names())

    def _listed(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of files and of folders."""
        import obstore

        root, prefix = split_address(self.uri)

        def ask() -> tuple[tuple[str, ...], tuple[str, ...]]:
            listed = obstore.list_with_delimiter(open_store(root), prefix or None)
            files = (o["path"] for o in listed["objects"])
            return _last(files), _last(path.rstrip("/") for path in listed["common_prefixes"])

        return _asked(ask, self.uri)

    def tree(self) -> dict[str, SourceFile]:
        """See `Folder`."""
        import obstore

        root, prefix = split_address(self.uri)

        def ask() -> dict[str, SourceFile]:
            found = {}
            for batch in obstore.list(open_store(root), prefix or None):
                for item in batch:
                    name = item["path"].removeprefix(prefix).lstrip("/")
                    version = (item["e_tag"] or item["last_modified"].isoformat()).strip('"')
                    found[name] = SourceFile(self.address(name), item["size"], version)
            return found

        return _asked(ask, self.uri)

    def has(self, name: str) -> bool:
        """See `Folder`."""
        return self._sees(name)


class WebFolder(DistantFolder):
    """A path of a web server."""

    def __init__(self, uri: str) -> None:
        base, mark, query = uri.partition("?")
        super().__init__(base)
        self._query = mark + query

    def names(self) -> tuple[str, ...]:
        """Nothing; see `Folder`."""
        return ()

    def names_below(self, wanted: Callable[[str], bool]) -> tuple[str, ...]:
        """Nothing; see `Folder`."""
        return ()

    def tree(self) -> None:
        """Nothing; see `Folder`."""

    def has(self, name: str) -> bool:
        """See `Folder`."""
        return self._sees(name)

    def address(self, name: str) -> str:
        """See `Folder`."""
        return f"{self.uri}/{name}{self._query}"


def _last(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(path.rpartition("/")[2] for path in paths))


def _asked(ask: Callable[[], Answer], uri: str) -> Answer:
    """Ask a store until there is an answer, or a reason why there will be none."""
    failures = 0
    while True:
        try:
            return ask()
        except store_errors() as error:
            failures += 1
            final = final_error(error, uri, "may not be listed with the credentials that were found")
            if final is not None:
                raise final from cause(error)
            pause_or_give_up(error, failures, uri, "(its listing)")
