"""Settings and fixtures of the whole suite. The checkout is tested, installed or not."""

import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

settings.register_profile("gaussmeter", deadline=None)  # the first example may compile a kernel
settings.load_profile("gaussmeter")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all the examples of a hypothesis test."""
    return tmp_path_factory.mktemp("scratch")
