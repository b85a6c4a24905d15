"""What is done on the operator's side: once it has succeeded, tried again until then, and in nobody's way."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from fanoutd.config import Config, load
from fanoutd.dispatcher import commands, finish, statements
from fanoutd.dispatcher.errands import Errands
from fanoutd.store import Database, campaigns, finishing, open_store, outbox
from fanoutd.store.campaigns import Campaign
from fanoutd.store.counters import Counts
from fanoutd.store.schema import migrate
from support.bench import wait_for
from support.daemon import Daemon, follower
from support.stores import KINDS, url

CONFIG = """
[account.main]
app_id = "wx1"
app_secret = "the-secret"
timezone = "UTC"
[message.task]
variables = ["colour"]
custom.msgtype = "text"
custom.text.content = "{content}"
[message.task.on_finish]
database = "sqlite:///FOLDER/site.db"
statement = '''UPDATE task SET status = 2, state = %(state)s, people = %(total)s, sent = %(sent)s,
    unknown = %(unknown)s, at = %(finished_at)s, colour = %(colour)s WHERE miaomu_id = %(reference)s'''
command = ["/bin/sh", "-c", "echo \\"$0 $FANOUTD_STATE $FANOUTD_SENT\\" >> FOLDER/commands; exec FOLDER/more",
    "{reference}"]
[message.plain]
custom.msgtype = "text"
custom.text.content = "{content}"
[audience.one]
database = "sqlite:///FOLDER/site.db"
query = "SELECT openid FROM people"
on_opt_out = "UPDATE people SET takes = 0, at = %(now)s WHERE openid = %(openid)s AND %(account)s = 'main'"
on_opt_in = "UPDATE people SET takes = 1 WHERE openid = %(openid)s"
[audience.two]
database = "sqlite:///FOLDER/other.db"
query = "SELECT openid FROM people"
on_opt_out = "UPDATE people SET takes = 0 WHERE openid = %(openid)s"
on_gone = "DELETE FROM people WHERE openid = %(openid)s"
"""


class Office:
    """A store with errands, and the operator's databases beside it."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        file = folder / "fanoutd.toml"
        file.write_text(f'[store]\nurl = "{url(kind, folder)}"\n{CONFIG.replace("FOLDER", str(folder))}')
        file.chmod(0o600)
        self.config = load(file, {})
        self.config.daemon.state_dir.mkdir()
        self.db: Database = open_store(self.config.store_url)
        migrate(self.db)
        for name in ("site.db", "other.db"):
            with closing(sqlite3.connect(folder / name)) as link, link:
                link.execute("CREATE TABLE people (openid TEXT, takes INT, at TEXT)")
                link.execute("INSERT INTO people VALUES ('oPERSON1', 1, NULL), ('oPERSON2', 1, NULL)")
                link.execute(
                    "CREATE TABLE task "
                    "(miaomu_id TEXT, status INT, state TEXT, people INT, sent INT, unknown INT, at TEXT, colour TEXT)"
                )
                link.execute("INSERT INTO task (miaomu_id, status) VALUES ('7', 1), ('8', 1)")
        self.command("exit 0")
        self.given: list[Any] = []
        self.errands = self.another(self.config)

    def another(self, config: Config) -> Errands:
        return Errands(config, lambda: open_store(self.config.store_url), self.given.append)

    def command(self, script: str) -> None:
        file = self.folder / "more"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def campaign(self, name: str, message: str = "task", reference: str | None = "7", **more: Any) -> str:
        definition = {"content": "x", "phone": None, "data": {"colour": "red"}, **more}
        row = Campaign(name, "main", message, None, reference, None, "running", None, None, 0, None, 1000, None, True,
                       "n", "query", definition)  # fmt: skip
        with self.db.transaction():
            campaigns.insert(self.db, row)
        return name

    def end(self, campaign: str) -> None:
        with self.db.transaction():
            assert finishing.finish(self.db, campaign)

    def add(self, name: str, openid: str, account: str = "main") -> None:
        with self.db.transaction():
            outbox.add(self.db, name, {"account": account, "openid": openid})

    def work(self, errands: Errands | None = None) -> None:
        """Whatever is due, and what comes of it, to its end."""
        (errands or self.errands).work(self.db)
        while self.given:
            given, self.given[:] = list(self.given), []
            assert not wait(given, 30).not_done
            for each in given:
                each.result()

    def left(self) -> list[tuple[Any, ...]]:
        return self.db.rows("SELECT name, tries, error FROM fanout_outbox ORDER BY id")

    def rows(self, sql: str, name: str = "site.db") -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.folder / name)) as link:
            return link.execute(sql).fetchall()

    def commands(self) -> list[str]:
        file = self.folder / "commands"
        return file.read_text().splitlines() if file.exists() else []

    def all_due(self) -> None:
        with self.db.transaction():
            self.db.execute("UPDATE fanout_outbox SET due = 0")


@pytest.fixture(params=KINDS)
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Office:
    return Office(tmp_path, request.param)


# ---- on_finish


def test_statement_and_command_are_run_when_a_campaign_is_done(office: Office) -> None:
    office.end(office.campaign("c-1"))
    office.work()
    found = office.rows("SELECT miaomu_id, status, state, people, sent, unknown, colour FROM task")
    assert found == [("7", 2, "done", 0, 0, 0, "red"), ("8", 1, None, None, None, None, None)]
    assert office.commands() == ["7 done 0"]
    assert office.left() == []


@pytest.mark.parametrize("state", ["cancelled", "failed"])
def test_other_ends_are_ends_too_and_said_as_they_are(office: Office, state: str) -> None:
    office.campaign("c-1")
    with office.db.transaction():
        assert campaigns.move(office.db, "c-1", "running", state)
        assert not campaigns.move(office.db, "c-1", "running", state)
    office.work()
    assert office.rows("SELECT state FROM task WHERE status = 2") == [(state,)]
    assert office.commands() == [f"7 {state} 0"]


def test_what_was_undone_with_its_transaction_is_not_run(office: Office) -> None:
    office.campaign("c-1")
    with pytest.raises(ZeroDivisionError), office.db.transaction():
        assert finishing.finish(office.db, "c-1")
        raise ZeroDivisionError
    office.work()
    assert office.commands() == [] and office.left() == []


def test_one_that_was_cancelled_before_it_could_be_defined_ends_too(office: Office) -> None:
    row = Campaign("c-1", "gone", "task", None, None, None, "paused", "config", "why", 5, None, None, None, False, "n",
                   "query", {})  # fmt: skip
    with office.db.transaction():
        campaigns.insert(office.db, row)
    assert commands.cancel(office.db, row) == "cancelled"
    office.work()
    assert office.commands() == [" cancelled 0"]
    assert office.left() == []


def test_retry_that_ends_again_runs_it_again_but_not_while_it_runs(office: Office) -> None:
    office.end(office.campaign("c-1"))
    with office.db.transaction():
        campaigns.move(office.db, "c-1", "done", "running", finished_at=None)
    office.work()
    assert office.commands() == []
    office.end("c-1")
    office.work()
    assert office.commands() == ["7 done 0"]


def test_kinds_without_it_and_tests_leave_nothing_behind(office: Office) -> None:
    office.end(office.campaign("c-1", "plain"))
    office.end(office.campaign("c-2", "unknown by now"))
    office.end(office.campaign("c-3", test=True))
    office.work()
    assert office.left() == [] and office.commands() == []
    assert office.rows("SELECT 1 FROM task WHERE status = 2") == []


def test_a_command_that_fails_is_run_again_and_the_statement_is_not(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    office.command("echo first >&2; echo the last words >&2; exit 3")
    office.end(office.campaign("c-1"))
    office.work()
    (name, tries, error), = office.left()
    assert (name, tries) == ("on_finish", 1) and error == "/bin/sh ended with 3: the last words"
    assert "on_finish of campaign c-1 failed, and is tried again in 5 s" in caplog.text
    with closing(sqlite3.connect(office.folder / "site.db")) as link, link:
        link.execute("UPDATE task SET status = 9")
    office.work()
    assert office.commands() == ["7 done 0"], "it rests between two tries"
    office.command("exit 0")
    office.all_due()
    office.work()
    assert office.left() == [] and office.commands() == ["7 done 0"] * 2
    assert office.rows("SELECT DISTINCT status FROM task") == [(9,)]


def test_pauses_double_up_to_ten_minutes(office: Office) -> None:
    office.command("exit 1")
    office.end(office.campaign("c-1"))
    pauses = []
    for _ in range(9):
        office.all_due()
        office.work()
        pauses.append(office.db.rows(f"SELECT due - {office.db.NOW_MS} FROM fanout_outbox")[0][0])
    for pause, wanted in zip(pauses, [5, 10, 20, 40, 80, 160, 320, 600, 600], strict=True):
        assert wanted * 1000 - 900 < pause <= wanted * 1000


def test_what_is_configured_now_is_what_is_run(office: Office) -> None:
    office.end(office.campaign("c-1"))
    kind = office.config.messages["task"]
    assert kind.on_finish is not None
    wrong = replace(kind, on_finish=replace(kind.on_finish, statement="UPDATE no_such_table SET x = 1"))
    office.work(office.another(replace(office.config, messages={"task": wrong})))
    assert [tries for _, tries, _ in office.left()] == [1]
    assert "no such table" in office.left()[0][2]
    office.all_due()
    office.work()
    assert office.left() == [] and office.commands() == ["7 done 0"]


def test_a_server_that_is_away_is_named_without_its_password_and_tried_again(office: Office) -> None:
    office.end(office.campaign("c-1"))
    kind = office.config.messages["task"]
    assert kind.on_finish is not None
    mysql = replace(kind, on_finish=replace(kind.on_finish, database="mysql://me:hush@127.0.0.1:1/site"))
    office.work(office.another(replace(office.config, messages={"task": mysql})))
    (_, tries, error), = office.left()
    assert tries == 1 and error.startswith("mysql://127.0.0.1:1/site: ") and "hush" not in error


def test_a_lock_that_somebody_holds_is_waited_for_and_then_it_is_tried_again(office: Office) -> None:
    office.end(office.campaign("c-1"))
    with closing(sqlite3.connect(office.folder / "site.db", isolation_level=None)) as link:
        link.execute("BEGIN IMMEDIATE")
        with mock.patch("fanoutd.dispatcher.statements.TIMEOUT", 0.2):
            office.work()
        assert "locked" in office.left()[0][2]
    office.all_due()
    office.work()
    assert office.left() == []


def test_a_statement_without_an_end_is_stopped_and_undone(office: Office) -> None:
    endless = "UPDATE task SET status = (SELECT COUNT(*) FROM people a, people b, people c, people d, people e)"
    with closing(sqlite3.connect(office.folder / "site.db")) as link, link:
        link.executemany("INSERT INTO people VALUES (?, 1, NULL)", [(f"oMORE{i:05d}",) for i in range(300)])
    started = time.monotonic()
    slow = pytest.raises(statements.NotRun, match=r"took longer than 0\.3 s")
    with mock.patch("fanoutd.dispatcher.statements.TIMEOUT", 0.3), slow:
        statements.run(f"sqlite:///{office.folder}/site.db", endless, {})
    assert time.monotonic() - started < 5
    assert office.rows("SELECT DISTINCT status FROM task") == [(1,)]


def test_a_database_that_is_not_there_is_not_made(office: Office) -> None:
    with pytest.raises(statements.NotRun, match="unable to open"):
        statements.run(f"sqlite:///{office.folder}/gone.db", "UPDATE x SET y = 1", {})
    assert not (office.folder / "gone.db").exists()


# ---- commands


@pytest.fixture
def known() -> finish.Facts:
    definition = {"content": "one\0two", "phone": None, "data": {"colour": "$(red)"}}
    row = Campaign("c-1", "main", "task", None, "it's; rm -rf /", None, "done", None, None, 0, None, 0, 3_600_000, True,
                   "n", "query", definition)  # fmt: skip
    return finish.facts(row, Counts(1, 2, 3, 4, 5, 6, 7, {}), "Asia/Shanghai")


def test_the_facts_add_up(known: finish.Facts) -> None:
    assert {name: known[name] for name in ("total", "sent", "failed", "skipped", "unknown", "pending")} == {
        "total": 28, "sent": 9, "failed": 5, "skipped": 6, "unknown": 7, "pending": 1,
    }
    assert known["finished_at"] == "1970-01-01 09:00:00"


def test_no_shell_sees_what_people_wrote(known: finish.Facts) -> None:
    assert finish.arguments(["x", "{reference}", "{content}-{colour}{{}}", ""], known) == [
        "x", "it's; rm -rf /", "one two-$(red){}", "",
    ]


def test_a_command_knows_the_facts_and_no_secret_of_ours(known: finish.Facts) -> None:
    given = finish.environment(known, {"PATH": "/bin", "FANOUTD_MAIN_APP_SECRET": "x", "FANOUTD_CONFIG": "y"})
    assert given.pop("PATH") == "/bin"
    assert given == {
        "FANOUTD_CAMPAIGN": "c-1", "FANOUTD_REFERENCE": "it's; rm -rf /", "FANOUTD_ACCOUNT": "main",
        "FANOUTD_MESSAGE": "task", "FANOUTD_STATE": "done", "FANOUTD_FINISHED_AT": "1970-01-01 09:00:00",
        "FANOUTD_TOTAL": "28", "FANOUTD_SENT": "9", "FANOUTD_FAILED": "5", "FANOUTD_SKIPPED": "6",
        "FANOUTD_UNKNOWN": "7", "FANOUTD_PENDING": "1",
    }


def test_what_was_not_given_is_null_in_a_statement_and_empty_in_a_command() -> None:
    row = Campaign("c-1", "main", "task", None, None, None, "done", None, None, 0, None, 0, 1, True, "n", "query", {})
    facts = finish.facts(row, Counts(0, 0, 0, 0, 0, 0, 0, {}), "UTC")
    assert (facts["reference"], facts["content"], facts["phone"]) == (None, None, None)
    assert finish.arguments(["{reference}-{phone}"], facts) == ["-"]
    assert finish.environment(facts, {})["FANOUTD_REFERENCE"] == ""


def test_a_command_that_takes_too_long_is_killed_with_its_children(known: finish.Facts, tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! > {tmp_path}/child; wait"
    with pytest.raises(finish.CommandFailed, match=r"took longer than 0\.5 s"):
        finish.run(["/bin/sh", "-c", script], known, 0.5)
    child = int((tmp_path / "child").read_text())
    wait_for(lambda: not _lives(child), "the child's end")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(("command", "words"), [
    (["/no/such/thing"], "/no/such/thing: No such file"), (["/etc/passwd"], "Permission denied"),
    (["/bin/sh", "-c", "kill -9 $$"], "was killed by signal 9"),
    (["/bin/sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; exit 1"], "ended with 1: xxx"),
])  # fmt: skip
def test_a_command_that_fails_says_how(known: finish.Facts, command: list[str], words: str) -> None:
    with pytest.raises(finish.CommandFailed, match=words) as error:
        finish.run(command, known)
    assert len(str(error.value)) < 300


# ---- what people say of themselves


def test_every_audience_that_has_the_statement_is_told(office: Office) -> None:
    office.add("on_opt_out", "oPERSON1")
    office.work()
    assert office.left() == []
    takes = "SELECT openid, takes, at IS NULL FROM people"
    assert office.rows(takes) == [("oPERSON1", 0, 0), ("oPERSON2", 1, 1)]
    assert office.rows(takes, "other.db") == [("oPERSON1", 0, 1), ("oPERSON2", 1, 1)]
    office.add("on_gone", "oPERSON2")
    office.add("on_opt_in", "oPERSON1")
    office.work()
    assert office.rows("SELECT openid, takes FROM people") == [("oPERSON1", 1), ("oPERSON2", 1)]
    assert office.rows("SELECT openid, takes FROM people", "other.db") == [("oPERSON1", 0)]


def test_the_last_word_holds_whatever_could_not_be_told_meanwhile(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    os.rename(office.folder / "other.db", office.folder / "away.db")
    office.add("on_opt_out", "oPERSON1")
    office.add("on_opt_out", "oPERSON2")
    office.work()
    assert [tries for _, tries, _ in office.left()] == [1, 1]
    assert "[audience.two] on_opt_out" in caplog.text and "oPERSON" not in caplog.text
    office.add("on_opt_in", "oPERSON1")
    os.rename(office.folder / "away.db", office.folder / "other.db")
    office.work()
    assert [name for name, _, _ in office.left()] == ["on_opt_out"], "the older word of whom the newer is told is void"
    office.add("on_opt_in", "oPERSON2")
    office.all_due()
    office.work()
    assert office.left() == []
    assert office.rows("SELECT openid, takes FROM people") == [("oPERSON1", 1), ("oPERSON2", 1)]


def test_a_flood_is_worked_off_without_waiting_for_the_clock(office: Office) -> None:
    with office.db.transaction():
        for i in range(130):
            outbox.add(office.db, "on_opt_in", {"account": "main", "openid": f"oPERSON{i}"})
    office.work()
    assert office.left() == []


def test_one_kind_does_not_wait_for_the_other(office: Office) -> None:
    with closing(sqlite3.connect(office.folder / "other.db", isolation_level=None)) as link:
        link.execute("BEGIN EXCLUSIVE")
        office.add("on_gone", "oPERSON1")
        office.end(office.campaign("c-1"))
        office.errands.work(office.db)
        wait_for(lambda: office.commands(), "the command", 4)
        assert office.rows("SELECT status FROM task WHERE miaomu_id = '7'") == [(2,)]
    office.work()


def test_an_errand_of_a_name_that_nobody_knows_stays(office: Office) -> None:
    office.add("on_something_newer", "oPERSON1")
    office.work()
    assert office.left() == [("on_something_newer", 0, None)]


def test_a_mistake_of_ours_is_logged_and_does_not_spin(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    with office.db.transaction():
        outbox.add(office.db, "on_finish", {})
    office.work()
    assert len(office.left()) == 1 and caplog.text.count("KeyError") >= 1


# ---- in the daemon

TASKS = """
[message.task]
channels = ["custom"]
custom.msgtype = "text"
custom.text.content = "{{content}}"
[message.task.on_finish]
database = "sqlite:///FOLDER/tp.db"
statement = "UPDATE task SET status = status + 1, sent = %(sent)s WHERE miaomu_id = %(reference)s"
command = ["/bin/sh", "-c", "echo $FANOUTD_STATE >> FOLDER/commands"]
"""


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    made: list[Daemon] = []

    def serve(**how: Any) -> Daemon:
        with closing(sqlite3.connect(tmp_path / "tp.db")) as link, link:
            link.execute("CREATE TABLE task (miaomu_id TEXT, status INT, sent INT)")
            link.execute("INSERT INTO task VALUES ('7', 1, NULL)")
        text = TASKS.replace("{{", "{").replace("}}", "}").replace("FOLDER", str(tmp_path))
        made.append(type("Tasks", (Daemon,), {"ACCOUNT": text})(tmp_path, **how))
        return made[0]

    yield serve
    for each in made:
        each.close()


def tasks(d: Daemon) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(d.folder / "tp.db")) as link:
        return link.execute("SELECT status, sent FROM task").fetchall()


def test_the_daemon_tells_the_task_table_once_and_says_so_in_its_log(serving: Callable[..., Daemon]) -> None:
    d = serving(followers=20)
    campaign = d.call("campaign.submit", message="task", content="x", reference=7)["campaign"]
    d.until(campaign)
    wait_for(lambda: (d.folder / "commands").exists(), "the command")
    assert tasks(d) == [(2, 20)]
    log = (d.folder / "fanoutd.log").read_text
    wait_for(lambda: f"on_finish of campaign {campaign}: the command ended well" in log(), "the log's line")
    assert "the statement changed 1 rows" in log()
    d.process.send_signal(signal.SIGHUP)
    wait_for(lambda: d.call("daemon.status")["reload"]["stage"] == "done", "the reload")
    other = d.call("campaign.submit", message="task", content="x", openids=[follower(1)])["campaign"]
    d.until(other)
    wait_for(lambda: (d.folder / "commands").read_text() == "done\ndone\n", "the other's command, and no third")
    assert tasks(d) == [(2, 20)]


def test_it_is_not_forgotten_when_all_die_at_the_end_of_a_campaign(serving: Callable[..., Daemon]) -> None:
    d = serving(followers=20)
    campaign = d.call("campaign.submit", message="task", content="x", reference=7)["campaign"]
    d.until(campaign)
    d.kill_all()
    d.serve()
    wait_for(lambda: (d.folder / "commands").exists(), "the command")
    assert tasks(d)[0][0] >= 2


def test_a_cancelled_one_is_told_of_too(serving: Callable[..., Daemon]) -> None:
    d = serving(followers=5)
    campaign = d.call("campaign.submit", message="task", content="x", send_at="2099-01-01T00:00:00Z")["campaign"]
    wait_for(lambda: d.call("campaign.cancel", campaign=campaign)["state"] == "cancelled", "cancelled")
    said = d.folder / "commands"
    wait_for(lambda: said.exists() and said.read_text().endswith("\n"), "the command")
    assert said.read_text() == "cancelled\n"
