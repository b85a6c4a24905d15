"""The endpoints: a request and the time in, a reply out. Knows neither sockets nor clocks."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from types import MappingProxyType
from typing import Any

from fanoutd.sandbox import bodies
from fanoutd.sandbox.errcodes import Refused
from fanoutd.sandbox.http import Reply, Request, json_reply, spoil
from fanoutd.sandbox.ledger import Ledger
from fanoutd.sandbox.options import Options
from fanoutd.sandbox.people import FAULTS, People, Turn
from fanoutd.sandbox.repeats import Repeats
from fanoutd.sandbox.stats import Stats
from fanoutd.sandbox.tokens import Tokens

#: Where template msgids begin: beyond what a 32-bit integer or a float can hold.
_FIRST_MSGID = 3_717_005_636_572_528_642


class Sandbox:
    """All that the API knows: options, tokens, people, and what it accepted.

    ``on_refuse`` is called with the seconds whenever connections are to be refused for a while.
    """

    def __init__(self, options: Options, ledger: Ledger, first_msgid: int = _FIRST_MSGID) -> None:
        self.options = options
        self.stats = Stats()
        self.on_refuse: Callable[[float], None] = lambda _seconds: None
        self._ledger = ledger
        self._tokens = Tokens()
        self._people = People()
        self._random = Random(options.seed)
        self._msgids = itertools.count(first_msgid)
        self._repeats = Repeats()
        self._minute: defaultdict[str, deque[float]] = defaultdict(deque)

    def answer(self, request: Request, now: float) -> Reply:
        """The reply to a request at ``now``, seconds since 1970. A message is in the ledger by then."""
        endpoint = _ENDPOINTS.get(request.path)
        self.stats.requests[request.path if endpoint else "other"] += 1
        if endpoint is None or request.method not in ("GET", "POST"):
            return json_reply({"error": "no such endpoint"}, 404)
        if request.path.startswith("/_sandbox/"):
            return _controlled(endpoint, self, request, now)
        try:
            reply = endpoint(self, request, now)
        except Refused as refusal:
            reply = self._refuse(refusal)
        return replace(reply, delay=self._delay())

    def _refuse(self, refusal: Refused) -> Reply:
        self.stats.refused[refusal.errcode] += 1
        return json_reply(refusal.document())

    def _delay(self) -> float:
        options = self.options
        if not options.latency or not options.spread:
            return options.latency
        return options.latency * self._random.lognormvariate(0.0, options.spread)

    def token(self, request: Request, now: float) -> Reply:
        """``GET /cgi-bin/token``: a new token each time."""
        if request.method != "GET":
            raise Refused(43001)
        app_id = _credentials({name: request.parameter(name) for name in ("grant_type", "appid", "secret")})
        self.stats.token_fetches["plain"] += 1
        text, life = self._tokens.plain(app_id, now, self.options.token_life)
        return json_reply({"access_token": text, "expires_in": life})

    def stable_token(self, request: Request, now: float) -> Reply:
        """``POST /cgi-bin/stable_token``: the same token until shortly before its end."""
        if request.method != "POST":
            raise Refused(43002)
        body = bodies.parse(request.body)
        app_id = _credentials(body)
        self.stats.token_fetches["stable"] += 1
        force = body.get("force_refresh") is True
        text, life = self._tokens.stable(app_id, now, self.options.token_life, force)
        return json_reply({"access_token": text, "expires_in": life})

    def custom(self, request: Request, now: float) -> Reply:
        """``POST /cgi-bin/message/custom/send``."""
        body = self._admit("custom", request, now)
        bodies.check_custom(body)
        return self._decide("custom", body, now)

    def template(self, request: Request, now: float) -> Reply:
        """``POST /cgi-bin/message/template/send``."""
        body = self._admit("template", request, now)
        bodies.check_template(body, self.options.lenient)
        return self._decide("template", body, now)

    def _admit(self, channel: str, request: Request, now: float) -> dict[str, Any]:
        self.stats.sending(now)
        if request.method != "POST":
            raise Refused(43002)
        self._tokens.check(request.parameter("access_token"), now)
        self._take_minute(channel, now)
        return bodies.parse(request.body)

    def _take_minute(self, channel: str, now: float) -> None:
        if not self.options.minute_limit:
            return
        times = self._minute[channel]
        while times and times[0] <= now - 60.0:
            times.popleft()
        if len(times) >= self.options.minute_limit:
            raise Refused(45011)
        times.append(now)

    def _decide(self, channel: str, body: dict[str, Any], now: float) -> Reply:
        turn = self._people.turn(channel, body["touser"], self.options)
        if not turn.fault:
            return self._proper(channel, body, now, turn)
        self.stats.faults[turn.fault] += 1
        fault = FAULTS[turn.fault]
        reply = self._proper(channel, body, now, turn) if fault.accepts else json_reply(None)
        return spoil(reply, fault.ending)

    def _proper(self, channel: str, body: dict[str, Any], now: float, turn: Turn) -> Reply:
        if turn.errcode:
            return self._refuse(Refused(turn.errcode))
        answer = {"errcode": 0, "errmsg": "ok"}
        if channel == "template":
            return json_reply(answer | {"msgid": self._accept_once(body, now)})
        self._accept(channel, body, now, None)
        return json_reply(answer)

    def _accept_once(self, body: dict[str, Any], now: float) -> int:
        """The msgid of this message, or of the earlier one with its client_msg_id."""
        key = (body["touser"], str(body.get("client_msg_id") or ""))
        known = self._repeats.find(key, now)
        if known is not None:
            self.stats.duplicates += 1
            return known
        msgid = next(self._msgids)
        self._accept("template", body, now, msgid)
        if key[1]:
            self._repeats.remember(key, msgid, now, self.options.dedupe)
        return msgid

    def _accept(self, channel: str, body: dict[str, Any], now: float, msgid: int | None) -> None:
        self._ledger.write(channel, body, now, msgid)
        self.stats.accepted[channel] += 1

    def show_stats(self, _request: Request, _now: float) -> Reply:
        """``/_sandbox/stats``: see Stats.as_dict."""
        return json_reply(self.stats.as_dict())

    def set_options(self, request: Request, _now: float) -> Reply:
        """``/_sandbox/options``: GET shows the switches, POST changes those in the body."""
        if request.method == "POST":
            changes = _document(request)
            if not isinstance(changes, dict):
                raise ValueError("wants an object of switches")
            self.options = self.options.changed(changes)
            if "refuse" in changes:
                self.on_refuse(self.options.refuse)
        return json_reply(self.options.as_dict())

    def set_people(self, request: Request, _now: float) -> Reply:
        """``POST /_sandbox/people``: see People.script."""
        return json_reply({"people": self._people.script(_document(request))})

    def revoke(self, _request: Request, now: float) -> Reply:
        """``POST /_sandbox/revoke``: all tokens are dead, with 40001."""
        return json_reply({"revoked": self._tokens.revoke(now)})


Endpoint = Callable[[Sandbox, Request, float], Reply]

_ENDPOINTS: Mapping[str, Endpoint] = MappingProxyType(
    {
        "/cgi-bin/token": Sandbox.token,
        "/cgi-bin/stable_token": Sandbox.stable_token,
        "/cgi-bin/message/custom/send": Sandbox.custom,
        "/cgi-bin/message/template/send": Sandbox.template,
        "/_sandbox/stats": Sandbox.show_stats,
        "/_sandbox/options": Sandbox.set_options,
        "/_sandbox/people": Sandbox.set_people,
        "/_sandbox/revoke": Sandbox.revoke,
    }
)


def _credentials(given: Mapping[str, object]) -> str:
    """The app_id. Raises Refused unless everything is there; any app_id and secret are good."""
    if given.get("grant_type") != "client_credential":
        raise Refused(40002)
    app_id, secret = given.get("appid"), given.get("secret")
    if not isinstance(app_id, str) or not app_id:
        raise Refused(41002)
    if not isinstance(secret, str) or not secret:
        raise Refused(41004)
    return app_id


def _document(request: Request) -> object:
    return json.loads(request.body or b"{}")


def _controlled(endpoint: Endpoint, sandbox: Sandbox, request: Request, now: float) -> Reply:
    """The sandbox's own endpoints speak HTTP status codes."""
    try:
        return endpoint(sandbox, request, now)
    except (ValueError, RecursionError) as error:
        return json_reply({"error": str(error)}, 400)
