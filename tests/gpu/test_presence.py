"""Says why nothing of the GPU is tested where its libraries are missing."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("library", ["torch", "triton"])
def test_the_libraries_of_the_gpu_are_there(library):
    pytest.importorskip(library, reason=f"{library} is not installed: pip install 'gaussmeter[gpu]'")
