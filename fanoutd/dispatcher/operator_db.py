"""The operator's own databases: audiences and token tables are only ever read here."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fanoutd.config import mysql_url, sqlite_path
from fanoutd.errors import FanoutdError
from fanoutd.sqltext import to_sqlite

#: Seconds to the first row, and between two: a query over an old table without an index may take minutes.
PATIENCE = 600.0
#: How long another program's write to a SQLite file is waited for, in seconds.
_BUSY = 5.0
#: Rows read in one piece.
_FETCH = 1000

Values = Mapping[str, str | int | None]
Rows = Iterator[tuple[Any, ...]]


class OperatorDatabaseAway(FanoutdError):
    """The operator's database cannot be used; the words name it."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a query gives. ``rows`` raises OperatorDatabaseAway; whoever drops it leaves the rest unread."""

    columns: list[str]
    rows: Rows


def select(url: str, query: str, values: Values, patience: float = PATIENCE) -> Selection:
    """Ask by a connection of its own by which nothing can be changed. Raises OperatorDatabaseAway.

    From a server of MySQL's protocol each value comes as text, or None, as the server writes it. ``patience``: seconds
    that such a server may say nothing.
    """
    path = sqlite_path(url)
    if path is None:
        from fanoutd.dispatcher import operator_mysql  # PyMySQL only where it is needed

        return operator_mysql.select(mysql_url.parse(url), query, values, patience)
    try:
        # What is left unread is closed by whatever thread collects it.
        link = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_BUSY, check_same_thread=False)
        try:
            cursor = link.execute(to_sqlite(query), values)
        except BaseException:
            link.close()
            raise
    except sqlite3.Error as e:
        raise OperatorDatabaseAway(f"{path}: {e}") from None
    return Selection([each[0] for each in cursor.description or ()], _rows(link, cursor, str(path)))


def _rows(link: sqlite3.Connection, cursor: sqlite3.Cursor, place: str) -> Rows:
    try:
        while rows := cursor.fetchmany(_FETCH):
            yield from rows
    except sqlite3.Error as e:
        raise OperatorDatabaseAway(f"{place}: {e}") from None
    finally:
        link.close()
