"""A request and the time in, a reply out: what holds for every call. Knows neither sockets nor clocks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from random import Random

from fanoutd.sandbox import control, routes
from fanoutd.sandbox.errcodes import Refused
from fanoutd.sandbox.events import Events
from fanoutd.sandbox.followers import Followers
from fanoutd.sandbox.http import Reply, Request, json_reply, spoil
from fanoutd.sandbox.ledger import Ledger
from fanoutd.sandbox.options import Options
from fanoutd.sandbox.people import FAULTS, People
from fanoutd.sandbox.pusher import Pusher
from fanoutd.sandbox.quota import Quota
from fanoutd.sandbox.repeats import Repeats
from fanoutd.sandbox.rids import Rids
from fanoutd.sandbox.routes import Route
from fanoutd.sandbox.stats import Stats
from fanoutd.sandbox.templates import Templates
from fanoutd.sandbox.tokens import Tokens
from fanoutd.sandbox.trouble import Trouble
from fanoutd.sandbox.windows import Windows

#: Where msgids begin: beyond what a 32-bit integer or a float can hold.
_FIRST_MSGID = 3_717_005_636_572_528_642


class Sandbox:
    """All that the API knows, each part in a module of its own. One account, whatever the app_id.

    ``on_refuse`` is called with the seconds whenever connections are to be refused for a while.
    """

    def __init__(self, options: Options, ledger: Ledger, first_msgid: int = _FIRST_MSGID) -> None:
        self.options = options
        self.api = routes.API
        self.on_refuse: Callable[[float], None] = lambda _seconds: None
        self.ledger = ledger
        self.msgids = itertools.count(first_msgid)
        self.stats = Stats()
        self.tokens = Tokens()
        self.people = People()
        self.followers = Followers()
        self.templates = Templates()
        self.windows = Windows()
        self.repeats = Repeats()
        self.quota = Quota()
        self.trouble = Trouble()
        self.rids = Rids()
        self.events = Events()
        self.pusher = Pusher()
        self._random = Random(options.seed)

    def answer(self, request: Request, now: float) -> Reply:
        """The reply to a request at ``now``, seconds since 1970. A message is in the ledger by then."""
        path = request.path
        route = self.api.get(path)
        known = route is not None or path in control.ENDPOINTS
        self.stats.requests[path if known else "other"] += 1
        if not known or request.method not in ("GET", "POST"):
            return json_reply({"error": "no such endpoint"}, 404)
        if route is None:
            return control.answer(self, request, now)
        return replace(self._called(route, request, now), delay=self._delay())

    def _called(self, route: Route, request: Request, now: float) -> Reply:
        if route.channel:
            self.stats.sending(now)
        try:
            name = self.trouble.meet(request.path)
            if not name:
                return self._proper(route, request, now)
            self.stats.faults[name] += 1
            fault = FAULTS[name]
            return spoil(self._proper(route, request, now) if fault.accepts else json_reply(None), fault.ending)
        except Refused as refusal:
            return self.refuse(refusal, request, now)

    def _proper(self, route: Route, request: Request, now: float) -> Reply:
        """Raises Refused."""
        if request.method != route.method:
            raise Refused(43001 if route.method == "GET" else 43002)
        if route.token:
            self.tokens.check(request.parameter("access_token"), now)
        if route.channel and self.options.minute_limit:
            self.quota.take_minute(request.path, self.options.minute_limit, now)
        self.quota.take(request.path, route.limit(self.options))
        return route.endpoint(self, request, now)

    def refuse(self, refusal: Refused, request: Request, now: float) -> Reply:
        """The answer with the errcode; its rid can be asked for."""
        self.stats.refused[refusal.errcode] += 1
        document = refusal.document(self.rids.new(request, refusal, now))
        return json_reply(document)

    def _delay(self) -> float:
        options = self.options
        if not options.latency or not options.spread:
            return options.latency
        return options.latency * self._random.lognormvariate(0.0, options.spread)
