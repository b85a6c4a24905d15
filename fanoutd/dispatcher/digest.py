"""The daily digest: its figures, from the store, the master and the disk, into one event for the mail."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from fanoutd import cron, digest, failpoint
from fanoutd.config import Config
from fanoutd.digest import Campaign, Digest
from fanoutd.mail.event import Event
from fanoutd.store import Database, campaigns, counters, recurring, summary
from fanoutd.times import wall_ms

#: Campaigns that are summed up; a day has fewer.
_MOST = 5000

#: Without an earlier digest to go on from: so far back, and never further than the second, in milliseconds.
_DAY, _MONTH = 86_400_000, 31 * 86_400_000


class Digests:
    """``status(db)``: the dispatcher's part of the status; ``facts()``: the master's, or None; ``overdue(db)``:
    campaigns kept beyond retention; ``tell`` has an event mailed."""

    def __init__(
        self, config: Config, node: str, connect: Callable[[], Database], status: Callable[[Database], dict[str, Any]],
        facts: Callable[[], dict[str, Any] | None], overdue: Callable[[Database], int], tell: Callable[[Event], None],
    ) -> None:  # fmt: skip
        self._config, self._node, self._connect = config, node, connect
        self._status, self._facts, self._overdue, self._tell = status, facts, overdue, tell

    def send(self, planned: int, before: int) -> str:
        """The digest of this planned time; ``before``: that of the last one. Raises StoreAway."""
        since = before if before < planned - 1 else planned - _DAY
        figures = self._figures(self._connect(), max(since, planned - _MONTH), planned)
        self._tell(event(figures, planned))
        failpoint.reach("mid_digest")
        return "handed to the mail"

    def _figures(self, db: Database, since: int, until: int) -> Digest:
        status, facts = self._status(db), self._facts() or {}
        ended, errors = _ended(db, since, until)
        disk = shutil.disk_usage(self._config.daemon.state_dir)
        workers = [row for row in facts.get("workers", ()) if row["role"] == "worker"]
        return Digest(
            node=self._node, since=since, until=until, timezone=self._config.schedule.timezone, ended=ended,
            errors=errors, running=_now(db, "planning", "running"), paused=_now(db, "paused"),
            unknown=[_campaign(row, {"unknown": int(row[6])}) for row in summary.undecided(db, _MOST)],
            overdue=self._overdue(db), coming=_coming(db),
            quotas={each["name"]: each["quota"] for each in status["accounts"]},
            opted_out=summary.opted_out(db, since, until), conditions=_broken(status),
            nodes=[each["node"] for each in status["nodes"]],
            workers=len(workers) if facts else None, restarts=sum(row["restarts"] for row in workers),
            spool=facts["spool"]["files"] if facts else None, disk=(disk.free, disk.total), store=summary.size(db),
        )  # fmt: skip


def event(figures: Digest, planned: int) -> Event:
    """One for each planned time, whoever makes it and however often."""
    at = datetime.fromtimestamp(planned / 1000, ZoneInfo(figures.timezone))
    title = digest.subject(figures)
    return Event(
        f"digest-{at:%Y-%m-%d-%H%M}", "", title, title, digest.text(figures), digest.html(figures), planned
    )


def _ended(db: Database, since: int, until: int) -> tuple[list[Campaign], Counter[str]]:
    found, errors = [], Counter[str]()
    for row in summary.ended(db, since, until, _MOST):
        counts = counters.counts(db, row[0])
        errors.update(counts.errors)
        found.append(_campaign(row, counts.by_state))
    return found, errors


def _now(db: Database, *states: str) -> list[Campaign]:
    return [
        Campaign(each.id, each.message, each.reference, each.state, each.reason, counters.counts(db, each.id).by_state)
        for each in campaigns.in_states(db, *states)
    ]


def _campaign(row: tuple[Any, ...], counts: Mapping[str, int]) -> Campaign:
    id, message, reference, state, reason, finished_at, *_ = row
    return Campaign(id, message, reference, state, None if state == "done" else reason, counts, finished_at)


def _coming(db: Database) -> list[tuple[int, str]]:
    now = wall_ms()
    once = [(each.send_at or now, f"{each.id} ({each.message})") for each in campaigns.in_states(db, "scheduled")]
    again = [
        (at, f"{each.id} ({each.submission['message'] or 'the default message'}), as `{each.cron}` says")
        for each in recurring.listed(db) if (at := cron.next_after(each.cron, each.timezone, now)) is not None
    ]  # fmt: skip
    return sorted(once + again)[: digest.MOST]


def _broken(status: Mapping[str, Any]) -> list[str]:
    """The conditions of health that are, where the status has them."""
    return [each["words"] for each in status.get("conditions") or () if each["state"] == "broken"]
