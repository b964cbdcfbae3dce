"""How long do vocabularies take, beside tokenizers and beside dictionaries?

python benchmarks/vocabularies.py [--tokens 250000] [--models 4] [--rounds 7]

Needs tokenizers. Reading: a `tokenizer.json` of as many tokens and twice as many merges, of which ours keeps
the ids and tokenizers makes a tokenizer; both give the same ids by token. Matching rows: models of the same
tokens, then with a tenth of them moved to the front, then in any order; the peer looks every row up in
dictionaries. Both give the same rows. Medians over the rounds, and medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from common import preamble, table
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.formats.vocabulary import parse_tokenizer
from engine.nouns.vocabulary import Vocabulary
from engine.plan.rows import RowMap, Table, map_rows

LETTERS = "abcdefghijklmnopqrstuvwxyzĠ▁éяשن字"


def spelled(count: int) -> list[str]:
    draw = random.Random(1)
    found: dict[str, None] = dict.fromkeys(LETTERS)
    while len(found) < count:
        found["".join(draw.choices(LETTERS, k=draw.randint(3, 9)))] = None
    return list(found)


def tokenizer_json(tokens: list[str]) -> bytes:
    draw = random.Random(2)
    ids = {token: i for i, token in enumerate(tokens)}
    merges = [draw.choices(LETTERS, k=2) for _ in range(2 * len(tokens))]
    for pair in merges:  # tokenizers wants the product of every merge among the tokens
        ids.setdefault("".join(pair), len(ids))
    model = {"type": "BPE", "vocab": ids, "merges": merges}
    return json.dumps(
        {"version": "1.0", "added_tokens": [], "model": model}, ensure_ascii=False, indent=2
    ).encode()


def by_dictionaries(tables: list[Table]) -> list[tuple[int | None, ...]]:
    vocabularies = [t.vocabulary.tokens for t in tables if t.vocabulary is not None]
    token_of = {row: token for token, row in vocabularies[0].items()}
    return [tuple(v.get(token_of[row]) for v in vocabularies) for row in range(tables[0].rows)]


def lines(found: RowMap) -> list[tuple[int | None, ...]]:
    return [
        tuple(None if start is None else start + i for start in segment.starts)
        for segment in found.segments
        for i in range(segment.count)
    ]


def compared(rounds: int, ours: Callable[[], Any], theirs: Callable[[], Any]) -> list[str]:
    """Medians of both in ms, and of the ratios of the rounds."""
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        spent = []
        for call in (ours, theirs):
            began = time.perf_counter()
            call()
            spent.append(time.perf_counter() - began)
        times.append((spent[0], spent[1]))
    medians = [median(t[i] for t in times) * 1e3 for i in (0, 1)]
    return [*(f"{m:,.0f}" for m in medians), f"{median(b / a for a, b in times):.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokens", type=int, default=250_000)
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    tokens = spelled(options.tokens)
    data = tokenizer_json(tokens)
    if parse_tokenizer(data, "x").tokens != Tokenizer.from_buffer(data).get_vocab():
        sys.exit("tokenizers and we read different ids")
    read = compared(
        options.rounds, lambda: parse_tokenizer(data, "x"), lambda: Tokenizer.from_buffer(data).get_vocab()
    )
    rows = [[f"reading {len(data) / 1e6:.0f} MB, against tokenizers", *read, ""]]
    tenth = options.tokens // 10
    orders = {
        "the same": tokens,
        "a tenth moved": tokens[-tenth:] + tokens[:-tenth],
        "any order": random.Random(3).sample(tokens, len(tokens)),
    }
    for name, order in orders.items():
        tables = [
            Table(
                str(i), len(tokens), Vocabulary({t: n for n, t in enumerate(listed)}, f"{i}/tokenizer.json")
            )
            for i, listed in enumerate([tokens, *[order] * (options.models - 1)])
        ]
        if lines(map_rows(tables, "base")) != by_dictionaries(tables):
            sys.exit(f"{name}: dictionaries and we find different rows")
        found = compared(
            options.rounds, lambda t=tables: map_rows(t, "base"), lambda t=tables: by_dictionaries(t)
        )
        rows.append(
            [f"rows of {options.models}, {name}", *found, f"{len(map_rows(tables, 'base').segments):,}"]
        )
    print(preamble())
    print(table(["what", "ours ms", "theirs ms", "ratio", "segments"], rows))


if __name__ == "__main__":
    main()
