"""Who has a shard, and until when: a worker, as long as it renews the lease.

The token rises by one with each lease that is taken (``free_shards``): intents are fenced by it.
"""

from __future__ import annotations

from dataclasses import dataclass

from fanoutd.store.database import Database, Later

#: How long a lease holds without being renewed by a further window or record.
LEASE_MS = 30_000


@dataclass(frozen=True, slots=True)
class Lease:
    """A shard in a worker's hands."""

    shard: int
    token: int
    campaign: str
    owner: str


def renew(db: Database, held: Lease) -> bool:
    """Hold the shard for another term; False when it is lost or the campaign does not run."""
    return asked_to_renew(db, held).count() > 0


def asked_to_renew(db: Database, held: Lease) -> Later:
    """The same, said by the number of rows.

    Who pauses the campaign waits for our transaction: whatever is claimed after it finds that it does not run.
    """
    return db.later(
        f"UPDATE fanout_shard SET lease_until = {db.NOW_MS} + %s WHERE id = %s AND token = %s AND owner = %s "
        f"AND {while_it_runs(db)}",
        LEASE_MS, held.shard, held.token, held.owner,
    )  # fmt: skip


def while_it_runs(db: Database) -> str:
    """A condition on a shard: its campaign runs, and will until the transaction ends."""
    return f"EXISTS (SELECT 1 FROM fanout_campaign c WHERE c.id = campaign AND c.state = 'running'{db.LOCK_SHARED})"


def still_held(db: Database, held: Lease, ended_before: int | None = None) -> bool:
    """Whether nobody has changed that lease meanwhile, and it ended so many milliseconds ago; its row is held."""
    ended = "" if ended_before is None else f" AND lease_until < {db.NOW_MS} - {int(ended_before)}"
    return db.one(
        f"SELECT 1 FROM fanout_shard WHERE id = %s AND token = %s AND owner = %s{ended}{db.LOCK}",
        held.shard, held.token, held.owner,
    ) is not None  # fmt: skip


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


def retake(db: Database, shard: int, token: int) -> int:
    """Free a shard whoever had it, with a new token beyond ``token`` and its own; that token."""
    db.execute(
        "UPDATE fanout_shard SET owner = NULL, next = 0, lease_until = 0, "
        "token = CASE WHEN token > %s THEN token ELSE %s END + 1 WHERE id = %s",
        token, token, shard,
    )  # fmt: skip
    row = db.one("SELECT token FROM fanout_shard WHERE id = %s", shard)
    return int(row[0]) if row else 0


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
