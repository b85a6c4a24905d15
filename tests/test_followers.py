"""WeChat's list of followers with all its quirks, into the embedded audience; cut off and taken up again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fanoutd.config import Account, load
from fanoutd.dispatcher import followers as module
from fanoutd.dispatcher.followers import Followers, synced
from fanoutd.dispatcher.queries import RpcError
from fanoutd.dispatcher.refresher import Refresher
from fanoutd.dispatcher.subscribers import Subscribers
from fanoutd.standing import opted_out
from fanoutd.store import Database, open_store, outbox, subscribers
from fanoutd.store.schema import migrate
from support.bench import wait_for
from support.daemon import Daemon, follower
from support.lists import Lists, served

CONFIG = """
[account.main]
app_id = "wx0"
app_secret = "a-secret-of-the-tests"
api_base = "{url}"
[message.hello]
custom = {{ msgtype = "text", text.content = "{{content}}" }}
[audience.all]
source = "subscribers"
on_gone = "DELETE FROM t WHERE openid = %(openid)s"
"""
PEOPLE = [follower(i) for i in range(10)]


class Desk:
    """A store, an account whose API is ``lists``, and what syncs them."""

    def __init__(self, folder: Path, lists: Lists) -> None:
        file = folder / "fanoutd.toml"
        file.write_text(CONFIG.format(url=lists.url))
        file.chmod(0o600)
        self.lists = lists
        self.config = load(file)
        self.config.daemon.state_dir.mkdir(exist_ok=True)
        self.db: Database = open_store(self.config.store_url)
        migrate(self.db)
        self.account: Account = self.config.accounts["main"]
        refresher = Refresher(self.config, lambda _account: None)
        self.subscribers = Subscribers(self.config, refresher)
        self.followers = Followers(refresher, {"on_gone"})

    def sync(self, tag: int | None = None) -> int:
        return self.followers.sync(self.db, self.account, tag)

    def listed(self) -> list[str]:
        return [openid for openid, standing in subscribers.page(self.db, "main", None, 1000) if standing.listed]

    def words(self) -> dict[str, str]:
        now = self.db.now_ms()
        return {openid: standing.word(now) for openid, standing in subscribers.page(self.db, "main", None, 1000)}

    def event(self, openid: str, event: str) -> None:
        """Also while the list is read: from a thread of its own, and so with a connection of its own."""
        with closing(open_store(self.config.store_url)) as db:
            self.subscribers.event(db, {"openid": openid, "event": event, "at": None, "account": None})


Make = Callable[..., Desk]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(module, "_PAUSES", (0.0, 0.0))
    open_desks = []

    def make(**how: Any) -> Desk:
        context = served(Lists(**{"people": list(PEOPLE), **how}))
        open_desks.append((context, Desk(tmp_path, context.__enter__())))
        return open_desks[-1][1]

    yield make
    for context, each in open_desks:
        each.db.close()
        context.__exit__(None, None, None)


@pytest.mark.parametrize("end", ["extra", "empty", "repeat"])
@pytest.mark.parametrize("page_size", [3, 5, 100])
def test_every_end_of_the_list_is_one(desk: Make, end: str, page_size: int) -> None:
    d = desk(end=end, page_size=page_size)
    assert d.sync() == 10
    assert d.listed() == PEOPLE
    assert len(d.lists.asked) <= 10 // page_size + 2
    assert d.lists.tokens == 1


def test_people_who_come_twice_are_counted_once(desk: Make) -> None:
    d = desk(people=[*PEOPLE[:4], PEOPLE[0], *PEOPLE[4:]], page_size=4, end="empty", total=10)
    assert d.sync() == 10 and d.listed() == PEOPLE


def test_who_is_not_on_the_list_any_more_is_gone_unless_an_event_says_otherwise(desk: Make) -> None:
    d = desk()
    d.sync()
    with d.db.transaction():
        subscribers.change(d.db, "main", [PEOPLE[9]], d.db.now_ms(), lambda each: opted_out(each, d.db.now_ms()))
    d.lists.people = PEOPLE[:7]
    d.lists.errors = [lambda: d.event(PEOPLE[8], "message")]  # while the list is read
    assert d.sync() == 7
    assert d.listed() == [*PEOPLE[:7], PEOPLE[8]]
    assert d.words() == dict.fromkeys([*PEOPLE[:7], PEOPLE[8]], "active") | {PEOPLE[7]: "gone", PEOPLE[9]: "opted_out"}
    assert [(each.name, each.payload["openid"]) for each in outbox.due(d.db)] == [
        ("on_gone", PEOPLE[7]), ("on_gone", PEOPLE[9]),
    ]  # fmt: skip
    d.lists.people = PEOPLE
    d.sync()
    assert d.words() == dict.fromkeys(PEOPLE[:9], "active") | {PEOPLE[9]: "opted_out"}


def test_who_leaves_while_the_list_is_read_stays_gone(desk: Make) -> None:
    d = desk()
    d.lists.errors = [None, lambda: d.event(PEOPLE[5], "unsubscribe")]
    d.sync()
    assert d.words()[PEOPLE[5]] == "gone"


def test_a_new_follower_joins_an_audience_that_is_wechats_list_and_no_other(desk: Make) -> None:
    d = desk()
    d.event("oNEWCOMER", "subscribe")
    assert d.listed() == [] and not synced(d.db, "main")
    d.sync()
    d.event("oNEWCOMER", "message")
    assert "oNEWCOMER" not in d.listed()
    d.event("oNEWCOMER", "subscribe")
    assert "oNEWCOMER" in d.listed()


def test_a_sync_that_was_cut_off_goes_on_where_it_was(desk: Make) -> None:
    d = desk(people=[*PEOPLE, follower(90)])
    d.sync()
    d.lists.people, d.lists.asked = list(PEOPLE), []
    busy = {"errcode": -1, "errmsg": "system error"}
    d.lists.errors = [None, None, busy, busy, busy]
    with pytest.raises(RpcError, match="WeChat is busy"):
        d.sync()
    assert follower(90) in d.listed()  # nobody is gone of whom the list was not read to its end
    assert d.lists.asked == ["", PEOPLE[2], *[PEOPLE[5]] * 3]
    d.lists.asked = []
    assert d.sync() == 10
    assert d.lists.asked[0] == PEOPLE[5] and d.listed() == PEOPLE
    d.lists.asked = []
    d.sync()
    assert d.lists.asked[0] == ""


def test_a_tag_takes_in_its_own_and_unlists_nobody_even_in_the_midst_of_a_whole_sync(desk: Make) -> None:
    d = desk(tags={7: [PEOPLE[9], follower(50)]})
    refused = {"errcode": 45009, "errmsg": "reach max api daily quota limit"}
    d.lists.errors = [None, refused]
    with pytest.raises(RpcError, match="45009"):
        d.sync()
    assert d.sync(tag=7) == 2
    assert d.listed() == [*PEOPLE[:3], PEOPLE[9], follower(50)]
    assert d.sync() == 11  # follower 50 was seen since it began
    with pytest.raises(RpcError, match="knows no tag 8") as none:
        d.sync(tag=8)
    assert (none.value.code, none.value.data) == (-32602, {"field": "tag"})
    assert d.listed() == [*PEOPLE, follower(50)]


def test_a_refused_token_is_exchanged_once(desk: Make) -> None:
    d = desk()
    expired = {"errcode": 42001, "errmsg": "access_token expired"}
    d.lists.errors = [None, expired]
    assert d.sync() == 10 and d.lists.tokens == 2
    d.lists.errors = [expired, expired]
    with pytest.raises(RpcError, match="42001"):
        d.sync()


@pytest.mark.parametrize("answer", [{}, {"total": 10, "next_openid": ""}])
def test_an_answer_that_is_no_page_makes_nobody_gone(desk: Make, answer: dict[str, Any]) -> None:
    d = desk()
    d.sync()
    d.lists.errors = [answer] * 3
    with pytest.raises(RpcError, match="cannot be understood"):
        d.sync()
    assert d.listed() == PEOPLE


def test_a_list_that_is_much_shorter_than_its_own_total_makes_nobody_gone(desk: Make) -> None:
    d = desk()
    d.sync()
    d.lists.people, d.lists.total = PEOPLE[:8], 10
    assert d.sync() == 8 and d.listed() == PEOPLE
    d.lists.people, d.lists.total = [], None
    assert d.sync() == 0 and d.listed() == PEOPLE


def test_no_word_of_an_error_bears_the_token(desk: Make) -> None:
    d = desk()
    d.sync()
    gone = replace(d.account, api_base="http://127.0.0.1:9")
    with pytest.raises(RpcError, match="does not answer") as error:
        d.followers.sync(d.db, gone, None)
    assert "token-" not in str(error.value)


# ---- over a whole daemon


def test_a_sync_outlives_its_dispatcher_and_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    hung, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        hung.set()
        go_on.wait(30)

    lists = Lists(list(PEOPLE), errors=[None, hang])
    with served(lists):
        folder = tmp_path / "d"
        folder.mkdir()

        class Listed(Daemon):
            ACCOUNT = (
                f'[account.lists]\napp_id = "wx1"\napp_secret = "another-secret"\napi_base = "{lists.url}"\n'
                '[audience.followers]\nsource = "subscribers"\n'
            )

        d = Listed(folder)
        try:
            answers: list[Any] = []
            asking = threading.Thread(
                target=lambda: answers.append(d.cli("subscriber", "sync", "--account", "lists")), daemon=True
            )
            asking.start()
            assert hung.wait(20)
            rows = d.call("subscriber.list", account="lists")["rows"]  # answered meanwhile
            assert [row["openid"] for row in rows] == PEOPLE[:3]
            os.kill(d.dispatcher(), signal.SIGKILL)
            go_on.set()
            asking.join(40)
            assert (answers[0].returncode, answers[0].stdout) == (0, "10\n"), answers[0].stderr
            assert lists.asked[:3] == ["", PEOPLE[2], PEOPLE[2]]  # asked again, and the next one went on there
            wait_for(lambda: len(d.call("subscriber.list", account="lists")["rows"]) == 10, "everybody")
        finally:
            d.close()
