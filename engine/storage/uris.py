"""The spelling of places: schemes."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
BUCKETS = {"s3": "s3", "s3a": "s3", "gs": "gs", "az": "az", "abfs": "az", "abfss": "az", "azure": "az"}
"""Schemes of object stores, and the usual spelling of each."""
WEB = ("http", "https")
HUB = "hf"


def scheme_of(uri: str) -> str:
    """The scheme in lower case, "file" for a path."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else "file"
