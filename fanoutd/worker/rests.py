"""The recorder's side of quota and quiet hours: who may be claimed, what is counted for it, what is put off.

All of it runs in the recorder's transactions, and changes nothing here that a repeated transaction would change twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from fanoutd import gates
from fanoutd.config import Account
from fanoutd.gates import Closed
from fanoutd.outcome import next_channel
from fanoutd.store import Database, deliveries, quotas, records, shard_leases
from fanoutd.store.campaigns import Campaign
from fanoutd.store.deliveries import Person
from fanoutd.store.quotas import Quota, Sum
from fanoutd.store.shard_leases import Lease
from fanoutd.times import wall_ms
from fanoutd.worker.sift import weigh

#: What a first look at a shard that cannot be sent to is worth, in people: a claim ends after some of them.
PARKED = 8

#: With fewer calls left than this, workers of several nodes claim one after the other: what 32 of them claim at once.
NEAR = 4096

Calls = Counter[tuple[str, int]]
"""How many calls left, by account and channel."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many people may be claimed of a shard, and which channels are closed; on ``probe`` one call may try."""

    room: int
    shut: Mapping[int, Closed] = field(default_factory=dict)
    probe: int | None = None


@dataclass(slots=True)
class Intent:
    """Of one shard, how many claimed people are counted for ``day``, and how many for a day that is over."""

    day: int = 0
    today: int = 0
    earlier: int = 0

    def claimed(self, people: int, day: int) -> None:
        if day != self.day:
            self.earlier, self.today, self.day = self.earlier + self.today, 0, day
        self.today += people

    def of_today(self, closed: int) -> int:
        """How many of so many who are recorded were counted for ``day``: those of the earlier one went first."""
        return max(0, min(self.today, closed - self.earlier))

    def recorded(self, closed: int) -> None:
        off = self.of_today(closed)
        self.today -= off
        self.earlier = max(0, self.earlier - (closed - off))


class Rests:
    def __init__(self, accounts: Mapping[str, Account]) -> None:
        self._accounts = accounts
        self._told: dict[str, dict[int, int]] = {}
        self._sum = Sum("")

    def begin(self, owner: str) -> None:
        """A transaction begins, or is repeated, of the worker with this name."""
        self._sum = Sum(owner)

    def ask(self, db: Database, accounts: set[str]) -> None:
        """What is known of these will be looked at: see ``Database.later``."""
        for account in accounts:
            self._sum.ask(db, account, wall_ms())

    def allow(self, db: Database, campaign: Campaign, held: Lease, room: int) -> Allowance:
        """What may be claimed of a leased shard now."""
        at = wall_ms()
        found = self._sum.known(db, campaign.account, at)
        first = gates.channels_of(campaign)[0]
        if db.shared and first in found and _within(found[first], NEAR) < NEAR:
            self._sum.alone(db, campaign.account, first)
            found = self._sum.known(db, campaign.account, at)
        shut = dict(gates.closed(found, self._accounts.get(campaign.account), campaign, at))
        if not shut:
            return Allowance(_within(found.get(first), room))
        wanted = _wanted(db, campaign, held, whole=False)
        probe = _probe(db, campaign.account, shut, wanted, at)
        if probe is not None:
            self._sum.forget(campaign.account)
        if probe is None and wanted <= shut.keys():
            return Allowance(0, shut)
        return Allowance(room if first in shut else _within(found.get(first), room), shut, probe)

    def sift(
        self, db: Database, campaign: Campaign, held: Lease, people: list[Person], allowed: Allowance
    ) -> list[Person]:
        """Those who can be sent to; the others are handed back at once, under this lease: nobody has them in flight."""
        if not allowed.shut:
            return people
        channels = gates.channels_of(campaign)
        due = {p.pos: next_channel(p.progress, channels, p.skip_custom) for p in people}
        keep = [p for p in people if due[p.pos] not in allowed.shut]
        keep += [p for p in people if due[p.pos] == allowed.probe][:1]
        kept = {p.pos for p in keep}
        back = [(p.pos, p.progress) for p in people if p.pos not in kept]
        if back:
            records.record(db, held.shard, held.token, back)
            self.tell(db, campaign, allowed.shut)
        return keep

    def put_off(self, db: Database, campaign: Campaign, held: Lease) -> int:
        """When a shard that is given back may be leased again, 0 for at once: not while nobody in it can be sent to."""
        at = wall_ms()
        found = self._sum.known(db, campaign.account, at)
        shut = gates.closed(found, self._accounts.get(campaign.account), campaign, at)
        if not shut:
            return 0
        wanted = _wanted(db, campaign, held, whole=True)
        if not wanted or not wanted <= shut.keys():
            return 0
        self.tell(db, campaign, shut)
        until = min(max(each.until, at + 1000) for each in shut.values())
        if any(each.cause == "quiet" for each in shut.values()):
            shard_leases.park(db, campaign.id, until)
        return until

    def tell(self, db: Database, campaign: Campaign, shut: Mapping[int, Closed]) -> None:
        """Why the campaign's people wait, where people look."""
        account = self._accounts.get(campaign.account)
        cause = next(iter(shut.values())).cause
        gates.tell(db, campaign, cause, gates.reason(shut, account.timezone if account else "UTC", wall_ms()))

    def count(self, calls: Calls) -> None:
        today = quotas.day(wall_ms())
        for (account, channel), n in calls.items():
            self._sum.count(account, channel, today, n)

    def intend(self, campaign: Campaign, of_day: int, people: int) -> None:
        """So many were claimed, or fewer than none: recorded."""
        self._sum.intend(campaign.account, gates.channels_of(campaign)[0], of_day, people)

    def write(self, db: Database) -> None:
        """What was counted; after it nothing more is."""
        self._sum.write(db)

    def news(self, db: Database, accounts: set[str]) -> dict[str, dict[int, int]]:
        """By account the channels that rest and until when, where that has changed since ``heard``."""
        at = wall_ms()
        now = {name: _shut(self._sum.known(db, name, at), name, at) for name in accounts}
        return {name: shut for name, shut in now.items() if shut.keys() != self._told.get(name, {}).keys()}

    def heard(self, news: Mapping[str, dict[int, int]]) -> None:
        """The transaction in which this was read is over, and the sending side told."""
        self._told.update(news)


def _wanted(db: Database, campaign: Campaign, held: Lease, whole: bool) -> set[int | None]:
    """The channels on which open people are due, as a claim would find them; None for those whom it would skip."""
    kept, skipped = weigh(db, campaign, deliveries.waiting(db, held.shard, whole))
    channels = gates.channels_of(campaign)
    wanted: set[int | None] = {next_channel(each.progress, channels, each.skip_custom) for each in kept}
    return wanted | {None} if skipped else wanted


def _shut(found: Mapping[int, Quota], account: str, at: int) -> dict[int, int]:
    """The channels on which nobody may be called, not even who was claimed and counted for it."""
    found = {channel: quota for channel, quota in found.items() if quota.spent or quota.rest_until is not None}
    return {channel: each.until for channel, each in gates.used_up(found, account, at).items()}


def _within(quota: Quota | None, room: int) -> int:
    left = quota.left if quota else None
    return room if left is None else min(room, left)


def _probe(
    db: Database, account: str, shut: Mapping[int, Closed], wanted: set[int | None], at: int
) -> int | None:
    """The channel on which this worker alone may try whether WeChat takes calls again."""
    for channel, each in shut.items():
        if channel in wanted and each.rest is not None and quotas.take_probe(db, account, channel, each.rest, at):
            return channel
    return None
