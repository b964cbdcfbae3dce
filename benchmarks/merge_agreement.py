"""Do mergekit and we merge to the same bits, and where not, why? Every element is accounted for.

python benchmarks/merge_agreement.py [--venv DIR] [--folder DIR] [--methods ties ...] [--dtypes bf16 ...]

Needs torch, transformers and ml_dtypes. The same configurations are merged by `mergekit-yaml` and by us:
small models of a real architecture (`merge_samples.py`) in every dtype. Beside them stands a third value of
every element: what the rules of `merge_rules.py` give, which lead from our definition to mergekit's in steps.
An element that differs is filed under the step that moved it the farthest. One for which the rules do not end
at mergekit's bits, or do not begin at ours, is not explained, and the benchmark then ends with 1. `right` is
the share of elements that have the bits of the merge in float64, by our definition, rounded once.

All use one thread, because torch adds up a norm in an order that depends on how many there are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import merge_kept
import merge_rules
import merge_samples
import torch
from common import HERE, preamble, table
from merge_accounts import Account, account
from mergekit_peer import Mergekit, add_venv, install, write_config

import engine


@dataclass(frozen=True, slots=True)
class Dtypes:
    """What the models are stored in, and what the configuration says.

    Attributes:
        base: of the base.
        tuned: of the tuned models.
        dtype: that mergekit is to compute in, None for what the models have.
        out: that is to be written, None for the same.
    """

    base: str
    tuned: tuple[str, str, str]
    dtype: str | None = None
    out: str | None = None

    @property
    def inner(self) -> str:
        """What mergekit computes in."""
        return {"float32": "F32", "bfloat16": "BF16", None: self.base.upper()}[self.dtype]


CASES = {
    "f32": Dtypes("f32", ("f32", "f32", "f32")),
    "bf16": Dtypes("bf16", ("bf16", "bf16", "bf16")),
    "f16": Dtypes("f16", ("f16", "f16", "f16")),
    "mixed": Dtypes("bf16", ("f32", "f16", "bf16"), "bfloat16"),
    "bf16 by f32": Dtypes("bf16", ("bf16", "bf16", "bf16"), "float32", "bfloat16"),
    "f16 by f32": Dtypes("f16", ("f16", "f16", "f16"), "float32", "float16"),
    "mixed by f32": Dtypes("bf16", ("f32", "f16", "bf16"), "float32", "bfloat16"),
}
"""`by f32`: both compute in float32, `dtype: float32` and `out_dtype`; else mergekit in what is written."""

WEIGHTS = (0.5, 0.3, 0.4)
SEEDS = 5
FEW = 1000  # elements; so many are counted, more are a share
_BY_NAME = [
    {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
    {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
    {"value": 0.5},
]
METHODS: dict[str, dict[str, Any]] = {
    "linear": {},
    "task_arithmetic": {},
    "task_arithmetic, lambda": {"lambda": 1.3, "normalize": True},
    "ties": {"density": 0.5},
    "ties, lambda": {"density": [1, 0.7, 0.1], "lambda": 1.3},
    "ties, few": {"density": 0.003},
    "breadcrumbs": {"density": 0.9, "gamma": 0.01},
    "dare_linear, density 1": {"density": 1.0},
    "dare_ties, density 1": {"density": 1.0},
    "della, density 1": {"density": 1.0},
    "slerp": {"t": _BY_NAME},
    "model_stock": {},
}
"""Parameters by label, a label being the method and what is special."""

HEADER = (
    "method", "equal bits", "differ", "ulps at most", "ulps of the inputs", "because of (ulps of the inputs)",
    "not explained", "right: mergekit", "ours",
)  # fmt: skip


def config_of(label: str, dtypes: Dtypes, samples: Path) -> dict[str, Any]:
    """A configuration that both read."""
    method, parameters = label.partition(",")[0], METHODS[label]
    folders = [str(samples / f"tuned{k + 1}-{tag}") for k, tag in enumerate(dtypes.tuned)]
    models: list[dict[str, Any]] = [{"model": folder} for folder in folders]
    models = models[:1] if method == "slerp" else models
    if method not in ("slerp", "model_stock"):
        for model, weight in zip(models, WEIGHTS, strict=True):
            model["parameters"] = {"weight": weight}
    config: dict[str, Any] = {"merge_method": method, "models": models}
    if method != "linear":
        config["base_model"] = str(samples / f"base-{dtypes.base}")
    config |= {"parameters": parameters} if parameters else {}
    config |= {"dtype": dtypes.dtype} if dtypes.dtype else {}
    return config | ({"out_dtype": dtypes.out} if dtypes.out else {})


def run_mergekit(mergekit: Mergekit, jobs: list[tuple[Path, Path]], folder: Path, seed: int = 0) -> None:
    """Merge what is not merged yet, from configurations to folders."""
    left = [[str(c), str(o), "--quiet", "--random-seed", str(seed)] for c, o in jobs if not is_done(c, o)]
    listed = folder / "jobs.json"
    listed.write_text(json.dumps(left))
    words = [mergekit.python, str(HERE / "peers" / "mergekit_many.py"), str(listed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"mergekit ended with {done.returncode}\n{done.stderr[-2000:]}")


def is_done(config: Path, out: Path) -> bool:
    """Whether mergekit has merged this very configuration; of its files, the tokenizer comes last."""
    said = out / "mergekit_config.yml"
    same = said.exists() and said.read_text() == config.read_text()
    return same and (out / "tokenizer.json").exists()


def row_of(label: str, found: Account) -> list[str]:
    """A row of the table."""
    causes = [f"{step} {count:,} ({found.reach[step]:,.3g})" for step, count in found.filed.most_common()]
    return [
        label, f"{found.elements - found.differ:,}", f"{found.differ / found.elements:.3%}",
        f"{found.most:,}", f"{found.farthest:,.3g}", ", ".join(causes),
        f"{found.unexplained + found.broken:,}", *(f"{count / found.elements:.2%}" for count in found.right),
    ]  # fmt: skip


def agreement(mergekit: Mergekit, folder: Path, labels: list[str], cases: list[str]) -> int:
    """Print a table for each combination of dtypes, and one of all; how many elements are not explained."""
    jobs, found = {}, {}
    for case in cases:
        for label in labels:
            stem = f"{case} {label}".replace(" ", "-").replace(",", "")
            config = config_of(label, CASES[case], folder / "samples")
            jobs[case, label] = write_config(folder / f"{stem}.yaml", config), folder / stem
    run_mergekit(mergekit, list(jobs.values()), folder)
    for case in cases:
        for label in labels:
            path, merged = jobs[case, label]
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                found[case, label] = account(path, CASES[case].inner, merged, Path(scratch) / "ours")
        said = CASES[case]
        print(f"\n{case}: base {said.base}, tuned {', '.join(said.tuned)}\n")
        print(table(HEADER, [row_of(label, found[case, label]) for label in labels]))
    return summary(found, labels, cases)


def summary(found: dict[tuple[str, str], Account], labels: list[str], cases: list[str]) -> int:
    """Print what all configurations come to; how many elements are not explained."""
    filed: Counter[str] = sum((a.filed for a in found.values()), Counter())
    for step, said in merge_rules.SAID.items():
        if step in filed:
            print(f"- {step}: {said}: {filed[step]:,}")
    print("\nElements that differ:\n")
    rows = [[label, *(_share(found[case, label]) for case in cases)] for label in labels]
    print(table(["method", *cases], rows))
    wrong = sum(a.unexplained + a.broken for a in found.values())
    elements, differ = (sum(getattr(a, n) for a in found.values()) for n in ("elements", "differ"))
    print(f"{len(found)} configurations, {elements:,} elements, {differ:,} differ, {wrong:,} not explained\n")
    return wrong


def _share(found: Account) -> str:
    return f"{found.differ:,}" if found.differ < FEW else f"{found.differ / found.elements:.3%}"


def kept(mergekit: Mergekit, folder: Path) -> None:
    """Print how many elements trimming keeps, and dropping at random."""
    samples, results = folder / "samples", []
    for seed in range(SEEDS):
        jobs = {}
        for tag in merge_samples.DTYPES:
            config = {
                "merge_method": "dare_linear",
                "base_model": str(samples / f"base-{tag}"),
                "models": [{"model": str(samples / f"tuned1-{tag}"), "parameters": {"weight": 1.0}}],
                "parameters": {"density": merge_kept.DENSITY, "seed": seed},
            }
            stem = folder / f"dropped-{tag}-{seed}"
            jobs[tag] = write_config(stem.with_suffix(".yaml"), config), stem
        run_mergekit(mergekit, list(jobs.values()), folder, seed)
        for tag, (path, merged) in jobs.items():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                written = Path(scratch) / "ours"
                engine.merge(path, written, warehouse=written.with_suffix(".duckdb"))
                results.append((tag, merge_kept.weights(merged), merge_kept.weights(written)))
    print(merge_kept.trimmed(samples))
    print(f"dare_linear, one model of weight 1, {SEEDS} seeds:\n")
    print(merge_kept.dropped(samples, results))


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_venv(parser)
    parser.add_argument("--folder", type=Path, help="where models and results are kept; else they are not")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--dtypes", nargs="+", choices=CASES, default=list(CASES))
    a = parser.parse_args()
    torch.set_num_threads(1)
    mergekit = install(a.venv)
    versions = mergekit.versions()
    if versions["torch"] != torch.__version__:
        sys.exit(
            f"mergekit has torch {versions['torch']}, this is {torch.__version__}; they must be the same"
        )
    with tempfile.TemporaryDirectory(prefix="gaussmeter-bench-") as scratch:
        folder = a.folder or Path(scratch)
        if not (folder / "samples").exists():
            merge_samples.write(folder / "samples")
        print(preamble())
        print("Beside:", ", ".join(f"{name} {version}" for name, version in versions.items()))
        wrong = agreement(mergekit, folder, a.methods, a.dtypes)
        kept(mergekit, folder)
    sys.exit(f"{wrong:,} elements are not explained" if wrong else 0)


if __name__ == "__main__":
    main()
