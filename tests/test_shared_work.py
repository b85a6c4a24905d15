"""What a node does for campaigns that are not its own: with the store's clock and the other nodes made by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fanoutd.config import load
from fanoutd.dispatcher import commands, planner, shared_work
from fanoutd.dispatcher.importer import bring_in
from fanoutd.dispatcher.planner import Planner
from fanoutd.dispatcher.shared_work import Means, SharedWork
from fanoutd.spool import Spool
from fanoutd.store import Database, activity, campaigns, free_shards, nodes, open_store, shard_leases, windows
from fanoutd.store.campaigns import Campaign
from fanoutd.store.schema import migrate
from fanoutd.store.shards import Planned
from fanoutd.times import wall_ms
from support.mariadb import server
from support.program import CONFIG


@pytest.fixture
def url() -> str:
    url = server().database()
    with closing(open_store(url)) as db:
        migrate(db)
    return url


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    with closing(open_store(url)) as found:
        yield found


@dataclass
class Node:
    """One node's part in the work on campaigns, without a master: ``said`` and ``woken`` are what it would hear."""

    name: str
    folder: Path
    said: list[dict[str, Any]] = field(default_factory=list)
    woken: list[int] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        file = self.folder / "fanoutd.toml"
        file.write_text(CONFIG.format(daemon=""))
        file.chmod(0o600)
        self.config = load(file, {})
        self.spool = Spool(self.folder / "spool")
        self.spool.prepare()
        self.ordering = threading.Lock()
        means = Means(self.said.append, lambda _db, count: self.woken.append(count), self.resumed.append, self.ordering)
        self.work = SharedWork(self.name, self.folder, self.spool, means)
        self.planner = Planner(self.config, self.spool, self.name, lambda _shards: None)

    def is_there(self, db: Database, age_ms: int = 0) -> None:
        with db.transaction():
            nodes.join(db, self.name, "secret", "boot", "1")
            db.execute("UPDATE fanout_node SET heartbeat = heartbeat - %s WHERE node = %s", age_ms, self.name)

    def submit(self, campaign: str, openids: list[str] | None, send_at: int | None = None) -> None:
        """Accept it as the master does."""
        document = {
            "v": 1, "campaign": campaign, "account": "main", "message": "default", "audience": None if openids else
            "default", "openids": openids, "upload": None, "content": "x", "phone": None, "data": {}, "page": None,
            "page_size": 500, "send_at": send_at, "key": campaign, "reference": None, "test": False, "cron": None,
            "at": wall_ms(),
        }  # fmt: skip
        self.spool.accept(document, keyed=True)

    def import_(self, db: Database, campaign: str) -> Campaign:
        found = bring_in(db, self.spool, self.config, self.name, campaign)
        assert found is not None
        return found

    def inherit(self, db: Database, leads: bool = False) -> list[str]:
        unplanned = [each for each in campaigns.in_states(db, "scheduled", "planning", "running") if not each.planned]
        return [each.id for each in self.work.inherit(db, unplanned, leads)]


@pytest.fixture
def node(tmp_path: Path) -> Callable[[str], Node]:
    return lambda name: Node(name, tmp_path / name)


def openids(count: int) -> list[str]:
    return [f"oTEST{i:023d}" for i in range(count)]


def planned(db: Database, campaign: str) -> list[str]:
    return [row[0] for row in db.rows(
        "SELECT d.openid FROM fanout_delivery d JOIN fanout_shard s ON s.id = d.shard WHERE s.campaign = %s "
        "ORDER BY s.idx, d.pos", campaign,
    )]  # fmt: skip


def of(db: Database, campaign: str) -> Campaign:
    found = campaigns.get(db, campaign)
    assert found is not None
    return found


def test_a_planner_that_stood_still_while_its_plan_was_taken_over_adds_nobody(
    url: str, db: Database, node: Callable[[str], Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = node("a"), node("b")
    a.is_there(db, shared_work.LOST_AFTER_MS + 1000)
    b.is_there(db)
    a.submit("k-1", None)
    campaign = a.import_(db, "k-1")
    asleep, awake = threading.Event(), threading.Event()

    def stream(_campaign: Campaign, config: Any, _spool: Spool) -> Iterator[Planned]:
        for place, openid in enumerate(openids(300)):
            if config is a.config and place == 150:
                asleep.set()
                assert awake.wait(20)
            yield Planned(openid)

    monkeypatch.setattr(planner, "stream", stream)

    def plan() -> None:
        with closing(open_store(url)) as own:
            a.planner.plan(own, campaign)

    with ThreadPoolExecutor(1) as pool:
        zombie = pool.submit(plan)
        assert asleep.wait(20)
        assert b.inherit(db) == []  # one of the others does it
        assert b.inherit(db, leads=True) == ["k-1"]
        b.planner.plan(db, of(db, "k-1"))
        before = planned(db, "k-1")
        awake.set()
        zombie.result(20)
    assert before == openids(300) == planned(db, "k-1")
    assert (of(db, "k-1").node, of(db, "k-1").planned, of(db, "k-1").state) == ("b", True, "running")


def test_nor_does_one_that_stood_still_after_it_had_looked_whose_plan_it_is(
    url: str, db: Database, node: Callable[[str], Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = node("a"), node("b")
    b.is_there(db)
    a.submit("k-1", None)
    campaign = a.import_(db, "k-1")
    asleep, awake = threading.Event(), threading.Event()
    monkeypatch.setattr(planner, "stream", lambda *_: (Planned(openid) for openid in openids(120)))

    def heeded(_db: Database, _campaign: Campaign, people: list[Planned]) -> list[Planned]:
        if threading.current_thread() is not threading.main_thread() and people[0].openid == openids(120)[50]:
            asleep.set()
            assert awake.wait(20)
        return people

    monkeypatch.setattr(planner, "heeded", heeded)

    def plan() -> None:
        with closing(open_store(url)) as own:
            a.planner.plan(own, campaign)

    with ThreadPoolExecutor(1) as pool:
        zombie = pool.submit(plan)
        assert asleep.wait(20)
        assert b.inherit(db, leads=True) == ["k-1"]
        b.planner.plan(db, of(db, "k-1"))
        awake.set()
        zombie.result(20)
    assert planned(db, "k-1") == openids(120)


def test_what_is_due_later_is_inherited_too_and_a_list_waits_for_its_node(
    db: Database, node: Callable[[str], Node]
) -> None:
    a, b = node("a"), node("b")
    b.is_there(db)
    a.is_there(db)
    a.submit("k-later", None, send_at=wall_ms() + 3_600_000)
    a.submit("k-list", openids(10))
    for each in ("k-later", "k-list"):
        a.import_(db, each)
    assert b.inherit(db, leads=True) == []
    a.is_there(db, shared_work.LOST_AFTER_MS + 1000)
    assert b.inherit(db, leads=True) == ["k-later"]
    assert (of(db, "k-later").node, of(db, "k-later").state) == ("b", "scheduled")
    waits = of(db, "k-list")
    assert waits.node == "a" and waits.state == "planning" and "node a" in (waits.reason or "")
    assert commands.pause(db, waits) == "paused" and commands.resume(db, of(db, "k-list")) == "planning"
    assert b.inherit(db, leads=True) == [] and "node a" in (of(db, "k-list").reason or "")
    a.is_there(db)
    assert b.inherit(db, leads=True) == [] and of(db, "k-list").reason is None
    a.planner.plan(db, of(db, "k-list"))
    assert planned(db, "k-list") == openids(10) and of(db, "k-list").state == "running"
    assert a.spool.pending() == []


def test_of_one_key_on_two_nodes_the_first_in_the_store_stands_and_the_other_goes_when_that_is_planned(
    db: Database, node: Callable[[str], Node]
) -> None:
    a, b = node("a"), node("b")
    a.is_there(db)
    b.is_there(db)
    for each in (a, b):
        each.submit("k-1", openids(10))
        each.import_(db, "k-1")
    assert of(db, "k-1").node == "a" and b.spool.pending() == ["k-1"]
    assert b.inherit(db, leads=True) == []
    a.planner.plan(db, of(db, "k-1"))
    b.import_(db, "k-1")
    assert planned(db, "k-1") == openids(10)
    assert a.spool.pending() == b.spool.pending() == []


def test_who_was_given_the_list_under_the_same_key_goes_on_for_the_dead(
    db: Database, node: Callable[[str], Node]
) -> None:
    a, b, c = node("a"), node("b"), node("c")
    for each in (b, c):
        each.is_there(db)
    for each in (a, b):
        each.submit("k-1", openids(10))
        each.import_(db, "k-1")
    assert c.inherit(db, leads=True) == [] and "node a" in (of(db, "k-1").reason or "")
    assert b.inherit(db) == ["k-1"]
    b.planner.plan(db, of(db, "k-1"))
    assert of(db, "k-1").reason is None
    assert planned(db, "k-1") == openids(10) and b.spool.pending() == []


@pytest.fixture
def running(db: Database, node: Callable[[str], Node]) -> tuple[Node, Campaign]:
    """A campaign of two shards, of which a worker of node b has one, as b sees it."""
    a, b = node("a"), node("b")
    for each in (a, b):
        each.is_there(db)
    a.submit("k-1", openids(100))
    a.planner.plan(db, a.import_(db, "k-1"))
    b.work.beat(db)
    with db.transaction():
        assert free_shards.lease(db, "b/w1-1") is not None
    return b, of(db, "k-1")


def test_a_beat_tells_of_shards_that_wait_and_of_what_was_ordered_elsewhere(
    db: Database, running: tuple[Node, Campaign]
) -> None:
    b, campaign = running
    assert b.woken == [2]
    b.work.beat(db)
    assert b.woken == [2, 1] and b.said == []
    commands.pause(db, campaign)
    b.work.beat(db)
    assert b.woken == [2, 1] and [(m["t"], m["campaign"]) for m in b.said] == [("halt", "k-1")]
    with b.ordering:  # something is ordered here at this moment
        b.work.beat(db)
    assert len(b.said) == 1
    commands.resume(db, of(db, "k-1"))
    b.work.beat(db)
    assert b.said[1:] == [{"t": "unhalt", "campaign": "k-1"}]
    assert b.resumed == ["k-1"] and b.woken[2:] == [1]
    b.work.beat(db)
    assert len(b.said) == 2 and b.resumed == ["k-1"]


def test_who_was_paused_and_let_go_on_between_two_beats_is_heard_of(
    db: Database, running: tuple[Node, Campaign]
) -> None:
    b, campaign = running
    commands.pause(db, campaign)
    commands.resume(db, of(db, "k-1"))
    b.work.beat(db)
    assert b.said == [{"t": "unhalt", "campaign": "k-1"}] and b.resumed == ["k-1"]


def test_whoever_pauses_waits_for_a_claim_under_way_and_none_comes_after(
    url: str, db: Database, running: tuple[Node, Campaign]
) -> None:
    _, campaign = running
    held = shard_leases.of_owner(db, "b/w1-1")[0]
    with closing(open_store(url)) as other, ThreadPoolExecutor(1) as pool:
        with db.transaction():
            assert windows.claim(db, held, 5)
            pausing = pool.submit(commands.pause, other, campaign)
            with pytest.raises(TimeoutError):
                pausing.result(0.3)
        assert pausing.result(20) == "paused"
    with db.transaction():
        assert windows.claim(db, held, 5) is None


def test_an_answer_waits_for_other_living_nodes_only(
    url: str, db: Database, running: tuple[Node, Campaign], node: Callable[[str], Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_work, "OBEYED_WITHIN", 20.0)
    b, _ = running
    c = node("c")

    def wait() -> None:
        with closing(open_store(url)) as own:
            c.work.until_obeyed(own, "k-1")

    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(wait)
        with pytest.raises(TimeoutError):
            waits.result(0.3)
        b.is_there(db, nodes.LIVING_MS + 1000)  # it has died
        waits.result(10)
    b.is_there(db)
    monkeypatch.setattr(shared_work, "OBEYED_WITHIN", 0.2)
    wait()  # not for ever
    shard_leases.release(db, shard_leases.of_owner(db, "b/w1-1")[0])
    monkeypatch.setattr(shared_work, "OBEYED_WITHIN", 20.0)
    wait()


def test_the_look_for_work_reads_no_shard_of_other_campaigns(db: Database) -> None:
    def add(campaign: str, state: str, count: int, pending: int) -> None:
        db.execute(
            "INSERT INTO fanout_campaign (id, account, message, state, created_at, planned, node, origin, definition) "
            "VALUES (%s, 'main', 'm', %s, 1, 1, 'a', 'query', '{}')",
            campaign, state,
        )  # fmt: skip
        db.insert_many(
            "INSERT INTO fanout_shard (campaign, idx, size, pending, errors) VALUES (%s, %s, 100, %s, '{}')",
            [(campaign, index, pending) for index in range(count)],
        )

    with db.transaction():
        for i in range(40):
            add(f"done{i}", "done", 50, 0)
            add(f"cancelled{i}", "cancelled", 50, 100)
        add("runs", "running", 20, 100)
    db.rows("ANALYZE TABLE fanout_shard, fanout_campaign")

    def read() -> int:
        counted = db.rows("SHOW SESSION STATUS LIKE 'Handler_read%'")
        return sum(int(count) for _, count in counted)

    before = read()
    found = activity.active(db)
    after = read()
    assert [(each.id, each.waiting) for each in found] == [("runs", 20)]
    shard_leases.stopped(db, "a")
    rows = read()
    assert after - before < 100 and rows - after < 100, (after - before, rows - after)
