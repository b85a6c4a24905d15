"""What a push of WeChat means to the daemon, as pure functions over its fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fanoutd.callback.errors import Broken
from fanoutd.ids import OPENID

Fields = Mapping[str, Any]

#: WeChat's events, in small letters, and what they are to the daemon; no other concerns it. By WeChat's page of
#: custom messages these open a window, VIEW and the photo and location menus do not. The two of payment are those
#: that reach this address: WeChat Pay itself reports to another.
EVENTS: Mapping[str, str] = {
    "subscribe": "subscribe",
    "unsubscribe": "unsubscribe",
    "scan": "scan",
    "click": "menu",
    "scancode_push": "menu",
    "scancode_waitmsg": "menu",
    "user_pay_from_pay_cell": "pay",
    "merchant_order": "pay",
}

#: What a person writes to be left out, and to be taken in again.
_ORDERS: Mapping[str, str] = {"0": "0", "1": "1", "０": "0", "１": "1"}
_DIGITS = re.compile(r"[0-9]{1,20}", re.ASCII)
_MOST_ID = (1 << 63) - 1
_LONGEST_STATUS = 200


@dataclass(frozen=True, slots=True)
class Notice:
    """Parameters of ``subscriber.event``, and what tells the event from another and not from its repeat."""

    key: tuple[str, ...]
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Order:
    """A text ``0`` or ``1``: parameters of ``subscriber.reply``, and the account that the answer comes from."""

    key: tuple[str, ...]
    params: dict[str, Any]
    account_name: str


@dataclass(frozen=True, slots=True)
class Push:
    """All that is in one push."""

    notices: list[Notice]
    order: Order | None = None


def read(fields: Fields) -> Push:
    """Raises Broken when it is nothing that WeChat would send. What does not concern the daemon is an empty Push."""
    kind = _text(fields, "MsgType").lower()
    if not kind:
        raise Broken("the push is encrypted, and there is no aes_key" if "Encrypt" in fields else "it has no MsgType")
    if kind == "event":
        name = _text(fields, "Event").lower()
        return Push(_FINISHES.get(name, _event)(fields, name))
    if kind.endswith("event"):  # of devices
        return Push([])
    return _message(fields, kind)


def _message(fields: Fields, kind: str) -> Push:
    """A tap on an item of a msgmenu comes as a text too, and by WeChat's page counts as a menu's."""
    key = ("message", _text(fields, "MsgId"), _openid(fields), str(_at(fields)))
    tapped = bool(_text(fields, "bizmsgmenuid"))
    notice = Notice(key, _params(fields, "menu" if tapped else "message"))
    wish = _ORDERS.get(_text(fields, "Content").strip()) if kind == "text" else None
    if wish is None:
        return Push([notice])
    params = {"openid": _openid(fields), "content": wish}
    return Push([notice], Order(("order", *key), params, _text(fields, "ToUserName")))


def _event(fields: Fields, name: str) -> list[Notice]:
    if name not in EVENTS:
        return []
    key = ("event", _openid(fields), str(_at(fields)), name, _text(fields, "EventKey"))
    return [Notice(key, _params(fields, EVENTS[name]))]


def _template_finish(fields: Fields, name: str) -> list[Notice]:
    return [_finish(fields, name, _id(fields, "MsgID"), _text(fields, "Status"))]


def _subscription_finish(fields: Fields, name: str) -> list[Notice]:
    """Its ``List`` is an object or several, in an element of its own in XML and bare in JSON."""
    holder = fields.get("SubscribeMsgSentEvent", fields)
    found = holder.get("List") if isinstance(holder, dict) else None
    items = [each for each in (found if isinstance(found, list) else [found]) if isinstance(each, dict)]
    if not items:
        raise Broken("the event has no List")
    receipts = [_finish(fields, name, _id(each, "MsgID"), _status(_text(each, "ErrorCode"))) for each in items]
    return [replace(each, params=each.params | {"channel": "subscribe"}) for each in receipts]


def _status(code: str) -> str:
    return "success" if code == "0" else f"failed:{code}"


def _finish(fields: Fields, name: str, msgid: int | None, status: str) -> Notice:
    """Two receipts of one person in one second differ by their id, or, when it is 0 or missing, by their status."""
    status = status[:_LONGEST_STATUS]
    if msgid:
        key: tuple[str, ...] = ("finish", name, str(msgid))
    else:
        key = ("finish", name, _openid(fields), str(_at(fields)), status)
    return Notice(key, _params(fields, "finish") | {"msgid": msgid, "status": status})


_FINISHES: Mapping[str, Callable[[Fields, str], list[Notice]]] = {
    "templatesendjobfinish": _template_finish,
    "subscribe_msg_sent_event": _subscription_finish,
}


def _params(fields: Fields, event: str) -> dict[str, Any]:
    return {"openid": _openid(fields), "event": event, "at": _at(fields)}


def _text(fields: Fields, name: str) -> str:
    """The field as text, empty when it is not there or is no single value."""
    value = fields.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else ""


def _openid(fields: Fields) -> str:
    openid = _text(fields, "FromUserName")
    if not OPENID.fullmatch(openid):
        raise Broken("FromUserName is no openid")
    return openid


def _at(fields: Fields) -> int:
    """Seconds since 1970."""
    text = _text(fields, "CreateTime")
    if not _DIGITS.fullmatch(text) or int(text) > 1 << 40:
        raise Broken("CreateTime is no time")
    return int(text)


def _id(fields: Fields, name: str) -> int | None:
    """A message's id; None when it is missing, or larger than those of WeChat can be."""
    text = _text(fields, name)
    return int(text) if _DIGITS.fullmatch(text) and int(text) <= _MOST_ID else None
