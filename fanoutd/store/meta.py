"""Small values by name that belong to the whole store."""

from __future__ import annotations

from collections.abc import Sequence

from fanoutd.store.database import Database, holes


def read(db: Database, name: str) -> str | None:
    row = db.one("SELECT value FROM fanout_meta WHERE name = %s", name)
    return str(row[0]) if row else None


def read_many(db: Database, names: Sequence[str]) -> dict[str, str]:
    """Those of them that there are."""
    if not names:
        return {}
    rows = db.rows(f"SELECT name, value FROM fanout_meta WHERE name IN ({holes(len(names))})", *names)
    return {str(name): str(value) for name, value in rows}


def write(db: Database, name: str, value: str) -> None:
    db.upsert("fanout_meta", {"name": name}, {"value": value})


def hold(db: Database, name: str, initial: str) -> str:
    """The value, ``initial`` where there was none, for whoever changes it: others wait until the transaction ends."""
    db.upsert("fanout_meta", {"name": name}, {"value": initial}, also="value = fanout_meta.value")
    return read(db, name) or ""
