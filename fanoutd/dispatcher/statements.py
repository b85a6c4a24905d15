"""The operator's own statements, on his own database: what fanoutd writes there is only what he told it to."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing

from fanoutd.config import mysql_url, sqlite_path
from fanoutd.dispatcher.operator_db import OperatorDatabaseAway
from fanoutd.errors import FanoutdError
from fanoutd.sqltext import names, to_sqlite

#: How long one may wait for another program's lock, and how long it may take, in seconds.
TIMEOUT = 5.0
#: Steps of SQLite's machine between two looks at the clock.
_STEPS = 10_000

Values = Mapping[str, str | int | None]


class NotRun(FanoutdError):
    """The statement changed nothing; it may be run again."""


def run(url: str, statement: str, values: Values) -> int:
    """Run it in a transaction of its own; how many rows it changed. What has no value is NULL. Raises NotRun."""
    path = sqlite_path(url)
    given = {name: values.get(name) for name in names(statement)}
    if path is None:
        from fanoutd.dispatcher import operator_mysql  # PyMySQL only where it is needed

        try:
            return operator_mysql.run(mysql_url.parse(url), statement, given, TIMEOUT)
        except OperatorDatabaseAway as e:
            raise NotRun(str(e)) from None
    end = time.monotonic() + TIMEOUT
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=TIMEOUT)) as link:
            link.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
            with link:
                return max(0, link.execute(to_sqlite(statement), given).rowcount)
    except sqlite3.Error as e:
        stopped = getattr(e, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT
        words = f"took longer than {TIMEOUT:g} s" if stopped else str(e)
        raise NotRun(f"{path}: {words}") from None
