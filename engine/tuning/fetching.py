"""What a sweep needs from the Hub, brought here before it begins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.config.strict import refusal
from engine.config.tune import TuneConfig
from engine.errors import ConfigError, TaskError
from engine.nouns.tuning import RunSpec, Task
from engine.tuning.data.examples import load_examples
from engine.tuning.data.files import fetch, is_distant
from engine.tuning.preflight import hub_model_faults
from engine.tuning.sweep import is_local


def fetched(config: TuneConfig, runs: Sequence[RunSpec]) -> list[RunSpec]:
    """The same runs with examples that are here, and with the commit of a model of the Hub.

    Args:
        config: of the sweep.
        runs: some of its runs.

    Raises:
        ConfigError: what the Hub has does not fit, with all faults.
        TaskError: the Hub does not answer.
    """
    tasks = {run.task.label: run.task for run in runs}
    here = {label: _fetched_task(task) for label, task in tasks.items()}
    faults = [
        f"tasks: {label}: {fault}"
        for label, task in here.items()
        if task is not tasks[label]
        for path in (task.train, *(p for _, p in task.tests))
        for fault in load_examples(task, path).faults
    ]
    revision = config.revision or ""
    if not is_local(config.model):
        revision, more = hub_model_faults(config, list(here.values()), _settings_of(config))
        faults += more
    if faults:
        raise refusal(faults, config.name)
    return [replace(run, task=here[run.task.label], revision=revision) for run in runs]


def _fetched_task(task: Task) -> Task:
    paths = [task.train, *(path for _, path in task.tests)]
    if not any(is_distant(path) for path in paths):
        return task
    train, *tests = [fetch(path) if is_distant(path) else path for path in paths]
    names = [name for name, _ in task.tests]
    return replace(task, train=train, tests=tuple(zip(names, tests, strict=True)))


def _settings_of(config: TuneConfig) -> Path:
    """The folder with `config.json` of a model of the Hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        endpoint = os.environ.get("HF_ENDPOINT")
        found = hf_hub_download(config.model, "config.json", revision=config.revision, endpoint=endpoint)
    except (RepositoryNotFoundError, EntryNotFoundError, HFValidationError) as error:
        if isinstance(error, LocalEntryNotFoundError):
            raise TaskError("cannot be fetched: the Hub does not answer", file=config.model) from error
        raise ConfigError("is neither a folder nor a model of the Hub", file=config.model) from error
    except (HfHubHTTPError, OSError) as error:
        message = f"cannot be fetched: {str(error).splitlines()[0][:200]}"
        raise TaskError(message, file=config.model) from error
    return Path(found).parent
