"""Crontab lines as cron(8) reads them, by APScheduler's triggers. Times are milliseconds since 1970.

APScheduler 3 counts weekdays from Monday, where crontab has 0 for Sunday, and wants day and weekday both to be
right, where cron is content with one of them if both are given. Both are put straight here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_PART = re.compile(r"(?:\*|([0-7]|[a-z]{3})(?:-([0-7]|[a-z]{3}))?)(?:/([1-7]))?")


#: A 29th of February comes within so many years. APScheduler would look for a 31st until the year 9999, for seconds.
_YEARS = 9


def trigger(line: str, timezone: str, year: int) -> Any:
    """APScheduler's trigger for five crontab fields, for the years from this one on that anybody plans for.

    Raises ValueError that says what is wrong.
    """
    fields = line.split()
    if len(fields) != 5:
        raise ValueError('wants five crontab fields like "0 9 * * 1"')
    minute, hour, day, month, weekday = fields
    common = {
        "minute": minute, "hour": hour, "month": month, "year": f"{year}-{year + _YEARS}",
        "timezone": ZoneInfo(timezone),
    }  # fmt: skip
    either = {"day": day, "day_of_week": _weekdays(weekday)}
    if day.startswith("*") or weekday.startswith("*"):
        return CronTrigger(**common, **either)
    return OrTrigger([CronTrigger(**common, **{name: value}) for name, value in either.items()])


def _weekdays(field: str) -> str:
    if field == "*":
        return field
    days = {day % 7 for part in field.lower().split(",") for day in _expanded(part)}
    return ",".join(_DAYS[day] for day in sorted(days))


def _expanded(part: str) -> range:
    found = _PART.fullmatch(part)
    if found is None:
        raise ValueError(f"{part[:20]!r} is no weekday; 0 to 7 (Sunday is 0 and 7), sun to sat, * and / are wanted")
    if found[1] is None:
        return range(0, 7, int(found[3] or 1))
    first = _number(found[1])
    last = _number(found[2]) if found[2] else first if found[3] is None else 6
    if last < first:
        raise ValueError(f"{part[:20]!r} goes backwards")
    return range(first, last + 1, int(found[3] or 1))


def _number(text: str) -> int:
    if text.isdecimal():
        return int(text)
    if text not in _DAYS:
        raise ValueError(f"{text!r} is no weekday; there are {', '.join(_DAYS)}")
    return _DAYS.index(text)


def next_after(line: str, timezone: str, after_ms: int) -> int | None:
    """The first time after this one, to the minute; None when there never is one. Raises ValueError."""
    return next(_times(line, timezone, after_ms), None)


def latest(line: str, timezone: str, after_ms: int, until_ms: int) -> int | None:
    """The last time after ``after_ms`` and not after ``until_ms``; None when there is none."""
    found = None
    for at in _times(line, timezone, after_ms):
        if at > until_ms:
            break
        found = at
    return found


def _times(line: str, timezone: str, after_ms: int) -> Iterator[int]:
    """Where clocks are put back, what is planned for an hour of the day comes the first time that they show it."""
    zone, after = ZoneInfo(timezone), after_ms // 1000
    rule = trigger(line, timezone, datetime.fromtimestamp(after, zone).year)
    hourly = line.split()[1].startswith("*")
    while True:
        found = rule.get_next_fire_time(None, datetime.fromtimestamp(after + 1, zone))
        if found is None:
            return
        at = int(found.timestamp())
        if at > after and (hourly or not datetime.fromtimestamp(at, zone).fold):
            yield at * 1000
        after = max(at, after + 60)
