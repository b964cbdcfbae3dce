"""What an export looks like: where its files lie, and the marks that they carry.

Each subject has one Parquet file a table, in a folder of its own, `TABLE/subject_key=KEY/TABLE.parquet`.
Every file carries the mark of what it was made from; that of `subjects`, which is written last, also says how
many rows and bytes the others have. So it is with runs, `runs/run_key=KEY/runs.parquet`, their metrics and
their scalars. What was refused is one file, in which that of several warehouses comes together.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.errors import FormatError

FORMAT = 1
"""Of the export; columns may be added without a new one."""
SUBJECTS = "subjects"
TABLES = ("tensors", "filtered", "bins", "iid", "tensor_stats")
"""In the order in which they are written; `subjects` follows."""
YOUNG = ("iid",)
"""Tables that older exports lack."""
GONE = frozenset({"zero_rows"})
"""Columns that older exports have, in which there never was anything."""
RUNS = "runs"
RUN_TABLES = ("metrics", "scalars")
"""In the order in which they are written; `runs` follows."""
REFUSALS = "refusals/refusals.parquet"
CODES = "codes/codes.parquet"
MARK = b"gaussmeter"

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_KEY = re.compile(r"(?:subject|run)_key=([A-Za-z0-9._-]*@[0-9a-f]{16})")
_LONGEST = 80


@dataclass(frozen=True, slots=True)
class Size:
    """Of one file.

    Attributes:
        rows: its rows.
        nbytes: its bytes.
    """

    rows: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an export says of itself.

    Attributes:
        schema: version of the warehouse's tables.
        made_of: digest of everything that decides what the files hold.
        parents: identities of the subjects that it was derived from.
        files: size of each table's file.
    """

    schema: int
    made_of: str
    parents: tuple[str, ...]
    files: dict[str, Size]

    def to_bytes(self) -> bytes:
        """For the file of the subject."""
        return json.dumps({"format": FORMAT, **asdict(self)}).encode()


def mark_of(made_of: str) -> bytes:
    """What ties a table's file to its subject."""
    return json.dumps({"format": FORMAT, "made_of": made_of}).encode()


def parse_mark(metadata: Mapping[bytes, bytes] | None, file: str) -> dict[str, Any]:
    """Read what a file says that it was made from.

    Raises:
        FormatError: it is none of ours, or of a newer gaussmeter.
    """
    try:
        mark = json.loads((metadata or {})[MARK])
        made = mark["format"], mark["made_of"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FormatError("was not written by `gaussmeter export`", file=file) from error
    if made[0] != FORMAT:
        raise FormatError(
            f"is an export of format {made[0]!r}, this gaussmeter knows {FORMAT}: use a newer one", file=file
        )
    return dict(mark)


def parse_manifest(mark: Mapping[str, Any], file: str, tables: Sequence[str] = TABLES) -> Manifest:
    """Read the mark of the file of a subject, or of a run.

    Args:
        mark: from `parse_mark`.
        file: whose.
        tables: the others that belong to it.

    Raises:
        FormatError: it is no manifest.
    """
    try:
        there = (t for t in tables if t not in YOUNG or t in mark["files"])
        files = {table: Size(**mark["files"][table]) for table in there}
        manifest = Manifest(mark["schema"], mark["made_of"], tuple(mark["parents"]), files)
        numbers = [manifest.schema, *(n for size in files.values() for n in (size.rows, size.nbytes))]
        words = [manifest.made_of, *manifest.parents]
        sound = all(type(n) is int and n >= 0 for n in numbers) and all(isinstance(w, str) for w in words)
    except (KeyError, TypeError) as error:
        raise FormatError("has no usable manifest", file=file) from error
    if not sound:
        raise FormatError("has no usable manifest", file=file)
    return manifest


def digest(*words: object) -> str:
    """Of any words that JSON can say."""
    text = json.dumps(words, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def identity_of(uri: str, fingerprint: str, kind: str, spec: str) -> str:
    """The same for what a warehouse takes for one subject, in 16 hexadecimal digits."""
    return digest(uri, fingerprint, kind, spec)[:16]


def key_of(name: str, identity: str) -> str:
    """Name of a subject's folders: what is safe of its name, for people, and its identity."""
    return f"{_UNSAFE.sub('-', name)[:_LONGEST].strip('-.') or 'subject'}@{identity}"


def file_of(table: str, key: str) -> str:
    """Where a table of a subject or of a run lies."""
    column = "run_key" if table in (RUNS, *RUN_TABLES) else "subject_key"
    return f"{table}/{column}={key}/{table}.parquet"


def key_in(path: str) -> str | None:
    """The key in the path of the file of a subject or a run, None for a file of something else."""
    table, _, rest = path.partition("/")
    match = _KEY.fullmatch(rest.removesuffix(f"/{table}.parquet"))
    return match[1] if match and rest != match[0] else None
