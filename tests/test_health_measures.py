"""What health looks at: each measurement with real or realistic input, what it finds and in which words."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from fanoutd.board import Board
from fanoutd.config import Config, load
from fanoutd.dispatcher import measure, measure_api, measure_store
from fanoutd.dispatcher.inquiry import Answer, Inquiry
from fanoutd.dispatcher.measure_api import Probe, Recent
from fanoutd.dispatcher.store_trouble import AGAIN, StoreTrouble
from fanoutd.figures import Figures, Histogram
from fanoutd.health.conditions import CONDITIONS
from fanoutd.health.judge import Finding
from fanoutd.spool import Spool
from fanoutd.store import Database, campaigns, nodes, quotas, shards
from fanoutd.store.campaigns import Campaign
from fanoutd.store.quotas import Quota
from fanoutd.store.shards import Planned
from fanoutd.times import wall_ms
from support.stores import KINDS, opened

OPENID = "oFOLLOW000000000000000000042"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "fanoutd.toml"
    file.write_text(
        '[account.main]\napp_id = "wx1"\napp_secret = "s3cret"\napi_base = "http://127.0.0.1:9"\n'
        '[message.m]\n[message.m.custom]\nmsgtype = "text"\ntext.content = "{content}"\n'
    )
    file.chmod(0o600)
    (tmp_path / "state").mkdir()
    return load(file)


def bad(finding: Finding) -> str:
    """The words of a bad finding."""
    assert finding.bad is True and finding.words
    assert "s3cret" not in finding.words and OPENID not in finding.words
    return finding.words


def well(finding: Finding) -> None:
    assert finding.bad is False and finding.words == ""


def worker(slot: int = 1, **more: Any) -> dict[str, Any]:
    return {"slot": slot, "role": "worker", "pid": 100 + slot, "state": "idle", "restarts": 0, "rss_bytes": 1 << 20,
            **more}  # fmt: skip


# ---- this node


def test_deaths_are_counted_over_ten_minutes_and_over_restarts_of_the_daemon() -> None:
    deaths, at = measure.Deaths(), 1_700_000_000_000
    rows = [worker(0, role="dispatcher", restarts=1), worker(1, restarts=0), worker(2, restarts=7)]
    deaths.look("monday", rows, at)
    assert bad(measure.workers(deaths, rows, 5)) == "8 deaths in the last 10 min (worker 2: 7, dispatcher: 1)"
    deaths.look("monday", rows, at + 540_000)
    assert len(deaths.deaths) == 8
    deaths.look("tuesday", [worker(1, restarts=1)], at + 599_000)  # a new master counts anew
    assert len(deaths.deaths) == 9
    deaths.look("tuesday", [worker(1, restarts=1)], at + 601_000)
    well_now = measure.workers(deaths, [], 5)
    assert well_now.bad is False and well_now.words == "1 death in the last 10 min (worker 1: 1)"
    deaths.look("tuesday", [worker(1, restarts=1)], at - 5)  # the clock was set back
    assert deaths.deaths == []


def test_a_slot_in_back_off_is_bad_whatever_is_counted() -> None:
    assert bad(measure.workers(measure.Deaths(), [worker(3, state="backoff")], 5)).startswith("worker 3: died young")
    well(measure.workers(measure.Deaths(), [worker(3)], 5))


def test_memory_of_the_machine_and_of_workers(config: Config) -> None:
    well(measure.memory([worker()], config, available=65 << 20))
    assert bad(measure.memory([], config, available=40 << 20)) == "40 MiB are left on this machine, 64 MiB wanted"
    fat = worker(2, rss_bytes=400 << 20)
    assert bad(measure.memory([worker(), fat], config)) == "worker 2 uses 400 MiB of [workers] max_memory 256 MiB"
    well(measure.memory([worker(rss_bytes=300 << 20), worker(rss_bytes=None)], config, available=1 << 40))


def test_the_disk(config: Config) -> None:
    well(measure.disk(replace(config, health=replace(config.health, disk_left=1))))
    short = replace(config, health=replace(config.health, disk_left=1 << 60))
    assert str(config.daemon.state_dir) in bad(measure.disk(short)) and "wanted" in bad(measure.disk(short))
    os.rmdir(config.daemon.state_dir)
    assert bad(measure.disk(config)) == f"{config.daemon.state_dir}: No such file or directory"


def test_late_records_are_those_of_workers_that_live() -> None:
    board = Board(3)
    rows = [worker(pid=os.getpid())]
    well(measure.records_late(board.late(), rows, 30))
    board.write(1, campaign="c", sent=1, failed=0, rate=0, heartbeat=1)
    board.unrecorded(1, time.monotonic() - 45)
    assert board.read(1).campaign == "c"
    assert bad(measure.records_late(board.late(), rows, 30)).startswith("the oldest outcome of this node has waited 45")
    well(measure.records_late(board.late(), rows, 60))
    well(measure.records_late(board.late(), [worker(pid=1), worker(pid=None)], 30))
    board.unrecorded(1, 0.0)
    assert board.late() == {}
    board.unrecorded(2, 5.0)
    board.clear(2)
    assert board.late() == {}
    board.close()


def test_the_spool_counts_what_the_store_does_not_have(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    for name, ago in (("c-old", 300), ("c-new", 1), ("c-listed", 9000)):
        spool.accept({"v": 1, "campaign": name}, keyed=False)
        os.utime(tmp_path / "spool" / "new" / name, (time.time() - ago,) * 2)
    ages = spool.ages(time.time())
    assert bad(measure.spool(ages, {"c-old", "c-new"}, 120)) == "2 wait, the oldest for 5 min"
    well(measure.spool(ages, {"c-new", "gone-meanwhile"}, 120))


def test_a_refused_reload() -> None:
    well(measure.reload({"count": 1, "stage": "done", "error": None}))
    assert bad(measure.reload({"count": 2, "stage": "refused", "error": "f.toml: no"})) == "f.toml: no"


def test_the_clock_against_others_and_against_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = measure.Clock()
    well(clock.look({"the store's": None, "the API's": 4.0}, 5))
    assert bad(clock.look({"the store's": 7.4, "the API's": -3600.0}, 5)) == (
        "it is 7 s ahead of the store's; it is 3600 s behind the API's"
    )
    now = measure.local_ms
    monkeypatch.setattr(measure, "local_ms", lambda: now() - 3_600_000)
    assert [bad(clock.look({}, 5)) for _ in range(2)] == ["it was set back by 1 h"] * 2
    well(clock.look({}, 5))


# ---- the API


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """``server.status`` and ``server.date`` are what it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(self.server.status)  # type: ignore[attr-defined]
            if self.server.date:  # type: ignore[attr-defined]
                self.send_header("Date", self.server.date)  # type: ignore[attr-defined]
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        made.status, made.date = 404, ""  # type: ignore[attr-defined]
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def test_the_api_is_reachable_when_anything_sensible_answers(config: Config, server: Any) -> None:
    account = replace(config.accounts["main"], api_base=f"http://u:pw@127.0.0.1:{server.server_port}")

    def ask() -> Answer[Probe]:
        inquiry = Inquiry(lambda: measure_api.probe(account), "test")
        inquiry.ask()
        return inquiry.answer(20)

    found = ask()
    assert found.value and found.value.status == 404 and found.value.seconds < 20 and found.value.ahead is None
    well(measure_api.reachable(account, found, None))
    assert bad(measure_api.reachable(account, found, "no answers")) == "no answers"
    server.date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() - 100))
    ahead = ask().value.ahead  # type: ignore[union-attr]
    assert ahead is not None and 99 < ahead < 120
    server.date = "nonsense"
    assert ask().value.ahead is None  # type: ignore[union-attr]
    server.status = 502
    words = bad(measure_api.reachable(account, ask(), None))
    assert words == f"127.0.0.1:{server.server_port} answers with HTTP 502"
    server.shutdown()
    server.server_close()
    words = bad(measure_api.reachable(account, ask(), None))
    assert words == f"127.0.0.1:{server.server_port}: no connection, or it ended without an answer"
    assert bad(measure_api.reachable(account, Answer(late=7.2), None)).endswith("has not answered for 7 s")
    for error, said in ((requests.exceptions.SSLError("pw"), "TLS fails"), (ValueError("pw"), "ValueError")):
        assert bad(measure_api.reachable(account, Answer(error=error), None)).endswith(f": {said}")


def _figures(latency: list[int] | None = None, **requests_by: int) -> Figures:
    results = {name.strip("_").replace("minus", "-"): count for name, count in requests_by.items()}
    found = Figures(requests=Counter({("main", "custom", name): count for name, count in results.items()}))
    if latency:
        found.latency["main", "custom"] = Histogram(latency, 1.0)
    return found


def test_refusals_are_named_in_words_and_those_of_single_people_are_none() -> None:
    recent = _figures(_0=60, _40001=15, _minus1=10, timeout=15, _43004=500)
    words = bad(measure_api.errors("main", recent, 0.05))
    assert words == ("7% of 600 calls in the last 5 min; 40001 (access token refused): 15, no answer (timeout): 15, "
                     "-1 (WeChat is busy): 10")  # fmt: skip
    well(measure_api.errors("main", recent, 0.07))
    well(measure_api.errors("other", recent, 0.0))
    well(measure_api.errors("main", _figures(_40001=19), 0.2))  # too few to say anything
    well(measure_api.errors("main", _figures(_0=5, _45015=5000), 0.0))


def test_latency_is_that_of_calls_and_of_the_probe_where_there_are_few() -> None:
    quick = Answer(value=Probe(200, 0.1, None))
    slow = [0] * 8 + [80, 10, 10, 0]
    assert bad(measure_api.slow("main", _figures(slow), quick, 3)).startswith("one call in ten took 5.0 s")
    well(measure_api.slow("main", _figures(slow), quick, 6))
    well(measure_api.slow("main", _figures([0] * 11 + [19]), quick, 3))
    assert bad(measure_api.slow("main", _figures(), Answer(value=Probe(200, 4.2, None)), 3)).endswith("took 4.2 s")
    assert measure_api.slow("main", _figures(), Answer(late=3.0), 3).bad is None


def test_only_what_came_of_late_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    total, at = _figures(_40001=1000), [0.0]
    monkeypatch.setattr(measure_api.time, "monotonic", lambda: at[0])
    recent = Recent(lambda: Figures(requests=Counter(total.requests)))
    assert recent.look().requests == Counter()  # what was before the first look is of no time
    for _ in range(600):
        at[0] += 1
        total.requests["main", "custom", "0"] += 1
        seen = recent.look()
    assert 300 <= seen.requests["main", "custom", "0"] <= 311 and ("main", "custom", "40001") not in seen.requests
    assert len(recent._looks) <= 32


# ---- the store


@pytest.fixture(params=KINDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with closing(opened(request.param, tmp_path)) as made:
        yield made


def campaign(db: Database, id: str, people: int = 3, **more: Any) -> None:
    with db.transaction():
        campaigns.insert(db, Campaign(
            id=id, account="main", message="m", audience=None, reference=None, key=None, state="planning", cause=None,
            reason=None, created_at=1, send_at=None, started_at=1, finished_at=None, planned=True, node="n",
            origin="list", definition={},
        ))  # fmt: skip
        shards.add(db, id, 0, [Planned(f"oP{i:026d}") for i in range(people)])
        campaigns.move(db, id, "planning", "running", **more)


def test_the_store_is_asked_for_all_in_one(db: Database) -> None:
    campaign(db, "c-1", cause="api", reason="no answer")
    before = measure_store.ask(db, "n", False, ["c-1", "c-2"])
    assert before.memory is None and before.unknown == set() and 0 < before.seconds < 20
    said = measure_store.ask(db, "n", True, ["c-1", "c-2", "r-3"])
    assert said.unknown == {"c-2", "r-3"} and said.waits == {"main": "no answer"} and said.memory == {}
    assert said.ahead is None if not db.shared else abs(said.ahead or 0) < 20
    well(measure_store.slow(said, 60))
    assert bad(measure_store.slow(replace(said, seconds=1.25), 1)) == "a small transaction took 1.2 s"
    assert measure_store.slow(None, 1).bad is None
    measure_store.write_memory(db, {"seen": {}})
    assert measure_store.read_memory(db) == {"seen": {}}


def test_why_the_store_is_of_no_use() -> None:
    well(measure_store.reachable(None, None))
    assert bad(measure_store.reachable("store db: refused", None)) == "store db: refused"
    assert bad(measure_store.reachable(None, 5.2)) == "it has given no answer for 5 s"


class Tokens:
    """A refresher that shows what it is told to."""

    def __init__(self) -> None:
        self.now: dict[str, Any] = {"token": "ab…yz", "ok": True, "expires_in": 7000, "error": None}

    def shown(self, _db: Database, _name: str) -> dict[str, Any]:
        return self.now


def test_a_campaign_is_stuck_when_nobody_is_reached_though_nothing_is_known_to_be_in_the_way(
    db: Database, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign(db, "c-1", people=1200)
    campaign(db, "c-quiet", cause="quiet", reason="quiet hours until 08:00")
    progress: dict[str, list[int]] = {}
    base, at = wall_ms(), [0]
    monkeypatch.setattr(measure_store, "wall_ms", lambda: base + at[0] * 1000)

    def look(seconds: int) -> Finding:
        at[0] = seconds
        document = json.loads(json.dumps(progress))  # as the store keeps it
        progress.clear()
        progress.update(document)
        tokens: Any = Tokens()
        [found] = [each for each in measure_store.cluster(db, config, tokens, "n", progress, True)
                   if each.key.name == "shards"]  # fmt: skip
        return found

    well(look(0))
    well(look(299))
    assert bad(look(301)) == "c-1: 1,200 people wait, and for 5 min 1 s nobody was reached"
    db.execute("UPDATE fanout_shard SET pending = pending - 1, sent_custom = sent_custom + 1 WHERE campaign = 'c-1'")
    well(look(302))
    well(look(600))
    bad(look(603))
    with db.transaction():
        campaigns.move(db, "c-1", "running", "paused")
    well(look(10_000))
    assert set(progress) == {"c-quiet"}
    db.execute("UPDATE fanout_campaign SET state = 'planning', cause = 'audience', reason = 'no such table: tp' "
               "WHERE id = 'c-quiet'")  # fmt: skip
    db.execute("UPDATE fanout_shard SET pending = 0 WHERE campaign = 'c-quiet'")
    well(look(10_001))
    assert bad(look(10_400)).startswith("c-quiet: it waits for its audience: no such table: tp, and for 6 min")


def test_nodes_that_are_gone_without_a_word(db: Database, config: Config) -> None:
    tokens: Any = Tokens()
    rows = (("me", 0, 0), ("there", 3, 0), ("dead", 90, 0), ("left", 90, 1), ("long-ago", 8 * 86400, 0))
    for node, ago, gone in rows:
        db.execute(
            "INSERT INTO fanout_node (node, secret, version, joined_at, heartbeat, gone) "
            f"VALUES (%s, 's', '1', 1, {db.NOW_MS} - %s, %s)", node, ago * 1000, gone,
        )  # fmt: skip

    def look(steady: bool) -> dict[str | None, Finding]:
        found = measure_store.cluster(db, config, tokens, "me", {}, steady)
        return {each.key.of: each for each in found if each.key.name == "node"}

    everything = {each.key.name for each in measure_store.cluster(db, config, tokens, "me", {}, True)}
    assert everything == {name for name, each in CONDITIONS.items() if each.shared}
    found = look(True)
    assert set(found) == {"there", "dead"} and found["there"].key.account is None
    well(found["there"])
    assert bad(found["dead"]).startswith("it has not been heard of for 1 min 30 s, and did not say")
    # A store that was away has heard of nobody: that is no news about nodes.
    found = look(False)
    assert found["dead"].bad is None and found["there"].bad is False
    assert nodes.LIVING_MS == 15_000


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ({}, ""),
        ({"expires_in": None}, ""),
        ({"expires_in": 180}, ""),
        ({"expires_in": 179}, "it ends in 2 min 59 s, and no other one has come"),
        ({"expires_in": 100, "error": "-1 busy"}, "it ends in 1 min 40 s, and no other one has come: -1 busy"),
        ({"ok": False, "error": "40164: not on the IP whitelist"}, "40164: not on the IP whitelist"),
        ({"ok": False, "expires_in": -5}, "it has ended, and no other one has come"),
        ({"ok": False, "token": None}, None),
    ],
)  # fmt: skip
def test_tokens(shown: dict[str, Any], words: str | None) -> None:
    found = measure_store.token("main", {**Tokens().now, **shown}, 180)
    if words is None:
        assert found.bad is None
    else:
        assert (found.bad, found.words) == (bool(words), words)


def test_quota() -> None:
    def look(**channels: Quota) -> Finding:
        numbers = {"custom": 1, "template": 2}
        return measure_store.quota("main", {numbers[name]: each for name, each in channels.items()}, 0.1, "UTC")

    well(look(custom=Quota(5, 5, None, None), template=Quota(90, 90, 100, None)))
    assert bad(look(template=Quota(9_100, 9_000, 10_000, None))) == "template: 900 of today's 10,000 calls are left"
    assert "all of today's 100 calls are made, until 20" in bad(look(custom=Quota(100, 100, 100, None)))
    words = bad(look(custom=Quota(1, 1, None, wall_ms() + 60_000), template=Quota(0, 0, 0, None)))
    assert words.startswith("custom: WeChat takes no more calls until ") and "template" not in words
    well(look(custom=Quota(1, 1, None, wall_ms() - 1)))
    assert quotas.day(wall_ms())


# ---- what may never answer


def test_a_question_that_hangs_is_late_and_is_not_asked_again() -> None:
    go_on, asked = threading.Event(), []

    def step() -> int:
        asked.append(1)
        go_on.wait(30)
        return len(asked)

    inquiry = Inquiry(step, "test")
    for _ in range(3):
        inquiry.ask()
        assert (inquiry.answer(0.01).late or 0) >= 0.01
    assert asked == [1]
    go_on.set()
    assert inquiry.answer(30).value == 1
    inquiry.ask()
    assert inquiry.answer(30) == Answer(value=2)


def test_the_log_says_when_the_store_goes_now_and_then_and_when_it_is_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = [100.0]
    monkeypatch.setattr("fanoutd.dispatcher.store_trouble.time.monotonic", lambda: at[0])
    caplog.set_level("INFO", "fanoutd.dispatcher.store_trouble")
    trouble = StoreTrouble()
    trouble.back()
    for _ in range(7200 // 5):
        trouble.away("store db: refused")
        at[0] += 5
    assert trouble.words == "store db: refused"
    assert len(caplog.records) == 2 + len(AGAIN) - 1
    assert caplog.messages[0] == "store db: refused; trying again until it is there"
    assert caplog.messages[1].endswith("; it has been away for 1 min")
    trouble.back()
    trouble.back()
    assert caplog.messages[-1] == "the store can be used again, after 2 h" and trouble.words is None
    trouble.away("again")
    assert caplog.messages[-1].startswith("again; trying") and len(caplog.records) == 7
    for i in range(100):  # another reason is said at once, but not each of many
        trouble.away(f"reason {i}")
    assert caplog.messages[7].startswith("reason 0; ") and len(caplog.records) == 14
