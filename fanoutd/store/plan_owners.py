"""Which node plans a campaign, and what its plan waits for."""

from __future__ import annotations

from fanoutd.store import history
from fanoutd.store.database import Database

#: In a condition: something is to be planned or sent.
_ACTIVE = "state IN ('scheduled', 'planning', 'running')"


def take_in_hand(db: Database, campaign: str, node: str) -> None:
    """Let ``node`` plan what is not planned of it."""
    db.execute("UPDATE fanout_campaign SET node = %s WHERE id = %s", node, campaign)


def inherit(db: Database, campaign: str, heir: str, dead: str) -> bool:
    """Let ``heir`` plan what the dead node has not; False when somebody was faster, or there is nothing to plan. In a
    transaction."""
    ours = db.execute(
        f"UPDATE fanout_campaign SET node = %s WHERE id = %s AND node = %s AND planned = 0 AND {_ACTIVE}",
        heir, campaign, dead,
    ) > 0  # fmt: skip
    if ours:
        history.note(db, campaign, "taken over", detail=f"its planning, from node {dead}")
    return ours


def still_of(db: Database, campaign: str, node: str, lock: str = "") -> str | None:
    """Its state, if its plan is that node's; with ``lock`` both stay so until the transaction ends."""
    row = db.one(f"SELECT state FROM fanout_campaign WHERE id = %s AND node = %s{lock}", campaign, node)
    return str(row[0]) if row else None


def wait_for_node(db: Database, campaign: str, node: str, reason: str) -> None:
    """Say that only this node has what its plan needs; what else it waits for while it runs stays."""
    db.execute(
        f"UPDATE fanout_campaign SET cause = 'node', reason = %s WHERE id = %s AND node = %s AND planned = 0 "
        f"AND {_ACTIVE} AND (state <> 'running' OR reason IS NULL)",
        reason, campaign, node,
    )  # fmt: skip


def node_is_there(db: Database, campaign: str) -> None:
    """It waits for no node any more."""
    db.execute("UPDATE fanout_campaign SET cause = NULL, reason = NULL WHERE id = %s AND cause = 'node'", campaign)


def explain_plan(db: Database, campaign: str, reason: str | None) -> None:
    """What a campaign waits for that is not planned yet; None: it is planned, and whatever else it waits for stays."""
    if reason is None:
        db.execute(
            "UPDATE fanout_campaign SET cause = NULL, reason = NULL WHERE id = %s AND cause = 'audience'", campaign
        )
    else:
        db.execute(
            "UPDATE fanout_campaign SET cause = 'audience', reason = %s "
            "WHERE id = %s AND planned = 0 AND state IN ('planning', 'running')",
            reason, campaign,
        )  # fmt: skip
