"""`scan --iid` and `--spectrum`: the same bits however it is run, whatever was there before, and whatever dies."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.errors import BudgetError, ConfigError, FormatError
from engine.storage.local import LocalReader
from engine.verbs import scribe
from engine.warehouse.store import Warehouse
from tests.builders import Tensors, write_sharded, write_tensors
from tests.integration.helpers import (
    Killed,
    Recorder,
    assert_consistent,
    contents,
    gaussmeter,
    made,
    normal,
    raising,
    records,
    rows,
    subjects,
)


def tensors() -> Tensors:
    """Matrices of many bands, wide, tall and small, and everything that is no matrix."""
    return {
        "layers.0.q_proj.weight": normal("BF16", 600, 900, seed=1),
        "layers.0.k_proj.weight": normal("F32", 20, 40_000, seed=2, std=1),
        "layers.0.v_proj.weight": normal("F16", 5000, 60, seed=3),
        "layers.0.o_proj.weight": normal("BF16", 24, 36, seed=4, mean=0.5),
        "experts.weight": normal("F64", 3, 20, 64, seed=5),
        "conv.weight": normal("F32", 16, 8, 3, 3, seed=6),
        "eight.weight": normal("F8_E4M3", 256, 128, seed=7, std=1),
        "eight.weight_scale_inv": normal("F32", 2, 1, mean=1),
        "norm.weight": normal("BF16", 400, seed=8, mean=1),
        "constant.weight": ("F32", np.full((20, 20), 0.1, "<f4")),
        "zeros.weight": ("BF16", np.zeros((20, 20), "<u2")),
        "nan.weight": ("F32", np.where(np.arange(400).reshape(20, 20) == 77, np.nan, 1.5).astype("<f4")),
        "few.weight": normal("F32", 2, 2),
        "scalar": normal("F32"),
        "nothing.weight": ("F32", np.zeros((0, 4), "<f4")),
        "ids": ("I64", np.arange(9)),
    }


def found(warehouse: Path) -> dict[str, dict[str, Any]]:
    """What is known of order, by tensor; equal ones are equal to the last bit."""
    sql = (
        "SELECT t.name, i.* EXCLUDE (tensor_id) FROM iid i JOIN tensors t USING (tensor_id) ORDER BY ordinal"
    )
    return {record.pop("name"): record for record in records(warehouse, sql)}


class Case:
    """A checkpoint, and what one worker finds in it."""

    def __init__(self, folder: Path) -> None:
        self.path = write_tensors(folder / "model" / "m.safetensors", tensors())
        self.warehouse = folder / "expected.duckdb"
        report = engine.scan(self.path, warehouse=self.warehouse, workers=1, spectrum=60)
        self.expected, self.iid = contents(self.warehouse, report.subject_id), found(self.warehouse)

    def assert_same(self, warehouse: Path, subject_id: int = 1) -> None:
        assert found(warehouse) == self.iid
        assert contents(warehouse, subject_id) == self.expected
        assert rows(warehouse, "SELECT count(*) FROM partials") == [(0,)]
        assert_consistent(warehouse)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("case"))


@pytest.fixture
def every_task_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scribe, "FLUSH_SECONDS", -1.0)


# The same bits


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 2, "task_bytes": 100_000},
        {"workers": 3, "task_bytes": 300_000, "block_bytes": 4096},
        {"workers": 1, "task_bytes": 1, "block_bytes": 65_536},
    ],
)
def test_nothing_depends_on_how_it_is_cut(case, tmp_path, options):
    listener = Recorder()
    warehouse = made(tmp_path / "w.duckdb")
    engine.scan(case.path, warehouse=warehouse, spectrum=60, listener=listener, **options)
    assert len(listener.nbytes) > 12
    case.assert_same(warehouse)


def test_shards_and_zarr_hold_the_same_matrices(case, tmp_path):
    pytest.importorskip("zarr")
    engine.pack(case.path, tmp_path / "m.zarr")
    engine.scan(tmp_path / "m.zarr", warehouse=tmp_path / "w.duckdb", workers=2, spectrum=60)
    assert found(tmp_path / "w.duckdb") == case.iid
    import zarr

    group = zarr.create_group(tmp_path / "rows.zarr")  # compressed, 777 rows a piece: no piece is a band
    patterns = tensors()["layers.0.v_proj.weight"][1].view("<f2").reshape(5000, 60)
    array = group.create_array("layers.0.v_proj.weight", shape=(5000, 60), dtype="<f2", chunks=(777, 60))
    array[:] = patterns
    group.create_array("columns", shape=(40, 60), dtype="<f2", chunks=(40, 7))[:] = patterns[:40]
    engine.scan(
        tmp_path / "rows.zarr", warehouse=tmp_path / "r.duckdb", workers=2, task_bytes=1000, spectrum=60
    )
    rowwise = found(tmp_path / "r.duckdb")
    assert rowwise["layers.0.v_proj.weight"] == case.iid["layers.0.v_proj.weight"]
    assert rowwise["columns"]["reason"] == "stored in another order than that of its rows"
    halves = list(tensors().items())
    write_sharded(tmp_path / "shards", dict(halves[:8]), dict(halves[8:]))
    engine.scan(tmp_path / "shards", warehouse=tmp_path / "s.duckdb", workers=2, spectrum=60)
    assert found(tmp_path / "s.duckdb") == case.iid


# Rows of zeros


def with_dead_rows(
    dtype: str, rows: int, columns: int, dead: list[int], faint: list[int]
) -> tuple[str, np.ndarray]:
    """A matrix with rows of zeros, of both signs, and some that are not zero but for float32 squares."""
    kind, patterns = normal(dtype, rows, columns, seed=len(dead))
    patterns = patterns.copy()
    patterns[dead] = 0
    patterns[dead[0], ::2] = 1 << (8 * patterns.itemsize - 1)  # -0
    tiny = np.zeros(columns, patterns.dtype)
    tiny[:2] = 1, 1 + (1 << (8 * patterns.itemsize - 1))  # the smallest number, and its negative
    patterns[faint] = tiny
    return kind, patterns


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_rows_of_zeros_are_counted_to_the_row(tmp_path, dtype):
    dead = [0, 7, 8, 299, 599]
    tensors = {
        "layers.0.q_proj.weight": with_dead_rows(dtype, 600, 900, dead, [5, 300]),
        "layers.0.k_proj.weight": normal(dtype, 64, 64),
        "layers.0.v_proj.weight": (dtype, np.zeros((40, 50), normal(dtype, 1)[1].dtype)),
    }
    path = write_tensors(tmp_path / "m.safetensors", tensors)
    for k, options in enumerate(({"workers": 1}, {"workers": 2, "task_bytes": 70_000, "block_bytes": 4096})):
        warehouse = made(tmp_path / f"{k}.duckdb")
        engine.scan(path, warehouse=warehouse, iid=True, **options)
        counted = rows(warehouse, "SELECT zero_rows, iid_matrix[1] FROM tensor_stats ORDER BY name")
        assert counted == [(0, 64), (len(dead), 600), (40, 40)]
    findings = {(f.where, f.problem): f.detail for f in engine.check("m", warehouse=warehouse).findings}
    assert findings["layers.0.q_proj.weight", "dead rows"] == "5 of 600 rows are zero"
    assert ("layers.0.v_proj.weight", "dead rows") not in findings  # it is zero throughout
    plain = made(tmp_path / "plain.duckdb")
    engine.scan(path, warehouse=plain)
    assert rows(plain, "SELECT DISTINCT zero_rows FROM tensor_stats") == [(None,)]
    assert not [f for f in engine.check("m", warehouse=plain).findings if f.problem == "dead rows"]
    sparse = engine.sql("sparsity", params={"limit": 1}, warehouse=warehouse).records()
    assert (sparse[0]["name"], sparse[0]["zero_rows"]) == ("layers.0.v_proj.weight", 40)


# What is said of whom


def test_what_is_measured_and_what_is_not(case):
    iid = case.iid
    assert "ids" not in iid
    reasons = {name: row["reason"] for name, row in iid.items() if row["reason"]}
    assert reasons == {
        "constant.weight": "all elements are equal",
        "zeros.weight": "all elements are equal",
        "nan.weight": "NaN or infinities",
        "few.weight": "too few elements",
        "eight.weight_scale_inv": "too few elements",
        "scalar": "a single number",
        "nothing.weight": "no rows",
    }
    assert iid["experts.weight"]["matrix"] == [60, 64]
    assert iid["conv.weight"]["matrix"] == [16, 72]
    norm = iid["norm.weight"]
    assert (norm["matrix"], norm["column_lag"], norm["outlier_rows"]) == ([1, 400], None, None)
    assert abs(norm["row_lag"]) < 0.2
    spectra = {
        name: row["singular_values"] for name, row in iid.items() if row["singular_values"] is not None
    }
    assert spectra == {
        "layers.0.k_proj.weight": 20, "layers.0.v_proj.weight": 60, "layers.0.o_proj.weight": 24,
        "experts.weight": 60, "conv.weight": 16, "constant.weight": 0, "zeros.weight": 0, "nan.weight": 0,
    }  # fmt: skip


def test_dequantised_values_are_measured_as_such(case):
    codes = tensors()["eight.weight"][1].reshape(256, 128)
    assert codes.size
    values, own = case.iid["eight.weight.dequantised"], case.iid["eight.weight"]
    assert values["matrix"] == own["matrix"] == [256, 128]
    assert values["row_lag"] != own["row_lag"]  # two factors, one for each half
    assert abs(values["row_lag"]) < 4 * values["row_lag_limit"]


def test_the_view_has_the_numbers_and_null_where_there_are_none(case):
    sql = "SELECT row_lag, outlier_columns, iid_reason, iid_matrix FROM tensor_stats WHERE name = ?"
    ((lag, outliers, reason, matrix),) = rows(case.warehouse, sql, "layers.0.q_proj.weight")
    row = case.iid["layers.0.q_proj.weight"]
    assert (lag, outliers, reason, matrix) == (row["row_lag"], row["outlier_columns"], None, [600, 900])
    assert rows(case.warehouse, sql, "ids") == [(None, None, None, None)]
    x = (
        (tensors()["layers.0.q_proj.weight"][1].astype("<u4") << 16)
        .view("<f4")
        .astype(float)
        .reshape(600, 900)
    )
    z = x - x.mean()
    expected = (z[:, 1:] * z[:, :-1]).mean() / z.var() + 1 / (z.size - 1)
    assert lag == pytest.approx(expected, abs=1e-8)


# What was there before


def test_it_is_added_to_a_scan_without(case, tmp_path):
    warehouse = made(tmp_path / "w.duckdb")
    engine.scan(case.path, warehouse=warehouse, workers=1)
    assert found(warehouse) == {}
    first = engine.scan(case.path, warehouse=warehouse, workers=2, iid=True)
    assert (first.status, first.subject_id) == ("added", 1)
    without = {n: {k: v for k, v in r.items() if not k.startswith("singular")} for n, r in case.iid.items()}
    assert {
        n: {k: v for k, v in r.items() if not k.startswith("singular")} for n, r in found(warehouse).items()
    } == without
    read = first.nbytes_read
    second = engine.scan(case.path, warehouse=warehouse, workers=2, spectrum=60)
    assert (second.status, second.subject_id) == ("added", 1)
    assert 0 < second.nbytes_read < read + 8_000_000
    case.assert_same(warehouse)
    for again in ({}, {"iid": True}, {"spectrum": 60}, {"spectrum": 30}):
        assert engine.scan(case.path, warehouse=warehouse, **again).status == "unchanged"
    assert subjects(warehouse) == [(1, "m", "complete")]


@pytest.mark.parametrize(
    ("at", "before"), [(1, "nothing"), (5, "nothing"), (5, "a scan"), (14, "a scan"), (9, "half a scan")]
)
@pytest.mark.usefixtures("every_task_flushes")
def test_what_was_killed_goes_on(case, tmp_path, at, before):
    warehouse = made(tmp_path / "w.duckdb")
    if before == "a scan":
        engine.scan(case.path, warehouse=warehouse, workers=1)
    if before == "half a scan":
        with pytest.raises(Killed):
            engine.scan(
                case.path,
                warehouse=warehouse,
                workers=1,
                task_bytes=300_000,
                listener=Recorder(3, raising(Killed())),
            )
    options: dict[str, Any] = {"warehouse": warehouse, "workers": 1, "spectrum": 60}
    with pytest.raises(Killed):
        engine.scan(case.path, task_bytes=300_000, listener=Recorder(at, raising(Killed())), **options)
    report = engine.scan(case.path, task_bytes=450_000, block_bytes=8192, **options)
    assert report.status == ("added" if before == "a scan" else "resumed")
    case.assert_same(warehouse)


def test_a_journal_keeps_what_was_measured(case, tmp_path, monkeypatch):
    monkeypatch.setattr(scribe, "FLUSH_SECONDS", 1e9)
    warehouse = made(tmp_path / "w.duckdb")
    with pytest.raises(Killed):
        engine.scan(
            case.path,
            warehouse=warehouse,
            workers=1,
            task_bytes=300_000,
            iid=True,
            listener=Recorder(8, raising(Killed())),
        )
    report = engine.scan(case.path, warehouse=warehouse, workers=1, spectrum=60)
    assert report.status == "resumed"
    case.assert_same(warehouse)


def test_exact_scans_have_it_too(case, tmp_path):
    warehouse = made(tmp_path / "w.duckdb")
    engine.scan(case.path, warehouse=warehouse, workers=2, exact=True, spectrum=60)
    iid = found(warehouse)
    assert iid.keys() == case.iid.keys()
    for name, row in iid.items():
        numbers = {k: v for k, v in row.items() if isinstance(v, float)}
        expected = {k: case.iid[name][k] for k in numbers}
        assert numbers == pytest.approx(expected, rel=1e-4), name  # their kurtosis is exact


def test_a_file_that_changes_meanwhile_costs_no_complete_subject(tmp_path, monkeypatch):
    path = write_tensors(tmp_path / "m.safetensors", {"w": normal("BF16", 200, 300)})
    engine.scan(path, warehouse=tmp_path / "w.duckdb", workers=1)
    before = contents(tmp_path / "w.duckdb", 1)
    read = LocalReader.read_into

    def changing(self: LocalReader, *words: Any) -> None:
        read(self, *words)
        path.write_bytes(path.read_bytes() + b"x")

    monkeypatch.setattr(LocalReader, "read_into", changing)
    with pytest.raises(FormatError):
        engine.scan(path, warehouse=tmp_path / "w.duckdb", workers=1, iid=True)
    assert contents(tmp_path / "w.duckdb", 1) == before
    assert_consistent(tmp_path / "w.duckdb")


def test_exports_carry_it(case, tmp_path):
    engine.export(["m"], tmp_path / "out", warehouse=case.warehouse)
    engine.import_(tmp_path / "out", warehouse=tmp_path / "w.duckdb")
    assert found(tmp_path / "w.duckdb") == case.iid
    report = engine.scan(case.path, warehouse=tmp_path / "w.duckdb", spectrum=60)
    assert report.status == "unchanged"


# Planted


def test_what_is_planted_is_found_and_nothing_else(tmp_path):
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.02, (1024, 512)).astype("<f4")
    correlated, row = noise.copy(), noise.copy()
    correlated[:, 1:] += np.float32(0.01) * noise[:, :-1]
    row[700] *= 1.4
    low = noise + (0.02 * 2 / 32 * rng.normal(size=(1024, 1)) @ rng.normal(size=(1, 512))).astype("<f4")
    planted = {"noise": noise, "correlated": correlated, "row": row, "low": low}
    path = write_tensors(tmp_path / "m.safetensors", {k: ("F32", x) for k, x in planted.items()})
    engine.scan(path, warehouse=tmp_path / "w.duckdb", workers=2, spectrum=1024)
    iid = found(tmp_path / "w.duckdb")
    assert abs(iid["noise"]["row_lag"]) < iid["noise"]["row_lag_limit"]
    assert iid["correlated"]["row_lag"] == pytest.approx(0.01, abs=0.003)
    assert iid["correlated"]["row_lag"] > iid["correlated"]["row_lag_limit"]
    assert (iid["row"]["outlier_rows"], iid["row"]["outlier_row"]) == (1, 700)
    assert [iid[n]["outlier_rows"] for n in ("noise", "correlated")] == [0, 0]
    assert [iid[n]["singular_beyond"] for n in ("noise", "correlated", "low")] == [0, 0, 1]
    assert iid["low"]["singular_ratio"] > 1.1


# The command line and configurations


def test_the_command_adds_it_and_says_so(tmp_path):
    path = write_tensors(
        tmp_path / "m.safetensors", {"model.layers.0.self_attn.q_proj.weight": normal("BF16", 64, 64)}
    )
    words = ["-w", "w.duckdb"]
    assert gaussmeter("scan", path, *words, cwd=tmp_path).code == 0
    ran = gaussmeter("scan", path, "--iid", *words, cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert "added to an earlier scan" in ran.out
    assert ran.out.endswith("gaussmeter sql iid\n")
    ran = gaussmeter("scan", path, "--spectrum", "--spectrum-side", 64, *words, "-f", "json", cwd=tmp_path)
    assert [r["status"] for r in json.loads(ran.out)] == ["added"]
    ran = gaussmeter("sql", "iid", *words, "-f", "json", cwd=tmp_path)
    (row,) = json.loads(ran.out)
    assert (row["role"], row["matrices"]) == ("query", 1)
    assert gaussmeter("scan", path, "--spectrum-side", 0, *words, cwd=tmp_path).code == 2


def test_a_job_adds_it(tmp_path):
    write_tensors(tmp_path / "m.safetensors", {"a.weight": normal("BF16", 64, 64)})
    config = tmp_path / "job.yaml"
    text = f"job: scan\nwarehouse: {tmp_path / 'w.duckdb'}\ncheckpoints: [{tmp_path / 'm.safetensors'}]\n"
    statuses = []
    for more in ("", "iid: true\n", "spectrum_side: 64\n", "iid: true\n"):
        config.write_text(text + more)
        statuses += [e.status for e in engine.job(config, workers=1).entries]
    assert statuses == ["scanned", "added", "added", "unchanged"]
    assert found(tmp_path / "w.duckdb")["a.weight"]["singular_values"] == 64


def test_a_plan_that_takes_too_much_is_refused(tmp_path):
    path = write_tensors(tmp_path / "m.safetensors", {"a.weight": normal("BF16", 1024, 1024)})
    least = engine.dry_run(path, workers=1).projected_bytes
    assert engine.dry_run(path, workers=1, iid=True).projected_bytes > least
    with pytest.raises(BudgetError):
        engine.scan(
            path, warehouse=tmp_path / "w.duckdb", workers=1, spectrum=1024, memory_bytes=least + 1024
        )
    with pytest.raises(ConfigError, match="not negative"):
        engine.scan(path, warehouse=tmp_path / "w.duckdb", spectrum=-1)


def test_an_older_warehouse_gets_the_columns(case, tmp_path):
    warehouse = made(tmp_path / "w.duckdb")
    with Warehouse(warehouse).writing() as connection:
        (columns,) = connection.execute("SELECT list(column_name) FROM (DESCRIBE tensor_stats)").fetchone()
    assert {"row_lag", "column_spread_high", "outlier_column_ratio", "singular_ratio", "iid_reason"} <= set(
        columns
    )
    assert not math.isnan(case.iid["layers.0.q_proj.weight"]["row_spread"])
