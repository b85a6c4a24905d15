"""Where access tokens come from: WeChat's two endpoints, or a table that another system keeps.

Each source is a function that returns a Token or raises Refused. The two endpoints have pools of their own: a
stable and a classic token live side by side (by WeChat's page on stable tokens).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeGuard
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import requests

from fanoutd.config import Account, TokenQuery
from fanoutd.dispatcher import token_advice
from fanoutd.dispatcher.operator_db import OperatorDatabaseAway, select
from fanoutd.store.tokens import NEVER, Token
from fanoutd.times import iso, wall_ms

#: While the operator's table has no token that can be used it is read again after so many seconds.
READ_EVERY = 5.0
#: Seconds that its database may take for an answer.
_PATIENCE = 10.0

#: It goes into a URL as it is; WeChat's have letters, digits, - and _ .
_TOKEN = re.compile(r"[A-Za-z0-9._~!*-]{1,2048}")

#: Columns of the operator's query that are not the token.
_EXPIRY = ("expires_at", "expires_in")

#: Seconds since 1970 as text.
_SECONDS = re.compile(r"\d+(\.\d*)?")

#: Seconds that no token lives: WeChat's have 7,200 at most, and may change.
_LONGEST = 10**9

#: From this number on it counts milliseconds since 1970, not seconds.
_MILLISECONDS = 10**11


class Refused(Exception):
    """No token: the words, whether somebody has to do something about it, and when to ask again.

    ``wait`` in seconds, None for growing pauses; ``code`` is WeChat's errcode, if it gave one.
    """

    def __init__(self, words: str, fatal: bool, wait: float | None = None, code: int | None = None) -> None:
        super().__init__(words)
        self.fatal, self.wait, self.code = fatal, wait, code


def source(account: Account) -> str:
    """``stable``, ``classic`` or ``database``."""
    return "database" if isinstance(account.token, TokenQuery) else account.token


def fetch(account: Account, force: bool = False) -> Token:
    """From the account's source. Raises Refused. ``force``: see ``stable``; for the others it means nothing."""
    if isinstance(account.token, TokenQuery):
        return from_table(account, account.token)
    return classic(account) if account.token == "classic" else stable(account, force)


def stable(account: Account, force: bool = False) -> Token:
    """The same token for whoever asks, until five minutes before its end. Raises Refused.

    ``force`` kills it at once and gives another: only for an operator who knows that it has leaked.
    """
    body = _credentials(account) | {"force_refresh": force}
    return _ask(account, "POST", "/cgi-bin/stable_token", json=body)


def classic(account: Account) -> Token:
    """A new token each time; the one before it dies five minutes later. Raises Refused."""
    return _ask(account, "GET", "/cgi-bin/token", params=_credentials(account))


def _credentials(account: Account) -> dict[str, Any]:
    return {"grant_type": "client_credential", "appid": account.app_id, "secret": account.app_secret}


def _ask(account: Account, method: str, path: str, **what: Any) -> Token:
    at, host = wall_ms(), urlsplit(account.api_base).netloc.rpartition("@")[2]
    patience = (account.connect_timeout, account.timeout)
    try:
        answer = requests.request(method, account.api_base + path, timeout=patience, allow_redirects=False, **what)
    except requests.RequestException as e:  # its text may repeat the address, and the secret in it: only its kind
        raise Refused(f"{host} does not answer ({type(e).__name__})", fatal=False) from None
    try:
        document = answer.json()
    except (ValueError, RecursionError):
        raise Refused(f"{host} answers HTTP {answer.status_code} and no JSON; look at api_base", fatal=False) from None
    return understood(document, at, account.app_secret or "")


def understood(answer: object, at: int, secret: str = "") -> Token:
    """The endpoint's answer to a call that was made at ``at``. Raises Refused."""
    if isinstance(answer, dict):
        text, seconds, errcode = answer.get("access_token"), answer.get("expires_in"), answer.get("errcode")
        if isinstance(text, str) and _TOKEN.fullmatch(text) and _whole(seconds) and seconds < _LONGEST:
            if seconds <= 0:
                raise Refused("WeChat hands out a token without any life left", fatal=False)
            return Token(text, at + seconds * 1000, at)
        if _whole(errcode) and errcode != 0:
            raise _refusal(errcode, _plain(answer.get("errmsg"), secret), at)
    raise Refused("the token endpoint's answer cannot be understood; look at api_base", fatal=False)


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _plain(errmsg: object, secret: str) -> str:
    text = " ".join(str(errmsg or "").split())[:200]
    return text.replace(secret, "***") if secret else text


def _refusal(errcode: int, errmsg: str, at: int) -> Refused:
    advice = token_advice.advice(errcode)
    wait = token_advice.until_tomorrow(at) if advice.tomorrow else advice.wait
    return Refused(token_advice.words(errcode, errmsg), advice.fatal, wait, errcode)


def from_table(account: Account, query: TokenQuery) -> Token:
    """What stands in the operator's table now; it is read, never fetched for. Raises Refused.

    The token is the first column that is neither ``expires_at`` (seconds or milliseconds since 1970, or a time, in
    the account's timezone if it names none) nor ``expires_in`` (the seconds left). Without these its end is not known.
    """
    place = f"[account.{account.name}.token]"
    try:
        found = select(query.database, query.query, {"account": account.name}, _PATIENCE)
        row = next(found.rows, None)
    except OperatorDatabaseAway as e:
        raise Refused(f"{place} {e}", fatal=False, wait=READ_EVERY) from None
    try:
        return _row(found.columns, row, wall_ms(), account.timezone)
    except ValueError as e:
        raise Refused(f"{place} query: {e}", fatal=False, wait=READ_EVERY) from None


def _row(columns: Sequence[str], row: Sequence[Any] | None, at: int, timezone: str) -> Token:
    """Raises ValueError in words that do not repeat the token."""
    if row is None:
        raise ValueError("it gives no row; is there a token in the table?")
    named = dict(zip(columns, row, strict=True))
    text = next((named[name] for name in columns if name not in _EXPIRY), None)
    if not isinstance(text, str) or not _TOKEN.fullmatch(text):
        raise ValueError("its first column holds no access token")
    token = Token(text, _end(named, at, timezone), at)
    if not token.good(at):
        raise ValueError(f"the token ended at {iso(token.expires_at)}; whoever keeps the table must renew it")
    return token


def _end(named: dict[str, Any], at: int, timezone: str) -> int:
    if (left := named.get("expires_in")) is not None:
        return at + int(_number(left, "expires_in") * 1000)
    if (end := named.get("expires_at")) is None:
        return NEVER
    if isinstance(end, str) and not _SECONDS.fullmatch(end.strip()):
        return _moment(end, timezone)
    seconds = _number(end, "expires_at")
    return int(seconds if seconds >= _MILLISECONDS else seconds * 1000)


def _number(value: Any, column: str) -> float:
    try:
        number = float(value)
        if abs(number) < 1 << 53:  # neither infinite nor no number at all
            return number
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{column} is no number of seconds")


def _moment(text: str, timezone: str) -> int:
    try:
        when = datetime.fromisoformat(text.strip())
        when = when if when.tzinfo else when.replace(tzinfo=ZoneInfo(timezone))
        return int(when.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ValueError("expires_at is no time; write 2026-01-02 15:04:05, or seconds since 1970") from None
