"""The shards that a worker has leased, and how long their leases last."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from fanoutd.store.campaigns import Campaign
from fanoutd.store.shard_leases import LEASE_MS, Lease
from fanoutd.worker.rests import Intent

#: A lease is renewed when it is this old, and nothing is started this long before its end.
_RENEW_AFTER = 8.0
_MARGIN = 5.0


@dataclass(slots=True, eq=False)
class Hold:
    """A leased shard. Written by the recorder; the sending side reads ``deadline`` and ``lost``."""

    lease: Lease
    campaign: Campaign
    deadline: float
    """CLOCK_BOOTTIME seconds after which nothing may be started."""
    renewed: float
    open: int = 0
    """People claimed and not yet recorded."""
    exhausted: bool = False
    lost: bool = False
    taken: bool = False
    """The store has not let it be renewed: somebody may have taken it over, and called its people unknown."""
    intent: Intent = field(default_factory=Intent)
    """What the quota counts for its people."""

    def aged(self, at: float) -> bool:
        """It is time to renew the lease."""
        return at - self.renewed > _RENEW_AFTER

    def renew(self, at: float) -> None:
        """The store has renewed the lease, at this time (CLOCK_BOOTTIME seconds) or later."""
        self.renewed, self.deadline = at, at + LEASE_MS / 1000 - _MARGIN


class Holds:
    """Those in hand. The recorder's thread changes which they are; the sending side asks, and lets go."""

    def __init__(self) -> None:
        self._all: list[Hold] = []

    def __iter__(self) -> Iterator[Hold]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, hold: Hold) -> bool:
        return hold in self._all

    def add(self, hold: Hold) -> None:
        self._all.append(hold)

    def drop(self, freed: Collection[Hold]) -> None:
        self._all = [hold for hold in self._all if hold not in freed]

    def accounts(self) -> set[str]:
        return {hold.campaign.account for hold in self._all}

    def of(self, account: str) -> list[Hold]:
        """For the sending side."""
        return [hold for hold in list(self._all) if hold.campaign.account == account]

    def lose(self, campaign: str) -> None:
        """For the sending side: nothing more is claimed for this campaign under any of them."""
        for hold in list(self._all):
            if hold.campaign.id == campaign:
                hold.lost = True
