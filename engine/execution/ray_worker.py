"""What runs in an actor's process."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from engine.errors import ConfigError, GaussmeterError, MissingError, TaskError
from engine.execution.executor import let_go
from engine.execution.process import few_arenas, without_scipy, without_telemetry
from engine.execution.ray_pieces import cut, whole


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker that is ready.

    Attributes:
        worker: its name: node, process, and a number in case the process's is used again.
        node: its machine: the address, and the beginning of Ray's name for it.
        pid: its process.
        gpus: the devices that it sees, as CUDA_VISIBLE_DEVICES names them.
    """

    worker: str
    node: str
    pid: int
    gpus: str


class RayWorker:
    """An actor: runs one task at a time."""

    def __init__(self) -> None:
        without_scipy()
        few_arenas()
        without_telemetry()
        self._body: Any = None

    def hello(self, *make_body: bytes) -> Hello:
        """Make the task body of a function in pieces, and say who is there."""
        import ray

        try:
            self._body = whole(make_body)()
        except ConfigError as error:
            raise ConfigError(f"{os.uname().nodename} {error.message}") from error
        here = ray.get_runtime_context()
        address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        node = f"{address}#{here.get_node_id()[:6]}"
        pid, mine = os.getpid(), here.get_actor_id() or ""
        devices = os.environ.get("CUDA_VISIBLE_DEVICES", "") if ray.get_gpu_ids() else ""
        return Hello(f"{node}:{pid}:{mine[:6]}", node, pid, devices)

    def work(self, answers: int, *task: bytes) -> list[bytes]:
        """Run a task.

        Args:
            answers: in how many pieces its outcome goes.
            task: in pieces.

        Returns:
            in pieces: its outcome, how long it took, why it failed, and whether it might not fail elsewhere.
            What is wrong with a file is wrong everywhere, what a machine could not do or does not see
            another may.
        """
        return cut(self._run(whole(task)), answers)

    def _run(self, task: Any) -> tuple[Any, float, GaussmeterError | None, bool]:
        began = time.monotonic()
        try:
            return self._body(task), time.monotonic() - began, None, False
        except GaussmeterError as error:
            let_go(error)
            again = isinstance(error, (TaskError, MissingError))
            return None, time.monotonic() - began, error, again
        except (MemoryError, OSError) as error:
            let_go(error)
            failed = TaskError(f"{type(error).__name__} on {os.uname().nodename}: {error}")
            return None, time.monotonic() - began, failed, True
