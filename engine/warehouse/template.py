"""An empty warehouse that is kept to be copied, because binding all the views anew takes 0.15 s.

It lies beside this module, where Python keeps what it has compiled; where that cannot be written, there is
none.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

import duckdb

from engine.version import __version__
from engine.warehouse.sql_files import scripts

_FOLDER = Path(__file__).parent / "__pycache__"
_DIGITS = 16


def copy_template(new: Path) -> bool:
    """Write a copy of the empty warehouse of this program, if one is kept and is what it was.

    Where it cannot be written, making one will say why.
    """
    for path in _kept():
        try:
            content = path.read_bytes()
            if path.stem.endswith(_digest(content)):
                new.write_bytes(content)
                return True
        except OSError:
            new.unlink(missing_ok=True)
    return False


def keep_template(new: Path) -> None:
    """Keep a copy of a warehouse that was just made; what cannot be kept is made again the next time."""
    try:
        content = new.read_bytes()
        _FOLDER.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="warehouse-", suffix=".part", dir=_FOLDER)
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            for old in _FOLDER.glob("warehouse-*.duckdb"):  # of another version, or damaged
                old.unlink(missing_ok=True)
            part.rename(_FOLDER / f"warehouse-{_version()}-{_digest(content)}.duckdb")
        finally:
            part.unlink(missing_ok=True)
    except OSError:  # another user's installation, a full disk
        return


def _kept() -> list[Path]:
    return sorted(_FOLDER.glob(f"warehouse-{_version()}-*.duckdb"))


@cache
def _version() -> str:
    """Digest of everything that an empty warehouse depends on."""
    digest = hashlib.sha256(f"{__version__} {duckdb.__version__}".encode())
    for script in (*scripts("migrations"), *scripts("views")):
        digest.update(script.name.encode() + b"\0" + script.read_bytes())
    return digest.hexdigest()[:_DIGITS]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
