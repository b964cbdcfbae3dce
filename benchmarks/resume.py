"""Kill scans at random moments, complete them, and compare what they counted with an undisturbed scan.

python benchmarks/resume.py [--layout qwen2.5-32b --fill sparse | --checkpoint DIR] [--kills 10] [--seed 0]
                            [-- OPTIONS OF gaussmeter scan]

Every killed scan is killed again when it goes on, until the kills are used up or it ends by itself first;
then the next one begins. Bytes read are those that Linux accounts to the process, less what one reads
that finds nothing to do. Ends with 1 if a row differs. A scan shorter than a few seconds keeps nothing
between its beginning and its end; `-- --workers 1 --chunk-size 1KiB` makes it longer.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import GAUSSMETER, checkpoint, preamble, weight_files
from layouts import LAYOUTS

_ROWS = {
    "bins": "SELECT name, b.* EXCLUDE (tensor_id) FROM {db}.bins b JOIN {db}.tensors USING (tensor_id)",
    "tensors": "SELECT * EXCLUDE (subject_id, tensor_id) FROM {db}.tensors",
    "filtered": "SELECT name, f.* EXCLUDE (tensor_id) "
    "FROM {db}.filtered f JOIN {db}.tensors USING (tensor_id)",
}


def run(command: list[str], kill_after: float = float("inf")) -> tuple[bool, int, float]:
    """Run a scan, or part of one.

    Args:
        command: the scan.
        kill_after: seconds until SIGKILL.

    Returns:
        whether it ended by itself, how many bytes it read of anything, and its seconds.
    """
    began = time.monotonic()
    process = subprocess.Popen(command)
    options = os.WEXITED | os.WNOWAIT
    while os.waitid(os.P_PID, process.pid, options | os.WNOHANG) is None:
        if time.monotonic() - began >= kill_after:
            process.send_signal(signal.SIGSTOP)  # so that it reads nothing after we look
            break
        time.sleep(0.002)
    nbytes = _bytes_read(process.pid)
    process.kill()
    code = process.wait()
    if code not in (0, -signal.SIGKILL):
        sys.exit(f"the scan ended with {code}")
    return code == 0, nbytes, time.monotonic() - began


def _bytes_read(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def differences(one: Path, other: Path) -> dict[str, tuple[int, int]]:
    """Rows of one warehouse and rows that only one of two has, by table; tensors are told by name."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{one}' AS a (READ_ONLY)")
        connection.execute(f"ATTACH '{other}' AS b (READ_ONLY)")
        found = {}
        for name, sql in _ROWS.items():
            a, b = f"({sql.format(db='a')})", f"({sql.format(db='b')})"
            both = f"SELECT count(*) FROM (({a} EXCEPT ALL {b}) UNION ALL ({b} EXCEPT ALL {a}))"
            ((rows,),) = connection.execute(f"SELECT count(*) FROM {a}").fetchall()
            ((differ,),) = connection.execute(both).fetchall()
            found[name] = rows, differ
    return found


def disturb(command: list[str], reference: Path, kills: int, rng: random.Random) -> bool:
    """Kill and complete scans; print what happened; returns whether any row differs.

    Args:
        command: the scan, the warehouse last.
        reference: to be filled by an undisturbed scan.
        kills: how often.
        rng: for the moments.
    """
    _, whole, seconds = run([*command, str(reference)])
    _, nothing, start = run([*command, str(reference)])  # it is in already
    print(f"Undisturbed: {seconds:.1f} s, {(whole - nothing) / 1e9:.3f} GB read.\n")
    bad, left, number = False, kills, 0
    while left:
        number += 1
        warehouse = reference.with_name(f"killed-{number}.duckdb")
        read, killed, ended = 0, [], False
        while not ended:
            moment = rng.uniform(0, seconds) if left else float("inf")
            ended, nbytes, lasted = run([*command, str(warehouse)], moment)
            read += max(0, nbytes - nothing)
            if not ended:
                left -= 1
                killed.append(lasted)
            elif not killed:
                seconds = min(seconds, lasted)  # the first scan may have found the files cold
        again = read - (whole - nothing)
        moments = ", ".join(f"{s:.2f} s" for s in killed)
        fate = f"killed after {moments}" if killed else "ended before it could be killed"
        print(f"Scan {number}: {fate}; {max(again, 0) / 1e9:.3f} GB read again;", end=" ")
        found = differences(reference, warehouse)
        print(
            "; ".join(f"{n}: {rows:,} rows, {differ:,} differ" for n, (rows, differ) in found.items()) + "."
        )
        bad |= any(differ for _, differ in found.values())
        warehouse.unlink()
    print(f"\n{kills} kills; a process needs {start:.1f} s before and after its reading.")
    return bad


def main() -> None:
    """Run as a script."""
    words, options = sys.argv[1:], []
    if "--" in words:
        cut = words.index("--")
        words, options = words[:cut], words[cut + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layout", choices=LAYOUTS, default="qwen2.5-32b")
    parser.add_argument("--fill", default="sparse")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args(words)
    print(preamble())
    with (
        checkpoint(a.layout, a.checkpoint, fill=a.fill, dtype=a.dtype) as directory,
        tempfile.TemporaryDirectory(prefix="gaussmeter-bench-") as scratch,
    ):
        weight_files(directory)
        command = [GAUSSMETER, "scan", str(directory), "-q", *options, "-w"]
        bad = disturb(command, Path(scratch) / "reference.duckdb", a.kills, random.Random(a.seed))
    print("The counts DIFFER." if bad else "Every count is the same, bit for bit.")
    sys.exit(int(bad))


if __name__ == "__main__":
    main()
