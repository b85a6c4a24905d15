"""Jobs that a crontab plans: when they come, what is missed, what a reload changes, and that none is done twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fanoutd.chores import LATEST
from fanoutd.config import Config, load
from fanoutd.dispatcher import chores as dispatcher_chores
from fanoutd.dispatcher.chores import Chores
from fanoutd.dispatcher.queries import RpcError
from fanoutd.master.clock import Clock, Due, timetable
from fanoutd.master.timing import Crontab, Every
from fanoutd.store import Database, open_store
from fanoutd.store.chores import Mark, look
from fanoutd.store.schema import migrate
from support import stores
from support.master import write_config

MAIL = '[mail]\nsmtp = "smtp://127.0.0.1:2525"\nfrom = "fanoutd@example.com"\nto = ["ops@example.com"]\n'
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def ms(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


# ---- when


def fires(line: str, zone: str, first: str, count: int, grace: float = LATEST) -> list[str]:
    """What the trigger gives, each from the one before, as clocks there show it."""
    trigger, found = Crontab(line, zone, grace).trigger(), []
    previous, now = None, datetime.fromisoformat(first).replace(tzinfo=ZoneInfo(zone))
    for _ in range(count):
        previous = trigger.get_next_fire_time(previous, now)
        assert previous.tzinfo is UTC
        now = previous
        found.append(previous.astimezone(ZoneInfo(zone)).strftime("%a %d %H:%M"))
    return found


@pytest.mark.parametrize(("line", "zone", "first", "expected"), [
    ("0 9 * * *", "Asia/Shanghai", "2026-03-02T08:00", ["Mon 02 09:00", "Tue 03 09:00"]),
    ("0 9 * * 0", "Asia/Shanghai", "2026-03-02T08:00", ["Sun 08 09:00", "Sun 15 09:00"]),  # cron's Sunday
    ("0 9 * * 1-5", "Asia/Shanghai", "2026-03-06T10:00", ["Mon 09 09:00", "Tue 10 09:00"]),
    ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["Sun 29 03:30", "Mon 30 02:30"]),  # no 02:30 that day
    ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["Sun 25 02:30", "Mon 26 02:30"]),  # 02:30 comes twice
])  # fmt: skip
def test_a_crontab_comes_when_clocks_there_show_it(line: str, zone: str, first: str, expected: list[str]) -> None:
    assert fires(line, zone, first, 2) == expected


def test_a_month_of_missed_runs_is_not_counted_up() -> None:
    trigger = Crontab("* * * * *", "UTC", 3600.0).trigger()
    now = datetime(2026, 3, 2, 12, 0, 30, tzinfo=UTC)
    assert trigger.get_next_fire_time(now - timedelta(days=30), now) == datetime(2026, 3, 2, 11, 1, tzinfo=UTC)


# ---- the clock


def drained(clock: Clock) -> list[str]:
    clock.poll(time.monotonic())
    return sorted(due.name for due in clock.take())


def at(clock: Clock, name: str, when: datetime) -> None:
    clock._scheduler.get_job(name).modify(next_run_time=when)


def view(clock: Clock, name: str) -> Any:
    return next(job for job in clock.jobs() if job.name == name)


DAILY = {"digest": Crontab("0 9 * * *", "UTC", 3600.0), "sweep": Every(3600.0)}


def test_a_run_is_made_late_but_not_too_late_and_others_however_late() -> None:
    clock, now = Clock(DAILY, time.monotonic()), datetime.now(UTC)
    planned = view(clock, "digest").next
    at(clock, "digest", now - timedelta(minutes=50))
    at(clock, "sweep", now - timedelta(days=2))
    assert drained(clock) == ["digest", "sweep"]
    assert view(clock, "digest").next == planned
    clock.finished(next(n for n, due in clock._names.handed.items() if due.name == "digest"), None, "1 mail")
    at(clock, "digest", now - timedelta(hours=3))
    assert drained(clock) == []
    assert view(clock, "digest").result == "missed: nobody could do it for 3 hours"
    at(clock, "digest", datetime.now(UTC))
    assert drained(clock) == ["digest"]  # it has its slot again


def test_how_long_the_last_run_took_is_kept_over_an_upgrade() -> None:
    clock = Clock(DAILY, time.monotonic())
    assert (view(clock, "sweep").last, view(clock, "sweep").duration_ms) == (None, None)
    clock.soon("sweep")
    clock.poll(time.monotonic())
    (due,) = clock.take()
    clock._names.handed[due.number] = Due(due.number, due.name, due.run_time, time.monotonic() - 1.5)
    clock.finished(due.number, None, "3 deleted")
    job = view(clock, "sweep")
    assert job.result == "3 deleted" and 1500 <= job.duration_ms < 3000
    heir = Clock(DAILY, time.monotonic())
    heir.inherit(clock.bequeath())
    assert view(heir, "sweep").duration_ms == job.duration_ms and view(heir, "sweep").result == "3 deleted"
    heir.inherit({"sweep": ["2026-01-02T03:04:05+00:00", "ok"]})  # of a program that kept no time
    assert (view(heir, "sweep").result, view(heir, "sweep").duration_ms) == ("ok", None)


def test_what_a_reload_does_not_change_keeps_its_next_run() -> None:
    clock = Clock(DAILY, time.monotonic())
    before = {job.name: job.next for job in clock.jobs()}
    clock.change({**DAILY, "digest": Crontab("0 9 * * *", "UTC", 3600.0)})
    assert {job.name: job.next for job in clock.jobs()} == before
    clock.change({**DAILY, "digest": Crontab("0 9 * * *", "Asia/Shanghai", 3600.0)})
    after = {job.name: job.next for job in clock.jobs()}
    assert after["sweep"] == before["sweep"] and after["digest"][11:16] == "01:00"
    clock.change({"sweep": Every(60.0)})
    assert [job.name for job in clock.jobs()] == ["sweep"] and clock.jobs()[0].next < before["sweep"]
    clock.soon("digest")  # there is none
    assert drained(clock) == []


@pytest.mark.parametrize("step", [-2 * 86400, 2 * 86400])
def test_a_clock_that_is_set_leaves_crontabs_to_the_wall(step: float) -> None:
    clock = Clock(DAILY, time.monotonic())
    planned = view(clock, "digest").next
    at(clock, "digest", datetime.now(UTC) - timedelta(seconds=step))
    clock._offset -= step
    assert drained(clock) == [] and view(clock, "digest").next == planned


def test_the_jobs_of_a_configuration(tmp_path: Path) -> None:
    file = write_config(tmp_path)
    assert {"token_check", "retention"} <= set(timetable(load(file, {}))) and "digest" not in timetable(load(file, {}))
    file.write_text(file.read_text() + 'sync = "30 4 * * *"\n' + MAIL)
    jobs = timetable(load(file, {}))
    assert jobs["sync"] == Crontab("30 4 * * *", "Asia/Shanghai", LATEST)  # the first account's
    assert jobs["digest"] == Crontab("0 9 * * *", "Asia/Shanghai", LATEST)
    file.write_text(file.read_text().replace("sync =", 'timezone = "Europe/Berlin"\nsync ='))
    assert timetable(load(file, {}))["digest"] == Crontab("0 9 * * *", "Europe/Berlin", LATEST)


# ---- what the store remembers

NINE = ms("2026-03-02T09:00")


@pytest.mark.parametrize(("mark", "now", "due"), [
    (Mark(NINE - DAY), NINE - 1, None),
    (Mark(NINE - DAY), NINE, NINE),
    (Mark(NINE - DAY), NINE + 5 * HOUR, NINE),  # missed, and made up for
    (Mark(NINE - DAY), NINE + 7 * HOUR, None),  # too late
    (Mark(NINE - 5 * DAY), NINE + HOUR, NINE),  # of several the last
    (Mark(NINE + MINUTE), NINE + HOUR, None),  # the store has never heard of it: nothing was missed
    (Mark(NINE - DAY, (NINE,)), NINE + HOUR, None),
    (Mark(NINE - DAY, (NINE,)), NINE - HOUR, None),  # a clock that is set back
    (Mark(NINE - DAY, (NINE,)), NINE, None),
    (Mark(NINE - DAY, (NINE, NINE + 3 * DAY)), NINE + HOUR, None),  # one that was three days ahead for a while
    (Mark(NINE - DAY, (NINE + 3 * DAY,)), NINE + HOUR, NINE),
    (Mark(NINE - DAY, (NINE,), NINE + DAY, "n1"), NINE + DAY, NINE + DAY),  # begun, not ended
])  # fmt: skip
def test_what_is_due(mark: Mark, now: int, due: int | None) -> None:
    assert mark.due("0 9 * * *", "UTC", now, int(LATEST * 1000)) == due


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    store = open_store(stores.url("sqlite", tmp_path))
    migrate(store)
    with store.closing():
        yield store


class Nodes:
    """Nodes of one store; ``done`` is what they did, ``said`` what they told their masters."""

    def __init__(self, db: Database, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        self.db, self.config, self.now = db, config, NINE - HOUR
        monkeypatch.setattr(dispatcher_chores, "wall_ms", lambda: self.now)
        self.done: list[tuple[str, str, int, int]] = []
        self.said: list[dict[str, Any]] = []
        self.trouble: Callable[[], None] = lambda: None

    def node(self, name: str) -> Chores:
        def work(chore: str) -> Callable[[int, int], str]:
            def do(planned: int, before: int) -> str:
                self.done.append((name, chore, planned, before))
                self.trouble()
                return "done"

            return do

        return Chores(self.config, name, lambda: self.db, self.said.append,
                      {"digest": work("digest"), "sync": work("sync")})  # fmt: skip


@pytest.fixture
def nodes(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    file = write_config(tmp_path)
    file.write_text(file.read_text() + 'timezone = "UTC"\nsync = "0 9 * * *"\n' + MAIL)
    return Nodes(db, load(file, {}), monkeypatch)


class Died(BaseException):
    """As by SIGKILL."""


def test_what_is_due_is_done_once_whoever_leads(nodes: Nodes) -> None:
    one, two = nodes.node("n1"), nodes.node("n2")
    one.look()
    assert nodes.said == [] and one.do("digest") == "nothing is due"
    nodes.now = NINE + HOUR
    two.look()
    assert nodes.said == [{"t": "due", "name": "digest"}, {"t": "due", "name": "sync"}]
    assert one.do("digest") == "done" and two.do("digest") == one.do("digest") == "nothing is due"
    nodes.now = NINE + DAY
    assert two.do("digest") == "done"
    assert nodes.done == [("n1", "digest", NINE, NINE - HOUR), ("n2", "digest", NINE + DAY, NINE)]


def test_a_node_that_died_in_it_takes_it_up_again_and_no_other_does(nodes: Nodes) -> None:
    nodes.node("n1").look()
    nodes.now = NINE

    def die() -> None:
        raise Died

    nodes.trouble = die
    for name in "digest", "sync":
        with pytest.raises(Died):
            nodes.node("n1").do(name)
    nodes.trouble = lambda: None
    again, other = nodes.node("n1"), nodes.node("n2")
    nodes.done.clear()
    assert again.do("digest") == "done" and nodes.done == [("n1", "digest", NINE, NINE - HOUR)]
    assert other.do("sync") == "done"  # which harms nobody
    nodes.now, nodes.trouble = NINE + DAY, die
    with pytest.raises(Died):
        again.do("digest")
    nodes.trouble = lambda: None
    assert other.do("digest") == "node n1 began it, and may have ended it"  # its mail may be on its way
    assert other.do("digest") == again.do("digest") == "nothing is due"
    assert look(nodes.db, "digest", 0).done == (NINE, NINE + DAY)


def test_one_that_failed_is_tried_again_after_a_while(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    one, clock = nodes.node("n1"), [1000.0]
    monkeypatch.setattr(dispatcher_chores.time, "monotonic", lambda: clock[0])
    one.look()
    nodes.now = NINE

    def fail() -> None:
        raise RpcError(-32005, "WeChat does not answer")

    nodes.trouble = fail
    for name in "digest", "sync":
        with pytest.raises(RpcError):
            one.do(name)
    one.look()
    assert nodes.said == []
    clock[0] += 61
    one.look()
    assert nodes.said == [{"t": "due", "name": "digest"}]
    clock[0] += 600
    one.look()
    assert [each["name"] for each in nodes.said] == ["digest", "digest", "sync"]


def test_without_mail_there_is_no_digest(tmp_path: Path, db: Database) -> None:
    chores = Chores(load(write_config(tmp_path), {}), "n1", lambda: db, lambda _message: None,
                    {"digest": lambda _p, _b: "x", "sync": lambda _p, _b: "x"})  # fmt: skip
    assert chores.do("digest") == chores.do("sync") == "off"
