"""Which channels a campaign may not call now, until when, and why: the daily quota and the quiet hours.

``closed`` is pure; ``look`` reads the store for it. Workers ask before they claim, the dispatcher to tell people.
Times are milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fanoutd.config import Account
from fanoutd.outcome import channel_name, channel_number
from fanoutd.quiet import next_begin, quiet_until
from fanoutd.store import Database, quotas
from fanoutd.store.campaigns import Campaign
from fanoutd.store.quotas import ASK_FIRST_MS, Quota
from fanoutd.times import clock

#: So long before quiet hours begin nothing is started any more: a request takes its time to leave.
EARLY_MS = 1000

#: When the last calls of the day are intended and not yet made: look again so much later. Nobody is told.
PASSING_MS = 5000

#: The kinds of trouble whose reasons are told from here.
CAUSES = ("quiet", "quota")


@dataclass(frozen=True, slots=True)
class Closed:
    """A channel that may not be called before ``until``."""

    cause: str
    until: int
    rest: int | None = None
    """Set when the rest after 45009 is over, and a single call may try: the time at which it ended."""


def channels_of(campaign: Campaign) -> tuple[int, ...]:
    """A campaign's channels, in the order in which they are tried."""
    return tuple(channel_number(each) for each in campaign.definition.get("channels", ()))


def is_test(campaign: Campaign) -> bool:
    """A message to one person who waits for it: quiet hours do not hold for it."""
    return campaign.definition.get("test") is True


def quiet(account: Account | None, at_ms: int) -> int | None:
    """Until when nothing may be started for its quiet hours, None outside."""
    if account is None or account.quiet_hours is None:
        return None
    spec, zone = account.quiet_hours, account.timezone
    return quiet_until(spec, zone, at_ms) or quiet_until(spec, zone, at_ms + EARLY_MS)


def used_up(found: Mapping[int, Quota], account: str, at_ms: int) -> dict[int, Closed]:
    """The account's channels that rest after 45009, or of which our own count has reached the limit."""
    shut: dict[int, Closed] = {}
    for channel, quota in found.items():
        rest = quota.rest_until
        if rest is not None and at_ms < rest + ASK_FIRST_MS:
            shut[channel] = Closed("quota", rest if at_ms < rest else rest + ASK_FIRST_MS)
        elif rest is not None:
            shut[channel] = Closed("quota", at_ms, rest)
        elif quota.spent:
            shut[channel] = Closed("quota", quotas.reopening(account, channel, at_ms))
        elif quota.left == 0:
            shut[channel] = Closed("quota", at_ms + PASSING_MS)
    return shut


def closed(
    found: Mapping[int, Quota], account: Account | None, campaign: Campaign, at_ms: int
) -> dict[int, Closed]:
    """Of the campaign's channels those that may not be called now."""
    channels = channels_of(campaign)
    until = None if is_test(campaign) else quiet(account, at_ms)
    if until is not None:
        return {channel: Closed("quiet", until) for channel in channels}
    shut = used_up(found, campaign.account, at_ms)
    return {channel: shut[channel] for channel in channels if channel in shut}


def look(db: Database, account: Account | None, campaign: Campaign, at_ms: int) -> dict[int, Closed]:
    """The same with the store asked for the quota."""
    return closed(quotas.known(db, campaign.account, at_ms), account, campaign, at_ms)


def reason(shut: Mapping[int, Closed], timezone: str, at_ms: int) -> str:
    """In words what the campaign waits for; empty when no channel is closed."""
    if any(each.cause == "quiet" for each in shut.values()):
        until = max(each.until for each in shut.values())
        return f"quiet hours until {clock(until, timezone)} ({timezone}); it goes on by itself then"
    parts = [
        f"{channel_name(channel)} until {clock(max(each.until, at_ms), timezone)}"
        for channel, each in shut.items() if each.rest is not None or each.until > at_ms + PASSING_MS
    ]  # fmt: skip
    return f"today's calls are used up: {', '.join(parts)} ({timezone}); whoever is due there waits" if parts else ""


def tell(db: Database, campaign: Campaign, cause: str | None, words: str) -> None:
    """Write the reason down where no other trouble is told of; empty: it is over."""
    holes = ", ".join(f"'{each}'" for each in CAUSES)
    if words:
        db.execute(
            "UPDATE fanout_campaign SET cause = %s, reason = %s WHERE id = %s AND state = 'running' "
            f"AND COALESCE(reason, '') <> %s AND (cause IS NULL OR cause IN ({holes}))",
            cause, words, campaign.id, words,
        )  # fmt: skip
    else:
        db.execute(
            "UPDATE fanout_campaign SET cause = NULL, reason = NULL WHERE id = %s AND state = 'running' "
            f"AND cause IN ({holes})",
            campaign.id,
        )  # fmt: skip


class QuietWatch:
    """Whether an account is quiet, asked at every turn of a loop: worked out anew at each boundary only."""

    _LONGEST_MS = 60_000  # the wall clock may be set

    def __init__(self, account: Account) -> None:
        self._account = account
        self._from = self._to = 0
        self._until: int | None = None

    def until(self, at_ms: int) -> int | None:
        """As ``quiet``."""
        if self._account.quiet_hours is None:
            return None
        if not self._from <= at_ms < self._to:
            self._look(at_ms)
        return self._until

    def _look(self, at_ms: int) -> None:
        a = self._account
        self._until = quiet(a, at_ms)
        change = self._until or (next_begin(a.quiet_hours, a.timezone, at_ms) or at_ms + self._LONGEST_MS) - EARLY_MS
        self._from, self._to = at_ms, min(max(change, at_ms + 1), at_ms + self._LONGEST_MS)
