"""How fast the account may call: pure functions over one small record, with the time passed in.

Calls are spaced by the generic cell rate algorithm: the record holds the time at which the next call is due.
The rate follows what WeChat answers. 45011 (too many calls in a minute) rests everybody for a minute and halves the
rate; -1 (busy), when it comes in numbers, slows it. Both are given back in steps.

Times are CLOCK_BOOTTIME seconds, rates are calls a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

#: For how long a process may come late without the account losing a call, in seconds; what was missed for longer is
#: not made up for. Any second sees at most rate × (1 + SLACK) calls, and one more where that is no whole number.
SLACK = 0.025

#: Below this rate a single call more would be over 110 %, and nothing is made up for.
SLACK_FROM = 10.0

#: How long permits are let gather before they are asked for, in seconds: a wake-up costs as much as a call.
TICK = 0.01

#: After 45011: all rest so long, then half the rate, and so much of the configured rate more in each further step.
REST = 60.0
HALF = 0.5
STEP = 0.1
STEP_EVERY = 60.0
LEAST_HALVED = 0.05

#: -1 comes in numbers when it is so many of the last ``WINDOW`` answers.
BUSY = 10
WINDOW = 100
SLOWER = 0.7
SLOWED_EVERY = 10.0
LEAST_SLOWED = 0.05
LEAST_CALLS = 1.0

_WINDOW_BITS = (1 << WINDOW) - 1


@dataclass(frozen=True, slots=True)
class Pace:
    """What all processes share of an account's rate."""

    rate: float
    """As configured; on a store that several nodes share this node's part of it, which may be 0."""
    due: float
    """When the next call is due."""
    rest: float = 0.0
    """Until when nobody calls."""
    halved: float = 1.0
    """The share of the rate that 45011 left, from ``halved_at`` on."""
    halved_at: float = 0.0
    slowed: float = 1.0
    """The share of the rate that -1 left, and when that was last changed."""
    slowed_at: float = -SLOWED_EVERY
    answers: int = 0
    """The last answers, a bit each, the latest lowest: 1 for busy."""


def in_force(pace: Pace, at: float) -> float:
    """The rate now, a rest aside."""
    return pace.rate * min(restored(pace.halved, pace.halved_at, at), pace.slowed)


def restored(share: float, since: float, at: float) -> float:
    """What a halved share has come to: a step more for each whole minute since."""
    steps = math.floor(max(0.0, at - since) / STEP_EVERY + 1e-9)
    return min(1.0, share + STEP * steps)


def rested(pace: Pace, at: float) -> Pace:
    """After 45011. All that were on the wire hear the same: it halves once a rest."""
    if pace.rest > at:
        return pace
    half = max(LEAST_HALVED, restored(pace.halved, pace.halved_at, at) * HALF)
    return replace(pace, rest=at + REST, halved=half, halved_at=at + REST)


def tallied(pace: Pace, at: float, answers: int, busy: int) -> Pace:
    """After so many answers, ``busy`` of them -1."""
    seen = ((pace.answers << min(answers, WINDOW)) | ((1 << busy) - 1)) & _WINDOW_BITS
    pace = replace(pace, answers=seen)
    if at < pace.slowed_at + SLOWED_EVERY:
        return pace
    if seen.bit_count() >= BUSY:
        return slower(pace, at)
    if pace.slowed < 1.0 and answers > busy:
        return replace(pace, slowed=min(1.0, pace.slowed + STEP), slowed_at=at)
    return pace


def slower(pace: Pace, at: float) -> Pace:
    """After -1 in numbers: a third slower, but never less than a call a second or a twentieth of the rate."""
    least = min(1.0, max(LEAST_CALLS / max(pace.rate, LEAST_CALLS), LEAST_SLOWED))
    return replace(pace, slowed=max(least, pace.slowed * SLOWER), slowed_at=at, answers=0)


def configured(pace: Pace, at: float, rate: float) -> Pace:
    """Under another configured rate, which holds from now on; a rest goes on."""
    if rate == pace.rate:
        return pace
    return Pace(rate, min(pace.due, at + 1.0 / rate), pace.rest)


def reparted(pace: Pace, at: float, rate: float) -> Pace:
    """With another part of the account's rate: what was answered holds on.

    The next call waits as if the last one had left at the new rate. Else calls that another node has just made could
    be made here once more.
    """
    if rate == pace.rate:
        return pace
    due = pace.due
    if rate > pace.rate:
        due = max(due, at + 1.0 / rate)
    elif rate and due > at:
        due += 1.0 / rate - 1.0 / pace.rate
    return replace(pace, rate=rate, due=due)


def grant(due: float, at: float, rate: float, wanted: int) -> tuple[int, float]:
    """How many of ``wanted`` calls may start at ``at``, and when the next one is due.

    Never less than one call when it is due, or a slow rate would send nothing at all.
    """
    gap = 1.0 / rate
    due = max(due, at - (SLACK if rate >= SLACK_FROM else 0.0))
    granted = min(wanted, int((at - due) / gap + 1.0 + 1e-9)) if at >= due - 1e-9 else 0
    return granted, due + granted * gap


def worth_asking(due: float, at: float, rate: float, wanted: int) -> float:
    """Seconds until a tick's worth of calls is due, or as many as are wanted."""
    calls = max(1.0, min(float(wanted), rate * TICK))
    return max(0.0, due + (calls - 1.0) / rate - at)
