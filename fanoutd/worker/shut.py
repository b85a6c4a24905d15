"""A channel that the whole account may not use is not tried for everyone."""

from __future__ import annotations

from collections import Counter

#: Such answers on a channel before it is left out, and for how long, in seconds.
AFTER, FOR = 3, 600.0


class Shut:
    """One account's channels, by number. Times are seconds on any clock that only goes forward."""

    def __init__(self) -> None:
        self._heard: Counter[int] = Counter()
        self._until: dict[int, float] = {}

    def heard(self, channel: int, at: float) -> bool:
        """The channel was refused to the account; whether it is left out from now on."""
        self._heard[channel] += 1
        if self._heard[channel] < AFTER or channel in self._until:
            return False
        self._until[channel] = at + FOR
        return True

    def tick(self, at: float) -> None:
        """Those whose time is over are tried again; one more such answer is enough then."""
        for channel in [each for each, until in self._until.items() if until <= at]:
            del self._until[channel]
            self._heard[channel] = AFTER - 1

    def remaining(self, channels: tuple[int, ...]) -> tuple[int, ...]:
        """Those that may be tried, in their order; never none."""
        if not self._until:
            return channels
        return tuple(each for each in channels if each not in self._until) or channels
