"""Tasks on a Ray cluster: one actor for each GPU, or for each core.

Ray starts processes and carries messages. Who gets what, and what is done again, is decided in `dispatch`:
Ray's own retries know neither stragglers nor frozen processes, and call what is on a lost node pending.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Generic

from engine.errors import ConfigError, DeviceError, TaskError
from engine.execution.dispatch import Dispatch
from engine.execution.executor import IN_FLIGHT, Done, Executor, Failed, MakeBody, Outcome, Pool
from engine.execution.in_process import available_cores
from engine.execution.ray_cluster import LOCAL, Resources, connected, local_gpus
from engine.execution.ray_pieces import answers, cut, whole
from engine.execution.ray_worker import Hello, RayWorker
from engine.nouns.events import (
    Listener,
    NoWorkers,
    TaskRetried,
    TaskStarted,
    WorkerJoined,
    WorkerLost,
    ignore,
)
from engine.nouns.tasks import Task

WORKER_BYTES = 260 << 20
"""An actor's process with its libraries; measured, see BENCHMARKS.md."""
_LOOK_SECONDS = 0.5  # how often somebody looks for workers that take too long
_MISSING_SECONDS = 20.0
_MOST_STILLBORN = 3  # workers in a row that die before they are ready
_STARTING = "that was starting"
_LONGEST_PAUSE = 60.0  # seconds before another is started in place of one more


class RayExecutor(Executor):
    """Runs tasks on actors.

    Args:
        address: see `engine.execution.ray_cluster.connected`.
        workers: how many actors; None for as many as the cluster has GPUs, or cores if it has none.
        per_gpu: actors that share a GPU.
        gpu: whether each asks for a GPU; None if the cluster has some. A cluster that adds nodes when they
            are asked for may have none yet.
        task_seconds: how long an attempt at a task may take; None learns it.
        device: what each actor is asked to count on.
        listener: told of tasks and workers.
    """

    worker_bytes = WORKER_BYTES

    def __init__(
        self,
        address: str,
        workers: int | None = None,
        *,
        per_gpu: int = 1,
        gpu: bool | None = None,
        task_seconds: float | None = None,
        device: str = "cpu",
        listener: Listener = ignore,
    ) -> None:
        if per_gpu < 1:
            raise ConfigError(f"there must be at least 1 actor for each GPU, not {per_gpu}")
        if task_seconds is not None and task_seconds <= 0:
            raise ConfigError(f"the time limit of a task must be positive, not {task_seconds:g} s")
        self.address, self._wanted, self._per_gpu, self._gpu = address, workers, per_gpu, gpu
        self._task_seconds, self._listener, self.device = task_seconds, listener, device
        self._resources: Resources | None = None
        self._cluster = ExitStack()
        if address == LOCAL:
            self._require(local_gpus())

    @property
    def workers(self) -> int:  # type: ignore[override]
        """How many actors there will be; joins a cluster to find out, if it must."""
        if self._wanted is not None:
            return self._wanted
        if self.address == LOCAL:
            return (local_gpus() * self._per_gpu if self._gpu is not False else 0) or available_cores()
        resources = self._connect()
        if not self._with_gpus(resources):
            return max(1, int(resources.cpus))
        if not resources.gpus:
            raise ConfigError(
                f"the cluster at {self.address} has no GPU yet: say how many workers are to ask"
            )
        return max(1, int(resources.gpus * self._per_gpu))

    def _with_gpus(self, resources: Resources) -> bool:
        return resources.gpus > 0 if self._gpu is None else self._gpu

    def might_count(self, device: str) -> bool:
        """See `Executor`; actors see the GPUs that Ray gives them."""
        if device == "cpu" or self._gpu is False:
            return False
        return bool(self._gpu or (local_gpus() if self.address == LOCAL else self._connect().gpus))

    def _require(self, gpus: float) -> None:
        """Refuse to look for GPUs where it is known that actors get none."""
        if self.device == "cuda" and not (gpus if self._gpu is None else self._gpu):
            raise ConfigError(f"cannot count on a GPU: the Ray cluster {self.address} gives its actors none")

    def close(self) -> None:
        """Leave the cluster, or end the private one."""
        self._resources = None
        self._cluster.close()

    @contextmanager
    def open(self, make_body: MakeBody[Outcome]) -> Iterator[Pool[Outcome]]:
        """See `Executor`."""
        resources = self._connect()
        self._require(resources.gpus)
        options = self._options(resources)
        pool: _Actors[Outcome] = _Actors(
            make_body, self.workers, options, Dispatch(self._task_seconds), self._listener
        )
        try:
            yield pool
        finally:
            pool.close()

    def _connect(self) -> Resources:
        if self._resources is None:
            cores = self._wanted if self.address == LOCAL else None
            self._resources = self._cluster.enter_context(connected(self.address, cores))
        return self._resources

    def _options(self, resources: Resources) -> dict[str, Any]:
        """What an actor asks of its node; all of them together never ask for more cores than there are."""
        with_gpus = self._with_gpus(resources)
        cpus = min(1.0, resources.cpus / self.workers) if with_gpus else 1.0
        gpus = 1 / self._per_gpu if with_gpus else 0
        return {
            "num_cpus": round(max(cpus, 0.01), 2),
            "num_gpus": gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
        }


class _Actors(Generic[Outcome]):
    """Actors, and the messages that are under way to and from them."""

    def __init__(
        self,
        make_body: MakeBody[Outcome],
        workers: int,
        options: dict[str, Any],
        dispatch: Dispatch,
        listener: Listener,
    ) -> None:
        import ray

        self._ray, self._listener, self._dispatch = ray, listener, dispatch
        self._make_body, self._wanted = cut(make_body), workers
        self._class: Any = ray.remote(RayWorker).options(**options)
        self._starting: dict[Any, Any] = {}  # reference to a hello -> actor
        self._actors: dict[str, Any] = {}
        self._sent: dict[Any, tuple[str, Task, list[Any]]] = {}  # the last of an answer's pieces -> all
        self._stillborn = 0
        self._due: list[float] = []  # when workers are started in place of stillborn ones
        self._looked = self._opened = time.monotonic()
        self._said = False
        for _ in range(workers):
            self._start_one()

    def room(self) -> int:
        return IN_FLIGHT * self._wanted - self._dispatch.unfinished()

    def submit(self, task: Task) -> None:
        self._dispatch.submit(task)
        self._send()

    def busy(self) -> bool:
        return self._dispatch.unfinished() > 0

    def collect(self, seconds: float) -> list[Done[Outcome] | Failed]:
        until = time.monotonic() + seconds
        ended: list[Done[Outcome] | Failed] = []
        while not ended and self.busy() and (left := until - time.monotonic()) > 0:
            references = [*self._sent, *self._starting]
            ready, _ = self._ray.wait(
                references, num_returns=1, timeout=min(left, _LOOK_SECONDS), fetch_local=True
            )
            if ready and len(references) > 1:  # whatever else has arrived
                ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
            for reference in ready:
                if reference in self._starting:
                    self._greet(reference)
                elif reference in self._sent:  # unless its worker was lost on the way here
                    ended += self._receive(reference)
            ended += self._look_for_the_late()
            self._say_who_is_missing()
            self._start_the_due()
            self._send()
        return ended

    def _say_who_is_missing(self) -> None:
        """Say once that nobody has come: nodes may be on their way, or never come."""
        waited = time.monotonic() - self._opened
        if not self._actors and not self._said and waited > _MISSING_SECONDS:
            self._said = True
            self._listener(NoWorkers(waited))

    def close(self) -> None:
        """End the actors; what they are doing is dropped."""
        for actor in (*self._actors.values(), *self._starting.values()):
            self._ray.kill(actor)
        self._actors, self._starting, self._sent = {}, {}, {}

    def _start_one(self) -> None:
        actor = self._class.remote()
        self._starting[actor.hello.remote(*self._make_body)] = actor

    def _start_the_due(self) -> None:
        now = time.monotonic()
        due, self._due = self._due, [when for when in self._due if when > now]
        for _ in range(len(due) - len(self._due)):
            self._start_one()

    def _greet(self, reference: Any) -> None:
        """A worker is ready, or will never be."""
        actor = self._starting.pop(reference)
        try:
            hello: Hello = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, ConfigError):  # no other process of that machine would do better
                raise cause from error
            self._stillborn += 1
            if self._stillborn >= _MOST_STILLBORN and not self._actors:
                raise TaskError(f"no worker could be started: {_cause(error)}") from error
            self._ray.kill(actor)
            self._listener(WorkerLost(_STARTING, _cause(error)))
            pause = min(2.0 ** (self._stillborn - _MOST_STILLBORN), _LONGEST_PAUSE)
            self._due.append(time.monotonic() + (pause if self._stillborn >= _MOST_STILLBORN else 0.0))
            self._start_the_due()
            return
        self._stillborn = 0
        self._actors[hello.worker] = actor
        self._dispatch.join(hello.worker, hello.node)
        self._listener(WorkerJoined(hello.worker, hello.node, hello.pid, hello.gpus))

    def _send(self) -> None:
        for name, task, attempt in self._dispatch.hand_out(time.monotonic()):
            number = answers(task.nbytes)
            pieces = self._actors[name].work.options(num_returns=number).remote(number, *cut(task))
            self._sent[pieces[-1]] = (name, task, pieces)
            self._listener(TaskStarted(task.key, name, attempt))

    def _receive(self, reference: Any) -> list[Done[Outcome] | Failed]:
        name, task, pieces = self._sent.pop(reference)
        now = time.monotonic()
        try:
            outcome, seconds, error, again = whole(self._ray.get(pieces))
        except (
            self._ray.exceptions.ObjectLostError,  # done, and the answer died with its node
            self._ray.exceptions.ObjectStoreFullError,  # done, and its node has no room for the answer
            self._ray.exceptions.OutOfDiskError,
        ) as lost:
            return self._failed(name, task, TaskError(_cause(lost)), again=True)
        except self._ray.exceptions.RayTaskError as wrong:  # what nobody foresaw is no machine's fault
            return self._failed(name, task, TaskError(f"failed unexpectedly: {_cause(wrong)}"), again=False)
        except self._ray.exceptions.RayError as gone:
            return self._lose(name, _cause(gone))
        if isinstance(error, DeviceError):  # would fail every later task of its process
            return self._lose(name, str(error))
        if error is not None:
            return self._failed(name, task, error, again=again)
        if not self._dispatch.done(name, task.key, now, seconds):
            return []
        return [Done(task, outcome, seconds, name)]

    def _failed(
        self, name: str, task: Task, error: Exception, *, again: bool
    ) -> list[Done[Outcome] | Failed]:
        if self._dispatch.failed(name, task.key, time.monotonic(), again=again):
            return [Failed(task, error)]
        if again:
            self._listener(TaskRetried(task.key, name, str(error)))
        return []

    def _lose(self, name: str, reason: str) -> list[Done[Outcome] | Failed]:
        """Start another worker in place of one that is gone, and give its tasks to others."""
        actor = self._actors.pop(name)
        self._sent = {r: sent for r, sent in self._sent.items() if sent[0] != name}
        again, gone = self._dispatch.lost(name)
        self._listener(WorkerLost(name, reason))
        for task in again:
            self._listener(TaskRetried(task.key, name, "its worker was lost"))
        self._ray.kill(actor)
        self._start_one()
        return [
            Failed(t, TaskError(f"its workers were lost again and again; the last: {reason}")) for t in gone
        ]

    def _look_for_the_late(self) -> list[Done[Outcome] | Failed]:
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return []
        self._looked = now
        ended: list[Done[Outcome] | Failed] = []
        for late in self._dispatch.late(now):
            for task in late.tasks:
                self._listener(TaskRetried(task.key, late.worker, f"takes longer than {late.seconds:.0f} s"))
            if late.silent:
                ended += self._lose(late.worker, f"did not answer for {late.seconds:.0f} s")
        message = "took longer than the limit of a task in every attempt"
        return ended + [Failed(task, TaskError(message)) for task in self._dispatch.exhausted()]


def _cause(error: BaseException) -> str:
    """The last line of what Ray says, which says most; or its first."""
    cause = getattr(error, "cause", None)
    if cause is not None and not isinstance(cause, str):
        return f"{type(cause).__name__}: {cause}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
