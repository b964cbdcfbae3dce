"""What the values cost: counting speed of one thread by fill and dtype, and a whole scan of half zeros.

python benchmarks/fills.py [--mebibytes 256] [--repeats 5] [--layout tinyllama-1.1b] [--rounds 5]

The first table counts blocks of 1 MiB that lie in memory, with `engine.sketch.Counter`, and takes the
median of the repeats. The second scans two checkpoints of one layout in turn; --rounds 0 leaves it out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from common import checkpoint, measure, preamble, scan_command, table
from layouts import LAYOUTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLOCK, _PIECE = 1 << 20, 32 << 20
_DTYPES = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1}
_FILLS = ("gaussian", "half zero", "zeros", "constant", "uniform patterns")


def elements(fill: str, dtype: str, nbytes: int) -> NDArray[np.uint8]:
    """Bytes of weights: a piece of 32 MiB repeated.

    Args:
        fill: one of `_FILLS`; half zero is every other element at random, uniform patterns are random bytes,
            NaN and infinities among them.
        dtype: a key of `_DTYPES`.
        nbytes: how many.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    if fill == "uniform patterns":
        return np.resize(rng.integers(0, 256, _PIECE, np.uint8), nbytes)
    if fill == "zeros":
        return np.zeros(nbytes, np.uint8)
    n = _PIECE // _DTYPES[dtype]
    if fill == "constant":
        x = np.full(n, 0.0123, np.float32)
    else:
        x = rng.standard_normal(n, np.float32) * np.float32(0.02)
        if fill == "half zero":
            x[rng.integers(0, 2, n, np.uint8) == 0] = 0
    return np.resize(_encode(x, dtype), nbytes)


def _encode(x: NDArray[np.float32], dtype: str) -> NDArray[np.uint8]:
    import numpy as np
    from checkpoints import encode

    if dtype != "F8_E4M3":
        return encode(x, dtype.lower()).view(np.uint8)
    from engine.nouns.dtypes import code_table

    table = code_table("f8_e4m3")
    values = table.value[table.order]
    middles = (values[1:] + values[:-1]) / 2  # scaled as a per-tensor scale would, to fill the range
    return table.order[np.searchsorted(middles, x * np.float32(448 / 0.16))].astype(np.uint8)


def counting_speed(dtype: str, data: NDArray[np.uint8], repeats: int) -> float:
    """Median GB/s of counting blocks of 1 MiB, by processor time, which other work disturbs less."""
    from engine.nouns.dtypes import DTYPES
    from engine.sketch import Counter

    counter = Counter(DTYPES[dtype])
    counter.add(data[:_BLOCK])  # compiles
    counter.sketch()
    seconds = []
    for _ in range(repeats):
        began = time.thread_time()
        for start in range(0, data.size, _BLOCK):
            counter.add(data[start : start + _BLOCK])
        counter.sketch()
        seconds.append(time.thread_time() - began)
    return data.size / median(seconds) / 1e9


def kernels(nbytes: int, repeats: int) -> str:
    """Table of counting speeds."""
    rows = []
    for dtype in _DTYPES:
        gaussian = 0.0
        for fill in _FILLS:
            speed = counting_speed(dtype, elements(fill, dtype, nbytes), repeats)
            gaussian = gaussian or speed
            rows.append([f"{dtype} {fill}", f"{speed:.2f}", f"{speed / gaussian:.2f}"])
    return table(["one thread, by processor time", "GB/s", "of Gaussian"], rows)


def whole_scans(layout: str, rounds: int) -> str:
    """Table of whole processes, a Gaussian and a half-zero checkpoint in turn."""
    fills = ("gauss", "half-zero")
    with (
        checkpoint(layout, fill="gauss") as gauss,
        checkpoint(layout, fill="half-zero") as half,
        tempfile.TemporaryDirectory(prefix="gaussmeter-bench-") as scratch,
    ):
        warehouse = Path(scratch) / "stats.duckdb"
        seconds: dict[str, list[float]] = {fill: [] for fill in fills}
        for number in range(rounds + 1):
            for fill, directory in zip(fills, (gauss, half), strict=True):
                warehouse.unlink(missing_ok=True)
                cost = measure(scan_command(directory, warehouse))
                if number:  # the first warms up
                    seconds[fill].append(cost.wall)
    ratio = median(h / g for g, h in zip(*seconds.values(), strict=True))
    rows = [[f"{layout} {fill}", f"{min(s):.2f}", f"{median(s):.2f}"] for fill, s in seconds.items()]
    rows.append(["half-zero / gauss, median of the rounds", "", f"{ratio:.2f}"])
    return table(["gaussmeter scan", "min s", "median s"], rows)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=256, help="of each fill in memory")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layout", choices=LAYOUTS, default="tinyllama-1.1b", help="of the two checkpoints")
    parser.add_argument("--rounds", type=int, default=5, help="of the two scans, 0 for none")
    a = parser.parse_args()
    print(preamble())
    print(kernels(a.mebibytes * _BLOCK, a.repeats))
    if a.rounds:
        print(whole_scans(a.layout, a.rounds))


if __name__ == "__main__":
    main()
