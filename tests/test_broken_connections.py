"""Connections to the store's server that die, each in its way, while people are sent to: nobody twice, nobody
forgotten, and all goes on by itself."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest

from fanoutd import mysql as errors
from fanoutd.config.mysql_url import parse
from fanoutd.dispatcher.repair import repair
from fanoutd.mysql import CONNECT_TIMEOUT
from fanoutd.outcome import State
from fanoutd.store import StoreAway, campaigns, finishing, mysql, open_store, quotas, rounds, shard_leases
from fanoutd.store.schema import migrate
from fanoutd.times import wall_ms
from support.bench import Bench, person, wait_for
from support.mariadb import PASSWORD, MariaDb, server
from support.stores import ours, refill
from support.wire import Wire

Make = Callable[..., Bench]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def make(wire: Wire, database: MariaDb | None = None, **how: Any) -> Bench:
        """Workers have the wire between them and the server, the test has not."""
        maria = database or server()
        url = maria.database()
        made.append(Bench(tmp_path, store=maria.url(url.rpartition("/")[2], wire.port), **how))
        made[-1].db.close()
        made[-1].db = open_store(url)
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire(server().port) as made:
        yield made


def done(b: Bench) -> bool:
    """Also by the dispatcher's rescue sweep, which is not here to do it."""
    try:
        with b.db.transaction():
            finishing.finish(b.db, "c-1")
        return b.state() == "done"
    except StoreAway:
        return False


def everybody_once(b: Bench, people: int) -> None:
    """The ledger, the rows, the shards' counters and the count of the day's calls say the same."""
    assert b.accepted() == {person(i): 1 for i in range(people)}
    assert {row[0] for row in b.rows().values()} == {State.SENT}
    assert (b.counts().total, b.counts().sent_custom) == (people, people)
    assert quotas.used(b.db, "main", 1, quotas.day(wall_ms())) == people
    assert shard_leases.owners(b.db) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_commit_whose_answer_is_lost_is_neither_repeated_nor_forgotten(bench: Make, wire: Wire, seed: int) -> None:
    chance = random.Random(seed)
    b = bench(wire, concurrency=8, latency="20ms")
    b.campaign(400, shard=60)
    lost = wire.cuts()
    b.work(1)
    b.work(2)

    def cut_again() -> bool:
        nonlocal lost
        if wire.cuts() == lost:
            return done(b)
        lost += 1
        wire.cut("COMMIT", chance.randint(1, 6), chance.choice([0, 0, 3, 20]), chance.random() < 0.7)
        return False

    wire.cut("COMMIT", 1)
    wait_for(cut_again, "the end", 40)
    assert lost >= 5
    everybody_once(b, 400)


@pytest.fixture(scope="module")
def maria() -> Iterator[MariaDb]:
    """One to be killed and set otherwise."""
    made = MariaDb()
    yield made
    made.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes 10, 4 and 25 s in earnest."""
    monkeypatch.setattr(mysql, "STATEMENT_TIMEOUT", 2.0)
    session = mysql._SESSION.replace("innodb_lock_wait_timeout = 4", "innodb_lock_wait_timeout = 1")
    monkeypatch.setattr(mysql, "_SESSION", session.replace("wait_timeout = 25", "wait_timeout = 4"))


End = Callable[[], object]


@dataclass
class Scene:
    bench: Bench
    maria: MariaDb
    wire: Wire


def killed_server(at: Scene) -> End:
    at.maria.kill()
    return at.maria.start


def refused(at: Scene) -> End:
    at.wire.refuse()
    return at.wire.mend


def half_open(at: Scene) -> End:
    """No word comes back any more; the server keeps the transactions of the silent ones, and their locks."""
    at.wire.silence()
    return at.wire.mend


def read_only(at: Scene) -> End:
    """1290: the primary is a replica now."""
    at.maria.say("SET GLOBAL read_only = 1")
    return lambda: at.maria.say("SET GLOBAL read_only = 0")


def too_many_connections(at: Scene) -> End:
    """1040: somebody has all the ten that are the least that MariaDB takes."""
    at.maria.say("SET GLOBAL max_connections = 10")
    held: list[pymysql.Connection[Any]] = []
    while len(held) < 10:
        threads(at.maria, "KILL", but=[each.thread_id() for each in held])
        with contextlib.suppress(pymysql.MySQLError):
            held.append(pymysql.connect(unix_socket=str(at.maria.folder / "sock"), user="fanout", password=PASSWORD))

    def end() -> None:
        for each in held:
            each.close()
        at.maria.say("SET GLOBAL max_connections = 100")

    return end


def held_locks(at: Scene) -> End:
    """1205: somebody's transaction that does not end."""
    link = at.maria.root(database=parse(at.bench.config.store_url).database)
    link.begin()
    with link.cursor() as cursor:
        cursor.execute("SELECT id FROM fanout_shard FOR UPDATE")
    return link.close


def threads(maria: MariaDb, word: str, but: Collection[int] = ()) -> int:
    """KILL what there is of ours; how many."""
    found = [row[0] for row in maria.say("SELECT id FROM information_schema.processlist WHERE user = 'fanout'")]
    for each in set(found) - set(but):
        with contextlib.suppress(pymysql.MySQLError):  # it has ended by itself
            maria.say(f"{word} {each}")
    return len(found)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("trouble", [killed_server, refused, half_open, read_only, too_many_connections, held_locks])
def test_a_store_that_is_away_for_a_while_costs_nothing_but_time(
    bench: Make, maria: MariaDb, trouble: Callable[[Scene], End]
) -> None:
    with Wire(maria.port) as wire:
        b = bench(wire, maria, concurrency=8, latency="10ms", rate=400)
        b.campaign(600, shard=150)
        b.work()
        wait_for(lambda: len(b.accepted()) > 100, "a first part")
        end = trouble(Scene(b, maria, wire))
        before, stopped = len(b.accepted()), 0
        at = time.monotonic()
        while time.monotonic() < at + 1 or len(b.accepted()) > stopped:
            stopped, at = len(b.accepted()), time.monotonic() if len(b.accepted()) > stopped else at
            time.sleep(0.01)
        assert stopped - before <= 2 * 64 + 8 + 64  # two windows, and the one that was being claimed
        end()
        wait_for(lambda: done(b), "the end", 30)
        everybody_once(b, 600)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("how", ["KILL", "KILL QUERY", "reset"])
def test_connections_that_are_killed_again_and_again(bench: Make, maria: MariaDb, how: str) -> None:
    with Wire(maria.port) as wire:
        b = bench(wire, maria, concurrency=8, latency="20ms", rate=400)
        b.campaign(500, shard=60)
        b.work(1)
        b.work(2)
        times = 0
        while len(b.accepted()) < 500:
            times += threads(maria, how) if how != "reset" else wire.reset() or 1
            time.sleep(0.2)
        assert times >= 5
        wait_for(lambda: done(b), "the end", 30)
        everybody_once(b, 500)


@pytest.mark.usefixtures("soon")
def test_a_connection_that_the_server_ended_for_its_idleness_is_not_missed(bench: Make, wire: Wire) -> None:
    b = bench(wire)
    b.campaign(50)
    worker = b.work()
    wait_for(lambda: done(b), "the end")
    wait_for(lambda: any(m["t"] == "idle" for m in worker.listen()), "idleness")
    before = wire.connections()
    time.sleep(5)  # wait_timeout is 4 s
    b.campaign(50, "c-2", content="again")
    worker.say(t="work")
    wait_for(lambda: b.counts("c-2").sent_custom == 50, "the second one", 5)
    assert wire.connections() == before + 1


def test_the_victim_of_a_deadlock_writes_its_round_again(bench: Make, wire: Wire) -> None:
    """The worker has shards and wants its count of calls last; we take them the other way round, and are heavier."""
    b = bench(wire, concurrency=8, latency="10ms", rate=400)
    b.campaign(600, shard=100)
    b.work()
    link = server().root(database=parse(b.config.store_url).database)
    with link.cursor() as cursor:
        cursor.execute("CREATE TABLE heavy (id INT AUTO_INCREMENT PRIMARY KEY) ENGINE=InnoDB")
        wait_for(lambda: len(b.accepted()) > 100, "a first part")
        for _ in range(5):
            link.begin()
            cursor.execute("INSERT INTO heavy VALUES " + ", ".join(["(NULL)"] * 2000))
            cursor.execute("SELECT used FROM fanout_quota_part FOR UPDATE")
            time.sleep(0.4)  # by now the worker waits for it, its shards in hand
            cursor.execute("SELECT id FROM fanout_shard FOR UPDATE")
            link.rollback()
        deadlocks = cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'") and cursor.fetchall()[0][1]
    link.close()
    assert int(deadlocks) >= 3
    wait_for(lambda: done(b), "the end")
    everybody_once(b, 600)


def test_a_store_that_has_forgotten_its_last_commits_is_found_out_by_who_made_them(bench: Make, wire: Wire) -> None:
    """As when a replica is promoted that lacks them: in it people are pending who were sent to."""
    b = bench(wire, concurrency=8, latency="10ms", rate=400)
    b.campaign(800, shard=800)
    b.work()
    wait_for(lambda: len(b.accepted()) > 100, "a first part")
    with b.db.transaction():
        before = ours(b.db)
    known = len(b.accepted())
    wait_for(lambda: len(b.accepted()) > known + 150, "more")

    def put_back() -> bool:
        with contextlib.suppress(StoreAway):
            refill(b.db, before)
            return True
        return False

    wait_for(put_back, "the earlier store")
    wait_for(lambda: b.state() == "paused" and shard_leases.owners(b.db) == [], "the end of what was on the wire", 15)
    campaign = campaigns.get(b.db, "c-1")
    assert campaign is not None and campaign.cause == "past"
    repair(b.db, b.journals, "node1", campaign)
    b.workers[0].say(t="work")
    wait_for(lambda: done(b), "the end")
    assert b.accepted() == {person(i): 1 for i in range(800)}
    assert {row[0] for row in b.rows().values()} == {State.SENT}


def test_a_worker_that_had_nothing_to_do_for_so_long_that_its_row_was_tidied_away_goes_on(
    bench: Make, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "FORGOTTEN_AFTER", 1)
    b = bench(wire)
    b.campaign(50)
    worker = b.work()
    wait_for(lambda: done(b), "the end")
    wait_for(lambda: any(m["t"] == "idle" for m in worker.listen()), "idleness")
    wait_for(lambda: rounds.tidy(b.db) or not b.db.rows("SELECT * FROM fanout_round"), "the tidying")
    b.campaign(50, "c-2", content="again")
    worker.say(t="work")
    wait_for(lambda: b.counts("c-2").sent_custom == 50, "the second one")
    assert b.state("c-2") != "paused" and len(b.db.rows("SELECT * FROM fanout_round")) == 1


@pytest.mark.parametrize(("number", "then"), [
    (1290, "; it is read-only: a replica?"), (1792, "; it is read-only: a replica?"),
    (1836, "; it is read-only: a replica?"), (1040, "; raise max_connections, or use fewer workers"),
])  # fmt: skip
def test_what_a_server_says_that_has_stepped_down_or_is_full(number: int, then: str) -> None:
    """The next connection may lead to the one that took over: this one is not kept."""
    error = pymysql.err.OperationalError(number, "words\nof the server")
    assert errors.away(error)
    assert errors.lost(error) is (number != 1040)
    server = parse("mysql://user:secret@db.example.com/fanout")
    assert errors.words(server, error) == (
        f"mysql://db.example.com:3306/fanout: words of the server ({number}){then}"
    )


@pytest.mark.parametrize(("error", "passes"), [
    (pymysql.err.OperationalError(1030, "Got error 28 from storage engine"), True),
    (pymysql.err.OperationalError(1969, "Query execution was interrupted (max_statement_time exceeded)"), True),
    (pymysql.err.OperationalError(3032, "The server is currently in offline mode"), True),
    (pymysql.err.ProgrammingError(1064, "You have an error in your SQL syntax"), False),
    (pymysql.err.DataError(1406, "Data too long for column"), False),
])  # fmt: skip
def test_trouble_of_a_server_that_nobody_has_foreseen_ends_no_process(error: Exception, passes: bool) -> None:
    assert errors.away(error) is passes


def test_a_dead_connection_is_noticed_in_seconds(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel where nothing is acknowledged, by ours where nothing is answered."""
    assert CONNECT_TIMEOUT + mysql.STATEMENT_TIMEOUT <= 15
    monkeypatch.setattr(mysql, "STATEMENT_TIMEOUT", 0.5)
    maria = server()
    db = open_store(maria.url(maria.database().rpartition("/")[2], wire.port))
    sock = db._link._sock  # type: ignore[attr-defined]
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    idle, between, probes = (
        sock.getsockopt(socket.IPPROTO_TCP, option)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    )
    assert idle + between * probes <= 15
    wire.silence()
    began = time.monotonic()
    with pytest.raises(StoreAway, match=r"^store mysql://127\.0\.0\.1:\d+/\w+: .*\(20\d\d\)$"):
        db.now_ms()
    assert 0.5 <= time.monotonic() - began < 8
    wire.mend()
    assert db.now_ms() > 0


def test_a_connection_that_was_silent_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement outside of a transaction is not repeated: it must not be the one that finds the connection dead."""
    maria = server()
    db = open_store(maria.database())
    migrate(db)
    (old,) = db.rows("SELECT CONNECTION_ID()")
    maria.say(f"KILL {old[0]}")
    monkeypatch.setattr("fanoutd.store.mysql._FRESH", 0.0)
    assert db.execute("UPDATE fanout_meta SET value = value WHERE name = 'version'") == 1
    monkeypatch.setattr("fanoutd.store.mysql._FRESH", 60.0)
    (new,) = db.rows("SELECT CONNECTION_ID()")
    assert new != old and db.rows("SELECT CONNECTION_ID()") == [new]
    db.close()
