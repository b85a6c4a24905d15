"""What the sandbox has seen, in numbers."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

#: How many seconds with calls the histogram goes back.
_SECONDS = 120


class Stats:
    """Counts since the start. Times are seconds."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self.token_fetches: Counter[str] = Counter()
        self.duplicates = 0
        self.quota_clears = 0
        self.connections_open = 0
        self.connections_total = 0
        self.closed_idle = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self._last_second: deque[float] = deque()
        self._busiest_second = 0
        self._seconds: deque[list[int]] = deque(maxlen=_SECONDS)

    def sending(self, now: float) -> None:
        """A call to one of the sending endpoints arrived."""
        times = self._last_second
        times.append(now)
        while times[0] <= now - 1.0:
            times.popleft()
        self._busiest_second = max(self._busiest_second, len(times))
        second, seconds = int(now), self._seconds
        if seconds and seconds[-1][0] == second:
            seconds[-1][1] += 1
        else:
            seconds.append([second, 1])

    def begun(self) -> None:
        """A request is being answered."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def as_dict(self) -> dict[str, Any]:
        """``busiest_second`` is the most sending calls within any one second, wherever it begins.

        ``seconds`` are pairs (second since 1970, sending calls in it) of the last 120 s, without those that had none.
        """
        earliest = self._seconds[-1][0] - _SECONDS if self._seconds else 0
        return {
            "requests": dict(self.requests),
            "accepted": {"custom": 0, "template": 0, "subscribe": 0} | self.accepted,
            "refused": {str(errcode): times for errcode, times in self.refused.items()},
            "faults": dict(self.faults),
            "token_fetches": {"plain": 0, "stable": 0} | self.token_fetches,
            "duplicates": self.duplicates,
            "quota_clears": self.quota_clears,
            "busiest_second": self._busiest_second,
            "seconds": [list(pair) for pair in self._seconds if pair[0] > earliest],
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "connections": {
                "open": self.connections_open,
                "total": self.connections_total,
                "closed_idle": self.closed_idle,
            },
        }
