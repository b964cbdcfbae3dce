"""A whole page: one file, which loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from engine.pages.html import Html, text

_HERE = Path(__file__).parent

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}
</style>
</head>
<body>
{body}
<script>
{script}
</script>
</body>
</html>
"""


def page(title: str, body: Html, on_dark: Mapping[str, str]) -> str:
    """Put a page together. It may run its own script and no other, and fetch nothing.

    Args:
        title: plain text.
        body: what is on it.
        on_dark: colours of pictures, and what takes their place on a dark background.
    """
    script = f"\n{_asset('report.js')}\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return _PAGE.format(
        policy=policy,
        title=text(title),
        style=_asset("report.css") + _dark_pictures(on_dark),
        body=body,
        script=script.strip("\n"),
    )


def _dark_pictures(on_dark: Mapping[str, str]) -> str:
    """Rules that give pictures other inks on a dark background."""
    rules = "".join(
        f'figure svg [{what}="{light}" i] {{ {what}: {dark}; }}\n'
        for light, dark in on_dark.items()
        for what in ("fill", "stroke")
    )
    return f"\n@media (prefers-color-scheme: dark) {{\n{rules}}}"


@cache
def _asset(file: str) -> str:
    return (_HERE / file).read_text(encoding="utf-8").strip()
