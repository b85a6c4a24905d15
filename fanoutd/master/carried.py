"""The methods that the dispatcher answers: their parameters, checked and complete before they go there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fanoutd.master import params as read
from fanoutd.master.params import invalid

Params = Mapping[str, Any]

CAMPAIGN_STATES = ("scheduled", "planning", "running", "paused", "done", "cancelled", "failed")
DELIVERY_STATES = ("pending", "sent", "failed", "skipped", "unknown")

_LIST_LIMIT, _DELIVERIES_LIMIT, _SUBSCRIBERS_LIMIT, _MOST = 50, 1000, 1000, 1000

#: Characters of a reference that is looked for.
_LONGEST_REFERENCE = 200

#: Characters of a name that a row of an import may bring.
_LONGEST_NAME = 64


def _get(params: Params) -> dict[str, Any]:
    read.only(params, ("campaign",))
    return {"campaign": read.campaign(params)}


def _list(params: Params) -> dict[str, Any]:
    read.only(params, ("state", "limit", "before", "since", "until", "account", "message", "reference", "problems"))
    before = None if params.get("before") is None else read.campaign({"campaign": params["before"]})
    return {
        "state": read.state(params, CAMPAIGN_STATES),
        "limit": read.whole(params, "limit", 1, _MOST, _LIST_LIMIT),
        "before": before,
        "since": read.when(params, "since"),
        "until": read.when(params, "until"),
        "account": read.text(params, "account", 64),
        "message": read.text(params, "message", 64),
        "reference": read.label(params, "reference", _LONGEST_REFERENCE),
        "problems": read.flag(params, "problems"),
    }


def _deliveries(params: Params) -> dict[str, Any]:
    read.only(params, ("campaign", "state", "after", "limit"))
    return {
        "campaign": read.campaign(params),
        "state": read.state(params, DELIVERY_STATES),
        "after": _after(params.get("after")),
        "limit": read.whole(params, "limit", 1, _MOST, _DELIVERIES_LIMIT),
    }


def _after(value: Any) -> int | str | None:
    """What ``next`` gave; only the dispatcher knows what it means."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63):
        return value
    if isinstance(value, str) and len(value) <= 64:
        return value
    raise invalid("after", "must be what next gave")


def _retry(params: Params) -> dict[str, Any]:
    read.only(params, ("campaign", "failed", "unknown"))
    return {
        "campaign": read.campaign(params),
        "failed": read.flag(params, "failed"),
        "unknown": read.flag(params, "unknown"),
    }


def _resolve(params: Params) -> dict[str, Any]:
    read.only(params, ("campaign", "as", "openids"))
    openids = params.get("openids")
    return {
        "campaign": read.campaign(params),
        "as": read.text(params, "as", 64),
        "openids": None if openids is None else read.openids(openids),
    }


def _explain(params: Params) -> dict[str, Any]:
    read.only(params, ("openid", "campaign"))
    campaign = None if params.get("campaign") is None else read.campaign(params)
    return {"openid": read.openid(params.get("openid"), "openid"), "campaign": campaign}


#: What a subscriber does or is sent: `finish` is WeChat's receipt for a template message.
_EVENTS = ("subscribe", "unsubscribe", "message", "menu", "scan", "pay", "finish")


def _receipt_channel(params: Params) -> str:
    """What kind of message a receipt is for: template messages unless it says otherwise."""
    channel = params.get("channel") or "template"
    if channel not in ("template", "subscribe"):
        raise invalid("channel", "must be template or subscribe")
    return str(channel)


def _event(params: Params) -> dict[str, Any]:
    read.only(params, ("openid", "event", "at", "account", "msgid", "status", "channel"))
    if params.get("event") not in _EVENTS:
        raise invalid("event", f"must be one of {', '.join(_EVENTS)}")
    return {
        "openid": read.openid(params.get("openid"), "openid"),
        "event": params["event"],
        "at": read.when_or_epoch(params, "at"),
        "account": read.text(params, "account", 64),
        "msgid": read.whole(params, "msgid", 0, (1 << 63) - 1, None),
        "status": read.text(params, "status", 200),
        "channel": _receipt_channel(params),
    }


def _token(params: Params) -> dict[str, Any]:
    read.only(params, ("account",))
    return {"account": read.text(params, "account", 64)}


def _token_refresh(params: Params) -> dict[str, Any]:
    read.only(params, ("account", "force"))
    return {"account": read.text(params, "account", 64), "force": read.flag(params, "force")}


def _account(params: Params) -> str | None:
    return read.text(params, "account", 64)


def _subscriber(params: Params) -> dict[str, Any]:
    read.only(params, ("openid", "account"))
    return {"openid": read.openid(params.get("openid"), "openid"), "account": _account(params)}


def _reply(params: Params) -> dict[str, Any]:
    read.only(params, ("openid", "content", "account"))
    return {
        "openid": read.openid(params.get("openid"), "openid"),
        "content": read.label(params, "content", 100_000),
        "account": _account(params),
    }


def _import(params: Params) -> dict[str, Any]:
    read.only(params, ("rows", "account"))
    rows = params.get("rows")
    if not isinstance(rows, list):
        raise invalid("rows", "must be a list of objects with an openid each")
    return {"rows": [_row(each, f"rows[{index}]") for index, each in enumerate(rows)], "account": _account(params)}


def _row(value: Any, field: str) -> dict[str, str]:
    """openid, and plain values under names of their own; null is a value that is not there."""
    if not isinstance(value, dict):
        raise invalid(field, "must be an object with an openid")
    own = read.table({field: {name: each for name, each in value.items() if each is not None}}, field)
    for name in own:
        if len(name) > _LONGEST_NAME:
            raise invalid(field, f"has a name of {len(name)} characters, at most {_LONGEST_NAME}")
    return {**own, "openid": read.openid(value.get("openid"), f"{field}.openid")}


def _subscribers(params: Params) -> dict[str, Any]:
    read.only(params, ("after", "limit", "account"))
    return {
        "after": read.text(params, "after", 64),
        "limit": read.whole(params, "limit", 1, _MOST, _SUBSCRIBERS_LIMIT),
        "account": _account(params),
    }


def _sync(params: Params) -> dict[str, Any]:
    read.only(params, ("account", "tag"))
    return {"account": _account(params), "tag": read.whole(params, "tag", 0, 1 << 31, None)}


def _nothing(params: Params) -> dict[str, Any]:
    read.only(params, ())
    return {}


def _recurring(params: Params) -> dict[str, Any]:
    read.only(params, ("recurring",))
    return {"recurring": read.campaign({"campaign": params.get("recurring")})}


#: method -> its parameters as the dispatcher gets them, every key there. Raises RpcError.
CARRIED: Mapping[str, Callable[[Params], dict[str, Any]]] = {
    "campaign.get": _get,
    "campaign.list": _list,
    "campaign.history": _get,
    "campaign.deliveries": _deliveries,
    "campaign.pause": _get,
    "campaign.resume": _get,
    "campaign.cancel": _get,
    "campaign.repair": _get,
    "campaign.retry": _retry,
    "campaign.resolve": _resolve,
    "campaign.report": _get,
    "delivery.explain": _explain,
    "subscriber.event": _event,
    "token.get": _token,
    "token.refresh": _token_refresh,
    "subscriber.reply": _reply,
    "subscriber.import": _import,
    "subscriber.list": _subscribers,
    "subscriber.get": _subscriber,
    "subscriber.forget": _subscriber,
    "subscriber.opt_out": _subscriber,
    "subscriber.opt_in": _subscriber,
    "subscriber.sync": _sync,
    "daemon.metrics": _nothing,
    "recurring.list": _nothing,
    "recurring.remove": _recurring,
    "mail.test": _nothing,
}

#: Those that change what becomes of a campaign: who gave them goes along, as ``by`` {uid, pid}.
ORDERS = (
    "campaign.pause", "campaign.resume", "campaign.cancel", "campaign.retry", "campaign.resolve", "campaign.repair",
)

#: Those that act beyond one campaign, and are an operator's: the log says who asked for them.
ACTS = ("recurring.remove", "subscriber.forget", "subscriber.sync", "token.refresh")

#: Those that are answered when every worker has obeyed; one that hangs is killed after hang_timeout.
ANSWERED_BY_WORKERS = ("campaign.pause", "campaign.cancel")

#: Those that wait for WeChat: for one call that is under way, and for their own.
ANSWERED_BY_WECHAT = ("token.refresh",)

#: Those that take long: seconds until a client is told that they are not done yet. They go on all the same.
LONG: Mapping[str, float] = {"subscriber.sync": 600.0, "mail.test": 60.0, "campaign.report": 60.0}
