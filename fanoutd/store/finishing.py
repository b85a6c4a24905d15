"""When a campaign is done."""

from __future__ import annotations

from fanoutd.store import history
from fanoutd.store.campaigns import ended
from fanoutd.store.database import Database


def finish(db: Database, campaign: str) -> bool:
    """Make it ``done`` when its plan is complete and nobody is pending or to be sent to again."""
    if db.one("SELECT state, planned FROM fanout_campaign WHERE id = %s", campaign) != ("running", 1) or unfinished(
        db, campaign
    ):
        return False
    # Planned, so no shard comes any more. Whoever is about to make somebody in one pending again has its row: we wait
    # for him, and see it; or he waits for us, wants the campaign's row next, and finds it done.
    rows = db.rows(
        "SELECT pending, resend, sent_custom + sent_template + sent_subscribe, failed, skipped, unknown "
        f"FROM fanout_shard WHERE campaign = %s ORDER BY id{db.LOCK_SHARED}", campaign
    )  # fmt: skip
    if any(row[0] or row[1] for row in rows):
        return False
    if not db.execute(
        f"UPDATE fanout_campaign SET state = 'done', finished_at = {db.NOW_MS}, cause = NULL, reason = NULL "
        "WHERE id = %s AND state = 'running'",
        campaign,
    ):
        return False
    ended(db, campaign)
    sums = {word: sum(row[i] for row in rows) for i, word in enumerate(("sent", "failed", "skipped", "unknown"), 2)}
    words = ", ".join(f"{count:,} {word}" for word, count in sums.items() if count)
    history.note(db, campaign, "done", detail=words or "nobody was in it")
    return True


def unfinished(db: Database, campaign: str) -> bool:
    """Somebody planned so far is pending or to be sent to again. Needs no transaction."""
    return db.one(
        "SELECT 1 FROM fanout_shard WHERE campaign = %s AND (pending > 0 OR resend > 0) LIMIT 1", campaign
    ) is not None  # fmt: skip
