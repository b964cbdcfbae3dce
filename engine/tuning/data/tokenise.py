"""Examples as token numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.tuning.data.batches import Tokens
from engine.tuning.data.examples import Example


def tokenise(tokenizer: Any, examples: Sequence[Example], kind: str, most: int) -> Tokens:
    """Turn examples into token numbers.

    Args:
        tokenizer: of transformers.
        examples: with one or two texts each.
        kind: of the task: `labels`, `score` or `text`.
        most: tokens of an example; longer texts are cut at their end, prompts at their beginning.
    """
    if kind == "text":
        return _completions(tokenizer, examples, most)
    texts = list(zip(*(e.texts for e in examples), strict=True))
    found = tokenizer(*(list(column) for column in texts), truncation=True, max_length=most)
    return Tokens(
        found["input_ids"], found.get("token_type_ids"), None, [example.label for example in examples]
    )


def _completions(tokenizer: Any, examples: Sequence[Example], most: int) -> Tokens:
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    prompts = tokenizer([e.texts[0] for e in examples])["input_ids"]
    completions = tokenizer([e.texts[1] for e in examples], add_special_tokens=False)["input_ids"]
    ids, lengths = [], []
    for prompt, completion in zip(prompts, completions, strict=True):
        written = [*completion, *end][: most - 1]
        kept = prompt[-(most - len(written)) :]
        ids.append([*kept, *written])
        lengths.append(len(kept))
    return Tokens(ids, None, lengths, [0.0] * len(ids))
