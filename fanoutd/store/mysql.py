"""The store on a server of MySQL's protocol, shared by all nodes: MySQL 5.7 and later, MariaDB 10.4 and later.

READ COMMITTED, so that locks are on rows that were found and on no gaps between them; what a transaction reads in
order to change it, it reads with a lock. Nothing is repeated here but what cannot have had an effect: the beginning of
a transaction, and a lone SELECT. A transaction that a dead connection cut off is undone by the server; whether a
COMMIT was, whose answer never came, only the store itself can tell (``StoreUnsure``, ``store/rounds``).

The server may be far away, where a statement costs nothing and the way there and back everything: what nobody waits
for goes together with what somebody does, BEGIN with the first statement, COMMIT with the last.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from pymysql.connections import Connection
from pymysql.constants import ER

from fanoutd import mysql
from fanoutd.config.mysql_url import Server
from fanoutd.mysql import MysqlError
from fanoutd.store.database import NEW, Database, Later, Row, StoreAway, StoreBusy, StoreUnsure, holes

T = TypeVar("T")

#: Seconds that a statement may take, and wait for another transaction's lock. The lock's is the shorter, or a wait
#: would look like a dead connection.
STATEMENT_TIMEOUT = 10.0
_LOCK_WAIT = 4

#: Characters of statements that are sent together: far below the smallest max_allowed_packet.
_TOGETHER = 200_000

#: Seconds after which the server ends a connection that says nothing, and with it the locks of a transaction: those of
#: a machine that vanished, or of a process that was stopped, would keep everybody else out for hours.
_IDLE = 25

#: A connection that has been silent for so many seconds is not used again.
_FRESH = 20.0

#: UTC, for what the server's zone repeats in autumn would make leases an hour longer; strict, or it would cut texts.
_SESSION = (
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin, time_zone = '+00:00', "
    "sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
    f"innodb_lock_wait_timeout = {_LOCK_WAIT}, wait_timeout = {_IDLE}; "
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
)

#: How long one node waits for another's change to the tables, in seconds; asked for in steps, each of which ends before
#: the connection looks dead.
_MIGRATION, _STEP = 60, 5

#: What CREATE and ALTER say of a thing that is there: table, column, index. MySQL cannot undo them with a transaction.
_THERE_ALREADY = (ER.TABLE_EXISTS_ERROR, ER.DUP_FIELDNAME, ER.DUP_KEYNAME)

#: What decides whether a commit outlives the server's process, and its machine.
_DURABLE = (
    "innodb_flush_log_at_trx_commit", "innodb_flush_method", "innodb_doublewrite", "log_bin", "sync_binlog",
)  # fmt: skip

#: openids are told apart by case, as WeChat does.
_TABLE = " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"


class MysqlDatabase(Database):
    kind = "mysql"
    shared = True
    NOW_MS = "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)"
    LOCK = " FOR UPDATE"
    LOCK_SHARED = " LOCK IN SHARE MODE"

    def __init__(self, server: Server) -> None:
        self._server = server
        self.place = server.place
        self._link: Connection[Any] | None = None
        self._used = time.monotonic()
        self._within = False  # a transaction, of which the server knows when it has begun
        self._begun = False
        self._queue: list[tuple[str, Later]] = []  # what it has not been told yet
        with self._trouble():
            self._connect()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._trouble():
            self._within, self._begun, self._queue = True, False, []
            try:
                yield
                self._commit()
            except BaseException:
                self._roll_back()
                raise
            finally:
                self._within, self._begun, self._queue = False, False, []

    def execute(self, sql: str, *args: Any) -> int:
        return self.later(sql, *args).count()

    def insert(self, sql: str, *args: Any) -> int:
        done = self.later(sql, *args)
        done.rows()
        return done.inserted

    def insert_many(self, sql: str, rows: Sequence[Row]) -> None:
        # PyMySQL makes one INSERT of it, and several where it would be larger than the smallest max_allowed_packet.
        with self._trouble():
            if self._within:
                self._flush()
            with self._connected().cursor() as cursor:
                cursor.executemany(sql, [_plain(row) for row in rows])

    def rows(self, sql: str, *args: Any) -> list[Row]:
        if self._within:
            return self.later(sql, *args).rows()
        with self._trouble():
            return self._unless_dead(lambda: self._run(sql, args)).rows()

    def later(self, sql: str, *args: Any) -> Later:
        with self._trouble():
            return self._put(sql, args) if self._within else self._run(sql, args)

    def upsert(self, table: str, key: Mapping[str, Any], values: Mapping[str, Any], also: str = "") -> None:
        columns = [*key, *values]
        sets = NEW.sub(r"VALUES(\1)", also or ", ".join(f"{name} = new({name})" for name in values))
        self.later(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({holes(len(columns))}) ON DUPLICATE KEY UPDATE {sets}",
            *key.values(), *values.values(),
        )  # fmt: skip

    def has_table(self, name: str) -> bool:
        return bool(self.rows(
            "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = %s", name
        ))  # fmt: skip

    def tables(self) -> set[str]:
        return {row[0] for row in self.rows(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() "
            "AND SUBSTRING(table_name, 1, 7) = 'fanout_'"
        )}  # fmt: skip

    @contextmanager
    def migrating(self) -> Iterator[None]:
        # A server's locks are one name space: two stores on it do not wait for each other.
        name = f"fanoutd-{hashlib.blake2b(self._server.database.encode(), digest_size=8).hexdigest()}"
        if not any(self.one(f"SELECT GET_LOCK(%s, {_STEP})", name) == (1,) for _ in range(_MIGRATION // _STEP)):
            raise StoreAway(f"store {self.place}: another node has been changing the tables for {_MIGRATION} s")
        try:
            yield
        finally:
            if self._link is not None:
                self.rows("SELECT RELEASE_LOCK(%s)", name)

    def define(self, statement: str) -> None:
        with self._trouble():
            try:
                self._run(_dialect(statement))
            except MysqlError as e:
                if mysql.number(e) not in _THERE_ALREADY:
                    raise

    def durability(self) -> str | None:
        rows = self.rows(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({holes(len(_DURABLE))})", *_DURABLE)
        has = {name.lower(): str(value).lower() for name, value in rows}
        flush, method = has.get("innodb_flush_log_at_trx_commit"), has.get("innodb_flush_method")
        name, what = None, "survives kill -9, not a power cut at the store's server"
        if flush == "0":
            what = "survives kill -9 of fanoutd, not the death of the store's server"
        if flush not in ("1", "3"):  # 3 is MariaDB's, and a sync more
            name = "innodb_flush_log_at_trx_commit"
        elif method in ("nosync", "littlesync"):
            name = "innodb_flush_method"
        elif has.get("log_bin") == "on" and has.get("sync_binlog") != "1" and flush != "3":
            # A commit is then synced as prepared, and after a power cut it is kept only if the binary log has it.
            name = "sync_binlog"
        elif has.get("innodb_doublewrite") in ("0", "off", "detect_only"):
            name, what = "innodb_doublewrite", "survives kill -9, not every power cut at the store's server"
        return name and f"{what}: {name} is {has.get(name, 'not known')} at {self.place}"

    def set_patience(self, seconds: int) -> None:
        self.execute(f"SET innodb_lock_wait_timeout = {int(seconds)}")

    def close(self) -> None:
        if self._link is not None:
            try:
                self._link.close()
            except MysqlError:  # it was dead already
                pass
            self._link = None

    # ----

    def _connect(self) -> Connection[Any]:
        self._link = None
        link = mysql.connect(self._server, STATEMENT_TIMEOUT, whole_numbers=True, together=True)
        with link.cursor() as cursor:
            cursor.execute(_SESSION)
        self._link = link
        return link

    def _connected(self) -> Connection[Any]:
        if not self._begun and time.monotonic() - self._used > _FRESH:
            self._drop()  # the server is about to end it, and a statement that meets that end may have had an effect
        return self._link or self._connect()

    def _run(self, sql: str, args: Sequence[Any] = ()) -> Later:
        """Outside of transactions."""
        done = Later(_nothing)
        self._send([(self._bound(sql, args), done)])
        return done

    def _put(self, sql: str, args: Sequence[Any]) -> Later:
        if self._begun:
            self._must_be_there()
        done = Later(self._flush)
        self._queue.append((self._bound(sql, args), done))
        if sum(len(text) for text, _ in self._queue) > _TOGETHER:
            self._flush()
        return done

    def _bound(self, sql: str, args: Sequence[Any]) -> str:
        with self._connected().cursor() as cursor:
            text: str = cursor.mogrify(sql, _plain(args) or None)
        return text

    def _flush(self) -> None:
        """Tell the server what it has not been told of this transaction."""
        with self._trouble():
            queue, self._queue = self._queue, []
            if self._begun:
                self._must_be_there()
                self._send(queue)
            else:
                self._begun = True  # also when a statement after BEGIN fails
                self._unless_dead(lambda: self._send([("BEGIN", Later(_nothing)), *queue]))

    def _commit(self) -> None:
        if not self._begun:
            if not self._queue:
                return
            self._flush()  # a connection that died of idleness is found before it matters
        self._must_be_there()
        try:
            self._send([*self._queue, ("COMMIT", Later(_nothing))])
        except (MysqlError, OSError) as e:
            if not mysql.lost(e) and mysql.number(e) not in mysql.IN_DOUBT:
                raise
            self._drop()
            raise StoreUnsure(f"store {mysql.words(self._server, e)}") from e

    def _must_be_there(self) -> None:
        if self._link is None:
            raise StoreAway(f"store {self.place}: the connection was lost")

    def _send(self, statements: Sequence[tuple[str, Later]]) -> None:
        """All at once. The first that fails is the last that is run."""
        if not statements:
            return
        with self._connected().cursor() as cursor:
            cursor.execute("; ".join(text for text, _ in statements))
            for at, (_, done) in enumerate(statements):
                if at:
                    cursor.nextset()
                done.found = list(cursor.fetchall()) if cursor.description else []
                done.matched, done.inserted = cursor.rowcount, cursor.lastrowid or 0
        self._used = time.monotonic()

    def _unless_dead(self, step: Callable[[], T]) -> T:
        """What has no effect if it is cut off: once more when the connection has died since it was last used."""
        had = self._link
        try:
            return step()
        except (MysqlError, OSError) as e:
            if had is None or not mysql.lost(e):
                raise
            self._drop()
            return step()

    def _roll_back(self) -> None:
        if self._link is not None and self._begun:
            try:
                self._link.rollback()
            except (MysqlError, OSError):
                self._drop()

    def _drop(self) -> None:
        """The server undoes what was begun when it sees the end of the connection."""
        link, self._link = self._link, None
        if link is not None:
            mysql.abandon(link)

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except (MysqlError, OSError) as e:
            if mysql.lost(e):
                self._drop()
            said = f"store {mysql.words(self._server, e)}"
            if mysql.number(e) in mysql.BUSY | {ER.DUP_ENTRY}:
                raise StoreBusy(said) from e
            if isinstance(e, OSError) or mysql.away(e):
                raise StoreAway(said) from e
            raise


def _nothing() -> None:
    """It is being run."""


def _plain(args: Sequence[Any]) -> tuple[Any, ...]:
    """An enum's member is a number to PyMySQL only when it is one."""
    return tuple(int(each) if isinstance(each, int) else each for each in args)


#: From the SQL of ``schema`` to MySQL's. TEXT ends at 64 KiB there.
_DIALECT = (
    (re.compile(r"\bid INTEGER NOT NULL PRIMARY KEY"), "id INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY"),
    (re.compile(r"\bTEXT\b"), "MEDIUMTEXT"),
    (re.compile(r"\) WITHOUT ROWID$"), ")"),
    (re.compile(r"^(CREATE TABLE .*\))$", re.DOTALL), rf"\1{_TABLE}"),
)


def _dialect(statement: str) -> str:
    for pattern, replacement in _DIALECT:
        statement = pattern.sub(replacement, statement)
    return statement
