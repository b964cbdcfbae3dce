"""What a sweep needs from the Hub, brought here before it begins."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from engine.config.strict import refusal
from engine.config.tune import TuneConfig
from engine.errors import TaskError
from engine.nouns.tuning import RunSpec, Task
from engine.tuning.data.examples import load_examples
from engine.tuning.data.files import fetch, is_distant
from engine.tuning.preflight import hub_model_faults
from engine.tuning.sweep import is_local

_NONE: Mapping[str, str] = MappingProxyType({})


def fetched(config: TuneConfig, runs: Sequence[RunSpec], begun: Mapping[str, str] = _NONE) -> list[RunSpec]:
    """The same runs with examples that are here, and with the commit of a model of the Hub.

    A sweep that is resumed keeps to the commit that it began with, however much newer the Hub's is.

    Args:
        config: of the sweep.
        runs: some of its runs.
        begun: commits of the model with which runs of the sweep were begun, by name of the run.

    Raises:
        ConfigError: what the Hub has does not fit, with all faults; or the configuration names another commit
            than a run was begun with.
        TaskError: the Hub does not answer.
    """
    tasks = {run.task.label: run.task for run in runs}
    if is_local(config.model):
        begun, revision = _NONE, config.revision or ""
    else:  # before the examples, which are many
        revision, faults = _looked_at(config, list(tasks.values()), next(iter(begun.values()), None))
        if config.revision is not None:
            faults += _moved(config, revision, begun)
            begun = _NONE
        if faults:
            raise refusal(faults, config.name)
    here = {label: _fetched_task(task) for label, task in tasks.items()}
    faults = [
        f"tasks: {label}: {fault}"
        for label, task in here.items()
        if task is not tasks[label]
        for path in (task.train, *(p for _, p in task.tests))
        for fault in load_examples(task, path).faults
    ]
    if faults:
        raise refusal(faults, config.name)
    return [replace(run, task=here[run.task.label], revision=begun.get(run.name, revision)) for run in runs]


def _looked_at(config: TuneConfig, tasks: list[Task], begun: str | None) -> tuple[str, list[str]]:
    """The commit of a model of the Hub, and what is wrong with it."""
    if config.revision is None and begun is not None:
        config = config.model_copy(update={"revision": begun})
    folder = _settings_of(config)
    if isinstance(folder, str):
        return "", [f"model: {config.model}: {folder}"]
    return hub_model_faults(config, tasks, folder)


def _moved(config: TuneConfig, revision: str, begun: Mapping[str, str]) -> Iterator[str]:
    for name, commit in begun.items():
        if revision and commit != revision:
            was, now = f"{config.model}@{commit}", f"revision {config.revision} is {revision}"
            yield f"{name} was begun with {was}, and {now}"


def _fetched_task(task: Task) -> Task:
    paths = [task.train, *(path for _, path in task.tests)]
    if not any(is_distant(path) for path in paths):
        return task
    train, *tests = [fetch(path) if is_distant(path) else path for path in paths]
    names = [name for name, _ in task.tests]
    return replace(task, train=train, tests=tuple(zip(names, tests, strict=True)))


def _settings_of(config: TuneConfig) -> Path | str:
    """The folder with `config.json` of a model of the Hub, or why there is none.

    Raises:
        TaskError: the Hub does not answer.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        found = hf_hub_download(config.model, "config.json", revision=config.revision, endpoint=endpoint)
    except GatedRepoError:
        page = f"{endpoint or constants.ENDPOINT}/{config.model}"
        return f"the repository is gated: ask for access on {page}, and set HF_TOKEN"
    except RevisionNotFoundError:
        return f"the repository has no revision {config.revision!r}"
    except LocalEntryNotFoundError as error:
        raise TaskError("cannot be fetched: the Hub does not answer", file=config.model) from error
    except (RepositoryNotFoundError, EntryNotFoundError, HFValidationError):
        return "is neither a folder nor a model of the Hub"
    except (HfHubHTTPError, OSError) as error:
        message = f"cannot be fetched: {str(error).splitlines()[0][:200]}"
        raise TaskError(message, file=config.model) from error
    return Path(found).parent
