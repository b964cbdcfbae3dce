"""Sizes as people write them."""

from __future__ import annotations

import re

_UNITS = {
    "": 1, "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_size(text: str) -> int:
    """Read a size such as 500MB, 256MiB or 1048576, in bytes.

    Raises:
        ValueError: it is none.
    """
    match = _SIZE.fullmatch(text)
    if not match or match[2].upper() not in _UNITS:
        raise ValueError(f"expected a size such as 500MB or 256MiB, not {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])
