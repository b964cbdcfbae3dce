"""The vocabulary that lies beside a checkpoint.

Of the files that may list it, the first that is there counts: `tokenizer.json`, which has everything;
`vocab.json`; `vocab.txt`; the SentencePiece model `tokenizer.model`. All but the first have
`added_tokens.json` beside them where tokens were added. Files for tiktoken list bytes instead of tokens and
are not read.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

from engine.errors import FormatError
from engine.formats.sentencepiece import CONTROL, USER_DEFINED, read_pieces
from engine.formats.strict_json import parse_object
from engine.formats.token_ids import numbered, united
from engine.nouns.vocabulary import Vocabulary
from engine.storage import Folder, Place, locate, read_whole

TOKENIZER = "tokenizer.json"
ADDED = "added_tokens.json"

_MOST_BYTES = 1 << 27
_TIKTOKEN = ("tekken.json", "tiktoken.model", "qwen.tiktoken")
_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")
_UNREAD = "is a vocabulary for tiktoken, which lists bytes instead of tokens"
_ZIPPED = ".zip"


def read_vocabulary(uri: str, place: Place | None = None) -> Vocabulary | None:
    """Read the vocabulary that lies in the folder of a checkpoint.

    Args:
        uri: of the checkpoint, as for `open_checkpoint`.
        place: where that leads, if it was found out before.

    Returns:
        None if there is none, as with every Zarr group; with a `reason` if there is one that is not read.

    Raises:
        ConfigError: there is no such place, or the file may not be read.
        FormatError: the file is damaged, contradicts itself, or is larger than 128 MiB.
        TaskError: the store does not answer.
    """
    place = place or locate(uri)
    folder = place.folder
    if place.file is not None and place.file.lower().endswith(_ZIPPED):
        return None  # a Zarr group in one file
    for name, read in _READERS.items():
        if folder.has(name):
            return read(folder, name)
    for name in _TIKTOKEN:
        if folder.has(name):
            return Vocabulary({}, folder.address(name), reason=_UNREAD)
    if (refusal := folder.refusal()) is not None:
        return Vocabulary(
            {}, folder.uri, reason=f"may have a vocabulary that cannot be seen: {refusal.message}"
        )
    return None


def parse_tokenizer(data: bytes, file: str) -> Vocabulary:
    """Read a `tokenizer.json`, the file of Hugging Face's tokenizers.

    Args:
        data: its bytes.
        file: for messages.

    Raises:
        FormatError: it is damaged or contradicts itself.
    """
    with _without_collector():
        found = parse_object(data, file=file, what="the tokenizer")
        model = found.get("model")
        if not isinstance(model, dict):
            raise FormatError("has no model object", file=file)
        added = list(_added(found.get("added_tokens", []), file))
        return Vocabulary(
            united(_of_model(model.get("vocab"), file), ((t, number) for t, number, _ in added), file),
            file,
            frozenset(token for token, _, _ in added),
            frozenset(token for token, _, special in added if special),
        )


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep the collector from looking for cycles in a million new lists, which takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _of_model(vocab: object, file: str) -> Mapping[str, object]:
    """Ids by token; Unigram models list pieces with their scores instead, in the order of ids."""
    if isinstance(vocab, dict):
        return vocab
    if not isinstance(vocab, list):
        raise FormatError("its model has no vocab, neither an object nor a list", file=file)
    for entry in vocab:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise FormatError(f"an entry of its vocab is {_short(entry)}, expected [piece, score]", file=file)
    return numbered([piece for piece, _ in vocab], file)


def _added(entries: object, file: str) -> Iterator[tuple[str, object, bool]]:
    """Tokens, ids, and whether they are special."""
    if not isinstance(entries, list):
        raise FormatError(f"its added_tokens are {_short(entries)}, expected a list", file=file)
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise FormatError(
                f"an entry of its added_tokens is {_short(entry)}, expected an object with content and id",
                file=file,
            )
        yield entry["content"], entry.get("id"), entry.get("special") is True


def _tokenizer(folder: Folder, name: str) -> Vocabulary:
    file = folder.address(name)
    return parse_tokenizer(read_whole(file, _MOST_BYTES), file)


def _vocab_json(folder: Folder, name: str) -> Vocabulary:
    file = folder.address(name)
    ids = parse_object(read_whole(file, _MOST_BYTES), file=file, what="the vocabulary")
    return _with_added(folder, ids, file)


def _vocab_txt(folder: Folder, name: str) -> Vocabulary:
    file = folder.address(name)
    data = read_whole(file, _MOST_BYTES)
    try:
        lines = data.decode("utf-8").removesuffix("\n").split("\n") if data else []
    except UnicodeDecodeError as error:
        raise FormatError(f"the vocabulary is not UTF-8 at byte {error.start:,}", file=file) from error
    return _with_added(folder, numbered([line.removesuffix("\r") for line in lines], file), file)


def _sentencepiece(folder: Folder, name: str) -> Vocabulary:
    file = folder.address(name)
    data = read_whole(file, _MOST_BYTES)
    if _TIKTOKEN_LINE.match(data):
        return Vocabulary({}, file, reason=_UNREAD)
    pieces = read_pieces(data, file)
    control = {p.text for p in pieces if p.kind == CONTROL}
    whole = control | {p.text for p in pieces if p.kind == USER_DEFINED}
    return _with_added(folder, numbered([p.text for p in pieces], file), file, whole, control)


def _with_added(
    folder: Folder,
    ids: Mapping[str, object],
    file: str,
    whole: Set[str] = frozenset(),
    special: Set[str] = frozenset(),
) -> Vocabulary:
    """Add what `added_tokens.json` lists, if it is there."""
    more: dict[str, object] = {}
    if folder.has(ADDED):
        address = folder.address(ADDED)
        more = parse_object(read_whole(address, _MOST_BYTES), file=address, what="the list of added tokens")
    return Vocabulary(
        united(ids, more.items(), file), file, frozenset(whole | more.keys()), frozenset(special)
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


_READERS: dict[str, Callable[[Folder, str], Vocabulary]] = {
    TOKENIZER: _tokenizer,
    "vocab.json": _vocab_json,
    "vocab.txt": _vocab_txt,
    "tokenizer.model": _sentencepiece,
}
