"""The store in a file of SQLite: one machine's."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fanoutd.store.database import NEW, Database, Later, Row, StoreAway, StoreBusy, holes

#: How long a transaction waits for another process's write before it gives up, in seconds.
BUSY_TIMEOUT = 5.0


class SqliteDatabase(Database):
    kind = "sqlite"
    shared = False
    NOW_MS = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
    LOCK = LOCK_SHARED = ""  # whoever writes is alone from BEGIN IMMEDIATE on

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = str(path)
        try:
            _make(path)
            self._link = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
            self._link.execute("PRAGMA journal_mode = WAL")
            # FULL, since a commit that a power cut undoes would be a window that was never claimed.
            self._link.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error as e:
            raise StoreAway(f"store {path}: {e}; is its folder there, writable and not full?") from None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._trouble():
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

    def execute(self, sql: str, *args: Any) -> int:
        with self._trouble():
            return self._link.execute(sql.replace("%s", "?"), args).rowcount

    def insert(self, sql: str, *args: Any) -> int:
        with self._trouble():
            return self._link.execute(sql.replace("%s", "?"), args).lastrowid or 0

    def insert_many(self, sql: str, rows: Sequence[Row]) -> None:
        with self._trouble():
            self._link.executemany(sql.replace("%s", "?"), rows)

    def rows(self, sql: str, *args: Any) -> list[Row]:
        with self._trouble():
            return self._link.execute(sql.replace("%s", "?"), args).fetchall()

    def later(self, sql: str, *args: Any) -> Later:
        with self._trouble():
            cursor = self._link.execute(sql.replace("%s", "?"), args)
            return Later(_nothing, cursor.fetchall(), cursor.rowcount)

    def upsert(self, table: str, key: Mapping[str, Any], values: Mapping[str, Any], also: str = "") -> None:
        columns = [*key, *values]
        sets = NEW.sub(r"excluded.\1", also or ", ".join(f"{name} = new({name})" for name in values))
        self.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({holes(len(columns))}) "
            f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {sets}",
            *key.values(), *values.values(),
        )  # fmt: skip

    def has_table(self, name: str) -> bool:
        return bool(self.rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = %s", name))

    def tables(self) -> set[str]:
        return {row[0] for row in self.rows(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 7) = 'fanout_'"
        )}  # fmt: skip

    @contextmanager
    def migrating(self) -> Iterator[None]:
        with self.transaction():
            yield

    def define(self, statement: str) -> None:
        self.execute(statement)

    def durability(self) -> str | None:
        return None  # what the file system below it can keep is another's question: ``fanoutd.promise``

    def set_patience(self, seconds: int) -> None:
        self.rows(f"PRAGMA busy_timeout = {seconds * 1000}")

    def close(self) -> None:
        self._link.close()

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError as e:
            raise StoreBusy(f"store {self.path}: {e}") from e
        except sqlite3.OperationalError as e:
            raise StoreAway(f"store {self.path}: {e}") from e


def _nothing() -> None:
    """It has been run."""


def _make(path: Path) -> None:
    """By hand, so that openids are never readable by others."""
    if not path.exists():
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        except OSError as e:
            raise StoreAway(f"store {path}: {e.strerror}; make its folder writable") from None
