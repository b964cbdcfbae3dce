"""What the Hub says of a repository: in pages, late, not at all, or nonsense."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.errors import ConfigError, FormatError, TaskError
from engine.nouns.events import Event, Planned
from engine.storage import remote
from tests.builders import write_sharded, write_tensors
from tests.integration.distant import TOKEN, counts, refused
from tests.integration.helpers import llama, made, normal, subjects
from tests.integration.servers import AnswerError, HubServer

MINUTE = 60.0


class Answers(HubServer):
    """The Hub, some of whose answers about repositories are others."""

    failures = 0
    status = 503
    pages = 1
    nonsense: Any = None

    def _api(self, request: Any, repo: str, rest: list[str]) -> None:
        part = rest[0] if rest else ""
        if part == self.failing and self.failures:
            self.failures -= 1
            raise AnswerError(self.status)
        if part == self.failing and self.nonsense is not None:
            return request.reply(200, self.nonsense)
        if part == "tree" and self.pages > 1:
            return self._page(request, repo, rest)
        return super()._api(request, repo, rest)

    def _page(self, request: Any, repo: str, rest: list[str]) -> None:
        """The tree, of which each answer has a part and says where the next one is."""
        number, reply = int(request.query.get("cursor", ["0"])[0]), type(request).reply

        def in_part(status: int, lines: list[Any], headers: Any = None) -> None:
            size = -(-len(lines) // self.pages)
            following = f'<{self.url}{request.target}?recursive=true&cursor={number + 1}>; rel="next"'
            link = {"Link": following} if (number + 1) * size < len(lines) else {}
            reply(request, status, lines[number * size : (number + 1) * size], link)

        request.reply = in_part
        try:
            super()._api(request, repo, rest)
        finally:
            del request.reply

    failing = "tree"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    from huggingface_hub import constants
    from huggingface_hub.utils import _detect_agent

    monkeypatch.setattr(_detect_agent, "_registry", _detect_agent._EMPTY_REGISTRY)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.001)
    write_sharded(
        tmp_path / "repos" / "org" / "tiny",
        llama(1),
        {"more.weight": normal("F32", 50, 60)},
        {"b": normal("F16", 9)},
    )
    with Answers(tmp_path / "repos") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been slept, in seconds; nobody does."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.mark.parametrize("pages", [1, 2, 4])
def test_a_tree_in_pages(hub, tmp_path, pages):
    hub.pages = pages
    assert counts("hf://org/tiny", tmp_path) == counts(hub.root / "org" / "tiny", tmp_path)
    assert sum("/tree/" in r.path for r in hub.log) == pages


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("failing", ["", "tree"])
def test_a_busy_hub_is_asked_again(hub, tmp_path, slept, failing, status):
    hub.failing, hub.status, hub.failures = failing, status, 3
    assert counts("hf://org/tiny", tmp_path) == counts(hub.root / "org" / "tiny", tmp_path)
    assert hub.failures == 0
    assert slept


@pytest.mark.parametrize(
    "failing",
    [
        "",
        "tree",
    ],
)
def test_a_hub_that_stays_away_is_given_up(hub, tmp_path, slept, failing):
    hub.failing, hub.failures = failing, 999
    assert "the Hub did not answer" in refused(TaskError, "hf://org/tiny", tmp_path, debug=True)
    assert sum(slept) < MINUTE


@pytest.mark.parametrize("status", [400, 403, 410, 451])
def test_a_hub_that_refuses_is_asked_once(hub, tmp_path, status):
    hub.status, hub.failures = status, 999
    assert f"status {status}" in refused(ConfigError, "hf://org/tiny", tmp_path, debug=True)
    assert hub.failures == 998


def test_no_request_waits_for_ever(hub, tmp_path, monkeypatch):
    """A Hub that takes a connection and never answers must not hang a scan."""
    monkeypatch.setattr("engine.storage.hub._PATIENCE_SECONDS", 0.2)
    hub.latency = 2
    assert "has not answered" in refused(TaskError, "hf://org/tiny", tmp_path)


def test_nobody_listens(tmp_path, monkeypatch, slept, hub):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert "the Hub did not answer" in refused(TaskError, "hf://org/tiny", tmp_path, debug=True)
    assert sum(slept) < MINUTE


@pytest.mark.parametrize(
    ("failing", "nonsense"), [("", {}), ("", []), ("", "text"), ("tree", 5), ("tree", [{"type": "file"}])]
)
def test_nonsense_is_refused(hub, tmp_path, slept, failing, nonsense):
    """As one of the engine's errors, whichever."""
    hub.failing, hub.nonsense = failing, nonsense
    warehouse = made(tmp_path / "w.duckdb")
    with pytest.raises((ConfigError, FormatError, TaskError)) as caught:
        engine.scan("hf://org/tiny", warehouse=warehouse)
    assert "\n" not in str(caught.value)
    assert subjects(warehouse) == []


@pytest.mark.parametrize(
    "uri",
    [
        "hf://",
        "hf://org/tiny@",
        "hf://@main",
        "hf://datasets/org/tiny",
        "hf://org/ti ny",
        "hf://org/tiny@a b",
        "hf:///org/tiny",
        "hf://org/" + 99 * "x",
    ],
)
def test_what_is_no_address(hub, tmp_path, uri):
    with pytest.raises(ConfigError) as caught:
        engine.scan(uri, warehouse=tmp_path / "w.duckdb")
    sentence = str(caught.value)
    assert sentence.startswith(uri.rstrip("/"))
    assert "\n" not in sentence


def test_a_file_that_goes_away_is_a_change(hub, tmp_path):
    def listener(event: Event) -> None:
        if isinstance(event, Planned):
            next((hub.root / "org" / "tiny").glob("*.safetensors")).unlink()

    refused(FormatError, "hf://org/tiny", tmp_path, listener=listener)


def test_a_subfolder_of_a_large_repository_is_found_in_its_tree(hub, tmp_path):
    hub.pages = 3
    path = write_tensors(hub.root / "org" / "tiny" / "z" / "model.safetensors", llama(1, seed=3))
    assert counts("hf://org/tiny/z", tmp_path) == counts(path, tmp_path)
