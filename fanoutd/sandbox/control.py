"""``/_sandbox/…``: how tests steer the sandbox and see what it saw. These endpoints speak HTTP status codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fanoutd.sandbox import access, bodies
from fanoutd.sandbox.errcodes import Refused, new_rid
from fanoutd.sandbox.http import Reply, Request, json_reply
from fanoutd.sandbox.pusher import Push

if TYPE_CHECKING:
    from fanoutd.sandbox.app import Sandbox

_MOST_PUSHES = 100_000


def answer(sandbox: Sandbox, request: Request, now: float) -> Reply:
    """The reply of one of ENDPOINTS; 400 with ``error`` for what makes no sense."""
    try:
        return json_reply(ENDPOINTS[request.path](sandbox, request, now))
    except (ValueError, RecursionError) as error:
        return json_reply({"error": str(error)}, 400)


def _stats(sandbox: Sandbox, _request: Request, _now: float) -> object:
    """See Stats.as_dict; ``pushes``: see Pusher.counts."""
    return sandbox.stats.as_dict() | {"pushes": sandbox.pusher.counts()}


def _options(sandbox: Sandbox, request: Request, _now: float) -> object:
    """GET shows the switches, POST changes those in the body."""
    if request.method == "POST":
        changes = _object(request)
        sandbox.options = sandbox.options.changed(changes)
        if "refuse" in changes:
            sandbox.on_refuse(sandbox.options.refuse)
    return sandbox.options.as_dict()


def _people(sandbox: Sandbox, request: Request, _now: float) -> object:
    """See People.script."""
    return {"people": sandbox.people.script(_document(request))}


def _followers(sandbox: Sandbox, request: Request, _now: float) -> object:
    """See Followers.set."""
    return sandbox.followers.set(_document(request))


def _templates(sandbox: Sandbox, request: Request, _now: float) -> object:
    """See Templates.set."""
    return {"templates": sandbox.templates.set(_document(request))}


def _revoke(sandbox: Sandbox, _request: Request, now: float) -> object:
    """All tokens are dead, with 40001."""
    return {"revoked": sandbox.tokens.revoke(now)}


def _errors(sandbox: Sandbox, request: Request, _now: float) -> object:
    """See Trouble.set."""
    return {"paths": sandbox.trouble.set(_document(request), sandbox.api)}


def _token_error(sandbox: Sandbox, request: Request, _now: float) -> object:
    """The same for both endpoints that give out tokens, or for the one in ``path``; without an errcode it ends."""
    given = _object(request)
    paths = [given.pop("path")] if given.get("path") else access.PATHS
    if not set(paths) <= set(access.PATHS):
        raise ValueError(f"the paths are {' and '.join(access.PATHS)}")
    return {"paths": sandbox.trouble.set(dict.fromkeys(paths, given), access.PATHS)}


def _new_day(sandbox: Sandbox, request: Request, _now: float) -> object:
    """Nothing was used yet today; with ``{"month": true}`` nothing was set back yet this month."""
    sandbox.quota.new_day(_object(request).get("month") is True)
    return {}


def _interact(sandbox: Sandbox, request: Request, now: float) -> object:
    """``{"openid", "event", "at"?, "push"?}``: see windows.TRIGGERS; with ``push`` its event is pushed as well."""
    given = _object(request)
    openid, event, at = _openid(given.get("openid")), given.get("event", "message"), given.get("at", now)
    if not isinstance(at, int | float) or isinstance(at, bool) or not isinstance(event, str):
        raise ValueError("at is a number of seconds since 1970, event a word")
    sandbox.windows.interact(openid, event, float(at))
    fields = sandbox.events.action(openid, event, at) if given.get("push") else None
    if fields is not None:
        _send(sandbox, Push(openid, fields))
    return {}


def _push(sandbox: Sandbox, request: Request, now: float) -> object:
    """``{"fields" or "xml", "delay"?, "times"?, "forged"?}``, or ``{"verify": true}`` for URL verification.

    ``fields`` are completed by Events.complete; ``xml`` goes out as it is; ``times`` are copies of one push.
    """
    given = _object(request)
    times, delay = given.get("times", 1), given.get("delay", 0)
    if not isinstance(times, int) or not 1 <= times <= _MOST_PUSHES or not isinstance(delay, int | float):
        raise ValueError(f"times is 1 to {_MOST_PUSHES}, delay a number of seconds")
    push = _made(sandbox, given, now)
    for _ in range(times):
        _send(sandbox, push, delay)
    return {"pushed": times, "xml": "" if push.echo else push.text}


def _made(sandbox: Sandbox, given: Mapping[str, Any], now: float) -> Push:
    forged = given.get("forged") is True
    if given.get("verify"):
        return Push(echo=new_rid(), forged=forged)
    fields, xml = given.get("fields"), given.get("xml")
    if isinstance(xml, str) and xml:
        return Push("oSOMEBODY", xml=xml, forged=forged)
    if not isinstance(fields, dict):
        raise ValueError("wants fields, an object of what stands in the XML, or xml, or verify")
    complete = sandbox.events.complete(fields, now)
    return Push(str(complete["FromUserName"]), complete, forged=forged)


def _send(sandbox: Sandbox, push: Push, delay: float = 0.0) -> None:
    if not sandbox.options.callback_url:
        raise ValueError("set callback_url first")
    sandbox.pusher.push(push, sandbox.options, delay)


def _pushes(sandbox: Sandbox, _request: Request, _now: float) -> object:
    """``{"pushes": […]}``: see Pusher.done."""
    return {"pushes": sandbox.pusher.done()}


Control = Callable[["Sandbox", Request, float], object]

ENDPOINTS: Mapping[str, Control] = MappingProxyType(
    {
        f"/_sandbox/{name}": control
        for name, control in {
            "stats": _stats,
            "options": _options,
            "people": _people,
            "followers": _followers,
            "templates": _templates,
            "revoke": _revoke,
            "errors": _errors,
            "token_error": _token_error,
            "new_day": _new_day,
            "interact": _interact,
            "push": _push,
            "pushes": _pushes,
        }.items()
    }
)


def _document(request: Request) -> object:
    return json.loads(request.body or b"{}")


def _object(request: Request) -> dict[str, Any]:
    document = _document(request)
    if not isinstance(document, dict):
        raise ValueError("wants an object")
    return document


def _openid(value: object) -> str:
    try:
        return bodies.check_openid(value)
    except Refused:
        raise ValueError("wants an openid") from None
