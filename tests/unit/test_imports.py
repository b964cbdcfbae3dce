"""One direction of imports, one owner of each heavy library, and nothing loaded before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "engine"

FLOORS = [
    "version", "errors", "nouns", "config", "kernels", "bands", "near", "sketch", "device", "statistics",
    "merge_methods", "pictures", "pages", "storage", "formats", "plan", "tasks", "execution", "tuning",
    "warehouse", "verbs", "cli",
]  # fmt: skip
"""From the ground up: a module imports from floors below its own, or from its own folder."""

TOP = ["__init__", "__main__"]
"""They only open the door, so they may see every floor."""

OWNERS: dict[str, tuple[str, ...]] = {
    "numba": ("kernels",),
    "duckdb": ("warehouse",),
    "pyarrow": ("warehouse", "tuning"),  # examples come as Parquet too
    "typer": ("cli",),
    "rich": ("cli",),
    "torch": ("kernels", "tuning"),
    "triton": ("kernels",),
    "ray": ("execution", "tuning"),  # counting and training know different parts of it
    "transformers": ("tuning",),
    "peft": ("tuning",),
    "safetensors": ("tuning",),  # everything else reads the format itself
    "zarr": ("formats",),
    "obstore": ("storage",),
    "kvikio": ("storage", "device"),  # reads files, like the others; a worker's device says whether it loads
    "huggingface_hub": ("storage", "tuning"),  # examples and models for transformers
    "numcodecs": ("tasks",),
    "scipy": (),
    "pydantic": ("config",),
    "yaml": ("config",),
    "altair": ("pictures",),
    "vl_convert": ("pictures",),
}
"""The only floors that may import each heavy library."""

MODULES = sorted(ENGINE.rglob("*.py"))


def floor_of(module: str) -> str:
    """The floor of a dotted name such as engine.formats.index."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Every module that a source names in an import, wherever it stands, as (line, dotted name)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                package = package[: len(package) - node.level + 1]
                base = ".".join([*package, *([base] if base else [])])
            if base == "engine":  # from engine import errors
                yield from ((node.lineno, f"engine.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, base
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from ((node.lineno, str(a.value)) for a in node.args[:1] if isinstance(a, ast.Constant))


def wrong_imports(source: str, module: str, is_package: bool = False) -> list[str]:
    own = floor_of(module)
    height = len(FLOORS) if own in TOP else FLOORS.index(own)
    wrong = []
    for line, name in imports_of(source, module, is_package):
        library = name.split(".")[0]
        if library in OWNERS and own not in OWNERS[library]:
            owners = " and ".join(OWNERS[library]) or "nobody"
            wrong.append(f"{module}:{line} imports {name}, which belongs to {owners}")
        if library == "engine":
            target = floor_of(name)
            below = target in FLOORS[:height]
            if not below and not (target == own and own in FLOORS):
                wrong.append(f"{module}:{line} imports {name}, which is not below {own}")
    return wrong


def test_every_module_stands_on_a_floor_of_the_table():
    found = {floor_of(dotted(path)) for path in MODULES}
    assert len(MODULES) > 25
    assert found - set(FLOORS) - set(TOP) == set()
    assert {
        "errors",
        "nouns",
        "kernels",
        "sketch",
        "statistics",
        "storage",
        "formats",
        "plan",
        "tasks",
    } <= found


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_go_down_and_heavy_libraries_stay_with_their_owner(path):
    assert wrong_imports(path.read_text(), dotted(path), path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("source", "module", "count"),
    [
        ("from engine.verbs.scan import scan", "engine.plan", 1),
        ("from engine import verbs, errors", "engine.plan", 1),
        ("def f():\n    import duckdb.typing", "engine.verbs.scan", 1),
        ("from ..cli import app", "engine.verbs.scan", 1),
        ("from . import local", "engine.storage.__init__", 0),
        ("from engine.storage.reader import Reader", "engine.storage.local", 0),
        ("import engine", "engine.plan", 1),
        ("from engine import __version__", "engine.warehouse.migrate", 1),
        ("import importlib\nimportlib.import_module('torch')", "engine.tasks.scan", 1),
        ("from numba import njit", "engine.kernels.cpu", 0),
        ("import scipy.stats as s", "engine.statistics.moments", 1),
        ("from engine.plan import MIB\nimport numpy", "engine.tasks.scan", 0),
        ("from engine.tasks.scan import ScanBody", "engine.plan", 1),
    ],
)
def test_the_rule_itself_sees_what_it_forbids(source, module, count):
    assert len(wrong_imports(source, module)) == count


def loaded_by(statement: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has after a statement."""
    script = f"import sys; {statement}; print(*{{m.split('.')[0] for m in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_the_engine_loads_nothing_heavy():
    loaded = loaded_by("import engine; assert engine.__version__")
    assert "engine" in loaded
    assert loaded & {"numpy", "numba", "duckdb", "pyarrow", "typer", "rich", "torch", "scipy"} == set()


def test_looking_at_a_checkpoint_compiles_nothing():
    loaded = loaded_by("import engine.formats.checkpoint, engine.plan")
    assert loaded & {"numba", "duckdb", "pyarrow", "typer", "rich", "torch", "scipy"} == set()
