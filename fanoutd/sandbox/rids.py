"""The request ids of refused calls, and what they were."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

from fanoutd.sandbox.errcodes import Refused, new_rid
from fanoutd.sandbox.http import Request

#: How many are remembered; WeChat does so for a week.
_KEPT = 1000


class Rids:
    """The last refusals by their rid."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[Request, Refused, float]] = OrderedDict()

    def new(self, request: Request, refusal: Refused, now: float) -> str:
        """The rid for a call that is refused at ``now``, seconds since 1970."""
        rid = new_rid()
        self._known[rid] = (request, refusal, now)
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return rid

    def report(self, rid: object) -> dict[str, Any]:
        """As openapi/rid/get shapes it, without the query, which has the token. Raises Refused."""
        if not isinstance(rid, str) or not rid:
            raise Refused(76002)
        if rid not in self._known:
            raise Refused(76001)
        request, refusal, now = self._known[rid]
        return {
            "invoke_time": int(now),
            "cost_in_ms": 1,
            "request_url": request.path,
            "request_body": request.body.decode("utf-8", "replace"),
            "response_body": json.dumps(refusal.document(rid), ensure_ascii=False),
            "client_ip": "127.0.0.1",
        }
