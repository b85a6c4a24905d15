"""Crontab lines mean what cron(8) means by them, and each planned time is one campaign, over any crash."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanoutd import cron
from fanoutd.client import NoSuchCampaign
from fanoutd.config import load
from fanoutd.dispatcher import importer, recurring
from fanoutd.spool import Spool
from fanoutd.store import Database, campaigns, open_store
from fanoutd.store import recurring as kept
from fanoutd.store.schema import migrate
from support.bench import wait_for
from support.daemon import Daemon, follower
from support.master import write_config

ZONE = "Asia/Shanghai"
#: A Monday.
MONDAY = datetime(2026, 3, 2, 12, 0, tzinfo=ZoneInfo(ZONE))
MINUTE, HOUR = 60_000, 3_600_000


def ms(when: datetime) -> int:
    return int(when.timestamp() * 1000)


def local(at: int | None, zone: str = ZONE) -> str:
    assert at is not None
    return datetime.fromtimestamp(at / 1000, ZoneInfo(zone)).strftime("%a %d %H:%M")


# ---- lines


@pytest.mark.parametrize(("line", "first"), [
    ("* * * * *", "Mon 02 12:01"), ("0 9 * * *", "Tue 03 09:00"), ("*/15 12 * * *", "Mon 02 12:15"),
    ("0 9 * * 1", "Mon 09 09:00"), ("0 9 * * 0", "Sun 08 09:00"), ("0 9 * * 7", "Sun 08 09:00"),
    ("0 9 * * 1-5", "Tue 03 09:00"), ("0 9 * * 6,0", "Sat 07 09:00"), ("0 9 * * sat", "Sat 07 09:00"),
    ("0 9 * * SUN-TUE", "Tue 03 09:00"), ("0 9 * * */3", "Wed 04 09:00"), ("0 9 * * 4/2", "Thu 05 09:00"),
    ("0 9 15 * *", "Sun 15 09:00"), ("0 9 15 * 5", "Fri 06 09:00"), ("0 9 5 * 5", "Thu 05 09:00"),
    ("0 9 */10 * 3", "Wed 11 09:00"), ("0 0 29 2 *", "Tue 29 00:00"),
])  # fmt: skip
def test_a_line_means_what_cron_means(line: str, first: str) -> None:
    assert local(cron.next_after(line, ZONE, ms(MONDAY))) == first


@pytest.mark.parametrize("line", [
    "", "0 9 * *", "0 9 * * * *", "60 * * * *", "0 24 * * *", "0 9 0 * *", "0 9 * 13 *", "0 9 * * 8", "0 9 * * mo",
    "0 9 * * 5-1", "0 9 * * xyz", "0 9 * * ,", "@daily", "a b c d e", "0 9 * * 1/0",
])  # fmt: skip
def test_what_is_none_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        cron.trigger(line, ZONE, 2026)


@given(st.lists(st.text("0123456789*/,-lastmonfri", max_size=8), min_size=5, max_size=5).map(" ".join) | st.text())
def test_whatever_a_client_writes_is_a_line_or_none(line: str) -> None:
    with contextlib.suppress(ValueError):
        assert (cron.next_after(line, ZONE, ms(MONDAY)) or 1 << 60) > ms(MONDAY)


@pytest.mark.parametrize("line", ["0 0 31 2 *", "0 0 31 4,6,9,11 *", "0 0 30,31 2 *"])
def test_a_day_that_never_comes_has_no_next_and_is_not_looked_for_long(line: str) -> None:
    started = time.process_time()
    assert cron.next_after(line, ZONE, ms(MONDAY)) is None
    assert time.process_time() - started < 0.1, "the master waits for it"


@given(st.integers(0, 10_000_000), st.sampled_from(["*/7 * * * *", "0 9 * * 1-5", "30 2 * * *", "5 1 1 * 0"]),
       st.sampled_from(["Asia/Shanghai", "Europe/Berlin", "America/New_York"]))
def test_times_follow_each_other_and_the_latest_is_the_last_of_them(after_s: int, line: str, zone: str) -> None:
    start = ms(MONDAY) + after_s * 1000
    times, at = [], start
    for _ in range(5):
        found = cron.next_after(line, zone, at)
        assert found is not None and found > at
        times.append(at := found)
    assert cron.latest(line, zone, start, times[-1]) == times[-1]
    assert cron.latest(line, zone, start, times[-1] - 1) == times[-2]
    assert cron.latest(line, zone, start, times[0] - 1) is None


def test_where_clocks_are_put_forward_and_back_a_daily_one_comes_every_day() -> None:
    for month, day in ((3, 28), (10, 24)):
        start = datetime(2026, month, day, 12, 0, tzinfo=ZoneInfo("Europe/Berlin"))
        first = cron.next_after("30 2 * * *", "Europe/Berlin", ms(start))
        assert first is not None
        second = cron.next_after("30 2 * * *", "Europe/Berlin", first)
        assert second is not None
        assert timedelta(hours=22) < timedelta(milliseconds=second - first) < timedelta(hours=48)


# ---- what is submitted


class Desk:
    def __init__(self, folder: Path) -> None:
        self.config = load(write_config(folder), {})
        self.config.daemon.state_dir.mkdir()
        self.spool = Spool(folder / "spool")
        self.spool.prepare()
        self.db: Database = open_store(self.config.store_url)
        migrate(self.db)

    def begin(self, line: str = "0 * * * *", openids: list[str] | None = None, name: str = "r-1") -> None:
        """Submitted on Monday at noon."""
        document = {
            "v": 1, "campaign": name, "at": ms(MONDAY), "account": "main", "message": "fixed", "phone": None,
            "data": {}, "audience": None if openids else "default", "content": None, "openids": openids,
            "upload": None, "test": False, "page": None, "page_size": 500, "send_at": None, "cron": line, "key": None,
            "reference": "weekly", "uid": 0, "pid": 0,
        }  # fmt: skip
        self.spool.accept(document, keyed=False)
        self.import_all()

    def import_all(self) -> None:
        for each in self.spool.pending():
            importer.bring_in(self.db, self.spool, self.config, "n1", each)

    def at(self, minutes: float) -> list[str]:
        """What is submitted so many minutes after noon."""
        found = recurring.submit_due(self.db, self.spool, self.config, "n1", ms(MONDAY) + int(minutes * MINUTE))
        self.import_all()
        return found

    def campaign_keys(self) -> list[Any]:
        return [row[0] for row in self.db.rows("SELECT idempotency_key FROM fanout_campaign ORDER BY created_at, id")]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def key(hour: int) -> str:
    return f"r-1:2026-03-02T{hour - 8:02d}:00:00.000+00:00"


def test_each_time_is_one_campaign_that_bears_what_was_submitted(desk: Desk) -> None:
    desk.begin()
    assert desk.spool.pending() == [] and desk.at(59.9) == []
    (campaign,) = desk.at(60)
    assert desk.at(60.1) == [] and desk.at(119) == []
    found = campaigns.get(desk.db, campaign)
    assert found is not None
    assert (found.key, found.reference, found.message, found.state) == (key(13), "weekly", "fixed", "planning")
    assert len(desk.at(120)) == 1
    assert desk.campaign_keys() == [key(13), key(14)]


def test_two_nodes_that_both_think_that_they_lead_make_one_campaign_of_a_time(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.begin()
    theirs = Spool(tmp_path / "spool of n2")
    theirs.prepare()
    found = kept.listed(desk.db)  # the other one has looked before we did anything
    (ours,) = desk.at(60)
    monkeypatch.setattr(kept, "listed", lambda _db: found)
    (other,) = recurring.submit_due(desk.db, theirs, desk.config, "n2", ms(MONDAY) + 60 * MINUTE)
    assert ours == other and desk.campaign_keys() == [key(13)] and theirs.pending() == []
    assert [row.node for row in campaigns.in_states(desk.db, "planning")] == ["n1"]


def test_of_those_that_were_missed_the_latest_of_the_last_hour_comes(desk: Desk) -> None:
    desk.begin("*/10 * * * *")
    desk.begin("0 9 * * *", name="r-2")
    assert len(desk.at(21 * 60 + 35)) == 2
    assert sorted(desk.campaign_keys()) == ["r-1:2026-03-03T01:30:00.000+00:00", "r-2:2026-03-03T01:00:00.000+00:00"]


def test_one_that_was_missed_by_more_than_an_hour_is_left_out(desk: Desk) -> None:
    desk.begin("0 13 * * *")
    assert desk.at(121) == []
    assert desk.campaign_keys() == []


def test_a_crash_after_the_submission_makes_no_second_one(desk: Desk) -> None:
    desk.begin(openids=["o12345"])
    (campaign,) = desk.at(60)
    with desk.db.transaction():
        desk.db.execute("UPDATE fanout_recurring SET last_at = NULL, last_campaign = NULL")
    assert desk.at(61) == [campaign]
    assert desk.campaign_keys() == [key(13)]
    desk.spool.remove(campaign)  # its plan is complete
    with desk.db.transaction():
        desk.db.execute("UPDATE fanout_recurring SET last_at = NULL, last_campaign = NULL")
    desk.at(62)
    assert desk.spool.pending() == [] and desk.campaign_keys() == [key(13)]


def test_a_crash_before_the_file_was_removed_keeps_it_once(desk: Desk) -> None:
    desk.begin()
    desk.begin()
    assert [each.id for each in kept.listed(desk.db)] == ["r-1"]


def test_a_list_of_its_own_goes_with_every_one(desk: Desk) -> None:
    desk.begin(openids=["o12345", "o12346"])
    for minutes in (60, 120):
        (campaign,) = desk.at(minutes)
        document = desk.spool.read(campaign)
        assert document is not None and list(desk.spool.people(document)) == ["o12345", "o12346"]
        assert document["cron"] is None


def test_one_that_was_removed_is_gone_and_its_key_free(desk: Desk) -> None:
    desk.begin()
    assert recurring.remove(desk.db, desk.spool, desk.config, "n1", "r-1") == {"recurring": "r-1"}
    assert desk.at(60) == []
    with pytest.raises(recurring.RpcError) as error:
        recurring.remove(desk.db, desk.spool, desk.config, "n1", "r-1")
    assert error.value.code == -32002


# ---- in the daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    d = Daemon(tmp_path, followers=12)
    yield d
    d.close()


def age(d: Daemon) -> None:
    """As if everything had been submitted two minutes ago."""
    store = open_store(f"sqlite:///{d.folder}/state/fanoutd.db")
    with store.transaction():
        assert store.execute("UPDATE fanout_recurring SET created_at = created_at - 120000") > 0
    store.close()


def test_the_daemon_sends_it_when_its_time_has_come_also_after_all_were_killed(daemon: Daemon) -> None:
    d = daemon
    done = d.cli("send", "每周", "--phone", "1", "--cron", "* * * * *", "--key", "weekly", "--json")
    answer = json.loads(done.stdout)
    assert answer["campaign"].startswith("r-") and answer["duplicate"] is False
    assert d.call("campaign.submit", content="x", phone="1", cron="* * * * *", key="weekly")["duplicate"] is True
    (entry,) = d.call("recurring.list")["recurring"]
    assert (entry["id"], entry["cron"], entry["timezone"], entry["content"]) == (
        answer["campaign"], "* * * * *", "Asia/Shanghai", "每周",
    )
    next_at = datetime.fromisoformat(entry["next_at"])
    assert timedelta(0) < next_at - datetime.now(UTC) <= timedelta(minutes=1) and entry["last_at"] is None
    d.kill_all()
    age(d)
    d.serve()
    found = wait_for(d.campaigns, "the first one", 30)
    d.until(found[0]["id"])
    assert d.accepted()[follower(1)] == len(d.campaigns())
    listed = json.loads(d.cli("campaign", "recurring", "list", "--json").stdout)
    assert listed["last_campaign"] in [each["id"] for each in d.campaigns()]
    assert answer["campaign"] in d.cli("campaign", "recurring", "list").stdout
    assert d.cli("campaign", "recurring", "remove", answer["campaign"]).stdout.strip() == answer["campaign"]
    assert d.call("recurring.list") == {"recurring": []}
    assert d.call("campaign.submit", content="x", phone="1", cron="0 0 1 1 *", key="weekly")["duplicate"] is False


def test_one_that_is_not_there_is_named(daemon: Daemon) -> None:
    with pytest.raises(NoSuchCampaign, match="recurring"):
        daemon.call("recurring.remove", recurring="r-nope")
    done = daemon.cli("campaign", "recurring", "remove", "r-nope")
    assert done.returncode == 65 and "r-nope" in done.stderr
    for arguments, code in (("--cron", "* * *"), 65), (("--cron", "* * * * *", "--wait"), 2):
        assert daemon.cli("send", "x", "--phone", "1", *arguments).returncode == code
