"""The named queries: what their files declare, that they run on any warehouse, and what they answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import engine
from engine.warehouse.store import Warehouse
from tests.builders import patterns_of, values_of, write_tensors

SQL = Path(__file__).resolve().parents[2] / "sql"
QUERIES = sorted((SQL / "queries").glob("*.sql"))
PAPER = sorted((SQL / "paper").glob("*.sql"))
FILES = [pytest.param(path, id=path.stem) for path in QUERIES + PAPER]

PARAMETER = re.compile(r"-- param (?P<name>[a-z_]+) = (?P<default>[^:]+): \S.*")
COMMENT = re.compile(r"--.*")

Array = NDArray[Any]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Query:
    question: str
    defaults: dict[str, Any]
    sql: str


def read(path: Path) -> Query:
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    defaults = {}
    while match := PARAMETER.fullmatch(rest[0]):
        defaults[match["name"]] = default(match["default"])
        rest.pop(0)
    return Query(first, defaults, "\n".join(rest))


def default(text: str) -> Any:
    if text == "NULL":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


@dataclass
class Desk:
    """Where questions are asked of one warehouse."""

    connection: Any

    def ask(self, name: str, **given: Any) -> Rows:
        (path,) = [p for p in QUERIES + PAPER if p.stem == name]
        query = read(path)
        assert given.keys() <= query.defaults.keys()
        if path in PAPER:  # which take numbers, because several subjects may have one name
            means = {"subject", "baseline", "a", "b"} & given.keys()
            given |= {k: number(self.connection, given[k], missing=0) for k in means}
        cursor = self.connection.execute(query.sql, query.defaults | given)
        columns = [column[0] for column in cursor.description]
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]

    def first(self, name: str, **given: Any) -> dict[str, Any]:
        return self.ask(name, **given)[0]

    def names(self, name: str, **given: Any) -> list[str]:
        return [row["name"] for row in self.ask(name, **given)]


# The files


def test_there_are_enough_questions() -> None:
    assert len(QUERIES) >= 16
    assert {p.stem for p in PAPER} == {
        *(f"table{n}" for n in range(1, 12)),
        *("fig1", "fig3", "fig5", "fig6", "fig7", "scalars"),
    }


@pytest.mark.parametrize("path", FILES)
def test_a_file_asks_one_question_and_declares_the_parameters_that_it_uses(path: Path) -> None:
    assert re.fullmatch(r"[a-z0-9_]+", path.stem)
    query = read(path)
    assert re.fullmatch(r"-- [A-Z][^?]*\?", query.question)
    assert "-- param" not in query.sql, "a parameter line is malformed or out of its place"
    code = COMMENT.sub("", query.sql)
    assert set(re.findall(r"\$(\w+)", code)) == query.defaults.keys()
    assert "ORDER BY" in code
    assert code.count(";") == 1
    assert code.rstrip().endswith(";")
    if "LIMIT" in code:
        assert code.rstrip().endswith("LIMIT $limit;")


# The warehouses


def bf16(values: Array) -> tuple[str, Array]:
    return "BF16", patterns_of("BF16", values.ravel()).reshape(values.shape)


def floats(tensor: tuple[str, Array]) -> Array:
    return values_of(*tensor).ravel()


def gaussian(seed: int, sigma: float, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(0, sigma, shape)


def llama() -> dict[str, tuple[str, Array]]:
    """Eight layers; sigma grows with depth, but for one; with a head tied to the embedding."""
    rng = np.random.default_rng(1)
    tensors = {"model.embed_tokens.weight": bf16(gaussian(2, 0.02, 96, 64))}
    for layer in range(8):
        prefix = f"model.layers.{layer}"
        for i, module in enumerate(("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj")):
            sigma = 0.02 * (1 + layer / 8) * (3 if (layer, module) == (5, "mlp.up_proj") else 1)
            tensors[f"{prefix}.{module}.weight"] = bf16(gaussian(10 * layer + i, sigma, 64, 64))
        tensors[f"{prefix}.input_layernorm.weight"] = bf16(np.ones(64))
    heavy = gaussian(3, 0.02, 64, 64)
    heavy[0, :4] = 2.0
    tensors["model.layers.1.mlp.down_proj.weight"] = bf16(heavy)
    tensors["model.layers.2.mlp.down_proj.weight"] = bf16(rng.laplace(0, 0.02, (64, 64)))
    tensors["model.layers.3.mlp.down_proj.weight"] = bf16(rng.exponential(0.02, (64, 64)))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    return tensors


def tuned(base: Mapping[str, tuple[str, Array]]) -> dict[str, tuple[str, Array]]:
    """The model with one matrix scaled, its embedding longer and its head dropped."""
    tensors = {name: tensor for name, tensor in base.items() if name != "lm_head.weight"}
    name = "model.layers.4.self_attn.q_proj.weight"
    tensors[name] = bf16(1.5 * floats(base[name]).reshape(64, 64))
    tensors["model.embed_tokens.weight"] = bf16(gaussian(4, 0.02, 100, 64))
    return tensors


def damaged() -> dict[str, tuple[str, Array]]:
    """A bit of everything that a file can hold."""
    holes = np.where(np.arange(128) % 2 == 0, 0.5, np.nan)
    holes[1], holes[3], holes[5] = np.inf, np.inf, -np.inf
    four = np.tile([-0.5, -0.25, 0.25, 0.5], 64).reshape(16, 16)
    huge = gaussian(5, 1.0, 16, 16)
    huge[0, 0], huge[1, 0], huge[1, 1] = 1e6, 1e-12, -1e-12
    return {
        "holes.weight": ("F16", patterns_of("F16", holes).reshape(8, 16)),
        "nothing_left.weight": ("F32", np.full((2, 2), np.nan, "<f4")),
        "dead.weight": ("F32", np.zeros((8, 8), "<f4")),
        "constant.weight": ("F32", np.full((4, 8), 0.1, "<f4")),
        "dead.bias": bf16(np.zeros(8)),
        "four_values.weight": bf16(four),
        "huge.weight": bf16(huge),
        "tiny.weight": ("F32", gaussian(6, 1e-41, 8, 8).astype("<f4")),
        "double.weight": ("F64", gaussian(7, 1.0, 8, 8)),
        "eight.weight": ("F8_E4M3", patterns_of("F8_E4M3", gaussian(8, 1.0, 64)).reshape(8, 8)),
        "empty.weight": ("F32", np.zeros((0, 4), "<f4")),
        "scalar": ("F32", np.float32(0.0).reshape(())),
        "ids": ("I64", np.arange(6, dtype="<i8").reshape(2, 3)),
        "mask": ("BOOL", np.ones(4, np.uint8)),
        "packed": ("F4", np.zeros((2, 4), np.uint8)),
    }


def convnext() -> dict[str, tuple[str, Array]]:
    rng = np.random.default_rng(9)
    tensors = {"convnext.embeddings.patch_embeddings.weight": bf16(gaussian(20, 0.05, 16, 3, 4, 4))}
    for stage, layers in ((0, 2), (2, 11)):
        for layer in range(layers):
            prefix = f"convnext.encoder.stages.{stage}.layers.{layer}"
            for i, module in enumerate(("pwconv1", "pwconv2")):
                values = gaussian(100 * stage + 2 * layer + i, 0.02, 64, 16)
                if (stage, layer, module) == (2, 10, "pwconv1"):
                    values *= rng.random(values.shape) < 0.65
                tensors[f"{prefix}.{module}.weight"] = bf16(values)
                tensors[f"{prefix}.{module}.bias"] = bf16(gaussian(i, 0.1, 16))
    return tensors


def changes(layers: int, scale: float) -> dict[str, tuple[str, Array]]:
    """What was learnt: sigma grows with depth; the first key is frozen, half of each up projection did not change."""
    tensors = {}
    for layer in range(layers):
        for i, module in enumerate(("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj")):
            x = gaussian(500 + 10 * layer + i, scale * 1e-3 * (1 + layer), 64, 64)
            if module == "mlp.up_proj":
                x[:32] = 0
            if (layer, module) == (0, "self_attn.k_proj"):
                x[:] = 0
            tensors[f"model.layers.{layer}.{module}.weight"] = (
                "F32",
                patterns_of("F32", x.ravel()).reshape(64, 64),
            )
    return tensors


DERIVED = {  # kind, scale of sigma, parents, spec
    "learnt": ("delta", 1.0, ["model", "tuned"], {"base": "b", "tuned": "t"}),
    "stray": ("delta", 1.3, ["tuned"], {"base": "gone", "tuned": "<tuned>"}),
    "dash 16": ("adapter", 1.1, ["model"], {"adapter": "d", "base": "b", "method": "lora_dash", "r": 16}),
    "dora 16": ("adapter", 1.5, ["model"], {"adapter": "e", "base": "b", "method": "dora", "r": 16}),
    "dora 32": ("adapter", 2.0, [], {"adapter": "f", "base": None, "method": "dora", "r": 32}),
}


def derive(home: Path, warehouse: Path) -> None:
    """Subjects of the kinds delta and adapter, from checkpoints of their dW."""
    for name, (_, scale, _, _) in DERIVED.items():
        scan(write_tensors(home / f"{name}.safetensors", changes(3, scale)), warehouse, name)
    with Warehouse(warehouse).writing() as connection:
        for name, (kind, _, parents, spec) in DERIVED.items():
            (place,) = connection.execute("SELECT uri FROM subjects WHERE name = 'tuned'").fetchone()
            connection.execute(
                "UPDATE subjects SET kind = ?, parent_ids = ?, spec = ? WHERE name = ?",
                [
                    kind,
                    [number(connection, p) for p in parents],
                    json.dumps(spec).replace("<tuned>", place),
                    name,
                ],
            )
        for run_id, name in enumerate(("dash 16", "dash 16", "dora 16"), start=1):
            connection.execute(
                "INSERT INTO runs BY NAME SELECT ? AS run_id, 'run' AS name, ? AS subject_id",
                [run_id, number(connection, name)],
            )
        connection.execute(
            "INSERT INTO metrics VALUES (1, 10, 'score', 50), (1, 20, 'score', 75), (2, 10, 'score', 77), "
            "(3, 5, 'score', 60), (3, 6, 'loss', 1.5)"
        )
        for run_id, (method, task) in enumerate(
            [("noise", "sst2"), ("noise", "rte"), ("lora", "commonsense")], 11
        ):
            connection.execute(
                "INSERT INTO runs BY NAME SELECT ? AS run_id, 'x/y' AS name, 'x' AS sweep, 'm' AS model, ? AS label, "
                "? AS method, ? AS task, 0 AS r, 0 AS seed, 'complete' AS status",
                [run_id, method, method, task],
            )
            connection.execute(
                "INSERT INTO metrics VALUES (?, 1, 'score', 50), (?, 1, 'loss', 2)", [run_id, run_id]
            )
            connection.execute("INSERT INTO scalars VALUES (?, 'a.weight', 0.1)", [run_id])


def number(connection: Any, name: str, missing: int | None = None) -> int:
    row = connection.execute("SELECT subject_id FROM subjects WHERE name = ?", [name]).fetchone()
    assert row or missing is not None
    return int(row[0] if row else missing)


def scan(path: Path, warehouse: Path, name: str) -> None:
    engine.scan(path, warehouse=warehouse, name=name, workers=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("queries")


@pytest.fixture(scope="module")
def empty(home: Path) -> Iterator[Desk]:
    with Warehouse(home / "empty.duckdb").writing():
        pass
    with Warehouse(home / "empty.duckdb").reading() as connection:
        yield Desk(connection)


@pytest.fixture(scope="module")
def integers(home: Path) -> Iterator[Desk]:
    tensors = {"ids": ("I64", np.arange(6, dtype="<i8")), "table": ("U8", np.zeros((3, 4), np.uint8))}
    scan(write_tensors(home / "integers.safetensors", tensors), home / "integers.duckdb", "integers")
    with Warehouse(home / "integers.duckdb").reading() as connection:
        yield Desk(connection)


@pytest.fixture(scope="module")
def desk(home: Path) -> Iterator[Desk]:
    base = llama()
    checkpoints = {"model": base, "tuned": tuned(base), "damaged": damaged(), "convnext": convnext()}
    for name, tensors in checkpoints.items():
        path = write_tensors(home / f"{name}.safetensors", tensors)
        engine.scan(path, warehouse=home / "filled.duckdb", name=name, workers=1, iid=True)
    derive(home, home / "filled.duckdb")
    (home / "torn.safetensors").write_bytes((home / "model.safetensors").read_bytes()[:-1])
    engine.census([str(home / "torn.safetensors")], warehouse=home / "filled.duckdb", workers=1)
    with Warehouse(home / "filled.duckdb").writing() as connection:
        connection.execute(
            "INSERT INTO subjects BY NAME SELECT * REPLACE (99 AS subject_id, 'unfinished' AS name, "
            "NULL AS finished_at, 'running' AS status) FROM subjects WHERE subject_id = 1"
        )
        connection.execute(
            "INSERT INTO tensors BY NAME SELECT * REPLACE (99 AS subject_id, 1000 + tensor_id AS tensor_id) "
            "FROM tensors WHERE subject_id = 1"
        )
    with Warehouse(home / "filled.duckdb").reading() as connection:
        yield Desk(connection)


@pytest.fixture(scope="module")
def simulated(home: Path) -> Iterator[Desk]:
    engine.simulate(points=5000, levels=[0.01, 0.5], warehouse=home / "simulated.duckdb")
    with Warehouse(home / "simulated.duckdb").reading() as connection:
        yield Desk(connection)


OWN_NUMBERS = '[{"subject_id": 1, "number": 0, "model": "A", "kurtosis": 3.1}, {"number": 1, "model": "B"}]'
"""What `gaussmeter paper` passes on to queries that set the paper's numbers beside ours."""


# On any warehouse


@pytest.mark.parametrize("path", FILES)
def test_a_query_runs_on_an_empty_warehouse(path: Path, empty: Desk) -> None:
    assert empty.ask(path.stem) == []


LISTS_ALL = {
    "dtypes",
    "largest_tensors",
    "layer_summary",
    "not_counted",
    "role_summary",
    "subjects",
    "table1",
}


@pytest.mark.parametrize("path", FILES)
def test_a_query_runs_where_nothing_is_counted(path: Path, integers: Desk) -> None:
    rows = integers.ask(path.stem)
    assert bool(rows) == (path.stem in LISTS_ALL)
    if path.stem == "table1":
        (row,) = rows
        assert row["matrices"] == 0
        assert row["kurtosis"] is None


ELSEWHERE = {"observations", "table4"}
"""They are asked of runs and merges in test_run_queries and test_paper."""


@pytest.mark.parametrize("path", FILES)
def test_a_query_divides_by_no_zero_and_leaves_unfinished_subjects_out(
    path: Path, desk: Desk, simulated: Desk
) -> None:
    query = read(path)
    given = {"a": "model", "b": "tuned", "limit": None, "paper": OWN_NUMBERS}
    asked = simulated if path.stem == "fig7" else desk
    rows = asked.ask(path.stem, **{k: v for k, v in given.items() if k in query.defaults})
    assert rows or path.stem in ELSEWHERE
    assert all(name == name.lower() and name.isidentifier() for row in rows for name in row)
    legal = {
        "error_bound",
        "value",
        "low",
        "high",
    }  # a bound may be infinite, and a value that a tensor holds
    for row in rows:
        for column, value in row.items():
            assert column in legal or not isinstance(value, float) or math.isfinite(value), (column, row)
    if path.stem != "subjects":
        assert not any("unfinished" in row.values() for row in rows)


@pytest.mark.parametrize("path", FILES)
def test_subject_and_limit_choose_rows(path: Path, desk: Desk) -> None:
    query = read(path)
    every = {"limit": None} if "limit" in query.defaults else {}
    if "subject" in query.defaults:
        everything = desk.ask(path.stem, **every)
        for subject in ("model", "damaged", "nobody"):
            rows = desk.ask(path.stem, subject=subject, **every)
            here = [
                r for r in everything if subject in (r.get("subject"), r.get("subject_a"), r.get("subject_b"))
            ]
            assert len(rows) == len(here)
    if "limit" in query.defaults:
        given = {k: v for k, v in {"a": "model", "b": "tuned"}.items() if k in query.defaults}
        assert [*map(repr, desk.ask(path.stem, limit=1, **given))] == [
            *map(repr, desk.ask(path.stem, limit=None, **given)[:1])
        ]


# Shape


def test_a_planted_heavy_tail_comes_first(desk: Desk) -> None:
    row = desk.first("heaviest_tails", subject="model")
    assert row["name"] == "model.layers.1.mlp.down_proj.weight"
    x = floats(llama()[row["name"]])
    d = x - x.mean()
    assert row["kurtosis"] == pytest.approx((d**4).mean() / (d**2).mean() ** 2)


def test_a_far_element_is_measured_in_sigmas(desk: Desk) -> None:
    row = desk.first("widest_magnitudes", subject="model")
    assert row["name"] == "model.layers.1.mlp.down_proj.weight"
    x = floats(llama()[row["name"]])
    assert row["max_abs"] == 2
    assert row["max_abs_sigmas"] == pytest.approx(2 / x.std())


def test_the_skewed_matrix_comes_first(desk: Desk) -> None:
    assert desk.names("skewed_tensors", subject="model")[0] == "model.layers.3.mlp.down_proj.weight"


def test_departures_from_gaussian_put_the_exponential_and_the_laplace_first(desk: Desk) -> None:
    rows = desk.ask("departures_from_gaussian", subject="model", limit=3)
    assert {f"model.layers.{i}.mlp.down_proj.weight" for i in (2, 3)} <= {r["name"] for r in rows}
    assert {r["shape_class"] for r in rows} >= {"sharp"}


def test_roles_that_are_not_iid_are_named_with_what_departs(desk: Desk, tmp_path: Path) -> None:
    here = {r["role"]: r for r in desk.ask("iid", subject="model")}
    assert here["key"]["verdict"] == "i.i.d."
    assert (here["key"]["matrices"], here["key"]["distance_outside"]) == (8, 0)
    tensors = {}
    for layer in range(3):
        parts = {name: gaussian(700 + 10 * layer + i, 0.02, 96, 128) for i, name in enumerate("qkvo")}
        parts["q"][:, 1:] += 0.3 * parts["q"][:, :-1]
        parts["k"][5] *= 4
        parts["v"] += 0.6 * gaussian(layer, 0.1, 96, 1) @ gaussian(9 + layer, 1, 1, 128)
        for name, x in parts.items():
            tensors[f"model.layers.{layer}.self_attn.{name}_proj.weight"] = bf16(x)
    path = write_tensors(tmp_path / "planted.safetensors", tensors)
    engine.scan(path, warehouse=tmp_path / "w.duckdb", workers=1, spectrum=128)
    with Warehouse(tmp_path / "w.duckdb").reading() as connection:
        rows = {r["role"]: r for r in Desk(connection).ask("iid")}
    assert "neighbours in rows" in rows["query"]["verdict"].split(", ")
    assert "outlier rows" in rows["key"]["verdict"].split(", ")
    assert "low rank" in rows["value"]["verdict"].split(", ")
    assert rows["attention output"]["verdict"] == "i.i.d."
    assert rows["key"]["outlier_rows"] >= 3


def test_sharp_layers_name_the_role(desk: Desk) -> None:
    rows = {r["layer"]: r for r in desk.ask("sharp_layers", subject="model")}
    assert 0 not in rows
    assert (rows[2]["sharp"], rows[2]["matrices"], rows[2]["roles"]) == (1, 4, "output")


def test_outliers_are_where_they_were_planted(desk: Desk) -> None:
    row = desk.first("outlier_share", subject="model")
    assert (row["layer"], row["role"], row["matrices"]) in [(2, "output", 1), (3, "output", 1)]
    shares = {(r["layer"], r["role"]): r for r in desk.ask("outlier_share", subject="model", limit=None)}
    x = floats(llama()["model.layers.6.self_attn.k_proj.weight"])
    outside = (np.abs(x - x.mean()) > 3 * x.std()).mean()
    assert shares[6, "key"]["outlier_ratio"] == pytest.approx(outside)


# Depth and roles


def test_sigma_by_depth_is_the_sigma_of_each_layer(desk: Desk) -> None:
    rows = desk.ask("sigma_by_depth", subject="model", role="query")
    assert [r["layer"] for r in rows] == list(range(8))
    for row in rows:
        name = f"model.layers.{row['layer']}.self_attn.q_proj.weight"
        assert row["std"] == pytest.approx(floats(llama()[name]).std())
    assert all(b["std"] > a["std"] for a, b in pairwise(rows))


def test_the_odd_one_of_a_role_comes_first(desk: Desk) -> None:
    row = desk.first("odd_ones_out", subject="model")
    assert row["name"] == "model.layers.5.mlp.up_proj.weight"
    assert row["deviations"] > 3
    assert row["std"] > 2 * row["role_std"]


def test_summaries_by_role_and_layer_add_up_to_the_subject(desk: Desk) -> None:
    elements = sum(np.size(array) for _, array in llama().values())
    for name in ("role_summary", "layer_summary", "dtypes"):
        assert sum(r["n"] for r in desk.ask(name, subject="model")) == elements
    (pooled,) = [r for r in desk.ask("role_summary", subject="model") if r["role"] == "key"]
    x = np.concatenate([floats(t) for n, t in llama().items() if "k_proj" in n])
    assert (pooled["matrices"], pooled["std"]) == (8, pytest.approx(x.std()))


# Damage and structure


def test_dead_and_constant_tensors_are_found(desk: Desk) -> None:
    rows = desk.ask("dead_or_constant", subject="damaged")
    assert [(r["name"], r["kind"]) for r in rows] == [
        ("holes.weight", "constant"),
        ("dead.weight", "dead"),
        ("constant.weight", "constant"),
        ("dead.bias", "dead"),
    ]
    values = {r["name"]: r["value"] for r in rows}
    assert values["constant.weight"] == np.float32(0.1)
    norms = desk.names("dead_or_constant", subject="model")
    assert norms == [f"model.layers.{i}.input_layernorm.weight" for i in range(8)]


def test_non_finite_elements_are_counted(desk: Desk) -> None:
    rows = desk.ask("non_finite")
    assert [(r["name"], r["nan"], r["pos_inf"], r["neg_inf"]) for r in rows] == [
        ("holes.weight", 61, 2, 1),
        ("nothing_left.weight", 4, 0, 0),
    ]
    assert [r["non_finite_ratio"] for r in rows] == [0.5, 1]


def test_zeros_are_counted(desk: Desk) -> None:
    (row,) = [r for r in desk.ask("sparsity", subject="convnext") if "layers.10.pwconv1" in r["name"]]
    x = floats(convnext()[row["name"]])
    assert (row["zeros"], row["zero_ratio"]) == ((x == 0).sum(), (x == 0).mean())


def test_small_values_are_those_below_a_thousandth(desk: Desk) -> None:
    row = desk.first("small_values", subject="convnext")
    x = floats(convnext()[row["name"]])
    assert row["name"] == "convnext.encoder.stages.2.layers.10.pwconv1.weight"
    assert row["small_ratio"] == (np.abs(x) < 1e-3).mean()
    assert row["zero_ratio"] == (x == 0).mean()
    assert row["kurtosis_3s"] > row["kurtosis_3s_floor"]


def test_tensors_that_are_not_counted_say_why(desk: Desk) -> None:
    reasons = {r["name"]: r["reason"] for r in desk.ask("not_counted", subject="damaged")}
    assert reasons == {"ids": "integer", "mask": "boolean", "packed": "packed 4-bit float"}


def test_tied_weights_are_duplicates(desk: Desk) -> None:
    (row,) = desk.ask("duplicates", subject="model")
    assert set(row["names"]) == {"model.embed_tokens.weight", "lm_head.weight"}
    assert (row["copies"], row["n"]) == (2, 96 * 64)


def test_the_largest_tensor_has_its_bytes_and_share(desk: Desk) -> None:
    row = desk.first("largest_tensors", subject="tuned")
    total = sum(array.nbytes for _, array in tuned(llama()).values())
    assert (row["name"], row["bytes"]) == ("model.embed_tokens.weight", 100 * 64 * 2)
    assert row["share"] == pytest.approx(100 * 64 * 2 / total)
    sizes = {r["name"]: r["bytes"] for r in desk.ask("largest_tensors", subject="damaged")}
    assert (sizes["packed"], sizes["mask"], sizes["ids"], sizes["double.weight"]) == (8, 4, 48, 512)


def test_subjects_tell_what_was_scanned(desk: Desk) -> None:
    rows = {r["subject"]: r for r in desk.ask("subjects")}
    assert list(rows) == ["model", "tuned", "damaged", "convnext", *DERIVED, "unfinished"]
    assert (rows["damaged"]["tensors"], rows["damaged"]["counted"]) == (15, 12)
    assert rows["model"]["bytes"] == sum(array.nbytes for _, array in llama().values())
    assert rows["model"]["seconds"] >= 0
    assert (rows["unfinished"]["status"], rows["unfinished"]["seconds"]) == ("running", None)


def test_bytes_of_the_number_formats_add_up(desk: Desk) -> None:
    rows = {r["dtype"]: r for r in desk.ask("dtypes", subject="damaged")}
    (subject,) = desk.ask("subjects", subject="damaged")
    assert sum(r["bytes"] for r in rows.values()) == subject["bytes"]
    assert (rows["I64"]["counted"], rows["I64"]["n"], rows["F8_E4M3"]["bytes"]) == (0, 6, 64)


# Two subjects


def test_changed_tensors_are_those_that_were_tuned(desk: Desk) -> None:
    rows = desk.ask("changed_tensors", a="model", b="tuned")
    assert [r["name"] for r in rows] == [
        "model.layers.4.self_attn.q_proj.weight",
        "model.embed_tokens.weight",
    ]
    assert rows[0]["std_difference"] == pytest.approx(0.5 * rows[0]["std_a"], rel=1e-3)
    assert desk.ask("changed_tensors", a="model", b="model") == []
    assert desk.ask("changed_tensors", a="model", b="nobody") == []


def test_mismatched_tensors_differ_in_name_or_shape(desk: Desk) -> None:
    rows = desk.ask("mismatched_tensors", a="model", b="tuned")
    assert [(r["name"], r["shape_a"], r["shape_b"]) for r in rows] == [
        ("lm_head.weight", [96, 64], None),
        ("model.embed_tokens.weight", [96, 64], [100, 64]),
    ]


def test_a_tuned_model_is_related_to_its_base(desk: Desk) -> None:
    (row,) = desk.ask("related_subjects")
    assert (row["subject_a"], row["subject_b"], row["equal_tensors"]) == ("model", "tuned", 31)
    assert desk.ask("related_subjects", subject="convnext") == []


# Values


def test_exact_values_are_counted_one_by_one(desk: Desk) -> None:
    rows = desk.ask("exact_values", subject="damaged", tensor="four_values.weight")
    assert [(r["value"], r["n"], r["ratio"]) for r in rows] == [
        (v, 64, 0.25) for v in (-0.5, -0.25, 0.25, 0.5)
    ]
    assert all(r["low"] == r["value"] == r["high"] for r in rows)
    (zero,) = desk.ask("exact_values", subject="damaged", tensor="dead.bias")
    assert (zero["value"], zero["n"]) == (0, 8)


def test_few_distinct_values_come_first(desk: Desk) -> None:
    rows = {r["name"]: r for r in desk.ask("distinct_values", subject="damaged")}
    row = rows["four_values.weight"]
    assert (row["distinct_values"], row["bits"], row["entropy"]) == (4, 2, 2)
    x = floats(damaged()["huge.weight"])
    assert rows["huge.weight"]["distinct_values"] == len(np.unique(x))
    assert "double.weight" not in rows


def test_entropy_says_what_a_coder_needs(desk: Desk, home: Path) -> None:
    four = damaged()["four_values.weight"]
    scan(
        write_tensors(
            home / "four.safetensors", {"a.weight": four, "b.weight": ("F32", np.ones((4, 4), "<f4"))}
        ),
        home / "four.duckdb",
        "four",
    )
    with Warehouse(home / "four.duckdb").reading() as connection:
        (row,) = Desk(connection).ask("compressibility")
        entropies = {r["dtype"]: r["entropy"] for r in Desk(connection).ask("entropy_by_role")}
    assert (row["bytes"], row["coded_bytes"]) == (256 * 2 + 16 * 4, 256 * 2 / 8 + 16 * 2)
    assert row["saved_ratio"] == pytest.approx(1 - 96 / 576)
    assert entropies == {"BF16": 2, "F32": 0}


def test_elements_out_of_range_of_a_format_are_counted(desk: Desk) -> None:
    rows = {r["name"]: r for r in desk.ask("out_of_range", subject="damaged")}
    assert next(iter(rows)) == "huge.weight"
    assert (rows["huge.weight"]["too_large"], rows["huge.weight"]["too_small"]) == (1, 2)
    assert rows["tiny.weight"]["too_small"] == 64
    wide = {r["name"]: r for r in desk.ask("out_of_range", subject="damaged", largest=0.3, smallest=0)}
    assert wide["four_values.weight"]["too_large"] == 128


def test_quantiles_are_elements_in_order(desk: Desk) -> None:
    (row,) = [r for r in desk.ask("quantile_table", subject="model") if "0.self_attn.q_proj" in r["name"]]
    x = np.sort(floats(llama()[row["name"]]))
    assert (row["min"], row["max"]) == (x[0], x[-1])
    cuts = [row[c] for c in ("min", "p001", "p01", "p05", "p25", "p50", "p75", "p95", "p99", "p999", "max")]
    assert cuts == sorted(cuts)
    for column, p in (("p01", 0.01), ("p50", 0.5), ("p75", 0.75)):
        assert row[column] == pytest.approx(np.quantile(x, p))


@pytest.mark.parametrize("bins", [1, 7, 40])
def test_a_histogram_counts_every_element_in_its_range(desk: Desk, bins: int) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    rows = desk.ask("histogram", subject="model", tensor=name, bins=bins)
    (cuts,) = [r for r in desk.ask("quantile_table", subject="model") if r["name"] == name]
    x = floats(llama()[name])
    inside = x[(x >= cuts["p001"]) & (x <= cuts["p999"])]
    assert [r["bin"] for r in rows] == list(range(bins))
    assert sum(r["n"] for r in rows) == len(inside)
    assert rows[0]["low"] == cuts["p001"]
    assert rows[-1]["high"] == pytest.approx(cuts["p999"])
    for row in rows:
        slack = 1e-9 * (row["high"] - row["low"])
        at_least = ((inside >= row["low"] + slack) & (inside < row["high"] - slack)).sum()
        at_most = ((inside >= row["low"] - slack) & (inside <= row["high"] + slack)).sum()
        assert at_least <= row["n"] <= at_most
        assert row["ratio"] == row["n"] / len(x)
    if bins == 40:
        assert sum(r["gaussian_n"] for r in rows) == pytest.approx(0.998 * len(x), rel=0.01)
        assert rows[20]["gaussian_n"] == pytest.approx(rows[20]["n"], rel=0.3)


def test_a_histogram_without_spread_is_one_bin(desk: Desk) -> None:
    (row,) = desk.ask("histogram", subject="model", tensor="model.layers.0.input_layernorm.weight")
    assert (row["low"], row["high"], row["n"], row["gaussian_n"]) == (1, 1, 64, None)


# The filter and the paper's tables


def paper_numbers(x: Array, sigmas: float = 3, floor: float = 0) -> tuple[float, float, float]:
    """Ratio, skewness and kurtosis, as the paper defines them."""
    kept = x[(np.abs(x - x.mean()) <= sigmas * x.std()) & (np.abs(x) >= floor)]
    d = kept - kept.mean()
    m2 = (d**2).mean()
    return len(kept) / len(x), (d**3).mean() / m2**1.5, (d**4).mean() / m2**2


def test_a_sweep_at_three_sigma_is_the_stored_filter(desk: Desk) -> None:
    stored = {r["subject"]: r for r in desk.ask("table1")}
    for row in desk.ask("filter_sweep"):
        if row["sigmas"] == 3 and row["subject"] != "damaged":
            table = stored[row["subject"]]
            assert row["matrices"] == table["matrices"]
            assert 100 * row["ratio"] == pytest.approx(table["ratio_percent"], rel=1e-12)
            assert row["kurtosis"] == pytest.approx(table["kurtosis"], rel=1e-9)
            assert row["skewness"] == pytest.approx(table["skewness"], abs=1e-9)


@pytest.mark.parametrize("floor", [0, 1e-3])
def test_a_sweep_is_the_filter_at_every_threshold(desk: Desk, floor: float) -> None:
    matrices = [floats(t) for t in convnext().values() if t[1].ndim > 1]
    rows = desk.ask("filter_sweep", subject="convnext", floor=floor)
    assert [r["sigmas"] for r in rows] == [1, 1.5, 2, 2.5, 3, 4]
    for row in rows:
        ratio, skewness, kurtosis = np.mean(
            [paper_numbers(x, row["sigmas"], floor) for x in matrices], axis=0
        )
        assert row["ratio"] == pytest.approx(ratio)
        assert row["skewness"] == pytest.approx(skewness, abs=1e-9)
        assert row["kurtosis"] == pytest.approx(kurtosis)


def test_a_sweep_shows_what_a_gaussian_would_keep(desk: Desk) -> None:
    for row in desk.ask("filter_sweep", subject="convnext"):
        t = row["sigmas"]
        inside = math.erf(t / math.sqrt(2))
        edge = math.exp(-t * t / 2) / math.sqrt(2 * math.pi) / inside
        assert row["gaussian_ratio"] == pytest.approx(inside)
        fourth, variance = 3 - 2 * (t**3 + 3 * t) * edge, 1 - 2 * t * edge
        assert row["gaussian_kurtosis"] == pytest.approx(fourth / variance**2)


@pytest.mark.parametrize(("subject", "make"), [("model", llama), ("convnext", convnext)])
def test_table_1_is_the_paper_s(desk: Desk, subject: str, make: Callable[[], Any]) -> None:
    numbers = np.array([paper_numbers(floats(t)) for t in make().values() if t[1].ndim > 1])
    ratio, skewness, kurtosis = numbers.T
    (row,) = desk.ask("table1", subject=subject)
    assert list(row) == [
        "subject", "matrices", "ratio", "ratio_percent", "skewness", "skewness_std", "kurtosis", "kurtosis_std",
        "paper_model", "paper_ratio_percent", "paper_skewness", "paper_kurtosis", "paper_kurtosis_std",
    ]  # fmt: skip
    assert (row["subject"], row["matrices"]) == (subject, len(numbers))
    assert row["ratio_percent"] == pytest.approx(100 * ratio.mean())
    assert row["skewness"] == pytest.approx(skewness.mean())
    assert row["skewness_std"] == pytest.approx(skewness.std(ddof=1))
    assert row["kurtosis"] == pytest.approx(kurtosis.mean())
    assert row["kurtosis_std"] == pytest.approx(kurtosis.std(ddof=1))


def test_table_1_has_a_row_for_each_complete_subject(desk: Desk) -> None:
    assert [r["subject"] for r in desk.ask("table1")] == ["model", "tuned", "damaged", "convnext", *DERIVED]


def test_table_5_is_the_paper_s(desk: Desk) -> None:
    rows = desk.ask("table5", subject="convnext")
    places = [(r["part"], r["layer"], r["module"]) for r in rows]
    stages = [("stage 0", range(2)), ("stage 2", range(11))]
    assert places[:-1] == [(p, i, m) for p, layers in stages for i in layers for m in ("pwconv1", "pwconv2")]
    assert places[-1][1] is None
    for row in rows[:-1]:
        stage = row["part"].split()[1]
        x = floats(
            convnext()[f"convnext.encoder.stages.{stage}.layers.{row['layer']}.{row['module']}.weight"]
        )
        ratio, _, kurtosis = paper_numbers(x)
        assert row["ratio_3s"] == pytest.approx(ratio)
        assert row["kurtosis_3s"] == pytest.approx(kurtosis)
        assert row["kurtosis_3s_floor"] == pytest.approx(paper_numbers(x, floor=1e-3)[2])
        assert row["small_ratio"] == pytest.approx((np.abs(x) < 1e-3).mean())
        assert row["matrices"] == 1


def learnt(name: str) -> dict[str, Array]:
    return {n: floats(t) for n, t in changes(3, DERIVED[name][1]).items()}


def test_delta_stats_know_the_parents_and_what_changed(desk: Desk) -> None:
    cursor = desk.connection.execute("SELECT * FROM delta_stats ORDER BY subject_id, ordinal")
    columns = [c[0] for c in cursor.description]
    rows = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    known = {r["subject"]: (r["kind"], r["base"], r["tuned"], r["method"], r["r"]) for r in rows}
    assert known == {
        "learnt": ("delta", "model", "tuned", None, None),
        "stray": ("delta", None, "tuned", None, None),
        "dash 16": ("adapter", "model", None, "lora_dash", 16),
        "dora 16": ("adapter", "model", None, "dora", 16),
        "dora 32": ("adapter", None, None, "dora", 32),
    }
    for row in rows:
        x = learnt(row["subject"])[row["name"]]
        assert (row["zeros"], row["n"], row["frozen"]) == ((x == 0).sum(), x.size, not x.any())
        assert row["zero_ratio"] + row["changed_ratio"] == 1
        assert row["std"] == pytest.approx(x.std())
        base = floats(llama()[row["name"]]).std() if row["base"] else None
        assert row["relative_std"] == (base and pytest.approx(x.std() / base))


def test_table_6_is_the_paper_s(desk: Desk) -> None:
    rows = {r["subject"]: r for r in desk.ask("table6")}
    assert rows.keys() == DERIVED.keys()
    for name, row in rows.items():
        numbers = np.array([paper_numbers(x) for x in learnt(name).values() if x.any()])
        ratio, skewness, kurtosis = numbers.T
        assert row["matrices"] == len(numbers) == 8
        assert row["ratio_percent"] == pytest.approx(100 * ratio.mean(), abs=1e-2)
        assert row["skewness"] == pytest.approx(skewness.mean(), abs=2e-3)
        assert row["skewness_std"] == pytest.approx(skewness.std(ddof=1), abs=2e-3)
        assert row["kurtosis"] == pytest.approx(kurtosis.mean(), abs=2e-2)
        assert row["kurtosis_std"] == pytest.approx(kurtosis.std(ddof=1), abs=2e-2)
    assert (rows["dora 16"]["paper_kurtosis"], rows["dash 16"]["paper_ratio_percent"]) == (3.29, 99.3)
    assert rows["learnt"]["paper_kurtosis"] is None


def gap(a: str, b: str) -> float:
    return float(
        np.mean([abs(x.std() - y.std()) for x, y in zip(learnt(a).values(), learnt(b).values(), strict=True)])
    )


def test_table_7_pairs_two_methods_of_one_rank(desk: Desk) -> None:
    (row,) = desk.ask("table7")
    assert (row["r"], {row["subject_a"], row["subject_b"]}) == (16, {"dash 16", "dora 16"})
    assert (row["method_a"], row["method_b"], row["matrices"]) == ("dora", "lora_dash", 9)
    assert row["std_gap_e4"] == pytest.approx(1e4 * gap("dash 16", "dora 16"))
    assert (row["score_a"], row["score_b"], row["score_gap"]) == (
        60,
        76,
        16,
    )  # last values, mean of two seeds
    assert row["paper_std_gap_e4"] == 81
    assert desk.ask("table7", metric="loss")[0]["score_b"] is None
    (row,) = desk.ask("table7", a="learnt", b="dora 32")
    assert (row["r"], row["std_gap"]) == (None, pytest.approx(gap("learnt", "dora 32")))
    assert [r["subject_b"] for r in desk.ask("table7", a="dash 16")] == ["dora 16"]


def test_figure_5_sets_sigma_against_scores(desk: Desk) -> None:
    given = {"learnt": 80, "stray": 79, "dash 16": 79.5, "dora 16": 77, "dora 32": 70}
    scores = json.dumps([{"subject_id": number(desk.connection, n), "score": s} for n, s in given.items()])
    rows = desk.ask("fig5", baseline="learnt", scores=scores)
    assert [r["subject"] for r in rows] == ["dash 16", "dora 16", "dora 32"]  # not stray, of another base
    gaps = [gap("learnt", r["subject"]) for r in rows]
    assert [r["std_gap"] for r in rows] == pytest.approx(gaps)
    assert [r["score_gap"] for r in rows] == [0.5, 3, 10]
    assert rows[0]["correlation"] == pytest.approx(np.corrcoef(gaps, [0.5, 3, 10])[0, 1])
    assert len(desk.ask("fig5")) == 5 * 4 - 2 * 3
    assert {r["subject"] for r in desk.ask("fig5", baseline="model")} == {"tuned"}  # weights among weights
    (row,) = desk.ask("fig5", baseline="dash 16", subject="dora 16")
    assert (row["score"], row["score_gap"], row["correlation"]) == (60, 16, None)


def test_figure_6_is_sigma_by_depth_and_module(desk: Desk) -> None:
    rows = desk.ask("fig6", subject="learnt")
    assert [(r["module"], r["layer"]) for r in rows] == [
        (m, i) for m in ("mlp.up_proj", "self_attn.k_proj", "self_attn.q_proj") for i in range(3)
    ]
    for row in rows:
        x = learnt("learnt")[f"model.layers.{row['layer']}.{row['module']}.weight"]
        assert row["std"] == pytest.approx(x.std())
        assert row["changed_ratio"] == (x != 0).mean()


def test_numbers_that_may_be_off_are_those_of_wide_floats(desk: Desk) -> None:
    rows = [r for r in desk.ask("inexact_numbers", limit=None) if r["subject"] not in DERIVED]
    assert rows
    assert {r["name"] for r in rows} <= {f"{n}.weight" for n in ("dead", "constant", "tiny", "double")} | {
        "scalar"
    }
    bounds = [r["error_bound"] for r in rows]
    assert bounds == sorted(bounds, reverse=True)
