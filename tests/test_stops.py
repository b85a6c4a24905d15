"""Campaigns that stop by themselves, on a whole daemon: who has failed, who waits, and that they go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from fanoutd.client import Client
from support.bench import wait_for
from support.daemon import Daemon, follower


class Default(Daemon):
    """With the default of ``max_failures``."""

    ACCOUNT = ""


Make = Callable[..., Daemon]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Daemon] = []

    def daemon(followers: int, **options: Any) -> Daemon:
        made.append(Default(tmp_path, followers, **options))
        return made[-1]

    yield daemon
    for each in made:
        each.close()


def submit(d: Daemon) -> str:
    campaign: str = d.call("campaign.submit", content="hello", phone="1")["campaign"]
    return campaign


def all_answer(d: Daemon, errcode: int, channel: str = "custom") -> None:
    d.sandbox.scripts({follower(i): [errcode] for i in range(d.followers)}, channel)


def paused(d: Daemon, campaign: str) -> dict[str, Any]:
    """The campaign when it has paused and all of its people have been given back.

    It may pause before all are planned: the others come when it is resumed.
    """
    d.until(campaign, "paused")
    wait_for(lambda: not d.call("daemon.status")["shards"]["leased"], "all given back")
    found: dict[str, Any] = d.call("campaign.get", campaign=campaign)
    assert found["state"] == "paused"
    return found


def resumed(d: Daemon, campaign: str) -> dict[str, Any]:
    assert d.call("campaign.resume", campaign=campaign)["state"] in ("planning", "running")
    return d.until(campaign)


def everybody_once(d: Daemon) -> bool:
    return d.accepted() == {follower(i): 1 for i in range(d.followers)}


@pytest.mark.parametrize("workers", [1, 4])
def test_a_deleted_template_stops_the_campaign_and_nobody_has_failed(make: Make, workers: int) -> None:
    d = make(400, workers=workers, no_window="1")
    all_answer(d, 40037, "template")
    campaign = submit(d)
    found = paused(d, campaign)
    assert found["counts"]["pending"] == found["total"] and not d.accepted()
    assert "WeChat refuses the message: template_id unknown (40037 invalid template_id" in found["reason"]
    assert d.sandbox.stats()["refused"]["40037"] <= 20 + workers
    all_answer(d, 0, "template")
    assert resumed(d, campaign)["counts"]["sent_template"] == 400
    assert everybody_once(d)


@pytest.mark.parametrize("errcode", [40007, 45168, 47001, 48004, 45162])
def test_what_is_wrong_with_the_custom_message_stops_before_any_template(make: Make, errcode: int) -> None:
    d = make(200)
    all_answer(d, errcode)
    found = paused(d, submit(d))
    assert found["counts"]["pending"] == found["total"] and str(errcode) in found["reason"]
    assert not d.accepted() and not d.sandbox.stats()["requests"].get("/cgi-bin/message/template/send")


def within(limit: int, workers: int) -> int:
    """Whom a limit may cost at most: beyond it the first few of every other worker, whose answers come late."""
    return limit + (workers - 1) * -(-20 // workers)


@pytest.mark.parametrize("workers", [1, 4])
def test_openids_of_another_account_stop_the_campaign_after_fifty(make: Make, workers: int) -> None:
    d = make(1000, workers=workers, concurrency=64)
    all_answer(d, 40003)
    found = paused(d, submit(d))
    assert 50 <= found["errors"]["40003"] <= within(50, workers)
    assert "wrong account?" in found["reason"]
    assert found["counts"]["pending"] == found["total"] - found["errors"]["40003"]


def test_a_few_strangers_among_many_stop_nothing(make: Make) -> None:
    d = make(500)
    d.sandbox.scripts({follower(i): [40003] for i in range(0, 500, 7)})
    found = d.until(submit(d))
    assert found["errors"] == {"40003": 72} and found["counts"]["sent_custom"] == 428


def test_codes_that_nobody_knows_stop_it_after_twenty(make: Make) -> None:
    d = make(500, workers=4)
    all_answer(d, 87123)
    found = paused(d, submit(d))
    assert 20 <= found["counts"]["failed"] <= within(20, 4) and "87123" in found["reason"]


def test_refused_templates_fail_twenty_who_can_be_tried_again(make: Make) -> None:
    d = make(600, workers=4, concurrency=64, no_window="1")
    all_answer(d, 47003, "template")
    campaign = submit(d)
    found = paused(d, campaign)
    assert 20 <= found["counts"]["failed"] <= within(20, 4) and found["reason"].startswith("message refused: ")
    all_answer(d, 0, "template")
    d.call("campaign.retry", campaign=campaign, failed=True, unknown=False)
    assert resumed(d, campaign)["counts"]["sent_template"] == 600
    assert everybody_once(d)


def test_an_account_that_is_barred_stops_all_its_campaigns(make: Make) -> None:
    d = make(300, latency="50ms", concurrency=4)
    first = submit(d)
    wait_for(lambda: sum(d.accepted().values()) > 10, "a first part")
    all_answer(d, 43106)
    second = submit(d)
    for campaign in (first, second):
        found = paused(d, campaign)
        assert found["reason"].startswith("WeChat refuses the account: ") and found["counts"]["failed"] == 0
    all_answer(d, 0)
    for campaign in (first, second):
        assert resumed(d, campaign)["counts"]["sent_custom"] == 300


@pytest.mark.parametrize("errcode", [48001, 45087])
def test_a_channel_that_the_account_may_not_use_is_not_tried_for_everyone(make: Make, errcode: int) -> None:
    d = make(600, workers=2, concurrency=16)
    all_answer(d, errcode)
    found = d.until(submit(d))
    assert found["counts"]["sent_template"] == 600 and everybody_once(d)
    assert d.sandbox.stats()["refused"][str(errcode)] <= 2 * (16 + 3)


def test_too_many_failures_pause_it_and_a_resume_begins_anew(make: Make) -> None:
    d = make(800, workers=4, unfollowed="0.5")
    campaign = submit(d)
    found = paused(d, campaign)
    ended = found["total"] - found["counts"]["pending"]
    assert 50 <= ended <= 50 + 4 * (32 + 16)
    assert "deliveries failed" in found["reason"] and "43004 does not follow the account" in found["reason"]
    again = d.call("campaign.resume", campaign=campaign)
    assert again["state"] in ("planning", "running")
    second = paused(d, campaign)
    assert second["total"] - second["counts"]["pending"] >= ended + 50  # not at the first failure
    d.sandbox.set_options(unfollowed=0)
    last = resumed(d, campaign)
    assert (last["total"], last["counts"]["pending"]) == (800, 0)


def test_fewer_failures_than_allowed_pause_nothing(make: Make) -> None:
    d = make(800, workers=4, unfollowed="0.1")
    found = d.until(submit(d))
    assert 40 < found["counts"]["failed"] < 120


@pytest.mark.alone
def test_a_flood_of_finish_events_does_not_slow_a_running_campaign(make: Make) -> None:
    d = make(400, workers=2, concurrency=8, latency="100ms", no_window="1")
    alone = _seconds(d.until(submit(d), seconds=90))
    dispatcher = psutil.Process(d.dispatcher())
    before, began = sum(dispatcher.cpu_times()[:2]), time.monotonic()
    campaign = submit(d)
    with Client(d.socket) as c:
        for i in range(1500):
            c.call("subscriber.event", openid=follower(i % 400), event="finish", msgid=10**18 + i, status="success")
    flood = time.monotonic() - began
    spent = sum(dispatcher.cpu_times()[:2]) - before
    flooded = _seconds(d.until(campaign, seconds=90))
    print(f"alone {alone:.1f} s, flooded {flooded:.1f} s; 1,500 events in {flood:.1f} s, dispatcher {spent:.1f} CPU s")
    assert flooded < 1.5 * alone and spent < 1.5


def _seconds(campaign: dict[str, Any]) -> float:
    ends = [datetime.fromisoformat(campaign[name]) for name in ("started_at", "finished_at")]
    return (ends[1] - ends[0]).total_seconds()
