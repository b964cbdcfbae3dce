"""Linear layers with a learnt scalar or learnt singular values, made of those of a model in place.

A layer keeps its weights, its name and its hooks; only its class changes, so whatever adapts linear layers,
as PEFT does, finds one. `nn.Linear` stores out x in and computes x W^T; GPT-2's Conv1D stores in x out: x W.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from engine.kernels.draws import gaussian
from engine.nouns.adapters import noise_key
from engine.tuning.targets import targets

Layer = Any  # nn.Linear or Conv1D, which has no types


def chosen_layers(model: nn.Module, modules: Sequence[str]) -> dict[str, Layer]:
    """The linear layers that are adapted, by name.

    Args:
        model: a model of transformers.
        modules: keys of `engine.nouns.tuning.MODULES`.
    """
    there = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D))}
    wanted = targets([f"{name}.weight" for name in there], modules)
    return {name.removesuffix(".weight"): there[name.removesuffix(".weight")] for name in wanted}


def drawn(seed: int, name: str, like: Tensor) -> Tensor:
    """The noise N of a weight, of its shape, dtype and device.

    Args:
        seed: of the run.
        name: the layer's, without `.weight`.
        like: the weight.
    """
    out = np.empty(like.numel(), np.float32)
    gaussian(np.uint64(noise_key(seed, f"{name}.weight")), np.uint64(0), out)
    return torch.from_numpy(out.reshape(like.shape)).to(like.device, like.dtype)


def _apply(x: Tensor, weight: Tensor, transposed: bool, bias: Tensor | None = None) -> Tensor:
    out: Tensor = functional.linear(x, weight.t() if transposed else weight, bias)
    return out


def _back(grad: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    """The gradient of a layer's inputs, of that of its outputs."""
    weight = weight.to(grad.dtype)
    return torch.matmul(grad, weight.t() if transposed else weight)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(1,) float32, the inner product of all elements."""
    return torch.dot(a.float().flatten(), b.float().flatten()).reshape(1)


class _Scale(torch.autograd.Function):
    """(offset + s) x W^T + bias, of frozen W and bias.

    Autograd alone would keep the outputs for the gradient of s. That is also the inner product of the inputs
    with their gradient, and LoRA keeps the inputs already: a scalar takes no memory, and three passes
    over inputs or outputs.

    A number of 16 bits times 1 + s is rounded back to itself where |s| is below 2^-9 (bfloat16). So under
    autocast the multiplication is in float32: of inputs that are not rounded yet, else of outputs, which stay
    in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor, layer: Layer) -> Tensor:
        ctx.save_for_backward(x, factor)
        kind = x.device.type
        rounds = torch.is_autocast_enabled(kind)
        ctx.layer, ctx.dtype = layer, torch.get_autocast_dtype(kind) if rounds else x.dtype
        if x.dtype == factor.dtype if rounds else layer.scales_inputs:
            return _apply(x * factor, layer.weight, layer.is_transposed, layer.bias)
        y = _apply(x, layer.weight, layer.is_transposed)
        y = y * factor if rounds else y.mul_(factor)
        return y if layer.bias is None else y.add_(layer.bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, factor = ctx.saved_tensors
        inner = _back(grad.to(ctx.dtype), ctx.layer.weight, ctx.layer.is_transposed)
        own = _dot(inner, x) if ctx.needs_input_grad[1] else None
        inner = inner.mul_(factor) if inner.dtype == factor.dtype else inner * factor
        return inner.to(x.dtype), own, None


class _AddNoise(torch.autograd.Function):
    """x (W + s N)^T + bias, of frozen W, N and bias; the sum is not kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, s: Tensor, layer: Layer) -> Tensor:
        ctx.save_for_backward(x, s)
        ctx.layer = layer
        return _apply(x, torch.addcmul(layer.weight, layer.noise, s), layer.is_transposed, layer.bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, s = ctx.saved_tensors
        noisy = _back(grad, ctx.layer.noise, ctx.layer.is_transposed)
        own = _dot(noisy, x) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, own, None
        plain = _back(grad, ctx.layer.weight, ctx.layer.is_transposed)
        return torch.addcmul(plain, noisy, s.to(plain.dtype)).to(x.dtype), own, None


_SCALE: Any = _Scale.apply  # have no types
_ADD_NOISE: Any = _AddNoise.apply


class _Scaled:
    """W' = (offset + s) W: one multiplication for each input or each output, whichever are fewer."""

    def forward(self: Any, x: Tensor) -> Tensor:
        found: Tensor = _SCALE(x, self.noise_scale + self.noise_offset, self)
        return found


class ScaledLinear(_Scaled, nn.Linear):
    """A scaled `nn.Linear`."""


class ScaledConv1D(_Scaled, Conv1D):
    """A scaled Conv1D."""


class _Noisy:
    """W' = W + s N with N beside W."""

    def forward(self: Any, x: Tensor) -> Tensor:
        found: Tensor = _ADD_NOISE(x, self.noise_scale, self)
        return found


class NoisyLinear(_Noisy, nn.Linear):
    """An `nn.Linear` with noise."""


class NoisyConv1D(_Noisy, Conv1D):
    """A Conv1D with noise."""


class _Shifted:
    """W' = U diag(relu(sigma + shift)) V with learnt shifts (SVDiff, arXiv 2303.11305)."""

    def forward(self: Any, x: Tensor) -> Tensor:
        left, right = (self.left, self.right.t()) if self.is_transposed else (self.right.t(), self.left)
        sigma = functional.relu(self.sigma + self.shift)
        y = torch.matmul(x, left.to(x.dtype)) * sigma  # of 16 bits, it would not move with small shifts
        return functional.linear(y, right.to(y.dtype), None if self.bias is None else self.bias.to(y.dtype))


class ShiftedLinear(_Shifted, nn.Linear):
    """An `nn.Linear` with shifted singular values."""


class ShiftedConv1D(_Shifted, Conv1D):
    """A Conv1D with shifted singular values."""


def _become(layer: Layer, linear: type, conv: type) -> None:
    layer.is_transposed = isinstance(layer, Conv1D)
    layer.__class__ = conv if layer.is_transposed else linear
    layer.weight.requires_grad_(False)


def scale(layer: Layer, *, start: float = 0.0, offset: float = 1.0) -> None:
    """Give a layer a scalar s on its weights, (offset + s) W."""
    _become(layer, ScaledLinear, ScaledConv1D)
    rows, columns = layer.weight.shape
    inputs, outputs = (rows, columns) if layer.is_transposed else (columns, rows)
    layer.scales_inputs, layer.noise_offset = inputs < outputs, offset
    layer.noise_scale = nn.Parameter(torch.full((1,), start, device=layer.weight.device))


def add_noise(layer: Layer, noise: Tensor) -> None:
    """Give a layer noise N and a scalar s, W + s N."""
    _become(layer, NoisyLinear, NoisyConv1D)
    layer.register_buffer("noise", noise, persistent=False)
    layer.noise_scale = nn.Parameter(torch.zeros(1, device=layer.weight.device))


def replace_by_noise(layer: Layer, noise: Tensor) -> None:
    """Put noise in the place of a layer's weights, s N; s begins at the weights' sigma."""
    start = float(layer.weight.detach().double().std(correction=0))
    layer.weight.data.copy_(noise)
    scale(layer, start=start, offset=0.0)


def shift_singular_values(layer: Layer) -> None:
    """Give a layer a learnt shift for each of its singular values."""
    _become(layer, ShiftedLinear, ShiftedConv1D)
    left, sigma, right = torch.linalg.svd(layer.weight.detach().double(), full_matrices=False)
    for name, value in (("left", left), ("sigma", sigma), ("right", right)):
        layer.register_buffer(name, value.to(layer.weight.dtype).contiguous(), persistent=False)
    layer.shift = nn.Parameter(torch.zeros_like(layer.sigma))


def is_transposed(layer: Layer) -> bool:
    """Whether a layer stores in x out."""
    return isinstance(layer, Conv1D)


def scalars(model: nn.Module) -> Iterator[tuple[str, Layer]]:
    """Layers that have a scalar, by the name that they had before PEFT wrapped them."""
    for name, layer in model.named_modules():
        if isinstance(layer, (_Scaled, _Noisy)):
            yield name.removeprefix("base_model.model.").removesuffix(".base_layer"), layer
