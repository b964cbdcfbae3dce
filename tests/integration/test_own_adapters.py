"""What `tune` learns beyond LoRA: scalars on noise, shifted singular values and heads, measured by `delta --adapter`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.errors import ConfigError, FormatError
from engine.formats.adapters import open_adapter
from tests.adapters import PREFIX, assert_adapter, factors, tensor
from tests.builders import Tensors, patterns_of, write_tensors
from tests.integration.helpers import gaussmeter, made, rows

SHAPES = {"l.0.q": (48, 300), "l.1.up": (130, 32)}
COMMON = {"format": 1, "base_model_name_or_path": "some/base"}
NOISE = {"seed": 5, "shapes": {f"{m}.weight": list(s) for m, s in SHAPES.items()}}
LORA = {"r": 4, "lora_alpha": 8, "fan_in_fan_out": False}


def scalars() -> Tensors:
    return {
        f"{PREFIX}{m}.noise_scale": ("F32", patterns_of("F32", [0.01 * (i + 1)]))
        for i, m in enumerate(SHAPES)
    }


def write(folder: Path, tensors: Tensors, **settings: Any) -> Path:
    write_tensors(folder / "adapter_model.safetensors", tensors)
    (folder / "adapter_config.json").write_text(json.dumps(COMMON | settings))
    return folder


def base_model(folder: Path, **more: Any) -> tuple[Path, Tensors]:
    tensors: Tensors = {f"{m}.weight": tensor("BF16", *s, seed=i) for i, (m, s) in enumerate(SHAPES.items())}
    return write_tensors(folder / "base.safetensors", tensors | more), tensors


def noise(folder: Path, form: str = "gaussian", kind: str = "NOISE") -> tuple[Path, Tensors]:
    return write(folder, scalars(), peft_type=kind, noise=form, **NOISE), scalars()


def lora_noise(folder: Path, form: str) -> tuple[Path, Tensors]:
    tensors = scalars()
    for i, (module, (out, into)) in enumerate(SHAPES.items()):
        tensors |= factors(module, out, into, seed=i)
    return write(folder, tensors, peft_type="LORA_NOISE", noise=form, **NOISE, **LORA), tensors


def svdiff(folder: Path) -> tuple[Path, Tensors]:
    tensors: Tensors = {}
    for i, (module, (out, into)) in enumerate(SHAPES.items()):
        k = min(out, into)
        tensors |= {
            f"{PREFIX}{module}.svdiff_left": tensor("F32", out, k, seed=10 + i),
            f"{PREFIX}{module}.svdiff_shift": tensor("F32", k, seed=20 + i),
            f"{PREFIX}{module}.svdiff_right": tensor("F32", k, into, seed=30 + i),
        }
    return write(folder, tensors, peft_type="SVDIFF"), tensors


@pytest.mark.parametrize("how", [{}, {"workers": 2, "task_bytes": 4096}, {"exact": True}])
@pytest.mark.parametrize("form", ["gaussian", "weights", "replaced"])
def test_noise_is_formed_as_in_numpy(tmp_path, form, how):
    path, tensors = noise(tmp_path / "a", form, "FULL_GAUSSIAN" if form == "replaced" else "NOISE")
    formed = assert_adapter(path, tensors, base_model(tmp_path), **how)
    assert len(formed) == 2


def test_noise_needs_no_base(tmp_path):
    path, tensors = noise(tmp_path / "a")
    formed = assert_adapter(path, tensors)
    assert formed["l.0.q.weight"].std() == pytest.approx(0.01, rel=0.02)
    assert formed["l.1.up.weight"].std() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("form", ["gaussian", "weights"])
def test_lora_with_a_scalar_is_formed_as_in_numpy(tmp_path, form):
    path, tensors = lora_noise(tmp_path / "a", form)
    assert_adapter(path, tensors, base_model(tmp_path), task_bytes=20_000)


def test_shifts_of_singular_values_are_formed_as_in_numpy(tmp_path):
    path, tensors = svdiff(tmp_path / "a")
    assert_adapter(path, tensors)
    assert_adapter(path, tensors, base_model(tmp_path), workers=2, task_bytes=4096)


def test_each_is_a_subject_with_its_method(tmp_path):
    base, _ = base_model(tmp_path)
    warehouse = made(tmp_path / "w.duckdb")
    head: Tensors = {f"{PREFIX}classifier.weight": tensor("F32", 2, 32, seed=7)}
    paths = [
        noise(tmp_path / "noise")[0],
        noise(tmp_path / "full", "replaced", "FULL_GAUSSIAN")[0],
        lora_noise(tmp_path / "lora", "weights")[0],
        svdiff(tmp_path / "svdiff")[0],
        write(tmp_path / "head", head, peft_type="HEAD"),
    ]
    engine.delta(base, adapters=paths, warehouse=warehouse)
    found = rows(
        warehouse, "SELECT spec ->> 'method', (spec ->> 'r')::INTEGER FROM subjects ORDER BY subject_id"
    )
    assert found == [("noise", 0), ("full_gaussian", 0), ("lora_noise", 4), ("svdiff", 0), ("head", 0)]
    ((reason,),) = rows(warehouse, "SELECT reason FROM tensors WHERE name LIKE '%classifier%'")
    assert reason == "the base has no such tensor"
    again = engine.delta(base, adapters=paths, warehouse=warehouse)
    assert {s.status for s in again.subjects} == {"unchanged"}


def test_what_needs_the_base_says_so(tmp_path):
    path, _ = noise(tmp_path / "a", "weights")
    with pytest.raises(ConfigError, match="give --base; it was made for 'some/base'"):
        engine.delta(adapters=[path], warehouse=tmp_path / "w.duckdb")
    wrong = write_tensors(
        tmp_path / "wrong.safetensors", {f"{m}.weight": tensor("F32", 4, 4, seed=1) for m in SHAPES}
    )
    sentence = gaussmeter("delta", "--adapter", path, "--base", wrong, cwd=tmp_path).sentence(2)
    assert "dW has shape (48, 300), the base's tensor (4, 4)" in sentence


def changed(settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {k: v for k, v in (settings | more).items() if v is not None}


WRONG = {
    "no such setting": (changed(NOISE, sede=1), "setting 'sede' is not known"),
    "no seed": (changed(NOISE, seed=None), "must say seed"),
    "a seed that is none": (changed(NOISE, seed=True), "seed is True"),
    "a form that is none": (changed(NOISE, noise="white"), "expected gaussian or weights"),
    "another format": (changed(NOISE, format=2), "format is 2, known is 1"),
    "shapes that are none": (changed(NOISE, shapes={"l.0.q.weight": [48]}), "expected two sizes above 0"),
    "a shape that is not there": (changed(NOISE, shapes={}), "has no shape in"),
    "LoRA's settings": (changed(NOISE, r=4), "setting 'r' is not known in an adapter of NOISE"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_refused(tmp_path, case):
    settings, sentence = WRONG[case]
    path = write(tmp_path / "a", scalars(), **{"peft_type": "NOISE", "noise": "gaussian"} | settings)
    with pytest.raises(FormatError) as caught:
        open_adapter(str(path))
    assert sentence in str(caught.value)


def test_wrong_tensors_are_refused(tmp_path):
    extra = factors("l.0.q", 48, 300)
    path = write(tmp_path / "a", scalars() | extra, peft_type="NOISE", noise="gaussian", **NOISE)
    with pytest.raises(FormatError, match="is no part of NOISE"):
        open_adapter(str(path))
    two = scalars() | {f"{PREFIX}l.0.q.noise_scale": tensor("F32", 2, seed=1)}
    path = write(tmp_path / "b", two, peft_type="NOISE", noise="gaussian", **NOISE)
    with pytest.raises(FormatError, match="expected one number"):
        open_adapter(str(path))
    path = write(tmp_path / "c", extra, peft_type="LORA_NOISE", noise="gaussian", **NOISE, **LORA)
    with pytest.raises(FormatError, match="has no noise_scale beside it"):
        open_adapter(str(path))
    peft = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    path = write(tmp_path / "d", scalars() | extra)
    (path / "adapter_config.json").write_text(json.dumps(peft))
    with pytest.raises(FormatError, match="is no part of LORA"):
        open_adapter(str(path))


def test_sigma_of_a_wrapped_model_s_adapter_is_set_against_the_base_s(tmp_path):
    base = {
        f"encoder.layer.{i}.attention.self.query.weight": tensor("BF16", 16, 16, seed=i) for i in range(2)
    }
    write_tensors(tmp_path / "base.safetensors", base)
    engine.scan(tmp_path / "base.safetensors", warehouse=tmp_path / "w.duckdb")
    scales = {
        f"{PREFIX}bert.{n.removesuffix('.weight')}.noise_scale": ("F32", patterns_of("F32", [0.5]))
        for n in base
    }
    shapes = {f"bert.{name}": [16, 16] for name in base}
    write(tmp_path / "a", scales, peft_type="NOISE", noise="gaussian", seed=5, shapes=shapes)
    engine.delta(tmp_path / "base.safetensors", adapters=[tmp_path / "a"], warehouse=tmp_path / "w.duckdb")
    found = rows(tmp_path / "w.duckdb", "SELECT name, std, relative_std FROM delta_stats")
    sigmas = dict(
        rows(tmp_path / "w.duckdb", "SELECT 'bert.' || name, std FROM tensor_stats WHERE subject_id = 1")
    )
    assert sorted(name for name, _, _ in found) == sorted(shapes)
    for name, std, relative in found:
        assert relative == pytest.approx(std / sigmas[name], rel=1e-12)
