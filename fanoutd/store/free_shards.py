"""Shards that nobody has: how a worker leases some, the first window of each with it, and how many wait."""

from __future__ import annotations

import random

from fanoutd.store import campaigns, shard_leases, windows
from fanoutd.store.campaigns import Campaign
from fanoutd.store.database import Database, Later, Row
from fanoutd.store.shard_leases import Lease
from fanoutd.store.windows import Window

#: Free shards that are looked at together where other processes look too, and how many of them one may take.
_CANDIDATES, _AT_ONCE = 16, 8


def lease(db: Database, owner: str) -> Lease | None:
    """Take the oldest free shard of a running campaign, or None when there is none."""
    taken = take(db, owner, 1)
    return taken[0][0] if taken else None


Taken = tuple[Lease, Campaign, Window]
"""A shard that was leased, and who comes first in it."""


def take(db: Database, owner: str, people: int, free: Later | None = None) -> list[Taken]:
    """Lease some free shards of running campaigns, the oldest first: as many as have so many people, if one may take
    that many of them. Empty when there are none, or others were faster (see ``ready``). ``free`` is what ``ask_free``
    gave in this transaction.
    """
    beyond = 0
    # What was looked at early does not show what this transaction has given back since.
    while rows := [row for row in (free.rows() if free else []) or ask_free(db).rows() if row[0] > beyond]:
        free = None
        asked = [
            (campaigns.asked(db, held.campaign), windows.look(db, held, people, _ask_for(db, held)))
            for held in [
                Lease(shard, token + 1, campaign, owner)
                for shard, token, campaign, _ in sorted(_enough(rows, people))  # one order of locks for all
            ]
        ]
        taken = [(window.held, found(), window) for found, window in asked if window.holds.count()]
        if taken:
            return taken
        beyond = asked[-1][1].held.shard  # others' by now, but we waited for them, and hold their rows to the end
    return []


def ask_free(db: Database) -> Later:
    """Shards that might be leased, with the number of their people."""
    return db.later(
        "SELECT s.id, s.token, s.campaign, s.pending + s.resend "
        "FROM fanout_shard s JOIN fanout_campaign c ON c.id = s.campaign "
        f"WHERE s.owner IS NULL AND s.lease_until <= {db.NOW_MS} AND (s.pending > 0 OR s.resend > 0) "
        "AND c.state = 'running' ORDER BY c.created_at, s.campaign, s.idx LIMIT %s",
        _CANDIDATES if db.shared else 1,
    )


def _enough(rows: list[Row], people: int) -> list[Row]:
    """Many who look at once would all want the first, and wait for each other to find it taken."""
    chosen: list[Row] = []
    for each in random.sample(rows, len(rows)):
        if people > 0 and len(chosen) < _AT_ONCE:
            chosen.append(each)
            people -= each[3]
    return chosen


def _ask_for(db: Database, held: Lease) -> Later:
    """Whoever has leased it since may be writing: the row is looked at without a lock first, so that nobody waits for
    what is not to be had, in the worst case for each other. Who pauses the campaign waits for us, or we see it."""
    before = held.shard, held.token - 1
    return db.later(
        f"UPDATE fanout_shard SET owner = %s, token = token + 1, next = 0, lease_until = {db.NOW_MS} + %s "
        "WHERE id = %s AND token = %s AND owner IS NULL AND id = (SELECT id FROM ("
        "SELECT DISTINCT id FROM fanout_shard WHERE id = %s AND token = %s AND owner IS NULL) AS free) "
        f"AND {shard_leases.while_it_runs(db)}",
        held.owner, shard_leases.LEASE_MS, *before, *before,
    )  # fmt: skip


#: Shards with their campaigns, which SQLite is to look at first: it would read all shards of months for the few of
#: those that run.
_OF_CAMPAIGNS = "fanout_campaign c CROSS JOIN fanout_shard s ON s.campaign = c.id"


def totals(db: Database) -> tuple[int, int]:
    """Shards that wait for a worker, and shards in a worker's hands."""
    waiting = db.rows(
        f"SELECT COUNT(*) FROM {_OF_CAMPAIGNS} "
        "WHERE s.owner IS NULL AND (s.pending > 0 OR s.resend > 0) AND c.state = 'running'"
    )
    leased = db.rows("SELECT COUNT(*) FROM fanout_shard WHERE owner IS NOT NULL")
    return int(waiting[0][0]), int(leased[0][0])


def ready(db: Database) -> int:
    """Shards that a worker may take now: of those that wait, the ones that are not parked."""
    row = db.one(
        f"SELECT COUNT(*) FROM {_OF_CAMPAIGNS} "
        f"WHERE s.owner IS NULL AND s.lease_until <= {db.NOW_MS} AND (s.pending > 0 OR s.resend > 0) "
        "AND c.state = 'running'"
    )
    return int(row[0]) if row else 0
