"""What is to be mailed about campaigns, in the outbox: written in the transaction in which it comes about.

A row of ``MAIL`` is one mail to be: the campaign has ended, or has paused itself. One of ``WATCH`` is a campaign that
ended with people of whom nobody knows; it stays until they are settled and that is mailed too. Each has a mark of its
own, by which its mail is known: whoever writes it twice writes the same one.
"""

from __future__ import annotations

import uuid

from fanoutd.store import outbox
from fanoutd.store.database import Database
from fanoutd.store.outbox import Errand

MAIL, WATCH = "campaign_mail", "campaign_watch"
ENDED, PAUSED = "ended", "paused"

#: The cause of a pause that somebody ordered: he knows.
ORDERED = "operator"


def ended(db: Database, campaign: str) -> None:
    """It is done, cancelled or failed."""
    outbox.add(db, MAIL, {"campaign": campaign, "what": ENDED, "mark": _mark()})


def paused(db: Database, campaign: str, cause: str | None, reason: str | None) -> None:
    """It has paused, and unless that was ordered it is to be told."""
    if cause != ORDERED:
        told = {"campaign": campaign, "what": PAUSED, "mark": _mark(), "cause": cause, "reason": reason}
        outbox.add(db, MAIL, told)


def account_pauses(db: Database, account: str, cause: str, reason: str) -> None:
    """All that runs of the account is about to pause."""
    running = db.rows(
        f"SELECT id FROM fanout_campaign WHERE account = %s AND state = 'running' ORDER BY created_at, id{db.LOCK}",
        account,
    )
    for (campaign,) in running:
        paused(db, campaign, cause, reason)


def watch(db: Database, campaign: str, said: dict[str, int]) -> None:
    """It was mailed that its people ended so, some of them unknown."""
    outbox.add(db, WATCH, {"campaign": campaign, "mark": _mark(), "said": said, "since": db.now_ms()})


def watched(db: Database, campaign: str) -> list[Errand]:
    """The rows of WATCH that it has."""
    return [each for each in outbox.of_name(db, WATCH) if each.payload["campaign"] == campaign]


def _mark() -> str:
    return uuid.uuid4().hex[:12]


