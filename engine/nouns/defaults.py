"""Defaults that users see, in one place."""

from __future__ import annotations

WAREHOUSE = "stats.duckdb"
"""The warehouse, in the working directory."""

MAX_MAGNITUDE = 1e5
"""`check` takes larger weights for damage."""

RANGES = 8
"""Requests at once for a distant checkpoint."""

AHEAD = 8
"""Checkpoints that a census opens before their turn."""

SPECTRUM_SIDE = 4096
"""Of matrices whose smaller side is at most this singular values are looked at, where they are wanted."""
