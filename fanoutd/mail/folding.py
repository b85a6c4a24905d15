"""Which of the waiting events make which mails, and when. No clock, no disk: times are seconds of one clock.

- An event without a kind is a mail of its own, at once.
- Events of one kind make one mail: it is due when none has come for ``quiet`` seconds, or the first has waited for
  ``longest``. After a mail those of its kind that come within WINDOW wait for its end, and make one more.
- Urgent ones (an alert, and that it is over) wait less, by ``soon``.
- More than BUDGET mails in WINDOW: beyond it all that is due waits, and makes one mail together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

#: Seconds in which equal events make one mail, and mails of whatever kind so many single ones.
WINDOW = 60.0
BUDGET = 10


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds; ``soon`` is (quiet, longest) for urgent events, ``later`` for others. ``overflow``: between two mails
    of urgent events beyond the budget."""

    soon: tuple[float, float]
    later: tuple[float, float] = (2.0, WINDOW)
    overflow: float = 5.0


def pace(health_check: float) -> Pace:
    """An alert is out within 3 × ``health_check``: one is for noticing, one for the mail server."""
    longest = min(WINDOW, health_check)
    return Pace((min(2.0, longest / 2), longest), overflow=max(5.0, longest))


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event, as far as folding looks at it. ``came``: when it was heard of."""

    id: str
    kind: str
    urgent: bool
    came: float

    @property
    def key(self) -> str:
        """Equal for those that are one mail: the kind, or the event's own name, which begins like no kind."""
        return self.kind or f"\0{self.id}"


@dataclass(slots=True)
class Past:
    """What was mailed of late: when, by key, and when at all."""

    mailed: dict[str, float] = field(default_factory=dict)
    mails: list[float] = field(default_factory=list)

    def note(self, mail: Sequence[Waiting], at: float) -> None:
        """One mail with these goes out."""
        self.mails = [*(each for each in self.mails if each + WINDOW > at), at]
        self.mailed = {key: each for key, each in self.mailed.items() if each + WINDOW > at}
        self.mailed |= {each.key: at for each in mail}


@dataclass(frozen=True, slots=True)
class Plan:
    """``mails``: now, each with its events in the order of their coming. ``wake``: when to look again; None: never."""

    mails: list[list[Waiting]]
    wake: float | None


def plan(waiting: Iterable[Waiting], past: Past, held: Mapping[str, float], pace: Pace, now: float) -> Plan:
    """``held``: keys that may not go before a time, since they were refused."""
    groups: dict[str, list[Waiting]] = {}
    for each in sorted(waiting, key=lambda each: (each.came, each.id)):
        groups.setdefault(each.key, []).append(each)
    due, wakes = list[list[Waiting]](), list[float]()
    for key, group in groups.items():
        at = max(_due(group, past, pace), held.get(key, 0.0))
        if at <= now:
            due.append(group)
        else:
            wakes.append(at)
    mails, opens = _within_budget(due, past, pace, now)
    wakes += [opens] if opens is not None else []
    return Plan(mails, min(wakes, default=None))


def _due(group: Sequence[Waiting], past: Past, pace: Pace) -> float:
    quiet, longest = pace.soon if any(each.urgent for each in group) else pace.later
    if not group[0].kind:
        return group[0].came
    last = past.mailed.get(group[0].key)
    if last is not None and group[0].came < last + WINDOW:
        return last + WINDOW
    return min(group[-1].came + quiet, group[0].came + longest)


def _within_budget(
    due: list[list[Waiting]], past: Past, pace: Pace, now: float
) -> tuple[list[list[Waiting]], float | None]:
    """The mails that may go now, urgent ones first, the last of them perhaps of many keys; and when there is more."""
    recent = [each for each in past.mails if each + WINDOW > now]
    due.sort(key=lambda group: (not _urgent(group), group[0].came))
    room = max(0, BUDGET - len(recent))
    if len(due) <= room:
        return due, None
    if room:
        return [*due[:room - 1], _together(due[room - 1:])], None
    opens = min(recent) + WINDOW
    if any(map(_urgent, due)):
        soon = max(recent) + pace.overflow
        if soon <= now:
            return [_together(due)], None
        opens = min(opens, soon)
    return [], opens


def _urgent(group: Sequence[Waiting]) -> bool:
    return any(each.urgent for each in group)


def _together(groups: Iterable[Sequence[Waiting]]) -> list[Waiting]:
    return sorted((each for group in groups for each in group), key=lambda each: (each.came, each.id))
