"""What goes through Ray in pieces comes out whole."""

from __future__ import annotations

import numpy as np
import pytest

from engine.execution.ray_pieces import PIECE, answers, cut, whole


@pytest.mark.parametrize("size", [0, 1, PIECE, 3 * PIECE, 10 * PIECE + 7])
@pytest.mark.parametrize("pieces", [None, 1, 2, 4, 50])
def test_a_value_survives(size, pieces):
    value = np.random.default_rng(size).bytes(size)
    made = cut(value, pieces)
    assert whole(made) == value
    assert pieces is None or len(made) == pieces
    assert all(len(piece) <= PIECE for piece in made[:-1])
    if pieces is None or size < (pieces - 1) * PIECE:
        assert len(made[-1]) <= PIECE, "it would go through an object store"


def test_functions_that_cannot_be_imported_survive():
    assert whole(cut(lambda: 7))() == 7


def test_a_message_holds_an_answer():
    for nbytes in (0, 1, 8 << 20, 256 << 20, 1 << 40):
        assert 1 < answers(nbytes) * (PIECE + 256) < 10 << 20
    small, large = (answers(n) for n in (1 << 20, 64 << 20))
    assert small < large
