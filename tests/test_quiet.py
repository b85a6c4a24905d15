"""Quiet hours: nothing starts inside, whatever the clocks do, and everything goes on at their end."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fanoutd import gates
from fanoutd.quiet import crossings, next_begin, quiet_until, seconds_lost
from fanoutd.store import campaigns, free_shards, shards
from fanoutd.store.campaigns import Campaign
from fanoutd.store.shards import Planned
from fanoutd.times import clock, wall_ms
from support.bench import Bench, wait_for
from support.daemon import Daemon

NIGHT = ("22:00", "08:00")
NOON = ("12:00", "14:30")
SHANGHAI = "Asia/Shanghai"

Make = Callable[..., Bench]


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


# ---- the rule


@pytest.mark.parametrize(
    ("spec", "zone", "at", "until"),
    [
        (NIGHT, SHANGHAI, "2026-11-27T21:59:59.999+08:00", None),
        (NIGHT, SHANGHAI, "2026-11-27T22:00:00+08:00", "2026-11-28T08:00+08:00"),
        (NIGHT, SHANGHAI, "2026-11-28T00:00:00+08:00", "2026-11-28T08:00+08:00"),
        (NIGHT, SHANGHAI, "2026-11-28T07:59:59.999+08:00", "2026-11-28T08:00+08:00"),
        (NIGHT, SHANGHAI, "2026-11-28T08:00:00+08:00", None),
        (NIGHT, "UTC", "2026-11-27T22:30:00+08:00", None),
        (NOON, SHANGHAI, "2026-11-27T12:00:00+08:00", "2026-11-27T14:30+08:00"),
        (NOON, SHANGHAI, "2026-11-27T14:30:00+08:00", None),
        (("00:00", "23:59"), SHANGHAI, "2026-11-27T23:59:30+08:00", None),
        (("23:00", "00:00"), SHANGHAI, "2026-11-27T23:30:00+08:00", "2026-11-28T00:00+08:00"),
        # Berlin puts its clocks forward at 02:00 on 29 March 2026 and back at 03:00 on 25 October.
        (NIGHT, "Europe/Berlin", "2026-03-28T22:00:00+01:00", "2026-03-29T08:00+02:00"),
        (NIGHT, "Europe/Berlin", "2026-10-24T22:00:00+02:00", "2026-10-25T08:00+01:00"),
        (("01:00", "02:30"), "Europe/Berlin", "2026-03-29T01:30:00+01:00", "2026-03-29T03:00+02:00"),
        (("02:30", "05:00"), "Europe/Berlin", "2026-03-29T01:59:59+01:00", None),
        (("02:30", "05:00"), "Europe/Berlin", "2026-03-29T03:00:00+02:00", "2026-03-29T05:00+02:00"),
        (("01:00", "02:30"), "Europe/Berlin", "2026-10-25T02:10:00+01:00", "2026-10-25T02:30+01:00"),
        (("02:30", "05:00"), "Europe/Berlin", "2026-10-25T02:29:00+02:00", None),
        (("02:30", "05:00"), "Europe/Berlin", "2026-10-25T02:10:00+01:00", "2026-10-25T05:00+01:00"),
    ],
)
def test_when_it_is_quiet_and_until_when(spec: tuple[str, str], zone: str, at: str, until: str | None) -> None:
    assert quiet_until(spec, zone, ms(at)) == (None if until is None else ms(until))


def test_without_quiet_hours_it_is_never_quiet() -> None:
    assert quiet_until(None, SHANGHAI, ms("2026-11-27T23:00+08:00")) is None
    assert next_begin(None, SHANGHAI, 0) is None and seconds_lost(None, SHANGHAI, 0, 1e6) == 0


@pytest.mark.parametrize("zone", [SHANGHAI, "Europe/Berlin", "America/New_York", "Pacific/Auckland"])
def test_over_a_year_it_is_quiet_when_clocks_on_the_wall_say_so(zone: str) -> None:
    at, end = ms("2026-01-01T00:00+00:00"), ms("2027-01-01T00:00+00:00")
    while at < end:
        shown = clock(at, zone)
        assert (quiet_until(NIGHT, zone, at) is not None) == (shown >= "22:00" or shown < "08:00"), (zone, at)
        at += 47 * 60_000


def test_what_a_long_campaign_loses_to_the_nights() -> None:
    start = ms("2026-11-27T20:00+08:00")
    assert seconds_lost(NIGHT, SHANGHAI, start, 2 * 3600) == 0
    assert seconds_lost(NIGHT, SHANGHAI, start, 2 * 3600 + 1) == 36_000
    assert seconds_lost(NIGHT, SHANGHAI, start, 16 * 3600 + 1) == 72_000
    assert crossings(NIGHT, SHANGHAI, start + 3 * 3_600_000, 1.0) == [
        (start + 3 * 3_600_000, ms("2026-11-28T08:00+08:00"))
    ]


def test_the_reason_says_until_when_in_the_accounts_zone() -> None:
    until = ms("2026-11-28T08:00+08:00")
    words = gates.reason({1: gates.Closed("quiet", until), 2: gates.Closed("quiet", until)}, SHANGHAI, until - 1)
    assert words.startswith("quiet hours until 08:00 (Asia/Shanghai)")


# ---- workers


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def make(**how: Any) -> Bench:
        b = Bench(tmp_path, **how)
        account = replace(b.config.accounts["main"], quiet_hours=NIGHT)
        b.config = replace(b.config, accounts={"main": account})
        made.append(b)
        return b

    yield make
    for each in made:
        each.close()


def night(monkeypatch: pytest.MonkeyPatch, begin: int, end: int) -> None:
    """Let the one night there is be this, for every process that is forked from here on."""
    monkeypatch.setattr(gates, "quiet_until", lambda _spec, _zone, at: end if begin <= at < end else None)
    monkeypatch.setattr(gates, "next_begin", lambda _spec, _zone, at: begin if at < begin else None)


def test_nothing_starts_inside_in_mid_campaign_and_all_goes_on_at_the_end(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = bench(rate=200, latency="50ms")
    b.campaign(700)
    begin, end = wall_ms() + 2500, wall_ms() + 5500
    night(monkeypatch, begin, end)
    workers = [b.work(slot) for slot in (1, 2)]
    wait_for(lambda: wall_ms() > begin + 500, "the night")
    wait_for(lambda: all(each.listen()[-1:] == [{"t": "idle"}] for each in workers), "idleness")
    wait_for(lambda: free_shards.totals(b.db)[1] == 0, "the leases to be given back")
    assert b.state() == "running" and b.counts().pending > 100
    reason = b.db.rows("SELECT reason FROM fanout_campaign")[0][0]
    assert reason == f"quiet hours until {clock(end, SHANGHAI)} ({SHANGHAI}); it goes on by itself then"
    assert free_shards.ready(b.db) == 0
    wait_for(lambda: free_shards.ready(b.db) > 0, "the morning")
    for each in workers:
        each.say(t="work")
    wait_for(lambda: b.state() == "done", "the end")
    times = [row["t"] * 1000 for row in b.sandbox.ledger_rows()]
    assert min(times) < begin - 1000 and max(times) > end
    assert not [t for t in times if begin <= t < end]
    assert b.counts().sent_custom == 700 and set(b.accepted().values()) == {1}


def test_a_test_message_goes_out_in_the_night_and_nobody_else(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    b = bench()
    night(monkeypatch, wall_ms() - 1000, wall_ms() + 60_000)
    b.campaign(50)
    ordinary = campaigns.get(b.db, "c-1")
    assert isinstance(ordinary, Campaign)
    with b.db.transaction():
        campaigns.insert(b.db, replace(ordinary, id="c-test", definition=ordinary.definition | {"test": True}))
        shards.add(b.db, "c-test", 0, [Planned("oTESTER0000000001")])
    worker = b.work()
    wait_for(lambda: b.state("c-test") == "done", "the test message")
    wait_for(lambda: worker.listen()[-1:] == [{"t": "idle"}], "idleness")
    assert b.accepted() == {"oTESTER0000000001": 1}
    assert b.counts().pending == 50


def test_a_worker_works_the_boundary_out_once_and_not_at_every_turn(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = bench().config.accounts["main"]
    at, asked = ms("2026-11-27T21:30+08:00"), []
    watch = gates.QuietWatch(account)
    real = gates.quiet_until
    monkeypatch.setattr(gates, "quiet_until", lambda *args: asked.append(1) or real(*args))
    for turn in range(60_000):
        assert watch.until(at + turn) is None
    assert len(asked) <= 4
    assert watch.until(at - 90 * 60_000) is None  # the wall clock was put back
    assert watch.until(ms("2026-11-27T21:59:58.999+08:00")) is None
    assert watch.until(ms("2026-11-27T21:59:59+08:00")) == ms("2026-11-28T08:00+08:00")
    assert watch.until(ms("2026-11-28T08:00+08:00")) is None


# ---- the daemon


class Quiet(Daemon):
    ACCOUNT = f'quiet_hours = "{clock(wall_ms() - 3_600_000, "UTC")}-{clock(wall_ms() + 7_200_000, "UTC")}"\n' \
              'timezone = "UTC"'


def test_a_campaign_of_the_night_says_so_and_goes_on_when_the_configuration_lets_it(tmp_path: Path) -> None:
    d = Quiet(tmp_path, followers=200)
    try:
        campaign = d.call("campaign.submit", content="x", phone="1")["campaign"]
        seen = wait_for(lambda: (c := d.call("campaign.get", campaign=campaign))["reason"] and c, "a reason")
        assert seen["state"] == "running" and seen["reason"].startswith("quiet hours until ")
        began = time.monotonic()
        wait_for(lambda: time.monotonic() > began + 6, "a sweep, which finds nothing to do")
        assert not d.accepted() and d.call("daemon.status")["shards"]["leased"] == 0
        d.config.write_text(d.config.read_text().replace(Quiet.ACCOUNT, ""))
        d.process.send_signal(1)
        done = d.until(campaign)
        assert done["reason"] is None and d.audit(campaign).good
    finally:
        d.close()


def test_what_a_worker_of_another_configuration_has_parked_goes_on_when_it_has_gone(tmp_path: Path) -> None:
    """While workers are replaced an old one may still park, by quiet hours that are no more, after the look at them."""
    d = Daemon(tmp_path, 200, rate=100, concurrency=4)
    try:
        campaign = d.call("campaign.submit", content="x", phone="1")["campaign"]
        wait_for(lambda: d.accepted(), "the first")
        d.call("campaign.pause", campaign=campaign)
        wait_for(lambda: d.call("daemon.status")["shards"]["leased"] == 0, "all given back")
        with closing(sqlite3.connect(tmp_path / "state" / "fanoutd.db", timeout=10)) as link, link:
            link.execute("UPDATE fanout_shard SET lease_until = ? WHERE owner IS NULL", ((time.time() + 3600) * 1000,))
        d.call("campaign.resume", campaign=campaign)
        os.kill(d.workers()[0]["pid"], signal.SIGKILL)
        d.until(campaign)
        assert sum(d.accepted().values()) == 200 and max(d.accepted().values()) == 1
    finally:
        d.close()
