"""The two back ends of the store, for tests that are run on both: ``@pytest.mark.parametrize("kind", KINDS)``."""

from __future__ import annotations

from pathlib import Path

from fanoutd.store import Database, open_store
from fanoutd.store.schema import migrate
from support import mariadb

KINDS = ("sqlite", "mariadb")


def url(kind: str, folder: Path) -> str:
    """Of a store that does not exist yet, or is empty. ``folder``: where a file may be."""
    return f"sqlite:///{folder}/store.db" if kind == "sqlite" else mariadb.server().database()


def opened(kind: str, folder: Path) -> Database:
    """A connection to a new store with all its tables. Whoever closes it has done enough."""
    db = open_store(url(kind, folder))
    migrate(db)
    return db


def tables(db: Database) -> list[str]:
    """Of whoever."""
    found = db.rows(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'" if db.kind == "sqlite" else
        "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
    )  # fmt: skip
    return sorted(row[0] for row in found)


def ours(db: Database) -> dict[str, list[tuple[object, ...]]]:
    """Everything that the store says, by table."""
    return {name: sorted(db.rows(f"SELECT * FROM {name}"), key=repr) for name in tables(db)}


def refill(db: Database, content: dict[str, list[tuple[object, ...]]]) -> None:
    """Put it back to what ``ours`` has found."""
    with db.transaction():
        for name, rows in content.items():
            db.execute(f"DELETE FROM {name}")
            if rows:
                db.insert_many(f"INSERT INTO {name} VALUES ({', '.join(['%s'] * len(rows[0]))})", rows)
