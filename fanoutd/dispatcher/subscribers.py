"""What clients ask and tell about subscribers: replies, events, imports, single people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from fanoutd.config import Account, Config, hooks
from fanoutd.dispatcher.cluster import Hold, nobody_else
from fanoutd.dispatcher.followers import Followers, synced
from fanoutd.dispatcher.queries import RpcError
from fanoutd.dispatcher.refresher import Refresher
from fanoutd.errors import BadInput
from fanoutd.standing import FOREVER, Standing, choice, happened, listed, opted_in, opted_out, wrote
from fanoutd.store import Database, subscribers
from fanoutd.times import iso, wall_ms

Params = dict[str, Any]

#: What an answer to a question that changes something is.
DONE: Mapping[str, Any] = {}


class Subscribers:
    """Each method takes the thread's connection and the params as ``master.carried`` leaves them. Raises RpcError."""

    def __init__(self, config: Config, refresher: Refresher, hold: Hold = nobody_else) -> None:
        self._config = config
        self._hooks = hooks(config.audiences.values())
        self._followers = Followers(refresher, self._hooks, hold)

    def account(self, params: Params) -> Account:
        try:
            return self._config.pick("account", params["account"])
        except BadInput as e:
            raise RpcError(-32602, str(e), "account") from None

    def reply(self, db: Database, params: Params) -> Params:
        """A text of theirs: 0 and 1 are their word, and have an answer."""
        account, word = self.account(params), choice(params["content"])

        def heard(before: Standing) -> Standing:
            after = wrote(before, now, self._config.windows)
            return {"out": opted_out, "in": opted_in}[word](after, now) if word else after

        with db.transaction():
            now = db.now_ms()
            subscribers.change(db, account.name, [params["openid"]], now, heard)
            if word:
                self._tell(db, f"on_opt_{word}", account.name, params["openid"])
        text = {"out": account.opt_out_reply, "in": account.opt_in_reply}.get(word or "")
        return {"reply": text or None}

    def event(self, db: Database, params: Params) -> Mapping[str, Any]:
        account, openid, event = self.account(params).name, params["openid"], params["event"]
        wall = wall_ms()
        at = wall if params["at"] is None else params["at"]
        with db.transaction():
            joins = event == "subscribe" and synced(db, account)
            before: dict[str, Standing] = {}

            def heard(known: Standing) -> Standing | None:
                after = happened(known, event, at, wall, self._config.windows)
                return replace(after, listed=True) if after and joins else after

            changed = subscribers.change(db, account, [openid], at, heard, before)
            if event == "unsubscribe" and changed and not (before and before[openid].gone_until == FOREVER):
                self._tell(db, "on_gone", account, openid)
        return DONE

    def opt_out(self, db: Database, params: Params) -> Mapping[str, Any]:
        return self._order(db, params, "out")

    def opt_in(self, db: Database, params: Params) -> Mapping[str, Any]:
        return self._order(db, params, "in")

    def _order(self, db: Database, params: Params, word: str) -> Mapping[str, Any]:
        account, rule = self.account(params).name, {"out": opted_out, "in": opted_in}[word]
        with db.transaction():
            now = db.now_ms()
            subscribers.change(db, account, [params["openid"]], now, partial(rule, now=now))
            self._tell(db, f"on_opt_{word}", account, params["openid"])
        return DONE

    def forget(self, db: Database, params: Params) -> Mapping[str, Any]:
        with db.transaction():
            subscribers.forget(db, self.account(params).name, params["openid"])
        return DONE

    def take_in(self, db: Database, params: Params) -> Params:
        """An import; what they said, and whether they are gone, stays as it is."""
        account = self.account(params).name
        own = {row.pop("openid"): row for row in (dict(row) for row in params["rows"])}
        with db.transaction():
            now = db.now_ms()
            for texts, openids in _alike(own):
                subscribers.change(db, account, openids, now, partial(listed, now=now, person=texts))
        return {"count": len(own)}

    def list(self, db: Database, params: Params) -> Params:
        limit = params["limit"]
        found = subscribers.page(db, self.account(params).name, params["after"], limit + 1)
        now = db.now_ms()
        rows = [row(openid, standing, now) for openid, standing in found[:limit]]
        return {"rows": rows, "next": rows[-1]["openid"] if len(found) > limit else None}

    def get(self, db: Database, params: Params) -> Params:
        account, openid = self.account(params).name, params["openid"]
        standing = subscribers.get(db, account, openid)
        if standing is None:
            raise RpcError(-32602, f"openid: nothing is known of {openid} in account {account!r}", "openid")
        return row(openid, standing, db.now_ms())

    def sync(self, db: Database, params: Params) -> Params:
        """Long: one at a time, in a thread of its own."""
        return {"count": self._followers.sync(db, self.account(params), params["tag"])}

    def _tell(self, db: Database, hook: str, account: str, openid: str) -> None:
        """Their own word goes on to the operator's side whatever we thought before: his table may think otherwise."""
        if hook in self._hooks:
            subscribers.tell(db, hook, account, openid)


def _alike(own: Mapping[str, Params]) -> list[tuple[str | None, list[str]]]:
    """People with the same variables together: for a plain list that is one group. None: their row brings none."""
    groups: dict[str | None, list[str]] = {}
    for openid, values in own.items():
        text = json.dumps(values, ensure_ascii=False, sort_keys=True) if values else None
        groups.setdefault(text, []).append(openid)
    return list(groups.items())


def row(openid: str, standing: Standing, now: int) -> Params:
    """As `subscriber.get` and `.list` show it."""
    s = standing
    word = s.word(now)
    over = word == "active" and s.gone_until is not None  # "gone" was believed for a time, which has passed
    window = {"kind": s.window_kind, "until": _iso(s.window_until), "left": s.window_left, "open": s.open(now)}
    return {
        "openid": openid,
        "state": word,
        "since": iso(s.gone_until if over and s.gone_until else s.since),
        "listed": s.listed,
        "gone_until": _iso(s.gone_until) if s.gone(now) else None,
        "window": None if s.window_kind is None else window,
        "data": json.loads(s.person) if s.person else {},
    }


def _iso(ms: int | None) -> str | None:
    """None for what has no end."""
    return None if ms is None or ms >= FOREVER else iso(ms)
