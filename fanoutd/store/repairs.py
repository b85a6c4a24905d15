"""How far the repair of a campaign has come, of which the store did not say what has happened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from fanoutd.store.campaigns import COLUMNS, Campaign, as_campaign
from fanoutd.store.database import Database


@dataclass(frozen=True, slots=True)
class Heard:
    """How far the repair of a campaign has come: the nodes whose journals were read, and by shard the highest token of
    a lease that they tell of."""

    nodes: frozenset[str] = frozenset()
    tokens: Mapping[int, int] = field(default_factory=dict)


def heard(db: Database, campaign: str, lock: str = "") -> Heard | None:
    """None when no repair has begun. In a transaction with ``lock`` nobody else takes part in it meanwhile."""
    row = db.one(f"SELECT heard FROM fanout_campaign WHERE id = %s{lock}", campaign)
    if row is None or row[0] is None:
        return None
    said = json.loads(row[0])
    return Heard(frozenset(said["nodes"]), {int(shard): token for shard, token in said["tokens"].items()})


def hear(db: Database, campaign: str, heard: Heard | None, reason: str | None = None) -> None:
    """Keep how far it has come, and say what it waits for; None: it is over."""
    said = json.dumps({"nodes": sorted(heard.nodes), "tokens": dict(heard.tokens)}) if heard else None
    db.execute(
        "UPDATE fanout_campaign SET heard = %s, reason = COALESCE(%s, reason) WHERE id = %s", said, reason, campaign
    )


def in_repair(db: Database) -> list[Campaign]:
    """Those whose repair has begun."""
    rows = db.rows(
        f"SELECT {COLUMNS} FROM fanout_campaign WHERE state IN ('paused', 'cancelled') AND heard IS NOT NULL"
    )
    return [as_campaign(row) for row in rows]


def trust(db: Database, campaign: str) -> None:
    """What the store says of it is what has happened."""
    db.execute("UPDATE fanout_campaign SET cause = NULL, reason = NULL WHERE id = %s", campaign)
