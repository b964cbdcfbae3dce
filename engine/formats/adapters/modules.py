"""From the tensors of an adapted module to what they make of its weight, strictly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from engine.errors import FormatError
from engine.formats.adapters.keys import PARTS, Found
from engine.formats.adapters.own_settings import PARTS_OF, Own
from engine.formats.adapters.settings import Settings
from engine.nouns.adapters import Dash, Module, Noise, noise_key
from engine.nouns.records import TensorInfo

_PAIRS = (
    ("a", "b", "lora_A", "lora_B"),
    ("embedding_a", "embedding_b", "lora_embedding_A", "lora_embedding_B"),
)
NAMES = {part: name for name, part in PARTS.items()}
_DASH = {"dash_weights": "lora_index", "dash_left": "lora_w_u", "dash_right": "lora_w_vt"}


class Assembler:
    """Makes modules of an adapter's tensors.

    Args:
        settings: of the adapter.
        tensors: of its file.
        uri: of that file, for messages.
    """

    def __init__(self, settings: Settings, tensors: Sequence[TensorInfo], uri: str) -> None:
        self._settings, self._tensors, self._uri = settings, tensors, uri

    def module(self, found: Found) -> Module | str:
        """Put a module together.

        Returns:
            the module, or why no dW can be made of it.

        Raises:
            FormatError: a part is missing, is no float, or does not fit the others or the settings.
        """
        if found.unknown:
            return f"a part of its module is not known: {', '.join(sorted(found.unknown))}"
        path = found.name.replace(".base_layer", "")
        if any(
            p == path or f".{path}.".endswith(f".{p.rpartition('.')[0]}.") for p in self._settings.parameters
        ):
            return "adapts a parameter that is no module's weight (target_parameters)"
        for ordinal in found.tensors:
            self._require_floats(ordinal)
        if self._settings.own is not None:
            return self._own_module(found, self._settings.own)
        if (scale := found.parts.get("noise")) is not None:
            raise self._refuse(f"is no part of {self._settings.kind}", scale)
        ours = [pair for pair in _PAIRS if pair[0] in found.parts or pair[1] in found.parts]
        if len(ours) > 1:
            raise self._refuse("belongs to a module with factors of two kinds", found.tensors[0])
        if not ours:
            return self._magnitudes_alone(found)
        return self._with_factors(found, *ours[0])

    def _with_factors(self, found: Found, a: str, b: str, a_name: str, b_name: str) -> Module | str:
        for have, lack in ((a, b_name), (b, a_name)):
            if have in found.parts and (b if have == a else a) not in found.parts:
                raise self._refuse(f"has no {lack} beside it", found.parts[have])
        ordinal_a, ordinal_b = found.parts[a], found.parts[b]
        shape_a, shape_b = self._tensors[ordinal_a].shape, self._tensors[ordinal_b].shape
        if len(shape_b) != len(shape_a) or not 2 <= len(shape_a) <= 5 or prod(shape_b[2:]) != 1:
            raise self._refuse(f"of shape {shape_b} does not multiply {a_name} of shape {shape_a}", ordinal_b)
        rank = shape_b[1]
        if len(shape_a) > 2 and rank and shape_a[0] != rank and shape_a[0] % rank == 0:
            return "adapts a grouped convolution"
        if shape_a[0] != rank:
            raise self._refuse(
                f"has rank {rank} (shape {shape_b}), but {a_name} rank {shape_a[0]} (shape {shape_a})",
                ordinal_b,
            )
        expected = self._settings.rank_of(found.name)
        if rank != expected:
            raise self._refuse(f"has rank {rank}, but {self._settings.file} says {expected}", ordinal_b)
        embedding = a == "embedding_a"
        transposed = embedding or (len(shape_a) == 2 and self._settings.fan_in_fan_out)
        shape = (shape_b[0], *shape_a[1:])
        return Module(
            f"{found.name}.weight",
            shape[::-1] if transposed else shape,
            ordinal_a,
            ordinal_b,
            rank,
            self._settings.scale_of(found.name, rank),
            transposed,
            self._magnitude(found, shape_b[0]),
            self._dash(found, shape),
        )

    def _own_module(self, found: Found, own: Own) -> Module | str:
        """What a run of ours has learnt of a module."""
        expected = PARTS_OF[self._settings.kind]
        if lack := [part for part in expected if part not in found.parts]:
            raise self._refuse(f"has no {NAMES[lack[0]]} beside it", found.tensors[0])
        if more := [part for part in found.parts if part not in expected]:
            raise self._refuse(f"is no part of {self._settings.kind}", found.parts[more[0]])
        if self._settings.kind == "SVDIFF":
            _, left, right = (self._tensors[found.parts[part]].shape for part in _DASH)
            if len(left) != 2 or len(right) != 2:
                raise self._refuse("belongs to factors that are no matrices", found.tensors[0])
            matrix = left[0], right[1]
            return Module(f"{found.name}.weight", matrix, None, None, 0, 1.0, dash=self._dash(found, matrix))
        scale = found.parts["noise"]
        if prod(self._tensors[scale].shape) != 1:
            raise self._refuse(f"has shape {self._tensors[scale].shape}, expected one number", scale)
        name = f"{found.name}.weight"
        shape = own.shapes.get(name, ())
        if not shape:
            raise self._refuse(f"has no shape in {self._settings.file}", scale)
        noise = Noise(scale, own.noise, 0 if own.noise == "weights" else noise_key(own.seed, name))
        if "a" not in expected:
            return Module(name, shape, None, None, 0, 1.0, noise=noise)
        module = self._with_factors(found, *_PAIRS[0])
        assert isinstance(module, Module)
        if module.shape != shape:
            message = f"makes dW of shape {module.shape}, but {self._settings.file} says {shape}"
            raise self._refuse(message, found.parts["b"])
        return replace(module, noise=noise)

    def _magnitude(self, found: Found, outputs: int) -> int | None:
        ordinal = found.parts.get("magnitude")
        if ordinal is None:
            if self._settings.dora:
                self._refuse_lack_of_magnitudes(found)
            return None
        if not self._settings.dora:
            raise self._refuse(f"is DoRA's, but {self._settings.file} does not say use_dora", ordinal)
        shape = self._tensors[ordinal].shape
        if prod(shape) != outputs or max(shape, default=1) != outputs:
            raise self._refuse(f"has shape {shape}, but the module has {outputs:,} outputs", ordinal)
        return ordinal

    def _refuse_lack_of_magnitudes(self, found: Found) -> None:
        if self._settings.kind == "DORA":  # there, layers without magnitudes are plain LoRA
            return
        message = f"has no lora_magnitude_vector beside it, but {self._settings.file} says use_dora"
        raise self._refuse(message, found.tensors[0])

    def _magnitudes_alone(self, found: Found) -> Module | str:
        ordinal = found.parts.get("magnitude")
        if ordinal is None or self._settings.kind != "DORA":
            raise self._refuse("has no lora_A and no lora_B beside it", found.tensors[0])
        outputs = prod(self._tensors[ordinal].shape)
        transposed = self._settings.fan_in_fan_out
        name = f"{found.name}.weight"
        return Module(name, (outputs, 0), None, None, 0, 1.0, transposed, self._magnitude(found, outputs))

    def _dash(self, found: Found, shape: tuple[int, ...]) -> Dash | None:
        there = [part for part in _DASH if part in found.parts]
        if not there:
            if self._settings.dash and self._settings.own is None:
                message = f"has no lora_index beside it, but {self._settings.file} says lora_use_dash"
                raise self._refuse(message, found.tensors[0])
            return None
        if len(there) < len(_DASH):
            lack = next(name for part, name in _DASH.items() if part not in found.parts)
            raise self._refuse(f"has no {lack} beside it", found.parts[there[0]])
        if self._settings.dora or self._settings.dash is False:
            says = "use_dora" if self._settings.dora else "no lora_use_dash"
            raise self._refuse(
                f"is LoRA-Dash's, but {self._settings.file} says {says}", found.parts[there[0]]
            )
        weights, left, right = (found.parts[part] for part in _DASH)
        count = prod(self._tensors[weights].shape)
        if len(shape) != 2:
            raise self._refuse("is LoRA-Dash's, but the module is no matrix", left)
        for ordinal, expected in ((left, (shape[0], count)), (right, (count, shape[1]))):
            if self._tensors[ordinal].shape != expected:
                raise self._refuse(f"has shape {self._tensors[ordinal].shape}, expected {expected}", ordinal)
        return Dash(left, weights, right)

    def _require_floats(self, ordinal: int) -> None:
        tensor = self._tensors[ordinal]
        if tensor.kind.coding is None or tensor.form is not None or tensor.reason is not None:
            what = tensor.reason or tensor.kind.reason or f"{tensor.form} of scaled numbers"
            raise self._refuse(f"is {tensor.dtype}, expected floats: {what}", ordinal)

    def _refuse(self, message: str, ordinal: int) -> FormatError:
        return FormatError(message, file=self._uri, tensor=self._tensors[ordinal].name)
