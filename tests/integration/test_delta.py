"""Differences of checkpoints: equal to numpy's, whatever the dtypes, stores, formats, workers and crashes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.errors import BudgetError, ConfigError, FormatError
from engine.nouns.events import TaskDone
from tests import zarr_stores
from tests.builders import (
    COUNTED,
    Tensors,
    as_f32,
    every_code,
    nasty_patterns,
    patterns_of,
    reference_sketch,
    values_of,
    write_sharded,
    write_tensors,
)
from tests.integration.clusters import cluster
from tests.integration.helpers import (
    Killed,
    Recorder,
    assert_consistent,
    contents,
    gaussmeter,
    killed,
    llama,
    made,
    normal,
    program,
    raising,
    rows,
    subjects,
)
from tests.integration.servers import FileServer

TASK = 1500
NAME = "model.layers.0.mlp.up_proj.weight"


def floats(tensor: tuple[str, Any]) -> np.ndarray:
    """The elements of a tensor as float32; those of F64 rounded within its range."""
    dtype, patterns = tensor
    with np.errstate(invalid="ignore", over="ignore"):
        wide = as_f32(dtype, patterns).view("<f4") if dtype in ("F32", "F64") else values_of(dtype, patterns)
        return wide.astype("<f4")


def subtracted(tuned: tuple[str, Any], base: tuple[str, Any]) -> np.ndarray:
    """Patterns of tuned - base in float32, as numpy has them."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference = floats(tuned) - floats(base)
    return np.where(np.isnan(difference), np.float32(np.nan), difference).view("<u4").ravel()


def expected_bins(tuned: tuple[str, Any], base: tuple[str, Any]) -> list[tuple[int, ...]]:
    sketch = reference_sketch("F32", subtracted(tuned, base))
    assert sketch.low_sum is not None
    assert sketch.low_square_sum is not None
    columns = (sketch.codes, sketch.n, sketch.low_sum, sketch.low_square_sum)
    return list(zip(*(c.tolist() for c in columns), strict=True))


def found_bins(kept: Any) -> list[tuple[int, ...]]:
    return [tuple(b[-4:]) for b in sorted(kept.bins, key=lambda b: b[-4])]


def check(warehouse: Path, subject_id: int, tuned: Tensors, base: Tensors) -> None:
    """Every tensor of a difference is numpy's, to the last count."""
    found = contents(warehouse, subject_id)
    assert found.keys() == base.keys()
    for name, kept in found.items():
        patterns = subtracted(tuned[name], base[name])
        values = patterns.view("<f4").astype(np.float64)
        finite = values[np.isfinite(values)]
        assert found_bins(kept) == expected_bins(tuned[name], base[name]), name
        assert kept.row["zeros"] == int((values == 0).sum())
        assert kept.row["nan"] == int(np.isnan(values).sum())
        if finite.size:
            assert (kept.row["min"], kept.row["max"]) == (finite.min(), finite.max())


@pytest.mark.parametrize("tuned", COUNTED)
@pytest.mark.parametrize("base", COUNTED)
def test_all_pairs_of_dtypes_with_every_nasty_pattern(tmp_path, base, tuned):
    few, many = sorted((nasty_patterns(base), nasty_patterns(tuned)), key=len)
    size = len(many) * len(few) if len(few) * len(many) < 3000 else 3000
    a = {"w": (base, np.resize(nasty_patterns(base), size)), "v": normal(base, 13, 7, seed=1)}
    b = {"w": (tuned, np.repeat(nasty_patterns(tuned), len(few))[:size]), "v": normal(tuned, 13, 7, seed=2)}
    b["w"] = (tuned, np.resize(b["w"][1], size))
    one, two = write_tensors(tmp_path / "a.safetensors", a), write_tensors(tmp_path / "b.safetensors", b)
    warehouse = made(tmp_path / "w.duckdb")
    report = engine.delta(one, two, warehouse=warehouse, workers=1)
    check(warehouse, report.subject_id, b, a)
    assert_consistent(warehouse)


def test_every_code_of_bf16_against_every_other_place(tmp_path):
    codes = every_code("BF16")
    a, b = {"w": ("BF16", codes)}, {"w": ("BF16", np.roll(codes, 12345))}
    one, two = write_tensors(tmp_path / "a.safetensors", a), write_tensors(tmp_path / "b.safetensors", b)
    warehouse = made(tmp_path / "w.duckdb")
    report = engine.delta(one, two, warehouse=warehouse)
    check(warehouse, report.subject_id, b, a)


@pytest.mark.parametrize(
    ("base", "tuned"), [("BF16", "BF16"), ("F16", "F16"), ("F32", "F32"), ("BF16", "F32")]
)
@pytest.mark.parametrize(("exact", "tolerance"), [(False, 1e-7), (True, 1e-12)])
def test_moments_are_numpy_s(tmp_path, base, tuned, exact, tolerance):
    a, b = llama(1, base, 48, seed=1), llama(1, tuned, 48, seed=2)
    one, two = write_tensors(tmp_path / "a.safetensors", a), write_tensors(tmp_path / "b.safetensors", b)
    warehouse = made(tmp_path / "w.duckdb")
    report = engine.delta(one, two, warehouse=warehouse, exact=exact, task_bytes=TASK)
    query = "SELECT name, mean, m2, m3, m4, n FROM tensors WHERE subject_id = ?"
    kept = rows(
        warehouse,
        "SELECT name, t.sigmas, floor, kept, t.kurtosis FROM filtered t JOIN tensors USING (tensor_id)",
    )
    for name, mean, m2, m3, m4, n in rows(warehouse, query, report.subject_id):
        x = subtracted(b[name], a[name]).view("<f4").astype(np.float64)
        centred = x - x.mean()
        scale = np.sqrt((centred**2).mean())
        assert mean == pytest.approx(x.mean(), abs=tolerance * scale)
        assert m2 == pytest.approx((centred**2).sum(), rel=tolerance)
        assert m3 / n == pytest.approx((centred**3).mean(), abs=tolerance * scale**3)
        assert m4 == pytest.approx((centred**4).sum(), rel=tolerance)
        if exact:
            inside = x[np.abs(centred) <= 3 * scale]
            (row,) = (r for r in kept if r[0] == name and r[1:3] == (3, 0))
            assert row[3] == inside.size
            middle = inside - inside.mean()
            assert row[4] == pytest.approx((middle**4).mean() / (middle**2).mean() ** 2, rel=1e-10)


# What a difference says of what has not changed


def test_frozen_tensors_and_elements_show_as_zeros(tmp_path):
    base = llama(2, "BF16", 32)
    tuned = dict(base)
    codes = base[NAME][1].copy()
    codes.ravel()[::4] ^= 1
    tuned[NAME] = ("BF16", codes)
    one, two = (
        write_tensors(tmp_path / "a.safetensors", base),
        write_tensors(tmp_path / "b.safetensors", tuned),
    )
    warehouse = made(tmp_path / "w.duckdb")
    report = engine.delta(one, two, warehouse=warehouse)
    check(warehouse, report.subject_id, tuned, base)
    zeros = dict(
        rows(warehouse, "SELECT name, zeros / n FROM tensors WHERE subject_id = ?", report.subject_id)
    )
    assert zeros.pop(NAME) == 0.75
    assert set(zeros.values()) == {1.0}
    stats = rows(
        warehouse,
        "SELECT name, changed_ratio, frozen FROM delta_stats WHERE subject_id = ?",
        report.subject_id,
    )
    assert {name: (ratio, frozen) for name, ratio, frozen in stats} == {
        name: (0.25, False) if name == NAME else (0.0, True) for name in base
    }


def test_infinities_that_stay_are_no_zeros(tmp_path):
    values = np.array([np.inf, -np.inf, np.nan, 1.0, 0.0, -0.0] * 700)
    tensors = {"w": ("BF16", patterns_of("BF16", values))}
    path, again = (write_tensors(tmp_path / f"{n}.safetensors", tensors) for n in "ab")
    warehouse = made(tmp_path / "w.duckdb")
    report = engine.delta(path, again, warehouse=warehouse)
    ((zeros, nan),) = rows(
        warehouse, "SELECT zeros, nan FROM tensors WHERE subject_id = ?", report.subject_id
    )
    assert (zeros, nan) == (2100, 2100)


# Names and shapes


def reasons(warehouse: Path, subject_id: int) -> dict[str, str]:
    return dict(
        rows(
            warehouse,
            "SELECT name, reason FROM tensors WHERE subject_id = ? AND reason IS NOT NULL",
            subject_id,
        )
    )


def test_what_cannot_be_compared_has_a_row_that_says_why(tmp_path):
    base = llama(2, "BF16", 32)
    tuned = {f"module.{n}": t for n, t in llama(2, "BF16", 32, seed=5).items()}
    wide = "module.model.layers.1.self_attn.q_proj.weight"
    tuned[wide] = normal("BF16", 32, 64)
    del tuned["module.model.layers.0.self_attn.k_proj.weight"]
    tuned["score.weight"] = normal("BF16", 2, 32)
    tuned["module.model.embed_tokens.weight"] = normal("BF16", 100, 32, seed=9)
    base["ids"] = tuned["module.ids"] = ("I64", np.arange(4))
    one, two = (
        write_tensors(tmp_path / "a.safetensors", base),
        write_tensors(tmp_path / "b.safetensors", tuned),
    )
    warehouse = made(tmp_path / "w.duckdb")
    report = engine.delta(one, two, warehouse=warehouse)
    assert reasons(warehouse, report.subject_id) == {
        "model.layers.0.self_attn.k_proj.weight": "the tuned checkpoint has no such tensor",
        "model.layers.1.self_attn.q_proj.weight": "shapes differ: (32, 64) against the base's (32, 32)",
        "model.embed_tokens.weight[96:100]": "the base has only 96 rows",
        "score.weight": "the base has no such tensor",
        "ids": "integer",
    }
    assert dict(report.subjects[0].left_out) == reasons(warehouse, report.subject_id)
    kept = contents(warehouse, report.subject_id)["model.embed_tokens.weight"]
    grown = tuned["module.model.embed_tokens.weight"][1][:96]
    assert kept.row["shape"] == [96, 32]
    assert found_bins(kept) == expected_bins(("BF16", grown), base["model.embed_tokens.weight"])
    assert "rows that both have" in kept.row["note"]
    with pytest.raises(FormatError, match=r"5 of 14 tensors cannot be; the first that cannot be: ") as caught:
        engine.delta(one, two, warehouse=warehouse, strict=True)
    assert caught.value.exit_code == 2


def test_a_vocabulary_may_shrink(tmp_path):
    base, tuned = llama(1, "F32", 24), llama(1, "F32", 24, seed=3)
    name = "model.embed_tokens.weight"
    tuned[name] = normal("F32", 50, 24, seed=7)
    one, two = (
        write_tensors(tmp_path / "a.safetensors", base),
        write_tensors(tmp_path / "b.safetensors", tuned),
    )
    warehouse = made(tmp_path / "w.duckdb")
    report = engine.delta(one, two, warehouse=warehouse, task_bytes=TASK)
    assert reasons(warehouse, report.subject_id) == {
        f"{name}[50:72]": "the tuned checkpoint has only 50 rows"
    }
    kept = contents(warehouse, report.subject_id)[name]
    assert found_bins(kept) == expected_bins(tuned[name], (base[name][0], base[name][1][:50]))


def test_the_wrong_base_is_refused_in_one_sentence(tmp_path):
    base, other = llama(2, "BF16", 32), llama(2, "BF16", 48)
    one, two = (
        write_tensors(tmp_path / "a.safetensors", base),
        write_tensors(tmp_path / "b.safetensors", other),
    )
    strange = write_tensors(tmp_path / "c.safetensors", {f"x.{n}": t for n, t in enumerate(base.values())})
    for tuned, word in (
        (two, "shapes differ: (144, 48) against the base's (96, 32)"),
        (strange, "has no such tensor"),
    ):
        ran = gaussmeter("delta", one, tuned, "-w", tmp_path / "w.duckdb")
        sentence = ran.sentence(2)
        assert sentence.startswith(f"{tuned}: is not tuned from {one}: 0 of ")
        assert word in sentence
    assert not (tmp_path / "w.duckdb").exists()


# Stores and formats


def torch_transposed(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    """A torch checkpoint whose matrices lie transposed."""
    import torch

    state = {n: torch.from_numpy(np.ascontiguousarray(a.T)).T for n, a in tensors.items()}
    folder.mkdir(parents=True)
    torch.save(state, folder / "pytorch_model.bin")
    return folder


def tiled(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    return zarr_stores.store(folder.with_suffix(".zarr"), tensors, chunks=(5, 7))


def compressed(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    return zarr_stores.store(
        folder.with_suffix(".zarr"), tensors, chunks=(5, 24), compressors=zarr_stores.COMPRESSORS["zstd"]
    )


def plain(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    first, *rest = tensors.items()
    return write_sharded(folder, {first[0]: ("F32", first[1])}, {n: ("F32", a) for n, a in rest})


FORMS: dict[str, Callable[[Path, dict[str, np.ndarray]], Path]] = {
    "safetensors": plain,
    "torch, transposed": torch_transposed,
    "zarr, in tiles": tiled,
    "zarr, compressed": compressed,
}


@pytest.mark.parametrize("tuned", FORMS)
@pytest.mark.parametrize("base", FORMS)
def test_any_format_against_any_other(tmp_path, base, tuned):
    rng = np.random.default_rng(3)
    a = {f"l.{i}.weight": rng.normal(size=(20 + i, 24)).astype("<f4") for i in range(3)}
    b = {n: (x + 0.01 * rng.normal(size=x.shape)).astype("<f4") for n, x in a.items()}
    one, two = FORMS[base](tmp_path / "a", a), FORMS[tuned](tmp_path / "b", b)
    warehouse = made(tmp_path / "w.duckdb")
    report = engine.delta(one, two, warehouse=warehouse, task_bytes=TASK, workers=2)
    check(warehouse, report.subject_id, *({n: ("F32", x) for n, x in m.items()} for m in (b, a)))


def test_values_of_quantised_weights_are_compared_and_not_their_codes(tmp_path):
    base = {"l.weight": normal("BF16", 256, 128)}
    tuned = {
        "l.weight": normal("F8_E4M3", 256, 128, std=1.0),
        "l.weight_scale_inv": normal("F32", 2, 1, mean=1),
    }
    one, two = (
        write_tensors(tmp_path / "a.safetensors", base),
        write_tensors(tmp_path / "b.safetensors", tuned),
    )
    warehouse = made(tmp_path / "w.duckdb")
    report = engine.delta(one, two, warehouse=warehouse, task_bytes=TASK)
    codes = floats(tuned["l.weight"]).reshape(256, 128)
    values = codes * np.repeat(tuned["l.weight_scale_inv"][1].view("<f4"), 128, axis=0)
    check(warehouse, report.subject_id, {"l.weight": ("F32", values.view("<u4"))}, base)


def test_from_a_web_server_with_few_requests_at_once(tmp_path):
    base, tuned = llama(2, "F32", 48), llama(2, "F32", 48, seed=8)
    write_tensors(tmp_path / "a" / "model.safetensors", base)
    write_tensors(tmp_path / "b" / "model.safetensors", tuned)
    warehouse = made(tmp_path / "w.duckdb")
    with FileServer(tmp_path) as server:
        places = [f"{server.url}/{n}/model.safetensors" for n in "ab"]
        report = engine.delta(*places, warehouse=warehouse, ranges=1, workers=3, task_bytes=TASK)
    check(warehouse, report.subject_id, tuned, base)


# Several at once, interrupted, elsewhere


def family(folder: Path, count: int = 3) -> tuple[Path, list[Path], Tensors, list[Tensors]]:
    base = llama(2, "BF16", 32)
    tuned = [llama(2, "F32" if n == 1 else "BF16", 32, seed=10 + n) for n in range(count)]
    del tuned[-1]["model.layers.1.input_layernorm.weight"]
    one = write_tensors(folder / "base.safetensors", base)
    return one, [write_tensors(folder / f"t{n}.safetensors", t) for n, t in enumerate(tuned)], base, tuned


def body(path: Path) -> int:
    """Bytes of a file's tensors."""
    return path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[:8], "little")


def test_several_tuned_checkpoints_are_read_with_one_reading_of_the_base(tmp_path):
    one, several, base, tuned = family(tmp_path)
    together, alone = made(tmp_path / "together.duckdb"), made(tmp_path / "alone.duckdb")
    report = engine.delta(one, *several, warehouse=together, task_bytes=TASK, exact=False)
    assert [s.status for s in report.subjects] == ["scanned"] * 3
    assert report.nbytes_read == body(one) + sum(map(body, several))
    for path, derived in zip(several, report.subjects, strict=True):
        single = engine.delta(one, path, warehouse=alone, workers=1)
        assert contents(together, derived.subject_id) == contents(alone, single.subject_id)
    check(together, report.subject_id, tuned[0], base)
    again = engine.delta(one, *several, warehouse=together)
    assert [s.status for s in again.subjects] == ["unchanged"] * 3
    assert again.nbytes_read == 0
    assert_consistent(together)


def test_only_what_is_missing_of_several_is_read(tmp_path):
    one, several, *_ = family(tmp_path)
    warehouse = made(tmp_path / "w.duckdb")
    engine.delta(one, several[1], warehouse=warehouse)
    report = engine.delta(one, *several, warehouse=warehouse)
    assert [s.status for s in report.subjects] == ["scanned", "unchanged", "scanned"]
    assert report.nbytes_read == body(one) + body(several[0]) + body(several[2])


@pytest.mark.parametrize("exact", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_killed_at_any_task_it_is_completed_with_the_same_bits(tmp_path, exact, monkeypatch):
    from engine.verbs import scribe

    monkeypatch.setattr(scribe, "FLUSH_SECONDS", 0.0)
    one, several, *_ = family(tmp_path)
    options = {"workers": 1, "task_bytes": 6000, "exact": exact}
    whole = made(tmp_path / "whole.duckdb")
    undisturbed = engine.delta(one, *several, warehouse=whole, **options)
    for at in (8, 13):  # each task is told of to three subjects
        warehouse = made(tmp_path / f"w{at}.duckdb")
        with pytest.raises(Killed):
            engine.delta(
                one, *several, warehouse=warehouse, listener=Recorder(at, raising(Killed())), **options
            )
        report = engine.delta(one, *several, warehouse=warehouse, **(options | {"task_bytes": 9000}))
        assert {s.status for s in report.subjects} <= {"resumed", "unchanged", "scanned"}
        assert report.nbytes_read < undisturbed.nbytes_read
        for before, after in zip(undisturbed.subjects, report.subjects, strict=True):
            assert contents(whole, before.subject_id) == contents(warehouse, after.subject_id)
        assert_consistent(warehouse)


KILLED_AT_THE_FOURTH = """
import os, signal, sys, engine
from engine.nouns.events import TaskDone
from engine.verbs import scribe

scribe.FLUSH_SECONDS = 1e9
seen = []

def listen(event):
    if isinstance(event, TaskDone):
        seen.append(event.nbytes)
        print(event.nbytes, flush=True)
    if len(seen) == 4:
        os.kill(os.getpid(), signal.SIGKILL)

engine.delta(*sys.argv[2:], warehouse=sys.argv[1], workers=1, task_bytes=6000, listener=listen)
"""


def test_killed_before_anything_was_written_it_reads_no_finished_task_again(tmp_path):
    one, (two,), base, tuned = family(tmp_path, 1)
    tuned[0]["model.layers.1.input_layernorm.weight"] = normal("BF16", 32)
    write_tensors(two, tuned[0])
    warehouse = made(tmp_path / "w.duckdb")
    ran = program(KILLED_AT_THE_FOURTH, warehouse, one, two)
    assert killed(ran)
    report = engine.delta(one, two, warehouse=warehouse, task_bytes=2000)
    assert report.status == "resumed"
    assert report.nbytes_read == body(one) + body(two) - sum(map(int, ran.out.split()))
    check(warehouse, report.subject_id, tuned[0], base)
    assert_consistent(warehouse)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("task", [200, 5000, 10**7])
def test_the_bits_depend_on_no_worker_and_no_size(tmp_path, workers, task):
    one, several, base, tuned = family(tmp_path, 1)
    warehouse = made(tmp_path / "w.duckdb")
    tuned[0]["model.layers.1.input_layernorm.weight"] = normal("BF16", 32)
    write_tensors(several[0], tuned[0])
    report = engine.delta(
        one, *several, warehouse=warehouse, workers=workers, task_bytes=task, block_bytes=64
    )
    check(warehouse, report.subject_id, tuned[0], base)


def test_on_a_cluster_the_bits_are_the_same(tmp_path):
    one, several, *_ = family(tmp_path)
    threads, ray = made(tmp_path / "threads.duckdb"), made(tmp_path / "ray.duckdb")
    first = engine.delta(one, *several, warehouse=threads, exact=True, task_bytes=TASK)
    with cluster({"num_cpus": 2}) as nodes:
        second = engine.delta(one, *several, warehouse=ray, exact=True, task_bytes=TASK, ray=nodes.address)
    for a, b in zip(first.subjects, second.subjects, strict=True):
        assert contents(threads, a.subject_id) == contents(ray, b.subject_id)


def test_a_file_that_changes_meanwhile_ends_it(tmp_path):
    one, several, *_ = family(tmp_path, 2)

    def grow(event: Any) -> None:
        if isinstance(event, TaskDone) and several[1].stat().st_size > 100:
            several[1].write_bytes(b"")

    warehouse = made(tmp_path / "w.duckdb")
    with pytest.raises(FormatError, match=r"t1\.safetensors"):
        engine.delta(one, *several, warehouse=warehouse, workers=1, task_bytes=TASK, listener=grow)
    assert subjects(warehouse) == []


# The subject


def test_it_is_a_subject_with_its_parents(tmp_path):
    one, (two,), *_ = family(tmp_path, 1)
    warehouse = made(tmp_path / "w.duckdb")
    parents = [engine.scan(p, warehouse=warehouse).subject_id for p in (one, two)]
    report = engine.delta(one, two, warehouse=warehouse, name="change")
    query = "SELECT name, kind, format, parent_ids, spec FROM subjects WHERE subject_id = ?"
    ((name, kind, form, ids, spec),) = rows(warehouse, query, report.subject_id)
    assert (name, kind, form, ids) == ("change", "delta", "delta", parents)
    assert json.loads(spec)["base"] == str(one)
    assert engine.show("change", by="role", warehouse=warehouse).records()
    assert engine.paper("table1", warehouse=warehouse).records()


def test_what_it_prints(tmp_path):
    one, several, *_ = family(tmp_path, 2)
    warehouse = tmp_path / "w.duckdb"
    ran = gaussmeter("delta", one, *several, "-w", warehouse)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0].startswith("t0-minus-base: 11 tensors, 9")
    assert lines[0].endswith(f"% of the elements changed, subject 1 in {warehouse}")
    assert lines[1].startswith("t1-minus-base: 11 tensors (1 not compared), ")
    assert lines[2].startswith("  not compared: model.layers.1.input_layernorm.weight: the tuned checkpoint")
    assert lines[3].startswith("read ")
    again = gaussmeter("delta", one, *several, "-w", warehouse, "--format", "json")
    report = json.loads(again.out)
    assert [s["status"] for s in report["subjects"]] == ["unchanged", "unchanged"]
    assert report["nbytes_read"] == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a"], "a base and at least one tuned"),
        ([], "a base and at least one tuned"),
        (["a", "--base", "b"], "--base goes with --adapter"),
        (["a", "--adapter", "b"], "checkpoints or adapters"),
        (["a.safetensors", "b.safetensors", "b.safetensors"], "is given twice"),
        (["a.safetensors", "b.safetensors", "--name", "x", "c.safetensors"], "there are 2"),
        (["a.safetensors", "b.safetensors", "--include", "nothing*"], "no tensor"),
        (["a.safetensors", "b.safetensors", "--memory", "1MB"], "over the limit of 1 MiB"),
        (["a.safetensors", "none.safetensors"], "no such file"),
    ],
)
def test_wrong_use_is_one_sentence_and_no_warehouse(tmp_path, words, sentence):
    for name in "abc":
        write_tensors(tmp_path / f"{name}.safetensors", llama(1, seed=ord(name)))
    ran = gaussmeter("delta", *words, cwd=tmp_path)
    assert sentence in ran.sentence(2)
    assert not (tmp_path / "stats.duckdb").exists()


def test_the_same_in_python(tmp_path):
    with pytest.raises(ConfigError, match="at least one tuned"):
        engine.delta("a")
    one, (two,), *_ = family(tmp_path, 1)
    with pytest.raises(BudgetError, match="would take"):
        engine.delta(one, two, warehouse=tmp_path / "w.duckdb", memory_bytes=10**6)
