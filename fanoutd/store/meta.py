"""Small values by name that belong to the whole store."""

from __future__ import annotations

from fanoutd.store.database import Database


def read(db: Database, name: str) -> str | None:
    row = db.one("SELECT value FROM fanout_meta WHERE name = %s", name)
    return str(row[0]) if row else None


def write(db: Database, name: str, value: str) -> None:
    db.upsert("fanout_meta", {"name": name}, {"value": value})
