"""Edits: the interval, what it keeps of every dtype, the fused loops, and the notes of what was kept."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError, TaskError
from engine.merge_methods import editing
from engine.merge_methods.apply import Stored
from engine.merge_methods.editing import changes, edit, kept, narrowed
from engine.merge_methods.registry import METHODS
from engine.nouns.editing import Band, Edit
from engine.tasks.tally import Tally, read_tallies
from engine.verbs.edit import change_of
from tests.builders import COUNTED, every_code, nasty_patterns, patterns_of, unsigned, values_of
from tests.merging import noisy, stored

FLOATS = ["BF16", "F16", "F32", "F64"]
FLT_MAX = float(np.finfo(np.float32).max)


def new(like: Stored) -> Stored:
    return Stored(np.full(like.data.size, 0x5A, np.uint8), like.dtype)


def patterns(one: Stored) -> np.ndarray:
    return one.data.view(unsigned(one.dtype.name))


def everything(dtype: str) -> Stored:
    """All codes, nasty ones, and some around what the paper's limits are."""
    near = [s * x * (1 + k * 2.0**-24) for x in (1e-3, 0.06, 1.0) for s in (-1, 1) for k in range(-4, 5)]
    several = (every_code(dtype), nasty_patterns(dtype), patterns_of(dtype, near))
    return stored(dtype, np.concatenate(several))


def defined(model: Stored, base: Stored | None, band: Band) -> tuple[np.ndarray, int]:
    """The definition, by exact values; of a base the same dtype."""
    if base is None:
        values = (
            patterns(model).view("<f8")
            if model.dtype.name == "F64"
            else values_of(model.dtype.name, patterns(model))
        )
    else:
        values = changes(model, base)
    mask = kept(values, band)
    return np.where(mask, patterns(model), 0 if base is None else patterns(base)), int(mask.sum())


BANDS = [
    (-0.06, 0.06), (0.0, 0.0), (-0.0, 1e-3), (0.01, 0.06), (-1e-45, 1e-45), (-1e-50, 1e-50), (-1e300, 1e300),
    (-1.7976931348623157e308, 1.7976931348623157e308), (math.nan, math.nan), (1.0, -1.0), (-FLT_MAX, FLT_MAX),
    (0.06000000000000001, 65504.0), (-3.4e38, -1e-3),
]  # fmt: skip


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("dtype", COUNTED)
def test_what_is_written_is_the_definition_to_the_bit(dtype, inside):
    model = everything(dtype)
    for low, high in BANDS:
        band, out = Band(low, high, inside), new(model)
        expected, count = defined(model, None, band)
        assert edit(model, None, band, out) == count
        np.testing.assert_array_equal(patterns(out), expected, err_msg=str(band))


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("dtype", COUNTED)
def test_with_a_base_of_one_dtype_too(dtype, inside):
    model = everything(dtype)
    shuffled = np.random.default_rng(1).permutation(patterns(model))
    for base in (stored(dtype, shuffled), model, stored(dtype, np.zeros_like(shuffled))):
        for low, high in BANDS:
            band, out = Band(low, high, inside), new(model)
            expected, count = defined(model, base, band)
            assert edit(model, base, band, out) == count
            np.testing.assert_array_equal(patterns(out), expected, err_msg=str(band))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("other", [*FLOATS, "F8_E4M3"])
def test_a_base_of_another_dtype_is_rounded_once(dtype, other):
    (base,) = noisy([other], 3000)
    (model,) = noisy([dtype], 3000, seed=1)
    band, out = Band(-0.02, 0.03, inside=True), new(model)
    mask = kept(changes(model, base), band)
    assert edit(model, base, band, out) == mask.sum() > 100
    np.testing.assert_array_equal(patterns(out)[mask], patterns(model)[mask])
    exact = patterns(base).view("<f8") if other == "F64" else values_of(other, patterns(base))
    expected = patterns(base) if other == dtype else patterns_of(dtype, exact)
    np.testing.assert_array_equal(patterns(out)[~mask], expected[~mask])


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 4095, 4096, 4097, 10_000])
def test_any_size(size):
    for dtype in ("BF16", "F32"):
        model, base = noisy([dtype, dtype], size)
        band = Band(-0.01, 0.01, inside=False)
        for other in (None, base):
            out = new(model)
            expected, count = defined(model, other, band)
            assert edit(model, other, band, out) == count
            np.testing.assert_array_equal(patterns(out), expected)


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=100)
@given(FINITE, FINITE, st.floats(width=32))
def test_an_interval_of_float32_holds_what_that_of_float64_does(low, high, x):
    band = Band(low, high, inside=True)
    first, last = narrowed(band)
    infinity = np.float32(np.inf)
    with np.errstate(over="ignore"):
        near = [np.nextafter(np.float32(end), way) for end in (low, high) for way in (infinity, -infinity)]
        values = np.array([x, first, last, low, high, *near], np.float32)
    np.testing.assert_array_equal((values >= first) & (values <= last), kept(values, band))


def test_the_fused_loops_are_taken(monkeypatch):
    taken = []
    monkeypatch.setattr(editing, "_fused", lambda *given: taken.append(given) or 0)
    for dtype in ("BF16", "F16", "F32"):
        (model,) = noisy([dtype], 10)
        edit(model, None, Band(0, 1, inside=True), new(model))
        edit(model, noisy(["F32"], 10)[0], Band(0, 1, inside=True), new(model))
    assert len(taken) == 6


def test_blocks_that_do_not_fit_are_refused():
    model, other = noisy(["BF16"], 10)[0], noisy(["F16"], 10)[0]
    for base, out in (
        (None, new(other)),
        (noisy(["BF16"], 9)[0], new(model)),
        (None, new(noisy(["BF16"], 9)[0])),
    ):
        with pytest.raises(ValueError, match="become as many"):
            edit(model, base, Band(0, 1, inside=True), out)


# The interval


def test_the_interval_is_the_papers_and_closed():
    band = Edit("gaussian", 2.0).band(1.0, 0.25)
    assert band == Band(0.5, 1.5, inside=True)
    found = kept(np.array([0.5, np.nextafter(0.5, 0), 1.5, np.nextafter(1.5, 2), np.nan, -np.inf]), band)
    assert found.tolist() == [True, False, True, False, False, False]
    assert Edit("outliers", 2.0).band(1.0, 0.25) == Band(0.5, 1.5, inside=False)


@pytest.mark.parametrize("sigma", [math.nan, 1e308])
def test_nothing_that_is_not_finite_is_within_any_number_of_sigmas(sigma):
    """Not even where there is nothing finite, so that mean and sigma are NaN, nor where the ends are infinite."""
    mean = 0.0 if math.isfinite(sigma) else math.nan
    values = np.array([np.nan, np.inf, -np.inf])
    assert not kept(values, Edit("gaussian", 1e300).band(mean, sigma)).any()
    assert kept(values, Edit("outliers", 1e300).band(mean, sigma)).all()


@pytest.mark.parametrize("floor", [1e-3, 5e-324, float(np.float32(1e-3)), 1e308])
def test_a_floor_keeps_what_is_as_large(floor):
    band = Edit(None, 0.0, floor).band()
    values = np.array([floor, -floor, np.nextafter(floor, 0), -np.nextafter(floor, 0), 0.0, np.nan, np.inf])
    assert kept(values, band).tolist() == [True, True, False, False, False, True, True]


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ((None, None, None), "needs what to keep"),
        (("gaussian", None, 1e-3), "an edit keeps gaussian, or what is at least a floor, not both"),
        (("small", None, None), "keeps outliers or gaussian, not 'small'"),
        ((None, 2.0, 1e-3), "t goes with outliers or gaussian"),
        ((None, None, 0.0), "a floor is a number above 0, not 0"),
        ((None, None, math.nan), "a floor is a number above 0, not nan"),
        (("outliers", -1.0, None), "at least 0, not -1"),
        (("outliers", math.inf, None), "at least 0, not inf"),
        (("outliers", math.nan, None), "at least 0, not nan"),
    ],
)
def test_what_makes_no_sense_is_refused(given, part):
    with pytest.raises(ConfigError) as refused:
        change_of(*given)
    assert part in str(refused.value)


def test_edits_are_no_merge_methods():
    assert not {"edit", "editing", "outliers", "gaussian", "floor"} & METHODS.keys()


# Notes


def test_notes_add_up_whatever_the_stretches_are(tmp_path):
    first, second = Tally(), Tally()
    first.add(tmp_path, [("a", 0, 10, 3), ("a", 10, 20, 4), ("b", 0, 5, 5)])
    second.add(tmp_path, [("a", 5, 12, 100), ("a", 20, 30, 1)])  # the first begins nowhere that is reached
    second.add(tmp_path, [("a", 0, 10, 3)])  # once more
    (path,) = (p for p in tmp_path.iterdir() if "100" in p.read_text())
    path.write_text(path.read_text() + '["a", 0, 3')  # killed while it was written
    assert read_tallies(tmp_path, {"a": 30, "b": 5, "none": 0}) == {"a": 8, "b": 5, "none": 0}
    with pytest.raises(TaskError, match="lacks notes of how many"):
        read_tallies(tmp_path, {"a": 31})


def test_half_a_line_does_not_spoil_the_next(tmp_path):
    tally = Tally()
    tally.add(tmp_path, [("a", 0, 1, 1)])
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text() + '["a", 1')
    tally.add(tmp_path, [("a", 1, 2, 0)])
    assert read_tallies(tmp_path, {"a": 2}) == {"a": 1}
    assert "2" in path.read_text()


def test_notes_that_cannot_be_written_are_a_sentence(tmp_path):
    with pytest.raises(TaskError, match="could not be written: No such file or directory"):
        Tally().add(Path(tmp_path / "none"), [("a", 0, 1, 1)])
