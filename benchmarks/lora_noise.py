"""Plain LoRA against LoRA with a scalar on the weights, (1 + s) W + B A (Alg. 1), on a causal model.

python benchmarks/lora_noise.py --data DIR [--commonsense DIR] [--pretrain 600] [--steps 200] [--seeds 5]
                                [--ranks 8] [--rates 1e-3,3e-3] [--folder DIR]

The first DIR has `sst2_train.tsv` of GLUE; it or the second `openbookqa` and `ARC-Challenge` in
LLM-Adapters' format, `.train.json` and `.test.json`. No pretrained causal model is needed: a small Llama
learns to write from the film reviews of SST-2, and is then adapted to the school questions of the others,
which it has to go on with from their first half. Both ways have the same examples, steps, rates and ranks; a
run for each of these and each seed. The scores are those of `gaussmeter tune`: the share of tokens that come
out right, in per cent, of questions that nobody trained on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from common import GAUSSMETER, preamble, table

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

_VOCABULARY, _WIDTH, _LAYERS, _LENGTH, _BATCH = 2048, 192, 4, 48, 32
_WAYS = ("lora", "lora_noise")
_TESTS = ("openbookqa", "ARC-Challenge")


def reviews(data: Path) -> list[str]:
    """What the model learns to write from."""
    lines = (data / "sst2_train.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [line.partition("\t")[2].strip() for line in lines]


def questions(path: Path) -> Iterator[dict[str, str]]:
    """The halves of questions, with their answers."""
    for row in json.loads(path.read_text(encoding="utf-8")):
        text = row["instruction"].partition(": ")[2].partition("\n\nAnswer format")[0]
        words = text.lower().replace("\n", " ").split()
        half = len(words) // 2
        yield {"prompt": " ".join(words[:half]), "completion": " " + " ".join(words[half:])}


def write_questions(data: Path, folder: Path) -> None:
    """JSON lines of the training sets together, and of each test set."""
    train = [row for name in _TESTS for row in questions(data / f"{name}.train.json")]
    random.Random(0).shuffle(train)
    parts = {"train": train, **{name: list(questions(data / f"{name}.test.json")) for name in _TESTS}}
    for name, rows in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def new_tokenizer(texts: list[str]) -> Any:
    """Byte pairs of the texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    letters = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<end>"]
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, special_tokens=special, initial_alphabet=letters, show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>")


def pretrain(data: Path, folder: Path, steps: int) -> float:
    """Write a small causal model that has learnt from the reviews; returns its last loss."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    texts = reviews(data)
    tokenizer = new_tokenizer(texts)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=_VOCABULARY, hidden_size=_WIDTH, intermediate_size=4 * _WIDTH,
            num_hidden_layers=_LAYERS, num_attention_heads=4, max_position_embeddings=256,
            tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=1,
        )
    )  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    stream = [
        t for text in random.Random(0).sample(texts, len(texts)) for t in [*tokenizer(text)["input_ids"], 1]
    ]
    rng, losses = random.Random(1), []
    for _ in range(steps):
        starts = [rng.randrange(len(stream) - _LENGTH) for _ in range(_BATCH)]
        ids = torch.tensor([stream[s : s + _LENGTH] for s in starts])
        loss = model(input_ids=ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return mean(losses[-20:])


def configuration(a: argparse.Namespace) -> dict[str, Any]:
    """The sweep."""
    ranks = [int(r) for r in a.ranks.split(",")]
    return {
        "job": "tune", "name": "lora-noise",
        "model": "./model", "output": "./runs", "warehouse": "stats.duckdb",
        "methods": [
            {"method": way, "label": f"{way}-{rate}", "ranks": ranks, "learning_rate": float(rate)}
            for way in _WAYS for rate in a.rates.split(",")
        ],
        "tasks": [{"task": "prompts", "train": "./train.jsonl", "test": {n: f"./{n}.jsonl" for n in _TESTS}}],
        "seeds": list(range(a.seeds)),
        "train": {
            "steps": a.steps, "batch": _BATCH, "max_length": 2 * _LENGTH, "warmup_steps": 20,
            "test_examples": 500,
        },
        "run": {"workers": 1, "threads": 1},
    }  # fmt: skip


def scores(folder: Path) -> list[dict[str, Any]]:
    """What the runs reached."""
    query = "SELECT label, method, r, seed, metric, value FROM run_scores WHERE status = 'complete'"
    command = [GAUSSMETER, "sql", query, "-w", str(folder / "stats.duckdb"), "-f", "json"]
    found: list[dict[str, Any]] = json.loads(subprocess.check_output(command, text=True))
    return found


def report(rows: list[dict[str, Any]], a: argparse.Namespace) -> str:
    """Both ways side by side, and the difference of the same seeds."""
    value = {(r["label"], r["r"], r["seed"], r["metric"]): r["value"] for r in rows}
    lines = []
    for metric in sorted({r["metric"] for r in rows if r["metric"].startswith(("score", "accuracy/"))}):
        for rank in (int(r) for r in a.ranks.split(",")):
            for rate in a.rates.split(","):
                both = [
                    [value[f"{way}-{rate}", rank, seed, metric] for seed in range(a.seeds)] for way in _WAYS
                ]
                gains = [ours - plain for plain, ours in zip(*both, strict=True)]
                shown = [f"{mean(v):.4f} ± {stdev(v):.4f}" for v in (*both, gains)]
                better = sum(gain > 0 for gain in gains)
                lines.append([metric, str(rank), rate, *shown, f"{better} of {a.seeds}"])
    return table(["metric", "rank", "rate", "lora", "lora_noise", "difference by seed", "larger"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--commonsense", type=Path, help="the folder of the questions, if it is another one")
    parser.add_argument("--pretrain", type=int, default=600)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ranks", default="8")
    parser.add_argument("--rates", default="1e-3,3e-3")
    parser.add_argument("--folder", type=Path)
    a = parser.parse_args()
    folder = a.folder or Path(tempfile.mkdtemp(prefix="lora-noise-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(preamble())
    if not (folder / "model").exists():
        write_questions(a.commonsense or a.data, folder)
        print(f"pretrained in {a.pretrain} steps to a loss of {pretrain(a.data, folder, a.pretrain):.3f}")
    (folder / "sweep.yaml").write_text(json.dumps(configuration(a)))
    command = [GAUSSMETER, "tune", "sweep.yaml", "--resume", "--quiet"]
    subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)
    print(report(scores(folder), a))


if __name__ == "__main__":
    main()
