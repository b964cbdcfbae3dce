"""Where the files of a task are: in a folder, by the names that they usually have, or on the Hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from engine.errors import ConfigError, TaskError
from engine.nouns.glue import GLUE
from engine.tuning.data.commonsense import TESTS

HUB = "hub"
_REPOSITORY = "nyu-mll/glue"
_PREFIX = "hub:"


def glue_file(task: str, part: str, folder: str) -> str | None:
    """The file of a part of a task of GLUE.

    Args:
        task: one of `GLUE`.
        part: `train` or `test`.
        folder: where, or `hub`.

    Returns:
        its path, or a word for `fetch`; None if there is none.
    """
    split = "train" if part == "train" else GLUE[task].test
    if folder == HUB:
        return f"{_PREFIX}{task}/{split}-00000-of-00001.parquet"
    return _first(Path(folder).expanduser(), _glue_names(task, part, split))


def _glue_names(task: str, part: str, split: str) -> Iterator[str]:
    short = "train" if part == "train" else "dev"
    title, long = GLUE[task].title, split.replace("validation", "dev")
    for suffix in ("tsv", "csv", "jsonl", "json", "parquet"):
        for word in dict.fromkeys((short, long, split)):
            yield f"{task}_{word}.{suffix}"
            yield f"{title}/{word}.{suffix}"
            yield f"{task}/{word}.{suffix}"
            yield f"{task}/{word}-00000-of-00001.{suffix}"


def commonsense_files(folder: str) -> tuple[str | None, dict[str, str]]:
    """The joint file to train on, and the tests that are there, by name."""
    root = Path(folder).expanduser()
    train = _first(root, ("commonsense_170k.json", "train.json", "train.jsonl"))
    tests = {name: _first(root, (f"{name}.test.json", f"{name}/test.json", f"{name}.json")) for name in TESTS}
    return train, {name: path for name, path in tests.items() if path is not None}


def _first(root: Path, names: tuple[str, ...] | Iterator[str]) -> str | None:
    return next((str(root / name) for name in names if (root / name).is_file()), None)


def is_distant(path: str) -> bool:
    """Whether a file must be fetched from the Hub first."""
    return path.startswith(_PREFIX)


def fetch(path: str) -> str:
    """Bring a file of GLUE from the Hub into its cache, if it is not there.

    Raises:
        ConfigError: the Hub has no such file.
        TaskError: it does not answer.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    name = path.removeprefix(_PREFIX)
    try:
        endpoint = os.environ.get("HF_ENDPOINT")
        return str(hf_hub_download(_REPOSITORY, name, repo_type="dataset", endpoint=endpoint))
    except LocalEntryNotFoundError as error:
        raise TaskError("cannot be fetched: the Hub does not answer", file=f"{_REPOSITORY}/{name}") from error
    except EntryNotFoundError as error:
        raise ConfigError("is not on the Hub", file=f"{_REPOSITORY}/{name}") from error
    except (HfHubHTTPError, OSError) as error:
        raise TaskError(
            f"cannot be fetched: {str(error).splitlines()[0][:200]}", file=f"{_REPOSITORY}/{name}"
        ) from error
