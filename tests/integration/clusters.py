"""Ray clusters for tests: every server on loopback, and nothing left when they end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

STORE = 80 << 20
VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the switch that lets Ray listen on loopback alone
    "RAY_AUTH_MODE": "disabled",
}


@contextmanager
def cluster(*nodes: dict[str, Any]) -> Iterator[Any]:
    """A cluster of several nodes of this machine, the first of them its head."""
    with patch.dict(os.environ, VARIABLES):
        from ray import cluster_utils
        from ray._private import ray_constants

        with patch.object(ray_constants, "ENABLE_RAY_CLUSTER", False):
            common = {"node_ip_address": "127.0.0.1", "object_store_memory": STORE}
            head, *others = nodes
            running = cluster_utils.Cluster(
                initialize_head=True, head_node_args={**common, "include_dashboard": False, **head}
            )
            try:
                for node in others:
                    running.add_node(**common, **node)
                yield running
            finally:
                running.shutdown()


def listening_beyond_loopback() -> set[str]:
    """Addresses of this machine's TCP servers that others could reach."""
    found = set()
    for path, anywhere in (("/proc/net/tcp", "00000000"), ("/proc/net/tcp6", "0" * 32)):
        rows = [line.split() for line in Path(path).read_text().splitlines()[1:]]
        for row in rows:
            address, state = row[1], row[3]
            host = address.partition(":")[0]
            if (
                state == "0A"
                and (host == anywhere or not host.endswith("7F"))
                and not host.endswith("01000000")
            ):
                found.add(address)
    return found
