"""Configurations, schedules and the cluster's file are what they say they are, and jobs run on a cluster."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jsonschema
import pytest
import yaml

from engine.config.jobs import load_job
from engine.errors import TaskError
from engine.execution.ray_jobs import RayJobs
from engine.verbs.tune import RunReport, TuneReport
from tests.builders import write, write_tensors
from tests.integration.clusters import VARIABLES
from tests.integration.documents import Session, blocks_of, demo_model
from tests.integration.helpers import ROOT, environment, gaussmeter, llama, made, normal, rows
from tests.integration.merges import weights
from tests.integration.servers import AnswerError, FileServer, Server
from tests.integration.test_own_adapters import base_model, noise

JOBS = ROOT / "jobs"
CONFIGS = sorted((JOBS / "configs").glob("*.yaml"))
SCHEDULES = JOBS / "schedules"
MERGED = "merge:\n  models: [{model: a}, {model: b}]"


def header(path: Path) -> list[str]:
    """The words of the command that a file's first line is."""
    return shlex.split(path.read_text().splitlines()[0].removeprefix("# "))


# Configurations


def test_there_are_configurations_and_each_begins_with_its_command():
    assert len(CONFIGS) >= 2
    for path in CONFIGS:
        assert header(path)[:3] == ["gaussmeter", "job", f"jobs/configs/{path.name}"]
        assert load_job(path).name == path.stem


def test_the_laptop_s_configuration_finds_what_lies_in_the_cache_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    repository = tmp_path / ".cache" / "huggingface" / "hub" / "models--org--name"
    blob = write_tensors(repository / "blobs" / "0123", llama())
    snapshot = repository / "snapshots" / "abcdef"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(os.path.relpath(blob, snapshot))
    (command,) = (header(path) for path in CONFIGS if path.stem == "laptop")
    words = [str(ROOT / word) if word.startswith("jobs/") else word for word in command[1:]]
    ran = gaussmeter(*words, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert "1 checkpoint: 1 scanned" in ran.out
    ((uri,),) = rows(tmp_path / "stats.duckdb", "SELECT uri FROM subjects")
    assert uri.endswith("snapshots/abcdef")


def test_recipes_are_short():
    recipes = sorted(JOBS.glob("*.py"))
    assert recipes
    for path in recipes:
        assert len(path.read_text().splitlines()) < 120


def delta_of(folder: Path) -> Path:
    """A configuration of a delta, with what it names."""
    for number in (0, 1):
        write_tensors(folder / f"m{number}.safetensors", llama(seed=number))
    text = f"job: delta\nwarehouse: {folder}/w.duckdb\nbase: {folder}/m0.safetensors\ntuned: [{folder}/m1.safetensors]\n"
    return write(folder / "delta.yaml", text.encode())


def test_a_delta_by_configuration(tmp_path):
    config = delta_of(tmp_path)
    config.write_text(config.read_text() + f"export: {tmp_path}/out\n")
    ran = gaussmeter("job", config)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("m1-minus-m0: 11 tensors, ")
    assert len(list((tmp_path / "out" / "bins").glob("*/*.parquet"))) == 1
    assert (
        json.loads(gaussmeter("job", config, "--format", "json").out)["subjects"][0]["status"] == "unchanged"
    )
    assert "only a census has a dry run" in gaussmeter("job", config, "--dry-run").sentence(2)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("job: delta\nbase: a", "exactly one of tuned, adapters"),
        ("job: delta\ntuned: [a]", "base: is missing"),
        ("job: delta\nbase: a\ntuned: [b]\nadapters: [c]", "exactly one of"),
        ("job: delta\nbase: a\ntuend: [b]", "did you mean 'tuned'?"),
        ("base: a", "job: is missing"),
        ("job: report", "subjects: is missing"),
        ("job: report\nsubjects: []", "subjects: "),
        ("job: report\nsubjects: [a]\nexport: e", "export: a report reads no weights"),
        ("job: guess", "job: is one of scan, delta, merge, report, tune, not 'guess'"),
        ("job: [scan]", "job: is one of scan, delta"),
        ("job: merge\nout: o", "expected exactly one of merge, adapter"),
        ("job: merge\nout: o\nmerge: m.yaml\nadapter: a", "expected exactly one of merge, adapter"),
        (
            "job: merge\nout: o\nmerge: m.yaml\nbase: b",
            "base: goes with adapter; under merge it is base_model",
        ),
        ("job: merge\nmerge: m.yaml", "out: is missing"),
        (
            "job: merge\nout: o\nmerge: [a]",
            "merge: expected mergekit's keys and values, or the path of a file",
        ),
        ("job: merge\nout: o\nmerge: m.yaml\nexact: true", "exact: there is no such key"),
        ("job: merge\nout: o\nmerge: m.yaml", "m.yaml: cannot be read: No such file"),
        (
            f"job: merge\nout: o\n{MERGED}\n  slices: []",
            "wrong.yaml: merge: has 2 faults: slices: layers are not cut out",
        ),
        (f"job: merge\nout: o\n{MERGED}\n  merge_method: lienar", "did you mean 'linear'?"),
    ],
)
def test_a_wrong_job_is_one_sentence(tmp_path, text, sentence):
    config = write(tmp_path / "wrong.yaml", text.encode())
    ran = gaussmeter("job", config, cwd=tmp_path)
    assert ran.code == 2
    assert sentence in ran.err


def merge_of(folder: Path, *, inline: bool = True) -> Path:
    """A configuration of a merge, with what it names."""
    delta_of(folder)
    recipe = (
        f"merge_method: task_arithmetic\nbase_model: {folder}/m0.safetensors\n"
        f"models:\n- {{model: {folder}/m1.safetensors, parameters: {{weight: 0.5}}}}\n"
    )
    write(folder / "parts" / "recipe.yaml", recipe.encode())
    said = textwrap.indent(recipe, "  ") if inline else "  parts/recipe.yaml\n"
    text = f"job: merge\nwarehouse: {folder}/w.duckdb\nout: {folder}/merged\nmerge:\n{said}"
    return write(folder / "merge.yaml", text.encode())


def tensors_of(folder: Path) -> dict[str, bytes]:
    return {name: tensor.data.tobytes() for name, tensor in weights(folder).items()}


@pytest.mark.parametrize("inline", [True, False])
def test_a_merge_by_configuration(tmp_path, inline):
    config = merge_of(tmp_path, inline=inline)
    config.write_text(config.read_text() + f"export: {tmp_path}/exported\nshard_size: 3000\n")
    ran = gaussmeter("job", config)
    assert ran.code == 0, ran.err
    assert f"{tmp_path}/merged: 11 tensors merged, 0 copied, 0 left out, subject " in ran.out
    assert len(list((tmp_path / "exported" / "bins").glob("*/*.parquet"))) == 1
    again = json.loads(gaussmeter("job", config, "--format", "json").out)
    assert (again["status"], again["name"]) == ("unchanged", "merged")
    assert again["files"] > 1
    gaussmeter("merge", tmp_path / "parts" / "recipe.yaml", tmp_path / "two", "-w", tmp_path / "w.duckdb")
    assert tensors_of(tmp_path / "merged") == tensors_of(tmp_path / "two")
    config.write_text(
        config.read_text().replace("0.5", "0.25") if inline else config.read_text() + "force: on\n"
    )
    ran = gaussmeter("job", config)
    assert ("holds another merge" in ran.err) == inline
    assert (ran.code, "11 tensors merged" in ran.out) == ((2, False) if inline else (0, True))
    assert "only a census has a dry run" in gaussmeter("job", config, "--dry-run").sentence(2)


def test_an_adapter_by_configuration(tmp_path):
    path, _ = noise(tmp_path / "adapter")
    base, _ = base_model(tmp_path)
    text = f"job: merge\nwarehouse: {tmp_path}/w.duckdb\nadapter: {path}\nbase: {base}\nout: {tmp_path}/out\n"
    ran = gaussmeter("job", write(tmp_path / "fold.yaml", text.encode()))
    assert "2 tensors merged, 0 copied, 0 left out, subject 1" in ran.out, ran.err


def test_the_recipe_of_a_merge(tmp_path):
    command = [sys.executable, str(JOBS / "merge.py"), str(merge_of(tmp_path, inline=False))]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"{tmp_path}/merged: merged, 11 tensors by task_arithmetic\n")
    assert "sigma " in ran.stdout


@pytest.mark.parametrize(
    "changed",
    [{"output": "runs"}, {"model": "./m"}, {"data": "glue"}, {"tasks": [{"task": "sst2", "train": "x.tsv"}]}],
)
def test_adaptation_runs_elsewhere_name_absolute_places(tmp_path, changed):
    given = {"job": "tune", "warehouse": "/w.duckdb", "output": "/runs", "model": "org/m", "data": "hub",
             "methods": ["head"], "tasks": ["sst2"]}  # fmt: skip
    config = write(tmp_path / "x.yaml", yaml.safe_dump(given | changed).encode())
    ran = gaussmeter("job", config, "--submit", "http://127.0.0.1:1", cwd=tmp_path)
    assert "is relative, and a job runs elsewhere" in ran.sentence(2)


def recipe(name: str, *words: object) -> int:
    """Run a recipe in this process; returns its exit code."""
    with patch.object(sys, "argv", [f"jobs/{name}.py", *map(str, words)]), pytest.raises(SystemExit) as end:
        runpy.run_path(str(JOBS / f"{name}.py"), run_name="__main__")
    return int(end.value.code or 0)


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.py")), ids=lambda path: path.stem)
def test_a_recipe_says_what_is_wrong(tmp_path, capsys, path):
    assert recipe(path.stem) == 2
    assert "the following arguments are required: CONFIG.yaml" in capsys.readouterr().err
    assert recipe(path.stem, tmp_path / "none.yaml") == 2
    assert f"jobs/{path.stem}.py: {tmp_path}/none.yaml: cannot be read" in capsys.readouterr().err
    if path.stem in ("delta", "merge", "report"):
        other = write(tmp_path / "x.yaml", b"job: scan\ncheckpoints: [m]\n")
        assert recipe(path.stem, other) == 2
        assert f"x.yaml: describes a scan, not a {path.stem}" in capsys.readouterr().err


def test_the_recipe_of_adaptation_runs(tmp_path, capsys, monkeypatch):
    config = write(tmp_path / "x.yaml", b"job: tune\nmodel: ./none\nmethods: [noise]\ntasks: [sst2]\n")
    assert recipe("tune", config) == 2
    assert "none: there is no such folder" in capsys.readouterr().err
    asked = []

    def tune(config: Any, **more: Any) -> TuneReport:
        asked.append((more["ray"], more["resume"]))
        return TuneReport((RunReport("try/a", "failed", reason="no disk"),), 1.0)

    monkeypatch.setattr("engine.tune", tune, raising=False)
    monkeypatch.setattr("engine.verbs.tune.load_tune", load_job)
    config.write_text(config.read_text() + f"warehouse: {made(tmp_path / 'w.duckdb')}\n")
    assert recipe("tune", config) == 3
    assert recipe("tune", config, "auto", "--resume") == 3
    assert asked == [(None, False), ("auto", True)]
    assert "failed    try/a: no score (no disk)\n" in capsys.readouterr().out


def test_the_recipe_of_a_delta(tmp_path):
    command = [sys.executable, str(JOBS / "delta.py"), str(delta_of(tmp_path))]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "% of the elements changed" in ran.stdout
    assert "sigma " in ran.stdout


def test_the_recipe_of_a_delta_of_nothing(tmp_path, capsys):
    config = delta_of(tmp_path)
    write_tensors(tmp_path / "m1.safetensors", llama(seed=0))
    assert recipe("delta", config) == 0
    said = capsys.readouterr().out
    assert "m1-minus-m0: 0.00% of the elements changed" in said
    assert "sigma 0.000e+00\n" in said


def report_of(folder: Path) -> Path:
    """A configuration of a report, with what it names."""
    write_tensors(folder / "m.safetensors", llama())
    assert gaussmeter("scan", folder / "m.safetensors", "--name", "m", "-w", folder / "w.duckdb").code == 0
    text = f"job: report\nwarehouse: {folder}/w.duckdb\nsubjects: [m]\noutput: {folder}/m.html\n"
    return write(folder / "report.yaml", text.encode())


def test_a_report_by_configuration(tmp_path):
    config = report_of(tmp_path)
    ran = gaussmeter("job", config)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{tmp_path}/m.html: 1 subject, 5 pictures, ")
    assert (tmp_path / "m.html").read_text().startswith("<!doctype html>")
    assert json.loads(gaussmeter("job", config, "-f", "json").out)["subjects"] == ["m"]
    assert "only a census has a dry run" in gaussmeter("job", config, "--dry-run").sentence(2)


def test_the_recipe_of_a_report(tmp_path):
    config = report_of(tmp_path)
    path = write_tensors(tmp_path / "flat.safetensors", {"w": normal("F32", 16, 16)})
    assert gaussmeter("scan", path, "--name", "flat", "-w", tmp_path / "w.duckdb").code == 0
    config.write_text(config.read_text().replace("[m]", "[flat, m]"))
    command = [sys.executable, str(JOBS / "report.py"), str(config)]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("% within 3 sigma") == 2
    assert re.search("no sigma: .*layer", ran.stdout)
    assert len(list(tmp_path.glob("*.1.*.png"))) == 3


# Schedules


def test_the_schedules_run_the_command_on_the_configuration():
    job = yaml.safe_load((SCHEDULES / "rayjob.yaml").read_text())
    cron = yaml.safe_load((SCHEDULES / "raycronjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert (cron["apiVersion"], cron["kind"]) == ("ray.io/v1", "RayCronJob")
    assert cron["spec"]["jobTemplate"] == job["spec"]
    assert re.fullmatch(r"(\S+ ){4}\S+", cron["spec"]["schedule"])
    assert shlex.split(job["spec"]["entrypoint"]) == [
        "gaussmeter",
        "job",
        "/config/nightly.yaml",
        "--ray",
        "auto",
        "--workers",  # no node has come yet that could be counted
        "8",
    ]
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounts = {m["name"] for c in head["containers"] for m in c["volumeMounts"]}
    assert mounts == {v["name"] for v in head["volumes"]}

    import ray

    assert job["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__
    lines = [line for line in (SCHEDULES / "crontab").read_text().splitlines() if not line.startswith("#")]
    (line,) = lines
    assert re.match(r"(\S+ ){4}\S+ +cd ", line)
    assert "gaussmeter job jobs/configs/nightly.yaml" in line


# The cluster's file


def on_premises(text: str) -> dict[str, Any]:
    """The file with the commented block in place of Amazon's."""
    start = text.index("# provider:")
    block = "".join(line.removeprefix("#").removeprefix(" ") for line in text[start:].splitlines(True))
    whole = yaml.safe_load(text)
    for key in ("provider", "auth", "head_node_type", "available_node_types", "max_workers"):
        del whole[key]
    return whole | yaml.safe_load(block)


@pytest.mark.parametrize("change", [yaml.safe_load, on_premises])
def test_the_cluster_s_file_is_valid_to_ray(change):
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = change((ROOT / "cluster.yaml").read_text())
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config | {"max_worker": 1}, schema)
    validate_config(prepare_config(config))


def test_the_cluster_s_workers_have_gpus_and_come_and_go():
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    kinds = config["available_node_types"]
    (workers,) = (kind for name, kind in kinds.items() if name != config["head_node_type"])
    assert workers["resources"]["GPU"] >= 1
    assert workers["min_workers"] < workers["max_workers"] <= config["max_workers"]


# On a cluster


def free_port() -> int:
    """A port below those that the system gives to whoever asks, as other tests do meanwhile."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def started(folder: Path) -> Iterator[str]:
    """A cluster that `ray start` makes on loopback; it is ended by its processes' numbers."""
    dashboard = free_port()
    ports = {
        "port": free_port(),
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": free_port(),
        "ray-client-server-port": free_port(),
    }
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    command += [
        "--object-store-memory=100000000",
        "--min-worker-port=0",
        "--max-worker-port=0",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env=environment(**VARIABLES, PYTHONWARNINGS="ignore"),
            start_new_session=True,
        )
    try:
        wait_for(dashboard, process, folder / "log")
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with (
        patch.dict(os.environ, VARIABLES),
        tempfile.TemporaryDirectory(
            prefix="gm-", ignore_cleanup_errors=True
        ) as folder,  # its path must be short
        started(Path(folder)) as found,
    ):
        yield found


def census_of(folder: Path, name: str, *places: Path) -> Path:
    listed = "".join(f"  - {place}\n" for place in places)
    text = f"job: scan\nwarehouse: {folder}/w.duckdb\ncheckpoints:\n{listed}"
    return write(folder / f"{name}.yaml", text.encode())


def test_a_job_on_a_cluster_ends_well_or_says_why_not(address, tmp_path):
    path = write_tensors(tmp_path / "model.safetensors", llama())
    good = census_of(tmp_path, "good", path)
    ran = gaussmeter("job", good, "--submit", address)
    assert ran.code == 0, ran.err
    assert "1 checkpoint: 1 scanned" in ran.out
    number = ran.err.split(":")[0]
    assert ran.err == f"{number}: submitted\n{number}: SUCCEEDED\n"
    assert gaussmeter("job", "--submit", address, "--status", number).out == "SUCCEEDED\n"
    assert rows(tmp_path / "w.duckdb", "SELECT count(*) FROM subjects WHERE status = 'complete'") == [(1,)]

    path.write_bytes(path.read_bytes()[:-1])
    ran = gaussmeter("job", census_of(tmp_path, "bad", path), "--submit", address)
    assert ran.code == 3
    number = ran.err.split(":")[0]
    assert gaussmeter("job", "--submit", address, "--status", number).out == "FAILED\n"
    log = gaussmeter("job", "--submit", address, "--logs", number).out
    assert re.search(r"refused +\S*model\.safetensors: .*bytes", log)
    listed = gaussmeter("job", "--submit", address).out.splitlines()
    assert [line.split()[1:3] for line in listed] == [["FAILED", "bad"], ["SUCCEEDED", "good"]]


def test_a_job_that_runs_is_not_started_again_and_can_be_stopped(address, tmp_path):
    path = write_tensors(tmp_path / "model.safetensors", llama())
    config = census_of(tmp_path, "slow", path)
    hold = socket.socket()  # a server that never answers keeps the job busy
    with hold:
        hold.bind(("127.0.0.1", 0))
        hold.listen(8)
        config.write_text(
            config.read_text() + f"  - http://127.0.0.1:{hold.getsockname()[1]}/model.safetensors\n"
        )
        first = gaussmeter("job", config, "--submit", address, "--no-wait")
        number = first.err.split(":")[0]
        assert first.err == f"{number}: submitted\n"
        again = gaussmeter("job", config, "--submit", address, "--no-wait")
        assert again.err == f"{number}: is running already\n"
        assert gaussmeter("job", "--submit", address, "--stop", number).out == f"{number}: stopping\n"
        until = time.monotonic() + 60
        while gaussmeter("job", "--submit", address, "--status", number).out != "STOPPED\n":
            assert time.monotonic() < until
            time.sleep(0.5)
    assert gaussmeter("job", "--submit", address, "--stop", number).out == f"{number}: was not running\n"


def test_the_recipe_runs_from_a_checkout_on_a_cluster(address, tmp_path):
    path = write_tensors(tmp_path / "model.safetensors", llama())
    config = census_of(tmp_path, "recipe", path)
    command = [
        "-m",
        "ray.scripts.scripts",
        "job",
        "submit",
        "--address",
        address,
        "--working-dir",
        ROOT,
        "--",
    ]
    words = [*command, sys.executable, "-m", "jobs.scan", config, "auto"]
    ran = subprocess.run(
        [sys.executable, *map(str, words)],
        env=environment(PYTHONWARNINGS="ignore"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 scanned" in ran.stdout


def test_the_page_for_operators(address, tmp_path):
    for name in ("work", "data", "models/cut", "backup"):
        (tmp_path / name).mkdir(parents=True)
    model = demo_model()
    (tmp_path / "models" / "all-MiniLM-L6-v2").symlink_to(model)
    with (model / "model.safetensors").open("rb") as whole:
        write(tmp_path / "models" / "cut" / "model.safetensors", whole.read(1 << 20))
    places = {f"/{name}": str(tmp_path / name) for name in ("data", "models", "backup")}
    number = "raysubmit_TyhNBWPzV4kKGxQe"
    page = ROOT / "docs" / "operators.md"
    assert number in page.read_text(encoding="utf-8")
    session = Session(
        tmp_path / "work",
        {"ray": understood_by_ray, "export": as_in_the_cluster_s_file},
        places | {"http://127.0.0.1:8265": address},
        {number: re.compile(r"raysubmit_\w+")},
    )
    session.read(page)
    assert session.done == len(blocks_of(page)) >= 12


def understood_by_ray(words: list[str]) -> None:
    """Ray's command line takes these words; what it would run is one of our commands."""
    from ray.scripts.scripts import cli

    _, name, *rest = words
    with contextlib.chdir(ROOT):
        taken = cli.commands[name].make_context(name, list(rest)).params
    if name != "start":
        assert (ROOT / taken["cluster_config_file"]).is_file()
    if name == "exec":
        assert f"# {shlex.join(words).replace(shlex.quote(taken['cmd']), repr(taken['cmd']))}" in (
            ROOT / "cluster.yaml"
        ).read_text().replace("#   ", "# ")
        assert taken["cmd"].startswith("cd gaussmeter && gaussmeter job jobs/configs/nightly.yaml ")


def as_in_the_cluster_s_file(words: list[str]) -> None:
    text = (ROOT / "cluster.yaml").read_text()
    assert all(text.count(word) == 2 for word in words[1:])


class Cluster(Server):
    """Says that it is Ray, knows no job `nothing`, and has lost its memory of all others."""

    def route(self, request: Any) -> None:
        if request.target == "/api/version":
            request.reply(200, {"ray_version": "99.0", "version": "4"})
        else:
            raise AnswerError(404 if "nothing" in request.target else 500)


def test_a_cluster_that_cannot_answer_is_one_sentence(tmp_path):
    with Cluster(tmp_path) as cluster:
        address, jobs = cluster.url, RayJobs(cluster.url)
        assert "has no job 'nothing'" in gaussmeter(
            "job", "--submit", address, "--status", "nothing"
        ).sentence(2)
        for words in (["--status", "one"], ["--logs", "one"], ["--stop", "one"], []):
            sentence = gaussmeter("job", "--submit", address, *words).sentence(3)
            assert "does not answer as it should: Request failed with status code 500" in sentence
    for ask in (jobs.all, partial(jobs.stop, "one"), partial(next, jobs.follow("one"))):
        with pytest.raises(TaskError, match="the cluster does not answer: "):
            ask()
    with FileServer(tmp_path) as other:
        write(tmp_path / "api" / "version", b"{}")
        assert "no Ray cluster answers there" in gaussmeter("job", "--submit", other.url).sentence(2)


@pytest.mark.parametrize(
    "words",
    [["--dry-run"], ["--warehouse", "w.duckdb"], ["--ray", "auto"], ["--workers", "2"], ["--device", "cpu"],
     ["--events", "e.jsonl"], ["--format", "json"], ["--quiet"]],
)  # fmt: skip
def test_what_a_job_that_is_sent_away_would_leave_out_is_refused(tmp_path, words):
    config = census_of(tmp_path, "census", tmp_path)
    sentence = gaussmeter("job", config, *words, "--submit", "http://127.0.0.1:1", cwd=tmp_path).sentence(2)
    assert f"{words[0]} does not go with --submit" in sentence
    assert [path.name for path in tmp_path.iterdir()] == ["census.yaml"]


def test_what_is_asked_of_adaptation_runs_is_sent(tmp_path, monkeypatch):
    sent = []

    class Jobs:
        def __init__(self, address: str) -> None:
            self.address = address

        def all(self) -> list[Any]:
            return []

        def submit(self, command: str, folder: Path, name: str) -> str:
            sent.append(
                (
                    shlex.split(command.partition("exec $PY ")[2]),
                    yaml.safe_load((folder / "job.yaml").read_text()),
                )
            )
            return "raysubmit_1"

    monkeypatch.setattr("engine.verbs.submit.RayJobs", Jobs)
    given = {"job": "tune", "warehouse": "/w.duckdb", "output": "/runs", "model": "org/m", "data": "hub",
             "methods": ["head"], "tasks": ["sst2"]}  # fmt: skip
    config = write(tmp_path / "x.yaml", yaml.safe_dump(given).encode())
    words = ["-m", "engine", "job", "job.yaml", "--ray"]
    for more, command in (([], [*words, "auto"]), (["--resume"], [*words, "auto", "--resume"])):
        ran = gaussmeter("job", config, *more, "--submit", "http://127.0.0.1:1", "--no-wait")
        assert (ran.code, ran.err) == (0, "raysubmit_1: submitted\n")
        assert sent.pop() == (command, given | {"name": "x"})
    for ray, command in (("10.0.0.1:6379", [*words, "10.0.0.1:6379"]), ("local", None)):
        config.write_text(yaml.safe_dump(given | {"run": {"ray": ray}}))
        ran = gaussmeter("job", config, "--submit", "http://127.0.0.1:1", "--no-wait")
        if command is None:
            assert "run.ray: a job on a cluster cannot start a private one" in ran.sentence(2)
        else:
            assert sent.pop()[0] == command
    census = census_of(tmp_path, "census", tmp_path)
    ran = gaussmeter("job", census, "--resume", "--submit", "http://127.0.0.1:1")
    assert "--resume goes with job: tune" in ran.sentence(2)
    ran = gaussmeter("job", "--resume", "--submit", "http://127.0.0.1:1")
    assert "--resume without a configuration does not go with --submit" in ran.sentence(2)
    assert sent == []


def test_wrong_words_are_one_sentence(tmp_path):
    path = write_tensors(tmp_path / "model.safetensors", llama())
    nowhere = f"http://127.0.0.1:{free_port()}"
    config = census_of(tmp_path, "census", path)
    assert "no Ray cluster answers" in gaussmeter("job", config, "--submit", nowhere).sentence(2)
    relative = write(
        tmp_path / "relative.yaml", b"job: scan\nwarehouse: w.duckdb\ncheckpoints: [m.safetensors]\n"
    )
    sentence = gaussmeter("job", relative, "--submit", nowhere).sentence(2)
    assert "is relative" in sentence
    strange = write(tmp_path / "strange.yaml", b"job: delta\nwarehouse: /w.duckdb\nbase: /a\ntuned: [b]\n")
    assert "'b' is relative" in gaussmeter("job", strange, "--submit", nowhere).sentence(2)
    merge = merge_of(tmp_path, inline=False)
    assert "no Ray cluster answers" in gaussmeter("job", merge, "--submit", nowhere).sentence(2)
    recipe = tmp_path / "parts" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(f"{tmp_path}/m1", "elsewhere/../m1"))
    assert "'elsewhere/../m1.safetensors' is relative" in gaussmeter(
        "job", merge, "--submit", nowhere
    ).sentence(2)
    recipe.write_text(recipe.read_text().replace("elsewhere/../m1.safetensors", "org/name"))  # on the Hub
    assert "no Ray cluster answers" in gaussmeter("job", merge, "--submit", nowhere).sentence(2)
    recipe.write_text("merge_method: lienar\n")
    assert "did you mean 'linear'?" in gaussmeter("job", merge, "--submit", nowhere).err
    assert "go alone with --submit" in gaussmeter("job", config, "--status", "x").sentence(2)
    assert "which configuration?" in gaussmeter("job").sentence(2)
