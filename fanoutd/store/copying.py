"""One store's rows into another, whichever databases they are: table by table, in batches, by their primary keys.

Until the last row is in, and all were read back and found the same, the new store has a mark in the place of its
version: no daemon uses it, and the next copy begins it anew. Numbers that a database gave (shards', which journals
name) are kept.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass

from fanoutd.errors import FanoutdError, NotNow
from fanoutd.store import meta, schema
from fanoutd.store.database import Database, Row, StoreAway, holes
from fanoutd.store.schema import MOVED, UNFINISHED

Progress = Callable[[str, int], None]
"""Told the table's name, and how many of its rows are in."""

#: What ends with the daemons that used the store: who leads, who has which share of a rate, how far each recorder came.
LEFT_BEHIND = frozenset({"fanout_lease", "fanout_share", "fanout_round"})

#: Rows at a time. A campaign's may have a mebibyte.
_BATCH, _LARGE = 2000, {"fanout_campaign": 20, "fanout_recurring": 20}

#: A server that is away is waited for, in seconds before each further try.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Table:
    """``key``: the columns of its primary key, in order."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    def key_of(self, row: Row) -> Row:
        return tuple(row[self.columns.index(each)] for each in self.key)


def tables() -> list[Table]:
    """All that this version's store has, as SQLite understands their definitions."""
    with closing(sqlite3.connect(":memory:")) as link:
        for statement in schema.everything():
            link.execute(statement)
        names = [row[0] for row in link.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")]
        return [_table(name, link.execute(f"PRAGMA table_info({name})").fetchall()) for name in names]


def _table(name: str, info: list[Row]) -> Table:
    key = sorted((place, column) for _, column, _, _, _, place in info if place)
    return Table(name, tuple(row[1] for row in info), tuple(column for _, column in key))


def refuse_used(target: Database) -> None:
    """Raises NotNow for a database in which there is a store, or something that looks like one."""
    found = target.tables()
    known = {table.name for table in tables()}
    if found and not (found <= known and _unfinished(target, found)):
        raise NotNow(f"{target.place} has tables of a store already ({', '.join(sorted(found)[:3])}, …); name another")


def _unfinished(target: Database, found: set[str]) -> bool:
    """Whether all of it is what a copy had made when it was cut off."""
    if "fanout_meta" not in found:
        return False
    said = {row[0] for row in target.rows("SELECT name FROM fanout_meta")}
    return UNFINISHED in said or (not said and found == {"fanout_meta"})


def copy(source: Database, target: Database, progress: Progress) -> dict[str, int]:
    """Everything that outlives a daemon; how many rows of each table. Nobody may write to the source meanwhile.

    Raises NotNow for a target that is in use, StoreAway for a database that stays away, and FanoutdError when what was
    read back is not what was written.
    """
    with target.migrating():
        refuse_used(target)
        return _Copy(source, target, progress).run()


class _Copy:
    def __init__(self, source: Database, target: Database, progress: Progress) -> None:
        self._source, self._target, self._progress = source, target, progress
        self._mark = os.urandom(8).hex()

    def run(self) -> dict[str, int]:
        self._begin()
        copied = {table.name: self._table(table) for table in tables() if table.name not in LEFT_BEHIND}
        self._target.execute("UPDATE fanout_node SET gone = 1")  # by another clock they might seem alive
        self._insist(self._end, lambda: meta.read(self._target, "version") is not None)
        return copied

    def _begin(self) -> None:
        db = self._target
        found = db.tables()
        schema.define_meta(db)
        meta.write(db, UNFINISHED, self._mark)  # from here on a copy that was thought dead gets no row in any more
        db.execute("DELETE FROM fanout_meta WHERE name <> %s", UNFINISHED)
        for name in found - {"fanout_meta"}:
            db.execute(f"DROP TABLE {name}")
        schema.define_all(db)

    def _end(self) -> None:
        """In one statement: a store with its version, or a copy that was cut off."""
        if not self._target.execute(
            "UPDATE fanout_meta SET name = 'version', value = %s WHERE name = %s AND value = %s",
            str(schema.VERSION), UNFINISHED, self._mark,
        ):  # fmt: skip
            raise self._overtaken()

    def _overtaken(self) -> NotNow:
        return NotNow(f"another `fanoutd migrate` has begun to fill {self._target.place}; this one ends here")

    def _table(self, table: Table) -> int:
        written, there = _Sum(), _Sum()
        for rows in _pages(self._source, table):
            written.add(rows)
            try:
                self._put(table, rows)
            except FanoutdError:
                raise
            except Exception as e:
                words = f"{self._target.place} does not take what {self._source.place} has in {table.name}: {e}"
                raise FanoutdError(words) from e
            self._progress(table.name, written.count)
        for rows in _pages(self._target, table):
            there.add(rows)
        if written != there:
            raise FanoutdError(
                f"{table.name}: {written.count} rows were written to {self._target.place}, and what was read back is "
                f"not the same ({there.count} rows); has somebody else changed it? Run it again"
            )
        return written.count

    def _put(self, table: Table, rows: list[Row]) -> None:
        sql = f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({holes(len(table.columns))})"
        last = table.key_of(rows[-1])
        where = " AND ".join(f"{column} = %s" for column in table.key)

        def step() -> None:
            # A file is filled in one transaction as a whole; a server in one a batch, each with a look at the mark.
            with self._target.transaction() if self._target.shared else nullcontext():
                ours = "SELECT value FROM fanout_meta WHERE name = %s" + self._target.LOCK_SHARED
                if self._target.one(ours, UNFINISHED) != (self._mark,):
                    raise self._overtaken()
                self._target.insert_many(sql, rows)

        self._insist(step, lambda: bool(self._target.rows(f"SELECT 1 FROM {table.name} WHERE {where}", *last)))

    def _insist(self, step: Callable[[], None], done: Callable[[], bool]) -> None:
        """Do it, however often the server goes away meanwhile. ``done``: whether it was, though nobody heard of it."""
        for pause in _PAUSES if self._target.shared else ():
            try:
                step()
                return
            except StoreAway:
                time.sleep(pause)
            try:
                if done():
                    return
            except StoreAway:
                continue
        step()


@dataclass(slots=True)
class _Sum:
    """Of rows, in whatever order."""

    count: int = 0
    total: int = 0

    def add(self, rows: list[Row]) -> None:
        self.count += len(rows)
        for row in rows:
            digest = hashlib.blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=8).digest()
            self.total = (self.total + int.from_bytes(digest, "little")) & _MASK


def _pages(db: Database, table: Table) -> Iterator[list[Row]]:
    """All rows by primary key, so many at a time; of fanout_meta what is not about the copy."""
    size = _LARGE.get(table.name, _BATCH)
    after: Row | None = None
    while page := _page(db, table, after, size):
        after = table.key_of(page[-1])
        if table.name == "fanout_meta":
            page = [row for row in page if row[0] not in ("version", UNFINISHED, MOVED)]
        if page:
            yield page


def _page(db: Database, table: Table, after: Row | None, size: int) -> list[Row]:
    """The next rows, each question answered from the key alone: neither database uses it for (a, b) > (x, y) as well.

    First those that share all but the last of the key's columns with the last row, then all but two, and so on.
    """
    start = f"SELECT {', '.join(table.columns)} FROM {table.name}"
    order = f"ORDER BY {', '.join(table.key)} LIMIT {{}}"
    if after is None:
        return db.rows(f"{start} {order.format(size)}")
    found: list[Row] = []
    for shared in reversed(range(len(table.key))):
        where = [f"{column} = %s" for column in table.key[:shared]] + [f"{table.key[shared]} > %s"]
        ask = f"{start} WHERE {' AND '.join(where)} {order.format(size - len(found))}"
        found += db.rows(ask, *after[: shared + 1])
        if len(found) == size:
            break
    return found
