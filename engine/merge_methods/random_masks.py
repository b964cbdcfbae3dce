"""Which elements a random method keeps: a number for each element, by seed, tensor, model and index alone."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from engine.kernels.draws import uniform
from engine.nouns.merging import Stretch


def key_of(seed: int, model: int, tensor: str) -> int:
    """Key of a model's stream for a tensor, 64 bits.

    Args:
        seed: of the merge.
        model: the model's place among the models, from 0; the base is none of them.
        tensor: its name.
    """
    name = tensor.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(f"{seed} {model} ".encode() + name, digest_size=8).digest(), "little")


def draws(seed: int, model: int, stretch: Stretch, size: int) -> NDArray[np.float64]:
    """Draw a number for each element of a block.

    Args:
        seed: of the merge.
        model: the model's place among the models, from 0; the base is none of them.
        stretch: where the block lies.
        size: elements of the block.

    Returns:
        (size,) float64 in [0, 1).
    """
    out = np.empty(size)
    uniform(np.uint64(key_of(seed, model, stretch.tensor)), np.uint64(stretch.start), out)
    return out
