"""Several nodes on one store, one account: together they call no faster than it may, whatever becomes of any."""

from __future__ import annotations

import bisect
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fanoutd.bucket import Bucket, bucket_path, now
from fanoutd.config import load
from fanoutd.dispatcher.parts import Parts, adopted, refused
from fanoutd.division import LAST_TERM, MARGIN, TERM
from fanoutd.pace import Pace
from fanoutd.store import Database, StoreAway, open_store
from fanoutd.store.schema import migrate
from fanoutd.worker.lane import STARVED, Lane
from support import mariadb
from support.bench import CONFIG, wait_for
from support.daemon import Daemon
from support.sandbox import SandboxProcess

RATE = 120

#: Seconds until a node that gets work has its part, and until that of a dead one is free.
SOON, FREED = 3.5, TERM + MARGIN + 2.0


class Nodes:
    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, mariadb.server().database()
        self.sandbox = SandboxProcess(folder / "ledger.jsonl", latency="50ms")
        self.daemons: dict[str, Daemon] = {}

    def start(self, name: str, wait: bool = True) -> Daemon:
        (self.folder / name).mkdir()
        self.daemons[name] = d = Daemon(
            self.folder / name, followers=2500, rate=RATE, sandbox=self.sandbox, wait=wait, store=self.url
        )
        return d

    def part(self, name: str) -> float:
        accounts = self.daemons[name].call("daemon.status")["accounts"]  # empty until the dispatcher answers
        return float(accounts[0]["part"]) if accounts else 0.0

    def parts(self) -> list[float]:
        return [self.part(name) for name in self.daemons]

    def rate(self, seconds: float) -> float:
        """Calls a second over the coming seconds."""
        begin = time.time()
        wait_for(lambda: time.time() > begin + seconds, "the span")
        times = sorted(row["t"] for row in self.sandbox.ledger_rows())
        return (bisect.bisect(times, begin + seconds) - bisect.bisect(times, begin)) / seconds

    def steady(self) -> float:
        """The rate, as soon as it is what it should be."""
        found: float = wait_for(lambda: (seen := self.rate(2)) >= RATE * 0.9 and seen, "90 % of the rate", 8)
        return found

    def stop_between_writes(self, name: str) -> None:
        """SIGSTOP to all of a node while it has no lock in the store, which would keep the others out."""
        group = self.daemons[name].process.pid
        while True:
            os.killpg(group, signal.SIGSTOP)
            time.sleep(0.05)  # what is on its way to the server is done then
            db = open_store(self.url)
            try:
                db.set_patience(1)
                with db.transaction():
                    for table in ("fanout_shard", "fanout_rate", "fanout_share", "fanout_campaign"):
                        db.rows(f"SELECT * FROM {table}{db.LOCK}")
                return
            except StoreAway:
                os.killpg(group, signal.SIGCONT)
            finally:
                db.close()

    def close(self) -> None:
        for each in self.daemons.values():
            try:
                os.killpg(each.process.pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
            each.close()
        self.sandbox.close()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    made = Nodes(tmp_path)
    yield made
    made.close()


# ---- one node's beats, by hand


class Node:
    """Its dispatcher's side of the rate, and its workers' hand on the bucket."""

    def __init__(self, folder: Path, name: str, db: Database, rate: float = RATE) -> None:
        self.name, self.folder, self.db = name, folder / name, db
        (self.folder / "rate").mkdir(parents=True, exist_ok=True)
        self.begin(rate)

    def begin(self, rate: float) -> None:
        """As after a HUP."""
        file = self.folder / "fanoutd.toml"
        file.write_text(CONFIG.format(url="http://127.0.0.1:9", concurrency=1, rate=rate, keepalive="5s", timeout="1s",
                                      store=self.db.place.replace("//", "//u:p@")))  # fmt: skip
        file.chmod(0o600)
        config = replace(load(file), daemon=replace(load(file).daemon, state_dir=self.folder))
        self.parts = Parts(config, self.name)
        self.bucket = Bucket(bucket_path(self.folder, "main"), rate, shared=True)

    def beat(self) -> None:
        self.parts.beat(self.db)

    @property
    def part(self) -> float:
        return self.bucket.pace().rate


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two nodes with even parts."""
    db = open_store(mariadb.server().database())
    migrate(db)
    with db.closing():
        one, two = Node(tmp_path, "one", db), Node(tmp_path, "two", db)
        for each in (one, two, one, two):
            each.beat()
        assert (one.part, two.part) == (RATE / 2, RATE / 2)
        yield one, two


def test_parts_follow_the_work(pair: tuple[Node, Node]) -> None:
    one, two = pair
    one.bucket.take(64)
    for each in (one, two, one):
        each.beat()
    assert (one.part, two.part) == (RATE * 0.95, RATE * 0.05)
    two.bucket.take(64)
    for each in (two, one, two):
        each.beat()
    assert (one.part, two.part) == (RATE / 2, RATE / 2)
    assert one.parts.rate("main") == RATE


def test_what_is_not_confirmed_ends_and_is_said_so(pair: tuple[Node, Node]) -> None:
    one, two = pair
    wait_for(lambda: one.bucket.take(1)[0] == 1, "the next call to be due")
    assert one.bucket.starved_since is None
    assert one.bucket.feed(one.part, now())
    assert one.bucket.take(1) == (0, 0.1) and one.bucket.starved_since is not None
    lane = Lane(load(one.folder / "fanoutd.toml").accounts["main"], one.bucket)
    assert lane.waits_for() == ""
    one.bucket.starved_since -= 4
    assert lane.waits_for() == STARVED
    one.beat()
    wait_for(lambda: one.bucket.take(1)[0], "a call that is due")
    assert one.bucket.starved_since is None and lane.waits_for() == ""
    # Somebody else has dropped it: it begins anew, with what the others leave.
    two.bucket.take(64)
    one.db.execute("DELETE FROM fanout_share WHERE node = 'one'")
    two.beat()
    one.beat()
    assert (one.part, two.part) == (0.0, RATE)


def test_who_ends_in_order_shortens_what_is_permitted_and_its_successor_goes_on(pair: tuple[Node, Node]) -> None:
    one, _ = pair
    one.parts.leave(one.db)
    assert one.bucket.fed().until <= now() + LAST_TERM
    assert one.db.rows("SELECT term FROM fanout_share WHERE node = 'one'") == [(LAST_TERM * 1000,)]
    one.beat()  # one that was under way: nothing comes after the end
    assert one.bucket.fed().until <= now() + LAST_TERM
    one.begin(RATE)
    one.beat()
    assert one.part == RATE / 2 and one.bucket.fed().until > now() + TERM - 1


def test_45011_rests_and_halves_all_nodes_and_all_are_given_back_alike(pair: tuple[Node, Node]) -> None:
    one, two = pair
    one.bucket.rest()
    one.beat()
    two.beat()
    paces = [each.bucket.pace() for each in pair]
    assert [each.halved for each in paces] == [0.5, 0.5]
    assert paces[0].rest == pytest.approx(paces[1].rest, abs=0.5) and paces[1].rest > now() + 59
    assert abs(paces[0].halved_at - paces[1].halved_at) < 0.5
    assert two.bucket.take(1)[0] == 0 and one.parts.rate("main") == RATE / 2
    two.bucket.rest()  # it was on the wire
    for each in (two, one):
        each.beat()
    assert [each.bucket.pace().halved for each in pair] == [0.5, 0.5]


def test_a_lower_rate_holds_for_all_from_the_first_node_on_and_a_higher_one_from_the_last(
    pair: tuple[Node, Node],
) -> None:
    one, two = pair
    one.begin(50)
    for each in (one, two, one, two):
        each.beat()
    assert (one.part, two.part) == (25, 25) and two.parts.rate("main") == 50
    two.begin(200)
    for each in (two, one, two, one):
        each.beat()
    assert (one.part, two.part) == (25, 25)
    one.begin(200)
    for each in (one, two, one, two):
        each.beat()
    assert (one.part, two.part) == (100, 100)


def test_a_refusal_halves_once_a_rest_whoever_hears_it_and_again_after_it() -> None:
    first = refused(0, 1000, 60_000_000)
    assert first == (60_000_000, 500)
    assert refused(*first, 60_030_000) == (60_030_000, 500)  # heard 30 s later, during the rest
    assert refused(*first, 60_000_000 + 61_000 + 60_000) == (60_121_000, 300)  # of 60 %, a minute after the rest
    assert adopted(Pace(60, 0.0), 100.0, 0.5) == Pace(60, 0.0, 100.0, 0.5, 100.0)
    mine = Pace(60, 0.0, 160.0, 0.25, 160.0)
    assert adopted(mine, 100.0, 0.5) is mine  # heard later, and not told yet


# ---- on the wire


@pytest.mark.quiet
def test_three_nodes_share_the_rate_while_one_is_killed_one_is_stopped_and_one_joins(nodes: Nodes) -> None:
    a = nodes.start("a")
    wait_for(lambda: nodes.part("a") == RATE, "the whole rate for a node that is alone")
    b, c = nodes.start("b", wait=False), nodes.start("c", wait=False)
    wait_for(lambda: b.ready() and c.ready(), "the others")
    wait_for(lambda: nodes.parts() == [RATE / 3] * 3, "even parts for the idle", SOON + 2)
    idle = [worker["pid"] for d in (b, c) for worker in d.workers()]
    for pid in idle:
        os.kill(pid, signal.SIGSTOP)
    a.call("campaign.submit", content="x", phone="1")
    wait_for(lambda: nodes.part("a") >= 0.9 * RATE, "one busy node's part", SOON + 1)
    one = nodes.steady()
    for pid in idle:
        os.kill(pid, signal.SIGCONT)
    for d in (b, c):
        d.call("campaign.submit", content="x", phone="1")
    wait_for(lambda: nodes.parts() == [RATE / 3] * 3, "three busy nodes' parts", SOON)
    three = nodes.steady()
    c.kill_all()
    nodes.stop_between_writes("b")
    wait_for(lambda: nodes.part("a") == RATE, "the parts of the dead", FREED)
    left = nodes.steady()
    os.killpg(b.process.pid, signal.SIGCONT)
    c.serve()
    wait_for(lambda: nodes.parts() == [RATE / 3] * 3, "their return", SOON + 2)
    again = nodes.steady()
    busiest = nodes.sandbox.stats()["busiest_second"]
    print(f"one busy {one:.1f}, three {three:.1f}, one left {left:.1f}, all back {again:.1f}; at most {busiest}")
    assert busiest <= RATE * 1.1
