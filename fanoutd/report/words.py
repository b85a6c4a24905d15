"""Figures and texts as a report writes them."""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo

#: Names of the outcomes, in the order in which a receipt has them.
OUTCOMES = {
    "sent_custom": "sent as customer-service message",
    "sent_template": "sent as template message",
    "sent_subscribe": "sent as subscription notification",
    "failed": "failed",
    "skipped": "skipped: opted out, or known to be gone",
    "unknown": "unknown: handed over, no answer seen",
    "pending": "not tried",
}

#: What may be somebody's openid: WeChat's begin so. A report, and least of all a mail, tells of nobody by name.
_PERSON = re.compile(r"(?<![A-Za-z0-9_-])o[A-Za-z0-9_-]{19,63}(?![A-Za-z0-9_-])")


def without_people(text: str) -> str:
    """The same without openids."""
    return _PERSON.sub("(openid)", text)


def one_line(text: str, most: int) -> str:
    """On one line, of at most so many characters, without openids."""
    words = without_people(" ".join(text.split()))
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def number(count: int) -> str:
    return f"{count:,}"


def people(count: int) -> str:
    return f"{count:,} {'person' if count == 1 else 'people'}"


def share(count: int, total: int) -> str:
    """``99.8 %``. Nobody is all, and somebody is never nobody."""
    if not count or not total:
        return "0 %"
    if count == total:
        return "100 %"
    percent = min(99.9, 100 * count / total)
    return "< 0.1 %" if percent < 0.1 else f"{percent:.1f} %"


def step(seconds: float) -> str:
    """``500 ms``, ``5 s``, ``2 min``, ``1 h``: a length that people chose."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds * 1000:.0f} ms"


def rate(per_second: float) -> str:
    return f"{per_second:,.0f} a second" if per_second >= 10 else f"{per_second:.1f} a second"


def when(ms: int, timezone: str) -> str:
    """``2026-01-02 15:04:05``"""
    return f"{_local(ms, timezone):%Y-%m-%d %H:%M:%S}"


def clock(ms: int, timezone: str, step_ms: int) -> str:
    """A point of time as fine as steps of this length need it."""
    at = _local(ms, timezone)
    if step_ms < 1000:
        return f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}"
    return f"{at:%H:%M:%S}" if step_ms < 60_000 else f"{at:%m-%d %H:%M}" if step_ms >= 3_600_000 else f"{at:%H:%M}"


def _local(ms: int, timezone: str) -> datetime:
    return datetime.fromtimestamp(ms / 1000, ZoneInfo(timezone))
