"""What a census need not look at again: subjects that are complete, and checkpoints that were refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.version import __version__
from engine.warehouse.rows import Connection, all_rows
from engine.warehouse.subjects import NOW, Spec, canonical, forget_refusals


@dataclass(frozen=True, slots=True)
class Known:
    """What the warehouse knew when a census began, of one set of options.

    Attributes:
        complete: subject number and name, by place and fingerprint.
        commits: the same by place and commit, for versioned stores.
        refused: the reason, by place and fingerprint.
    """

    complete: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    commits: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    refused: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A checkpoint that is not taken in.

    Attributes:
        uri: where it is.
        fingerprint: of its files; "" if it could not be opened.
        status: `refused` or `failed`.
        reason: one sentence.
    """

    uri: str
    fingerprint: str
    status: str
    reason: str


def known(connection: Connection, spec: Spec, iid: int | None = None) -> Known:
    """Read what is known of checkpoints that were scanned with these options; `iid` as for `begin`."""
    found = Known()
    rows = all_rows(
        connection,
        "SELECT uri, fingerprint, revision, subject_id, name FROM subjects "
        "WHERE status = 'complete' AND kind = 'checkpoint' AND spec::VARCHAR = ? "
        "AND coalesce(iid, -1) >= ? ORDER BY subject_id",
        [canonical(spec), -1 if iid is None else iid],
    )
    for uri, fingerprint, revision, subject_id, name in rows:
        found.complete[uri, fingerprint] = (subject_id, name)
        if revision:
            found.commits[uri, revision] = (subject_id, name)
    refused = all_rows(
        connection,
        "SELECT uri, fingerprint, reason FROM refusals WHERE status = 'refused' AND fingerprint <> '' "
        "AND spec::VARCHAR = ? AND engine_version = ?",
        [canonical(spec), __version__],
    )
    found.refused.update({(uri, fingerprint): reason for uri, fingerprint, reason in refused})
    return found


def keep_refusals(
    connection: Connection, refusals: Iterable[Refusal], accepted: Iterable[str], spec: Spec
) -> None:
    """Note what was refused, and forget it of what was accepted.

    Args:
        connection: in a transaction.
        refusals: at most one for each place.
        accepted: places whose checkpoint is in.
        spec: the options.
    """
    text = canonical(spec)
    refusals = list(refusals)
    places = [r.uri for r in refusals]
    these = "FROM refusals WHERE spec::VARCHAR = ? AND list_contains(?, uri)"
    rows = all_rows(connection, f"SELECT uri, min(first_at) {these} GROUP BY uri", [text, places])
    before: dict[str, object] = dict(rows)
    connection.execute(f"DELETE {these}", [text, places])
    forget_refusals(connection, list(accepted))
    for r in refusals:
        connection.execute(
            f"INSERT INTO refusals VALUES (?, ?, ?, ?, ?, ?, coalesce(?, {NOW}), {NOW})",
            [r.uri, r.fingerprint, text, r.status, r.reason, __version__, before.get(r.uri)],
        )
