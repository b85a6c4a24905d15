"""A dry run counts, reckons and keeps nothing; a campaign that does not fit into today's quota says so."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fanoutd.client import BadRequest
from fanoutd.dispatcher.forecast import forecast
from fanoutd.quiet import seconds_lost
from support.bench import person, wait_for
from support.daemon import Daemon, follower

NOON = int(datetime(2026, 3, 2, 12, 0, tzinfo=UTC).timestamp() * 1000)
HOUR = 3_600_000
TWO = ["custom", "template"]


def never(_seconds: float) -> float:
    return 0.0


def reckon(people: int, rooms: tuple[int | None, int | None] = (None, None), **more: Any) -> dict[str, Any]:
    wanted = {"rate": 50.0, "lost": never, **more}
    return forecast(people, TWO, left=dict(zip(TWO, rooms, strict=True)), **wanted)


def test_calls_and_time_are_those_of_one_channel_up_to_those_of_all() -> None:
    assert reckon(1500) == {
        "calls": 1500, "calls_most": 3000, "seconds": 30.0, "seconds_most": 60.0, "rate": 50.0,
        "quota_left": {"custom": None, "template": None}, "fits_today": True, "quiet_hours_crossed": False,
    }


@pytest.mark.parametrize(("rooms", "fits"), [
    ((None, None), True), ((100, 100), True), ((99, None), False), ((99, 0), False), ((100, 99), None),
    ((None, 0), None),
])  # fmt: skip
def test_it_fits_surely_surely_not_or_perhaps(rooms: tuple[int | None, int | None], fits: bool | None) -> None:
    assert reckon(100, rooms)["fits_today"] is fits


def test_nobody_fits_always() -> None:
    assert reckon(0, (0, 0))["fits_today"] is True


@pytest.mark.parametrize(("hours", "crossed"), [(9.9, False), (10.1, True), (40, True)])
def test_quiet_hours_are_crossed_when_the_last_call_may_fall_into_them(hours: float, crossed: bool) -> None:
    most = int(hours * 3600 * 50)  # calls
    lost = partial(seconds_lost, ("22:00", "08:00"), "UTC", NOON)
    assert reckon(most // 2, lost=lost)["quiet_hours_crossed"] is crossed
    lost = partial(seconds_lost, ("22:00", "08:00"), "UTC", NOON + 11 * HOUR)
    assert reckon(0, lost=lost)["quiet_hours_crossed"] is True


# ---- asked of the daemon


class Quiet(Daemon):
    ACCOUNT = 'quiet_hours = "00:00-23:59"'


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    d = Quiet(tmp_path_factory.mktemp("daemon"), followers=120, rate=10)
    yield d
    d.close()


def plan(d: Daemon, **params: Any) -> dict[str, Any]:
    answer = d.call("campaign.submit", content="x", phone="1", dry_run=True, **params)
    assert list(answer) == ["plan"]
    found: dict[str, Any] = answer["plan"]
    return found


def test_a_dry_run_counts_and_keeps_nothing(daemon: Daemon) -> None:
    found = plan(daemon, key="order 1")
    assert found == {
        "total": 120, "calls": 120, "calls_most": 240, "seconds": 12.0, "seconds_most": 24.0, "rate": 10.0,
        "quota_left": {"custom": None, "template": None}, "fits_today": True, "quiet_hours_crossed": True,
        "duplicates": 0, "refused": 0, "skipped": 0, "duplicate": False,
    }
    assert daemon.campaigns() == [] and not daemon.accepted()
    assert not any(files for _, _, files in os.walk(daemon.folder / "state" / "spool"))


def test_pages_lists_uploads_and_tests_are_counted_alike(daemon: Daemon) -> None:
    people = [person(i) for i in range(10)]
    assert plan(daemon, page=1, page_size=100)["total"] == 20
    listed = plan(daemon, openids=[*people, *people[:3]])
    assert (listed["total"], listed["duplicates"]) == (10, 3)
    upload = daemon.call("audience.upload", openids=people)["upload"]
    daemon.call("audience.upload", upload=upload, openids=[person(i) for i in range(5, 15)])
    assert (plan(daemon, upload=upload)["total"], plan(daemon, upload=upload)["duplicates"]) == (15, 5)
    test = plan(daemon, test=person(1))
    assert (test["total"], test["quiet_hours_crossed"]) == (1, False)


def test_what_cannot_be_submitted_cannot_be_tried_either(daemon: Daemon) -> None:
    gone = "u-" + "0" * 20
    for params, field in ({"upload": gone}, "upload"), ({"audience": "nope"}, "audience"), ({"page": -1}, "page"):
        with pytest.raises(BadRequest) as error:
            plan(daemon, **params)
        assert (error.value.code, error.value.data) == (-32602, {"field": field})


def test_a_bare_object_is_told_where_to_ask(daemon: Daemon) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(daemon.socket))
        s.sendall(b'{"content":"x","phone":"1","dry_run":true}\n')
        answer = json.loads(s.makefile().readline())
    assert answer["ok"] is False and "campaign.submit" in answer["error"]
    assert daemon.campaigns() == []


def test_the_command_line_shows_it_as_a_table_or_as_json(daemon: Daemon) -> None:
    shown = daemon.cli("send", "x", "--phone", "1", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "120" in shown.stdout and "12.0 s to 24.0 s" in shown.stdout and "crossed" in shown.stdout
    many = "".join(f"{person(i)}\n" for i in range(10_500))
    asked = daemon.cli("send", "x", "--phone", "1", "--dry-run", "--json", "--openids", "-", text=many)
    assert json.loads(asked.stdout)["plan"]["total"] == 10_500
    assert daemon.campaigns() == []


def test_an_audience_that_is_away_is_not_now(daemon: Daemon) -> None:
    file = daemon.folder / "tp.db"
    file.rename(daemon.folder / "away.db")
    try:
        done = daemon.cli("send", "x", "--phone", "1", "--dry-run")
        assert done.returncode == 69 and "audience.default" in done.stderr
    finally:
        (daemon.folder / "away.db").rename(file)
    assert plan(daemon)["total"] == 120


def test_people_who_are_none_are_told_apart(daemon: Daemon) -> None:
    with closing(sqlite3.connect(daemon.folder / "tp.db")) as link, link:
        link.execute("INSERT INTO tp_receiver VALUES ('no openid', '2099-01-01 00:00:00', 1, 1)")
        link.execute("INSERT INTO tp_receiver VALUES (?, '2099-01-01 00:00:00', 1, 1)", (follower(3),))
    found = plan(daemon)
    assert (found["total"], found["calls"], found["refused"], found["duplicates"]) == (121, 120, 1, 1)


def test_a_campaign_that_cannot_fit_today_says_so_and_one_that_can_does_not(tmp_path: Path) -> None:
    d = Daemon(tmp_path, followers=60, rate=20, quota_custom=40)
    try:
        small = d.call("campaign.submit", content="x", phone="1", page=0, page_size=10)["campaign"]
        d.until(small)
        wait_for(lambda: plan(d)["quota_left"]["custom"] == 30, "ten calls less")
        assert plan(d)["fits_today"] is False
        large = d.call("campaign.submit", content="x", phone="1")["campaign"]
        words = f"campaign {large}: 60 people, 30 calls left today on custom"
        log = tmp_path / "fanoutd.log"
        wait_for(lambda: words in log.read_text(), "a line in the log")
        assert f"campaign {small}: 10 people, " not in log.read_text()
        wait_for(lambda: "today" in (d.call("campaign.get", campaign=large)["reason"] or ""), "the reason")
    finally:
        d.close()
