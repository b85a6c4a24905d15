"""What cannot be rendered costs those whom it concerns and nobody else: a worker on campaigns made by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fanoutd.bucket import Bucket
from fanoutd.outcome import RENDER, Progress, State
from fanoutd.store import campaigns, shards
from fanoutd.store.campaigns import Campaign
from fanoutd.store.deliveries import Person
from fanoutd.store.shard_leases import Lease
from fanoutd.store.shards import Planned
from fanoutd.store.tokens import Token
from fanoutd.times import wall_ms
from fanoutd.worker.holds import Hold
from fanoutd.worker.lane import Job, Lane, Message
from support.bench import Bench, person, wait_for


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    b = Bench(tmp_path)
    yield b
    b.close()


def sent(b: Bench, bodies: dict[str, Any], own: list[dict[str, str]], **definition: Any) -> dict[str, tuple[Any, ...]]:
    """Send these bodies to as many people as have values of their own; the rows by person."""
    whole = {"channels": list(bodies), "bodies": bodies, "too_long": "cut", "variables": ["city"], "query": None,
             "content": "hello", "phone": None, "data": {}, "page": None, "page_size": 500, **definition}  # fmt: skip
    row = Campaign("c-1", "main", "supply", None, None, None, "running", None, None, wall_ms(), None, wall_ms(), None,
                   True, "node1", "list", whole)  # fmt: skip
    with b.db.transaction():
        campaigns.insert(b.db, row)
        shards.add(b.db, "c-1", 0, [Planned(person(i), json.dumps(each)) for i, each in enumerate(own)])
    b.work()
    wait_for(lambda: b.state() == "done", "the end")
    return b.rows()


def test_a_value_that_does_not_fit_fails_its_person_only(bench: Bench) -> None:
    body = {"template_id": "T", "url": "{city}", "data": {"phrase1": {"value": "{city}"}}}
    rows = sent(bench, {"template": body}, [{"city": "杭州"}, {"city": "Rome"}, {"city": ""}, {"city": "北京"}])
    assert [rows[person(i)][0] for i in range(4)] == [State.SENT, State.FAILED, State.FAILED, State.SENT]
    assert (rows[person(1)][2], rows[person(1)][3]) == (RENDER, 0)  # no call was made
    assert [each["body"]["url"] for each in bench.sandbox.ledger_rows()] == ["杭州", "北京"]


def test_people_who_wait_for_a_trial_are_looked_at_when_those_before_them_end_without_a_call(
    bench: Bench, tmp_path: Path
) -> None:
    lane = Lane(bench.config.accounts["main"], Bucket(tmp_path / "bucket", 100.0), lambda _key: 2)
    lane.accept(Token("T", wall_ms() + 60_000, 0), wall_ms())
    shard = Hold(Lease(1, 1, "c-1", "w"), cast(Campaign, SimpleNamespace(id="c-1", account="main")), 0.0, 0.0)
    jobs = [Job(shard, Person(i, person(i), Progress(), None), Progress(), Message((1,), {})) for i in range(6)]
    lane.trials.line_up(jobs, lane.ready)
    for _ in range(3):
        lane.trials.sift(lane.ready)
        assert len(lane.ready) == 2
        lane.ready.clear()  # they could not be rendered
        assert lane.wait(0.0, free=4) == (0.0 if len(lane) else None)
    lane.bucket.close()


def test_a_text_too_long_for_one_person_is_not_sent_on_any_channel(bench: Bench) -> None:
    bodies = {
        "custom": {"msgtype": "text", "text": {"content": "{content} {city}"}},
        "template": {"template_id": "T", "data": {"thing1": {"value": "{city}"}}},
    }
    rows = sent(bench, bodies, [{"city": "x" * 2042}, {"city": "x" * 2043}, {"city": "供" * 680}])
    assert [rows[person(i)][:3] for i in range(3)] == [
        (State.SENT, 1, 0), (State.FAILED, None, RENDER), (State.SENT, 1, 0),
    ]  # fmt: skip
    assert [len(each["body"]["text"]["content"].encode()) for each in bench.sandbox.ledger_rows()] == [2048, 2046]


def test_a_body_that_fits_nobody_fails_those_who_need_it_and_no_worker(bench: Bench) -> None:
    bench.sandbox.script(person(1), 45015)
    bodies = {
        "custom": {"msgtype": "text", "text": {"content": "{content}"}},
        "template": {"template_id": "T", "data": {"phone_number1": {"value": "{phone}"}}},
    }
    rows = sent(bench, bodies, [{"city": ""}] * 3)
    assert [rows[person(i)][0] for i in range(3)] == [State.SENT, State.FAILED, State.SENT]
    assert (rows[person(1)][2], rows[person(1)][3]) == (RENDER, 1)
    assert len(bench.workers) == 1 and bench.workers[0].stop() == 0
