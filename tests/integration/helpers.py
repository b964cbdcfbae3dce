"""Scans, the command line in this process and in others, and what a warehouse then holds."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from engine.cli import app
from engine.nouns.events import Event, TaskDone
from engine.warehouse.rows import Connection
from engine.warehouse.store import Warehouse
from tests.builders import Tensors, patterns_of

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60  # seconds that a process of a test may take; a hang is a failure


# Checkpoints


def normal(dtype: str, *shape: int, seed: int = 0, mean: float = 0.0, std: float = 0.02) -> tuple[str, Any]:
    """A tensor of Gaussian values."""
    return dtype, patterns_of(
        dtype, np.random.default_rng(seed).normal(mean, std, shape).reshape(-1)
    ).reshape(shape)


def llama(layers: int = 2, dtype: str = "BF16", width: int = 16, seed: int = 0) -> Tensors:
    """A tiny model with a real one's names; no two of its matrices have one mean or one sigma."""
    tensors = {"model.embed_tokens.weight": normal(dtype, 3 * width, width, seed=seed, std=0.03)}
    for i in range(layers):
        layer = f"model.layers.{i}"
        for k, name in enumerate(("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj")):
            mean, std = 1e-3 * (i - k), 0.01 * (1 + i + k)
            tensors[f"{layer}.{name}.weight"] = normal(
                dtype, width, width, seed=seed + 10 * i + k + 1, mean=mean, std=std
            )
        tensors[f"{layer}.input_layernorm.weight"] = normal(dtype, width, seed=seed + 10 * i + 9, mean=1)
    return tensors


# What a warehouse holds


@cache
def _nothing() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        warehouse = Path(folder) / "w.duckdb"
        with Warehouse(warehouse).writing():
            pass
        return warehouse.read_bytes()


def made(warehouse: Path) -> Path:
    """A warehouse with nothing in it: a copy, which is quicker than making one."""
    warehouse.write_bytes(_nothing())
    return warehouse


@dataclass(frozen=True)
class Kept:
    """Everything that the warehouse keeps of one tensor, but for the numbers it gave it."""

    row: dict[str, Any]
    bins: list[tuple[Any, ...]]
    filtered: list[tuple[Any, ...]]


def rows(warehouse: Path, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with Warehouse(warehouse).reading() as connection:
        return connection.execute(sql, list(parameters)).fetchall()


def records(warehouse: Path, sql: str, *parameters: Any) -> list[dict[str, Any]]:
    with Warehouse(warehouse).reading() as connection:
        return _records(connection, sql, *parameters)


def _records(connection: Connection, sql: str, *parameters: Any) -> list[dict[str, Any]]:
    cursor = connection.execute(sql, list(parameters))
    names = [d[0] for d in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def contents(warehouse: Path, subject_id: int, *, ordinals: bool = True) -> dict[str, Kept]:
    """A subject by tensor name; equal contents are equal to the last bit."""
    left_out = {"subject_id", "tensor_id"} | (set() if ordinals else {"ordinal"})
    of_subject = "FROM {} JOIN tensors t USING (tensor_id) WHERE subject_id = ? ORDER BY ALL"
    with Warehouse(warehouse).reading() as connection:
        tensors = _records(connection, "SELECT * FROM tensors WHERE subject_id = ?", subject_id)
        found = {
            t["tensor_id"]: Kept({k: v for k, v in t.items() if k not in left_out}, [], []) for t in tensors
        }
        bins = "SELECT tensor_id, code, bins.n, low_sum, low_square_sum " + of_subject.format("bins")
        for tensor_id, *bin_ in connection.execute(bins, [subject_id]).fetchall():
            found[tensor_id].bins.append(tuple(bin_))
        filters = "SELECT filtered.* " + of_subject.format("filtered")
        for tensor_id, *filter_ in connection.execute(filters, [subject_id]).fetchall():
            found[tensor_id].filtered.append(tuple(filter_))
    by_name = {kept.row["name"]: kept for kept in found.values()}
    assert len(by_name) == len(tensors), "a tensor is there twice"
    return by_name


_CONTRADICTIONS = {
    "a tensor is there twice": """
        SELECT subject_id, ordinal FROM tensors GROUP BY ALL HAVING count(*) > 1""",
    "two tensors have one number": "SELECT tensor_id FROM tensors GROUP BY ALL HAVING count(*) > 1",
    "a bin is there twice": "SELECT tensor_id, code FROM bins GROUP BY ALL HAVING count(*) > 1",
    "a filter is there twice": "SELECT tensor_id, sigmas, floor FROM filtered GROUP BY ALL HAVING count(*) > 1",
    "bins of nothing": "SELECT tensor_id FROM bins ANTI JOIN tensors USING (tensor_id)",
    "filters of nothing": "SELECT tensor_id FROM filtered ANTI JOIN tensors USING (tensor_id)",
    "tensors of nothing": "SELECT tensor_id FROM tensors ANTI JOIN subjects USING (subject_id)",
    "partials of nothing": "SELECT ordinal FROM partials ANTI JOIN subjects USING (subject_id)",
    "a finished subject has partials": """
        SELECT s.subject_id FROM partials JOIN subjects s USING (subject_id) WHERE s.status <> 'running'""",
    "bins do not add up to their tensor": """
        SELECT t.tensor_id FROM tensors t LEFT JOIN bins b USING (tensor_id) WHERE t.reason IS NULL
        GROUP BY t.tensor_id, t.n HAVING coalesce(sum(b.n), 0) <> t.n""",
}


def assert_consistent(warehouse: Path) -> None:
    """Nothing is there twice, nothing is left over, and the counts add up."""
    with Warehouse(warehouse).reading() as connection:
        answers = {what: connection.execute(sql).fetchall() for what, sql in _CONTRADICTIONS.items()}
    wrong = {what: found for what, found in answers.items() if found}
    assert not wrong


def subjects(warehouse: Path) -> list[tuple[Any, ...]]:
    return rows(warehouse, "SELECT subject_id, name, status FROM subjects ORDER BY subject_id")


# Interruptions


class Killed(BaseException):
    """Stands for SIGKILL inside of this process: nothing in the engine catches it."""


@dataclass
class Recorder:
    """A listener that keeps what it hears, and does something at the k-th finished task."""

    at: int = 0
    then: Callable[[], None] = lambda: None
    events: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, TaskDone) and len(self.tasks) == self.at:
            self.then()

    @property
    def tasks(self) -> list[TaskDone]:
        return [e for e in self.events if isinstance(e, TaskDone)]

    @property
    def nbytes(self) -> list[int]:
        return [e.nbytes for e in self.tasks]


def raising(error: BaseException) -> Callable[[], None]:
    def then() -> None:
        raise error

    return then


# The command line


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    def sentence(self, code: int) -> str:
        """The one line on standard error with which a command must have failed."""
        assert "Traceback" not in self.err, self.err
        assert self.code == code, (self.code, self.err)
        assert self.err.startswith("gaussmeter: "), self.err
        assert self.err.endswith("\n"), self.err
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("gaussmeter: ").rstrip("\n")


_STAYING = ("gaussmeter-range", "zarr_io", "asyncio_")


def gaussmeter(*words: object, cwd: Path | None = None) -> Ran:
    """Run a command in this process; a traceback that nobody asked for with --debug fails the test."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="", write_through=True) for _ in range(2))
    environment = {k: v for k, v in os.environ.items() if k != "GAUSSMETER_WAREHOUSE"} | {"COLUMNS": "100"}
    scipy, threads = sys.modules.get("scipy"), threading.enumerate()
    with (
        patch.object(sys.modules["__main__"], "__package__", None),  # else messages name the tests' program
        patch.dict(os.environ, environment, clear=True),
        patch.object(sys, "argv", ["gaussmeter", *map(str, words)]),
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            app.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            app._debug = False
            for thread in set(threading.enumerate()) - set(threads):
                if not thread.name.startswith(_STAYING):  # they wait for the next command
                    thread.join(PATIENCE)  # so that what goes wrong there is this test's
            if scipy is None:
                sys.modules.pop("scipy", None)  # a command keeps its process from loading it
    ran = Ran(code, out.buffer.getvalue().decode(), err.buffer.getvalue().decode())
    assert "--debug" in words or "Traceback (most recent call last)" not in ran.err, ran.err
    return ran


def environment(**more: str) -> dict[str, str]:
    """For processes that use this checkout."""
    kept = {k: v for k, v in os.environ.items() if k != "GAUSSMETER_WAREHOUSE"}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return kept | {"PYTHONPATH": path, "PYTHONWARNINGS": "error", "COLUMNS": "100"} | more


def start(command: Sequence[object], **options: Any) -> subprocess.Popen[str]:
    """Start Python with these words behind it: ("-m", "engine", "ls") or ("-c", program, ...)."""
    streams = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background, and inherited
        options.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    return subprocess.Popen(
        [sys.executable, *map(str, command)], **({"env": environment()} | streams | options)
    )


def finish(process: subprocess.Popen[str]) -> Ran:
    """Wait for a process; one that hangs is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Ran(process.returncode, out, err)


def process(*words: object, **options: Any) -> Ran:
    """Run a command in a process of its own."""
    return finish(start(["-m", "engine", *words], **options))


def program(text: str, *words: object, **options: Any) -> Ran:
    """Run a Python program in a process of its own."""
    return finish(start(["-c", text, *words], **options))


def killed(ran: Ran) -> bool:
    return ran.code == -signal.SIGKILL


@contextlib.contextmanager
def no_file_added(folder: Path) -> Iterator[None]:
    before = sorted(folder.rglob("*"))
    yield
    assert sorted(folder.rglob("*")) == before
