"""JSON from files that may be hostile."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from engine.errors import FormatError

_EXCERPT = 60


def parse_object(data: bytes, *, file: str, what: str) -> dict[str, Any]:
    """Parse one JSON object, refusing what `json` alone lets pass.

    Args:
        data: the bytes.
        file: for messages.
        what: what the bytes are, for messages.

    Raises:
        FormatError: not UTF-8, not JSON, not an object, a key twice, NaN or infinity, a name with an
            unpaired surrogate, or nested too deeply.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_refuse_constant, parse_int=_whole
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
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key[:_EXCERPT]!r} occurs twice")
        for text in (key, value) if isinstance(value, str) else (key,):
            if not _is_unicode(text):
                raise ValueError(f"the text {text[:_EXCERPT]!r} is not valid Unicode")
        result[key] = value
    return result


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _whole(digits: str) -> int:
    if digits == "-0":
        raise ValueError("-0 is not a whole number")
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
