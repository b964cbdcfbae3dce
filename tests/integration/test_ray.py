"""Ray equals the threads of one process bit for bit, whatever dies meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.errors import ConfigError, FormatError, TaskError
from engine.execution import dispatch, ray_cluster
from engine.execution.ray_executor import RayExecutor
from engine.nouns.events import (
    Event,
    Listener,
    NoWorkers,
    Planned,
    TaskDone,
    TaskFailed,
    TaskRetried,
    TaskStarted,
    WorkerJoined,
    WorkerLost,
    ignore,
)
from tests.builders import COUNTED, Tensors, nasty_patterns, write_tensors
from tests.integration.clusters import STORE, cluster, listening_beyond_loopback
from tests.integration.helpers import contents, llama, made, normal, rows, subjects

TASK = 1500


def tensors() -> Tensors:
    """Every dtype that is counted, and a model; many tasks."""
    mixed = {f"nasty.{d}": (d, np.resize(nasty_patterns(d), (21, 37))) for d in COUNTED}
    return {**mixed, **llama(3, "F32", 24), "ids": ("I64", np.arange(5))}


@dataclass
class Case:
    path: Path
    folder: Path
    expected: dict[str, Any]
    nbytes: int

    def scan(self, executor: RayExecutor, tmp_path: Path, listener: Any = None, **options: Any) -> None:
        """Scan on Ray, and compare everything with what threads have found."""
        warehouse = made(tmp_path / "ray.duckdb")
        report = engine.scan(
            self.path,
            warehouse=warehouse,
            executor=executor,
            exact=True,
            task_bytes=TASK,
            listener=listener or (lambda event: None),
            **options,
        )
        assert contents(warehouse, report.subject_id) == self.expected
        assert report.nbytes_read == self.nbytes


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    path = write_tensors(folder / "m" / "model.safetensors", tensors())
    report = engine.scan(path, warehouse=folder / "w.duckdb", workers=2, exact=True, task_bytes=TASK)
    return Case(path, folder, contents(folder / "w.duckdb", report.subject_id), report.nbytes_read)


class Heard:
    """A listener of the executor, which may do something at the k-th finished task."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.at: int | None = None
        self.then: Any = None

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        return [e for e in self.events if isinstance(e, kind)]

    def doing(self, at: int, then: Any) -> Any:
        """A listener of a scan that does something once."""
        seen = 0

        def listen(event: Event) -> None:
            nonlocal seen
            if isinstance(event, TaskDone):
                seen += 1
                if seen == at:
                    then()

        return listen

    def patient(self, workers: int, then: Listener = ignore) -> Listener:
        """A listener of a scan that holds it up until so many workers are there.

        Else the first of them may have done everything before the last is ready.
        """

        def listen(event: Event) -> None:
            if isinstance(event, TaskDone) and len(self.of(WorkerJoined)) < workers:
                time.sleep(0.5)
            then(event)

        return listen


# These have clusters of their own, so they come before the one that the others share: a process that has
# joined a cluster stays there.


def test_three_nodes_count_the_same_even_if_one_dies(case, tmp_path):
    one = {"num_cpus": 1}
    heard = Heard()
    with cluster(one, one, one) as nodes, RayExecutor(nodes.address, listener=heard) as executor:
        assert executor.workers == 3
        others = {f"127.0.0.1#{node.node_id[:6]}": node for node in nodes.worker_nodes}
        struck: list[str] = []
        left = 0

        def strike(event: Event) -> None:
            nonlocal left
            if isinstance(event, Planned):
                left += event.tasks
            if not isinstance(event, TaskDone):
                return
            left -= 1
            if struck or left < 20:  # a worker that would get nothing more is not missed
                return
            joined = next(e for e in heard.of(WorkerJoined) if e.worker == event.worker)
            if joined.node in others:
                struck.append(event.worker)
                nodes.remove_node(others[joined.node], allow_graceful=False)
                assert is_gone(joined.pid)  # a worker outlives its node by a moment, in which it can do much

        for _ in range(10):
            case.scan(executor, tmp_path, heard.patient(3, strike))
            if struck:
                break
            heard.events.clear()
        missed = [e.worker for e in (*heard.of(WorkerLost), *heard.of(TaskRetried))]
        assert struck[0] in missed
        assert heard.of(TaskFailed) == []
        case.scan(executor, tmp_path)


def test_actors_that_ask_for_gpus_wait_for_the_nodes_that_bring_them(case, tmp_path, monkeypatch):
    """A cluster that grows has no GPU before somebody asks for one."""
    from engine.execution import ray_executor

    monkeypatch.setattr(ray_executor, "_MISSING_SECONDS", 0.5)
    with cluster({"num_cpus": 1}) as nodes:
        with (
            RayExecutor(nodes.address, gpu=True) as executor,
            pytest.raises(ConfigError, match="has no GPU yet"),
        ):
            executor.workers  # noqa: B018 - it looks
        heard = Heard()

        def listen(event: Event) -> None:
            heard(event)
            if isinstance(event, NoWorkers):
                nodes.add_node(num_cpus=1, num_gpus=2, node_ip_address="127.0.0.1", object_store_memory=STORE)

        with RayExecutor(nodes.address, 2, gpu=True, listener=listen) as executor:
            case.scan(executor, tmp_path, heard.patient(2))
        assert sorted(e.gpus for e in heard.of(WorkerJoined)) == ["0", "1"]
        assert len(heard.of(NoWorkers)) == 1


def test_there_is_one_worker_a_gpu_and_it_sees_that_one(case, tmp_path):
    with cluster({"num_cpus": 2, "num_gpus": 2}) as nodes:
        for per_gpu, seen in ((1, ["0", "1"]), (2, ["0", "0", "1", "1"])):
            heard = Heard()
            with RayExecutor(nodes.address, per_gpu=per_gpu, listener=heard) as executor:
                assert executor.workers == len(seen)
                case.scan(executor, tmp_path, heard.patient(len(seen)))
            assert sorted(e.gpus for e in heard.of(WorkerJoined)) == seen


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("nowhere", "a Ray cluster is local, auto or the host:port of its head, not 'nowhere'"),
        ("model/", "not 'model/'"),
        ("ray://127.0.0.1:10001", "local, auto or the host:port"),
    ],
)
def test_an_address_where_nobody_answers_is_one_sentence(case, tmp_path, address, sentence):
    with pytest.raises(ConfigError, match=sentence.replace("(", r"\(")):
        engine.scan(case.path, warehouse=tmp_path / "w.duckdb", ray=address)


@pytest.fixture(scope="module")
def local() -> Iterator[tuple[RayExecutor, Heard]]:
    """A private cluster with two workers; it leaves no variable behind."""
    import ray

    heard, before = Heard(), dict(os.environ)
    with RayExecutor("local", 2, listener=heard) as executor:
        yield executor, heard
    assert {**os.environ, "PYTEST_CURRENT_TEST": ""} == {**before, "PYTEST_CURRENT_TEST": ""}
    assert not ray.is_initialized()


@pytest.fixture
def two(local: tuple[RayExecutor, Heard]) -> tuple[RayExecutor, Heard]:
    local[1].events.clear()
    return local


def test_a_private_cluster_counts_the_same_and_nobody_else_can_reach_it(case, tmp_path, two):
    executor, heard = two
    before = listening_beyond_loopback()
    case.scan(executor, tmp_path, heard.patient(2))
    assert listening_beyond_loopback() <= before
    assert len(heard.of(WorkerJoined)) == 2
    assert len({e.pid for e in heard.of(WorkerJoined)} - {os.getpid()}) == 2
    assert len(heard.of(TaskStarted)) > 20
    assert heard.of(TaskRetried) == heard.of(WorkerLost) == []


def test_rows_and_columns_are_measured_the_same(tmp_path, two):
    shapes = {"BF16": (600, 700), "F32": (40, 9000), "F16": (3000, 70)}
    path = write_tensors(tmp_path / "m.safetensors", {d: normal(d, *shape) for d, shape in shapes.items()})
    sql, found = "SELECT * FROM iid ORDER BY tensor_id", []
    for name, options in (("threads", {"workers": 1}), ("ray", {"executor": two[0], "task_bytes": 150_000})):
        warehouse = made(tmp_path / f"{name}.duckdb")
        engine.scan(path, warehouse=warehouse, spectrum=70, **options)
        found.append(rows(warehouse, sql))
    assert len(found[0]) == 3
    assert found[0] == found[1]


def test_no_worker_has_more_than_two_tasks(case, tmp_path, two):
    executor, heard = two
    having: dict[str, int] = {}
    most = 0

    def listen(event: Event) -> None:
        if isinstance(event, TaskDone):
            having[event.worker] -= 1

    def started(event: Event) -> None:
        nonlocal most
        heard(event)
        if isinstance(event, TaskStarted):
            having[event.worker] = having.get(event.worker, 0) + 1
            most = max(most, having[event.worker])

    executor._listener = started
    try:
        case.scan(executor, tmp_path, listen)
    finally:
        executor._listener = heard
    assert most <= 4  # two, and two that are done, of which the scan hears after more was sent
    assert set(having.values()) == {0}
    keys = [e.key for e in heard.of(TaskStarted)]
    first_pass = keys[: keys.index(0, 1)]
    assert first_pass == sorted(first_pass), "tasks were not handed out in file order"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_killed_or_frozen_costs_nothing_but_time(case, tmp_path, two, monkeypatch, how):
    executor, heard = two
    if how == signal.SIGSTOP:
        monkeypatch.setattr(dispatch, "LEAST_LIMIT", 1.0)
        monkeypatch.setattr(dispatch, "FIRST_LIMIT", 1.0)
    victim: list[int] = []

    def strike() -> None:
        victim.append(heard.of(WorkerJoined)[0].pid)
        os.kill(victim[0], how)

    case.scan(executor, tmp_path, heard.doing(5, strike))
    assert heard.of(TaskRetried)
    if how == signal.SIGKILL:
        assert [e.worker for e in heard.of(WorkerLost)] == [heard.of(WorkerJoined)[0].worker]
    assert is_gone(victim[0]), "a worker was left behind"


def test_object_stores_that_are_full_cost_nothing(tmp_path, two):
    """Whatever goes there waits for two seconds until Ray finds another place for it."""
    import ray

    executor, _ = two
    rng = np.random.default_rng(0)
    wide = 10 ** rng.uniform(-4, 4, (16, 1 << 18)).astype(np.float32)  # so that answers are large
    path = write_tensors(tmp_path / "m.safetensors", {"wide": ("F32", wide.view(np.uint32))})
    here, there = made(tmp_path / "here.duckdb"), made(tmp_path / "there.duckdb")
    expected = engine.scan(path, warehouse=here, workers=2).subject_id
    options: dict[str, Any] = {"executor": executor, "task_bytes": 1 << 20}
    calm = engine.scan(path, warehouse=tmp_path / "calm.duckdb", **options)
    held = []
    for size, number in ((1 << 20, (ray_cluster._STORE_BYTES >> 20) - 1), (1 << 16, 16)):
        references = [ray.put(np.ones(size, np.uint8)) for _ in range(number)]
        held += [(r, ray.get(r)) for r in references]  # what is read stays where it is
    report = engine.scan(path, warehouse=there, **options)
    assert report.seconds < calm.seconds + 8
    assert contents(there, report.subject_id) == contents(here, expected)


def is_gone(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_what_is_wrong_with_a_file_fails_once_with_the_reason(case, tmp_path, two):
    executor, heard = two
    path = write_tensors(tmp_path / "model.safetensors", tensors())
    cut = heard.doing(3, lambda: os.truncate(path, 2000))
    warehouse = made(tmp_path / "w.duckdb")
    reason = r"model\.safetensors: (changed|is truncated: it ends at byte 2,000)"
    with pytest.raises(FormatError, match=reason) as caught:
        engine.scan(path, warehouse=warehouse, executor=executor, task_bytes=TASK, listener=cut)
    assert caught.value.exit_code == 2
    attempts = [e.attempt for e in heard.of(TaskStarted)]
    assert set(attempts) == {1}
    assert heard.of(TaskRetried) == []
    assert subjects(warehouse) == []


def test_what_a_machine_cannot_do_is_tried_elsewhere_and_then_fails(case, tmp_path, two):
    """A file that a node does not see, such as one on a disk of the driver's own."""
    executor, heard = two
    path = write_tensors(tmp_path / "model.safetensors", tensors())
    hide = heard.doing(3, lambda: path.rename(tmp_path / "elsewhere"))
    warehouse = made(tmp_path / "w.duckdb")
    with pytest.raises((TaskError, ConfigError, FormatError), match=r"model\.safetensors"):
        engine.scan(path, warehouse=warehouse, executor=executor, task_bytes=TASK, listener=hide)


def test_a_task_that_takes_longer_than_its_limit_everywhere_fails(case, tmp_path):
    from tests.integration.servers import FileServer

    with FileServer(case.path.parent) as server, RayExecutor("local", 2, task_seconds=1.0) as executor:
        place = f"{server.url}/model.safetensors"

        def slow(event: Event) -> None:
            if isinstance(event, Planned):  # the header was read
                server.latency = 30.0

        with pytest.raises(TaskError, match="longer than the limit"):
            engine.scan(place, warehouse=tmp_path / "w.duckdb", executor=executor, listener=slow)


def test_limits_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="at least 1 actor"):
        RayExecutor("local", per_gpu=0)
    with pytest.raises(ConfigError, match="must be positive"):
        RayExecutor("local", task_seconds=0)
