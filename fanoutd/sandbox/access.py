"""The two endpoints that give out access tokens. Any app_id and secret are good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fanoutd.sandbox import bodies
from fanoutd.sandbox.errcodes import Refused
from fanoutd.sandbox.http import Reply, Request, json_reply

if TYPE_CHECKING:
    from fanoutd.sandbox.app import Sandbox

PATHS = ("/cgi-bin/token", "/cgi-bin/stable_token")


def token(sandbox: Sandbox, request: Request, now: float) -> Reply:
    """``GET /cgi-bin/token``: a new token each time."""
    app_id = _credentials({name: request.parameter(name) for name in ("grant_type", "appid", "secret")})
    sandbox.stats.token_fetches["plain"] += 1
    text, life = sandbox.tokens.plain(app_id, now, sandbox.options.token_life)
    return json_reply({"access_token": text, "expires_in": life})


def stable_token(sandbox: Sandbox, request: Request, now: float) -> Reply:
    """``POST /cgi-bin/stable_token``: the same token until shortly before its end."""
    body = bodies.parse(request.body)
    app_id = _credentials(body)
    sandbox.stats.token_fetches["stable"] += 1
    force = body.get("force_refresh") is True
    text, life = sandbox.tokens.stable(app_id, now, sandbox.options.token_life, force)
    return json_reply({"access_token": text, "expires_in": life})


def _credentials(given: Mapping[str, object]) -> str:
    """The app_id. Raises Refused unless everything is there."""
    if given.get("grant_type") != "client_credential":
        raise Refused(40002)
    app_id, secret = given.get("appid"), given.get("secret")
    if not isinstance(app_id, str) or not app_id:
        raise Refused(41002)
    if not isinstance(secret, str) or not secret:
        raise Refused(41004)
    return app_id
