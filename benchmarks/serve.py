"""Serve a directory on loopback, as a web server or as a Hub, until the process ends.

python benchmarks/serve.py web|hub DIRECTORY [--bytes-per-second N]    prints the address
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import HERE

sys.path.insert(0, str(HERE.parent))


@contextmanager
def served(kind: str, directory: Path, bytes_per_second: float | None = None) -> Iterator[str]:
    """Run a server in a process of its own.

    Args:
        kind: `web` or `hub`.
        directory: what it serves.
        bytes_per_second: the limit of each connection.

    Yields:
        its address.
    """
    words = [sys.executable, str(HERE / "serve.py"), kind, str(directory)]
    if bytes_per_second:
        words += ["--bytes-per-second", str(bytes_per_second)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    from tests.integration.servers import FileServer, HubServer

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["web", "hub"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--bytes-per-second", type=float)
    given = parser.parse_args()
    with (FileServer if given.kind == "web" else HubServer)(given.directory) as server:
        server.bytes_per_second = given.bytes_per_second
        print(server.url, flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main()
