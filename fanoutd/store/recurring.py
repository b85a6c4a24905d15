"""Campaigns that come again: what is submitted, and when. Times in milliseconds since 1970."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fanoutd.store.database import Database

_COLUMNS = "id, cron, timezone, submission, created_at, last_at, last_campaign"


@dataclass(frozen=True, slots=True)
class Recurring:
    """``submission`` is the spool's document; ``last_at`` the planned time of ``last_campaign``."""

    id: str
    cron: str
    timezone: str
    submission: dict[str, Any]
    created_at: int
    last_at: int | None
    last_campaign: str | None


def insert(db: Database, document: dict[str, Any], timezone: str) -> None:
    """Keep it unless its id is there."""
    if not db.one("SELECT 1 FROM fanout_recurring WHERE id = %s", document["campaign"]):
        db.execute(
            "INSERT INTO fanout_recurring (id, cron, timezone, submission, created_at) VALUES (%s, %s, %s, %s, %s)",
            document["campaign"], document["cron"], timezone, json.dumps(document, ensure_ascii=False), document["at"],
        )  # fmt: skip


def listed(db: Database) -> list[Recurring]:
    """All, oldest first."""
    rows = db.rows(f"SELECT {_COLUMNS} FROM fanout_recurring ORDER BY created_at, id")
    return [Recurring(id, cron, zone, json.loads(text), *rest) for id, cron, zone, text, *rest in rows]


def came(db: Database, id: str, at: int, campaign: str) -> None:
    """The campaign of this planned time was submitted; never an earlier one after a later one."""
    db.execute(
        "UPDATE fanout_recurring SET last_at = %s, last_campaign = %s WHERE id = %s AND COALESCE(last_at, 0) <= %s",
        at, campaign, id, at,
    )  # fmt: skip


def remove(db: Database, id: str) -> bool:
    """Whether it was there."""
    return db.execute("DELETE FROM fanout_recurring WHERE id = %s", id) > 0
