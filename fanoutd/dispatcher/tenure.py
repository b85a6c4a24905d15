"""Whether this daemon has worked on its store before the store's tables became a newer version's.

While a cluster is upgraded one node after the other, the first new one changes the tables, and old daemons go on: what
a version appends lets the version before go on. Their dispatchers are replaced by a reload or a crash and go on too.
An old daemon that is started anew is refused: somebody has made a mistake.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from fanoutd.boot import boot_tag


class Tenure:
    """Of the daemon whose master this is. Methods may raise OSError."""

    def __init__(self, state_dir: Path, master: int) -> None:
        self._file = state_dir / "tenure"
        self._ours = {"master": master, "since": _started(master), "boot": boot_tag()}

    def begin(self) -> None:
        """The store is of our own version."""
        half = self._file.with_suffix(".new")
        with half.open("w", encoding="ascii") as out:
            os.fchmod(out.fileno(), 0o600)
            out.write(json.dumps(self._ours) + "\n")
        half.replace(self._file)

    @property
    def begun(self) -> bool:
        try:
            return bool(json.loads(self._file.read_text(encoding="ascii")) == self._ours)
        except (FileNotFoundError, ValueError):
            return False


def _started(pid: int) -> int:
    """In clock ticks since the machine's start; 0 for a process that is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    except FileNotFoundError:
        return 0
