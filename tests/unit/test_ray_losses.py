"""What becomes of workers that die before they are ready, or whose GPU fails; Ray is played by a stand-in."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from engine.errors import DeviceError, TaskError
from engine.execution import ray_executor
from engine.execution.dispatch import Dispatch
from engine.execution.ray_worker import Hello
from engine.nouns.events import Event, TaskRetried, WorkerJoined, WorkerLost
from engine.nouns.tasks import Task


class RayError(Exception):
    """As Ray's, of which the others are kinds."""


KINDS = ("ObjectLostError", "ObjectStoreFullError", "OutOfDiskError", "RayTaskError")


class Ray:
    """Actors that answer what a test says: to `hello` and to `work`, each at once."""

    def __init__(self, hellos: list[Any], works: list[Any]) -> None:
        self.hellos, self.works = hellos, works
        self.answers: dict[object, Any] = {}
        self.started = 0
        self.killed: list[object] = []
        kinds = {name: type(name, (RayError,), {}) for name in KINDS}
        self.exceptions = SimpleNamespace(RayError=RayError, **kinds)

    def remote(self, kind: type) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._actor))

    def _actor(self) -> Any:
        self.started += 1
        number = self.started
        hello = SimpleNamespace(remote=lambda *_: self._answer(self.hellos, number))
        work = SimpleNamespace(remote=lambda *_: [self._answer(self.works, number)])
        return SimpleNamespace(hello=hello, work=SimpleNamespace(options=lambda **_: work))

    def _answer(self, said: list[Any], number: int) -> object:
        reference = object()
        self.answers[reference] = said.pop(0) if said else None
        if self.answers[reference] == "hello":
            self.answers[reference] = Hello(f"w{number}", "node", number, "0")
        return reference

    def wait(self, references: list[object], **_: Any) -> tuple[list[object], list[object]]:
        assert references
        ready = [r for r in references if self.answers[r] is not None]
        return ready, []

    def get(self, reference: Any) -> Any:
        if isinstance(reference, list):
            return [self.answers[reference[0]]]
        answer = self.answers[reference]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, actor: object) -> None:
        self.killed.append(actor)


def opened(monkeypatch: pytest.MonkeyPatch, ray: Ray, tasks: int, workers: int) -> tuple[Any, list[Event]]:
    """A pool with tasks, and what it says."""
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(ray_executor, "cut", lambda value: [value])
    monkeypatch.setattr(ray_executor, "whole", lambda pieces: pieces[0])
    said: list[Event] = []
    pool: Any = ray_executor._Actors(lambda: None, workers, {}, Dispatch(), said.append)
    for key in range(tasks):
        pool.submit(Task(key, (), (), 8, 0))
    return pool, said


def run(monkeypatch: pytest.MonkeyPatch, ray: Ray, tasks: int, workers: int, turns: int = 20) -> Any:
    """Let a pool work, and give what ended, and what was said."""
    pool, said = opened(monkeypatch, ray, tasks, workers)
    ended: list[Any] = []
    for _ in range(turns):
        ended += pool.collect(0.001)
    return ended, said


def done(outcome: str) -> tuple[Any, ...]:
    return outcome, 0.1, None, False


def test_a_worker_whose_gpu_failed_is_replaced_and_its_task_done_by_another(monkeypatch):
    broken = (None, 0.1, DeviceError("cuda:0 failed: CUDA error: an illegal memory access"), True)
    ray = Ray(["hello", "hello"], [broken, broken, done("a"), done("b")])
    ended, said = run(monkeypatch, ray, tasks=2, workers=1)
    assert sorted(e.outcome for e in ended) == ["a", "b"]
    assert {e.worker for e in ended} == {"w2"}
    lost = [e for e in said if isinstance(e, WorkerLost)]
    assert [(e.worker, e.reason) for e in lost] == [
        ("w1", "cuda:0 failed: CUDA error: an illegal memory access")
    ]
    assert {e.key for e in said if isinstance(e, TaskRetried)} == {0, 1}
    assert len(ray.killed) == 1


def test_a_task_of_which_every_gpu_fails_fails_with_the_reason(monkeypatch):
    broken = (None, 0.1, DeviceError("cuda:0 failed: out of luck"), True)
    ended, _ = run(monkeypatch, Ray(["hello"] * 9, [broken] * 9), tasks=1, workers=1)
    assert [str(e.error) for e in ended] == [
        "its workers were lost again and again; the last: cuda:0 failed: out of luck"
    ]


def test_stillborn_workers_are_told_and_started_again_later_and_later(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(
        ray_executor,
        "time",
        SimpleNamespace(monotonic=lambda: clock.__setitem__(0, clock[0] + 1e-5) or clock[0]),
    )
    ray = Ray(["hello", *[RayError("died in its cradle")] * 100], [])
    _, said = run(monkeypatch, ray, tasks=2, workers=2)
    assert sum(isinstance(e, WorkerJoined) for e in said) == 1
    lost = [e for e in said if isinstance(e, WorkerLost)]
    assert {e.reason for e in lost} == {"died in its cradle"}
    assert len(lost) == ray_executor._MOST_STILLBORN
    assert ray.started == 1 + ray_executor._MOST_STILLBORN


def test_stillborn_workers_and_no_other_end_it(monkeypatch):
    ray = Ray([RayError("died in its cradle")] * 9, [])
    with pytest.raises(TaskError, match="no worker could be started: died in its cradle"):
        run(monkeypatch, ray, tasks=1, workers=1)


def test_a_pause_ends(monkeypatch):
    """In its time the place of a stillborn worker is taken, and the count begins anew."""
    clock = [100.0]
    monkeypatch.setattr(
        ray_executor,
        "time",
        SimpleNamespace(monotonic=lambda: clock.__setitem__(0, clock[0] + 0.01) or clock[0]),
    )
    ray = Ray(["hello", *[RayError("died in its cradle")] * 4, "hello"], [])
    pool, said = opened(monkeypatch, ray, 1, 2)
    for _ in range(20):
        pool.collect(10)
        clock[0] += 0.5
    assert sum(isinstance(e, WorkerJoined) for e in said) == 2
    assert pool._stillborn == 0
    assert ray.started == 6
