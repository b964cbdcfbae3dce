"""The Hugging Face Hub: what a repository holds, and where its files are read from.

huggingface_hub answers what a repository holds; the files themselves are read in place by ranged requests,
from addresses pinned to one commit. The token comes from the library's usual places and goes to the Hub
alone.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from engine.errors import ConfigError, GaussmeterError, TaskError
from engine.storage.remote import ATTEMPTS, RemoteReader
from engine.storage.stores import open_hub_store
from engine.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

_ADDRESS = re.compile(
    r"hf://(?P<repo>[^/@]+(?:/[^/@]+)?)(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(?P<path>.*))?"
)
_WORTH_REPEATING = {408, 425, 429}
_ANSWER_SECONDS = 30.0
_PATIENCE_SECONDS = 180.0
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A place on the Hub.

    Attributes:
        repo: `organisation/name`, or a name alone.
        revision: branch, tag or commit; "" for the default branch.
        path: of a file or a folder; "" for the whole repository.
    """

    repo: str
    revision: str
    path: str

    def __str__(self) -> str:
        """Spell it as users do."""
        at = f"@{self.revision}" if self.revision else ""
        return f"hf://{self.repo}{at}" + (f"/{self.path}" if self.path else "")


def parse_address(uri: str) -> HubAddress:
    """Take `hf://organisation/name[@revision][/path]` apart.

    Raises:
        ConfigError: it is none, or one of a dataset or a space.
    """
    uri = uri.rstrip("/")
    match = None if uri.endswith("@") else _ADDRESS.fullmatch(uri)
    if match is None or match["repo"].split("/")[0] in ("datasets", "spaces", "buckets"):
        raise ConfigError("is no model on the Hub: expected hf://organisation/name[@revision]", file=uri)
    return HubAddress(match["repo"], (match["revision"] or "").replace("%2F", "/"), match["path"] or "")


@dataclass(frozen=True, slots=True)
class Repository:
    """What a repository held when it was asked.

    Attributes:
        commit: the commit that the revision stood for.
        paths: of its files.
    """

    commit: str
    paths: frozenset[str]


def look_up(address: HubAddress) -> Repository:
    """Ask the Hub what a repository holds.

    Raises:
        ConfigError: it, or the revision, does not exist, or may not be seen.
        TaskError: the Hub does not answer.
    """
    api = _api()

    def ask_info() -> ModelInfo:
        return api.model_info(address.repo, revision=address.revision or None, timeout=_ANSWER_SECONDS)

    def ask_tree() -> frozenset[str]:
        tree = api.list_repo_tree(address.repo, revision=commit, recursive=True)
        return frozenset(f.path for f in tree if hasattr(f, "size"))

    info = _repeated(ask_info, address, ATTEMPTS)
    commit = info.sha
    if not commit:
        raise TaskError("the Hub names no commit", file=str(address))
    return Repository(commit, _repeated(ask_tree, address, 1))  # the library repeats this one by itself


def list_models(owner: str) -> list[str]:
    """Names of the models of an organisation or a user, the last modified first.

    Raises:
        ConfigError: there is no such name.
        TaskError: the Hub does not answer.
    """
    api, address = _api(), HubAddress(owner, "", "")
    if "/" in owner or not owner.strip():
        raise ConfigError("is no organisation of the Hub", file=str(address))

    def ask() -> list[str]:
        return [model.id for model in api.list_models(author=owner, sort="last_modified")]

    return _repeated(ask, address, ATTEMPTS)


def open_hub_file(uri: str) -> RemoteReader:
    """Open a file of the Hub by its pinned address."""
    address = parse_address(uri)
    revision = quote(address.revision or "main", safe="")
    root = f"{_endpoint()}/{address.repo}/resolve/{revision}"
    return HubReader(uri, open_hub_store(root, _headers()), address.path)


class HubReader(RemoteReader):
    """A file of a repository: as any web file, but for what a refusal means."""

    def refusal(self) -> str:
        """Say what a user can do."""
        address = parse_address(self.uri)
        return (
            f"the Hub does not let this account read it: ask for access on {_endpoint()}/{address.repo}, and "
            "set HF_TOKEN to a token of that account"
        )


def _endpoint() -> str:
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")


def _headers() -> dict[str, str]:
    from huggingface_hub import constants, get_token

    agent = {"user-agent": f"gaussmeter/{__version__}"}
    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    return {**agent, "authorization": f"Bearer {token}"} if token else agent


def _api() -> HfApi:
    return _api_of(_endpoint())


@cache
def _api_of(endpoint: str) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, library_name="gaussmeter", library_version=__version__)


def _repeated(ask: Callable[[], Answer], address: HubAddress, attempts: int) -> Answer:
    """Ask until there is an answer, or a reason why there will be none."""
    from huggingface_hub import errors

    pause = 0.2
    for attempt in range(1, attempts + 1):
        try:
            return _within(_PATIENCE_SECONDS, ask)
        except (errors.HTTPError, errors.OfflineModeIsEnabled, errors.HFValidationError) as error:
            final = _final(error, address)
            if final is not None:
                raise final from error
            if attempt == attempts:
                message = f"the Hub did not answer in {attempt} attempts ({_cause(error)})"
                raise TaskError(message, file=str(address)) from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise TaskError("the Hub's answer makes no sense", file=str(address)) from error
        time.sleep(pause * random.uniform(0.7, 1.3))
        pause = min(2 * pause, 10.0)
    raise AssertionError("unreachable")


def _within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """Ask, but do not wait for ever: the library's client would."""
    answers: SimpleQueue[tuple[Answer | None, Exception | None]] = SimpleQueue()

    def put() -> None:
        try:
            answers.put((ask(), None))
        except Exception as error:  # noqa: BLE001 - it is raised again, by whoever waits
            answers.put((None, error))

    Thread(target=put, name="gaussmeter-hub", daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except Empty as nothing:
        raise TaskError(f"the Hub has not answered for {seconds:.0f} s", file=_endpoint()) from nothing
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]


def _cause(error: Exception) -> str:
    status = _status(error)
    return f"status {status}" if status else type(error).__name__


def _status(error: Any) -> int | None:
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def _final(error: Exception, address: HubAddress) -> GaussmeterError | None:
    """Translate an error that no repetition will mend."""
    from huggingface_hub import errors

    where = str(address)
    page = f"{_endpoint()}/{address.repo}"
    if isinstance(error, errors.GatedRepoError):
        return ConfigError(f"the repository is gated: ask for access on {page}, and set HF_TOKEN", file=where)
    if isinstance(error, errors.RevisionNotFoundError):
        return ConfigError(f"the repository has no revision {address.revision!r}", file=where)
    if isinstance(error, errors.RepositoryNotFoundError):
        token = "the token in use" if "authorization" in _headers() else "HF_TOKEN, which is not set,"
        return ConfigError(
            f"there is no such repository on {_endpoint()}, or it is private and {token} does not open it",
            file=where,
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return ConfigError("HF_HUB_OFFLINE forbids to ask the Hub", file=where)
    if isinstance(error, errors.HFValidationError):
        return ConfigError("is no name of a repository", file=where)
    status = _status(error)
    if status is not None and 400 <= status < 500 and status not in _WORTH_REPEATING:
        return ConfigError(f"the Hub refuses it with status {status}", file=where)
    return None
