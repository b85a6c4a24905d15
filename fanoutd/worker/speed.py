"""How fast outcomes come and the store takes them, and what follows: how many people a claim takes, and when."""

from __future__ import annotations

from fanoutd.bucket import now

#: How long outcomes wait for company before they are written, in seconds.
INTERVAL = 0.25


class Speed:
    """Of one worker, which has so many requests on the wire at most. Times are CLOCK_BOOTTIME seconds."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._rate = 0.0  # outcomes a second
        self._took = 0.0  # seconds that a transaction takes, as of late
        self._measured = now()
        self.enough = concurrency
        """On hand, they last until others are claimed."""

    def wrote(self, seconds: float) -> None:
        """A transaction took so long."""
        self._took += (seconds - self._took) * 0.3

    def measure(self, outcomes: int, at: float) -> None:
        """So many were in the round that began then."""
        span = at - self._measured
        if outcomes and span > 0:
            self._rate += (outcomes / span - self._rate) * min(1.0, span)
            self._measured = at
        # Whoever asks waits for the round that is under way, and then for the one that claims.
        self.enough = max(self._concurrency, min(self.window(), int(self._rate * 2 * self._took)))

    def window(self) -> int:
        """People a claim takes: about two intervals' or rounds' worth, and enough to keep the wire full."""
        worth = int(self._rate * 2 * max(INTERVAL, 2 * self._took))
        return max(self._concurrency, min(512, max(64, 2 * self._concurrency, worth)))

    def company(self) -> float:
        """Until outcomes have had company for long enough: to a store that is far away they had it meanwhile."""
        return max(0.02, INTERVAL - self._took)
