"""Campaign rows: their states, and the one table of moves between them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fanoutd.store import history, notices, outbox
from fanoutd.store.database import Database, holes

FINAL = ("done", "cancelled", "failed")

#: Every change of a campaign's state that there is.
MOVES = frozenset(
    {
        ("scheduled", "planning"),
        ("scheduled", "paused"),
        ("planning", "running"),
        ("planning", "paused"),
        ("planning", "failed"),
        ("running", "paused"),
        ("running", "done"),
        ("running", "failed"),
        ("paused", "running"),
        ("paused", "planning"),
        ("paused", "scheduled"),
        ("done", "running"),
        ("scheduled", "cancelled"),
        ("planning", "cancelled"),
        ("running", "cancelled"),
        ("paused", "cancelled"),
    }
)

#: Causes of a pause that only `repair` ends: what the store says of these campaigns is not what has happened.
DISTRUSTED = ("past", "copy")

#: What ``as_campaign`` takes.
COLUMNS = (
    "id, account, message, audience, reference, idempotency_key, state, cause, reason, created_at, send_at, "
    "started_at, finished_at, planned, node, origin, definition"
)


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign row. Times in milliseconds since 1970.

    ``definition`` holds what was in force when it reached the store: ``channels``, ``bodies``,
    ``too_long``, ``variables``, ``query``, ``content``, ``phone``, ``data``, ``page``, ``page_size``, ``test``
    (to one person, opt-out and quiet hours aside; absent in old rows).
    Empty: the configuration does not have what was asked for, and the campaign is paused until it does.
    ``origin`` is ``query`` or ``list``; ``cause`` a word for the kind of trouble behind ``reason``.
    """

    id: str
    account: str
    message: str
    audience: str | None
    reference: str | None
    key: str | None
    state: str
    cause: str | None
    reason: str | None
    created_at: int
    send_at: int | None
    started_at: int | None
    finished_at: int | None
    planned: bool
    node: str
    origin: str
    definition: dict[str, Any]


def insert(db: Database, campaign: Campaign) -> bool:
    """Add it unless its id is there; says whether it was added."""
    if db.one("SELECT 1 FROM fanout_campaign WHERE id = %s", campaign.id):
        return False
    c = campaign
    db.execute(
        f"INSERT INTO fanout_campaign ({COLUMNS}) VALUES ({holes(17)})",
        c.id, c.account, c.message, c.audience, c.reference, c.key, c.state, c.cause, c.reason, c.created_at,
        c.send_at, c.started_at, c.finished_at, int(c.planned), c.node, c.origin,
        json.dumps(c.definition, ensure_ascii=False),
    )  # fmt: skip
    if c.state == "paused":
        notices.paused(db, c.id, c.cause, c.reason)
    return True


def define(db: Database, campaign: Campaign) -> None:
    """Complete one that came in under a configuration that did not have what it asked for."""
    db.execute(
        "UPDATE fanout_campaign SET definition = %s WHERE id = %s AND definition = '{}'",
        json.dumps(campaign.definition, ensure_ascii=False), campaign.id,
    )  # fmt: skip


def get(db: Database, campaign: str, lock: str = "") -> Campaign | None:
    """``lock``: ``db.LOCK`` for whoever decides by what it says."""
    row = db.one(f"SELECT {COLUMNS} FROM fanout_campaign WHERE id = %s{lock}", campaign)
    return as_campaign(row) if row else None


def asked(db: Database, campaign: str) -> Callable[[], Campaign]:
    """One that is there, given when it is looked at: see ``Database.later``."""
    answer = db.later(f"SELECT {COLUMNS} FROM fanout_campaign WHERE id = %s", campaign)
    return lambda: as_campaign(answer.rows()[0])


def in_states(db: Database, *states: str, lock: str = "") -> list[Campaign]:
    """All that are in one of these states, oldest first. ``lock`` as in ``get``."""
    rows = db.rows(
        f"SELECT {COLUMNS} FROM fanout_campaign WHERE state IN ({holes(len(states))}) ORDER BY created_at, id{lock}",
        *states,
    )
    return [as_campaign(row) for row in rows]


def by_state(db: Database) -> dict[str, int]:
    """How many there are in each state; a state without any is not there."""
    return {state: int(count) for state, count in db.rows("SELECT state, COUNT(*) FROM fanout_campaign GROUP BY state")}


def move(db: Database, campaign: str, old: str, new: str, noted: bool = False, **columns: Any) -> bool:
    """Change the state if it still is ``old``; further columns with it. Says whether it did. In a transaction.

    ``noted``: whoever ordered it stands in the history already; else it is written down as our own doing.
    """
    if (old, new) not in MOVES:
        raise ValueError(f"no campaign goes from {old} to {new}")
    sets = "".join(f", {name} = %s" for name in columns)
    changed = db.execute(
        f"UPDATE fanout_campaign SET state = %s{sets} WHERE id = %s AND state = %s",
        new, *columns.values(), campaign, old,
    )  # fmt: skip
    if changed > 0 and new in FINAL:
        ended(db, campaign)
    if changed > 0 and new == "paused":
        notices.paused(db, campaign, columns.get("cause"), columns.get("reason"))
    if changed > 0 and not noted and (action := _action(old, new)):
        history.note(db, campaign, action, detail=columns.get("reason"))
    return changed > 0


def _action(old: str, new: str) -> str | None:
    """What a history calls the move; None for those on the straight way."""
    if old == "paused" and new not in FINAL:
        return "resumed"
    if new in ("planning", "running"):
        return "reopened" if old == "done" else None
    return new


def pause_unfinished(db: Database, cause: str, reason: str) -> list[Campaign]:
    """Stop every campaign that could send: what the store says of them is not to be trusted. Those it stopped, as they
    were. In a transaction."""
    stopped = [
        each for each in in_states(db, "scheduled", "planning", "running", lock=db.LOCK)
        if move(db, each.id, each.state, "paused", cause=cause, reason=reason)
    ]
    db.execute(
        "UPDATE fanout_campaign SET cause = %s, reason = %s WHERE state = 'paused' AND "
        f"COALESCE(cause, '') NOT IN ({', '.join(repr(each) for each in DISTRUSTED)})",
        cause, reason,
    )  # fmt: skip
    return stopped


def pause_account(db: Database, account: str, cause: str, reason: str) -> None:
    """Pause whatever of the account runs. In a transaction."""
    assert ("running", "paused") in MOVES
    notices.account_pauses(db, account, cause, reason)
    history.note_account(db, account, "running", "paused", reason)
    db.execute(
        "UPDATE fanout_campaign SET state = 'paused', cause = %s, reason = %s "
        "WHERE account = %s AND state = 'running'",
        cause, reason, account,
    )  # fmt: skip


def ended(db: Database, campaign: str) -> None:
    """What follows from a campaign's end is due from the moment at which it is so."""
    outbox.add(db, "on_finish", {"campaign": campaign})
    notices.ended(db, campaign)


def before_pause(db: Database, campaign: Campaign) -> str:
    """The state to which `resume` leads a paused campaign back."""
    if campaign.planned or db.one("SELECT 1 FROM fanout_shard WHERE campaign = %s LIMIT 1", campaign.id):
        return "running"
    return "scheduled" if campaign.started_at is None and campaign.send_at is not None else "planning"


def as_campaign(row: tuple[Any, ...]) -> Campaign:
    return Campaign(
        id=row[0], account=row[1], message=row[2], audience=row[3], reference=row[4], key=row[5], state=row[6],
        cause=row[7], reason=row[8], created_at=row[9], send_at=row[10], started_at=row[11], finished_at=row[12],
        planned=bool(row[13]), node=row[14], origin=row[15], definition=json.loads(row[16]),
    )  # fmt: skip
