"""A campaign over time: how many of its people ended how, in steps of equal length. Times are milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Steps at most, and the lengths that there are: those that people read from a clock.
MOST = 60
_S, _M, _H, _D = 1000, 60_000, 3_600_000, 86_400_000
_STEPS = (
    250, 500, _S, 2 * _S, 5 * _S, 10 * _S, 15 * _S, 30 * _S, _M, 2 * _M, 5 * _M, 10 * _M, 15 * _M, 30 * _M,
    _H, 2 * _H, 3 * _H, 6 * _H, 12 * _H, _D, 2 * _D, 7 * _D, 14 * _D, 28 * _D, 56 * _D, 112 * _D, 364 * _D,
)  # fmt: skip

KINDS = ("sent", "failed", "unknown")


def step_for(span_ms: int) -> int:
    """The shortest step of which at most ``MOST`` make so long a time."""
    return next((step for step in _STEPS if span_ms <= step * (MOST - 1)), _STEPS[-1])


@dataclass(frozen=True, slots=True)
class Timeline:
    """Step i begins at ``start + i * step``. ``series`` has a number for each step by kind: ``sent``, ``failed``,
    ``unknown``."""

    start: int
    step: int
    series: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return max((len(each) for each in self.series.values()), default=0)

    def totals(self) -> list[int]:
        """Everybody who ended in each step."""
        return [sum(each[i] for each in self.series.values()) for i in range(len(self))]

    def peak(self) -> tuple[float, float] | None:
        """The most deliveries a second, and over how many seconds: a second at least, for what is recorded together
        was not sent at once."""
        width = max(1, -(-1000 // self.step))
        totals = self.totals()
        if len(totals) < 2 * width:
            return None
        most = max(sum(totals[i : i + width]) for i in range(len(totals) - width + 1))
        seconds = width * self.step / 1000
        return most / seconds, seconds

    def coarser(self, most: int) -> Timeline:
        """The same in at most so many steps."""
        if len(self) <= most:
            return self
        by = next((step // self.step for step in _STEPS if step % self.step == 0 and step > self.step
                   and self._count(step) <= most), -(-len(self) // most))  # fmt: skip
        step = self.step * by
        skip = (self.start % step) // self.step
        series = {
            kind: tuple(sum(padded[i : i + by]) for i in range(0, len(padded), by))
            for kind, padded in ((kind, (0,) * skip + values) for kind, values in self.series.items())
        }
        return Timeline(self.start - skip * self.step, step, series)

    def _count(self, step: int) -> int:
        return (self.start + (len(self) - 1) * self.step) // step - self.start // step + 1


def encode(timeline: Timeline | None, iso: Any) -> dict[str, Any] | None:
    """As ``campaign.report`` has it; ``iso`` writes a time."""
    if timeline is None:
        return None
    return {"start": iso(timeline.start), "step_ms": timeline.step} | {k: list(timeline.series[k]) for k in KINDS}


def decode(document: Mapping[str, Any] | None, parse: Any) -> Timeline | None:
    """What ``encode`` made. Raises ValueError, KeyError."""
    if document is None:
        return None
    return Timeline(parse(document["start"]), int(document["step_ms"]), {k: tuple(document[k]) for k in KINDS})
