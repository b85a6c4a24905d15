"""Shards: a campaign's people by the hundred, each lot a row.

How they come about, and what the rows say; who has one is in ``shard_leases``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fanoutd.outcome import RENDER, State
from fanoutd.store import campaigns
from fanoutd.store.campaigns import Campaign
from fanoutd.store.database import Database, holes


@dataclass(frozen=True, slots=True)
class Planned:
    """A row to be: frozen with the plan."""

    openid: str
    person: str | None = None
    failed: bool = False
    """Nothing can be sent to this openid; it is counted all the same."""
    skipped: bool = False
    """Takes no messages."""

    @property
    def state(self) -> State:
        return State.FAILED if self.failed else State.SKIPPED if self.skipped else State.PENDING


def add(db: Database, campaign: str, idx: int, people: Sequence[Planned]) -> int:
    """Put the people into a new shard, ready to be leased; its number."""
    states = Counter(p.state for p in people)
    failed = states[State.FAILED]
    shard = db.insert(
        "INSERT INTO fanout_shard (campaign, idx, size, pending, failed, skipped, errors) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s)",
        campaign, idx, len(people), states[State.PENDING], failed, states[State.SKIPPED],
        json.dumps({"render": failed} if failed else {}),
    )  # fmt: skip
    db.insert_many(
        "INSERT INTO fanout_delivery (shard, pos, openid, person, state, errcode) VALUES (%s, %s, %s, %s, %s, %s)",
        [
            (shard, pos, p.openid, p.person, p.state, RENDER if p.failed else None)
            for pos, p in enumerate(people)
        ],
    )
    return shard


def lock(db: Database, ids: Iterable[int]) -> None:
    """Hold these rows until the transaction ends. Who is about to change several begins so: in order, as all others."""
    if db.LOCK and (chosen := sorted(ids)):
        db.later(f"SELECT id FROM fanout_shard WHERE id IN ({holes(len(chosen))}) ORDER BY id{db.LOCK}", *chosen)


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard's row, as far as its leases go."""

    id: int
    campaign: str
    token: int
    next: int
    leased: bool


_SHARD = "SELECT id, campaign, token, next, owner IS NOT NULL FROM fanout_shard"


def of_campaign(db: Database, campaign: str, lock: str = "") -> list[Shard]:
    """In sending order. ``lock``: ``db.LOCK`` for whoever changes them."""
    return [_shard(*row) for row in db.rows(f"{_SHARD} WHERE campaign = %s ORDER BY idx{lock}", campaign)]


def row(db: Database, shard: int) -> Shard | None:
    found = db.one(f"{_SHARD} WHERE id = %s", shard)
    return _shard(*found) if found else None


def _shard(id: int, campaign: str, token: int, following: int, leased: int) -> Shard:
    return Shard(id, campaign, token, following, bool(leased))


def campaign_of(db: Database, shard: int) -> Campaign | None:
    row = db.one("SELECT campaign FROM fanout_shard WHERE id = %s", shard)
    return campaigns.get(db, row[0]) if row else None
