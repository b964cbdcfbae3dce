"""Which of the things in a torch checkpoint are the model's weights, and under which names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine.formats.torch.vocabulary import Tensor
from engine.nouns.records import TensorInfo

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
_MOST_ENTRIES = 1_000_000
_MOST_NAME_BYTES = 16 << 20
_CONTAINERS = (Mapping, list, tuple)


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

    def standing(self, info: TensorInfo) -> TensorInfo:
        """The tensor's entry, which says so if it is no weight."""
        if self.outside is None:
            return info
        return replace(info, reason=f"not a weight: it lies under {self.outside!r}", form="outside")


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
    """Every tensor below a value, under each of its names; what holds itself is not entered again.

    Raises:
        ValueError: it is nested too deeply, or has more names than any checkpoint.
    """
    holders = _holders(value)
    entered = named = 0
    waiting: list[tuple[Any, tuple[str, ...], tuple[int, ...]]] = [(value, path, ())]
    while waiting:
        value, path, above = waiting.pop()
        if isinstance(value, Tensor):
            name = ".".join(path) or "tensor"
            named += len(name)
            if named > _MOST_NAME_BYTES:
                raise ValueError(f"its names take more than {_MOST_NAME_BYTES:,} bytes")
            yield name, value
            continue
        if id(value) not in holders or id(value) in above:
            continue
        entered += 1 + len(value)
        if len(path) > _DEPTH or entered > _MOST_ENTRIES:
            limits = f"{_DEPTH} deep, or has more than {_MOST_ENTRIES:,} entries"
            raise ValueError(f"is nested more than {limits}")
        inside = (*above, id(value))
        waiting += reversed([
            (inner, (*path, str(key)), inside)
            for key, inner in _items(value)
            if isinstance(inner, Tensor) or id(inner) in holders
        ])  # fmt: skip


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, Mapping) else enumerate(value)


def _holders(value: Any) -> set[int]:
    """Identities of the containers that hold a tensor, near or far. Each is looked into once."""
    above: dict[int, list[int]] = {id(value): []}
    waiting = [value]
    reached: list[int] = []
    while waiting:
        outer = waiting.pop()
        if not isinstance(outer, _CONTAINERS):
            continue
        for _, inner in _items(outer):
            if isinstance(inner, Tensor):
                reached.append(id(outer))
            elif isinstance(inner, _CONTAINERS):
                if id(inner) not in above:
                    above[id(inner)] = []
                    waiting.append(inner)
                above[id(inner)].append(id(outer))
    holders: set[int] = set()
    while reached:
        found = reached.pop()
        if found not in holders:
            holders.add(found)
            reached += above[found]
    return holders


def _without_prefix(names: list[str]) -> list[str]:
    while names:
        prefix = next((p for p in _PREFIXES if all(n.startswith(p) and n != p for n in names)), None)
        if prefix is None:
            break
        names = [name.removeprefix(prefix) for name in names]
    return names


def _check_unique(found: list[Named]) -> None:
    seen = set()
    for named in found:
        if named.name in seen:
            raise ValueError(f"two tensors are called {named.name!r}")
        seen.add(named.name)
