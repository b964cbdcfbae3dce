"""How many runs a cluster has room for, and with how many threads; no cluster is started."""

from __future__ import annotations

import pytest

from engine.errors import ConfigError
from engine.execution.ray_cluster import Resources
from engine.nouns.tuning import Means
from engine.tuning.trainer import Trainer

Nodes = tuple[tuple[float, float], ...]


def fitted(
    nodes: Nodes, runs: int, gpu: bool | None = None, *, private: bool = False, **wanted: int
) -> tuple[bool, int, int]:
    """Whether on GPUs, threads of a worker, and runs at once."""
    means = Trainer(Resources(nodes), private=private).fit_means(Means(**wanted), gpu, runs)
    return means.gpu, means.threads, means.parallel


@pytest.mark.parametrize(
    ("nodes", "runs", "wanted", "threads", "parallel"),
    [
        (((2, 0),), 5, {}, 1, 2),
        (((2, 0),), 1, {}, 2, 1),
        (((8, 0),) * 8, 3, {}, 8, 3),  # a third of 64 cores is on no machine
        (((8, 0),) * 8, 1, {}, 8, 1),
        (((8, 0),) * 8, 1, {"workers": 16}, 4, 1),
        (((8, 0), (4, 0)), 3, {}, 4, 3),
        (((8, 0), (4, 0)), 1, {"workers": 2}, 4, 1),
        (((0, 0), (5, 0), (5, 0)), 9, {"threads": 2}, 2, 4),  # not 5: no two machines share a worker
        (((8, 0),) * 8, 3, {"parallel": 2}, 8, 2),
        (((8, 0),), 9, {"parallel": 99}, 1, 8),
    ],
)
def test_every_worker_has_its_cores_on_one_machine(nodes, runs, wanted, threads, parallel):
    assert fitted(nodes, runs, **wanted) == (False, threads, parallel)


@pytest.mark.parametrize(
    ("nodes", "runs", "wanted", "threads", "parallel"),
    [
        (((8, 1),) * 4, 9, {}, 8, 4),
        (((8, 4), (8, 1), (32, 0)), 5, {}, 2, 5),
        (((8, 4), (8, 1), (32, 0)), 1, {}, 8, 1),
        (((1, 4),), 5, {}, 1, 1),  # three GPUs are left without a core
    ],
)
def test_and_its_gpu(nodes, runs, wanted, threads, parallel):
    assert fitted(nodes, runs, **wanted) == (True, threads, parallel)


def test_a_cluster_that_grows_is_asked_for_as_many_runs_as_are_said():
    head: Nodes = ((0, 0),)
    assert fitted(head, 40, True, parallel=8) == (True, 1, 8)
    assert fitted((), 3, True, parallel=8, threads=4) == (True, 4, 3)
    assert fitted((*head, (8, 1)), 40, True, parallel=8) == (True, 1, 8)  # one has come
    assert fitted((*head, *((8, 1),) * 8), 40, True, parallel=8) == (True, 8, 8)  # all have


@pytest.mark.parametrize(
    ("nodes", "gpu", "wanted", "private", "sentence"),
    [
        (((0, 0),), True, {}, False, "room for none: 0 cores and 0 GPUs on 1 machine; one that grows is asked by"),
        (((0, 0),), None, {"parallel": 8}, False, "a run takes a worker with a core; the cluster has room for none"),
        (((2, 0),), True, {"parallel": 8}, True, r"a core and a GPU; .* 2 cores and 0 GPUs on 1 machine$"),
        (((8, 0),) * 8, None, {"threads": 16}, False, "a worker with 16 cores; .* none: 64 cores .* on 8 machines"),
        (((8, 0),) * 2, None, {"threads": 5, "workers": 3}, False, "3 workers with 5 cores each; .* room for 2: 16"),
    ],
)  # fmt: skip
def test_without_room_for_a_run_nothing_begins(nodes, gpu, wanted, private, sentence):
    with pytest.raises(ConfigError, match=sentence):
        fitted(nodes, 4, gpu, private=private, **wanted)
