"""The configuration of a merge: mergekit's YAML, read strictly.

What is there beyond it: the method `outlier`, `dtype: float64`, `seed` among the parameters. What is not:
`slices` and what goes with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from engine.config.merge_values import Value, read_value, unknown, value_for
from engine.config.parts import Part, Place
from engine.config.strict import examine, read_yaml, refusal
from engine.errors import ConfigError
from engine.nouns.merging import Parameter, Schema, Setting

_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_REFUSED = {
    "slices": "layers are not cut out and stacked; list whole models under 'models'",
    "modules": "modules are not merged one by one; list whole models under 'models'",
    "chat_template": "is not read; the base's is carried over",
}
_LAYERS = ("slices", "modules")
"""What stands in place of `models`."""

_MEMORY_ONLY = "int8_mask"
_FILTER_WISE = "filter_wise"  # of mergekit's model_stock; only false says what ours does
_CHANGING = "rescale"  # mergekit's trimming methods all have it; where ours has not, only false says the same


def _some(value: Any) -> Any:
    if isinstance(value, tuple) and not value:
        raise ValueError("names no model")
    return value


def _source(value: Any) -> Any:
    """The source that mergekit's `tokenizer` names; what else may stand there is not known here."""
    return value["source"] if isinstance(value, dict) and list(value) == ["source"] else value


class _Model(Part):
    """A model, and the parameters that are its own."""

    model: Place
    parameters: dict[str, Any] | None = None


class _File(Part):
    """A configuration as it is written."""

    merge_method: str
    models: Annotated[tuple[_Model, ...], BeforeValidator(_some)]
    base_model: Place | None = None
    parameters: dict[str, Any] | None = None
    dtype: Literal["float64", "float32", "float16", "bfloat16"] | None = None
    out_dtype: Literal["float32", "float16", "bfloat16"] | None = None
    tokenizer_source: Literal["union", "base"] | None = None
    tokenizer: Annotated[Literal["union", "base"] | None, BeforeValidator(_source)] = None


@dataclass(frozen=True, slots=True)
class MergeRecipe:
    """What is to be merged, and how.

    Attributes:
        schema: of the method.
        base: the base, None if there is none.
        models: the models that are merged; the base is among them only if the method knows no base.
        shared: parameters of all models, by name.
        own: for each model those of its own, which go before the shared ones.
        wide: whether to compute in float64 instead of float32.
        out_dtype: what is written, by safetensors' spelling; None for the dtype that each tensor of the base
            has, or of the first model where there is no base.
        tokenizer: `union` or `base`, None where vocabularies must be equal.
        notes: what the configuration says that changes nothing, a sentence each.
    """

    schema: Schema
    base: str | None
    models: tuple[str, ...]
    shared: Mapping[str, Value]
    own: tuple[Mapping[str, Value], ...]
    wide: bool
    out_dtype: str | None
    tokenizer: str | None
    notes: tuple[str, ...]

    def resolve(self, tensor: str, layer: int | None, layers: int) -> dict[str, Any]:
        """The parameters in force for a tensor, as the method's function takes them.

        A model's own value goes before the shared one, and that before the default; of conditions, the first
        whose filter is part of the tensor's name. In a gradient, the first number is for the first layer, the
        last for the last layer, and for the only one; what lies outside of the layers, before them or
        after, has the first, as with mergekit.

        Args:
            tensor: the tensor's name.
            layer: index of its layer, None outside of the layers.
            layers: how many layers there are.

        Raises:
            ConfigError: no value applies.
        """
        position = _position(layer, layers)
        found: dict[str, Any] = {}
        for parameter in self.schema.parameters:
            name = parameter.name
            if parameter.per_model:
                places = [(own.get(name), self.shared.get(name)) for own in self.own]
                values = [_resolve(parameter, tensor, position, *both) for both in places]
                found[parameter.keyword] = tuple(values)
            else:
                found[parameter.keyword] = _resolve(parameter, tensor, position, self.shared.get(name))
        return found


def _resolve(parameter: Parameter, tensor: str, position: float, *values: Value | None) -> Setting:
    for value in values:
        found = None if value is None else value_for(value, tensor, position)
        if found is not None:
            return found
    if parameter.default is None:
        raise ConfigError(f"no value of {parameter.name} applies", tensor=tensor)
    return parameter.default


def _position(layer: int | None, layers: int) -> float:
    if layer is None:
        return 0.0
    return min(layer / (layers - 1), 1.0) if layers > 1 else 1.0


def load_merge(path: str | Path, schemas: Mapping[str, Schema]) -> MergeRecipe:
    """Read the configuration of a merge.

    Args:
        path: the YAML file.
        schemas: of every method, by name.

    Raises:
        ConfigError: with every fault of it.
    """
    return parse_merge(read_yaml(path), schemas, path)


def parse_merge(data: Any, schemas: Mapping[str, Schema], path: str | Path) -> MergeRecipe:
    """Make a recipe of plain data; arguments and errors as for `load_merge`."""
    kept = {k: v for k, v in data.items() if k not in _REFUSED} if isinstance(data, dict) else data
    file, faults = examine(kept, _File, str(path))
    cut = [f"{key}: {_REFUSED[key]}" for key in data if key in _REFUSED]
    if any(key in data for key in _LAYERS):
        faults = [f for f in faults if f != "models: is missing"]
    faults = cut + faults
    method = kept.get("merge_method")
    schema = schemas.get(method) if isinstance(method, str) else None
    if schema is None:
        if isinstance(method, str):
            faults.append(f"merge_method: {unknown('method', method[:60], tuple(schemas))}")
        raise refusal(faults or ["merge_method: is missing"], str(path))
    reader = _Reader(schema, frozenset(p.name for s in schemas.values() for p in s.parameters), [], [])
    shared = reader.read(kept.get("parameters"), "parameters", per_model=False)
    own = reader.read_models(kept.get("models"), kept.get("base_model"), kept.get("parameters"))
    if file is not None:
        reader.check(file, len(own))
    if file is None or cut or reader.faults:
        raise refusal(faults + reader.faults, str(path))
    models = tuple(m.model for m in file.models if not (schema.base and m.model == file.base_model))
    return MergeRecipe(
        schema,
        file.base_model,
        models,
        shared,
        tuple(own),
        file.dtype == "float64",
        _DTYPES.get(file.out_dtype or (file.dtype if file.dtype != "float64" else None) or ""),
        file.tokenizer or file.tokenizer_source,
        tuple(reader.notes),
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads parameters by a schema, and collects what is wrong and what is worth a note."""

    schema: Schema
    others: frozenset[str]  # parameters of any method
    faults: list[str]
    notes: list[str]

    def read(self, raw: Any, where: str, *, per_model: bool) -> dict[str, Value]:
        """Read the parameters at a place."""
        values: dict[str, Value] = {}
        known = {p.name: p for p in self.schema.parameters}
        for name, given in raw.items() if isinstance(raw, dict) else ():
            at = f"{where}.{str(name)[:100]}"
            if not isinstance(name, str):
                continue  # said elsewhere
            parameter = known.get(name)
            if name == _MEMORY_ONLY and isinstance(given, bool):
                self.notes.append(f"{at}: changes nothing here; masks take no memory")
            elif name == _FILTER_WISE and isinstance(given, bool):
                self._filter_wise(given, at)
            elif parameter is None and self._is_ignored(name, given):
                self.notes.append(f"{at}: changes nothing; {self.schema.name} has no such parameter")
            elif parameter is None and name == _CHANGING:
                self.faults.append(f"{at}: {self.schema.name} does not rescale what it keeps; leave it out")
            elif parameter is None:
                self.faults.append(f"{at}: {unknown(f'parameter of {self.schema.name}', name, tuple(known))}")
            elif per_model and not parameter.per_model:
                self.faults.append(f"{at}: is the same for all models and belongs under 'parameters'")
            else:
                value, wrong = read_value(given, parameter, at)
                self.faults.extend(wrong)
                if value is not None:
                    values[name] = value
        return values

    def _filter_wise(self, given: bool, at: str) -> None:
        if self.schema.name != "model_stock":
            self.notes.append(f"{at}: changes nothing; {self.schema.name} has no such parameter")
        elif given:
            self.faults.append(f"{at}: model_stock looks at whole tensors, not at their rows; leave it out")
        else:
            self.notes.append(f"{at}: changes nothing; model_stock looks at whole tensors")

    def _is_ignored(self, name: str, given: Any) -> bool:
        """Whether it is another method's parameter, which mergekit reads over."""
        return name in self.others and (name != _CHANGING or given is False)

    def read_models(self, raw: Any, base: Any, shared: Any) -> list[dict[str, Value]]:
        """Read what every model but the base has of its own."""
        found = []
        for i, model in enumerate(raw if isinstance(raw, list) else ()):
            if not isinstance(model, dict):
                continue
            given, where = model.get("parameters"), f"models.{i}.parameters"
            values = self.read(given, where, per_model=True)
            if self.schema.base and base is not None and model.get("model") == base:
                if given:
                    self.notes.append(f"{where}: change nothing; the base has no task vector")
                continue
            self._require((given, shared), where)
            found.append(values)
        return found

    def _require(self, places: tuple[Any, ...], where: str) -> None:
        given = {name for place in places if isinstance(place, dict) for name in place}
        for p in self.schema.parameters:
            if p.per_model and p.default is None and p.name not in given:
                self.faults.append(f"{where}.{p.name}: is missing")

    def check(self, file: _File, models: int) -> None:
        """Check what concerns the whole."""
        schema = self.schema
        names = [model.model for model in file.models]
        if file.base_model is not None and not schema.base and file.base_model not in names:
            said = (
                "gives names, configuration and tokenizer; list it under 'models' if it is to be merged too"
            )
            self.notes.append(f"base_model: {said}")
        if file.tokenizer and file.tokenizer_source and file.tokenizer != file.tokenizer_source:
            self.faults.append("tokenizer: says something else than tokenizer_source; give one of them")
        if schema.base and file.base_model is None:
            self.faults.append(f"base_model: is missing; {schema.name} needs one")
        elif not schema.least <= models <= schema.most:
            only = "exactly" if schema.least == schema.most else "at least"
            beside = " beside the base" if schema.base else ""
            self.faults.append(f"models: {schema.name} merges {only} {schema.least}{beside}, found {models}")
        given = file.parameters or {}
        for p in schema.parameters:
            if not p.per_model and p.default is None and p.name not in given:
                self.faults.append(f"parameters.{p.name}: is missing")
