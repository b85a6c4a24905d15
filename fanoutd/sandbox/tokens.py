"""Access tokens: the two pools of each account, by the rules of WeChat's token pages.

Times are seconds on one clock, passed in.
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass, field

from fanoutd.sandbox.errcodes import Refused

#: Old and new token overlap by 300 s of 7200; the sandbox keeps that share for shorter lives.
OVERLAP = 300 / 7200

FORCED_APART = 30.0
FORCED_A_DAY = 20
_DAY = 86400.0


@dataclass(slots=True)
class _Token:
    text: str
    expires: float
    killed: float | None = None
    """From when on it is refused with 40001, whatever its expiry."""

    def refusal(self, now: float) -> int:
        if self.killed is not None and now >= self.killed:
            return 40001
        return 42001 if now >= self.expires else 0


@dataclass(slots=True)
class _Pool:
    current: _Token | None = None
    forced: deque[float] = field(default_factory=deque)


class Tokens:
    """All tokens ever given out. A plain and a stable one of one account know nothing of each other."""

    def __init__(self) -> None:
        self._pools: dict[tuple[str, str], _Pool] = {}
        self._tokens: dict[str, _Token] = {}

    def plain(self, app_id: str, now: float, life: float) -> tuple[str, int]:
        """(a new token, its life); the one before it dies after the overlap."""
        pool = self._pool("plain", app_id)
        if pool.current is not None and pool.current.killed is None:
            pool.current.killed = now + life * OVERLAP
        return _answer(self._issue(pool, now, life), now)

    def stable(self, app_id: str, now: float, life: float, force: bool = False) -> tuple[str, int]:
        """(the current token, what remains of its life); a new one when less than the overlap remains."""
        pool = self._pool("stable", app_id)
        if force and pool.current is not None and _may_force(pool, now):
            pool.current.killed = now
        current = pool.current
        if current is None or current.killed is not None or now >= current.expires - life * OVERLAP:
            current = self._issue(pool, now, life)
        return _answer(current, now)

    def check(self, text: str, now: float) -> None:
        """Raises Refused unless the token is good."""
        token = self._tokens.get(text)
        refusal = 41001 if not text else 40001 if token is None else token.refusal(now)
        if refusal:
            raise Refused(refusal)

    def revoke(self, now: float) -> int:
        """Every token is dead at once; how many were good."""
        good = [token for token in self._tokens.values() if not token.refusal(now)]
        for token in good:
            token.killed = now
        return len(good)

    def _pool(self, kind: str, app_id: str) -> _Pool:
        return self._pools.setdefault((kind, app_id), _Pool())

    def _issue(self, pool: _Pool, now: float, life: float) -> _Token:
        pool.current = token = _Token(f"92_{secrets.token_urlsafe(96)}", now + life)
        self._tokens[token.text] = token
        return token


def _answer(token: _Token, now: float) -> tuple[str, int]:
    # WeChat tells whole seconds; a life of less than one still has to be a life.
    return token.text, max(1, int(token.expires - now))


def _may_force(pool: _Pool, now: float) -> bool:
    """Raises Refused when the day's forced refreshes are used up; too soon is no error, but no refresh."""
    while pool.forced and pool.forced[0] <= now - _DAY:
        pool.forced.popleft()
    if pool.forced and now < pool.forced[-1] + FORCED_APART:
        return False
    if len(pool.forced) >= FORCED_A_DAY:
        raise Refused(45009)
    pool.forced.append(now)
    return True
