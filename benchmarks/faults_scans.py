"""Scans as processes, and what they say while they run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults_rooms import kill

Event = dict[str, Any]
SECONDS = 400.0
"""A scan that takes longer is ended and counts as one that hangs."""


@dataclass(slots=True)
class Run:
    """A scan that has ended, or runs.

    Attributes:
        began: when.
        events: so far, each with the time when it was heard of as `seen`, in seconds from the beginning.
        seconds: how long it took.
        code: how it ended; None if it was killed.
        output: what it said.
        pid: its process.
    """

    began: float
    pid: int = 0
    events: list[Event] = field(default_factory=list)
    seconds: float = 0.0
    code: int | None = None
    output: str = ""

    def of(self, kind: str) -> list[Event]:
        """The events of a kind."""
        return [event for event in self.events if event["event"] == kind]

    def nbytes(self, last: float = float("inf")) -> int:
        """Bytes that were read by tasks that ended well, in the last so many seconds."""
        return sum(e["nbytes"] for e in self.of("TaskDone") if e["seen"] >= self.seconds - last)

    def read_again(self) -> int:
        """Bytes of the tasks that were begun more than once, for each time but the first."""
        sizes = {event["key"]: event["nbytes"] for event in self.of("TaskDone")}
        return sum(sizes.get(e["key"], 0) for e in self.of("TaskStarted") if e["attempt"] > 1)


def run(
    command: list[str], events: Path, env: dict[str, str], hear: Callable[[Run, Event], None] | None = None
) -> Run:
    """Run a scan to its end.

    Args:
        command: without `--events`.
        events: a file for what it says; must not exist.
        env: its environment.
        hear: told of each event, soon after it happened.
    """
    found = Run(time.monotonic())
    output = events.with_suffix(".out")
    events.touch()
    with output.open("wb") as out, events.open() as lines:
        process = subprocess.Popen([*command, "--events", str(events)], env=env, stdout=out, stderr=out)
        found.pid = process.pid
        rest = ""
        try:
            while True:
                ended = process.poll() is not None
                rest = _listen(rest + lines.read(), found, hear)
                if ended or time.monotonic() - found.began > SECONDS:
                    break
                time.sleep(0.002)
        finally:
            kill([process.pid] if process.poll() is None else [])
            process.wait()
    found.seconds = time.monotonic() - found.began
    found.code = process.returncode if process.returncode >= 0 else None
    found.output = output.read_text(errors="replace")
    return found


def _listen(text: str, found: Run, hear: Callable[[Run, Event], None] | None) -> str:
    """Take whole lines; returns the beginning of the next one."""
    *whole, rest = text.split("\n")
    for line in whole:
        event = {**json.loads(line), "seen": time.monotonic() - found.began}
        found.events.append(event)
        if hear is not None:
            hear(found, event)
    return rest


def must(found: Run) -> Run:
    """End the benchmark if an undisturbed scan has failed."""
    if found.code != 0:
        sys.exit(f"an undisturbed scan ended with {found.code}\n{found.output[-3000:]}")
    return found
