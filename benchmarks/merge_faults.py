"""Kill merges with SIGKILL at random moments, complete each, and compare the bytes with an undisturbed merge.

python benchmarks/merge_faults.py [--layout tinyllama-1.1b] [--kills 10] [--method ties] [--ray] [--seed 0]

A base and two models that were tuned from it are made and removed. With --ray, one worker of a private Ray
cluster is killed at each of the moments instead of the whole command.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import GAUSSMETER, HERE, checkpoint, preamble, table
from layouts import LAYOUTS


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    found = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def command(config: Path, out: Path, warehouse: Path, *, ray: bool) -> list[str]:
    """The merge; its events go to a file beside the output."""
    words = [GAUSSMETER, "merge", str(config), str(out), "-w", str(warehouse), "--format", "json"]
    return words + (["--ray", "local"] if ray else [])


def worker_of(driver: int) -> int | None:
    """Some process of Ray that counts for a driver."""
    for line in subprocess.run(
        ["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True
    ).stdout.splitlines():
        pid, _, words = line.strip().partition(" ")
        if words.startswith("ray::") and "IDLE" not in words and _is_below(int(pid), driver):
            return int(pid)
    return None


def _is_below(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return False
        pid = int(status.split("PPid:")[1].split()[0])
    return False


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layout", choices=LAYOUTS, default="tinyllama-1.1b")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--method", default="ties")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    print(preamble())
    with tempfile.TemporaryDirectory(prefix="gaussmeter-bench-") as directory, checkpoint(a.layout) as base:
        scratch = Path(directory)
        tuned = [scratch / "tuned-1", scratch / "tuned-2"]
        for number, out in enumerate(tuned, 1):
            words = [sys.executable, str(HERE / "tuned.py"), str(base), str(out), "--seed", str(number)]
            subprocess.run(words, check=True)
        own = {} if a.method == "outlier" else {"weight": 0.5}
        own |= {"density": 0.5} if a.method == "ties" else {}
        models = [{"model": str(t), "parameters": own} for t in tuned]
        config = scratch / "merge.json"
        config.write_text(json.dumps({"merge_method": a.method, "base_model": str(base), "models": models}))
        (scratch / "whole").mkdir()
        began = time.monotonic()
        words = command(config, scratch / "whole" / "out", scratch / "whole.duckdb", ray=a.ray)
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - began
        expected = digests(scratch / "whole" / "out")
        rows, same = [], True
        moments = random.Random(a.seed)
        for number in range(a.kills):
            folder = scratch / f"kill-{number}"
            folder.mkdir()
            row, equal = one(config, folder, expected, moments.uniform(0.1, 1) * seconds, ray=a.ray)
            rows.append([str(number + 1), *row])
            same &= equal
            shutil.rmtree(folder)
        print(f"undisturbed: {seconds:.1f} s\n")
        print(table(["kill", "after s", "ended by", "then s", "read GB", "status", "bytes"], rows))
        sys.exit(0 if same else "some bytes differ")


def one(
    config: Path, folder: Path, expected: dict[str, str], moment: float, *, ray: bool
) -> tuple[list[str], bool]:
    """Kill a merge, complete it, and compare."""
    words = command(config, folder / "out", folder / "w.duckdb", ray=ray)
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(words, stdout=said)
    time.sleep(moment)
    victim = worker_of(process.pid) if ray else process.pid
    if victim is not None:
        os.kill(victim, signal.SIGKILL)
    code = process.wait()
    ended = "itself" if code == 0 else signal.Signals(-code).name
    began = time.monotonic()
    report = json.loads((folder / "said").read_text()) if code == 0 else None
    if report is None:
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        report = json.loads(done.stdout)
    equal = digests(folder / "out") == expected
    read = f"{report['nbytes_read'] / 1e9:.2f}"
    row = [f"{moment:.1f}", ended, f"{time.monotonic() - began:.1f}", read, report["status"]]
    return [*row, "same" if equal else "OTHER"], equal


if __name__ == "__main__":
    main()
