"""A room of its own for a benchmark: processes, mounts and network that end with it.

Whatever happens to the benchmark, the kernel ends every process of its room, and nothing in there can be
reached from outside: there is no network but loopback, and links between processes of the room.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

_WORDS = ["--pid", "--fork", "--kill-child=SIGKILL", "--mount", "--mount-proc", "--net"]


def in_a_room(command: list[str]) -> int:
    """Run a command as the first process of a new room; returns how it ended."""
    signal.signal(signal.SIGTERM, _stop)
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", *user, *_WORDS, *command])
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        if process.poll() is None:
            everybody = tree(process.pid)
            kill(everybody)
            process.wait()
            while any(map(alive, everybody)):
                time.sleep(0.01)


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # so that temporary files are removed


def furnish(addresses: list[str]) -> None:
    """Bring loopback up in this room, with further addresses; give it shared memory of its own."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    ip("link", "set", "lo", "up")
    for address in addresses:
        ip("address", "add", f"{address}/32", "dev", "lo")
    ip("route", "add", "default", "dev", "lo", "src", addresses[0])  # Ray asks which address leads out
    mount(Path("/dev/shm"), "8g")


def mount(folder: Path, size: str) -> None:
    """Put an empty file system into a folder; it is seen in this room only."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)


def ip(*words: str, inside: int | None = None) -> None:
    """Set up a network: this room's, or the network of another process."""
    enter = [] if inside is None else ["nsenter", "-t", str(inside), "-n"]
    subprocess.run([*enter, "ip", *words], check=True)


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        children.setdefault(int(words[1]), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def kill(pids: list[int]) -> None:
    """End processes at once, those that have ended already left alone."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def alive(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
