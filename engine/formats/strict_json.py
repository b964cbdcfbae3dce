"""JSON from files that may be hostile."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NoReturn

from engine.errors import FormatError

_EXCERPT = 60
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""Where a text has none of these escapes, no string of it is anything but valid Unicode."""


def parse_object(data: bytes, *, file: str, what: str, infinite: bool = False) -> dict[str, Any]:
    """Parse one JSON object, refusing what `json` alone lets pass.

    Args:
        data: the bytes.
        file: for messages.
        what: what the bytes are, for messages.
        infinite: whether NaN and infinity are let pass, which Python writes into settings of models.

    Raises:
        FormatError: not UTF-8, not JSON, not an object, a key twice, NaN or infinity, a name with an
            unpaired surrogate, or nested too deeply.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_pairs if _SURROGATE.search(text) else _unique,
            parse_constant=float if infinite else _refuse_constant,
            parse_int=_whole,
        )
    except UnicodeDecodeError as error:
        raise FormatError(f"{what} is not UTF-8 at byte {error.start:,}", file=file) from error
    except json.JSONDecodeError as error:
        raise FormatError(f"{what} is not JSON: {error.msg} at character {error.pos:,}", file=file) from error
    except RecursionError as error:
        raise FormatError(f"{what} is nested too deeply", file=file) from error
    except ValueError as error:
        raise FormatError(f"{what} is not valid: {str(error)[:200]}", file=file) from error
    if not isinstance(value, dict):
        raise FormatError(f"{what} is a JSON {type(value).__name__}, expected an object", file=file)
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for key, value in pairs:
        for text in (key, value) if isinstance(value, str) else (key,):
            if not _is_unicode(text):
                raise ValueError(f"the text {text[:_EXCERPT]!r} is not valid Unicode")
    return _unique(pairs)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:_EXCERPT]!r} occurs twice")
    return result


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _whole(digits: str) -> int:
    if digits == "-0":
        raise ValueError("-0 is not a whole number")
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
