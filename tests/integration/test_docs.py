"""The pages of `docs/` say what is so: their blocks run, their tables are whole, their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.verbs.paper import _figures, papers
from tests.builders import write
from tests.integration.documents import Session, blocks_of, demo_model, links_of, places_of, sayings, written
from tests.integration.helpers import ROOT, environment, gaussmeter, made, rows

PAGES = sorted(ROOT.glob("docs/*.md"))
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, about itself


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """The folder that `make demo` leaves."""
    folder = tmp_path / ".demo"
    folder.mkdir()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (folder / "all-MiniLM-L6-v2").symlink_to(demo_model())
    assert gaussmeter("scan", "all-MiniLM-L6-v2", cwd=folder).code == 0
    return folder


def test_there_are_pages():
    assert [page.stem for page in PAGES] == ["operators", "paper", "statistics", "tutorial"]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for path, place in links_of(page):
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), f"{path} leads out of the project"
        assert target.exists(), path
        if place:
            assert place in places_of(target), f"{path}#{place}"


def test_the_tutorial(demo):
    done = []

    def make(words: list[str]) -> None:
        (target,) = words[1:]
        recipe = written(target)
        assert any(".venv/tutorial" in line for line in recipe)
        assert any(line.endswith('/model" .demo/all-MiniLM-L6-v2') for line in recipe)
        done.append("make")

    def shell(words: list[str]) -> None:
        done.append(" ".join(words))

    page = ROOT / "docs" / "tutorial.md"
    session = Session(demo, {"make": make, "cd": shell, "export": shell})
    session.read(page)
    assert session.done == len(blocks_of(page)) >= 30
    assert done[0] == "make"
    program = "; ".join([*done[1:], "pwd", "command -v gaussmeter"])
    ran = subprocess.run(
        ["bash", "-c", program],
        cwd=demo.parent,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == [str(demo), f"{demo}/../.venv/bin/gaussmeter"]


def sections_of(page: Path) -> dict[str, set[str]]:
    """The words in backticks below each heading of the second level."""
    text = page.read_text(encoding="utf-8")
    parts = re.split(r"^## (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), flags=re.M)[1:]
    return {
        title: set(re.findall(r"`([^`\n]+)`", body))
        for title, body in zip(parts[::2], parts[1::2], strict=True)
    }


def test_the_page_on_statistics_has_every_column_of_every_view(tmp_path):
    sections = sections_of(ROOT / "docs" / "statistics.md")
    asked = "SELECT view_name, list(column_name) FROM duckdb_views() v JOIN duckdb_columns() c ON v.view_name = c.table_name"
    views = dict(rows(made(tmp_path / "w.duckdb"), f"{asked} WHERE NOT v.internal GROUP BY ALL"))
    (columns,) = rows(
        tmp_path / "w.duckdb", "SELECT list(column_name) FROM (DESCRIBE SELECT * FROM filtered_at(3, 0))"
    )
    views["filtered_at"] = columns[0]
    assert {"tensor_stats", "delta_stats", "run_scores"} <= views.keys()
    for view, names in views.items():
        said = set().union(*(words for title, words in sections.items() if f"`{view}`" in title))
        missing = [name for name in names if name not in said]
        assert not missing, f"docs/statistics.md, {view}: {missing}"


def test_the_page_on_statistics(demo):
    page = ROOT / "docs" / "statistics.md"
    session = Session(demo)
    session.read(page)
    assert session.done == len(blocks_of(page)) >= 15


def test_the_page_on_the_paper(demo):
    page = ROOT / "docs" / "paper.md"
    session = Session(demo)
    session.read(page)
    assert session.done == len(blocks_of(page)) == 4


def test_the_page_on_the_paper_has_every_table_and_figure():
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    told = {*re.findall(r"`gaussmeter paper (\w+)", text)}
    for first, last in re.findall(r"`gaussmeter paper fig(\d+)` to `fig(\d+)`", text):
        told |= {f"fig{k}" for k in range(int(first), int(last) + 1)}
    of_the_paper = {f"table{k}" for k in range(1, 12)} | {f"fig{k}" for k in range(1, 27)}
    assert told == of_the_paper | {"scalars"}
    assert of_the_paper <= {query.name for query in papers()} | set(_figures())


def test_what_it_says_is_what_it_says():
    text = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    table = text.split("## When it says\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", table, re.MULTILINE)
    assert len(cells) == table.count("\n| ") - 1 >= 15
    messages = [message for cell in cells for message in re.findall("`([^`]+)`", cell)]
    said = sayings()
    assert [message for message in messages if message not in said] == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("```ruby\nputs 1\n```\n", "nobody knows what to do with a block of 'ruby'"),
        ("```bash\necho 1\n```\n```text\n2\n```\n", "is not"),
        ("```bash\necho 1 a\n```\n```text varies\n2 b\n```\n", "is not"),
        ("```bash\nfalse\n```\n", "false"),
        ("```text\n1\n```\n", "says what the block before it printed"),
        ("```python\nassert 1 == 2, 'no'\n```\n", "no"),
        ("```yaml\njob: scan\n```\n", "the first line of a configuration is its file's name"),
        ("```yaml\n# a.yaml\njob: scan\n```\n", "checkpoints: is missing"),
        ("```console\n$ sudo x\n```\n", "nobody knows how to check"),
        ("```bash\necho 1\n", "a block is not closed"),
    ],
)
def test_a_page_that_is_wrong_fails(tmp_path, text, wrong):
    page = write(tmp_path / "page.md", text.encode())
    with pytest.raises((AssertionError, ConfigError), match=re.escape(wrong)):
        Session(tmp_path).read(page)


def test_a_page_may_leave_out_lines_and_numbers_that_vary(tmp_path):
    text = "```bash\nseq 9; echo 0.5 s, 3 rows\n```\n```text\n1\n...\n8 ...\n9\n0.7 s, 3 rows\n```\n"
    page = write(tmp_path / "page.md", text.encode())
    session = Session(tmp_path)
    session.read(page)
    page.write_text(text.replace("text\n", "text varies\n").replace("3 rows\n```\n", "4 rows\n```\n"))
    session.read(page)
    assert session.done == 4
