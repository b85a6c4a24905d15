"""Whether a person takes messages: what is known of them, and what follows from what they do or WeChat says.

Two things that end apart: their own word (or WeChat's word about it) in ``state``, and whether they follow the account
in ``gone_until``. Times are milliseconds since 1970, passed in.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from types import MappingProxyType

from fanoutd.config import Window


class State(IntEnum):
    """As stored. Whoever is ``ACTIVE`` may still be gone."""

    ACTIVE = 0
    OPTED_OUT = 1
    """By a reply of 0, or by an operator."""
    SWITCHED_OFF = 2
    """WeChat says that they switched messages off (48002)."""
    BLOCKED = 3
    """On the account's own blacklist (43019)."""


#: What users see of the states.
WORDS: Mapping[State, str] = MappingProxyType(
    {State.ACTIVE: "active", State.OPTED_OUT: "opted_out", State.SWITCHED_OFF: "opted_out", State.BLOCKED: "blocked"}
)

#: An end that only an event brings.
FOREVER = 1 << 62

#: An event older than this by its own timestamp is a replay.
STALE_MS = 300_000

#: For how long "gone" is believed that was learnt from an errcode: WeChat says it of people who follow again, too
#: (field reports).
BELIEVED_MS = 86_400_000

#: The window of somebody of whom WeChat said that its messages are used up (45047).
SPENT = "spent"


@dataclass(frozen=True, slots=True)
class Standing:
    """One person of one account. ``since`` is when the state that ``word`` shows began."""

    since: int
    state: State = State.ACTIVE
    listed: bool = False
    """In the embedded audience."""
    gone_until: int | None = None
    window_kind: str | None = None
    """The event that opened the last window for custom messages; None: nobody tells us of events."""
    window_until: int | None = None
    window_left: int | None = None
    """Messages left in it, None for no limit."""
    event_at: int | None = None
    seen: int | None = None
    """When the sync began that saw them last on WeChat's list."""
    person: str | None = None
    """Their own variables as JSON text."""

    def gone(self, now: int) -> bool:
        return self.gone_until is not None and self.gone_until > now

    def takes(self, now: int) -> bool:
        """Messages of any kind."""
        return self.state is State.ACTIVE and not self.gone(now)

    def word(self, now: int) -> str:
        return "gone" if self.state is State.ACTIVE and self.gone(now) else WORDS[self.state]

    def open(self, now: int) -> bool:
        """The window is known, and a custom message goes through."""
        known = self.window_until is not None and self.window_until > now
        return known and self.window_kind != SPENT and self.window_left != 0

    def shut(self, now: int) -> bool:
        """It is known that a custom message does not go through."""
        return self.window_kind is not None and not self.open(now)


# ---- what people do


def happened(
    before: Standing, event: str, at: int, now: int, windows: Mapping[str, Window]
) -> Standing | None:
    """After an event of WeChat's; None for one that is stale: replayed, or older than what is known."""
    if now - at > STALE_MS or at // 1000 < (before.event_at or 0) // 1000:
        return None
    at = min(at, now)
    if event == "unsubscribe":
        return replace(_gone(before, FOREVER, at), event_at=at)
    after = replace(_back(before, at), event_at=at)
    return _opened(after, event, windows[event], at) if event in windows else after


def wrote(before: Standing, now: int, windows: Mapping[str, Window]) -> Standing:
    """After a text of theirs that was handed on without a time: it counts as one of just now.

    It leaves ``event_at`` alone, which is WeChat's clock.
    """
    after = _back(before, now)
    return _opened(after, "message", windows["message"], now) if "message" in windows else after


def opted_out(before: Standing, now: int) -> Standing:
    return before if before.state is State.OPTED_OUT else replace(before, state=State.OPTED_OUT, since=now)


def opted_in(before: Standing, now: int) -> Standing:
    """Whatever kept them out is over."""
    after = _back(before, now)
    return after if after.state is State.ACTIVE else replace(after, state=State.ACTIVE, since=now)


def choice(content: str | None) -> str | None:
    """``"out"`` for a reply of 0, ``"in"`` for 1 (full-width digits too), None for anything else."""
    return {"0": "out", "1": "in"}.get(unicodedata.normalize("NFKC", content or "").strip())


def listed(before: Standing, now: int, seen: int | None = None, person: str | None = None) -> Standing:
    """In the embedded audience, by an import (``person``) or by WeChat's list of a sync that began at ``seen``.

    WeChat's list is a proof that they follow the account, if they were not found gone while it was read.
    """
    after = replace(before, listed=True, person=before.person if person is None else person)
    if seen is None:
        return after
    proved = after.gone(now) and after.since < seen and (after.event_at or 0) < seen
    return replace(_back(after, now) if proved else after, seen=seen)


def left(before: Standing, now: int) -> Standing:
    """Not on WeChat's list any more."""
    return replace(_gone(before, FOREVER, now), listed=False)


def _gone(before: Standing, until: int, at: int) -> Standing:
    news = before.state is State.ACTIVE and not before.gone(at)
    return replace(before, gone_until=max(until, before.gone_until or 0), since=at if news else before.since)


def _back(before: Standing, at: int) -> Standing:
    """They can be reached. What they said of messages holds on."""
    state = State.ACTIVE if before.state is State.BLOCKED else before.state
    news = state is not before.state or (state is State.ACTIVE and before.gone_until is not None)
    return replace(before, state=state, gone_until=None, since=at if news else before.since)


def _opened(before: Standing, event: str, window: Window, at: int) -> Standing:
    """A new window. One that is open and lasts longer goes on: a call too many costs less than one too few."""
    until = at + round(window.within * 1000)
    if before.open(at) and (before.window_until or 0) > until:
        return before
    return replace(before, window_kind=event, window_until=until, window_left=window.messages or None)


# ---- what WeChat's answers teach


class Lesson(Enum):
    GONE = "gone"
    STRANGER = "stranger"
    """Believed like GONE, but a wrong app_id gives it for everybody: the operator's tables are left alone."""
    SWITCHED_OFF = "switched off"
    BLOCKED = "blocked"
    SPENT = "spent"


#: What an errcode says of the person, as WeChat documents it; every other one says nothing.
LESSONS: Mapping[int, Lesson] = MappingProxyType(
    {
        43004: Lesson.GONE,
        50005: Lesson.GONE,
        46004: Lesson.GONE,
        40003: Lesson.STRANGER,
        49003: Lesson.STRANGER,
        48002: Lesson.SWITCHED_OFF,
        43019: Lesson.BLOCKED,
        45047: Lesson.SPENT,
    }
)

#: The statement of an audience that such a lesson calls for, when it is news.
HOOKS: Mapping[Lesson, str] = MappingProxyType({Lesson.GONE: "on_gone", Lesson.SWITCHED_OFF: "on_opt_out"})


def learnt(before: Standing, lesson: Lesson, now: int) -> Standing:
    """After an answer of WeChat's."""
    if lesson in (Lesson.GONE, Lesson.STRANGER):
        return _gone(before, now + BELIEVED_MS, now)
    if lesson is Lesson.SPENT:
        return replace(before, window_kind=SPENT, window_until=FOREVER, window_left=0)
    if lesson is Lesson.SWITCHED_OFF and before.state in (State.ACTIVE, State.BLOCKED):
        return replace(before, state=State.SWITCHED_OFF, since=now)
    if lesson is Lesson.BLOCKED and before.state is State.ACTIVE:
        return replace(before, state=State.BLOCKED, since=now)
    return before


# ---- what a campaign makes of it


class Turn(Enum):
    """What becomes of a person whose turn it is."""

    TRY = "try"
    WITHOUT_CUSTOM = "without custom"
    """The custom call is doomed: go on with the next channel."""
    SKIP = "skip"


def turn(standing: Standing, now: int, again: bool, channels: tuple[str, ...]) -> Turn:
    """``again``: an operator wants it tried again. Then only their own word counts.

    Where there is no other channel than custom it is tried in spite of a window that we think is shut, which costs
    little and tells the truth; not when WeChat itself has said that nothing goes through before the next event.
    """
    if again:
        return Turn.SKIP if standing.state is State.OPTED_OUT else Turn.TRY
    if not standing.takes(now):
        return Turn.SKIP
    if channels[0] != "custom" or not standing.shut(now):
        return Turn.TRY
    if len(channels) > 1:
        return Turn.WITHOUT_CUSTOM
    return Turn.SKIP if standing.window_kind == SPENT else Turn.TRY
