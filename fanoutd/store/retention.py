"""Campaigns that have ended long ago, and what is left when they go.

A campaign goes in two steps: first its row, so that from one moment to the next nobody finds it any more, then its
people, shard by shard. ``fanout_gone`` remembers it: until its people are gone too, whoever was cut off goes on there;
and after that so that what speaks of it late is not taken for news: a submission of its key that waited on a node that
was away, a journal, a store that seems to have forgotten it. ``shard`` is its last one: a campaign that was submitted
under the same key since has later ones.

A shard's number is never given again, or a journal could speak of another one's people: the highest stays as a row
that belongs to nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fanoutd.journal import tag
from fanoutd.store.campaigns import DISTRUSTED, FINAL
from fanoutd.store.database import Database, holes

#: For how long what is gone is remembered, and a node that was not heard of, in milliseconds.
REMEMBERED_MS = 366 * 86_400_000

#: People in one transaction: workers wait for no more.
AT_ONCE = 500

#: Ids in one statement.
_IDS = 500

_FINAL = ", ".join(repr(state) for state in FINAL)
_DISTRUSTED = ", ".join(repr(cause) for cause in DISTRUSTED)
#: Ended before that time, and nothing more is to come of it.
_OLD = (
    f"c.state IN ({_FINAL}) AND COALESCE(c.finished_at, c.created_at) < %s AND c.heard IS NULL "
    f"AND COALESCE(c.cause, '') NOT IN ({_DISTRUSTED})"
)


def old(db: Database, before: int, limit: int) -> list[str]:
    """Campaigns that may go, the oldest first: those that ended before then, without unknown deliveries."""
    rows = db.rows(
        f"SELECT c.id FROM fanout_campaign c WHERE {_OLD} AND NOT EXISTS (SELECT 1 FROM fanout_shard s "
        "WHERE s.campaign = c.id AND (s.unknown > 0 OR s.owner IS NOT NULL)) ORDER BY c.finished_at, c.id LIMIT %s",
        before, limit,
    )  # fmt: skip
    return [row[0] for row in rows]


def kept(db: Database, before: int) -> int:
    """Campaigns that would go if none of their deliveries were unknown."""
    row = db.one(
        f"SELECT COUNT(*) FROM fanout_campaign c WHERE {_OLD} AND EXISTS (SELECT 1 FROM fanout_shard s "
        "WHERE s.campaign = c.id AND s.unknown > 0)",
        before,
    )
    return int(row[0]) if row else 0


def take_away(db: Database, campaign: str, before: int) -> bool:
    """Its row, and with it everything but its people. False when it may not go any more. In a transaction."""
    if not db.one(f"SELECT 1 FROM fanout_campaign c WHERE c.id = %s AND {_OLD}{db.LOCK}", campaign, before):
        return False
    row = db.one(
        "SELECT COUNT(*), COALESCE(MAX(id), 0), COALESCE(SUM(unknown), 0), COUNT(owner) FROM fanout_shard "
        "WHERE campaign = %s",
        campaign,
    )
    count, last, unknown, held = map(int, row or (0, 0, 0, 0))
    if unknown or held:
        return False
    values = {"at": db.now_ms(), "shard": last, "left_over": int(count > 0)}
    db.upsert("fanout_gone", {"campaign": campaign}, values)
    db.execute("DELETE FROM fanout_history WHERE campaign = %s", campaign)
    db.execute("DELETE FROM fanout_campaign WHERE id = %s", campaign)
    return True


def unfinished(db: Database) -> list[tuple[str, int]]:
    """(campaign, its last shard) of those whose people are not all gone."""
    return [(row[0], int(row[1])) for row in db.rows(
        "SELECT campaign, shard FROM fanout_gone WHERE left_over = 1 ORDER BY at, campaign"
    )]  # fmt: skip


def shards_of(db: Database, campaign: str, last: int) -> list[tuple[int, int]]:
    """(id, people) of what is left of it; not of a campaign that has its name since."""
    return [(int(row[0]), int(row[1])) for row in db.rows(
        "SELECT id, size FROM fanout_shard WHERE campaign = %s AND id <= %s ORDER BY id", campaign, last
    )]  # fmt: skip


def clear(db: Database, shard: int, first: int, size: int) -> int:
    """Delete some of its people, and with the last of them the shard; how many. In a transaction."""
    db.one(f"SELECT 1 FROM fanout_shard WHERE id = %s{db.LOCK}", shard)
    gone = db.execute(
        "DELETE FROM fanout_delivery WHERE shard = %s AND pos >= %s AND pos < %s", shard, first, first + AT_ONCE
    )
    if first + AT_ONCE >= size:
        top = db.one("SELECT MAX(id) FROM fanout_shard")
        if top == (shard,):
            db.execute(
                "UPDATE fanout_shard SET campaign = '', idx = id, size = 0, pending = 0, sent_custom = 0, "
                "sent_template = 0, sent_subscribe = 0, failed = 0, skipped = 0, errors = '{}' WHERE id = %s",
                shard,
            )
        else:
            db.execute("DELETE FROM fanout_shard WHERE id = %s", shard)
    return gone


def cleared(db: Database, campaign: str) -> None:
    """All of its people are gone. In a transaction."""
    db.execute("UPDATE fanout_gone SET left_over = 0 WHERE campaign = %s", campaign)


def tidy(db: Database) -> None:
    """What nobody can speak of any more: in a transaction. Nobody's shards go when there is a higher one."""
    before = db.now_ms() - REMEMBERED_MS
    db.execute("DELETE FROM fanout_gone WHERE left_over = 0 AND at < %s", before)
    db.execute("DELETE FROM fanout_node WHERE heartbeat < %s", before)
    top = db.one("SELECT MAX(id) FROM fanout_shard")
    if top and top[0] is not None:
        db.execute("DELETE FROM fanout_shard WHERE campaign = '' AND id < %s", top[0])


@dataclass(frozen=True, slots=True)
class Gone:
    """``at``: when, by the database's clock; ``shard``: its last one; ``left_over``: some of its people are there."""

    at: int
    shard: int
    left_over: bool


def remembered(db: Database, campaign: str) -> Gone | None:
    row = db.one("SELECT at, shard, left_over FROM fanout_gone WHERE campaign = %s", campaign)
    return Gone(int(row[0]), int(row[1]), bool(row[2])) if row else None


def last_shards(db: Database) -> dict[int, int]:
    """The tags of campaigns that are gone, as journals have them -> the last shard of each."""
    found: dict[int, int] = {}
    for campaign, shard in db.rows("SELECT campaign, shard FROM fanout_gone"):
        found[tag(campaign)] = max(int(shard), found.get(tag(campaign), 0))
    return found


def standing(db: Database, ids: Sequence[str]) -> set[str]:
    """Those of them that are campaigns, or come again."""
    found: set[str] = set()
    for at in range(0, len(ids), _IDS):
        some = ids[at : at + _IDS]
        for table in ("fanout_campaign", "fanout_recurring"):
            found.update(row[0] for row in db.rows(f"SELECT id FROM {table} WHERE id IN ({holes(len(some))})", *some))
    return found
