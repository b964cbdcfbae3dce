"""A warehouse of two models whose weights were never made: the counts that Gaussian ones would have.

python benchmarks/report_warehouse.py WAREHOUSE LAYOUT      prints how many bins it has
"""

from __future__ import annotations

import sys
import zlib
from math import prod
from pathlib import Path

import numpy as np
from layouts import LAYOUTS
from scipy.special import ndtr

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import engine
from engine.nouns.dtypes import CODINGS, code_table
from engine.nouns.records import Checkpoint, TensorInfo
from engine.sketch import Sketch, from_totals
from engine.statistics.gaussianity import coding_grid
from engine.statistics.summary import summarise
from engine.warehouse.ingest import Finished, write_tensors
from engine.warehouse.rows import one_value
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import begin, finish

_CODING = CODINGS["bf16"]
_OUTLIERS, _FAR = 1e-3, 8.0
_AT_ONCE = 100


def sketch(name: str, elements: int, seed: int) -> Sketch:
    """Counts of a tensor of bf16."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    depth = int(name.split(".")[2]) if name.startswith("model.layers.") else 0
    mean, sigma = (1.0, 0.1) if "norm" in name else (0.0, 0.015 + 0.0005 * depth)
    edges = coding_grid(_CODING.name).edges
    share = (1 - _OUTLIERS) * np.diff(ndtr((edges - mean) / sigma))
    share += _OUTLIERS * np.diff(ndtr((edges - mean) / sigma / _FAR))
    share = np.maximum(share, 0)  # far out, rounding makes some differences negative
    counts = rng.multinomial(elements, share / share.sum())
    table = code_table(_CODING.name)
    positive = table.order[table.value[table.order] != 0]  # the two zeros are one value
    codes = np.insert(positive, np.searchsorted(table.value[positive], 0.0), 0)
    totals = np.zeros((1, _CODING.size), np.uint64)
    totals[0, codes] = counts
    return from_totals(_CODING, totals)


def write(store: Warehouse, layout: str, name: str, seed: int) -> None:
    """Write a subject of this layout."""
    shapes = LAYOUTS[layout].tensors()
    tensors = tuple(TensorInfo(n, "BF16", s, 0, 0, 2 * prod(s)) for n, s in shapes.items())
    checkpoint = Checkpoint(f"/models/{name}", name, "safetensors", (), tensors, f"{seed:064x}")
    with store.writing() as connection:
        subject_id = begin(connection, checkpoint, name=name, spec={}, force=False).subject_id
    for start in range(0, len(tensors), _AT_ONCE):
        finished = []
        for ordinal, info in enumerate(tensors[start : start + _AT_ONCE], start):
            counts = sketch(info.name, info.elements, seed)
            finished.append(Finished(ordinal, info, counts, summarise(counts)))
        with store.writing() as connection:
            write_tensors(connection, subject_id, finished)
    with store.writing() as connection:
        finish(connection, subject_id)


def main(path: Path, layout: str) -> None:
    """Run as a script."""
    store = Warehouse(path)
    write(store, layout, "base", 0)
    write(store, layout, "tuned", 1)
    engine.simulate(points=1_000_000, warehouse=path)
    with store.writing() as connection:
        connection.execute(
            "INSERT INTO runs BY NAME SELECT i + 1 AS run_id, 'run ' || i AS name FROM range(8) t(i)"
        )
        connection.execute(
            "INSERT INTO metrics SELECT 1 + i // 100, i % 100, 'loss', 1 / (1 + i % 100) FROM range(800) t(i)"
        )
    with store.reading() as connection:
        print(one_value(connection, "SELECT count(*) FROM bins"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
