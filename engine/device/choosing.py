"""Whether a worker counts on a GPU, and on which."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from importlib.util import find_spec

from engine.errors import ConfigError, DeviceError, first_line

DEVICES = ("auto", "cpu", "cuda")

LEAST_BYTES = 16_000_000_000
"""`auto` leaves less to the CPU: loading torch takes 3 s, and a core with a GPU then reads 4.5 GB/s in place
of 2.2 (BENCHMARKS.md), so that it pays from 13 GB on."""

_MIB = 1 << 20
LIBRARY_BYTES = 1024 * _MIB
"""What a process takes more when it counts on a GPU. torch took 194 MiB where there was none; what a context
of CUDA adds to that was not measured."""
_COUNTER_BYTES = 3 * 16 * _MIB  # pinned blocks of a counter
_COUNTERS = 4
WORKER_BYTES = _COUNTERS * _COUNTER_BYTES
"""Pinned blocks of a worker with four counters; only differences of many checkpoints need more at a time."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one worker counts.

    Attributes:
        name: `cpu`, or torch's name of a GPU, such as `cuda:0`.
        title: what the GPU is called; "" for the CPU.
        flaw: why it is the CPU though there is a GPU; "" where there is none, or it is the GPU.
    """

    name: str
    title: str = ""
    flaw: str = ""


def choose(device: str) -> str:
    """Decide where to count.

    Args:
        device: one of DEVICES. `auto` takes a GPU if torch sees one; where there is no driver, torch is not
            even loaded.

    Returns:
        `cpu` or `cuda`.

    Raises:
        ConfigError: there is no such device, or no GPU though one was asked for.
    """
    require_known(device)
    if device == "cpu":
        return "cpu"
    missing = _what_a_gpu_lacks()
    if missing and device == "cuda":
        raise ConfigError(f"cannot count on a GPU: {missing}")
    return "cpu" if missing else "cuda"


def require_known(device: str) -> None:
    """Refuse a word that is no device.

    Raises:
        ConfigError: it is none.
    """
    if device not in DEVICES:
        raise ConfigError(f"unknown device {device!r}; there are {', '.join(DEVICES)}")


def settled(device: str, nbytes: int | None) -> str:
    """What the workers are asked for: `auto` leaves less than LEAST_BYTES to the CPU.

    Args:
        device: one of DEVICES.
        nbytes: bytes that will be read in all; None if that is not known.
    """
    return "cpu" if device == "auto" and nbytes is not None and nbytes < LEAST_BYTES else device


def place(device: str) -> Place:
    """Where a worker counts: each of a process takes the next of its GPUs, and its thread works there.

    Raises:
        ConfigError: as for `choose`.
        DeviceError: a GPU was asked for, and the one that is there cannot be used.
    """
    if choose(device) == "cpu":
        return Place("cpu")
    from engine.kernels.cuda.claims import next_gpu, use

    try:
        found = Place(*next_gpu())
        use(found.name)
    except RuntimeError as error:
        if device == "cuda":
            raise DeviceError(f"cannot count on a GPU: {first_line(error)}") from error
        return Place("cpu", flaw=first_line(error))
    return found


def host_bytes(workers: int, *, processes: bool) -> int:
    """Memory of the host that each of so many workers takes more where they count on a GPU.

    Args:
        workers: how many.
        processes: whether each is a process of its own.
    """
    return WORKER_BYTES + (LIBRARY_BYTES if processes else -(-LIBRARY_BYTES // workers))


def more_bytes(counters: int) -> int:
    """Memory of the host for the counters of a worker that `host_bytes` leaves out.

    Args:
        counters: how many it has at a time.
    """
    return max(0, counters - _COUNTERS) * _COUNTER_BYTES


def might_count(device: str) -> bool:
    """Whether a worker of this machine might count on a GPU; torch is not loaded to find out."""
    return device != "cpu" and _what_is_missing() is None


def _what_a_gpu_lacks() -> str | None:
    missing = _what_is_missing()
    if missing is not None:
        return missing
    from engine.kernels.cuda.claims import lacks

    return lacks()


def _what_is_missing() -> str | None:
    """What can be told without torch."""
    if find_spec("torch") is None:
        return "torch is not installed; install gaussmeter[gpu]"
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver"
    return None
