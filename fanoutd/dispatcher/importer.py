"""From the spool into the store: a campaign under the id that its file bears."""

from __future__ import annotations

import logging
from typing import Any

from fanoutd import failpoint
from fanoutd.config import Audience, Config
from fanoutd.errors import FanoutdError
from fanoutd.spool import Spool
from fanoutd.store import Database, campaigns, history, recurring, retention
from fanoutd.store.campaigns import FINAL, Campaign
from fanoutd.times import of_local, wall_ms

log = logging.getLogger(__name__)


def bring_in(db: Database, spool: Spool, config: Config, node: str, campaign: str) -> Campaign | None:
    """Import one submission; the campaign as the store has it, None when there is no such thing.

    May be repeated at any point: the row goes in once, and the file goes only after it. A file
    that carries a list stays until its plan is complete, and one whose message, account or audience
    has left the configuration until that is back: the campaign is paused for it. The same key may have come in
    on another node before: what the store has stands, and our file stays too, for if that node dies its list is lost.
    """
    document = _read(spool, campaign)
    if document is not None and _too_late(db, spool, document):
        return None
    if document is not None and document.get("cron") is not None:
        _keep(db, spool, config, document)
    elif document is not None:
        try:
            row = build(document, config, node)
        except FanoutdError as e:
            row = _undefined(document, node, str(e))
        schedule = document.get("recurring")
        by = history.peer({**document, "pid": None} if schedule else document)  # whoever set it up has ended long ago
        with db.transaction():
            if added := campaigns.insert(db, row):
                said = f"by its schedule, {schedule}" if schedule else None
                history.note(db, campaign, "submitted", by, said, at=row.created_at)
                if not row.definition:
                    history.note(db, campaign, "paused", detail=row.reason)
            elif row.definition:
                campaigns.define(db, row)
        if added:
            log.info("campaign %s submitted by %s", campaign, by)
            if not row.definition:
                log.error("campaign %s is paused: %s", campaign, row.reason)
        failpoint.reach("after_import")
        if row.origin == "query" and row.definition:
            spool.remove(campaign)
    found = campaigns.get(db, campaign)
    if document is not None and found is not None and (found.planned or found.state in FINAL):
        spool.remove(campaign)
    return found


def _read(spool: Spool, campaign: str) -> dict[str, Any] | None:
    """The master that wrote it knows this machine's clock only."""
    document = spool.read(campaign)
    return document and {**document, "at": of_local(document["at"])}


def _too_late(db: Database, spool: Spool, document: dict[str, Any]) -> bool:
    """Whether it speaks of a campaign that was deleted after its time: this node was away, and must not send it again.

    While some of that one's people are in the store it waits, whatever it is.
    """
    campaign: str = document["campaign"]
    gone = retention.remembered(db, campaign)
    if gone is None or campaigns.get(db, campaign) is not None:
        return False
    if document["at"] < gone.at:
        log.warning("campaign %s has ended and was deleted since this node took it in: it is not sent", campaign)
        spool.remove(campaign)
        return True
    return gone.left_over


def _keep(db: Database, spool: Spool, config: Config, document: dict[str, Any]) -> None:
    """One that comes again is no campaign itself."""
    account = config.accounts.get(document["account"])
    with db.transaction():
        recurring.insert(db, document, account.timezone if account else "Asia/Shanghai")
    failpoint.reach("after_import")
    spool.remove(document["campaign"])


def has_list(document: dict[str, Any]) -> bool:
    """Whether the submission brought its people with it."""
    return document["openids"] is not None or document.get("upload") is not None


def _undefined(document: dict[str, Any], node: str, why: str) -> Campaign:
    """What was accepted under another configuration than the one in force."""
    return Campaign(
        id=document["campaign"], account=document["account"], message=document["message"],
        audience=document["audience"], reference=document["reference"], key=document["key"], state="paused",
        cause="config", reason=f"{why}; put it back, reload, and resume the campaign", created_at=document["at"],
        send_at=document["send_at"], started_at=None, finished_at=None, planned=False, node=node,
        origin="list" if has_list(document) else "query", definition={},
    )  # fmt: skip


def _exclusion(audience: Audience | None, config: Config) -> dict[str, Any] | None:
    """The audience whose people are left out, as it is now."""
    if audience is None or audience.exclude is None:
        return None
    other = config.pick("audience", audience.exclude)
    return {"audience": other.name, "query": other.query, "source": other.source}


def build(document: dict[str, Any], config: Config, node: str) -> Campaign:
    """The campaign row, with the message and the query that are in force now. Raises BadInput."""
    message = config.pick("message", document["message"])
    account = config.pick("account", document["account"])
    listed = has_list(document)
    audience = None if listed else config.pick("audience", document["audience"])
    definition = {
        "channels": list(message.channels),
        "bodies": {channel: message.bodies[channel] for channel in message.channels},
        "too_long": message.too_long,
        "variables": [name for name in message.variables if name in message.placeholders],
        "query": audience.query if audience else None,
        "source": audience.source if audience else None,
        "exclude": _exclusion(audience, config),
        "content": document["content"],
        "phone": document["phone"],
        "data": document["data"],
        "page": document["page"],
        "page_size": document["page_size"],
        "test": document.get("test", False),
    }
    later = document["send_at"] is not None and document["send_at"] > wall_ms()
    return Campaign(
        id=document["campaign"], account=account.name, message=message.name,
        audience=audience.name if audience else None, reference=document["reference"], key=document["key"],
        state="scheduled" if later else "planning", cause=None, reason=None, created_at=document["at"],
        send_at=document["send_at"], started_at=None, finished_at=None, planned=False, node=node,
        origin="list" if listed else "query", definition=definition,
    )  # fmt: skip
