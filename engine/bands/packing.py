"""Bands as bytes, for the journal and the warehouse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.bands.known import Bands, Loose, Node, Run
from engine.nouns.matrices import Matrix


def pack_bands(bands: Bands) -> bytes:
    """Put it into bytes; see `unpack_bands`."""
    arrays: list[NDArray[Any]] = []
    for run in bands.runs:
        arrays += [run.of_rows, run.top, run.bottom, *(node.of_columns for node in run.nodes)]
    arrays += [loose.values for loose in bands.loose]
    said = {
        "matrix": [bands.matrix.rows, bands.matrix.columns],
        "sums": [hex(bands.across), hex(bands.down)],
        "runs": [[r.first, r.stop, [[n.level, n.index] for n in r.nodes]] for r in bands.runs],
        "loose": [loose.first for loose in bands.loose],
        "broken": bands.broken,
        "arrays": [[a.dtype.str, list(a.shape)] for a in arrays],
    }
    return json.dumps(said).encode() + b"\n" + b"".join(a.tobytes() for a in arrays)


def unpack_bands(data: bytes) -> Bands:
    """Read what `pack_bands` made, to the bit."""
    text, _, rest = data.partition(b"\n")
    said = json.loads(text)
    arrays = _arrays(said["arrays"], rest)
    runs = []
    for first, stop, nodes in said["runs"]:
        of_rows, top, bottom = next(arrays), next(arrays), next(arrays)
        runs.append(
            Run(
                first,
                stop,
                of_rows,
                top,
                bottom,
                tuple(Node(level, index, next(arrays)) for level, index in nodes),
            )
        )
    loose = tuple(Loose(first, next(arrays)) for first in said["loose"])
    across, down = (int(units, 16) for units in said["sums"])
    return Bands(Matrix(*said["matrix"]), across, down, tuple(runs), loose, said["broken"])


def _arrays(kinds: list[tuple[str, list[int]]], data: bytes) -> Iterator[NDArray[Any]]:
    place = 0
    for kind, shape in kinds:
        array = np.frombuffer(data, np.dtype(kind), prod(shape), place).reshape(shape).copy()
        place += array.nbytes
        yield array
