"""The paper's models, its own numbers of them, and how it tuned; the knowledge is data, in `paper.toml`."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

PAPER_FILE: Final = Path(__file__).with_name("paper.toml")

BENCHMARKS: Final = ("mathvista", "mmstar", "mmmu", "wemath", "ai2d", "dynamath", "geoqa")
"""Those of Table 4, in its order."""

_SUFFIX = re.compile(r"\.(safetensors|pth|pt|bin|ckpt|zarr|zip|json)$")


@dataclass(frozen=True, slots=True)
class LayerKurtosis:
    """A line of Table 5.

    Attributes:
        part: tower or stage.
        layer: index in it.
        module: the model's own word.
        kurtosis_3s: within 3 sigma.
        kurtosis_3s_floor: the same without magnitudes below 1e-3.
    """

    part: str
    layer: int
    module: str
    kurtosis_3s: float
    kurtosis_3s_floor: float


@dataclass(frozen=True, slots=True)
class PaperModel:
    """A model of Table 8, with its column of Table 1.

    Attributes:
        name: the paper's word for it.
        repository: where it is published.
        names: what people call it elsewhere, in lower case.
        parameters: how many it has, as the paper says it.
        ratio_percent: elements within 3 sigma, mean over its matrices, in per cent.
        skewness: of these, likewise.
        kurtosis: likewise.
        kurtosis_std: its standard deviation over the matrices.
        figure: the figure that shows its weights.
        table5: its lines of Table 5.
    """

    name: str
    repository: str
    names: tuple[str, ...]
    parameters: str
    ratio_percent: float
    skewness: float
    kurtosis: float
    kurtosis_std: float
    figure: str
    table5: tuple[LayerKurtosis, ...] = ()


@cache
def paper_models() -> tuple[PaperModel, ...]:
    """The nine models, in the paper's order."""
    return tuple(_model(table) for table in _data()["model"])


@cache
def paper_adapters() -> dict[str, tuple[str, int]]:
    """Method and rank of the adapters that figures show, by figure."""
    return {
        figure: (table["method"], int(rank))
        for table in _data()["adapter"]
        for rank, figure in table["figures"].items()
    }


@cache
def paper_tasks() -> tuple[dict[str, Any], ...]:
    """The tasks of GLUE, in the order of Table 9: what it says of each, and its column of Table 10."""
    return tuple(_data()["glue_settings"] | table for table in _data()["glue"])


@cache
def paper_commonsense() -> tuple[dict[str, Any], ...]:
    """The columns of Table 11: a model, a rank, and with what it was tuned."""
    shared = dict(_data()["commonsense_settings"])
    alphas = shared.pop("alphas")
    return tuple(
        shared | {"model": table["model"], "r": int(r), "alpha": alphas[r], "learning_rate": rate}
        for table in _data()["commonsense"]
        for r, rate in table["learning_rates"].items()
    )


def recognise(name: str, uri: str) -> PaperModel | None:
    """Find out which of the paper's models a checkpoint is, from what it is called and where it lies.

    Args:
        name: the subject's name.
        uri: its place.
    """
    repository = uri.lower().removeprefix("hf://").partition("@")[0]
    words = {_last(name), _last(uri.partition("@")[0])}
    for model in paper_models():
        own = model.repository.lower()
        if own in (name.lower(), repository) or repository.startswith(f"{own}/") or words & set(model.names):
            return model
    return None


def _last(place: str) -> str:
    return _SUFFIX.sub("", place.lower().rstrip("/").rpartition("/")[2])


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(PAPER_FILE.read_text(encoding="utf-8"))


def _model(table: dict[str, Any]) -> PaperModel:
    plain = {key: value for key, value in table.items() if key not in ("names", "table5")}
    return PaperModel(**plain, names=tuple(table["names"]), table5=_table5(table.get("table5")))


def _table5(table: dict[str, Any] | None) -> tuple[LayerKurtosis, ...]:
    if table is None:
        return ()
    plain, floor = table["kurtosis_3s"], table["kurtosis_3s_floor"]
    return tuple(
        LayerKurtosis(table["part"], layer, module, *pair)
        for module in plain
        for layer, pair in enumerate(zip(plain[module], floor[module], strict=True))
    )
