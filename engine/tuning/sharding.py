"""A model whose weights are spread over the workers (FSDP2), for models above one GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method


def share(model: Any, device: torch.device) -> Any:
    """Let the workers share the model's weights, layer by layer; no device ever holds the whole model.

    Args:
        model: in the memory of the processor; changed in place.
        device: of this worker.
    """
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in list(_layers(model)):
        fully_shard(layer, mesh=mesh)
    shared = fully_shard(model, mesh=mesh)
    if hasattr(shared, "generate"):  # PEFT's goes round the wrapper that asks for what no layer holds
        register_fsdp_forward_method(shared, "generate")
    return shared


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost lists: what all workers run in the same order, unlike experts within."""
    for child in module.children():
        if isinstance(child, nn.ModuleList) or not isinstance(module, nn.ModuleList):
            yield from _layers(child)
        else:
            yield child
