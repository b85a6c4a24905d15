"""A store that is away, or on a full disk: submissions are kept, sends stop, and all goes on by itself."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fanoutd.client import TryAgain
from support import disk
from support.bench import wait_for
from support.daemon import Daemon

pytestmark = pytest.mark.quiet


@pytest.fixture
def made() -> Iterator[list[Daemon]]:
    daemons: list[Daemon] = []
    yield daemons
    for each in daemons:
        each.close()


def test_a_store_that_nobody_may_write_for_a_while_costs_nothing_but_time(tmp_path: Path, made: list[Daemon]) -> None:
    d = Daemon(tmp_path, 3000, latency="20ms", concurrency=8, workers=2)
    made.append(d)
    campaign = d.call("campaign.submit", content="x", phone="1")["campaign"]
    wait_for(lambda: sum(d.accepted().values()) > 100, "a first part")
    with closing(sqlite3.connect(tmp_path / "state" / "fanoutd.db", isolation_level=None, timeout=10)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = d.accepted()
        later = d.call("campaign.submit", content="y", phone="1", openids=["oLATER000000000000000001"])["campaign"]
        wait_for(lambda: d.call("daemon.status")["store"]["ok"] is False, "the status to say so", 20)
        stopped = d.accepted()
        # two workers, each with two windows at most in hand
        assert sum(stopped.values()) - sum(began.values()) <= 2 * 2 * 64
        time.sleep(1)  # as long as fifty calls take: nothing was started meanwhile
        assert d.accepted() == stopped
        assert d.call("daemon.status")["state"] == "degraded"
        with pytest.raises(TryAgain):
            d.call("campaign.pause", campaign=campaign)
    assert d.until(campaign)["counts"]["sent_custom"] == 3000
    assert d.until(later)["counts"]["sent_custom"] == 1
    assert d.accepted()["oLATER000000000000000001"] == 1
    assert max(d.accepted().values()) == 1
    wait_for(lambda: d.call("daemon.status")["store"]["ok"], "all clear", 20)


def test_a_store_that_is_slow_slows_a_campaign_and_loses_nobody(tmp_path: Path, made: list[Daemon]) -> None:
    d = Daemon(tmp_path, 1500, latency="20ms", concurrency=8, workers=2)
    made.append(d)
    campaign = d.call("campaign.submit", content="x", phone="1")["campaign"]
    with closing(sqlite3.connect(tmp_path / "state" / "fanoutd.db", isolation_level=None, timeout=10)) as other:
        for _ in range(10):  # half a second in which nobody else may write, and a moment for all
            other.execute("BEGIN IMMEDIATE")
            time.sleep(0.5)
            other.execute("COMMIT")
            time.sleep(0.02)
    assert d.until(campaign)["counts"]["unknown"] == 0
    assert d.audit(campaign).good


@pytest.mark.skipif(not disk.available(), reason="needs root or user namespaces for a disk of its own")
def test_a_full_disk_stops_a_campaign_and_room_lets_it_go_on(tmp_path: Path, made: list[Daemon]) -> None:
    state = tmp_path / "state"
    d = Daemon(tmp_path, 4000, latency="20ms", concurrency=8, workers=2, wait=False,
               prefix=disk.mounted(state, "size=12m"))  # fmt: skip
    made.append(d)
    d.socket = disk.seen_by(d.process.pid, d.socket)
    wait_for(lambda: d.socket.exists() and d.ready(), "an answer to ping")
    campaign = d.call("campaign.submit", content="x", phone="1")["campaign"]
    wait_for(lambda: sum(d.accepted().values()) > 100, "a first part")
    filler = disk.seen_by(d.process.pid, state) / "filler"
    with filler.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass
    def still() -> bool:
        before = sum(d.accepted().values())
        time.sleep(1)
        return sum(d.accepted().values()) == before < 4000

    wait_for(still, "no further message", 30)
    found = d.call("campaign.get", campaign=campaign)
    assert found["state"] == "running"
    filler.unlink()
    assert d.until(campaign)["counts"]["unknown"] == 0
    assert d.audit(campaign).good
