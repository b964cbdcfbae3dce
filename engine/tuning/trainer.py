"""Many runs on a cluster, by Ray Train's TorchTrainer: as many at once as there is room for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.device.live import Observed
from engine.errors import ConfigError, GaussmeterError, first_line
from engine.execution.ray_cluster import LOCAL, Resources, connected
from engine.nouns.tuning import Means, RunSpec
from engine.tuning.metrics import Metrics

CHECKPOINTS = "checkpoints"
"""The folder, in that of the run, with Ray Train's checkpoints; it goes when the warehouse has the run."""

_POLL_SECONDS = 0.5
_VARIABLES = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # reports wait for it
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}


@dataclass(frozen=True, slots=True)
class Begun:
    """A run begins, again after its worker was lost.

    Attributes:
        run: its name.
        step: updates that it has made already.
        updates: how many it will make.
        pid: of its first worker.
    """

    run: str
    step: int
    updates: int
    pid: int


@dataclass(frozen=True, slots=True)
class Stepped:
    """What was measured of a run.

    Attributes:
        run: its name.
        step: after which update.
        metrics: by name.
    """

    run: str
    step: int
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Seen:
    """What learns in a run, counted after an update.

    Attributes:
        run: its name.
        step: after which update.
        tensors: by name, as they were.
    """

    run: str
    step: int
    tensors: tuple[Observed, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """A run is over.

    Attributes:
        run: its name.
        learnt: what became of it, the fields of `engine.tuning.loop.Learnt`; None if it failed.
        reason: why it failed.
    """

    run: str
    learnt: dict[str, Any] | None
    reason: str = ""


Message = Begun | Stepped | Seen | Finished


_PRIVATE = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}  # nobody takes nodes away from a cluster of one


@contextmanager
def trainer(ray_address: str) -> Iterator[Trainer]:
    """A trainer on a cluster, as `engine.execution.ray_cluster.connected` takes its address."""
    variables = _VARIABLES | (_PRIVATE if ray_address == LOCAL else {})
    before = {name: os.environ.get(name) for name in variables}
    for name, value in variables.items():
        os.environ.setdefault(name, value)
    try:
        with connected(ray_address) as resources:
            yield Trainer(resources, private=ray_address == LOCAL)
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)


class Trainer:
    """Trains on the cluster that this process is connected to.

    Args:
        resources: what it has.
        private: whether it is one of this machine alone.
    """

    def __init__(self, resources: Resources, *, private: bool) -> None:
        self._resources, self._private = resources, private

    def fit_means(self, means: Means, gpu: bool | None, runs: int) -> Means:
        """Fill in what the cluster decides: GPUs, threads, and how many runs there may be at once.

        A cluster that grows has no GPU before it is asked for some. So where each worker is to have one and
        `parallel` is said, that many runs are begun, and wait for nodes that may come.

        Args:
            means: what is wanted; zeros are filled in.
            gpu: whether each worker has a GPU; None if it has where the cluster has some.
            runs: how many there are.

        Raises:
            ConfigError: there is no room for a single run.
        """
        on_gpu = self._resources.gpus > 0 if gpu is None else gpu
        room = self._room(max(means.threads, 1), on_gpu) // means.workers
        if gpu and not self._private:
            room = max(room, means.parallel)
        if not room:
            raise ConfigError(self._lack(means, on_gpu))
        parallel = min(means.parallel or room, room, runs)
        threads = means.threads or self._share(means.workers * parallel, on_gpu)
        return replace(means, gpu=on_gpu, threads=threads, parallel=parallel)

    def _room(self, threads: int, on_gpu: bool) -> int:
        """How many workers find room; one has all its cores on one machine."""
        each = self._resources.each
        return sum(int(min(c // threads, g) if on_gpu else c // threads) for c, g in each)

    def _share(self, workers: int, on_gpu: bool) -> int:
        """The most threads with which so many workers find room; 1 where the machines are still to come."""
        most = int(max((cores for cores, _ in self._resources.each), default=1))
        return max((t for t in range(1, most + 1) if self._room(t, on_gpu) >= workers), default=1)

    def _lack(self, means: Means, on_gpu: bool) -> str:
        has, threads = self._resources, max(means.threads, 1)
        cores = f"{threads} cores" if threads > 1 else "a core"
        what = f"{cores} and a GPU" if on_gpu else cores
        many = f"{means.workers} workers with {what} each" if means.workers > 1 else f"a worker with {what}"
        machines = f"{len(has.each)} machine{'s' * (len(has.each) != 1)}"
        there = f"{has.cpus:g} cores and {has.gpus:g} GPUs on {machines}"
        hint = "" if self._private else "; one that grows is asked by gpu: true and parallel under run"
        room = self._room(threads, on_gpu)
        return f"a run takes {many}; the cluster has room for {room or 'none'}: {there}{hint}"

    def train(self, runs: Sequence[RunSpec], means: Means) -> Iterator[Message]:
        """Train all runs; a run that fails does not stop the others.

        Yields:
            what happens, in the order in which it is heard of.
        """
        import ray

        board = ray.remote(num_cpus=0)(Board).remote()
        pool = ThreadPoolExecutor(means.parallel, thread_name_prefix="run")
        try:
            futures = {pool.submit(_fit, run, means, board, self._private): run for run in runs}
            yield from _follow(futures, board)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class Board:
    """An actor that workers tell what happens, and the driver asks."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    def begin(self, run: str, step: int, updates: int, pid: int) -> None:
        """Hear that a run begins."""
        self._messages.append(Begun(run, step, updates, pid))

    def step(self, run: str, steps: list[tuple[int, Metrics]]) -> None:
        """Hear what was measured."""
        self._messages += (Stepped(run, step, metrics) for step, metrics in steps)

    def observe(self, run: str, step: int, tensors: tuple[Observed, ...]) -> None:
        """Hear what was counted."""
        self._messages.append(Seen(run, step, tensors))

    def take(self) -> list[Message]:
        """Everything since the last time."""
        found, self._messages = self._messages, []
        return found


def _follow(futures: dict[Future[dict[str, Any]], RunSpec], board: Any) -> Iterator[Message]:
    import ray

    open_ = set(futures)
    while open_:
        done, open_ = wait(open_, _POLL_SECONDS, "FIRST_COMPLETED")
        yield from ray.get(board.take.remote())
        for future in done:
            error = future.exception()
            name = futures[future].name
            yield Finished(name, None, _reason(error)) if error else Finished(name, future.result())


def _fit(run: RunSpec, means: Means, board: Any, private: bool) -> dict[str, Any]:
    """Train one run, from its newest checkpoint if it has any."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from engine.tuning.backend import PrivateTrainer, torch_config
    from engine.tuning.worker import train_run

    folder = Path(run.folder)
    folder.mkdir(parents=True, exist_ok=True)
    each = {"CPU": float(means.threads), **({"GPU": 1.0} if means.gpu else {})}
    made: Any = (PrivateTrainer if private else TorchTrainer)(
        train_run,  # type: ignore[arg-type]
        train_loop_config={"run": run, "means": means, "board": board},
        torch_config=torch_config(means.workers, private=private, gpu=means.gpu),
        scaling_config=ScalingConfig(num_workers=means.workers, use_gpu=means.gpu, resources_per_worker=each),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=means.failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    ).fit()
    learnt: dict[str, Any] = made.return_value
    return learnt


def forget_checkpoints(folder: str | Path) -> None:
    """Remove what a run could be resumed from, when all that it learnt is kept elsewhere."""
    shutil.rmtree(Path(folder) / CHECKPOINTS, ignore_errors=True)


def _reason(error: BaseException) -> str:
    """Why a run failed, without the stack of another process."""
    workers = getattr(error, "worker_failures", None)
    while workers:
        error = workers[min(workers)]
        workers = getattr(error, "worker_failures", None)
    cause = getattr(error, "cause", None)
    error = cause if isinstance(cause, BaseException) else error
    text = first_line(error)
    return text if isinstance(error, GaussmeterError) else f"{type(error).__name__}: {text}"
