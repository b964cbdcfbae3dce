"""Models and tokenizers of transformers."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch
from torch import nn

from engine.nouns.tuning import RunSpec


def quiet() -> None:
    """Keep transformers from writing to the terminal."""
    from transformers.utils import logging as transformers_logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging: Any = transformers_logging  # has no types
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_tokenizer(run: RunSpec) -> Any:
    """The model's tokenizer; one without a padding token pads with the end of text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.model, revision=run.revision or None)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def load_model(run: RunSpec, tokenizer: Any) -> nn.Module:
    """The pretrained model in float32, with a head that is drawn from the run's seed."""
    import transformers as t

    torch.manual_seed(run.seed)
    common: dict[str, Any] = {"dtype": torch.float32, "revision": run.revision or None}
    model: nn.Module
    if run.task.kind == "text":
        model = t.AutoModelForCausalLM.from_pretrained(run.model, **common)
    else:
        problem = "regression" if run.task.kind == "score" else "single_label_classification"
        model = t.AutoModelForSequenceClassification.from_pretrained(
            run.model, num_labels=run.task.labels, problem_type=problem, **common
        )
    config: Any = model.config
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    if run.training.dropout >= 0:
        set_dropout(model, run.training.dropout)
    return model


def set_dropout(model: nn.Module, p: float) -> None:
    """Give every dropout of a model another probability, those that attention keeps as a number too."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = p
        for name in ("attention_dropout", "attn_dropout", "attention_probs_dropout_prob", "dropout_prob"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, p)


def recompute(model: Any) -> None:
    """Compute activations again in the backward pass."""
    model.config.use_cache = False
    if hasattr(model, "activation_checkpointing_enable"):  # the name since version 5
        model.activation_checkpointing_enable()
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def autocast(device: torch.device, precision: str) -> Any:
    """The context in which a model is run."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))
