"""The store's tables on both back ends: made by several at once, by one that is killed, beside the user's own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from fanoutd.errors import BadConfig
from fanoutd.outcome import Progress, State
from fanoutd.store import (
    Database,
    StoreAway,
    campaigns,
    finishing,
    free_shards,
    open_store,
    records,
    schema,
    shard_leases,
    shards,
    windows,
)
from fanoutd.store.campaigns import Campaign
from fanoutd.store.schema import MIGRATIONS, VERSION, migrate
from fanoutd.store.shards import Planned
from support import mariadb, old_campaigns
from support.racers import race
from support.stores import KINDS, opened, tables, url

STATEMENTS = sum(len(each) for each in MIGRATIONS)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of one without any table."""
    return url(request.param, tmp_path)


@pytest.fixture
def db(store: str) -> Iterator[Database]:
    with closing(open_store(store)) as made:
        yield made


@pytest.fixture
def complete(store: str, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What a store of the same kind is made of when nothing befell it."""
    kind = "sqlite" if store.startswith("sqlite") else "mariadb"
    (tmp_path / "other").mkdir()
    with closing(open_store(url(kind, tmp_path / "other"))) as other:
        migrate(other)
        return made_of(other)


def made_of(db: Database) -> list[tuple[Any, ...]]:
    """Tables, columns and indexes."""
    if db.kind == "sqlite":
        return db.rows("SELECT type, name, sql FROM sqlite_master ORDER BY type, name")
    columns = db.rows(
        "SELECT table_name, column_name, column_type, is_nullable, column_default, extra, collation_name "
        "FROM information_schema.columns WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position"
    )
    return columns + db.rows(
        "SELECT table_name, index_name, seq_in_index, column_name, non_unique FROM information_schema.statistics "
        "WHERE table_schema = DATABASE() ORDER BY table_name, index_name, seq_in_index"
    )


def send_one(db: Database) -> None:
    """A campaign of one person, from its beginning to its end."""
    row = Campaign("c-1", "main", "m", None, "供应 🌱", None, "running", None, None, 1, None, 1, None, True, "n1",
                   "query", {"channels": ["custom"]})  # fmt: skip
    with db.transaction():
        campaigns.insert(db, row)
        shards.add(db, "c-1", 0, [Planned("oPERSON")])
    with db.transaction():
        held = free_shards.lease(db, "n1/w1")
        assert held is not None
        assert [each.openid for each in windows.claim(db, held, 10) or ()] == ["oPERSON"]
        records.record(db, held.shard, held.token, [(0, Progress(State.SENT, 1, 0, attempts=1))])
        shard_leases.release(db, held)
    with db.transaction():
        assert finishing.finish(db, "c-1")
    assert campaigns.get(db, "c-1").reference == row.reference  # type: ignore[union-attr]


def test_of_several_that_make_the_tables_at_once_one_does_and_all_find_them(
    store: str, db: Database, complete: list[tuple[Any, ...]]
) -> None:
    assert sorted(race(store, *[migrate] * 5)) == [0, *[VERSION] * 4]
    assert made_of(db) == complete
    send_one(db)


@pytest.mark.parametrize("nth", [1, 2, 5, 9, 13, STATEMENTS, STATEMENTS + 1])
def test_tables_that_were_half_made_when_their_maker_was_killed_are_made_whole(
    store: str, db: Database, complete: list[tuple[Any, ...]], nth: int
) -> None:
    die_at(store, nth)
    assert schema.version(db) < VERSION
    migrate(db)
    assert schema.version(db) == VERSION and made_of(db) == complete
    send_one(db)


def die_at(store: str, nth: int) -> None:
    """Begin to make the tables, and be killed before the nth statement; the last is the version."""
    pid = os.fork()
    if not pid:
        try:
            with closing(open_store(store)) as db:
                done = [0]

                def before(run: Any, *args: Any) -> Any:
                    done[0] += 1
                    if done[0] > nth:  # the first makes fanout_meta
                        os.kill(os.getpid(), signal.SIGKILL)
                    return run(*args)

                db.define = partial(before, db.define)  # type: ignore[method-assign]
                db.upsert = lambda table, *args: (  # type: ignore[method-assign]  # of versions before the last
                    before(type(db).upsert, db, table, *args) if args[1] == {"value": str(VERSION)} else
                    type(db).upsert(db, table, *args)
                )  # fmt: skip
                migrate(db)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_store_of_an_older_version_keeps_what_is_in_it_though_its_migration_is_killed(
    store: str, db: Database, complete: list[tuple[Any, ...]]
) -> None:
    migrate(db, MIGRATIONS[:2])
    with db.transaction():
        db.execute("INSERT INTO fanout_shard (id, campaign, idx, size, pending, errors) VALUES (7, 'c-0', 0, 1, 1, '')")
        db.execute("INSERT INTO fanout_token (account, token, expires_at, fetched_at) VALUES ('main', 'the one', 5, 4)")
    die_at(store, 2)
    assert schema.version(db) == 2
    assert migrate(db) == 2
    assert db.rows("SELECT id, campaign, pending, sent_subscribe FROM fanout_shard") == [(7, "c-0", 1, 0)]
    assert db.rows("SELECT token FROM fanout_token") == [("the one",)]
    assert made_of(db) == complete
    send_one(db)


def test_a_store_that_a_newer_program_has_changed_is_refused(db: Database) -> None:
    migrate(db)
    with db.transaction():
        db.execute("UPDATE fanout_meta SET value = %s WHERE name = 'version'", str(VERSION + 1))
    with pytest.raises(BadConfig, match=f"the store has version {VERSION + 1}, this program knows {VERSION}"):
        migrate(db)


def test_only_tables_that_begin_with_fanout_appear_and_the_users_own_stay_as_they_are(db: Database) -> None:
    for name in ("tp_receiver", "campaign", "shard", "meta"):
        db.execute(f"CREATE TABLE {name} (id INTEGER, what VARCHAR(20))")
        with db.transaction():
            db.execute(f"INSERT INTO {name} VALUES (1, 'mine')")
    before = set(tables(db))
    migrate(db)
    send_one(db)
    new = set(tables(db)) - before
    assert before == {"tp_receiver", "campaign", "shard", "meta"} <= set(tables(db))
    assert new and all(name.startswith("fanout_") for name in new)
    assert all(db.rows(f"SELECT * FROM {name}") == [(1, "mine")] for name in before)


# ---- a server's rights and locks


@pytest.fixture
def limited() -> Iterator[tuple[str, str]]:
    """A database's URL for its owner, and for a user who may only read and write its rows."""
    server = mariadb.server()
    owner = server.database()
    name, user = owner.rpartition("/")[2], f"writer{os.getpid()}"
    server.say(f"CREATE USER {user}@'%' IDENTIFIED BY 'p:@/?'")
    server.say(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO {user}@'%'")
    yield owner, f"mysql://{user}:{quote('p:@/?', safe='')}@127.0.0.1:{server.port}/{name}"
    server.say(f"DROP USER {user}@'%'")


def test_who_may_not_create_tables_needs_not_once_they_are_there(limited: tuple[str, str]) -> None:
    owner, url = limited
    with closing(open_store(url)) as db:
        with pytest.raises(StoreAway) as refused:
            migrate(db)
        assert "CREATE command denied" in str(refused.value) and "\n" not in str(refused.value)
        with closing(open_store(owner)) as first:
            migrate(first)
        assert migrate(db) == VERSION
        send_one(db)


def test_who_waits_too_long_for_anothers_change_to_the_tables_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanoutd.store.mysql._MIGRATION", 2)
    monkeypatch.setattr("fanoutd.store.mysql._STEP", 1)
    made = mariadb.server().database()
    with closing(open_store(made)) as first, closing(open_store(made)) as second:
        with first.migrating():
            with pytest.raises(StoreAway, match="another node has been changing the tables for 2 s"):
                migrate(second)
            with closing(open_store(mariadb.server().database())) as of_another_store:
                assert migrate(of_another_store) == 0
        assert migrate(second) == 0


def test_shards_of_old_campaigns_cost_a_look_at_the_status_nothing(tmp_path: Path) -> None:
    db = opened("sqlite", tmp_path)
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    with closing(db):
        old_campaigns.add(db, "c-runs", 5, size=1, state="running")
        db.execute("UPDATE fanout_shard SET pending = 1, sent_custom = 0 WHERE campaign = 'c-runs' AND idx > 1")
        for number in range(10):
            old_campaigns.add(db, f"c-old-{number}", 100, size=1)
        vars(db)["_link"].set_progress_handler(step, 10)
        assert (free_shards.totals(db), free_shards.ready(db)) == ((3, 0), 3)
        assert steps < 100  # tens of instructions; of 1,000 shards it looked at five
