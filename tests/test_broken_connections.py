"""Connections to the store's server that die, each in its way, while people are sent to: nobody twice, nobody forgotten,
and all goes on by itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fanoutd.outcome import State
from fanoutd.store import StoreAway, campaigns, open_store, quotas, shards
from fanoutd.times import wall_ms
from support.bench import Bench, person, wait_for
from support.mariadb import MariaDb, server
from support.wire import Wire

Make = Callable[..., Bench]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def make(wire: Wire, database: MariaDb | None = None, **how: Any) -> Bench:
        """Workers have the wire between them and the server, the test has not."""
        maria = database or server()
        url = maria.database()
        made.append(Bench(tmp_path, store=maria.url(url.rpartition("/")[2], wire.port), **how))
        made[-1].db.close()
        made[-1].db = open_store(url)
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire(server().port) as made:
        yield made


def done(b: Bench) -> bool:
    """Also by the dispatcher's rescue sweep, which is not here to do it."""
    try:
        with b.db.transaction():
            campaigns.finish(b.db, "c-1")
        return b.state() == "done"
    except StoreAway:
        return False


def everybody_once(b: Bench, people: int) -> None:
    """The ledger, the rows, the shards' counters and the count of the day's calls say the same."""
    assert b.accepted() == {person(i): 1 for i in range(people)}
    assert {row[0] for row in b.rows().values()} == {State.SENT}
    assert (b.counts().total, b.counts().sent_custom) == (people, people)
    assert quotas.used(b.db, "main", 1, quotas.day(wall_ms())) == people
    assert shards.owners(b.db) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_commit_whose_answer_is_lost_is_neither_repeated_nor_forgotten(bench: Make, wire: Wire, seed: int) -> None:
    chance = random.Random(seed)
    b = bench(wire, concurrency=8, latency="20ms")
    b.campaign(400, shard=60)
    lost = wire.cuts()
    b.work(1)
    b.work(2)

    def cut_again() -> bool:
        nonlocal lost
        if wire.cuts() == lost:
            return done(b)
        lost += 1
        wire.cut("COMMIT", chance.randint(1, 6), chance.choice([0, 0, 3, 20]), chance.random() < 0.7)
        return False

    wire.cut("COMMIT", 1)
    wait_for(cut_again, "the end", 40)
    assert lost >= 5
    everybody_once(b, 400)
