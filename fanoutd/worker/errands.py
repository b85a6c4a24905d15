"""What the sending side wants of the store beside people and outcomes: done in the next round's transaction."""

from __future__ import annotations

from fanoutd.store import Database, campaigns, quotas, reasons, shard_leases, tokens
from fanoutd.times import wall_ms
from fanoutd.worker.round import Round
from fanoutd.worker.words import TokenRead


def run(db: Database, work: Round) -> None:
    for kind, *args in work.errands:
        _run(db, kind, args, work)


def _run(db: Database, kind: str, args: list[str], work: Round) -> None:
    """As ``Desk`` puts them."""
    if kind == "token":
        work.tokens.append(TokenRead(args[0], tokens.load(db, args[0])))
    elif kind == "pause":
        campaigns.move(db, args[0], "running", "paused", cause=args[1], reason=args[2])
    elif kind == "pause_account":
        campaigns.pause_account(db, *args)
    elif kind == "rest":
        quotas.rest(db, args[0], int(args[1]), int(args[2]), wall_ms())
    elif kind == "reopen":
        quotas.reopen(db, args[0], int(args[1]))
        shard_leases.unpark(db, args[0])
    elif kind == "explain":
        reasons.explain(db, args[0], args[1] or None, args[2] or None)
