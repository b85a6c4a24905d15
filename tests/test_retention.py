"""What is older than it shall be kept goes, whatever dies meanwhile; nothing that is undecided does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fanoutd.config import Config, load
from fanoutd.dispatcher import commands, importer
from fanoutd.dispatcher.epoch import Epoch
from fanoutd.dispatcher.queries import RpcError
from fanoutd.dispatcher.recovery import recover
from fanoutd.dispatcher.retention import Retention
from fanoutd.ids import keyed_campaign_id
from fanoutd.journal import Journal, tag
from fanoutd.outcome import State
from fanoutd.spool import Spool
from fanoutd.store import Database, campaigns, counters, free_shards, open_store, retention, shard_leases
from fanoutd.store.campaigns import Campaign
from fanoutd.store.schema import migrate
from support import stores
from support.bench import wait_for
from support.master import write_config
from support.old_campaigns import DAY_MS, KEPT, add


def known(db: Database) -> list[str]:
    return sorted(row[0] for row in db.rows("SELECT id FROM fanout_campaign"))


def people(db: Database, *of: int) -> int:
    where = f" WHERE shard IN ({', '.join(map(str, of))})" if of else ""
    return int(db.rows(f"SELECT COUNT(*) FROM fanout_delivery{where}")[0][0])


@pytest.fixture(params=stores.KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return stores.url(request.param, tmp_path)


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    store = open_store(url)
    migrate(store)
    with store.closing():
        yield store


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load(write_config(tmp_path), {})


def test_what_is_old_goes_and_what_is_undecided_stays(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    old = add(db, "c-old", 1500)
    add(db, "c-none", 0, state="failed")
    for id, state, more in (
        ("c-running", "running", {}), ("c-paused", "paused", {}), ("c-repair", "cancelled", {"cause": "past"}),
        ("c-heard", "cancelled", {"heard": "{}"}),
    ):  # fmt: skip
        add(db, id, 10, state=state, **more)
    add(db, "c-new", 10, days_ago=89)
    for id, column in ("c-unknown", "unknown = 1"), ("c-held", "owner = 'n1/w-1-1'"):
        add(db, id, 10, state="cancelled")
        with db.transaction():
            db.execute(f"UPDATE fanout_shard SET {column} WHERE campaign = %s", id)
    job = Retention(KEPT, lambda: db)
    assert job.work() == "2 campaigns and 1,500 deliveries deleted, 1 kept for their unknown deliveries"
    assert known(db) == ["c-heard", "c-held", "c-new", "c-paused", "c-repair", "c-running", "c-unknown"]
    assert people(db, *old) == 0 and people(db) == 70
    assert db.rows("SELECT COUNT(*) FROM fanout_history") == [(7,)]
    assert db.rows("SELECT id FROM fanout_shard WHERE campaign = 'c-old'") == []
    assert job.kept(db) == 1
    assert job.work() == "1 kept for their unknown deliveries"
    assert sum("1 campaigns are older" in line for line in caplog.messages) == 1  # once a day
    unknown = campaigns.get(db, "c-unknown")
    assert unknown and commands.settle(db, unknown, "failed", None) == "cancelled"
    with db.transaction():
        db.execute("UPDATE fanout_shard SET unknown = 0 WHERE campaign = 'c-unknown'")
    assert job.work() == "1 campaigns and 10 deliveries deleted"


def test_the_number_of_a_shard_is_never_given_again(db: Database) -> None:
    before = add(db, "c-1", 100, size=50) + add(db, "c-2", 100, size=50)
    Retention(KEPT, lambda: db).work()
    assert known(db) == [] and people(db) == 0
    after = add(db, "c-3", 100, size=50, days_ago=1)
    assert min(after) > max(before)
    Retention(KEPT, lambda: db).work()
    assert [row[0] for row in db.rows("SELECT id FROM fanout_shard ORDER BY id")] == after  # nobody's row has gone
    assert free_shards.totals(db) == (0, 0) and shard_leases.owners(db) == []


def test_one_that_is_sent_again_meanwhile_stays(db: Database) -> None:
    add(db, "c-1", 10)
    found = retention.old(db, db.now_ms(), 10)
    with db.transaction():
        campaigns.move(db, "c-1", "done", "running", finished_at=None)
    with db.transaction():
        assert found == ["c-1"] and not retention.take_away(db, "c-1", db.now_ms())


@pytest.mark.parametrize("change", ["unknown = 1", "owner = 'n/w1'"])
def test_one_in_which_somebody_becomes_unknown_or_is_taken_in_hand_meanwhile_stays(db: Database, change: str) -> None:
    add(db, "c-1", 10)
    found = retention.old(db, db.now_ms(), 10)
    with db.transaction():
        db.execute(f"UPDATE fanout_shard SET {change} WHERE campaign = 'c-1'")
    with db.transaction():
        assert found == ["c-1"] and not retention.take_away(db, "c-1", db.now_ms())


KILLED = """
import sys
from fanoutd.dispatcher.retention import Retention
from fanoutd.store import open_store
db = open_store(sys.argv[1])
Retention(float(sys.argv[2]), lambda: db).work()
"""


def test_killed_in_the_middle_it_goes_on(url: str, db: Database) -> None:
    gone = add(db, "c-1", 3000, days_ago=120) + add(db, "c-2", 600, days_ago=110)
    stays = add(db, "c-3", 600, days_ago=1)
    for nth, left in (1, 2500), (3, 1800):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, url, str(KEPT)], env={**os.environ, "FANOUTD_FAIL": f"mid_retention@{nth}"}
        )  # fmt: skip
        assert killed.returncode == -9
        assert campaigns.get(db, "c-1") is None and campaigns.get(db, "c-2") is not None
        assert people(db, *gone) - 600 == left
    with db.transaction():
        db.execute("UPDATE fanout_delivery SET state = %s, errcode = 1 WHERE shard = %s", State.FAILED, gone[4])
        db.execute("UPDATE fanout_shard SET failed = size, sent_custom = 0 WHERE id = %s", gone[4])
    with pytest.raises(RpcError):  # what is half gone is gone, also for an order that was given before
        commands.retry(db, Campaign(
            "c-1", "main", "supply", None, None, None, "done", None, None, 0, None, 0, 0, True, "n1", "query", {}
        ), True, True)  # fmt: skip
    assert "1 campaigns and" in (Retention(KEPT, lambda: db).work() or "")
    assert people(db) == people(db, *stays) == 600 and known(db) == ["c-3"]
    assert retention.unfinished(db) == []


def document(id: str, at: int, key: str | None = "k") -> dict[str, Any]:
    return {
        "v": 1, "campaign": id, "at": at, "key": key, "message": "fixed", "account": "main", "audience": None,
        "openids": ["oPERSON0000001"], "upload": None, "content": None, "phone": None, "data": {}, "page": None,
        "page_size": 500, "send_at": None, "reference": None, "test": False, "cron": None, "uid": 0, "pid": 1,
    }  # fmt: skip


def test_a_node_that_was_away_does_not_send_again_and_a_key_is_free_only_then(
    db: Database, config: Config, tmp_path: Path
) -> None:
    spool, now = Spool(tmp_path / "spool"), db.now_ms()
    spool.prepare()
    id = keyed_campaign_id("main", "k")
    old = add(db, id, 50)
    # While the campaign stands its key is known, however old; so is that of one which comes again.
    for each in id, "r-1":
        spool.accept(document(each, now), keyed=True)
        spool.remove(each)
    with db.transaction():
        db.execute("INSERT INTO fanout_recurring (id, cron, timezone, submission, created_at) "
                   "VALUES ('r-1', '* * * * *', 'UTC', '{}', 1)")  # fmt: skip
    later = time.time() + KEPT + 1
    assert spool.expire_keys(KEPT, lambda ids: retention.standing(db, ids), later) == 0 and spool.knows(id)
    Retention(KEPT, lambda: db).work()
    assert spool.knows(id)  # by its own time: nobody sends again within it
    assert spool.expire_keys(KEPT, lambda ids: retention.standing(db, ids), later) == 1 and not spool.knows(id)
    assert spool.knows("r-1")
    # Accepted before the campaign was deleted, by a node that was away since.
    spool.accept(document(id, now - 95 * DAY_MS), keyed=True)
    assert importer.bring_in(db, spool, config, "n2", id) is None
    assert known(db) == [] and spool.pending() == []
    # Accepted after it: the key may be used anew, and the old journals say nothing about it.
    spool.accept(document(id, db.now_ms() + 1), keyed=True)
    with db.transaction():
        db.execute("UPDATE fanout_gone SET left_over = 1")
    assert importer.bring_in(db, spool, config, "n2", id) is None and spool.pending() == [id]
    with db.transaction():
        db.execute("UPDATE fanout_gone SET left_over = 0")
    found = importer.bring_in(db, spool, config, "n2", id)
    assert found is not None and found.state == "planning"
    gone = retention.remembered(db, id)
    assert gone and gone.shard == max(old)


def test_a_journal_that_speaks_of_a_deleted_campaign_does_no_harm(db: Database, tmp_path: Path) -> None:
    journals = tmp_path / "journals"
    journals.mkdir()
    (shard,) = add(db, "c-1", 10)
    with db.transaction():
        db.execute("UPDATE fanout_shard SET token = 1")
    epoch = Epoch(tmp_path, "n1", "store")
    epoch.advance(db)
    writer = Journal(journals, "w-1-1")
    writer.lease(shard, 1, "c-1")
    writer.granted(shard, 1, "c-1")
    for place in range(10):
        writer.sending((shard, place, 1), 1, tag(f"oPERSON{place:07d}"))
    os.close(writer._fd)
    assert not epoch.journals_know_more(db, journals)
    Retention(KEPT, lambda: db).work()
    (newer,) = add(db, "c-2", 10, days_ago=1)
    assert not epoch.journals_know_more(db, journals)  # it is no earlier store
    recover(db, journals, "n1", lambda _account: True)
    assert people(db, newer) == 10 and newer > shard
    assert counters.counts(db, "c-2").sent_custom == 10
    # But what the store should know and does not is still noticed.
    with db.transaction():
        db.execute("DELETE FROM fanout_gone")
    assert epoch.journals_know_more(db, journals)


@pytest.mark.alone
def test_nobody_at_work_waits_for_it(url: str, db: Database) -> None:
    """A worker's transactions, one after the other, while 30,000 people are deleted."""
    add(db, "c-old", 30_000, size=2000)
    add(db, "c-new", 2000, days_ago=1, size=2000)
    thread = threading.Thread(target=_work, args=(url,))
    waits = []
    thread.start()
    while thread.is_alive():
        begun = time.monotonic()
        with db.transaction():
            db.execute("UPDATE fanout_delivery SET attempts = attempts + 1 WHERE openid = 'oPERSON0000001' "
                       "AND shard = (SELECT MAX(id) FROM fanout_shard)")  # fmt: skip
        waits.append(time.monotonic() - begun)
        time.sleep(0.002)
    thread.join()
    wait_for(lambda: people(db) == 2000, "all deleted")
    assert len(waits) > 50 and sorted(waits)[len(waits) * 9 // 10] < 0.1 and max(waits) < 1.0


def _work(url: str) -> None:
    store = open_store(url)
    with store.closing():
        Retention(KEPT, lambda: store).work()
