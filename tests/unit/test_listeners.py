"""Who listens to a run: lines of JSON for machines, lines of text for logs, a bar for terminals; and no name does anything to these."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from engine.cli.listeners import listening, logging_to, recording, together
from engine.cli.progress import _Drawing, progress
from engine.errors import ConfigError, TaskError
from engine.nouns.events import (
    Ended,
    Event,
    Found,
    Judged,
    NoWorkers,
    Placed,
    Planned,
    RunBegun,
    RunEnded,
    RunStepped,
    TaskDone,
    TaskFailed,
    TaskRetried,
    TaskStarted,
    Waiting,
    WorkerJoined,
    WorkerLost,
)

EVENTS: list[Event] = [
    Found(2), Planned("a", 3, 4, 500), TaskStarted(1, "w", 1), TaskDone(1, 200, "a", "w", 0.5), TaskRetried(2, "w", "slow"),
    TaskFailed(2, "a", "gone"), WorkerJoined("w", "n", 7, "0"), WorkerLost("w", "died"), Placed("w", "counting on a GPU"), Waiting("process 1", 3.0),
    Judged("/a", "scanned", ""), Ended("a"), NoWorkers(20.0),
    RunBegun("r", 0, 9, 7), RunStepped("r", 3, {"loss": 0.5}), RunEnded("r", "trained", 61.5, ""),
]  # fmt: skip
NASTY = "a\x1b[31m\r\n\u202e[/bold][red]\x07\udcff:smile:\u2028"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def look(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Have standard error be a terminal; in a test, because a fixture's is replaced."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "300")
    return made


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# Lines of JSON


def test_there_is_a_line_for_each_event_as_soon_as_it_happens(tmp_path):
    path = tmp_path / "events.jsonl"
    began = datetime.now(UTC)
    with recording(str(path)) as listener:
        for number, event in enumerate(EVENTS, 1):
            listener(event)
            assert len(lines(path)) == number
    found = lines(path)
    assert [line["event"] for line in found] == [type(e).__name__ for e in EVENTS]
    assert len({str(line["event"]) for line in found}) == len(Event.__args__)
    for line, event in zip(found, EVENTS, strict=True):
        at = datetime.fromisoformat(str(line.pop("at")))
        assert began - timedelta(seconds=1) <= at <= datetime.now(UTC)
        del line["event"]
        assert type(event)(**line) == event


def test_a_file_of_events_is_added_to(tmp_path):
    path = tmp_path / "events.jsonl"
    for count in (1, 2):
        with recording(str(path)) as listener:
            listener(Found(count))
    assert [line["checkpoints"] for line in lines(path)] == [1, 2]


def test_a_dash_is_standard_error(capsys):
    with recording("-") as listener:
        listener(Found(1))
    out, err = capsys.readouterr()
    assert out == ""
    assert (json.loads(err)["event"], err.count("\n"), err[-1]) == ("Found", 1, "\n")
    sys.stderr.write("")  # it is still open


def test_nothing_is_recorded_by_default():
    with recording(None) as listener:
        assert listener is None


def test_a_name_stays_in_its_line_and_comes_back_as_it_was(tmp_path):
    path = tmp_path / "events.jsonl"
    with recording(str(path)) as listener:
        listener(Judged(NASTY, "refused", NASTY))
    raw = path.read_bytes()
    assert raw.isascii()
    assert all(0x20 <= byte < 0x7F for byte in raw[:-1])
    assert lines(path)[0]["uri"] == NASTY


@pytest.mark.parametrize("place", ["", ".", "no/such/folder/x", "x" * 300, "a\0b"])
def test_a_file_that_cannot_be_written_is_a_mistake(tmp_path, place):
    path = str(tmp_path / place) if place else ""
    with pytest.raises(ConfigError, match="cannot be written") as caught, recording(path):
        raise AssertionError("nobody listens")
    assert caught.value.file == path


def test_a_disk_that_is_full_is_a_failure():
    with (
        pytest.raises(TaskError, match="/dev/full: events cannot be written: No space"),
        recording("/dev/full") as listener,
    ):
        listener(Found(1))
    with recording("/dev/full"):
        pass


def test_a_reader_that_has_gone_is_a_failure(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", closefd=False) as file, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", file)
        with (
            pytest.raises(TaskError, match="standard error: events cannot be written"),
            recording("-") as listener,
        ):
            listener(Found(1))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, writing)  # for what is still in the buffer
        os.close(nowhere)
    os.close(writing)


def test_a_failure_of_the_run_comes_out_as_it_is(tmp_path):
    with pytest.raises(KeyError), recording(str(tmp_path / "x")) as listener:
        listener(Found(1))
        raise KeyError
    assert len(lines(tmp_path / "x")) == 1


# Lines of text


def logged(*events: Event) -> list[str]:
    file = io.StringIO()
    for event in events:
        logging_to(file)(event)
    text = file.getvalue()
    assert text == "" or text[-1] == "\n"
    for line in text.splitlines():
        assert line[2] == line[5] == ":"
    return [line[9:] for line in text.splitlines()]


def test_a_log_has_what_somebody_should_look_at():
    assert logged(*EVENTS) == [
        "again     task 2, of w: slow",
        "lost      worker w: died",
        "device    worker w: counting on a GPU",
        "scanned   /a",
        "waiting   no worker has come in 20 s",
        "training  r",
        "trained   r: score 61.50",
    ]
    said = [Judged("/a", status, "") for status in ("planned", "unchanged", "skipped", "resumed", "refused")]
    assert logged(*said) == ["resumed   /a", "refused   /a"]


def test_a_reason_does_not_name_the_place_again():
    assert logged(Judged("/a", "refused", "/a: is truncated")) == ["refused   /a: is truncated"]
    assert logged(Judged("/a", "refused", "/a/b: is truncated")) == ["refused   /a: /a/b: is truncated"]


@pytest.mark.parametrize(
    "event", [Judged(NASTY, "refused", NASTY), WorkerLost(NASTY, NASTY), TaskRetried(1, NASTY, NASTY)]
)
def test_a_hostile_name_is_one_printable_line(event):
    [line] = logged(event)
    assert line.isprintable()
    assert line.count("\\x1b[31m\\r\\n\\u202e[/bold][red]\\x07\\udcff") == 2


# A bar


@pytest.fixture
def drawn() -> Iterator[tuple[_Drawing, Progress, io.StringIO]]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=300, color_system=None)
    with Progress(
        TextColumn("{task.description}", markup=False), console=console, auto_refresh=False
    ) as bars:
        yield _Drawing(bars), bars, text


def shown(bars: Progress) -> list[tuple[str, float, float | None]]:
    return [(t.description, t.completed, t.total) for t in bars.tasks]


def test_a_checkpoint_has_a_bar_from_its_plan_to_its_end(drawn):
    draw, bars, _ = drawn
    draw(Planned("a", 1, 2, 300))
    draw(TaskDone(0, 100, "a"))
    draw(TaskDone(0, 7, "unknown"))
    assert shown(bars) == [("a", 100, 300)]
    draw(Planned("a, second pass", 1, 2, 50))
    draw(TaskDone(0, 20, "a"))
    assert shown(bars) == [("a, second pass", 20, 50)]
    draw(Ended("a"))
    draw(Ended("a"))
    assert shown(bars) == []


def test_a_census_has_a_line_of_its_own(drawn):
    draw, bars, _ = drawn
    for event in (
        Found(1),
        Found(1),
        WorkerJoined("w", "n", 1, ""),
        WorkerJoined("v", "n", 1, ""),
        Planned("a", 1, 1, 10),
    ):
        draw(event)
    draw(TaskDone(0, 4, "a"))
    draw(Judged("/b", "refused", ""))
    draw(WorkerLost("w", "died"))
    draw(WorkerLost("that was starting", "died"))  # and had not joined
    census = next(t for t in shown(bars) if "checkpoints" in t[0])
    assert census == ("1 of 2 checkpoints, 1 workers", 4, 10)


def test_there_is_a_largest_number_of_bars(drawn):
    draw, bars, _ = drawn
    for number in range(100):
        draw(Planned(f"m{number}", 1, 1, 10))
        draw(TaskDone(0, 5, f"m{number}"))
    assert len(bars.tasks) == 12
    for number in range(100):
        draw(Ended(f"m{number}"))
    assert bars.tasks == []


def test_waiting_is_told_once_and_not_at_once(drawn):
    draw, _, text = drawn
    draw(Waiting("process 1", 1.0))
    assert "waiting" not in text.getvalue()
    draw(Waiting("process 1", 2.5))
    draw(Waiting("process 1", 3.5))
    assert text.getvalue().count("waiting for the warehouse, held by process 1") == 1


@pytest.mark.parametrize(
    "event",
    [Planned(NASTY, 1, 1, 10), Waiting(NASTY, 9.0), WorkerLost(NASTY, NASTY), WorkerLost("w", "[/x] [bold]")],
)
def test_a_hostile_name_does_nothing_to_a_terminal(monkeypatch, event):
    terminal = look(monkeypatch)
    with progress() as listener:
        listener(event)
    text = terminal.getvalue()
    assert "[/x] [bold]" in text or "\\r\\n\\u202e[/bold][red]\\x07\\udcff" in text
    assert not [nasty for nasty in ("a\x1b[31m", "\u202e", "\x07", "\udcff", "\u2028") if nasty in text]


def test_nothing_is_drawn_where_nobody_looks(capsys, monkeypatch):
    with progress() as listener:
        for event in EVENTS:
            listener(event)
    assert capsys.readouterr().err == ""
    terminal = look(monkeypatch)
    with progress(quiet=True) as listener:
        for event in EVENTS:
            listener(event)
    assert terminal.getvalue() == ""


# All of them


def test_all_hear_all_in_order():
    heard: list[tuple[int, Event]] = []
    tell = together(lambda e: heard.append((1, e)), lambda e: heard.append((2, e)))
    tell(EVENTS[0])
    tell(EVENTS[1])
    assert heard == [(1, EVENTS[0]), (2, EVENTS[0]), (1, EVENTS[1]), (2, EVENTS[1])]
    together()(EVENTS[0])


@pytest.mark.parametrize(
    ("how", "texts"),
    [
        ({"quiet": False}, 1),
        ({"quiet": True}, 0),
        ({"quiet": False, "log": True}, 7),
        ({"quiet": True, "log": True}, 0),
    ],
)
def test_a_log_is_for_where_nobody_looks_and_where_it_is_counted_is_said_there_too(
    tmp_path, monkeypatch, how, texts
):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with listening(str(tmp_path / "events"), **how) as listener:
        for event in EVENTS:
            listener(event)
    assert len(lines(tmp_path / "events")) == len(EVENTS)
    assert sys.stderr.getvalue().count("\n") == texts


def test_events_on_standard_error_are_alone_there(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with listening("-", quiet=False, log=True) as listener:
        for event in EVENTS:
            listener(event)
    assert [json.loads(line)["event"] for line in sys.stderr.getvalue().splitlines()] == [
        type(e).__name__ for e in EVENTS
    ]


def test_even_if_that_is_a_terminal(monkeypatch):
    """A bar between the lines would also wrap them."""
    terminal = look(monkeypatch)
    with listening("-", quiet=False) as listener:
        listener(Planned("x" * 1000, 1, 1, 10))
    assert json.loads(terminal.getvalue())["name"] == "x" * 1000


def test_a_terminal_gets_a_bar_and_no_log(monkeypatch):
    terminal = look(monkeypatch)
    with listening(None, quiet=False, log=True) as listener:
        for event in EVENTS[:2]:
            listener(event)
        listener(Judged("/a", "refused", "is truncated"))
    assert "checkpoints" in terminal.getvalue()
    assert "is truncated" not in terminal.getvalue()
