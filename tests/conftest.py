"""Settings and fixtures of the whole suite. The checkout is tested, installed or not."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    # Two processes that compile one loop for different types at the same moment would give both files one name.
    os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".pytest_cache" / f"numba-{worker}"))

settings.register_profile("gaussmeter", deadline=None)  # the first example may compile a kernel
settings.load_profile("gaussmeter")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all the examples of a hypothesis test."""
    return tmp_path_factory.mktemp("scratch")
