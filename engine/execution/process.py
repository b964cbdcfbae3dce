"""What a process of our own can leave out."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h


def without_scipy() -> None:
    """Keep numba from loading scipy.

    Numba does so, wherever scipy is installed, to find a BLAS that counting does not use; it takes longer
    than scanning a small checkpoint. Only for a process of our own: nothing in it could use scipy later.
    """
    sys.modules.setdefault("scipy", None)  # type: ignore[arg-type]


def without_blas_threads() -> None:
    """Keep numpy's BLAS from starting threads, which turn on the spot for a while and are not used.

    What multiplies matrices here does so in several of our own threads. Before numpy is loaded.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def few_arenas() -> None:
    """Let glibc keep two heaps, not eight a core: what one thread frees is used again by another."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 2)


def without_telemetry() -> None:
    """Keep huggingface_hub from asking for a list of agents, and from keeping it in the user's folder."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
