"""Recurring campaigns: one submission for each planned time, once over all crashes."""

from __future__ import annotations

import logging
from typing import Any

from fanoutd import cron
from fanoutd.config import Config
from fanoutd.dispatcher.importer import bring_in
from fanoutd.dispatcher.queries import RpcError
from fanoutd.ids import keyed_campaign_id
from fanoutd.spool import Spool
from fanoutd.store import Database, recurring
from fanoutd.store.recurring import Recurring
from fanoutd.times import iso, local_ms

log = logging.getLogger(__name__)

#: How late one that was missed is still submitted, in milliseconds.
LATEST = 3_600_000


def submit_due(db: Database, spool: Spool, config: Config, node: str, now_ms: int) -> list[str]:
    """Submit what is due; of several times that were missed the latest. The campaigns, which are in the store.

    A time's campaign has a key of its own: submitted again after a crash in between it is the same one.
    """
    submitted = []
    for each in recurring.listed(db):
        planned = due(each, now_ms)
        if planned is not None:
            campaign = _submit(spool, each, planned)
            bring_in(db, spool, config, node, campaign)  # no other node would do it for one that has died here
            with db.transaction():
                recurring.came(db, each.id, planned, campaign)
            log.info("recurring campaign %s: %s is submitted for %s", each.id, campaign, iso(planned))
            submitted.append(campaign)
    return submitted


def due(entry: Recurring, now_ms: int) -> int | None:
    """The planned time that must be submitted now, if there is one."""
    after = max(entry.last_at or entry.created_at, now_ms - LATEST)
    return cron.latest(entry.cron, entry.timezone, after, now_ms)


def _submit(spool: Spool, entry: Recurring, planned: int) -> str:
    document, key = entry.submission, f"{entry.id}:{iso(planned)}"
    campaign = keyed_campaign_id(document["account"], key)
    if not spool.knows(campaign):
        one = {**document, "campaign": campaign, "key": key, "cron": None, "at": local_ms(), "recurring": entry.id}
        spool.accept(one, keyed=True)
    return campaign


def catalogue(db: Database, spool: Spool, config: Config, node: str, now_ms: int) -> dict[str, Any]:
    """``recurring.list``: {recurring}, oldest first."""
    _bring_in(db, spool, config, node)
    return {"recurring": [_object(each, now_ms) for each in recurring.listed(db)]}


def _bring_in(db: Database, spool: Spool, config: Config, node: str) -> None:
    """What was accepted just now is known, though nobody has imported it yet."""
    for each in spool.pending():
        if each.startswith("r-"):
            bring_in(db, spool, config, node, each)


def _object(entry: Recurring, now_ms: int) -> dict[str, Any]:
    document = entry.submission
    following = cron.next_after(entry.cron, entry.timezone, now_ms)
    return {
        "id": entry.id,
        "cron": entry.cron,
        "timezone": entry.timezone,
        **{name: document[name] for name in ("account", "message", "audience", "content", "reference", "key")},
        "created_at": iso(entry.created_at),
        "next_at": None if following is None else iso(following),
        "last_at": None if entry.last_at is None else iso(entry.last_at),
        "last_campaign": entry.last_campaign,
    }


def remove(db: Database, spool: Spool, config: Config, node: str, id: str) -> dict[str, Any]:
    """``recurring.remove``: no campaign comes of it any more; those that came stay. Raises RpcError."""
    _bring_in(db, spool, config, node)
    with db.transaction():
        there = recurring.remove(db, id)
    spool.forget(id)
    if not there:
        raise RpcError(-32002, f"no recurring campaign {id}; `fanoutd campaign recurring list` names them")
    return {"recurring": id}
