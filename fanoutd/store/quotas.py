"""The day's calls of each channel, counted before they are made.

``intended`` are people claimed and not yet recorded, each counted as one call on their campaign's first channel;
``used`` are the calls that left. Both go into the store with the claim and the record that they belong to, so that a
worker that is killed has counted too much rather than too little. What WeChat itself has counted corrects ``used``.

WeChat's days are taken to be those of Asia/Shanghai: no page of its own says when the count begins anew.
Times are milliseconds since 1970.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from fanoutd.store.database import Database

_DAY_MS = 86_400_000
_OFFSET_MS = 8 * 3_600_000  # of Asia/Shanghai, which has no summer time

#: A rest goes on beyond midnight, by seconds that differ from account to account: from, and how many more.
_JITTER_MS = (60_000, 240_000)

#: WeChat's own figures are good to so much of the limit (field reports); one that is lower by less is not believed.
_TOLERANCE = 0.01

#: Days that are kept, for whoever wants to look.
_KEPT_DAYS = 7

#: How long after a rest's end WeChat is asked before a single send tries, and for how long that one may take.
ASK_FIRST_MS = 20_000
PROBE_MS = 60_000

#: How long a channel rests when the call that tried was refused too: whenever WeChat counts anew, it is found out.
REFUSED_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Quota:
    """One channel of one account, today. ``limit`` None: not known."""

    used: int
    """Calls made and calls intended."""
    made: int
    limit: int | None
    rest_until: int | None
    """WeChat answered 45009: nothing is called before then, nor after it until somebody has seen that it may."""

    @property
    def spent(self) -> bool:
        """The limit is reached by calls that were made: of what is only intended some may be given back."""
        return self.limit is not None and self.made >= self.limit

    @property
    def left(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.used)


def day(ms: int) -> int:
    """The day of Asia/Shanghai, counted from that of 1970-01-01."""
    return (ms + _OFFSET_MS) // _DAY_MS


def reopening(account: str, channel: int, at_ms: int) -> int:
    """When a channel that has no calls left is tried again: after midnight, the same for all who ask."""
    begin, more = _JITTER_MS
    today = day(at_ms)
    jitter = begin + zlib.crc32(f"{account}\0{channel}\0{today}".encode()) % (more + 1)
    return (today + 1) * _DAY_MS - _OFFSET_MS + jitter


def known(db: Database, account: str, at_ms: int) -> dict[int, Quota]:
    """The account's channels of which anything is known, by number."""
    found: dict[int, Quota] = {}
    today = day(at_ms)
    for channel, of_day, used, intended, limit, cap, rest in db.rows(
        "SELECT channel, day, used, intended, daily_limit, cap, rest_until FROM fanout_quota "
        "WHERE account = %s AND day <= %s ORDER BY day DESC",
        account, today,
    ):  # fmt: skip
        limits = [each for each in (limit, cap) if each is not None]
        made, more = (used, intended) if of_day == today else (0, 0)
        found.setdefault(channel, Quota(made + more, made, min(limits, default=None), rest))
    return found


def used(db: Database, account: str, channel: int, of_day: int) -> int:
    """Calls of that day, intended ones too."""
    row = db.one(
        "SELECT used + intended FROM fanout_quota WHERE account = %s AND channel = %s AND day = %s",
        account, channel, of_day,
    )  # fmt: skip
    return int(row[0]) if row else 0


def left(db: Database, account: str, channel: int, at_ms: int) -> int | None:
    """Calls that the channel has left today; None: no limit is known."""
    found = known(db, account, at_ms).get(channel)
    return found.left if found else None


def resting(db: Database, account: str, channel: int, at_ms: int) -> int | None:
    """Until when the channel rests after 45009; None when it does not."""
    found = known(db, account, at_ms).get(channel)
    return found.rest_until if found and found.rest_until is not None and found.rest_until > at_ms else None


def count(db: Database, account: str, channel: int, of_day: int, n: int) -> None:
    """So many calls were made."""
    _add(db, account, channel, of_day, "used", n)


def intend(db: Database, account: str, channel: int, of_day: int, n: int) -> None:
    """So many people were claimed (``n`` > 0) or recorded (``n`` < 0)."""
    _add(db, account, channel, of_day, "intended", n)


def settle(
    db: Database, account: str, first: int, at_ms: int, people: int, calls: Mapping[int, int]
) -> None:
    """A dead worker's claims: so many people on the first channel, and by channel the calls that are known to have
    left. Those that the worker had written down already are counted again: too many rather than too few."""
    today = day(at_ms)
    intend(db, account, first, today, -people)
    for channel, n in calls.items():
        count(db, account, channel, today, n)


def rest(db: Database, account: str, channel: int, until_ms: int, at_ms: int) -> None:
    """Nothing is called on the channel before ``until_ms``; ``at_ms`` is now."""
    _make(db, account, channel, day(at_ms))
    db.execute(
        "UPDATE fanout_quota SET rest_until = %s WHERE account = %s AND channel = %s AND day = %s",
        until_ms, account, channel, day(at_ms),
    )  # fmt: skip


def reopen(db: Database, account: str, channel: int) -> None:
    """It is known that the channel may be called again."""
    db.execute("UPDATE fanout_quota SET rest_until = NULL WHERE account = %s AND channel = %s", account, channel)


def take_probe(db: Database, account: str, channel: int, rest_until: int, at_ms: int) -> bool:
    """Whether the caller is the one that may try a single call now that the rest is over."""
    _make(db, account, channel, day(at_ms))
    return db.execute(
        "UPDATE fanout_quota SET rest_until = %s WHERE account = %s AND channel = %s AND day = %s AND rest_until = %s",
        at_ms + PROBE_MS, account, channel, day(at_ms), rest_until,
    ) > 0  # fmt: skip


def observe(db: Database, account: str, channel: int, at_ms: int, limit: int, spent: int) -> None:
    """What WeChat says of today: a higher figure replaces ours, a lower one where it is so by more than it may err."""
    today = day(at_ms)
    _make(db, account, channel, today)
    db.execute(
        "UPDATE fanout_quota SET daily_limit = %s, checked_at = %s, "
        "used = CASE WHEN used < %s OR used > %s THEN %s ELSE used END "
        "WHERE account = %s AND channel = %s AND day = %s",
        limit, at_ms, spent, spent + int(limit * _TOLERANCE), spent, account, channel, today,
    )  # fmt: skip


def cap(db: Database, account: str, channel: int, at_ms: int, calls: int | None) -> None:
    """The operator's own limit; None: there is none."""
    if calls is None and channel not in known(db, account, at_ms):
        return
    _make(db, account, channel, day(at_ms))
    db.execute(
        "UPDATE fanout_quota SET cap = %s WHERE account = %s AND channel = %s AND day = %s",
        calls, account, channel, day(at_ms),
    )  # fmt: skip


def tidy(db: Database, at_ms: int, nobody_claimed: bool) -> None:
    """Drop old days; where nobody is claimed, nothing is intended."""
    db.execute("DELETE FROM fanout_quota WHERE day < %s", day(at_ms) - _KEPT_DAYS)
    if nobody_claimed:
        db.execute("UPDATE fanout_quota SET intended = 0 WHERE intended <> 0")


def _add(db: Database, account: str, channel: int, of_day: int, column: str, n: int) -> None:
    if n:
        _make(db, account, channel, of_day)
        db.later(
            f"UPDATE fanout_quota SET {column} = CASE WHEN {column} + %s < 0 THEN 0 ELSE {column} + %s END "
            "WHERE account = %s AND channel = %s AND day = %s",
            n, n, account, channel, of_day,
        )  # fmt: skip


def _make(db: Database, account: str, channel: int, of_day: int) -> None:
    """A row for the day, with the limits and the rest of the day before."""
    if db.one(
        "SELECT 1 FROM fanout_quota WHERE account = %s AND channel = %s AND day = %s", account, channel, of_day
    ):
        return
    before = db.one(
        "SELECT daily_limit, cap, rest_until FROM fanout_quota WHERE account = %s AND channel = %s AND day < %s "
        "ORDER BY day DESC LIMIT 1",
        account, channel, of_day,
    )  # fmt: skip
    db.execute(
        "INSERT INTO fanout_quota (account, channel, day, used, intended, daily_limit, cap, rest_until) "
        "VALUES (%s, %s, %s, 0, 0, %s, %s, %s)",
        account, channel, of_day, *(before or (None, None, None)),
    )  # fmt: skip
