"""Tiny models with tokenizers, and files of examples that can be learnt, all built on the spot."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml

from engine.config.strict import validate
from engine.config.tune import TuneConfig
from engine.nouns.tuning import RunSpec
from engine.tuning.sweep import runs_of

WORDS = [f"w{i}" for i in range(60)] + [
    "good",
    "bad",
    "fine",
    "awful",
    "true",
    "false",
    "the",
    "answer",
    "is",
]
GOOD, BAD = ("good", "fine"), ("bad", "awful")


def make_bert(folder: Path, *, layers: int = 2, size: int = 32, dropout: float = 0.1) -> Path:
    """A model that reads in both directions, with random weights."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS) + 5, hidden_size=size, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=2 * size, max_position_embeddings=64, initializer_range=0.15,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    _tokenizer("[PAD]", "[CLS]", "[SEP]").save_pretrained(folder)
    return folder


def make_gpt2(folder: Path, *, layers: int = 2, size: int = 32) -> Path:
    """A model that writes, with random weights."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(WORDS) + 5, n_embd=size, n_layer=layers, n_head=4, n_positions=64,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=2, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    _tokenizer("[PAD]", None, "[SEP]").save_pretrained(folder)
    return folder


def make_llama(folder: Path, *, layers: int = 2, size: int = 32) -> Path:
    """Another one, whose embeddings are not tied, with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS) + 5, hidden_size=size, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=2 * size, max_position_embeddings=64, initializer_range=0.15,
        tie_word_embeddings=False, bos_token_id=2, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    _tokenizer("[PAD]", None, "[SEP]").save_pretrained(folder)
    return folder


def _tokenizer(pad: str, start: str | None, end: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if start is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
        )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        cls_token=start,
        sep_token=end,
        eos_token=end,
        unk_token="[UNK]",
    )


def sentence(rng: random.Random, label: int) -> str:
    words = rng.choices(WORDS[:60], k=rng.randint(2, 9))
    words.insert(rng.randrange(len(words)), rng.choice(GOOD if label else BAD))
    return " ".join(words)


def make_data(folder: Path, *, train: int = 96, dev: int = 40) -> Path:
    """SST-2 and CoLA, of which the label is a word; STS-B; and prompts."""
    rng = random.Random(1)
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("dev", dev)):
        labels = [i % 2 for i in range(count)]
        rows = [f"{label}\t{sentence(rng, label)}" for label in labels]
        (folder / f"sst2_{part}.tsv").write_text("\n".join(["label\tsentence", *rows]) + "\n")
        rows = [f"src\t{label}\t\t{sentence(rng, label)}" for label in labels]
        (folder / f"cola_{part}.tsv").write_text("\n".join(rows) + "\n")
        rows = []
        for _ in range(count):
            a, b = rng.randrange(2), rng.randrange(2)
            rows.append(f"g\tf\ty\t0\t{5.0 * (a == b)}\t{sentence(rng, a)}\t{sentence(rng, b)}\textra")
        (folder / f"stsb_{part}.tsv").write_text("\n".join(rows) + "\n")
        records = [
            {"prompt": sentence(rng, label), "completion": f" the answer is {'true' if label else 'false'}"}
            for label in labels
        ]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        boolq = [
            {
                "instruction": r["prompt"],
                "input": "",
                "output": r["completion"].strip(),
                "answer": r["completion"].split()[-1],
            }
            for r in records
        ]
        name = "commonsense_170k.json" if part == "train" else "boolq.test.json"
        (folder / name).write_text(json.dumps(boolq))
    return folder


def settings(model: Path, data: Path, folder: Path, **more: Any) -> dict[str, Any]:
    """A sweep of one short run."""
    return {
        "job": "tune", "name": "try", "model": str(model), "data": str(data), "output": str(folder / "runs"),
        "warehouse": str(folder / "w.duckdb"), "methods": ["noise"], "tasks": ["sst2"],
        "train": {"epochs": 1, "batch": 16, "max_length": 24, "learning_rate": 1e-2},
    } | more  # fmt: skip


def config_of(settings: dict[str, Any]) -> TuneConfig:
    return validate(settings, TuneConfig, "tune.yaml")


def one_run(settings: dict[str, Any]) -> RunSpec:
    (run,) = runs_of(config_of(settings))
    return run


def write_config(path: Path, settings: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(settings))
    return path


class Alone:
    """A session of one process, which remembers everything."""

    rank, workers = 0, 1

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        import torch

        self.device = torch.device("cpu")
        self.state, self.kept, self.told, self.seen = state, [], [], []

    def wrap(self, model: Any) -> Any:
        return model

    def last(self) -> dict[str, Any] | None:
        return self.state

    def keep(self, step: int, state: dict[str, Any]) -> None:
        import io

        import torch

        file = io.BytesIO()
        torch.save(state, file)  # as a worker does: not everything that can be copied can be read again
        file.seek(0)
        self.kept.append((step, torch.load(file, weights_only=True)))

    def tell(self, step: int, metrics: dict[str, float]) -> None:
        self.told.append((step, metrics))

    def observe(self, step: int, weights: dict[str, Any]) -> None:
        self.seen.append((step, {name: value.clone() for name, value in weights.items()}))

    def losses(self) -> list[float]:
        return [m["loss"] for _, m in self.told if "loss" in m]
