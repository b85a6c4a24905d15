"""WeChat's receipts for template messages: they tell of a person whose answer was never seen.

A receipt bears the message's id, which is known of those that were answered, and the openid. It settles an
unknown delivery if there is just one to whom it can belong. It may come before anybody here knows that there is
something unknown: such receipts are kept for a while.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fanoutd.figures import Count, uncounted
from fanoutd.outcome import DOUBTFUL, Ended, State, channel_number
from fanoutd.store import Database, finishing
from fanoutd.store.corrections import resolve
from fanoutd.times import wall_ms

log = logging.getLogger(__name__)

#: A receipt comes within a day of its message; clocks may differ by a minute. Milliseconds.
_LATEST, _EARLY = 86_400_000, 60_000

#: The unknown are looked for again after so long: a flood of receipts costs one look, seconds.
_FRESH = 2.0

#: Receipts that nobody waits for yet: for how long they are kept, in seconds, and how many at most.
_KEPT, _AT_MOST = 60.0, 20_000

_DOUBTFUL = ", ".join(str(int(state)) for state in DOUBTFUL)
_TEMPLATE = channel_number("template")

#: What WeChat says of a message, without blanks and in small letters; `freqlimit` is in users' reports only.
STATUSES: Mapping[str, State] = MappingProxyType(
    {
        "success": State.SENT,
        "failed:userblock": State.FAILED,
        "failed:systemfailed": State.FAILED,
        "failed:freqlimit": State.FAILED,
    }
)


def state_of(status: str | None) -> State:
    """What a receipt's status makes of the delivery; one that nobody knows is a failure."""
    return STATUSES.get("".join((status or "").split()).lower(), State.FAILED)


@dataclass(frozen=True, slots=True)
class _Unknown:
    campaign: str
    account: str
    shard: int
    updated_at: int


class Receipts:
    """Used by several threads. ``count`` is told what was settled."""

    def __init__(self, count: Count = uncounted) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._looked = -_FRESH
        self._unknown: dict[str, list[_Unknown]] = {}
        # By shard: its counter, lease and token when it was read, and who was unknown in it.
        self._shards: dict[int, tuple[tuple[int, ...], list[tuple[str, _Unknown]]]] = {}
        self._kept: OrderedDict[tuple[str, Any], tuple[float, dict[str, Any]]] = OrderedDict()

    def take(self, db: Database, event: dict[str, Any]) -> dict[str, Any]:
        """A ``finish`` event. Raises StoreAway: then it may be sent again.

        One of a subscription notification settles nobody: they have no key, and most are sent by other programs.
        """
        if event.get("channel") == "subscribe":
            return {}
        with self._lock:
            self._look(db)
            event = event | {"at": event["at"] or wall_ms()}
            if not self._match(db, event):
                self._keep(event)
        return {}

    def settle(self, db: Database) -> None:
        """Have another look at those that were kept."""
        with self._lock:
            if self._kept:
                self._look(db)

    def _match(self, db: Database, event: dict[str, Any]) -> bool:
        """Whether somebody is unknown to whom it may belong."""
        fits = [
            each for each in self._unknown.get(event["openid"], ())
            if event["account"] in (None, each.account) and -_EARLY <= event["at"] - each.updated_at <= _LATEST
        ]  # fmt: skip
        if fits:
            self._settle(db, event, fits)
        return bool(fits)

    def _keep(self, event: dict[str, Any]) -> None:
        self._kept[event["openid"], event["msgid"]] = (time.monotonic(), event)
        if len(self._kept) > _AT_MOST:
            self._kept.popitem(last=False)

    def _look(self, db: Database) -> None:
        """Who is unknown now; those whom a kept receipt tells of are settled at once."""
        if time.monotonic() - self._looked < _FRESH:
            return
        shards = {}
        for id, account, shard, *mark in db.rows(
            "SELECT c.id, c.account, s.id, s.unknown, s.lease_until, s.token FROM fanout_campaign c "
            "JOIN fanout_shard s ON s.campaign = c.id WHERE s.unknown > 0 AND c.created_at > %s",
            wall_ms() - 2 * _LATEST,
        ):
            known = self._shards.get(shard)
            fresh = known if known and known[0] == tuple(mark) else (tuple(mark), _read(db, id, account, shard))
            shards[shard] = fresh
        found: dict[str, list[_Unknown]] = {}
        for _, people in shards.values():
            for openid, unknown in people:
                found.setdefault(openid, []).append(unknown)
        self._unknown, self._shards, self._looked = found, shards, time.monotonic()
        self._look_at_kept(db)

    def _look_at_kept(self, db: Database) -> None:
        while self._kept and next(iter(self._kept.values()))[0] < time.monotonic() - _KEPT:
            self._kept.popitem(last=False)
        if self._unknown:
            for key, (_, event) in list(self._kept.items()):
                if event["openid"] in self._unknown and self._match(db, event):
                    del self._kept[key]

    def _settle(self, db: Database, event: dict[str, Any], fits: list[_Unknown]) -> None:
        openid, state = event["openid"], state_of(event["status"])
        if len(fits) > 1 or self._is_anothers(db, event, fits[0]):
            return
        ended: Ended = Counter()
        with db.transaction():
            if resolve(db, fits[0].campaign, state, [openid], ended) and event["msgid"]:  # and so its shard is held
                db.execute(
                    "UPDATE fanout_delivery SET msgid = %s WHERE shard = %s AND openid = %s AND msgid IS NULL",
                    event["msgid"], fits[0].shard, openid,
                )  # fmt: skip
        self._count(fits[0].account, ended)
        with db.transaction():
            finishing.finish(db, fits[0].campaign)
        self._unknown[openid].remove(fits[0])
        log.info("campaign %s: a receipt settled one unknown delivery: %s", fits[0].campaign, state.word)

    def _is_anothers(self, db: Database, event: dict[str, Any], fit: _Unknown) -> bool:
        """Whether another message to the same person may be the one that this receipt is for.

        With an id it is that message or it is not; without, any of that day that was accepted may be it.
        """
        for msgid, state in db.rows(
            "SELECT d.msgid, d.state FROM fanout_campaign c JOIN fanout_shard s ON s.campaign = c.id "
            "JOIN fanout_delivery d ON d.shard = s.id "
            "WHERE c.account = %s AND c.created_at > %s AND d.openid = %s AND d.channel = %s",
            fit.account, event["at"] - 2 * _LATEST, event["openid"], _TEMPLATE,
        ):  # fmt: skip
            if msgid == event["msgid"] if event["msgid"] else state == State.SENT:
                return True
        return False


def _read(db: Database, campaign: str, account: str, shard: int) -> list[tuple[str, _Unknown]]:
    rows = db.rows(
        f"SELECT openid, updated_at FROM fanout_delivery WHERE shard = %s AND channel = %s AND state IN ({_DOUBTFUL})",
        shard, _TEMPLATE,
    )  # fmt: skip
    return [(openid, _Unknown(campaign, account, shard, updated or 0)) for openid, updated in rows]
