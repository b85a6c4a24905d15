"""Which promise is in force: what the file systems beneath it, and the store's server, can keep."""

from __future__ import annotations

import os
from pathlib import Path

#: File systems that are gone with the power, and those on which locks and fsync are another machine's affair.
_VOLATILE = ("tmpfs", "ramfs")
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "ceph", "glusterfs")

EXACT = "exact"


def file_system(path: Path) -> str:
    """The type of the file system beneath a path (proc(5), /proc/self/mountinfo); empty when it cannot be told."""
    there = path.resolve()
    best, kind = -1, ""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        point = Path(fields[4].encode().decode("unicode_escape"))
        # A later mount on the same point hides the earlier one.
        if there.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[fields.index("-") + 1]
    return kind


def promise(state_dir: Path, store: Path | None, lost: str | None = None) -> str:
    """``exact``, or what is promised instead and why, in a line.

    ``store``: SQLite's file, None for a server's; ``lost``: what the store says that it may lose (``durability``).
    """
    for what, path in (("state directory", state_dir), ("store", store)):
        if path is None or not os.path.lexists(path):
            continue
        kind = file_system(path)
        if kind in _VOLATILE:
            return f"survives kill -9, not a power cut: the {what} {path} is on {kind}"
        if kind in _REMOTE:
            return f"survives what {kind} survives: the {what} {path} is on another machine's disk"
    return lost or EXACT
