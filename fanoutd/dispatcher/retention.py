"""Campaigns that ended longer ago than they shall be kept: deleted, a little at a time.

Nothing is decided here: a campaign with unknown deliveries stays until somebody has decided about them, and is told
about. Killed anywhere, the next run goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from fanoutd import failpoint
from fanoutd.store import Database, again_if_busy, retention
from fanoutd.times import wall_ms

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Campaigns in one run, and the pause after each transaction in seconds: workers want to write too.
_CAMPAIGNS, _PAUSE = 10_000, 0.02

#: Seconds between two lines about what is kept for its unknown deliveries.
_TELL_AGAIN = 86_400.0


class Retention:
    """``seconds`` that a campaign is kept after its end; ``leads``: whether this node goes on with it."""

    def __init__(
        self, seconds: float, connect: Callable[[], Database], leads: Callable[[], bool] = lambda: True
    ) -> None:
        self._seconds, self._connect, self._leads = seconds, connect, leads
        self._told: float | None = None

    def work(self) -> str | None:
        """Delete what is old enough; in words how much, None when there was nothing. Raises StoreAway."""
        db, before = self._connect(), wall_ms() - int(self._seconds * 1000)
        people = self._clear(db)  # what an earlier run has left
        count = 0
        for campaign in retention.old(db, before, _CAMPAIGNS):
            if not self._leads():
                break
            if self._take_away(db, campaign, before):
                log.info("campaign %s ended longer ago than it is kept, and is deleted", campaign)
                count += 1
                people += self._clear(db)
        _at_once(db, partial(retention.tidy, db))
        kept = retention.kept(db, before)
        self._tell(kept)
        done = [f"{count:,} campaigns and {people:,} deliveries deleted"] if count or people else []
        held = [f"{kept:,} kept for their unknown deliveries"] if kept else []
        return ", ".join(done + held) or None

    def kept(self, db: Database) -> int:
        """Campaigns that are older than they shall be, and stay for deliveries whose outcome nobody knows."""
        return retention.kept(db, wall_ms() - int(self._seconds * 1000))

    def _take_away(self, db: Database, campaign: str, before: int) -> bool:
        return _at_once(db, partial(retention.take_away, db, campaign, before))

    def _clear(self, db: Database) -> int:
        """The people of campaigns that are gone."""
        people = 0
        for campaign, last in retention.unfinished(db):
            for shard, size in retention.shards_of(db, campaign, last):
                for first in range(0, max(1, size), retention.AT_ONCE):
                    if not self._leads():
                        return people
                    people += _at_once(db, partial(retention.clear, db, shard, first, size))
                    failpoint.reach("mid_retention")
                    time.sleep(_PAUSE)
            _at_once(db, partial(retention.cleared, db, campaign))
        return people

    def _tell(self, kept: int) -> None:
        if kept and (self._told is None or time.monotonic() - self._told >= _TELL_AGAIN):
            self._told = time.monotonic()
            log.warning(
                "%d campaigns are older than they shall be kept and have unknown deliveries: they stay until you have "
                "decided, with `fanoutd campaign resolve` or `retry --unknown`", kept,
            )  # fmt: skip


def _at_once(db: Database, step: Callable[[], T]) -> T:
    """In a transaction of its own, again when another one was in its way."""

    def transaction() -> T:
        with db.transaction():
            return step()

    return again_if_busy(transaction)
