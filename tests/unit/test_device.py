"""Where workers count: what is asked for, who may say no, and what is told. No GPU and no Triton here."""

from __future__ import annotations

import re
import sys
from functools import partial
from types import ModuleType

import pytest
import scipy  # noqa: F401 - an actor's process does without, this one does not

import engine
from engine.config.jobs import parse_job
from engine.device import choosing
from engine.device.choosing import host_bytes, settled
from engine.device.worker import Device
from engine.errors import ConfigError, DeviceError
from engine.execution.choose import choose_executor
from engine.execution.in_process import InProcessExecutor
from engine.formats.checkpoint import open_checkpoint
from engine.nouns.dtypes import DTYPES
from engine.nouns.events import Event, Placed
from engine.nouns.tasks import Outcome, Task
from engine.plan import MIB, Limits, Selection
from engine.plan.delta import plan_delta
from engine.plan.pairing import pair
from engine.sketch import Counter
from engine.tasks.count import CountBody
from engine.verbs.limits import limits_of
from tests.builders import patterns_of, write_tensors
from tests.tuning import config_of

NO_DRIVER = "cannot count on a GPU: there is no NVIDIA driver"


@pytest.fixture
def nothing(monkeypatch):
    """A machine without a driver."""
    monkeypatch.setattr(choosing, "_what_is_missing", lambda: "there is no NVIDIA driver")


def test_auto_asks_for_no_gpu_for_little():
    assert settled("auto", choosing.LEAST_BYTES - 1) == "cpu"
    assert settled("auto", choosing.LEAST_BYTES) == settled("auto", None) == "auto"
    assert settled("cuda", 1) == "cuda"
    assert settled("cpu", 1 << 60) == "cpu"


def test_a_worker_without_a_gpu_counts_on_the_cpu_and_says_nothing(nothing):
    device = Device("auto")
    assert isinstance(device.counter(DTYPES["BF16"]), Counter)
    assert (device.name, device.take_notes()) == ("cpu", ())


def test_a_gpu_that_was_asked_for_must_be_there(nothing):
    for ask in (
        lambda: Device("cuda"),
        lambda: CountBody("cuda"),
        lambda: InProcessExecutor(1, "cuda"),
        lambda: choose_executor(device="cuda"),
    ):
        with pytest.raises(ConfigError, match=NO_DRIVER) as caught:
            ask()
        assert caught.value.exit_code == 2


class Driver:
    """Stands for `claims` on a machine whose GPU is there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, unusable: bool) -> None:
        monkeypatch.setattr(choosing, "_what_a_gpu_lacks", lambda: None)
        module = ModuleType("engine.kernels.cuda.claims")
        module.next_gpu = lambda: ("cuda:0", "a GPU")  # type: ignore[attr-defined]
        module.use = self.use  # type: ignore[attr-defined]
        self.used: list[str] = []
        self.unusable = unusable
        monkeypatch.setitem(sys.modules, "engine.kernels.cuda.claims", module)

    def use(self, device: str) -> None:
        if self.unusable:
            raise RuntimeError("CUDA error: all devices are busy\nand more words")
        self.used.append(device)


def test_a_gpu_that_cannot_be_used_is_left_unless_it_was_asked_for(monkeypatch):
    Driver(monkeypatch, unusable=True)
    device = Device("auto")
    told = "the GPU cannot be used (CUDA error: all devices are busy): counting on the CPU"
    assert (device.name, device.is_direct, device.take_notes()) == ("cpu", False, (told,))
    assert isinstance(device.counter(DTYPES["BF16"]), Counter)
    with pytest.raises(DeviceError, match=r"cannot count on a GPU: CUDA error: all devices are busy$"):
        Device("cuda")


@pytest.mark.parametrize(
    ("module", "by"),
    [
        ("raise ImportError('libcufile.so.0: cannot open')", None),
        ("raise RuntimeError('no such device')", None),
        ("", ", and reading local files by kvikio"),
    ],
)
def test_a_kvikio_that_does_not_load_is_done_without(monkeypatch, tmp_path, module, by):
    (tmp_path / "kvikio.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "kvikio", raising=False)
    driver = Driver(monkeypatch, unusable=False)
    device = Device("auto")
    sys.modules.pop("kvikio", None)
    assert device.is_direct is (by is not None)
    assert driver.used == ["cuda:0"]
    notes = device.take_notes()
    assert notes[-1] == "counting on a GPU" + (by or "")
    assert by or re.fullmatch(r"kvikio does not load \(.+\): local files go by way of the host", notes[0])


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_what_fails_on_a_gpu_is_one_sentence(nothing, monkeypatch, device):
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access\nCompile with ...")

    body = CountBody("auto")
    body._device.name = device
    monkeypatch.setattr(body, "_scan", fail)
    kind = RuntimeError if device == "cpu" else DeviceError
    with pytest.raises(kind, match="CUDA error: an illegal memory access") as caught:
        body(Task(0, (), (), 8, 0))
    if device != "cpu":
        assert str(caught.value) == "cuda:0 failed: CUDA error: an illegal memory access"
        assert caught.value.exit_code == 3


def test_there_are_three_words(nothing):
    for make in (choose_executor, partial(choose_executor, "local")):
        with pytest.raises(ConfigError, match="unknown device 'tpu'; there are auto, cpu, cuda"):
            make(device="tpu")


def test_a_private_cluster_without_gpus_is_refused_before_it_is_started(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="the Ray cluster local gives its actors none"):
        choose_executor("local", 1, device="cuda")
    choose_executor("local", 1, device="auto")
    choose_executor("local", 1, device="cuda", gpu=True)  # nodes may come that have some
    with pytest.raises(ConfigError, match="gives its actors none"):
        choose_executor("local", 1, device="cuda", gpu=False)


def test_an_actor_says_on_which_machine_there_is_none(nothing, monkeypatch):
    from engine.execution import ray_worker
    from engine.execution.ray_pieces import cut

    monkeypatch.setattr(ray_worker, "few_arenas", lambda: None)  # this process goes on
    monkeypatch.setattr(ray_worker, "without_telemetry", lambda: None)
    with pytest.raises(ConfigError, match=rf"\S+ {re.escape(NO_DRIVER)}"):
        ray_worker.RayWorker().hello(*cut(partial(CountBody, "cuda")))


def test_memory_is_planned_where_a_gpu_might_count(monkeypatch):
    executor = InProcessExecutor(4, "auto")
    monkeypatch.setattr(choosing, "_what_is_missing", lambda: None)
    assert limits_of(executor, nbytes=10).device_bytes == 0
    found = limits_of(executor, nbytes=choosing.LEAST_BYTES)
    assert (found.device, found.device_bytes) == ("auto", 192 * MIB + 256 * MIB)
    assert host_bytes(4, processes=True) == (192 + 1024) * MIB
    monkeypatch.setattr(choosing, "_what_is_missing", lambda: "nothing there")
    assert limits_of(executor, nbytes=choosing.LEAST_BYTES).device_bytes == 0


@pytest.mark.parametrize(("tuned", "counters"), [(1, 4), (4, 4), (6, 6)])
def test_memory_is_planned_for_every_difference_at_a_time(tmp_path, tuned, counters):
    path = write_tensors(tmp_path / "m.safetensors", {"a": ("F32", patterns_of("F32", [1.0, 2.0]))})
    checkpoint = open_checkpoint(str(path))
    pairings = [pair(checkpoint, checkpoint, Selection())] * tuned
    given = host_bytes(1, processes=False)
    cpu, gpu = (plan_delta(pairings, Limits(device_bytes=b)).projected_bytes for b in (0, given))
    assert gpu - cpu == (1024 + 48 * counters) * MIB


def test_what_a_worker_says_comes_with_the_next_outcome_once(nothing, monkeypatch):
    body = CountBody("auto")
    body._device._note("counting on a GPU")
    body._device._note("counting on a GPU")
    empty = Task(0, (), (), 8, 0)
    assert body(empty) == Outcome(0, 0, (), ("counting on a GPU",))
    assert body(empty) == Outcome(0, 0, ())


def test_of_several_subjects_of_one_reading_it_is_said_once(tmp_path, nothing, monkeypatch):
    places = [tmp_path / f"{n}.safetensors" for n in range(3)]
    for number, place in enumerate(places):
        write_tensors(place, {"a": ("F32", patterns_of("F32", [1.0, 2.0 + number]))})
    real = CountBody.__init__

    def speaking(self, device="cpu"):
        real(self, device)
        self._device._note("counting on a GPU")

    monkeypatch.setattr(CountBody, "__init__", speaking)
    events: list[Event] = []
    engine.delta(*places, warehouse=tmp_path / "w.duckdb", workers=1, listener=events.append)
    assert [e.text for e in events if isinstance(e, Placed)] == ["counting on a GPU"]


# Configurations


def test_configurations_have_the_same_word():
    base = {"job": "scan", "checkpoints": ["x"]}
    assert parse_job(base, "c.yaml").run.device == "auto"
    assert parse_job(base | {"run": {"device": "cuda"}}, "c.yaml").run.device == "cuda"
    with pytest.raises(ConfigError, match=r"run\.device"):
        parse_job(base | {"run": {"device": "gpu"}}, "c.yaml")
    merge = {"job": "merge", "adapter": "a", "out": "o"}
    assert parse_job(merge, "c.yaml").run.device == "auto"
    with pytest.raises(ConfigError, match=r"run\.device: a merge has none"):
        parse_job(merge | {"run": {"device": "cuda"}}, "c.yaml")
    with pytest.raises(ConfigError, match="job: merge has no device"):
        engine.job(parse_job(merge, "c.yaml"), device="cuda")


def test_runs_have_it_beside_gpu():
    def run(**given: object):
        base = {"job": "tune", "model": "org/m", "methods": ["head"], "tasks": ["sst2"], "run": given}
        return config_of(base).run

    assert [run(device=d).on_gpus for d in ("auto", "cpu", "cuda")] == [None, False, True]
    assert run(gpu=True).on_gpus is True
    assert run(gpu=False, device="cpu").on_gpus is False
    with pytest.raises(ConfigError, match="device: cuda contradicts gpu: false"):
        run(gpu=False, device="cuda")


def test_weights_that_are_nowhere_whole_are_not_observed():
    given = {"job": "tune", "model": "org/m", "methods": ["head"], "tasks": ["sst2"], "observe": 3}
    assert config_of(given).observe == 3
    with pytest.raises(ConfigError, match="observe: weights that workers share are nowhere whole"):
        config_of(given | {"run": {"sharding": "fsdp"}})
