"""Fills the object stores of a cluster's nodes, and holds what it put there.

python benchmarks/faults_hog.py ADDRESS BYTES

Says `ready` when it could begin, begins when it is sent a line, says `full`, and ends with its input.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class Hog:
    """An actor that fills the store of its node."""

    def __init__(self) -> None:
        self._held: list[Any] = []

    def fill(self, nbytes: int) -> int:
        """Put objects until the store has no room left for a small one; returns how many it took.

        Each is read as well: what somebody reads is neither moved to disk nor dropped.
        """
        most = nbytes // (1 << 20)
        for size, number in ((1 << 20, most), (1 << 16, 64)):
            for _ in range(number):
                try:
                    reference = ray.put(np.ones(size, np.uint8))
                    self._held.append((reference, ray.get(reference, timeout=5)))
                except ray.exceptions.RayError:
                    break
        return len(self._held)


def main() -> None:
    """Run as a script."""
    address, nbytes = sys.argv[1], int(sys.argv[2])
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    hogs = []
    for node in ray.nodes():
        where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        hogs.append(ray.remote(Hog).options(num_cpus=0, scheduling_strategy=where).remote())
    ray.get([hog.__ray_ready__.remote() for hog in hogs])
    print("ready", flush=True)
    sys.stdin.readline()
    print("full", ray.get([hog.fill.remote(nbytes) for hog in hogs]), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
