"""What operators order about a campaign: pause, resume, cancel, retry, resolve.

Each makes one durable change, with a line in the campaign's history that says ``by`` whom, and says the campaign's
state after it. What changes nothing writes nothing. Whoever pauses or cancels is answered
by ``answers`` when every worker of this node has obeyed too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from fanoutd.dispatcher.queries import RpcError
from fanoutd.figures import Count, uncounted
from fanoutd.outcome import Ended, State
from fanoutd.store import Database, activity, campaigns, finishing, history
from fanoutd.store.campaigns import DISTRUSTED, FINAL, Campaign
from fanoutd.store.corrections import StillHeld, reopen, resolve
from fanoutd.store.history import OURSELVES, By

PAUSED_BY_OPERATOR = "paused by an operator; `fanoutd campaign resume` lets it go on"

CANCELLED_BY_OPERATOR = "cancelled by an operator"

INVALID, NOT_NOW, WRONG_STATE = -32602, -32005, -32003


def pause(db: Database, campaign: Campaign, by: By = OURSELVES) -> str:
    """Have it wait until `resume`. Raises RpcError when it has ended."""
    why = {"cause": "operator", "reason": PAUSED_BY_OPERATOR}
    with db.transaction():
        campaign = _held(db, campaign)
        if campaign.state in FINAL:
            raise RpcError(WRONG_STATE, f"campaign {campaign.id} is {campaign.state}: nothing to pause", "campaign")
        if campaign.state != "paused":
            _move(db, campaign, "paused", **why)
            history.note(db, campaign.id, "paused", by)
        elif campaign.cause not in (*DISTRUSTED, "operator"):  # else it would go on when its own trouble is over
            db.execute(
                "UPDATE fanout_campaign SET cause = %s, reason = %s WHERE id = %s AND state = 'paused'",
                *why.values(), campaign.id,
            )  # fmt: skip
            history.note(db, campaign.id, "paused", by, "it had paused itself")
    return "paused"


def cancel(db: Database, campaign: Campaign, by: By = OURSELVES) -> str:
    """End it: whoever was not tried stays pending for ever. Raises RpcError when it has ended otherwise.

    One that is not to be trusted stays so: `repair` can still tell who was sent to.
    """
    with db.transaction():
        campaign = _held(db, campaign)
        if campaign.state == "cancelled":
            return campaign.state
        if campaign.state in FINAL:
            raise RpcError(WRONG_STATE, f"campaign {campaign.id} is {campaign.state} already", "campaign")
        at = db.now_ms()
        distrusted = campaign.cause in DISTRUSTED
        why = (campaign.cause, campaign.reason) if distrusted else ("operator", CANCELLED_BY_OPERATOR)
        _move(db, campaign, "cancelled", cause=why[0], reason=why[1], finished_at=at)
        history.note(db, campaign.id, "cancelled", by)
    return "cancelled"


def resume(db: Database, campaign: Campaign, by: By = OURSELVES) -> str:
    """Lead a paused campaign back to where it was. Raises RpcError when it has ended or must be repaired."""
    with db.transaction():
        campaign = _held(db, campaign)
        if campaign.state in FINAL:
            raise RpcError(WRONG_STATE, f"campaign {campaign.id} is {campaign.state}; see `campaign retry`", "campaign")
        if campaign.state != "paused":
            return campaign.state
        if campaign.cause in DISTRUSTED:
            words = f"{campaign.reason}; resuming would send twice: `fanoutd campaign repair {campaign.id}`"
            raise RpcError(WRONG_STATE, words, "campaign")
        if not campaign.definition:
            raise RpcError(WRONG_STATE, campaign.reason or "its message is not configured", "campaign")
        before = campaigns.before_pause(db, campaign)
        _move(db, campaign, before, cause=None, reason=None)
        activity.let_go_on(db, campaign.id)
        history.note(db, campaign.id, "resumed", by)
    with db.transaction():
        finishing.finish(db, campaign.id)
    return before


def retry(db: Database, campaign: Campaign, failed: bool, unknown: bool, by: By = OURSELVES) -> str:
    """Send again to those who failed or are unknown. Raises RpcError while it runs."""
    if not (failed or unknown):
        raise RpcError(INVALID, "failed or unknown must be true: whom to send to again", "failed")
    try:
        with db.transaction():
            again = reopen(db, campaign.id, failed, unknown)  # before the campaign is held: shards come first
            campaign = _held(db, campaign)
            if campaign.state not in ("done", "paused") or campaign.cause in DISTRUSTED:
                words = f"campaign {campaign.id} is {campaign.state}; retry when it is done, or pause it first"
                raise RpcError(WRONG_STATE, words, "campaign")
            if again and campaign.state == "done":
                _move(db, campaign, "running", finished_at=None)
            activity.let_go_on(db, campaign.id)
            if again:
                whom = " and ".join(word for word, is_meant in (("failed", failed), ("unknown", unknown)) if is_meant)
                history.note(db, campaign.id, "retried", by, f"{history.people(again)}, {whom}")
    except StillHeld as e:
        raise RpcError(NOT_NOW, str(e), "campaign") from None
    return "running" if again and campaign.state == "done" else campaign.state


def settle(
    db: Database, campaign: Campaign, word: str | None, openids: list[str] | None, count: Count = uncounted,
    by: By = OURSELVES,
) -> str:
    """Take the operator's word, ``sent`` or ``failed``, for unknown people; all of them, or these."""
    ended: Ended = Counter()
    if word not in ("sent", "failed"):
        raise RpcError(INVALID, 'as must be "sent" or "failed"', "as")
    with db.transaction():
        settled = resolve(db, campaign.id, State.SENT if word == "sent" else State.FAILED, openids, ended)
        if settled:
            history.note(db, campaign.id, "resolved", by, f"{history.people(settled)} as {word}")
    count(campaign.account, ended)
    with db.transaction():
        finishing.finish(db, campaign.id)
    found = campaigns.get(db, campaign.id)
    return found.state if found else campaign.state


def _held(db: Database, campaign: Campaign) -> Campaign:
    """As it is now, and stays until the transaction ends: nobody else's word about it is overwritten unseen."""
    return campaigns.get(db, campaign.id, db.LOCK) or campaign


def _move(db: Database, campaign: Campaign, new: str, **columns: Any) -> None:
    """Raises RpcError when somebody else has moved it meanwhile."""
    if not campaigns.move(db, campaign.id, campaign.state, new, noted=True, **columns):
        raise RpcError(NOT_NOW, f"campaign {campaign.id} has just changed; try again", "campaign")


def pause_unfinished(db: Database, cause: str, reason: str) -> list[Campaign]:
    """Stop every campaign that could send: what the store says of them is not to be trusted. Those it stopped."""
    with db.transaction():
        stopped = campaigns.pause_unfinished(db, cause, reason)
    return [replace(each, state="paused", cause=cause, reason=reason) for each in stopped]
