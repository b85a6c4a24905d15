"""Access tokens: the one process that fetches them, and only when there is need.

The stable endpoint gives every caller the same token until five minutes before it ends, so a
fetch too many hurts nobody; a classic fetch demotes the token before it, and a forced one kills it, which is done
only by an operator's word. What is fetched is compared first: whoever was refused with an older token than the one
that is there needs no fetch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from fanoutd.config import Account, Config
from fanoutd.dispatcher import token_advice, token_forced, token_shared
from fanoutd.dispatcher.cluster import Hold, nobody_else
from fanoutd.dispatcher.token_sources import READ_EVERY, Refused, fetch, source
from fanoutd.dispatcher.token_standing import REFUSED_EVERY, Standing, due, renew_in, shown
from fanoutd.store import Database, again_if_busy, campaigns, meta, reasons, tokens
from fanoutd.store.tokens import NEVER, Token
from fanoutd.times import wall_ms

__all__ = ["Refresher", "Refused", "fetch"]

log = logging.getLogger(__name__)

#: For how long an operator's refresh waits for a fetch that is under way, in seconds.
_PATIENCE = 15.0

#: An alarm must not ring before its time has come, in seconds.
_LATE = 0.05

#: When to look whether there is a pause that was written late, in seconds.
_SOON = 2.0

#: Before the end of a token's life, in milliseconds: who is refused with it then was late, no more.
_LAST_MOMENT_MS = 1_000
_AGAIN = "WeChat refuses the access token; another one is asked for within 30 s"
_SAME = "WeChat hands out the very token that it refuses; `fanoutd token refresh --force` makes it give another one"
_UNCHANGED = "WeChat refuses the token in the table ({place}); nothing is sent until another one stands there"


class Refresher:
    """``renewed(account)`` is called when the store holds a token that workers may use.

    ``later(account, seconds)`` has ``check`` called then; the last word counts. ``hold(db, name, patience)`` says
    whether no other node is at something of this name, and keeps it so within its block (``cluster``).
    """

    def __init__(
        self, config: Config, renewed: Callable[[str], None],
        later: Callable[[str, float], None] = lambda _name, _seconds: None, hold: Hold = nobody_else,
    ) -> None:
        self._accounts = config.accounts
        self._renewed = renewed
        self._later = later
        self._hold = hold
        self._told: dict[str, str] = {}  # the token that this node's workers last heard of
        self._locks = {name: threading.Lock() for name in config.accounts}
        self._standings = {name: Standing() for name in config.accounts}

    def begin(self, db: Database) -> None:
        """Forget tokens that came for another app_id or from another source than is configured now."""
        for name, account in self._accounts.items():
            origin = tokens.fingerprint(f"{account.app_id} {account.api_base} {account.token!r}")
            key = f"token_origin_{tokens.fingerprint(name)}"
            if meta.read(db, key) == origin:
                continue
            with db.transaction():
                before = meta.hold(db, key, "")
                if before not in ("", origin):
                    tokens.forget(db, name)
                meta.write(db, key, origin)

        if db.shared:
            for name in self._accounts:
                with self._turn(db, name) as mine:
                    if mine and self._standings[name].error is not None:  # what was wrong may be configured right now
                        self._standings[name].next_at = 0.0

    def shown(self, db: Database, name: str) -> dict[str, Any]:
        """As ``token.get`` answers."""
        standing = token_shared.load(db, name) if db.shared else self._standings[name]
        return shown(name, source(self._accounts[name]), tokens.load(db, name), standing, wall_ms())

    def check(self, db: Database, name: str, patience: float = 0.0) -> None:
        """Fetch when there is no token, or it ends soon, or the account is in trouble; read the operator's table.

        ``patience``: seconds to wait for a fetch that is under way, for whoever needs what it brings.
        """
        with self._turn(db, name, patience) as mine:
            if not mine:
                return
            token, standing = tokens.load(db, name), self._standings[name]
            paused = bool(_paused(db, name))
            if source(self._accounts[name]) == "database" or due(standing, token, paused, time.monotonic(), wall_ms()):
                self._fetch(db, name)
            elif token is not None and standing.error is None:
                self._later(name, renew_in(token, wall_ms()))

    def refused(self, db: Database, name: str, fingerprint: str, reason: str | None = None, token: bool = True) -> None:
        """A worker was refused with this token ("": it has none). Compare first, then fetch, once.

        ``reason``: not for the first time, and it has stopped; ``token`` false: it is the account that WeChat
        refuses, whatever the token.
        """
        with self._turn(db, name, _PATIENCE if reason else 0.0, _PATIENCE) as mine:
            if not mine:
                return  # whoever fetches tells all workers; who is refused with that one asks again
            there, standing = tokens.load(db, name), self._standings[name]
            if there is not None and there.fingerprint != fingerprint and standing.usable(there, wall_ms()):
                if not standing.fatal:
                    self._resumed(db, name)
                self._tell(name, there)
                if reason is not None:  # the pause that it means may reach the store after this
                    self._later(name, _SOON)
            elif reason is not None:
                self._rejected(db, name, there if token else None, reason)
            else:
                self._replace(db, name, there if there and there.fingerprint == fingerprint else None)

    def refresh(self, db: Database, name: str, force: bool = False) -> None:
        """Fetch at once, by an operator's word. Raises Refused."""
        account, began = self._accounts[name], time.monotonic()
        with self._turn(db, name, _PATIENCE) as mine:
            if not mine:
                raise Refused("a fetch is under way and takes its time; try again", fatal=False)
            if force and source(account) == "database":
                raise Refused("this token is read from a table and never fetched here; whoever keeps the table must "
                              "renew it", fatal=True)  # fmt: skip
            standing = self._standings[name]
            if not force and standing.error is None and standing.fetched_at > began:
                return  # somebody else has just done it
            if force and source(account) == "stable":
                token_forced.note(db, name, wall_ms())
            why = self._fetch(db, name, operator=True, force=force)
        if why is not None:
            raise why

    def follow(self, db: Database) -> None:
        """What another node has come to: once a second, where there may be others. Raises StoreAway."""
        for name, token in tokens.load_all(db, list(self._accounts)).items():
            if token.fingerprint != self._told.get(name):
                self._tell(name, token)
                self._later(name, renew_in(token, wall_ms()))

    @contextmanager
    def _turn(self, db: Database, name: str, patience: float = 0.0, elsewhere: float | None = None) -> Iterator[bool]:
        """Whether nobody else is at it: one fetch at a time. ``elsewhere``: patience with other nodes, if another."""
        if not self._locks[name].acquire(timeout=patience):
            yield False
            return
        try:
            lease = f"token {tokens.fingerprint(name)}"
            with self._hold(db, lease, patience if elsewhere is None else elsewhere) as mine:
                if not (mine and db.shared):
                    yield mine
                    return
                self._standings[name] = before = token_shared.load(db, name)
                before = replace(before)
                yield True
                if self._standings[name] != before:
                    with db.transaction():
                        token_shared.save(db, name, self._standings[name])
        finally:
            self._locks[name].release()

    def _tell(self, name: str, token: Token) -> None:
        """Workers of this node."""
        self._told[name] = token.fingerprint
        self._renewed(name)

    def _replace(self, db: Database, name: str, there: Token | None) -> None:
        """There is none that is good; ``there`` is the one that was refused."""
        standing, at = self._standings[name], time.monotonic()
        if there is not None:
            standing.refused = tokens.fingerprint(there.text)
            if there.expires_at - wall_ms() < _LAST_MOMENT_MS:
                there = None  # a call that left just before its end: no refusal of a good one, which is rationed
        if source(self._accounts[name]) != "database":
            wait = standing.error if at < standing.next_at else None
            if there is not None and at - standing.replaced_at < REFUSED_EVERY:
                wait = wait or _AGAIN
            if wait is not None:
                with db.transaction():
                    reasons.explain(db, name, "token", wait)
                return
            if there is not None:
                standing.replaced_at = at
        self._fetch(db, name)

    def _rejected(self, db: Database, name: str, there: Token | None, reason: str) -> None:
        """Refused again: nothing is sent until a later probe goes well, or an operator says so."""
        standing = self._standings[name]
        if there is not None:
            standing.refused, standing.rejected = tokens.fingerprint(there.text), True
        if standing.fatal and time.monotonic() < standing.next_at:
            return  # another worker said so
        self._failed(db, name, Refused(reason, True, standing.probe(time.monotonic())))

    def _fetch(self, db: Database, name: str, operator: bool = False, force: bool = False) -> Refused | None:
        """Why there is none, or None. The lock is held."""
        account, standing = self._accounts[name], self._standings[name]
        old = tokens.load(db, name)
        try:
            token = self._another(account, standing, fetch(account, force), operator)
        except Refused as e:
            self._failed(db, name, e)
            return e
        if old is not None and token.text == old.text and not standing.refuses(token):
            token = replace(token, fetched_at=old.fetched_at)
        self._good(db, name, old, token, force or source(account) == "database")
        return None

    def _another(self, account: Account, standing: Standing, token: Token, operator: bool) -> Token:
        """The token, unless it is one that cannot be used again. Raises Refused.

        WeChat vouches for a token that it refused once by handing it out again: refusals of a good token are known
        from the field. The second time only an operator's word makes us try it.
        """
        if not standing.refuses(token):
            return token
        if source(account) == "database":
            raise Refused(_UNCHANGED.format(place=f"[account.{account.name}.token]"), False, READ_EVERY)
        if standing.rejected and not operator:
            raise Refused(_SAME, True, standing.probe(time.monotonic()))
        return token

    def _good(self, db: Database, name: str, old: Token | None, token: Token, killed: bool) -> None:
        """Keep it, and have everybody go on."""
        standing = self._standings[name]
        dead = old.text if old is not None and (killed or standing.refuses(old)) else ""
        if token != old:
            again_if_busy(partial(_keep, db, name, token, dead))  # of its own: a repeat of more would fetch once more
        token = tokens.load(db, name) or token  # or a newer one that somebody else has kept
        self._standings[name] = Standing(
            fetched_at=time.monotonic(), replaced_at=standing.replaced_at, probes=standing.probes,
            probed_at=standing.probed_at, next_at=time.monotonic() + min(REFUSED_EVERY, renew_in(token, wall_ms())),
        )  # fmt: skip
        resumed = self._resumed(db, name)
        changed = old is None or token.fingerprint != old.fingerprint
        if changed:
            life = "" if token.expires_at == NEVER else f", good for {(token.expires_at - wall_ms()) // 1000} s"
            log.info("account %s: token %s from %s%s", name, token.fingerprint, source(self._accounts[name]), life)
        if changed or resumed or standing.error is not None:
            self._tell(name, token)
        self._later(name, renew_in(token, wall_ms()))

    def _failed(self, db: Database, name: str, why: Refused) -> None:
        """Say so; stop what must not go on. A token that is still good goes on being used."""
        standing = self._standings[name]
        standing.failures += 1
        if standing.error is None or (standing.code, standing.fatal) != (why.code, why.fatal):
            log.error("account %s: no token: %s", name, why)
        wait = token_advice.pause(why.wait, standing.failures)
        standing.error, standing.code, standing.fatal = str(why), why.code, why.fatal
        standing.next_at = time.monotonic() + wait
        usable = standing.usable(tokens.load(db, name), wall_ms())
        again_if_busy(partial(_stop, db, name, why, usable))  # of its own: a repeat of more would ask WeChat once more
        self._later(name, wait + _LATE)

    def _resumed(self, db: Database, name: str) -> bool:
        """Campaigns that stopped for want of a token go on by themselves; says whether there were any."""
        with db.transaction():
            reasons.well_again(db, name, "token")
            stopped = _paused(db, name, db.LOCK)  # an operator may be pausing one of them for longer
            for each in stopped:
                campaigns.move(db, each, "paused", "running", cause=None, reason=None)
        return bool(stopped)


def _stop(db: Database, name: str, why: Refused, usable: bool) -> None:
    """Pause what must not go on without a token, or say what it waits for."""
    with db.transaction():
        if why.fatal:
            for each in campaigns.in_states(db, "running"):
                if each.account == name:
                    campaigns.move(db, each.id, "running", "paused", cause="token", reason=str(why))
        elif not usable:
            reasons.explain(db, name, "token", str(why))


def _keep(db: Database, name: str, token: Token, dead: str) -> None:
    with db.transaction():
        tokens.save(db, name, token, dead)


def _paused(db: Database, name: str, lock: str = "") -> list[str]:
    """The account's campaigns that wait for a token."""
    found = campaigns.in_states(db, "paused", lock=lock)
    return [each.id for each in found if each.account == name and each.cause == "token"]
