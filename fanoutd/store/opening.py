"""From a configured URL to a connection."""

from __future__ import annotations

from fanoutd.config import sqlite_path
from fanoutd.config.mysql_url import parse
from fanoutd.store.database import Database


def open_store(url: str) -> Database:
    """``sqlite:////path`` or ``mysql://…``, as the configuration gives it. Raises StoreAway."""
    path = sqlite_path(url)
    if path is not None:
        from fanoutd.store.sqlite import SqliteDatabase

        return SqliteDatabase(path)
    from fanoutd.store.mysql import MysqlDatabase  # only here: other installations need no PyMySQL in memory

    return MysqlDatabase(parse(url))
