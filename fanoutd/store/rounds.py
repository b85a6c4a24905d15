"""Which of a recorder's transactions was the last that became durable, for one whose COMMIT was never answered.

A row for each worker that is at work, changed in the transaction itself. Nothing of it matters when the worker is gone.
"""

from __future__ import annotations

from fanoutd.store.database import Database

#: A row that nobody has changed for so long is a dead worker's, in milliseconds.
_FORGOTTEN_AFTER = 86_400_000


def begin(db: Database, owner: str) -> None:
    """Before the first one, which has the number 1. In a transaction, which may be repeated."""
    forget(db, owner)
    db.later(f"INSERT INTO fanout_round (owner, number, at) VALUES (%s, 0, {db.NOW_MS})", owner)


def write(db: Database, owner: str, number: int) -> None:
    """In the transaction of that number."""
    db.later(f"UPDATE fanout_round SET number = %s, at = {db.NOW_MS} WHERE owner = %s", number, owner)


def durable(db: Database, owner: str, number: int) -> bool:
    """Whether that transaction is. In a transaction.

    Its row is locked: where the server has not ended the one in question yet, this waits for it, and what it says
    stays so.
    """
    return db.one(f"SELECT number FROM fanout_round WHERE owner = %s{db.LOCK}", owner) == (number,)


def forget(db: Database, owner: str) -> None:
    db.later("DELETE FROM fanout_round WHERE owner = %s", owner)


def tidy(db: Database) -> None:
    """Drop the rows of workers that did not live to do it; by their keys, for it must wait for nobody at work."""
    for (owner,) in db.rows(f"SELECT owner FROM fanout_round WHERE at < {db.NOW_MS} - %s", _FORGOTTEN_AFTER):
        forget(db, owner)
