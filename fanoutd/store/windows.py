"""Windows: the people of a leased shard that its worker may send to. The durable half of a worker's promise.

A worker leases a shard, claims a window of its people, and only then may send to them: a row is
in flight when it is pending and below the shard's ``next``.
"""

from __future__ import annotations

from dataclasses import dataclass

from fanoutd.store import deliveries, shard_leases
from fanoutd.store.database import Database, Later
from fanoutd.store.deliveries import Person
from fanoutd.store.shard_leases import Lease


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
    return look(db, held, limit, shard_leases.asked_to_renew(db, held))


def look(db: Database, held: Lease, limit: int, holds: Later) -> Window:
    """Who is next in it, if the lease is had by ``holds``."""
    return Window(held, limit, holds, db.later(
        f"SELECT {deliveries.COLUMNS} FROM fanout_delivery d JOIN fanout_shard s ON s.id = d.shard "
        f"WHERE d.shard = %s AND d.pos >= s.next AND d.state IN ({deliveries.OPEN_STATES}) ORDER BY d.pos LIMIT %s",
        held.shard, limit,
    ))  # fmt: skip


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
