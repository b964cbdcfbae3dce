"""Adapters through `gaussmeter delta --adapter`: subjects with their rows, resumed, on a cluster, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.nouns.events import TaskDone
from tests.adapters import assert_adapter, factors, magnitudes, numbers, product, tensor, write_adapter
from tests.builders import Tensors, write_tensors
from tests.integration.clusters import cluster
from tests.integration.helpers import (
    Killed,
    Recorder,
    assert_consistent,
    contents,
    gaussmeter,
    made,
    raising,
    rows,
)
from tests.integration.test_adapters import GPT2

SHAPES = {"l.0.q": (48, 32), "l.1.q": (48, 32)}


def lora(folder: Path, seed: int = 0, r: int = 4, **settings: object) -> tuple[Path, Tensors]:
    tensors: Tensors = {}
    for number, (module, (out, into)) in enumerate(SHAPES.items()):
        tensors |= factors(module, out, into, r, seed=10 * seed + number)
    return write_adapter(folder, tensors, r=r, lora_alpha=2 * r, **settings), tensors


def dora(folder: Path, seed: int = 0) -> Path:
    _, tensors = lora(folder, seed)
    for number, (module, (out, _)) in enumerate(SHAPES.items()):
        tensors |= magnitudes(module, out, seed=seed + number)
    return write_adapter(folder, tensors, r=4, lora_alpha=8, use_dora=True)


def base_model(folder: Path) -> Path:
    tensors = {f"{m}.weight": tensor("BF16", *shape, seed=i) for i, (m, shape) in enumerate(SHAPES.items())}
    return write_tensors(folder / "base.safetensors", tensors | {"other.bias": tensor("BF16", 8, seed=9)})


def test_an_adapter_is_a_subject(tmp_path):
    path, tensors = lora(tmp_path / "a")
    warehouse = made(tmp_path / "w.duckdb")
    report = engine.delta(adapters=[path], warehouse=warehouse)
    ((kind, form, spec),) = rows(warehouse, "SELECT kind, format, spec FROM subjects")
    assert (kind, form) == ("adapter", "peft")
    spec = json.loads(spec)
    assert (spec["method"], spec["r"], spec["base"]) == ("lora", 4, None)
    found = rows(
        warehouse, "SELECT name, shape, mean, m2 FROM tensors WHERE subject_id = ?", report.subject_id
    )
    assert [name for name, *_ in found] == ["l.0.q.weight", "l.1.q.weight"]
    for (name, shape, mean, m2), (a, b) in zip(found, _pairs(tensors), strict=True):
        whole = product(numbers(b), numbers(a), 2.0).astype(np.float64)
        assert tuple(shape) == whole.shape, name
        assert mean == pytest.approx(whole.mean(), abs=1e-9)
        assert m2 == pytest.approx(((whole - whole.mean()) ** 2).sum(), rel=1e-9)
    assert engine.paper("table6", warehouse=warehouse).records()[0]["r"] == 4
    again = engine.delta(adapters=[path], warehouse=warehouse)
    assert (again.status, again.nbytes_read) == ("unchanged", 0)
    assert_consistent(warehouse)


def _pairs(tensors: Tensors) -> list[tuple[object, object]]:
    values = list(tensors.values())
    return list(zip(values[::2], values[1::2], strict=True))


@pytest.mark.skipif(not GPT2.is_dir(), reason="the adapter of GPT-2 is not here")
def test_a_real_adapter(tmp_path):
    from safetensors.numpy import load_file

    own = load_file(GPT2 / "adapter_model.safetensors")
    tensors = {name: ("F32", array.view("<u4")) for name, array in own.items() if ".lora_" in name}
    warehouse = tmp_path / "w.duckdb"
    ran = gaussmeter("delta", "--adapter", GPT2, "-w", warehouse)
    assert ran.code == 0, ran.err
    query = "SELECT name, shape, n, mean, m2, m4, min, max FROM tensors WHERE reason IS NULL"
    found = {name: rest for name, *rest in rows(warehouse, query)}
    assert len(found) == 12
    for a, b in _pairs(dict(sorted(tensors.items()))):
        whole = (numbers(b) @ numbers(a)).T  # fan_in_fan_out: GPT-2 keeps in x out
        name = next(n for n, (shape, *_) in found.items() if tuple(shape) == whole.shape)
        assert whole.shape == (768, 2304), name
    for key in (k for k in own if ".lora_A." in k):
        whole = (own[key.replace("lora_A", "lora_B")] @ own[key]).T.astype(np.float64)
        name = (
            key.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight").replace(".lora_A", "")
        )
        shape, n, mean, m2, m4, low, high = found[name]
        centred = whole - whole.mean()
        assert (tuple(shape), n) == (whole.shape, whole.size)
        assert mean == pytest.approx(whole.mean(), abs=1e-7 * whole.std())
        assert m2 == pytest.approx((centred**2).sum(), rel=1e-6)
        assert m4 == pytest.approx((centred**4).sum(), rel=1e-6)
        assert (low, high) == (pytest.approx(whole.min(), rel=1e-5), pytest.approx(whole.max(), rel=1e-5))


def test_several_adapters_of_one_base_read_it_once(tmp_path):
    base = base_model(tmp_path)
    adapters = [dora(tmp_path / f"d{n}", seed=n) for n in range(3)]
    together, alone = made(tmp_path / "together.duckdb"), made(tmp_path / "alone.duckdb")
    heard: list[TaskDone] = []
    report = engine.delta(
        base,
        adapters=adapters,
        warehouse=together,
        listener=lambda e: heard.append(e) if isinstance(e, TaskDone) else None,
    )
    assert [s.name for s in report.subjects] == ["d0", "d1", "d2"]
    own = sum((p / "adapter_model.safetensors").stat().st_size for p in adapters)
    assert report.nbytes_read < own + base.stat().st_size, "the base was read more than once"
    assert sum(e.nbytes for e in heard) == report.nbytes_read
    for path, derived in zip(adapters, report.subjects, strict=True):
        single = engine.delta(base, adapters=[path], warehouse=alone, workers=1, task_bytes=3000)
        assert contents(together, derived.subject_id) == contents(alone, single.subject_id)
    parents = engine.scan(base, warehouse=together).subject_id
    later = engine.delta(base, adapters=adapters[:1], warehouse=together, force=True)
    assert rows(together, "SELECT parent_ids FROM subjects WHERE subject_id = ?", later.subject_id) == [
        ([parents],)
    ]


@pytest.mark.parametrize("exact", [False, True])
def test_killed_it_is_completed_with_the_same_bits(tmp_path, exact, monkeypatch):
    from engine.verbs import scribe

    monkeypatch.setattr(scribe, "FLUSH_SECONDS", 0.0)
    base, path = base_model(tmp_path), dora(tmp_path / "d")
    options = {"workers": 1, "task_bytes": 2000, "exact": exact}
    whole = made(tmp_path / "whole.duckdb")
    undisturbed = engine.delta(base, adapters=[path], warehouse=whole, **options)
    warehouse = made(tmp_path / "w.duckdb")
    with pytest.raises(Killed):
        engine.delta(
            base, adapters=[path], warehouse=warehouse, listener=Recorder(4, raising(Killed())), **options
        )
    report = engine.delta(base, adapters=[path], warehouse=warehouse, **(options | {"task_bytes": 5000}))
    assert report.status == "resumed"
    assert contents(whole, undisturbed.subject_id) == contents(warehouse, report.subject_id)
    assert_consistent(warehouse)


@pytest.mark.slow
def test_on_a_cluster_the_bits_are_the_same(tmp_path):
    base, path = base_model(tmp_path), dora(tmp_path / "d")
    threads, ray = made(tmp_path / "threads.duckdb"), made(tmp_path / "ray.duckdb")
    first = engine.delta(base, adapters=[path], warehouse=threads, exact=True)
    with cluster({"num_cpus": 2}) as nodes:
        second = engine.delta(
            base, adapters=[path], warehouse=ray, exact=True, task_bytes=2000, ray=nodes.address
        )
    assert contents(threads, first.subject_id) == contents(ray, second.subject_id)


def test_what_is_refused_is_one_sentence(tmp_path):
    base = base_model(tmp_path)
    cases: dict[str, tuple[Path, str]] = {}
    tensors = factors("l.0.q", 48, 32)
    stranger = factors("l.7.k", 48, 32)
    cases["a module that the base lacks"] = (write_adapter(tmp_path / "1", stranger), "l.7.k.weight")
    cases["a shape unlike the base's"] = (write_adapter(tmp_path / "2", factors("l.0.q", 48, 30)), "(48, 30)")
    cases["an unknown type"] = (write_adapter(tmp_path / "3", tensors, peft_type="IA3"), "IA3")
    truncated = write_adapter(tmp_path / "4", tensors)
    weights = truncated / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    cases["a truncated file"] = (truncated, "adapter_model.safetensors")
    bare = tmp_path / "5"
    bare.mkdir()
    cases["no settings"] = (bare, "adapter")
    for what, (path, word) in cases.items():
        ran = gaussmeter("delta", "--adapter", path, "--base", base, "-w", tmp_path / "w.duckdb")
        assert word in ran.sentence(2), what
    needs = gaussmeter("delta", "--adapter", dora(tmp_path / "d"), "-w", tmp_path / "w.duckdb")
    assert "DoRA needs the base" in needs.sentence(2)
    twice = gaussmeter("delta", "--adapter", tmp_path / "d", "--adapter", tmp_path / "d", "--base", base)
    assert "given twice" in twice.sentence(2)
    assert not (tmp_path / "w.duckdb").exists()


def test_strict_refuses_what_gives_no_difference(tmp_path):
    _, tensors = lora(tmp_path / "a")
    path = write_adapter(
        tmp_path / "a", tensors | {"base_model.model.score.weight": tensor("F32", 2, 32, seed=5)}
    )
    warehouse = made(tmp_path / "w.duckdb")
    report = engine.delta(adapters=[path], warehouse=warehouse)
    assert [name for name, _ in report.subjects[0].left_out] == ["base_model.model.score.weight"]
    ran = gaussmeter("delta", "--adapter", path, "--strict", "-w", warehouse)
    assert "1 of its tensors give no dW" in ran.sentence(2)


def test_the_numbers_are_those_of_the_tasks(tmp_path):
    path, tensors = lora(tmp_path / "a", use_rslora=True)
    assert_adapter(path, tensors, workers=2, task_bytes=2000)
