"""A source names each of its checkpoints once, whatever lies between them, and says what it could not look into."""

from __future__ import annotations

import errno
import os
from itertools import islice
from pathlib import Path

import pytest

from engine.config.census import Source
from engine.errors import ConfigError
from engine.formats.checkpoint import open_checkpoint
from engine.formats.find import _grouped, find_checkpoints, read_list
from engine.nouns.candidate import Candidate
from tests.builders import f32, write, write_sharded, write_tensors
from tests.zarr_stores import archive, noise, store


def model(folder: Path, name: str = "model.safetensors") -> Path:
    return write_tensors(folder / name, {"w": f32(1, 2)})


def found(base: Path, **source: object) -> list[str]:
    """The places, below a folder if they are there; with the reason of what is skipped."""
    return [shown(c, base) for c in find_checkpoints(Source(**source), base)]


def shown(candidate: Candidate, base: Path) -> str:
    place = candidate.uri.removeprefix(f"{base}/")
    return place if candidate.skipped is None else f"{place}: {candidate.skipped}"


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Checkpoints of all kinds, side by side and one below the other."""
    root = tmp_path / "zoo"
    model(root / "plain")
    model(root / "plain" / "step 2")
    write_sharded(root / "sharded", {"a": f32(1)}, {"b": f32(2)})
    write(root / "torch" / "pytorch_model.bin", b"")
    write(root / "torch" / "optimizer.pt", b"")
    group(root / "group.zarr")
    write(root / "dist" / ".metadata", b"")
    write(root / "dist" / "__0_0.distcp", b"")
    write(root / "packed" / "a.zarr.zip", b"")
    write(root / "packed" / "B.ZARR.ZIP", b"")
    write(root / "packed" / "._a.zarr.zip", b"")
    model(root / ".hidden")
    model(root / "plain" / ".cache" / "x")
    model(root / "plain", ".model.safetensors")
    write(root / "notes" / "readme.md", b"")
    (root / "nothing").mkdir()
    return root


def group(folder: Path) -> Path:
    """A Zarr group of two arrays, one of them in a group of its own."""
    write(folder / "zarr.json", b'{"zarr_format": 3, "node_type": "group"}')
    for name in ("w", "layers/0"):
        write(folder / name / "zarr.json", b'{"zarr_format": 3, "node_type": "array"}')
        write(folder / name / "c" / "0", b"")
    return folder


IN_ZOO = [
    "dist",
    "group.zarr",
    "packed/B.ZARR.ZIP",
    "packed/a.zarr.zip",
    "plain",
    "plain/step 2",
    "sharded",
    "torch",
]


# Places and lists


def test_a_place_is_taken_as_it_is(tmp_path):
    assert list(find_checkpoints(Source(uri="hf://org/x", name="mine"), tmp_path)) == [
        Candidate("hf://org/x", "mine")
    ]
    assert found(tmp_path, uri="no/such/file") == ["no/such/file"]  # opening it says so


def test_a_list_of_places(tmp_path):
    text = """\ufeffhf://org/one   # the first
  /a b/c#d\t
# nothing else
#
\t
s3://bucket/x#1 #2
hf://org/one
/ünï/日本 # é
"""
    path = write(tmp_path / "lists" / "places.txt", text.replace("\n", "\r\n").encode())
    places = ["hf://org/one", "/a b/c#d", "s3://bucket/x#1", "/ünï/日本"]
    assert found(path.parent, list="places.txt") == places
    assert found(tmp_path / "elsewhere", list=str(path)) == places
    assert list(read_list(path)) == [*places[:3], "hf://org/one", places[3]]


def test_a_list_in_a_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write(tmp_path / "home" / "places.txt", b"x")
    assert found(tmp_path, list="~/places.txt") == ["x"]


def test_a_line_ends_where_a_file_s_lines_end(tmp_path):
    names = ["a\x0bb", "a\x0cb", "a\x85b", "a\u2028b", "a\x1cb"]
    path = write(tmp_path / "places.txt", "\n".join(names).encode())
    assert list(read_list(path)) == names


@pytest.mark.parametrize("text", ["", "\n\n", "# a\n  # b"])
def test_a_list_of_nothing(tmp_path, text):
    write(tmp_path / "places.txt", text.encode())
    assert found(tmp_path, list="places.txt") == ["places.txt: no checkpoint was found there"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.txt", "cannot be read: No such file"),
        (".", "cannot be read: Is a directory"),
        ("~nosuchuser/x", "cannot be read: No such file"),
        ("latin.txt", "is no text in UTF-8"),
        ("a\0b", "is not a usable path"),
    ],
)
def test_a_list_that_cannot_be_read(tmp_path, name, said):
    write(tmp_path / "latin.txt", b"\xe9")
    with pytest.raises(ConfigError, match=said):
        found(tmp_path, list=name)


# Folders


def test_what_is_at_and_below_a_folder(zoo):
    assert found(zoo, under=str(zoo)) == IN_ZOO
    assert found(zoo, under=f"file://{zoo}/") == IN_ZOO
    assert found(zoo, under=str(zoo / "plain")) == ["plain", "plain/step 2"]
    assert found(zoo, under=str(zoo / ".hidden")) == [".hidden"]  # by its name, but not below another


def test_a_folder_by_a_relative_name_or_in_a_home(zoo, monkeypatch):
    monkeypatch.chdir(zoo.parent)
    assert found(zoo, under="zoo") == IN_ZOO
    monkeypatch.setenv("HOME", str(zoo))
    assert found(zoo, under="~/plain") == ["plain", "plain/step 2"]


def test_what_is_found_can_be_opened(tmp_path):
    model(tmp_path / "plain")
    write_sharded(tmp_path / "sharded", {"a": f32(1)}, {"b": f32(2)})
    (tmp_path / "z").mkdir()
    archive(store(tmp_path / "g.zarr", {"w": noise(4, 3)}), tmp_path / "z" / "a.zarr.zip")
    candidates = list(find_checkpoints(Source(under=str(tmp_path)), tmp_path))
    opened = [open_checkpoint(c.uri).format for c in candidates]
    assert opened == ["zarr", "safetensors", "safetensors", "zarr"]


@pytest.mark.parametrize("under", ["none", "file.txt", "~nosuchuser", "a\0b", "x" * 300])
def test_a_folder_that_is_none(tmp_path, under):
    write(tmp_path / "file.txt", b"")
    with pytest.raises(ConfigError):
        found(tmp_path, under=under if under[0] in "~a" else str(tmp_path / under))


def test_a_folder_of_nothing(zoo):
    assert found(zoo, under=str(zoo / "notes")) == ["notes: no checkpoint was found there"]


def test_links_are_followed_but_not_in_circles(zoo):
    for place in ("plain/up", "plain/again", "sharded/over"):
        (zoo / place).symlink_to(zoo)
    (zoo / "self").symlink_to("self")
    (zoo / "broken").symlink_to("nowhere")
    elsewhere = zoo.parent / "elsewhere"
    model(elsewhere / "m")
    (zoo / "linked").symlink_to(elsewhere)
    (zoo / "plain" / "linked too").symlink_to(elsewhere)
    assert found(zoo, under=str(zoo)) == sorted([*IN_ZOO, "linked/m"])
    (zoo / "root").symlink_to(zoo)
    assert found(zoo / "root", under=str(zoo / "root")) == sorted([*IN_ZOO, "linked/m"])


def unreadable(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Not by mode bits, which do not stop root."""
    scandir, listdir = os.scandir, os.listdir

    def refuse(path):
        if Path(os.fsdecode(path)) in folders:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", lambda path=".": refuse(path) or scandir(path))
    monkeypatch.setattr(os, "listdir", lambda path=".": refuse(path) or listdir(path))


@pytest.mark.parametrize("kind", [{"under": "{}"}, {"glob": "{}/**"}])
def test_a_folder_that_may_not_be_listed_is_skipped_with_the_reason(zoo, monkeypatch, kind):
    unreadable(monkeypatch, zoo / "plain", zoo / "nothing")
    left = [place for place in IN_ZOO if not place.startswith("plain")]
    skipped = [f"{name}: cannot be listed: Permission denied" for name in ("nothing", "plain")]
    source = {key: place.format(zoo) for key, place in kind.items()}
    # a folder that is matched, but cannot be looked into, is left to whoever opens it
    assert [p for p in found(zoo, **source) if p not in ("nothing", "plain")] == left + skipped


def test_a_folder_that_disappears_meanwhile(zoo, monkeypatch):
    stat = os.stat

    def gone(path, **options):
        if str(path) == str(zoo / "sharded"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", gone)
    left = [place for place in IN_ZOO if place != "sharded"]
    assert found(zoo, under=str(zoo)) == [*left, "sharded: cannot be listed: No such file or directory"]


# Patterns


@pytest.mark.parametrize(
    ("pattern", "places"),
    [
        ("plain", ["plain"]),
        ("*", [
            "dist", "group.zarr", "notes: holds no checkpoint", "nothing: holds no checkpoint",
            "packed: holds no checkpoint", "plain", "sharded", "torch",
        ]),
        ("p*/*", ["packed/B.ZARR.ZIP", "packed/a.zarr.zip", "plain/model.safetensors", "plain/step 2"]),
        ("*/*.safetensors", ["plain/model.safetensors", "sharded/model.safetensors.index.json"]),
        ("sharded/*", ["sharded/model.safetensors.index.json"]),
        ("sharded/model-0000[12]*", ["sharded/model.safetensors.index.json"]),
        ("torch/*", ["torch/pytorch_model.bin"]),
        (".hidden", [".hidden"]),
        (".h*/*.safetensors", [".hidden/model.safetensors"]),
        ("plain/step ?", ["plain/step 2"]),
        ("n*/*.md", ["n*/*.md: no checkpoint was found there"]),
        ("none*", ["none*: no checkpoint was found there"]),
        ("**", IN_ZOO),
        ("**/", IN_ZOO),
        ("**/**", IN_ZOO),
        ("pl*/**", ["plain", "plain/step 2"]),
        ("**/step*", ["plain/step 2"]),
        ("**/model.safetensors", ["plain/model.safetensors", "plain/step 2/model.safetensors"]),
        ("**/*.safetensors", [
            "plain/model.safetensors", "plain/step 2/model.safetensors", "sharded/model.safetensors.index.json",
        ]),
        ("**/plain/**/model.safetensors", ["plain/model.safetensors", "plain/step 2/model.safetensors"]),
        ("**/zarr.json", ["group.zarr/zarr.json"]),
        ("**/*.zarr", ["group.zarr"]),
        ("none/**", ["none/**: no checkpoint was found there"]),
        ("notes/readme.md/**", ["notes/readme.md/**: no checkpoint was found there"]),
    ],
)  # fmt: skip
def test_a_pattern(zoo, monkeypatch, pattern, places):
    assert found(zoo, glob=f"{zoo}/{pattern}") == places
    monkeypatch.setenv("HOME", str(zoo))
    home = [place.replace(f"{pattern}: no", f"~/{pattern}: no") for place in places]
    assert found(zoo, glob=f"~/{pattern}") == home
    monkeypatch.chdir(zoo)
    assert found(zoo, glob=pattern) == places


def test_a_folder_and_what_it_holds_are_one_checkpoint(zoo):
    """Both match."""
    assert found(zoo, glob=f"{zoo}/[ps]*/**") == [
        "packed/B.ZARR.ZIP",
        "packed/a.zarr.zip",
        "plain",
        "plain/step 2",
        "sharded",
    ]


def test_shards_without_an_index_are_their_folder(zoo):
    (zoo / "sharded" / "model.safetensors.index.json").unlink()
    assert found(zoo, glob=f"{zoo}/sharded/*") == ["sharded"]


def test_letters_that_mean_something_in_a_pattern_may_be_in_names(tmp_path):
    model(tmp_path / "a[1]*" / "b?" / "m")
    model(tmp_path / "a1x" / "bx" / "m")
    assert found(tmp_path, glob=f"{tmp_path}/a[[]1]*/**/m") == ["a[1]*/b?/m"]


def test_a_name_that_is_no_text(tmp_path):
    name = os.fsdecode(b"a\xff\x1b[31m")
    model(tmp_path / name)
    assert found(tmp_path, under=str(tmp_path)) == found(tmp_path, glob=f"{tmp_path}/*") == [name]


def test_patterns_do_not_go_in_circles(zoo):
    """With a few links there are more ways through a folder than anybody could go."""
    for name in "abcd":
        (zoo / "plain" / name).symlink_to(zoo)
        (zoo / "sharded" / name).symlink_to(zoo / "plain")
    places = list(islice(find_checkpoints(Source(glob=f"{zoo}/**"), zoo), 100))
    assert len({os.path.realpath(c.uri) for c in places}) == len(places) == len(IN_ZOO)
    files = list(islice(find_checkpoints(Source(glob=f"{zoo}/**/model.safetensors"), zoo), 100))
    assert 2 <= len(files) <= 2 * 9  # by their folders, and by the links to these


@pytest.mark.parametrize("pattern", ["hf://org/*", "s3://bucket/**", "https://host/*"])
def test_a_pattern_is_of_local_files(tmp_path, pattern):
    with pytest.raises(ConfigError, match="of local files"):
        found(tmp_path, glob=pattern)


# What is wanted


def test_what_matches_is_wanted_and_what_is_excluded_is_not(zoo):
    assert found(zoo, under=str(zoo), include=["*plain*", "*.zip"]) == [
        "packed/a.zarr.zip",
        "plain",
        "plain/step 2",
    ]
    assert found(zoo, under=str(zoo), include=["*plain*"], exclude=["*step*"]) == ["plain"]
    reason = f"{zoo}: no checkpoint there is asked for"
    assert [shown(c, Path("/x")) for c in find_checkpoints(Source(under=str(zoo), exclude=["*"]), zoo)] == [
        reason
    ]


def test_a_pattern_of_names_on_the_hub_needs_no_scheme(tmp_path):
    write(tmp_path / "l", b"hf://org/a\nhf://org/b\nhf://other/a\n")
    assert found(tmp_path, list="l", include=["org/*"]) == ["hf://org/a", "hf://org/b"]
    assert found(tmp_path, list="l", exclude=["hf://org/*"]) == ["hf://other/a"]


# Listings of what is far away


def grouped(*files: tuple[str, int | None] | str) -> list[tuple[str, int | None]]:
    listed = [(f, 10) if isinstance(f, str) else f for f in files]
    return [(c.uri, c.nbytes) for c in _grouped("s3://b/p", listed)]


def test_a_listing_is_grouped_by_folders():
    assert grouped(
        "model.safetensors", "b/model.safetensors", "a/x/model.safetensors", "a-x/pytorch_model.bin", "a/notes.md",
        ".git/model.safetensors", "b/.cache/model.safetensors", "c/.model.safetensors", "c/z.zarr.zip", "c/.z.zarr.zip",
    ) == [
        ("s3://b/p", 10), ("s3://b/p/a/x", 10), ("s3://b/p/a-x", 10), ("s3://b/p/b", 10), ("s3://b/p/c/z.zarr.zip", 10),
    ]  # fmt: skip


@pytest.mark.parametrize("mark", ["zarr.json", ".metadata"])
def test_what_belongs_to_one_checkpoint_is_not_gone_through(mark):
    below = ["g/w/zarr.json", "g/w/c/0", "g/model.safetensors", "g/x/model.safetensors"]
    others = ["g-x/model.safetensors", "gg/model.safetensors", "g.a/model.safetensors"]
    places = ["s3://b/p/g", "s3://b/p/g-x", "s3://b/p/g.a", "s3://b/p/gg"]
    assert [uri for uri, _ in grouped(f"g/{mark}", *below, *others)] == places
    assert grouped(mark, "g/model.safetensors", "model.safetensors") == [("s3://b/p", None)]


def test_many_groups_are_told_apart():
    files = [f"{i:05d}/{name}/zarr.json" for i in range(3000) for name in ("", "a", "b", "c")]
    assert len(grouped(*(f.replace("//", "/") for f in files))) == 3000


@pytest.mark.parametrize(
    ("files", "nbytes"),
    [
        ([("a.safetensors", 5), ("b.safetensors", 6), ("config.json", 100)], 11),
        ([("model.safetensors", 5), ("pytorch_model.bin", 6), ("x.ckpt", 7)], 5),
        ([("pytorch_model.bin", 6), ("consolidated.00.pth", 7), ("optimizer.pt", 99)], 6),
        ([("consolidated.00.pth", 7), ("consolidated.01.pth", 8)], 15),
        ([("model.safetensors.index.json", 1), ("model-00001-of-00002.safetensors", 5),
          ("model-00002-of-00002.safetensors", 6), ("consolidated.safetensors", 11)], 11),
        ([("model.safetensors.index.json", 1), ("part1.safetensors", 5)], None),
        ([("model.safetensors", None)], None),
        ([("a.safetensors", 5), ("b.safetensors", None)], None),
        ([("zarr.json", 5)], None),
        ([(".metadata", 5), ("__0_0.distcp", 6)], None),
    ],
)  # fmt: skip
def test_a_size_is_that_of_what_would_be_read_or_none(files, nbytes):
    """One that is too large would have a checkpoint skipped for its budget."""
    assert grouped(*[(f"m/{name}", size) for name, size in files]) == [("s3://b/p/m", nbytes)]


@pytest.mark.parametrize("under", ["https://host/models", "http://127.0.0.1:1/x"])
def test_a_web_server_lists_nothing(tmp_path, under):
    with pytest.raises(ConfigError, match="a web server lists nothing"):
        found(tmp_path, under=under)
