"""Quiet hours: when nobody is sent to. Pure functions of the wall clock; times in milliseconds since 1970.

The hours are those that a clock on the wall shows in the account's time zone, over midnight if need be. Where clocks
are put back, quiet lasts from the first time that they show its beginning to the last time that they show its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

Spec = tuple[str, str]
"""From and until, as ``("22:00", "08:00")``."""

_DAY = timedelta(days=1)
_MINUTE_MS = 60_000


def quiet_until(spec: Spec | None, timezone: str, at_ms: int) -> int | None:
    """When the quiet hours end in which ``at_ms`` lies; None when it lies in none."""
    return next((end for begin, end in _around(spec, timezone, at_ms) if begin <= at_ms < end), None)


def next_begin(spec: Spec | None, timezone: str, at_ms: int) -> int | None:
    """When the next quiet hours begin, after ``at_ms``; None when there are none."""
    return min((begin for begin, _ in _around(spec, timezone, at_ms) if begin > at_ms), default=None)


def crossings(spec: Spec | None, timezone: str, start_ms: int, seconds: float) -> list[tuple[int, int]]:
    """The quiet hours met by work of so many seconds that begins at ``start_ms``: from and until."""
    met: list[tuple[int, int]] = []
    at, left = start_ms, seconds * 1000
    while True:
        end = quiet_until(spec, timezone, at)
        if end is not None:
            met.append((at, end))
            at = end
        begin = next_begin(spec, timezone, at)
        if begin is None or left <= begin - at:
            return met
        left -= begin - at
        at = begin


def seconds_lost(spec: Spec | None, timezone: str, start_ms: int, seconds: float) -> float:
    """For how long that work lies still."""
    return sum(end - begin for begin, end in crossings(spec, timezone, start_ms, seconds)) / 1000


def _around(spec: Spec | None, timezone: str, at_ms: int) -> Iterator[tuple[int, int]]:
    """The quiet hours of yesterday, today and the next days."""
    if spec is None:
        return
    zone = ZoneInfo(timezone)
    begin, end = (time.fromisoformat(each) for each in spec)
    today = datetime.fromtimestamp(at_ms // 1000, zone).date()
    for days in (-1, 0, 1, 2):
        day = today + days * _DAY
        until = day + _DAY if end <= begin else day
        yield _instant(day, begin, zone, last=False), _instant(until, end, zone, last=True)


def _instant(day: date, clock: time, zone: ZoneInfo, last: bool) -> int:
    """When clocks show this time: the first or the last time that they do, or pass over it."""
    wanted = datetime.combine(day, clock)
    # Of a time that is shown twice fold tells which is meant; of one that is never shown fold 1 is the earlier instant.
    first, second = sorted(_ms(wanted.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
    if first == second or _shows(first, zone) == wanted:
        return second if last else first
    return next(at for at in range(first, second + 1, _MINUTE_MS) if _shows(at, zone) >= wanted)


def _shows(at_ms: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at_ms // 1000, zone).replace(tzinfo=None)


def _ms(when: datetime) -> int:
    return int(when.astimezone(UTC).timestamp()) * 1000
