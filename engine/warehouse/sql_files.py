"""The project's SQL, from the wheel or from the checkout."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from engine.errors import WarehouseError


@cache
def sql_root() -> Path:
    """Find the folder with migrations, views, queries and paper.

    Raises:
        WarehouseError: the installation lacks it.
    """
    package = Path(__file__).resolve().parent.parent
    for place in (package / "_sql", package.parent / "sql"):
        if (place / "migrations").is_dir():
            return place
    raise WarehouseError("this installation lacks its sql/ folder: install gaussmeter again")


def scripts(folder: str) -> list[Path]:
    """List the SQL files of one folder, in the order of their names."""
    return sorted((sql_root() / folder).glob("*.sql"))
