"""Folders: what is in them and below, and what cannot be looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import FormatError
from engine.formats.tokenizer_files import is_folder_of_some
from engine.storage.depot import Depot
from engine.storage.folders import HubFolder, LocalFolder, WebFolder
from engine.storage.hub import HubAddress, Repository
from tests.builders import write

FILES = (
    "config.json",
    "1_Pooling/config.json",
    "1_Pooling/x/y",
    "additional_chat_templates/t.jinja",
    "onnx/config.json",
)
BELOW = ("1_Pooling/config.json", "additional_chat_templates/t.jinja")


def test_a_link_to_itself_is_one_sentence(tmp_path):
    write(tmp_path / "data" / "a", b"a")
    (tmp_path / "data" / "nowhere").symlink_to(tmp_path / "nothing")
    assert list(Depot(str(tmp_path)).files("data")) == ["data/a"]
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data" / "loop")
    with pytest.raises(FormatError) as caught:
        Depot(str(tmp_path)).files("data")
    assert str(caught.value) == f"{tmp_path}/data/loop: cannot be read: Too many levels of symbolic links"


def test_what_cannot_be_listed_is_one_sentence(tmp_path):
    assert LocalFolder(tmp_path / "nothing").tree() == {}
    with pytest.raises(FormatError, match="cannot be listed: Not a directory"):
        LocalFolder(write(tmp_path / "file", b"")).tree()


def test_a_scratch_folder_that_goes_away_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [self / ".export-gone"])
    with Depot(str(tmp_path)).scratch() as scratch:
        assert scratch.is_dir()


def test_files_in_folders_that_are_wanted(tmp_path):
    for name in FILES:
        write(tmp_path / name, b"")
    write(tmp_path / "2_Dense", b"")  # no folder
    assert {n for n in LocalFolder(tmp_path).names_below(is_folder_of_some) if n != "1_Pooling/x"} == set(
        BELOW
    )
    repository = Repository("0" * 40, frozenset(f"below/{n}" for n in FILES))
    hub = HubFolder(HubAddress("org/name", "main", "below"), repository)
    assert hub.names_below(is_folder_of_some) == BELOW
    assert WebFolder("http://127.0.0.1/m").names_below(is_folder_of_some) == ()
