"""`fanoutd migrate`: a store goes into another database, and nothing that it knew is lost or done twice."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql
import pytest

from fanoutd.errors import BadConfig, NotNow
from fanoutd.store import Database, open_store, schema
from fanoutd.store.copying import LEFT_BEHIND, copy, tables
from fanoutd.store.shards import Planned, add
from support import mariadb
from support.bench import person, wait_for
from support.daemon import Daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    made: list[Daemon] = []

    def make(followers: int, **options: Any) -> Daemon:
        made.append(Daemon(tmp_path, followers, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def serve_on(d: Daemon, url: str, wait: bool = True) -> None:
    """As the operator does it: one line in the configuration."""
    text = d.config.read_text()
    line = next(line for line in text.splitlines() if line.startswith("url ="))
    d.config.write_text(text.replace(line, f'url = "{url}"'))
    d.serve(wait)


def used(d: Daemon) -> None:
    """The store, too: the daemon answers before it has one."""
    wait_for(lambda: d.call("daemon.status")["store"]["ok"], "the store")


def dump(d: Daemon) -> list[str]:
    with closing(sqlite3.connect(f"file:{d.folder / 'state' / 'fanoutd.db'}?mode=ro", uri=True)) as link:
        return list(link.iterdump())


def stop(d: Daemon) -> None:
    d.process.terminate()
    assert d.process.wait(20) == 0


def submit(d: Daemon, **params: Any) -> str:
    campaign: str = d.call("campaign.submit", content="hello", phone="1", **params)["campaign"]
    return campaign


def test_a_campaign_killed_half_way_is_moved_and_ends_on_the_other_store_with_everybody_once(
    daemon: Callable[..., Daemon]
) -> None:
    d = daemon(2500, latency="20ms", concurrency=16)
    over = submit(d, openids=["oEARLIER00001", "oEARLIER00002"], key="earlier")
    receipt = d.until(over)
    d.call("subscriber.opt_out", openid="oEARLIER00001", account="main")
    later = submit(d, send_at="2099-01-01T00:00:00+08:00")
    url = mariadb.server().database()
    refused = d.cli("migrate", "--to", url)
    assert refused.returncode == 75 and f"pid {d.process.pid}" in refused.stderr and "fanoutd stop" in refused.stderr
    campaign = submit(d, key="once")
    wait_for(lambda: sum(d.accepted().values()) >= 800, "800 messages")
    d.kill_all()
    assert sum(d.accepted().values()) < 2000
    moved = d.cli("migrate", "--to", "-", "--json", text=f"{url}\n")
    assert moved.returncode == 0, moved.stderr
    told = json.loads(moved.stdout)
    assert told["tables"]["fanout_campaign"] == 3 and told["tables"]["fanout_subscriber"] == 1
    assert told["to"].startswith("mysql://127.0.0.1") and "p%40ss" not in moved.stdout + moved.stderr
    left = d.folder / "state" / "fanoutd.db"
    with closing(sqlite3.connect(f"file:{left}?mode=ro", uri=True)) as link:
        sent = link.execute("SELECT SUM(state = 1) FROM fanout_delivery").fetchone()[0]
        assert link.execute("SELECT COUNT(*) FROM fanout_shard WHERE owner IS NOT NULL").fetchone() == (0,)
    assert sent >= 500  # what the journals knew is in the old store too

    serve_on(d, url)
    last = d.until(campaign)
    audit = d.audit(campaign)
    extra = {"oEARLIER00001", "oEARLIER00002"}
    assert (audit.twice, audit.forgotten, set(audit.untrue) - extra) == ((), (), set())
    assert last["counts"]["unknown"] == audit.unknown <= 2 * 16
    assert d.call("campaign.get", campaign=over) == receipt
    assert d.call("campaign.get", campaign=later)["state"] == "scheduled"
    assert d.call("campaign.submit", content="again", phone="2", key="once") == {
        "campaign": campaign, "duplicate": True
    }  # fmt: skip
    assert d.call("daemon.status")["store"]["kind"] == "mysql"
    assert d.call("subscriber.get", openid="oEARLIER00001", account="main")["state"] == "opted_out"
    shown = d.cli("explain", "oEARLIER00002", "--campaign", over)
    assert shown.returncode == 0 and "sent" in shown.stdout

    # The old store has what was sent since as pending: whoever starts on it again must not send it.
    stop(d)
    before = d.accepted()
    turned_back(d, url)
    assert "earlier state" in d.until(campaign, "paused")["reason"]
    assert d.accepted() == before


def turned_back(d: Daemon, url: str) -> None:
    """A store that was moved away is not served, until somebody insists."""
    serve_on(d, "sqlite", wait=False)
    assert d.process.wait(20) == 78
    said = (d.folder / "stderr").read_text().splitlines()[-1]
    there = url.rpartition("@")[2].partition("?")[0]
    assert f"was moved to mysql://{there}" in said and "migrate --undo" in said and mariadb.QUOTED not in said
    assert "was moved to" in d.cli("doctor").stdout
    undone = d.cli("migrate", "--undo")
    assert undone.returncode == 0 and there in undone.stderr and undone.stdout == ""
    d.serve()


def test_the_old_store_that_went_on_makes_the_copy_one_from_the_past(daemon: Callable[..., Daemon]) -> None:
    d = daemon(0)
    campaign = submit(d, send_at="2099-01-01T00:00:00+08:00")
    wait_for(lambda: d.call("campaign.get", campaign=campaign)["state"] == "scheduled", "the store to have it")
    stop(d)
    url = mariadb.server().database()
    moved = d.cli("migrate", "--to", url)
    assert moved.returncode == 0 and str(d.config) in moved.stdout and 'url = "mysql://fanout:***@' in moved.stdout
    assert d.cli("migrate", "--to", mariadb.server().database()).returncode == 0  # it may be moved again
    assert d.cli("migrate", "--undo").returncode == 0
    d.serve()  # the line was not changed
    used(d)
    stop(d)
    serve_on(d, url)
    assert "earlier state" in d.until(campaign, "paused")["reason"]


def test_a_dump_that_is_put_back_stops_its_campaigns_and_repair_takes_the_rest_from_all_nodes_journals(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """As docs/mysql.md says it is backed up and restored."""
    server = mariadb.server()
    url = server.database()
    name = url.rpartition("/")[2]
    socket = f"--socket={server.folder / 'sock'}"
    d = daemon(2500, rate=120, concurrency=8, store=url)
    (tmp_path / "second").mkdir()
    second = Daemon(tmp_path / "second", 0, rate=120, concurrency=8, store=url, sandbox=d.sandbox)
    try:
        campaign = submit(d)
        wait_for(lambda: sent_by(second) >= 10, "the second node's first messages")
        dump = subprocess.run(
            ["mariadb-dump", "--no-defaults", socket, "-uroot", "--single-transaction", name], check=True,
            stdout=subprocess.PIPE,
        ).stdout  # fmt: skip
        known, epoch = sent_by(second), (d.folder / "state" / "epoch").read_text()
        wait_for(lambda: sent_by(second) >= known + 50, "more of them")
        wait_for(lambda: (d.folder / "state" / "epoch").read_text() != epoch, "the next epoch")
        d.kill_all()
        second.kill_all()
        before = sum(d.accepted().values())
        assert before < 2500
        d.config.write_text(d.config.read_text().replace("rate = 120", "rate = 100000"))
        subprocess.run(["mariadb", "--no-defaults", socket, "-uroot", name], input=dump, check=True)
        d.serve()
        assert "earlier state" in d.until(campaign, "paused")["reason"]
        assert d.cli("campaign", "repair", campaign, "--yes").returncode == 0
        there = d.call("campaign.get", campaign=campaign)  # of the other's people only the other knows
        assert there["state"] == "paused" and sum(d.accepted().values()) == before
        second.serve()
        last = d.until(campaign)
        audit = d.audit(campaign)
        assert (audit.twice, audit.forgotten, audit.untrue) == ((), (), ())
        assert last["counts"]["unknown"] <= 4 * 8
    finally:
        second.close()


def sent_by(d: Daemon) -> int:
    return sum(each["sent"] for each in d.workers())


def filled(folder: Path) -> Database:
    """A store in a file, with rows in every table that is copied."""
    db = open_store(f"sqlite:///{folder / 'from.db'}")
    schema.migrate(db)
    with db.transaction():
        for table in tables():
            if table.name not in (*LEFT_BEHIND, "fanout_meta", "fanout_shard", "fanout_delivery"):
                for number in range(3):
                    values = [_value(db, table.name, column, number) for column in table.columns]
                    db.insert_many(f"INSERT INTO {table.name} VALUES ({', '.join(['%s'] * len(values))})", [values])
        for idx in range(8):
            add(db, "c-1", idx, [Planned(person(1000 * idx + i)) for i in range(900)])
        db.execute("DELETE FROM fanout_delivery WHERE shard = 3")
        db.execute("DELETE FROM fanout_shard WHERE id = 3")  # numbers with a hole
    return db


def _value(db: Database, table: str, column: str, number: int) -> Any:
    kind = next(row[2] for row in db.rows(f"PRAGMA table_info({table})") if row[1] == column)
    return f"名字 \U0001f600 {number}" if "CHAR" in kind or "TEXT" in kind else number + 1


def everything(db: Database) -> dict[str, list[Any]]:
    mine = [table for table in tables() if table.name not in LEFT_BEHIND]
    found = {
        each.name: db.rows(f"SELECT {', '.join(each.columns)} FROM {each.name} ORDER BY {', '.join(each.key)}")
        for each in mine
    }
    at = next(each for each in mine if each.name == "fanout_node").columns.index("gone")
    # Nobody is at work on a new store.
    found["fanout_node"] = [row[:at] + row[at + 1 :] for row in found["fanout_node"]]
    return found


def test_a_copy_that_is_killed_is_no_store_and_the_next_begins_it_anew(tmp_path: Path) -> None:
    source = filled(tmp_path)
    url = mariadb.server().database()
    pid = os.fork()
    if not pid:
        def die(table: str, rows: int) -> None:
            if table == "fanout_delivery" and rows > 2000:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            copy(open_store(f"sqlite:///{tmp_path / 'from.db'}"), open_store(url), die)
        finally:
            os._exit(70)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    target = open_store(url)
    assert target.rows("SELECT COUNT(*) FROM fanout_delivery")[0][0] > 2000
    with pytest.raises(BadConfig, match="cut off; run that again"):
        schema.migrate(target)
    copied = copy(source, target, lambda _table, _rows: None)
    assert schema.migrate(target) == schema.VERSION
    assert everything(target) == everything(source)
    assert copied["fanout_delivery"] == 6300 and copied["fanout_shard"] == 7
    with pytest.raises(NotNow, match="tables of a store already"):
        copy(source, target, lambda _table, _rows: None)
    assert add(target, "c-2", 0, [Planned(person(1))]) == 9  # no number is given twice
    for each in tables():
        assert target.rows(
            "SELECT column_name FROM information_schema.key_column_usage WHERE table_schema = DATABASE() "
            "AND table_name = %s AND constraint_name = 'PRIMARY' ORDER BY ordinal_position", each.name,
        ) == [(column,) for column in each.key]  # fmt: skip
    back = open_store(f"sqlite:///{tmp_path / 'back.db'}")
    copy(target, back, lambda _table, _rows: None)
    assert everything(back) == everything(target)


def test_a_server_that_ends_the_connection_again_and_again_gets_every_row_once(tmp_path: Path) -> None:
    source = filled(tmp_path)
    server = mariadb.server()
    url = server.database()
    name = url.rpartition("/")[2]
    killed = []

    def kill(_table: str, _rows: int) -> None:
        for (number,) in server.say(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"):
            if len(killed) < 3:
                killed.append(number)
                server.say(f"KILL {number}")

    target = open_store(url)
    copy(source, target, kill)
    assert len(set(killed)) == 3
    assert everything(target) == everything(source)


def test_of_two_that_fill_one_database_the_first_ends(tmp_path: Path) -> None:
    """Its lock went with its connection, and the second took what it had made for the rest of a dead one."""
    source = filled(tmp_path)
    server = mariadb.server()
    url = server.database()
    second: list[str] = []

    def other(table: str, _rows: int) -> None:
        if table == "fanout_delivery" and not second:
            second.append("begun")
            name = url.rpartition("/")[2]
            for (number,) in server.say(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"):
                server.say(f"KILL {number}")
            copy(open_store(f"sqlite:///{tmp_path / 'from.db'}"), open_store(url), lambda _table, _rows: None)

    with pytest.raises(NotNow, match="another `fanoutd migrate`"):
        copy(source, open_store(url), other)
    assert second and everything(open_store(url)) == everything(source)


def test_what_cannot_be_moved_is_refused_in_one_line_and_nothing_is_touched(daemon: Callable[..., Daemon]) -> None:
    d = daemon(0)
    used(d)
    stop(d)
    kept = dump(d)
    server = mariadb.server()
    url = server.database()
    server.say(f"CREATE TABLE {url.rpartition('/')[2]}.fanout_of_the_users (id INT)")

    def refused(to: str, code: int, *words: str) -> None:
        done = d.cli("migrate", "--to", to)
        assert done.returncode == code, done.stderr
        assert all(word in done.stderr for word in words), done.stderr
        assert mariadb.QUOTED not in done.stderr and mariadb.PASSWORD not in done.stderr
        assert "Traceback" not in done.stderr and (code == 2 or done.stderr.count("\n") == 1)

    refused(url, 75, "fanout_of_the_users")
    refused("sqlite", 75, "already")
    refused(server.url("not_there"), 69, "not_there")
    refused(url.replace(mariadb.QUOTED, "wrong"), 69, "user and password")
    refused("mysql://127.0.0.1:9/nobody", 69, "127.0.0.1:9")
    refused("postgres://somewhere", 2, "mysql://")
    assert d.cli("migrate").returncode == d.cli("migrate", "--undo", "--to", url).returncode == 2
    assert "nothing to undo" in d.cli("migrate", "--undo").stderr
    assert dump(d) == kept
    (d.folder / "state" / "fanoutd.db").unlink()
    refused(server.database(), 69, "nothing to move")
    assert not (d.folder / "state" / "fanoutd.db").exists()


def test_a_shared_store_is_not_moved_under_another_nodes_feet(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    url = mariadb.server().database()
    d = daemon(0, store=url)
    (tmp_path / "second").mkdir()
    second = Daemon(tmp_path / "second", 0, store=url)
    try:
        node = second.call("daemon.status")["node"]
        stop(d)
        done = d.cli("migrate", "--to", "sqlite")
        assert done.returncode == 75 and f"in use by {node}" in done.stderr
        stop(second)
        assert d.cli("migrate", "--to", "sqlite").returncode == 0
        serve_on(d, "sqlite")
        assert [each["node"] for each in d.call("daemon.status")["nodes"]] == [d.call("daemon.status")["node"]]
    finally:
        second.close()


def test_a_value_that_the_other_database_cannot_hold_is_said_and_leaves_no_store(tmp_path: Path) -> None:
    source = filled(tmp_path)
    source.execute("UPDATE fanout_campaign SET audience = %s", "a" * 200)
    url = mariadb.server().database()
    with pytest.raises(Exception, match=r"fanout_campaign: .*audience") as told:
        copy(source, open_store(url), lambda _table, _rows: None)
    assert not isinstance(told.value, pymysql.MySQLError)
    with pytest.raises(BadConfig):
        schema.migrate(open_store(url))
