"""The methods that the dispatcher answers: their parameters, checked and complete before they go there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fanoutd.master import params as read
from fanoutd.master.params import invalid

Params = Mapping[str, Any]

CAMPAIGN_STATES = ("scheduled", "planning", "running", "paused", "done", "cancelled", "failed")
DELIVERY_STATES = ("pending", "sent", "failed", "skipped", "unknown")

_LIST_LIMIT, _DELIVERIES_LIMIT, _MOST = 50, 1000, 1000


def _get(params: Params) -> dict[str, Any]:
    read.only(params, ("campaign",))
    return {"campaign": read.campaign(params)}


def _list(params: Params) -> dict[str, Any]:
    read.only(params, ("state", "limit", "before"))
    before = None if params.get("before") is None else read.campaign({"campaign": params["before"]})
    return {
        "state": read.state(params, CAMPAIGN_STATES),
        "limit": read.whole(params, "limit", 1, _MOST, _LIST_LIMIT),
        "before": before,
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


#: method -> its parameters as the dispatcher gets them, every key there. Raises RpcError.
CARRIED: Mapping[str, Callable[[Params], dict[str, Any]]] = {
    "campaign.get": _get,
    "campaign.list": _list,
    "campaign.deliveries": _deliveries,
}
