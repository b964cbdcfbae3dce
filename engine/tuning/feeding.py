"""Batches as a model takes them, and its loss: a sum, which becomes a mean over all workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.tuning.data.batches import Tokens, padded

_UNSEEN = -100


class Feed:
    """Makes batches of a task's examples.

    Args:
        tokens: the examples.
        kind: of the task.
        pad: the padding token.
        device: where batches go.
    """

    def __init__(self, tokens: Tokens, kind: str, pad: int, device: torch.device) -> None:
        self.tokens, self.kind, self._pad, self._device = tokens, kind, pad, device

    def inputs(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """What the model is given, (examples, longest) int64 each."""
        t = self.tokens
        ids = [t.ids[i] for i in indices]
        found = {
            "input_ids": padded(ids, self._pad),
            "attention_mask": padded([[1] * len(r) for r in ids], 0),
        }
        if t.types is not None:
            found["token_type_ids"] = padded([t.types[i] for i in indices], 0)
        return {name: self._put(value) for name, value in found.items()}

    def prompts(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Prompts alone, filled up on the left, for a model that goes on with them."""
        t = self.tokens
        assert t.prompts is not None
        ids = [t.ids[i][: t.prompts[i]] for i in indices]
        mask = padded([[1] * len(r) for r in ids], 0, left=True)
        return {"input_ids": self._put(padded(ids, self._pad, left=True)), "attention_mask": self._put(mask)}

    def targets(self, indices: Sequence[int]) -> Tensor:
        """Labels, scores, or for text the tokens that should be written, `_UNSEEN` elsewhere."""
        t = self.tokens
        if self.kind == "text":
            assert t.prompts is not None
            rows = [[_UNSEEN] * t.prompts[i] + t.ids[i][t.prompts[i] :] for i in indices]
            return self._put(padded(rows, _UNSEEN))
        found = np.asarray([t.labels[i] for i in indices])
        return self._put(found.astype(np.float32 if self.kind == "score" else np.int64))

    def _put(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def loss_sum(logits: Tensor, targets: Tensor, kind: str) -> Tensor:
    """The loss added up over examples, or over the tokens of completions; in float32.

    Args:
        logits: (examples, labels), or (examples, tokens, vocabulary).
        targets: see `Feed.targets`.
        kind: of the task.
    """
    logits = logits.float()
    if kind == "score":
        return functional.mse_loss(logits.squeeze(-1), targets, reduction="sum")
    if kind == "text":
        logits, targets = logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten()
    return functional.cross_entropy(logits, targets, ignore_index=_UNSEEN, reduction="sum")
