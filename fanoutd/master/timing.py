"""When the clock's jobs run: every so often, or as a crontab says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

from fanoutd import cron


@dataclass(frozen=True, slots=True)
class Every:
    """``seconds`` between two runs; ``first``: until the first one, as long when it is None."""

    seconds: float
    first: float | None = None

    #: A run that is late is made, however late it is: what it looks for is still there.
    grace = None

    def trigger(self) -> Any:
        return IntervalTrigger(seconds=self.seconds, timezone=UTC)


@dataclass(frozen=True, slots=True)
class Crontab:
    """A line of crontab in a time zone. A run that is more than ``grace`` seconds late is not made."""

    line: str
    timezone: str
    grace: float

    first = None

    def trigger(self) -> Any:
        return _Lines(self)


class _Lines(BaseTrigger):  # type: ignore[misc]
    """``fanoutd.cron`` for APScheduler, whose own trigger counts weekdays from Monday and doubles an hour that comes
    twice."""

    def __init__(self, when: Crontab) -> None:
        self._when = when

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        """After the previous one, but none that is too late to be made: a month of missed runs is not counted up."""
        earliest = now if previous is None else max(previous, now - timedelta(seconds=self._when.grace))
        at = cron.next_after(self._when.line, self._when.timezone, int(earliest.timestamp() * 1000))
        return None if at is None else datetime.fromtimestamp(at / 1000, UTC)
