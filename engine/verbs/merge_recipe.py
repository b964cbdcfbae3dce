"""What the configuration of a job says is to be merged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from engine.config.merge import MergeRecipe, parse_merge
from engine.config.merge_job import MergeConfig
from engine.config.strict import read_yaml
from engine.merge_methods.registry import SCHEMAS


def read_recipe(
    settings: MergeConfig, folder: Path, where: str
) -> tuple[dict[str, Any], MergeRecipe] | tuple[None, None]:
    """Read what is to be merged.

    Args:
        settings: the job's.
        folder: what the path of a recipe is relative to.
        where: the configuration, as faults name it.

    Returns:
        mergekit's keys and values, and the same as a recipe; nothing where an adapter is merged.

    Raises:
        ConfigError: with every fault of it.
    """
    if settings.merge is None:
        return None, None
    if isinstance(settings.merge, str):
        path = folder / os.path.expanduser(settings.merge)  # noqa: PTH111 - takes an unknown user for a name
        data, where = read_yaml(path), str(path)
    else:
        data, where = settings.merge, f"{where}: merge"
    return data, parse_merge(data, SCHEMAS, where)
