"""Which of a recorder's transactions was the last that became durable.

A row for each worker that is at work, changed in the transaction itself. It answers for a COMMIT that was never
answered, and shows a store that has forgotten one that was: a replica was promoted that lacks it, or a dump was put
back. Nothing of it matters when the worker is gone.
"""

from __future__ import annotations

from fanoutd.store.database import Database, Later

#: A row that nobody has changed for so long is a dead worker's, or of one that had nothing to do; in milliseconds.
FORGOTTEN_AFTER = 86_400_000


def begin(db: Database, owner: str) -> None:
    """Before the first one, which has the number 1. In a transaction, which may be repeated."""
    forget(db, owner)
    db.later(f"INSERT INTO fanout_round (owner, number, at) VALUES (%s, 0, {db.NOW_MS})", owner)


def write(db: Database, owner: str, number: int) -> Later:
    """In the transaction of that number, before anything else: as long as the server has not ended it, whoever asks
    ``durable`` waits. No row is matched where the one before it is not in the store."""
    return db.later(
        f"UPDATE fanout_round SET number = %s, at = {db.NOW_MS} WHERE owner = %s AND number = %s",
        number, owner, number - 1,
    )  # fmt: skip


def begin_anew(db: Database, owner: str, number: int) -> bool:
    """Have the row say what ``write`` could not; whether there was one."""
    there = db.one(f"SELECT number FROM fanout_round WHERE owner = %s{db.LOCK}", owner) is not None
    db.execute("DELETE FROM fanout_round WHERE owner = %s", owner)
    db.execute(f"INSERT INTO fanout_round (owner, number, at) VALUES (%s, %s, {db.NOW_MS})", owner, number)
    return there


def durable(db: Database, owner: str, number: int) -> bool:
    """Whether that transaction is. In a transaction.

    Its row is locked: where the server has not ended the one in question yet, this waits for it, and what it says
    stays so.
    """
    return db.one(f"SELECT number FROM fanout_round WHERE owner = %s{db.LOCK}", owner) == (number,)


def ended(db: Database, owner: str) -> None:
    """Wait for the last transaction of a worker that is dead: its COMMIT may be on its way. In a transaction."""
    db.one(f"SELECT number FROM fanout_round WHERE owner = %s{db.LOCK}", owner)


def forget(db: Database, owner: str) -> None:
    db.later("DELETE FROM fanout_round WHERE owner = %s", owner)


def tidy(db: Database) -> None:
    """Drop the rows of workers that did not live to do it; by their keys, for it must wait for nobody at work."""
    for (owner,) in db.rows(f"SELECT owner FROM fanout_round WHERE at < {db.NOW_MS} - %s", FORGOTTEN_AFTER):
        forget(db, owner)
