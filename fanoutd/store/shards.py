"""Shards: leases, windows and records. The durable half of a worker's promise.

A worker leases a shard, claims a window of its people, and only then may send to them: a row is
in flight when it is pending and below the shard's ``next``. Intents are fenced by the lease's
token; a result is a fact about one attempt and is taken as long as that attempt is open.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fanoutd.outcome import RENDER, Progress, State, channel_name, errcode_word
from fanoutd.store.database import Database, holes

#: How long a lease holds without being renewed by a further window or record.
LEASE_MS = 30_000

Result = tuple[int, Progress]
"""(position, how far this person has come)."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A shard in a worker's hands."""

    shard: int
    token: int
    campaign: str
    owner: str


@dataclass(frozen=True, slots=True)
class Person:
    """A claimed row: whom to send to, and how far earlier attempts came."""

    pos: int
    openid: str
    progress: Progress
    person: str | None
    """Their own variables as JSON text, or None."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A row to be: frozen with the plan."""

    openid: str
    person: str | None = None
    failed: bool = False
    """Nothing can be sent to this openid; it is counted all the same."""


def add(db: Database, campaign: str, idx: int, people: Sequence[Planned]) -> int:
    """Put the people into a new shard, ready to be leased; its number."""
    failed = sum(p.failed for p in people)
    shard = db.insert(
        "INSERT INTO fanout_shard (campaign, idx, size, pending, failed, errors) VALUES (%s, %s, %s, %s, %s, %s)",
        campaign, idx, len(people), len(people) - failed, failed, json.dumps({"render": failed} if failed else {}),
    )  # fmt: skip
    db.insert_many(
        "INSERT INTO fanout_delivery (shard, pos, openid, person, state, errcode) VALUES (%s, %s, %s, %s, %s, %s)",
        [
            (shard, pos, p.openid, p.person, State.FAILED if p.failed else State.PENDING, RENDER if p.failed else None)
            for pos, p in enumerate(people)
        ],
    )
    return shard


def lease(db: Database, owner: str) -> Lease | None:
    """Take the oldest free shard of a running campaign, or None when there is none."""
    row = db.one(
        "SELECT s.id, s.token, s.campaign FROM fanout_shard s JOIN fanout_campaign c ON c.id = s.campaign "
        "WHERE s.owner IS NULL AND s.pending > 0 AND c.state = 'running' "
        "ORDER BY c.created_at, s.campaign, s.idx LIMIT 1"
    )
    if row is None:
        return None
    shard, token, campaign = row
    taken = db.execute(
        f"UPDATE fanout_shard SET owner = %s, token = token + 1, next = 0, lease_until = {db.NOW_MS} + %s "
        "WHERE id = %s AND token = %s AND owner IS NULL",
        owner, LEASE_MS, shard, token,
    )  # fmt: skip
    return Lease(shard, token + 1, campaign, owner) if taken else None


def claim(db: Database, held: Lease, window: int) -> list[Person] | None:
    """The next ``window`` people, theirs to send to once the transaction is durable.

    Empty at the end of the shard. None when the lease is lost or the campaign does not run: then
    nothing of this shard may be started any more.
    """
    if not renew(db, held):
        return None
    rows = db.rows(
        "SELECT d.pos, d.openid, d.channel, d.errcode, d.msgid, d.attempts, d.generation, d.person "
        "FROM fanout_delivery d JOIN fanout_shard s ON s.id = d.shard "
        "WHERE d.shard = %s AND d.pos >= s.next AND d.state = 0 ORDER BY d.pos LIMIT %s",
        held.shard, window,
    )  # fmt: skip
    if rows:
        db.execute("UPDATE fanout_shard SET next = %s WHERE id = %s", rows[-1][0] + 1, held.shard)
    return [_person(*row) for row in rows]


def record(db: Database, shard: int, token: int, results: Iterable[Result]) -> None:
    """Write outcomes of the attempt ``token``, and the shard's counters with them.

    Late results, of an attempt that was given up as unknown in the meantime, are taken too.
    """
    row = db.one("SELECT token, errors FROM fanout_shard WHERE id = %s", shard)
    if row is None:
        return
    source = State.PENDING if row[0] == token else State.UNKNOWN
    errors = Counter({code: int(count) for code, count in json.loads(row[1]).items()})
    changed: Counter[str] = Counter()
    for progress, group in _groups(results).items():
        count = _write_group(db, shard, token, source, progress, group)
        changed[_column(source, None)] -= count
        changed[_column(progress.state, progress.channel)] += count
        if progress.state is State.FAILED and count:
            errors[errcode_word(progress.errcode) or ""] += count
    sets = ", ".join(f"{column} = {column} + {int(by)}" for column, by in sorted(changed.items()))
    if sets:
        db.execute(
            f"UPDATE fanout_shard SET {sets}, errors = %s, lease_until = {db.NOW_MS} + %s WHERE id = %s",
            json.dumps(errors), LEASE_MS, shard,
        )  # fmt: skip


def renew(db: Database, held: Lease) -> bool:
    """Hold the shard for another term; False when it is lost or the campaign does not run."""
    return db.execute(
        f"UPDATE fanout_shard SET lease_until = {db.NOW_MS} + %s WHERE id = %s AND token = %s AND owner = %s "
        "AND EXISTS (SELECT 1 FROM fanout_campaign c WHERE c.id = campaign AND c.state = 'running')",
        LEASE_MS, held.shard, held.token, held.owner,
    ) > 0  # fmt: skip


def release(db: Database, held: Lease) -> None:
    """Give the shard back with nothing on the wire: whoever is pending may be claimed again."""
    _free(db, held.shard, held.token)


def of_owner(db: Database, owner: str) -> list[Lease]:
    """The shards that a worker held."""
    rows = db.rows("SELECT id, token, campaign FROM fanout_shard WHERE owner = %s ORDER BY id", owner)
    return [Lease(shard, token, campaign, owner) for shard, token, campaign in rows]


def owners(db: Database) -> list[str]:
    rows = db.rows("SELECT DISTINCT owner FROM fanout_shard WHERE owner IS NOT NULL")
    return [row[0] for row in rows]


def in_flight(db: Database, shard: int) -> list[Person]:
    """Those claimed and not recorded."""
    rows = db.rows(
        "SELECT d.pos, d.openid, d.channel, d.errcode, d.msgid, d.attempts, d.generation, d.person "
        "FROM fanout_delivery d JOIN fanout_shard s ON s.id = d.shard "
        "WHERE d.shard = %s AND d.pos < s.next AND d.state = 0 ORDER BY d.pos",
        shard,
    )
    return [_person(*row) for row in rows]


def totals(db: Database) -> tuple[int, int]:
    """Shards that wait for a worker, and shards in a worker's hands."""
    waiting = db.rows(
        "SELECT COUNT(*) FROM fanout_shard s JOIN fanout_campaign c ON c.id = s.campaign "
        "WHERE s.owner IS NULL AND s.pending > 0 AND c.state = 'running'"
    )
    leased = db.rows("SELECT COUNT(*) FROM fanout_shard WHERE owner IS NOT NULL")
    return int(waiting[0][0]), int(leased[0][0])


def _free(db: Database, shard: int, token: int) -> None:
    db.execute("UPDATE fanout_shard SET owner = NULL, next = 0 WHERE id = %s AND token = %s", shard, token)


def _person(
    pos: int, openid: str, channel: int | None, errcode: int | None, msgid: int | None, attempts: int,
    generation: int, person: str | None,
) -> Person:  # fmt: skip
    return Person(pos, openid, Progress(State.PENDING, channel, errcode, msgid, attempts, generation), person)


def _groups(results: Iterable[Result]) -> dict[Progress, list[tuple[int, int | None]]]:
    """Equal outcomes together: one statement each, whatever their number. msgids stay apart."""
    groups: dict[Progress, list[tuple[int, int | None]]] = defaultdict(list)
    for pos, p in results:
        alike = Progress(p.state, p.channel, p.errcode, None, p.attempts, p.generation)
        groups[alike].append((pos, p.msgid))
    return groups


def _write_group(
    db: Database, shard: int, token: int, source: State, progress: Progress, group: list[tuple[int, int | None]]
) -> int:
    with_msgid = [(pos, msgid) for pos, msgid in group if msgid is not None]
    msgid_sql, msgid_args = "NULL", []
    if with_msgid:
        msgid_sql = "CASE pos " + "WHEN %s THEN %s " * len(with_msgid) + "END"
        msgid_args = [value for pair in with_msgid for value in pair]
    guard, guard_args = ("", []) if source is State.PENDING else (" AND attempt = %s", [token])
    return db.execute(
        f"UPDATE fanout_delivery SET state = %s, channel = %s, errcode = %s, attempts = %s, generation = %s, "
        f"attempt = %s, msgid = {msgid_sql}, updated_at = {db.NOW_MS} "
        f"WHERE shard = %s AND pos IN ({holes(len(group))}) AND state = %s{guard}",
        progress.state, progress.channel, progress.errcode, progress.attempts, progress.generation, token,
        *msgid_args, shard, *(pos for pos, _ in group), source, *guard_args,
    )  # fmt: skip


def _column(state: State, channel: int | None) -> str:
    return f"sent_{channel_name(channel)}" if state is State.SENT else state.word
