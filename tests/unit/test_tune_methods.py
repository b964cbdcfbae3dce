"""Methods: what they compute, what learns, and that what is saved is what was learnt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from engine.formats.adapters import open_adapter
from engine.nouns.adapters import noise_key
from engine.nouns.tuning import METHODS, RunSpec
from engine.tuning import layers
from engine.tuning.heads import head_modules
from engine.tuning.loop import Loop
from engine.tuning.models import load_model, load_tokenizer
from tests.adapters import assert_adapter, drawn
from tests.tuning import Alone, make_bert, make_data, make_gpt2, one_run, settings

QUERY = "bert.encoder.layer.0.attention.self.query"


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    make_bert(folder / "bert", dropout=0.0)
    make_gpt2(folder / "gpt2")
    make_data(folder / "data")
    return folder


def run_of(places: Path, method: str, model: str = "bert", task: str = "sst2", **more: object) -> RunSpec:
    given = settings(
        places / model, places / "data", places, methods=[{"method": method, **more}], tasks=[task]
    )
    return one_run(given)


def adapted(run: RunSpec) -> torch.nn.Module:
    from engine.tuning.methods import method_module

    model = load_model(run, load_tokenizer(run))
    return method_module(run.method.name).adapt(model, run.method, run.seed).eval()


def disturb(model: torch.nn.Module, seed: int = 0) -> None:
    """Learn something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def logits(model: torch.nn.Module) -> np.ndarray:
    ids = torch.arange(5, 21).reshape(2, 8)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.numpy()


def weights_of(places: Path, model: str) -> dict[str, np.ndarray]:
    return load_file(places / model / "model.safetensors")


@pytest.mark.parametrize("method", [m for m in METHODS if m != "full_gaussian"])
@pytest.mark.parametrize("model", ["bert", "gpt2"])
def test_before_anything_is_learnt_the_model_is_what_it_was(places, method, model):
    run = run_of(places, method, model)
    plain = load_model(run, load_tokenizer(run)).eval()
    np.testing.assert_allclose(logits(adapted(run)), logits(plain), atol=2e-6)


@pytest.mark.parametrize(
    ("method", "numbers"),
    [("head", 0), ("noise", 12), ("full_gaussian", 12), ("svdiff", 12 * 32), ("lora", 2 * 8 * (4 * 64 + 2 * 96)),
     ("dora", 2 * (8 * (4 * 64 + 2 * 96) + 5 * 32 + 64)), ("lora_noise", 2 * (8 * (4 * 64 + 2 * 96) + 6))],
)  # fmt: skip
def test_what_learns(places, method, numbers):
    loop = Loop(run_of(places, method), Alone())
    assert (loop.parameters - loop.head, loop.head) == (numbers, 66)


def test_full_learns_everything(places):
    loop = Loop(run_of(places, "full"), Alone())
    assert loop.parameters == sum(p.numel() for p in loop.bare.parameters())


def dw_by_saving(run: RunSpec, model: torch.nn.Module, places: Path, tmp_path: Path) -> dict[str, np.ndarray]:
    """What the engine makes of what was saved, checked against numpy to the last bit on the way."""
    from engine.tuning.methods import method_module

    method_module(run.method.name).save(model, run, tmp_path / "learnt")
    kind = json.loads((tmp_path / "learnt" / "adapter_config.json").read_text())["peft_type"]
    assert open_adapter(str(tmp_path / "learnt")).method == (run.method.name if kind != "LORA" else "lora")
    base = {"bert": "bert.", "gpt2": ""}[Path(run.model).name]
    tensors = {
        n: ("F32", v.view("<u4")) for n, v in load_file(tmp_path / "learnt/adapter_model.safetensors").items()
    }
    own = {base + n: ("F32", v.view("<u4")) for n, v in weights_of(places, Path(run.model).name).items()}
    path = Path(run.model) / "model.safetensors"
    return dict(assert_adapter(tmp_path / "learnt", tensors, (path, own)))


def effective(layer: torch.nn.Module) -> np.ndarray:
    """The matrix that a layer computes with, found out by asking it, as it stores it."""
    transposed = layers.is_transposed(getattr(layer, "base_layer", layer))
    weight = layer.weight
    inputs = weight.shape[0] if transposed else weight.shape[1]
    with torch.no_grad():
        found = (layer(torch.eye(inputs)) - layer(torch.zeros(1, inputs))).numpy()
    return found if transposed else found.T


CASES = [
    ("noise", {}), ("noise", {"noise": "weights"}), ("full_gaussian", {}), ("svdiff", {}), ("lora", {}),
    ("lora_noise", {}), ("lora_noise", {"noise": "gaussian"}),
]  # fmt: skip


@pytest.mark.parametrize("model", ["bert", "gpt2"])
@pytest.mark.parametrize(("method", "more"), CASES)
def test_what_is_saved_is_what_the_model_computes_with(places, tmp_path, method, more, model):
    run = run_of(places, method, model, **more)
    net = adapted(run)
    disturb(net)
    formed = dw_by_saving(run, net, places, tmp_path)
    bare = net.get_base_model() if hasattr(net, "get_base_model") else net
    assert len(formed) == (12 if model == "bert" else 8)
    own = weights_of(places, model)
    for name, dw in formed.items():
        layer = bare.get_submodule(
            ("transformer." + name.removeprefix("transformer.") if model == "gpt2" else name).removesuffix(
                ".weight"
            )
        )
        weight = next(v for n, v in own.items() if name.endswith(n))
        np.testing.assert_allclose(effective(layer), weight + dw, atol=5e-6)


def test_noise_is_that_of_the_kernel_to_the_bit(places):
    net = adapted(run_of(places, "noise"))
    layer = net.get_submodule(QUERY)
    expected = drawn(noise_key(0, f"{QUERY}.weight"), 32 * 32).reshape(32, 32)
    np.testing.assert_array_equal(layer.noise.numpy(), expected)
    other = adapted(replace(run_of(places, "noise"), seed=1)).get_submodule(QUERY)
    assert not torch.equal(other.noise, layer.noise)


def test_noise_in_place_of_weights_begins_with_their_sigma(places):
    net = adapted(run_of(places, "full_gaussian"))
    layer = net.get_submodule(QUERY)
    weight = weights_of(places, "bert")[f"{QUERY.removeprefix('bert.')}.weight"]
    assert layer.noise_scale.item() == pytest.approx(weight.std(), rel=1e-6)


def test_a_scalar_on_the_weights_keeps_no_second_copy(places):
    net = adapted(run_of(places, "noise", noise="weights"))
    plain = sum(
        p.numel()
        for p in load_model(run_of(places, "head"), load_tokenizer(run_of(places, "head"))).parameters()
    )
    stored = {t.data_ptr(): t.numel() for t in [*net.parameters(), *net.buffers()] if t.is_floating_point()}
    assert sum(stored.values()) == plain + 12


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # PEFT asks for it
def test_peft_loads_what_lora_saved(places, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    from engine.tuning.methods import method_module

    run = run_of(places, "lora")
    net = adapted(run)
    disturb(net)
    method_module("lora").save(net, run, tmp_path / "a")
    fresh = AutoModelForSequenceClassification.from_pretrained(run.model, num_labels=2)
    again = PeftModel.from_pretrained(fresh, tmp_path / "a").eval()
    np.testing.assert_allclose(logits(again), logits(net), atol=1e-6)
    settings_ = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (settings_["peft_type"], settings_["base_model_name_or_path"]) == ("LORA", run.model)


def test_a_tuned_checkpoint_is_whole(places, tmp_path):
    from engine.tuning.methods import method_module

    run = run_of(places, "full")
    net = adapted(run)
    disturb(net)
    method_module("full").save(net, run, tmp_path / "a")
    saved = load_file(tmp_path / "a" / "model.safetensors")
    assert set(saved) == set(net.state_dict())
    np.testing.assert_array_equal(saved[f"{QUERY}.weight"], net.get_submodule(QUERY).weight.detach().numpy())


def test_heads(places):
    run = run_of(places, "head")
    assert head_modules(load_model(run, load_tokenizer(run))) == ["classifier"]
    gpt2 = run_of(places, "lora", "gpt2")
    assert head_modules(load_model(gpt2, load_tokenizer(gpt2))) == ["score"]
    writer = run_of(places, "lora", "gpt2", "commonsense")
    assert head_modules(load_model(writer, load_tokenizer(writer))) == []


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("kind", ["weights", "gaussian"])
@pytest.mark.parametrize("sizes", [(6, 10), (10, 6)])
def test_gradients_are_those_of_the_formula(kind, conv, sizes):
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    inputs, outputs = sizes
    layer = Conv1D(outputs, inputs) if conv else torch.nn.Linear(inputs, outputs)
    layer.bias.data.normal_()
    noise = torch.randn_like(layer.weight)
    if kind == "weights":
        layers.scale(layer)
    else:
        layers.add_noise(layer, noise)
    layer.bias.requires_grad_(False)
    layer.noise_scale.data.fill_(0.3)
    x, grad = torch.randn(2, 5, inputs, requires_grad=True), torch.randn(2, 5, outputs)
    y = layer(x)
    y.backward(grad)
    s = torch.tensor([0.3], requires_grad=True)
    x2 = x.detach().clone().requires_grad_(True)
    weight = (1 + s) * layer.weight if kind == "weights" else layer.weight + s * noise
    expected = x2 @ (weight if conv else weight.t()) + layer.bias
    expected.backward(grad)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(x.grad, x2.grad)
    torch.testing.assert_close(layer.noise_scale.grad, s.grad)


def moved(layer: torch.nn.Module, x: torch.Tensor, change: Callable[[], None]) -> float:
    """By which part of themselves a layer's outputs move under autocast."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = layer(x).double()
        change()
        after = layer(x).double()
    return float(((after - before) * before).sum() / (before * before).sum())


@pytest.mark.parametrize("rounded", [False, True])  # inputs as a norm gives them, or as another layer does
@pytest.mark.parametrize("sizes", [(64, 96), (64, 64), (96, 64)])
def test_in_16_bits_a_small_scalar_is_not_rounded_away(sizes, rounded):
    torch.manual_seed(0)
    layer = torch.nn.Linear(*sizes)
    layer.bias.data.zero_()
    layer.weight.data = layer.weight.data.bfloat16().float()  # as many checkpoints have them
    layers.scale(layer)
    x = torch.randn(256, sizes[0])
    x = x.bfloat16() if rounded else x
    assert moved(layer, x, lambda: layer.noise_scale.data.fill_(1e-3)) == pytest.approx(1e-3, rel=0.1)


@pytest.mark.parametrize("rounded", [False, True])
def test_in_16_bits_a_small_shift_of_singular_values_is_not_rounded_away(rounded):
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 64, bias=False)
    layer.weight.data = 1.37 * torch.linalg.qr(torch.randn(64, 64)).Q
    layers.shift_singular_values(layer)
    x = torch.randn(256, 64)
    x = x.bfloat16() if rounded else x
    assert moved(layer, x, lambda: layer.shift.data.fill_(1.37e-3)) == pytest.approx(1e-3, rel=0.1)


@pytest.mark.parametrize("rounded", [False, True])
def test_gradients_of_scalars_in_16_bits_are_those_of_the_formula_nearly(rounded):
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 48)
    layers.scale(layer)
    layer.bias.requires_grad_(False)
    layer.noise_scale.data.fill_(0.3)
    x = torch.randn(32, 64)
    x = (x.bfloat16() if rounded else x).requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    grad = torch.randn(32, 48).to(y.dtype)
    y.backward(grad)
    own = (grad.double() * (x.detach().double() @ layer.weight.detach().double().t())).sum()
    inner = 1.3 * grad.double() @ layer.weight.detach().double()
    assert y.dtype == (torch.float32 if rounded else torch.bfloat16)
    assert float(layer.noise_scale.grad) == pytest.approx(float(own), rel=0.02)
    assert x.grad.dtype == x.dtype
    torch.testing.assert_close(x.grad.double(), inner, rtol=0.02, atol=0.02)
