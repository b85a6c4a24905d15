"""When a person may be sent custom messages: after an action of theirs, for a while, so many.

The table is that of WeChat's page on customer-service messages, in force since 2023-06-12; the row for payment
stands on the page for service accounts only. Field reports: a new action begins the window and its count anew,
it adds nothing. Hence a message counts against every window that is open. Times are seconds, passed in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fanoutd.sandbox.errcodes import Refused

#: How long a typing state lasts, and how recent the person's last action must be for it.
_TYPING, _RECENT = 15.0, 30.0


@dataclass(frozen=True, slots=True)
class Trigger:
    """What an action allows: messages, within seconds."""

    messages: float
    seconds: float


TRIGGERS: Mapping[str, Trigger] = MappingProxyType(
    {
        "message": Trigger(5, 48 * 3600.0),
        "menu": Trigger(3, 60.0),
        "subscribe": Trigger(3, 60.0),
        "scan": Trigger(3, 60.0),
        "pay": Trigger(math.inf, 48 * 3600.0),
    }
)


@dataclass(slots=True)
class _Window:
    ends: float
    left: float


class Windows:
    """Everybody's open windows, one per kind of action."""

    def __init__(self) -> None:
        self._open: dict[str, dict[str, _Window]] = {}
        self._acted: dict[str, float] = {}
        self._typing: dict[str, float] = {}

    def interact(self, openid: str, event: str, at: float) -> None:
        """The person did something at ``at``. Raises ValueError for an event that is not in TRIGGERS."""
        trigger = TRIGGERS.get(event)
        if trigger is None:
            raise ValueError(f"the events are {', '.join(TRIGGERS)}")
        self._open.setdefault(openid, {})[event] = _Window(at + trigger.seconds, trigger.messages)
        self._acted[openid] = max(at, self._acted.get(openid, at))

    def refusal(self, openid: str, now: float) -> int:
        """The errcode for a custom message to the person now: 45015, 45047 or 0."""
        windows = self._alive(openid, now)
        if not windows:
            return 45015
        return 0 if any(each.left > 0 for each in windows) else 45047

    def sent(self, openid: str, now: float) -> None:
        """A custom message was accepted for the person."""
        self._typing.pop(openid, None)
        for window in self._alive(openid, now):
            window.left -= 1

    def typing(self, openid: str, command: object, now: float, strict: bool) -> None:
        """Set or end the typing state. Raises Refused. ``strict``: only soon after an action of the person."""
        if command == "CancelTyping":
            self._typing.pop(openid, None)
            return
        if command != "Typing":
            raise Refused(45072)
        if strict and now - self._acted.get(openid, -math.inf) > _RECENT:
            raise Refused(45080)
        if now < self._typing.get(openid, 0.0):
            raise Refused(45081)
        self._typing[openid] = now + _TYPING

    def _alive(self, openid: str, now: float) -> list[_Window]:
        return [each for each in self._open.get(openid, {}).values() if now < each.ends]
