"""Things break under a real daemon, on a real database and with a real mail server: one alert each, one all clear."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fanoutd.client import ClientError
from fanoutd.health.conditions import CONDITIONS, Key, key
from support.bench import wait_for
from support.daemon import Daemon
from support.mariadb import MariaDb
from support.smtp import MailServer

#: What a machine with much to do may be short of is not looked at.
SETTINGS = """max_failures = 1
[health]
restarts = 3
disk_left = "1KiB"
store_latency = "30s"
api_latency = "30s"
memory_left = "2KiB"
clock_off = "1m"
[schedule]
health_check = "1s"
"""


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with MailServer() as made:
        yield made


@pytest.fixture
def database() -> Iterator[MariaDb]:
    made = MariaDb("--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync")  # no wait for a busy disk
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            made.process.send_signal(signal.SIGCONT)
        made.close()


@pytest.fixture
def daemon(tmp_path: Path, mail: MailServer, database: MariaDb) -> Iterator[Daemon]:
    class Watched(Daemon):
        ACCOUNT = SETTINGS + mail.table()

    made = Watched(tmp_path, store=database.database())
    try:
        yield made
    finally:
        made.sandbox.process.send_signal(signal.SIGCONT)
        made.close()


class Watcher:
    """What the mails and the status say."""

    def __init__(self, daemon: Daemon, mail: MailServer) -> None:
        self._daemon, self._mail = daemon, mail

    def mails_with(self, words: str) -> list[Any]:
        return [each for each in self._mail.received if words.lower() in (each.subject + each.text).lower()]

    def alert(self, *names: str) -> None:
        for each in map(key, names):
            wait_for(lambda each=each: self.mails_with(each.say(each.condition.broken)), f"an alert: {each}", 30)

    def all_clear(self, *names: str) -> None:
        for each in map(key, names):
            wait_for(lambda each=each: self.mails_with(each.say(each.condition.well)), f"an all clear: {each}", 30)

    def once(self, *names: str) -> None:
        """Each was told of once, and once that it is over."""
        for each in map(key, names):
            for words in (each.say(each.condition.broken), each.say(each.condition.well)):
                found = self.mails_with(words)
                assert len(found) == 1, (str(each), [mail.subject for mail in found])

    def broken(self) -> set[str]:
        conditions = self._daemon.call("daemon.status")["conditions"]
        return {str(Key(each["name"], each["account"])) for each in conditions if each["state"] == "broken"}

    def until_broken(self, *names: str) -> None:
        wait_for(lambda: self.broken() == set(names), f"{names} and nothing else broken", 30)


def reload(daemon: Daemon, *changes: tuple[str, str]) -> None:
    """SIGHUP with another configuration, and wait for what comes of it."""
    text, count = daemon.config.read_text(), daemon.call("daemon.status")["reload"]["count"]
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    daemon.config.write_text(text)
    os.kill(daemon.process.pid, signal.SIGHUP)

    def over() -> bool:
        seen = daemon.call("daemon.status")["reload"]
        return bool(seen["count"] > count and seen["stage"] in ("done", "refused"))

    wait_for(over, "the reload's end", 30)


def test_what_breaks_is_mailed_once_and_once_when_it_is_well_again(
    daemon: Daemon, mail: MailServer, database: MariaDb
) -> None:
    watcher = Watcher(daemon, mail)
    all_but_nodes = [name for name in CONDITIONS if name != "node"]
    wait_for(lambda: [each["name"] for each in daemon.call("daemon.status")["conditions"]] == all_but_nodes, "a look")
    status = daemon.call("daemon.status")
    assert {each["account"] for each in status["conditions"] if each["name"] in ("api", "token")} == {"main"}
    assert watcher.broken() == set() and status["state"] == "running"

    # The database hangs, the dispatcher dies, and then the database: the next dispatcher knows what was told.
    database.process.send_signal(signal.SIGSTOP)
    watcher.alert("store")
    [alert] = mail.received
    assert alert.subject == f"[fanoutd {status['node']}] ALERT: the store cannot be used"
    assert "it has given no answer for" in alert.text and "What to do: See that the database runs" in alert.text
    watcher.until_broken("store")
    seen = daemon.call("daemon.status")
    assert seen["state"] == "degraded" and not seen["store"]["ok"] and "no answer" in seen["store"]["error"]
    old = daemon.dispatcher()
    os.kill(old, signal.SIGKILL)
    database.process.kill()
    database.process.wait()
    wait_for(lambda: daemon.dispatcher() not in (None, old), "another dispatcher")
    watcher.until_broken("store")
    log = daemon.folder / "fanoutd.log"
    wait_for(lambda: "trying again until it is there" in log.read_text(), "a word in the log", 30)
    database.start()
    watcher.all_clear("store")
    watcher.until_broken()
    assert re.fullmatch(r"\[fanoutd .*\] all clear: the store can be used again, after \d+ s", mail.received[1].subject)

    # WeChat refuses to give a token, workers die, somebody breaks the configuration.
    daemon.sandbox.control("token_error", {"errcode": 40164, "errmsg": "invalid ip not in whitelist"})
    with pytest.raises(ClientError, match="40164"):
        daemon.call("token.refresh", account="main")
    for _ in range(3):
        worker = wait_for(daemon.workers, "a worker")[0]
        os.kill(worker["pid"], signal.SIGKILL)
        wait_for(lambda pid=worker["pid"]: pid not in {each["pid"] for each in daemon.workers()}, "its end")
    reload(daemon, ("[health]", "[health]\nnonsense = 1"))
    watcher.alert("token:main", "workers", "reload")
    watcher.until_broken("token:main", "workers", "reload")
    [told] = watcher.mails_with("account main: no good access token")
    assert "40164" in told.text and "IP whitelist" in told.text
    assert "deaths in the last 10 min (worker " in watcher.mails_with("die again and again")[0].text
    assert "nonsense: unknown key" in watcher.mails_with("the last reload was refused")[0].text

    # All of it is mended; a threshold is raised, and the API hangs.
    daemon.sandbox.control("token_error", {})
    daemon.call("token.refresh", account="main")
    reload(daemon, ("nonsense = 1", ""), ("restarts = 3", "restarts = 1000"), ('"1KiB"', '"900000GiB"'))
    daemon.sandbox.process.send_signal(signal.SIGSTOP)
    watcher.alert("disk", "api:main")
    watcher.all_clear("token:main", "workers", "reload")
    watcher.until_broken("disk", "api:main")
    assert daemon.call("daemon.status")["state"] == "degraded"
    shown = daemon.cli("status")
    assert "account main: WeChat's API cannot be reached" in shown.stdout and "wanted (since 20" in shown.stdout
    daemon.sandbox.process.send_signal(signal.SIGCONT)
    reload(daemon, ('"900000GiB"', '"1KiB"'))
    watcher.all_clear("disk", "api:main")
    watcher.until_broken()

    watcher.once("store", "token:main", "workers", "reload", "disk", "api:main")
    assert {name for name in CONDITIONS if watcher.mails_with(CONDITIONS[name].broken.replace("{of}", "main"))} == {
        "store", "token", "workers", "reload", "disk", "api",
    }  # fmt: skip
    everything = "".join(each.subject + each.text + each.html for each in mail.received)
    for secret in ("a-secret-of-the-tests", "a p@ss", "a%20p"):
        assert secret not in everything
    text = log.read_text()
    assert text.count("warning: the store cannot be used: it has given") == 1
    assert text.count("trying again until it is there") == 1
    assert text.count("] the store can be used again, after") == 2, "health says it, and whoever waited for it"
