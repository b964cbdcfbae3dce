"""Edited checkpoints: what is kept keeps its bits, whatever the cut, the dtype and the interruptions."""

from __future__ import annotations

import json
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import engine
from engine.errors import ConfigError, TaskError
from engine.nouns.editing import Edit
from engine.nouns.merging import Roles
from engine.tasks.editing import EditBody
from engine.tasks.tally import Tally
from engine.verbs.merge_output import RECORD
from tests.builders import (
    Tensors,
    nasty_patterns,
    patterns_of,
    raw,
    values_of,
    write,
    write_sharded,
    write_tensors,
)
from tests.integration.helpers import (
    Killed,
    Recorder,
    assert_consistent,
    contents,
    gaussmeter,
    killed,
    made,
    normal,
    program,
    raising,
    records,
    rows,
)
from tests.integration.merges import data_of, weights
from tests.torch_files import archive, storage, tensor
from tests.torch_files import program as pickled

SHAPES = {
    "model.embed_tokens.weight": (50, 24),
    "model.layers.0.self_attn.q_proj.weight": (24, 24),
    "model.layers.0.mlp.up_proj.weight": (70, 24),
    "model.layers.0.input_layernorm.weight": (24,),
    "model.layers.1.conv.weight": (5, 6, 7),
    "model.layers.1.nothing.weight": (0, 24),
    "model.scale": (),
}
MATRICES = [name for name, shape in SHAPES.items() if len(shape) > 1]
NASTY = "model.layers.0.mlp.up_proj.weight"
LONELY = "model.layers.9.only.weight"
Elements = dict[str, NDArray[Any]]


def heavy(dtype: str, size: int, seed: int) -> NDArray[Any]:
    """Gaussian values with a heavy tail, zeros of both signs among them."""
    r = np.random.default_rng(seed)
    values = r.normal(0.002, 0.02, size) * np.where(r.random(size) < 0.03, 6, 1)
    return patterns_of(dtype, np.where(r.random(size) < 0.05, r.choice([0.0, -0.0], size), values))


def tensors_of(dtype: str, seed: int = 0) -> Tensors:
    found = {name: heavy(dtype, int(np.prod(s)), seed + i) for i, (name, s) in enumerate(SHAPES.items())}
    nasty = nasty_patterns(dtype)
    finite = np.isfinite(values_of(dtype, nasty)) & (np.abs(values_of(dtype, nasty)) > 1)
    found[NASTY][: nasty.size] = np.where(finite, 0, nasty)  # a few huge ones would be sigma
    shaped = {name: (dtype, patterns.reshape(SHAPES[name])) for name, patterns in found.items()}
    return shaped | {"model.position_ids": ("I64", np.arange(7))}


def written(folder: Path, tensors: Tensors) -> Path:
    names = list(tensors)
    write_sharded(folder, {n: tensors[n] for n in names[::2]}, {n: tensors[n] for n in names[1::2]})
    return folder


def tuned_from(tensors: Tensors, dtype: str) -> Tensors:
    """The same with small changes, some large ones, and most elements as they are."""
    tuned = {}
    for i, (name, (own, patterns)) in enumerate(tensors.items()):
        if own == "I64":
            tuned[name] = (own, patterns)
            continue
        r = np.random.default_rng(100 + i)
        change = r.normal(0, 0.003, patterns.shape) * np.where(r.random(patterns.shape) < 0.05, 9, 1)
        values = values_of(own, patterns) + np.where(r.random(patterns.shape) < 0.3, change, 0)
        tuned[name] = (dtype, patterns_of(dtype, values.reshape(-1)).reshape(patterns.shape))
    return tuned


def flat(tensors: Tensors) -> Elements:
    return {name: np.asarray(patterns).reshape(-1) for name, (_, patterns) in tensors.items()}


def exact(dtype: str, patterns: NDArray[Any]) -> NDArray[np.float64]:
    return patterns.view("<f8") if dtype == "F64" else values_of(dtype, patterns)


def rounded_to(dtype: str, values: NDArray[np.float64]) -> NDArray[Any]:
    """Patterns of the nearest values; of every NaN the quiet one."""
    return np.where(
        np.isnan(values),
        patterns_of(dtype, [np.inf]) | {"BF16": 0x40}.get(dtype, 0x200),
        patterns_of(dtype, values),
    )


@np.errstate(all="ignore")
def kept_of(
    values: NDArray[np.float64], keep: str | None, t: float, floor: float | None
) -> NDArray[np.bool_]:
    """Which elements of a whole tensor are kept, in plain numpy."""
    if floor is not None:
        return ~(np.abs(values) < floor)
    finite = values[np.isfinite(values)]
    mean, sigma = (finite.mean(), finite.std()) if finite.size else (np.nan, np.nan)
    inside = (values >= mean - t * sigma) & (values <= mean + t * sigma)
    return inside if keep == "gaussian" else ~inside


def expected(model: Tensors, base: Tensors | None = None, **how: Any) -> tuple[Elements, int]:
    """Patterns of every tensor as they should be written, and how many elements are kept."""
    how = {"keep": None, "t": 3.0, "floor": None} | how
    found, own, theirs = {}, flat(model), flat(base or {})
    count = 0
    for name, patterns in own.items():
        dtype = model[name][0]
        if name not in MATRICES:
            found[name] = patterns
            continue
        values, instead = exact(dtype, patterns), np.zeros_like(patterns)
        if base is not None:
            other = base[name][0]
            with np.errstate(all="ignore"):
                values = values_of(dtype, patterns).astype("<f4") - values_of(other, theirs[name]).astype(
                    "<f4"
                )
            same = other == dtype
            instead = theirs[name] if same else rounded_to(dtype, exact(other, theirs[name]))
        mask = kept_of(values.astype(np.float64), **how)
        found[name] = np.where(mask, patterns, instead)
        count += int(mask.sum())
    return found, count


def assert_written(out: Path, wanted: Elements) -> None:
    found = weights(out)
    assert set(found) == set(wanted)
    for name, patterns in wanted.items():
        assert found[name].data.tobytes() == raw(patterns).tobytes(), name


ELEMENTS = sum(int(np.prod(SHAPES[name])) for name in MATRICES)
CUT: dict[str, Any] = {"workers": 3, "task_bytes": 700, "shard_bytes": 3000}
OUTLIERS: dict[str, Any] = {"keep": "outliers", "t": 2.0}
GAUSSIAN: dict[str, Any] = {"keep": "gaussian", "t": 2.0}
FLOOR: dict[str, Any] = {"floor": 1e-2}
CASES: list[tuple[str, list[tuple[dict[str, Any], dict[str, Any]]]]] = [
    ("BF16", [(OUTLIERS, {"workers": 1}), (OUTLIERS, CUT), (FLOOR, CUT)]),  # the second has counts already
    ("BF16", [(GAUSSIAN, CUT)]),  # nothing is known, and everything is cut
    ("F16", [(GAUSSIAN, CUT), (OUTLIERS, {})]),
    ("F32", [(OUTLIERS, CUT), (GAUSSIAN, {}), (FLOOR, CUT)]),
    ("F64", [(OUTLIERS, CUT)]),
    ("F8_E4M3", [(GAUSSIAN, CUT)]),
]


@pytest.mark.parametrize(("dtype", "ways"), CASES, ids=lambda c: c if isinstance(c, str) else "")
def test_it_is_what_whole_tensors_give_however_it_is_cut(dtype, ways, tmp_path):
    model, warehouse = tensors_of(dtype), made(tmp_path / "w.duckdb")
    place = written(tmp_path / "model", model)
    for number, (way, cut) in enumerate(ways):
        wanted, count = expected(model, **way)
        out = tmp_path / f"{number}"
        report = engine.edit(place, out, warehouse=warehouse, **way, **cut)
        assert (report.status, report.edited, report.copied) == ("edited", len(MATRICES), 3)
        assert (report.kept, report.zeroed) == (count, ELEMENTS - count)
        assert (report.files > 1) == ("shard_bytes" in cut)
        assert_written(out, wanted)


DIFFERENCES = [
    ("BF16", "BF16", [(OUTLIERS, {}), (GAUSSIAN, CUT), (FLOOR, CUT)]),
    ("F32", "F32", [(OUTLIERS, CUT)]),
    ("BF16", "F32", [(OUTLIERS, CUT)]),
    ("F16", "BF16", [(GAUSSIAN, CUT)]),
]


@pytest.mark.parametrize(
    ("dtype", "other", "ways"), DIFFERENCES, ids=lambda c: c if isinstance(c, str) else ""
)
def test_of_a_difference_the_rest_is_the_base(dtype, other, ways, tmp_path):
    base = tensors_of(other)
    model = tuned_from(base, dtype)
    places = written(tmp_path / "base", base), written(tmp_path / "model", model)
    warehouse = made(tmp_path / "w.duckdb")
    for number, (way, cut) in enumerate(ways):
        wanted, count = expected(model, base, **way)
        out = tmp_path / f"{number}"
        report = engine.edit(places[1], out, base=places[0], warehouse=warehouse, **way, **cut)
        assert (report.kept, report.zeroed) == (count, ELEMENTS - count)
        assert_written(out, wanted)


@pytest.mark.parametrize("t", [0.0, 3.0])
def test_outliers_and_the_rest_are_the_model(t, tmp_path):
    model = tensors_of("BF16")
    place, warehouse = written(tmp_path / "model", model), made(tmp_path / "w.duckdb")
    both = {
        keep: engine.edit(place, tmp_path / keep, keep=keep, t=t, warehouse=warehouse)
        for keep in ("outliers", "gaussian")
    }
    assert (both["outliers"].kept, both["outliers"].zeroed) == (
        both["gaussian"].zeroed,
        both["gaussian"].kept,
    )
    parts = [weights(tmp_path / keep) for keep in both]
    for name, patterns in flat(model).items():
        one, other = (p[name].data.view(patterns.dtype) for p in parts)
        assert (one | other == patterns).all(), name  # bit by bit
        if name in MATRICES:
            assert not (one & other).any(), name
            added = values_of("BF16", one) + values_of("BF16", other)
            np.testing.assert_array_equal(added, values_of("BF16", patterns), err_msg=name)


def test_what_the_warehouse_says_is_kept_is_kept(tmp_path):
    """Of 16-bit floats it knows every value; the filters at 2 and 3 sigma are columns of it."""
    place, warehouse = written(tmp_path / "model", tensors_of("F16")), made(tmp_path / "w.duckdb")
    number = engine.scan(place, warehouse=warehouse).subject_id
    query = """
        SELECT t.name, f.kept, t.n FROM filtered f JOIN tensors t USING (tensor_id)
        WHERE subject_id = ? AND sigmas = ? AND floor = 0
    """
    for t in (2.0, 3.0):
        engine.edit(place, tmp_path / f"{t}", keep="gaussian", t=t, warehouse=warehouse)
        kept = json.loads((tmp_path / f"{t}" / RECORD).read_text())["kept"]
        known = {name: [k, n - k] for name, k, n in rows(warehouse, query, number, t) if name in MATRICES}
        assert kept == known


# What it leaves


def test_the_model_is_a_subject_as_a_scan_would_leave_it(tmp_path):
    model = tensors_of("F32")
    place, warehouse = written(tmp_path / "model", model), made(tmp_path / "w.duckdb")
    scanned = engine.scan(place, warehouse=warehouse)
    (other,) = records(warehouse, "SELECT * FROM subjects")
    whole = sum(raw(p).nbytes for _, p in model.values())
    for number, chosen in enumerate(((), ("*q_proj*",))):
        own, out = made(tmp_path / f"{number}.duckdb"), tmp_path / f"{number}"
        report = engine.edit(place, out, keep="outliers", include=chosen, warehouse=own, task_bytes=900)
        assert report.nbytes_read == whole  # what is copied is counted as it passes
        (found,) = records(own, "SELECT * FROM subjects WHERE kind = 'checkpoint'")
        for key in ("name", "uri", "fingerprint", "spec", "parent_ids", "format", "files", "bytes", "status"):
            assert np.array_equal(found[key], other[key]), key
        assert contents(own, found["subject_id"]) == contents(warehouse, scanned.subject_id)
        assert engine.scan(place, warehouse=own).status == "unchanged"
        assert_consistent(own)


def test_a_scan_that_was_interrupted_is_completed(tmp_path):
    place, warehouse = written(tmp_path / "model", tensors_of("BF16")), made(tmp_path / "w.duckdb")
    with pytest.raises(Killed):
        engine.scan(
            place, warehouse=warehouse, task_bytes=500, workers=1, listener=Recorder(4, raising(Killed()))
        )
    engine.edit(place, tmp_path / "out", keep="gaussian", warehouse=warehouse)
    assert engine.scan(place, warehouse=warehouse).status == "unchanged"
    engine.scan(place, warehouse=tmp_path / "v.duckdb")
    assert contents(warehouse, 1) == contents(tmp_path / "v.duckdb", 1)
    assert_written(tmp_path / "out", expected(tensors_of("BF16"), keep="gaussian")[0])


def test_the_difference_is_a_subject_as_a_delta_would_leave_it(tmp_path):
    base = tensors_of("BF16")
    places = written(tmp_path / "base", base), written(tmp_path / "model", tuned_from(base, "BF16"))
    engine.edit(places[1], tmp_path / "out", keep="outliers", base=places[0], warehouse=tmp_path / "w.duckdb")
    engine.delta(*places, warehouse=tmp_path / "v.duckdb")
    assert contents(tmp_path / "w.duckdb", 1) == contents(tmp_path / "v.duckdb", 1)
    assert engine.delta(*places, warehouse=tmp_path / "w.duckdb").status == "unchanged"


def test_the_edited_model_is_a_subject_with_parents(tmp_path):
    base = tensors_of("BF16")
    places = written(tmp_path / "base", base), written(tmp_path / "model", tuned_from(base, "BF16"))
    warehouse = made(tmp_path / "w.duckdb")
    known = engine.scan(places[0], warehouse=warehouse).subject_id
    first = engine.edit(places[1], tmp_path / "a", keep="gaussian", warehouse=warehouse, name="mine")
    model = engine.scan(places[1], warehouse=warehouse)
    assert model.status == "unchanged"
    second = engine.edit(places[1], tmp_path / "b", base=places[0], floor=1e-3, warehouse=warehouse)
    for report, parents, name in (
        (first, [model.subject_id], "mine"),
        (second, [model.subject_id, known], "b"),
    ):
        (found,) = records(warehouse, "SELECT * FROM subjects WHERE subject_id = ?", report.subject_id)
        assert (found["kind"], found["name"], found["status"]) == ("edit", name, "complete")
        assert list(found["parent_ids"]) == parents
        scanned = engine.scan(report.out, warehouse=warehouse)
        assert contents(warehouse, report.subject_id) == contents(warehouse, scanned.subject_id)


def test_files_come_along_and_what_is_there_is_not_written_again(tmp_path):
    place, how = written(tmp_path / "model", tensors_of("BF16")), {"warehouse": made(tmp_path / "w.duckdb")}
    (place / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    first = engine.edit(place, tmp_path / "out", keep="outliers", t=2.5, **how)
    found = data_of(tmp_path / "out")
    assert set(found) == {"README.md", RECORD, "config.json", "model.safetensors"}
    assert found["config.json"] == b'{"torch_dtype": "bfloat16"}'
    card = found["README.md"].decode()
    assert "Edited: outliers beyond 2.5 sigma kept" in card
    assert f"- {first.kept:,} elements kept, {first.zeroed:,} zeroed" in card
    record = json.loads(found[RECORD])
    assert (record["edit"]["keep"], record["edit"]["t"]) == ("outliers", 2.5)
    assert set(record["kept"]) == set(MATRICES)
    again = engine.edit(place, tmp_path / "out", keep="outliers", t=2.5, **how)
    assert (again.status, again.nbytes_read) == ("unchanged", 0)
    assert (again.kept, again.zeroed, again.subject_id) == (first.kept, first.zeroed, first.subject_id)
    with pytest.raises(ConfigError, match="holds another merge"):
        engine.edit(place, tmp_path / "out", keep="outliers", t=2, **how)
    assert data_of(tmp_path / "out") == found
    other = engine.edit(place, tmp_path / "out", keep="outliers", t=2, force=True, **how)
    assert (other.status, other.kept > first.kept) == ("edited", True)
    assert_written(tmp_path / "out", expected(tensors_of("BF16"), keep="outliers", t=2.0)[0])


def test_what_was_edited_is_verified(tmp_path):
    base = tensors_of("BF16")
    places = written(tmp_path / "base", base), written(tmp_path / "model", tuned_from(base, "BF16"))
    out = tmp_path / "out"
    how = {"warehouse": made(tmp_path / "w.duckdb"), "exclude": [NASTY]}
    engine.edit(places[1], out, keep="outliers", base=places[0], **how)
    report = engine.verify(out, blocks=None)
    assert {f.where for f in report.findings} == {NASTY}  # NaN that were there before
    assert report.recomputed is not None
    assert report.recomputed.equal == report.recomputed.elements > ELEMENTS
    path = out / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    wrong = [f for f in engine.verify(out, blocks=None).findings if f.problem == "values"]
    assert len(wrong) == 1
    record = out / RECORD
    record.write_text(record.read_text().replace('"floor"', '"flaw"'))
    assert "does not say how it was edited" in engine.verify(out).note


# Interruptions


DRIVER = """
import json, os, signal, sys
import engine
from engine.tasks import tally
from engine.verbs import merge_output, scribe

how, out, warehouse, where, at = sys.argv[1:]
scribe.FLUSH_SECONDS = -1.0 if int(at) % 2 else 1e9
seen = 0

def after(function):
    def wrapped(*args, **kwargs):
        global seen
        result = function(*args, **kwargs)
        seen += 1
        if seen == int(at):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapped

if where == "note":
    tally.Tally.add = after(tally.Tally.add)
if where == "finish":
    merge_output._sync = after(merge_output._sync)
engine.edit(out=out, warehouse=warehouse, shard_bytes=4000, task_bytes=900, workers=2, **json.loads(how))
"""


@pytest.mark.parametrize(("with_base", "where", "at"), [(True, "note", 3), (False, "finish", 1)])
def test_killed_with_sigkill_it_ends_with_the_same_bytes(tmp_path, with_base, where, at):
    base = tensors_of("F32")
    places = written(tmp_path / "base", base), written(tmp_path / "model", tuned_from(base, "F32"))
    how: dict[str, Any] = {"model": str(places[1]), "keep": "outliers", "t": 2.0}
    how |= {"base": str(places[0])} if with_base else {}
    (tmp_path / "whole").mkdir()
    one, other = made(tmp_path / "v.duckdb"), made(tmp_path / "w.duckdb")
    engine.edit(out=tmp_path / "whole" / "out", warehouse=one, shard_bytes=4000, **how)
    ran = program(DRIVER, json.dumps(how), tmp_path / "out", other, where, at)
    assert killed(ran), ran.err
    assert not (tmp_path / "out" / RECORD).exists()
    again = {"shard_bytes": 4000, "task_bytes": 500, "workers": 3}
    report = engine.edit(out=tmp_path / "out", warehouse=other, **again, **how)
    assert data_of(tmp_path / "out") == data_of(tmp_path / "whole" / "out")  # how many were kept, too
    assert report.kept > 0
    assert {r[0] for r in rows(other, "SELECT status FROM subjects")} == {"complete"}
    assert_consistent(other)
    assert contents(other, 1) == contents(one, 1)


def test_notes_that_do_not_fit_on_the_disk_leave_nothing(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise TaskError("could not be written: No space left on device")

    place = written(tmp_path / "model", tensors_of("BF16"))
    monkeypatch.setattr(Tally, "add", full)
    with pytest.raises(TaskError, match="No space left"):
        engine.edit(place, tmp_path / "out", floor=1e-2, warehouse=tmp_path / "w.duckdb")
    assert not (tmp_path / "out").exists()


def test_what_runs_the_tasks_travels():
    body = pickle.loads(pickle.dumps(partial(EditBody, Edit("outliers"), Roles(None, (0,)))))
    assert isinstance(body(), EditBody)


# What is edited, and what is not


def test_tied_and_transposed_tensors(tmp_path):
    """One of two names for the same bytes is written; what lies in another order is written in its own."""
    values = np.arange(-12, 12, dtype="<f4")
    one = tensor((6, 4), (1, 6), 0, storage("0", 24))
    write(tmp_path / "m.pt", archive(pickled({"w": one, "same": one}), {"0": values.tobytes()}))
    report = engine.edit(tmp_path / "m.pt", tmp_path / "out", keep="outliers", t=1, warehouse=tmp_path / "w")
    found = weights(tmp_path / "out")
    assert (report.edited, list(found)) == (1, ["w"])
    matrix = values.reshape(4, 6).T
    inside = np.abs(matrix - matrix.mean()) <= matrix.std()
    np.testing.assert_array_equal(found["w"].data.view("<f4").reshape(6, 4), np.where(inside, 0, matrix))


def test_a_name_for_the_same_elements_in_another_order_has_bytes_of_its_own(tmp_path):
    values, of = np.arange(12, dtype="<f4"), storage("0", 12)
    several = {
        "a": tensor((3, 4), (4, 1), 0, of), "flat": tensor((12,), (1,), 0, of), "same": tensor((3, 4), (4, 1), 0, of),
        "turned": tensor((4, 3), (1, 4), 0, of),
    }  # fmt: skip
    file = tmp_path / "m.pt"
    write(file, archive(pickled(several), {"0": values.tobytes()}))
    whole = values.reshape(3, 4)
    wanted = {"a": whole, "flat": values, "turned": whole.T}
    engine.edit(file, tmp_path / "edited", keep="gaussian", t=9, warehouse=tmp_path / "w")
    models = [{"model": str(file), "parameters": {"weight": 1.0}}]
    engine.merge({"merge_method": "linear", "models": models}, tmp_path / "merged", warehouse=tmp_path / "w")
    for out in ("edited", "merged"):
        found = weights(tmp_path / out)
        assert set(found) == set(wanted)
        for name, expected in wanted.items():
            assert found[name].data.tobytes() == expected.tobytes(), name


def test_names_choose_tensors(tmp_path):
    model = tensors_of("BF16")
    place, how = written(tmp_path / "model", model), {"floor": 1e3, "warehouse": tmp_path / "w.duckdb"}
    report = engine.edit(
        place, tmp_path / "a", include=["*layernorm*", "*ids", "*q_proj*"], exclude=["*q_*"], **how
    )
    assert (report.edited, report.passed_over) == (1, (("model.position_ids", "integer"),))
    found = weights(tmp_path / "a")
    zeroed = {n for n, p in flat(model).items() if found[n].data.tobytes() != raw(p).tobytes()}
    assert zeroed == {"model.layers.0.input_layernorm.weight"}
    report = engine.edit(place, tmp_path / "b", exclude=["*mlp*"], **how)
    assert report.edited == len(MATRICES) - 1
    with pytest.raises(ConfigError, match=r"no tensor of 8 that can be edited matches '\*ids'"):
        engine.edit(place, tmp_path / "c", include=["*ids"], **how)


A = "layers.0.q_proj.weight"


@pytest.mark.parametrize(
    ("model", "base", "part"),
    [
        ({A: normal("BF16", 4, 4)}, {A: normal("BF16", 4, 5)}, "shapes differ: (4, 4) against (4, 5) in"),
        ({A: normal("F8_E5M2", 4, 4)}, {A: normal("BF16", 4, 4)}, "nothing is rounded to F8_E5M2"),
        ({A: normal("BF16", 4, 4)}, {A: ("I16", np.zeros((4, 4), "<i2"))}, "cannot be edited: integer; `--exclude`"),
        (
            {"l.weight": normal("F8_E4M3", 256, 128), "l.weight_scale_inv": normal("F32", 2, 1, mean=1)}, None,
            "quantised weights are not edited",
        ),
        ({"b": normal("BF16", 4)}, None, "no tensor of 1 that can be edited has two dimensions or more"),
    ],
)  # fmt: skip
def test_what_cannot_be_edited_is_one_sentence_and_leaves_nothing(tmp_path, model, base, part):
    common = {"other.0.weight": normal("BF16", 9, 9), "other.1.weight": normal("BF16", 9, 9)} if base else {}
    write_tensors(tmp_path / "m" / "model.safetensors", model | common)
    words = ["--base", write_tensors(tmp_path / "b" / "model.safetensors", base | common)] if base else []
    ran = gaussmeter(
        "edit", tmp_path / "m", tmp_path / "out", "--floor", 1, *words, "-w", tmp_path / "w.duckdb"
    )
    assert part in ran.sentence(2)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "w.duckdb").exists()


def test_what_the_base_lacks_is_copied_with_a_reason(tmp_path):
    base = {A: normal("BF16", 8, 8)}
    model = base | {LONELY: normal("BF16", 4, 4)}
    places = [write_tensors(tmp_path / n / "model.safetensors", t) for n, t in (("b", base), ("m", model))]
    report = engine.edit(
        places[1], tmp_path / "out", keep="outliers", base=places[0], warehouse=tmp_path / "w.duckdb"
    )
    assert report.passed_over == ((LONELY, f"{places[0]} has no such tensor"),)
    assert weights(tmp_path / "out")[LONELY].data.tobytes() == raw(model[LONELY][1]).tobytes()


def test_a_base_that_names_its_tensors_otherwise(tmp_path):
    base = {A: normal("BF16", 8, 8)}
    model = {f"model.{A}": normal("BF16", 8, 8, seed=1)}
    places = [write_tensors(tmp_path / n / "model.safetensors", t) for n, t in (("b", base), ("m", model))]
    how: dict[str, Any] = {
        "base": places[0],
        "warehouse": tmp_path / "w.duckdb",
        "keep": "outliers",
        "t": 1.0,
    }
    first = engine.edit(places[1], tmp_path / "a", **how)
    second = engine.edit(places[1], tmp_path / "b-known", **how)
    assert (first.kept, list(weights(tmp_path / "a"))) == (second.kept, [f"model.{A}"])
    one, other = (values_of("BF16", t[n][1]) for t, n in ((model, f"model.{A}"), (base, A)))
    assert first.kept == int(kept_of((one - other).astype("<f4").astype("f8"), "outliers", 1.0, None).sum())
    assert data_of(tmp_path / "a")["model.safetensors"] == data_of(tmp_path / "b-known")["model.safetensors"]
    assert rows(tmp_path / "w.duckdb", "SELECT count(*) FROM subjects WHERE kind = 'delta'") == [(1,)]


# The command


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--keep", "gaussian", "--floor", "1e-3"], "keeps gaussian, or what is at least a floor, not both"),
        ([], "needs what to keep"),
        (["--floor", "1e-3", "-t", "2"], "t goes with outliers or gaussian"),
        (["--floor", "-1"], "a floor is a number above 0"),
        (["--keep", "outliers", "-t", "-1"], "t is a number of sigmas, at least 0"),
        (["--floor", "1", "--shard-size", "much"], "--shard-size takes a size"),
        (["--floor", "1", "--memory", "1MB"], "over the limit"),
        (["--floor", "1", "--format", "csv"], "edit prints table or json"),
    ],
)
def test_wrong_words_are_one_sentence(tmp_path, words, part):
    place = write_tensors(tmp_path / "m" / "model.safetensors", {A: normal("BF16", 4, 4)})
    ran = gaussmeter("edit", place, tmp_path / "out", "-w", tmp_path / "w.duckdb", *words)
    assert part in ran.sentence(2)
    assert not (tmp_path / "out").exists()


def test_the_command_says_how_much_was_kept(tmp_path):
    place = written(tmp_path / "model", tensors_of("BF16"))
    words = ["edit", place, tmp_path / "out", "--keep", "outliers", "-t", 2, "-w", tmp_path / "w.duckdb"]
    ran = gaussmeter(*words)
    assert ran.code == 0, ran.err
    _, count = expected(tensors_of("BF16"), keep="outliers", t=2.0)
    assert "out: 5 tensors edited, 3 copied: outliers beyond 2 sigma kept\n" in ran.out
    assert (
        f"{count:,} elements kept ({count / ELEMENTS:.4%}), {ELEMENTS - count:,} zeroed, subject 2 in"
        in ran.out
    )
    again = gaussmeter(*words, "--format", "json")
    found = json.loads(again.out)
    assert (found["status"], found["kept"]) == ("unchanged", count)
    listed = gaussmeter("nearest", "out", "--kind", "checkpoint", "-w", tmp_path / "w.duckdb")
    assert listed.code == 0
    assert "model" in listed.out
