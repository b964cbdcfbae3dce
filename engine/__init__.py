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
    from engine.verbs.census import census
    from engine.verbs.check import check
    from engine.verbs.compare import compare
    from engine.verbs.delta import delta
    from engine.verbs.edit import edit
    from engine.verbs.export import export
    from engine.verbs.import_ import import_
    from engine.verbs.job import job
    from engine.verbs.look import ls, show
    from engine.verbs.merge import merge
    from engine.verbs.nearest import nearest
    from engine.verbs.observe import observe
    from engine.verbs.pack import pack
    from engine.verbs.paper import paper
    from engine.verbs.plot import plot
    from engine.verbs.query import sql
    from engine.verbs.report import report
    from engine.verbs.scan import dry_run, scan
    from engine.verbs.simulate import simulate
    from engine.verbs.tune import tune
    from engine.verbs.verify import verify

__all__ = [
    "__version__",
    "census",
    "check",
    "compare",
    "delta",
    "dry_run",
    "edit",
    "export",
    "import_",
    "job",
    "ls",
    "merge",
    "nearest",
    "observe",
    "pack",
    "paper",
    "plot",
    "report",
    "scan",
    "show",
    "simulate",
    "sql",
    "tune",
    "verify",
]

_HOMES = {
    "census": "census",
    "check": "check",
    "compare": "compare",
    "delta": "delta",
    "dry_run": "scan",
    "edit": "edit",
    "export": "export",
    "import_": "import_",
    "job": "job",
    "ls": "look",
    "merge": "merge",
    "nearest": "nearest",
    "observe": "observe",
    "pack": "pack",
    "paper": "paper",
    "plot": "plot",
    "report": "report",
    "scan": "scan",
    "show": "look",
    "simulate": "simulate",
    "sql": "query",
    "tune": "tune",
    "verify": "verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(import_module(f"engine.verbs.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
