"""What a merged model takes over from the folder of its base, and what of it changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from engine.errors import FormatError
from engine.formats.discover import is_weights
from engine.formats.json_text import Change, Member, changed, dumped, extended, inserted, members
from engine.formats.strict_json import parse_object
from engine.formats.vocabulary import ADDED, TOKENIZER, parse_tokenizer
from engine.nouns.vocabulary import NewToken, quoted

_CARRIED = re.compile(
    r"""
    (generation_)?config\.json
    | ([a-z0-9]+_)*(pre)?processor_config\.json
    | tokenizer\.json | tokenizer_config\.json | special_tokens_map\.json | added_tokens\.json
    | chat_template\.(jinja|json) | additional_chat_templates/[^/.][^/]*\.jinja
    | vocab\.(json|txt) | merges\.txt | bpe\.codes | normalizer\.json
    | (tokenizer|spiece|sentencepiece|sentencepiece\.bpe|spm|tiktoken)\.model(\.v\d+)?
    | (source|target)\.spm | tekken\.json | [^/]+\.tiktoken
    | (modules|sentence_bert_config|config_sentence_transformers)\.json | \d+_[A-Za-z]+/config\.json
    | [^/]+\.py
    | (?i:LICEN[CS]E|NOTICE|USE_POLICY)([._ -][^/]*)?
    """,
    re.VERBOSE,
)
_FOLDERS = re.compile(r"additional_chat_templates|\d+_[A-Za-z]+")
_MAY_NAME_CODE = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")

USUAL = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "vocab.json", "vocab.txt",
    "merges.txt", "tokenizer.model", "preprocessor_config.json", "processor_config.json", "LICENSE",
)  # fmt: skip
"""What to ask a server for that lists nothing."""

_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where models of several parts have the settings of their language model."""

_NOT_THE_MODEL = "quantization_config"
_DTYPES = ("dtype", "torch_dtype")
_DEEPEST = 8
"""How far parts of parts are looked for."""


def carried(names: Iterable[str]) -> list[str]:
    """Choose the files that a merged model takes over.

    Settings, the tokenizer with all that belongs to it, custom code and licences; no weights, no indexes, no
    hidden files, no README.

    Args:
        names: of files in the base's folder; what lies deeper by its path.
    """
    return sorted(n for n in names if _CARRIED.fullmatch(n) and not n.startswith(".") and not is_weights(n))


def is_folder_of_some(name: str) -> bool:
    """Whether a folder beside the weights may hold files that are taken over, by its name."""
    return _FOLDERS.fullmatch(name) is not None


def has_own_code(files: Mapping[str, bytes]) -> bool:
    """Whether a model needs programs from its folder, by its settings and those of its tokenizer."""
    return any(b'"auto_map"' in files.get(name, b"") for name in _MAY_NAME_CODE)


def with_vocabulary_size(data: bytes, rows: int, file: str = "config.json") -> bytes:
    """Set how many rows there are for tokens.

    Args:
        data: a `config.json`.
        rows: the new `vocab_size`, at the top, in the settings of the language model, or both, wherever it
            stands; where it stands nowhere, it is put into the latter if there are some.
        file: for messages.

    Raises:
        FormatError: it is damaged, or `vocab_size` is no whole number.
    """
    text = _settings(data, file)
    found = list(_language_models(text, 0, _DEEPEST))
    sizes = [m["vocab_size"] for _, m in found if "vocab_size" in m]
    for size in sizes:
        if type(size.value) is not int:
            raise FormatError(f"vocab_size is {str(size.value)[:60]}, expected a whole number", file=file)
    changes = [Change(size.start, size.end, str(rows)) for size in sizes]
    return changed(text, changes or [inserted(text, found[-1][0], "vocab_size", str(rows))]).encode()


def _language_models(text: str, start: int, deeper: int) -> Iterator[tuple[int, dict[str, Member]]]:
    """Beginnings and members of the objects that may have a size of the vocabulary, the innermost last."""
    found = members(text, start)
    yield start, found
    for name in _TEXT_PARTS if deeper else ():
        if name in found and isinstance(found[name].value, dict):
            yield from _language_models(text, found[name].start, deeper - 1)


def with_dtype(data: bytes, dtype: str, file: str = "config.json") -> bytes:
    """Set the dtype of the weights.

    Args:
        data: a `config.json`.
        dtype: the new one, by torch's name. It replaces `dtype` and `torch_dtype` of the model and of its
            parts, wherever they stand; where there are none, the weights themselves tell.
        file: for messages.

    Raises:
        FormatError: it is damaged.
    """
    text = _settings(data, file)
    return changed(text, [Change(m.start, m.end, f'"{dtype}"') for m in _dtypes(text, 0, _DEEPEST)]).encode()


def _dtypes(text: str, start: int, deeper: int) -> Iterator[Member]:
    for key, member in members(text, start).items():
        if key in _DTYPES and (member.value is None or isinstance(member.value, str)):
            yield member
        elif deeper and key != _NOT_THE_MODEL and isinstance(member.value, dict):
            yield from _dtypes(text, member.start, deeper - 1)


def _settings(data: bytes, file: str) -> str:
    """The text of a valid configuration."""
    parse_object(data, file=file, what="the configuration", infinite=True)
    return data.decode()


def with_tokens(data: bytes, tokens: Sequence[NewToken], file: str = "tokenizer.json") -> bytes:
    """Give a tokenizer more tokens.

    They become added tokens, which are cut out of a text where they are spelled so, before the model splits
    the rest. The files that repeat added tokens must be changed too: see `TOKEN_FILES`.

    Args:
        data: a `tokenizer.json`.
        tokens: what it lacks, in the order of their ids.
        file: for messages.

    Raises:
        FormatError: it is damaged, or cannot have these ids: tokenizers numbers added tokens on from those of
            the model, whatever id the file gives them.
    """
    if not tokens:
        return data
    vocabulary = parse_tokenizer(data, file)
    for new in tokens:
        if new.token in vocabulary.tokens:
            raise FormatError(f"has the token {quoted(new.token)} already", file=file)
    text = data.decode()
    found = members(text)
    entries = [_entry(new) for new in tokens]
    old = found.get("added_tokens")
    _check_ids(found["model"].value["vocab"], [*(old.value if old else ()), *entries], file)
    if old is None:
        start = text.index("{")
        return changed(text, [inserted(text, start, "added_tokens", dumped(text, entries, depth=1))]).encode()
    return changed(text, [extended(text, old.start, old.end, entries, depth=1)]).encode()


def _entry(new: NewToken) -> dict[str, Any]:
    """An entry as tokenizers writes it; nothing is done to the text before the token is looked for in it."""
    return {
        "id": new.id,
        "content": new.token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": new.special,
    }


def with_tokens_in_settings(
    data: bytes, tokens: Sequence[NewToken], file: str = "tokenizer_config.json"
) -> bytes:
    """Give the settings of a tokenizer more tokens, if they list any.

    Where they do, transformers takes the added tokens from there and not from `tokenizer.json`.

    Args:
        data: a `tokenizer_config.json`.
        tokens: what is added, in the order of their ids.
        file: for messages.

    Raises:
        FormatError: it is damaged, or lists another token with one of these ids.
    """
    text = _settings(data, file)
    listed = members(text).get("added_tokens_decoder")
    if listed is None or not tokens:
        return data
    if not isinstance(listed.value, dict):
        raise FormatError("its added_tokens_decoder is no object", file=file)
    _require_absent((str(new.id) for new in tokens), listed.value, file)
    more = {str(new.id): dict(sorted(_entry(new).items())) for new in tokens}
    for entry in more.values():
        del entry["id"]
    return changed(text, [extended(text, listed.start, listed.end, more, depth=1)]).encode()


def with_tokens_in_list(data: bytes, tokens: Sequence[NewToken], file: str = ADDED) -> bytes:
    """Give the list of added tokens more of them; it is for programs that do not read `tokenizer.json`.

    Args:
        data: an `added_tokens.json`.
        tokens: what is added, in the order of their ids.
        file: for messages.

    Raises:
        FormatError: it is damaged, or lists one of them already.
    """
    found = parse_object(data, file=file, what="the list of added tokens")
    if not tokens:
        return data
    _require_absent((new.token for new in tokens), found, file)
    text = data.decode()
    start, end = text.index("{"), text.rindex("}") + 1
    more = {new.token: new.id for new in tokens}
    return changed(text, [extended(text, start, end, more, depth=0)]).encode()


def _require_absent(keys: Iterable[str], found: Container[str], file: str) -> None:
    for key in keys:
        if key in found:
            raise FormatError(f"lists {quoted(key)} already", file=file)


def _check_ids(vocab: Sequence[Any] | dict[str, int], entries: Sequence[dict[str, Any]], file: str) -> None:
    """Refuse ids that tokenizers would not give: those of the model, then one after the other."""
    given = set(vocab) if isinstance(vocab, dict) else {piece for piece, _ in vocab}
    following = len(given)
    for entry in entries:
        token = entry["content"]
        if token in given:
            continue
        if not token:
            raise FormatError("cannot have the empty text as an added token", file=file)
        if entry["id"] != following:
            raise FormatError(
                f"cannot have the added token {quoted(token)} with the id {entry['id']:,}: when it is read, "
                f"added tokens are numbered on from the {len(vocab):,} of its model, which makes it "
                f"{following:,}",
                file=file,
            )
        given.add(token)
        following += 1


TOKEN_FILES: dict[str, Callable[[bytes, Sequence[NewToken], str], bytes]] = {
    TOKENIZER: with_tokens,
    "tokenizer_config.json": with_tokens_in_settings,
    ADDED: with_tokens_in_list,
}
"""The files that list added tokens, and what gives each of them more; all that are there must be changed."""
