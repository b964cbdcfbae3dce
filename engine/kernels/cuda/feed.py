"""Brings blocks from the host to a GPU, so that copies, kernels and whoever fills the next block overlap."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class Slot:
    """A block of pinned memory, its double on the device, and the stream that both belong to.

    Args:
        device: where the double lies; on the CPU it is the block itself.
        nbytes: size of the block.
    """

    def __init__(self, device: torch.device, nbytes: int) -> None:
        self._on_gpu = device.type == "cuda"
        self._host = torch.empty(nbytes, dtype=torch.uint8, pin_memory=self._on_gpu)
        self._device = torch.empty(nbytes, dtype=torch.uint8, device=device) if self._on_gpu else self._host
        cuda: Any = torch.cuda  # untyped in part
        self._stream = cuda.Stream(device) if self._on_gpu else None
        if self._stream is not None:
            self._device.record_stream(self._stream)  # freed with work under way, it is nobody's until then
        self._copied = cuda.Event() if self._on_gpu else None
        self.block: NDArray[np.uint8] = self._host.numpy()

    def _on_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def wait(self) -> None:
        """Wait until the block may be filled again."""
        if self._copied is not None:
            self._copied.synchronize()

    def send(self, nbytes: int, work: Callable[[torch.Tensor], None]) -> None:
        """Copy the first bytes to the device and begin work on them there; returns at once.

        Args:
            nbytes: how many.
            work: gets them, (nbytes,) uint8 on the device, on the slot's stream.
        """
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device.device))
        with self._on_stream():
            if self._copied is not None:
                self._device[:nbytes].copy_(self._host[:nbytes], non_blocking=True)
                self._copied.record()
            work(self._device[:nbytes])

    def memory(self, nbytes: int) -> torch.Tensor:
        """The first bytes of the double on the device, for whoever fills them; waits for the work on them."""
        if self._stream is not None:
            self._stream.synchronize()
        return self._device[:nbytes]

    def begin(self, nbytes: int, work: Callable[[torch.Tensor], None]) -> None:
        """Begin work on what is in the memory of the device; otherwise as `send`."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device.device))
        with self._on_stream():
            work(self._device[:nbytes])

    def join(self) -> None:
        """Let the current stream wait for the work."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device.device).wait_stream(self._stream)


class Feed:
    """Slots in turn.

    Args:
        device: where the blocks go.
        nbytes: size of a block.
        slots: how many; with three, one is filled, one travels and one is worked on.
    """

    def __init__(self, device: torch.device, nbytes: int, slots: int = 3) -> None:
        self.nbytes = nbytes
        self._slots = [Slot(device, nbytes) for _ in range(slots)]
        self._turn = 0

    def next(self) -> Slot:
        """The slot whose turn it is, free to be filled."""
        slot = self._slots[self._turn % len(self._slots)]
        self._turn += 1
        slot.wait()
        return slot

    def join(self) -> None:
        """Let the current stream wait for all work that was sent."""
        for slot in self._slots:
            slot.join()
