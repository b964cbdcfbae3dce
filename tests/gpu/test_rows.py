"""Sums of rows, columns and neighbours on the GPU: the bits of the CPU's, whatever the shape."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from engine.bands.counter import BandCounter
from engine.bands.gathering import combine_bands
from engine.bands.packing import pack_bands
from engine.device.counter import GpuCounter, make_counter
from engine.kernels import rows as on_cpu
from engine.kernels.cuda.rows import measure_rows
from engine.nouns import matrices
from engine.nouns.dtypes import DTYPES, code_table
from engine.nouns.matrices import Matrix
from engine.sketch import as_values
from tests.builders import COUNTED, assert_same, patterns_of, raw, reference_sketch, values_of
from tests.integration.helpers import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # of the interpreter

KINDS = {
    "BF16": ("bf16", np.uint16),
    "F16": ("f16", np.int16),
    "F32": ("f32", np.float32),
    "F8_E4M3": ("f8", None),
}


def gauss(dtype, rows, columns, seed=1):
    x = np.random.default_rng(seed).standard_t(5, rows * columns) * 0.02
    return patterns_of(dtype, x * (10 if dtype.startswith("F8") else 1))


def bands_of_the_cpu(dtype, patterns, columns, band):
    """For each band: sums of rows, of columns, and of pairs."""
    view = KINDS[dtype][1]
    values = values_of(dtype, patterns).astype(np.float32) if view is None else patterns.view(view)
    for start in range(0, values.size, band * columns):
        part = values[start : start + band * columns]
        of_rows, of_columns = np.empty((2, part.size // columns)), np.empty((2, columns))
        of_pairs = np.empty(2)
        on_cpu.measure_rows(part, columns, np.empty(on_cpu.WORK, np.float32), of_rows, of_columns, of_pairs)
        yield of_rows, of_columns, of_pairs


def added(strips):
    """From strip to strip, from left to right, beginning with 0."""
    total = np.zeros(strips.shape[:-2] + strips.shape[-1:])
    for s in range(strips.shape[-2]):
        total += strips[..., s, :]
    return total


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize(
    ("rows", "columns", "band"), [(1, 1, 8), (9, 33, 8), (21, 512, 8), (19, 513, 16), (5, 1100, 8)]
)
def test_the_bits_are_those_of_the_cpu(device, dtype, rows, columns, band):
    patterns = gauss(dtype, rows, columns)
    kind, coding = KINDS[dtype][0], DTYPES[dtype].coding
    table = (
        torch.from_numpy(code_table(coding.name).value.astype(np.float32)).to(device)
        if kind == "f8"
        else None
    )
    data = torch.from_numpy(raw(patterns).copy()).to(device)
    found = measure_rows(data, kind, table, columns, band)
    of_rows = added(found.of_rows.cpu().numpy())
    of_columns = found.of_columns.cpu().numpy().astype(np.float64)
    of_pairs = added(np.moveaxis(found.of_pairs.cpu().numpy(), 1, 2))
    for number, (expected_rows, expected_columns, expected_pairs) in enumerate(
        bands_of_the_cpu(dtype, patterns, columns, band)
    ):
        first = number * band
        np.testing.assert_array_equal(of_rows[:, first : first + expected_rows.shape[1]], expected_rows)
        np.testing.assert_array_equal(of_columns[number], expected_columns)
        np.testing.assert_array_equal(of_pairs[number], expected_pairs)


@pytest.fixture
def small(monkeypatch):
    """Bands of eight rows or a few more, of which a block holds several."""
    monkeypatch.setattr(matrices, "_BAND", 1 << 9)


def on_the_cpu(dtype, patterns, matrix, first=0):
    counter = BandCounter(matrix, first)
    counter.add(as_values(raw(patterns), DTYPES[dtype]))
    return counter.bands()


def on_the_gpu(dtype, patterns, matrix, device, first=0, said=None, block=1 << 12):
    """Bands of what comes in pieces, some of them read into the room; the counts must be right too."""
    counter = make_counter(
        DTYPES[dtype], device, block=block, report=(said if said is not None else []).append
    )
    assert counter.measure(matrix, first)
    data, done = raw(patterns), 0
    while done < data.size:
        room = counter.room() if done % 3 else None
        part = data[done : done + 1000]
        if room is not None:
            room[: part.size], part = part[: room.size], room[: part.size]
        counter.add(part)
        done += part.size
    sketch = counter.sketch()
    assert_same(sketch, reference_sketch(dtype, patterns))
    assert counter.sketch().bands is None
    return sketch.bands


SHAPES = [(1, 7), (3, 33), (8, 40), (70, 33), (29, 64), (17, 600)]


@pytest.mark.parametrize("dtype", COUNTED)
def test_a_counter_measures_what_it_counts(device, small, dtype):
    for rows, columns in SHAPES if dtype in ("BF16", "F64") else SHAPES[1:4]:
        matrix, block = Matrix(rows, columns), max(1 << 12, 40 * columns)
        patterns = gauss(dtype, rows, columns)
        found = on_the_gpu(dtype, patterns, matrix, device, block=block // 8 * 8)
        assert pack_bands(found) == pack_bands(on_the_cpu(dtype, patterns, matrix))
        assert found.whole is not None


def test_parts_that_end_anywhere_are_put_together(device, small):
    matrix = Matrix(70, 33)
    patterns = gauss("BF16", 70, 33)
    whole = on_the_cpu("BF16", patterns, matrix)
    for cut in (matrix.start(2), matrix.start(1) + 5, matrix.start(3) + 33):
        band = -(-cut // matrix.start(1)) * matrix.start(1)  # where the GPU may begin again
        parts = [on_the_gpu("BF16", patterns[:cut], matrix, device)]
        assert pack_bands(parts[0]) == pack_bands(on_the_cpu("BF16", patterns[:cut], matrix))
        parts += [on_the_cpu("BF16", patterns[cut:band], matrix, cut)] if band > cut else []
        parts += [on_the_gpu("BF16", patterns[band:], matrix, device, band)]
        found = parts[0]
        for part in parts[1:]:
            found = combine_bands(found, part)
        assert pack_bands(found) == pack_bands(whole)


def test_what_float32_cannot_do_is_done_again_on_the_cpu(device, small):
    matrix = Matrix(70, 33)
    for dtype in ("BF16", "F32"):
        plain = gauss(dtype, 70, 33)
        zeros, far, huge, tiny, broken = (plain.copy() for _ in range(5))
        zeros[matrix.start(1) : matrix.start(3)] = 0
        far[: matrix.start(2)] = patterns_of(dtype, 100 + np.arange(matrix.start(2)) % 2)
        huge[5] = patterns_of(dtype, [1e30])[0]
        tiny[3 * 33 : 4 * 33] = patterns_of(dtype, [1e-30])[0]  # a row that is no row of zeros
        tiny[5 * 33 : 6 * 33] = 0
        broken[1000] = patterns_of(dtype, [np.nan])[0]
        for patterns in (zeros, far, huge, tiny, broken):
            found = on_the_gpu(dtype, patterns, matrix, device)
            assert pack_bands(found) == pack_bands(on_the_cpu(dtype, patterns, matrix))
        assert found.broken


def test_what_a_gpu_does_not_measure(device, small):
    counter = make_counter(DTYPES["BF16"], device, block=1 << 12)
    assert isinstance(counter, GpuCounter)
    assert not counter.measure(Matrix(70, 33), 5)  # not where a band begins
    assert not counter.measure(Matrix(70, 5000), 0)  # a band is larger than a block
    assert not make_counter(DTYPES["BF16"]).measure(Matrix(70, 33), 0)


def test_no_memory_for_the_sums_leaves_them_to_the_cpu(device, small, monkeypatch):
    from engine.kernels.cuda import rows

    def refuse(*_):
        raise torch.OutOfMemoryError("as if")

    said = []
    monkeypatch.setattr(rows, "measure_rows", refuse)
    patterns, matrix = gauss("F16", 70, 33), Matrix(70, 33)
    found = on_the_gpu("F16", patterns, matrix, device, said=said)
    assert pack_bands(found) == pack_bands(on_the_cpu("F16", patterns, matrix))
    assert (
        said[0]
        == f"no memory left on {torch.empty(0, device=device).device}: rows and columns are measured on the CPU"
    )


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to find C compiler. Please specify\nmore"),
        subprocess.CalledProcessError(1, ["gcc", "driver.c"]),
    ],
)
def test_a_triton_that_does_not_run_leaves_rows_to_the_cpu(device, small, monkeypatch, error):
    from engine.kernels.cuda import rows

    def fail(*_):
        raise error

    said: list[str] = []
    counter = make_counter(DTYPES["BF16"], device, block=1 << 12, report=said.append)
    rows.why_not.cache_clear()
    monkeypatch.setattr(rows, "measure_rows", fail)
    try:
        assert not counter.measure(Matrix(70, 33), 0)
    finally:
        rows.why_not.cache_clear()
    why = str(error).splitlines()[0]
    assert said == [f"Triton does not run on {device} ({why}): rows and columns are measured on the CPU"]
    monkeypatch.undo()
    assert rows.why_not(device) is None


def test_what_travels_otherwise_is_not_measured(device, small):
    counter = make_counter(DTYPES["F32"], device, block=1 << 12)
    assert counter.measure(Matrix(70, 33), 0)
    one = raw(patterns_of("F32", [1.0]))
    with pytest.raises(AssertionError, match="bands"):
        counter.subtract(one, DTYPES["F32"], one, DTYPES["F32"])
    with pytest.raises(AssertionError, match="host"):
        counter.receive(4, lambda *_: None)


def test_no_memory_for_values_leaves_rows_to_the_cpu(device, small, monkeypatch):
    from engine.device.pairs import ValueTables

    def refuse(*_):
        raise torch.OutOfMemoryError("as if")

    said: list[str] = []
    monkeypatch.setattr(ValueTables, "of", refuse)
    patterns, matrix = gauss("F8_E4M3", 70, 33), Matrix(70, 33)
    found = on_the_gpu("F8_E4M3", patterns, matrix, device, said=said)
    assert pack_bands(found) == pack_bands(on_the_cpu("F8_E4M3", patterns, matrix))
    assert said


@pytest.mark.slow
def test_the_kernels_of_triton_compile_for_a_gpu_and_contract_nothing():
    """Without a GPU, by Triton's compiler; what is interpreted here is not compiled."""
    script = """
import re, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from engine.kernels.cuda import portable, rows

def fused(function, types, **constants):
    signature = types | dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=function, signature=signature, constexprs=constants)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})
    return len(re.findall(r"fma[.]rn", made.asm["ptx"]))

names = "columns band rows strips".split()
shared = dict.fromkeys(names, "i32") | {"values": "*fp32", "of_rows": "*fp64", "of_columns": "*fp32", "of_pairs": "*fp64"}
for kind, element in ((1, "*u8"), (2, "*fp16"), (3, "*i16"), (4, "*i32")):
    types = {n: ({"data": element} | shared)[n] for n in ("data", "values", *names, "of_rows", "of_columns", "of_pairs")}
    assert fused(rows._measure, types, kind=kind, width=512) == 0
types = dict(b="*fp32", a="*fp32", scale="fp32", rows="i32", columns="i32", rank="i32", state="*i64", out="*fp32")
assert fused(portable._product32, types, store=True, side=64) > 0
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, env=environment)
