"""What clients ask of the store, as the objects of the socket protocol."""

from __future__ import annotations

import re
import time
from collections import deque
from dataclasses import fields
from typing import Any

from fanoutd.outcome import State, channel_name, errcode_word
from fanoutd.store import Database, campaigns, counters, history, listing
from fanoutd.store.campaigns import FINAL, Campaign
from fanoutd.store.counters import Counts
from fanoutd.store.listing import Filter
from fanoutd.times import iso, wall_ms

#: The span over which a campaign's rate is taken, in seconds.
RATE_SPAN = 10.0

#: What `next` gives: a shard's number, and a place in it.
_NEXT = re.compile(r"([0-9]{1,9}):([0-9]{1,9})", re.ASCII)

STATES = ("scheduled", "planning", "running", "paused", *FINAL)


class RpcError(Exception):
    """A refusal on the socket: its code, its words, and the field it is about, by its name or as ``{"field": …}``."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.data = {"field": data} if isinstance(data, str) else data


class Rates:
    """Deliveries a second of each campaign, from the counts that were read of late."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, int]]] = {}

    def of(self, campaign: Campaign, counts: Counts) -> float | None:
        """None for a campaign that does not run."""
        if campaign.state != "running" or campaign.started_at is None:
            self._seen.pop(campaign.id, None)
            return None
        at, ended = time.monotonic(), counts.total - counts.pending
        since_start = max(0.001, (wall_ms() - campaign.started_at) / 1000)
        seen = self._seen.setdefault(campaign.id, deque([(at - since_start, 0)]))
        seen.append((at, ended))
        while len(seen) > 2 and seen[1][0] <= at - RATE_SPAN:
            seen.popleft()
        span = at - seen[0][0]
        return round((ended - seen[0][1]) / span, 1) if span > 0 else None


def campaign_object(campaign: Campaign, counts: Counts, rate: float | None) -> dict[str, Any]:
    eta = round(counts.pending / rate) if rate and campaign.planned else None
    return {
        "id": campaign.id,
        "account": campaign.account,
        "message": campaign.message,
        "audience": campaign.audience,
        "reference": campaign.reference,
        "key": campaign.key,
        "state": campaign.state,
        "reason": campaign.reason,
        "created_at": iso(campaign.created_at),
        "send_at": _iso(campaign.send_at),
        "started_at": _iso(campaign.started_at),
        "finished_at": _iso(campaign.finished_at),
        "total": counts.total,
        "counts": counts.by_state,
        "errors": counts.errors,
        "rate": rate,
        "eta_seconds": eta,
    }


def _iso(ms: int | None) -> str | None:
    return None if ms is None else iso(ms)


class Queries:
    def __init__(self) -> None:
        self._rates = Rates()

    def get(self, db: Database, campaign: Campaign) -> dict[str, Any]:
        return self._object(campaign, counters.counts(db, campaign.id))

    def list(self, db: Database, params: dict[str, Any]) -> dict[str, Any]:
        state, limit = params.get("state"), _limit(params.get("limit"), 50)
        if state is not None and state not in STATES:
            raise RpcError(-32602, f"state: {state!r} is none; there are {', '.join(STATES)}", "state")
        before = None
        if params.get("before") is not None:
            before = known(db, str(params["before"]), "before")
        which = Filter(**{field.name: params[field.name] for field in fields(Filter) if field.name in params})
        found = listing.listed(db, which, limit, before)
        counts = counters.counts_of(db, [each.id for each in found])
        return {"campaigns": [self._object(each, counts[each.id]) for each in found]}

    def _object(self, campaign: Campaign, counts: Counts) -> dict[str, Any]:
        return campaign_object(campaign, counts, self._rates.of(campaign, counts))


def past(db: Database, campaign: Campaign) -> dict[str, Any]:
    """{events}: what was done to it, and by whom, oldest first."""
    return {"events": [
        {"at": iso(line.at), "action": line.action, "node": line.node, "uid": line.by.uid, "user": line.by.who,
         "pid": line.by.pid, "detail": line.detail}
        for line in history.lines(db, campaign.id)
    ]}  # fmt: skip


def known(db: Database, campaign: str, field: str = "campaign") -> Campaign:
    found = campaigns.get(db, campaign)
    if found is None:
        raise RpcError(-32002, f"no campaign {campaign[:80]}; `fanoutd campaign list` names them", field)
    return found


def _limit(value: Any, default: int, most: int = 1000) -> int:
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise RpcError(-32602, f"limit: a number from 1 to {most}", "limit")
    return value


#: What a shard counts of those in a state.
_HAVING = {"pending": "pending", "sent": "sent_custom + sent_template + sent_subscribe", "failed": "failed",
           "skipped": "skipped", "unknown": "unknown"}  # fmt: skip


def deliveries(db: Database, campaign: Campaign, params: dict[str, Any]) -> dict[str, Any]:
    """A page in sending order; ``next`` is the place after its last row, None at the end."""
    limit = _limit(params.get("limit"), 1000)
    state = _state(params.get("state"))
    first, pos = _place(params.get("after"))
    rows: list[dict[str, Any]] = []
    last = None
    having = f" AND {_HAVING[state.word]} > 0" if state else ""  # one of a million is found without reading all
    for shard, idx in db.rows(
        f"SELECT id, idx FROM fanout_shard WHERE campaign = %s AND idx >= %s{having} ORDER BY idx", campaign.id, first
    ):
        for row in _rows(db, shard, pos if idx == first else -1, state, limit + 1 - len(rows)):
            if len(rows) == limit:
                return {"rows": rows, "next": last}
            rows.append(_delivery(*row))
            last = f"{idx}:{row[0]}"
    return {"rows": rows, "next": None}


def _rows(db: Database, shard: int, after: int, state: State | None, limit: int) -> list[tuple[Any, ...]]:
    alike = [each for each in State if state is not None and each.word == state.word]
    only = f" AND state IN ({', '.join(str(int(each)) for each in alike)})" if alike else ""
    return db.rows(
        "SELECT pos, openid, state, channel, errcode, msgid, attempts, updated_at FROM fanout_delivery "
        f"WHERE shard = %s AND pos > %s{only} ORDER BY pos LIMIT %s",
        shard, after, limit,
    )  # fmt: skip


def _delivery(
    _pos: int, openid: str, state: int, channel: int | None, errcode: int | None, msgid: int | None, attempts: int,
    updated_at: int | None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "openid": openid,
        "state": State(state).word,
        "channel": channel_name(channel),
        "errcode": errcode_word(errcode),
        "msgid": None if msgid is None else str(msgid),
        "attempts": attempts,
        "updated_at": _iso(updated_at),
    }


def _state(word: Any) -> State | None:
    if word is None:
        return None
    try:
        return State[str(word).upper()]
    except KeyError:
        words = ", ".join(s.word for s in State)
        raise RpcError(-32602, f"state: {word!r} is none; there are {words}", "state") from None


def _place(after: Any) -> tuple[int, int]:
    if after is None:
        return 0, -1
    if (given := _NEXT.fullmatch(str(after))) is None:
        raise RpcError(-32602, "after: what `next` gave", "after")
    return int(given[1]), int(given[2])
