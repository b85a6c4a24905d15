"""Mails about campaigns: one when it ends, one when it pauses itself, and one more when unknown people are settled.

Each comes of a row of the outbox (``store.notices``), which goes when the mail is on the disk of this node. The
mail's id comes of the row: after a crash in between the same mail is written once more, and is the same.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from fanoutd.config import Config
from fanoutd.dispatcher import reports
from fanoutd.mail.event import Event
from fanoutd.report.build import Report, all_reached, build, paused_subject
from fanoutd.report.mail_html import mail_html
from fanoutd.report.text import text
from fanoutd.report.words import number
from fanoutd.store import Database, campaigns, counters, notices, outbox
from fanoutd.store.campaigns import FINAL, Campaign
from fanoutd.store.outbox import Errand
from fanoutd.times import wall_ms

log = logging.getLogger(__name__)

#: Unknown people that are settled one after the other make one mail, when nothing has changed for so long.
QUIET_MS = 60_000

#: Between two looks at a campaign that has unknown people, in milliseconds: the longer they wait, the rarer.
_LOOK_MS, _LOOK_RARELY_MS = 5_000, 60_000

#: So many mails of a kind in a minute are mails by themselves; what comes beyond may be told together.
_ALONE, _MINUTE = 5, 60.0

#: A campaign that pauses for its token goes on by itself, and may pause again: mailed once in so many seconds.
_AGAIN = 600.0
_REMEMBERED = 1000


class CampaignMails:
    """``tell`` has an event mailed, and never raises; None: nobody wants mails. ``clock`` is seconds that only rise.
    Used by one thread."""

    def __init__(
        self, config: Config, tell: Callable[[Event], None] | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config, self._clock = config, clock
        self._tell = tell if config.mail else None
        self._reports = config.mail.reports if config.mail else "off"
        self._told: dict[str, deque[float]] = {}
        self._tokens: dict[str, float] = {}

    def work(self, db: Database, errand: Errand) -> str | None:
        """Do what a row of MAIL or WATCH is for; in words what was done. Raises StoreAway."""
        campaign = campaigns.get(db, errand.payload["campaign"])
        if self._tell is None or campaign is None or campaign.definition.get("test"):
            self._settle(db, errand)
            return None
        if errand.name == notices.WATCH:
            return self._look(db, errand, campaign)
        work = self._ended if errand.payload["what"] == notices.ENDED else self._paused
        return work(db, errand, campaign)

    def _settle(self, db: Database, errand: Errand) -> None:
        with db.transaction():
            outbox.done(db, errand)

    # ---- it has ended

    def _ended(self, db: Database, errand: Errand, campaign: Campaign) -> str | None:
        watched = notices.watched(db, campaign.id)
        said = watched[-1].payload["said"] if watched else None
        answer = reports.answer(db, self._config, campaign)
        counts = answer["campaign"]["counts"]
        # It runs again: its next end will tell. Or it ended twice before the first could be told.
        if campaign.state not in FINAL or counts == said:
            self._settle(db, errand)
            return None
        open = bool(said or counts["unknown"])
        wanted = open or self._reports == "all" or (self._reports == "problems" and not all_reached(answer["campaign"]))
        if wanted:
            report = build(answer, corrected=said is not None)
            self._mail(campaign, errand.payload["mark"], "campaign-ended", report, _since(said, counts))
        with db.transaction():
            for each in (errand, *watched):
                outbox.done(db, each)
            if counts["unknown"]:
                notices.watch(db, campaign.id, counts)
        return "its report is mailed" if wanted else None

    # ---- it has paused itself

    def _paused(self, db: Database, errand: Errand, campaign: Campaign) -> str | None:
        payload = errand.payload
        if campaign.state in FINAL or self._flaps(campaign.id, payload["cause"]):
            self._settle(db, errand)
            return None
        report = build(reports.answer(db, self._config, campaign))
        note = ""
        if campaign.state != "paused":
            report = paused_subject(report, payload["reason"])
            note = f"It had paused itself, and has gone on since. The reason was: {report.reason}"
        self._mail(campaign, payload["mark"], "campaign-paused", report, note)
        if payload["cause"] == "token":
            self._tokens[campaign.id] = self._clock()
        self._settle(db, errand)
        return "that it paused is mailed"

    def _flaps(self, campaign: str, cause: str | None) -> bool:
        """It was told of just now that the token is refused."""
        while len(self._tokens) > _REMEMBERED:
            del self._tokens[next(iter(self._tokens))]
        at = self._tokens.get(campaign)
        return cause == "token" and at is not None and self._clock() - at < _AGAIN

    # ---- its unknown people are settled

    def _look(self, db: Database, errand: Errand, campaign: Campaign) -> str | None:
        payload, now = errand.payload, db.now_ms()
        counts = counters.counts(db, campaign.id).by_state
        if campaign.state not in FINAL or counts == payload["said"]:
            rarely = min(_LOOK_RARELY_MS, max(_LOOK_MS, (now - payload["since"]) // 20))
            outbox.postpone(db, errand, rarely, {**payload, "seen": None})
            return None
        changed = counts != payload.get("seen")
        at = now if changed else payload["changed"]
        if counts["unknown"] and now - at < QUIET_MS:
            outbox.postpone(db, errand, _LOOK_MS, {**payload, "seen": counts, "changed": at})
            return None
        report = build(reports.answer(db, self._config, campaign), corrected=True)
        self._mail(campaign, payload["mark"], "campaign-ended", report, _since(payload["said"], counts))
        with db.transaction():
            outbox.done(db, errand)
            if counts["unknown"]:
                notices.watch(db, campaign.id, counts)
        return "its corrected report is mailed"

    # ---- the mail

    def _mail(self, campaign: Campaign, mark: str, kind: str, report: Report, note: str) -> None:
        event = Event(
            id=f"campaign-{campaign.id}-{mark}", kind=self._kind(kind), subject=report.subject, line=report.subject,
            text=text(report, note), html=mail_html(report, note), at=wall_ms(),
        )  # fmt: skip
        assert self._tell is not None
        self._tell(event)

    def _kind(self, kind: str) -> str:
        """Empty for the first few in a minute: each is a mail of its own, named by its campaign."""
        told, now = self._told.setdefault(kind, deque()), self._clock()
        while told and told[0] <= now - _MINUTE:
            told.popleft()
        if len(told) >= _ALONE:
            return kind
        told.append(now)
        return ""


def _since(said: dict[str, Any] | None, counts: dict[str, Any]) -> str:
    """What has changed since the last report; empty when there was none."""
    if said is None:
        return ""
    return f"This takes the place of an earlier report, in which {number(said['unknown'])} were unknown; " \
        f"now {number(counts['unknown'])} are."  # fmt: skip
