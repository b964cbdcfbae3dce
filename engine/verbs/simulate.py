"""`simulate`: the paper's simulation of weights under noise, as a subject like any other (App. B.2, C.6)."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import ConfigError
from engine.nouns.defaults import WAREHOUSE
from engine.nouns.events import Listener, ignore
from engine.nouns.records import Checkpoint, TensorInfo
from engine.nouns.simulation import LEVELS, MOST_POINTS, Simulation
from engine.statistics.summary import summarise
from engine.tasks.simulate import observe_level, optimum
from engine.warehouse.ingest import Finished, write_tensors
from engine.warehouse.queries import named_queries, run_query
from engine.warehouse.rows import Connection
from engine.warehouse.store import Warehouse
from engine.warehouse.subjects import Spec, begin, canonical, finish

_LEAST_POINTS = 1000
_MOST_LEVELS = 100


@dataclass(frozen=True, slots=True)
class Level:
    """One level of noise.

    Attributes:
        tensor: its name in the warehouse.
        noise: standard deviation of the noise.
        iqr_ratio: IQR / (1.349 sigma), 1 for a Gaussian.
        kurtosis_3s: within 3 sigma.
        shape_class: `line`, `inverted_t`, `sharp` or `gaussian`.
    """

    tensor: str
    noise: float
    iqr_ratio: float
    kurtosis_3s: float
    shape_class: str


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """What a simulation came to.

    Attributes:
        subject_id: its number in the warehouse.
        name: its name there.
        status: `simulated`, or `unchanged` if the same is there already.
        points: of each level.
        levels: in the order asked for.
        seconds: how long it took.
    """

    subject_id: int
    name: str
    status: str
    points: int
    levels: tuple[Level, ...]
    seconds: float


def simulate(
    *,
    seed: int = 42,
    points: int = 10_000_000,
    sigma: float = 0.1,
    levels: Sequence[float] = LEVELS,
    name: str | None = None,
    force: bool = False,
    warehouse: str | Path = WAREHOUSE,
    listener: Listener = ignore,
) -> SimulationReport:
    """Simulate optimal weights, add noise of several levels, and count each as a tensor of one subject.

    A fifth of the points is drawn from N(0, sigma^2), of which magnitudes below 0.001 and above 0.5 are set
    to zero, but for half a per cent, which are outliers in [0.6, 1]; all other points are zero.

    Args:
        seed: of numpy's generator; the same seed gives the same counts.
        points: how many weights.
        sigma: standard deviation of the optimal weights.
        levels: standard deviations of the noise.
        name: the subject's name; `simulation` by default.
        force: simulate again even what is there.
        warehouse: the DuckDB file, made when missing.
        listener: told while waiting for a writer.

    Returns:
        the shape class that each level has.

    Raises:
        ConfigError: a number that makes no sense.
        WarehouseError: see `engine.errors`.
    """
    began = time.monotonic()
    plan = _checked(Simulation(seed, points, sigma, tuple(float(level) for level in levels)))
    source, spec = _as_checkpoint(plan), {"simulation": asdict(plan)}
    store = Warehouse(warehouse, listener=listener)
    number = None if force else _known(store, source, spec)
    if number is not None:
        return _report(store, number, "unchanged", plan, began)
    finished = _count(plan, source)
    with store.writing() as connection:
        standing = begin(
            connection, source, name=name or source.name, spec=spec, force=force, kind="simulation"
        )
        if not standing.complete:
            write_tensors(connection, standing.subject_id, finished)
            finish(connection, standing.subject_id)
    return _report(store, standing.subject_id, "simulated", plan, began)


def _checked(plan: Simulation) -> Simulation:
    """Refuse numbers that make no sense."""
    if plan.seed < 0:
        raise ConfigError(f"a seed is not negative, as {plan.seed} is")
    if not _LEAST_POINTS <= plan.points <= MOST_POINTS:
        raise ConfigError(
            f"a simulation has between {_LEAST_POINTS:,} and {MOST_POINTS:,} points, not {plan.points:,}"
        )
    if not (math.isfinite(plan.sigma) and plan.sigma > 0):
        raise ConfigError(f"sigma must be positive, not {plan.sigma}")
    if not 0 < len(plan.levels) <= _MOST_LEVELS:
        raise ConfigError(f"a simulation has 1 to {_MOST_LEVELS} levels of noise, not {len(plan.levels)}")
    for level in plan.levels:
        if not (math.isfinite(level) and 0 <= level < 1e6):
            raise ConfigError(f"a level of noise is a standard deviation, not {level}")
    if len(set(plan.levels)) < len(plan.levels):
        raise ConfigError("a level of noise occurs twice")
    return plan


def _as_checkpoint(plan: Simulation) -> Checkpoint:
    """Describe a simulation as what the warehouse takes in: a checkpoint without files."""
    nbytes = 4 * plan.points
    tensors = tuple(TensorInfo(plan.tensor(x), "F32", plan.shape, 0, 0, nbytes) for x in plan.levels)
    text = canonical(asdict(plan))
    return Checkpoint(
        uri=f"simulation:seed={plan.seed},points={plan.points},sigma={plan.sigma!r}",
        name="simulation",
        format="simulation",
        files=(),
        tensors=tensors,
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
    )


def _known(store: Warehouse, source: Checkpoint, spec: Spec) -> int | None:
    """Number of the same simulation, if it is in the warehouse."""
    if not store.path.is_file():
        return None
    query = named_queries("verbs")["find_simulation"]
    given = {"fingerprint": source.fingerprint, "spec": canonical(spec)}
    with store.reading() as connection:
        rows = run_query(connection, query, given).rows
    return int(rows[0][0]) if rows else None


def _count(plan: Simulation, source: Checkpoint) -> list[Finished]:
    weights = optimum(plan)
    finished = []
    for ordinal, level in enumerate(plan.levels):
        sketch = observe_level(plan, weights, level)
        finished.append(Finished(ordinal, source.tensors[ordinal], sketch, summarise(sketch)))
    return finished


def _report(
    store: Warehouse, subject_id: int, status: str, plan: Simulation, began: float
) -> SimulationReport:
    with store.reading() as connection:
        name, levels = _levels(connection, subject_id)
    return SimulationReport(subject_id, name, status, plan.points, levels, time.monotonic() - began)


def _levels(connection: Connection, subject_id: int) -> tuple[str, tuple[Level, ...]]:
    query = named_queries("verbs")["simulation"]
    rows = run_query(connection, query, {"subject_id": subject_id}).rows
    return str(rows[0][0]), tuple(Level(*row[1:]) for row in rows)
