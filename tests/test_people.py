"""People over a whole daemon: opt-outs in mid-campaign, who is gone, windows, and the embedded audience."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fanoutd.client import BadRequest
from fanoutd.outcome import State
from fanoutd.store import free_shards, shards, subscribers, windows
from fanoutd.worker.sift import sift
from support.bench import Bench, person, wait_for
from support.daemon import Daemon, follower

EXTRA = """
opt_in_reply = ""
[windows]
message = { messages = 2, within = "1h" }
menu = { messages = 3, within = "1s" }
[message.greeting]
variables = ["city"]
[message.greeting.custom]
msgtype = "text"
text.content = "{content} {city}"
[audience.followers]
source = "subscribers"
[audience.others]
source = "subscribers"
exclude = "few"
[audience.few]
query = "SELECT openid FROM fanout_subscriber WHERE openid < 'oFOLLOW000000000000000000003'"
[audience.site]
database = "sqlite:///{folder}/tp.db"
query = "SELECT openid FROM tp_receiver"
on_opt_out = "INSERT INTO told (word, openid) VALUES ('on_opt_out', %(openid)s)"
on_opt_in = "INSERT INTO told (word, openid) VALUES ('on_opt_in', %(openid)s)"
on_gone = "INSERT INTO told (word, openid) VALUES ('on_gone', %(openid)s)"
"""


class People(Daemon):
    def __init__(self, folder: Path, **how: Any) -> None:
        self.ACCOUNT = EXTRA.replace("{folder}", str(folder))
        with closing(sqlite3.connect(folder / "tp.db")) as link, link:
            link.execute("CREATE TABLE told (word TEXT, openid TEXT)")
        super().__init__(folder, **how)

    def store(self, sql: str, *args: Any) -> list[Any]:
        with closing(sqlite3.connect(self.folder / "state" / "fanoutd.db", timeout=10)) as link, link:
            return link.execute(sql, args).fetchall()

    def told(self) -> set[tuple[str, str]]:
        """What the operator's side was told, once there is nothing more to tell."""
        wait_for(lambda: not self.store("SELECT 1 FROM fanout_outbox WHERE name <> 'on_finish'"), "the errands")
        with closing(sqlite3.connect(self.folder / "tp.db")) as link:
            return set(link.execute("SELECT word, openid FROM told"))

    def send(self, content: str = "hello", **params: Any) -> str:
        params = {"message": "supply", "phone": "110", **params}
        campaign: str = self.call("campaign.submit", content=content, **params)["campaign"]
        return campaign

    def outcome(self, campaign: str) -> dict[str, tuple[Any, ...]]:
        return {
            row["openid"]: (row["state"], row["channel"], row["errcode"], row["attempts"])
            for row in self.rows(campaign)
        }

    def word(self, openid: str) -> str:
        state: str = self.call("subscriber.get", openid=openid)["state"]
        return state


Make = Callable[..., People]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Make]:
    made: list[People] = []

    def make(**how: Any) -> People:
        made.append(People(tmp_path, **how))
        return made[-1]

    yield make
    for each in made:
        each.close()


SKIPPED = ("skipped", None, None, 0)
CUSTOM, TEMPLATE = ("sent", "custom", "0", 1), ("sent", "template", "0", 1)


# ---- opting out and in


def test_an_opt_out_in_mid_campaign_holds_from_the_next_window_on(daemon: Make) -> None:
    d = daemon(followers=1000, workers=1, concurrency=8, rate=400)
    campaign = d.send()
    wait_for(lambda: len(d.accepted()) > 20, "a first part")
    out = [follower(i) for i in range(500, 1000, 5)]
    for openid in out:
        assert d.call("subscriber.reply", openid=openid, content="０")["reply"] == "已取消接收信息。回复1重新接收。"
    done = d.until(campaign)
    assert done["counts"]["skipped"] == len(out) == 100
    assert done["counts"]["sent_custom"] == 900 and done["counts"]["pending"] == 0
    assert sum(done["counts"].values()) == done["total"] == 1000
    rows, accepted = d.outcome(campaign), d.accepted()
    for i in range(1000):
        assert rows[follower(i)] == (SKIPPED if follower(i) in out else CUSTOM)
        assert accepted[follower(i)] == (follower(i) not in out)
    assert d.told() == {("on_opt_out", openid) for openid in out}


def test_the_next_window_and_not_one_later(tmp_path: Path) -> None:
    b = Bench(tmp_path)
    try:
        b.campaign(30)
        with b.db.transaction():
            held = free_shards.lease(b.db, "node1/w")
            assert held is not None
            campaign = shards.campaign_of(b.db, held.shard)
            assert campaign is not None

            def claim(count: int) -> list[str]:
                found = sift(b.db, campaign, held, windows.claim(b.db, held, count) or [])
                return [each.openid for each in found]

            assert claim(10) == [person(i) for i in range(10)]
            for i in (5, 10, 19, 20):
                subscribers.change(b.db, "main", [person(i)], 1, lambda s: subscribers_out(s))
            assert claim(10) == [person(i) for i in range(11, 19)]
            assert claim(10) == [person(i) for i in range(21, 30)]
        assert b.counts().skipped == 3 and b.counts().pending == 27
        assert b.rows()[person(10)] == (State.SKIPPED, None, None, 0, None)
        assert b.rows()[person(5)][0] == State.PENDING  # in flight already
    finally:
        b.close()


def subscribers_out(standing: Any) -> Any:
    from fanoutd.standing import opted_out

    return opted_out(standing, 1)


def test_a_campaign_of_which_everybody_opts_out_ends(daemon: Make) -> None:
    d = daemon(followers=9000, workers=2, concurrency=4, rate=50)
    campaign = d.send()
    wait_for(lambda: d.call("campaign.get", campaign=campaign)["total"] == 9000 and d.accepted(), "the plan")
    d.store(
        "INSERT INTO fanout_subscriber (account, openid, state, since) "
        "SELECT DISTINCT 'main', openid, 1, 0 FROM fanout_delivery"
    )
    counts = d.until(campaign)["counts"]
    assert counts["skipped"] + counts["sent_custom"] == 9000
    assert counts["sent_custom"] == len(d.accepted()) <= 4 * 64  # two windows a worker


def test_who_opted_out_is_skipped_while_planning_and_stays_so_over_events_and_imports(daemon: Make) -> None:
    d = daemon(followers=10)
    out = follower(3)
    d.call("subscriber.opt_out", openid=out)
    for event in ("unsubscribe", "subscribe", "message"):
        assert d.call("subscriber.event", openid=out, event=event) == {}
    assert d.call("subscriber.import", rows=[{"openid": follower(i)} for i in range(10)]) == {"count": 10}
    assert d.word(out) == "opted_out"
    campaign = d.send()
    assert d.until(campaign)["counts"]["skipped"] == 1
    assert d.outcome(campaign)[out] == SKIPPED and d.accepted()[out] == 0
    assert d.call("subscriber.reply", openid=out, content="hello") == {"reply": None}
    assert d.word(out) == "opted_out"
    assert d.call("subscriber.reply", openid=out, content="1") == {"reply": None}  # opt_in_reply = ""
    assert d.word(out) == "active"
    again = d.send()
    assert d.until(again)["counts"]["skipped"] == 0 and d.accepted()[out] == 1
    assert d.told() >= {("on_gone", out), ("on_opt_in", out)}


def test_rows_and_refusals(daemon: Make) -> None:
    d = daemon()
    with pytest.raises(BadRequest, match="nothing is known of oNOBODY"):
        d.call("subscriber.get", openid="oNOBODY")
    with pytest.raises(BadRequest, match="no account 'nope'"):
        d.call("subscriber.opt_in", openid="oNOBODY", account="nope")
    d.call("subscriber.import", rows=[{"openid": follower(i), "city": "北京"} for i in (2, 0, 1)], account="main")
    page = d.call("subscriber.list", limit=2)
    assert [row["openid"] for row in page["rows"]] == [follower(0), follower(1)]
    rest = d.call("subscriber.list", limit=2, after=page["next"])
    assert [row["openid"] for row in rest["rows"]] == [follower(2)] and rest["next"] is None
    row = d.call("subscriber.get", openid=follower(1))
    since = row.pop("since")
    assert since.endswith("+00:00") and row == {
        "openid": follower(1), "state": "active", "listed": True, "gone_until": None, "window": None,
        "data": {"city": "北京"},
    }  # fmt: skip
    assert d.call("subscriber.forget", openid=follower(1)) == d.call("subscriber.forget", openid=follower(1)) == {}
    assert len(d.call("subscriber.list")["rows"]) == 2
    d.call("subscriber.event", openid=follower(0), event="unsubscribe", at=int(time.time()) - 400)
    assert d.word(follower(0)) == "active"  # a replay
    d.call("subscriber.event", openid=follower(0), event="unsubscribe", at=int(time.time()) - 200)
    assert d.word(follower(0)) == "gone"


# ---- what WeChat's answers teach


def test_who_is_gone_is_believed_so_for_a_day_and_a_retry_tries_all_the_same(daemon: Make) -> None:
    d = daemon(followers=8)
    codes = {1: 43004, 2: 48002, 3: 43019, 4: 40003, 5: 45002}
    d.sandbox.scripts({follower(i): [code] for i, code in codes.items()})
    first = d.send()
    assert d.until(first)["counts"]["failed"] == 5
    words = {1: "gone", 2: "opted_out", 3: "blocked", 4: "gone"}
    assert {i: d.word(follower(i)) for i in words} == words
    with pytest.raises(BadRequest):
        d.word(follower(5))
    assert d.told() == {("on_gone", follower(1)), ("on_opt_out", follower(2))}
    second = d.send()
    assert d.until(second)["counts"] | {"skipped": 4, "failed": 1, "sent_custom": 3} == d.until(second)["counts"]
    rows = d.outcome(second)
    assert [rows[follower(i)] for i in words] == [SKIPPED] * 4
    assert rows[follower(5)] == ("failed", "custom", "45002", 1)
    d.sandbox.scripts({follower(i): [0] for i in codes})
    d.call("campaign.retry", campaign=first, failed=True, unknown=False)
    assert d.until(first)["counts"]["sent_custom"] == 8
    d.store("UPDATE fanout_subscriber SET gone_until = 1 WHERE gone_until IS NOT NULL")  # a day later
    third = d.send()
    assert d.until(third)["counts"] | {"skipped": 2, "sent_custom": 6} == d.until(third)["counts"]


def test_a_retry_does_not_go_over_a_persons_own_word(daemon: Make) -> None:
    d = daemon(followers=2)
    d.sandbox.scripts({follower(0): [43004, 0], follower(1): [43004, 0]})
    campaign = d.send()
    d.until(campaign)
    d.call("subscriber.reply", openid=follower(1), content="0")
    d.call("campaign.retry", campaign=campaign, failed=True, unknown=False)
    assert d.until(campaign)["counts"] | {"sent_custom": 1, "skipped": 1} == d.until(campaign)["counts"]
    assert d.outcome(campaign) == {
        follower(0): ("sent", "custom", "0", 2), follower(1): ("skipped", None, None, 1),
    }  # fmt: skip


# ---- windows


def test_a_custom_call_that_is_doomed_is_left_out(daemon: Make) -> None:
    d = daemon(followers=4)
    now = int(time.time())
    d.call("subscriber.event", openid=follower(0), event="menu", at=now - 5)  # a second long: over
    d.call("subscriber.event", openid=follower(1), event="message", at=now)  # two messages
    d.sandbox.script(follower(2), 45047)
    outcomes = []
    for _ in range(3):
        campaign = d.send()
        assert d.until(campaign)["counts"]["failed"] == 0
        outcomes.append(d.outcome(campaign))
    assert [each[follower(0)] for each in outcomes] == [TEMPLATE] * 3
    assert [each[follower(1)] for each in outcomes] == [CUSTOM, CUSTOM, TEMPLATE]
    assert [each[follower(2)] for each in outcomes] == [("sent", "template", "0", 2), TEMPLATE, TEMPLATE]
    assert [each[follower(3)] for each in outcomes] == [CUSTOM] * 3  # nobody told us of events
    d.sandbox.script(follower(2), 0)
    d.call("subscriber.event", openid=follower(2), event="message")
    campaign = d.send()
    d.until(campaign)
    assert d.outcome(campaign)[follower(2)] == CUSTOM
    assert d.call("subscriber.get", openid=follower(2))["window"]["left"] == 1


def test_without_another_channel_a_shut_window_is_tried_unless_wechat_said_that_it_is_used_up(daemon: Make) -> None:
    d = daemon(followers=2)
    d.call("subscriber.event", openid=follower(0), event="menu", at=int(time.time()) - 5)
    d.sandbox.script(follower(1), 45047)
    only = {"message": "greeting", "data": {"city": "x"}}
    first, second = d.send(**only), None
    assert d.until(first)["counts"]["sent_custom"] == 1
    second = d.send(**only)
    d.until(second)
    assert d.outcome(second) == {follower(0): CUSTOM, follower(1): SKIPPED}


# ---- the embedded audience


def test_the_embedded_audience_its_exclusions_and_its_variables(daemon: Make) -> None:
    d = daemon()
    rows = [{"openid": follower(i), "city": f"city{i}"} for i in range(6)] + [{"openid": follower(6)}]
    d.call("subscriber.import", rows=rows)
    d.call("subscriber.event", openid=follower(5), event="unsubscribe")
    d.call("subscriber.opt_out", openid=follower(4))
    d.call("subscriber.event", openid=follower(8), event="message")  # known, but not in the audience
    everyone = d.send(audience="followers", message="greeting")
    done = d.until(everyone)
    assert (done["total"], done["counts"]["sent_custom"], done["errors"]) == (5, 4, {"render": 1})
    texts = {row["openid"]: row["body"]["text"]["content"] for row in d.sandbox.ledger_rows()}
    assert texts == {follower(i): f"hello city{i}" for i in range(4)}
    others = d.send(audience="others")
    assert d.until(others)["total"] == 2
    assert set(d.outcome(others)) == {follower(3), follower(6)}
    page = d.send(audience="followers", page=1, page_size=2)
    d.until(page)
    assert list(d.outcome(page)) == [follower(2), follower(3)]


def test_a_variable_that_nobody_brings_fails_the_campaign_by_name(daemon: Make) -> None:
    d = daemon()
    d.call("subscriber.import", rows=[{"openid": follower(1)}])
    campaign = d.send(audience="followers", message="greeting")
    assert "{city}" in d.until(campaign, "failed")["reason"]


def test_the_command_line_imports_lists_and_opts_out(daemon: Make) -> None:
    d = daemon()
    many = "".join(f"{follower(i)}\n" for i in range(5000))
    done = d.cli("subscriber", "import", "-", text=many + "bad id\n")
    assert (done.returncode, done.stdout) == (65, "5000\n"), done.stderr
    assert "standard input:5001: no openid" in done.stderr
    (d.folder / "people.csv").write_text(f"openid,city\n{follower(0)},北京\n", encoding="utf-8")
    done = d.cli("subscriber", "import", str(d.folder / "people.csv"), "--account", "main")
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert d.cli("subscriber", "opt-out", follower(0)).returncode == 0
    shown = json.loads(d.cli("subscriber", "show", follower(0), "--json").stdout)
    assert (shown["state"], shown["data"]) == ("opted_out", {"city": "北京"})
    assert "opted_out" in d.cli("subscriber", "show", follower(0)).stdout
    listed = d.cli("subscriber", "list", "--json").stdout.splitlines()
    assert len(listed) == 5000 and json.loads(listed[1])["openid"] == follower(1)
    assert d.cli("subscriber", "list").stdout.count("listed") == 5000
    assert d.cli("subscriber", "opt-in", follower(0)).returncode == 0
    assert d.word(follower(0)) == "active"
    assert d.cli("subscriber", "forget", follower(0)).returncode == 0
    assert d.cli("subscriber", "show", follower(0)).returncode == 65
    assert d.cli("subscriber", "import", str(d.folder / "none")).returncode == 65
