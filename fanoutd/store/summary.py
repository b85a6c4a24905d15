"""What a day came to, asked of the store once a day: these read much, and lock nothing."""

from __future__ import annotations

from typing import Any

from fanoutd.standing import State
from fanoutd.store.campaigns import FINAL
from fanoutd.store.database import Database, holes

_COLUMNS = "id, message, reference, state, reason, finished_at"


def ended(db: Database, since: int, until: int, limit: int) -> list[tuple[Any, ...]]:
    """(id, message, reference, state, reason, finished_at) of campaigns that ended then, the latest first."""
    return db.rows(
        f"SELECT {_COLUMNS} FROM fanout_campaign WHERE state IN ({holes(len(FINAL))}) AND finished_at >= %s "
        "AND finished_at < %s ORDER BY finished_at DESC, id LIMIT %s",
        *FINAL, since, until, limit,
    )  # fmt: skip


def undecided(db: Database, limit: int) -> list[tuple[Any, ...]]:
    """The same columns, and the number of deliveries whose outcome nobody will find out, of campaigns that are not
    sent any more; those that ended first come first."""
    return db.rows(
        "SELECT c.id, c.message, c.reference, c.state, c.reason, c.finished_at, u.unknown FROM ("
        "SELECT campaign, SUM(unknown - resend) AS unknown FROM fanout_shard WHERE unknown > resend GROUP BY campaign"
        ") u JOIN fanout_campaign c ON c.id = u.campaign WHERE c.state NOT IN ('planning', 'running') "
        "ORDER BY COALESCE(c.finished_at, c.created_at), c.id LIMIT %s",
        limit,
    )  # fmt: skip


def opted_out(db: Database, since: int, until: int) -> dict[str, int]:
    """By account the people who did so then, and have not come back."""
    rows = db.rows(
        "SELECT account, COUNT(*) FROM fanout_subscriber WHERE state IN (%s, %s) AND since >= %s AND since < %s "
        "GROUP BY account",
        State.OPTED_OUT, State.SWITCHED_OFF, since, until,
    )  # fmt: skip
    return {account: int(count) for account, count in rows}


def size(db: Database) -> tuple[int, int] | None:
    """(bytes of all tables, of them free for what comes); None where the server does not say."""
    if db.kind == "sqlite":
        names = ("page_count", "freelist_count", "page_size")
        pages, free, page = (int(db.rows(f"PRAGMA {name}")[0][0]) for name in names)
        return pages * page, free * page
    row = db.one(
        "SELECT SUM(data_length + index_length) FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name LIKE 'fanout\\_%'"
    )
    return None if row is None or row[0] is None else (int(row[0]), 0)
