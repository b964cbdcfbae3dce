"""A large warehouse: how long a table of the paper takes, and how much room distributions need.

python benchmarks/warehouse.py [--subjects 1000] [--repeats 5] [--layout tinyllama-1.1b | --checkpoint DIR]

The first part fills a temporary warehouse with made-up rows, every subject with the tensors of a 32B
model, and times `gaussmeter paper table1` over it. The second scans a checkpoint of Gaussian weights and
measures what its bins take; from that follows the arithmetic for a 32B model.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from common import GAUSSMETER, checkpoint, measure, preamble, scan_command, table
from layouts import LAYOUTS

_BIG = "qwen2.5-32b"

# What Gaussian tensors would say; the filtered numbers differ from subject to subject.
_FILL = """
CREATE TEMP TABLE layout AS
SELECT unnest(range(len($names))) AS ordinal, unnest($names) AS name, unnest($parts) AS part,
       unnest($layers) AS layer, unnest($modules) AS module, unnest($roles) AS role, unnest($shapes) AS shape;

INSERT INTO subjects BY NAME
SELECT range + 1 AS subject_id, format('model-{:04}', range) AS name, 'checkpoint' AS kind,
       format('/models/{:04}', range) AS uri, '' AS revision, md5(range::VARCHAR) AS fingerprint,
       'safetensors' AS format, [] AS parent_ids, '{}' AS spec, 'benchmark' AS engine_version, 17 AS files,
       65527752704 AS bytes, now()::TIMESTAMP AS started_at, now()::TIMESTAMP AS finished_at,
       'complete' AS status
FROM range($subjects);

INSERT INTO tensors BY NAME
SELECT s.range + 1 AS subject_id, s.range * (SELECT count(*) FROM layout) + l.ordinal + 1 AS tensor_id,
       l.* EXCLUDE (std), 'BF16' AS dtype, 'bf16' AS coding, list_product(l.shape)::UBIGINT AS n,
       0 AS zeros, 0 AS nan, 0 AS pos_inf, 0 AS neg_inf, (n * 0.04)::UBIGINT AS small,
       -8 * std AS min, 8 * std AS max, 0.0 AS mean,
       n * std ** 2 AS m2, n * std ** 3 * 0.001 AS m3, n * std ** 4 * 3.2 AS m4, 0.0 AS error_bound,
       -3.09 * std AS p001, -2.33 * std AS p01, -1.64 * std AS p05, -0.674 * std AS p25, 0.0 AS p50,
       0.674 * std AS p75, 1.64 * std AS p95, 2.33 * std AS p99, 3.09 * std AS p999,
       10.0 + random() AS entropy, 10.9 AS gaussian_entropy, random() / 100 AS ks
FROM range($subjects) s, (SELECT *, 0.015 + 0.0005 * coalesce(layer, 0) AS std FROM layout) l;

INSERT INTO filtered BY NAME
SELECT tensor_id, sigmas, floor, (n * 0.995)::UBIGINT AS kept, 0.99 + random() / 100 AS ratio, 0.0 AS mean,
       sqrt(m2 / n) AS std, random() / 100 AS skewness, 2.8 + random() / 2 AS kurtosis, 0.0 AS error_bound
FROM tensors, unnest([3.0, 2.0]) a(sigmas), unnest([0.0, 0.001]) b(floor);
"""


def fill(path: Path, subjects: int) -> int:
    """Make a warehouse of made-up subjects; returns how many tensors it has."""
    from engine.nouns.names import place
    from engine.warehouse.store import Warehouse

    tensors = LAYOUTS[_BIG].tensors()
    places = [place(name) for name in tensors]
    values = {
        "names": list(tensors),
        "parts": [p.part for p in places],
        "layers": [p.layer for p in places],
        "modules": [p.module for p in places],
        "roles": [p.role for p in places],
        "shapes": [list(shape) for shape in tensors.values()],
        "subjects": subjects,
    }
    with Warehouse(path).writing() as connection:
        for statement in _FILL.split(";\n"):
            named = {k: v for k, v in values.items() if f"${k}" in statement}
            connection.execute(statement, named)
    return subjects * len(tensors)


def query_times(path: Path, subjects: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of the whole process, of opening the warehouse, and of the query alone."""
    from engine.warehouse.queries import named_queries, run_query
    from engine.warehouse.store import Warehouse

    command = [GAUSSMETER, "paper", "table1", "-f", "csv", "-w", str(path)]
    measure(command)
    processes = [measure(command).wall for _ in range(repeats)]
    query = named_queries("paper")["table1"]
    openings, queries = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        with Warehouse(path).reading() as connection:
            opened = time.perf_counter()
            answer = run_query(connection, query, {})
            queries.append(time.perf_counter() - opened)
        openings.append(opened - began)
        if len(answer.rows) != subjects:
            sys.exit(f"table1 has {len(answer.rows)} rows of {subjects} subjects")
    return {
        "paper table1, whole process": processes,
        "opening the warehouse": openings,
        "the query": queries,
    }


def questions(path: Path, subjects: int, repeats: int) -> str:
    """Table of times over the made-up warehouse."""
    began = time.perf_counter()
    tensors = fill(path, subjects)
    print(
        f"{subjects:,} subjects, {tensors:,} tensors, {4 * tensors:,} filter rows: {_mb(path)}, "
        f"filled in {time.perf_counter() - began:.1f} s.\n"
    )
    rows = [
        [name, *(f"{f(times):.3f}" for f in (min, median, max))]
        for name, times in query_times(path, subjects, repeats).items()
    ]
    return table([f"over {subjects:,} subjects", "min s", "median s", "max s"], rows)


def room(directory: Path, scratch: Path) -> str:
    """Sentences on what the bins of a scanned checkpoint take, and what those of a 32B model would."""
    from engine.warehouse.rows import first_row
    from engine.warehouse.store import Warehouse

    bare, path = scratch / "bare.duckdb", scratch / "scanned.duckdb"
    with Warehouse(bare).writing():
        pass
    measure(scan_command(directory, path))
    with Warehouse(path).reading() as connection:
        found = first_row(
            connection,
            "SELECT count(DISTINCT tensor_id) FILTER (m), count(*) FILTER (m), "
            "count(DISTINCT tensor_id) FILTER (NOT m), count(*) FILTER (NOT m) "
            "FROM (SELECT tensor_id, len(shape) > 1 AS m FROM bins JOIN tensors USING (tensor_id))",
        )
    assert found is not None
    matrices, matrix_bins, vectors, vector_bins = found
    bins, grown = matrix_bins + vector_bins, path.stat().st_size - bare.stat().st_size
    shapes = LAYOUTS[_BIG].tensors().values()
    many = sum(len(shape) > 1 for shape in shapes)
    rest = len(shapes) - many
    per_matrix, per_vector = matrix_bins / matrices, vector_bins / max(vectors, 1)
    expected = many * per_matrix + rest * per_vector
    return "\n".join([
        f"- scanned: {matrices} matrices with {per_matrix:,.0f} bins each, {vectors} vectors with "
        f"{per_vector:,.0f} each, {bins:,} bins",
        f"- warehouse: {_mb(path)}, of which {_mb(bare)} with nothing in it; {grown / bins:.1f} bytes a bin, "
        f"all other rows counted in; {grown / matrices:,.0f} bytes a matrix",
        f"- {_BIG} has {many + rest} tensors: {many} x {per_matrix:,.0f} + {rest} x {per_vector:,.0f} = "
        f"{expected / 1e6:.2f} million bins, x {grown / bins:.1f} bytes = "
        f"{expected * grown / bins / 1e6:.1f} MB, by arithmetic",
    ])  # fmt: skip


def _mb(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--subjects", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layout", choices=LAYOUTS, default="tinyllama-1.1b", help="to generate and scan")
    parser.add_argument("--checkpoint", type=Path, help="an existing directory instead")
    a = parser.parse_args()
    print(preamble())
    with tempfile.TemporaryDirectory(prefix="gaussmeter-bench-") as name:
        scratch = Path(name)
        print(questions(scratch / "many.duckdb", a.subjects, a.repeats))
        with checkpoint(a.layout, a.checkpoint) as directory:
            print(room(directory, scratch))


if __name__ == "__main__":
    main()
