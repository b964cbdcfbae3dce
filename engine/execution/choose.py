"""Which executor a caller asks for."""

from __future__ import annotations

from engine.device.choosing import require_known
from engine.errors import ConfigError
from engine.execution.executor import Executor
from engine.execution.in_process import InProcessExecutor
from engine.nouns.events import Listener, ignore


def choose_executor(
    ray: str | None = None,
    workers: int | None = None,
    *,
    per_gpu: int = 1,
    gpu: bool | None = None,
    task_seconds: float | None = None,
    device: str = "cpu",
    listener: Listener = ignore,
) -> Executor:
    """Make an executor; it starts or joins nothing before it must.

    Args:
        ray: None for threads of this process; otherwise a cluster, as
            `engine.execution.ray_cluster.connected` takes it.
        workers: how many; None for as many as there are GPUs, or cores.
        per_gpu: actors that share a GPU; for Ray.
        gpu: whether each asks for a GPU; None if the cluster has some.
        task_seconds: how long an attempt at a task may take; for Ray.
        device: what each worker is asked to count on, one of `engine.device.choosing.DEVICES`; it finds out
            itself what it has.
        listener: told of tasks and workers.

    Raises:
        ConfigError: a number makes no sense; or a GPU is asked for, and it is known that there is none.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")
    require_known(device)
    if ray is None:
        return InProcessExecutor(workers, device)
    from engine.execution.ray_executor import RayExecutor

    return RayExecutor(
        ray, workers, per_gpu=per_gpu, gpu=gpu, task_seconds=task_seconds, device=device, listener=listener
    )
