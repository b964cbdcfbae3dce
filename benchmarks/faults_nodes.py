"""Ray clusters of several nodes within a room, each node a tree of processes that can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from faults_rooms import alive, ip, kill, tree

ADDRESSES = [f"10.77.0.{i}" for i in (1, 2, 3)]
PORT = 6379
RAY = str(Path(sys.executable).with_name("ray"))
STORE = 80 << 20
QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_grpc_client_keepalive_time_ms": "3000",
    "RAY_grpc_client_keepalive_timeout_ms": "3000",
}
"""Ray notices a silent node within seconds; by default it takes a minute."""
_START_SECONDS = 120.0


@dataclass(slots=True)
class Cluster:
    """A cluster that runs.

    Attributes:
        address: of its head.
        env: what its processes were started with; a driver wants it too.
        nodes: the process at the root of each node, the head first.
        folder: for its files.
        spill: where its nodes write what does not fit into memory.
    """

    address: str
    env: dict[str, str]
    folder: Path
    spill: Path
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def kill_node(self, number: int) -> None:
        """End a node's processes at once."""
        kill(tree(self.nodes[number].pid))

    def live(self) -> int:
        """How many nodes the head believes to be there."""
        from ray._raylet import GcsClient

        found = GcsClient(address=self.address).get_all_node_info(timeout=10)
        return sum(1 for node in found.values() if node.state == 0)


@contextmanager
def cluster(folder: Path, nodes: int, settings: dict[str, str], *, apart: bool = False) -> Iterator[Cluster]:
    """Have a cluster for the length of a block.

    Args:
        folder: for its files; its path must be short.
        nodes: how many, each with one core.
        settings: environment variables of every process.
        apart: whether the second node is in a network of its own, behind a link; see `link`.
    """
    os.environ["RAY_AUTH_MODE"] = "disabled"  # nobody but this room can come in
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(folder), **settings}
    spill = folder / "spill"
    spill.mkdir(parents=True, exist_ok=True)
    found = Cluster(f"{ADDRESSES[0]}:{PORT}", env, folder, spill)
    with ExitStack() as stack:
        stack.callback(_end, found)
        wrap = stack.enter_context(link()) if apart else []
        _start(found, "--head", f"--port={PORT}", "--include-dashboard=false")
        _until(lambda: _answers(found, 1), "the head of a cluster")
        for _ in range(1, nodes):  # one by one: those that start together may choose the same ports
            _start(found, f"--address={found.address}", wrap=wrap)
            _until(lambda: _answers(found, len(found.nodes)), "a node of a cluster")
        yield found


def _start(cluster: Cluster, *words: str, wrap: list[str] | None = None) -> None:
    number = len(cluster.nodes)
    common = ["--num-cpus=1", f"--object-store-memory={STORE}", "--disable-usage-stats", "--block"]
    here = [f"--node-ip-address={ADDRESSES[number]}", f"--object-spilling-directory={cluster.spill}"]
    with (cluster.folder / f"node-{number}.log").open("wb") as log:
        command = [*(wrap or []), RAY, "start", *words, *common, *here]
        cluster.nodes.append(
            subprocess.Popen(command, env=cluster.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        )


def _end(cluster: Cluster) -> None:
    for node in cluster.nodes:
        kill(tree(node.pid))
        node.wait()


def _answers(cluster: Cluster, nodes: int) -> bool:
    from ray.exceptions import RpcError

    if not all(alive(node.pid) for node in cluster.nodes):
        logs = [path.read_text() for path in sorted(cluster.folder.glob("node-*.log"))]
        sys.exit("a node has ended\n" + logs[-1][-3000:])
    try:
        return cluster.live() == nodes
    except (RpcError, TimeoutError, RuntimeError):
        return False


def _until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not start within {_START_SECONDS:.0f} s")
        time.sleep(0.2)


@contextmanager
def link() -> Iterator[list[str]]:
    """A network of its own for the second node, and a link between it and this one.

    Yields:
        the words before a command that runs there.
    """
    sleeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    own = Path("/proc/self/ns/net").readlink()
    try:
        _until(lambda: Path(f"/proc/{sleeper.pid}/ns/net").readlink() != own, "a network")
        here, there = ADDRESSES[:2]
        ip("address", "del", f"{there}/32", "dev", "lo")
        ip("link", "add", "gauss0", "type", "veth", "peer", "name", "gauss1")
        ip("link", "set", "gauss1", "netns", str(sleeper.pid))
        ip("address", "add", f"{here}/24", "dev", "gauss0")
        ip("link", "set", "gauss0", "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{there}/24", "dev", "gauss1"),
            ("link", "set", "gauss1", "up"),
            ("route", "add", "default", "via", here),
        ):
            ip(*words, inside=sleeper.pid)
        yield ["nsenter", "-t", str(sleeper.pid), "-n"]
    finally:
        sleeper.kill()
        sleeper.wait()
        subprocess.run(["ip", "link", "del", "gauss0"], check=False, capture_output=True)
        ip("address", "add", f"{ADDRESSES[1]}/32", "dev", "lo")


def cut() -> None:
    """Take the link down: packets vanish, nobody is told."""
    ip("link", "set", "gauss0", "down")
