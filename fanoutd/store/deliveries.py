"""Deliveries: a person's row, how it is read and how it is written."""

from __future__ import annotations

from dataclasses import dataclass

from fanoutd.boot import boot_tag
from fanoutd.outcome import LONG_AGO, NEVER_HEARD, OPEN, Progress, State
from fanoutd.store.database import Database, Later, holes


@dataclass(frozen=True, slots=True)
class Person:
    """A claimed row: whom to send to, and how far earlier attempts came."""

    pos: int
    openid: str
    progress: Progress
    person: str | None
    """Their own variables as JSON text, or None."""
    attempt: int = 0
    """The fencing token under which ``progress`` was written down, 0 for never."""
    skip_custom: bool = False
    """Their window is known to be shut: begin with the channel after it."""
    counted: bool = False
    """A custom message takes one from their window."""


#: What ``as_person`` takes, of ``fanout_delivery d``.
COLUMNS = (
    "d.pos, d.openid, d.state, d.channel, d.errcode, d.msgid, d.attempts, d.generation, d.tries, d.since, d.boot, "
    "d.person, d.attempt"
)

#: Of those who are yet to be sent to, for a condition.
OPEN_STATES = ", ".join(str(int(state)) for state in OPEN)


def as_person(
    pos: int, openid: str, state: int, channel: int | None, errcode: int | None, msgid: int | None, attempts: int,
    generation: int, tries: int, since: int | None, boot: int | None, person: str | None, attempt: int,
) -> Person:  # fmt: skip
    """A time of another boot says nothing on this one's clock."""
    if since is not None and since > LONG_AGO and boot != boot_tag():
        since = LONG_AGO
    progress = Progress(State(state), channel, errcode, msgid, attempts, generation, tries, since)
    return Person(pos, openid, progress, person, attempt)


def waiting(db: Database, shard: int, whole: bool) -> list[Person]:
    """Its open people; not ``whole``: those who are not claimed yet."""
    rows = db.rows(
        f"SELECT {COLUMNS} FROM fanout_delivery d JOIN fanout_shard s ON s.id = d.shard "
        f"WHERE d.shard = %s AND d.pos >= {0 if whole else 's.next'} AND d.state IN ({OPEN_STATES})",
        shard,
    )
    return [as_person(*row) for row in rows]


def in_flight(db: Database, shard: int) -> list[Person]:
    """Those claimed and not recorded."""
    rows = db.rows(
        f"SELECT {COLUMNS} FROM fanout_delivery d JOIN fanout_shard s ON s.id = d.shard "
        f"WHERE d.shard = %s AND d.pos < s.next AND d.state IN ({OPEN_STATES}) ORDER BY d.pos",
        shard,
    )
    return [as_person(*row) for row in rows]


def given_up(db: Database, shard: int, token: int) -> list[Person]:
    """Those who became unknown because this lease was lost, without a call of theirs being known."""
    rows = db.rows(
        f"SELECT {COLUMNS} FROM fanout_delivery d JOIN fanout_shard s ON s.id = d.shard "
        "WHERE d.shard = %s AND s.unknown > 0 AND d.state = %s AND d.attempt = %s AND d.since = %s ORDER BY d.pos",
        shard, State.UNKNOWN, token, NEVER_HEARD,
    )  # fmt: skip
    return [as_person(*row) for row in rows]


def people(db: Database, shard: int) -> list[Person]:
    """All of them, whatever their state."""
    return [as_person(*row) for row in db.rows(
        f"SELECT {COLUMNS} FROM fanout_delivery d WHERE d.shard = %s ORDER BY d.pos", shard
    )]  # fmt: skip


def write(
    db: Database, shard: int, token: int, source: State, progress: Progress, group: list[tuple[int, int | None]],
    fenced: bool,
) -> Later:  # fmt: skip
    """What has come of these people (position, msgid) whose state is ``source``; the number of rows says how many
    they were. ``fenced``: only rows whose state is this attempt's own doing."""
    with_msgid = [(pos, msgid) for pos, msgid in group if msgid is not None]
    msgid_sql, msgid_args = "NULL", []
    if with_msgid:
        msgid_sql = "CASE pos " + "WHEN %s THEN %s " * len(with_msgid) + "END"
        msgid_args = [value for pair in with_msgid for value in pair]
    guard, guard_args = (" AND attempt = %s", [token]) if fenced else ("", [])
    p = progress
    return db.later(
        "UPDATE fanout_delivery SET state = %s, channel = %s, errcode = %s, attempts = %s, generation = %s, "
        f"tries = %s, since = %s, boot = %s, attempt = %s, msgid = {msgid_sql}, updated_at = {db.NOW_MS} "
        f"WHERE shard = %s AND pos IN ({holes(len(group))}) AND state = %s{guard}",
        p.state, p.channel, p.errcode, p.attempts, p.generation, p.tries, p.since,
        None if p.since is None else boot_tag(), token, *msgid_args, shard, *(pos for pos, _ in group), source,
        *guard_args,
    )  # fmt: skip
