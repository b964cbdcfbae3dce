"""Names of one model's tensors in another: exact, wrapped, ambiguous, hostile."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.nouns.names import LONGEST_NAME
from engine.nouns.prefixes import bare, match_names, unwrapped

LLAMA = [
    "model.embed_tokens.weight",
    *(
        f"model.layers.{i}.{m}.weight"
        for i in range(3)
        for m in ("self_attn.q_proj", "mlp.down_proj", "input_layernorm")
    ),
    "model.norm.weight",
    "lm_head.weight",
]
BERT = [
    "embeddings.word_embeddings.weight",
    "encoder.layer.0.attention.self.query.weight",
    "pooler.dense.bias",
]


def wrapped(prefix: str) -> Callable[[str], str]:
    return lambda name: prefix + name


def peft(name: str) -> str:
    return "base_model.model." + name.replace("q_proj.weight", "q_proj.base_layer.weight")


def fsdp(name: str) -> str:
    return "_orig_mod." + name.replace(".self_attn", "._fsdp_wrapped_module.self_attn")


@pytest.mark.parametrize(
    "rename",
    [*map(wrapped, ("module.", "_orig_mod.", "base_model.model.", "module.module.", "_forward_module.")),
     peft, fsdp, *map(wrapped, ("language_model.", "model.language_model.", "llm.", "transformer.", "model."))],
)  # fmt: skip
def test_every_wrapper_comes_off_on_either_side(rename):
    other = [rename(name) for name in LLAMA]
    assert match_names(LLAMA, other) == dict(zip(LLAMA, other, strict=True))
    assert match_names(other, LLAMA) == dict(zip(other, LLAMA, strict=True))
    assert match_names([*map(peft, LLAMA)], other) == dict(zip(map(peft, LLAMA), other, strict=True))


@pytest.mark.parametrize(
    "prefix", ["bert.", "roberta.", "deberta.", "0.auto_model.", "auto_model.", "module.bert.", "mpnet."]
)
def test_the_models_own_name_comes_off(prefix):
    other = [prefix + name for name in BERT]
    assert match_names(other, BERT) == dict(zip(other, BERT, strict=True))
    assert set(match_names(["roberta." + name for name in BERT], other).values()) == set(other)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([], [], {}),
        (["x"], [], {}),
        (["x"], ["y"], {}),
        (["x", "model.x"], ["model.x", "x"], {"x": "x", "model.x": "model.x"}),  # exact first
        (["model.x"], ["x", "module.model.x"], {"model.x": "module.model.x"}),  # then wrappers only
        (["model.x", "bert.x"], ["x"], {}),  # which of the two?
        (["x"], ["model.x", "bert.x"], {}),
        (["x", "model.x"], ["bert.x"], {}),
        (["module.x", "_orig_mod.x"], ["x"], {}),
        (["x", "model.x"], ["x", "module.x"], {"x": "x"}),
        (["model.decoder.x"], ["decoder.x", "encoder.x"], {"model.decoder.x": "decoder.x"}),
        (["vision_model.x"], ["x"], {}),  # another tower is another model
        (["model.visual.x", "model.language_model.x"], ["model.x"], {"model.language_model.x": "model.x"}),
        (["a.model.x"], ["a.x"], {}),  # inside, `model` is a module
        (["modules.x"], ["x"], {}),
        (["mymodule.x"], ["x"], {}),
        (["module"], ["model"], {}),
        (["model.weight"], ["weight"], {"model.weight": "weight"}),
        (["12.auto_model.x"], ["x"], {"12.auto_model.x": "x"}),
        (["auto_model"], [""], {}),
        (["<b>\n'\"", "model.é\x00"], ["module.<b>\n'\"", "é\x00"], {"<b>\n'\"": "module.<b>\n'\"", "model.é\x00": "é\x00"}),
    ],
)  # fmt: skip
def test_what_is_ambiguous_or_unknown_is_left_alone(a, b, expected):
    assert match_names(a, b) == expected
    assert match_names(b, a) == {v: k for k, v in expected.items()}


def test_the_order_is_that_of_the_first_model():
    other = ["module." + name for name in reversed(LLAMA)]
    assert [*match_names(LLAMA, other)] == LLAMA


def test_short_forms():
    assert unwrapped("module.model.layers.0.q_proj.base_layer.weight") == "model.layers.0.q_proj.weight"
    assert bare("module.model.layers.0.q_proj.base_layer.weight") == "layers.0.q_proj.weight"
    assert bare("model.language_model.model.layers.0.x") == "layers.0.x"


def test_a_name_that_is_too_long_is_taken_as_it_is():
    long = "module." * LONGEST_NAME
    began = time.perf_counter()
    assert match_names([long], [long[7:]]) == {}
    assert match_names([long], [long]) == {long: long}
    assert bare("module." * 100 + "x") == "x"
    assert time.perf_counter() - began < 1


WORDS = st.sampled_from(["module", "model", "bert", "base_layer", "x", "y", "0", "auto_model", "", "weight"])
NAMES = st.lists(st.lists(WORDS, max_size=5).map(".".join), unique=True, max_size=12)


@given(NAMES, NAMES)
def test_a_match_is_one_to_one_symmetric_and_keeps_equal_names(a, b):
    found = match_names(a, b)
    assert len(set(found.values())) == len(found)
    assert found.keys() <= set(a)
    assert set(found.values()) <= set(b)
    assert all(found[name] == name for name in set(a) & set(b))
    assert match_names(b, a) == {v: k for k, v in found.items()}
    assert all(bare(x) == bare(y) for x, y in found.items())
