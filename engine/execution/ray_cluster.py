"""Starting a private Ray cluster, or joining one; and leaving it as it was found."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, TaskError, first_line
from engine.execution.in_process import available_cores

LOCAL = "local"
AUTO = "auto"
_STORE_BYTES = 256 << 20  # results are small, and are gone as soon as they were folded
_ANSWER_SECONDS = 5.0
_VARIABLES = {
    "PYTHONBREAKPOINT": None,  # Ray sets it
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # else Ray prints what came of a task that somebody else did
}


@dataclass(frozen=True, slots=True)
class Resources:
    """What a cluster has.

    Attributes:
        each: cores and devices of every machine.
    """

    each: tuple[tuple[float, float], ...]

    @property
    def cpus(self) -> float:
        """Cores of all machines."""
        return sum(cpus for cpus, _ in self.each)

    @property
    def gpus(self) -> float:
        """Devices of all machines."""
        return sum(gpus for _, gpus in self.each)


@contextmanager
def connected(address: str, cores: int | None = None) -> Iterator[Resources]:
    """Have a cluster for the length of a block.

    A process that has connected to a cluster by itself stays with that.

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
    with ExitStack() as stack:
        stack.enter_context(_environment(_VARIABLES))
        import ray

        if not ray.is_initialized():
            if address == LOCAL:
                stack.enter_context(_environment({"RAY_worker_niceness": "0"}))  # it is one of us
                stack.enter_context(_with_a_token_of_its_own())
                stack.enter_context(_on_loopback())
                stack.callback(ray.shutdown)
                _start(cores or available_cores())
            else:
                host, port = _reachable(address)
                if ip_address(host).is_loopback:
                    stack.enter_context(_on_loopback())
                stack.callback(ray.shutdown)
                _join(f"{host}:{port}")
            stack.enter_context(_quiet())
        yield _resources()


def _reachable(address: str) -> tuple[str, int]:
    """Find a cluster's head, before Ray tries for minutes.

    Returns:
        its IP address and port.

    Raises:
        ConfigError: there is none, or it does not answer.
    """
    from ray._private.services import get_ray_address_from_environment

    hint = "; `--ray local` starts a private cluster"
    target = address
    if address == AUTO:
        try:
            target = str(get_ray_address_from_environment(AUTO, None))
        except ConnectionError as error:
            raise ConfigError(f"this machine belongs to no Ray cluster{hint}") from error
    host, colon, port = target.rpartition(":")
    if "/" in target or not colon or not host or not port.isdecimal():
        raise ConfigError(f"a Ray cluster is local, auto or the host:port of its head, not {target!r}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS) as answered:
            return answered.getpeername()[0], int(port)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"no Ray cluster answers at {target} ({error}){hint}") from error


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let Ray use the loopback address, which it otherwise takes for a mistake."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False  # in case Ray was imported before the variable was set
    try:
        with _environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _with_a_token_of_its_own() -> Iterator[None]:
    """Let nobody else on this machine into a private cluster; the token is in no file."""
    try:
        with _environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}):
            _read_the_token_again()
            yield
    finally:
        _read_the_token_again()


def _read_the_token_again() -> None:
    """Ray keeps the mode and the token of the first cluster of a process."""
    from ray import _raylet

    compiled: Any = _raylet  # has no types
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray from printing on standard output that a worker died: it is an event of ours."""
    from ray._private import worker

    before = worker.print_to_stdstream
    worker.print_to_stdstream = _print_nothing
    try:
        yield
    finally:
        worker.print_to_stdstream = before


def _print_nothing(data: object, ignore_prefix: bool) -> None:
    pass


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Change variables for the length of a block; those that become None are only put back after it."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update({name: value for name, value in changes.items() if value is not None})
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
        raise TaskError(f"no private Ray cluster could be started: {first_line(error)}") from error


def _join(address: str) -> None:
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except (ConnectionError, ray.exceptions.AuthenticationError, RuntimeError, ValueError) as error:
        raise ConfigError(f"the Ray cluster at {address} cannot be joined: {first_line(error)}") from error


def _resources() -> Resources:
    import ray

    every: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node["Resources"] for node in every if node["Alive"]]  # cluster_resources() lags behind
    return Resources(tuple((r.get("CPU", 0.0), r.get("GPU", 0.0)) for r in alive))


def local_gpus() -> int:
    """Devices of this machine that this process may use, without asking their driver."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([d for d in chosen.split(",") if d.strip() and d.strip() != "-1"])
    found = Path("/proc/driver/nvidia/gpus")
    return len(list(found.iterdir())) if found.is_dir() else 0
