"""What an operator, or WeChat's receipt, decides about deliveries that have ended. Inside a transaction each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection

from fanoutd.errors import FanoutdError
from fanoutd.outcome import DOUBTFUL, MOVES, RENDER, Ended, State, channel_name, errcode_word
from fanoutd.store.counters import adjust
from fanoutd.store.database import Database, holes

#: openids in one statement.
_AT_ONCE = 500

_DOUBTFUL = ", ".join(str(int(state)) for state in DOUBTFUL)


class StillHeld(FanoutdError):
    """A worker has the shard: what it is doing must be known first."""


def reopen(db: Database, campaign: str, failed: bool, unknown: bool) -> int:
    """Have those who failed, or who are unknown, sent to again; how many they are.

    Not those who were refused here (an openid that is none, a message that cannot be rendered): it would
    come out the same. Raises StillHeld.
    """
    count = 0
    for shard, owner, errors in db.rows(
        "SELECT id, owner, errors FROM fanout_shard WHERE campaign = %s AND (failed > 0 OR unknown > 0) ORDER BY id"
        + db.LOCK,
        campaign,
    ):
        if owner is not None:
            raise StillHeld(f"a worker still has people of campaign {campaign}; try again in a moment")
        known = Counter({code: int(number) for code, number in json.loads(errors).items()})
        changed: Counter[str] = Counter()
        if failed:
            _reopen_failed(db, shard, changed, known)
        if unknown:
            _reopen_unknown(db, shard, changed)
        adjust(db, shard, changed, known)
        count += changed["pending"] + changed["resend"]
    return count


def _reopen_failed(db: Database, shard: int, changed: Counter[str], errors: Counter[str]) -> None:
    assert (State.FAILED, State.PENDING) in MOVES
    for errcode, number in db.rows(
        "SELECT errcode, COUNT(*) FROM fanout_delivery WHERE shard = %s AND state = %s AND COALESCE(errcode, 0) <> %s "
        "GROUP BY errcode",
        shard, State.FAILED, RENDER,
    ):  # fmt: skip
        if errcode is not None:
            errors[errcode_word(errcode) or ""] -= number
    moved = db.execute(
        f"UPDATE fanout_delivery SET state = %s, channel = NULL, tries = 0, updated_at = {db.NOW_MS} "
        "WHERE shard = %s AND state = %s AND COALESCE(errcode, 0) <> %s",
        State.PENDING, shard, State.FAILED, RENDER,
    )  # fmt: skip
    changed["failed"] -= moved
    changed["pending"] += moved


def _reopen_unknown(db: Database, shard: int, changed: Counter[str]) -> None:
    """Whatever the age of their keys: somebody knows, and wants it."""
    assert (State.UNKNOWN, State.RESEND) in MOVES
    changed["resend"] += db.execute(
        f"UPDATE fanout_delivery SET state = %s, tries = 0, since = NULL, boot = NULL, updated_at = {db.NOW_MS} "
        "WHERE shard = %s AND state = %s",
        State.RESEND, shard, State.UNKNOWN,
    )  # fmt: skip


def resolve(
    db: Database, campaign: str, new: State, openids: Collection[str] | None, ended: Ended | None = None
) -> int:
    """Take somebody's word for what became of the unknown ones, of all or of these; how many they were.

    ``ended`` is filled in with what they came to.
    """
    ended = Counter() if ended is None else ended
    assert all((old, new) in MOVES for old in DOUBTFUL)
    count = 0
    for (shard,) in db.rows(
        f"SELECT id FROM fanout_shard WHERE campaign = %s AND unknown > 0 ORDER BY id{db.LOCK}", campaign
    ):
        count += sum(_resolve(db, shard, new, some, ended) for some in _some(openids))
    return count


def _some(openids: Collection[str] | None) -> list[tuple[str, ...] | None]:
    if openids is None:
        return [None]
    known = sorted(set(openids))
    return [tuple(known[at : at + _AT_ONCE]) for at in range(0, len(known), _AT_ONCE)]


def _resolve(db: Database, shard: int, new: State, openids: tuple[str, ...] | None, ended: Ended) -> int:
    among = "" if openids is None else f" AND openid IN ({holes(len(openids))})"
    where = f"shard = %s AND state IN ({_DOUBTFUL}){among}"
    args = (shard, *(openids or ()))
    found = db.rows(f"SELECT pos, state, channel FROM fanout_delivery WHERE {where}", *args)
    changed: Counter[str] = Counter(unknown=-len(found), resend=-sum(row[1] == State.RESEND for row in found))
    errcode = 0 if new is State.SENT else None
    for _, _, channel in found:
        changed[f"sent_{channel_name(channel or 1)}" if new is State.SENT else "failed"] += 1
        ended[new, channel or 1, errcode] += 1
    db.execute(
        f"UPDATE fanout_delivery SET state = %s, channel = COALESCE(channel, 1), errcode = %s, since = NULL, "
        f"boot = NULL, updated_at = {db.NOW_MS} WHERE {where}",
        new, errcode, *args,
    )  # fmt: skip
    row = db.one("SELECT errors FROM fanout_shard WHERE id = %s", shard)
    adjust(db, shard, changed, Counter(json.loads(row[0]) if row else {}))
    return len(found)
