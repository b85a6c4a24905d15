"""The call-back and a whole daemon: receipts settle what is unknown, and a flood of them does not slow a campaign."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fanoutd.callback import Callback
from fanoutd.client import Client
from support.bench import wait_for
from support.daemon import Daemon, follower
from support.pushes import TOKEN, push, xml

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


def receipt(openid: str, msgid: int, status: str = "success") -> str:
    return xml("event", openid, Event="TEMPLATESENDJOBFINISH", MsgID=msgid, Status=status)


def test_receipts_settle_unknown_templates(daemon: Make, caplog: pytest.LogCaptureFixture) -> None:
    d = daemon(20, no_window="1", latency="400ms", workers=1)
    d.config.write_text(d.config.read_text().replace('channels = ["custom", "template"]', 'channels = ["template"]'))
    d.cli("reload")
    campaign = d.call("campaign.submit", content="hello", phone="1")["campaign"]
    wait_for(lambda: sum(d.accepted().values()) >= 20, "messages on the wire")
    d.call("campaign.pause", campaign=campaign)
    d.kill_all()
    d.serve()
    unknown = wait_for(lambda: [r["openid"] for r in d.rows(campaign) if r["state"] == "unknown"], "unknown ones")
    app = Callback(d.socket, TOKEN, account="main")
    assert push(app, receipt(unknown[0], 0)).status == 200
    assert push(app, receipt(unknown[1], 12345, "failed:user block")).status == 200
    assert app.close(20.0) and "refused" not in caplog.text
    states = {row["openid"]: row["state"] for row in d.rows(campaign)}
    assert [states[openid] for openid in unknown[:3]] == ["sent", "failed", "unknown"]


def campaign_seconds(d: Daemon) -> tuple[str, float]:
    began = time.monotonic()
    campaign: str = d.call("campaign.submit", content="hello", phone="1")["campaign"]
    with Client(d.socket) as c:
        assert [*c.watch(campaign)][-1]["state"] == "done"
    return campaign, time.monotonic() - began


@pytest.mark.alone
def test_a_flood_of_receipts_does_not_slow_a_campaign(daemon: Make, caplog: pytest.LogCaptureFixture) -> None:
    """400 a second, almost twice the worst reported, beside a campaign at 200 a second."""
    d = daemon(1000, rate=200)
    _, alone = campaign_seconds(d)
    app, ended, pushed = Callback(d.socket, TOKEN, account="main"), threading.Event(), 0
    began = time.monotonic()

    def flood() -> None:
        nonlocal pushed
        while not ended.wait(max(0.0, began + pushed / 400 - time.monotonic())):
            pushed += 1
            assert push(app, receipt(follower(pushed % 1000), pushed)).status == 200

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        campaign, beside = campaign_seconds(d)
    finally:
        ended.set()
        thread.join()
    assert app.close(5.0), "the daemon was behind"
    print(f"1000 messages in {alone:.2f} s alone, in {beside:.2f} s beside {pushed} receipts")
    assert pushed > 300 * beside and beside < 1.15 * alone
    assert campaign_is_whole(d, campaign) and "refused" not in caplog.text


def campaign_is_whole(d: Daemon, campaign: str) -> bool:
    counts: dict[str, int] = d.call("campaign.get", campaign=campaign)["counts"]
    return counts["sent_custom"] == 1000 and set(d.accepted().values()) == {2}
