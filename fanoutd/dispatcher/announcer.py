"""That there is work, said to the master, which wakes idle workers; and that they cannot take it, to people."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fanoutd.store import Database, free_shards, reasons

#: Bytes that must be free for workers to claim anybody: a piece of a journal, and what SQLite needs beside it.
_LEAST_ROOM = 2 << 20


class Announcer:
    """``say`` speaks to the master. Safe for several threads."""

    def __init__(self, journals: Path, say: Callable[[dict[str, Any]], None]) -> None:
        self._journals, self._say = journals, say
        self._disk_full: bool | None = None  # None: not looked yet

    def announce(self, db: Database) -> None:
        """Wake workers when shards wait for them. Raises StoreAway."""
        waiting = free_shards.ready(db)
        if waiting:
            self.wake(db, waiting)

    def wake(self, db: Database, waiting: int) -> None:
        """So many shards wait. Raises StoreAway."""
        self._look_for_room(db)
        self.work(waiting)

    def work(self, waiting: int) -> None:
        """The same, by whoever has no time to look for room."""
        self._say({"t": "work", "shards": waiting})

    def _look_for_room(self, db: Database) -> None:
        """Workers claim nobody when a journal cannot grow: say so where people look."""
        disk = os.statvfs(self._journals)
        full = disk.f_bavail * disk.f_frsize < _LEAST_ROOM
        if full != self._disk_full:
            with db.transaction():
                reasons.explain_all(db, "disk", f"the disk of {self._journals} is full: make room" if full else None)
            self._disk_full = full
