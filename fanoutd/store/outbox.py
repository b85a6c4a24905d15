"""What is still to be done on the operator's side: statements on his database, commands, mails to him (``notices``).
Each is done once it succeeds.

Written in the transaction that makes it due, so that no crash forgets it; worked off by the dispatcher.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from fanoutd.store.database import Database, holes

#: Pauses before a failed one is tried again, in milliseconds: the first, doubling up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 5_000, 600_000


@dataclass(frozen=True, slots=True)
class Errand:
    """``name`` says what kind it is, ``payload`` what it needs: no secrets, which are taken from the configuration."""

    id: int
    name: str
    payload: dict[str, Any]
    tries: int
    due: int = 0


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
        f"SELECT id, name, payload, tries, due FROM fanout_outbox WHERE due <= {db.NOW_MS}{named} "
        "ORDER BY due, id LIMIT %s",
        *names, limit,
    )  # fmt: skip
    return [Errand(id, name, json.loads(payload), tries, due) for id, name, payload, tries, due in rows]


def take(db: Database, errand: Errand, ms: int) -> bool:
    """Have it for so long: nobody else is given it before, on whatever node. False: somebody was faster, or it is done.

    One statement, in no transaction.
    """
    return db.execute(
        f"UPDATE fanout_outbox SET due = {db.NOW_MS} + %s WHERE id = %s AND due = %s", ms, errand.id, errand.due
    ) == 1  # fmt: skip


def keep(db: Database, ids: Collection[int], ms: int) -> None:
    """Have those that are under way for so long from now. One statement."""
    if ids:
        db.execute(
            f"UPDATE fanout_outbox SET due = {db.NOW_MS} + %s WHERE id IN ({holes(len(ids))})", ms, *ids
        )  # fmt: skip


def of_name(db: Database, name: str) -> list[Errand]:
    """All of that name, due or not, oldest first."""
    rows = db.rows("SELECT id, name, payload, tries, due FROM fanout_outbox WHERE name = %s ORDER BY id", name)
    return [Errand(id, name, json.loads(payload), tries, due) for id, name, payload, tries, due in rows]


def postpone(db: Database, errand: Errand, ms: int, payload: dict[str, Any]) -> None:
    """There is nothing to be done yet: have it looked at again after so long, with this payload. One statement."""
    db.execute(
        f"UPDATE fanout_outbox SET payload = %s, tries = 0, error = NULL, due = {db.NOW_MS} + %s WHERE id = %s",
        json.dumps(payload, ensure_ascii=False), ms, errand.id,
    )  # fmt: skip


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
        f"UPDATE fanout_outbox SET tries = tries + 1, error = %s, due = {db.NOW_MS} + %s WHERE id = %s",
        why[:500], pause(errand), errand.id,
    )  # fmt: skip
