"""`campaign.list`: whatever is asked for, it is what a look at every campaign would find, page by page."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanoutd.cli.listing import moment
from fanoutd.dispatcher.queries import Queries
from fanoutd.master.carried import CARRIED
from fanoutd.store import Database, campaigns, listing, shards
from fanoutd.store.campaigns import Campaign
from fanoutd.store.listing import Filter
from fanoutd.store.shards import Planned
from fanoutd.times import iso, parse_when
from support.stores import KINDS, opened

ACCOUNTS, MESSAGES, STATES = ("main", "second"), ("supply", "demand"), ("running", "paused", "done", "failed")
REFERENCES = (None, "", "订单 17", "order-17", "ORDER-1", "100%_x", "a'b")


@pytest.fixture(scope="module", params=KINDS)
def db(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """60 campaigns, several of one millisecond, each with two shards."""
    pick = random.Random(17)
    with closing(opened(request.param, tmp_path_factory.mktemp("store"))) as made, made.transaction():
        for i in range(60):
            name = f"c-{pick.randrange(1 << 30):x}-{i}"
            campaigns.insert(made, Campaign(
                name, pick.choice(ACCOUNTS), pick.choice(MESSAGES), None, pick.choice(REFERENCES), None,
                pick.choice(STATES), None, None, 1_000 + pick.randrange(12), None, 1, None, True, "n1", "list", {},
            ))  # fmt: skip
            for index in range(2):
                shards.add(made, name, index, [Planned(f"oPERSON{index}")])
                if (moved := pick.choice(("pending", "sent_custom", "failed", "unknown"))) != "pending":
                    made.execute(
                        f"UPDATE fanout_shard SET pending = 0, {moved} = 1 WHERE campaign = %s AND idx = %s",
                        name, index,
                    )  # fmt: skip
        yield made


def meant(each: dict[str, Any], row: Campaign, which: dict[str, Any]) -> bool:
    bad = each["counts"]["failed"] or each["counts"]["unknown"] or row.state in ("paused", "failed")
    return (
        all(which.get(field) in (None, getattr(row, field)) for field in ("state", "account", "message"))
        and (which.get("since") is None or row.created_at >= which["since"])
        and (which.get("until") is None or row.created_at < which["until"])
        and (which.get("reference") is None or which["reference"] in (row.reference or "\0"))
        and (not which.get("problems") or bool(bad))
    )


def one_of(*values: Any) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), st.sampled_from(values))


@settings(max_examples=60, deadline=None)
@given(
    which=st.fixed_dictionaries({
        "state": one_of(*STATES, "cancelled"), "account": one_of(*ACCOUNTS), "message": one_of(*MESSAGES, "none"),
        "since": st.one_of(st.none(), st.integers(998, 1014)), "until": st.one_of(st.none(), st.integers(998, 1014)),
        "reference": one_of("order", "17", "订单 17", "%", "_", "'", "zzz"), "problems": st.booleans(),
    }),
    limit=st.integers(1, 25),
)  # fmt: skip
def test_filters_and_pages_find_what_a_look_at_all_would(db: Database, which: dict[str, Any], limit: int) -> None:
    rows = {row.id: row for row in listing.listed(db, Filter(), 1000, None)}
    everything = Queries().list(db, {"limit": 1000})["campaigns"]
    assert [each["id"] for each in everything] == sorted(
        rows, key=lambda name: (rows[name].created_at, name), reverse=True
    )
    wanted = [each for each in everything if meant(each, rows[each["id"]], which)]
    found: list[dict[str, Any]] = []
    before = None
    while page := Queries().list(db, {**which, "limit": limit, "before": before})["campaigns"]:
        assert len(page) <= limit
        found += page
        before = page[-1]["id"]
    assert found == wanted
    assert all(each["total"] == 2 == sum(each["counts"].values()) for each in found)


def test_params_are_checked_and_complete() -> None:
    every = {"state": None, "limit": 50, "before": None, "since": None, "until": None, "account": None,
             "message": None, "reference": None, "problems": False}  # fmt: skip
    assert CARRIED["campaign.list"]({}) == every
    given = CARRIED["campaign.list"]({"since": "2026-01-02T15:04:05+08:00", "reference": 17, "problems": True})
    assert given == {**every, "since": parse_when("2026-01-02T07:04:05Z"), "reference": "17", "problems": True}


def test_a_moment_is_so_long_ago_or_a_time_as_people_write_it() -> None:
    now = parse_when("2026-01-02T15:04:05+08:00")
    ago = {"2h": timedelta(hours=2), "3d": timedelta(days=3), "90m": timedelta(minutes=90), "0s": timedelta()}
    for text, span in ago.items():
        assert now - moment(text, now) == span.total_seconds() * 1000
    assert moment("2026-01-02T15:04:05+08:00", 0) == now
    local = datetime(2026, 1, 2, 15, 4, 5).astimezone()
    assert moment("2026-01-02 15:04:05", 0) == parse_when(local.isoformat())
    assert iso(moment("99999999d", now)) == "1970-01-01T00:00:00.000+00:00"
    for wrong in ("yesterday", "2 h", "", "3w", "2026-13-01"):
        with pytest.raises(ValueError, match="write 2h, 3d"):
            moment(wrong, now)
