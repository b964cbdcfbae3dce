"""Pictures: every one in every form, from the counts, and what cannot be drawn."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import engine
from engine.pictures.curves import Reached, curves
from engine.pictures.depth import AtDepth, depth
from engine.pictures.gaps import Gap, gaps
from engine.pictures.heat import Cell, kurtosis_map
from engine.pictures.histograms import Block, Panel, Series, histograms
from engine.pictures.picture import Picture
from engine.plan import Selection
from engine.statistics.histogram import Histogram, between_values
from engine.verbs.drawing import PICTURES, How, draw
from engine.verbs.plot import look_up
from engine.warehouse.store import Warehouse
from tests.builders import write_tensors
from tests.integration.helpers import gaussmeter, llama, normal, program

PICKED = {
    "histograms": ["model"],
    "overlay": ["model", "wide"],
    "sigma": ["model", "wide", "learnt 1"],
    "kurtosis": ["model"],
    "ratio": ["wide"],
    "iid": ["wide"],
    "scores": ["learnt 1"],
    "simulation": ["simulation"],
    "learning": [],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plot")
    warehouse = folder / "stats.duckdb"
    write_tensors(folder / "model.safetensors", llama(3))
    wide = {n: normal("BF16", *a.shape, seed=k, std=0.05) for k, (n, (_, a)) in enumerate(llama(3).items())}
    write_tensors(folder / "wide.safetensors", wide)
    for name in ("model", "wide"):
        engine.scan(folder / f"{name}.safetensors", warehouse=warehouse, name=name, iid=name == "wide")
    for k in (1, 2, 3):
        write_tensors(folder / f"t{k}.safetensors", llama(1, seed=k, dtype="F32"))
        engine.delta(
            folder / "model.safetensors",
            folder / f"t{k}.safetensors",
            warehouse=warehouse,
            name=f"learnt {k}",
        )
    engine.simulate(points=5000, warehouse=warehouse)
    (folder / "scores.csv").write_text("subject,score\nlearnt 1,70\nlearnt 2,71\nlearnt 3,75\n")
    with Warehouse(warehouse).writing() as connection:
        connection.execute(
            "INSERT INTO runs BY NAME SELECT i + 1 AS run_id, 'run' AS name FROM range(2) t(i)"
        )
        connection.execute("INSERT INTO metrics SELECT 1 + i % 2, i, 'loss', 1 / (1 + i) FROM range(10) t(i)")
    return folder


def words_of(picture: str) -> list[str]:
    return [
        *PICKED[picture],
        "--picture",
        picture,
        *(["--scores", "scores.csv"] if picture == "scores" else []),
    ]


def rows_of(folder: Path, picture: str, *subjects: str, **how) -> dict[str, list[dict]]:
    """The data of a picture, by name."""
    with Warehouse(folder / "stats.duckdb").reading() as connection:
        found = [look_up(connection, s) for s in subjects]
        return draw(connection, picture, found, How(how.pop("selection", Selection()), **how)).spec[
            "datasets"
        ]


def test_every_picture_is_among_the_cases():
    assert set(PICKED) == set(PICTURES)


@pytest.mark.parametrize("picture", PICKED)
def test_every_picture_is_drawn(folder, picture):
    ran = gaussmeter("plot", *words_of(picture), "-o", f"{picture}.svg", cwd=folder)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{picture}.svg: ")
    root = ElementTree.fromstring((folder / f"{picture}.svg").read_text())
    words = " ".join(t for t in root.itertext() if t)
    for expected in (*PICKED[picture], {"histograms": "layer 2", "overlay": "mlp.up_proj", "sigma": "standard deviation σ",
                      "kurtosis": "layer", "ratio": "layer", "iid": "sigmas of columns", "scores": "gap in score", "simulation": "noise 0.03",
                      "learning": "step"}[picture]):  # fmt: skip
        assert expected in words or expected == "simulation", (expected, words)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 5


def test_a_png_has_the_size_that_is_asked_for(folder):
    picture, sizes = "sigma", []
    for scale in (1, 3):
        ran = gaussmeter(
            "plot", *words_of(picture), "-o", "x.png", "--scale", scale, "-f", "json", cwd=folder
        )
        told = json.loads(ran.out)
        data = (folder / "x.png").read_bytes()
        assert (told["path"], told["picture"], told["nbytes"]) == ("x.png", picture, len(data))
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        sizes.append(struct.unpack(">II", data[16:24]))
    assert sizes[1][0] == pytest.approx(3 * sizes[0][0], abs=4)
    assert sizes[0][0] > 300


def test_what_is_drawn_by_default_depends_on_how_many_subjects_there_are(folder, tmp_path):
    for subjects, name in (
        (["model"], "model-histograms.png"),
        (["simulation"], "simulation-simulation.png"),
        (["model", "wide"], "model-wide-overlay.png"),
        (["1", "wide", "learnt 1"], "model-wide-learnt-1-sigma.png"),
    ):
        ran = gaussmeter("plot", *subjects, "-w", folder / "stats.duckdb", "-q", cwd=tmp_path)
        assert (ran.code, ran.out, ran.err) == (0, "", "")
        assert (tmp_path / name).stat().st_size > 5000


@pytest.mark.parametrize("log", [False, True])
def test_histograms_are_the_counts(folder, log):
    name = "model.layers.1.mlp.up_proj.weight"
    data = rows_of(folder, "histograms", "model", selection=Selection((name,)), bins=9, log=log)
    (frame,) = data["frames"]
    values = (llama(3)[name][1].astype(np.uint32) << 16).view(np.float32).ravel().astype(np.float64)
    reach, (low, high) = (10.0, (-7, 2.5)) if log else (4.5, (0, 1.05))
    edges = between_values(values.mean() + values.std() * np.linspace(-reach, reach, 10), "bf16")
    density = np.histogram(values, edges)[0] / len(values) / np.diff(edges) * values.std()
    peak = 1 / np.sqrt(2 * np.pi)
    top = max(density.max(), peak)
    heights = np.log10(np.maximum(density, 1e-7)) if log else density / top
    y = frame["y2"] - (frame["y2"] - frame["y"]) * (heights - low) / (high - low)
    assert [r["y"] for r in data["bins"]][:-1] == pytest.approx(y.tolist(), abs=0.06)
    x = (edges - values.mean()) / values.std() / (2 * reach) + 0.5
    x = frame["x"] + (frame["x2"] - frame["x"]) * np.clip(x, 0, 1)
    assert [r["x"] for r in data["bins"]] == pytest.approx(x.tolist(), abs=0.06)
    middle = min(data["fits"], key=lambda r: abs(r["x"] - (frame["x"] + frame["x2"]) / 2))
    off = (middle["x"] - (frame["x"] + frame["x2"]) / 2) / (frame["x2"] - frame["x"]) * 2 * reach
    normal = peak * np.exp(-off * off / 2)
    height = np.log10(normal) if log else normal / top
    expected = frame["y2"] - (frame["y2"] - frame["y"]) * (height - low) / (high - low)
    assert middle["y"] == pytest.approx(expected, abs=0.5)


def test_experts_of_one_layer_share_a_panel(tmp_path):
    tensors = {
        f"model.layers.0.mlp.experts.{k}.up_proj.weight": normal("BF16", 8, 8, seed=k) for k in range(40)
    }
    tensors["model.layers.0.mlp.down_proj.weight"] = normal("BF16", 8, 8)
    write_tensors(tmp_path / "m.safetensors", tensors)
    engine.scan(tmp_path / "m.safetensors", warehouse=tmp_path / "stats.duckdb")
    data = rows_of(tmp_path, "histograms", "m")
    assert [r["text"] for r in data["heads"]] == ["mlp.experts.*.up_proj", "mlp.down_proj"]
    assert [r["text"].endswith("(40)") for r in data["notes"]] == [True, False]


def test_long_names_that_end_and_begin_alike_keep_panels_of_their_own(tmp_path):
    names = [f"{'a' * 100}{k}{'b' * 100}" for k in range(3)]
    write_tensors(tmp_path / "m.safetensors", {n: normal("BF16", 8, 8, seed=k) for k, n in enumerate(names)})
    engine.scan(tmp_path / "m.safetensors", warehouse=tmp_path / "stats.duckdb")
    data = rows_of(tmp_path, "histograms", "m")
    assert len({(r["x"], r["y"]) for r in data["frames"]}) == 3
    assert len({r["k"] for r in data["bins"]}) == 3


LONG = [f"{'a' * 60}{k}{'b' * 60}" for k in range(2)]


def pictures_of(one: str, other: str) -> dict[str, Picture]:
    """A picture of each kind of two things with these names."""
    names = (one, other)
    edges = np.linspace(-1, 1, 5)
    series = tuple(Series(name, Histogram(edges, np.ones(4), 4)) for name in names)
    return {
        "run": curves("", [Reached(name, "loss", step, 1.0) for name in names for step in (1, 2)]),
        "metric": curves("", [Reached("run", name, step, 1.0) for name in names for step in (1, 2)]),
        "panel": depth("sigma", "", [AtDepth(name, "", "query", k, 1.0) for name in names for k in (0, 1)]),
        "role": depth("sigma", "", [AtDepth("model", "", name, k, 1.0) for name in names for k in (0, 1)]),
        "method": gaps("", [Gap("base", name, name, "", 1.0, 1.0, None) for name in names]),
        "from": gaps("", [Gap(name, "subject", "", "", 1.0, 1.0, 0.5) for name in names]),
        "map": kurtosis_map("", [Cell(name, "", "query", k, 3.0) for name in names for k in (0, 1)]),
        "of": histograms(
            "overlay", "", [Block("", True, (Panel("", "x", 0.0, 1.0, series, ""),))], overlay=True
        ),
    }


@pytest.mark.parametrize("names", [("one", "other"), LONG])
def test_names_keep_lines_panels_and_colours_of_their_own(names):
    drawn = pictures_of(*names)
    words = {key: picture.spec["datasets"] for key, picture in drawn.items()}
    for key in ("run", "metric", "panel", "role", "method"):
        assert len({row[key] for row in words[key]["points"]}) == 2, key
    assert len({row["panel"] for row in words["from"]["points"]}) == 2
    assert len(words["map"]) == 2
    assert len({row["of"] for data in ("bins", "over") for row in words["of"][data]}) == 2


def test_subjects_of_one_name_are_told_apart_by_their_numbers(tmp_path):
    for k in (1, 2):
        write_tensors(tmp_path / f"{k}.safetensors", llama(2, seed=k))
        engine.scan(tmp_path / f"{k}.safetensors", warehouse=tmp_path / "stats.duckdb", name="m", iid=True)
    points = rows_of(tmp_path, "sigma", "1", "2")["points"]
    assert len(points) == len({(r["panel"], r["role"], r["layer"]) for r in points}) == 16
    assert {r["panel"] for r in points} == {"m (1)", "m (2)"}
    assert len(rows_of(tmp_path, "kurtosis", "1", "2")) == 2
    assert len(rows_of(tmp_path, "iid", "1", "2")) == 4


def test_what_has_no_spread_is_an_empty_panel(tmp_path):
    tensors = {f"layers.{k}.q_proj.weight": ("F32", np.full((4, 4), k, "<f4")) for k in range(3)}
    write_tensors(tmp_path / "m.safetensors", tensors)
    engine.scan(tmp_path / "m.safetensors", warehouse=tmp_path / "stats.duckdb")
    ran = gaussmeter("plot", "m", "-o", "x.svg", cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert (tmp_path / "x.svg").read_text().count("no spread") == 3


BAD = {
    "plot": "which subject?",
    "plot nothing": "no subject goes by 'nothing'",
    "plot model -o x.gif": "ends in .png, .svg, .html",
    "plot model -o x": "ends in .png, .svg, .html",
    "plot model --bins 0": "1 to 1,000 bins",
    "plot model --scale nan": "between 0.1 and 10",
    "plot model wide -p kurtosis -f csv": "not csv",
    "plot model -p overlay": "is of two subjects, not of 1",
    "plot model wide -p histograms": "is of one subject, not of 2",
    "plot model -p simulation": "'model' is a checkpoint, not a simulation",
    "plot simulation -p sigma": "there is nothing to draw",
    "plot model -p scores": "there is nothing to draw",
    "plot model -p learning": "has no metrics of such runs",
    "plot model --include nothing*": "there is nothing to draw",
    "plot model simulation -p overlay": "no matrix of 'model'",
    "plot model --scores scores.csv": "has nothing to do with scores",
    "plot model -w nothing.duckdb": "there is no such warehouse",
}


@pytest.mark.parametrize("command", BAD)
def test_what_cannot_be_drawn_is_one_sentence(folder, command):
    before = sorted(folder.iterdir())
    assert BAD[command] in gaussmeter(*command.split(), cwd=folder).sentence(2)
    assert sorted(folder.iterdir()) == before


def test_a_picture_that_cannot_be_written_is_one_sentence(folder):
    assert "cannot be written" in gaussmeter("plot", "model", "-o", "no/such/x.png", cwd=folder).sentence(3)


def test_without_the_libraries_a_sentence_says_what_to_install(folder):
    text = (
        "import sys, importlib.util as u; find = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'altair' else find(name, *a);"
        "from engine.cli.app import main; sys.argv = ['gaussmeter', 'plot', 'model']; main()"
    )
    assert "pip install 'gaussmeter[plot]'" in program(text, cwd=folder).sentence(2)


def test_other_commands_do_not_load_the_libraries(folder):
    text = (
        "import sys, engine; engine.show('model'); import engine.verbs.plot, engine.verbs.report;"
        "print({'altair', 'vl_convert', 'pandas'} & set(sys.modules))"
    )
    assert program(text, cwd=folder).out == "set()\n"


def test_what_did_not_change_has_a_panel_without_a_histogram(folder, tmp_path):
    """Of two differences in which the same matrices are frozen, or of which one is."""
    warehouse, tensors = tmp_path / "w.duckdb", llama(2)
    write_tensors(tmp_path / "base.safetensors", tensors)
    for k, layers in enumerate(((0,), (0, 1))):
        other = {f"model.layers.{i}.mlp.up_proj.weight": normal("BF16", 16, 16, seed=9 + k) for i in layers}
        write_tensors(tmp_path / f"{k}.safetensors", tensors | other)
        engine.delta(
            tmp_path / "base.safetensors", tmp_path / f"{k}.safetensors", warehouse=warehouse, name=f"d{k}"
        )
    for subjects in (("d0", "d1"), ("d1", "d0"), ("d0",)):
        ran = gaussmeter("plot", *subjects, "-o", "x.svg", "-w", warehouse, cwd=tmp_path)
        assert (ran.code, ran.err) == (0, "")
        assert "no spread" in (tmp_path / "x.svg").read_text()


def test_axes_of_sigma_say_what_is_there(folder):
    """D3 takes a step of 0.001 below 0.011 for one that needs a single digit."""
    with Warehouse(folder / "stats.duckdb").reading() as connection:
        spec = json.dumps(draw(connection, "sigma", [look_up(connection, "model")], How(Selection())).spec)
    assert '"format": ".4~g"' in spec
