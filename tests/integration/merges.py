"""What the tests of merged checkpoints share: families of models, and what a merge of them must be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import deserialize

from engine.merge_methods.apply import Stored
from engine.nouns.dtypes import DTYPES
from engine.nouns.merging import Stretch
from tests.builders import Tensors, patterns_of, raw, unsigned, values_of, write_sharded
from tests.merging import PARAMETERS, arguments, merged, models_of, noisy

SHAPES = {
    "model.embed_tokens.weight": (50, 24),
    "model.layers.0.self_attn.q_proj.weight": (24, 24),
    "model.layers.0.mlp.up_proj.weight": (70, 24),
    "model.layers.0.input_layernorm.weight": (24,),
    "model.layers.1.mlp.up_proj.weight": (70, 24),
    "model.scale": (),
    "model.none": (0, 24),
}
NUMBERS = ("I64", np.arange(7))


@dataclass(frozen=True)
class Family:
    """A base and models that were tuned from it.

    Attributes:
        folders: the base's first.
        elements: of each tensor, what every checkpoint stores.
    """

    folders: tuple[Path, ...]
    elements: dict[str, list[Stored]]

    def config(self, method: str, **more: Any) -> dict[str, Any]:
        """A merge of them as a configuration says it."""
        base, *models = map(str, self.folders)
        own, shared = configured(method, models_of(method, 3))
        listed = [{"model": m, "parameters": p} for m, p in zip(models, own, strict=False)]
        config = {"merge_method": method, "models": listed, "parameters": shared, **more}
        return config if method == "linear" else config | {"base_model": base}

    def expected(self, method: str, name: str, out: str, *, wide: bool = False) -> NDArray[np.uint8]:
        """The bytes of a merged tensor, made of whole ones in memory."""
        inputs = self.elements[name][: 1 + models_of(method, 3)]
        shape = SHAPES[name]
        place = Stretch(name, 0, shape[-1] if shape else 1)
        return raw(
            merged(method, inputs, out, arguments(method, inputs, wide=wide), stretch=place, wide=wide)
        )


def family(folder: Path, dtypes: list[str], *, shards: int = 2) -> Family:
    """Write a family; the first dtype is the base's."""
    elements = {
        name: noisy(dtypes, int(np.prod(shape)), seed=i) for i, (name, shape) in enumerate(SHAPES.items())
    }
    folders = []
    for number, dtype in enumerate(dtypes):
        tensors: Tensors = {
            name: (dtype, elements[name][number].data.view(unsigned(dtype)).reshape(shape))
            for name, shape in SHAPES.items()
        }
        tensors["model.position_ids"] = NUMBERS
        names = list(tensors)
        parts = [{n: tensors[n] for n in names[i::shards]} for i in range(shards)]
        place = folder / ("base" if not number else f"model-{number}")
        write_sharded(place, *parts)
        folders.append(place)
    return Family(tuple(folders), elements)


def configured(method: str, models: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The parameters of `tests.merging`, as a configuration spells them: each model's, and the common ones."""
    own: list[dict[str, Any]] = [{} for _ in range(models)]
    shared: dict[str, Any] = {}
    for name, value in PARAMETERS[method].items():
        if isinstance(value, tuple):
            for one, each in zip(own, value, strict=False):
                one[name.rstrip("_")] = each
        else:
            shared[name.rstrip("_")] = value
    return own, shared


def weights(folder: Path) -> dict[str, Stored]:
    """All tensors of a folder, by the library that others read them with."""
    return {
        name: Stored(np.frombuffer(found["data"], np.uint8), DTYPES[found["dtype"]])
        for path in sorted(folder.glob("*.safetensors"))
        for name, found in deserialize(path.read_bytes())
    }


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Their shapes."""
    paths = sorted(folder.glob("*.safetensors"))
    return {n: tuple(f["shape"]) for p in paths for n, f in deserialize(p.read_bytes())}


def data_of(folder: Path) -> dict[str, bytes]:
    """All files of a folder by name."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def values(one: Stored) -> NDArray[np.float64]:
    """What is stored, in float64."""
    return values_of(one.dtype.name, one.data.view(unsigned(one.dtype.name)))


def assert_one_rounding(found: Stored, exact: NDArray[np.float64], inputs: list[NDArray[np.float64]]) -> None:
    """It is the nearest value of the dtype, but for what float32 loses of the inputs on the way."""
    nearest = values_of(found.dtype.name, patterns_of(found.dtype.name, exact))
    step = np.spacing(np.abs(nearest).astype({"F16": np.float16}.get(found.dtype.name, np.float32)))
    half = step.astype(np.float64) / 2 * (2**16 if found.dtype.name == "BF16" else 1)
    lost = 4 * 2.0**-24 * np.max([np.abs(i) for i in inputs], axis=0, initial=0)
    error = np.abs(values(found) - exact)
    assert (error <= half + lost).all(), float((error - half).max())


def rounded(dtype: str, exact: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Values as they are stored, each the nearest."""
    return raw(patterns_of(dtype, exact))
