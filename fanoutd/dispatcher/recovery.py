"""What becomes of the people of a dead worker: its journal is read, and the store told."""

from __future__ import annotations

import logging
from pathlib import Path

from fanoutd.journal import Testimony, adopt
from fanoutd.outcome import State, channel_number
from fanoutd.store import Database, campaigns, shards
from fanoutd.store.shards import Lease

log = logging.getLogger(__name__)


def recover(db: Database, journals: Path, node: str) -> int:
    """Settle every journal whose lock is free; the number of journals still held by living workers.

    Each step is guarded by state and attempt: it may be killed anywhere and run again.
    """
    alive = 0
    for path in sorted(journals.glob("[!.]*")):
        orphan = adopt(path)
        if orphan is None:
            alive += 1
            continue
        said = orphan.read()
        for held in shards.of_owner(db, f"{node}/{orphan.name}"):
            settle(db, held, said)
        orphan.discard()
    _without_journal(db, journals, node)
    return alive


def _without_journal(db: Database, journals: Path, node: str) -> None:
    """Leases of this node of which no journal can speak: whatever was claimed is unknown."""
    for owner in shards.owners(db):
        holder, _, name = owner.partition("/")
        if holder == node and not (journals / name).exists():
            for held in shards.of_owner(db, owner):
                settle(db, held, Testimony(reliable=False))


def settle(db: Database, held: Lease, said: Testimony) -> None:
    """One shard: what its people came to, then free for the next worker."""
    with db.transaction():
        campaign = campaigns.get(db, held.campaign)
        channels = tuple(channel_number(c) for c in campaign.definition["channels"]) if campaign else ()
        results = []
        for person in shards.in_flight(db, held.shard):
            after = said.judge(person.progress, (held.shard, person.pos, held.token), channels)
            if after.state is not State.PENDING or after.attempts != person.progress.attempts:
                results.append((person.pos, after))
        shards.record(db, held.shard, held.token, results)
        shards.release(db, held)
    with db.transaction():
        campaigns.finish(db, held.campaign)
    unknown = sum(after.state is State.UNKNOWN for _, after in results)
    log.info("shard %d of campaign %s recovered: %d settled, %d unknown", held.shard, held.campaign,
             len(results) - unknown, unknown)  # fmt: skip
