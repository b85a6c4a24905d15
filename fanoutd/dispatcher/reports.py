"""The answer of ``campaign.report``: the campaign object, its time line, its refusals in words, and what is near it."""

from __future__ import annotations

from typing import Any

from fanoutd.config import Config
from fanoutd.dispatcher.queries import campaign_object
from fanoutd.outcome import meaning
from fanoutd.report.timeline import encode
from fanoutd.store import Database, campaigns, nodes, timelines
from fanoutd.store.campaigns import Campaign, Counts
from fanoutd.times import iso

Answer = dict[str, Any]

#: Characters of the message that are shown.
_EXCERPT = 80

#: For an account that has left the configuration.
_TIMEZONE = "Asia/Shanghai"


def answer(db: Database, config: Config, campaign: Campaign) -> Answer:
    """{campaign, cause, timeline{start, step_ms, sent[], failed[], unknown[]} or null, first_at, last_at, later,
    errors[{errcode, count, words, mend}], excerpt, timezone, test, away{count, nodes[]}}. Raises StoreAway.

    ``cause``: a word for the kind of trouble behind the campaign's reason. ``away``: how many of the unknown were in
    the hands of a machine that went away, and the nodes that are not there.
    """
    now = db.now_ms()
    history = timelines.read(db, campaign, now)
    counts = campaigns.counts(db, campaign.id)
    account = config.accounts.get(campaign.account)
    begin = campaign.started_at or campaign.created_at
    return {
        "campaign": campaign_object(campaign, counts, None),
        "cause": campaign.cause,
        "timeline": encode(history.timeline, iso),
        "first_at": None if history.first is None else iso(history.first),
        "last_at": None if history.last is None else iso(history.last),
        "later": history.later,
        "errors": _errors(counts),
        "excerpt": excerpt(campaign.definition.get("content")),
        "timezone": account.timezone if account else _TIMEZONE,
        "test": bool(campaign.definition.get("test")),
        "away": {
            "count": history.given_up,
            "nodes": nodes.away(db, begin) if history.given_up and db.shared else [],
        },
    }


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
