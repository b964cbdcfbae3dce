"""Differences of bf16 that are counted as they are formed: by whole patterns, or by halves, as it comes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.near import Near
from engine.nouns.dtypes import DTYPES
from engine.sketch import _STRETCH, Counter
from tests.builders import raw


def bf16(values):
    """The upper halves of float32."""
    return (np.asarray(values, "<f4").view("<u4") >> 16).astype("<u2")


def floats(patterns):
    """Bf16 as float32."""
    return (patterns.astype("<u4") << 16).view("<f4")


def part(kind, size, seed):
    """Two pieces of tensors: hardly different, unrelated, the same, far from numbers, or tiny."""
    r = np.random.default_rng(seed)
    base = r.normal(0, 0.02, size)
    tuned = {
        "tuned": base + r.normal(0, 1e-4, size),
        "other": r.normal(0, 3.0, size),
        "same": base,
        "odd": np.resize([np.nan, np.inf, -np.inf, 1e38, -0.0, 1e-40, 3e38], size),
        "tiny": base * 1e-38,
        "shifted": np.full(size, 0.25),
    }[kind]
    return bf16(tuned), bf16(np.full(size, 0.125) if kind == "shifted" else base * (kind != "tiny"))


def check(parts, cut):
    tuned, base = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    with np.errstate(all="ignore"):
        patterns = (floats(tuned) - floats(base)).view("<u4")
    patterns = np.where(np.isnan(patterns.view("<f4")), np.uint32(0x7FC00000), patterns)
    found, expected = Counter(DTYPES["F32"]), Counter(DTYPES["F32"])
    found.near, expected.near = (Near(0x3C00, 0x3D00, np.empty(2 * tuned.size, np.uint32)) for _ in range(2))
    for start in range(0, tuned.size, cut):
        found.add_bf16_differences(tuned[start : start + cut], base[start : start + cut])
    expected.add(raw(patterns))
    near, wanted = found.near, expected.near
    assert near is not None
    assert wanted is not None
    np.testing.assert_array_equal(near._found[: near.kept], wanted._found[: wanted.kept])
    a, b = found.sketch(), expected.sketch()
    for name in ("codes", "n", "low_sum", "low_square_sum", "zeros", "minimum", "maximum"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert found.sketch().count == 0  # nothing is left over


KINDS = ["tuned", "other", "same", "odd", "tiny", "shifted"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 3 * _STRETCH)), min_size=1, max_size=8),
    st.integers(1, 4 * _STRETCH).map(lambda n: n * 8),
)
def test_differences_are_counted_as_if_they_had_been_formed_before(kinds, cut):
    check([part(kind, size, seed) for seed, (kind, size) in enumerate(kinds)], cut)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 4095, 4097, 40 * _STRETCH + 7])
@pytest.mark.parametrize("kind", KINDS)
def test_a_piece_of_any_size(kind, size):
    check([part(kind, size, 0), part("tuned", 9, 1)], 1 << 20)
