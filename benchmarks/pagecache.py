"""Make files cold: drop their pages from the page cache, and look whether they really went."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

_DROP = Path("/proc/sys/vm/drop_caches")


def drop(files: Sequence[Path]) -> str | None:
    """Drop the cached pages of files.

    First those of the files alone, which leaves programs warm and other people's work alone; if pages
    remain, the whole cache.

    Returns:
        None when every page has gone, else one sentence that says why not.
    """
    if not hasattr(os, "posix_fadvise"):
        return "this system has no posix_fadvise, so the page cache cannot be dropped"
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # dirty pages would stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    if not any(resident(path) for path in files):
        return None
    try:
        _DROP.write_text("1")
    except OSError as error:
        return f"pages stayed in the cache, and {_DROP} cannot be written: {error.strerror}"
    left = sum(resident(path) for path in files)
    return f"{left:,} pages stayed in the cache after {_DROP}" if left else None


def resident(path: Path) -> int:
    """How many pages of a file are in memory, by mincore(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    size = path.stat().st_size
    if not size:
        return 0
    descriptor = os.open(path, os.O_RDONLY)
    try:
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    finally:
        os.close(descriptor)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), f"cannot map {path}")
    present = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    try:
        if libc.mincore(address, size, present):
            raise OSError(ctypes.get_errno(), f"mincore of {path}")
    finally:
        libc.munmap(address, size)
    return len(present) - bytes(page & 1 for page in present).count(0)
