"""The day's calls: counted before they are made, at rest after 45009, taken up again when WeChat has some left."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from fanoutd import gates
from fanoutd.dispatcher.limits import NOT_YET_MS, Counted, Limits, ask, counted
from fanoutd.outcome import State
from fanoutd.store import StoreBusy, campaigns, free_shards, open_store, quotas, shard_leases, shards, subscribers
from fanoutd.store.quotas import REFUSED_MS
from fanoutd.store.schema import MIGRATIONS, migrate
from fanoutd.store.shards import Planned
from fanoutd.times import iso, wall_ms
from fanoutd.worker.rests import Intent
from support import mariadb
from support.bench import Bench, WorkerProcess, person, wait_for
from support.daemon import Daemon

CUSTOM, TEMPLATE = 1, 2
NOON = 1_795_752_000_000  # 2026-11-27 12:00 in Shanghai

Make = Callable[..., Bench]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def make(**how: Any) -> Bench:
        made.append(Bench(tmp_path, **how))
        return made[-1]

    yield make
    for each in made:
        each.close()


def calls(b: Bench, channel: str = "custom") -> int:
    return int(b.sandbox.stats()["requests"].get(f"/cgi-bin/message/{channel}/send", 0))


def reason(b: Bench) -> str | None:
    found: str | None = b.db.rows("SELECT reason FROM fanout_campaign")[0][0]
    return found


def idle(worker: WorkerProcess) -> bool:
    return worker.listen()[-1:] == [{"t": "idle"}]


def over(b: Bench, channel: int = CUSTOM, ago_ms: int = 30_000) -> None:
    """The rest's end, so long ago."""
    with b.db.transaction():
        quotas.rest(b.db, "main", channel, wall_ms() - ago_ms, wall_ms())
        shard_leases.unpark(b.db, "main")


# ---- the count


def test_the_day_is_that_of_shanghai_and_a_rest_ends_one_to_five_minutes_into_the_next() -> None:
    midnight = NOON + 12 * 3_600_000
    assert quotas.day(midnight - 1) == quotas.day(NOON) == quotas.day(midnight) - 1
    ends = [quotas.reopening(f"account{n}", CUSTOM, NOON) - midnight for n in range(200)]
    assert min(ends) >= 60_000 and max(ends) <= 300_000 and len(set(ends)) > 100
    assert quotas.reopening("a", CUSTOM, NOON) == quotas.reopening("a", CUSTOM, NOON + 3_600_000)
    assert iso(quotas.reopening("a", CUSTOM, NOON)).startswith("2026-11-27T16:0")


def test_nothing_is_known_at_first_and_what_is_left_is_what_calls_and_intentions_leave(bench: Make) -> None:
    db = bench().db
    assert quotas.left(db, "main", CUSTOM, NOON) is None
    with db.transaction():
        quotas.cap(db, "main", CUSTOM, NOON, 1000)
        quotas.count(db, "main", CUSTOM, quotas.day(NOON), 300)
        quotas.intend(db, "main", CUSTOM, quotas.day(NOON), 64)
    assert quotas.left(db, "main", CUSTOM, NOON) == 636
    assert quotas.used(db, "main", CUSTOM, quotas.day(NOON)) == 364
    assert quotas.left(db, "main", TEMPLATE, NOON) is None and quotas.left(db, "other", CUSTOM, NOON) is None
    tomorrow = NOON + 86_400_000
    assert quotas.left(db, "main", CUSTOM, tomorrow) == 1000
    with db.transaction():
        quotas.count(db, "main", CUSTOM, quotas.day(tomorrow), 1)
    assert quotas.left(db, "main", CUSTOM, tomorrow) == 999 and quotas.left(db, "main", CUSTOM, NOON) == 636


def test_wechats_figure_replaces_ours_beyond_its_tolerance_and_keeps_what_is_intended(bench: Make) -> None:
    db, today = bench().db, quotas.day(NOON)
    with db.transaction():
        quotas.count(db, "main", CUSTOM, today, 5000)
        quotas.intend(db, "main", CUSTOM, today, 100)
        quotas.observe(db, "main", CUSTOM, NOON, 100_000, 4100)
    assert quotas.used(db, "main", CUSTOM, today) == 5100  # within 1 % of the limit: ours is exact
    for spent in (9000, 2000):  # another system calls too; a crash had counted too much
        with db.transaction():
            quotas.observe(db, "main", CUSTOM, NOON, 100_000, spent)
        assert quotas.left(db, "main", CUSTOM, NOON) == 100_000 - spent - 100
    with db.transaction():
        quotas.tidy(db, NOON, nobody_claimed=True)
    assert quotas.used(db, "main", CUSTOM, today) == 2000


def test_the_operators_limit_holds_where_it_is_the_lower_one(bench: Make) -> None:
    db = bench().db
    with db.transaction():
        quotas.observe(db, "main", CUSTOM, NOON, 500, 0)
        quotas.cap(db, "main", CUSTOM, NOON, 1000)
    assert quotas.left(db, "main", CUSTOM, NOON) == 500
    with db.transaction():
        quotas.cap(db, "main", CUSTOM, NOON, 100)
    assert quotas.left(db, "main", CUSTOM, NOON) == 100
    with db.transaction():
        quotas.cap(db, "main", CUSTOM, NOON, None)
    assert quotas.left(db, "main", CUSTOM, NOON) == 500


def test_who_was_claimed_before_midnight_is_not_taken_off_the_new_day() -> None:
    intent = Intent()
    intent.claimed(10, day=5)
    intent.recorded(4)
    intent.claimed(20, day=6)
    assert (intent.earlier, intent.today) == (6, 20)
    assert intent.of_today(6) == 0 and intent.of_today(10) == 4
    intent.recorded(10)
    assert (intent.earlier, intent.today, intent.of_today(16)) == (0, 16, 16)


def test_everything_that_was_called_is_counted_and_nothing_is_intended_at_the_end(bench: Make) -> None:
    b = bench(no_window=0.3, busy=0.1)
    b.campaign(300)
    b.work()
    wait_for(lambda: b.state() == "done", "the end", 30)
    wait_for(lambda: idle(b.workers[0]), "idleness")
    today = quotas.day(wall_ms())
    assert quotas.used(b.db, "main", CUSTOM, today) == calls(b) > 300
    assert quotas.used(b.db, "main", TEMPLATE, today) == calls(b, "template") > 50
    assert b.db.rows("SELECT SUM(intended) FROM fanout_quota_part") == [(0,)]


def test_a_crash_loop_counts_no_call_too_little_and_spends_no_day_twice(bench: Make) -> None:
    b = bench(concurrency=8, latency="20ms")
    with b.db.transaction():
        quotas.cap(b.db, "main", CUSTOM, wall_ms(), 400)
    b.campaign(1000)
    today = quotas.day(wall_ms())
    for slot in range(1, 6):
        worker, before = b.work(slot), calls(b)
        wait_for(lambda before=before: calls(b) > before + 30, "some calls")
        worker.kill()
        assert quotas.used(b.db, "main", CUSTOM, today) >= calls(b)
        b.recover()
        assert quotas.used(b.db, "main", CUSTOM, today) >= calls(b)
        assert quotas.used(b.db, "main", CUSTOM, today) <= calls(b) + 8 * slot
    last = b.work(6)

    def spent() -> bool:
        if idle(last):
            last.say(t="work")  # as the dispatcher does while any shard is free
        return quotas.known(b.db, "main", wall_ms())[CUSTOM].spent

    wait_for(spent, "the last call of the day", 30)
    assert 400 - 8 * 5 <= calls(b) <= 400
    assert b.counts().pending >= 600 and b.state() == "running"
    limits(b, b.sandbox.url, []).sweep(b.db)
    assert (reason(b) or "").startswith("today's calls are used up: custom until 00:0")


# ---- 45009


def test_45009_rests_its_channel_until_midnight_and_nobody_crosses_over(bench: Make) -> None:
    b = bench(concurrency=16, latency="20ms")
    b.campaign(300)
    b.sandbox.scripts({person(i): [45015] for i in range(10)} | {person(i): [45009] for i in range(30, 300)})
    worker = b.work()
    wait_for(lambda: b.counts().sent_template == 10 and free_shards.totals(b.db)[1] == 0 and idle(worker), "idleness")
    assert (b.counts().sent_custom, b.counts().pending) == (20, 270)
    assert calls(b) <= 30 + 2 * 16 and calls(b, "template") == 10
    assert b.state() == "running" and "custom until 00:0" in (reason(b) or "")
    assert quotas.resting(b.db, "main", CUSTOM, wall_ms()) == quotas.reopening("main", CUSTOM, wall_ms())
    assert free_shards.totals(b.db) == (3, 0) and free_shards.ready(b.db) == 0
    assert not b.db.rows("SELECT 1 FROM fanout_delivery WHERE state = %s", State.FAILED)
    before = calls(b)
    worker.say(t="work")  # told again, it looks and finds nothing: another worker likewise
    other = b.work(slot=2)
    wait_for(lambda: idle(other) and idle(worker), "idleness")
    assert calls(b) == before


def test_the_other_channel_goes_on(bench: Make) -> None:
    b = bench(concurrency=16)
    b.campaign(300)
    b.sandbox.scripts({person(i): [45015] for i in range(0, 300, 2)})
    b.sandbox.scripts({person(i): [45009] for i in range(0, 300, 2)}, channel="template")
    worker = b.work()
    wait_for(lambda: b.counts().sent_custom == 150 and idle(worker), "the end of what may be sent")
    assert b.counts().pending == 150
    assert calls(b) == 300 and 0 < calls(b, "template") <= 32
    assert "template until 00:0" in (reason(b) or "") and "custom" not in (reason(b) or "")
    # At the end of the rest they go on where they were.
    b.sandbox.scripts({person(i): [0] for i in range(0, 300, 2)}, channel="template")
    with b.db.transaction():
        quotas.reopen(b.db, "main", TEMPLATE)
        shard_leases.unpark(b.db, "main")
    worker.say(t="work")
    wait_for(lambda: b.state() == "done", "the end")
    assert b.counts().sent_template == 150 and calls(b) == 300 and set(b.accepted().values()) == {1}


def test_after_the_rest_one_single_call_tries_and_all_go_on_when_it_is_taken(bench: Make) -> None:
    b = bench(concurrency=16, latency="100ms")
    b.campaign(200)
    over(b)
    workers = [b.work(slot) for slot in (1, 2)]
    wait_for(lambda: idle(workers[1]) or idle(workers[0]), "the other one's idleness")
    wait_for(lambda: free_shards.ready(b.db) > 0, "the rest's end in the store")
    workers[0].say(t="work")
    wait_for(lambda: b.state() == "done", "the end")
    first, second, *_ = sorted(row["t"] for row in b.sandbox.ledger_rows())
    assert second > first + 0.1, "somebody was called before the answer was known"
    assert quotas.known(b.db, "main", wall_ms())[CUSTOM].rest_until is None
    assert b.counts().sent_custom == 200 and calls(b) == 200


def test_a_try_that_is_refused_is_repeated_an_hour_later(bench: Make) -> None:
    b = bench(concurrency=16)
    b.campaign(200)
    b.sandbox.scripts({person(i): [45009] for i in range(200)})
    over(b)
    worker = b.work()
    wait_for(lambda: idle(worker), "idleness")
    assert calls(b) == 1 and b.counts().pending == 200
    until = quotas.resting(b.db, "main", CUSTOM, wall_ms())
    assert until is not None and abs(until - wall_ms() - REFUSED_MS) < 20_000


def test_nobody_tries_before_wechat_was_asked(bench: Make) -> None:
    b = bench()
    b.campaign(10)
    over(b, ago_ms=1000)
    worker = b.work()
    wait_for(lambda: idle(worker), "idleness")
    assert calls(b) == 0


# ---- what WeChat says of it


@contextmanager
def wechat(answer: object) -> Iterator[tuple[str, list[tuple[str, object]]]]:
    """A server that answers every POST so; its address, and what it was asked."""
    asked: list[tuple[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def limits(b: Bench, url: str, reopened: list[int]) -> Limits:
    account = replace(b.config.accounts["main"], api_base=url)
    return Limits(replace(b.config, accounts={"main": account}), lambda _db: reopened.append(1))


GOOD = {"errcode": 0, "errmsg": "ok", "quota": {"daily_limit": 500_000, "used": 1200, "remain": 498_800}}


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, {"errcode": 76003}, {"quota": None}, {"quota": {"daily_limit": "1", "used": 1, "remain": 1}},
     {"quota": {"daily_limit": 1, "used": -1, "remain": 1}}, {"quota": {"daily_limit": True, "used": 0, "remain": 0}}],
)  # fmt: skip
def test_an_answer_without_figures_says_nothing(answer: object) -> None:
    assert counted(answer) is None


def test_wechat_is_asked_for_the_path_of_the_channel(bench: Make) -> None:
    b = bench()
    with wechat(GOOD) as (url, asked):
        account = replace(b.config.accounts["main"], api_base=url)
        assert ask(account, "TOKEN", "custom") == Counted(500_000, 1200, 498_800)
    assert asked == [
        ("/cgi-bin/openapi/quota/get?access_token=TOKEN", {"cgi_path": "/cgi-bin/message/custom/send"})
    ]
    assert ask(account, "TOKEN", "custom") is None  # nobody listens there any more


def test_what_wechat_has_left_ends_a_rest_without_a_call(bench: Make) -> None:
    b, reopened = bench(), []
    b.campaign(10)
    over(b, ago_ms=1)
    with wechat(GOOD) as (url, asked):
        limits(b, url, reopened).sweep(b.db)
    assert len(asked) == 1 and reopened == [1]
    assert quotas.known(b.db, "main", wall_ms())[CUSTOM].rest_until is None
    assert quotas.left(b.db, "main", CUSTOM, wall_ms()) == 498_800


def test_while_wechat_has_nothing_left_it_is_asked_again_later(bench: Make) -> None:
    b, reopened = bench(), []
    b.campaign(10)
    over(b, ago_ms=1)
    with wechat({"quota": {"daily_limit": 1000, "used": 1000, "remain": 0}}) as (url, asked):
        for _ in range(3):
            limits(b, url, reopened).sweep(b.db)
    until = quotas.resting(b.db, "main", CUSTOM, wall_ms())
    assert until is not None and abs(until - wall_ms() - NOT_YET_MS) < 20_000
    assert len(asked) == 1 and not reopened


def test_accounts_at_work_are_asked_for_and_idle_ones_are_not(bench: Make) -> None:
    b = bench()
    with wechat(GOOD) as (url, asked):
        limits(b, url, []).check(b.db)
        assert not asked
        b.campaign(10)
        here = limits(b, url, [])
        here.begins(b.db, "main")
        here.begins(b.db, "main")
        assert len(asked) == 2  # once for each channel
        here.check(b.db)
    assert len(asked) == 4
    assert here.quota(b.db, "main") == {
        "custom": {"limit": 500_000, "used": 1200, "left": 498_800},
        "template": {"limit": 500_000, "used": 1200, "left": 498_800},
    }


def test_the_reason_names_channel_and_time_in_the_accounts_zone() -> None:
    until = quotas.reopening("main", CUSTOM, NOON)
    words = gates.reason({CUSTOM: gates.Closed("quota", until)}, "UTC", NOON)
    assert words.startswith("today's calls are used up: custom until 16:0") and "(UTC)" in words


class Capped(Daemon):
    ACCOUNT = "daily_limit = { custom = 40 }\nmax_failures = 1"


def shut(b: Bench, count: int) -> None:
    """Of so many people the window is known to be shut: they are due on the template at once."""
    now = wall_ms()
    with b.db.transaction():
        subscribers.change(
            b.db, "main", [person(i) for i in range(count)], now,
            lambda known: replace(known, window_kind="message", window_until=now - 1000, window_left=5),
        )  # fmt: skip


def test_who_is_due_on_a_closed_channel_for_his_shut_window_waits_and_keeps_nobody_else_waiting(bench: Make) -> None:
    b = bench(concurrency=16)
    b.campaign(3000)
    shut(b, 3000)
    with b.db.transaction():
        quotas.rest(b.db, "main", TEMPLATE, quotas.reopening("main", TEMPLATE, wall_ms()), wall_ms())
        row = campaigns.get(b.db, "c-1")
        assert row is not None
        campaigns.insert(b.db, replace(row, id="c-2", created_at=row.created_at + 10))
        shards.add(b.db, "c-2", 0, [Planned(f"oNEWCOMER{i:019d}") for i in range(20)])
    worker = b.work()
    wait_for(lambda: b.counts("c-2").sent_custom == 20, "the newer campaign")
    wait_for(lambda: idle(worker), "idleness")
    assert b.counts().pending == 3000 and calls(b, "template") == 0
    leases, size = b.db.rows("SELECT SUM(token), COUNT(*) FROM fanout_shard WHERE campaign = 'c-1'")[0]
    assert leases <= 2 * size  # each was looked at, and not over and over


def test_who_is_due_on_an_open_channel_for_his_shut_window_does_not_wait_for_the_closed_one(bench: Make) -> None:
    b = bench(concurrency=16)
    b.campaign(100)
    shut(b, 100)
    with b.db.transaction():
        quotas.rest(b.db, "main", CUSTOM, quotas.reopening("main", CUSTOM, wall_ms()), wall_ms())
    b.work()
    wait_for(lambda: b.counts().sent_template == 100, "all by template")
    assert calls(b) == 0


def test_a_daemon_stops_at_the_operators_limit_says_so_and_goes_on_when_it_is_raised(tmp_path: Path) -> None:
    d = Capped(tmp_path, followers=100)
    try:
        campaign = d.call("campaign.submit", content="x", phone="1")["campaign"]
        def waits() -> bool:
            seen = d.call("campaign.get", campaign=campaign)
            return seen["state"] == "running" and "custom until 00:0" in (seen["reason"] or "")

        wait_for(waits, "the reason")
        wait_for(lambda: d.call("campaign.get", campaign=campaign)["counts"]["pending"] == 60, "the limit")
        account = d.call("daemon.status")["accounts"][0]
        assert account["rate"] == 100_000
        assert account["quota"]["custom"] == {"limit": 40, "used": 40, "left": 0}
        d.config.write_text(d.config.read_text().replace("custom = 40", "custom = 1000"))
        d.process.send_signal(1)
        done = d.until(campaign)
        assert done["counts"]["sent_custom"] == 100 and done["reason"] is None
        assert d.audit(campaign).good
    finally:
        d.close()


def test_what_was_counted_before_there_were_rows_of_workers_counts_on(tmp_path: Path) -> None:
    db = open_store(f"sqlite:///{tmp_path / 'old.db'}")
    migrate(db, MIGRATIONS[:3])
    today, at = quotas.day(wall_ms()), wall_ms()
    db.execute(
        "INSERT INTO fanout_quota (account, channel, day, used, intended, daily_limit) "
        "VALUES ('main', 1, %s, 100, 5, 200)",
        today,
    )
    migrate(db)
    with db.transaction():
        quotas.count(db, "main", CUSTOM, today, 20, "a/1")
    assert quotas.left(db, "main", CUSTOM, at) == 75 and quotas.known(db, "main", at)[CUSTOM].made == 120
    with db.transaction():  # nobody of the version before is at work any more
        quotas.tidy(db, at, nobody_claimed=True)
    assert quotas.left(db, "main", CUSTOM, at) == 80


# ---- on a store that several nodes share


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Bench]:
    # Slow enough for every worker to have its part before one of them has done everything.
    b = Bench(tmp_path, store=mariadb.server().database(), latency="100ms")
    yield b
    b.close()


def test_two_workers_counts_wait_for_nobody_and_near_the_limit_the_second_one_sees_the_first(shared: Bench) -> None:
    today, at = quotas.day(wall_ms()), wall_ms()
    one, two = (open_store(shared.config.store_url) for _ in range(2))
    with one.closing(), two.closing():
        for db in (one, two):
            db.set_patience(1)
        with one.transaction():  # both are the day's first
            quotas.count(one, "main", CUSTOM, today, 10, "a/1")
            with two.transaction():
                quotas.intend(two, "main", CUSTOM, today, 64, "b/1")
                assert quotas.used(two, "main", CUSTOM, today) == 64
        assert quotas.used(one, "main", CUSTOM, today) == 74
        with one.transaction():
            quotas.cap(one, "main", CUSTOM, at, 100)
        first, second = quotas.Sum("a/1"), quotas.Sum("b/1")
        with one.transaction():
            first.alone(one, "main", CUSTOM)
            first.intend("main", CUSTOM, today, 26)
            assert first.known(one, "main", at)[CUSTOM].left == 0
            first.write(one)
            with pytest.raises(StoreBusy), two.transaction():
                second.alone(two, "main", CUSTOM)
        with two.transaction():
            second.alone(two, "main", CUSTOM)
            assert second.known(two, "main", at)[CUSTOM].left == 0


def test_workers_that_claim_at_once_never_pass_the_limit(shared: Bench) -> None:
    with shared.db.transaction():
        quotas.cap(shared.db, "main", CUSTOM, wall_ms(), 300)
    shared.campaign(1000, shard=50)
    workers = [shared.work(slot) for slot in (1, 2, 3)]

    def spent() -> bool:
        for each in workers:  # who found the rest intended by others has parked its shards: the dispatcher's sweep
            if idle(each):
                each.say(t="work")
        return quotas.known(shared.db, "main", wall_ms())[CUSTOM].spent

    wait_for(spent, "the last call of the day", 30)
    wait_for(lambda: calls(shared) == quotas.used(shared.db, "main", CUSTOM, quotas.day(wall_ms())) == 300, "300 calls")
    wait_for(lambda: all(idle(each) for each in workers), "idleness")
    assert calls(shared) == quotas.used(shared.db, "main", CUSTOM, quotas.day(wall_ms())) == 300
    owners = shared.db.rows("SELECT COUNT(*) FROM fanout_quota_part WHERE used > 0")[0][0]
    assert owners > 1


def test_a_single_try_is_one_over_all_nodes_and_a_day_begins_for_both_at_once(shared: Bench) -> None:
    midnight = (quotas.day(wall_ms()) + 1) * 86_400_000 - 8 * 3_600_000
    with shared.db.transaction():
        quotas.rest(shared.db, "main", CUSTOM, midnight + 1000, wall_ms())
    won: list[bool] = []

    def attempt() -> None:
        db = open_store(shared.config.store_url)
        with db.closing(), db.transaction():
            won.append(quotas.take_probe(db, "main", CUSTOM, midnight + 1000, midnight + 60_000))

    threads = [threading.Thread(target=attempt) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(won) == [False] * 5 + [True]


def test_the_counts_of_the_dead_are_put_together_and_of_the_living_nothing_is_lost(shared: Bench) -> None:
    db, at, today = shared.db, wall_ms(), quotas.day(wall_ms())
    shared.campaign(10)
    with db.transaction():
        lease = free_shards.lease(db, "b/1")
        assert lease is not None
        quotas.count(db, "main", CUSTOM, today, 10, "a/1")
        quotas.intend(db, "main", CUSTOM, today, 5, "a/1")
        quotas.intend(db, "main", CUSTOM, today, 7, "b/1")
        quotas.count(db, "main", CUSTOM, today - 8, 99, "a/1")
    with db.transaction():
        quotas.tidy(db, at, nobody_claimed=False)
    assert db.rows("SELECT owner, used, intended FROM fanout_quota_part ORDER BY owner") == [("", 10, 0), ("b/1", 0, 7)]
    with db.transaction():
        quotas.settle(db, "main", CUSTOM, at, 7, {CUSTOM: 3}, "b/1")
        quotas.observe(db, "main", CUSTOM, at, 100_000, 5000)
        quotas.count(db, "main", CUSTOM, today, 2, "b/1")
    assert quotas.known(db, "main", at)[CUSTOM].used == quotas.used(db, "main", CUSTOM, today) == 5002
