"""A campaign's history: who did what to it, written with the change, on both back ends and through a daemon."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from fanoutd.config import load
from fanoutd.dispatcher import commands
from fanoutd.dispatcher.importer import bring_in
from fanoutd.dispatcher.queries import RpcError
from fanoutd.outcome import Progress, State
from fanoutd.spool import Spool
from fanoutd.store import (
    Database,
    StoreAway,
    campaigns,
    finishing,
    free_shards,
    history,
    meta,
    plan_owners,
    records,
    schema,
    shard_leases,
    shards,
    windows,
)
from fanoutd.store.campaigns import Campaign
from fanoutd.store.history import OURSELVES, By
from fanoutd.store.shards import Planned
from fanoutd.worker.recorder import _opened
from support.daemon import Daemon
from support.stores import KINDS, opened, url

ANN = By(1000, "ann", 77)


@pytest.fixture(params=KINDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    history.speak_for("n1")
    with closing(opened(request.param, tmp_path)) as made:
        yield made
    history.speak_for("")


def campaign(db: Database, name: str = "c-1", state: str = "running", **more: Any) -> Campaign:
    row = Campaign(name, "main", "m", None, None, None, state, None, None, 1_000, None, 1, None, True, "n1", "query",
                   {"channels": ["custom"]})  # fmt: skip
    with db.transaction():
        campaigns.insert(db, row)
        shards.add(db, name, 0, [Planned("oPERSON1"), Planned("oPERSON2")])
        if more:
            sets = ", ".join(f"{column} = %s" for column in more)
            db.execute(f"UPDATE fanout_campaign SET {sets} WHERE id = %s", *more.values(), name)
    return row


def end_as(db: Database, name: str, *states: State) -> None:
    """Its people, one each."""
    with db.transaction():
        held = free_shards.lease(db, "n1/w1")
        assert held is not None and windows.claim(db, held, 10)
        records.record(db, held.shard, held.token, [
            (pos, Progress(state, 1, 40003 if state is State.FAILED else None, attempts=1))
            for pos, state in enumerate(states)
        ])  # fmt: skip
        shard_leases.release(db, held)
    with db.transaction():
        finishing.finish(db, name)


def told(db: Database, name: str = "c-1") -> list[tuple[str, By, str | None]]:
    return [(line.action, line.by, line.detail) for line in history.lines(db, name)]


def test_each_order_is_written_down_with_who_gave_it_and_one_that_changed_nothing_is_not(db: Database) -> None:
    row = campaign(db)
    for order in (commands.resume, commands.pause, commands.pause, commands.resume, commands.resume):
        order(db, row, ANN)
    end_as(db, "c-1", State.FAILED, State.UNKNOWN)
    commands.retry(db, row, failed=True, unknown=False, by=ANN)
    commands.pause(db, row, ANN)
    commands.retry(db, row, failed=True, unknown=False, by=ANN)  # nobody is left to be retried
    commands.settle(db, row, "sent", ["oSTRANGER"], by=ANN)
    commands.settle(db, row, "sent", None, by=ANN)
    commands.cancel(db, row, ANN)
    commands.cancel(db, row, ANN)
    for order in (commands.pause, commands.resume):  # refused
        with suppress(RpcError):
            order(db, row, ANN)
    assert told(db) == [
        ("paused", ANN, None), ("resumed", ANN, None), ("done", OURSELVES, "1 failed, 1 unknown"),
        ("retried", ANN, "1 person, failed"), ("paused", ANN, None), ("resolved", ANN, "1 person as sent"),
        ("cancelled", ANN, None),
    ]  # fmt: skip
    lines = history.lines(db, "c-1")
    assert {line.node for line in lines} == {"n1"} and abs(lines[-1].at - db.now_ms()) < 60_000
    with db.transaction():
        history.forget(db, "c-1")
    assert told(db) == []


def test_what_it_does_by_itself_stands_there_too(db: Database) -> None:
    row = campaign(db)
    campaign(db, "c-2", account="other")
    campaign(db, "c-3", state="paused", cause="operator")
    with db.transaction():
        campaigns.pause_account(db, "main", "account", "43106 · barred")
    with db.transaction():  # not what is paused already
        campaigns.pause_account(db, "main", "account", "43106 · barred")
    commands.pause(db, row, ANN)
    with db.transaction():
        campaigns.move(db, "c-1", "paused", "running", cause=None, reason=None)
        campaigns.move(db, "c-1", "paused", "running", cause=None, reason=None)  # no more
        plan_owners.inherit(db, "c-1", "n2", "n1")  # planned: there is nothing to take over
        db.execute("UPDATE fanout_campaign SET planned = 0 WHERE id = 'c-2'")
        plan_owners.inherit(db, "c-2", "n2", "n1")
    assert told(db) == [
        ("paused", OURSELVES, "43106 · barred"), ("paused", ANN, "it had paused itself"), ("resumed", OURSELVES, None)
    ]  # fmt: skip
    assert told(db, "c-2") == [("taken over", OURSELVES, "its planning, from node n1")] and told(db, "c-3") == []


def test_an_order_that_is_undone_leaves_no_line(db: Database) -> None:
    campaign(db)
    with pytest.raises(RuntimeError), db.transaction():
        campaigns.move(db, "c-1", "running", "paused", reason="r")
        raise RuntimeError
    assert told(db) == [] and campaigns.get(db, "c-1").state == "running"  # type: ignore[union-attr]


CONFIG = """
[account.main]
app_id = "wx1"
app_secret = "the-secret"
[message.m]
custom.msgtype = "text"
custom.text.content = "{content}"
"""


def test_a_submission_is_its_writers_once_and_one_of_a_schedule_is_whose_schedule_it_is(
    db: Database, tmp_path: Path
) -> None:
    file = tmp_path / "fanoutd.toml"
    file.write_text(CONFIG)
    file.chmod(0o600)
    config, spool = load(file, {}), Spool(tmp_path / "spool")
    spool.prepare()
    document = {
        "v": 1, "at": 5_000, "content": "x", "phone": None, "message": "m", "account": "main", "audience": None,
        "data": {}, "openids": ["oPERSON1"], "upload": None, "test": False, "page": None, "page_size": 500,
        "send_at": None, "cron": None, "key": None, "reference": None, "uid": 0, "pid": 12,
    }  # fmt: skip
    root = pwd.getpwuid(0).pw_name
    for name, more in ("c-a", {}), ("c-b", {"recurring": "r-9"}), ("c-c", {"message": "gone", "uid": 1 << 31}):
        spool.accept({**document, "campaign": name, **more}, keyed=False)
        bring_in(db, spool, config, "n1", name)
        bring_in(db, spool, config, "n1", name)
    assert told(db, "c-a") == [("submitted", By(0, root, 12), None)]
    assert history.lines(db, "c-a")[0].at == campaigns.get(db, "c-a").created_at  # type: ignore[union-attr]
    assert told(db, "c-b") == [("submitted", By(0, root, None), "by its schedule, r-9")]
    (second, ours, why), (first, by, _) = sorted(told(db, "c-c"), key=lambda each: each[0])
    assert (first, by, second, ours) == ("submitted", By(1 << 31, None, 12), "paused", OURSELVES)
    assert why and "no message 'gone'" in why


def on_a_terminal(d: Daemon, *arguments: str) -> list[str]:
    """Of 80 columns; what is shown there."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "fanoutd", "-c", str(d.config), *arguments]
    with subprocess.Popen(command, stdout=theirs, env={**os.environ, "COLUMNS": "80", "TERM": "xterm"}) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # EIO: the other end is closed
            while more := os.read(ours, 1 << 16):
                shown += more
        os.close(ours)
        assert process.wait(20) == 0
    return shown.decode().split("\r\n")


def test_through_a_daemon_it_is_the_peer_and_shown_with_the_receipt_and_in_the_log(tmp_path: Path) -> None:
    d = Daemon(tmp_path, 10)
    try:
        me = {"uid": os.getuid(), "user": pwd.getpwuid(os.getuid()).pw_name, "pid": os.getpid()}
        answer = d.call("campaign.submit", content="x", phone="1", key="k", send_at="2099-01-01T00:00:00+08:00")
        late = answer["campaign"]
        assert d.call("campaign.submit", content="x", phone="1", key="k")["duplicate"]
        for order in ("pause", "pause", "resume", "cancel"):
            d.call(f"campaign.{order}", campaign=late)
        events = d.call("campaign.history", campaign=late)["events"]
        assert [each["action"] for each in events] == ["submitted", "paused", "resumed", "cancelled"]
        node = d.call("daemon.status")["node"]
        assert all({**each, **me, "node": node, "detail": None} == each for each in events)
        assert events[0]["at"] == d.call("campaign.get", campaign=late)["created_at"]
        log = (tmp_path / "fanoutd.log").read_text()
        assert f"campaign {late}: pause by uid={me['uid']} ({me['user']}) pid={me['pid']}; it is paused" in log
        assert f"campaign {late} submitted by uid={me['uid']}" in log
        assert d.cli("campaign", "resume", late).returncode == 75  # it is cancelled
        d.call("token.refresh", account="main")
        log = (tmp_path / "fanoutd.log").read_text()
        assert f"campaign {late}: resume by uid={me['uid']}" in log and "refused: " in log
        assert f"token.refresh ordered by uid={me['uid']} pid={me['pid']}" in log
        assert len(d.call("campaign.history", campaign=late)["events"]) == 4

        sent = d.cli("send", "x", "--wait").stdout.split()[0]
        shown = d.cli("campaign", "show", sent)
        assert shown.returncode == 0, shown.stderr
        assert "10   100.0 %  sent as customer-service message" in shown.stdout and " CST, after" in shown.stdout
        assert f"submitted by {me['user']} (uid {me['uid']}, pid " in shown.stdout
        assert f"done on {node}: 10 sent" in shown.stdout and f"planned on {node}: 10 people" in shown.stdout
        assert json.loads(d.cli("campaign", "show", sent, "--json").stdout) == d.call("campaign.get", campaign=sent)
        assert f"cancelled by {me['user']} (uid" in d.cli("campaign", "show", late).stdout

        table = on_a_terminal(d, "campaign", "list")
        assert [line.split()[:2] for line in table[:2]] == [["ID", "STATE"], [sent, "done"]]
        assert table[1].split()[3:5] == ["10", "10"] and table[3].startswith("  cancelled by an operator")
        assert max(map(len, table)) <= 80

        listed = d.cli("campaign", "list", "--problems", "--since", "1h").stdout
        assert listed == ""
        done = d.cli("campaign", "list", "--state", "done", "--message", "supply", "--account", "main", "--until", "0s")
        assert done.stdout.split()[0] == sent and done.stdout.count("\n") == 1
        assert d.cli("campaign", "list", "--since", "yesterday").returncode == 2

        whole = d.config.read_text()
        d.config.write_text(whole.replace('rate = ', 'rte = '))  # somebody is editing it
        for command in (["status"], ["campaign", "list", "--limit", "1"], ["campaign", "show", sent]):
            asked = d.cli(*command)
            assert (asked.returncode, asked.stderr.count("\n")) == (0, 1) and asked.stdout
            assert "rte" in asked.stderr and "warning: " in asked.stderr
        assert d.cli("config", "check").returncode == d.cli("reload").returncode == 78
        d.config.write_text(whole)

        d.call("subscriber.opt_out", openid="oOPTEDOUT0000009", account="main")
        skipped = d.call("campaign.submit", content="x", phone="1", openids=["oOPTEDOUT0000009"])["campaign"]
        assert d.until(skipped)["counts"]["skipped"] == 1
        assert "skipped: nothing was sent; opted out since 20" in d.cli("explain", "oOPTEDOUT0000009").stdout
        d.call("subscriber.forget", openid="oOPTEDOUT0000009", account="main")
        events = d.call("delivery.explain", openid="oOPTEDOUT0000009")["events"]
        assert "forgotten" in events[-1]["detail"]
    finally:
        d.close()


def test_a_worker_of_a_newer_program_waits_for_the_tables_that_it_writes_to(tmp_path: Path) -> None:
    with closing(opened("sqlite", tmp_path)) as db:
        where = url("sqlite", tmp_path)
        _opened(where).close()
        meta.write(db, "version", str(schema.VERSION + 1))
        _opened(where).close()
        meta.write(db, "version", str(schema.VERSION - 1))
        with pytest.raises(StoreAway, match="not of this version yet"):
            _opened(where)
