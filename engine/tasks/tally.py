"""How many elements of each stretch were kept, noted beside what is written, until all of it is there.

Every worker adds to a file of its own, once a task. A note is true whoever wrote it and however often,
because it follows from the inputs alone; so those of an interrupted run count, and stretches may overlap.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from engine.errors import TaskError

_STEM, _END = "kept-", ".partial"
Note = tuple[str, int, int, int]
"""Name of the tensor, first element, the one behind the last, and how many of them were kept."""


class Tally:
    """The notes of one worker."""

    def __init__(self) -> None:
        self._name = f"{_STEM}{secrets.token_hex(6)}{_END}"

    def add(self, folder: Path, notes: Sequence[Note]) -> None:
        """Add notes to the file.

        Args:
            folder: where it is.
            notes: what to add.

        Raises:
            TaskError: they cannot be written.
        """
        text = "".join(f"\n{json.dumps(note)}" for note in _joined(notes)) + "\n"  # after half a line, if any
        try:
            with (folder / self._name).open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            message = f"could not be written: {error.strerror}"
            raise TaskError(message, file=str(folder / self._name)) from error


def _joined(notes: Sequence[Note]) -> Iterator[Note]:
    """The same, with what follows each other put together."""
    last: Note | None = None
    for note in notes:
        if last is not None and note[:2] == (last[0], last[2]):
            last = (last[0], last[1], note[2], last[3] + note[3])
            continue
        if last is not None:
            yield last
        last = note
    if last is not None:
        yield last


def read_tallies(folder: Path, sizes: Mapping[str, int]) -> dict[str, int]:
    """Add up how many elements of whole tensors were kept.

    Args:
        folder: where the notes are.
        sizes: how many elements each tensor has.

    Raises:
        TaskError: notes are missing.
    """
    reached: dict[str, dict[int, int]] = {name: {0: 0} for name in sizes}
    for name, start, stop, kept in sorted(_notes(folder)):
        ends = reached.get(name, {})
        if start in ends:
            ends[stop] = ends[start] + kept
    for name, size in sizes.items():
        if size not in reached[name]:
            message = "lacks notes of how many elements were kept; remove the directory and begin anew"
            raise TaskError(message, file=str(folder), tensor=name)
    return {name: reached[name][size] for name, size in sizes.items()}


def _notes(folder: Path) -> Iterator[Note]:
    for path in sorted(folder.glob(f"{_STEM}*{_END}")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                name, start, stop, kept = json.loads(line)
            except ValueError:  # an empty line, or half of one: killed while it was written
                continue
            yield str(name), int(start), int(stop), int(kept)
