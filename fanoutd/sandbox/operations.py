"""The endpoints for operators: quotas, failed requests, addresses, the check of the account's server, templates."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from fanoutd.sandbox import bodies
from fanoutd.sandbox.errcodes import Refused
from fanoutd.sandbox.http import Reply, Request, json_reply

if TYPE_CHECKING:
    from fanoutd.sandbox.app import Sandbox

_OK = {"errcode": 0, "errmsg": "ok"}
_ADDRESSES = ("127.0.0.1",)
_OPERATORS = ("DEFAULT", "CHINANET", "UNICOM", "CAP")


def all_templates(sandbox: Sandbox, _request: Request, _now: float) -> Reply:
    """``GET /cgi-bin/template/get_all_private_template``."""
    return json_reply({"template_list": sandbox.templates.shown()})


def get_quota(sandbox: Sandbox, request: Request, _now: float) -> Reply:
    """``POST /cgi-bin/openapi/quota/get``."""
    path = _cgi_path(sandbox, request)
    route, options = sandbox.api[path], sandbox.options
    minute = options.minute_limit if route.channel else 0
    return json_reply(_OK | sandbox.quota.report(path, route.limit(options), minute))


def clear_quota(sandbox: Sandbox, request: Request, _now: float) -> Reply:
    """``POST /cgi-bin/clear_quota``."""
    sandbox.stats.quota_clears += 1
    if not bodies.parse(request.body).get("appid"):
        raise Refused(41002)
    sandbox.quota.clear()
    return json_reply(_OK)


def clear_quota_v2(sandbox: Sandbox, request: Request, _now: float) -> Reply:
    """``POST /cgi-bin/clear_quota/v2``, with appid and appsecret in the query or, as a form or JSON, in the body."""
    sandbox.stats.quota_clears += 1
    for name, errcode in (("appid", 41002), ("appsecret", 41004)):
        if not (request.parameter(name) or _given(request, name)):
            raise Refused(errcode)
    sandbox.quota.clear()
    return json_reply(_OK)


def clear_one_quota(sandbox: Sandbox, request: Request, _now: float) -> Reply:
    """``POST /cgi-bin/openapi/quota/clear``."""
    sandbox.stats.quota_clears += 1
    sandbox.quota.clear_one(_cgi_path(sandbox, request))
    return json_reply(_OK)


def get_rid(sandbox: Sandbox, request: Request, _now: float) -> Reply:
    """``POST /cgi-bin/openapi/rid/get``."""
    return json_reply(_OK | {"request": sandbox.rids.report(bodies.parse(request.body).get("rid"))})


def ip_list(_sandbox: Sandbox, _request: Request, _now: float) -> Reply:
    """``GET /cgi-bin/get_api_domain_ip`` and ``GET /cgi-bin/getcallbackip``."""
    return json_reply({"ip_list": _ADDRESSES})


def check_callback(sandbox: Sandbox, request: Request, _now: float) -> Reply:
    """``POST /cgi-bin/callback/check``: every check comes out well."""
    body = bodies.parse(request.body)
    action, operator = body.get("action"), body.get("check_operator", "DEFAULT")
    if not sandbox.options.callback_url:
        raise Refused(40201)
    if action not in ("dns", "ping", "all"):
        raise Refused(40202)
    if operator not in _OPERATORS:
        raise Refused(40203)
    dns = [{"ip": ip, "real_operator": operator} for ip in _ADDRESSES]
    ping = [{"ip": ip, "from_operator": operator, "package_loss": "0%", "time": "0.100ms"} for ip in _ADDRESSES]
    found = {"dns": dns, "ping": ping}
    return json_reply(_OK | (found if action == "all" else {action: found[action]}))


def _cgi_path(sandbox: Sandbox, request: Request) -> str:
    path = bodies.parse(request.body).get("cgi_path")
    if not isinstance(path, str) or path not in sandbox.api:
        raise Refused(76003)
    return path


def _given(request: Request, name: str) -> object:
    if request.body.lstrip().startswith(b"{"):
        return bodies.parse(request.body).get(name)
    return parse_qs(request.body.decode("utf-8", "replace")).get(name)
