"""Writing into files that are there: what fails at the very end fails, too."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from engine.errors import TaskError
from engine.nouns.tasks import Into
from engine.tasks import writing


@pytest.mark.parametrize("how", ["at the end", "before the next file"])
def test_a_disk_that_is_full_when_a_file_is_closed(tmp_path, monkeypatch, how):
    """Network file systems write when a file is closed."""
    files = [tmp_path / name for name in "ab"]
    for file in files:
        file.write_bytes(bytes(4))
    first, second = (Into("t", "F32", str(file), 0) for file in files)
    close = os.close

    def full(descriptor):
        close(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(TaskError) as caught, writing.Files() as out:
        out.write(first, 0, np.ones(4, "u1"))
        monkeypatch.setattr(writing.os, "close", full)
        if how == "before the next file":
            out.write(second, 0, np.ones(4, "u1"))
    monkeypatch.undo()
    assert str(caught.value) == f"{files[0]}: could not be written: No space left on device"
