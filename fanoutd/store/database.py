"""One connection to the store, and what differs between databases.

SQL is written with ``%s`` for parameters, as PyMySQL wants it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fanoutd.config import sqlite_path
from fanoutd.errors import FanoutdError

Row = tuple[Any, ...]

#: How long a transaction waits for another process's write before it gives up, in seconds.
BUSY_TIMEOUT = 5.0


class StoreAway(FanoutdError):
    """The store cannot be used right now; what was asked may be asked again."""

    exit_code = 69


class Database:
    """A connection of one thread. Never carried over a fork."""

    #: The database's own clock, in milliseconds since 1970, as an SQL expression.
    NOW_MS = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"

    def __init__(self, path: Path) -> None:
        self.kind = "sqlite"
        self.path = path
        try:
            self._link = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
            self._link.execute("PRAGMA journal_mode = WAL")
            # FULL, since a commit that a power cut undoes would be a window that was never claimed.
            self._link.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error as e:
            raise StoreAway(f"store {path}: {e}; is its folder there, writable and not full?") from None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, durable when left. Raises StoreAway when the database does not play along."""
        try:
            # IMMEDIATE: a transaction that reads first and writes later would fail at once when
            # another process wrote in between, whatever the busy timeout says.
            self._link.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._link.execute("COMMIT")
            except BaseException:
                if self._link.in_transaction:
                    self._link.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as e:
            raise StoreAway(f"store {self.path}: {e}") from e

    def execute(self, sql: str, *args: Any) -> int:
        """Run a statement; the number of rows it changed."""
        return self._link.execute(sql.replace("%s", "?"), args).rowcount

    def insert(self, sql: str, *args: Any) -> int:
        """Run an INSERT; the number that the database gave the new row."""
        return self._link.execute(sql.replace("%s", "?"), args).lastrowid or 0

    def insert_many(self, sql: str, rows: Sequence[Row]) -> None:
        self._link.executemany(sql.replace("%s", "?"), rows)

    def rows(self, sql: str, *args: Any) -> list[Row]:
        try:
            return self._link.execute(sql.replace("%s", "?"), args).fetchall()
        except sqlite3.OperationalError as e:
            raise StoreAway(f"store {self.path}: {e}") from e

    def one(self, sql: str, *args: Any) -> Row | None:
        found = self.rows(sql, *args)
        return found[0] if found else None

    def now_ms(self) -> int:
        """The database's clock: the only one by which leases end."""
        return int(self.rows(f"SELECT {self.NOW_MS}")[0][0])

    def close(self) -> None:
        self._link.close()


def holes(count: int) -> str:
    """``%s, %s, …`` for an IN list."""
    return ", ".join(["%s"] * count)


def open_store(url: str) -> Database:
    """Connect to ``sqlite:////path``, the only kind that `serve` lets pass. Raises StoreAway when it fails."""
    path = sqlite_path(url)
    if path is None:
        raise StoreAway("the store is no SQLite file")
    if not path.exists():  # made by hand, so that openids are never readable by others
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        except OSError as e:
            raise StoreAway(f"store {path}: {e.strerror}; make its folder writable") from None
    return Database(path)
