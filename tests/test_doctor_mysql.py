"""A store on a server: what it can keep is said, and what keeps the daemon from it is found, in one line each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fanoutd.store import open_store, schema
from support.bench import wait_for
from support.daemon import Daemon
from support.mariadb import PASSWORD, QUOTED, MariaDb


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDb]:
    """One whose settings may be changed."""
    made = MariaDb("--max-connections=60", "--log-bin=binlog", "--server-id=1")
    yield made
    made.close()


def findings(d: Daemon) -> dict[str, list[dict[str, Any]]]:
    done = d.cli("doctor", "--json")
    assert "Traceback" not in done.stderr and QUOTED not in done.stdout and PASSWORD not in done.stdout
    found: dict[str, list[dict[str, Any]]] = {}
    for line in done.stdout.splitlines():
        each = json.loads(line)
        assert each["level"] == "ok" or each["mend"]
        found.setdefault(each["what"], []).append(each)
    return found


def worst(found: dict[str, list[dict[str, Any]]], what: str) -> dict[str, Any]:
    return max(found[what], key=lambda each: ("ok", "warn", "fail").index(each["level"]))


def test_what_a_server_may_lose_is_told_by_its_settings(server: MariaDb) -> None:
    db = open_store(server.database())

    def lost(**settings: Any) -> str | None:
        for name, value in settings.items():
            server.say(f"SET GLOBAL {name} = {value}")
        return db.durability()

    try:
        said = lost(innodb_flush_log_at_trx_commit=1, sync_binlog=0)
        assert said and "not a power cut" in said and "sync_binlog is 0" in said and QUOTED not in said
        assert lost(innodb_flush_log_at_trx_commit=3) is None
        assert lost(innodb_flush_log_at_trx_commit=1, sync_binlog=1) is None
        said = lost(innodb_flush_log_at_trx_commit=2)
        assert said and "kill -9, not a power cut" in said and "innodb_flush_log_at_trx_commit is 2" in said
        said = lost(innodb_flush_log_at_trx_commit=0)
        assert said and "not the death of the store's server" in said
    finally:
        lost(innodb_flush_log_at_trx_commit=1, sync_binlog=1)


def test_a_promise_that_a_server_does_not_keep_is_in_the_log_once_in_status_and_in_doctor(
    server: MariaDb, tmp_path: Path
) -> None:
    server.say("SET GLOBAL innodb_flush_log_at_trx_commit = 2")
    d = Daemon(tmp_path, 0, store=server.database())
    try:
        told = wait_for(lambda: d.call("daemon.status")["promise"], "a promise")
        assert "innodb_flush_log_at_trx_commit is 2" in told
        assert "innodb_flush_log_at_trx_commit" in d.cli("status").stdout
        found = findings(d)
        assert worst(found, "promise")["level"] == "warn" and "is 2" in worst(found, "promise")["words"]
        assert not [each for some in found.values() for each in some if each["level"] == "fail"]
        assert any("MariaDB 10." in each["words"] for each in found["store"])
        assert any("may be written" in each["words"] for each in found["store"])
        assert (tmp_path / "fanoutd.log").read_text().count("the promise is not exact") == 1
        server.say("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
        assert "is 2" not in worst(findings(d), "promise")["words"]
    finally:
        server.say("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
        d.close()


def test_what_keeps_the_daemon_from_writing_is_found_with_its_mend(server: MariaDb, tmp_path: Path) -> None:
    url = server.database()
    name = url.rpartition("/")[2]
    d = Daemon(tmp_path, 0, store=url, wait=False)
    try:
        d.close()
        schema.migrate(open_store(url))

        def trouble(before: str, after: str) -> dict[str, Any]:
            server.say(before)
            try:
                return worst(findings(d), "store")
            finally:
                server.say(after)

        found = trouble("SET GLOBAL read_only = ON", "SET GLOBAL read_only = OFF")
        assert found["level"] == "fail" and "read-only" in found["words"]
        found = trouble("SET GLOBAL binlog_format = STATEMENT", "SET GLOBAL binlog_format = MIXED")
        assert found["level"] == "fail" and "binlog_format must be" in found["mend"]
        server.say(f"REVOKE ALL ON {name}.* FROM fanout@'%'")
        found = trouble(f"GRANT SELECT ON {name}.* TO fanout@'%'", f"GRANT ALL ON {name}.* TO fanout@'%'")
        assert found["level"] == "fail" and "cannot be written" in found["words"] and "GRANT" in found["mend"]
        found = trouble("SET GLOBAL max_connections = 12", "SET GLOBAL max_connections = 60")
        assert found["level"] == "fail" and "max_connections" in found["mend"]
        found = trouble(f"ALTER TABLE {name}.fanout_token ENGINE=MyISAM", "DO 0")
        assert found["level"] == "fail" and "fanout_token" in found["words"] and "InnoDB" in found["mend"]
        found = trouble(f"DROP DATABASE {name}", f"CREATE DATABASE {name}")
        assert found["level"] == "fail" and "create the database first" in found["words"]
        assert any("makes the tables" in each["words"] for each in findings(d)["store"])
    finally:
        d.close()


def refusals(server: MariaDb) -> int:
    return int(server.say("SHOW GLOBAL STATUS LIKE 'Access_denied_errors'")[0][1])


def test_a_daemon_whose_store_is_not_there_waits_says_so_and_begins_when_it_is(tmp_path: Path) -> None:
    server = MariaDb()
    url = server.database()
    server.kill()
    d = Daemon(tmp_path, 3, store=url)

    def waits_for(words: str) -> bool:
        status = d.call("daemon.status")
        error = status["store"]["error"]
        return status["state"] == "degraded" and not status["store"]["ok"] and words in (error or "")

    try:
        campaign = d.call("campaign.submit", content="hello", phone="1")["campaign"]  # taken all the same
        wait_for(lambda: waits_for(f"127.0.0.1:{server.port}"), "a word on the store")
        server.start()
        server.say("ALTER USER fanout@'%' IDENTIFIED BY 'another one'")
        wait_for(lambda: waits_for("look at user and password"), "a word on the password")
        assert "look at user and password" in d.cli("status").stdout
        assert worst(findings(d), "store")["level"] == "fail"
        tries = refusals(server)
        wait_for(lambda: refusals(server) >= tries + 3, "some tries more")
        log = (tmp_path / "fanoutd.log").read_text()
        assert log.count("look at user and password") == 1
        assert PASSWORD not in log and QUOTED not in log and "Traceback" not in log
        server.say(f"ALTER USER fanout@'%' IDENTIFIED BY '{PASSWORD}'")
        d.until(campaign)
        status = wait_for(
            lambda: (found := d.call("daemon.status"))["state"] == "running" and found, "a daemon that is well"
        )
        assert (status["store"]["ok"], status["store"]["error"]) == (True, None)
        server.kill()
        wait_for(lambda: waits_for(f"127.0.0.1:{server.port}"), "a word on the store")
        server.start()
        wait_for(lambda: d.call("daemon.status")["state"] == "running", "a daemon that is well")
    finally:
        d.close()
        server.close()
