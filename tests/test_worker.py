"""A worker on a campaign made by hand: real processes, a real API stand-in, its ledger against the store."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fanoutd.dispatcher.recovery import take_over
from fanoutd.journal import in_use
from fanoutd.outcome import State
from fanoutd.sandbox.options import Options
from fanoutd.sandbox.people import fate
from fanoutd.store import free_shards, shard_leases
from support.bench import Bench, person, stop_between_writes, wait_for
from support.stores import KINDS, url

Make = Callable[..., Bench]


#: For what goes through every statement that a worker has.
on_every_store = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def kind() -> str:
    """Of the store."""
    return "sqlite"


@pytest.fixture
def bench(kind: str, tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def make(**how: Any) -> Bench:
        made.append(Bench(tmp_path, store=url(kind, tmp_path), **how))
        return made[-1]

    yield make
    for each in made:
        each.close()


EXPECTED = {
    "reached": (State.SENT, 1, 0, 1),
    "no_window": (State.SENT, 2, 0, 2),
    "used_up": (State.SENT, 2, 0, 2),
    "unfollowed": (State.FAILED, 1, 43004, 1),
    "busy": (State.SENT, 1, 0, 2),
}


@on_every_store
def test_everybody_ends_in_the_one_right_state_and_nobody_is_accepted_twice(bench: Make) -> None:
    shares = {"no_window": 0.33, "used_up": 0.03, "unfollowed": 0.03, "busy": 0.03}
    b = bench(**shares)
    b.campaign(1500)
    b.work()
    wait_for(lambda: b.state() == "done", "the end")
    options = Options(**shares)
    rows, accepted = b.rows(), b.accepted()
    for i in range(1500):
        state, channel, errcode, attempts, msgid = rows[person(i)]
        assert (state, channel, errcode, attempts) == EXPECTED[fate(person(i), options)], person(i)
        assert accepted.get(person(i), 0) == (1 if state == State.SENT else 0)
        assert (msgid is not None) == (channel == 2 and state == State.SENT)
    assert b.counts().total == 1500


def test_a_token_revoked_in_mid_campaign_costs_one_refresh_and_no_delivery(bench: Make) -> None:
    b = bench(latency="20ms", rate=500)
    b.campaign(600)
    worker = b.work()
    wait_for(lambda: len(b.accepted()) > 100, "a first part")
    b.sandbox.revoke()
    asked = wait_for(
        lambda: [m for m in worker.listen() if m["t"] == "token_refused" and m["token"]], "the question for a new token"
    )
    b.refresh()
    worker.say(t="token", account="main")
    wait_for(lambda: b.state() == "done", "the end")
    assert b.counts().sent_custom == 600
    assert len({m["token"] for m in asked}) == 1
    assert b.sandbox.stats()["token_fetches"]["stable"] == 2
    assert set(b.accepted().values()) == {1}


def test_a_reused_connection_that_closes_after_accepting_gives_one_message_and_an_honest_unknown(bench: Make) -> None:
    b = bench(concurrency=1)
    b.campaign(3)
    b.sandbox.script(person(1), "drop_after")
    b.work()
    wait_for(lambda: b.state() == "done", "the end")
    assert b.rows()[person(1)][0] == State.UNKNOWN
    assert b.counts().sent_custom == 2
    assert b.accepted() == {person(0): 1, person(1): 1, person(2): 1}


def test_connections_that_the_server_closes_for_idleness_never_make_an_unknown(bench: Make) -> None:
    # A call every 50 ms, and a server that closes what was idle for 49 ms: each would be a race.
    b = bench(concurrency=1, rate=20, keepalive="1s", idle="49ms")
    b.campaign(100)
    b.work()
    wait_for(lambda: b.state() == "done", "the end", 30)
    assert b.counts().sent_custom == 100


@pytest.mark.parametrize("fault", ["drop_before", "reset_after", "bad_gateway_before", "truncated"])
def test_what_was_not_understood_is_unknown_and_never_tried_on_another_channel(bench: Make, fault: str) -> None:
    b = bench()
    b.campaign(5)
    b.sandbox.script(person(2), fault)
    b.work()
    wait_for(lambda: b.state() == "done", "the end")
    assert b.rows()[person(2)][:2] == (State.UNKNOWN, 1)
    assert b.counts().sent_custom == 4


@on_every_store
def test_a_worker_killed_in_mid_shard_leaves_nobody_doubled_and_few_unknown(bench: Make) -> None:
    b = bench(concurrency=16, latency="30ms")
    b.campaign(800)
    b.work(slot=1)
    wait_for(lambda: len(b.accepted()) > 200, "a first part")
    b.workers[0].kill()
    assert b.recover() == 0
    assert 0 < b.counts().unknown <= 16
    b.work(slot=2)
    wait_for(lambda: b.state() == "done", "the end")
    _hold_ledger_against_store(b, 800)


def test_recovery_after_another_boot_or_damage_calls_everything_claimed_unknown(bench: Make) -> None:
    b = bench(concurrency=8, latency="50ms")
    b.campaign(300)
    b.work()
    wait_for(lambda: len(b.accepted()) > 20, "a first part")
    b.workers[0].kill()
    (journal,) = b.journals.iterdir()
    with journal.open("r+b") as file:
        file.seek(len(b"fanoutd journal 1\n"))
        file.write(b"0" * 36)
    b.recover()
    claimed = b.db.one("SELECT SUM(unknown), SUM(pending) FROM fanout_shard")
    assert claimed is not None and claimed[0] > 8
    assert not in_use(b.journals)
    states = {openid: row[0] for openid, row in b.rows().items()}
    assert all(states[p] in (State.SENT, State.UNKNOWN) for p in b.accepted())


def test_a_stopped_worker_finishes_the_wire_and_hands_the_rest_back(bench: Make) -> None:
    b = bench(concurrency=16, latency="50ms")
    b.campaign(2000)
    worker = b.work()
    wait_for(lambda: len(b.accepted()) > 100, "a first part")
    assert worker.stop() == 0
    assert not in_use(b.journals)
    counts = b.counts()
    assert counts.unknown == 0 and counts.sent_custom == len(b.accepted()) and counts.pending > 0
    b.work(slot=2)
    wait_for(lambda: b.state() == "done", "the end")
    _hold_ledger_against_store(b, 2000)


def test_the_masters_end_is_a_stop(bench: Make) -> None:
    b = bench(concurrency=8, latency="50ms")
    b.campaign(1000)
    worker = b.work()
    wait_for(lambda: len(b.accepted()) > 50, "a first part")
    worker.sock.close()
    assert os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1]) == 0
    assert b.counts().unknown == 0 and b.counts().sent_custom == len(b.accepted())


def test_an_api_that_is_away_costs_nobody_and_opens_the_breaker(bench: Make) -> None:
    b = bench()
    b.campaign(200)
    b.sandbox.process.send_signal(signal.SIGTERM)
    b.sandbox.process.wait(5)
    b.work()
    reason = wait_for(
        lambda: (b.db.one("SELECT reason FROM fanout_campaign") or [None])[0], "a reason"
    )
    assert "does not answer" in reason
    assert b.counts().pending == 200


@pytest.mark.alone
def test_the_rate_holds_over_two_workers(bench: Make) -> None:
    b = bench(rate=200)
    b.campaign(600)
    b.work(slot=1)
    b.work(slot=2)
    wait_for(lambda: b.state() == "done", "the end")
    times = sorted(row["t"] for row in b.sandbox.ledger_rows())
    busiest = max(sum(t <= x < t + 1 for x in times) for t in times)
    assert busiest <= 220
    assert times[-1] - times[0] < 600 / 200 * 1.25


def _hold_ledger_against_store(b: Bench, people: int) -> None:
    accepted, rows = b.accepted(), b.rows()
    assert len(rows) == people == b.counts().total
    assert set(accepted.values()) == {1}
    for openid, row in rows.items():
        if row[0] != State.UNKNOWN:
            assert (row[0] == State.SENT) == (openid in accepted), openid


@on_every_store
def test_a_worker_stopped_beyond_its_lease_starts_nothing_under_it_and_loses_nobody(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanoutd.worker.holds.LEASE_MS", 1500)  # first, or its import would keep the other's
    monkeypatch.setattr("fanoutd.store.shard_leases.LEASE_MS", 1500)
    monkeypatch.setattr("fanoutd.worker.holds._RENEW_AFTER", 0.3)
    monkeypatch.setattr("fanoutd.worker.holds._MARGIN", 0.5)
    b = bench(concurrency=4, latency="50ms")
    b.campaign(400)
    worker = b.work()
    wait_for(lambda: len(b.accepted()) > 20, "a first part")
    stop_between_writes(worker.pid, b.config.store_url)
    try:
        time.sleep(2.5)  # longer than the lease: that it is over is what this test is about
        before = len(b.accepted())
        # Another node takes over what has ended; here nobody may but by the journal, which is locked.
        assert b.recover() == 1
        with b.db.transaction():
            assert b.db.rows("SELECT 1 FROM fanout_shard WHERE owner IS NOT NULL")
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    wait_for(lambda: b.state() == "done", "the end", 40)
    assert before < 400
    _hold_ledger_against_store(b, 400)
    assert b.counts().unknown <= 4


@on_every_store
def test_what_was_taken_over_from_a_stopped_worker_is_told_by_it_when_it_wakes(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanoutd.worker.holds.LEASE_MS", 1500)  # first, or its import would keep the other's
    monkeypatch.setattr("fanoutd.store.shard_leases.LEASE_MS", 1500)
    monkeypatch.setattr("fanoutd.worker.holds._RENEW_AFTER", 0.3)
    monkeypatch.setattr("fanoutd.worker.holds._MARGIN", 0.5)
    monkeypatch.setattr("fanoutd.dispatcher.recovery.TAKEN_OVER_AFTER_MS", 500)
    b = bench(concurrency=4, latency="50ms")
    b.campaign(400)
    worker = b.work()
    wait_for(lambda: len(b.accepted()) > 20, "a first part")
    stop_between_writes(worker.pid, b.config.store_url)
    try:
        wait_for(lambda: take_over(b.db, "node2") > 0, "the lease to be over")
        assert b.counts().unknown > 4  # nobody on that node can tell who of them was sent to
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    wait_for(lambda: b.state() == "done" and b.counts().unknown <= 4, "what never left to be given back and sent", 40)
    _hold_ledger_against_store(b, 400)
    assert b.counts().unknown <= 4


def test_a_shard_that_is_given_back_is_free_for_whoever_looked_before(bench: Make) -> None:
    """Else a worker would call itself idle beside people who wait."""
    b = bench()
    b.campaign(10)
    with b.db.transaction():
        held = free_shards.lease(b.db, "node1/w1")
        assert held is not None
    with b.db.transaction():
        free = free_shards.ask_free(b.db)
        shard_leases.release(b.db, held)
        (taken, campaign, window), = free_shards.take(b.db, "node1/w2", 64, free)
        assert (taken.shard, taken.token, campaign.id) == (held.shard, held.token + 1, "c-1")
        assert len(window.people() or []) == 10
