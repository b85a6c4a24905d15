"""The operator's own databases: audiences and token tables are only ever read here."""

from __future__ import annotations

import sqlite3

from fanoutd.config import sqlite_path
from fanoutd.errors import FanoutdError

#: How long another program's write is waited for, in seconds.
_BUSY = 5.0


class OperatorDatabaseAway(FanoutdError):
    """The operator's database cannot be used; the words name it."""


def read_only(url: str) -> sqlite3.Connection:
    """A connection by which nothing can be changed, whatever the statement says. Raises OperatorDatabaseAway."""
    path = sqlite_path(url)
    if path is None:
        raise OperatorDatabaseAway("database: this version reads SQLite files only")
    try:
        return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_BUSY)
    except sqlite3.Error as e:
        raise OperatorDatabaseAway(f"{path}: {e}") from None
