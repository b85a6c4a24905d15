"""The day's calls of each channel, counted before they are made.

``intended`` are people claimed and not yet recorded, each counted as one call on their campaign's first channel;
``used`` are the calls that left. Both go into the store with the claim and the record that they belong to, so that a
worker that is killed has counted too much rather than too little. What WeChat itself has counted corrects ``used``.

Counts are the sum of many rows, one a worker (``fanout_quota_part``; ``owner`` is the one of its leases), so that
no worker waits for another one's transaction; the row of a dead worker is settled with its leases. What is known of
the whole (limits, the rest, the difference to what WeChat has counted) is in one row (``fanout_quota``).

WeChat's days are taken to be those of Asia/Shanghai: no page of its own says when the count begins anew.
Times are milliseconds since 1970.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fanoutd.store.database import Database, Row

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

    def plus(self, made: int, intended: int) -> Quota:
        return replace(self, used=self.used + made + intended, made=self.made + made)

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
    return ask(db, account, at_ms)()


def ask(db: Database, account: str, at_ms: int) -> Callable[[], dict[int, Quota]]:
    """The same, read when it is looked at: see ``Database.later``."""
    today = day(at_ms)
    # The parts come last, since they add to what the first row of a channel says.
    answer = db.later(
        "SELECT 0 AS parts, channel, day, used, intended, daily_limit, cap, rest_until FROM fanout_quota "
        "WHERE account = %s AND day <= %s UNION ALL "
        "SELECT 1, channel, day, SUM(used), SUM(intended), NULL, NULL, NULL FROM fanout_quota_part "
        "WHERE account = %s AND day = %s GROUP BY channel, day ORDER BY parts, day DESC",
        account, today, account, today,
    )  # fmt: skip
    return lambda: _known(answer.rows(), today)


def _known(rows: list[Row], today: int) -> dict[int, Quota]:
    found: dict[int, Quota] = {}
    for parts, channel, of_day, used, intended, limit, cap, rest in rows:
        made, more = (int(used), int(intended)) if of_day == today else (0, 0)
        if parts:
            found[channel] = found.get(channel, Quota(0, 0, None, None)).plus(made, more)
        elif channel not in found:
            limits = [each for each in (limit, cap) if each is not None]
            found[channel] = Quota(made + more, made, min(limits, default=None), rest)
    return found


def used(db: Database, account: str, channel: int, of_day: int) -> int:
    """Calls of that day, intended ones too."""
    return sum(int(row[0]) for table in ("fanout_quota", "fanout_quota_part") for row in db.rows(
        f"SELECT COALESCE(SUM(used + intended), 0) FROM {table} WHERE account = %s AND channel = %s AND day = %s",
        account, channel, of_day,
    ))  # fmt: skip


def left(db: Database, account: str, channel: int, at_ms: int) -> int | None:
    """Calls that the channel has left today; None: no limit is known."""
    found = known(db, account, at_ms).get(channel)
    return found.left if found else None


def resting(db: Database, account: str, channel: int, at_ms: int) -> int | None:
    """Until when the channel rests after 45009; None when it does not."""
    found = known(db, account, at_ms).get(channel)
    return found.rest_until if found and found.rest_until is not None and found.rest_until > at_ms else None


def alone(db: Database, account: str, channel: int) -> None:
    """Until the transaction ends nobody else who asks for this finds out what is left of the channel."""
    db.rows(
        f"SELECT 1 FROM fanout_quota WHERE account = %s AND channel = %s ORDER BY day DESC LIMIT 1{db.LOCK}",
        account, channel,
    )  # fmt: skip


def count(db: Database, account: str, channel: int, of_day: int, n: int, owner: str = "") -> None:
    """So many calls were made."""
    _add(db, account, channel, of_day, n, 0, owner)


def intend(db: Database, account: str, channel: int, of_day: int, n: int, owner: str = "") -> None:
    """So many people were claimed (``n`` > 0) or recorded (``n`` < 0)."""
    _add(db, account, channel, of_day, 0, n, owner)


class Sum:
    """What one transaction of a worker adds, in its row: read as if it were there, written once at the end.

    It reads each account once.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._made: Counter[tuple[str, int, int]] = Counter()
        self._intended: Counter[tuple[str, int, int]] = Counter()
        self._asked: dict[str, Callable[[], dict[int, Quota]]] = {}
        self._known: dict[str, dict[int, Quota]] = {}

    def count(self, account: str, channel: int, of_day: int, n: int) -> None:
        self._made[account, channel, of_day] += n

    def intend(self, account: str, channel: int, of_day: int, n: int) -> None:
        self._intended[account, channel, of_day] += n

    def ask(self, db: Database, account: str, at_ms: int) -> None:
        """As ``ask``: it will be looked at."""
        self._asked[account] = ask(db, account, at_ms)

    def known(self, db: Database, account: str, at_ms: int) -> dict[int, Quota]:
        """As ``known``, and what is not written yet."""
        if account not in self._known:
            self._known[account] = (self._asked.pop(account, None) or ask(db, account, at_ms))()
        found, today = dict(self._known[account]), day(at_ms)
        for of, channel, of_day in {*self._made, *self._intended}:
            if (of, of_day) == (account, today):
                key = (of, channel, of_day)
                found[channel] = found.get(channel, Quota(0, 0, None, None)).plus(self._made[key], self._intended[key])
        return found

    def forget(self, account: str) -> None:
        """It has changed in the store: it is read again when it is asked for."""
        self._asked.pop(account, None)
        self._known.pop(account, None)

    def alone(self, db: Database, account: str, channel: int) -> None:
        """As ``alone``."""
        alone(db, account, channel)
        self.forget(account)

    def write(self, db: Database) -> None:
        for key in sorted({*self._made, *self._intended}):
            _add(db, *key, self._made[key], self._intended[key], self._owner)
        self._made.clear()
        self._intended.clear()
        self._known.clear()


def settle(
    db: Database, account: str, first: int, at_ms: int, people: int, calls: Mapping[int, int], owner: str = ""
) -> None:  # fmt: skip
    """A dead worker's claims: so many people on the first channel, and by channel the calls that are known to have
    left. Those that the worker had written down already are counted again: too many rather than too few."""
    today = day(at_ms)
    intend(db, account, first, today, -people, owner)
    for channel, n in calls.items():
        count(db, account, channel, today, n, owner)


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
    alone(db, account, channel)
    made = known(db, account, at_ms)[channel].made
    believed = made if made - int(limit * _TOLERANCE) <= spent <= made else spent
    # Whatever workers add meanwhile is in their rows, and none of it is lost.
    db.execute(
        "UPDATE fanout_quota SET daily_limit = %s, checked_at = %s, used = used + %s "
        "WHERE account = %s AND channel = %s AND day = %s",
        limit, at_ms, believed - made, account, channel, today,
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
    """Drop old days; whoever has no shard intends nothing, and its count is put with those of others like it."""
    today = day(at_ms)
    db.execute("DELETE FROM fanout_quota WHERE day < %s", today - _KEPT_DAYS)
    # By key: a search through the table would wait for every worker's row.
    kept = today - _KEPT_DAYS
    for old in db.rows("SELECT DISTINCT account, channel, day FROM fanout_quota_part WHERE day < %s", kept):
        db.execute("DELETE FROM fanout_quota_part WHERE account = %s AND channel = %s AND day = %s", *old)
    if nobody_claimed:
        db.execute("UPDATE fanout_quota SET intended = 0 WHERE intended <> 0")
        for left_over in db.rows(
            "SELECT account, channel, day FROM fanout_quota_part WHERE intended <> 0 AND owner = ''"
        ):
            db.execute(
                "UPDATE fanout_quota_part SET intended = 0 WHERE account = %s AND channel = %s AND day = %s "
                "AND owner = ''",
                *left_over,
            )  # fmt: skip
    _put_together(db, today)


def _put_together(db: Database, of_day: int) -> None:
    """A row that changes meanwhile stays: its worker lives."""
    for account, channel, owner, made, intended in db.rows(
        "SELECT account, channel, owner, used, intended FROM fanout_quota_part WHERE day = %s AND owner <> '' "
        "AND owner NOT IN (SELECT owner FROM fanout_shard WHERE owner IS NOT NULL)",
        of_day,
    ):
        if db.execute(
            "DELETE FROM fanout_quota_part WHERE account = %s AND channel = %s AND day = %s AND owner = %s "
            "AND used = %s AND intended = %s",
            account, channel, of_day, owner, made, intended,
        ):  # fmt: skip
            count(db, account, channel, of_day, made)


def _add(db: Database, account: str, channel: int, of_day: int, made: int, intended: int, owner: str) -> None:
    """A worker's row is its own: no other one waits for it, and its first one is nobody's duplicate."""
    if made or intended:
        more = f"intended + {intended:d}"
        db.upsert(
            "fanout_quota_part", {"account": account, "channel": channel, "day": of_day, "owner": owner},
            {"used": made, "intended": max(0, intended)},
            also=f"used = used + new(used), intended = CASE WHEN {more} < 0 THEN 0 ELSE {more} END",
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
    values = dict(zip(("daily_limit", "cap", "rest_until"), before or (None, None, None), strict=True))
    # Another node may be faster: then that row holds.
    db.upsert(
        "fanout_quota", {"account": account, "channel": channel, "day": of_day}, values, also="day = day"
    )
