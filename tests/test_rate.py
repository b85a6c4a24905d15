"""The account's rate: over all workers and their deaths, and after 45011 and -1."""

from __future__ import annotations

import bisect
import os
import random
import signal
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fanoutd import pace
from fanoutd.bucket import Bucket, bucket_path
from fanoutd.pace import Pace, configured, grant, in_force, reparted, rested, restored, slower, tallied, worth_asking
from support.bench import Bench, wait_for
from support.daemon import Daemon

Make = Callable[..., Bench]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def make(**how: object) -> Bench:
        made.append(Bench(tmp_path, **how))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


# ---- the rules, with the time passed in


def test_45011_rests_a_minute_halves_and_gives_a_tenth_back_each_further_minute() -> None:
    after = rested(Pace(200, 0.0), 1000.0)
    assert after.rest == 1060.0
    assert [in_force(after, 1060.0 + 60 * minute) for minute in range(7)] == [100, 120, 140, 160, 180, 200, 200]
    assert in_force(after, 1060.0 + 59.9) == 100


def test_all_that_were_on_the_wire_hear_45011_and_it_halves_once() -> None:
    after = once = rested(Pace(200, 0.0), 1000.0)
    for turn in range(63):
        after = rested(after, 1000.0 + turn / 2)
    assert after == once
    again = rested(once, 1130.0)  # after the rest, when 120 were allowed again
    assert in_force(again, 1190.0) == 60.0 and again.rest == 1190.0


def test_a_rate_that_is_halved_again_and_again_never_comes_to_nothing() -> None:
    after, at = Pace(0.5, 0.0), 0.0
    for _ in range(20):
        after, at = rested(after, at), at + 61
    assert in_force(after, at) == pytest.approx(0.5 * pace.LEAST_HALVED)


def test_busy_in_numbers_slows_once_in_ten_seconds_and_success_restores() -> None:
    nine = tallied(Pace(200, 0.0), 100.0, answers=90, busy=9)
    assert in_force(nine, 100.0) == 200
    ten = tallied(nine, 101.0, answers=5, busy=1)
    assert in_force(ten, 101.0) == pytest.approx(140)
    assert tallied(ten, 105.0, answers=100, busy=100).slowed == ten.slowed
    assert in_force(tallied(ten, 111.0, answers=100, busy=100), 111.0) == pytest.approx(98)
    good, at = ten, 111.0
    for _ in range(3):
        good, at = tallied(good, at, answers=50, busy=0), at + 10
    assert in_force(good, at) == pytest.approx(200)


def test_busy_answers_that_lie_far_apart_slow_nothing() -> None:
    after = Pace(200, 0.0)
    for turn in range(1000):  # 9 of a hundred
        after = tallied(after, turn * 0.1, 1, busy=int(turn % 12 == 0))
    assert after.slowed == 1.0


@pytest.mark.parametrize(("rate", "least"), [(200, 10.0), (10, 1.0), (0.5, 0.5)])
def test_busy_leaves_a_call_a_second_or_a_twentieth(rate: float, least: float) -> None:
    after = Pace(rate, 0.0)
    for turn in range(40):
        after = slower(after, turn * 10.0)
    assert in_force(after, 400.0) == pytest.approx(least)


def test_another_configured_rate_holds_at_once_and_a_rest_goes_on() -> None:
    slow = rested(slower(Pace(0.01, 1090.0), 1000.0), 1000.0)
    after = configured(slow, 1000.0, 50.0)
    assert in_force(after, 1000.0) == 50.0 and after.due <= 1000.02 and after.rest == 1060.0
    assert configured(after, 1000.0, 50.0) is after
    assert restored(0.5, 100.0, 90.0) == 0.5


@pytest.mark.parametrize("rate", [0.5, 1, 5, 9.5, 20, 200, 3000])
def test_who_asks_when_it_is_worth_it_gets_the_whole_rate(rate: float) -> None:
    due, at, times = 0.0, 0.0, []
    while at < 20:
        granted, due = grant(due, at, rate, 64)
        times += [at] * granted
        at += worth_asking(due, at, rate, 64) + 0.0015  # a loop wakes late
    assert len(times) >= rate * 20 * 0.95 - 1
    for first, begin in enumerate(times):
        assert bisect_left(times, begin + 1) - first <= max(1, rate * 1.1)


# ---- the file


@pytest.mark.parametrize("damage", [b"", b"x", bytes(200), b"\xff" * 200])
def test_a_damaged_file_is_an_empty_bucket_not_a_full_one(tmp_path: Path, damage: bytes) -> None:
    bucket = Bucket(tmp_path / "b", 100.0)
    bucket.rest()
    data = (tmp_path / "b").read_bytes()
    (tmp_path / "b").write_bytes(damage or data[:-3] + b"\0\0\0")
    other = Bucket(tmp_path / "b", 100.0)
    assert other.take(64)[0] == 1


def test_processes_share_the_rate_that_the_dispatcher_set_whatever_they_were_started_with(tmp_path: Path) -> None:
    old, dispatcher = Bucket(tmp_path / "b", 100.0), Bucket(tmp_path / "b", 20.0)
    old.take(1)
    dispatcher.configure(20.0)
    assert old.in_force() == 20.0
    for _ in range(10):
        old.tally(busy=True)
    old.take(1)
    assert dispatcher.in_force() == pytest.approx(14.0)
    dispatcher.rest()
    assert old.take(5)[0] == 0 and old.resting() > 59 and old.in_force() == pytest.approx(10.0)
    dispatcher.configure(40.0)
    assert old.in_force() == 40.0 and old.resting() > 59


def test_whoever_knows_nothing_of_parts_reads_the_same_file(tmp_path: Path) -> None:
    """A worker of the version before, while the daemon is upgraded."""
    shared, old = Bucket(tmp_path / "b", 100.0, shared=True), Bucket(tmp_path / "b", 100.0)
    assert shared.take(1)[0] == 0 and shared.fed().hungry > 0
    assert shared.feed(7.0, 1e12) and shared.fed().until == 1e12
    assert old.in_force() == 7.0
    wait_for(lambda: old.take(1)[0], "a call that is due")
    assert shared.take(1)[0] == 0 and shared.fed().calls == 0
    wait_for(lambda: shared.take(1)[0], "a call that is due")
    assert shared.fed().calls == 1


def test_a_part_that_grows_is_no_call_more_at_once() -> None:
    assert reparted(Pace(0.0, 5.0), 100.0, 40.0).due == 100.025  # what was another's until now is not saved up
    assert reparted(Pace(40.0, 100.02), 100.0, 20.0).due == pytest.approx(100.045)
    halved = rested(Pace(40.0, 0.0), 100.0)
    assert in_force(reparted(halved, 160.0, 80.0), 160.0) == 40.0
    assert reparted(halved, 160.0, 40.0) is halved


def test_a_45011_that_meets_a_held_lock_is_not_forgotten(tmp_path: Path) -> None:
    holder, other = Bucket(tmp_path / "b", 100.0), Bucket(tmp_path / "b", 100.0)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:  # POSIX locks are a process's own
        holder._lock()
        os.write(write, b"x")
        signal.pause()
    try:
        os.read(read, 1)
        assert other.take(1) == (0, 0.001)
        other.rest()
        assert other.resting() == 0
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert other.take(1)[0] == 0 and other.resting() > 59


# ---- on the wire


def test_a_storm_of_45011_rests_all_workers_and_halves_once(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "REST", 1.5)
    b = bench(rate=100, latency="300ms")
    b.campaign(400)
    b.work(slot=1)
    b.work(slot=2)
    wait_for(lambda: len(b.accepted()) > 50, "a first part")
    b.sandbox.set_options(minute_limit=1)
    refused = wait_for(lambda: b.sandbox.stats()["refused"].get("45011"), "a refusal")
    bucket = Bucket(bucket_path(b.config.daemon.state_dir, "main"), 100)
    wait_for(bucket.resting, "the rest")
    over = time.time() + bucket.resting()
    reason = wait_for(lambda: b.db.rows("SELECT reason FROM fanout_campaign")[0][0], "a reason")
    assert "45011" in reason and "rests until" in reason
    refused = wait_for(lambda: (r := b.sandbox.stats()["refused"]["45011"]) > 10 and r, "the rest of the storm")
    assert refused > 10 and bucket.in_force() == 50
    b.sandbox.set_options(minute_limit=0)
    before = len(b.sandbox.ledger_rows())
    wait_for(lambda: time.time() > over, "the end of the rest")
    assert not [row["t"] for row in b.sandbox.ledger_rows() if over - 1.0 < row["t"] < over - 0.01]
    wait_for(lambda: b.state() == "done", "the end")
    times = sorted(row["t"] for row in b.sandbox.ledger_rows()[before:])
    busiest = max(bisect.bisect_left(times, t + 1) - i for i, t in enumerate(times))
    assert 40 <= busiest <= 55
    assert b.counts().sent_custom == 400 and set(b.accepted().values()) == {1}


def test_busy_in_numbers_slows_the_wire(bench: Make) -> None:
    b = bench(rate=200, busy=0.5)
    b.campaign(300)
    b.work()
    wait_for(lambda: b.state() == "done", "the end", 30)
    bucket = Bucket(bucket_path(b.config.daemon.state_dir, "main"), 200)
    assert bucket.in_force() == pytest.approx(140)
    assert b.counts().sent_custom == 300


@pytest.mark.parametrize("rate", [5, 0.5])
def test_a_slow_rate_sends_all_the_same(bench: Make, rate: float) -> None:
    b = bench(rate=rate)
    b.campaign(4)
    b.work(slot=1)
    b.work(slot=2)
    wait_for(lambda: b.state() == "done", "the end")
    times = sorted(row["t"] for row in b.sandbox.ledger_rows())
    assert times[-1] - times[0] == pytest.approx(3 / rate, rel=0.1, abs=0.05)


class Unjudged(Daemon):
    ACCOUNT = "max_failures = 1"


@pytest.mark.quiet
def test_no_second_of_four_workers_sees_more_than_105_percent_nor_less_than_95_while_they_are_killed(
    tmp_path: Path,
) -> None:
    rate, calm, wild = 200, 6, 9
    d = Unjudged(tmp_path, followers=rate * (calm + wild + 8), workers=4, concurrency=64, rate=rate, latency="50ms")
    try:
        d.call("campaign.submit", content="x", phone="1")
        wait_for(lambda: len(d.sandbox.ledger_rows()) > rate, "a first second")
        begin = time.time()
        wait_for(lambda: time.time() > begin + calm, "the calm part")
        kills, draw = 0, random.Random(1)
        while time.time() < begin + calm + wild:
            os.kill(draw.choice(d.workers())["pid"], signal.SIGKILL)
            kills += 1
            wait_for(lambda upto=begin + calm + kills: time.time() > upto, "the next second")
        end = time.time()
        times = sorted(row["t"] for row in d.sandbox.ledger_rows())
        seconds = [begin + step / 20 for step in range(int((end - begin - 1) * 20))]
        counts = [bisect.bisect_left(times, t + 1) - bisect.bisect_left(times, t) for t in seconds]
        busiest = d.sandbox.stats()["busiest_second"]
        print(f"{kills} kills; a second saw {min(counts)} to {busiest} calls, {sum(counts) / len(counts):.1f} mostly")
        assert kills >= 8
        assert busiest <= rate * 1.05
        assert min(counts) >= rate * 0.95
    finally:
        d.close()
