"""The account's followers, from WeChat's own list into the embedded audience.

The list comes in pages of up to 10,000; where to go on is kept after each, so that a sync that was cut off goes on
there. It is no snapshot: events since its beginning know better.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import requests

from fanoutd.config import Account
from fanoutd.dispatcher.cluster import Hold, nobody_else
from fanoutd.dispatcher.queries import RpcError
from fanoutd.dispatcher.refresher import Refresher
from fanoutd.ids import OPENID
from fanoutd.outcome import Verdict, classify, describe
from fanoutd.standing import Standing, left, listed
from fanoutd.store import Database, meta, subscribers, tokens
from fanoutd.store.tokens import Token
from fanoutd.times import wall_ms

log = logging.getLogger(__name__)

#: A sync that was cut off longer ago begins anew, in milliseconds.
_GOES_ON_WITHIN = 86_400_000

#: People in one transaction: workers wait for no more.
_AT_ONCE = 1000

#: Pauses before a page that WeChat was too busy for is asked for again, in seconds.
_PAUSES = (1.0, 2.0, 4.0)

#: The errcode for a tag that is none.
_NO_TAG = 45159

#: Who is not on the list is gone only if so large a part of WeChat's own total was seen.
_ENOUGH = 0.9


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of the list; ``following`` is where to go on, empty at the end."""

    openids: list[str]
    following: str
    total: int


class Refused(Exception):
    """No page: WeChat's errcode, or None without an understandable answer, and words."""

    def __init__(self, errcode: int | None, words: str) -> None:
        super().__init__(words)
        self.errcode = errcode


@dataclass(slots=True)
class Place:
    """How far a sync has come. ``began`` in milliseconds since 1970."""

    began: int
    following: str = ""
    total: int = 0


class Followers:
    """``hooks``: the statements that some audience has. ``hold``: as ``Cluster.hold``."""

    def __init__(self, refresher: Refresher, hooks: Collection[str], hold: Hold = nobody_else) -> None:
        self._refresher, self._hooks, self._hold = refresher, hooks, hold

    def sync(self, db: Database, account: Account, tag: int | None) -> int:
        """Take in all followers, or those with this tag; how many are on the list. Raises RpcError.

        After all of them who is not on the list any more is neither listed nor follows.
        """
        with self._hold(db, _name("sync", account.name, None), 0.0) as mine:
            if not mine:
                words = f"account {account.name}: another node reads its followers; try again when it has ended"
                raise RpcError(-32005, words, "account")
            return self._sync(db, account, tag)

    def _sync(self, db: Database, account: Account, tag: int | None) -> int:
        place = _resumed(db, account.name, tag)
        while True:
            page = self._page(db, account, tag, place.following)
            place.total = max(place.total, page.total)
            ended = page.following in ("", place.following)
            place.following = page.following
            self._take_in(db, account.name, tag, page.openids, place)
            if ended:
                break
        count = subscribers.count_seen(db, account.name, place.began)
        if tag is None and count:
            self._end(db, account.name, place, count)
        with db.transaction():
            db.execute("DELETE FROM fanout_meta WHERE name = %s", _name("sync", account.name, tag))
        log.info("account %s: %d followers%s synced", account.name, count, "" if tag is None else f" of tag {tag}")
        return count

    def _page(self, db: Database, account: Account, tag: int | None, after: str) -> Page:
        """One page; another token is tried once, a busy WeChat a few times. Raises RpcError."""
        token, refused = self._token(db, account.name, None), False
        pauses = list(_PAUSES)
        while True:
            try:
                return fetch(account, token, tag, after)
            except Refused as e:
                if tag is not None and e.errcode == _NO_TAG:
                    words = f"account {account.name}: WeChat knows no tag {tag}; its console shows each tag's number"
                    raise RpcError(-32602, words, "tag") from None
                verdict = Verdict.RETRY if e.errcode is None else classify(e.errcode)
                if verdict is Verdict.TOKEN and not refused:
                    token, refused = self._token(db, account.name, token.fingerprint), True
                elif verdict is Verdict.RETRY and pauses:
                    time.sleep(pauses.pop(0))
                else:
                    words = f"account {account.name}: followers cannot be read: {e}; a further sync goes on from here"
                    raise RpcError(-32005, words) from None

    def _token(self, db: Database, account: str, refused: str | None) -> Token:
        """The account's token, another than the refused one if there is one. Raises RpcError."""
        if refused is None:
            self._refresher.check(db, account)
        else:
            self._refresher.refused(db, account, refused)
        token = tokens.load(db, account)
        if token is None or token.expires_at <= wall_ms():
            why = self._refresher.shown(db, account)["error"] or "it has none yet"
            raise RpcError(-32005, f"account {account}: no token: {why}")
        return token

    def _take_in(self, db: Database, account: str, tag: int | None, openids: list[str], place: Place) -> None:
        """The page, and with its last piece where to go on."""
        for at in range(0, max(1, len(openids)), _AT_ONCE):
            with db.transaction():
                now = db.now_ms()
                some = openids[at : at + _AT_ONCE]
                subscribers.change(db, account, some, now, partial(listed, now=now, seen=place.began))
                if at + _AT_ONCE >= len(openids):
                    meta.write(db, _name("sync", account, tag), json.dumps(asdict(place)))

    def _end(self, db: Database, account: str, place: Place, count: int) -> None:
        if count < _ENOUGH * place.total:
            log.warning(
                "account %s: WeChat counts %d followers and listed %d: nobody is taken for gone", account, place.total,
                count,
            )  # fmt: skip
            return
        after: str | None = ""
        while after is not None:
            with db.transaction():
                now = db.now_ms()
                missing, after = subscribers.unseen(db, account, place.began, after, _AT_ONCE)
                before = subscribers.load(db, account, missing, db.LOCK)
                gone = [each for each, known in before.items() if _still_missing(known, place.began)]
                subscribers.change(db, account, gone, now, partial(left, now=now))
                if "on_gone" in self._hooks:
                    for openid in (each for each in gone if not before[each].gone(now)):
                        subscribers.tell(db, "on_gone", account, openid)
        with db.transaction():
            meta.write(db, _name("synced", account, None), str(place.began))


def _still_missing(known: Standing, began: int) -> bool:
    """Whether no other sync has seen them, and they have not done anything, since they were looked up."""
    return known.listed and (known.seen or 0) < began and (known.event_at or 0) < began


def synced(db: Database, account: str) -> bool:
    """Whether the audience is WeChat's own list, of which new followers are a part."""
    return meta.read(db, _name("synced", account, None)) is not None


def fetch(account: Account, token: Token, tag: int | None, after: str) -> Page:
    """One page of the followers, or of those with a tag. Raises Refused."""
    base, wait = account.api_base, (account.connect_timeout, account.timeout)
    try:
        if tag is None:
            answer = requests.get(
                f"{base}/cgi-bin/user/get", params={"access_token": token.text, "next_openid": after}, timeout=wait
            )
        else:
            answer = requests.post(
                f"{base}/cgi-bin/user/tag/get", params={"access_token": token.text},
                json={"tagid": tag, "next_openid": after}, timeout=wait,
            )  # fmt: skip
        return read_page(answer.json())
    except requests.RequestException as e:  # only its kind: its text would repeat the address with the token
        raise Refused(None, f"{base} does not answer ({type(e).__name__})") from None


def read_page(answer: Any) -> Page:
    """The quirks of WeChat's lists: ``data`` is missing where there is nobody, and then the list is at its end.

    An answer that says nothing of a count is none: taken for an empty page it would make everybody gone.
    Raises Refused.
    """
    errcode = answer.get("errcode") if isinstance(answer, dict) else None
    if isinstance(errcode, int) and errcode:
        raise Refused(errcode, f"{describe(errcode)} ({errcode} {str(answer.get('errmsg', ''))[:200]})")
    count = answer.get("count") if isinstance(answer, dict) else None
    if not isinstance(count, int):
        raise Refused(None, "WeChat's answer cannot be understood")
    data = answer.get("data")
    found = data.get("openid") if isinstance(data, dict) else None
    openids = [each for each in found or () if isinstance(each, str) and OPENID.fullmatch(each)]
    following = answer.get("next_openid")
    total = answer.get("total")
    return Page(
        openids, following if count and isinstance(following, str) else "", total if isinstance(total, int) else 0
    )


def _resumed(db: Database, account: str, tag: int | None) -> Place:
    kept = meta.read(db, _name("sync", account, tag))
    now = db.now_ms()
    if kept is not None:
        place = Place(**json.loads(kept))
        if now - place.began < _GOES_ON_WITHIN:
            log.info("account %s: a sync that was cut off goes on", account)
            return place
    return Place(now)


def _name(kind: str, account: str, tag: int | None) -> str:
    """Of a value in the store, whose names are short."""
    return f"{kind} {hashlib.blake2b(f'{account}/{tag}'.encode(), digest_size=12).hexdigest()}"
