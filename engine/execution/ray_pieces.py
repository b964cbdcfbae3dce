"""Values in pieces that Ray carries in its messages.

Larger ones go through the object store of a node. That may be full of what others hold, or its disk may be:
each value then waits for seconds, or fails. A message needs neither, and takes half the time.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

PIECE = 96 << 10
"""Ray carries objects of up to 100 KiB in messages."""
_MOST = 96  # and 10 MiB in one message
_LEAST = 4


def answers(nbytes: int) -> int:
    """In how many pieces comes what was found in so many bytes: enough, unless most values are rare."""
    return min(_MOST, _LEAST + (nbytes >> 20))


def cut(value: Any, pieces: int | None = None) -> list[bytes]:
    """Pickle a value and cut it up.

    Args:
        value: with functions that can be imported, or that `cloudpickle` can carry.
        pieces: how many; the last holds what the others do not. None for as many as it takes.
    """
    from ray import cloudpickle

    data: bytes = cloudpickle.dumps(value)  # type: ignore[no-untyped-call]
    last = (max(1, -(-len(data) // PIECE)) if pieces is None else pieces) - 1
    return [data[i * PIECE : (i + 1) * PIECE] for i in range(last)] + [data[last * PIECE :]]


def whole(pieces: Iterable[bytes]) -> Any:
    """Put a value together again."""
    return pickle.loads(b"".join(pieces))  # made by `cut`, in a process of ours
