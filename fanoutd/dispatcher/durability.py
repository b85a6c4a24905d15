"""What the store may lose of what it called durable: said once in the log, and in the status while it is so."""

from __future__ import annotations

import logging
from pathlib import Path

from fanoutd.config import sqlite_path
from fanoutd.promise import promise
from fanoutd.store import Database

log = logging.getLogger(__name__)


class Durability:
    """``store_url`` as the configuration gives it."""

    def __init__(self, state_dir: Path, store_url: str) -> None:
        self._state_dir, self._file = state_dir, sqlite_path(store_url)
        self._seen = False
        self._lost: str | None = None

    def look(self, db: Database) -> None:
        """Ask the store; a server's settings may change while it runs. Raises StoreAway."""
        lost = db.durability()
        if lost != self._lost:
            if lost is None:
                log.info("the store keeps what it calls durable")
            else:
                log.warning("the promise is not exact: it %s", lost)
        self._seen, self._lost = True, lost

    def promise(self) -> str | None:
        """``exact``, or what is promised instead and why; None before the store was asked."""
        return promise(self._state_dir, self._file, self._lost) if self._seen else None
