"""Which local paths lie on a network file system."""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = "/proc/self/mountinfo"
_DISTANT = re.compile(
    r"nfs\d?|cifs|smb\w*|ncpfs|afs|ceph|lustre|gpfs|beegfs|glusterfs|panfs|orangefs|pvfs2|9p|virtiofs|wekafs"
    r"|fuse\.(?!(?:fuseblk|ntfs\S*|(?:fuse-)?overlay\S*|bindfs|encfs|gocryptfs|portal|lxcfs|snapfuse|squashfuse)$).*"
)
_ESCAPE = re.compile(r"\\(\d{3})")


def is_on_network(path: str | Path, mounts: str = MOUNTS) -> bool:
    """Whether a path lies on a file system that asks a server for every page.

    Args:
        path: of a file that exists.
        mounts: the kernel's list of mounts, `proc_pid_mountinfo(5)`. Where there is none, nothing is distant.
    """
    try:
        table = Path(mounts).read_text(errors="surrogateescape")
    except OSError:
        return False
    return _DISTANT.fullmatch(_type_of(os.path.realpath(path), table)) is not None


def _type_of(path: str, table: str) -> str:
    """File system type of the innermost mount that holds a path; of several at one place the last."""
    best, found = -1, ""
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        point = _ESCAPE.sub(lambda m: chr(int(m[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, found = len(point), right.split()[0]
    return found
