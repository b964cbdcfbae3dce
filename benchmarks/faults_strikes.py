"""What is done to a scan, and how each of it is prepared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from faults_nodes import QUICK, STORE, Cluster, cut
from faults_rooms import kill, mount
from faults_scans import Event, Run

HOG = Path(__file__).with_name("faults_hog.py")


@dataclass(slots=True)
class Stage:
    """Where a fault happens.

    Attributes:
        cluster: that runs the scan.
        hog: who fills its object stores when it is told to.
        frozen: a worker's process that is stopped.
    """

    cluster: Cluster
    hog: subprocess.Popen[str] | None = None
    frozen: int | None = None


def kill_worker(stage: Stage, run: Run) -> None:
    kill([_last_of(run)])


def kill_node(stage: Stage, run: Run) -> None:
    stage.cluster.kill_node(1)


def kill_driver(stage: Stage, run: Run) -> None:
    kill([run.pid])


def freeze(stage: Stage, run: Run) -> None:
    stage.frozen = _last_of(run)
    os.kill(stage.frozen, signal.SIGSTOP)


def thaw(stage: Stage, event: Event) -> None:
    """Let a frozen worker go on as soon as somebody else was given its task."""
    if event["event"] == "TaskRetried" and stage.frozen is not None:
        os.kill(stage.frozen, signal.SIGCONT)
        stage.frozen = None


def fill_stores(stage: Stage, run: Run) -> None:
    assert stage.hog is not None
    assert stage.hog.stdin is not None
    stage.hog.stdin.write("\n")
    stage.hog.stdin.flush()


def cut_link(stage: Stage, run: Run) -> None:
    cut()


def _last_of(run: Run) -> int:
    """The process of the worker that joined last."""
    pid: int = run.of("WorkerJoined")[-1]["pid"]
    return pid


def _nothing(stage: Stage, event: Event) -> None:
    pass


@contextmanager
def bare(cluster: Cluster) -> Iterator[Stage]:
    yield Stage(cluster)


@contextmanager
def with_hog(cluster: Cluster) -> Iterator[Stage]:
    """Somebody else uses the cluster, who wants all of the object stores."""
    command = [sys.executable, str(HOG), cluster.address, str(STORE)]
    with (cluster.folder / "hog.log").open("w") as log:
        pipe = subprocess.PIPE
        hog = subprocess.Popen(command, env=cluster.env, stdin=pipe, stdout=pipe, stderr=log, text=True)
    try:
        assert hog.stdout is not None
        if hog.stdout.readline() != "ready\n":
            sys.exit(f"nobody fills the stores\n{Path(log.name).read_text()[-3000:]}")
        yield Stage(cluster, hog)
        if not hog.stdout.readline().startswith("full"):
            sys.exit(f"the stores were not filled\n{Path(log.name).read_text()[-3000:]}")
    finally:
        hog.kill()
        hog.wait()


@contextmanager
def without_disk(cluster: Cluster) -> Iterator[Stage]:
    """As `with_hog`, and the disk is full to which Ray moves what does not fit."""
    with (cluster.spill / "everything").open("wb") as file:
        free = os.statvfs(cluster.spill)
        file.write(bytes(free.f_bavail * free.f_frsize))
    with with_hog(cluster) as stage:
        yield stage


def small_disk(folder: Path) -> None:
    """Give the nodes a small disk for what does not fit into their stores."""
    mount(folder, "16m")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens in the middle of a scan.

    Attributes:
        title: for the table.
        strike: makes it happen.
        prepare: sets the stage.
        then: hears of what happens later.
        furnish: is done with the folder for what does not fit into memory, before the nodes start.
        nodes: of the cluster.
        settings: of its processes.
        apart: whether its second node is behind a link.
        mortal: whether the driver does not survive it, so that the scan is run again.
    """

    title: str
    strike: Callable[[Stage, Run], None]
    prepare: Callable[[Cluster], AbstractContextManager[Stage]] = bare
    then: Callable[[Stage, Event], None] = _nothing
    furnish: Callable[[Path], None] | None = None
    nodes: int = 3
    settings: dict[str, str] = field(default_factory=dict)
    apart: bool = False
    mortal: bool = False


FAULTS = {
    "worker": Fault("a worker is killed", kill_worker),
    "node": Fault("a node of three is killed", kill_node),
    "driver": Fault("the driver is killed, and the scan run again", kill_driver, mortal=True),
    "frozen": Fault("a worker is frozen for ever", freeze),
    "thawed": Fault("a worker is frozen until its task was given away", freeze, then=thaw),
    "store": Fault("the object stores are full", fill_stores, with_hog),
    "disk": Fault("the object stores and their disk are full", fill_stores, without_disk, furnish=small_disk),
    "cut": Fault("the network is cut, Ray notices soon", cut_link, nodes=2, settings=QUICK, apart=True),
    "cut-default": Fault("the network is cut, Ray's own settings", cut_link, nodes=2, apart=True),
}
