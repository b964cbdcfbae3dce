"""Running a configuration as a job of a Ray cluster: what is sent there, and what is heard of it."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.config.census import CensusConfig
from engine.config.delta import DeltaConfig
from engine.config.jobs import RESUMES_BY_ITSELF, JobConfig, parse_job
from engine.config.merge_job import MergeConfig
from engine.config.report import ReportConfig
from engine.config.strict import read_yaml, validate, write_yaml
from engine.config.tune import TuneConfig
from engine.errors import ConfigError
from engine.execution.ray_jobs import RayJobs
from engine.formats.find import read_list
from engine.storage.uris import scheme_of
from engine.tuning.data.files import HUB
from engine.tuning.sweep import is_local
from engine.verbs.merge_inputs import address_of
from engine.verbs.merge_recipe import read_recipe
from engine.warehouse.sql_files import sql_root

_SENT = "job.yaml"
_ACTIVE = ("PENDING", "RUNNING")
_NOT_SENT = shutil.ignore_patterns("__pycache__", "*.pyc", "*.nbi", "*.nbc")


def submit(config: str | Path, address: str, *, resume: bool = False) -> tuple[str, bool]:
    """Run a configuration on a cluster, with this version of gaussmeter; what it needs besides must be there.

    Args:
        config: its file. Places in it are those of the cluster, so paths must be absolute.
        address: of the cluster's dashboard, such as http://127.0.0.1:8265.
        resume: of adaptation runs: go on with those of this name that are there.

    Returns:
        the job's number, and whether it is new: one of the same name that has not ended is not started again.

    Raises:
        ConfigError: the configuration is wrong, or nobody answers.
        TaskError: the cluster refuses the job.
    """
    path = Path(config)
    data, settings = _for_elsewhere(path)
    if resume and not isinstance(settings, TuneConfig):
        raise ConfigError(RESUMES_BY_ITSELF, file=str(path))
    name, jobs = settings.name, RayJobs(address)
    running = [j for j in jobs.all() if j.name == name and j.status in _ACTIVE]
    if running:
        return running[0].number, False
    with tempfile.TemporaryDirectory(prefix="gaussmeter-") as folder:
        root = Path(folder)
        shutil.copytree(Path(__file__).parents[1], root / "engine", ignore=_NOT_SENT)
        shutil.copytree(sql_root(), root / "sql", dirs_exist_ok=True)
        write_yaml(root / _SENT, {**data, "name": name})
        return jobs.submit(_command(settings, resume=resume), root, name), True


def status(address: str, number: str) -> str:
    """Ray's word for how a job is; errors as for `engine.execution.ray_jobs.RayJobs`."""
    return RayJobs(address).get(number).status


def logs(address: str, number: str) -> str:
    """What a job has printed; errors likewise."""
    return RayJobs(address).logs(number)


def follow(address: str, number: str) -> Iterator[str]:
    """What a job prints, until it ends; errors likewise."""
    return RayJobs(address).follow(number)


def stop(address: str, number: str) -> str:
    """Stop a job, and say whether it was running; errors likewise."""
    return "stopping" if RayJobs(address).stop(number) else "was not running"


def jobs(address: str) -> Iterator[str]:
    """A line for each of our jobs; errors likewise."""
    for one in RayJobs(address).all():
        yield f"{one.number}  {one.status:<9}  {one.name}  {one.message}".rstrip()


def _command(settings: JobConfig, *, resume: bool) -> str:
    """What the cluster runs: with the Python that a shell finds, if it has our libraries; else with ours."""
    ours = shlex.quote(sys.executable)
    choose = f"PY=python; $PY -c 'import duckdb, numba, obstore, ray' 2>/dev/null || PY={ours}; exec $PY"
    words = ["-m", "engine", "job", _SENT, "--ray", _said_ray(settings) or "auto", *["--resume"] * resume]
    return f"{choose} {shlex.join(words)}"


def _said_ray(settings: JobConfig) -> str | None:
    """Which cluster a configuration names; what it does not say is decided by where it runs."""
    return settings.run.ray if "ray" in settings.run.model_fields_set else None


def _for_elsewhere(path: Path) -> tuple[dict[str, Any], JobConfig]:
    """A configuration that means the same in another folder of another machine."""
    data = read_yaml(path)
    settings = parse_job(data, path)
    places = [settings.warehouse]
    if not isinstance(settings, TuneConfig):
        places += filter(None, [settings.export])
    if isinstance(settings, TuneConfig):
        places += _places_of_runs(settings)
    elif isinstance(settings, ReportConfig):
        places.append(settings.output)
    elif isinstance(settings, DeltaConfig):
        places += [*filter(None, [settings.base]), *settings.tuned, *settings.adapters]
    elif isinstance(settings, MergeConfig):
        merge, recipe = read_recipe(settings, path.parent, str(path))
        if recipe is not None:
            data = {**data, "merge": merge}
            models = [recipe.base, *recipe.models]
        else:
            models = [settings.base]
        places += [settings.out, *filter(None, [settings.adapter]), *map(address_of, filter(None, models))]
    else:
        data = {**data, "checkpoints": _inlined(data["checkpoints"], settings, path.parent)}
        sources = validate(data, CensusConfig, str(path)).checkpoints
        places += [p for s in sources for p in (s.uri, s.glob, s.under) if p is not None]
    for place in places:
        if scheme_of(place) == "file" and not Path(place.removeprefix("file://")).expanduser().is_absolute():
            message = f"{place!r} is relative, and a job runs elsewhere: give an absolute path there"
            raise ConfigError(message, file=str(path))
    if _said_ray(settings) == "local":
        raise ConfigError("run.ray: a job on a cluster cannot start a private one", file=str(path))
    return data, settings


def _places_of_runs(settings: TuneConfig) -> Iterator[str]:
    """Files and folders that adaptation runs name; a name of the Hub is none."""
    yield settings.output
    if is_local(settings.model):
        yield settings.model
    for data in (settings.data, *(task.data for task in settings.tasks)):
        if data is not None and data != HUB:
            yield data
    for task in settings.tasks:
        tests = task.test.values() if isinstance(task.test, dict) else [task.test]
        yield from (path for path in (task.train, *tests) if path is not None)


def _inlined(raw: Sequence[Any], settings: CensusConfig, folder: Path) -> list[Any]:
    """The sources of a census, lists replaced by what they name."""
    sources: list[Any] = []
    for given, source in zip(raw, settings.checkpoints, strict=True):
        if source.list is None:
            sources.append(given)
        else:
            left = {k: v for k, v in given.items() if k != "list"}
            sources += [{**left, "uri": uri} for uri in read_list(folder / source.list)]
    return sources
