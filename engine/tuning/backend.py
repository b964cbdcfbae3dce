"""How the workers of a run find each other.

Ray Train's own way opens a TCP server for all the network. A worker that is alone needs none, and workers of
a private cluster, which are on one machine, meet in a file and talk over loopback.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback


class _Alone(_TorchBackend):
    """One worker, and no process group."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Tell the worker that it is alone."""
        worker_group.execute(_set_torch_distributed_env_vars)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Leave nothing behind."""


class _OnLoopback(_TorchBackend):
    """Workers of one machine."""

    _folder = ""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Let the workers meet in a file that only this user can read; they need it until they part."""
        self._remove()  # that of workers that were lost
        folder = self._folder = tempfile.mkdtemp(prefix="gaussmeter-")
        worker_group.execute(_set_torch_distributed_env_vars)
        count = len(worker_group)
        futures = [
            worker_group.execute_single_async(
                rank, _meet, backend_config.backend, folder, rank, count, backend_config.timeout_s
            )
            for rank in range(count)
        ]
        ray.get(futures)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Let the workers part, and leave nothing behind."""
        try:
            super().on_shutdown(worker_group, backend_config)
        finally:
            self._remove()

    def _remove(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def _meet(backend: str, folder: str, rank: int, count: int, seconds: int) -> None:
    import torch.distributed as dist

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        backend,
        init_method=f"file://{Path(folder) / 'meeting'}",
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=seconds),
    )


@dataclass
class AloneConfig(TorchConfig):
    """For one worker."""

    @property
    def backend_cls(self) -> Any:
        """Who sets it up."""
        return _Alone


@dataclass
class LoopbackConfig(TorchConfig):
    """For workers of a private cluster."""

    @property
    def backend_cls(self) -> Any:
        """Who sets it up."""
        return _OnLoopback


class PrivateTrainer(TorchTrainer):
    """A trainer on a cluster that ends with the driver: nobody must clean up behind a controller that died.

    Ray Train starts an actor for that, a process of its own that takes seconds to load torch.
    """

    def _create_default_callbacks(self) -> list[Any]:
        found = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in found if not isinstance(callback, PlacementGroupCleanerCallback)]


def torch_config(workers: int, *, private: bool, gpu: bool) -> TorchConfig:
    """What suits so many workers of a cluster."""
    backend = "nccl" if gpu else "gloo"
    if workers == 1:
        return AloneConfig(backend=backend)
    return LoopbackConfig(backend=backend) if private else TorchConfig(backend=backend)
