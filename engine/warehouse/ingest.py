"""From sketches and summaries to rows, by Arrow batches."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from engine.bands.packing import pack_bands
from engine.execution.fold import Partial
from engine.nouns.names import place
from engine.nouns.records import DEQUANTISED, TensorInfo
from engine.sketch import Sketch
from engine.statistics.filtering import Filtered
from engine.statistics.iid import Iid
from engine.statistics.quantiles import PROBABILITIES
from engine.statistics.spectrum import Spectrum
from engine.statistics.summary import Summary
from engine.warehouse.columns import arrow, insert_arrow, insert_records
from engine.warehouse.rows import Connection, all_rows, one_value

_COUNTS = ("zeros", "nan", "pos_inf", "neg_inf", "small")
_NUMBERS = (
    "min",
    "max",
    "mean",
    "m2",
    "m3",
    "m4",
    "error_bound",
    "entropy",
    "gaussian_entropy",
    "ks",
    *PROBABILITIES,
)


@dataclass(frozen=True, slots=True)
class Finished:
    """A tensor whose rows can be written.

    Attributes:
        ordinal: its position in the checkpoint.
        info: what the header says of it.
        sketch: its counts, None for a tensor that is only listed.
        summary: the numbers from them, likewise.
        iid: about its rows and columns, None if that was not asked for.
    """

    ordinal: int
    info: TensorInfo
    sketch: Sketch | None = None
    summary: Summary | None = None
    iid: Iid | None = None


def write_tensors(connection: Connection, subject_id: int, tensors: Sequence[Finished]) -> None:
    """Write the rows of finished tensors, but for those that are in already.

    What was found out about the rows and columns of one that is in already is added to it.

    Args:
        connection: in a transaction.
        subject_id: whose tensors they are.
        tensors: at most once each.
    """
    known = all_rows(connection, "SELECT ordinal, tensor_id FROM tensors WHERE subject_id = ?", [subject_id])
    present: dict[int, int] = dict(known)
    new = sorted((t for t in tensors if t.ordinal not in present), key=lambda t: t.ordinal)
    if new:
        present |= _write_new(connection, subject_id, new)
    _write_iid(connection, [(present[t.ordinal], t.iid) for t in tensors if t.iid is not None])
    connection.execute(
        "DELETE FROM partials WHERE subject_id = ? AND list_contains(?::INTEGER[], ordinal)",
        [subject_id, [t.ordinal for t in tensors]],
    )


def _write_new(connection: Connection, subject_id: int, new: Sequence[Finished]) -> dict[int, int]:
    """Write tensors that are not in, and say which numbers they have got, by ordinal."""
    first = one_value(connection, "SELECT coalesce(max(tensor_id), 0) + 1 FROM tensors")
    insert_records(connection, "tensors", [_tensor_row(subject_id, first + i, t) for i, t in enumerate(new)])
    counted = [(first + i, t.sketch, t.summary) for i, t in enumerate(new)]
    sketches = [(i, sketch) for i, sketch, _ in counted if sketch is not None]
    if sketches:
        insert_arrow(connection, "bins", _bins(sketches))
        filters = [_filter_row(i, f) for i, _, summary in counted if summary for f in summary.filtered]
        insert_records(connection, "filtered", filters)
    return {t.ordinal: first + i for i, t in enumerate(new)}


def _write_iid(connection: Connection, found: Sequence[tuple[int, Iid]]) -> None:
    """Write what is known of rows and columns, but for tensors of which that is in already."""
    known = all_rows(
        connection,
        "SELECT tensor_id FROM iid WHERE list_contains(?::INTEGER[], tensor_id)",
        [[i for i, _ in found]],
    )
    present = {row[0] for row in known}
    records = [_iid_row(i, iid) for i, iid in found if i not in present]
    if records:
        insert_records(connection, "iid", records)


def write_partials(
    connection: Connection,
    subject_id: int,
    partials: Mapping[int, Partial[Sketch]],
    *,
    keep: Collection[int] = (),
) -> None:
    """Write what is known of tensors that are not finished, in place of what was known before.

    Args:
        connection: in a transaction.
        subject_id: whose tensors they are.
        partials: what is known, by ordinal.
        keep: ordinals of which everything was written before.
    """
    connection.execute(
        "DELETE FROM partials WHERE subject_id = ? AND NOT list_contains(?::INTEGER[], ordinal)",
        [subject_id, sorted(keep)],
    )
    for ordinal, partial in sorted(partials.items()):
        sketch = partial.found
        connection.execute(
            "INSERT INTO partials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [subject_id, ordinal, [edge for span in partial.spans for edge in span], sketch.codes.tolist(),
             sketch.n.tolist(), _optional_list(sketch.low_sum), _optional_list(sketch.low_square_sum),
             sketch.zeros, sketch.minimum, sketch.maximum,
             None if sketch.bands is None else pack_bands(sketch.bands)],
        )  # fmt: skip


def write_spectra(connection: Connection, subject_id: int, found: Mapping[int, Spectrum]) -> None:
    """Add singular values to what is known of rows and columns.

    Args:
        connection: in a transaction.
        subject_id: whose tensors they are.
        found: by ordinal, of tensors that are in.
    """
    for ordinal, one in sorted(found.items()):
        connection.execute(
            "UPDATE iid SET singular_values = ?, singular_distance = ?, singular_distance_limit = ?, "
            "singular_beyond = ?, singular_ratio = ? WHERE tensor_id = "
            "(SELECT tensor_id FROM tensors WHERE subject_id = ? AND ordinal = ?)",
            [one.values, _defined(one.distance), _defined(one.limit), one.beyond, _defined(one.ratio),
             subject_id, ordinal],
        )  # fmt: skip


def _optional_list(array: Any) -> list[int] | None:
    return None if array is None else array.tolist()


def _tensor_row(subject_id: int, tensor_id: int, tensor: Finished) -> dict[str, Any]:
    info = tensor.info
    where = place(info.name.removesuffix(DEQUANTISED) if info.scaling else info.name)
    notes = [n for n in (info.kind.note, info.note) if n]
    row: dict[str, Any] = {
        "subject_id": subject_id,
        "tensor_id": tensor_id,
        "ordinal": tensor.ordinal,
        "name": info.name,
        "part": where.part,
        "layer": where.layer,
        "module": where.module,
        "role": where.role,
        "dtype": info.dtype,
        "coding": info.coding.name if info.coding else None,
        "shape": list(info.shape),
        "n": info.elements,
        "note": "; ".join(notes) or None,
        "reason": info.why,
        "alias_of": info.alias_of,
        "form": info.form,
    }
    return row | (
        _summary_columns(tensor.summary) if tensor.summary else dict.fromkeys((*_COUNTS, *_NUMBERS))
    )


def _summary_columns(summary: Summary) -> dict[str, Any]:
    m = summary.moments
    numbers = {
        "min": summary.minimum, "max": summary.maximum, "mean": m.mean, "m2": m.m2, "m3": m.m3, "m4": m.m4,
        "entropy": summary.entropy, "gaussian_entropy": summary.gaussian_entropy, "ks": summary.ks,
        "error_bound": summary.error_bound, **summary.quantiles,
    }  # fmt: skip
    counts = {k: getattr(summary, k) for k in _COUNTS}
    return counts | {name: _defined(value) for name, value in numbers.items()}


def _iid_row(tensor_id: int, iid: Iid) -> dict[str, Any]:
    numbers: dict[str, float] = {}
    whole: dict[str, Any] = {"tensor_id": tensor_id, "matrix": list(iid.matrix) if iid.matrix else None}
    for side, lag, lines in (("row", iid.row_lag, iid.row), ("column", iid.column_lag, iid.column)):
        numbers |= {
            f"{side}_lag": lag.r, f"{side}_lag_limit": lag.limit, f"{side}_spread": lines.spread,
            f"{side}_spread_low": lines.low, f"{side}_spread_high": lines.high,
            f"{side}_sigma_cv": lines.sigma_cv, f"outlier_{side}_ratio": lines.ratio,
        }  # fmt: skip
        whole |= {f"outlier_{side}s": lines.outliers, f"outlier_{side}": lines.worst}
    return (
        whole
        | {name: _defined(x) for name, x in numbers.items()}
        | {"reason": iid.reason, "zero_rows": iid.zero_rows}
    )


def _filter_row(tensor_id: int, f: Filtered) -> dict[str, Any]:
    return {
        "tensor_id": tensor_id,
        "sigmas": f.sigmas,
        "floor": f.floor,
        "kept": f.kept,
        "ratio": _defined(f.ratio),
        "mean": _defined(f.moments.mean),
        "std": _defined(f.moments.std),
        "skewness": _defined(f.moments.skewness),
        "kurtosis": _defined(f.moments.kurtosis),
        "error_bound": f.error_bound,
    }


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _bins(sketches: Sequence[tuple[int, Sketch]]) -> dict[str, pa.Array]:
    sizes = [len(s.codes) for _, s in sketches]

    def low(name: str) -> pa.ChunkedArray:
        arrays = [getattr(s, name) for _, s in sketches]
        chunks = [
            pa.nulls(k, pa.uint64()) if a is None else arrow(a) for a, k in zip(arrays, sizes, strict=True)
        ]
        return pa.chunked_array(chunks, pa.uint64())

    return {
        "tensor_id": arrow(np.repeat(np.array([i for i, _ in sketches], np.int32), sizes)),
        "code": arrow(np.concatenate([s.codes for _, s in sketches])),
        "n": arrow(np.concatenate([s.n for _, s in sketches])),
        "low_sum": low("low_sum"),
        "low_square_sum": low("low_square_sum"),
    }
