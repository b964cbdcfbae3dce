"""Repositories of the Hub are read in place, at one commit, whatever the network does; secrets stay where they are."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import engine
from engine.errors import ConfigError, FormatError, TaskError
from engine.storage import remote, stores
from tests.builders import Tensors, pack_tensors, write, write_sharded, write_tensors
from tests.integration.distant import TOKEN, assert_no_secret, counts, refused
from tests.integration.helpers import contents, environment, llama, made, normal, process, rows
from tests.integration.servers import Faults, FileServer, HubServer, Request

BIG: Tensors = {f"layers.{i}.weight": normal("F32", 512, 1024, seed=i) for i in range(2)}  # 2 MiB each


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token but a test's own, short pauses, and no request to the library's own endpoint for a list of agents."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _detect_agent

    monkeypatch.setattr(_detect_agent, "_registry", _detect_agent._EMPTY_REGISTRY)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.001)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    write_tensors(tmp_path / "repos" / "org" / "tiny" / "model.safetensors", llama())
    with HubServer(tmp_path / "repos") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def big(hub: HubServer) -> Path:
    return write_tensors(hub.root / "org" / "big" / "model.safetensors", BIG)


def weights(log: list[Request]) -> list[tuple[int, int, int]]:
    """First and last byte asked for, and bytes sent, of the answers with contents of large files."""
    found = [(re.fullmatch(r"bytes=(\d+)-(\d+)", r.headers.get("range", "")), r) for r in log]
    return [(int(m[1]), int(m[2]), r.sent) for m, r in found if m and r.status in (200, 206)]


def write_torch(folder: Path, *parts: dict[str, torch.Tensor]) -> Path:
    """One file, or shards with their index."""
    folder.mkdir(parents=True)
    if len(parts) == 1:
        torch.save(parts[0], folder / "pytorch_model.bin")
        return folder
    names = [f"pytorch_model-{i:05d}-of-{len(parts):05d}.bin" for i in range(1, len(parts) + 1)]
    for name, part in zip(names, parts, strict=True):
        torch.save(part, folder / name)
    held = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
    write(folder / "pytorch_model.bin.index.json", json.dumps({"weight_map": held}).encode())
    return folder


def matrices(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    kinds = (torch.bfloat16, torch.float16, torch.float32)
    return {
        f"layers.{seed}.w{i}": torch.randn(40, 50, generator=generator).to(k) for i, k in enumerate(kinds)
    }


# The same counts


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("layout", ["safetensors", "sharded safetensors", "torch", "sharded torch"])
def test_the_counts_are_those_of_the_files_on_disk(hub, tmp_path, layout, workers):
    folder = hub.root / "org" / "model"
    if layout == "safetensors":
        write_tensors(folder / "model.safetensors", llama(3, width=64))
    elif layout == "sharded safetensors":
        write_sharded(
            folder,
            llama(width=48),
            {"more.weight": normal("F32", 100, 90)},
            {"less.weight": normal("F8_E4M3", 20, 30)},
        )
    else:
        write_torch(folder, *map(matrices, range(1 if layout == "torch" else 3)))
    expected = counts(folder, tmp_path, workers=1)
    options = {"workers": workers, "task_bytes": 5000, "ranges": 3}
    assert counts("hf://org/model", tmp_path, **options) == expected


@pytest.mark.parametrize("revision", ["", "@main", "@commit"])
def test_a_revision_is_pinned_to_its_commit(hub, tmp_path, revision):
    commit = hub.commits["org/tiny"]
    uri = "hf://org/tiny" + revision.replace("commit", commit)
    engine.scan(uri, warehouse=tmp_path / "w.duckdb")
    assert rows(tmp_path / "w.duckdb", "SELECT uri, revision, name FROM subjects") == [
        (uri, commit, "org/tiny")
    ]
    assert all(f"/resolve/{commit}/" in r.path for r in hub.log if "/resolve/" in r.path)
    assert any("/resolve/" in r.path for r in hub.log)


def test_a_scan_of_the_same_commit_reads_no_weights(hub, big, tmp_path):
    warehouse = tmp_path / "w.duckdb"
    engine.scan("hf://org/big", warehouse=warehouse)
    assert sum(sent for *_, sent in weights(hub.log)) >= engine.dry_run(big).nbytes
    hub.log.clear()
    report = engine.scan("hf://org/big", warehouse=warehouse)
    assert (report.status, report.nbytes_read) == ("unchanged", 0)
    assert 0 < sum(sent for *_, sent in weights(hub.log)) <= remote.HEAD_BYTES


def test_a_new_commit_is_scanned(hub, tmp_path):
    warehouse = tmp_path / "w.duckdb"
    engine.scan("hf://org/tiny", warehouse=warehouse)
    path = write_tensors(hub.root / "org" / "tiny" / "model.safetensors", llama(seed=50))
    hub.commits["org/tiny"] = hashlib.sha1(b"next").hexdigest()
    report = engine.scan("hf://org/tiny", warehouse=warehouse)
    assert report.status == "scanned"
    assert contents(warehouse, report.subject_id) == counts(path, tmp_path)
    newest = rows(warehouse, "SELECT revision FROM subjects ORDER BY subject_id DESC LIMIT 1")
    assert newest == [(hub.commits["org/tiny"],)]


@pytest.mark.parametrize(
    "path", ["sub dir", "sub dir/", "sub dir/100% #1?.safetensors", "ünter/x+y.safetensors"]
)
def test_a_subfolder_or_a_single_file(hub, tmp_path, path):
    folder = hub.root / "org" / "tiny"
    write_tensors(folder / "sub dir" / "100% #1?.safetensors", llama(1, seed=7))
    write_tensors(folder / "ünter" / "x+y.safetensors", llama(1, seed=8))
    found = counts(f"hf://org/tiny/{path}", tmp_path)
    assert found == counts(folder / path, tmp_path)


def test_of_two_formats_one_is_read(hub, tmp_path):
    folder = write_torch(hub.root / "org" / "both", matrices(0))
    path = write_tensors(folder / "model.safetensors", llama())
    found = counts("hf://org/both", tmp_path)
    assert found == counts(path, tmp_path)
    assert not [r.path for r in hub.log if ".bin" in r.path]


class RealHub(HubServer):
    """The Hub, with its list of agents."""

    def route(self, request: Any) -> None:
        if request.target == "/api/agent-harnesses":
            return request.reply(200, {"standardEnvVars": ["AGENT"], "harnesses": {}})
        return super().route(request)


def test_nothing_is_written_to_the_library_s_folder(tmp_path):
    write_tensors(tmp_path / "repos" / "org" / "tiny" / "model.safetensors", llama())
    home, warehouse = tmp_path / "hf home", made(tmp_path / "w.duckdb")
    home.mkdir()
    with RealHub(tmp_path / "repos") as hub:
        own = environment(HF_HOME=str(home), HF_TOKEN=TOKEN, HF_ENDPOINT=hub.url)
        ran = process("scan", "hf://org/tiny", "-w", warehouse, env=own)
    assert_no_secret((ran.out + ran.err).encode() + warehouse.read_bytes())
    assert (ran.code, [p.name for p in home.rglob("*")]) == (0, [])


# What may not be read, or is not there


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_gated_repository(hub, tmp_path, monkeypatch, token):
    hub.gated.add("org/tiny")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    sentence = refused(ConfigError, "hf://org/tiny", tmp_path, debug=True)
    assert f"ask for access on {hub.url}/org/tiny" in sentence
    assert "HF_TOKEN" in sentence


@pytest.mark.parametrize("token", [None, TOKEN, TOKEN + "wrong"])
def test_a_private_repository(hub, tmp_path, monkeypatch, token):
    hub.private["org/tiny"] = TOKEN
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    if token == TOKEN:
        assert engine.scan("hf://org/tiny", warehouse=tmp_path / "w.duckdb").status == "scanned"
        return
    sentence = refused(ConfigError, "hf://org/tiny", tmp_path, debug=True)
    assert (
        "or it is private and " + ("the token in use" if token else "HF_TOKEN, which is not set,") in sentence
    )


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("hf://org/none", "there is no such repository"),
        ("hf://org/tiny@none", "no revision 'none'"),
        ("hf://org/tiny/none.safetensors", "no 'none.safetensors' at "),
        ("hf://org/tiny/none", "no 'none' at "),
        ("hf://org/tiny/model.safetensors/x", "no 'model.safetensors/x' at "),
        ("hf://org/text", "has no *.safetensors file"),
        ("hf://org/text/notes.txt", "is not a checkpoint"),
    ],
)  # fmt: skip
def test_what_is_not_there(hub, tmp_path, uri, part):
    write(hub.root / "org" / "text" / "notes.txt", b"no weights in here")
    assert part in refused(ConfigError, uri, tmp_path, debug=True)


def test_a_shard_that_is_not_there(hub, tmp_path):
    write_sharded(hub.root / "org" / "sharded", llama(1), {"more": normal("F32", 9)})
    (hub.root / "org" / "sharded" / "model-00002-of-00002.safetensors").unlink()
    assert "'model-00002-of-00002.safetensors', which is not there" in refused(
        FormatError, "hf://org/sharded", tmp_path
    )


# Secrets


def test_the_token_goes_to_the_hub_alone(hub, big, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.private["org/big"] = TOKEN
    with FileServer(hub.root) as cdn:
        hub.cdn = cdn
        assert counts("hf://org/big", tmp_path) == counts(big, tmp_path)
        assert weights(cdn.log)
        assert TOKEN not in repr(cdn.log)
        assert any(TOKEN in r.headers.get("authorization", "") for r in hub.log if "/resolve/" in r.path)


def test_a_cdn_that_is_away_or_refuses(hub, big, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with FileServer(hub.root) as cdn:
        hub.cdn = cdn
        cdn.faults.statuses = [403]
        assert "does not let this account read it" in refused(
            ConfigError, "hf://org/big", tmp_path, debug=True
        )
    assert "could not be read at byte 0 in 8 attempts" in refused(
        TaskError, "hf://org/big", tmp_path, debug=True
    )


# Faults


def fail_after_the_head(hub: HubServer, **faults: Any) -> None:
    """Let the header through, which a first and small request brings. A server looks at `statuses` first."""
    answers: list[str] = []

    def on_get(path: str) -> None:
        answers.append(path)
        if len(answers) == (1 if "statuses" in faults else 2):
            vars(hub.faults).update(faults)

    hub.faults.on_get = on_get


def test_a_server_that_ignores_range(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.faults.ignore_range = True
    assert "its server ignores Range" in refused(FormatError, "hf://org/tiny", tmp_path, debug=True)


@pytest.mark.parametrize("after", [400_000, 500_001])
def test_a_cut_connection_is_resumed(hub, big, tmp_path, after):
    """Where it broke, but for what was in a buffer on the way: less than 256 KiB."""
    fail_after_the_head(hub, cut_after=after, cuts=2)
    found = counts("hf://org/big", tmp_path, ranges=1)
    assert found == counts(big, tmp_path)
    asked = weights(hub.log)[1:4]
    assert [sent == after for *_, sent in asked] == [True, True, False]
    for (start, end, _), (resumed, same_end, _) in pairwise(asked):
        assert max(start + 1, start + after - (256 << 10)) <= resumed <= start + after
        assert end == same_end


def test_short_connections_make_progress(hub, big, tmp_path):
    fail_after_the_head(hub, cut_after=100_000, cuts=100)
    found = counts("hf://org/big", tmp_path, ranges=1)
    assert found == counts(big, tmp_path)


@pytest.mark.parametrize("retry_after", [False, True])
@pytest.mark.parametrize("at", ["head", "weights"])
def test_a_busy_server_is_asked_again(hub, tmp_path, retry_after, at):
    busy = {"statuses": [429, 503, 500, 429, 408], "retry_after": retry_after}
    if at == "head":
        vars(hub.faults).update(busy)
    else:
        fail_after_the_head(hub, **busy)
    found = counts("hf://org/tiny", tmp_path)
    assert hub.faults.statuses == []
    assert found == counts(hub.root / "org" / "tiny", tmp_path)


@pytest.mark.parametrize("away", [{"statuses": [503] * 50}, {"cut_after": 0, "cuts": 50}])
@pytest.mark.parametrize("at", ["head", "weights"])
def test_a_server_that_stays_away_is_given_up(hub, tmp_path, monkeypatch, away, at):
    monkeypatch.setattr(remote, "ATTEMPTS", 3)
    if at == "head":
        vars(hub.faults).update(away)
    else:
        fail_after_the_head(hub, **away)
    sentence = refused(TaskError, "hf://org/tiny", tmp_path, debug=True, kept=at == "weights")
    assert re.search(r"could not be read at byte [\d,]+ in 3 attempts: ", sentence)
    assert TaskError.exit_code == 3


def test_answers_of_a_wrong_length_are_given_up(hub, tmp_path):
    hub.faults.wrong_length = True
    assert "in 8 attempts" in refused(TaskError, "hf://org/tiny", tmp_path, debug=True)


@pytest.mark.parametrize("stalls", [2, 99])
def test_a_stalled_connection_is_left(hub, tmp_path, monkeypatch, stalls):
    monkeypatch.setitem(stores._PATIENCE, "read_timeout", "100ms")
    monkeypatch.setattr(remote, "ATTEMPTS", 4)
    hub.faults = Faults(stall_seconds=1.0, stalls=stalls)
    if stalls > 9:
        assert "in 4 attempts" in refused(TaskError, "hf://org/tiny", tmp_path, debug=True)
        return
    found = counts("hf://org/tiny", tmp_path)
    assert found == counts(hub.root / "org" / "tiny", tmp_path)


# Changes


@pytest.mark.parametrize("at", [2, 3])
@pytest.mark.parametrize("other", ["content", "size"])
def test_a_file_that_changes_is_refused(hub, big, tmp_path, at, other):
    """After its header was read, and after its first weights were."""
    later = {name: normal("F32", 512, 1024 + (other == "size"), seed=9) for name in BIG}
    answers: list[str] = []

    def on_get(path: str) -> None:
        answers.append(path)
        if len(answers) == at:
            big.write_bytes(pack_tensors(later))

    hub.faults.on_get = on_get
    options = {"ranges": 1, "workers": 1, "task_bytes": 1 << 20}
    assert "changed after the scan began" in refused(
        FormatError, "hf://org/big", tmp_path, debug=True, **options
    )
    assert len(answers) >= at
    assert counts("hf://org/big", tmp_path) == counts(big, tmp_path)
