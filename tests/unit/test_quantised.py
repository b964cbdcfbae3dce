"""Quantised weights: values of 8-bit codes against numpy, and packed formats that are listed, not lost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import engine
from engine.nouns.dtypes import DTYPES, code_table
from engine.sketch import observe
from engine.statistics.summary import codes_to_refine, summarise
from tests.builders import (
    Tensors,
    as_f32,
    raw,
    reference_sketch,
    refinement_of,
    unsigned,
    write_sharded,
    write_tensors,
)
from tests.integration.helpers import assert_consistent, contents, made, normal, records, rows
from tests.torch_files import bins_in, bins_of

pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")

Rng = np.random.Generator
CUTS = [
    {"workers": 1},
    {"workers": 4, "task_bytes": 5001, "block_bytes": 64},
]


def codes(*shape: int, seed: int = 0, dtype: str = "F8_E4M3") -> tuple[str, NDArray[np.uint8]]:
    """Codes that stand for numbers; `every_code` has the others."""
    found = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    value = code_table(DTYPES[dtype].coding.name).value[found]
    return dtype, np.where(np.isfinite(value), found, 0x11).astype(np.uint8)


def factors(*shape: int, seed: int = 9, dtype: str = "F32") -> tuple[str, Any]:
    drawn = np.exp(np.random.default_rng(seed).normal(-6, 1, shape)).astype("<f4")
    if dtype in ("F8_E8M0", "U8"):
        return dtype, np.random.default_rng(seed).integers(110, 135, shape, dtype=np.uint8)
    if dtype == "BF16":
        return dtype, (drawn.view("<u4") >> 16).astype("<u2")
    return dtype, drawn.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype])


def as_numbers(dtype: str, array: NDArray[Any]) -> NDArray[np.float32]:
    if dtype in ("F8_E8M0", "U8"):
        return np.where(array == 255, np.nan, np.ldexp(1.0, array.astype(int) - 127)).astype("<f4")
    if dtype == "BF16":
        return (array.astype("<u4") << 16).view("<f4")
    return array.astype("<f4")


def dequantised(
    weight: tuple[str, Any], scale: tuple[str, Any], block: tuple[int, int]
) -> NDArray[np.float32]:
    """The definition: each value of a code times the factor of its block, in float32."""
    dtype, array = weight
    value = code_table(DTYPES[dtype].coding.name).value[array].astype("<f4")
    down, across = block
    spread = np.repeat(np.repeat(as_numbers(*scale), down, -2), across, -1)
    return value * spread[..., : array.shape[-2], : array.shape[-1]]


def scan(uri: Path, **how: Any) -> Path:
    warehouse = made((uri if uri.is_dir() else uri.parent) / "w.duckdb")
    engine.scan(uri, warehouse=warehouse, **({"workers": 1} | how))
    assert_consistent(warehouse)
    return warehouse


def forms(warehouse: Path) -> dict[str, str | None]:
    return dict(rows(warehouse, "SELECT name, form FROM tensors"))


def assert_values(warehouse: Path, name: str, values: NDArray[np.float32]) -> None:
    sketch = observe(raw(values), DTYPES["F32"])
    assert bins_in(warehouse)[name] == bins_of(sketch)
    row = contents(warehouse, 1)[name].row
    assert (row["coding"], row["n"], row["shape"], row["form"]) == (
        "f32",
        values.size,
        list(values.shape),
        "dequantised",
    )
    assert (row["zeros"], row["min"], row["max"]) == (sketch.zeros, sketch.minimum, sketch.maximum)


# Codes and factors

LAYOUTS: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, int], str, str]] = {
    "blocks": ((256, 384), (2, 3), (128, 128), "w_scale_inv", "F32"),
    "ragged blocks": ((300, 200), (3, 2), (128, 128), "w_scale_inv", "F32"),
    "one ragged block": ((5, 7), (1, 1), (5, 7), "w_scale_inv", "F32"),
    "narrow": ((300, 64), (3, 1), (128, 64), "w_scale_inv", "F32"),
    "129 rows": ((129, 128), (2, 1), (128, 128), "w_scale", "BF16"),
    "tensor": ((33, 17), (), (33, 17), "w_scale", "F32"),
    "tensor by one": ((33, 17), (1,), (33, 17), "w_scale", "BF16"),
    "rows": ((33, 17), (33, 1), (1, 17), "w_scale", "F32"),
    "rows, flat": ((33, 17), (33,), (1, 17), "w_scale", "F16"),
    "groups of a row": ((6, 256), (6, 2), (1, 128), "w_scale", "F64"),
    "MXFP8": ((7, 96), (7, 3), (1, 32), "w_scale", "F8_E8M0"),
    "MXFP8 in bytes": ((7, 160), (7, 5), (1, 32), "w_scale", "U8"),
    "experts": ((3, 130, 140), (3, 2, 2), (128, 128), "w_scale_inv", "F32"),
    "experts by rows": ((3, 10, 14), (3, 10, 1), (1, 14), "w_scale", "BF16"),
    "experts by one each": ((3, 10, 14), (3, 1, 1), (10, 14), "w_scale", "F32"),
}  # fmt: skip


@pytest.mark.parametrize("how", CUTS, ids=str)
def test_values_are_codes_times_factors(how, tmp_path):
    state: dict[str, Any] = {}
    for layout, (shape, grid, _, name, dtype) in LAYOUTS.items():
        state |= {f"{layout}.w": codes(*shape), f"{layout}.{name}": factors(*grid, dtype=dtype)}
    warehouse = scan(write_tensors(tmp_path / "m.safetensors", state), **how)
    found, notes = bins_in(warehouse), dict(rows(warehouse, "SELECT name, note FROM tensors"))
    for layout, (shape, grid, block, name, dtype) in LAYOUTS.items():
        w, (_, s) = state[f"{layout}.w"], state[f"{layout}.{name}"]
        s = s.reshape((-1, 1) if layout == "rows, flat" else (1, 1) if s.size == 1 else grid)
        assert_values(warehouse, f"{layout}.w.dequantised", dequantised(w, (dtype, s), block))
        assert found[f"{layout}.w"] == bins_of(observe(raw(w[1]), DTYPES["F8_E4M3"]))
        whole = math.prod(shape[:-1])
        by = f"{block[0] if s.size > 1 else whole} x {block[1]}"
        assert notes[f"{layout}.w.dequantised"] == f"F8_E4M3 x {dtype} by blocks of {by}"
    assert sorted(forms(warehouse).values()) == sorted(["codes", "factors", "dequantised"] * len(LAYOUTS))


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"])
def test_every_code_and_every_temper_of_factor(dtype, tmp_path):
    w = dtype, np.tile(np.arange(256, dtype=np.uint8), (8, 1))
    tempers = [0, -1.5, 1e-42, 3e38, np.inf, -np.inf, np.nan, 2.0**-140]
    s = "F32", np.array(tempers, "<f4")[:, None]
    warehouse = scan(write_tensors(tmp_path / "m.safetensors", {"w": w, "w_scale": s}))
    values = dequantised(w, s, (1, 256))
    assert_values(warehouse, "w.dequantised", values)
    row = contents(warehouse, 1)["w.dequantised"].row
    assert (row["nan"], row["pos_inf"]) == (np.isnan(values).sum(), (values == np.inf).sum())


def test_every_exponent(tmp_path):
    w = "F8_E4M3", np.full((256, 32), 0x38, np.uint8)
    s = "F8_E8M0", np.arange(256, dtype=np.uint8)[:, None]
    warehouse = scan(write_tensors(tmp_path / "m.safetensors", {"w": w, "w_scale": s}))
    assert_values(warehouse, "w.dequantised", dequantised(w, s, (1, 32)))


@pytest.mark.parametrize("how", CUTS, ids=str)
def test_exactly(how, tmp_path):
    w, s = codes(300, 200), factors(3, 2)
    warehouse = scan(write_tensors(tmp_path / "m.safetensors", {"w": w, "w_scale_inv": s}), exact=True, **how)
    values = dequantised(w, s, (128, 128))
    patterns = as_f32("F32", values.reshape(-1).view("<u4"))
    sketch = reference_sketch("F32", patterns)
    true = summarise(sketch, refinement_of(patterns, codes_to_refine(sketch)))
    row = contents(warehouse, 1)["w.dequantised"].row
    assert row["p50"] == true.quantiles["p50"] == pytest.approx(np.median(values.astype(float)), rel=1e-12)
    assert (row["mean"], row["m2"], row["m4"], row["error_bound"]) == (
        true.moments.mean,
        true.moments.m2,
        true.moments.m4,
        true.error_bound,
    )
    assert true.error_bound == 0


@settings(max_examples=10)
@given(
    rows_=st.integers(1, 300), columns=st.integers(1, 300), matrices=st.integers(1, 3), task=st.integers(1500, 9000), seed=st.integers(0, 9)
)  # fmt: skip
def test_any_shape_in_blocks_of_128(rows_, columns, matrices, task, seed, scratch):
    w = codes(matrices, rows_, columns, seed=seed)
    s = factors(matrices, -(-rows_ // 128), -(-columns // 128), seed=seed)
    path = write_tensors(scratch / "m.safetensors", {"w": w, "w_scale_inv": s})
    warehouse = scan(path, workers=2, task_bytes=task * 8, block_bytes=128)
    assert_values(
        warehouse,
        "w.dequantised",
        dequantised(w, s, (min(128, rows_) if rows_ < 128 else 128, min(128, columns))),
    )


def test_factors_in_another_shard_and_not_selected(tmp_path):
    w, s = codes(130, 130), factors(2, 2)
    write_sharded(tmp_path, {"a.weight": w, "z": normal("F32", 3)}, {"a.weight_scale_inv": s})
    for how in ({}, {"workers": 4, "task_bytes": 100}, {"include": ["a.weight"]}):
        warehouse = scan(tmp_path, **how)
        assert_values(warehouse, "a.weight.dequantised", dequantised(w, s, (128, 128)))
    assert forms(warehouse) == {"a.weight": "codes", "a.weight.dequantised": "dequantised"}


MISFITS = [
    ((300, 200), (7, 2)), ((300, 200), (3, 3)), ((300, 200), (200,)), ((300, 200), (0,)), ((300, 200), (3, 2, 1)),
    ((3, 10, 14), (2, 10, 1)), ((3, 10, 14), (3,)), ((300, 200), (301, 1)), ((7,), (2,)),
]  # fmt: skip


def test_factors_that_do_not_fit(tmp_path):
    state: dict[str, Any] = {}
    for k, (shape, grid) in enumerate(MISFITS):
        state |= {f"{k}.w": codes(*shape), f"{k}.w_scale": factors(*grid)}
    warehouse = scan(write_tensors(tmp_path / "m.safetensors", state))
    found = {n: rest for n, *rest in rows(warehouse, "SELECT name, form, note FROM tensors")}
    assert sorted(found) == sorted(state)
    for k, (shape, _) in enumerate(MISFITS):
        assert found[f"{k}.w_scale"][0] == "factors"
        assert found[f"{k}.w"] == ["unscaled", "not dequantised: its factors do not fit its shape"]
        assert bins_in(warehouse)[f"{k}.w"] == bins_of(observe(raw(codes(*shape)[1]), DTYPES["F8_E4M3"]))


def test_codes_without_factors_and_empty_ones(tmp_path):
    state: Tensors = {
        "w": codes(4, 4),
        "e": codes(0, 4),
        "e_scale": factors(1),
        "i": codes(4, 4),
        "i_scale": ("I32", np.ones(1, "<i4")),
    }
    warehouse = scan(write_tensors(tmp_path / "m.safetensors", state))
    assert forms(warehouse)["w"] is None
    assert not any(name.endswith(".dequantised") for name in forms(warehouse))


def test_transposed_codes_of_torch_are_not_scaled(tmp_path):
    torch = pytest.importorskip("torch")
    matrix = torch.from_numpy(codes(130, 140)[1]).view(torch.float8_e4m3fn)
    s = torch.from_numpy(factors(2, 2)[1].copy())
    torch.save({"t": matrix.t(), "t_scale_inv": s, "w": matrix, "w_scale_inv": s * 1}, tmp_path / "a.pth")
    torch.save({"w": matrix, "w_scale_inv": s}, tmp_path / "b.pth")
    warehouse = scan(tmp_path / "b.pth")
    assert_values(warehouse, "w.dequantised", dequantised(codes(130, 140), factors(2, 2), (128, 128)))
    found = forms(scan(tmp_path / "a.pth"))
    assert (found["t"], found["t_scale_inv"]) == ("unscaled", "factors")


def test_a_value_is_a_matrix_and_counts_once(tmp_path):
    state: Tensors = {
        "model.layers.0.mlp.up_proj.weight": codes(256, 128), "model.layers.0.mlp.up_proj.weight_scale_inv": factors(2, 1),
        "model.layers.1.mlp.up_proj.weight": codes(256, 128, seed=1), "model.layers.1.mlp.up_proj.weight_scale_inv": factors(3, 3),
        "model.norm.weight": normal("BF16", 128), "lm_head.weight": normal("BF16", 64, 128),
    }  # fmt: skip
    warehouse = scan(write_tensors(tmp_path / "m.safetensors", state))
    matrices = rows(warehouse, "SELECT name FROM tensor_stats WHERE is_matrix ORDER BY ordinal")
    assert {n for (n,) in matrices} == {"lm_head.weight", "model.layers.0.mlp.up_proj.weight.dequantised"}
    (subject,) = records(warehouse, "SELECT n, matrices FROM subject_stats")
    assert subject == {"n": 2 * 256 * 128 + 2 + 9 + 128 + 64 * 128, "matrices": 2}
    where = rows(warehouse, "SELECT layer, role FROM tensor_stats WHERE form IN ('codes', 'dequantised')")
    assert len(set(where)) == 1


# Packed formats


def integers(dtype: str, *shape: int) -> tuple[str, NDArray[Any]]:
    kind = unsigned(dtype)
    return dtype, np.random.default_rng(1).integers(0, np.iinfo(kind).max, shape, dtype=kind)


half = normal("F16", 4, 8)
PACKED: dict[str, tuple[Tensors, dict[str, tuple[str | None, str | None]]]] = {
    "GPTQ": (
        {"q.qweight": integers("I32", 8, 8), "q.qzeros": integers("I32", 4, 1), "q.g_idx": integers("I32", 64), "q.scales": half},
        {"q.qweight": ("packed integers (GPTQ)", None), "q.qzeros": ("packed zero points (GPTQ)", None),
         "q.g_idx": ("group numbers (GPTQ)", None), "q.scales": (None, "factors")},
    ),
    "AWQ": (
        {"q.qweight": integers("I32", 64, 1), "q.qzeros": integers("I32", 4, 1), "q.scales": half},
        {"q.qweight": ("packed integers (AWQ)", None), "q.qzeros": ("packed zero points (AWQ)", None), "q.scales": (None, "factors")},
    ),
    "gpt-oss": (
        {"m.gate_up_proj_blocks": integers("U8", 2, 4, 3, 16), "m.gate_up_proj_scales": integers("U8", 2, 4, 3), "m.gate_up_proj_bias": normal("BF16", 2, 4)},
        {"m.gate_up_proj_blocks": ("packed 4-bit floats (MXFP4)", None), "m.gate_up_proj_scales": ("exponents of blocks (MXFP4)", None),
         "m.gate_up_proj_bias": (None, None)},
    ),
    "NVFP4 of ModelOpt": (
        {"q.weight": integers("U8", 4, 16), "q.weight_scale": codes(4, 2), "q.weight_scale_2": normal("F32"), "q.input_scale": normal("F32")},
        {"q.weight": ("packed 4-bit floats (NVFP4)", None), "q.weight_scale": (None, "factors"), "q.weight_scale_2": (None, "factors"),
         "q.input_scale": (None, None)},
    ),
    "NVFP4 of compressed-tensors": (
        {"q.weight_packed": integers("U8", 4, 16), "q.weight_scale": codes(4, 2), "q.weight_global_scale": normal("F32", 1)},
        {"q.weight_packed": ("packed 4-bit floats (NVFP4)", None), "q.weight_scale": (None, "factors"), "q.weight_global_scale": (None, "factors")},
    ),
    "integers of compressed-tensors": (
        {"q.weight_packed": integers("I32", 4, 16), "q.weight_scale": half, "q.weight_shape": integers("I64", 2)},
        {"q.weight_packed": ("packed integers (compressed-tensors)", None), "q.weight_scale": (None, "factors"),
         "q.weight_shape": ("shape of packed integers (compressed-tensors)", None)},
    ),
    "bitsandbytes, 8 bits": (
        {"q.weight": integers("I8", 4, 8), "q.SCB": normal("F32", 4), "q.weight_format": integers("U8")},
        {"q.weight": ("packed by bitsandbytes", None), "q.SCB": (None, "factors"), "q.weight_format": ("integer", None)},
    ),
    "bitsandbytes, 4 bits": (
        {"q.weight": integers("U8", 16, 1), "q.weight.absmax": normal("F32", 4), "q.weight.quant_map": normal("F32", 16),
         "q.weight.quant_state.bitsandbytes__nf4": integers("U8", 20)},
        {"q.weight": ("packed by bitsandbytes", None), "q.weight.absmax": (None, "factors"), "q.weight.quant_map": (None, None),
         "q.weight.quant_state.bitsandbytes__nf4": ("integer", None)},
    ),
    "bitsandbytes, nested": (
        {"q.weight": integers("U8", 16, 1), "q.weight.absmax": integers("U8", 4), "q.weight.nested_absmax": normal("F32", 1)},
        {"q.weight": ("packed by bitsandbytes", None), "q.weight.absmax": ("integer", "factors"), "q.weight.nested_absmax": (None, None)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", PACKED)
def test_packed_formats_are_listed_with_what_they_are(kind, tmp_path):
    state, expected = PACKED[kind]
    warehouse = scan(
        write_tensors(tmp_path / "m.safetensors", {**state, "plain.weight": normal("F32", 4, 4)})
    )
    found = {
        name: (reason, form)
        for name, reason, form in rows(warehouse, "SELECT name, reason, form FROM tensors")
    }
    assert found == {**expected, "plain.weight": (None, None)}
    assert rows(
        warehouse, "SELECT name FROM tensor_stats WHERE is_matrix AND name <> 'm.gate_up_proj_bias'"
    ) == [("plain.weight",)]


@pytest.mark.parametrize("name", ["q.qweight", "q_blocks", "q.weight_packed", "q.weight"])
def test_plain_tensors_of_such_names_are_plain(name, tmp_path):
    w = normal("F32", 4, 4)
    warehouse = scan(write_tensors(tmp_path / "m.safetensors", {name: w, "q.scales": half}))
    assert rows(warehouse, "SELECT reason, form FROM tensors WHERE name = ?", name) == [(None, None)]


def test_a_tensor_that_has_the_name_of_values_keeps_it(tmp_path):
    state: Tensors = {"w": codes(4, 4), "w_scale": factors(1), "w.dequantised": normal("F32", 2, 2)}
    warehouse = scan(write_tensors(tmp_path / "m.safetensors", state))
    assert rows(warehouse, "SELECT n FROM tensors WHERE name = 'w.dequantised'") == [(4,)]
    assert records(warehouse, "SELECT n FROM subject_stats") == [{"n": 16 + 1 + 4}]
