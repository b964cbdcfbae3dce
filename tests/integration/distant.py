"""Scans of what lies behind a network: what they count, and how they are refused, without a word of a secret."""

from __future__ import annotations

import traceback
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.errors import GaussmeterError
from tests.integration.helpers import Kept, contents, made, subjects

TOKEN = "hf_TheTokenThatNobodyMaySee"
SIGNATURE = "SECRETSIG"  # of the addresses to which the tests' Hub sends its clients
SECRET = "TheSignatureThatNobodyMaySee"
_numbers = count(1)


def assert_no_secret(text: bytes) -> None:
    assert not {secret for secret in (TOKEN, SIGNATURE, SECRET) if secret.encode() in text}


def counts(place: str | Path, folder: Path, **options: Any) -> dict[str, Kept]:
    """What a scan into a warehouse of its own counts."""
    warehouse = made(folder / f"{next(_numbers)}.duckdb")
    report = engine.scan(place, warehouse=warehouse, **options)
    assert report.status == "scanned"
    assert_no_secret(warehouse.read_bytes() + repr(report).encode())
    return contents(warehouse, report.subject_id)


def refused(
    kind: type[GaussmeterError], uri: str, folder: Path, *, debug: bool = False, kept: int = 0, **options: Any
) -> str:
    """The sentence with which a scan fails.

    With `debug` its traceback must hold no secret either; `kept` is how many unfinished subjects stay.
    """
    warehouse = made(folder / f"{next(_numbers)}.duckdb")
    with pytest.raises(kind) as caught:
        engine.scan(uri, warehouse=warehouse, **options)
    sentence = str(caught.value)
    assert isinstance(caught.value, kind)
    assert "\n" not in sentence
    assert_no_secret(warehouse.read_bytes() + sentence.encode())
    assert len(subjects(warehouse)) == kept
    if debug:
        assert_no_secret("".join(traceback.format_exception(caught.value)).encode())
    return sentence
