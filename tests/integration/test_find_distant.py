"""Checkpoints of an organisation of the Hub, of a repository and of a bucket are found without opening them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from engine.config.census import Source
from engine.errors import ConfigError, TaskError
from engine.formats.checkpoint import open_checkpoint
from engine.formats.find import find_checkpoints
from engine.storage import hub as hub_storage
from engine.storage import remote
from tests.builders import f32, pack_tensors, write, write_sharded, write_tensors
from tests.integration.servers import AnswerError, HubServer

BODY = pack_tensors({"w": f32(1, 2)})
NAMES = count(1)


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils import _detect_agent

    monkeypatch.setattr(_detect_agent, "_registry", _detect_agent._EMPTY_REGISTRY)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(remote, "ATTEMPTS", 3)
    monkeypatch.setattr(hub_storage, "ATTEMPTS", 1)


def found(base: Path, **source: Any) -> list[str]:
    return [
        c.uri if c.skipped is None else f"{c.uri}: {c.skipped}"
        for c in find_checkpoints(Source(**source), base)
    ]


# The Hub


class ListingHub(HubServer):
    """The Hub, with its lists of models: of each owner the newest first, two on a page."""

    def route(self, request: Any) -> None:
        if request.target != "/api/models":
            return super().route(request)
        author = request.query.get("author", [""])[0]
        if not (self.root / author).is_dir():
            return request.reply(200, [])
        if author == "closed":
            raise AnswerError(403)
        folders = sorted((self.root / author).iterdir(), key=lambda p: p.stat().st_mtime_ns, reverse=True)
        names = [f"{author}/{p.name}" for p in folders]
        start = int(request.query.get("cursor", ["0"])[0])
        page = [
            {"id": name, "modelId": name, "tags": [], "private": False} for name in names[start : start + 2]
        ]
        link = f'<{self.url}/api/models?author={author}&cursor={start + 2}>; rel="next"'
        return request.reply(200, page, {"Link": link} if start + 2 < len(names) else {})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    for age, name in enumerate(["newest", "second-llama", "third", "oldest-llama"]):
        folder = write_tensors(
            tmp_path / "repos" / "org" / name / "model.safetensors", {"w": f32(age)}
        ).parent
        os.utime(folder, (1_000_000 - age, 1_000_000 - age))
    (tmp_path / "repos" / "closed").mkdir()
    with ListingHub(tmp_path / "repos") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


ALL = ["hf://org/newest", "hf://org/second-llama", "hf://org/third", "hf://org/oldest-llama"]


def test_an_organisation_is_listed_page_by_page_the_newest_first(hub, tmp_path):
    assert found(tmp_path, hub="org") == ALL
    asked = [r.path for r in hub.log]
    assert len(asked) == 2
    assert "author=org" in asked[0]
    assert "sort=lastModified" in asked[0] or "sort=last_modified" in asked[0]


@pytest.mark.parametrize(
    ("how", "places"),
    [
        ({"newest": 1}, ALL[:1]),
        ({"newest": 9}, ALL),
        ({"include": ["org/*llama*"]}, [ALL[1], ALL[3]]),
        ({"exclude": ["*third", "hf://org/newest"]}, [ALL[1], ALL[3]]),
        ({"include": ["*llama"], "newest": 1}, [ALL[1]]),
        ({"include": ["*gguf*"]}, ["org: no checkpoint there is asked for"]),
    ],
)
def test_some_of_an_organisation(hub, tmp_path, how, places):
    assert found(tmp_path, hub="org", **how) == places


def test_an_organisation_of_nothing(hub, tmp_path):
    assert found(tmp_path, hub="nobody") == ["nobody: no checkpoint was found there"]


@pytest.mark.parametrize("owner", ["org/newest", " "])
def test_what_is_no_organisation(hub, tmp_path, owner):
    with pytest.raises(ConfigError, match="is no organisation"):
        found(tmp_path, hub=owner)
    assert hub.log == []


def test_an_organisation_that_may_not_be_listed(hub, tmp_path):
    with pytest.raises((ConfigError, TaskError)) as caught:
        found(tmp_path, hub="closed")
    assert str(caught.value).startswith("hf://closed: ")


def test_a_repository_is_looked_through_by_the_name_that_was_asked_for(hub, tmp_path):
    """A place with a commit in it would be another one after each push, and never be known again."""
    repo = hub.root / "org" / "many"
    for step in (1, 2):
        write_tensors(repo / f"step {step}" / "model.safetensors", {"w": f32(step)})
    write_sharded(repo / "final", {"a": f32(1)}, {"b": f32(2)})
    write(repo / "README.md", b"")
    write(repo / ".cache" / "model.safetensors", BODY)
    places = [f"hf://org/many/{name}" for name in ("final", "step 1", "step 2")]
    assert found(tmp_path, under="hf://org/many") == places
    assert found(tmp_path, under="hf://org/many/final/") == places[:1]
    pinned = [p.replace("many", "many@main") for p in places]
    assert found(tmp_path, under="hf://org/many@main") == pinned
    assert [open_checkpoint(uri).tensors[0].name for uri in (*places, *pinned)] == ["a", "w", "w"] * 2


def test_a_file_is_no_folder_of_the_hub(hub, tmp_path):
    with pytest.raises(ConfigError, match="is a file, not a folder"):
        found(tmp_path, under="hf://org/third/model.safetensors")


# Buckets


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The name of a bucket of its own, and how to put an object there."""
    for name, value in {
        "AWS_ENDPOINT_URL": moto,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client, name = boto3.client("s3", endpoint_url=moto), f"found-{next(NAMES)}"
    client.create_bucket(Bucket=name)
    return name, lambda key, body=BODY: client.put_object(Bucket=name, Key=key, Body=body)


def test_a_prefix_of_a_bucket(bucket, tmp_path):
    name, put = bucket
    for key in (
        "models/a/model.safetensors", "models/a/b/model.safetensors", "models/a-b/model.safetensors",
        "models/.git/model.safetensors", "models/a b/ünï/m.safetensors", "models2/a/model.safetensors", "top.safetensors",
    ):  # fmt: skip
        put(key)
    put("models/g/zarr.json", b"{}")
    put("models/g/w/zarr.json", b"{}")
    put("models/zips/a.zarr.zip", b"123")
    put("models/notes/readme.md", b"")
    root = f"s3://{name}"
    candidates = list(find_checkpoints(Source(under=f"{root}/models/"), tmp_path))
    assert [(c.uri.removeprefix(f"{root}/models/"), c.nbytes) for c in candidates] == [
        ("a", len(BODY)), ("a/b", len(BODY)), ("a b/ünï", len(BODY)), ("a-b", len(BODY)), ("g", None),
        ("zips/a.zarr.zip", 3),
    ]  # fmt: skip
    opened = [open_checkpoint(c.uri) for c in candidates if c.nbytes == len(BODY)]
    assert [[t.name for t in c.tensors] for c in opened] == [["w"]] * 4
    assert found(tmp_path, under=root)[:2] == [root, f"{root}/models/a"]
    assert found(tmp_path, under=f"{root}/models", include=["*/a/*"]) == [f"{root}/models/a/b"]


def test_a_file_is_no_folder_of_a_bucket(bucket, tmp_path):
    name, put = bucket
    put("models/model.safetensors")
    put("models/other/model.safetensors")
    with pytest.raises(ConfigError, match="is a file, not a folder"):
        found(tmp_path, under=f"s3://{name}/models/model.safetensors")


def test_a_prefix_of_nothing(bucket, tmp_path):
    name, put = bucket
    put("models/model.safetensors")
    assert found(tmp_path, under=f"s3://{name}/none") == [f"s3://{name}/none: no checkpoint was found there"]


def test_a_bucket_that_is_not_there(bucket, tmp_path):
    with pytest.raises(ConfigError, match="s3://no-such-bucket"):
        found(tmp_path, under="s3://no-such-bucket/models")
