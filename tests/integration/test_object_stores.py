"""Buckets: the same counts as from a disk, and one clear sentence where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import settings
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.responses import ActionAuthenticatorMixin
from moto.server import ThreadedMotoServer

import engine
from engine.errors import ConfigError, FormatError
from engine.nouns.events import Event, Planned, TaskDone
from engine.storage import BucketFolder, remote
from engine.verbs import scan as scanning
from tests.builders import pack_tensors, write, write_sharded
from tests.integration.distant import SECRET, counts, refused
from tests.integration.helpers import (
    assert_consistent,
    contents,
    killed,
    llama,
    made,
    normal,
    program,
)
from tests.integration.test_resume import DRIVER

NAMES = count(1)
TENSORS = llama(2, width=32) | {"more.weight": normal("F32", 60, 50)}
BODY = pack_tensors(TENSORS)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(remote, "ATTEMPTS", 3)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Bucket:
    """A bucket of its own for each test: stores are kept by their names."""

    def __init__(self, url: str) -> None:
        self.name = f"bucket-{next(NAMES)}"
        self.client = boto3.client("s3", endpoint_url=url)
        self.client.create_bucket(Bucket=self.name)

    def put(self, key: str, body: bytes) -> str:
        self.client.put_object(Bucket=self.name, Key=key, Body=body)
        return f"s3://{self.name}/{key}"

    def put_folder(self, prefix: str, folder: Path) -> str:
        for path in folder.iterdir():
            self.put(f"{prefix}/{path.name}", path.read_bytes())
        return f"s3://{self.name}/{prefix}"


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    keys = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    for name, value in ({"AWS_ENDPOINT_URL": moto, "AWS_DEFAULT_REGION": "us-east-1"} | keys).items():
        monkeypatch.setenv(name, value)
    return Bucket(moto)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("expected")
    return counts(write(folder / "model.safetensors", BODY), folder)


# Buckets


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("place", ["file", "folder", "folder/", "bucket", "s3a"])
def test_a_bucket_s_counts_are_those_of_a_disk(bucket, tmp_path, expected, place, workers):
    uri = bucket.put("model.safetensors" if place == "bucket" else "a/v1.5/model.safetensors", BODY)
    if place != "file":
        uri = uri.removesuffix("/model.safetensors") + place.removeprefix("folder").removeprefix("bucket")
    uri = uri.replace("s3://", "s3a://").removesuffix("s3a") if place == "s3a" else uri
    assert counts(uri, tmp_path, workers=workers, task_bytes=5000, ranges=3) == expected


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("place", ["model", "model/model.safetensors.index.json"])
def test_shards_in_a_bucket(bucket, tmp_path, place, workers):
    write_sharded(
        tmp_path / "m", llama(1), {"more.weight": normal("F32", 70, 9)}, {"less": normal("F8_E4M3", 300)}
    )
    uri = bucket.put_folder("model", tmp_path / "m").removesuffix("model") + place
    assert counts(uri, tmp_path, workers=workers) == counts(tmp_path / "m", tmp_path)


@pytest.mark.parametrize(
    "key",
    ["a b/m.safetensors", "ünï/日本 é.safetensors", "100%/m.safetensors", "a%20b/m%2F.safetensors",
     "x+y/m+1.safetensors", "q?x=1/m#1.safetensors", "[b]*/{m}~.safetensors", "@v/m&a=b;c'(1).safetensors",
     "v1.0/m.safetensors"],
)  # fmt: skip
def test_keys_are_taken_as_they_are(bucket, tmp_path, expected, key):
    uri = bucket.put(key, BODY)
    assert counts(uri, tmp_path) == expected
    assert counts(uri.rpartition("/")[0], tmp_path) == expected


def test_a_key_that_cannot_be_addressed_is_refused(bucket, tmp_path):
    assert "empty path segment" in refused(ConfigError, bucket.put("a//m.safetensors", BODY), tmp_path)


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("none.safetensors", "there is no such file"),
        ("none", "has no *.safetensors file"),
        ("none.v1/", "has no *.safetensors file"),
        ("", "has no *.safetensors file"),
        ("text/notes.txt", "is not a checkpoint"),
        ("model/model.safetensors/x", "has no *.safetensors file"),
    ],
)
def test_what_is_not_in_a_bucket(bucket, tmp_path, place, part):
    bucket.put("text/notes.txt", b"no weights in here")
    bucket.put("model/model.safetensors", BODY)
    assert part in refused(ConfigError, f"s3://{bucket.name}/{place}", tmp_path)


@pytest.mark.parametrize("place", ["model", "model.safetensors", ""])
def test_a_bucket_that_is_not_there(bucket, tmp_path, place):
    uri = f"s3://no-{bucket.name}/{place}".rstrip("/")
    assert refused(ConfigError, uri, tmp_path).startswith(f"{uri}: ")


@pytest.mark.parametrize("place", ["model", "model/model.safetensors"])
def test_wrong_credentials(bucket, tmp_path, monkeypatch, place):
    bucket.put("model/model.safetensors", BODY)
    monkeypatch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
    monkeypatch.setattr(ActionAuthenticatorMixin, "request_count", 0)
    sentence = refused(ConfigError, f"s3://{bucket.name}/{place}", tmp_path)
    assert "may not be" in sentence
    assert "credentials" in sentence


def test_a_listing_of_many_pages(bucket, tmp_path, expected):
    """The weights are on the second."""
    backend = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]
    for number in range(1005):
        backend.put_object(bucket.name, f"model/a{number:04d}.txt", b"x")
    bucket.put("model/model.safetensors", BODY)
    assert counts(f"s3://{bucket.name}/model", tmp_path) == expected


def test_files_in_folders_that_are_wanted(bucket):
    for name in ("config.json", "1_Pooling/config.json", "1_Pooling/x/y", "onnx/config.json"):
        bucket.put(f"m/{name}", b"")
    folder = BucketFolder(f"s3://{bucket.name}/m")
    assert folder.names() == ("config.json",)
    assert folder.names_below(lambda name: name == "1_Pooling") == ("1_Pooling/config.json",)


def test_many_parallel_ranges(bucket, tmp_path, monkeypatch, expected):
    uri = bucket.put("model.safetensors", BODY)
    monkeypatch.setattr(scanning, "Limits", partial(scanning.Limits, range_bytes=512))
    assert len(BODY) > 32 * 512
    assert counts(uri, tmp_path, workers=2, ranges=32) == expected


@pytest.mark.parametrize("moment", [Planned, TaskDone])
@pytest.mark.parametrize("other", ["content", "size"])
def test_an_object_that_changes_is_refused(bucket, tmp_path, moment, other):
    uri = bucket.put("model/model.safetensors", BODY)
    later = pack_tensors(
        llama(2, width=32, seed=5) | {"more.weight": normal("F32", 60 + (other == "size"), 50, seed=5)}
    )

    def listener(event: Event) -> None:
        if isinstance(event, moment):
            bucket.put("model/model.safetensors", later)

    options = {"workers": 1, "ranges": 1, "task_bytes": 2000, "listener": listener}
    assert "changed after the scan began" in refused(FormatError, uri, tmp_path, **options)


def test_a_killed_scan_of_a_bucket_goes_on(bucket, tmp_path, expected):
    uri, warehouse = bucket.put("model/model.safetensors", BODY), made(tmp_path / "w.duckdb")
    ran = program(DRIVER, uri, warehouse, "after a flush", 6, False)
    assert killed(ran), ran.err
    assert_consistent(warehouse)
    read = sum(map(int, ran.out.split()))
    report = engine.scan(uri, warehouse=warehouse, workers=3, task_bytes=900)
    assert (report.status, report.nbytes_read) == ("resumed", report.nbytes - read)
    assert contents(warehouse, report.subject_id) == expected
    assert_consistent(warehouse)
    assert engine.scan(uri, warehouse=warehouse).status == "unchanged"


@pytest.mark.parametrize("uri", ["s3://", "s3:///x", "gs://", "az://", "s3://UPPER_case!/x", "s3://a b/x"])
def test_an_address_of_no_bucket(bucket, tmp_path, uri):
    refused(ConfigError, uri, tmp_path)


@pytest.mark.parametrize(("content", "part"), [(b"", "has 0 bytes"), (BODY[:-1], "is truncated")])
def test_a_damaged_object(bucket, tmp_path, content, part):
    assert part in refused(FormatError, bucket.put("model/m.safetensors", content), tmp_path)
