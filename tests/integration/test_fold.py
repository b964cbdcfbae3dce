"""Adapters folded into their bases: against PEFT's own merge, and against whole matrices to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.errors import ConfigError, FormatError
from engine.formats.adapters import open_adapter
from engine.formats.checkpoint import open_checkpoint
from engine.plan import Selection
from engine.plan.adapters import take_stock
from engine.verbs.merge_output import RECORD
from tests.adapters import PREFIX, change, tensor
from tests.builders import Tensors, raw, values_of, write_tensors
from tests.integration.helpers import Killed, Recorder, gaussmeter, made, raising, records, rows
from tests.integration.merges import data_of, rounded, values, weights
from tests.integration.test_adapters_of_peft import KINDS, saved, stored
from tests.integration.test_own_adapters import base_model, lora_noise, noise, svdiff, write


@pytest.mark.parametrize(("targets", "settings"), KINDS, ids=str)
@pytest.mark.filterwarnings("ignore")
def test_it_is_what_peft_merges(targets, settings, tmp_path):
    pytest.importorskip("peft")
    merged = saved(tmp_path, targets, **settings)
    adapter, base = tmp_path / "adapter", tmp_path / "base.safetensors"
    if "lora_bias" in settings:
        with pytest.raises(FormatError, match="cannot be folded in: "):
            engine.merge(None, tmp_path / "out", adapter=adapter, base=base, warehouse=tmp_path / "w.duckdb")
        return
    report = engine.merge(
        None, tmp_path / "out", adapter=adapter, base=base, warehouse=made(tmp_path / "w.duckdb"),
        workers=2, task_bytes=500,
    )  # fmt: skip
    assert (report.merged, len(report.copied)) == (len(targets), len(stored(base)) - len(targets))
    found = weights(tmp_path / "out")
    assert set(found) == set(stored(base))
    for name, one in found.items():
        expected = merged[name].astype(np.float64).reshape(-1)
        np.testing.assert_allclose(values(one), expected, rtol=2e-6, atol=1e-6, err_msg=name)


def test_a_head_that_the_base_lacks_is_left_out_and_said(tmp_path):
    pytest.importorskip("peft")
    saved(tmp_path, ["q"])
    adapter, base = tmp_path / "adapter", tmp_path / "base.safetensors"
    file = adapter / "adapter_model.safetensors"
    tensors = stored(file)
    head = f"{PREFIX}classifier.weight"
    write_tensors(file, tensors | {head: ("F32", np.ones((2, 3), np.float32).view("<u4"))})
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"modules_to_save": ["classifier"]}))
    plain = engine.merge(None, tmp_path / "out", adapter=adapter, base=base, warehouse=tmp_path / "w.duckdb")
    assert [reason for _, reason in plain.refused] == ["the base has no such tensor"]
    assert "classifier" in plain.refused[0][0]
    assert plain.merged > 0
    assert set(weights(tmp_path / "out")) == set(stored(base))
    write_tensors(file, {head: ("F32", np.ones((2, 3), np.float32).view("<u4"))})
    with pytest.raises(FormatError, match="cannot be folded in: the base has no such tensor"):
        engine.merge(None, tmp_path / "two", adapter=adapter, base=base, warehouse=tmp_path / "w.duckdb")


OWN = {
    "noise": noise,
    "N = W": lambda folder: noise(folder, "weights"),
    "W = s N": lambda folder: noise(folder, "replaced", "FULL_GAUSSIAN"),
    "lora and noise": lambda folder: lora_noise(folder, "gaussian"),
    "lora and N = W": lambda folder: lora_noise(folder, "weights"),
    "svdiff": svdiff,
}


@pytest.mark.parametrize("kind", OWN)
def test_what_tune_learns_is_the_base_and_its_change_to_one_rounding(kind, tmp_path):
    path, tensors = OWN[kind](tmp_path / "a")
    file, base = base_model(tmp_path, other=tensor("BF16", 7, seed=9), ids=("I64", np.arange(3)))
    engine.merge(
        None,
        tmp_path / "out",
        adapter=path,
        base=file,
        warehouse=made(tmp_path / "w.duckdb"),
        task_bytes=9000,
    )
    again = engine.merge(None, tmp_path / "two", adapter=path, base=file, warehouse=tmp_path / "w.duckdb")
    assert again.status == "merged"
    verified = engine.verify(tmp_path / "two", blocks=None)
    assert (verified.findings, verified.note) == ((), "")
    assert verified.recomputed.equal == verified.recomputed.elements > 18000
    found = weights(tmp_path / "out")
    stock = take_stock(open_adapter(str(path)), open_checkpoint(str(file)), Selection())
    for module in stock.adapter.modules:
        dtype, patterns = base[module.name]
        whole = change(stock.adapter, module, tensors, base).reshape(-1)
        exact = values_of(dtype, patterns.reshape(-1)).astype(np.float32) + whole
        assert found[module.name].data.tobytes() == rounded(dtype, exact.astype(np.float64)).tobytes()
    assert found["ids"].data.tobytes() == raw(np.arange(3)).tobytes()
    assert {n: t.data.tobytes() for n, t in weights(tmp_path / "two").items()} == {
        n: t.data.tobytes() for n, t in found.items()
    }


def test_the_result_is_a_subject_and_is_known_again(tmp_path):
    path, _ = noise(tmp_path / "a")
    file, _ = base_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    warehouse, out = tmp_path / "w.duckdb", tmp_path / "out"
    base = engine.scan(file, warehouse=warehouse)
    ran = gaussmeter("merge", "--adapter", path, "--base", file, out, "-w", warehouse)
    assert ran.code == 0, ran.err
    assert "2 tensors merged, 0 copied, 0 left out, subject 2 in" in ran.out
    (found,) = records(warehouse, "SELECT * FROM subjects WHERE kind = 'merge'")
    assert (list(found["parent_ids"]), found["status"]) == ([base.subject_id], "complete")
    assert json.loads((out / RECORD).read_text())["method"] == "noise"
    assert "(a scalar on noise) folded into its base" in (out / "README.md").read_text()
    again = engine.merge(None, out, adapter=path, base=file, warehouse=warehouse)
    assert (again.status, again.nbytes_read, again.subject_id) == ("unchanged", 0, report_of(warehouse))


def test_a_bit_that_flipped_in_what_was_folded_is_found(tmp_path):
    path, _ = noise(tmp_path / "a")
    file, _ = base_model(tmp_path, other=tensor("BF16", 7, seed=9))
    engine.merge(None, tmp_path / "out", adapter=path, base=file, warehouse=made(tmp_path / "w.duckdb"))
    (shard,) = (tmp_path / "out").glob("*.safetensors")
    body = bytearray(shard.read_bytes())
    module = open_adapter(str(path)).modules[0].name
    where = next(t for t in open_checkpoint(str(shard)).tensors if t.name == module)
    body[where.offset + 10] ^= 1
    shard.write_bytes(body)
    ran = gaussmeter("verify", tmp_path / "out", "--all")
    assert ran.code == 1
    assert module in ran.out
    assert "are not what merging gives, at " in ran.out
    file.unlink()
    ran = gaussmeter("verify", tmp_path / "out")
    assert (ran.code, "nothing was merged again: " in ran.out) == (0, True)


def report_of(warehouse: Path) -> int:
    ((number,),) = rows(warehouse, "SELECT subject_id FROM subjects WHERE kind = 'merge'")
    return int(number)


@pytest.mark.parametrize("at", [1, 3])
def test_killed_it_ends_with_the_same_bytes(tmp_path, at):
    path, _ = lora_noise(tmp_path / "a", "gaussian")
    file, _ = base_model(tmp_path, other=tensor("BF16", 70, 8, seed=9))
    options = {"adapter": path, "base": file, "task_bytes": 9000, "workers": 1}
    (tmp_path / "whole").mkdir()
    engine.merge(None, tmp_path / "whole" / "out", warehouse=tmp_path / "v.duckdb", **options)
    with pytest.raises(Killed):
        listener = Recorder(at, raising(Killed()))
        engine.merge(None, tmp_path / "out", warehouse=tmp_path / "w.duckdb", listener=listener, **options)
    report = engine.merge(None, tmp_path / "out", warehouse=tmp_path / "w.duckdb", **options)
    assert report.status == "resumed"
    assert data_of(tmp_path / "out") == data_of(tmp_path / "whole" / "out")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["a", "b", "--adapter", "c"], "with --adapter there is one word more"),
        (["a"], "takes CONFIG.yaml and OUT"),
        (["a", "b", "--base", "c"], "--base goes with --adapter"),
    ],
)
def test_words_that_do_not_go_together(tmp_path, words, part):
    assert part in gaussmeter("merge", *words, cwd=tmp_path).sentence(2)


def test_what_does_not_fit_is_refused(tmp_path):
    path, _ = noise(tmp_path / "a")
    with pytest.raises(ConfigError, match="no such file"):  # it names a base that is not there
        engine.merge(None, tmp_path / "out", adapter=path, base=tmp_path / "none", warehouse=tmp_path / "w")
    wrong = write_tensors(tmp_path / "wrong.safetensors", {"l.0.q.weight": tensor("BF16", 4, 4, seed=1)})
    with pytest.raises(ConfigError):
        engine.merge(None, tmp_path / "out", adapter=path, base=wrong, warehouse=tmp_path / "w")
    head: Tensors = {f"{PREFIX}classifier.weight": tensor("F32", 2, 32, seed=7)}
    new = write(tmp_path / "head", head, peft_type="HEAD")
    with pytest.raises(FormatError, match="the base has no such tensor"):
        file, _ = base_model(tmp_path)
        engine.merge(None, tmp_path / "out", adapter=new, base=file, warehouse=tmp_path / "w")
    assert not (tmp_path / "out").exists()
