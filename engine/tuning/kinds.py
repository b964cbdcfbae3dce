"""What models of a kind can do and hold, told from their `config.json` alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ENCODERS = frozenset(
    """
    albert bert bert-generation camembert canine convbert deberta deberta-v2 distilbert electra ernie esm
    eurobert flaubert funnel longformer modernbert mobilebert mpnet nomic_bert rembert roberta roformer
    squeezebert xlm-roberta xlm-roberta-xl
    """.split()  # noqa: SIM905 - a list of thirty lines says no more
)
"""Values of `model_type` of models that read in both directions, and so cannot write."""

_TRANSLATORS = frozenset(
    """
    fsmt led longt5 m2m_100 mt5 nllb-moe pegasus_x seamless_m4t seamless_m4t_v2 switch_transformers t5 t5gemma
    t5gemma2 umt5
    """.split()  # noqa: SIM905
)
"""Of models with an encoder and a decoder that transformers loads only together."""

_COUNTED = frozenset(
    """
    albert bert bert-generation big_bird biogpt codegen convbert ctrl distilbert electra ernie gpt2
    gpt_bigcode gpt_neo gptj megatron-bert mobilebert openai-gpt opt rembert roformer squeezebert
    """.split()  # noqa: SIM905
)
"""Of models with a table of positions, which has a row for each."""

_COUNTED_AFTER_PADDING = frozenset(
    """
    camembert data2vec-text ibert longformer mpnet roberta roberta-prelayernorm xlm-roberta xlm-roberta-xl
    xmod
    """.split()  # noqa: SIM905
)
"""The same, but the first position comes after the number of the padding token."""

_BIASED = ("deberta", "deberta-v2")  # have a table unless `position_biased_input` is false

Settings = Mapping[str, Any]


def why_no_writer(settings: Settings) -> str | None:
    """Why a model cannot go on with a text, None if it can.

    Args:
        settings: of its `config.json`.
    """
    names = settings.get("architectures") or []
    if settings.get("is_decoder") is True or any("CausalLM" in str(n) or "LMHead" in str(n) for n in names):
        return None
    kind = settings.get("model_type")
    if kind in _ENCODERS:
        return f"{kind} reads in both directions and cannot write"
    return f"{kind} writes what it reads anew, and cannot go on with it" if kind in _TRANSLATORS else None


def positions(settings: Settings) -> int | None:
    """How many tokens a model has positions for; None where they are relative, turned, or not known."""
    kind = settings.get("model_type")
    names = ("max_position_embeddings", "n_positions")
    found = next((n for name in names if type(n := settings.get(name)) is int), None)
    if found is None:
        return None
    if kind in _COUNTED_AFTER_PADDING:
        pad = settings.get("pad_token_id", 1)
        return found - pad - 1 if type(pad) is int else None
    biased = kind in _BIASED and settings.get("position_biased_input", True) is True
    return found if kind in _COUNTED or biased else None
