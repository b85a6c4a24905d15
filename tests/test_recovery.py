"""Recovery on a bare store and bare journals: what several nodes, or chance, can do to each other's words."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from fanoutd import testimony
from fanoutd.dispatcher import recovery
from fanoutd.journal import Journal, Orphan, adopt, tag
from fanoutd.outcome import State
from fanoutd.store import Database, StoreAway, campaigns, free_shards, history, rounds, shard_leases, shards, windows
from fanoutd.store.campaigns import Campaign
from fanoutd.store.mysql import MysqlDatabase
from fanoutd.store.shard_leases import Lease
from fanoutd.store.shards import Planned
from support.stores import KINDS, opened, ours, refill

NAMES = ("oA", "oB", "oC")


@pytest.fixture(params=KINDS)
def db(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A store with one campaign of three people, in shard 1; every lease has ended long ago."""
    monkeypatch.setattr("fanoutd.dispatcher.recovery.TAKEN_OVER_AFTER_MS", -(10**9))
    for node in ("n1", "n2"):
        (tmp_path / node).mkdir()
    db = opened(request.param, tmp_path)
    row = Campaign(
        id="c-1", account="main", message="m", audience=None, reference=None, key=None, state="running", cause=None,
        reason=None, created_at=1, send_at=None, started_at=1, finished_at=None, planned=True, node="n1",
        origin="query", definition={"channels": ["custom", "template"]},
    )  # fmt: skip
    with db.transaction():
        campaigns.insert(db, row)
        assert shards.add(db, "c-1", 0, [Planned(name) for name in NAMES]) == 1
    yield db
    db.close()


def claimed(db: Database, journal: Journal, node: str) -> Lease:
    with db.transaction():
        held = free_shards.lease(db, f"{node}/{journal.name}")
        assert held is not None
        journal.lease(held.shard, held.token, held.campaign)
        windows.claim(db, held, 10)
    journal.granted(held.shard, held.token, held.campaign)
    return held


def died(journal: Journal) -> None:
    os.close(journal._fd)


class Killed(BaseException):
    """The dispatcher died at this place."""


def recover(db: Database, tmp_path: Path, node: str) -> None:
    recovery.recover(db, tmp_path / node, node, lambda _account: False)


def states(db: Database) -> list[State]:
    return [State(row[0]) for row in db.rows("SELECT state FROM fanout_delivery ORDER BY shard, pos")]


def state(db: Database) -> str:
    found = campaigns.get(db, "c-1")
    assert found is not None
    return found.state


def test_a_campaign_that_was_done_goes_on_when_a_node_comes_back_and_proves_that_nobody_was_sent_to(
    db: Database, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "n2", "w1")
    claimed(db, journal, "n2")
    died(journal)
    assert recovery.take_over(db, "n1") == 1
    assert states(db) == [State.UNKNOWN] * 3 and state(db) == "done"
    recover(db, tmp_path, "n2")
    assert states(db) == [State.PENDING] * 3 and state(db) == "running"
    assert [(line.action, line.detail) for line in history.lines(db, "c-1")] == [
        ("done", "3 unknown"), ("taken over", "from node n2; unknown by its death: 3 people"), ("reopened", None)
    ]  # fmt: skip


def test_a_lease_whose_transaction_was_undone_is_no_witness_for_whoever_got_its_token(
    db: Database, tmp_path: Path
) -> None:
    vain, real = Journal(tmp_path / "n1", "w1"), Journal(tmp_path / "n2", "w2")
    with pytest.raises(RuntimeError), db.transaction():
        asked = free_shards.lease(db, "n1/w1")
        assert asked is not None
        vain.lease(asked.shard, asked.token, asked.campaign)
        raise RuntimeError("the store went away")
    held = claimed(db, real, "n2")
    assert held.token == asked.token
    real.sending((held.shard, 0, held.token), 1, tag(NAMES[0]))
    died(real)
    recovery.take_over(db, "n1")
    died(vain)
    recover(db, tmp_path, "n1")
    assert states(db) == [State.UNKNOWN] * 3
    recover(db, tmp_path, "n2")  # the one who knows
    assert states(db) == [State.UNKNOWN, State.PENDING, State.PENDING]


def test_a_journal_of_a_campaign_that_the_store_has_lost_says_nothing_of_whoever_has_its_shard_now(
    db: Database, tmp_path: Path
) -> None:
    old, real = Journal(tmp_path / "n1", "w1"), Journal(tmp_path / "n2", "w2")
    old.lease(1, 1, "c-0")
    old.granted(1, 1, "c-0")
    held = claimed(db, real, "n2")
    real.sending((held.shard, 0, held.token), 1, tag(NAMES[0]))
    died(real)
    recovery.take_over(db, "n1")
    died(old)
    recover(db, tmp_path, "n1")
    assert states(db) == [State.UNKNOWN] * 3


def test_recovery_that_was_killed_at_any_step_and_run_again_comes_to_the_same(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [0]
    held_by_the_dead: list[Orphan | None] = []

    def reach(_place: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    def note(path: Path) -> Orphan | None:
        held_by_the_dead.append(adopt(path))
        return held_by_the_dead[-1]

    monkeypatch.setattr("fanoutd.dispatcher.recovery.failpoint.reach", reach)
    monkeypatch.setattr("fanoutd.dispatcher.recovery.adopt", note)
    with db.transaction():
        for idx in (1, 2):
            shards.add(db, "c-1", idx, [Planned(f"{name}{idx}") for name in NAMES])
    journal = Journal(tmp_path / "n1", "w1")
    for calls in (1, 2, 3):
        held = claimed(db, journal, "n1")
        for pos in range(calls):
            place = (held.shard, pos, held.token)
            who = tag(NAMES[pos] + (str(held.shard - 1) if held.shard > 1 else ""))
            journal.sending(place, 1, who)
            if pos:
                journal.answer(place, 1, who, 0, None)
    died(journal)
    data = journal.path.read_bytes()
    found = []
    before = ours(db)
    for deaths in range(6):
        refill(db, before)
        journal.path.write_bytes(data)
        left[0] = deaths
        held_by_the_dead.clear()
        try:
            recover(db, tmp_path, "n1")
        except Killed:
            (last,) = held_by_the_dead
            assert last is not None
            last.close()  # as its process's end would
        assert (left[0] == 0) is (0 < deaths < 5)  # three shards and the journal: a fifth place there is not
        recover(db, tmp_path, "n1")
        found.append(db.rows("SELECT shard, pos, state, channel, errcode, attempts, since FROM fanout_delivery"))
        assert db.rows("SELECT 1 FROM fanout_shard WHERE owner IS NOT NULL") == []
    assert all(each == found[0] for each in found)
    assert [row[2] for row in found[0]].count(State.UNKNOWN) == 3


@pytest.mark.parametrize("db", ["mariadb"], indirect=True)
def test_a_commit_that_comes_after_its_worker_was_killed_is_waited_for(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its lease would be found when nobody reads the journal any more, and all in it be unknown."""
    worker = another(db)
    with worker.transaction():
        rounds.begin(worker, "n1/w")
    journal = Journal(tmp_path / "n1", "w-1")
    reads = threading.Event()

    def read(data: bytes) -> testimony.Testimony:
        reads.set()
        return testimony.read(data)

    monkeypatch.setattr(recovery, "read", read)
    own = another(db)
    recovering = threading.Thread(target=recover, args=(own, tmp_path, "n1"))
    with worker.transaction():
        rounds.write(worker, "n1/w", 1)
        held = free_shards.lease(worker, f"n1/{journal.name}")
        assert held is not None
        journal.lease(held.shard, held.token, held.campaign)
        windows.claim(worker, held, 10)
        died(journal)
        recovering.start()
        assert reads.wait(5)
        recovering.join(0.3)
    recovering.join(5)
    assert states(db) == [State.PENDING] * 3
    assert shard_leases.owners(db) == []
    recover(db, tmp_path, "n1")
    assert states(db) == [State.PENDING] * 3
    for each in (worker, own):
        each.close()


def another(db: Database) -> Database:
    """A connection to the same store."""
    assert isinstance(db, MysqlDatabase)
    return MysqlDatabase(db._server)


def test_a_store_that_goes_away_in_the_middle_leaves_no_journal_that_looks_alive(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "n1", "w1-1")
    claimed(db, journal, "n1")
    died(journal)
    with monkeypatch.context() as patched:
        patched.setattr(recovery, "settle", mock.Mock(side_effect=StoreAway("it is away")))
        with pytest.raises(StoreAway):
            recover(db, tmp_path, "n1")
    assert recovery.recover(db, tmp_path / "n1", "n1", lambda _account: False) == 0
    assert states(db) == [State.PENDING] * 3 and shard_leases.of_owner(db, "n1/w1-1") == []


def test_a_journal_that_cannot_be_settled_keeps_no_other_waiting(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, journal = Journal(tmp_path / "n1", "w1-1"), Journal(tmp_path / "n1", "w2-1")
    claimed(db, journal, "n1")
    for each in (odd, journal):
        died(each)
    both = recovery._settle_all

    def stumble(there: Database, orphan: Orphan, *rest: Any) -> None:
        if orphan.name == "w1-1":
            raise ValueError("nobody has thought of this")
        both(there, orphan, *rest)

    monkeypatch.setattr(recovery, "_settle_all", stumble)
    recover(db, tmp_path, "n1")
    assert shard_leases.of_owner(db, "n1/w2-1") == [] and states(db) == [State.PENDING] * 3
    assert (tmp_path / "n1" / "w1-1").exists() and not (tmp_path / "n1" / "w2-1").exists()
