"""What torch saves comes out as torch itself loads it: every dtype and view, counted once, under its name."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine
from engine.formats import strided
from engine.formats.torch.archive import read_torch
from engine.nouns.dtypes import DTYPES
from engine.nouns.records import View
from engine.tasks.unpack import pick
from tests.integration.helpers import assert_consistent, contents, made, records
from tests.torch_files import DTYPE_NAMES, Bins, bins_in, bins_of, data_of, noise, sketch_of

torch = pytest.importorskip("torch")

CUTS = [
    {"workers": 1},
    {"workers": 4, "task_bytes": 13, "block_bytes": 8},
    {"workers": 4, "task_bytes": 1000, "block_bytes": 56},
]


def save(folder: Path, value: Any, **options: Any) -> Path:
    path = folder / "weights.pth"
    torch.save(value, path, **options)
    return path


def oracle(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def scanned(path: Path, **how: Any) -> dict[str, Bins]:
    warehouse = made(path.parent / "w.duckdb")
    engine.scan(path, warehouse=warehouse, **({"workers": 1} | how))
    assert_consistent(warehouse)
    return bins_in(warehouse)


def listed(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of the tensors in the warehouse of the last scan."""
    sql = "SELECT name, dtype, shape, n, reason, note, alias_of FROM tensors ORDER BY ordinal"
    return {r.pop("name"): r for r in records(path.parent / "w.duckdb", sql)}


def names(path: Path) -> list[str]:
    return sorted(t.name for t in read_torch(str(path)).tensors)


# Dtypes


def of_every_dtype() -> dict[str, Any]:
    found = {}
    for number, name in enumerate(DTYPE_NAMES):
        bits = np.random.default_rng(number).integers(0, 2 if name == "bool" else 256, 48, dtype=np.uint8)
        found[name] = torch.from_numpy(bits).view(getattr(torch, name)).reshape(3, -1)
    return found


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_dtype(protocol, tmp_path):
    path = save(tmp_path, of_every_dtype(), pickle_protocol=protocol)
    found = scanned(path)
    rows = listed(path)
    assert list(rows) == list(DTYPE_NAMES) or sorted(rows) == sorted(DTYPE_NAMES)
    for name, tensor in of_every_dtype().items():
        dtype = DTYPES[DTYPE_NAMES[name]]
        assert (rows[name]["dtype"], rows[name]["reason"]) == (dtype.name, dtype.reason)
        if dtype.coding is not None:
            assert found[name] == bins_of(sketch_of(tensor))
        if name != "float4_e2m1fn_x2":
            assert rows[name]["shape"] == list(tensor.shape)


def test_packed_4_bit_floats_have_the_shape_that_safetensors_gives_them(tmp_path):
    packed = torch.zeros(3, 4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    (tensor,) = read_torch(str(save(tmp_path, {"w": packed}))).tensors
    assert (tensor.dtype, tensor.shape, tensor.nbytes) == ("F4", (3, 8), 12)


@pytest.mark.parametrize("name", ["bits8", "bits16"])
def test_dtypes_that_torch_has_only_names_for_are_listed(name, tmp_path):
    odd = torch.zeros(4, dtype=getattr(torch, {"bits8": "uint8", "bits16": "int16"}[name])).view(
        getattr(torch, name)
    )
    assert names(save(tmp_path, {"odd": odd, "w": torch.ones(2)})) == ["odd", "w"]


# Views


def views() -> dict[str, Any]:
    base, deep, line = noise(16, 12), noise(4, 6, 5, 3, seed=1), noise(64, seed=2)
    return {
        "whole": noise(5, 7, seed=3), "scalar": torch.tensor(-0.5), "one": noise(1, seed=4), "ones": noise(1, 1, 3, 1, seed=5),
        "nothing": torch.empty(0), "no rows": torch.empty(0, 5), "no columns": torch.empty(4, 0).t(),
        "transposed": noise(7, 9, seed=6).t(), "permuted": noise(4, 5, 6, seed=7).permute(2, 0, 1),
        "sliced": base[2:9], "columns": base[:, 3:7], "steps": base[1::3, ::2], "narrow": base.narrow(1, 2, 5), "row": base[5],
        "column": base[:, 5], "element": base[3, 4], "expanded": noise(1, 6, seed=8).expand(5, 6), "repeated scalar": torch.tensor(2.5).expand(9),
        "channels last": noise(2, 3, 4, 5, seed=9).contiguous(memory_format=torch.channels_last), "deep": deep[1:3, ::2, 1:4, 2],
        "deep permuted": deep.permute(3, 1, 0, 2)[1:, 2:, :, ::2], "windows": line.unfold(0, 8, 3), "overlapping": line.as_strided((5, 6), (3, 2), 7),
        "diagonal": noise(9, 9, seed=10).diagonal(), "strange": line.as_strided((2, 3, 4), (0, 5, 1), 1), "flipped": noise(6, seed=11).flip(0),
        "half columns": noise(9, 8, dtype=torch.float16, seed=12)[:, 1::3], "bf16 offset": noise(33, dtype=torch.bfloat16, seed=13)[5:],
        "f64 transposed part": noise(6, 8, dtype=torch.float64, seed=14).t()[1:5, 2:], "f8 steps": noise(40, seed=15).to(torch.float8_e4m3fn)[1::2],
    }  # fmt: skip


@pytest.mark.parametrize("piece", [8, 100, strided.PIECE_BYTES])
@pytest.mark.parametrize("how", CUTS, ids=str)
def test_every_view(how, piece, tmp_path, monkeypatch):
    monkeypatch.setattr(strided, "PIECE_BYTES", piece)
    path = save(tmp_path, views())
    found = scanned(path, **how)
    expected = oracle(path)
    assert found == {name: bins_of(sketch_of(tensor)) for name, tensor in expected.items()}
    assert {n: tuple(r["shape"]) for n, r in listed(path).items()} == {
        n: tuple(t.shape) for n, t in expected.items()
    }


def test_a_view_of_several_pieces_is_exact_too(tmp_path):
    path = save(tmp_path, {"w": noise(3000, 1000)[:, ::2], "t": noise(900, 1700, seed=1).t()[5:]})
    assert len(read_torch(str(path)).tensors[0].pieces) > 1
    assert scanned(path, workers=4, exact=True) == {n: bins_of(sketch_of(t)) for n, t in oracle(path).items()}
    median = records(tmp_path / "w.duckdb", "SELECT p50 FROM tensors ORDER BY name")
    for row, name in zip(median, "tw", strict=True):
        assert row["p50"] == pytest.approx(np.quantile(oracle(path)[name].numpy(), 0.5), rel=1e-9)


@settings(max_examples=200)
@given(
    dimensions=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12)), max_size=4),
    start=st.integers(0, 5),
    piece=st.sampled_from([1, 4, 20, 64, 1000]),
)
def test_pieces_hold_each_element_once_and_say_where_it_belongs(dimensions, start, piece):
    shape, strides = tuple(d[0] for d in dimensions), tuple(d[1] for d in dimensions)
    memory = np.arange(start + strided.extent(shape, strides), dtype="<u4")
    true = np.lib.stride_tricks.as_strided(memory[start:], shape, [4 * s for s in strides])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strided, "PIECE_BYTES", piece)
        at = View(0, shape, strided.c_strides(shape))
        pieces = strided.view_pieces(0, start * 4, 4, shape, strides, at)
    found = np.full(true.size, -1)
    for p in pieces:
        data = memory.view(np.uint8)[p.offset : p.offset + p.nbytes]
        assert len(data) == p.nbytes
        places = p.at.start + np.array([int(np.dot(i, p.at.strides)) for i in np.ndindex(p.at.shape)])
        assert (found[places] == -1).all()
        found[places] = pick(data, p.view, 32).view("<u4")
    np.testing.assert_array_equal(found, true.reshape(-1))


def test_a_negated_view_is_listed(tmp_path):
    (tensor,) = read_torch(str(save(tmp_path, {"w": torch._neg_view(noise(5))}))).tensors
    assert (tensor.shape, tensor.coding, tensor.why) == ((5,), None, "stored with its signs reversed")


# Counted once


def test_tied_weights_are_counted_once(tmp_path):
    w, v = noise(4, 6), noise(8, seed=1)
    state = {"a": w, "b": w, "transposed": w.t(), "flat": w.reshape(-1), "part": w[1:3], "same part": w[1:3], "steps": v[::2],
             "same steps": v[::2], "other steps": v[1::2], "copy": w.clone(), "parameter": torch.nn.Parameter(w)}  # fmt: skip
    path = save(tmp_path, state)
    found = scanned(path)
    assert {n: r["alias_of"] for n, r in listed(path).items() if r["alias_of"]} == {
        "b": "a", "transposed": "a", "flat": "a", "parameter": "a", "same part": "part", "same steps": "steps",
    }  # fmt: skip
    assert found == {
        n: bins_of(sketch_of(oracle(path)[n])) for n in ("a", "part", "steps", "other steps", "copy")
    }
    alias = contents(tmp_path / "w.duckdb", 1)["transposed"].row
    assert (alias["reason"], alias["shape"], alias["n"], alias["coding"]) == (
        "stored and counted as 'a'",
        [6, 4],
        24,
        None,
    )
    once = records(tmp_path / "w.duckdb", "SELECT n FROM subject_stats")
    assert once == [{"n": 24 + 12 + 4 + 4 + 24}]


def test_a_module_with_buffers_parameters_and_a_tie(tmp_path):
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.norm, self.head = (
                torch.nn.Embedding(9, 4),
                torch.nn.BatchNorm1d(4),
                torch.nn.Linear(4, 9),
            )
            self.head.weight = self.embed.weight
            self.embed.weight.tag = "kept by _rebuild_parameter_with_state"

    path = save(tmp_path, Net().state_dict())
    found = scanned(path)
    expected = {n: bins_of(sketch_of(t)) for n, t in oracle(path).items() if n != "norm.num_batches_tracked"}
    assert found | {"head.weight": found["embed.weight"]} == expected
    assert listed(path)["norm.num_batches_tracked"]["reason"] == "integer"


# Where the weights lie

W = torch.ones(2, 2)
OPTIMIZER = {
    "state": {0: {"exp_avg": torch.zeros(2), "step": torch.tensor(3.0)}},
    "param_groups": [{"lr": 0.1, "params": [0]}],
}


@pytest.mark.parametrize(
    ("saved", "weights", "beside"),
    [
        ({"model": {"a": W}}, {"a"}, set()),
        ({"state_dict": OrderedDict(a=W), "epoch": 3}, {"a"}, set()),
        ({"state_dict": {"module.a": W, "module.b": W + 1}}, {"a", "b"}, set()),
        ({"model_state_dict": {"a": W}, "optimizer_state_dict": OPTIMIZER, "loss": 0.1}, {"a"},
         {"optimizer_state_dict.state.0.exp_avg", "optimizer_state_dict.state.0.step"}),
        ({"model": {"state_dict": {"module._orig_mod.a": W}}, "ema": {"a": W + 1}}, {"a"}, {"ema.a"}),
        ({"_orig_mod.module.a": W}, {"a"}, set()),
        ({"module.a": W, "b": W + 1}, {"module.a", "b"}, set()),
        ([W, [W + 1, {"x": W + 2}]], {"0", "1.0", "1.1.x"}, set()),
        ({0: W, 1: {2: W + 1}}, {"0", "1.2"}, set()),
        ({("a", 1): W, None: W + 1, 1.5: W + 2}, {"('a', 1)", "None", "1.5"}, set()),
        ((W, W + 1), {"0", "1"}, set()),
        (W, {"tensor"}, set()),
        (torch.nn.Parameter(W), {"tensor"}, set()),
        ({"model": {}, "a": W}, {"a"}, set()),
        ({"model": W, "a": W + 1}, {"model", "a"}, set()),
        ({}, set(), set()),
        (None, set(), set()),
    ],
)  # fmt: skip
def test_names(saved, weights, beside, tmp_path):
    path = save(tmp_path, saved)
    tensors = read_torch(str(path)).tensors
    assert {t.name for t in tensors if not (t.reason or "").startswith("not a weight")} == weights
    assert {t.name for t in tensors if t.name not in weights} == beside
    for t in tensors:
        if t.name in beside:
            assert t.reason == f"not a weight: it lies under {t.name.partition('.')[0]!r}"


def test_two_tensors_of_one_name_are_a_question(tmp_path):
    path = save(tmp_path, {"a.b": W, "a": {"b": W + 1}})
    with pytest.raises(engine.errors.FormatError, match=r"two tensors are called 'a.b'"):
        read_torch(str(path))


# What cannot be counted


def uncountable() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        eye = torch.eye(3, 4)
        return {
            "coo": eye.to_sparse(), "csr": eye.to_sparse_csr(), "csc": eye.to_sparse_csc(),
            "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "meta": torch.empty(3, 4, device="meta"),
            "tensor": torch.quantize_per_tensor(eye, 0.1, 0, torch.qint8),
            "channel": torch.quantize_per_channel(eye, torch.ones(3), torch.zeros(3), 0, torch.quint8),
            "conjugated": torch.ones(3, 4, dtype=torch.complex64).conj(), "w": eye,
        }  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_counted_is_listed_with_a_reason(tmp_path):
    path = save(tmp_path, uncountable())
    found = scanned(path)
    assert set(found) == {"w"}
    assert {n: r["reason"] for n, r in listed(path).items()} == {
        "coo": "sparse", "csr": "sparse", "csc": "sparse", "nested": "nested", "meta": "without data", "w": None,
        "tensor": "quantised by torch", "channel": "quantised by torch", "conjugated": "complex",
    }  # fmt: skip
    assert {
        n: tuple(r["shape"]) for n, r in listed(path).items() if n in ("meta", "tensor", "channel", "w")
    } == dict.fromkeys(("meta", "tensor", "channel", "w"), (3, 4))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["coo", "csr", "csc"])
def test_the_shape_of_a_sparse_tensor(name, tmp_path):
    (tensor,) = read_torch(str(save(tmp_path, {"w": uncountable()[name]}))).tensors
    assert tensor.shape == (3, 4)


@pytest.mark.filterwarnings("ignore")
def test_an_embedding_of_4_bit_integers_is_listed(tmp_path):
    packed = torch.quantize_per_channel(torch.eye(4), torch.ones(4), torch.zeros(4), 0, torch.quint4x2)
    assert names(save(tmp_path, {"odd": packed, "w": W})) == ["odd", "w"]


def test_a_tensor_with_attributes_is_read_as_what_it_is(tmp_path):
    tagged = noise(3, 3)
    tagged.tag = "by _rebuild_from_type_v2"
    path = save(tmp_path, {"w": tagged})
    assert scanned(path) == {"w": bins_of(sketch_of(tagged))}
    assert len(data_of(tagged)) == 36
