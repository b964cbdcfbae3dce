"""Starting a private Ray cluster, or joining one; and leaving it as it was found."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError, TaskError
from engine.execution.in_process import available_cores

LOCAL = "local"
AUTO = "auto"
_STORE_BYTES = 256 << 20  # results are small, and are gone as soon as they were folded
_PRIVATE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # lets every server listen on loopback alone
    "RAY_AUTH_MODE": "token",
}


@dataclass(frozen=True, slots=True)
class Resources:
    """What a cluster has in all.

    Attributes:
        cpus: cores.
        gpus: devices.
        nodes: machines.
    """

    cpus: float
    gpus: float
    nodes: int


@contextmanager
def connected(address: str, cores: int | None = None) -> Iterator[Resources]:
    """Have a cluster for the length of a block.

    Args:
        address: `local` starts one on loopback that ends with the block; `auto` joins the one that this
            machine belongs to, or that RAY_ADDRESS names; otherwise `host:port` of a cluster's head.
        cores: how many cores a local one has; None for those of this process.

    Yields:
        what it has.

    Raises:
        ConfigError: there is no such cluster.
        TaskError: none could be started.
    """
    private = {**_PRIVATE, "RAY_AUTH_TOKEN": secrets.token_hex(32)} if address == LOCAL else {}
    with _environment({"RAY_USAGE_STATS_ENABLED": "0", **private}):
        import ray

        ours = not ray.is_initialized()
        try:
            if ours and address == LOCAL:
                _start(cores or available_cores())
            elif ours:
                _join(address)
            yield _resources()
        finally:
            if ours:
                ray.shutdown()


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start(cores: int) -> None:
    import ray
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False  # says the same, should ray have been imported before
    try:
        ray.init(
            address="local",
            num_cpus=cores,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise TaskError(f"no private Ray cluster could be started: {_first_line(error)}") from error


def _join(address: str) -> None:
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except (ConnectionError, ray.exceptions.AuthenticationError, RuntimeError, ValueError) as error:
        where = "that this machine belongs to" if address == AUTO else f"at {address}"
        hint = "; `--ray local` starts a private one" if address == AUTO else ""
        raise ConfigError(f"there is no Ray cluster {where}{hint} ({_first_line(error)})") from error


def _resources() -> Resources:
    import ray

    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    nodes = sum(1 for name in total if name.startswith("node:") and not name.endswith("__"))
    return Resources(total.get("CPU", 0.0), total.get("GPU", 0.0), nodes)


def local_gpus() -> int:
    """Devices of this machine that this process may use, without asking their driver."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([d for d in chosen.split(",") if d.strip() and d.strip() != "-1"])
    found = Path("/proc/driver/nvidia/gpus")
    return len(list(found.iterdir())) if found.is_dir() else 0


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
