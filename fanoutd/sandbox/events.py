"""Which events follow a message or an action, as fields of the XML that is pushed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fanoutd.sandbox.options import Options
from fanoutd.sandbox.people import chance

ACCOUNT = "gh_0123456789ab"

#: The first MsgId of what people send.
_FIRST_MESSAGE = 23_456_789_012_345_678

#: The statuses of a template message that reached nobody, by the switch for their share. The blank is WeChat's; of
#: "freq limit" field reports tell.
_FAILURES: Mapping[str, str] = MappingProxyType(
    {
        "event_blocked": "failed:user block",
        "event_failed": "failed: system failed",
        "event_freq_limit": "failed:freq limit",
    }
)

#: What is pushed for an action of windows.TRIGGERS; a payment is no event of the account's.
_ACTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "message": {"MsgType": "text", "Content": "你好"},
        "menu": {"MsgType": "event", "Event": "CLICK", "EventKey": "MENU"},
        "subscribe": {"MsgType": "event", "Event": "subscribe", "EventKey": ""},
        "scan": {"MsgType": "event", "Event": "SCAN", "EventKey": "SCENE", "Ticket": "TICKET"},
    }
)


@dataclass(frozen=True, slots=True)
class Planned:
    """An event that is to be pushed so many seconds from now."""

    fields: Mapping[str, Any]
    delay: float = 0.0


class Events:
    """Makes the events; gives messages their MsgId."""

    def __init__(self) -> None:
        self._ids = itertools.count(_FIRST_MESSAGE)

    def complete(self, fields: Mapping[str, Any], now: float) -> dict[str, Any]:
        """The fields with what every push has, unless given."""
        event = {"ToUserName": ACCOUNT, "FromUserName": "oSOMEBODY", "CreateTime": int(now), **fields}
        if event.get("MsgType", "event") != "event" and "MsgId" not in event:
            event["MsgId"] = next(self._ids)
        return event

    def action(self, openid: str, event: str, now: float) -> dict[str, Any] | None:
        """The event of an action, if there is one."""
        fields = _ACTIONS.get(event)
        return None if fields is None else self.complete({"FromUserName": openid, **fields}, now)

    def finished(
        self, channel: str, body: Mapping[str, Any], msgid: int, now: float, options: Options
    ) -> list[Planned]:
        """The events of an accepted message, by the switches; which one gets what depends on seed and msgid."""
        if chance(options.seed, msgid, "lost") < options.event_lost:
            return []
        shown = 0 if chance(options.seed, msgid, "zero") < options.event_zero_id else msgid
        status = _status(msgid, options)
        fields = _NOTICES[channel](body, shown, status)
        event = self.complete({"FromUserName": body["touser"], "MsgType": "event", **fields}, now)
        twice = chance(options.seed, msgid, "twice") < options.event_twice
        return [Planned(event, options.event_delay)] * (2 if twice else 1)


def _status(msgid: int, options: Options) -> str:
    left = chance(options.seed, msgid, "status")
    for name, status in _FAILURES.items():
        left -= getattr(options, name)
        if left < 0:
            return status
    return "success"


def _template(_body: Mapping[str, Any], msgid: int, status: str) -> dict[str, Any]:
    return {"Event": "TEMPLATESENDJOBFINISH", "MsgID": msgid, "Status": status}


def _subscribe(body: Mapping[str, Any], msgid: int, status: str) -> dict[str, Any]:
    code = 0 if status == "success" else -1
    item = {"TemplateId": body["template_id"], "MsgID": str(msgid), "ErrorCode": code, "ErrorStatus": status}
    return {"Event": "subscribe_msg_sent_event", "SubscribeMsgSentEvent": {"List": item}}


_NOTICES = MappingProxyType({"template": _template, "subscribe": _subscribe})
