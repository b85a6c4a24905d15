"""The three channels: custom messages, template messages, subscription notifications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fanoutd.sandbox import bodies, msgtypes
from fanoutd.sandbox.errcodes import Refused
from fanoutd.sandbox.http import Reply, Request, json_reply, spoil
from fanoutd.sandbox.people import FAULTS, Turn
from fanoutd.sandbox.pusher import Push

if TYPE_CHECKING:
    from fanoutd.sandbox.app import Sandbox


def custom(sandbox: Sandbox, request: Request, now: float) -> Reply:
    """``POST /cgi-bin/message/custom/send``: no msgid, no event, no protection against repeats."""
    body = bodies.parse(request.body)
    msgtypes.check_custom(body)
    return _decide(sandbox, "custom", body, request, now)


def template(sandbox: Sandbox, request: Request, now: float) -> Reply:
    """``POST /cgi-bin/message/template/send``."""
    body = bodies.parse(request.body)
    sandbox.templates.check("template", body, sandbox.options.lenient)
    return _decide(sandbox, "template", body, request, now)


def subscribe(sandbox: Sandbox, request: Request, now: float) -> Reply:
    """``POST /cgi-bin/message/subscribe/bizsend``: has a msgid, and no client_msg_id."""
    body = bodies.parse(request.body)
    sandbox.templates.check("subscribe", body, sandbox.options.lenient)
    return _decide(sandbox, "subscribe", body, request, now)


def typing(sandbox: Sandbox, request: Request, now: float) -> Reply:
    """``POST /cgi-bin/message/custom/typing``."""
    body = bodies.parse(request.body)
    openid = bodies.check_openid(body.get("touser"))
    sandbox.windows.typing(openid, body.get("command"), now, sandbox.options.windows)
    return json_reply({"errcode": 0, "errmsg": "ok"})


def _decide(sandbox: Sandbox, channel: str, body: dict[str, Any], request: Request, now: float) -> Reply:
    turn = sandbox.people.turn(channel, body["touser"], sandbox.options)
    if not turn.fault:
        return _proper(sandbox, channel, body, turn, request, now)
    sandbox.stats.faults[turn.fault] += 1
    fault = FAULTS[turn.fault]
    if not fault.accepts:
        return spoil(json_reply(None), fault.ending)
    return spoil(_proper(sandbox, channel, body, turn, request, now), fault.ending)


def _proper(
    sandbox: Sandbox, channel: str, body: dict[str, Any], turn: Turn, request: Request, now: float
) -> Reply:
    errcode = turn.errcode if turn.scripted else _errcode(sandbox, channel, body["touser"], turn, now)
    if errcode:
        return sandbox.refuse(Refused(errcode), request, now)
    answer: dict[str, object] = {"errcode": 0, "errmsg": "ok"}
    if channel == "custom":
        _accept(sandbox, channel, body, now, None)
        sandbox.windows.sent(body["touser"], now)
    else:
        answer["msgid"] = _accept_once(sandbox, channel, body, now)
    return json_reply(answer)


def _errcode(sandbox: Sandbox, channel: str, openid: str, turn: Turn, now: float) -> int:
    """Of somebody without a script: by blacklist and departure, the fate, and with them on by windows."""
    standing = sandbox.followers.refusal(openid)
    if standing:
        return standing
    if channel != "custom" or not sandbox.options.windows or turn.errcode not in (0, 45015, 45047):
        return turn.errcode
    return sandbox.windows.refusal(openid, now)


def _accept_once(sandbox: Sandbox, channel: str, body: dict[str, Any], now: float) -> int:
    """The msgid of this message, or of the earlier one with its client_msg_id."""
    key = (body["touser"], str(body.get("client_msg_id") or "") if channel == "template" else "")
    known = sandbox.repeats.find(key, now)
    if known is not None:
        sandbox.stats.duplicates += 1
        return known
    msgid = next(sandbox.msgids)
    _accept(sandbox, channel, body, now, msgid)
    if key[1]:
        sandbox.repeats.remember(key, msgid, now, sandbox.options.dedupe)
    if sandbox.options.callback_url:
        _announce(sandbox, channel, body, msgid, now)
    return msgid


def _accept(sandbox: Sandbox, channel: str, body: dict[str, Any], now: float, msgid: int | None) -> None:
    sandbox.ledger.write(channel, body, now, msgid)
    sandbox.stats.accepted[channel] += 1


def _announce(sandbox: Sandbox, channel: str, body: dict[str, Any], msgid: int, now: float) -> None:
    """Push the finish events; those that come before the answer hold up everybody."""
    options = sandbox.options
    for event in sandbox.events.finished(channel, body, msgid, now, options):
        push = Push(body["touser"], event.fields)
        if options.event_first:
            sandbox.pusher.push_at_once(push, options)
        else:
            sandbox.pusher.push(push, options, event.delay)
