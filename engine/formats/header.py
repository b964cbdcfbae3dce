"""What one file says of the tensors in it."""

from __future__ import annotations

from dataclasses import dataclass

from engine.nouns.records import SourceFile, TensorInfo


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself.

    Attributes:
        file: the file as it was when read.
        tensors: by offset; their `file` is 0.
        digest: hexadecimal SHA-256 of what was read to find them.
    """

    file: SourceFile
    tensors: tuple[TensorInfo, ...]
    digest: str
