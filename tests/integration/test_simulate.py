"""The paper's simulation: its eight classes, the same bits again, and numbers that make no sense."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.errors import ConfigError
from engine.nouns.simulation import LEVELS, SHAPES, Simulation
from engine.tasks.simulate import optimum
from tests.integration.helpers import assert_consistent, contents, gaussmeter, program, rows, subjects


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    path = tmp_path_factory.mktemp("simulation") / "stats.duckdb"
    ran = gaussmeter("simulate", "--points", 200_000, "-f", "json", "-w", path)
    assert (ran.code, ran.err) == (0, "")
    return path


def test_the_levels_have_the_shapes_that_the_paper_sees(warehouse):
    found = rows(warehouse, "SELECT name, shape_class FROM tensor_stats ORDER BY ordinal")
    assert found == [(f"noise-{level}", shape) for level, shape in zip(LEVELS, SHAPES, strict=True)]
    assert rows(warehouse, "SELECT name, kind FROM subjects") == [("simulation", "simulation")]
    assert_consistent(warehouse)


def test_another_seed_has_the_same_shapes_and_other_counts(tmp_path, warehouse):
    report = engine.simulate(seed=7, points=200_000, warehouse=tmp_path / "w.duckdb")
    assert tuple(level.shape_class for level in report.levels) == SHAPES
    there = contents(warehouse, 1)
    here = contents(tmp_path / "w.duckdb", 1)
    assert all(here[name].bins != there[name].bins for name in here)


def test_the_optimal_weights_are_as_the_appendix_says():
    plan = Simulation(points=1_000_000)
    values = optimum(plan)
    live = values[values != 0]
    outliers = live[live > 0.5]
    rest = live[live <= 0.5]
    assert len(outliers) == 1000
    assert 0.6 <= outliers.min() <= outliers.max() < 1
    assert 0.001 <= np.abs(rest).min() < np.abs(rest).max() <= 0.5
    assert len(rest) < 199_000  # what the truncation set to zero is missing
    assert len(rest) == pytest.approx(199_000 * 0.992, rel=1e-3)
    assert rest.std() == pytest.approx(0.1, rel=0.01)
    places = np.flatnonzero(values)
    assert places.mean() == pytest.approx(500_000, rel=0.01)
    assert np.array_equal(values, optimum(plan))


def test_a_level_does_not_depend_on_the_others(tmp_path, warehouse):
    engine.simulate(points=200_000, levels=[0.3, 0.01], warehouse=tmp_path / "w.duckdb")
    alone, among = contents(tmp_path / "w.duckdb", 1), contents(warehouse, 1)
    assert list(alone) == ["noise-0.3", "noise-0.01"]
    assert all(alone[name].bins == among[name].bins for name in alone)


def test_the_same_again_is_not_simulated_again(tmp_path):
    words = ["simulate", "--points", 5000, "-w", tmp_path / "w.duckdb"]
    assert gaussmeter(*words).out.startswith(
        "simulation: 8 levels of noise, 5,000 points each, subject 1 in "
    )
    before = contents(tmp_path / "w.duckdb", 1)
    assert gaussmeter(*words).out.startswith("simulation: unchanged since it was simulated, 8 levels")
    assert gaussmeter(*words, "--force", "-q").out == ""
    assert subjects(tmp_path / "w.duckdb") == [(2, "simulation", "complete")]
    assert contents(tmp_path / "w.duckdb", 2) == before
    other = gaussmeter(*words, "--seed", 1, "--name", "other", "--levels", "0.5", "-f", "json")
    assert json.loads(other.out)["levels"][0]["shape_class"] == "gaussian"
    assert subjects(tmp_path / "w.duckdb")[1:] == [(3, "other", "complete")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--points", 10], "between 1,000 and"),
        (["--points", 1 << 40], "between 1,000 and"),
        (["--sigma", 0], "sigma must be positive"),
        (["--sigma", "nan"], "sigma must be positive"),
        (["--levels", "0.1,much"], "--levels takes numbers"),
        (["--levels", ""], "--levels takes numbers"),
        (["--levels", "-0.1"], "is a standard deviation, not -0.1"),
        (["--levels", "inf"], "is a standard deviation"),
        (["--levels", "0.1,0.10"], "occurs twice"),
    ],
    ids=str,
)
def test_numbers_that_make_no_sense_are_one_sentence(tmp_path, words, sentence):
    assert sentence in gaussmeter("simulate", *words, cwd=tmp_path).sentence(2)
    assert list(tmp_path.iterdir()) == []


def test_a_negative_seed_is_refused():
    with pytest.raises(ConfigError, match="seed"):
        engine.simulate(seed=-1)


def test_any_number_of_points_makes_a_matrix():
    for points in (1000, 1009, 9999, 10_000_000):
        rows, columns = Simulation(points=points).shape
        assert rows * columns == points
        assert rows <= columns
    assert Simulation().shape == (3125, 3200)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells no peak of memory")
def test_ten_million_points_take_less_than_600_mb(tmp_path):
    text = (  # getrusage would tell the peak of the process that started this one, if that is higher
        "import engine, pathlib, re; r = engine.simulate(warehouse='w.duckdb');"
        "peak = re.search(r'VmHWM:\\s+(\\d+) kB', pathlib.Path('/proc/self/status').read_text())[1];"
        "print(*(x.shape_class for x in r.levels), peak)"
    )
    ran = program(text, cwd=tmp_path)
    *shapes, peak = ran.out.split()
    assert tuple(shapes) == SHAPES
    assert int(peak) < 600_000
