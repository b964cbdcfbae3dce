"""Configurations are read strictly: whatever is wrong is said, all at once, and nothing is guessed or passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.config import strict
from engine.config.census import CensusConfig, Source, load_census
from engine.config.jobs import load_job
from engine.config.strict import MOST_BYTES, read_yaml, write_yaml
from engine.errors import ConfigError
from engine.nouns.defaults import AHEAD, RANGES, WAREHOUSE
from tests.integration.helpers import ROOT

BASE = "job: scan\ncheckpoints: [a]\n"


def write(folder: Path, text: str | bytes, name: str = "census.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def loaded(folder: Path, text: str | bytes) -> CensusConfig:
    return load_census(write(folder, text))


def faults(folder: Path, text: str | bytes) -> list[str]:
    """What is wrong, a line for each fault."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_census(path)
    assert caught.value.file == str(path)
    first, *rest = caught.value.message.split("\n  ")
    if not rest:
        return [first]
    assert first == f"has {len(rest)} faults:"
    return rest


def fault(folder: Path, text: str | bytes) -> str:
    [found] = faults(folder, text)
    return found


# What is right


def test_the_least(tmp_path):
    config = loaded(tmp_path, BASE)
    assert config.checkpoints == (Source(uri="a"),)
    assert (config.warehouse, config.exact, config.budget.bytes) == (WAREHOUSE, False, None)
    assert (config.run.ray, config.run.ranges, config.run.ahead) == (None, RANGES, AHEAD)


def test_everything(tmp_path):
    config = loaded(
        tmp_path,
        """
job: scan
name: Night.1_b-2
warehouse: /w.duckdb
checkpoints:
  - hf://org/name
  - {uri: /a, name: A}
  - {glob: "~/models/**"}
  - {hub: org, newest: 3, include: ["*llama*"], exclude: ["*gguf*", "*awq*"]}
  - {under: "s3://bucket/prefix"}
  - {list: places.txt}
include: ["*"]
exclude: [x]
tensors: {include: ["*.weight"], exclude: []}
exact: yes
force: off
budget: {bytes: 1.5GB, seconds: 600}
run: {ray: auto, workers: 8, per_gpu: 2, memory: 8GiB, ranges: 4, task_size: 1048576, task_seconds: 2.5, ahead: 2}
export: /out
""",
    )
    assert [s.uri or s.glob or s.hub or s.under or s.list for s in config.checkpoints] == [
        "hf://org/name", "/a", "~/models/**", "org", "s3://bucket/prefix", "places.txt",
    ]  # fmt: skip
    assert config.checkpoints[3].exclude == ("*gguf*", "*awq*")
    assert (config.exact, config.force, config.tensors.include) == (True, False, ("*.weight",))
    assert (config.budget.bytes, config.budget.seconds) == (1_500_000_000, 600.0)
    assert (config.run.memory, config.run.task_size, config.run.task_seconds) == (8 << 30, 1 << 20, 2.5)
    assert (config.name, config.export) == ("Night.1_b-2", "/out")


def test_it_never_changes(tmp_path):
    with pytest.raises(ValidationError, match="frozen"):
        loaded(tmp_path, BASE).exact = True


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("nightly.yaml", "nightly"), ("a b (1).yaml", "a-b--1-"), (".hidden.yaml", "hidden"), ("日本.yaml", "census"),
        ("-x.yaml", "x"), ("über.yaml", "ber"), ("a.b.yaml", "a.b"), ("x" * 150 + ".yaml", "x" * 100),
        ("a\x1b[31m\n.yaml", "a--31m-"),
    ],
)  # fmt: skip
def test_a_census_is_called_as_its_file(tmp_path, file, name):
    config = load_census(write(tmp_path, BASE, file))
    assert config.name == name
    assert CensusConfig.model_validate(config.model_dump()) == config  # a name that is allowed
    assert load_census(write(tmp_path, BASE + "name: own\n", file)).name == "own"


def test_the_configurations_of_this_repository():
    paths = sorted((ROOT / "jobs" / "configs").glob("*.yaml"))
    assert len(paths) >= 2
    assert {load_job(p).job for p in paths} == {"scan", "delta", "merge", "report", "tune"}


def test_what_is_written_is_read_again(tmp_path):
    data = {"b": [1, "1", None, True, "yes", "<<", "é\x85\u2028\x1b"], "a": {"x": 1.5, "": []}}
    write_yaml(tmp_path / "x.yaml", data)
    found = read_yaml(tmp_path / "x.yaml")
    assert (found, list(found)) == (data, ["b", "a"])


# What is wrong


def test_all_faults_are_said_at_once(tmp_path):
    text = """
job: sacn
warehose: w
checkpoints:
  - {uri: a, hub: b}
  - 3
  - {}
  - {hub: org, newst: 3}
exact: 1
run: {workers: 0, rays: auto, ahead: 257}
budget: {bytes: lots, seconds: -1}
"""
    assert sorted(faults(tmp_path, text)) == [
        "budget.bytes: expected a size such as 500MB or 256MiB, not 'lots'",
        "budget.seconds: expected greater than 0, found -1",
        "checkpoints.0: expected exactly one of uri, glob, hub, under, list, found uri and hub",
        "checkpoints.1: expected keys and values, found 3",
        "checkpoints.2: expected exactly one of uri, glob, hub, under, list, found none",
        "checkpoints.3.newst: there is no such key; did you mean 'newest'?",
        "exact: expected a valid boolean, found 1",
        "job: expected 'scan', found 'sacn'",
        "run.ahead: expected less than or equal to 256, found 257",
        "run.rays: there is no such key; did you mean 'ray'?",
        "run.workers: expected greater than 0, found 0",
        "warehose: there is no such key; did you mean 'warehouse'?",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Warehouse: w", "Warehouse: there is no such key; did you mean 'warehouse'?"),
        ("str: w", "str: there is no such key"),
        ("a[0]: w", "a[0]: there is no such key"),
        ("zzzzzz: 1", "zzzzzz: there is no such key"),
        ("'': 1", "'': there is no such key"),
        ("run: {Workers: 1}", "run.Workers: there is no such key; did you mean 'workers'?"),
        ("tensors: {warehouse: 1}", "tensors.warehouse: there is no such key"),
        ("1: x", "1: keys should be strings, found 1"),
        ("~: x", "None: keys should be strings, found None"),
        ("include: '*'", "include: expected a list, found '*'"),
        ("include: [1]", "include.0: expected a valid string, found 1"),
        ("include: [[a]]", "include.0: expected a valid string"),
        ("include: {a: b}", "include: expected a list"),
        ("tensors: x", "tensors: expected keys and values, found 'x'"),
        ("tensors: [a]", "tensors: expected keys and values"),
        ("budget:", "budget: expected keys and values, found None"),
        ("exact: 'yes'", "exact: expected a valid boolean, found 'yes'"),
        ("name: ''", "name: string should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$', found ''"),
        ("name: ../x", "name: string should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$', found '../x'"),
        ('name: "a\\n"', "name: string should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$', found 'a\\n'"),
        ("name: 2024-01-01", "name: expected a valid string, found datetime.date(2024, 1, 1)"),
        ("warehouse: ''", "warehouse: string should have at least 1 character, found ''"),
        ("warehouse: ~", "warehouse: expected a valid string, found None"),
        ("export: ''", "export: string should have at least 1 character, found ''"),
        ("run: {workers: true}", "run.workers: expected a valid integer, found True"),
        ("run: {workers: 2.0}", "run.workers: expected a valid integer, found 2.0"),
        ("run: {workers: '2'}", "run.workers: expected a valid integer, found '2'"),
        ("run: {task_seconds: .nan}", "run.task_seconds: expected a finite number, found nan"),
        ("run: {task_seconds: .inf}", "run.task_seconds: expected a finite number, found inf"),
        ("run: {task_seconds: 0}", "run.task_seconds: expected greater than 0, found 0"),
        ("budget: {bytes: 0}", "budget.bytes: expected greater than 0, found 0"),
        ("budget: {bytes: 0.4B}", "budget.bytes: expected greater than 0, found '0.4B'"),
        ("budget: {bytes: -5}", "budget.bytes: expected greater than 0, found -5"),
        ("budget: {bytes: 1.5}", "budget.bytes: expected a valid integer, found 1.5"),
        ("budget: {bytes: 1e3}", "budget.bytes: expected a size such as 500MB or 256MiB, not '1e3'"),
        ("budget: {bytes: 5 elephants}", "budget.bytes: expected a size such as 500MB or 256MiB, not '5 elephants'"),
        (f"budget: {{bytes: {'9' * 400}TB}}", "budget.bytes: expected a size, found one beyond all bounds"),
        ('name: "\\ud800"', "name: is not valid Unicode"),
    ],
)  # fmt: skip
def test_one_fault(tmp_path, line, said):
    assert fault(tmp_path, BASE + line + "\n") == said


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{}", "expected exactly one of uri, glob, hub, under, list, found none"),
        ("{include: ['*']}", "expected exactly one of uri, glob, hub, under, list, found none"),
        ("{uri: a, list: b}", "expected exactly one of uri, glob, hub, under, list, found uri and list"),
        (
            "{list: a, under: b, hub: c, glob: d, uri: e}",
            "expected exactly one of uri, glob, hub, under, list, found uri and glob and hub and under and list",
        ),
        ("{uri: ~}", "expected exactly one of uri, glob, hub, under, list, found none"),
        ("{hub: org, name: x}", "name: only one checkpoint has a name, not a hub"),
        ("{under: a, newest: 1}", "newest: only a hub knows what is new, not a under"),
        ("~", "expected keys and values, found None"),
        ("[a]", "expected keys and values"),
    ],
)
def test_a_source_is_one_place(tmp_path, source, said):
    assert fault(tmp_path, f"job: scan\ncheckpoints:\n- ok\n- {source}\n") == f"checkpoints.1: {said}"


@pytest.mark.parametrize("kind", ["uri", "glob", "hub", "under", "list"])
def test_a_place_of_no_letters_is_none(tmp_path, kind):
    """An empty path is the folder that one happens to be in."""
    said = f"checkpoints.0.{kind}: string should have at least 1 character, found ''"
    assert fault(tmp_path, f"job: scan\ncheckpoints: [{{{kind}: ''}}]\n") == said
    short = fault(tmp_path, "job: scan\ncheckpoints: ['']\n")
    assert short == "checkpoints.0.uri: string should have at least 1 character, found ''"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("checkpoints: [a]\n", ["job: is missing"]),
        ("{}\n", ["job: is missing", "checkpoints: is missing"]),
        ("job: scan\ncheckpoints: []\n", ["checkpoints: names no place"]),
        ("job: scan\ncheckpoints:\n", ["checkpoints: expected a list, found None"]),
        ("job: scan\ncheckpoints: a\n", ["checkpoints: expected a list, found 'a'"]),
        ("job: scan\ncheckpoints: {uri: a}\n", ["checkpoints: expected a list"]),
        ("", ["expected keys and values, found nothing"]),
        ("# only words\n", ["expected keys and values, found nothing"]),
        ("[a]", ["expected keys and values, found a list"]),
        ("scan", ["expected keys and values, found a str"]),
    ],
)
def test_the_frame(tmp_path, text, said):
    assert faults(tmp_path, text) == said


def test_of_very_many_faults_the_first_are_told(tmp_path):
    path = write(tmp_path, "job: scan\ncheckpoints:\n" + "- 3\n" * 5000)
    with pytest.raises(ConfigError) as caught:
        load_census(path)
    first, *lines, last = caught.value.message.split("\n  ")
    assert (first, last) == ("has 5,000 faults:", "and 4,900 more")
    assert lines[99] == "checkpoints.99: expected keys and values, found 3"
    assert len(lines) == 100


@pytest.mark.parametrize(
    "line", ["name: {}", "budget: {{bytes: {}}}", "{}: 1", "checkpoints: {}", "run: {{workers: {}}}"]
)
def test_a_long_value_is_cut(tmp_path, line):
    path = write(tmp_path, "job: scan\n" + line.format('"' + "x" * 1000 + '"'))
    with pytest.raises(ConfigError) as caught:
        load_census(path)
    assert max(map(len, caught.value.message.split("\n"))) < 400


# YAML


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1: 'a' is there twice"),
        ("r: {a: 1, 'a': 2}\n", "line 1, column 11: 'a' is there twice"),
        ("a:\n- b:\n    c: 1\n    c: 1\n", "line 4, column 5: 'c' is there twice"),
        ("a: &x [1]\nb: *x\n", "line 2, column 4: aliases are not read"),
        ("*x : 1\n", "line 1, column 1: aliases are not read"),
        ("a: &x {b: *x}\n", "line 1, column 11: aliases are not read"),
        ("a: {<<: {b: 1}}\n", "line 1, column 5: '<<' is not read"),
        ("<<: [{b: 1}]\n", "line 1, column 1: '<<' is not read"),
        ("a: 1\n---\nb: 1\n", "line 2, column 1: but found another document"),
        ("? [a]\n: 1\n", "line 1, column 3: found unhashable key"),
        ("a: [1\nb: 2\n", "line 2, column 2: expected ',' or ']', but got ':'"),
        ("a: b: c\n", "line 1, column 5: mapping values are not allowed here"),
        ("\tx: 1\n", "line 1, column 1: found character '\\t' that cannot start any token"),
        ("a: !!bool maybe\n", "line 1, column 4: tags are not read"),
        ("a: !!map [1, 2]\n", "line 1, column 4: tags are not read"),
        ("a: !!timestamp x\n", "line 1, column 4: tags are not read"),
        ('a: !!int ""\n', "line 1, column 4: tags are not read"),
        ("a: !!python/object/apply:os.system ['true']\n", "line 1, column 4: tags are not read"),
        ("!!set {a, b}\n", "line 1, column 1: tags are not read"),
        ('a: "\\UFFFFFFFF"\n', "is no YAML: "),
        ('a: "\\U00110000"\n', "is no YAML: "),
        ("a: 2024-02-30\n", "is no YAML: "),
        (f"a: {'9' * 5000}\n", "line 1, column 4: a whole number of 5,000 characters is not read"),
        (f"a: 0x{'f' * 4000}\n", "line 1, column 4: a whole number of 4,002 characters is not read"),
        ("a: \x00\n", "is no YAML: unacceptable character #x0000"),
        ("a: \x1b[31m\n", "is no YAML: unacceptable character #x001b"),
        (b"a: \xff\n", "is no text in UTF-8"),
        ("a: é\n".encode("latin-1"), "is no text in UTF-8"),
        ("a: b\n".encode("utf-16"), "is no text in UTF-8"),
        ("%YAML 9.9\n---\na: 1\n", "line 1, column 1: found incompatible YAML document"),
    ],
)  # fmt: skip
def test_what_is_not_read(tmp_path, text, said):
    assert fault(tmp_path, text).startswith(said)


@pytest.mark.parametrize("make", ["[{}]", "{{a: {}}}", "- {}", "? {}"])
@pytest.mark.parametrize("depth", [60, 2000, 100_000])
def test_nothing_is_nested_deeply(tmp_path, make, depth):
    before, after = make.replace("{{", "{").replace("}}", "}").rsplit("{}", 1)
    assert "more than 50 levels" in fault(tmp_path, before * depth + "1" + after * depth)


def test_but_so_deep_as_anybody_needs(tmp_path):
    assert read_yaml(write(tmp_path, "[" * 49 + "1" + "]" * 49)) is not None


def test_a_file_has_a_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr(strict, "MOST_BYTES", 1000)
    text = BASE + "#" * 1000
    assert loaded(tmp_path, text[:1000]).job == "scan"
    assert fault(tmp_path, text[:1001]) == "is no configuration: larger than 1,000 bytes"
    assert MOST_BYTES >= 1 << 20


def test_a_file_that_does_not_end(monkeypatch):
    monkeypatch.setattr(strict, "MOST_BYTES", 1000)
    with pytest.raises(ConfigError, match="/dev/zero: is no configuration: larger than 1,000 bytes"):
        load_census("/dev/zero")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.yaml", "No such file"),
        (".", "Is a directory"),
        ("x" * 300, "too long"),
        ("a\0b", "is not a usable path"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, name, said):
    with pytest.raises(ConfigError, match=said):
        load_census(tmp_path / name)


def test_marks_at_the_start_of_a_file_mean_nothing(tmp_path):
    assert loaded(tmp_path, b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode()).job == "scan"


@given(
    st.one_of(st.binary(max_size=60), st.text("ab:-[]{}?!&*<>|%@`\"'#, \n\t0.~", max_size=60).map(str.encode))
)
def test_whatever_a_file_holds_it_is_read_or_refused(scratch, content):
    path = write(scratch, content)
    try:
        load_census(path)
    except ConfigError as error:
        assert error.file == str(path)
