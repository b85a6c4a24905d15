"""What is still to be done on the operator's side: statements on his database, commands. Each is done once it succeeds.

Written in the transaction that makes it due, so that no crash forgets it; worked off by the dispatcher. Where several
nodes do so each errand is one's at a time: taken first, for a while, lest a node that dies keeps it for ever.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fanoutd.store.database import Database, holes

#: Pauses before a failed one is tried again, in milliseconds: the first, doubling up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 5_000, 600_000

#: For how long one is taken, in milliseconds: longer than a statement or a command may run.
TAKEN_MS = 90_000


@dataclass(frozen=True, slots=True)
class Errand:
    """``name`` says what kind it is, ``payload`` what it needs: no secrets, which are taken from the configuration."""

    id: int
    name: str
    payload: dict[str, Any]
    tries: int


def add(db: Database, name: str, payload: dict[str, Any]) -> None:
    """Have it done; inside the transaction of what it follows from."""
    db.execute(
        f"INSERT INTO fanout_outbox (name, payload, due) VALUES (%s, %s, {db.NOW_MS})",
        name, json.dumps(payload, ensure_ascii=False),
    )  # fmt: skip


def due(db: Database, limit: int = 100, names: Sequence[str] = ()) -> list[Errand]:
    """Those whose time has come, oldest first; only those of these names, if there are any."""
    named = f" AND name IN ({holes(len(names))})" if names else ""
    rows = db.rows(
        f"SELECT id, name, payload, tries FROM fanout_outbox WHERE due <= {db.NOW_MS} "
        f"AND COALESCE(taken_until, 0) <= {db.NOW_MS}{named} ORDER BY due, id LIMIT %s",
        *names, limit,
    )  # fmt: skip
    return [Errand(id, name, json.loads(payload), tries) for id, name, payload, tries in rows]


def take(db: Database, errand: Errand) -> bool:
    """Whether the caller is the one to do it now. Not while another node does an earlier one with the same payload:
    what is said of a person is said in its order."""
    if db.one(
        "SELECT 1 FROM fanout_outbox "
        f"WHERE id < %s AND payload = %s AND COALESCE(taken_until, 0) > {db.NOW_MS} LIMIT 1",
        errand.id, json.dumps(errand.payload, ensure_ascii=False),
    ):  # fmt: skip
        return False
    return db.execute(
        f"UPDATE fanout_outbox SET taken_until = {db.NOW_MS} + %s "
        f"WHERE id = %s AND COALESCE(taken_until, 0) <= {db.NOW_MS}",
        TAKEN_MS, errand.id,
    ) > 0  # fmt: skip


def done(db: Database, errand: Errand) -> None:
    db.execute("DELETE FROM fanout_outbox WHERE id = %s", errand.id)


def settled(db: Database, errand: Errand, names: Sequence[str]) -> None:
    """Done, and with it what was said earlier with the same payload: it shall not be said after it."""
    db.execute(
        f"DELETE FROM fanout_outbox WHERE id <= %s AND payload = %s AND name IN ({holes(len(names))})",
        errand.id, json.dumps(errand.payload, ensure_ascii=False), *names,
    )  # fmt: skip


def superseded(db: Database, errand: Errand, names: Sequence[str]) -> bool:
    """Whether another of these names with the same payload was added after it, or has been settled already."""
    return db.rows(
        f"SELECT id FROM fanout_outbox WHERE id >= %s AND payload = %s AND name IN ({holes(len(names))}) LIMIT 2",
        errand.id, json.dumps(errand.payload, ensure_ascii=False), *names,
    ) != [(errand.id,)]  # fmt: skip


def pause(errand: Errand) -> int:
    """How long it rests when it has failed now, in milliseconds: twice as long each time."""
    return min(FIRST_PAUSE << min(errand.tries, 16), LONGEST_PAUSE)


def failed(db: Database, errand: Errand, why: str) -> None:
    """To be tried again, after a pause."""
    db.execute(
        f"UPDATE fanout_outbox SET tries = tries + 1, error = %s, due = {db.NOW_MS} + %s, taken_until = NULL "
        "WHERE id = %s",
        why[:500], pause(errand), errand.id,
    )  # fmt: skip
