"""Everything that is wrong with a sweep, said before anything is fetched or started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.config.tune import MethodPart, TuneConfig
from engine.errors import GaussmeterError
from engine.formats.checkpoint import open_checkpoint, require_sound
from engine.formats.strict_json import parse_object
from engine.nouns.records import Checkpoint
from engine.nouns.tuning import RANKED, Task
from engine.tuning.data.examples import load_examples
from engine.tuning.data.files import is_distant
from engine.tuning.kinds import positions, why_no_writer
from engine.tuning.sweep import is_local, modules_of, runs_of, task_of
from engine.tuning.targets import misfits, targets

_CONFIG = "config.json"
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
)
_MOST_BYTES = 1 << 20

Shapes = Mapping[str, tuple[int, ...]]


def faults_of(config: TuneConfig) -> list[str]:
    """All faults of a sweep that need neither the network nor a model in memory."""
    tasks = [task_of(part, config.data) for part in config.tasks]
    faults = [
        fault
        for part, task in zip(config.tasks, tasks, strict=True)
        for fault in task_faults(task, part.data or config.data)
    ]
    faults += _method_faults(config, tasks)
    if is_local(config.model):
        faults += model_faults(config, tasks, Path(config.model).expanduser())
    return list(dict.fromkeys(faults))


def task_faults(task: Task, data: str | None) -> Iterator[str]:
    """What is wrong with the files of a task, which were looked for in a folder."""
    where = f" in {data}" if data else "; give data, or train and test"
    if not task.train:
        yield f"tasks: {task.label}: there is no file to train on{where}"
    if not task.tests or not all(path for _, path in task.tests):
        yield f"tasks: {task.label}: there is no file to evaluate on{where}"
    for path in dict.fromkeys([task.train, *(path for _, path in task.tests)]):
        if path and not is_distant(path):
            yield from (f"tasks: {task.label}: {fault}" for fault in load_examples(task, path).faults)


def _method_faults(config: TuneConfig, tasks: list[Task]) -> Iterator[str]:
    for part in config.methods:
        for task in tasks:
            if part.method == "head" and task.kind == "text":
                yield f"methods: head does not fit {task.label}: a model that writes has no new head"


def model_faults(config: TuneConfig, tasks: list[Task], folder: Path) -> Iterator[str]:
    """What is wrong with a model on this machine, and which methods and tasks do not fit it."""
    if not folder.is_dir():
        yield f"model: {folder}: there is no such folder"
        return
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        yield f"model: {folder}: has no tokenizer"
    found = _opened(str(folder))
    if isinstance(found, str):
        yield found
    yield from _misfits(config, tasks, folder, found if isinstance(found, Checkpoint) else None)


def hub_model_faults(config: TuneConfig, tasks: list[Task], folder: Path) -> tuple[str, list[str]]:
    """The same of a model of the Hub, whose headers are read where they are.

    Args:
        config: of the sweep.
        tasks: its tasks.
        folder: with the model's `config.json`.

    Returns:
        the commit, and the faults.
    """
    found = _opened(f"hf://{config.model}" + (f"@{config.revision}" if config.revision else ""))
    if isinstance(found, str):
        return "", [found]
    return found.revision, list(_misfits(config, tasks, folder, found))


def _misfits(
    config: TuneConfig, tasks: list[Task], folder: Path, checkpoint: Checkpoint | None
) -> Iterator[str]:
    settings = _settings(folder)
    if isinstance(settings, str):
        yield settings
        return
    for task in tasks:
        if why := why_no_writer(settings) if task.kind == "text" else None:
            yield f"tasks: {task.label} does not fit {config.model}: {why}"
    yield from _too_long(config, positions(settings))
    if checkpoint is None:
        return
    tensors = checkpoint.tensors
    shapes = {t.name: t.shape for t in tensors if len(t.shape) == 2 and t.kind.coding is not None}
    for task in tasks:
        for part in config.methods:
            yield from _fit(config, part, task, shapes)


def _too_long(config: TuneConfig, most: int | None) -> Iterator[str]:
    lengths = {(run.task.label, run.training.max_length): None for run in runs_of(config)}
    for label, length in lengths:
        if most is not None and length > most:
            yield (
                f"tasks: {label} does not fit {config.model}: max_length is {length:,}, "
                f"and the model has positions for {most:,} tokens"
            )


def _opened(uri: str) -> Checkpoint | str:
    try:
        checkpoint = open_checkpoint(uri)
        require_sound(checkpoint)
    except GaussmeterError as error:
        return f"model: {error}"
    return checkpoint


def _settings(folder: Path) -> dict[str, Any] | str:
    path = folder / _CONFIG
    try:
        with path.open("rb") as file:
            return parse_object(file.read(_MOST_BYTES), file=str(path), what="the file")
    except OSError as error:
        return f"model: {path}: cannot be read: {error.strerror}"
    except GaussmeterError as error:
        return f"model: {error}"


def _fit(config: TuneConfig, part: MethodPart, task: Task, shapes: Shapes) -> Iterator[str]:
    wanted = modules_of(config, part, task.kind)
    if not wanted:
        return
    explicit = bool(part.modules or config.modules)
    for why in misfits(shapes, wanted, explicit=explicit):
        yield f"methods: {part.label or part.method} does not fit {config.model}: it {why}"
    if part.method not in RANKED:
        return
    chosen = targets(list(shapes), wanted)
    smallest = min((min(shapes[name]) for name in chosen), default=0)
    for rank in part.ranks or config.ranks:
        if chosen and rank > smallest:
            name = next(n for n in chosen if min(shapes[n]) == smallest)
            shape = " x ".join(map(str, shapes[name]))
            label = part.label or part.method
            yield f"methods: {label} of rank {rank} does not fit {config.model}: {name} is {shape}"
