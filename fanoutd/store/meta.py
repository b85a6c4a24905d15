"""Small values by name that belong to the whole store."""

from __future__ import annotations

from fanoutd.store.database import Database


def read(db: Database, name: str) -> str | None:
    row = db.one("SELECT value FROM fanout_meta WHERE name = %s", name)
    return str(row[0]) if row else None


def write(db: Database, name: str, value: str) -> None:
    db.upsert("fanout_meta", {"name": name}, {"value": value})


def hold(db: Database, name: str, initial: str) -> str:
    """The value, ``initial`` where there was none, for whoever changes it: others wait until the transaction ends."""
    db.upsert("fanout_meta", {"name": name}, {"value": initial}, also="value = fanout_meta.value")
    return read(db, name) or ""
