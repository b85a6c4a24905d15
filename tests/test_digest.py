"""The daily mail: its words, where its figures come from, and that it comes once, whatever dies."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fanoutd import digest
from fanoutd.config import Config, load
from fanoutd.digest import Campaign, Digest
from fanoutd.dispatcher.digest import Digests, event
from fanoutd.dispatcher.queries import RpcError
from fanoutd.dispatcher.scheduled_sync import ScheduledSync
from fanoutd.dispatcher.threads import Threads
from fanoutd.mail.event import Event
from fanoutd.store import Database, campaigns, open_store, recurring, shards
from fanoutd.store.chores import Mark, keep
from fanoutd.store.schema import migrate
from fanoutd.store.shards import Planned
from support import stores
from support.bench import wait_for
from support.daemon import Daemon, follower
from support.master import write_config
from support.smtp import MailServer

NINE = int(datetime(2026, 3, 2, 1, tzinfo=UTC).timestamp() * 1000)  # 09:00 in Shanghai
HOUR, DAY = 3_600_000, 86_400_000
NOBODY = {"pending": 0, "sent_custom": 0, "sent_template": 0, "sent_subscribe": 0, "failed": 0, "skipped": 0,
          "unknown": 0}  # fmt: skip

QUIET = Digest("n1", NINE - DAY, NINE, "Asia/Shanghai", quotas={"main": None})

BUSY = Digest(
    "n1", NINE - DAY, NINE, "Asia/Shanghai",
    ended=(
        Campaign("k-1", "supply", "任务 <3>", "done", None, {**NOBODY, "sent_custom": 1200, "sent_template": 34,
                 "failed": 2}, NINE - HOUR),
        Campaign("c-2", "supply", None, "cancelled", "by an operator", {**NOBODY, "pending": 5}, NINE - 2 * HOUR),
    ),
    errors={"45015": 1, "render": 3, "99999": 2},
    running=(Campaign("c-3", "supply", None, "running", "quiet hours until 08:00",
                      {**NOBODY, "pending": 3, "failed": 1}),),
    paused=(Campaign("c-4", "supply", None, "paused", "40164: add the address to the IP whitelist", NOBODY),),
    unknown=[Campaign(f"c-u{i}", "supply", None, "done", None, {"unknown": i + 1}, NINE - i * DAY) for i in range(12)],
    overdue=1, coming=((NINE + HOUR, "c-5 (supply)"),),
    quotas={"main": {"custom": {"limit": 500_000, "used": 1234, "left": 498_766},
                     "template": {"limit": None, "used": 1, "left": None}}, "b": None},
    opted_out={"main": 4}, conditions=["the store does not answer: nothing is sent"], nodes=["n1", "n2"], workers=4,
    restarts=1, spool=2, disk=(3 << 30, 10 << 30), store=(512 << 20, 100 << 20),
)  # fmt: skip


def test_a_day_without_anything_is_a_short_mail_all_the_same() -> None:
    assert digest.subject(QUIET) == "digest: no campaign ended"
    assert digest.text(QUIET) == (
        "From 2026-03-01 09:00 to 2026-03-02 09:00 (Asia/Shanghai).\n\nEnded\n-----\nNo campaign ended.\n\n"
        "Accounts\n--------\nmain: no calls today\n\nThe daemon\n----------\nNode: n1\n"
    )
    assert "<h3" in digest.html(QUIET)


def test_a_day_in_words() -> None:
    assert digest.subject(BUSY) == (
        "digest: 2 campaigns ended, 1,234 sent, 2 failed, 78 unknown, 1 paused, 1 condition broken"
    )
    text = digest.text(BUSY)
    for line in (
        "the store does not answer: nothing is sent",
        "c-u11: 12 deliveries whose answer was never seen, 11 days old (supply)",
        "and 2 more",
        "1 campaign older than retention: kept until these are decided.",
        "c-4: 40164: add the address to the IP whitelist (supply)",
        "Campaigns: 1 done, 1 cancelled",
        "Deliveries: 1,200 sent by custom, 34 sent by template, 2 failed, 5 never tried",
        "k-1: done: 1,200 sent by custom, 34 sent by template, 2 failed (supply, 任务 <3>)",
        "c-2: cancelled: 5 never tried; by an operator (supply)",
        "c-3: 1 of 4; quiet hours until 08:00 (supply)",
        "2026-03-02 10:00: c-5 (supply)",
        "main: calls today: custom 1,234 of 500,000, template 1; 4 opted out",
        "b: no calls today",
        "Node: n1, of n1, n2",
        "Workers: 4, 1 restart since the start",
        "Spool: 2 submissions waiting",
        "Disk: 3.0 GiB free of 10 GiB (30 %)",
        "Store: 512 MiB, 100 MiB of them free for new campaigns",
    ):  # fmt: skip
        assert f"\n{line}\n" in text, line
    assert "`fanoutd campaign resolve --sent ID`" in text
    titles = re.findall(r"\n\n(.*)\n-+\n", text)
    assert titles == ["Broken now", "Waits for your decision", "Paused", "Ended", "Why deliveries failed", "Running",
                      "Comes next", "Accounts", "The daemon"]  # fmt: skip
    failed = text.split("Why deliveries failed\n")[1].splitlines()
    assert failed[1].startswith("3: ") and failed[1].endswith("(render)") and failed[2].endswith("(99999)")


def test_the_html_says_the_same_and_takes_no_markup_of_others() -> None:
    page = digest.html(BUSY)
    assert "任务 &lt;3&gt;" in page and "<3>" not in page
    shown = re.sub(r"<[^>]+>", "\n", page)
    for words in ("1 done, 1 cancelled", "Waits for your decision", "Broken now", "30 %"):
        assert words in shown


def test_each_planned_time_is_one_event() -> None:
    first, again = event(QUIET, NINE), event(replace(BUSY, node="n2"), NINE)
    assert first.id == again.id == "digest-2026-03-02-0900" and first.kind == "" and first.at == NINE
    assert event(QUIET, NINE + 9 * HOUR).id == "digest-2026-03-02-1800"


# ---- where the figures come from


@pytest.fixture(params=stores.KINDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    store = open_store(stores.url(request.param, tmp_path))
    migrate(store)
    with store.closing():
        yield store


def campaign(db: Database, id: str, state: str, ended: int | None, **counts: int) -> None:
    with db.transaction():
        campaigns.insert(db, campaigns.Campaign(
            id, "main", "supply", None, None, None, state, None, "why" if state == "paused" else None, NINE - 2 * DAY,
            NINE + HOUR if state == "scheduled" else None, None, ended, True, "n1", "query", {},
        ))  # fmt: skip
        shards.add(db, id, 0, [Planned("oPERSON")])
        sets = ", ".join(f"{name} = {count}" for name, count in counts.items())
        db.execute(f"UPDATE fanout_shard SET pending = 0, {sets or 'size = 1'}, errors = %s WHERE campaign = %s",
                   json.dumps({"45015": counts["failed"]} if "failed" in counts else {}), id)  # fmt: skip


def status(_db: Database) -> dict[str, Any]:
    broken = {"name": "clock", "account": None, "state": "broken", "since": "x", "words": "the clock is wrong"}
    return {
        "accounts": [{"name": "main", "quota": {"custom": {"limit": 9, "used": 3, "left": 6}}}],
        "nodes": [{"node": "n1"}], "conditions": [broken, {**broken, "state": "ok", "words": "all is well"}],
    }  # fmt: skip


def test_the_figures_are_those_of_the_store(db: Database, tmp_path: Path) -> None:
    config: Config = load(write_config(tmp_path), {})
    config.daemon.state_dir.mkdir()
    campaign(db, "c-before", "done", NINE - DAY - 1, sent_custom=1000)
    campaign(db, "c-done", "done", NINE - DAY, sent_custom=7, failed=2)
    campaign(db, "c-after", "done", NINE, sent_custom=1000)
    campaign(db, "c-doubt", "done", NINE - 3 * DAY, unknown=3, resend=1)
    campaign(db, "c-runs", "running", None, unknown=1)
    campaign(db, "c-stops", "paused", None)
    campaign(db, "c-later", "scheduled", None)
    with db.transaction():
        recurring.insert(db, {"campaign": "r-1", "cron": "0 9 * * 1", "message": None, "at": NINE}, "UTC")
        for openid, since in ("oA", NINE - HOUR), ("oB", NINE - 2 * DAY):
            db.execute("INSERT INTO fanout_subscriber (account, openid, state, since) VALUES ('main', %s, 1, %s)",
                       openid, since)  # fmt: skip
    told: list[Event] = []
    row = {"role": "worker", "restarts": 2}
    facts = {"workers": [row, row, {**row, "role": "dispatcher"}], "spool": {"files": 1}}
    digests = Digests(config, "n1", lambda: db, status, lambda: facts, lambda _db: 5, told.append)
    assert digests.send(NINE, NINE - DAY) == "handed to the mail"
    assert told[0].subject == (
        "digest: 1 campaign ended, 7 sent, 2 failed, 2 unknown, 1 paused, 1 condition broken"
    )
    for words in ("c-done: done: 7 sent by custom, 2 failed (supply)", "c-doubt: 2 deliveries", "3 days old",
                  "c-stops: why (supply)", "c-runs: 1 of 1", "c-later (supply)", "r-1 (the default message), as `0 9",
                  "main: calls today: custom 3 of 9; 1 opted out", "the clock is wrong", "Workers: 2, 4 restarts",
                  "5 campaigns older than retention", "Store: ", "(45015)"):  # fmt: skip
        assert words in told[0].text, words
    for words in "c-before", "c-after", "oA", "all is well":
        assert words not in told[0].text
    Digests(config, "n1", lambda: db, status, lambda: None, lambda _db: 0, told.append).send(NINE, NINE - 1)
    assert "From 2026-03-01 09:00" in told[1].text  # without a digest before it: a day


def test_followers_are_read_of_each_account_and_what_failed_is_named(tmp_path: Path) -> None:
    file = write_config(tmp_path)
    file.write_text(file.read_text() + '[account.other]\napp_id = "wx2"\napp_secret = "x"\n')
    threads = Threads(f"sqlite:///{tmp_path}/store.db")

    def sync(_db: Database, params: dict[str, Any]) -> dict[str, Any]:
        if params["account"] == "other":
            raise RpcError(-32005, "account other: no token")
        return {"count": 1234}

    with pytest.raises(RpcError, match=r"^main: 1,234 followers; account other: no token$"):
        ScheduledSync(load(file, {}), threads, sync).work(0, 0)
    assert ScheduledSync(load(write_config(tmp_path), {}), threads, sync).work(0, 0) == "1,234 followers"
    file.write_text(file.read_text().replace('source = "subscribers"', 'query = "SELECT 1 AS openid"'))
    assert "no audience has" in ScheduledSync(load(file, {}), threads, sync).work(0, 0)


# ---- in the daemon


def test_a_missed_digest_is_mailed_once_over_a_kill_of_the_dispatcher_and_followers_are_read(tmp_path: Path) -> None:
    with MailServer() as server:
        fired = tmp_path / "fired"
        d = Daemon(tmp_path, followers=3, workers=1, wait=False,
                   environ={"FANOUTD_FAIL": "mid_digest", "FANOUTD_FAIL_ONCE": str(fired)})  # fmt: skip
        try:
            _mailed_once(d, server, fired)
        finally:
            d.close()


def _mailed_once(d: Daemon, server: MailServer, fired: Path) -> None:
    """Down at the digest's time, and up after it; its dispatcher is killed when the mail is handed over."""
    wait_for(d.ready, "an answer to ping")
    campaign = d.call("campaign.submit", content="你好", phone="1", reference="任务三", key="k")["campaign"]
    d.until(campaign)
    d.process.send_signal(signal.SIGTERM)
    assert d.process.wait(20) == 0
    missed = datetime.now(UTC).replace(second=0, microsecond=0)
    line = f"{missed.minute} {missed.hour} * * *"
    d.config.write_text(
        d.config.read_text() + server.table() + '[audience.followers]\nsource = "subscribers"\n'
        f'[schedule]\ntimezone = "UTC"\ndigest = "{line}"\nsync = "{line}"\n'
    )
    d.sandbox.control("followers", {"openids": [follower(i) for i in range(3)]})
    _two_hours_ago(d)
    d.serve()
    wait_for(fired.exists, "the kill", 40)
    mails = server.wait_for(1, 40)
    job = wait_for(lambda: _job(d, "digest", "handed to the mail"), "the digest's end", 40)
    assert job["duration_ms"] is not None and job["last"] is not None
    followers = wait_for(lambda: _job(d, "sync", "3 followers"), "the followers read", 40)
    assert followers["next"].startswith(f"{missed + timedelta(days=1):%Y-%m-%dT%H:%M}")
    d.kill_all()  # and once more, with everything
    d.serve()
    wait_for(lambda: _job(d, "errands", "ok"), "a job done, well after the look for what was missed", 40)
    assert [mail.subject for mail in server.received] == [mails[0].subject]
    assert re.fullmatch(r"\[fanoutd \S+\] digest: 1 campaign ended, 3 sent", mails[0].subject)
    assert "任务三" in mails[0].text and "任务三" in mails[0].html and follower(0) not in mails[0].text
    assert _job(d, "digest", None) and _job(d, "sync", None)  # nothing of them was due


def _job(d: Daemon, name: str, result: str | None) -> dict[str, Any] | None:
    jobs = {job["name"]: job for job in d.call("daemon.status")["jobs"]}
    return jobs[name] if jobs.get(name, {}).get("result", "") == result else None


def _two_hours_ago(d: Daemon) -> None:
    """As if the campaign had ended an hour ago, and the store known of the crontabs for two."""
    store = open_store(f"sqlite:///{d.folder}/state/fanoutd.db")
    with store.closing(), store.transaction():
        assert store.execute("UPDATE fanout_campaign SET finished_at = finished_at - 3600000") == 1
        for name in "digest", "sync":
            keep(store, name, Mark(store.now_ms() - 7_200_000))
