"""Counts that grow on a device, and come to the host when they are asked for."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from engine.kernels.cuda import native

CODES = 65536
_NO_KEY = 0x7FFFFFFF
_SKIPPED_PAIRS = 512 + (CODES - 58112)
"""Of pairs of bytes, those whose second byte has a magnitude of 1 to 15 have no counter in shared memory."""


class Loops(Protocol):
    """What `native` and `portable` both offer."""

    def is_available(self, device: torch.device) -> bool: ...  # noqa: D102

    def room16(self, device: torch.device) -> torch.Tensor: ...  # noqa: D102

    def count16(  # noqa: D102
        self, codes: torch.Tensor, counts: torch.Tensor, room: torch.Tensor, skip: int = 0
    ) -> None: ...

    def form32(  # noqa: D102
        self,
        a: torch.Tensor,
        kind_a: str,
        b: torch.Tensor | None,
        kind_b: str | None,
        values: tuple[torch.Tensor | None, torch.Tensor | None],
        state: torch.Tensor,
    ) -> None: ...

    def product32(  # noqa: D102
        self,
        b: torch.Tensor,
        a: torch.Tensor,
        scale: float,
        state: torch.Tensor,
        out: torch.Tensor | None = None,
    ) -> None: ...


def loops_for(device: torch.device) -> Loops:
    """The fastest loops that run on a device.

    Raises:
        ValueError: none do.
    """
    if native.is_available(device):
        return native
    from engine.kernels.cuda import portable

    if portable.is_available(device):
        return portable
    raise ValueError(f"no GPU kernel runs on {device}")


def _keep(*memory: torch.Tensor) -> None:
    """Have what the current stream works in given to nobody else before it is done, even if a task fails."""
    for tensor in memory:
        if tensor.is_cuda:
            tensor.record_stream(torch.cuda.current_stream(tensor.device))


class CodeTally:
    """Counts of 8- or 16-bit patterns. Bytes are counted in pairs, half as many additions.

    Args:
        bits: 8 or 16.
        device: where the counts grow.
    """

    def __init__(self, bits: int, device: torch.device) -> None:
        self._bits, self._loops = bits, loops_for(device)
        self._state = torch.zeros(CODES + 256, dtype=torch.int64, device=device)
        self._room = self._loops.room16(device)
        cuda: Any = torch.cuda  # untyped in part
        self._last = cuda.Event() if device.type == "cuda" else None

    def add(self, data: torch.Tensor) -> None:
        """Count elements.

        Args:
            data: (bytes,) uint8 on the device, whole elements at an address of whole elements.
        """
        skip = 0
        if self._bits == 8:
            skip = _SKIPPED_PAIRS
            start = data.data_ptr() % 2
            stop = start + (data.numel() - start) // 2 * 2
            self._add_single(data[:start])
            self._add_single(data[max(stop, start) :])
            data = data[start:stop]
        _keep(self._state, self._room)
        stream = None if self._last is None else torch.cuda.current_stream(self._state.device)
        if self._last is not None:
            self._last.wait(stream)  # for who works in the same room, on another stream
        self._loops.count16(data, self._state, self._room, skip)
        if self._last is not None:
            self._last.record(stream)

    def _add_single(self, data: torch.Tensor) -> None:
        if data.numel():
            self._state[CODES:].scatter_add_(0, data.long(), torch.ones_like(data, dtype=torch.int64))

    def take(self) -> tuple[NDArray[np.uint64], int, float, float]:
        """Hand out what was counted, and start again from nothing.

        Returns:
            (1, 256) or (1, 65536) uint64 counts; three zeros, because the codes tell what `FloatTally` does.
        """
        counts = _to_host(self.counts())
        self._state.zero_()
        return counts[np.newaxis], 0, 0.0, 0.0

    def counts(self) -> torch.Tensor:
        """The counts so far, (256,) or (65536,) int64, on the device."""
        if self._bits == 16:
            return self._state[:CODES]
        pairs = self._state[:CODES].view(256, 256)
        return pairs.sum(0) + pairs.sum(1) + self._state[CODES:]


class FloatTally:
    """Counts, sums of low halves and of their squares of 32-bit floats, by the top halves.

    Args:
        device: where they grow.
    """

    def __init__(self, device: torch.device) -> None:
        self._loops = loops_for(device)
        start = torch.zeros(3 * CODES + 3, dtype=torch.int64)
        start[-2], start[-1] = _NO_KEY, ~_NO_KEY
        self._start = start.to(device)
        self._state = self._start.clone()

    def add(self, data: torch.Tensor) -> None:
        """Add up elements, (bytes,) uint8 of float32 on the device."""
        _keep(self._state)
        self._loops.form32(data, "f32", None, None, (None, None), self._state)

    def add_difference(self, a: torch.Tensor, kind_a: str, b: torch.Tensor, kind_b: str, values: Any) -> None:
        """Add up float32 differences a - b; see `native.form32`. Differences that are NaN are 0x7FC00000."""
        _keep(self._state)
        self._loops.form32(a, kind_a, b, kind_b, values, self._state)

    def add_product(
        self, b: torch.Tensor, a: torch.Tensor, scale: float, out: torch.Tensor | None = None
    ) -> None:
        """Add up the elements of scale * (b @ a); see `native.product32`."""
        _keep(self._state)
        self._loops.product32(b, a, scale, self._state, out)

    def take(self) -> tuple[NDArray[np.uint64], int, float, float]:
        """Hand out what was added, and start again from nothing.

        Returns:
            (3, 65536) uint64 counts, sums of low halves and of their squares; the zeros of either sign; the
            smallest and the largest finite element, inf and -inf when there is none.
        """
        state = _to_host(self._state)
        self._state.copy_(self._start)
        zeros, low, high = state[3 * CODES :].view(np.int64).tolist()
        return state[: 3 * CODES].reshape(3, CODES), zeros, _value(low, np.inf), _value(high, -np.inf)


def _value(key: int, none: float) -> float:
    """The float that a key stands for; see `key_of` in `tally32.cu`."""
    if key in (_NO_KEY, ~_NO_KEY):
        return none
    pattern = np.int32(key ^ 0x7FFFFFFF) if key < 0 else np.int32(key)
    return float(pattern.view(np.float32)) + 0.0


def _to_host(state: torch.Tensor) -> NDArray[np.uint64]:
    counts: NDArray[np.uint64] = state.cpu().numpy().view(np.uint64).copy()
    return counts
