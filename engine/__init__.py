"""gaussmeter: counts every value of a model checkpoint and answers questions about them.

Every verb of the command line is a function here, loaded when it is first used:

    import engine
    engine.scan("model.safetensors", warehouse="stats.duckdb")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.version import __version__

if TYPE_CHECKING:
    from engine.verbs.check import check
    from engine.verbs.look import ls, show
    from engine.verbs.pack import pack
    from engine.verbs.paper import paper
    from engine.verbs.query import sql
    from engine.verbs.scan import dry_run, scan

__all__ = ["__version__", "check", "dry_run", "ls", "pack", "paper", "scan", "show", "sql"]

_HOMES = {
    "check": "check",
    "dry_run": "scan",
    "ls": "look",
    "pack": "pack",
    "paper": "paper",
    "scan": "scan",
    "show": "look",
    "sql": "query",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(import_module(f"engine.verbs.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
