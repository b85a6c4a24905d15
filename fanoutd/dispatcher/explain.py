"""One person's life in the campaigns: from the store what was decided, from the journals each call."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fanoutd.journal import tag
from fanoutd.outcome import State, channel_name, errcode_word
from fanoutd.standing import SPENT, Standing
from fanoutd.store import Database, subscribers
from fanoutd.testimony import Call, testimonies
from fanoutd.times import iso

Event = dict[str, Any]

_WORDS = {"opted_out": "opted out", "gone": "known not to follow the account", "blocked": "on the account's blacklist"}


def explain(db: Database, journals: Path, node: str, openid: str, campaign: str | None) -> list[Event]:
    """Events in the order in which they happened: planned, calls with their answers, what became of it.

    Each has ``at`` (ISO 8601, null when not known), ``campaign``, ``event``, ``channel``, ``errcode``, ``msgid``,
    ``attempt`` (the lease under which it happened), ``node``, and ``detail``: why somebody was skipped, as far as it
    can still be told, else null. Journals are read on their own node only: of calls
    that others made the store knows the number, which is told by one event ``elsewhere``.
    """
    places = list(_places(db, openid, campaign))
    calls = _calls(journals, {(row[1], row[2]) for row in places}, openid)
    found = [event for row in places for event in _life(row, calls.get((row[1], row[2]), []), node, db.shared)]
    skipped = {row[0]: row for row in places if row[3] == State.SKIPPED}
    for event in found:
        if event["event"] == "skipped":
            row = skipped[event["campaign"]]
            event["detail"] = _why(subscribers.get(db, row[-1], openid), row[8] or row[9])
    return found


def _why(known: Standing | None, at: int | None) -> str:
    """By what is known now: the row itself says only that it was so at ``at``."""
    if known is None:
        return "what was known of them then has been forgotten"
    word = known.word(at or known.since)
    if known.since > (at or known.since):
        return f"what was known of them then has changed: {word} since {iso(known.since)}"
    if word != "active":
        return f"{_WORDS[word]} since {iso(known.since)}"
    if known.window_kind == SPENT:
        return "the messages of their window were used up, and the campaign had no other channel for them"
    return "what was known of them then is over"


def _places(db: Database, openid: str, campaign: str | None) -> Iterator[tuple[Any, ...]]:
    """Every row of this person. There is no index by openid: a shard is read through, in the order of its rows."""
    only, args = ("", ()) if campaign is None else (" AND c.id = %s", (campaign,))
    found = db.rows(
        f"SELECT c.id, s.id FROM fanout_campaign c JOIN fanout_shard s ON s.campaign = c.id WHERE 1 = 1{only} "
        "ORDER BY c.created_at, c.id, s.idx",
        *args,
    )
    for id, shard in found:
        for row in db.rows(
            "SELECT d.pos, d.state, d.channel, d.errcode, d.msgid, d.attempt, d.updated_at, c.started_at, d.attempts, "
            "c.account "
            "FROM fanout_delivery d JOIN fanout_campaign c ON c.id = %s WHERE d.shard = %s AND d.openid = %s",
            id, shard, openid,
        ):  # fmt: skip
            yield (id, shard, *row)


def _calls(journals: Path, places: set[tuple[int, int]], openid: str) -> dict[tuple[int, int], list[tuple[int, Call]]]:
    found: dict[tuple[int, int], list[tuple[int, Call]]] = {}
    for said in testimonies(journals):
        for (shard, position, token), calls in said.calls.items():
            if (shard, position) in places and calls[0].who == tag(openid):
                found.setdefault((shard, position), []).extend((token, call) for call in calls)
    return {place: sorted(calls, key=lambda each: each[0]) for place, calls in found.items()}


def _life(row: tuple[Any, ...], calls: list[tuple[int, Call]], node: str, shared: bool) -> Iterator[Event]:
    campaign, _, _, state, channel, errcode, msgid, attempt, updated, started, attempts, _account = row
    yield _event(campaign, started, "planned")
    for token, call in calls:
        yield _event(campaign, call.at, "called", call.channel, None, None, token, node)
        if call.errcode is not None:
            yield _event(campaign, None, "answered", call.channel, call.errcode, call.msgid, token, node)
    if shared and attempts > len(calls):
        yield _event(campaign, None, "elsewhere")
    if state != State.PENDING or updated is not None:
        word = "resend" if state == State.RESEND else State(state).word
        yield _event(campaign, updated, word, channel, errcode, msgid, attempt or None)


def _event(
    campaign: str, at: int | None, event: str, channel: int | None = None, errcode: int | None = None,
    msgid: int | None = None, attempt: int | None = None, node: str | None = None,
) -> Event:  # fmt: skip
    return {
        "at": None if at is None else iso(at),
        "campaign": campaign,
        "event": event,
        "channel": channel_name(channel),
        "errcode": errcode_word(errcode),
        "msgid": None if msgid is None else str(msgid),
        "attempt": attempt,
        "node": node,
        "detail": None,
    }
