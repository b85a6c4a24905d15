"""How an account stands with its token, and when to look again: rules without clock, socket or store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fanoutd.store.tokens import Token, fingerprint
from fanoutd.times import iso

#: WeChat renews a stable token five minutes before it ends, the old one working on beside it.
RENEW_BEFORE_MS = 290_000

#: For a token that WeChat refuses another one is fetched no sooner than so many seconds after the last such fetch.
REFUSED_EVERY = 30.0

#: What goes on being refused is probed at growing intervals up to this one, in seconds.
PROBE_AT_MOST = 900.0

#: By WeChat's page on stable tokens: forced refreshes closer together than so many seconds, or beyond so many a day, do
#: nothing.
FORCED_APART_MS, FORCED_A_DAY = 30_000, 20
_DAY_MS = 86_400_000


@dataclass(slots=True)
class Standing:
    """One account. Times are CLOCK_MONOTONIC seconds."""

    error: str | None = None
    """Why there is no good or no new token."""
    code: int | None = None
    fatal: bool = False
    """Somebody has to do something; its campaigns are paused."""
    failures: int = 0
    """Fetches in a row that gave none."""
    next_at: float = 0.0
    """Not asked by itself before this."""
    refused: str = ""
    """The fingerprint of the text that WeChat refused last."""
    rejected: bool = False
    """It was refused although WeChat had vouched for it, or given another for the one before it."""
    replaced_at: float = -REFUSED_EVERY
    """When a token was last fetched because one was refused."""
    probes: int = 0
    probed_at: float = field(default=-4 * PROBE_AT_MOST)
    fetched_at: float = 0.0

    def refuses(self, token: Token) -> bool:
        """Whether it is this token that WeChat refused last."""
        return bool(self.refused) and fingerprint(token.text) == self.refused

    def usable(self, token: Token | None, now: int) -> bool:
        """Whether workers may send with it, at ``now`` in milliseconds since 1970."""
        return token is not None and token.good(now) and not self.refuses(token)

    def probe(self, at: float) -> float:
        """Seconds until campaigns that were stopped by a refusal are let go on: longer each time in a row."""
        self.probes = self.probes + 1 if at - self.probed_at < 4 * PROBE_AT_MOST else 1
        self.probed_at = at
        return min(REFUSED_EVERY * 2.0 ** min(self.probes - 1, 10), PROBE_AT_MOST)


def renew_in(token: Token, now: int) -> float:
    """Seconds until another one should be asked for: 290 s before its end.

    At the end of its life it is asked for every 30 s or at half of what is left, at least a second from now: WeChat
    may hand out the same token with less and less life in it.
    """
    left = (token.expires_at - now) / 1000
    return max(left - RENEW_BEFORE_MS / 1000, min(30.0, max(1.0, left / 2)))


def due(standing: Standing, token: Token | None, paused: bool, at: float, now: int) -> bool:
    """Whether to fetch by ourselves. ``paused``: some of its campaigns are, for want of a token."""
    if at < standing.next_at:
        return standing.error is None and (token is None or paused)
    ends = token is None or token.expires_at - now < RENEW_BEFORE_MS
    return ends or paused or standing.error is not None


def too_often(forced: list[int], now: int) -> str | None:
    """Why none may be forced at ``now``, or None. ``forced``: when it was done before; milliseconds since 1970."""
    of_late = [each for each in forced if now - _DAY_MS < each <= now]
    if of_late and now - of_late[-1] < FORCED_APART_MS:
        wait = (FORCED_APART_MS - (now - of_late[-1]) + 999) // 1000
        return f"a refresh was forced {(now - of_late[-1]) // 1000} s ago, and WeChat does it once in 30 s; " \
               f"try again in {wait} s"  # fmt: skip
    if len(of_late) >= FORCED_A_DAY:
        return f"WeChat takes {FORCED_A_DAY} forced refreshes a day; the next is possible at " \
               f"{iso(of_late[-FORCED_A_DAY] + _DAY_MS)}"  # fmt: skip
    return None


def masked(token: str) -> str:
    """At most the first and the last four characters, and never a quarter of it."""
    shown = min(4, len(token) // 16)
    return f"{token[:shown]}…{token[len(token) - shown:]}"


def shown(name: str, source: str, token: Token | None, standing: Standing, now: int) -> dict[str, Any]:
    """As ``token.get`` answers; ``now`` in milliseconds since 1970."""
    expiry = None if token is None else token.expiry
    return {
        "account": name,
        "token": None if token is None else masked(token.text),
        "source": source,
        "fetched_at": None if token is None else iso(token.fetched_at),
        "expires_at": None if expiry is None else iso(expiry),
        "expires_in": None if expiry is None else round((expiry - now) / 1000),
        "ok": standing.usable(token, now) and not standing.fatal,
        "error": standing.error,
    }
