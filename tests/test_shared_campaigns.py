"""Several daemons on one MariaDB: one campaign that all of them send, everybody once."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import fanoutd
from fanoutd.store import open_store, schema, shard_leases
from support.bench import wait_for
from support.daemon import Daemon, follower
from support.mariadb import server
from support.sandbox import SandboxProcess

Make = Callable[..., Daemon]


@pytest.fixture
def url() -> str:
    return server().database()


@pytest.fixture
def nodes(tmp_path: Path, url: str) -> Iterator[Make]:
    """Daemons on one store and one sandbox, each in a folder of its own."""
    sandbox = SandboxProcess(tmp_path / "ledger.jsonl", latency="50ms")
    made: list[Daemon] = []

    def make(name: str, **how: Any) -> Daemon:
        (tmp_path / name).mkdir()
        made.append(Daemon(tmp_path / name, sandbox=sandbox, store=url, wait=False, **how))
        return made[-1]

    yield make
    for each in made:
        each.close()
    sandbox.close()


def ready(*daemons: Daemon) -> None:
    for each in daemons:
        wait_for(each.ready, "an answer to ping", 40)


def living(daemon: Daemon) -> set[str]:
    return {each["node"] for each in daemon.call("daemon.status")["nodes"] if each["heartbeat_age"] < 5}


def sent(daemon: Daemon) -> int:
    return sum(worker["sent"] or 0 for worker in daemon.workers())


def test_three_nodes_send_one_campaign_and_one_order_stops_all_of_them(nodes: Make, url: str) -> None:
    people = 2400
    a, b, c = (nodes(name, followers=people, workers=2, concurrency=4) for name in "abc")
    ready(a, b, c)
    wait_for(lambda: len(living(a)) == 3, "three nodes in the status", 40)
    campaign = a.call("campaign.submit", content="x", phone="1", key="one")["campaign"]
    assert b.call("campaign.submit", content="x", phone="1", key="one")["campaign"] == campaign
    wait_for(lambda: all(sent(each) for each in (a, b, c)), "all of them to take part", 40)

    assert a.call("campaign.pause", campaign=campaign)["state"] == "paused"
    with closing(open_store(url)) as db:  # so it is when that is answered, unless the machine is very slow
        wait_for(lambda: not shard_leases.nodes_with(db, campaign), "all nodes to let go of it")
    reached = sum(a.accepted().values())
    assert reached < people, "it was over before it was paused"
    began = time.monotonic()
    while time.monotonic() - began < 1.5:  # longer than a beat: whoever had not heard of it would send
        assert sum(a.accepted().values()) == reached
        time.sleep(0.1)
    views = [each.call("campaign.get", campaign=campaign) for each in (a, b, c)]
    assert {each["state"] for each in views} == {"paused"}
    assert [each["counts"] for each in views] == [views[0]["counts"]] * 3

    before = [sent(each) for each in (a, b, c)]
    b.call("campaign.resume", campaign=campaign)
    last = c.until(campaign, seconds=60)
    assert last["counts"]["sent_custom"] == people == last["total"]
    assert a.accepted() == {follower(i): 1 for i in range(people)}
    assert all(sent(each) > had for each, had in zip((a, b, c), before, strict=True)), "all of them took part again"
    lives = [each.call("delivery.explain", openid=follower(7), campaign=campaign)["events"] for each in (a, b, c)]
    told = [{event["event"] for event in events} for events in lives]
    assert sorted("called" in each for each in told) == [False, False, True]
    assert all(("elsewhere" in each) != ("called" in each) and "sent" in each for each in told)
    wait_for(lambda: not b.call("daemon.status")["spool"]["files"], "the other node's file to go", 20)


def copied(database: str, to: str) -> None:
    """All rows of the store's tables as they are at one moment, in place of what is there."""
    with server().root() as link, link.cursor() as cursor:
        cursor.execute(f"SHOW TABLES FROM {database}")
        tables = [row[0] for row in cursor.fetchall()]
        for table in tables:
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {to}.{table} LIKE {database}.{table}")
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        for table in tables:
            cursor.execute(f"DELETE FROM {to}.{table}")
            cursor.execute(f"INSERT INTO {to}.{table} SELECT * FROM {database}.{table}")
        cursor.execute("COMMIT")


def test_after_the_store_was_put_back_each_node_tells_from_its_journals_whom_it_sent_to(nodes: Make, url: str) -> None:
    people = 1500
    a, b = (nodes(name, followers=people, workers=2, concurrency=4) for name in "ab")
    ready(a, b)
    wait_for(lambda: len(living(a)) == 2, "both in the status", 40)
    store, backup = (each.rpartition("/")[2] for each in (url, server().database()))
    campaign = a.call("campaign.submit", content="x", phone="1")["campaign"]
    wait_for(lambda: sent(a) and sent(b), "both of them to take part", 40)
    copied(store, backup)
    before = sent(a), sent(b)
    wait_for(lambda: sent(a) > before[0] + 50 and sent(b) > before[1] + 50, "more of each", 40)
    for each in (a, b):
        each.process.terminate()
    assert [each.process.wait(20) for each in (a, b)] == [0, 0]
    reached = a.accepted()
    copied(backup, store)
    a.serve()
    assert "earlier state" in a.until(campaign, "paused")["reason"]
    assert a.call("campaign.repair", campaign=campaign)["state"] == "paused"
    assert "the journals of node" in a.call("campaign.get", campaign=campaign)["reason"]
    assert a.accepted() == reached
    b.serve()
    last = a.until(campaign, seconds=60)
    assert last["counts"]["sent_custom"] == people and last["reason"] is None
    assert a.accepted() == {follower(i): 1 for i in range(people)}


def test_idle_workers_open_no_connection(nodes: Make, url: str) -> None:
    daemon = nodes("a", workers=60)
    ready(daemon)
    wait_for(lambda: sum(w["state"] == "idle" for w in daemon.workers()) == 60, "60 idle workers", 60)
    database = url.rpartition("/")[2]
    count = f"SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{database}'"
    wait_for(lambda: server().say(count)[0][0] > 0, "the dispatcher's connections")
    assert server().say(count)[0][0] < 20


def test_a_node_of_the_next_version_joins_and_both_send_one_campaign(nodes: Make, url: str, tmp_path: Path) -> None:
    people = 1000
    old = nodes("old", followers=people, workers=2, concurrency=4)
    ready(old)
    wait_for(lambda: living(old), "the old one at work", 40)
    code = tmp_path / "next"
    shutil.copytree(Path(fanoutd.__file__).parent, code / "fanoutd", ignore=shutil.ignore_patterns("__pycache__"))
    tables = code / "fanoutd" / "store" / "schema.py"
    text = tables.read_text(encoding="utf-8")
    last = f"_V{schema.VERSION})"
    assert text.count(last) == 1
    added = last.removesuffix(")") + ', ("ALTER TABLE fanout_campaign ADD COLUMN colour VARCHAR(16)",))'
    tables.write_text(text.replace(last, added), encoding="utf-8")
    new = nodes("new", followers=people, workers=2, concurrency=4,
                environ={"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"})  # fmt: skip
    ready(new)
    wait_for(lambda: len(living(old)) == 2, "both in the status", 40)
    with closing(open_store(url)) as db:
        assert schema.version(db) == schema.VERSION + 1

    campaign = old.call("campaign.submit", content="x", phone="1")["campaign"]
    wait_for(lambda: sent(old) and sent(new), "both of them to take part", 40)
    assert old.call("daemon.reload")["generation"] == 2  # its dispatcher is a new one, and the daemon goes on
    assert new.until(campaign, seconds=60)["counts"]["sent_custom"] == people
    assert old.accepted() == {follower(i): 1 for i in range(people)}
    second = old.call("campaign.submit", content="y", phone="1")["campaign"]
    assert old.until(second, seconds=60)["counts"]["sent_custom"] == people

    old.process.terminate()
    assert old.process.wait(20) == 0
    old.serve(wait=False)
    assert old.process.wait(40) == 78
    said = (old.folder / "stderr").read_text(encoding="utf-8").strip().splitlines()[-1]
    assert "newer fanoutd" in said and os.fspath(tmp_path) not in said
    assert new.call("daemon.ping")["pid"] == new.process.pid
