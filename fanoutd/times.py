"""Times as people and programs see them. Inside, a time is milliseconds since 1970, UTC."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from fanoutd.boot import uptime_ms

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


#: What the clock that this process follows shows beyond CLOCK_BOOTTIME, in milliseconds; None: the machine's own.
_followed: int | None = None


def wall_ms() -> int:
    """The wall clock: this machine's, or that of the store which it shares with others (``store.clock``)."""
    return local_ms() if _followed is None else uptime_ms() + _followed


def local_ms() -> int:
    """This machine's wall clock, whatever others count by."""
    return time.time_ns() // 1_000_000


def follow(beyond_boottime: int | None) -> None:
    """Have ``wall_ms`` show another clock than this machine's, which is set and may be wrong; None: its own again."""
    global _followed
    _followed = beyond_boottime


def of_local(ms: int) -> int:
    """What the clock of ``wall_ms`` showed when this machine's showed ``ms``."""
    return ms if _followed is None else ms + wall_ms() - local_ms()


def iso(ms: int) -> str:
    """``2026-01-02T07:04:05.000+00:00``: ISO 8601 with an offset, in UTC."""
    return (_EPOCH + ms * _MS).isoformat(timespec="milliseconds")


def parse_when(text: str) -> int:
    """Milliseconds of an ISO 8601 time that bears an offset. Raises ValueError that says how to write it."""
    right = "write a time with its offset, like 2026-01-02T15:04:05+08:00"
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no ISO 8601 time; {right}") from None
    if when.tzinfo is None:
        raise ValueError(f"{text[:40]!r} has no offset; {right}")
    try:
        return (when.astimezone(UTC) - _EPOCH) // _MS
    except OverflowError:  # year 1 or 9999, pushed over the edge by its offset
        raise ValueError(f"{text[:40]!r} is out of range; {right}") from None


def _local(ms: int, timezone: str) -> datetime:
    return (_EPOCH + ms * _MS).astimezone(ZoneInfo(timezone))


def message_now(ms: int, timezone: str) -> str:
    """``2026年1月2日 15:04``, the form that WeChat documents for a template's time keywords."""
    when = _local(ms, timezone)
    return f"{when.year}年{when.month}月{when.day}日 {when:%H:%M}"


def sql_now(ms: int, timezone: str) -> str:
    """``2026-01-02 15:04:05``, to compare with a DATETIME column."""
    return f"{_local(ms, timezone):%Y-%m-%d %H:%M:%S}"


def clock(ms: int, timezone: str) -> str:
    """``08:00``, as a clock there shows it."""
    return f"{_local(ms, timezone):%H:%M}"


def duration(seconds: float) -> str:
    """``3.2 s``, ``4 min 05 s``, ``2 h 10 min``, ``3 d 4 h``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def span(ms: float) -> str:
    """``45 s``, ``4 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    seconds = max(0, round(ms / 1000))
    for unit, size, smaller, each in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            rest = seconds % size // each
            return f"{seconds // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"
