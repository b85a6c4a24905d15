"""What this node has counted since it was set up: deliveries that ended, requests made, and how long they took.

They only grow, over the deaths of workers, reloads and restarts of the daemon. ``figures_file`` keeps them; health
looks at what came of late with ``Figures.since``, metrics show all of it.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fanoutd.outcome import Ended, channel_name, errcode_word

#: Upper edges of the latency histogram, in seconds; whatever is longer has a place after the last.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: Sets of labels that one process keeps apart in a table. Beyond them an errcode is ``other``: an API gone mad, which
#: answers a new number to each, makes neither files nor metrics large.
MOST_SETS = 500
OTHER = "other"

Channel = tuple[str, str]
"""(account, channel)."""

Count = Callable[[str, Ended], None]
"""Called with an account and those deliveries of it that have ended, once the store has that for good."""


def uncounted(_account: str, _ended: Ended) -> None:
    """For whoever keeps no figures."""


@dataclass(slots=True)
class Histogram:
    """``counts`` of requests by the first of ``BUCKETS`` that they were not longer than; ``seconds`` of all of them."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def add(self, other: Histogram) -> None:
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.seconds += other.seconds

    def since(self, before: Histogram) -> Histogram:
        """What has come since then; all of it where it had begun anew meanwhile."""
        if any(now < then for now, then in zip(self.counts, before.counts, strict=True)):
            return Histogram(list(self.counts), self.seconds)
        counts = [now - then for now, then in zip(self.counts, before.counts, strict=True)]
        return Histogram(counts, max(0.0, self.seconds - before.seconds))

    def quantile(self, share: float) -> float | None:
        """Seconds within which that share of the requests ended, as near as the buckets tell (``histogram_quantile`` of
        Prometheus); the last edge for what lies beyond it; None without requests."""
        wanted, low = share * self.count, 0.0
        if not self.count:
            return None
        for edge, count in zip(BUCKETS, self.counts, strict=False):
            if count and wanted <= count:
                return low + (edge - low) * wanted / count
            wanted, low = wanted - count, edge
        return BUCKETS[-1]


@dataclass(slots=True)
class Figures:
    """Every label is a text, as metrics show it; "" where there is none."""

    deliveries: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    """By (account, channel, state, errcode): how often a delivery came into that final state. One that was unknown and
    is settled later has then been counted as both."""
    requests: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Calls to send by (account, channel, result): the errcode that WeChat answered, or one of ``wire.FAILURES``."""
    latency: dict[Channel, Histogram] = field(default_factory=dict)
    """Of the calls that left this machine, with or without an answer."""

    def add(self, other: Figures) -> None:
        self.deliveries.update(other.deliveries)
        self.requests.update(other.requests)
        for key, histogram in other.latency.items():
            self.latency.setdefault(key, Histogram()).add(histogram)

    def since(self, before: Figures) -> Figures:
        """What has come since then, without what has not changed. A figure that is lower now began anew."""
        latency = {key: each.since(before.latency.get(key, Histogram())) for key, each in self.latency.items()}
        return Figures(
            Counter(_grown(self.deliveries, before.deliveries)), Counter(_grown(self.requests, before.requests)),
            {key: each for key, each in latency.items() if each.count},
        )  # fmt: skip

    def requests_of(self, account: str) -> Counter[str]:
        """The account's calls on all its channels, by result."""
        found: Counter[str] = Counter()
        for (name, _, result), count in self.requests.items():
            if name == account:
                found[result] += count
        return found

    def latency_of(self, account: str) -> Histogram:
        """Of all its channels together."""
        found = Histogram()
        for (name, _), histogram in self.latency.items():
            if name == account:
                found.add(histogram)
        return found

    def count(self, account: str, ended: Ended) -> None:
        """Deliveries of the account that have just come into a final state."""
        for (state, channel, errcode), number in ended.items():
            key = (account, channel_name(channel) or "", state.word, errcode_word(errcode) or "")
            if key not in self.deliveries and len(self.deliveries) >= MOST_SETS:
                key = (*key[:3], OTHER)
            self.deliveries[key] += number

    def as_json(self) -> bytes:
        """One line, which ``from_json`` reads."""
        return json.dumps({
            "deliveries": [[*key, count] for key, count in self.deliveries.copy().items()],
            "requests": [[*key, count] for key, count in self.requests.copy().items()],
            "latency": [[*key, each.seconds, *each.counts] for key, each in self.latency.copy().items()],
        }, separators=(",", ":")).encode()  # fmt: skip

    @classmethod
    def from_json(cls, data: bytes) -> Figures:
        """Raises ValueError for what is none."""
        try:
            said: dict[str, Any] = json.loads(data)
            return cls(
                Counter({(a, c, s, e): int(n) for a, c, s, e, n in said["deliveries"]}),
                Counter({(a, c, r): int(n) for a, c, r, n in said["requests"]}),
                {(a, c): _histogram(float(seconds), counts) for a, c, seconds, *counts in said["latency"]},
            )
        except (KeyError, TypeError) as e:
            raise ValueError(f"these are no figures: {e}") from None


def _histogram(seconds: float, counts: list[int]) -> Histogram:
    if len(counts) != len(BUCKETS) + 1:
        return Histogram()  # of a version with other buckets: it begins anew
    return Histogram([int(count) for count in counts], seconds)


def _grown(now: Mapping[Any, int], before: Mapping[Any, int]) -> dict[Any, int]:
    grown = {}
    for key, count in now.items():
        then = before.get(key, 0)
        if count != then:
            grown[key] = count - then if count > then else count
    return grown
