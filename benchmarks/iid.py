"""What `scan --iid` costs beside a plain scan, whether noise keeps its limits, and what they find.

python benchmarks/iid.py time [--layout tinyllama-1.1b --dtype bf16 | --checkpoint DIR] [--rounds 3]
python benchmarks/iid.py laws [--trials 1000] [--shapes 64x256,512x16] [--seed 0]
python benchmarks/iid.py planted [--side 4096] [--seed 0]

`time` runs both sides in turn, whole processes, each into a warehouse of its own. `laws` draws matrices of
Gaussian noise (and of Laplace noise, for which the same limits should hold), rounds them to bf16, f16 and
f32 in turn, and counts how many are inside each limit. `planted` changes noise by little and says what is
found. Ends with 1 if `time` is above 2.5, a law outside of 95 +- 2 %, or something planted is not found.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import checkpoint, measure, preamble, scan_command, table
from layouts import LAYOUTS

_MOST = 2.5
_LIMITS = (
    "row lag", "column lag", "row spread", "outlier rows", "column spread", "outlier columns",
    "singular distance", "beyond the edge",
)  # fmt: skip
_SHAPES = "64x256,512x16,17x1000,1000x17,32x32,8x64,300x4,128x128"


def time_both(words: argparse.Namespace) -> bool:
    """Scan with and without, in turn."""
    options: dict[str, list[str]] = {"plain": [], "--iid": ["--iid"]}
    costs: dict[str, list[Any]] = {name: [] for name in options}
    with (
        checkpoint(words.layout, words.checkpoint, dtype=words.dtype) as place,
        tempfile.TemporaryDirectory() as folder,
    ):
        for number in range(words.rounds + 1):  # the first fills the page cache and the compiler's
            for name, more in options.items():
                cost = measure(scan_command(place, Path(folder) / f"{name.strip('-')}.duckdb", *more))
                if number:
                    costs[name].append(cost)
    ratio = statistics.median(b.wall / a.wall for a, b in zip(*costs.values(), strict=True))
    rows = [
        [
            name,
            f"{statistics.median(c.wall for c in found):.2f}",
            f"{statistics.median(c.cpu for c in found):.2f}",
            f"{max(c.peak for c in found) / 2**20:,.0f}",
        ]
        for name, found in costs.items()
    ]
    print(table(["scan", "median s", "CPU s", "peak MiB"], rows))
    print(f"ratio: {ratio:.2f}, median of {words.rounds} rounds")
    return ratio <= _MOST


def laws(words: argparse.Namespace) -> bool:
    """Count how often noise is inside the limits."""
    import numpy as np

    rng = np.random.default_rng(words.seed)
    rows, kept = [], True
    draws = {
        "Gaussian": rng.standard_normal,
        "Laplace": lambda size: rng.laplace(size=size),
    }
    for name, draw in draws.items():
        for shape in words.shapes.split(","):
            size = tuple(map(int, shape.split("x")))
            inside: Counter[str] = Counter()
            for trial in range(words.trials):
                found = _limits(draw(size).astype(np.float32), ("F32", "BF16", "F16")[trial % 3])
                inside.update(key for key, one in found.items() if one)
            shares = [100 * inside[key] / words.trials for key in found]
            rows.append(
                [f"{name} {shape}", *(f"{share:.1f}" for share in shares), *["-"] * (8 - len(shares))]
            )
            kept &= name != "Gaussian" or all(abs(share - 95) <= 2 for share in shares)
            print(rows[-1], file=sys.stderr)
    print(table(["noise", *_LIMITS], rows))
    return kept


def planted(words: argparse.Namespace) -> bool:
    """Plant what should be found."""
    import numpy as np

    rng = np.random.default_rng(words.seed)
    rows, found_all = [], True
    for name, wanted, matrix in _plants(rng, words.side):
        found = _limits(matrix, "BF16", spectrum=True)
        outside = [key for key, inside in found.items() if not inside]
        rows.append([name, wanted, ", ".join(outside) or "nothing"])
        found_all &= not wanted or wanted in outside
        print(rows[-1], file=sys.stderr)
    print(table(["planted", "wanted", "outside its limit"], rows))
    return found_all


def _plants(rng: Any, side: int) -> Iterator[tuple[str, str, Any]]:
    import numpy as np

    noise = rng.standard_normal((side, side)).astype(np.float32)
    yield "nothing", "", noise
    across, down = noise.copy(), noise.copy()
    across[:, 1:] += np.float32(0.01) * noise[:, :-1]
    down[1:] += np.float32(0.01) * noise[:-1]
    yield "correlation of 0.01 in rows", "row lag", across
    yield "correlation of 0.01 in columns", "column lag", down
    row, column = noise.copy(), noise.copy()
    row[side // 3] *= 1.2
    column[:, side // 3] *= 1.2
    yield "a row of 1.2 sigma", "outlier rows", row
    yield "a column of 1.2 sigma", "outlier columns", column
    rows = noise * (1 + 0.02 * rng.standard_normal((side, 1))).astype(np.float32)
    yield "sigmas of rows that vary by 2 %", "row spread", rows
    parts = rng.standard_normal((side, 1)) @ rng.standard_normal((1, side)) * 1.5 / np.sqrt(side)
    yield "a part of rank 1, singular value 1.5 sqrt(n)", "beyond the edge", noise + parts.astype(np.float32)


def _limits(matrix: Any, dtype: str, *, spectrum: bool = False) -> dict[str, bool]:
    """Whether a matrix is inside each limit."""
    import numpy as np

    from engine.bands.counter import BandCounter
    from engine.nouns.dtypes import DTYPES
    from engine.nouns.matrices import SMALLEST_SIDE, Matrix
    from engine.sketch import as_f32, observe
    from engine.statistics.distribution import distribution
    from engine.statistics.iid import judge
    from engine.statistics.moments import moments
    from engine.statistics.spectrum import spectrum as compare

    values = matrix.reshape(-1)
    if dtype == "BF16":
        bits = values.view(np.uint32)
        values = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    elif dtype == "F16":
        values = values.astype(np.float16).view(np.int16)
    counter = BandCounter(Matrix(*matrix.shape), 0)
    counter.add(values)
    cells = distribution(observe(values.view(np.uint8), DTYPES[dtype]))
    iid = judge(counter.bands(), cells, moments(cells))
    found = {}
    for name, lag in (("row lag", iid.row_lag), ("column lag", iid.column_lag)):
        found[name] = abs(lag.r) <= lag.limit
    for name, lines in (("row", iid.row), ("column", iid.column)):
        found[f"{name} spread"] = lines.low <= lines.spread <= lines.high
        found[f"outlier {name}s"] = lines.outliers == 0
    if spectrum or min(matrix.shape) >= SMALLEST_SIDE:
        one = compare(as_f32(values.view(np.uint8), DTYPES[dtype]).reshape(matrix.shape))
        found |= {"singular distance": one.distance <= one.limit, "beyond the edge": one.beyond == 0}
    return found


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("time")
    one.add_argument("--layout", choices=sorted(LAYOUTS), default="tinyllama-1.1b")
    one.add_argument("--dtype", default="bf16")
    one.add_argument("--checkpoint", type=Path)
    one.add_argument("--rounds", type=int, default=3)
    one.set_defaults(run=time_both)
    two = commands.add_parser("laws")
    two.add_argument("--trials", type=int, default=1000)
    two.add_argument("--shapes", default=_SHAPES)
    two.add_argument("--seed", type=int, default=0)
    two.set_defaults(run=laws)
    three = commands.add_parser("planted")
    three.add_argument("--side", type=int, default=4096)
    three.add_argument("--seed", type=int, default=0)
    three.set_defaults(run=planted)
    words = parser.parse_args()
    print(preamble())
    sys.exit(0 if words.run(words) else 1)


if __name__ == "__main__":
    main()
