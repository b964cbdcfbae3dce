"""What Ray Train runs in each worker of a run."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch
from ray.train import Checkpoint, get_checkpoint, get_context, report
from ray.train.torch import get_device, prepare_model

from engine.device.live import observe_all
from engine.nouns.tuning import Means, RunSpec
from engine.tuning.loop import Loop, State
from engine.tuning.metrics import Metrics

LEARNT = "learnt"
"""The folder, in that of the run, with what was learnt."""

_PAUSE = 0.25  # seconds between two messages to the driver


def train_run(config: dict[str, Any]) -> dict[str, Any] | None:
    """Train; the first worker returns what became of it, as a dictionary of `Learnt`.

    Args:
        config: `run`, `means` and `board`, the actor that is told of it.
    """
    run: RunSpec = config["run"]
    session = _Session(run, config["means"], config["board"])
    if not session.device.type.startswith("cuda"):
        torch.set_num_threads(max(config["means"].threads, 1))
    loop = Loop(run, session, config["means"].observe)
    session.begin(loop.updates)
    learnt = loop.train()
    _save(loop, Path(run.folder), session.rank)
    session.flush()
    return asdict(learnt) if session.rank == 0 else None


def _save(loop: Loop, folder: Path, rank: int) -> None:
    """Write what was learnt beside its place, and put it there whole; all workers take part."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{LEARNT}-{rank}-", dir=folder))
    try:
        if rank == 0 or loop.is_shared:
            loop.save(scratch / LEARNT)
        if rank == 0:
            shutil.rmtree(folder / LEARNT, ignore_errors=True)
            os.rename(scratch / LEARNT, folder / LEARNT)  # noqa: PTH104 - a folder, on one file system
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Session:
    """A worker's view of Ray Train."""

    def __init__(self, run: RunSpec, means: Means, board: Any) -> None:
        context = get_context()
        self.rank, self.workers = context.get_world_rank(), context.get_world_size()
        self.device = torch.device(get_device())
        self._run, self._means, self._board = run, means, board
        self._waiting: list[tuple[int, Metrics]] = []
        self._told = time.monotonic()
        self._state = self._last()
        self._history: list[tuple[int, Metrics]] = list(self._state["history"]) if self._state else []

    def wrap(self, model: Any) -> Any:
        if self._means.sharding == "fsdp" and self.workers > 1:
            from engine.tuning.sharding import share

            return share(model, self.device)
        model.to(self.device)
        if self.workers == 1:
            return model
        # frozen noise need not be sent around before each pass
        kwargs = {"broadcast_buffers": False}
        return prepare_model(model, move_to_device=False, parallel_strategy_kwargs=kwargs)

    def last(self) -> State | None:
        return self._state

    def _last(self) -> State | None:
        found = get_checkpoint()
        if found is None:
            return None
        with found.as_directory() as folder:
            state: State = torch.load(Path(folder) / "rank-0.pt", weights_only=True)
            own = Path(folder) / f"rank-{self.rank}.pt"
            if own.is_file():  # else there were fewer workers
                state["random"] = torch.load(own, weights_only=True)["random"]
        return state

    def keep(self, step: int, state: State) -> None:
        self.flush()
        own = {**state, "history": self._history} if self.rank == 0 else {"random": state["random"]}
        with tempfile.TemporaryDirectory(prefix="gaussmeter-") as folder:
            torch.save(own, Path(folder) / f"rank-{self.rank}.pt")
            report({"step": step}, checkpoint=Checkpoint.from_directory(folder))

    def begin(self, updates: int) -> None:
        """Say where the run begins."""
        if self.rank == 0:
            step = self._state["progress"]["step"] if self._state else 0
            self._board.begin.remote(self._run.name, step, updates, os.getpid())
            self._waiting = list(self._history)  # the driver may be another one

    def tell(self, step: int, metrics: Metrics) -> None:
        self._waiting.append((step, metrics))
        self._history.append((step, metrics))
        if time.monotonic() - self._told > _PAUSE:
            self.flush()

    def observe(self, step: int, weights: State) -> None:
        ray.get(self._board.observe.remote(self._run.name, step, observe_all(weights)))  # one at a time

    def flush(self) -> None:
        """Send what is waiting."""
        if self.rank == 0 and self._waiting:
            ray.get(self._board.step.remote(self._run.name, self._waiting))
            self._waiting, self._told = [], time.monotonic()
