"""A campaign whose store went back in time, or whose state directory was copied: what the journals know of it.

The store says how far it had come when it was saved; the journals, kept for two days after they are settled, say
what was sent since. A person is found in them by shard and place, and by the openid's tag at that place; where a plan
was made anew and people have other places, by the tag alone.

Each node reads its own journals. A campaign goes on when those of all that may have sent have been read; a node that is
not there is waited for, since nobody else knows whom it sent to.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fanoutd.journal import in_use, kept, tag
from fanoutd.outcome import LONG_AGO, OPEN, Progress, State, channel_number
from fanoutd.store import (
    Database,
    StoreBusy,
    activity,
    campaigns,
    counters,
    deliveries,
    finishing,
    history,
    plan_owners,
    records,
    repairs,
    retention,
    shard_leases,
    shards,
)
from fanoutd.store.campaigns import Campaign
from fanoutd.store.deliveries import Person
from fanoutd.store.history import OURSELVES, By
from fanoutd.store.records import Result
from fanoutd.store.repairs import Heard
from fanoutd.store.shards import Shard
from fanoutd.testimony import Call, Testimony, read, replay

log = logging.getLogger(__name__)

Place = tuple[int, int, int]
"""(shard, position, who)."""


@dataclass(slots=True)
class Past:
    """What journals know of a campaign beyond what its store has seen."""

    calls: dict[Place, dict[int, list[Call]]] = field(default_factory=dict)
    """By the token of the lease, in order."""
    tokens: Counter[int] = field(default_factory=Counter)
    """shard -> the highest token of its leases."""
    silent: Counter[int] = field(default_factory=Counter)
    """shard -> the highest token of a lease whose journal may not mention all that has happened."""
    strays: dict[int, list[Call]] = field(default_factory=dict)
    """who -> calls, for people who have another place now."""
    alike: Counter[int] = field(default_factory=Counter)
    """who -> how many people of the campaign have this tag, of strays."""


def repair(
    db: Database, journals: Path, node: str, campaign: Campaign, others: Collection[str] = (), by: By = OURSELVES
) -> int:
    """Bring the people of a fully planned campaign up to what this node's journals know; how many were changed.

    When those of the ``others`` were read too it goes on, and is this node's from here on: the one that planned it may
    be the original of which we are a copy. All in one transaction: killed in the middle, it has not begun.
    """
    channels = tuple(channel_number(c) for c in campaign.definition["channels"])
    changed = 0
    seen = {each.id: each for each in shards.of_campaign(db, campaign.id)}
    gone = retention.remembered(db, campaign.id)  # one of this name before it
    # Before the transaction: nobody waits for our reading.
    past = _read_all(journals, campaign, seen, gone.shard if gone else 0)
    with db.transaction():
        there = {each.id: each for each in shards.of_campaign(db, campaign.id, db.LOCK)}
        if {id: each.token for id, each in there.items()} != {id: each.token for id, each in seen.items()}:
            raise StoreBusy(f"campaign {campaign.id} has changed meanwhile")
        before_us = repairs.heard(db, campaign.id, db.LOCK) or Heard()
        tokens = past.tokens | Counter(before_us.tokens)
        heard = Heard(before_us.nodes | {node}, tokens)
        missing = sorted(set(others) - heard.nodes)
        if not missing:
            _find_silent(past, there, tokens)
        _find_strays(db, past, there)
        for shard in there.values():
            results = []
            for person in deliveries.people(db, shard.id):
                after = _after(past, shard, person, channels)
                if after != person.progress:
                    results.append((person, after))
            if missing:
                _write_part(db, past, shard, results)
            else:
                _write(db, shard, tokens[shard.id], results)
            changed += len(results)
        history.note(db, campaign.id, "repaired", by, f"{history.people(changed)} changed by this node's journals")
        if missing:
            repairs.hear(db, campaign.id, heard, _waits_for(missing))
            log.warning("campaign %s: %d people changed; %s", campaign.id, changed, _waits_for(missing))
            return changed
        repairs.hear(db, campaign.id, None)
        plan_owners.take_in_hand(db, campaign.id, node)
        activity.let_go_on(db, campaign.id)
        if campaign.state == "paused":
            before = campaigns.before_pause(db, campaign)
            campaigns.move(db, campaign.id, "paused", before, noted=True, cause=None, reason=None)
        else:
            repairs.trust(db, campaign.id)
    with db.transaction():
        finishing.finish(db, campaign.id)
    log.warning("campaign %s repaired: %d people changed", campaign.id, changed)
    return changed


def _read_all(journals: Path, campaign: Campaign, there: dict[int, Shard], after: int) -> Past:
    """``after``: the last shard that is not its own, though it was of a campaign of this name."""
    past = Past()
    for path in (*kept(journals), *in_use(journals)):
        try:
            said = read(path.read_bytes())
        except FileNotFoundError:  # its worker put it aside just now: it had nothing of a paused campaign
            continue
        if campaign.cause == "copy" and path.parent == journals:  # its original may have gone on
            said.reliable = False
        _take_in(past, said, tag(campaign.id), there, after)
    return past


def _find_silent(past: Past, there: dict[int, Shard], told: Mapping[int, int]) -> None:
    """A lease that the store knows and nobody's journal: whoever had it may have sent to whom it had claimed."""
    for shard in there.values():
        if shard.leased and told.get(shard.id, 0) < shard.token:
            past.silent[shard.id] = max(past.silent[shard.id], shard.token)


def _take_in(past: Past, said: Testimony, campaign: int, there: dict[int, Shard], after: int) -> None:
    """Only leases that the store has not seen the end of: what came of the others is in it."""
    mine = {
        (shard, token) for (shard, token), who in said.leases.items()
        if who == campaign and shard > after and (shard not in there or token >= there[shard].token)
    }  # fmt: skip
    for shard, token in mine:
        past.tokens[shard] = max(past.tokens[shard], token)
        if not said.reliable:
            past.silent[shard] = max(past.silent[shard], token)
    for (shard, position, token), calls in said.calls.items():
        if (shard, token) in mine:
            past.calls.setdefault((shard, position, calls[0].who), {})[token] = calls


def _find_strays(db: Database, past: Past, there: dict[int, Shard]) -> None:
    lost = set(past.calls)
    for shard, position, who in _places(db, there):
        lost.discard((shard, position, who))
    for place in lost:
        for _, calls in sorted(past.calls.pop(place).items()):
            past.strays.setdefault(place[2], []).extend(calls)
    if past.strays:
        past.alike.update(who for _, _, who in _places(db, there) if who in past.strays)


def _places(db: Database, there: dict[int, Shard]) -> Iterator[Place]:
    return ((shard, person.pos, tag(person.openid)) for shard in there for person in deliveries.people(db, shard))


def _after(past: Past, shard: Shard, person: Person, channels: tuple[int, ...]) -> Progress:
    who = tag(person.openid)
    known = past.calls.get((shard.id, person.pos, who), {})
    calls = [call for token, some in sorted(known.items()) if token > person.attempt for call in some]
    after = person.progress
    if calls:
        after = replay(_tried_again(after), calls, channels, person.person is not None)
    elif after.state is State.PENDING and who in past.strays:
        after = replay(after, past.strays[who], channels, person.person is not None)
        if past.alike[who] > 1:  # nobody can tell which of them it was
            after = replace(after, state=State.UNKNOWN, msgid=None, since=LONG_AGO)
    if after.state in OPEN and _in_silence(past, shard, person):
        after = replace(after, state=State.UNKNOWN, since=LONG_AGO)
    return after


def _tried_again(before: Progress) -> Progress:
    """Calls beyond those that a row knows mean that an operator had it tried again."""
    again = {State.FAILED: State.PENDING, State.UNKNOWN: State.RESEND}
    return replace(before, state=again.get(before.state, before.state))


def _in_silence(past: Past, shard: Shard, person: Person) -> bool:
    """Whether they may have been sent to under a lease whose journal would not know it."""
    token = past.silent[shard.id]
    return token > shard.token or (token == shard.token > person.attempt and person.pos < shard.next)


def _waits_for(nodes: Collection[str]) -> str:
    return (
        f"its repair waits for the journals of node {', '.join(nodes)}, which tell whom that has sent to: start it, or "
        "cancel the campaign"
    )


def _write_part(db: Database, past: Past, shard: Shard, results: list[tuple[Person, Progress]]) -> None:
    """What this node knows. Who was called under a later lease is told by the node that had it: so each row bears the
    token of the last call that is in it, and the shard's stays."""
    by_token: dict[int, list[tuple[Person, Progress]]] = {}
    for person, after in results:
        known = past.calls.get((shard.id, person.pos, tag(person.openid)), {})
        by_token.setdefault(max(known, default=person.attempt), []).append((person, after))
    for token, some in by_token.items():
        _correct(db, shard.id, token, some)
    counters.recount(db, shard.id)


def _write(db: Database, shard: Shard, token: int, results: list[tuple[Person, Progress]]) -> None:
    """The shard is free then, and its token beyond every lease that there ever was."""
    _correct(db, shard.id, shard_leases.retake(db, shard.id, token), results)
    counters.recount(db, shard.id)


def _correct(db: Database, shard: int, token: int, results: list[tuple[Person, Progress]]) -> None:
    refused: list[Result] = [
        (person.pos, replace(person.progress, state=State.PENDING))
        for person, _ in results if person.progress.state is State.FAILED
    ]  # fmt: skip
    records.correct(db, shard, token, refused)
    records.correct(db, shard, token, [(person.pos, after) for person, after in results])
