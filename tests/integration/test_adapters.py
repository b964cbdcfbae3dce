"""Adapters through the reference executor: every variant against dW formed whole in numpy."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from engine.errors import BudgetError, ConfigError, FormatError
from engine.plan import Limits
from engine.plan.products import plan_adapters
from engine.sketch import combine
from engine.statistics.distribution import distribution
from engine.statistics.moments import moments
from engine.statistics.summary import summarise
from engine.tasks.count import CountBody
from tests.adapters import (
    PREFIX,
    assert_adapter,
    assert_counted,
    change,
    dora,
    dora_by_column,
    factors,
    magnitudes,
    numbers,
    open_all,
    run,
    tensor,
    write_adapter,
)
from tests.builders import assert_same, exact_moments, f32, nasty_patterns, write_tensors
from tests.integration.servers import FileServer

_NEAR = Path(__file__).resolve().parents[3] / "shared" / "data" / "adapters" / "gpt2-lora-r8"
GPT2 = Path(os.environ.get("GAUSSMETER_ADAPTER", _NEAR))
CUTS = [{}, {"workers": 3, "task_bytes": 1000, "block_bytes": 64}, {"workers": 2, "task_bytes": 40_000}]


@pytest.mark.parametrize("how", CUTS, ids=str)
@pytest.mark.parametrize("rslora", [False, True])
def test_lora(how, rslora, tmp_path):
    tensors = factors("h.0.q", 30, 20) | factors("h.1.q", 300, 520, seed=1)
    write_adapter(tmp_path, tensors, use_rslora=rslora)
    assert_adapter(tmp_path, tensors, **how)


@pytest.mark.parametrize("how", CUTS, ids=str)
def test_fan_in_fan_out(how, tmp_path):
    tensors = factors("h.0.c_attn", 30, 20) | factors("h.1.c_attn", 300, 130, seed=1)
    write_adapter(tmp_path, tensors, fan_in_fan_out=True)
    formed = assert_adapter(tmp_path, tensors, **how)
    assert formed["h.1.c_attn.weight"].shape == (130, 300)


def test_embeddings(tmp_path):
    tensors = {
        f"{PREFIX}wte.lora_embedding_A": tensor("F32", 4, 301, seed=0),
        f"{PREFIX}wte.lora_embedding_B": tensor("F32", 24, 4, seed=1),
    }
    write_adapter(tmp_path, tensors)
    for how in CUTS:
        formed = assert_adapter(tmp_path, tensors, **how)
        assert formed["wte.weight"].shape == (301, 24)


def test_convolutions(tmp_path):
    tensors = {
        f"{PREFIX}c.lora_A.weight": tensor("F32", 4, 6, 3, 3, seed=0),
        f"{PREFIX}c.lora_B.weight": tensor("F32", 10, 4, 1, 1, seed=1),
        f"{PREFIX}d.lora_A.weight": tensor("F32", 4, 5, 7, seed=2),
        f"{PREFIX}d.lora_B.weight": tensor("F32", 3, 4, 1, seed=3),
    }
    result = run([write_adapter(tmp_path, tensors)])
    assert [t.shape for t in result.stocks[0].inventory.tensors] == [(10, 6, 3, 3), (3, 5, 7)]
    for how in CUTS:
        assert_adapter(tmp_path, tensors, **how)


@pytest.mark.parametrize("how", CUTS, ids=str)
def test_lora_dash(how, tmp_path):
    tensors = factors("q", 30, 20) | {
        f"{PREFIX}q.lora_index.weight": tensor("F32", 1, 8, seed=5),
        f"{PREFIX}q.lora_w_u": tensor("F32", 30, 8, seed=6),
        f"{PREFIX}q.lora_w_vt": tensor("F32", 8, 20, seed=7),
    }
    write_adapter(tmp_path, tensors)
    assert_adapter(tmp_path, tensors, **how)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("how", CUTS, ids=str)
def test_dora(how, dtype, tmp_path):
    tensors = factors("q", 30, 21) | magnitudes("q", 30) | factors("v", 9, 600, seed=3) | magnitudes("v", 9)
    base = {"q.weight": tensor(dtype, 30, 21, seed=8), "v.weight": tensor(dtype, 9, 600, seed=9)}
    path = write_tensors(tmp_path / "base" / "model.safetensors", base)
    adapter = write_adapter(tmp_path / "a", tensors, use_dora=True)
    assert_adapter(adapter, tensors, (path, base), **how)


@pytest.mark.parametrize("how", CUTS, ids=str)
def test_dora_of_what_is_stored_transposed(how, tmp_path):
    tensors = factors("q", 30, 21) | magnitudes("q", 30)
    tensors |= {
        f"{PREFIX}wte.lora_embedding_A": tensor("F32", 4, 301, seed=0),
        f"{PREFIX}wte.lora_embedding_B": tensor("F32", 24, 4, seed=1),
    } | magnitudes("wte", 24)
    base = {"q.weight": tensor("F32", 21, 30, seed=8), "wte.weight": tensor("BF16", 301, 24, seed=9)}
    path = write_tensors(tmp_path / "base" / "model.safetensors", base)
    adapter = write_adapter(tmp_path / "a", tensors, use_dora=True, fan_in_fan_out=True)
    assert_adapter(adapter, tensors, (path, base), **how)


@pytest.mark.parametrize("how", CUTS, ids=str)
def test_several_adapters_read_a_base_once(how, tmp_path):
    base = {
        "model.q.weight": tensor("BF16", 30, 21, seed=8),
        "model.v.weight": tensor("BF16", 12, 21, seed=9),
        "lm_head.weight": tensor("BF16", 50, 21, seed=10),
        "model.norm.weight": tensor("F32", 21, seed=11),
    }
    path = write_tensors(tmp_path / "base" / "model.safetensors", base)
    adapters, states = [], []
    for k in range(3):
        tensors = factors("model.q", 30, 21, seed=k) | magnitudes("model.q", 30, k)
        tensors |= factors("model.v", 12, 21, seed=k + 9) | magnitudes("model.v", 12, k)
        tensors |= {f"{PREFIX}lm_head.weight": tensor("F32", 50, 21, seed=20 + k)}
        states.append(tensors | {f"{PREFIX}model.norm.weight": tensor("F16", 21, seed=30 + k)})
        adapters.append(write_adapter(tmp_path / str(k), states[-1], use_dora=True))
    result = run(adapters, path, **how)
    for k, tensors in enumerate(states):
        for name in ("lm_head.weight", "model.norm.weight"):
            difference = numbers(tensors[PREFIX + name]) - numbers(base[name])
            assert_counted(result.parts[k][name], difference)
        assert_adapter(adapters[k], tensors, (path, {n.removeprefix(PREFIX): t for n, t in base.items()}))
        alone = run([adapters[k]], path)
        for name, sketch in alone.sketches[0].items():
            assert_same(sketch, result.sketches[k][name])


# Dtypes, shapes, statistics


@pytest.mark.parametrize("dtypes", [("F16", "BF16"), ("BF16", "F32"), ("F64", "F16"), ("F8_E4M3", "BF16")])
@pytest.mark.parametrize("transposed", [False, True])
def test_dtypes_of_factors(dtypes, transposed, tmp_path):
    tensors = factors("q", 30, 20, dtypes=dtypes)
    write_adapter(tmp_path, tensors, fan_in_fan_out=transposed)
    assert_adapter(tmp_path, tensors)


SHAPES = [(1, 1, 1), (1, 300, 1), (300, 1, 1), (5, 257, 3), (3, 255, 5), (130, 256, 9), (7, 1100, 17), (129, 1025, 2), (3, 140_000, 1)]  # fmt: skip


@pytest.mark.parametrize("transposed", [False, True])
def test_odd_shapes(transposed, tmp_path):
    for out, into, r in SHAPES:
        tensors = factors("q", out, into, r, seed=r)
        write_adapter(tmp_path, tensors, r=r, fan_in_fan_out=transposed)
        for how in CUTS if out * into < 10_000 else CUTS[::2]:
            assert_adapter(tmp_path, tensors, **how)


@pytest.mark.parametrize("transposed", [False, True])
def test_odd_shapes_of_dora(transposed, tmp_path):
    for out, into, r in SHAPES:
        tensors = factors("q", out, into, r, seed=r) | magnitudes("q", out)
        base = {"q.weight": tensor("BF16", *((into, out) if transposed else (out, into)), seed=8)}
        path = write_tensors(tmp_path / "base" / "model.safetensors", base)
        write_adapter(tmp_path / "a", tensors, r=r, fan_in_fan_out=transposed, use_dora=True)
        for how in CUTS if out * into < 10_000 else CUTS[::2]:
            assert_adapter(tmp_path / "a", tensors, (path, base), **how)


def test_what_is_no_number(tmp_path):
    nasty = np.resize(nasty_patterns("F32"), (4, 40)), np.resize(nasty_patterns("F32")[::-1], (50, 4))
    tensors = {f"{PREFIX}q.lora_A.weight": ("F32", nasty[0]), f"{PREFIX}q.lora_B.weight": ("F32", nasty[1])}
    write_adapter(tmp_path / "a", tensors)
    assert_adapter(tmp_path / "a", tensors)
    tensors |= magnitudes("q", 50)
    base = {"q.weight": ("F32", np.resize(nasty_patterns("F32")[3:], (50, 40)))}
    path = write_tensors(tmp_path / "base" / "model.safetensors", base)
    write_adapter(tmp_path / "b", tensors, use_dora=True)
    assert_adapter(tmp_path / "b", tensors, (path, base))


def test_rows_of_zeros(tmp_path):
    tensors = factors("q", 3, 20) | {f"{PREFIX}q.lora_magnitude_vector": f32(0, 1, -2)}
    tensors[f"{PREFIX}q.lora_B.weight"] = ("F32", np.zeros((3, 4), "<u4"))
    base = {"q.weight": ("F32", np.zeros((3, 20), "<u4"))}
    path = write_tensors(tmp_path / "base" / "model.safetensors", base)
    write_adapter(tmp_path / "a", tensors, use_dora=True)
    result = run([tmp_path / "a"], path)
    assert summarise(result.sketches[0]["q.weight"]).nan == 60


def test_nothing(tmp_path):
    tensors = factors("q", 0, 20) | factors("v", 20, 0)
    result = run([write_adapter(tmp_path, tensors)])
    assert [t.elements for t in result.stocks[0].inventory.tensors] == [0, 0]
    assert result.sketches == [{}]


@pytest.mark.parametrize("transposed", [False, True])
def test_magnitudes_alone(transposed, tmp_path):
    tensors = {f"{PREFIX}q.weight_m_wdecomp.weight": ("F32", magnitudes("q", 30)[f"{PREFIX}q.lora_magnitude_vector"][1].reshape(30, 1))}  # fmt: skip
    base = {"q.weight": tensor("F32", *((20, 30) if transposed else (30, 20)), seed=8)}
    path = write_tensors(tmp_path / "base" / "model.safetensors", base)
    write_adapter(tmp_path / "a", tensors, peft_type="DORA", fan_in_fan_out=transposed)
    weight, m = numbers(base["q.weight"]), numbers(tensors[f"{PREFIX}q.weight_m_wdecomp.weight"]).reshape(-1)
    form = dora_by_column if transposed else dora
    for how in CUTS:
        result = run([tmp_path / "a"], path, **how)
        assert_counted(result.parts[0]["q.weight"], form(weight, np.zeros_like(weight), m))


@pytest.mark.parametrize("kind", ["lora", "dora", "dora by column", "saved"])
def test_statistics_are_those_of_the_whole_product(kind, tmp_path):
    tensors, settings = factors("q", 100, 300), {}
    base = {"q.weight": tensor("F32", 100, 300, seed=8), "s.weight": tensor("F32", 100, 300, seed=9)}
    if kind.startswith("dora"):
        turned = kind.endswith("column")
        tensors |= magnitudes("q", 100)
        settings = {"use_dora": True, "fan_in_fan_out": turned}
        base["q.weight"] = tensor("F32", *((300, 100) if turned else (100, 300)), seed=8)
    if kind == "saved":
        tensors |= {f"{PREFIX}s.weight": tensor("F32", 100, 300, seed=10)}
    path = write_tensors(tmp_path / "base" / "model.safetensors", base)
    write_adapter(tmp_path / "a", tensors, **settings)
    for how in (*CUTS[::2], {"task_bytes": 30_000}):
        formed = dict(assert_adapter(tmp_path / "a", tensors, (path, base), **how))
        if kind == "saved":
            formed["s.weight"] = numbers(tensors[f"{PREFIX}s.weight"]) - numbers(base["s.weight"])
        result = run([tmp_path / "a"], path, exact=True, **how)
        for name, whole in formed.items():
            sketch, refinement = result.sketches[0][name], result.refinements[0][name]
            x = whole.reshape(-1).astype(np.float64)
            once, twice, true = summarise(sketch), summarise(sketch, refinement), exact_moments(x)
            np.testing.assert_allclose((once.moments.m2, once.moments.m4), (true[2], true[4]), rtol=1e-7)
            np.testing.assert_allclose((twice.moments.m2, twice.moments.m4), (true[2], true[4]), rtol=1e-12)
            assert twice.quantiles["p50"] == pytest.approx(np.median(x), rel=1e-12)
            assert twice.error_bound == 0


def test_workers_change_nothing(tmp_path):
    tensors = factors("q", 200, 300) | magnitudes("q", 200) | {f"{PREFIX}s": tensor("BF16", 70, seed=4)}
    base = {"q.weight": tensor("F16", 200, 300, seed=8), "s": tensor("BF16", 70, seed=9)}
    path = write_tensors(tmp_path / "base" / "model.safetensors", base)
    write_adapter(tmp_path / "a", tensors, use_dora=True)
    first = run([tmp_path / "a"], path).sketches[0]
    for workers in (2, 3, 4):
        again = run([tmp_path / "a"], path, workers=workers, task_bytes=9000, block_bytes=72).sketches[0]
        assert first.keys() == again.keys() == {"q.weight", "s"}
        for name, sketch in first.items():
            assert_same(sketch, again[name])


# Resuming, memory, distant and real adapters


def test_adapters_behind_a_network(tmp_path):
    tensors = factors("q", 30, 21) | magnitudes("q", 30) | {f"{PREFIX}s.weight": tensor("F32", 9, 7, seed=4)}
    base = {"q.weight": tensor("BF16", 30, 21, seed=8), "s.weight": tensor("F32", 9, 7, seed=9)}
    path = write_tensors(tmp_path / "files" / "base" / "model.safetensors", base)
    adapter = write_adapter(tmp_path / "files" / "a", tensors, use_dora=True)
    here = run([adapter], path)
    with FileServer(tmp_path / "files") as server:
        for how in CUTS:
            there = run([f"{server.url}/a"], f"{server.url}/base", **how)
            assert there.stocks[0].inventory.distant
            for name, sketch in here.sketches[0].items():
                assert_same(sketch, there.sketches[0][name])
        (adapter / "adapter_config.json").unlink()
        with pytest.raises(ConfigError, match=r"is no adapter: there is no adapter_config.json"):
            run([f"{server.url}/a"])


def test_a_file_that_changes_is_noticed(tmp_path):
    tensors = factors("q", 30, 21)
    stocks = open_all([write_adapter(tmp_path, tensors)])
    (task,) = plan_adapters(stocks, Limits()).tasks
    body = CountBody()
    write_tensors(tmp_path / "adapter_model.safetensors", tensors | {f"{PREFIX}s": tensor("F32", 3, seed=1)})
    with pytest.raises(FormatError, match="changed after the scan began"):
        body(task)
    (again,) = plan_adapters(open_all([tmp_path]), Limits()).tasks
    assert body(again).parts


def test_tasks_cross_processes(tmp_path):
    stocks = open_all([write_adapter(tmp_path, factors("q", 30, 21))])
    (task,) = plan_adapters(stocks, Limits()).tasks
    (part,) = CountBody()(pickle.loads(pickle.dumps(task))).parts
    assert part.found.count == 630


@pytest.mark.parametrize("kind", ["lora", "dora", "dora by column"])
def test_what_was_counted_is_not_formed_again(kind, tmp_path):
    turned = kind.endswith("column")
    tensors = factors("q", 64, 30)
    base = {"q.weight": tensor("F32", *((30, 64) if turned else (64, 30)), seed=8)}
    if kind != "lora":
        tensors |= magnitudes("q", 64)
    path = write_tensors(tmp_path / "base" / "model.safetensors", base)
    write_adapter(tmp_path / "a", tensors, use_dora=kind != "lora", fan_in_fan_out=turned)
    stocks = open_all([tmp_path / "a"] * 2, path)
    rows, columns = stocks[0].inventory.tensors[0].shape
    begun = [{0: [(0, 3 * columns), (10 * columns, 20 * columns)]}, {0: [(0, rows * columns)]}]
    whole = run([tmp_path / "a"], path).sketches[0]["q.weight"]
    for size in (500, 1 << 20):
        plan = plan_adapters(stocks, Limits(task_bytes=size), begun)
        spans = [(p.tensor, p.span, p.found) for t in plan.tasks for p in CountBody()(t).parts]
        assert {tensor for tensor, _, _ in spans} == {0}
        left = sum(stop - start for _, (start, stop), _ in spans)
        assert left == (rows - 13) * columns
        first = plan_adapters(stocks[:1], Limits(task_bytes=size), [{0: [s for _, s, _ in spans]}])
        rest = [p.found for t in first.tasks for p in CountBody()(t).parts]
        assert_same(combine(*rest, *(found for _, _, found in spans)), whole)


def test_a_base_that_is_not_stored_by_rows(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = factors("q", 30, 21) | magnitudes("q", 30) | {f"{PREFIX}s.weight": tensor("F32", 9, 7, seed=4)}
    base = {"q.weight": tensor("F32", 30, 21, seed=8), "s.weight": tensor("F32", 9, 7, seed=9)}
    turned = {n: torch.from_numpy(numbers(t).T.copy()).t() for n, t in base.items()}
    torch.save(turned, tmp_path / "pytorch_model.bin")
    write_adapter(tmp_path / "a", tensors, use_dora=True)
    for how in CUTS:
        assert_adapter(tmp_path / "a", tensors, (tmp_path / "pytorch_model.bin", base), **how)
        result = run([tmp_path / "a"], tmp_path / "pytorch_model.bin", **how)
        difference = numbers(tensors[f"{PREFIX}s.weight"]) - numbers(base["s.weight"])
        assert_counted(result.parts[0]["s.weight"], difference)


def test_a_base_of_codes_with_factors(tmp_path):
    tensors = factors("q", 256, 128) | magnitudes("q", 256)
    codes = np.random.default_rng(0).integers(0, 120, (256, 128), np.uint8)
    scale = np.array([[0.5], [0.25]], "<f4")
    base = {"q.weight": ("F8_E4M3", codes), "q.weight_scale_inv": ("F32", scale.view("<u4"))}
    path = write_tensors(tmp_path / "base" / "model.safetensors", base)
    write_adapter(tmp_path / "a", tensors, use_dora=True)
    values = numbers(base["q.weight"]) * np.repeat(scale, 128, 0)
    for how in CUTS:
        assert_adapter(tmp_path / "a", tensors, (path, {"q.weight": ("F32", values.view("<u4"))}), **how)


def test_a_base_that_is_read_in_slices(tmp_path):
    """Larger than what is held at once, and with magnitudes of columns, so that it is read twice."""
    tensors = factors("q", 2100, 2050, 1) | magnitudes("q", 2100)
    base = {"q.weight": tensor("BF16", 2050, 2100, seed=8)}
    path = write_tensors(tmp_path / "base" / "model.safetensors", base)
    write_adapter(tmp_path / "a", tensors, r=1, use_dora=True, fan_in_fan_out=True)
    assert_adapter(tmp_path / "a", tensors, (path, base))
    plan = plan_adapters(open_all([tmp_path / "a"], path), Limits())
    assert plan.nbytes > 2 * 2 * 2050 * 2100


def test_a_plan_that_would_not_fit_is_refused(tmp_path):
    stocks = open_all([write_adapter(tmp_path, factors("q", 30, 20))])
    with pytest.raises(BudgetError, match="over the limit of 100 MiB"):
        plan_adapters(stocks, Limits(memory_bytes=100 << 20))
    assert plan_adapters(stocks, Limits(memory_bytes=400 << 20)).tasks


@pytest.mark.skipif(not GPT2.is_dir(), reason="no adapter of GPT-2 here; GAUSSMETER_ADAPTER names one")
def test_a_real_adapter():
    from safetensors.numpy import load_file

    state = load_file(GPT2 / "adapter_model.safetensors")
    result = run([GPT2], workers=2, task_bytes=2 << 20)
    (stock,), (parts,) = result.stocks, result.parts
    assert [m.shape for m in stock.adapter.modules] == [(768, 2304)] * 12
    for module in stock.adapter.modules:
        name = PREFIX + module.name.removesuffix(".weight")
        b, a = state[f"{name}.lora_B.weight"], state[f"{name}.lora_A.weight"]
        whole = (b @ a).T.reshape(-1).astype(np.float64)
        assert len(parts[module.name]) > 3
        for part in parts[module.name]:
            x = whole[slice(*part.span)]
            found = moments(distribution(part.found))
            np.testing.assert_allclose(found.mean, x.mean(), rtol=0, atol=1e-7 * x.std())
            np.testing.assert_allclose(found.m2, x.var() * x.size, rtol=1e-6)
            np.testing.assert_allclose(part.found.maximum, x.max(), rtol=1e-5)
    first = stock.adapter.modules[0]
    tensors = {n: ("F32", value.view("<u4")) for n, value in state.items()}
    assert_counted(parts[first.name], change(stock.adapter, first, tensors))
