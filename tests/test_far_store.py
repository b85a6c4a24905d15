"""A database that is 50 ms away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fanoutd.store import free_shards, open_store
from fanoutd.store.database import StoreAway
from fanoutd.store.schema import migrate
from support.bench import Bench
from support.far import FAR, compare
from support.mariadb import server
from support.wire import Wire


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, store=server().database())
    yield made
    made.close()


@pytest.mark.quiet
def test_people_are_sent_to_as_fast_as_with_a_database_that_is_near(tmp_path: Path) -> None:
    """Four workers with 400 calls a second for the account, an API that takes 100 ms; `scripts/far` shows more."""
    near, far = compare(tmp_path, server(), people=2800, workers=4, rate=400)
    assert far.sustained >= 0.9 * near.sustained
    assert far.round_trips < 7


def test_what_nobody_waits_for_costs_no_way_there_and_back_and_all_of_it_counts() -> None:
    maria = server()
    with Wire(maria.port, FAR) as wire:
        db = open_store(maria.url(maria.database().rpartition("/")[2], wire.port))
        migrate(db)
        before = wire.requests()
        with db.transaction():
            for name in "abc":
                db.upsert("fanout_meta", {"name": name}, {"value": "1"})
            first = db.later("UPDATE fanout_meta SET value = '2' WHERE name IN ('a', 'b')")
            second = db.later("SELECT value FROM fanout_meta WHERE name < %s ORDER BY name", "d")
            assert (first.count(), second.rows()) == (2, [("2",), ("2",), ("1",)])
            db.later("DELETE FROM fanout_meta WHERE name = 'c'")
        assert wire.requests() == before + 2
        assert db.rows("SELECT name FROM fanout_meta WHERE name < 'd' ORDER BY name") == [("a",), ("b",)]


def test_of_statements_that_go_together_none_comes_after_one_that_fails() -> None:
    """COMMIT neither; and what was asked in vain has no answer."""
    db = open_store(server().database())
    migrate(db)
    with pytest.raises(StoreAway), db.transaction():
        db.later("INSERT INTO fanout_meta (name, value) VALUES ('a', '1')")
        db.later("INSERT INTO fanout_meta (name, value) VALUES ('a', '2')")
        asked = db.later("SELECT 1")
    with pytest.raises(StoreAway):
        asked.rows()
    assert db.one("SELECT 1 FROM fanout_meta WHERE name = 'a'") is None
    assert db.now_ms() > 0


def test_a_text_with_everything_in_it_is_a_text_among_others() -> None:
    db = open_store(server().database())
    migrate(db)
    text = "'; DROP TABLE fanout_meta; -- \\'; %s %% \\0 \n 回复0 \U0001f600"
    with db.transaction():
        db.later("INSERT INTO fanout_meta (name, value) VALUES ('a', %s)", text)
        found = db.later("SELECT value FROM fanout_meta WHERE value = %s", text)
        assert found.rows() == [(text,)]


def test_nobody_waits_for_a_shard_that_somebody_has_leased_since(bench: Bench) -> None:
    """Whoever has it writes down its outcomes, and may wait for us at the same time."""
    bench.campaign(20, shard=10)
    other = open_store(bench.config.store_url)
    other.set_patience(1)
    with other.transaction():
        free = free_shards.ask_free(other)
        assert len(free.rows()) == 2
        with bench.db.transaction():
            first = free_shards.lease(bench.db, "node1/w1")
        assert first is not None
        with bench.db.transaction():
            bench.db.rows(f"SELECT id FROM fanout_shard WHERE id = %s{bench.db.LOCK}", first.shard)
            taken = free_shards.take(other, "node1/w2", 20, free)
    assert len(taken) == 1 and taken[0][0].shard != first.shard
