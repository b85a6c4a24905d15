"""Receipts over a store made by hand: floods cost few reads, and each settles the one that it is for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fanoutd.dispatcher import receipts
from fanoutd.dispatcher.receipts import Receipts
from fanoutd.outcome import Progress, State
from fanoutd.store import Database, campaigns, finishing, free_shards, records, shard_leases, shards, windows
from fanoutd.store.campaigns import Campaign
from fanoutd.store.shards import Planned
from fanoutd.times import wall_ms
from support.stores import KINDS, opened


@pytest.fixture(params=KINDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    made = opened(request.param, tmp_path)
    yield made
    made.close()


def person(i: int) -> str:
    return f"oRECEIPT{i:020d}"


def campaign(db: Database, name: str, people: int, state: State, **more: Any) -> None:
    """With one shard in which all have ended like this on the template channel."""
    row = Campaign(name, "main", "supply", None, None, None, "running", None, None, wall_ms(), None, wall_ms(), None,
                   True, "node1", "list", {"channels": ["custom", "template"]})  # fmt: skip
    with db.transaction():
        campaigns.insert(db, row)
        shards.add(db, name, 0, [Planned(person(i)) for i in range(people)])
        held = free_shards.lease(db, "node1/w1")
        assert held is not None
        windows.claim(db, held, people)
        progress = Progress(state, 2, None, attempts=1, **more)
        records.record(db, held.shard, held.token, [(i, progress) for i in range(people)])
        shard_leases.release(db, held)
        finishing.finish(db, name)


def states(db: Database, name: str) -> list[int]:
    rows = db.rows(
        "SELECT d.state FROM fanout_delivery d JOIN fanout_shard s ON s.id = d.shard "
        "WHERE s.campaign = %s ORDER BY pos", name,
    )  # fmt: skip
    return [row[0] for row in rows]


def event(i: int, msgid: int | None = None, status: str = "success") -> dict[str, Any]:
    return {"openid": person(i), "account": None, "at": None, "msgid": msgid, "status": status}


def test_a_flood_reads_a_shard_that_has_not_changed_only_once(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign(db, "c-1", 50, State.UNKNOWN)
    reads: list[int] = []
    read = receipts._read
    monkeypatch.setattr(receipts, "_read", lambda *args: reads.append(args[3]) or read(*args))
    monkeypatch.setattr(receipts, "_FRESH", 0.0)
    taken = Receipts()
    for i in range(1000, 1200):  # nobody's
        taken.take(db, event(i, 7))
    assert len(reads) == 1
    taken.take(db, event(3, 8))
    taken.take(db, event(1000))
    assert len(reads) == 2
    assert states(db, "c-1").count(State.SENT) == 1 and states(db, "c-1")[3] == State.SENT


def test_one_that_comes_too_early_settles_its_delivery_later(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "_FRESH", 0.0)
    taken = Receipts()
    taken.take(db, event(0, 7))
    taken.take(db, event(1, 8, "failed: system failed"))
    campaign(db, "c-1", 3, State.UNKNOWN)
    taken.settle(db)
    assert states(db, "c-1") == [State.SENT, State.FAILED, State.UNKNOWN]


def test_a_receipt_that_has_settled_one_settles_no_other_when_it_comes_again(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "_FRESH", 0.0)
    taken = Receipts()
    campaign(db, "c-1", 1, State.UNKNOWN)
    taken.take(db, event(0, 7, "failed:user block"))
    campaign(db, "c-2", 1, State.UNKNOWN)
    taken.take(db, event(0, 7, "failed:user block"))
    assert (states(db, "c-1"), states(db, "c-2")) == ([State.FAILED], [State.UNKNOWN])
    taken.take(db, event(0, 8))
    assert states(db, "c-2") == [State.SENT]


def test_kept_receipts_are_forgotten_by_age_and_number(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "_FRESH", 0.0)
    monkeypatch.setattr(receipts, "_AT_MOST", 10)
    taken = Receipts()
    for i in range(30):
        taken.take(db, event(i, i + 1))
    assert len(taken._kept) == 10
    monkeypatch.setattr(receipts, "_KEPT", 0.0)
    taken.settle(db)
    assert not taken._kept
