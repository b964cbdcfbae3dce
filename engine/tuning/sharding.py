"""A model whose weights are spread over the workers (FSDP2), for models above one GPU."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.distributed.fsdp import fully_shard


def share(model: Any) -> Any:
    """Let the workers share the model's weights, layer by layer.

    Args:
        model: on the worker's device; changed in place.
    """
    for module in list(model.modules()):
        if isinstance(module, nn.ModuleList):
            for layer in module:
                fully_shard(layer)
    return fully_shard(model)
