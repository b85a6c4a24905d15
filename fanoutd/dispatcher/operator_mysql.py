"""The operator's databases on servers of MySQL's protocol: old, far away, and not ours.

Each question has a connection of its own, which ends with it. The server's ``sql_mode``, time zone and isolation stay
as they are: the site's queries were written for them. Imported only where such a server is configured.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pymysql.connections import Connection
from pymysql.constants import ER, FIELD_TYPE, SERVER_STATUS
from pymysql.cursors import SSCursor

from fanoutd import mysql
from fanoutd.config.mysql_url import Server
from fanoutd.dispatcher.operator_db import OperatorDatabaseAway, Rows, Selection, Values
from fanoutd.mysql import MysqlError
from fanoutd.sqltext import check_reads, names, to_mysql

#: Rows read in one piece.
_FETCH = 1000
#: Seconds beyond its time that a statement's answer is waited for: its server's own words are better than ours.
_GRACE = 2.0
#: What the server ended because it took too long: MariaDB's ``max_statement_time``, MySQL's ``max_execution_time``.
_TOO_LONG = frozenset({ER.STATEMENT_TIMEOUT, ER.QUERY_TIMEOUT})
_WRITES = 1792  # "Cannot execute statement in a READ ONLY transaction"

#: What PyMySQL trips over when the other end speaks another protocol, or asks for one of our files.
_NO_MYSQL = (struct.error, LookupError, AssertionError, ValueError, TypeError, AttributeError, RuntimeError)

#: A value's beginning that is hidden in a server's words, in characters: they cut off what they repeat.
_HIDDEN, _LOOKED_AT = 6, 200


class _Streamed(SSCursor):
    """Rows as they come. Its end is that of the connection: PyMySQL's would read all the rest first."""

    connection: Any
    _result: Any

    def close(self) -> None:
        result, link, self.connection = self._result, self.connection, None
        if link is None:
            return
        if result is not None and result.unbuffered_active:
            result.unbuffered_active = False
            mysql.abandon(link)
        else:
            link.close()

    __del__ = close


def select(server: Server, query: str, values: Values, patience: float) -> Selection:
    """As ``operator_db.select``."""
    try:
        check_reads(query)
    except ValueError as e:
        raise OperatorDatabaseAway(f"{server.place}: the query {e}") from None
    with _trouble(server, values, "query"):
        link = mysql.connect(server, patience, raw=True)
        try:
            _only_read(link, patience)
            cursor = link.cursor(_Streamed)
            cursor.execute(*_bound(server, link, query, values))
        except BaseException:
            mysql.abandon(link)
            raise
    if cursor.description is None:
        raise OperatorDatabaseAway(f"{server.place}: the query gives no rows")
    return Selection([each[0] for each in cursor.description], _rows(server, values, link.encoding, cursor))


def _only_read(link: Connection[Any], patience: float) -> None:
    """For this transaction and any that the query's own functions begin."""
    with link.cursor() as cursor:
        with suppress(MysqlError):  # the server waits only so long for whoever reads slowly
            cursor.execute(f"SET SESSION net_write_timeout = {int(patience)}")
        try:
            cursor.execute("SET SESSION TRANSACTION READ ONLY")
            cursor.execute("START TRANSACTION READ ONLY")
        except MysqlError as e:
            if mysql.number(e) != ER.PARSE_ERROR:
                raise
            cursor.execute("START TRANSACTION")  # before MySQL 5.6; it is never committed


def _rows(server: Server, values: Values, encoding: str, cursor: _Streamed) -> Rows:
    """Each value as text: old tables hold texts that are not of their charset, and no campaign shall stop at one."""
    types: list[Any] = [each[1] for each in cursor.description or ()]
    bits = [each == FIELD_TYPE.BIT for each in types]
    with _trouble(server, values, "query"):
        while rows := cursor.fetchmany(_FETCH):
            for row in rows:
                yield tuple(_text(value, encoding, bit) for value, bit in zip(row, bits, strict=True))
        cursor.close()


def _text(value: bytes | None, encoding: str, bit: bool) -> str | None:
    if value is None:
        return None
    return str(int.from_bytes(value, "big")) if bit else value.decode(encoding, "replace")


def run(server: Server, statement: str, values: Values, timeout: float) -> int:
    """One statement in a transaction of its own; how many rows it found. Raises OperatorDatabaseAway: it is undone, so
    far as its tables can be, unless only the answer to its COMMIT was lost. ``timeout`` in seconds."""
    with _trouble(server, values, "statement", timeout):
        link = mysql.connect(server, timeout + _GRACE, raw=True)
        try:
            with link.cursor() as cursor:
                _bounded(link, int(max(1, timeout)))
                cursor.execute("START TRANSACTION")
                found: int = cursor.execute(*_bound(server, link, statement, values))
                cursor.execute("COMMIT")
            link.close()
            return found
        except BaseException:
            mysql.abandon(link)  # and the server undoes it
            raise


def _bounded(link: Any, seconds: int) -> None:
    """Nobody is kept waiting for us, nor we for others: by what this server has of these."""
    locks = max(1, seconds - 1)  # the first to end, for "lock wait" says most
    settings = {"innodb_lock_wait_timeout": locks, "lock_wait_timeout": locks, "wait_timeout": seconds + 1}
    if "MariaDB" in link.get_server_info():
        settings["max_statement_time"] = seconds  # MySQL has no such limit but for SELECT
    words = [f"SESSION {name} = {value}" for name, value in settings.items()]
    with link.cursor() as cursor:
        for each in (", ".join(words), *words):  # the server is far away: at once if it knows them all
            try:
                cursor.execute(f"SET {each}")
            except MysqlError as e:
                if mysql.number(e) != ER.UNKNOWN_SYSTEM_VARIABLE:
                    raise
            else:
                if each not in words:
                    return


def _bound(server: Server, link: Any, sql: str, values: Values) -> tuple[str, dict[str, Any]]:
    """The text and its values for PyMySQL, which wants a value of each name. Raises OperatorDatabaseAway."""
    backslashes = not link.server_status & SERVER_STATUS.SERVER_STATUS_NO_BACKSLASH_ESCAPES
    try:
        text = to_mysql(sql, backslashes)
    except ValueError as e:
        raise OperatorDatabaseAway(f"{server.place}: {e}") from None
    missing = sorted(names(sql) - values.keys())
    if missing:
        raise OperatorDatabaseAway(f"{server.place}: nothing gives a value for %({missing[0]})s")
    return text, dict(values)


@contextmanager
def _trouble(server: Server, values: Values, what: str, timeout: float | None = None) -> Iterator[None]:
    """Whatever goes wrong as one line that names the place, and nobody."""
    try:
        yield
    except UnicodeEncodeError:
        words = f"{server.place}: its charset {server.charset} lacks a character of the {what} or of its values"
    except (MysqlError, OSError) as e:
        words = _hidden(_words(server, e, what, timeout), values)
    except _NO_MYSQL as e:
        words = f"{server.place}: what answers there does not speak as MySQL does ({type(e).__name__})"
    else:
        return
    raise OperatorDatabaseAway(words) from None


def _words(server: Server, error: BaseException, what: str, timeout: float | None) -> str:
    code = mysql.number(error)
    if code == _WRITES and what == "query":
        return f"{server.place}: the query writes, or locks what it reads; only a plain SELECT is due here"
    if timeout is not None and (code in _TOO_LONG or "timed out" in str(error)):
        return f"{server.place}: took longer than {timeout:g} s"
    if code == ER.UNKNOWN_CHARACTER_SET:
        return f"{mysql.words(server, error)}; an old server: add ?charset=utf8 to its URL"
    return mysql.words(server, error)


def _hidden(words: str, values: Values) -> str:
    """Servers repeat parts of the statement, and so of its values: an openid, what somebody wrote."""
    for name, value in values.items():
        whole = str(value)[:_LOOKED_AT]
        for length in range(len(whole), _HIDDEN - 1, -1):
            words = words.replace(whole[:length], f"%({name})s")
    return words
