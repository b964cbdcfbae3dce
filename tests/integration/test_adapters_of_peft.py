"""Adapters that PEFT makes and saves, against what PEFT itself makes of them when it merges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import FormatError
from engine.formats.adapters import open_adapter
from tests.adapters import PREFIX, assert_counted, change, open_all, run
from tests.builders import Tensors

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")

OUT, INTO, WORDS = 24, 20, 37


def model(dtype: Any = None) -> Any:
    """A module of every kind that is adapted."""
    import torch
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)

    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte = torch.nn.Embedding(WORDS, INTO)
            self.q = torch.nn.Linear(INTO, OUT)
            self.c_attn = Conv1D(OUT, INTO)
            self.conv = torch.nn.Conv2d(4, 6, 3)
            self.pixel = torch.nn.Conv2d(4, 6, 1)
            self.line = torch.nn.Conv1d(4, 6, 3)
            self.score = torch.nn.Linear(OUT, 2)

        def forward(self, x: Any) -> Any:
            return self.score(self.q(self.wte(x)))

    tiny = Tiny()
    with torch.no_grad():
        tiny.c_attn.weight.normal_(0, 0.3)
    return tiny if dtype is None else tiny.to(dtype)


def saved(directory: Path, targets: list[str], dtype: Any = None, **settings: Any) -> dict[str, Any]:
    """Save base and adapter with random weights; returns the merged weights."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file

    tiny = model(dtype)
    save_file(tiny.state_dict(), directory / "base.safetensors")
    wrapped = get_peft_model(tiny, LoraConfig(**({"r": 4, "target_modules": targets} | settings)))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_magnitude" in name:
                parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 2))
            elif "lora_" in name or "modules_to_save" in name:
                parameter.normal_(0, 0.2)
    wrapped.save_pretrained(directory / "adapter")
    merged = wrapped.merge_and_unload().state_dict()
    return {name: value.float().numpy().copy() for name, value in merged.items()}


def stored(path: Path) -> Tensors:
    from safetensors.torch import load_file

    return {name: ("F32", value.float().numpy().view("<u4")) for name, value in load_file(path).items()}


KINDS = [
    (["q"], {}),
    (["q"], {"use_rslora": True, "lora_alpha": 3}),
    (["q", "score"], {"rank_pattern": {"score": 7}, "alpha_pattern": {"q": 5}}),
    (["c_attn"], {"fan_in_fan_out": True}),
    (["wte"], {}),
    (["conv", "pixel", "line"], {}),
    (["q"], {"use_dora": True}),
    (["q"], {"use_dora": True, "use_rslora": True}),
    (["c_attn"], {"use_dora": True, "fan_in_fan_out": True}),
    (["wte"], {"use_dora": True}),
    (["conv", "pixel", "line"], {"use_dora": True}),
    (["q"], {"modules_to_save": ["score"], "lora_bias": True}),
]


@pytest.mark.parametrize(("targets", "settings"), KINDS, ids=str)
def test_dw_is_what_merging_adds(targets, settings, tmp_path):
    merged = saved(tmp_path, targets, **settings)
    base, tensors = (
        stored(tmp_path / "base.safetensors"),
        stored(tmp_path / "adapter" / "adapter_model.safetensors"),
    )
    result = run([tmp_path / "adapter"], tmp_path / "base.safetensors", workers=2, task_bytes=500)
    (stock,), (parts,) = result.stocks, result.parts
    assert {m.name for m in stock.adapter.modules} == {f"{name}.weight" for name in targets}
    for module in stock.adapter.modules:
        whole = change(stock.adapter, module, tensors, base)
        assert_counted(parts[module.name], whole)
        weight = base[module.name][1].view("<f4")
        assert weight.shape == module.shape
        np.testing.assert_allclose(
            weight + whole.reshape(weight.shape), merged[module.name], rtol=2e-6, atol=1e-6
        )
        assert np.abs(whole).max() > 0.1
    for name in ("score.weight", "score.bias") if "modules_to_save" in settings else ():
        assert_counted(parts[name], merged[name] - base[name][1].view("<f4"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("use_dora", [False, True])
def test_adapters_of_small_floats(dtype, use_dora, tmp_path):
    import torch

    merged = saved(tmp_path, ["q"], getattr(torch, dtype), use_dora=use_dora)
    base, tensors = (
        stored(tmp_path / "base.safetensors"),
        stored(tmp_path / "adapter" / "adapter_model.safetensors"),
    )
    result = run([tmp_path / "adapter"], tmp_path / "base.safetensors")
    (module,) = result.stocks[0].adapter.modules
    whole = change(result.stocks[0].adapter, module, tensors, base)
    assert_counted(result.parts[0][module.name], whole)
    digits = 2.0**-7 if dtype == "bfloat16" else 2.0**-9
    weight = base[module.name][1].view("<f4")
    np.testing.assert_allclose(weight + whole, merged[module.name], rtol=digits, atol=2 * digits)


def test_a_grouped_convolution_is_listed(tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model

    grouped = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3, groups=2))
    get_peft_model(grouped, LoraConfig(r=4, target_modules=["0"])).save_pretrained(tmp_path)
    (stock,) = open_all([tmp_path])
    assert {t.reason for t in stock.inventory.tensors} == {"adapts a grouped convolution"}


def test_an_adapter_of_a_parameter_is_listed(tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model

    class Experts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = torch.nn.Parameter(torch.zeros(3, 8, 6))

        def forward(self, x: Any) -> Any:
            return x @ self.up

    holder = torch.nn.ModuleDict({"experts": Experts(), "q": torch.nn.Linear(8, 8)})
    settings = LoraConfig(r=2, target_modules=["q"], target_parameters=["experts.up"])
    get_peft_model(holder, settings).save_pretrained(tmp_path)
    adapter = open_adapter(str(tmp_path))
    assert [m.name for m in adapter.modules] == ["q.weight"]
    assert {o.reason for o in adapter.others} == {
        "adapts a parameter that is no module's weight (target_parameters)"
    }


def test_all_settings_that_peft_writes_are_known(tmp_path):
    """So that a new one is looked at when PEFT brings it."""
    from peft import LoraConfig

    from engine.formats.adapters import settings as module

    written = set(LoraConfig(r=4).to_dict())
    assert written <= module._HARMLESS | set(module._CHANGE_DW)


def test_other_methods_of_peft_are_refused(tmp_path):
    import torch
    from peft import LoHaConfig, get_peft_model

    other = torch.nn.Sequential(torch.nn.Linear(4, 8))
    get_peft_model(other, LoHaConfig(r=4, target_modules=["0"])).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LOHA"
    with pytest.raises(FormatError, match="peft_type 'LOHA' is not known; known are LORA, DORA"):
        open_adapter(str(tmp_path))


def test_names_begin_with_what_peft_puts_there(tmp_path):
    saved(tmp_path, ["q"])
    assert all(name.startswith(PREFIX) for name in stored(tmp_path / "adapter" / "adapter_model.safetensors"))
