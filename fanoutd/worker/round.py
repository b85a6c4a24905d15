"""What one transaction of the recorder takes in, and what comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from fanoutd.outcome import Ended, Progress
from fanoutd.worker.holds import Hold
from fanoutd.worker.rests import Calls
from fanoutd.worker.words import Claimed, TokenRead

#: People whom one round looks at in order to skip them; then others get the store.
SKIPPED_AT_ONCE = 2000


@dataclass(slots=True)
class Round:
    """What one transaction takes in, and what is true once it is durable."""

    errands: list[tuple[str, ...]]
    results: list[tuple[Hold, int, Progress]]
    learnt: list[tuple[str, str, int]]
    closed: Counter[Hold]
    """People of each shard of whom nothing more is open after it."""
    asked: int
    at: float
    """CLOCK_BOOTTIME before it began: leases are measured from here."""
    full: bool = False
    """People were asked for, but two windows are open."""
    ended: dict[str, Ended] = field(default_factory=dict)
    """Who came into a final state by it, by account."""
    skipped: int = 0
    """Claimed only to find that they take no messages."""
    freed: list[Hold] = field(default_factory=list)
    renewed: list[Hold] = field(default_factory=list)
    lost: list[Hold] = field(default_factory=list)
    claimed: list[Claimed] = field(default_factory=list)
    tokens: list[TokenRead] = field(default_factory=list)
    calls: Calls = field(default_factory=Counter)
    """Calls that left since the last round."""
    day: int = 0
    """The quota's day on which it claims."""
    parked: list[Hold] = field(default_factory=list)
    """Nobody more of them can be sent to now."""
    passed: bool = False
    """Shards were passed over, and there may be more."""
    rests: Mapping[str, dict[int, int]] = field(default_factory=dict)
    no_room: OSError | None = None
    """The journal cannot be made larger, and so nothing was claimed."""

    def begin(self, day: int) -> None:
        """Its transaction begins, maybe again: nothing has come of it so far."""
        self.freed, self.renewed, self.lost, self.claimed, self.tokens, self.no_room = [], [], [], [], [], None
        self.skipped, self.parked, self.passed, self.day = 0, [], False, day
        self.ended = {}

    def count(self, account: str, ended: Ended) -> None:
        self.ended.setdefault(account, Counter()).update(ended)

    def gone(self, hold: Hold) -> bool:
        return hold in self.freed or hold in self.lost or hold.lost

    @property
    def more_to_look_at(self) -> bool:
        """Nobody was found, but only because shards were passed over, or so many people skipped."""
        return self.passed or self.skipped >= SKIPPED_AT_ONCE
