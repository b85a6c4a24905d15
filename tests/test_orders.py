"""Orders to campaigns on a whole daemon: pause, resume, cancel, retry, resolve, and receipts."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fanoutd.client import Client, ClientError, NoSuchCampaign, WrongState
from fanoutd.config import load
from support.bench import stop_between_writes, wait_for
from support.daemon import Daemon, follower

Make = Callable[..., Daemon]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Make]:
    made: list[Daemon] = []

    def make(followers: int = 0, **options: Any) -> Daemon:
        made.append(Daemon(tmp_path, followers, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def submit(d: Daemon, **params: Any) -> str:
    campaign: str = d.call("campaign.submit", content="hello", phone="1", **params)["campaign"]
    return campaign


def order(d: Daemon, what: str, campaign: str, **params: Any) -> str:
    state: str = d.call(f"campaign.{what}", campaign=campaign, **params)["state"]
    return state


def counts(d: Daemon, campaign: str) -> dict[str, int]:
    found: dict[str, int] = d.call("campaign.get", campaign=campaign)["counts"]
    return found


def begun(d: Daemon, people: int) -> None:
    wait_for(lambda: sum(d.accepted().values()) >= people, f"{people} messages")


def quiet(d: Daemon, latency: float) -> Counter[str]:
    """What was accepted once the calls under way must have ended; nothing may come after it."""
    time.sleep(2 * latency)
    return d.accepted()


def reload(d: Daemon, count: int) -> None:
    d.process.send_signal(signal.SIGHUP)
    wait_for(lambda: (status := d.call("daemon.status"))["reload"]["count"] == count
             and status["reload"]["stage"] == "done", "a new generation")  # fmt: skip


def test_a_submission_whose_audience_has_left_before_it_reached_the_store_is_paused_too(daemon: Make) -> None:
    d = daemon(30)
    with_audience = d.config.read_text()
    os.kill(d.dispatcher(), signal.SIGSTOP)
    campaign = submit(d)
    d.config.write_text(with_audience.replace("[audience.default]", "[audience.other]"))
    d.process.send_signal(signal.SIGHUP)
    wait_for(lambda: _found(d, campaign).get("state") == "paused", "the campaign to be paused", 60)
    assert "no audience 'default' is configured" in _found(d, campaign)["reason"]
    with pytest.raises(WrongState):
        order(d, "resume", campaign)
    d.config.write_text(with_audience)
    reload(d, 2)
    assert order(d, "resume", campaign) == "planning"
    d.until(campaign)
    assert d.audit(campaign).good


def _found(d: Daemon, campaign: str) -> dict[str, Any]:
    try:
        return {key: value or "" for key, value in d.call("campaign.get", campaign=campaign).items()}
    except ClientError:
        return {}


def test_nothing_starts_after_pause_has_answered_and_resume_sends_the_rest(daemon: Make) -> None:
    d = daemon(1200, latency="100ms", concurrency=8, workers=3)
    campaign = submit(d)
    for part in (50, 200, 400):
        begun(d, part)
        assert order(d, "pause", campaign) == "paused"
        before = quiet(d, 0.1)
        assert order(d, "pause", campaign) == "paused"
        seen = wait_for(lambda: _all_recorded(d, campaign), "records")
        assert seen["reason"].startswith("paused by an operator")
        assert seen["counts"]["sent_custom"] == sum(before.values()) < 1200
        assert sum(d.accepted().values()) == sum(before.values())
        assert order(d, "resume", campaign) == "running"
        assert order(d, "resume", campaign) == "running"
    d.until(campaign)
    assert d.audit(campaign).good


def _all_recorded(d: Daemon, campaign: str) -> dict[str, Any] | None:
    """The campaign when no worker has anything of it in hand any more."""
    if d.call("daemon.status")["shards"]["leased"]:
        return None
    found: dict[str, Any] = d.call("campaign.get", campaign=campaign)
    return found


def test_pause_waits_for_a_worker_that_is_stopped_and_says_so_when_it_goes_on(daemon: Make) -> None:
    d = daemon(1000, latency="50ms", concurrency=8, workers=2)
    campaign = submit(d)
    begun(d, 30)
    victim = next(w["pid"] for w in d.workers() if w["state"] == "busy")
    stop_between_writes(victim, load(d.config).store_url)
    try:
        with Client(d.socket, timeout=30) as c:
            c._send({"jsonrpc": "2.0", "id": 1, "method": "campaign.pause", "params": {"campaign": campaign}})
            wait_for(lambda: d.call("campaign.get", campaign=campaign)["state"] == "paused", "the store's word")
            c._sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                c._sock.recv(1)
            os.kill(victim, signal.SIGCONT)
            c._sock.settimeout(10)
            assert c._receive()["result"] == {"campaign": campaign, "state": "paused"}
    finally:
        os.kill(victim, signal.SIGCONT)
    before = quiet(d, 0.05)
    assert order(d, "resume", campaign) == "running"
    d.until(campaign)
    assert sum(before.values()) < 1000
    assert d.audit(campaign).good


def test_pause_is_answered_when_a_worker_dies_instead_of_obeying(daemon: Make) -> None:
    d = daemon(1000, latency="50ms", concurrency=8, workers=2)
    campaign = submit(d)
    begun(d, 30)
    victim = next(w["pid"] for w in d.workers() if w["state"] == "busy")
    os.kill(victim, signal.SIGSTOP)
    os.kill(victim, signal.SIGKILL)
    assert order(d, "pause", campaign) == "paused"
    order(d, "resume", campaign)
    d.until(campaign)
    audit = d.audit(campaign)
    assert not audit.twice and not audit.forgotten and not audit.untrue and audit.unknown <= 8


def test_the_cancelled_stay_pending_for_ever(daemon: Make) -> None:
    d = daemon(1000, latency="50ms", concurrency=8)
    campaign = submit(d)
    begun(d, 100)
    assert order(d, "cancel", campaign) == "cancelled"
    assert order(d, "cancel", campaign) == "cancelled"
    before = quiet(d, 0.05)
    found = wait_for(lambda: _all_recorded(d, campaign), "records")
    assert found["state"] == "cancelled" and found["finished_at"] is not None
    assert found["counts"]["pending"] == found["total"] - sum(before.values()) > 0
    for what in ("pause", "resume"):
        with pytest.raises(WrongState):
            order(d, what, campaign)
    with pytest.raises(WrongState):
        order(d, "retry", campaign, failed=True)
    d.process.terminate()
    d.process.wait(15)
    d.serve()
    wait_for(lambda: d.call("daemon.status")["shards"]["pending"] == 0, "nothing to do")
    assert d.accepted() == before


def test_a_scheduled_campaign_is_paused_resumed_and_cancelled_before_it_begins(daemon: Make) -> None:
    d = daemon(20)
    campaign = submit(d, send_at="2099-01-01T00:00:00+08:00")
    assert order(d, "resume", campaign) == "scheduled"
    assert order(d, "pause", campaign) == "paused"
    assert order(d, "resume", campaign) == "scheduled"
    assert order(d, "cancel", campaign) == "cancelled"
    with pytest.raises(NoSuchCampaign):
        order(d, "pause", "c-nobody")


def test_those_who_failed_are_tried_again_from_the_first_channel_on(daemon: Make) -> None:
    d = daemon(300, unfollowed="0.3")
    campaign = submit(d)
    first = d.until(campaign)
    assert first["counts"]["failed"] == first["errors"]["43004"] > 50
    d.sandbox.set_options(unfollowed=0)
    assert order(d, "retry", campaign, failed=True) == "running"
    last = d.until(campaign)
    assert (last["counts"]["sent_custom"], last["counts"]["failed"], last["errors"]) == (300, 0, {})
    assert d.audit(campaign).good
    assert order(d, "retry", campaign, failed=True) == "done"


def test_a_template_whose_answer_was_lost_is_repeated_under_its_key(daemon: Make) -> None:
    d = daemon(200, no_window="1", drop_after="0.1", drop_before="0.05")
    campaign = submit(d)
    wait_for(lambda: d.call("campaign.get", campaign=campaign)["counts"]["sent_template"] > 20, "a first part")
    d.sandbox.set_options(drop_after=0, drop_before=0)
    found = d.until(campaign)
    audit = d.audit(campaign)
    assert not audit.twice and not audit.untrue and not audit.forgotten
    custom = sum(row["state"] == "unknown" and row["channel"] == "custom" for row in d.rows(campaign))
    assert found["counts"]["unknown"] == custom  # of the templates none is left
    assert any(row["attempts"] > 2 and row["channel"] == "template" for row in d.rows(campaign))


def test_a_worker_killed_amid_templates_leaves_nobody_unknown(daemon: Make) -> None:
    d = daemon(600, no_window="1", latency="50ms", concurrency=16)
    campaign = submit(d)
    wait_for(lambda: d.call("campaign.get", campaign=campaign)["counts"]["sent_template"] > 50, "a first part")
    for worker in d.workers():
        os.kill(worker["pid"], signal.SIGKILL)
    found = d.until(campaign)
    audit = d.audit(campaign)
    assert not audit.twice and not audit.untrue and not audit.forgotten
    assert all(row["channel"] == "custom" for row in d.rows(campaign) if row["state"] == "unknown")
    assert found["counts"]["unknown"] <= 32


def _with_unknowns(daemon: Make) -> tuple[Daemon, str, dict[str, Any]]:
    d = daemon(200, drop_after="0.03", drop_before="0.03")
    campaign = submit(d)
    found = d.until(campaign)
    assert found["counts"]["unknown"] > 2
    return d, campaign, found


def test_custom_messages_whose_answer_was_lost_wait_for_a_decision(daemon: Make) -> None:
    d, campaign, found = _with_unknowns(daemon)
    unknown = [row["openid"] for row in d.rows(campaign) if row["state"] == "unknown"]
    accepted = d.accepted()
    d.sandbox.set_options(drop_after=0, drop_before=0)
    assert order(d, "resolve", campaign, **{"as": "sent"}, openids=[unknown[0], "oNOBODY"]) == "done"
    assert counts(d, campaign)["unknown"] == len(unknown) - 1
    assert order(d, "resolve", campaign, **{"as": "failed"}, openids=unknown[1:2]) == "done"
    assert counts(d, campaign)["failed"] == 1
    assert order(d, "retry", campaign, unknown=True) == "running"
    last = d.until(campaign)
    assert last["counts"]["unknown"] == 0 and last["total"] == found["total"]
    for openid in unknown[2:]:  # sent once more, whether it had arrived or not: that was the decision
        assert d.accepted()[openid] == accepted[openid] + 1
    assert all(d.accepted()[openid] == accepted[openid] for openid in unknown[:2])


def test_on_unknown_resend_repeats_what_was_not_answered(daemon: Make) -> None:
    d = daemon(200, drop_before="0.05")
    d.config.write_text(d.config.read_text().replace("[message.supply]\n", 'on_unknown = "resend"\n[message.supply]\n'))
    reload(d, 1)
    found = d.until(submit(d))
    assert found["counts"]["unknown"] == 0 and found["counts"]["sent_custom"] == 200


def test_receipts_settle_unknown_templates_and_nothing_else(daemon: Make) -> None:
    d = daemon(40, no_window="1", latency="300ms", concurrency=64, workers=1)
    d.config.write_text(d.config.read_text().replace('channels = ["custom", "template"]', 'channels = ["template"]'))
    reload(d, 1)
    campaign = submit(d)
    begun(d, 40)
    assert order(d, "pause", campaign) == "paused"
    d.kill_all()
    d.serve()
    unknown = wait_for(lambda: [r["openid"] for r in d.rows(campaign) if r["state"] == "unknown"], "unknown ones")
    at = int(time.time())
    d.call("subscriber.event", openid=unknown[0], event="finish", at=at, msgid=0, status="success")
    d.call("subscriber.event", openid=unknown[1], event="finish", at=at, msgid=12345, status="failed:user block")
    d.call("subscriber.event", openid=unknown[2], event="finish", at=at - 90_000, msgid=12345, status="success")
    d.call("subscriber.event", openid=follower(39) + "x", event="finish", at=None, msgid=None, status=None)
    rows = {row["openid"]: row for row in d.rows(campaign)}
    assert [rows[openid]["state"] for openid in unknown[:3]] == ["sent", "failed", "unknown"]
    for wrong in ({"openid": unknown[0], "event": "dance"}, {"openid": "x", "event": "finish"}):
        with pytest.raises(ClientError):
            d.call("subscriber.event", **wrong)


def test_a_life_is_told_from_store_and_journals(daemon: Make) -> None:
    d = daemon(5, no_window="1")
    campaign = submit(d)
    d.until(campaign)
    events = d.call("delivery.explain", openid=follower(2))["events"]
    assert [(e["event"], e["channel"], e["errcode"]) for e in events] == [
        ("planned", None, None), ("called", "custom", None), ("answered", "custom", "45015"),
        ("called", "template", None), ("answered", "template", "0"), ("sent", "template", "0"),
    ]  # fmt: skip
    assert {e["campaign"] for e in events} == {campaign} and events[-1]["msgid"] == events[-2]["msgid"] is not None
    assert d.call("delivery.explain", openid="oNOBODY")["events"] == []
    assert d.call("delivery.explain", openid=follower(2), campaign=campaign)["events"] == events


def test_a_campaign_whose_audience_left_the_configuration_is_paused_and_resumed_when_it_is_back(daemon: Make) -> None:
    d = daemon(30)
    later = submit(d, send_at="2099-01-01T00:00:00+08:00")
    soon = time.time() + 8
    with_audience = d.config.read_text()
    campaign = submit(d, send_at=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(soon)))
    order(d, "resume", campaign)  # it is in the store then
    d.config.write_text(with_audience.replace("[audience.default]", "[audience.other]"))
    reload(d, 1)
    found = d.until(campaign, "paused")
    assert "audience default is not configured any more" in found["reason"]
    d.config.write_text(with_audience)
    reload(d, 2)
    assert d.call("campaign.get", campaign=campaign)["state"] == "paused"
    order(d, "resume", campaign)
    d.until(campaign)
    assert d.call("campaign.get", campaign=later)["state"] == "scheduled"
    assert d.audit(campaign).good
