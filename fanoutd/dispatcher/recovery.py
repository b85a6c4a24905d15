"""What becomes of the people of a dead worker: its journal is read, and the store told."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fanoutd import failpoint
from fanoutd.boot import uptime_ms
from fanoutd.dispatcher.threads import each_by_itself
from fanoutd.figures import Count, uncounted
from fanoutd.journal import Orphan, adopt, in_use, tag, worker_of
from fanoutd.outcome import Ended, State, channel_number, repeatable
from fanoutd.store import (
    Database,
    campaigns,
    deliveries,
    finishing,
    history,
    quotas,
    records,
    rounds,
    shard_leases,
    shards,
)
from fanoutd.store.campaigns import DISTRUSTED
from fanoutd.store.deliveries import Person
from fanoutd.store.records import Result
from fanoutd.store.shard_leases import Lease
from fanoutd.testimony import Testimony, read
from fanoutd.times import wall_ms

log = logging.getLogger(__name__)

#: How long after its end a lease of another node is taken over, in milliseconds: longer than a request may take that
#: began when it still held. Together with the lease, and the pause between two sweeps, less than a minute.
TAKEN_OVER_AFTER_MS = 15_000

AtAnyRisk = Callable[[str], bool]
"""Whether an account wants custom messages repeated whose answer was never seen."""


def recover(db: Database, journals: Path, node: str, at_any_risk: AtAnyRisk, count: Count = uncounted) -> int:
    """Settle every journal whose lock is free; the number of journals still held by living workers.

    ``count`` is told what was settled. What a worker had recorded before it died is not settled again, nor counted.

    Each step is guarded by state and attempt: it may be killed anywhere and run again.
    """
    alive: list[Path] = []

    def look_at(path: Path) -> None:
        orphan = adopt(path)
        if orphan is None:
            alive.append(path)
            return
        try:
            _settle_all(db, orphan, node, at_any_risk, count)
        finally:
            orphan.close()  # not settled to the end, its lock must not look like a living worker's for ever

    each_by_itself(look_at, in_use(journals))
    _without_journal(db, journals, node, at_any_risk, count)
    return len(set(alive))


def _settle_all(db: Database, orphan: Orphan, node: str, at_any_risk: AtAnyRisk, count: Count) -> None:
    said = read(orphan.data())
    if db.shared:  # a lease that is about to be committed would be found when this journal is not read any more
        with db.transaction():
            rounds.ended(db, f"{node}/{worker_of(orphan.name)}")
    for held in shard_leases.of_owner(db, f"{node}/{orphan.name}"):
        settle(db, held, said, at_any_risk, count=count)
    _settle_late(db, said, count)
    failpoint.reach("after_recovery")
    orphan.keep()


def _without_journal(db: Database, journals: Path, node: str, at_any_risk: AtAnyRisk, count: Count) -> None:
    """Leases of this node of which no journal can speak: whatever was claimed is unknown."""
    for owner in shard_leases.owners(db):
        holder, _, name = owner.partition("/")
        if holder == node and not (journals / name).exists():
            for held in shard_leases.of_owner(db, owner):
                settle(db, held, Testimony(reliable=False), at_any_risk, count=count)


def take_over(db: Database, node: str, count: Count = uncounted) -> int:
    """Free what other nodes hold though their leases ended long ago; how many shards.

    Nobody here can read their journals: whoever was claimed is unknown, until they come back and tell.
    """
    ended = [held for held in shard_leases.expired(db, TAKEN_OVER_AFTER_MS) if held.owner.partition("/")[0] != node]
    lost: Counter[tuple[str, str]] = Counter()  # campaign, dead node -> people whom it alone can tell of

    def taken(held: Lease) -> None:
        unknown = settle(db, held, Testimony(reliable=False), lambda _account: False, TAKEN_OVER_AFTER_MS, count)
        if unknown is not None:
            lost[held.campaign, held.owner.partition("/")[0]] += unknown

    each_by_itself(taken, ended)
    for (campaign, dead), people in lost.items():
        words = f"from node {dead}" + (f"; unknown by its death: {history.people(people)}" if people else "")
        history.note(db, campaign, "taken over", detail=words)
    return len(ended)


def settle(
    db: Database, held: Lease, said: Testimony, at_any_risk: AtAnyRisk, ended_before: int | None = None,
    count: Count = uncounted,
) -> int | None:
    """One shard: what its people came to, then free for the next worker; unless another node was faster, or the lease
    did not end so many milliseconds ago. How many are unknown by it; None when nothing was done."""
    results: list[Result] = []
    ended: Ended = Counter()
    with db.transaction():
        if not shard_leases.still_held(db, held, ended_before):
            return None
        campaign = campaigns.get(db, held.campaign)
        if campaign is None or campaign.cause in DISTRUSTED:  # `repair` reads the journals itself
            return None
        channels = tuple(channel_number(c) for c in campaign.definition["channels"])
        risk = at_any_risk(campaign.account)
        # Who bears this token was handed back already, and not sent to since.
        claimed = [person for person in deliveries.in_flight(db, held.shard) if person.attempt != held.token]
        quotas.settle(
            db, campaign.account, channels[0], wall_ms(), len(claimed), _calls(said, held, claimed, channels[0]),
            held.owner,
        )
        for person in claimed:
            place, own = (held.shard, person.pos, held.token), person.person is not None
            after = said.judge(person.progress, place, person.openid, channels, own)
            if after.state is State.UNKNOWN and repeatable(after, uptime_ms(), risk):
                after = replace(after, state=State.RESEND)
            if after != person.progress:
                results.append((person.pos, after))
        records.record(db, held.shard, held.token, results, ended)
        shard_leases.release(db, held)
    count(campaign.account, ended)
    failpoint.reach("mid_recovery")
    with db.transaction():
        finishing.finish(db, held.campaign)
    unknown = sum(after.doubtful for _, after in results)
    log.info("shard %d of campaign %s recovered: %d settled, %d unknown", held.shard, held.campaign,
             len(results) - unknown, unknown)  # fmt: skip
    return unknown


def _calls(said: Testimony, held: Lease, claimed: list[Person], first: int) -> Counter[int]:
    """By channel the calls that were made to these people; where nobody can tell, one each."""
    made: Counter[int] = Counter()
    for person in claimed:
        calls = said.calls.get((held.shard, person.pos, held.token), [])
        made.update(call.channel for call in calls)
        if not calls and not said.reliable:
            made[first] += 1
    return made


def _settle_late(db: Database, said: Testimony, count: Count) -> None:
    """Leases that somebody has taken over meanwhile: their people were called unknown, and may be told now.

    Only of what the store had granted: of a lease that was asked for in vain somebody else may have had the token.
    """
    for (shard, token), whose in said.granted.items():
        ended: Ended = Counter()
        with db.transaction():
            campaign = shards.campaign_of(db, shard)
            if campaign is None or campaign.cause in DISTRUSTED or tag(campaign.id) != whose:
                continue
            channels = tuple(channel_number(c) for c in campaign.definition["channels"])
            results: list[Result] = []
            for person in deliveries.given_up(db, shard, token):
                before = replace(person.progress, state=State.PENDING)
                place, own = (shard, person.pos, token), person.person is not None
                after = said.judge(before, place, person.openid, channels, own)
                if not after.doubtful:
                    results.append((person.pos, after))
            records.record(db, shard, token, results, ended)
        count(campaign.account, ended)
