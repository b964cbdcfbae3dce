"""Opening adapters: what their files say, and everything that is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import ConfigError, FormatError
from engine.formats.adapters import open_adapter
from engine.plan import Selection
from engine.plan.adapters import take_stock
from tests.adapters import PREFIX, SETTINGS, factors, magnitudes, open_all, tensor, write_adapter
from tests.builders import pack_tensors, write_tensors

Q = factors("h.0.q", 30, 20)
A, B = Q
DASH = {
    f"{PREFIX}h.0.q.lora_index.weight": tensor("F32", 1, 8, seed=5),
    f"{PREFIX}h.0.q.lora_w_u": tensor("F32", 30, 8, seed=6),
    f"{PREFIX}h.0.q.lora_w_vt": tensor("F32", 8, 20, seed=7),
}


def opened(directory: Path, tensors: Any = Q, **settings: Any) -> Any:
    return open_adapter(str(write_adapter(directory, tensors, **settings)))


# What is read


def test_what_an_adapter_says(tmp_path):
    adapter = opened(tmp_path / "mine")
    (module,) = adapter.modules
    assert (adapter.name, adapter.uri) == ("mine", str(tmp_path / "mine"))
    assert (adapter.method, adapter.r, adapter.base) == ("lora", 4, "some/base")
    assert (module.name, module.shape, module.rank, module.scale) == ("h.0.q.weight", (30, 20), 4, 2.0)
    assert not (adapter.saved)
    assert not (adapter.others)
    assert not module.transposed


def test_a_file_of_it_is_the_adapter_too(tmp_path):
    whole = opened(tmp_path)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert open_adapter(str(tmp_path / name)) == whole


def test_the_fingerprint_follows_settings_and_weights(tmp_path):
    prints = {
        opened(tmp_path / "a").fingerprint,
        opened(tmp_path / "b", lora_alpha=4).fingerprint,
        opened(tmp_path / "c", factors("h.0.q", 30, 21)).fingerprint,
    }
    assert len(prints) == 3
    assert open_adapter(str(tmp_path / "a")).fingerprint in prints


@pytest.mark.parametrize(
    ("settings", "more", "method"),
    [
        ({}, {}, "lora"),
        ({"use_rslora": True}, {}, "rslora"),
        ({"use_dora": True}, magnitudes("h.0.q", 30), "dora"),
        ({"use_dora": True, "use_rslora": True}, magnitudes("h.0.q", 30), "dora"),
        ({}, DASH, "lora_dash"),
        ({"lora_use_dash": True}, DASH, "lora_dash"),
        (
            {"peft_type": "DORA"},
            {f"{PREFIX}h.0.q.weight_m_wdecomp.weight": tensor("F32", 30, 1, seed=1)},
            "dora",
        ),
    ],
    ids=str,
)
def test_methods(settings, more, method, tmp_path):
    adapter = opened(tmp_path, Q | more, **settings)
    assert adapter.method == method
    assert adapter.modules[0].scale == (4.0 if settings.get("use_rslora") else 2.0)
    assert not adapter.others


SPELLINGS = [
    ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector"),
    ("lora_A.default.weight", "lora_B.default.weight", "lora_magnitude_vector.default.weight"),
    ("lora_A.mine.weight", "lora_B.mine.weight", "lora_magnitude_vector.mine"),
    ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector.weight"),
    ("lora_A", "lora_B", "lora_magnitude_vector"),
]


@pytest.mark.parametrize("prefix", [PREFIX, ""])
@pytest.mark.parametrize("names", SPELLINGS, ids=str)
def test_spellings(names, prefix, tmp_path):
    pairs = [Q[A], Q[B], tensor("F32", 30, seed=3)]
    state = {f"{prefix}h.0.q.{name}": pair for name, pair in zip(names, pairs, strict=True)}
    (module,) = opened(tmp_path, state, use_dora=True).modules
    assert module.name == "h.0.q.weight"
    assert module.magnitude is not None


def test_patterns_match_the_end_of_a_path(tmp_path):
    ranks = {"h.0.q": 2, "1.q": 3, r"h\.[23]\.v": 5, "unused": 9}
    state: dict[str, Any] = {}
    expected = {"h.0.q": 2, "h.1.q": 3, "h.11.q": 4, "h.2.v": 5, "h.4.v": 4, "xh.0.q": 4}
    for name, r in expected.items():
        state |= factors(name, 8, 6, r)
    adapter = opened(tmp_path, state, rank_pattern=ranks, alpha_pattern={"h.0.q": 6, "v": 3.5})
    alphas = {"h.0.q": 6, "h.2.v": 3.5, "h.4.v": 3.5}
    assert {m.name.removesuffix(".weight"): (m.rank, m.scale) for m in adapter.modules} == {
        name: (r, alphas.get(name, 8) / r) for name, r in expected.items()
    }


def test_the_first_pattern_that_matches_counts(tmp_path):
    settings = {"rank_pattern": {"q": 2, "h.0.q": 7}}
    assert opened(tmp_path, factors("h.0.q", 8, 6, 2), **settings).modules[0].rank == 2


def test_whole_tensors_and_what_is_left(tmp_path):
    state = Q | {
        f"{PREFIX}score.weight": tensor("F32", 2, 20, seed=1),
        f"{PREFIX}classifier.modules_to_save.dense.weight": tensor("F32", 2, 20, seed=1),
        f"{PREFIX}classifier.modules_to_save.default.bias": tensor("F32", 2, seed=1),
        f"{PREFIX}classifier.original_module.weight": tensor("F32", 2, 20, seed=1),
        f"{PREFIX}h.0.q.bias": tensor("F32", 30, seed=1),
        f"{PREFIX}h.0.q.lora_B.bias": tensor("F32", 30, seed=1),
        f"{PREFIX}h.0.q.base_layer.weight": tensor("F32", 30, 20, seed=1),
        f"{PREFIX}wte.token_adapter.trainable_tokens_delta": tensor("F32", 3, 20, seed=1),
        f"{PREFIX}h.1.q.lora_A.weight": tensor("F32", 4, 20, seed=1),
        f"{PREFIX}h.1.q.lora_B.weight": tensor("F32", 30, 4, seed=1),
        f"{PREFIX}h.1.q.lora_map_alpha": tensor("F32", 1, seed=1),
        f"{PREFIX}conv.lora_A.weight": tensor("F32", 4, 8, 3, 3, seed=1),
        f"{PREFIX}conv.lora_B.weight": tensor("F32", 8, 2, 1, 1, seed=1),
        f"{PREFIX}mlp.experts.lora_A.weight": tensor("F32", 32, 8, seed=1),
        f"{PREFIX}mlp.experts.lora_B.weight": tensor("F32", 8, 32, seed=1),
    }
    adapter = opened(tmp_path, state, target_parameters=["mlp.experts.gate_up_proj"])
    assert [m.name for m in adapter.modules] == ["h.0.q.weight"]
    assert [s.name for s in adapter.saved] == [
        "score.weight", "classifier.dense.weight", "classifier.bias", "h.0.q.bias",
    ]  # fmt: skip
    names = list(state)
    reasons = {names[o.tensor].removeprefix(PREFIX): o.reason for o in adapter.others}
    assert reasons == {
        "classifier.original_module.weight": "the base's own weight, beside what was trained",
        "h.0.q.lora_B.bias": "a bias of the adapter",
        "h.0.q.base_layer.weight": "the base's own weight of an adapted module",
        "wte.token_adapter.trainable_tokens_delta": "trained rows of an embedding",
        "h.1.q.lora_A.weight": "a part of its module is not known: lora_map_alpha",
        "h.1.q.lora_B.weight": "a part of its module is not known: lora_map_alpha",
        "h.1.q.lora_map_alpha": "a part of its module is not known: lora_map_alpha",
        "conv.lora_A.weight": "adapts a grouped convolution",
        "conv.lora_B.weight": "adapts a grouped convolution",
        "mlp.experts.lora_A.weight": "adapts a parameter that is no module's weight (target_parameters)",
        "mlp.experts.lora_B.weight": "adapts a parameter that is no module's weight (target_parameters)",
    }


def test_a_note_where_the_base_was_changed(tmp_path):
    assert "pissa_niter_4" in (opened(tmp_path / "a", init_lora_weights="pissa_niter_4").note or "")
    assert opened(tmp_path / "b", init_lora_weights="gaussian").note is None
    (stock,) = open_all([tmp_path / "a"])
    assert (
        stock.inventory.tensors[0].note == "relative to a base that pissa_niter_4 has changed before training"
    )


def test_torch_files_and_factors_that_lie_in_another_order(tmp_path):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(pair[1].view("<f4").copy()) for name, pair in Q.items()}
    state[A] = state[A].t().contiguous().t()
    state[B] = torch.cat([state[B], state[B]], 1)[:, 4:]
    (tmp_path / "adapter_config.json").write_text(json.dumps(SETTINGS))
    torch.save(state, tmp_path / "adapter_model.bin")
    from tests.adapters import assert_adapter

    state_now = {name: ("F32", value.numpy().copy().view("<u4")) for name, value in state.items()}
    for how in ({}, {"task_bytes": 100}):
        assert_adapter(tmp_path, state_now, **how)


# What is refused


def refused(kind: type[Exception], directory: Path) -> str:
    with pytest.raises(kind) as caught:
        open_adapter(str(directory))
    text = str(caught.value)
    assert "\n" not in text
    assert str(directory) in text
    assert caught.value.exit_code == 2
    return text


def test_no_adapter(tmp_path):
    assert "there is no adapter_config.json" in refused(ConfigError, tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "no adapter_model.safetensors and no adapter_model.bin" in refused(ConfigError, tmp_path)
    write_tensors(tmp_path / "model.safetensors", Q)
    assert "is no adapter" in refused(ConfigError, tmp_path / "model.safetensors")


SETTINGS_THAT_ARE_REFUSED = [
    ({"peft_type": "IA3"}, "peft_type 'IA3' is not known; known are LORA, DORA, NOISE"),
    ({"peft_type": None}, "peft_type None is not known"),
    ({"peft_type": ["LORA"]}, "peft_type ['LORA'] is not known"),
    ({"r": 0}, "r is 0, expected a rank above 0"),
    ({"r": True}, "r is True"),
    ({"r": "8"}, "r is '8'"),
    ({"lora_alpha": "x"}, "lora_alpha is 'x', expected a number"),
    ({"lora_alpha": None}, "lora_alpha is None"),
    ({"use_dora": "yes"}, "use_dora is 'yes', expected true or false"),
    ({"rank_pattern": [1]}, "rank_pattern is [1], expected an object"),
    ({"rank_pattern": {"q": 1.5}}, "rank_pattern of 'q' is 1.5"),
    ({"rank_pattern": {"(q": 4}}, "'(q' is no regular expression"),
    ({"rank_pattern": {"(a+)+b": 4}}, "may take for ever"),
    ({"alpha_pattern": {"q": None}}, "alpha_pattern of 'q' is None"),
    ({"use_qalora": True}, "dW of QA-LoRA is not known"),
    ({"lora_use_map": True}, "dW of LoMAP is not known"),
    ({"a_new_idea": 3}, "the setting 'a_new_idea' is not known, and may change dW: 3"),
    ({"lora_use_dash": True, "use_dora": True}, "contradict each other"),
    ({"base_model_name_or_path": 3}, "base_model_name_or_path is 3, expected a text"),
    ({"target_parameters": "x"}, "target_parameters is 'x', expected a list of names"),
    ({"use_dora": True}, "has no lora_magnitude_vector beside it"),
    ({"lora_use_dash": True}, "has no lora_index beside it"),
    ({"rank_pattern": {"q": 8}}, "has rank 4, but"),
    ({"r": 8}, "has rank 4, but"),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS_THAT_ARE_REFUSED, ids=str)
def test_settings_that_are_refused(settings, message, tmp_path):
    write_adapter(tmp_path, Q, **settings)
    assert message in refused(FormatError, tmp_path)


def test_settings_that_say_nothing(tmp_path):
    unset = {"a_new_idea": None, "another": False, "a_third": [], "rank_pattern": None, "use_dora": None}
    assert opened(tmp_path, **unset).method == "lora"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"r": 1, "r": 2}', '{"r": NaN}', "\xff", "[" * 5000])
def test_settings_that_are_no_json(text, tmp_path):
    write_adapter(tmp_path, Q)
    (tmp_path / "adapter_config.json").write_bytes(text.encode("latin-1"))
    assert "adapter_config.json" in refused(FormatError, tmp_path)


MAGNITUDE = f"{PREFIX}h.0.q.lora_magnitude_vector"
TENSORS_THAT_ARE_REFUSED = [
    ({A: Q[A]}, {}, A, "has no lora_B beside it"),
    ({B: Q[B]}, {}, B, "has no lora_A beside it"),
    ({MAGNITUDE: tensor("F32", 30, seed=1)}, {"use_dora": True}, MAGNITUDE, "no lora_A and no lora_B"),
    (Q | {B: tensor("F32", 30, 5, seed=1)}, {}, B, "has rank 5 (shape (30, 5)), but lora_A rank 4 (shape (4, 20))"),
    (Q | {B: tensor("F32", 30, 4, 1, seed=1)}, {}, B, "does not multiply lora_A of shape (4, 20)"),
    (Q | {B: tensor("F32", 120, seed=1)}, {}, B, "does not multiply"),
    (Q | {A: ("I32", np.ones((4, 20), "<i4"))}, {}, A, "is I32, expected floats: integer"),
    (Q | {A: ("BOOL", np.ones((4, 20), "u1"))}, {}, A, "is BOOL, expected floats"),
    (Q | {f"{PREFIX}h.0.q.lora_A.x.weight": Q[A]}, {}, f"{PREFIX}h.0.q.lora_A.x.weight", "several adapters"),
    (Q | {f"{PREFIX}h.0.q.lora_A": Q[A]}, {}, f"{PREFIX}h.0.q.lora_A", "is a second lora_A of its module"),
    (Q | {f"{PREFIX}h.0.q.lora_embedding_A": Q[A]}, {}, A, "factors of two kinds"),
    (Q | magnitudes("h.0.q", 30), {}, MAGNITUDE, "does not say use_dora"),
    (Q | magnitudes("h.0.q", 29), {"use_dora": True}, MAGNITUDE, "has shape (29,), but the module has 30 outputs"),
    (Q | dict(list(DASH.items())[:2]), {}, next(iter(DASH)), "has no lora_w_vt beside it"),
    (Q | DASH | {list(DASH)[1]: tensor("F32", 30, 7, seed=1)}, {}, list(DASH)[1], "has shape (30, 7), expected (30, 8)"),
    (Q | DASH, {"lora_use_dash": False}, next(iter(DASH)), "says no lora_use_dash"),
    (Q | DASH | magnitudes("h.0.q", 30), {"use_dora": True}, next(iter(DASH)), "says use_dora"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "settings", "name", "message"), TENSORS_THAT_ARE_REFUSED, ids=lambda v: str(v)[:30]
)
def test_tensors_that_are_refused(state, settings, name, message, tmp_path):
    write_adapter(tmp_path, state, **settings)
    text = refused(FormatError, tmp_path)
    assert message in text
    assert repr(name) in text
    assert "adapter_model.safetensors" in text


def test_a_truncated_file_and_an_empty_one(tmp_path):
    write_adapter(tmp_path, Q)
    data = pack_tensors(Q)
    (tmp_path / "adapter_model.safetensors").write_bytes(data[:-10])
    assert "is truncated" in refused(FormatError, tmp_path)
    write_tensors(tmp_path / "adapter_model.safetensors", {})
    assert "holds no tensor of an adapter" in refused(FormatError, tmp_path)


# Adapters and bases


def base_of(directory: Path, **shapes: tuple[int, ...]) -> Path:
    state = {name.replace("__", "."): tensor("F32", *shape, seed=3) for name, shape in shapes.items()}
    return write_tensors(directory / "base" / "model.safetensors", state)


def test_dora_needs_a_base(tmp_path):
    write_adapter(tmp_path, Q | magnitudes("h.0.q", 30), use_dora=True)
    with pytest.raises(ConfigError, match=r"DoRA needs the base.*--base; it was made for 'some/base'"):
        open_all([tmp_path])


def test_a_base_without_the_modules(tmp_path):
    adapter = write_adapter(tmp_path / "a", Q | factors("h.1.q", 30, 20))
    base = base_of(tmp_path, h__1__q__weight=(30, 20))
    with pytest.raises(ConfigError, match=r"'h.0.q.weight': was not made for .*: 1 of 2 adapted tensors"):
        open_all([adapter], base)


def test_a_base_of_other_shapes(tmp_path):
    adapter = write_adapter(tmp_path / "a", Q | factors("h.1.q", 30, 20))
    base = base_of(tmp_path, h__0__q__weight=(20, 30), h__1__q__weight=(30, 20))
    with pytest.raises(ConfigError, match=r"dW has shape \(30, 20\), the base's tensor \(20, 30\)$"):
        open_all([adapter], base)


def test_names_are_matched_without_wrappers(tmp_path):
    adapter = write_adapter(tmp_path / "a", factors("transformer.h.0.q", 30, 20))
    base = base_of(tmp_path, h__0__q__weight=(30, 20))
    (stock,) = open_all([adapter], base)
    assert [t.name for t in stock.inventory.tensors] == ["transformer.h.0.q.weight"]


def test_what_is_saved_beside_a_base(tmp_path):
    state = Q | {
        f"{PREFIX}score.weight": tensor("F32", 2, 20, seed=1),
        f"{PREFIX}wte.weight": tensor("F32", 11, 20, seed=1),
        f"{PREFIX}ln.weight": tensor("BF16", 20, seed=1),
        f"{PREFIX}steps": ("I64", np.ones(1, "<i8")),
    }
    adapter = write_adapter(tmp_path / "a", state)
    base = base_of(tmp_path, h__0__q__weight=(30, 20), wte__weight=(10, 20), ln__weight=(20,))
    (stock,) = open_all([adapter], base)
    found = {t.name: t.reason for t in stock.inventory.tensors}
    assert found == {
        "h.0.q.weight": None,
        f"{PREFIX}score.weight": "the base has no such tensor",
        f"{PREFIX}wte.weight": "shapes differ: (11, 20) against the base's (10, 20)",
        "ln.weight": None,
        f"{PREFIX}steps": "integer",
    }
    alone = open_all([adapter])[0].inventory
    reasons = {t.name: t.reason for t in alone.tensors}
    assert reasons[f"{PREFIX}ln.weight"] == "a whole tensor: its dW needs the base"
    assert alone.fingerprint != stock.inventory.fingerprint


def test_a_base_that_is_not_needed_changes_nothing(tmp_path):
    adapter = write_adapter(tmp_path / "a", Q)
    base = base_of(tmp_path, h__0__q__weight=(30, 20))
    assert open_all([adapter], base)[0].inventory == open_all([adapter])[0].inventory


def test_selection(tmp_path):
    adapter = opened(tmp_path, Q | factors("h.1.v", 30, 20))
    stock = take_stock(adapter, None, Selection(("*.v.weight",)))
    assert [t.name for t in stock.inventory.tensors] == ["h.1.v.weight"]
    with pytest.raises(ConfigError, match="no tensor matches 'z'"):
        take_stock(adapter, None, Selection(("z",)))
