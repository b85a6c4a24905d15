"""The dispatcher's side of rate and quota: what is configured, what WeChat has counted, what people are told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests

from fanoutd import gates
from fanoutd.bucket import Bucket, bucket_path
from fanoutd.config import Account, Config, sqlite_path
from fanoutd.outcome import CHANNELS, channel_name, channel_number
from fanoutd.store import Database, campaigns, free_shards, quotas, shard_leases, tokens
from fanoutd.times import wall_ms

log = logging.getLogger(__name__)

#: By channel the path that WeChat's quota is asked for.
PATHS = {
    "custom": "/cgi-bin/message/custom/send",
    "template": "/cgi-bin/message/template/send",
    "subscribe": "/cgi-bin/message/subscribe/bizsend",
}

#: Campaigns that begin one after the other ask once, in seconds.
ASK_AGAIN = 60.0

#: After a rest WeChat may still say that nothing is left: it is asked again so much later.
NOT_YET_MS = 600_000


@dataclass(frozen=True, slots=True)
class Counted:
    """What WeChat says of a channel's calls today, good to about 1 % (field reports)."""

    limit: int
    used: int
    remain: int


class Limits:
    """``reopened()`` is called when people may be sent to again. Safe for several threads.

    ``leads``: whether this node does what one does for all. ``whole``: the account's rate over all nodes, where there
    may be several and it is known.
    """

    def __init__(
        self, config: Config, reopened: Callable[[Database], None], leads: Callable[[], bool] = lambda: True,
        whole: Callable[[str], float | None] = lambda _name: None,
    ) -> None:  # fmt: skip
        self._config, self._reopened, self._leads, self._whole = config, reopened, leads, whole
        self._asked: dict[str, float] = {}
        self._asking = threading.Lock()

    def start(self, db: Database) -> None:
        """What this configuration says is in force from here on; quiet hours and quota are looked at anew."""
        for account in self._config.accounts.values():
            if not db.shared:  # else ``parts`` feeds it
                bucket = self._bucket(account)
                bucket.configure(account.rate)
                bucket.close()
            with db.transaction():
                for channel in CHANNELS:
                    cap = account.daily_limit.get(channel)
                    quotas.cap(db, account.name, channel_number(channel), wall_ms(), cap)
                shard_leases.unpark(db, account.name)

    def begins(self, db: Database, name: str) -> None:
        """A campaign of the account begins: what is left is asked for, once for many."""
        if self._long_ago(name):
            self._ask_for(db, name, self._channels(db, name))

    def check(self, db: Database) -> None:
        """Now and then: of every account that is at work."""
        if not self._leads():
            return
        for name in {each.account for each in campaigns.in_states(db, "planning", "running")}:
            self._ask_for(db, name, self._channels(db, name))
        with db.transaction():
            quotas.tidy(db, wall_ms(), nobody_claimed=not free_shards.totals(db)[1])

    def sweep(self, db: Database) -> None:
        """Every few seconds: rests that are over, and what running campaigns wait for."""
        at = wall_ms()
        if not self._leads():
            return
        for name in self._config.accounts:
            found = quotas.known(db, name, at)
            ended = [channel for channel, quota in found.items() if quota.rest_until and quota.rest_until <= at]
            if ended and not self._asking.locked() and self._long_ago(name):
                self._ask_for(db, name, [channel for channel in self._channels(db, name) if channel in ended])
        self._tell(db, at)

    def rate(self, name: str) -> float:
        """Calls a second that the account may make now, on all nodes together, a rest aside."""
        whole = self._whole(name)
        return self.part(name) if whole is None else round(whole, 3)

    def part(self, name: str) -> float:
        """Calls a second that it may make from this node."""
        bucket = self._bucket(self._config.accounts[name])
        try:
            return round(bucket.in_force(), 3)
        finally:
            bucket.close()

    def quota(self, db: Database, name: str) -> dict[str, Any] | None:
        """``{channel: {limit, used, left}}`` of today, as far as known; None when nothing is."""
        return {
            str(channel_name(channel)): {
                "limit": quota.limit, "used": quota.used, "left": 0 if quota.rest_until else quota.left,
            }
            for channel, quota in sorted(quotas.known(db, name, wall_ms()).items())
        } or None  # fmt: skip

    def _long_ago(self, name: str) -> bool:
        return time.monotonic() - self._asked.get(name, -ASK_AGAIN) >= ASK_AGAIN

    def _bucket(self, account: Account) -> Bucket:
        shared = sqlite_path(self._config.store_url) is None
        return Bucket(bucket_path(self._config.daemon.state_dir, account.name), account.rate, shared)

    def _channels(self, db: Database, name: str) -> list[int]:
        """Those that the account's campaigns at work use."""
        used = {
            channel for each in campaigns.in_states(db, "planning", "running") if each.account == name
            for channel in gates.channels_of(each)
        }  # fmt: skip
        return sorted(used)

    def _ask_for(self, db: Database, name: str, channels: list[int]) -> None:
        with self._asking:
            account, token = self._config.accounts.get(name), tokens.load(db, name)
            if account is None or token is None:
                return
            self._asked[name] = time.monotonic()
            for channel in channels:
                counted = ask(account, token.text, str(channel_name(channel)))
                if counted is not None:
                    self._believe(db, name, channel, counted)

    def _believe(self, db: Database, name: str, channel: int, counted: Counted) -> None:
        at, reopened = wall_ms(), False
        with db.transaction():
            quotas.observe(db, name, channel, at, counted.limit, counted.used)
            quota = quotas.known(db, name, at)[channel]
            if quota.rest_until is not None and counted.remain > 0:
                quotas.reopen(db, name, channel)
                reopened = True
            elif quota.rest_until is not None and quota.rest_until <= at:
                quotas.rest(db, name, channel, at + NOT_YET_MS, at)
            if reopened or quota.left:
                shard_leases.unpark(db, name)
        if reopened:
            log.info("account %s: %s may be called again, %d calls left", name, channel_name(channel), counted.remain)
            self._reopened(db)

    def _tell(self, db: Database, at: int) -> None:
        for each in campaigns.in_states(db, "running"):
            account = self._config.accounts.get(each.account)
            shut = gates.look(db, account, each, at)
            words = gates.reason(shut, account.timezone if account else "UTC", at)
            cause = next((closed.cause for closed in shut.values()), None)
            if words != (each.reason or "") and (words or each.cause in gates.CAUSES):
                with db.transaction():
                    gates.tell(db, each, cause, words)


def ask(account: Account, token: str, channel: str) -> Counted | None:
    """What WeChat has counted today (`openapi/quota/get`); None when it does not say."""
    try:
        answer = requests.post(
            f"{account.api_base}/cgi-bin/openapi/quota/get", params={"access_token": token},
            json={"cgi_path": PATHS[channel]}, timeout=(account.connect_timeout, account.timeout),
        ).json()  # fmt: skip
    except requests.RequestException as e:  # its text would show the token
        log.info("account %s: the quota of %s is not known: %s", account.name, channel, type(e).__name__)
        return None
    return counted(answer)


def counted(answer: object) -> Counted | None:
    """The figures of an answer; None for one without."""
    quota = answer.get("quota") if isinstance(answer, dict) else None
    if not isinstance(quota, dict):
        return None
    figures = [quota.get(key) for key in ("daily_limit", "used", "remain")]
    if not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in figures):
        return None
    return Counted(*figures)  # type: ignore[arg-type]
