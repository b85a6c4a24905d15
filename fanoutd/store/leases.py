"""Leases by name: what one node does for all. They end by the database's clock.

Each step is one statement in no transaction, so that nothing waits for a node that stands still in the middle. A
holder measures its own term on CLOCK_BOOTTIME, from before it asked: whatever the answer took, it ends no later here.
"""

from __future__ import annotations

from fanoutd.store.database import Database, StoreBusy


def take(db: Database, name: str, owner: str, term_ms: int) -> int | None:
    """Have the lease for so long, if nobody else has it; its token, which rises with each holder. None: not ours.

    An owner's lease that has not ended is its own: whoever had it in that name before is gone.
    """
    row = db.one(f"SELECT owner, token, until > {db.NOW_MS} FROM fanout_lease WHERE name = %s", name)
    if row is None:
        try:
            db.execute(
                f"INSERT INTO fanout_lease (name, owner, token, until) VALUES (%s, %s, 1, {db.NOW_MS} + %s)",
                name, owner, term_ms,
            )  # fmt: skip
        except StoreBusy:  # somebody was faster
            return None
        return 1
    if row[0] != owner and row[2]:
        return None
    token = int(row[1])
    got = db.execute(
        f"UPDATE fanout_lease SET owner = %s, token = token + 1, until = {db.NOW_MS} + %s "
        f"WHERE name = %s AND token = %s AND (until <= {db.NOW_MS} OR owner = %s)",
        owner, term_ms, name, token, owner,
    )  # fmt: skip
    return token + 1 if got else None


def renew(db: Database, name: str, owner: str, token: int, term_ms: int) -> bool:
    """Have it for so long from now; False when somebody else has had it since."""
    return db.execute(
        f"UPDATE fanout_lease SET until = {db.NOW_MS} + %s WHERE name = %s AND owner = %s AND token = %s",
        term_ms, name, owner, token,
    ) == 1  # fmt: skip


def give_back(db: Database, name: str, owner: str, token: int) -> None:
    """The next one need not wait for its end."""
    db.execute("UPDATE fanout_lease SET until = 0 WHERE name = %s AND owner = %s AND token = %s", name, owner, token)


def holder(db: Database, name: str) -> str | None:
    """Whose it is, as far as it has not ended."""
    row = db.one(f"SELECT owner FROM fanout_lease WHERE name = %s AND until > {db.NOW_MS}", name)
    return str(row[0]) if row else None
