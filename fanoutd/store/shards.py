"""Shards: leases and windows. The durable half of a worker's promise; what comes of it is in ``records``.

A worker leases a shard, claims a window of its people, and only then may send to them: a row is
in flight when it is pending and below the shard's ``next``. Intents are fenced by the lease's token.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fanoutd.outcome import (
    RENDER,
    State,
)
from fanoutd.store import campaigns, deliveries
from fanoutd.store.campaigns import Campaign
from fanoutd.store.database import Database, Later, Row, holes
from fanoutd.store.deliveries import Person

#: How long a lease holds without being renewed by a further window or record.
LEASE_MS = 30_000

#: Free shards that are looked at together where other processes look too, and how many of them one may take.
_CANDIDATES, _AT_ONCE = 16, 8


@dataclass(frozen=True, slots=True)
class Lease:
    """A shard in a worker's hands."""

    shard: int
    token: int
    campaign: str
    owner: str


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


def lease(db: Database, owner: str) -> Lease | None:
    """Take the oldest free shard of a running campaign, or None when there is none."""
    taken = take(db, owner, 1)
    return taken[0][0] if taken else None


Taken = tuple[Lease, Campaign, "Window"]
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
            (campaigns.asked(db, held.campaign), _look(db, held, people, _ask_for(db, held)))
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
        f"AND {_runs(db)}",
        held.owner, LEASE_MS, *before, *before,
    )  # fmt: skip


def _runs(db: Database) -> str:
    """The shard's campaign does, and will until the transaction ends."""
    return f"EXISTS (SELECT 1 FROM fanout_campaign c WHERE c.id = campaign AND c.state = 'running'{db.LOCK_SHARED})"


@dataclass(slots=True, eq=False)
class Window:
    """The next people of a leased shard, asked for and not claimed yet. See ``Database.later``."""

    held: Lease
    limit: int
    holds: Later
    """No row: the lease is not to be had, or lost."""
    found: Later

    def people(self) -> list[Person] | None:
        """At most ``limit``; None as in ``claim``."""
        return [deliveries.as_person(*row) for row in self.found.rows()] if self.holds.count() else None


def ask(db: Database, held: Lease, limit: int) -> Window:
    """Renew the lease, and look who is next in it."""
    return _look(db, held, limit, asked_to_renew(db, held))


def _look(db: Database, held: Lease, limit: int, holds: Later) -> Window:
    return Window(held, limit, holds, db.later(
        f"SELECT {deliveries.COLUMNS} FROM fanout_delivery d JOIN fanout_shard s ON s.id = d.shard "
        f"WHERE d.shard = %s AND d.pos >= s.next AND d.state IN ({deliveries.OPEN_STATES}) ORDER BY d.pos LIMIT %s",
        held.shard, limit,
    ))  # fmt: skip


def lock(db: Database, ids: Iterable[int]) -> None:
    """Hold these rows until the transaction ends. Who is about to change several begins so: in order, as all others."""
    if db.LOCK and (chosen := sorted(ids)):
        db.later(f"SELECT id FROM fanout_shard WHERE id IN ({holes(len(chosen))}) ORDER BY id{db.LOCK}", *chosen)


def claim(db: Database, held: Lease, window: int, asked: Window | None = None) -> list[Person] | None:
    """The next ``window`` people, theirs to send to once the transaction is durable.

    Empty at the end of the shard. None when the lease is lost or the campaign does not run: then
    nothing of this shard may be started any more. ``asked``: of this transaction, in which nothing has been claimed
    of the shard yet; it may have been for more people, not for fewer.
    """
    found = (asked or ask(db, held, window)).people()
    if found is None:
        return None
    people = found[:window]
    if people:
        db.later("UPDATE fanout_shard SET next = %s WHERE id = %s", people[-1].pos + 1, held.shard)
    return people


def renew(db: Database, held: Lease) -> bool:
    """Hold the shard for another term; False when it is lost or the campaign does not run."""
    return asked_to_renew(db, held).count() > 0


def asked_to_renew(db: Database, held: Lease) -> Later:
    """The same, said by the number of rows.

    Who pauses the campaign waits for our transaction: whatever is claimed after it finds that it does not run.
    """
    return db.later(
        f"UPDATE fanout_shard SET lease_until = {db.NOW_MS} + %s WHERE id = %s AND token = %s AND owner = %s "
        f"AND {_runs(db)}",
        LEASE_MS, held.shard, held.token, held.owner,
    )  # fmt: skip


def release(db: Database, held: Lease, not_before: int = 0) -> None:
    """Give the shard back with nothing on the wire: whoever is pending may be claimed again, from ``not_before`` on
    (milliseconds since 1970), until when nobody leases it."""
    db.later(
        "UPDATE fanout_shard SET owner = NULL, next = 0, lease_until = %s WHERE id = %s AND token = %s",
        not_before, held.shard, held.token,
    )  # fmt: skip


def park(db: Database, campaign: str, not_before: int) -> None:
    """Let nobody lease what is free of the campaign before then."""
    db.execute(
        "UPDATE fanout_shard SET lease_until = %s WHERE campaign = %s AND owner IS NULL AND lease_until < %s",
        not_before, campaign, not_before,
    )  # fmt: skip


def unpark(db: Database, account: str) -> None:
    """Let all that is free of the account be leased again."""
    db.execute(
        f"UPDATE fanout_shard SET lease_until = 0 WHERE owner IS NULL AND lease_until > {db.NOW_MS} "
        "AND campaign IN (SELECT id FROM fanout_campaign WHERE account = %s)",
        account,
    )


def still_held(db: Database, held: Lease, ended_before: int | None = None) -> bool:
    """Whether nobody has changed that lease meanwhile, and it ended so many milliseconds ago; its row is held."""
    ended = "" if ended_before is None else f" AND lease_until < {db.NOW_MS} - {int(ended_before)}"
    return db.one(
        f"SELECT 1 FROM fanout_shard WHERE id = %s AND token = %s AND owner = %s{ended}{db.LOCK}",
        held.shard, held.token, held.owner,
    ) is not None  # fmt: skip


def of_owner(db: Database, owner: str) -> list[Lease]:
    """The shards that a worker held."""
    rows = db.rows("SELECT id, token, campaign FROM fanout_shard WHERE owner = %s ORDER BY id", owner)
    return [Lease(shard, token, campaign, owner) for shard, token, campaign in rows]


def expired(db: Database, since_ms: int) -> list[Lease]:
    """Leases that ended so long ago, by the database's clock."""
    rows = db.rows(
        "SELECT id, token, campaign, owner FROM fanout_shard "
        f"WHERE owner IS NOT NULL AND lease_until < {db.NOW_MS} - %s",
        since_ms,
    )
    return [Lease(*row) for row in rows]


def owners(db: Database) -> list[str]:
    rows = db.rows("SELECT DISTINCT owner FROM fanout_shard WHERE owner IS NOT NULL")
    return [row[0] for row in rows]


def nodes_with(db: Database, campaign: str) -> set[str]:
    """The nodes whose workers hold a shard of the campaign."""
    rows = db.rows("SELECT DISTINCT owner FROM fanout_shard WHERE campaign = %s AND owner IS NOT NULL", campaign)
    return {row[0].partition("/")[0] for row in rows}


def stopped(db: Database, node: str) -> list[str]:
    """Campaigns of which the node's workers hold shards, though nothing of them should be sent."""
    rows = db.rows(
        "SELECT DISTINCT s.campaign FROM fanout_shard s JOIN fanout_campaign c ON c.id = s.campaign "
        "WHERE s.owner >= %s AND s.owner < %s AND c.state IN ('paused', 'cancelled', 'failed')",
        f"{node}/", f"{node}0",  # all owners of the node: "0" comes next after "/"
    )  # fmt: skip
    return [row[0] for row in rows]


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


def retake(db: Database, shard: int, token: int) -> int:
    """Free a shard whoever had it, with a new token beyond ``token`` and its own; that token."""
    db.execute(
        "UPDATE fanout_shard SET owner = NULL, next = 0, lease_until = 0, "
        "token = CASE WHEN token > %s THEN token ELSE %s END + 1 WHERE id = %s",
        token, token, shard,
    )  # fmt: skip
    row = db.one("SELECT token FROM fanout_shard WHERE id = %s", shard)
    return int(row[0]) if row else 0


def campaign_of(db: Database, shard: int) -> Campaign | None:
    row = db.one("SELECT campaign FROM fanout_shard WHERE id = %s", shard)
    return campaigns.get(db, row[0]) if row else None


def totals(db: Database) -> tuple[int, int]:
    """Shards that wait for a worker, and shards in a worker's hands."""
    waiting = db.rows(
        "SELECT COUNT(*) FROM fanout_shard s JOIN fanout_campaign c ON c.id = s.campaign "
        "WHERE s.owner IS NULL AND (s.pending > 0 OR s.resend > 0) AND c.state = 'running'"
    )
    leased = db.rows("SELECT COUNT(*) FROM fanout_shard WHERE owner IS NOT NULL")
    return int(waiting[0][0]), int(leased[0][0])


def ready(db: Database) -> int:
    """Shards that a worker may take now: of those that wait, the ones that are not parked."""
    row = db.one(
        "SELECT COUNT(*) FROM fanout_shard s JOIN fanout_campaign c ON c.id = s.campaign "
        f"WHERE s.owner IS NULL AND s.lease_until <= {db.NOW_MS} AND (s.pending > 0 OR s.resend > 0) "
        "AND c.state = 'running'"
    )
    return int(row[0]) if row else 0
