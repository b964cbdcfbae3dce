"""Configurations of any job; the key `job` says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.config.census import CensusConfig
from engine.config.delta import DeltaConfig
from engine.config.merge_job import MergeConfig
from engine.config.parts import named
from engine.config.report import ReportConfig
from engine.config.strict import read_yaml, validate
from engine.config.tune import TuneConfig
from engine.errors import ConfigError

JobConfig = CensusConfig | DeltaConfig | MergeConfig | ReportConfig | TuneConfig
RESUMES_BY_ITSELF = "what is not adaptation runs resumes by itself; --resume goes with job: tune"
"""Why a job of another kind is not told to resume."""

_KINDS: dict[str, type[JobConfig]] = {
    "scan": CensusConfig,
    "delta": DeltaConfig,
    "merge": MergeConfig,
    "report": ReportConfig,
    "tune": TuneConfig,
}


def load_job(path: str | Path) -> JobConfig:
    """Read the configuration of a job.

    Raises:
        ConfigError: with every fault of it.
    """
    return parse_job(read_yaml(path), path)


def parse_job(data: Any, path: str | Path) -> JobConfig:
    """Make a configuration of plain data; errors as for `load_job`."""
    kind = data.get("job") if isinstance(data, dict) else "scan"
    model = _KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        found = "is missing" if kind is None else f"is one of {', '.join(_KINDS)}, not {str(kind)[:60]!r}"
        raise ConfigError(f"job: {found}", file=str(path))
    return named(validate(data, model, str(path)), path)
