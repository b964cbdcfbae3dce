"""What one worker counts with."""

from __future__ import annotations

from importlib.util import find_spec

from engine.device import choosing
from engine.device.counter import AnyCounter, make_counter
from engine.errors import first_line
from engine.nouns.dtypes import Dtype


class Device:
    """One worker's device, chosen in the worker's own process.

    Args:
        asked: one of `engine.device.choosing.DEVICES`.

    Attributes:
        name: of the device, `cpu` or torch's name of a GPU.
        is_direct: whether kvikio can bring files to it, past the host.

    Raises:
        ConfigError: a GPU was asked for, and there is none.
        DeviceError: a GPU was asked for, and the one that is there cannot be used.
    """

    def __init__(self, asked: str = "cpu") -> None:
        found = choosing.place(asked)
        self.name = found.name
        self._said: set[str] = set()
        self._notes: list[str] = []
        self.is_direct = bool(found.title) and self._has_kvikio()
        if found.flaw:
            self._note(f"the GPU cannot be used ({found.flaw}): counting on the CPU")
        if found.title:
            by = ", and reading local files by kvikio" if self.is_direct else ""
            self._note(f"counting on {found.title}{by}")

    def _has_kvikio(self) -> bool:
        """Whether kvikio is installed and loads; a broken one is told, and done without."""
        if find_spec("kvikio") is None:
            return False
        try:
            import kvikio  # noqa: F401
        except (ImportError, OSError, RuntimeError) as error:
            self._note(f"kvikio does not load ({first_line(error)}): local files go by way of the host")
            return False
        return True

    def _note(self, text: str) -> None:
        """Say something, once."""
        if text not in self._said:
            self._said.add(text)
            self._notes.append(text)

    def counter(self, dtype: Dtype) -> AnyCounter:
        """Make a counter: one of the CPU too where a GPU's memory does not suffice, and a note says so."""
        return make_counter(dtype, self.name, report=self._note)

    def take_notes(self) -> tuple[str, ...]:
        """What is to be told of the device, a sentence each, since the last time."""
        notes, self._notes[:] = tuple(self._notes), []
        return notes
