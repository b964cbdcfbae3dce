"""Which of the things in a torch checkpoint are the model's weights, and under which names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.formats.pickles import Tensor

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "model_state",
    "net",
    "network",
    "params",
    "weights",
)
"""Keys under which training programs keep the weights beside other things."""
_PREFIXES = ("module.", "_orig_mod.")
"""What wrappers of a module put before every name: DataParallel, torch.compile."""
_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Named:
    """A tensor with its name.

    Attributes:
        name: as in the model.
        tensor: the stand-in.
        outside: the key that it lies under, beside the weights: it is none of them.
    """

    name: str
    tensor: Tensor
    outside: str | None = None


def find_weights(saved: Any) -> list[Named]:
    """Name every tensor of a checkpoint.

    Args:
        saved: what was pickled.

    Returns:
        the weights, and the tensors beside them.

    Raises:
        ValueError: two tensors have one name, or it is nested without end.
    """
    if isinstance(saved, Tensor):
        return [Named("tensor", saved)]
    weights, outside = _unwrap(saved)
    named = [Named(name, tensor) for name, tensor in _walk(weights, ())]
    names = _without_prefix([n.name for n in named])
    found = [Named(name, n.tensor) for name, n in zip(names, named, strict=True)]
    for key, value in outside:
        found += [Named(name, tensor, key) for name, tensor in _walk(value, (key,))]
    _check_unique(found)
    return found


def _unwrap(saved: Any) -> tuple[Any, list[tuple[str, Any]]]:
    """Go down to the weights; what lies beside them on the way is returned too."""
    outside: list[tuple[str, Any]] = []
    for _ in range(_DEPTH):
        key = _wrapper(saved)
        if key is None:
            break
        outside += [(str(k), v) for k, v in saved.items() if k != key]
        saved = saved[key]
    return saved, outside


def _wrapper(saved: Any) -> str | None:
    if not isinstance(saved, Mapping):
        return None
    for key in WRAPPERS:
        inner = saved.get(key)
        if isinstance(inner, Mapping) and next(_walk(inner, ()), None) is not None:
            return key
    return None


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor below a value. Each container is entered once, however often it occurs."""
    entered: set[int] = set()
    waiting: list[tuple[Any, tuple[str, ...]]] = [(value, path)]
    while waiting:
        value, path = waiting.pop()
        if isinstance(value, Tensor):
            yield ".".join(path) or "tensor", value
            continue
        if not isinstance(value, (Mapping, list, tuple, set)) or id(value) in entered:
            continue
        if len(path) > _DEPTH:
            raise ValueError(f"is nested more than {_DEPTH} deep")
        entered.add(id(value))
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        waiting += reversed([(inner, (*path, str(key))) for key, inner in items])


def _without_prefix(names: list[str]) -> list[str]:
    for prefix in _PREFIXES:
        while names and all(name.startswith(prefix) and name != prefix for name in names):
            names = [name.removeprefix(prefix) for name in names]
    return names


def _check_unique(found: list[Named]) -> None:
    seen = set()
    for named in found:
        if named.name in seen:
            raise ValueError(f"two tensors are called {named.name!r}")
        seen.add(named.name)
