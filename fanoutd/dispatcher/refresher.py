"""Access tokens: the one process that fetches them, and only when there is need.

The stable endpoint gives every caller the same token until five minutes before it ends, so a
fetch too many hurts nobody; what hurts is a forced refresh, which is never made here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import requests

from fanoutd.config import Account, Config
from fanoutd.outcome import Verdict, classify, describe
from fanoutd.store import Database, campaigns, tokens
from fanoutd.store.tokens import Token
from fanoutd.times import wall_ms

log = logging.getLogger(__name__)

#: WeChat renews a stable token five minutes before it ends, the old one working on beside it.
RENEW_BEFORE_MS = 290_000

#: A token that WeChat goes on refusing is asked for anew no sooner than after so many seconds.
REFUSED_EVERY = 30.0

#: Where a refusal of the whole account leaves off and a passing trouble begins.
_FATAL = (Verdict.ACCOUNT, Verdict.TOKEN)


class Refused(Exception):
    """No token: the words, and whether somebody has to do something about it."""

    def __init__(self, words: str, fatal: bool) -> None:
        super().__init__(words)
        self.fatal = fatal


class Refresher:
    """``renewed(account)`` is called when the store holds a token that workers may use."""

    def __init__(self, config: Config, renewed: Callable[[str], None]) -> None:
        self._accounts = config.accounts
        self._renewed = renewed
        self._locks = {name: threading.Lock() for name in config.accounts}
        self._last_refused: dict[str, float] = {}
        self.errors: dict[str, str] = {}
        """Why an account has no good token, by its name."""

    def check(self, db: Database, name: str) -> None:
        """Fetch when there is no token, or it ends soon, or the account is in trouble."""
        with self._locks[name]:
            token = tokens.load(db, name)
            if token is None or token.expires_at - wall_ms() < RENEW_BEFORE_MS or name in self.errors:
                self._fetch(db, name, refused=None)

    def refused(self, db: Database, name: str, fingerprint: str) -> None:
        """A worker was refused with this token ("": it has none). Compare first, then fetch, once."""
        with self._locks[name]:
            token = tokens.load(db, name)
            if token is not None and token.fingerprint != fingerprint and token.expires_at > wall_ms():
                self._renewed(name)
                return
            since = time.monotonic() - self._last_refused.get(name, -REFUSED_EVERY)
            if fingerprint and since < REFUSED_EVERY:
                return
            if fingerprint:
                self._last_refused[name] = time.monotonic()
            self._fetch(db, name, fingerprint)

    def _fetch(self, db: Database, name: str, refused: str | None) -> None:
        try:
            token = fetch(self._accounts[name])
            if token.fingerprint == refused:
                raise Refused("WeChat hands out the very token that it refuses; look at the account's console", True)
        except Refused as e:
            self._failed(db, name, e)
            return
        with db.transaction():
            tokens.save(db, name, token)
        self._recovered(db, name)
        log.info("account %s: token %s fetched, good for %d s", name, token.fingerprint,
                 (token.expires_at - token.fetched_at) // 1000)  # fmt: skip
        self._renewed(name)

    def _failed(self, db: Database, name: str, why: Refused) -> None:
        if self.errors.get(name) != str(why):
            log.error("account %s: no token: %s", name, why)
        self.errors[name] = str(why)
        with db.transaction():
            campaigns.explain(db, name, "token", str(why))
            if why.fatal:
                for each in campaigns.in_states(db, "running"):
                    if each.account == name:
                        campaigns.move(db, each.id, "running", "paused", cause="token", reason=str(why))

    def _recovered(self, db: Database, name: str) -> None:
        """Campaigns that stopped for want of a token go on by themselves."""
        self.errors.pop(name, None)
        with db.transaction():
            campaigns.explain(db, name, None, None)
            for each in campaigns.in_states(db, "paused"):
                if each.account == name and each.cause == "token":
                    campaigns.move(db, each.id, "paused", "running", cause=None, reason=None)


def fetch(account: Account) -> Token:
    """Ask the stable endpoint. Raises Refused."""
    if account.app_secret is None:
        raise Refused("a token from a database cannot be had in this version; set token = \"stable\"", fatal=True)
    at = wall_ms()
    body = {
        "grant_type": "client_credential",
        "appid": account.app_id,
        "secret": account.app_secret,
        "force_refresh": False,
    }
    try:
        answer = requests.post(
            f"{account.api_base}/cgi-bin/stable_token", json=body, timeout=(account.connect_timeout, account.timeout)
        ).json()
    except requests.RequestException as e:  # its text would repeat the address, not the body: still, only its kind
        raise Refused(f"{account.api_base} does not answer ({type(e).__name__})", fatal=False) from None
    return _token(answer, at)


def _token(answer: object, at: int) -> Token:
    if isinstance(answer, dict):
        text, seconds, errcode = answer.get("access_token"), answer.get("expires_in"), answer.get("errcode")
        if isinstance(text, str) and text and isinstance(seconds, int) and seconds > 0:
            return Token(text, at + seconds * 1000, at)
        if isinstance(errcode, int):
            words = f"{describe(errcode)} ({errcode} {str(answer.get('errmsg', ''))[:200]})"
            raise Refused(words, fatal=classify(errcode) in _FATAL)
    raise Refused("the token endpoint's answer cannot be understood", fatal=False)
