"""Frozen values that say how an adapter changes the weights of its base."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Product:
    """A block of rows of one dW, and what it is made of.

    Attributes:
        ordinal: of the tensor of differences.
    """

    ordinal: int
