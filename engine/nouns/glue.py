"""The eight tasks of GLUE that the paper adapts to: columns, labels, metrics, Table 10's hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Glue:
    """A task of GLUE.

    Attributes:
        title: the paper's word for it, and the folder's name in the benchmark's own archive.
        texts: the columns that are read, one or two.
        labels: words for the labels, in order; () for a score.
        metric: see `engine.tuning.metrics`.
        max_length: Table 10.
        learning_rate: likewise.
        epochs: likewise.
        test: the part that it is evaluated on.
        bare: columns of a file without a header, as (how many, their places by name).
        further: what Table 9 gives beside the metric; it is measured, and counts for nothing.
        torn: whether the archive's file has lines that lack columns; they are left out, as by other loaders.
    """

    title: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str
    max_length: int
    learning_rate: float
    epochs: int
    test: str = "validation"
    bare: tuple[int, dict[str, int]] | None = None
    further: tuple[str, ...] = ()
    torn: bool = False


_YES_NO = ("0", "1")
_ENTAILS = ("entailment", "not_entailment")
_PAIR = ("sentence1", "sentence2")
_COLA = (4, {"label": 1, "sentence": 3})
_STSB = (7, {"label": 4, "sentence1": 5, "sentence2": 6})

GLUE = {
    "mnli": Glue(
        "MNLI", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), "accuracy",
        256, 5e-4, 12, test="validation_matched",
    ),
    "sst2": Glue("SST-2", ("sentence",), _YES_NO, "accuracy", 128, 8e-4, 24),
    "cola": Glue("CoLA", ("sentence",), _YES_NO, "matthews", 64, 8e-4, 25, bare=_COLA),
    "qqp": Glue(
        "QQP", ("question1", "question2"), _YES_NO, "accuracy", 320, 1e-3, 5, further=("f1",), torn=True,
    ),
    "qnli": Glue("QNLI", ("question", "sentence"), _ENTAILS, "accuracy", 512, 5e-4, 5),
    "rte": Glue("RTE", _PAIR, _ENTAILS, "accuracy", 320, 1.2e-3, 50),
    "mrpc": Glue("MRPC", _PAIR, _YES_NO, "accuracy", 320, 1e-3, 30, further=("f1",)),
    "stsb": Glue("STS-B", _PAIR, (), "correlation", 128, 5e-4, 25, bare=_STSB),
}  # fmt: skip

ALIASES = {
    "sentence": ("sentence", "content", "text"),
    "sentence1": ("sentence1", "#1 String"),
    "sentence2": ("sentence2", "#2 String"),
    "premise": ("premise", "sentence1"),
    "hypothesis": ("hypothesis", "sentence2"),
    "label": ("label", "gold_label", "is_duplicate", "score", "Quality"),
}
"""Other words for a column, in files of different origin."""
