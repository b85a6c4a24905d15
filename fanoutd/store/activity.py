"""What is planned and sent, as every node looks at it: what may be taken, and whether it was let go on since."""

from __future__ import annotations

from dataclasses import dataclass

from fanoutd.store.database import Database


def let_go_on(db: Database, campaign: str) -> None:
    """Have every node forget what it has against the campaign. In the transaction that lets it go on."""
    db.execute("UPDATE fanout_campaign SET resumes = resumes + 1 WHERE id = %s", campaign)


def resumes(db: Database, campaign: str) -> int:
    row = db.one("SELECT resumes FROM fanout_campaign WHERE id = %s", campaign)
    return int(row[0]) if row else 0


@dataclass(frozen=True, slots=True)
class Active:
    """A campaign that is planned or sent: how often it was let go on, and its shards that a worker may take now."""

    id: str
    runs: bool
    resumes: int
    waiting: int


def active(db: Database) -> list[Active]:
    """In one statement, which reads no shard of another campaign, and of these in the order of an index."""
    rows = db.rows(
        "SELECT c.id, c.state, c.resumes, (SELECT COUNT(*) FROM fanout_shard s WHERE s.campaign = c.id "
        f"AND s.owner IS NULL AND s.lease_until <= {db.NOW_MS} AND (s.pending > 0 OR s.resend > 0)) "
        "FROM fanout_campaign c WHERE c.state IN ('planning', 'running')"
    )
    return [Active(id, state == "running", resumes, waiting) for id, state, resumes, waiting in rows]
