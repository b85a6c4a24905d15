"""Several processes at one store at the same moment: what one alone would have made of it comes out.

On SQLite only one writes at a time; on a server all of them do, and only locks keep what is read true until it is
written.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from fanoutd.config import load
from fanoutd.dispatcher import commands, recovery, token_forced
from fanoutd.dispatcher.importer import bring_in
from fanoutd.dispatcher.planner import Planner
from fanoutd.dispatcher.queries import RpcError
from fanoutd.dispatcher.refresher import Refresher
from fanoutd.dispatcher.token_sources import Refused
from fanoutd.figures_file import Meter
from fanoutd.journal import Journal, tag
from fanoutd.outcome import NEVER_HEARD, Progress, State
from fanoutd.spool import Spool
from fanoutd.standing import Standing
from fanoutd.store import (
    Database,
    again_if_busy,
    campaigns,
    counters,
    deliveries,
    finishing,
    free_shards,
    open_store,
    outbox,
    records,
    shard_leases,
    shards,
    subscribers,
    tokens,
    windows,
)
from fanoutd.store.campaigns import Campaign
from fanoutd.store.schema import migrate
from fanoutd.store.shards import Planned
from fanoutd.store.tokens import Token
from fanoutd.worker.recorder import Recorder
from fanoutd.worker.words import Dry, Finished
from support.bench import CONFIG, Bench, wait_for
from support.racers import Other, before, race
from support.stores import KINDS, url

#: A race that somebody wins by chance is run so often.
ROUNDS = 6


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of one with all its tables."""
    made = url(request.param, tmp_path)
    with closing(open_store(made)) as db:
        migrate(db)
    return made


@pytest.fixture
def db(store: str) -> Iterator[Database]:
    made = open_store(store)
    yield made
    made.close()


def person(i: int) -> str:
    return f"oRACE{i:023d}"


def campaign(db: Database, name: str, sizes: tuple[int, ...] = (), **more: Any) -> str:
    """With shards of these sizes, planned if there are any."""
    row = Campaign(name, "main", "supply", None, None, None, "running", None, None, 1, None, 1, None, bool(sizes), "n1",
                   "query", {"channels": ["custom", "template"]})  # fmt: skip
    with db.transaction():
        campaigns.insert(db, replace(row, **more))
        at = 0
        for idx, size in enumerate(sizes):
            shards.add(db, name, idx, [Planned(person(i)) for i in range(at, at + size)])
            at += size
    return name


def found(db: Database, name: str) -> Campaign:
    there = campaigns.get(db, name)
    assert there is not None
    return there


def the_counters_are_true(db: Database) -> None:
    columns = "pending, sent_custom, sent_template, failed, skipped, unknown, resend"
    before = db.rows(f"SELECT id, {columns}, errors FROM fanout_shard ORDER BY id")
    with db.transaction():
        for row in before:
            counters.recount(db, row[0])
    after = db.rows(f"SELECT id, {columns}, errors FROM fanout_shard ORDER BY id")
    as_read = [[(*row[:-1], Counter(json.loads(row[-1]))) for row in each] for each in (before, after)]
    assert as_read[0] == as_read[1]


def over(db: Database, name: str) -> None:
    """Nobody leases anything of it any more."""
    with db.transaction():
        db.execute("UPDATE fanout_campaign SET state = 'cancelled' WHERE id = %s", name)


# ---- one campaign, many processes


def send_all(db: Database, owner: str, name: str) -> list[str]:
    """Lease, claim, "send", record, release, finish, until the campaign is done; whom it has sent to."""
    sent: list[str] = []
    while found(db, name).state != "done":
        held = again_if_busy(partial(_lease, db, owner))
        while held is not None:
            people = again_if_busy(partial(_claim, db, held))
            results = [(p.pos, _outcome(p.pos)) for p in people or ()]
            sent += [p.openid for p in people or ()]
            with_more = bool(results)
            again_if_busy(partial(_record, db, held, results, not with_more))
            held = held if with_more else None
        again_if_busy(partial(_finish, db, name))
    return sent


def _outcome(pos: int) -> Progress:
    if pos % 5 == 0:
        return Progress(State.FAILED, 1, (43004, 45015, 40003)[pos % 3], attempts=1)
    return Progress(State.SENT, 1 + pos % 2, 0, pos if pos % 2 else None, attempts=1)


def _lease(db: Database, owner: str) -> shard_leases.Lease | None:
    with db.transaction():
        return free_shards.lease(db, owner)


def _claim(db: Database, held: shard_leases.Lease) -> list[deliveries.Person] | None:
    with db.transaction():
        return windows.claim(db, held, 17)


def _record(db: Database, held: shard_leases.Lease, results: list[records.Result], last: bool) -> None:
    with db.transaction():
        records.record(db, held.shard, held.token, results)
        if last:
            shard_leases.release(db, held)


def _finish(db: Database, name: str) -> bool:
    with db.transaction():
        return finishing.finish(db, name)


def plan(db: Database, name: str, people: int) -> None:
    """As the dispatcher does; cut off by a pause it is begun again."""
    spool: Any = SimpleNamespace(remove=lambda _campaign: None)
    nothing: Any = None
    planner = Planner(nothing, spool, "n1", lambda _shards: None)
    while not (there := found(db, name)).planned:
        if there.state in ("planning", "running"):
            everybody = iter([Planned(person(i)) for i in range(people)])
            with (
                mock.patch("fanoutd.dispatcher.planner.stream", lambda *_a, rows=everybody: rows),
                mock.patch("fanoutd.dispatcher.planner.excluded", lambda *_a: iter(())),
            ):
                again_if_busy(partial(planner.plan, db, there))


def pause_and_resume(db: Database, name: str, times: int) -> None:
    for _ in range(times):
        for order in (commands.pause, commands.resume):
            try:
                again_if_busy(lambda order=order: order(db, found(db, name)))
            except RpcError as e:
                assert "done" in str(e)


def test_everybody_once_whoever_leases_claims_records_plans_pauses_and_finishes_at_the_same_time(
    store: str, db: Database
) -> None:
    name, people = campaign(db, "c-1", state="planning"), 900
    results = race(
        store, partial(plan, name=name, people=people), partial(pause_and_resume, name=name, times=6),
        *(partial(send_all, owner=f"n{i}/w1", name=name) for i in range(4)),
    )  # fmt: skip
    sent = Counter(openid for each in results[2:] for openid in each)
    assert set(sent) == {person(i) for i in range(people)} and set(sent.values()) == {1}
    assert found(db, name).state == "done" and counters.counts(db, name).total == people
    assert db.rows("SELECT COUNT(*), SUM(owner IS NOT NULL) FROM fanout_shard WHERE pending > 0") == [(0, None)]
    assert db.rows("SELECT owner FROM fanout_shard WHERE owner IS NOT NULL") == []
    assert sorted(each.name for each in outbox.due(db)) == ["campaign_mail", "on_finish"]
    the_counters_are_true(db)


# ---- a campaign's end


def lost(db: Database, name: str) -> shard_leases.Lease:
    """A shard whose people are unknown since its lease was taken from its worker, who may still tell of them."""
    campaign(db, name, (6,))
    with db.transaction():
        held = free_shards.lease(db, f"n2/{name}")
        assert held is not None and held.campaign == name
        windows.claim(db, held, 6)
        gone = Progress(State.UNKNOWN, 1, None, attempts=1, since=NEVER_HEARD)
        records.record(db, held.shard, held.token, [(i, gone) for i in range(6)])
        shard_leases.release(db, held)
    return held


def test_a_late_word_that_somebody_was_never_sent_to_and_the_campaigns_end_see_each_other(
    store: str, db: Database
) -> None:
    for i in range(ROUNDS):
        held = lost(db, f"c-{i}")
        never = [(pos, Progress(State.PENDING)) for pos in range(6)]
        race(store, partial(again, partial(_finish, name=held.campaign)),
             partial(again, partial(_record, held=held, results=never, last=False)))  # fmt: skip
        assert found(db, held.campaign).state == "running" and counters.counts(db, held.campaign).pending == 6
        over(db, held.campaign)
    the_counters_are_true(db)


def again(step: Any, db: Database) -> Any:
    return again_if_busy(lambda: step(db))


def ordered(db: Database, order: Any, *args: Any) -> str | None:
    """The state after it, None when it was refused."""
    try:
        state: str = again_if_busy(lambda: order(db, *args))
        return state
    except RpcError:
        return None


def test_a_retry_and_the_end_of_a_campaign_leave_nobody_behind(store: str, db: Database) -> None:
    for i in range(ROUNDS):
        name = campaign(db, f"c-{i}", (40,))
        with db.transaction():
            held = free_shards.lease(db, "n1/w1")
            assert held is not None
            windows.claim(db, held, 40)
            records.record(db, held.shard, held.token, [(pos, Progress(State.FAILED, 1, 43004)) for pos in range(40)])
            shard_leases.release(db, held)
        commands.pause(db, found(db, name))
        paused = found(db, name)
        race(store, partial(ordered, order=partial(_swapped, commands.resume, paused)),
             partial(ordered, order=partial(_swapped, commands.retry, paused, True, False)))  # fmt: skip
        left = db.rows("SELECT id FROM fanout_shard WHERE campaign = %s AND (pending > 0 OR resend > 0)", name)
        assert (found(db, name).state == "done") == (not left)
        over(db, name)
    the_counters_are_true(db)


def _swapped(order: Any, *args: Any) -> Any:
    """``order(db, …)`` with the rest given before."""
    *given, db = args
    return order(db, *given)


# ---- words about people who have ended


def test_a_workers_record_a_late_word_and_an_operators_add_up(store: str, db: Database) -> None:
    for i in range(ROUNDS):
        held = lost(db, f"c-{i}")
        with db.transaction():
            db.execute("UPDATE fanout_shard SET pending = 6, size = 12 WHERE id = %s", held.shard)
            db.insert_many("INSERT INTO fanout_delivery (shard, pos, openid) VALUES (%s, %s, %s)",
                           [(held.shard, pos, person(pos)) for pos in range(6, 12)])  # fmt: skip
            now = free_shards.lease(db, f"n1/{i}")
            assert now is not None and now.shard == held.shard
            windows.claim(db, now, 12)
        refused = [(pos, Progress(State.FAILED, 1, 43004 + pos % 2, attempts=1)) for pos in range(12)]
        race(
            store, partial(again, partial(_record, held=now, results=refused[6:], last=True)),
            partial(again, partial(_record, held=held, results=refused[:4], last=False)),
            partial(ordered, order=partial(_swapped, commands.settle, found(db, held.campaign), "sent", None)),
        )  # fmt: skip
        counts = counters.counts(db, held.campaign)
        assert (counts.pending, counts.unknown, counts.total) == (0, 0, 12)
        assert 6 <= counts.failed == sum(counts.errors.values()) <= 10
    the_counters_are_true(db)


def test_nodes_that_settle_one_shard_come_to_one_result(
    store: str, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanoutd.dispatcher.recovery.TAKEN_OVER_AFTER_MS", -(10**9))
    for i in range(ROUNDS):
        name, folder = campaign(db, f"c-{i}", (10, 10)), tmp_path / f"journals{i}"
        folder.mkdir()
        journal = Journal(folder, "w1")
        for _ in range(2):
            with db.transaction():
                held = free_shards.lease(db, "n1/w1")
                assert held is not None
                journal.lease(held.shard, held.token, held.campaign)
                people = windows.claim(db, held, 10)
            journal.granted(held.shard, held.token, held.campaign)
            assert people
            for p in people[:2]:  # two calls, of which one was answered
                journal.sending((held.shard, p.pos, held.token), 1, tag(p.openid))
            journal.answer((held.shard, people[0].pos, held.token), 1, tag(people[0].openid), 0, None)
        os.close(journal._fd)
        for _ in range(2):  # the node whose journal it is may come too late, and tells then
            race(store, *(partial(again, partial(recovery.take_over, node=node)) for node in ("n2", "n3")),
                 partial(again, partial(_recover, folder=folder)))  # fmt: skip
        counts = counters.counts(db, name)
        assert (counts.sent_custom, counts.unknown, counts.pending) == (2, 2, 16)
        assert found(db, name).state == "running"
        assert db.rows("SELECT id FROM fanout_shard WHERE owner IS NOT NULL") == []
        over(db, name)
    the_counters_are_true(db)


def _recover(db: Database, folder: Path) -> int:
    return recovery.recover(db, folder, "n1", lambda _account: False)


# ---- planning, pausing


def test_nobody_is_planned_after_the_answer_to_a_pause(store: str, db: Database) -> None:
    for i in range(3):
        name = campaign(db, f"c-{i}", state="planning")

        def pause_and_look(db: Database, name: str = name) -> list[int]:
            while not db.rows("SELECT 1 FROM fanout_shard WHERE campaign = %s", name):
                pass
            again_if_busy(lambda: commands.pause(db, found(db, name)))
            return [row[0] for row in db.rows("SELECT id FROM fanout_shard WHERE campaign = %s", name)]

        _, seen = race(store, partial(plan_once, name=name, people=100_000), pause_and_look)
        assert [row[0] for row in db.rows("SELECT id FROM fanout_shard WHERE campaign = %s", name)] == seen
        assert not found(db, name).planned


def plan_once(db: Database, name: str, people: int) -> None:
    there = found(db, name)
    spool: Any = SimpleNamespace(remove=lambda _campaign: None)
    nothing: Any = None

    def slowly(*_: Any) -> Iterator[Planned]:
        for i in range(people):
            time.sleep(0.001 if i % 50 == 49 else 0)  # or it would be over before anybody can pause it
            yield Planned(person(i))

    with (
        mock.patch("fanoutd.dispatcher.planner.stream", slowly),
        mock.patch("fanoutd.dispatcher.planner.excluded", lambda *_a: iter(())),
    ):
        again_if_busy(lambda: Planner(nothing, spool, "n1", lambda _n: None).plan(db, there))


def test_an_operators_pause_holds_though_the_token_comes_back(store: str, db: Database) -> None:
    config: Any = SimpleNamespace(accounts={"main": None})
    for i in range(ROUNDS):
        name = campaign(db, f"c-{i}", (5,), state="paused", cause="token", reason="no token")
        race(store, lambda db: again_if_busy(lambda: Refresher(config, print)._resumed(db, "main")),
             partial(ordered, order=partial(_swapped, commands.pause, found(db, name))))  # fmt: skip
        assert (found(db, name).state, found(db, name).cause) == ("paused", "operator")


def test_a_campaign_that_is_not_to_be_trusted_is_not_resumed_by_whoever_read_it_before(
    store: str, db: Database
) -> None:
    for i in range(ROUNDS):
        name = campaign(db, f"c-{i}", (5,), state="paused", cause="operator", reason="x")
        before = found(db, name)
        race(store, partial(again, partial(commands.pause_unfinished, cause="past", reason="restored")),
             partial(ordered, order=partial(_swapped, commands.pause, before)))  # fmt: skip
        assert found(db, name).cause == "past"
        assert ordered(db, partial(_swapped, commands.resume, before)) is None


# ---- what comes in


def test_of_two_nodes_that_import_one_key_the_first_in_the_store_wins(
    store: str, db: Database, tmp_path: Path
) -> None:
    file = tmp_path / "fanoutd.toml"
    file.write_text(CONFIG.format(url="http://127.0.0.1:9", concurrency=1, rate=1, keepalive="5s", timeout="1s",
                                  store=store))  # fmt: skip
    file.chmod(0o600)
    config, spools = load(file), []
    for node in ("n1", "n2", "n3"):
        spools.append(Spool(tmp_path / node))
        (tmp_path / node).mkdir()
        spools[-1].prepare()

    def take_in(db: Database, node: int, name: str) -> Campaign | None:
        return again_if_busy(lambda: bring_in(db, spools[node], config, f"n{node + 1}", name))

    for i in range(ROUNDS):
        for node, spool in enumerate(spools):
            spool.accept({
                "v": 1, "campaign": f"k-{i}", "at": 1, "account": "main", "message": "supply", "audience": "default",
                "openids": None, "upload": None, "reference": None, "key": "k", "send_at": None, "phone": None,
                "content": f"of {node}", "data": {}, "page": None, "page_size": 500, "test": False, "cron": None,
                "uid": 0, "pid": 0,
            }, keyed=True)  # fmt: skip
        results = race(store, *(partial(take_in, node=node, name=f"k-{i}") for node in range(3)))
        there = found(db, f"k-{i}")
        assert results == [there] * 3 and there.definition["content"] == f"of {int(there.node[1]) - 1}"
        assert not any(spool.pending() for spool in spools)


# ---- small things


def test_of_many_tokens_that_are_saved_at_once_the_newest_stands(store: str, db: Database) -> None:
    for i in range(ROUNDS):  # the first have to make the row

        def keep(db: Database, age: int, account: str = f"a{i}") -> bool:
            with db.transaction():
                return tokens.save(db, account, Token(f"token {age}", 9_000_000 - age, 1000 - age))

        saved = race(store, *(partial(again, partial(keep, age=age)) for age in (2, 0, 3, 1)))
        assert saved[1]  # whoever comes with the newest one
        assert tokens.load(db, f"a{i}") == Token("token 0", 9_000_000, 1000)


def test_one_refresh_is_forced_however_many_nodes_are_told_to(store: str) -> None:
    def note(db: Database) -> bool:
        try:
            again_if_busy(lambda: token_forced.note(db, "main", 10**12))
            return True
        except Refused:
            return False

    assert sorted(race(store, note, note, note)) == [False, False, True]


def test_no_word_of_a_person_is_lost(store: str, db: Database) -> None:
    who = [f"oPERSON{i}" for i in range(5)]

    def one_more(known: Standing) -> Standing:
        return replace(known, window_kind="menu", window_left=(known.window_left or 0) + 1)

    def change(db: Database) -> None:
        for _ in range(6):
            again_if_busy(lambda: _change(db))

    def _change(db: Database) -> None:
        with db.transaction():
            subscribers.change(db, "main", who, 1, one_more)

    def use(db: Database) -> None:
        for _ in range(3):
            again_if_busy(lambda: _use(db))

    def _use(db: Database) -> None:
        with db.transaction():
            subscribers.use(db, "main", who)

    race(store, change, change, change)  # who is first makes the rows
    race(store, change, use, use)
    assert {each.window_left for each in subscribers.load(db, "main", who).values()} == {4 * 6 - 2 * 3}


def test_a_lesson_is_told_to_the_operators_side_once(store: str, db: Database) -> None:
    def learn(db: Database) -> None:
        with db.transaction():
            subscribers.learn(db, "main", {"oPERSON0": 43004, "oPERSON1": 43004}, ("on_gone",))

    race(store, *[partial(again, learn)] * 3)
    assert sorted(each.payload["openid"] for each in outbox.due(db)) == ["oPERSON0", "oPERSON1"]


def test_an_errand_is_taken_by_one(store: str, db: Database) -> None:
    def take(db: Database) -> list[int]:
        return [each.id for each in outbox.due(db) if again_if_busy(partial(outbox.take, db, each, 60_000))]

    with db.transaction():
        for i in range(20):
            outbox.add(db, "on_gone", {"account": "main", "openid": f"oPERSON{i}"})
    everyone = [each.id for each in outbox.due(db)]
    assert sorted(id for each in race(store, take, take, take) for id in each) == everyone
    assert outbox.due(db) == []


# ---- between two statements of one: on a server only


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Database]]:
    made = url("mariadb", tmp_path)
    with closing(open_store(made)) as db:
        migrate(db)
        yield made, db


def test_a_campaign_is_not_done_while_a_late_word_comes(server: tuple[str, Database]) -> None:
    store, db = server
    held = lost(db, "c-1")
    never = [(pos, Progress(State.PENDING)) for pos in range(6)]
    late = before(db, "UPDATE fanout_campaign SET state = 'done'", store,
                  partial(_record, held=held, results=never, last=False))  # fmt: skip
    assert _finish(db, "c-1")
    late.join()
    assert found(db, "c-1").state == "running" and counters.counts(db, "c-1").pending == 6


def test_a_retry_is_not_lost_in_a_campaign_that_ends_meanwhile(server: tuple[str, Database]) -> None:
    store, db = server
    name = campaign(db, "c-1", (4,))
    with db.transaction():
        held = free_shards.lease(db, "n1/w1")
        assert held is not None
        windows.claim(db, held, 4)
        records.record(db, held.shard, held.token, [(pos, Progress(State.FAILED, 1, 43004)) for pos in range(4)])
        shard_leases.release(db, held)
    commands.pause(db, found(db, name))
    paused = found(db, name)
    end = before(db, "SELECT id, owner, errors FROM fanout_shard", store, lambda other: commands.resume(other, paused))
    ordered(db, partial(_swapped, commands.retry, paused, True, False))
    end.join()
    assert end.result == "running"
    assert (found(db, name).state == "done") == (counters.counts(db, name).pending == 0)


def test_nobody_is_planned_who_was_not_there_when_the_pause_was_answered(server: tuple[str, Database]) -> None:
    store, db = server
    name = campaign(db, "c-1", state="planning")

    def pause(other: Database) -> int:
        commands.pause(other, found(other, name))
        return counters.counts(other, name).total

    paused = before(db, "UPDATE fanout_campaign SET state = %s, reason", store, pause)
    plan_once(db, name, 5000)
    paused.join()
    assert paused.result == counters.counts(db, name).total and found(db, name).state == "paused"


def test_a_record_is_written_before_or_after_a_take_over_and_never_within(server: tuple[str, Database]) -> None:
    store, db = server
    campaign(db, "c-1", (6,))
    with db.transaction():
        held = free_shards.lease(db, "n1/w1")
        assert held is not None
        windows.claim(db, held, 6)

    def take(other: Database) -> list[int]:
        with other.transaction():
            if shard_leases.still_held(other, held):  # given back, and leased by another worker at once
                shard_leases.release(other, held)
        with other.transaction():
            theirs = free_shards.lease(other, "n2/w1")
            assert theirs is not None
            return [person.pos for person in windows.claim(other, theirs, 6) or ()]

    taken = before(db, ("SELECT errors FROM fanout_shard", "UPDATE fanout_delivery SET state"), store, take)
    _record(db, held, [(pos, Progress(State.FAILED, 1, 43004)) for pos in range(3)], False)
    taken.join()
    failed = [pos for (pos,) in db.rows("SELECT pos FROM fanout_delivery WHERE state = %s", State.FAILED)]
    assert not set(failed) & set(taken.result)
    the_counters_are_true(db)


@pytest.mark.parametrize("first", [None, Token("first", 5_000, 100)])
def test_an_older_token_never_replaces_one_that_came_between(
    server: tuple[str, Database], first: Token | None
) -> None:
    store, db = server

    def keep(db: Database, token: Token) -> bool:
        with db.transaction():
            return tokens.save(db, "main", token)

    if first is not None:
        keep(db, first)
    newest = Token("newest", 9_000, 300)
    sql = "INSERT INTO fanout_token" if first is None else "UPDATE fanout_token"
    saved = before(db, sql, store, partial(keep, token=newest))
    again(partial(keep, token=Token("older", 8_000, 200)), db)
    saved.join()
    assert saved.result and tokens.load(db, "main") == newest


def test_one_counter_of_two_that_are_written_at_once_is_not_lost(server: tuple[str, Database]) -> None:
    store, db = server
    held = lost(db, "c-1")
    gone = [(pos, Progress(State.FAILED, 1, 43004, attempts=1)) for pos in range(6)]
    other = before(db, "UPDATE fanout_shard SET", store,
                   partial(_record, held=held, results=gone[:3], last=False))  # fmt: skip
    _record(db, held, gone[3:], False)
    other.join()
    assert counters.counts(db, "c-1").errors == {"43004": 6}
    the_counters_are_true(db)


def test_a_shard_that_is_leased_just_as_its_campaign_is_paused_stays_with_nobody(
    server: tuple[str, Database], tmp_path: Path
) -> None:
    store, _ = server
    with closing(Bench(tmp_path, store=store)) as bench:
        name = bench.campaign(200)
        pauses: list[Other] = []

        def opened(url: str) -> Database:
            db = open_store(url)
            pauses.append(before(db, "UPDATE fanout_shard SET owner", url,
                                 lambda other: commands.pause(other, found(other, name))))  # fmt: skip
            return db

        with mock.patch("fanoutd.worker.recorder.open_store", opened):
            meter = Meter(bench.folder / "figures", "1")
            recorder = Recorder(store, bench.journals, "node1", "w1", 8, bench.config.accounts, meter)
            recorder.desk.ask()
            wait_for(lambda: [word for word in recorder.inbox if isinstance(word, Dry)], "the answer")
        pauses[0].join()
        assert bench.db.rows("SELECT id FROM fanout_shard WHERE owner IS NOT NULL") == []
        assert found(bench.db, name).state == "paused"
        recorder.desk.finish()
        wait_for(lambda: [word for word in recorder.inbox if isinstance(word, Finished)], "its end")
