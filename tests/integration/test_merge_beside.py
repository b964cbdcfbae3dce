"""What comes along from beside the weights: from folders below, and from wherever a model is read from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import engine
from tests.builders import write, write_tensors
from tests.integration.helpers import gaussmeter, normal
from tests.integration.servers import AnswerError, FileServer, _Handler
from tests.integration.test_merge_vocabularies import merged, merging  # noqa: F401 - a fixture

BELOW = {"1_Pooling/config.json": b"{}", "additional_chat_templates/tools.jinja": b"x", "modules.json": b"[]"}
LEFT = {"1_Pooling/weights.txt": b"", "onnx/config.json": b"{}", "1_Pooling/deep/config.json": b"{}"}


def model(folder: Path, files: dict[str, bytes]) -> Path:
    write_tensors(folder / "model.safetensors", {"l.weight": normal("F32", 8, 8)})
    for name, data in files.items():
        write(folder / name, data)
    return folder


def edited(place: Path | str, out: Path, **options: Any) -> dict[str, bytes]:
    """What an edit of a model takes over; it makes README.md, the record and the weights itself."""
    engine.edit(place, out, keep="outliers", warehouse=out.with_suffix(".duckdb"), **options)
    made = {"README.md", "gaussmeter_merge.json", "model.safetensors"}
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert made <= files.keys()
    return {name: path.read_bytes() for name, path in files.items() if name not in made}


def test_files_in_folders_below_come_along_and_go_with_what_they_belong_to(tmp_path):
    base, out = model(tmp_path / "a", BELOW | LEFT), tmp_path / "out"
    assert edited(base, out) == BELOW
    assert gaussmeter("verify", out, cwd=tmp_path).code == 0
    write(out / "1_Pooling" / "mine", b"")
    other = model(tmp_path / "b", {"config.json": b"{}"})
    assert edited(other, out, force=True) == {"config.json": b"{}", "1_Pooling/mine": b""}
    assert not (out / "additional_chat_templates").exists()


def test_a_record_cannot_have_anything_else_removed(tmp_path):
    base, out = model(tmp_path / "a", {}), tmp_path / "out"
    edited(base, out)
    other = write(tmp_path / "other" / "x", b"")
    record = json.loads((out / "gaussmeter_merge.json").read_bytes())
    for name in ("../other/x", str(other), "../other"):
        record["files"][name] = 0
    write(out / "gaussmeter_merge.json", json.dumps(record).encode())
    gaussmeter("edit", base, out, "--keep", "outliers", "--force", "-w", tmp_path / "w.duckdb")
    assert other.exists()


@pytest.mark.parametrize(
    ("settings", "come"),
    [(b"{}", []), (b'{"auto_map": {"AutoModel": "modeling_mine.M"}}', ["modeling_mine.py"])],
)
def test_programs_beside_a_single_file_come_along_if_it_needs_some(tmp_path, settings, come):
    files = {"config.json": settings, "modeling_mine.py": b"pass"}
    base = model(tmp_path / "a", files)
    assert set(edited(base / "model.safetensors", tmp_path / "file")) == {"config.json", *come}
    assert set(edited(base, tmp_path / "folder")) == set(files)


@pytest.mark.skipif(os.fsdecode(b"\xff") != "\udcff", reason="file names are text here")
def test_from_a_folder_whose_name_is_no_text(tmp_path):
    base = model(tmp_path / os.fsdecode(b"m\xff"), {"config.json": b"{}", "tokenizer_config.json": b"{}"})
    assert set(edited(base, tmp_path / "out")) == {"config.json", "tokenizer_config.json"}


class Signed(FileServer):
    """Shows files to those alone whose addresses are signed."""

    def route(self, request: _Handler) -> None:
        if request.query.get("sig") != ["secret"]:
            raise AnswerError(403)
        super().route(request)


def test_from_signed_addresses(merging, tmp_path):  # noqa: F811
    expected, _ = merged(merging, tmp_path / "local", tokenizer="union")
    with Signed(tmp_path) as server:
        places = (f"{server.url}/{name}?sig=secret" for name in "ab")
        merging["models"] = [m | {"model": place} for place, m in zip(places, merging["models"], strict=True)]
        found, out = merged(merging, tmp_path / "distant", tokenizer="union")
    assert found.tobytes() == expected.tobytes()
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        assert (out / name).read_bytes() == (tmp_path / "local" / "out" / name).read_bytes()
    assert not [p for p in out.iterdir() if b"secret" in p.read_bytes()]
