"""The answer of ``campaign.report``: the campaign object, its time line, its refusals in words, and what is near it."""

from __future__ import annotations

from typing import Any

from fanoutd.config import Config
from fanoutd.dispatcher.queries import campaign_object
from fanoutd.outcome import meaning
from fanoutd.report.timeline import encode
from fanoutd.store import Database, counters, history, nodes, timelines
from fanoutd.store.campaigns import Campaign
from fanoutd.store.counters import Counts
from fanoutd.times import iso

Answer = dict[str, Any]

#: Characters of the message that are shown.
_EXCERPT = 80

#: For an account that has left the configuration.
_TIMEZONE = "Asia/Shanghai"


def answer(db: Database, config: Config, campaign: Campaign) -> Answer:
    """{campaign, cause, timeline{start, step_ms, sent[], failed[], unknown[]} or null, first_at, last_at, later,
    errors[{errcode, count, words, mend}], excerpt, submitted{who, uid, pid, node} or null, timezone, test,
    away{count, nodes[]}}. Raises StoreAway.

    ``cause``: a word for the kind of trouble behind the campaign's reason. ``away``: how many of the unknown were in
    the hands of a machine that went away, and the nodes that are not there.
    """
    now = db.now_ms()
    ended = timelines.read(db, campaign, now)
    counts = counters.counts(db, campaign.id)
    account = config.accounts.get(campaign.account)
    begin = campaign.started_at or campaign.created_at
    return {
        "campaign": campaign_object(campaign, counts, None),
        "cause": campaign.cause,
        "timeline": encode(ended.timeline, iso),
        "first_at": None if ended.first is None else iso(ended.first),
        "last_at": None if ended.last is None else iso(ended.last),
        "later": ended.later,
        "errors": _errors(counts),
        "excerpt": excerpt(campaign.definition.get("content")),
        "submitted": _submitted(db, campaign),
        "timezone": account.timezone if account else _TIMEZONE,
        "test": bool(campaign.definition.get("test")),
        "away": {
            "count": ended.given_up,
            "nodes": nodes.away(db, begin) if ended.given_up and db.shared else [],
        },
    }


def _submitted(db: Database, campaign: Campaign) -> dict[str, Any] | None:
    """By whom, and where; None when nobody knows any more, or when it came by itself."""
    line = next((each for each in history.lines(db, campaign.id) if each.action == "submitted"), None)
    if line is None or line.by.uid is None:
        return None
    return {"who": line.by.who, "uid": line.by.uid, "pid": line.by.pid, "node": line.node}


def _errors(counts: Counts) -> list[dict[str, Any]]:
    """The most frequent first."""
    found = sorted(counts.errors.items(), key=lambda each: (-each[1], each[0]))
    return [
        {"errcode": code, "count": count, "words": meaning(code).text, "mend": meaning(code).remedy or None}
        for code, count in found if count
    ]  # fmt: skip


def excerpt(content: str | None) -> str | None:
    """How the text begins, on one line."""
    words = " ".join((content or "").split())
    if not words:
        return None
    return words if len(words) <= _EXCERPT else words[: _EXCERPT - 1].rstrip() + "…"
