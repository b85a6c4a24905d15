"""The whole daemon: real processes, killed; the API's ledger against the daemon's word."""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from fanoutd.client import Unreachable
from fanoutd.sandbox.options import Options
from fanoutd.sandbox.people import fate
from support.bench import wait_for
from support.daemon import Daemon, follower

Make = Callable[..., Daemon]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Make]:
    made: list[Daemon] = []

    def make(**how: Any) -> Daemon:
        made.append(Daemon(tmp_path, **how))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_the_seeds_three_calls_reach_1500_people_page_by_page(daemon: Make) -> None:
    shares = {"no_window": 0.33, "used_up": 0.03, "unfollowed": 0.03, "busy": 0.03}
    d = daemon(followers=1500, **shares)
    for page in "012":
        d.hang_up(json.dumps({"content": "求购香樟", "flag": page, "phone": "110"}))
    wait_for(lambda: [c["state"] for c in d.campaigns()] == ["done"] * 3, "three campaigns done")
    people: dict[str, dict[str, Any]] = {}
    for campaign in sorted(d.campaigns(), key=lambda c: str(d.rows(c["id"])[0]["openid"])):
        rows = d.rows(campaign["id"])
        first = len(people)
        assert [row["openid"] for row in rows] == [follower(i) for i in range(first, first + 500)]
        people |= {row["openid"]: row for row in rows}
    options = Options(**shares)
    expected = {
        "reached": ("sent", "custom", "0"), "busy": ("sent", "custom", "0"), "no_window": ("sent", "template", "0"),
        "used_up": ("sent", "template", "0"), "unfollowed": ("failed", "custom", "43004"),
    }  # fmt: skip
    for openid, row in people.items():
        assert (row["state"], row["channel"], row["errcode"]) == expected[fate(openid, options)]
    accepted = d.accepted()
    assert set(accepted.values()) == {1}
    assert accepted.keys() == {openid for openid, row in people.items() if row["state"] == "sent"}


def test_a_token_revoked_in_mid_campaign_costs_one_refresh_and_no_delivery(daemon: Make) -> None:
    d = daemon(followers=600, rate=300, latency="20ms")
    campaign = d.call("campaign.submit", content="hello", phone="1")["campaign"]
    wait_for(lambda: len(d.accepted()) > 50, "a first part")
    d.sandbox.revoke()
    assert d.until(campaign)["counts"]["sent_custom"] == 600
    assert d.sandbox.stats()["token_fetches"]["stable"] == 2


def test_a_killed_worker_is_replaced_and_nobody_is_doubled_or_forgotten(daemon: Make) -> None:
    d = daemon(followers=1200, concurrency=16, latency="60ms")
    campaign = d.call("campaign.submit", content="hello", phone="1")["campaign"]
    wait_for(lambda: len(d.accepted()) > 150, "a first part")
    victim = d.workers()[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    last = d.until(campaign)
    assert len(d.workers()) == 2 and victim not in [w["pid"] for w in d.workers()]
    audit = d.audit(campaign)
    assert not audit.twice and not audit.forgotten and not audit.untrue
    assert last["counts"]["unknown"] <= 16


def test_after_the_masters_death_nothing_is_left_and_serve_finishes_the_campaign(daemon: Make) -> None:
    d = daemon(followers=1200, concurrency=16, latency="60ms")
    campaign = d.call("campaign.submit", content="hello", phone="1")["campaign"]
    wait_for(lambda: len(d.accepted()) > 150, "a first part")
    children = psutil.Process(d.process.pid).children(recursive=True)
    d.process.kill()
    d.process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    d.serve()
    assert d.until(campaign)["counts"]["unknown"] == 0  # the workers finished their wire and recorded it
    assert d.audit(campaign).good


def test_serve_at_once_beside_the_dead_masters_workers(daemon: Make) -> None:
    d = daemon(followers=1000, concurrency=16, latency="150ms")
    campaign = d.call("campaign.submit", content="hello", phone="1")["campaign"]
    wait_for(lambda: len(d.accepted()) > 150, "a first part")
    d.process.kill()
    d.process.wait()
    d.serve()
    d.until(campaign)
    assert d.audit(campaign).good


def test_a_dispatcher_killed_while_it_plans_leaves_nobody_out_and_nobody_twice(daemon: Make) -> None:
    d = daemon(followers=20_000, rate=20_000)
    pid = d.dispatcher()
    campaign = d.call("campaign.submit", content="hello", phone="1")["campaign"]
    wait_for(lambda: len(d.accepted()) > 0, "the first message")
    os.kill(pid, signal.SIGKILL)
    last = d.until(campaign, seconds=60)
    assert last["total"] == 20_000 and last["counts"]["unknown"] == 0
    assert d.audit(campaign).good


def test_an_acknowledged_submission_survives_the_death_of_everything(daemon: Make) -> None:
    d = daemon(followers=50)
    pids = [d.dispatcher(), *(w["pid"] for w in d.workers())]
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(d.socket))
        s.sendall(b'{"content": "hello", "phone": "1"}\n')
        answer = json.loads(s.makefile().readline())
        for pid in [d.process.pid, *pids]:
            os.kill(pid, signal.SIGKILL)
    d.process.wait()
    assert answer["ok"] is True
    d.serve()
    d.until(answer["campaign"])
    audit = d.audit(answer["campaign"])
    assert not audit.twice and not audit.forgotten and not audit.untrue and audit.unknown <= 50


def test_killing_everything_in_mid_campaign_costs_at_most_what_was_on_the_wire(daemon: Make) -> None:
    d = daemon(followers=1000, concurrency=8, latency="50ms")
    campaign = d.call("campaign.submit", content="hello", phone="1")["campaign"]
    for least in (100, 400):
        wait_for(lambda least=least: len(d.accepted()) > least, "a part")
        d.kill_all()
        d.serve()
    last = d.until(campaign)
    audit = d.audit(campaign)
    assert not audit.twice and not audit.forgotten and not audit.untrue
    assert last["counts"]["unknown"] <= 2 * 2 * 8


def test_a_scheduled_campaign_starts_when_it_is_due(daemon: Make) -> None:
    d = daemon(followers=3)
    campaign = d.call("campaign.submit", content="x", phone="1", send_at="2099-01-01T00:00:00+08:00")["campaign"]
    assert d.call("campaign.get", campaign=campaign)["state"] == "scheduled"
    soon = d.call("campaign.submit", content="y", phone="1", send_at="2001-01-01T00:00:00+08:00")["campaign"]
    assert d.until(soon)["total"] == 3
    assert d.call("campaign.get", campaign=campaign)["state"] == "scheduled"


def test_an_audience_that_cannot_be_read_is_waited_for(daemon: Make) -> None:
    d = daemon(followers=3)
    (d.folder / "tp.db").rename(d.folder / "away.db")
    campaign = d.call("campaign.submit", content="x", phone="1")["campaign"]
    reason = wait_for(lambda: d.call("campaign.get", campaign=campaign)["reason"], "a reason")
    assert "tp.db" in reason
    (d.folder / "away.db").rename(d.folder / "tp.db")
    assert d.until(campaign)["total"] == 3


@pytest.mark.parametrize(
    ("arguments", "text", "code", "word"),
    [
        (("send", ""), "", 65, "content"),
        (("send", "x", "--message", "nope"), "", 65, "supply"),
        (("send", "x", "--audience", "nope"), "", 65, "default"),
        (("send", "x", "--openids", "-"), "no openid\n", 65, "openid"),
        (("send", "--file", "-"), "{nonsense", 65, "JSON"),
        (("send", "x", "--file", "/nonexistent"), "", 65, "/nonexistent"),
        (("campaign", "show", "nope"), "", 65, "nope"),
        (("campaign", "export", "nope"), "", 65, "nope"),
        (("serve",), "", 75, "pid"),
    ],
)
def test_wrong_input_is_one_helpful_line(
    running: Daemon, arguments: tuple[str, ...], text: str, code: int, word: str
) -> None:
    result = running.cli(*arguments, text=text)
    assert result.returncode == code, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and word in result.stderr


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    d = Daemon(tmp_path_factory.mktemp("running"), followers=10)
    yield d
    d.close()


def test_send_wait_json_and_export(running: Daemon) -> None:
    result = running.cli("send", "hello", "--phone", "110", "--wait", "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout.splitlines()[-1])
    assert answer["counts"]["sent_custom"] == 10 and answer["duplicate"] is False
    export = running.cli("campaign", "export", answer["campaign"]).stdout.splitlines()
    assert export[0] == "openid,state,channel,errcode,msgid,attempts,updated_at"
    assert [line.split(",")[:4] for line in export[1:]] == [[follower(i), "sent", "custom", "0"] for i in range(10)]


def test_no_secret_and_no_openid_reaches_the_log(running: Daemon) -> None:
    running.cli("send", "hello", "--wait")
    log = (running.folder / "fanoutd.log").read_text()
    assert "worker 1 ready" in log
    assert "a-secret-of-the-tests" not in log and follower(1) not in log
    assert (running.folder / "state" / "fanoutd.db").stat().st_mode & 0o077 == 0


def test_without_a_daemon_the_commands_say_so(daemon: Make) -> None:
    d = daemon()
    assert d.cli("stop").returncode == 0
    assert d.process.wait(5) == 0 and not d.socket.exists()
    for arguments in (("status",), ("stop",), ("send", "x"), ("campaign", "list")):
        result = d.cli(*arguments)
        assert result.returncode == 69 and len(result.stderr.strip().splitlines()) == 1


def rates(times: list[float], width: float = 1.0) -> list[float]:
    """Messages a second, span by span, without the last one, which is not a whole one."""
    spans = Counter(int((each - times[0]) / width) for each in times)
    return [spans[i] / width for i in range(max(spans))]


def accepted_between(d: Daemon, begun: float, ended: float) -> list[float]:
    """When the API accepted a message, in seconds since 1970."""
    at = (datetime.fromisoformat(row["at"]).timestamp() for row in d.sandbox.ledger_rows())
    return sorted(each for each in at if begun <= each < ended)


@pytest.mark.alone
def test_ten_reloads_under_full_load_are_felt_by_nobody(daemon: Make) -> None:
    d = daemon(followers=8_000, workers=4, concurrency=8, latency="50ms")
    refused: list[str] = []
    over = threading.Event()

    def hammer() -> None:
        while not over.is_set():
            try:
                d.call("daemon.ping")
            except (OSError, Unreachable) as e:
                refused.append(str(e))

    thread = threading.Thread(target=hammer)
    campaign = d.call("campaign.submit", content="x", phone="1")["campaign"]
    wait_for(lambda: len(d.accepted()) > 1000, "a second and more of it without any")
    thread.start()
    begun = time.time()
    for count in range(1, 11):
        assert d.call("daemon.reload") == {"generation": count + 1}
    ended = time.time()
    last = d.until(campaign, seconds=60)
    over.set()
    thread.join(10)
    assert refused == []
    assert last["counts"]["sent_custom"] == 8_000 and last["counts"]["unknown"] == 0
    assert d.audit(campaign).good
    undisturbed = rates(accepted_between(d, 0, begun))
    # By two seconds: one alone is what another process on the machine makes of it.
    found = rates(accepted_between(d, begun, ended), 2.0)
    assert min(found) >= statistics.median(undisturbed) / 2, (undisturbed, found)
