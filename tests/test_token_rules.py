"""Tokens without a daemon: the rules, the sources against an endpoint that answers as told, one refresher."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fanoutd.config import Account, Config, TokenQuery, load
from fanoutd.dispatcher import token_advice
from fanoutd.dispatcher.operator_db import OperatorDatabaseAway, select
from fanoutd.dispatcher.refresher import Refresher
from fanoutd.dispatcher.token_sources import Refused, fetch, understood
from fanoutd.dispatcher.token_standing import masked, renew_in, too_often
from fanoutd.doctor import daemon as doctor
from fanoutd.store import Database, campaigns, open_store, reasons, tokens
from fanoutd.store.campaigns import Campaign
from fanoutd.store.schema import migrate
from fanoutd.store.tokens import NEVER, Token, replaces
from fanoutd.times import wall_ms
from support.token_gate import TokenGate

SECRET = "a-secret-of-the-tests"

CONFIG = """
[account.main]
app_id = "wx0123456789abcdef"
app_secret = "a-secret-of-the-tests"
api_base = "{url}"
connect_timeout = "2s"
timeout = "2s"
{more}
[message.supply]
channels = ["custom"]
[message.supply.custom]
msgtype = "text"
text.content = "{{content}}"
"""


@pytest.fixture
def gate() -> Iterator[TokenGate]:
    made = TokenGate()
    yield made
    made.close()


def configured(folder: Path, url: str, more: str = "") -> Config:
    file = folder / "fanoutd.toml"
    file.write_text(CONFIG.format(url=url, more=more))
    file.chmod(0o600)
    config = load(file)
    config.daemon.state_dir.mkdir(mode=0o700, exist_ok=True)
    return config


@pytest.fixture
def account(tmp_path: Path, gate: TokenGate) -> Account:
    return configured(tmp_path, gate.url).accounts["main"]


def good(text: str, seconds: int = 7200) -> dict[str, Any]:
    return {"access_token": text, "expires_in": seconds}


def bad(errcode: int, errmsg: str = "no") -> dict[str, Any]:
    return {"errcode": errcode, "errmsg": errmsg}


# ---- the store's rule

OLD = Token("old", 10_000, 1_000)


@pytest.mark.parametrize(
    ("new", "dead", "may"),
    [
        (Token("new", 11_000, 2_000), "", True),
        (Token("new", 9_999, 2_000), "", False),  # fetched before, stored after
        (Token("new", 11_000, 999), "", False),
        (Token("new", 9_999, 2_000), "old", True),  # the old one was refused or killed
        (Token("new", 9_999, 2_000), "another", False),
        (Token("old", 9_000, 1_000), "", True),  # the same, better known
        (Token("new", 10_500, 10_000), "", True),  # the old one has ended
        (Token("new", NEVER, 2_000), "", True),
    ],
)
def test_an_older_token_never_stands_over_a_newer_one(
    tmp_path: Path, new: Token, dead: str, may: bool
) -> None:
    assert replaces(new, OLD, dead) is may
    db = store(tmp_path)
    with db.transaction():
        assert tokens.save(db, "main", OLD)
        assert tokens.save(db, "main", new, dead) is may
    assert tokens.load(db, "main") == (new if may else OLD)


def store(folder: Path) -> Database:
    db = open_store(f"sqlite:///{folder / 'fanoutd.db'}")
    migrate(db)
    return db


def test_a_fingerprint_tells_one_handing_out_from_another_and_not_the_token() -> None:
    token = Token("a-token-of-wechat", 10, 1)
    assert token.fingerprint != replace(token, fetched_at=2).fingerprint
    assert token.fingerprint == replace(token, expires_at=20).fingerprint
    assert "a-token" not in token.fingerprint and "a-token" not in repr(token)


# ---- rules of time and words


@pytest.mark.parametrize(
    ("left", "seconds"), [(7200, 6910), (320, 30), (300, 30), (100, 30), (40, 20), (3, 1.5), (1, 1), (0, 1)]
)
def test_a_token_is_renewed_before_its_end_and_never_in_a_hurry(left: int, seconds: float) -> None:
    assert renew_in(Token("t", left * 1000, 0), 0) == pytest.approx(seconds)


def test_forced_refreshes_are_thirty_seconds_apart_and_twenty_a_day() -> None:
    now = 200_000_000
    assert too_often([], now) is None and too_often([now - 30_000], now) is None
    assert "try again in 18 s" in (too_often([now - 12_000], now) or "")
    day = [now - 86_000_000 + i * 40_000 for i in range(20)]
    assert "20 forced refreshes a day" in (too_often(day, now) or "")
    assert too_often(day, day[0] + 86_400_001) is None


@pytest.mark.parametrize(
    ("token", "seen"), [("x" * 60 + "abcd", "xxxx…abcd"), ("0123456789abcdef", "0…f"), ("short", "…"), ("", "…")]
)
def test_no_more_of_a_token_is_shown_than_four_characters_at_each_end(token: str, seen: str) -> None:
    assert masked(token) == seen


def test_tomorrow_is_by_shanghais_clock() -> None:
    noon_in_shanghai = 1_767_326_400_000  # 2026-01-02 12:00 there
    assert token_advice.until_tomorrow(noon_in_shanghai) == 12 * 3600 + 60


@pytest.mark.parametrize(
    "answer",
    [
        good("t", 0), good("t", -5), {"access_token": "t"}, good("has a blank"), good("a&b=c"), good(""), [], None, "x",
        {"access_token": "t", "expires_in": "7200"}, {"access_token": "t", "expires_in": True}, good("t", 10**12),
        {"errcode": 0, "errmsg": "ok"}, {"errcode": "40013"},
    ],
)  # fmt: skip
def test_what_is_no_token_with_a_life_is_never_kept(answer: object) -> None:
    with pytest.raises(Refused) as refused:
        understood(answer, wall_ms())
    assert not refused.value.fatal


# ---- the endpoints

FATAL = (40001, 40002, 40013, 40125, 40164, 40243, 41002, 41004, 43002, 45035, 61004, *range(89501, 89508))


@pytest.mark.parametrize("errcode", FATAL)
def test_a_fatal_refusal_names_errcode_errmsg_and_the_mend_and_never_the_secret(
    gate: TokenGate, account: Account, errcode: int
) -> None:
    gate.answers = [bad(errcode, f"some words\nof WeChat {SECRET} rid: 1-2-3")]
    with pytest.raises(Refused) as refused:
        fetch(account)
    words = str(refused.value)
    assert refused.value.fatal and refused.value.code == errcode
    assert f"({errcode} some words of WeChat *** rid: 1-2-3)" in words and SECRET not in words and "\n" not in words
    assert refused.value.wait == {89506: 86_400, 89507: 3_600}.get(errcode, 30)
    assert words.endswith(token_advice.advice(errcode).todo.replace("{ip}", "it"))


def test_an_address_that_is_not_on_the_list_is_named_with_its_mend(gate: TokenGate, account: Account) -> None:
    gate.answers = [bad(40164, "invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist rid: a-b")]
    with pytest.raises(Refused, match=r"add 203.0.113.7 in WeChat's console, 开发→基本配置→IP白名单"):
        fetch(account)


@pytest.mark.parametrize(("errcode", "wait"), [(45011, 60), (-1, None), (48999, 30)])
def test_a_passing_refusal_stops_nothing(gate: TokenGate, account: Account, errcode: int, wait: float | None) -> None:
    gate.answers = [bad(errcode)]
    with pytest.raises(Refused) as refused:
        fetch(account)
    assert not refused.value.fatal and refused.value.wait == wait


def test_an_endpoint_that_is_away_is_said_without_the_address_that_bears_the_secret(tmp_path: Path) -> None:
    away = configured(tmp_path, "http://127.0.0.1:1", 'token = "classic"').accounts["main"]
    with pytest.raises(Refused, match="does not answer") as refused:
        fetch(away)
    assert SECRET not in str(refused.value) and not refused.value.fatal


def test_the_two_endpoints_are_asked_as_wechat_wants_it_and_never_forced_by_themselves(
    gate: TokenGate, account: Account
) -> None:
    gate.answers = [good("T-1", 345)]
    before = wall_ms()
    token = fetch(account)
    assert (token.text, token.fetched_at >= before) == ("T-1", True)
    assert token.expires_at - token.fetched_at == 345_000
    fetch(account, force=True)
    fetch(replace(account, token="classic"))
    (post, path, body), (_, _, forced), (get, classic, _) = gate.asked
    assert (post, path) == ("POST", "/cgi-bin/stable_token")
    assert (body["force_refresh"], forced["force_refresh"]) == (False, True)
    assert body["appid"] == account.app_id and body["secret"] == SECRET
    assert get == "GET" and classic.startswith("/cgi-bin/token?grant_type=client_credential&appid=wx")


# ---- the operator's table


def table(folder: Path, sql: str, *rows: tuple[object, ...]) -> TokenQuery:
    file = folder / "tp #1.db"
    with sqlite3.connect(file) as link:
        link.execute(f"CREATE TABLE IF NOT EXISTS tp_accesstoken ({sql})")
        link.execute("DELETE FROM tp_accesstoken")
        for row in rows:
            link.execute(f"INSERT INTO tp_accesstoken VALUES ({', '.join('?' * len(row))})", row)
    link.close()
    return TokenQuery(f"sqlite:///{file}", "SELECT * FROM tp_accesstoken", frozenset())


def test_a_token_in_a_table_has_no_end_unless_a_column_tells(account: Account, tmp_path: Path) -> None:
    token = fetch(replace(account, token=table(tmp_path, "accesstoken", ("T-1",))))
    assert (token.text, token.expiry) == ("T-1", None)
    token = fetch(replace(account, token=table(tmp_path, "accesstoken", ("T-2",), ("T-3",))))
    assert token.text == "T-2"


@pytest.mark.parametrize(
    ("column", "value", "end"),
    [
        ("expires_at", 4_000_000_000, 4_000_000_000_000), ("expires_at", 4_000_000_000_123, 4_000_000_000_123),
        ("expires_at", "4000000000", 4_000_000_000_000), ("expires_at", "2096-10-02 15:06:40", 4_000_000_000_000),
        ("expires_at", "2096-10-02T07:06:40+00:00", 4_000_000_000_000), ("expires_at", None, NEVER),
    ],
)  # fmt: skip
def test_the_end_of_a_token_in_a_table_may_be_written_in_many_ways(
    account: Account, tmp_path: Path, column: str, value: object, end: int
) -> None:
    file = tmp_path / "tp #1.db"
    with sqlite3.connect(file) as link:
        link.execute(f"CREATE TABLE t ({column}, accesstoken)")
        link.execute("INSERT INTO t VALUES (?, 'T-1')", (value,))
    link.close()
    query = TokenQuery(f"sqlite:///{file}", "SELECT * FROM t WHERE %(account)s = 'main'", frozenset({"account"}))
    token = fetch(replace(account, token=query))
    assert (token.text, token.expires_at) == ("T-1", end)


def test_seconds_left_count_from_now(account: Account, tmp_path: Path) -> None:
    token = fetch(replace(account, token=table(tmp_path, "accesstoken, expires_in", ("T-1", 90))))
    assert token.expires_at - token.fetched_at == 90_000


@pytest.mark.parametrize(
    ("sql", "row", "words"),
    [
        ("accesstoken", (), "gives no row"),
        ("accesstoken", (None,), "holds no access token"),
        ("accesstoken", ("",), "holds no access token"),
        ("accesstoken", ("secret words",), "holds no access token"),
        ("accesstoken, expires_at", ("T-1", 1_000), "ended at 1970-01-01T00:16:40"),
        ("accesstoken, expires_at", ("T-1", "soon"), "expires_at is no time"),
        ("accesstoken, expires_in", ("T-1", "soon"), "expires_in is no number"),
        ("accesstoken, expires_in", ("T-1", float("inf")), "expires_in is no number"),
        ("expires_in", (5,), "holds no access token"),
    ],
)
def test_a_table_without_a_good_token_is_waited_for_in_words(
    account: Account, tmp_path: Path, sql: str, row: tuple[object, ...], words: str
) -> None:
    with pytest.raises(Refused, match=words) as refused:
        fetch(replace(account, token=table(tmp_path, sql, *([row] if row else []))))
    assert not refused.value.fatal and str(refused.value).startswith("[account.main.token] ")
    assert "secret words" not in str(refused.value) and "T-1" not in str(refused.value)


def test_a_database_that_cannot_be_read_is_named(account: Account, tmp_path: Path) -> None:
    away = TokenQuery(f"sqlite:///{tmp_path / 'none.db'}", "SELECT 1", frozenset())
    with pytest.raises(Refused, match=r"none.db: unable to open") as refused:
        fetch(replace(account, token=away))
    assert not refused.value.fatal


def test_nothing_in_the_operators_database_can_be_changed(tmp_path: Path) -> None:
    query = table(tmp_path, "accesstoken", ("T-1",))
    with pytest.raises(OperatorDatabaseAway, match="readonly"):
        select(query.database, "DELETE FROM tp_accesstoken", {})
    assert next(select(query.database, "SELECT count(*) FROM tp_accesstoken", {}).rows) == (1,)


# ---- the refresher


class Scene:
    """A store with a running campaign, an endpoint, and a clock that stands until it is moved."""

    def __init__(self, folder: Path, gate: TokenGate, monkeypatch: pytest.MonkeyPatch, more: str = "") -> None:
        self.at, self.gate = 1_000.0, gate
        self._began = wall_ms()
        monkeypatch.setattr("fanoutd.dispatcher.refresher.time", self)
        for module in ("refresher", "token_sources"):
            monkeypatch.setattr(f"fanoutd.dispatcher.{module}.wall_ms", self.wall)
        self.config = configured(folder, gate.url, more)
        self.db = open_store(self.config.store_url)
        migrate(self.db)
        self.renewed: list[str] = []
        self.later: dict[str, float] = {}
        self.refresher = self.start()
        row = Campaign("c-1", "main", "supply", None, None, None, "running", None, None, 1, None, 1, None, True, "n",
                       "list", {})  # fmt: skip
        with self.db.transaction():
            campaigns.insert(self.db, row)

    def monotonic(self) -> float:
        return self.at

    def wall(self) -> int:
        return self._began + int((self.at - 1_000) * 1000)

    def start(self) -> Refresher:
        made = Refresher(self.config, self.renewed.append, self.later.__setitem__)
        made.begin(self.db)
        return made

    def check(self, after: float = 0.0) -> int:
        """A look after so many seconds; how many calls it made."""
        self.at += after
        before = len(self.gate.asked)
        self.refresher.check(self.db, "main")
        return len(self.gate.asked) - before

    def refused(self, reason: str | None = None, after: float = 0.0) -> int:
        self.at += after
        before, token = len(self.gate.asked), self.token()
        self.refresher.refused(self.db, "main", token.fingerprint if token else "", reason)
        return len(self.gate.asked) - before

    def token(self) -> Token | None:
        return tokens.load(self.db, "main")

    def text(self) -> str:
        token = self.token()
        return token.text if token else ""

    def campaign(self) -> tuple[str, str | None]:
        found = campaigns.get(self.db, "c-1")
        assert found is not None
        return found.state, found.reason

    def shown(self) -> dict[str, Any]:
        return self.refresher.shown(self.db, "main")


@pytest.fixture
def scene(tmp_path: Path, gate: TokenGate, monkeypatch: pytest.MonkeyPatch) -> Scene:
    made = Scene(tmp_path, gate, monkeypatch)
    gate.answers = [good("T-1")]
    made.check()
    assert made.text() == "T-1" and made.renewed == ["main"]
    return made


def test_a_token_is_fetched_again_when_the_clock_says_so_and_not_before(scene: Scene) -> None:
    assert scene.later["main"] == pytest.approx(6910, abs=1)
    scene.gate.answers = [good("T-2")]
    assert scene.check(after=6_900) == 0
    assert scene.check(after=11) == 1 and scene.text() == "T-2"


def test_sixty_four_refusals_at_once_are_one_fetch(scene: Scene) -> None:
    scene.gate.answers = [good("T-2")]
    old = scene.token()
    assert old is not None
    begin, before = threading.Barrier(64), len(scene.gate.asked)

    def worker() -> None:
        db = open_store(scene.config.store_url)
        begin.wait(10)
        scene.refresher.refused(db, "main", old.fingerprint)

    threads = [threading.Thread(target=worker) for _ in range(64)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert len(scene.gate.asked) == before + 1 and scene.text() == "T-2"


def test_who_needs_the_token_that_is_being_fetched_waits_for_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, come = threading.Event(), threading.Event()

    def fetched(_account: Account, _force: bool) -> Token:
        begun.set()
        assert come.wait(10)
        return Token("T-2", scene.wall() + 7_200_000, scene.wall())

    monkeypatch.setattr("fanoutd.dispatcher.refresher.fetch", fetched)
    first = threading.Thread(target=lambda: scene.refresher.refresh(open_store(scene.config.store_url), "main"))
    first.start()
    assert begun.wait(10)
    scene.refresher.check(scene.db, "main")
    assert scene.text() == "T-1"  # who does not wait
    threading.Timer(0.1, come.set).start()
    scene.refresher.check(scene.db, "main", patience=10)
    assert scene.text() == "T-2"
    first.join(10)


def test_a_call_that_was_refused_with_an_older_token_needs_no_fetch(scene: Scene) -> None:
    old = scene.token()
    scene.gate.answers = [good("T-2")]
    assert old is not None and scene.refused() == 1
    told = len(scene.renewed)
    scene.refresher.refused(scene.db, "main", old.fingerprint)
    assert len(scene.gate.asked) == 2 and len(scene.renewed) == told + 1


def test_refusals_of_one_token_after_another_fetch_once_in_thirty_seconds(scene: Scene) -> None:
    scene.gate.answers = [good("T-2"), good("T-3")]
    assert scene.refused() == 1
    assert [scene.refused(after=10), scene.refused(after=10)] == [0, 0]
    assert scene.campaign() == ("running", "WeChat refuses the access token; another one is asked for within 30 s")
    assert scene.refused(after=11) == 1 and scene.text() == "T-3" and scene.campaign() == ("running", None)


def test_who_is_refused_in_the_last_moment_of_a_token_was_late_and_costs_nobody_thirty_seconds(scene: Scene) -> None:
    scene.gate.answers = [good("T-2", 10), good("T-3", 10), good("T-4", 10)]
    assert scene.refused() == 1
    assert scene.refused(after=9.5) == 1 and scene.refused(after=9.5) == 1
    assert scene.text() == "T-4" and scene.campaign() == ("running", None)


def test_a_refused_token_that_is_handed_out_again_is_another_one_to_the_workers(scene: Scene) -> None:
    old = scene.token()
    assert old is not None and scene.refused(after=5) == 1
    new = scene.token()
    assert new is not None and new.text == old.text and new.fingerprint != old.fingerprint
    assert scene.shown()["ok"]


def test_a_token_refused_twice_pauses_until_there_is_another_and_is_probed_ever_less_often(scene: Scene) -> None:
    scene.refused(after=5)
    assert scene.refused(reason="WeChat refused two (40001)") == 0
    assert scene.campaign() == ("paused", "WeChat refused two (40001)")
    assert (scene.shown()["ok"], scene.shown()["error"]) == (False, "WeChat refused two (40001)")
    assert scene.check(after=29) == 0
    assert scene.check(after=1) == 1  # the very same token again
    assert scene.campaign()[0] == "paused" and "hands out the very token" in scene.shown()["error"]
    assert scene.check(after=59) == 0 and scene.check(after=1) == 1
    scene.gate.answers = [good("T-2")]
    assert scene.check(after=119) == 0 and scene.check(after=1) == 1
    assert scene.campaign() == ("running", None) and scene.shown()["error"] is None


def test_an_operators_refresh_tries_even_the_very_token_again(scene: Scene) -> None:
    scene.refused(after=5)
    scene.refused(reason="refused twice")
    scene.refresher.refresh(scene.db, "main")
    assert scene.campaign() == ("running", None) and scene.shown()["ok"]


def test_a_shrinking_life_of_the_same_token_is_followed_and_disturbs_nobody(scene: Scene) -> None:
    first = scene.token()
    told = len(scene.renewed)
    scene.gate.answers = [good("T-1", 300)]
    assert scene.check(after=6_911) == 1
    assert scene.later["main"] == pytest.approx(30, abs=0.1)
    scene.gate.answers = [good("T-1", 285)]
    assert scene.check(after=15) == 0  # too soon after the last
    assert scene.check(after=15) == 1
    second = scene.token()
    assert first is not None and second is not None and second.fingerprint == first.fingerprint
    assert second.expires_at == scene.wall() + 285_000
    assert len(scene.renewed) == told
    scene.gate.answers = [good("T-2")]
    assert scene.check(after=30) == 1 and scene.text() == "T-2" and len(scene.renewed) == told + 1


def test_a_pause_that_a_worker_writes_late_is_found(scene: Scene) -> None:
    old = scene.token()
    assert old is not None
    scene.gate.answers = [good("T-2"), good("T-3")]
    scene.refused()
    scene.refresher.refused(scene.db, "main", old.fingerprint, "refused twice")
    assert scene.later["main"] == 2 and scene.shown()["error"] is None
    with scene.db.transaction():
        campaigns.move(scene.db, "c-1", "running", "paused", cause="token", reason="refused twice")
    scene.check(after=2)
    assert scene.campaign() == ("running", None)


def test_an_account_that_is_refused_whatever_its_token_is_probed_with_the_same(scene: Scene) -> None:
    token = scene.token()
    assert token is not None
    scene.refresher.refused(scene.db, "main", token.fingerprint, "not on the list", token=False)
    assert scene.campaign() == ("paused", "not on the list") and not scene.shown()["ok"]
    assert scene.check(after=30) == 1
    assert scene.campaign() == ("running", None)
    assert scene.token() == replace(token, expires_at=token.expires_at + 30_000)


def test_a_fatal_refusal_pauses_is_asked_about_every_thirty_seconds_and_ends_by_itself(scene: Scene) -> None:
    scene.gate.answers = [bad(40164, "invalid ip 203.0.113.7, not in whitelist")]
    assert scene.refused() == 1
    state, reason = scene.campaign()
    assert state == "paused" and "203.0.113.7" in (reason or "") and "40164" in (reason or "")
    assert scene.shown()["error"] == reason and not scene.shown()["ok"]
    assert scene.later["main"] == pytest.approx(30, abs=0.1)
    assert [scene.check(after=29), scene.refused(), scene.check(after=1)] == [0, 0, 1]
    scene.gate.answers = [good("T-2")]
    assert scene.check(after=30) == 1
    assert scene.campaign() == ("running", None) and scene.shown()["ok"]


@pytest.mark.parametrize(("errcode", "hours"), [(89506, 24), (89507, 1)])
def test_what_the_administrator_refused_is_not_asked_again_before_its_time(
    scene: Scene, errcode: int, hours: int
) -> None:
    scene.gate.answers = [bad(errcode)]
    scene.refused()
    scene.gate.answers = [good("T-2")]
    assert [scene.check(after=hours * 3600 - 1), scene.refused()] == [0, 0]
    assert scene.check(after=1) == 1 and scene.campaign()[0] == "running"


def test_while_wechat_is_busy_the_token_in_hand_goes_on_and_the_pauses_grow(scene: Scene) -> None:
    scene.gate.answers = [bad(-1)]
    assert scene.check(after=6_911) == 1
    waits = []
    for _ in range(4):
        waits.append(round(scene.later["main"]))
        assert scene.check(after=waits[-1] - 0.5) == 0
        assert scene.check(after=0.5) == 1
    assert waits == [1, 2, 4, 30]
    assert scene.shown()["ok"] and "busy" in scene.shown()["error"] and scene.campaign() == ("running", None)
    scene.check(after=300)  # it has ended meanwhile
    assert scene.campaign()[0] == "running" and "busy" in (scene.campaign()[1] or "")
    scene.gate.answers = [good("T-2")]
    assert scene.check(after=31) == 1 and scene.campaign() == ("running", None) and scene.shown()["error"] is None


def test_when_the_days_fetches_are_used_up_the_token_in_hand_goes_on_until_tomorrow(scene: Scene) -> None:
    scene.gate.answers = [bad(45009)]
    scene.check(after=6_911)
    assert scene.shown()["ok"] and scene.campaign() == ("running", None)
    wait = scene.later["main"]
    assert wait == pytest.approx(token_advice.until_tomorrow(scene.wall()), abs=1)
    scene.gate.answers = [good("T-2")]
    assert scene.refused(after=60) == 0
    assert "45009" in (scene.campaign()[1] or "") and not scene.shown()["ok"]
    assert scene.check(after=wait - 61) == 0 and scene.check(after=1) == 1
    assert scene.campaign() == ("running", None)


def test_an_older_answer_that_comes_later_is_not_kept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = Token("T-9", scene.wall() + 9_000_000, scene.wall() + 8_000_000)
    late = Token("T-2", scene.wall() + 7_300_000, scene.wall() + 7_000_000)

    def fetched(_account: Account, _force: bool) -> Token:
        with scene.db.transaction():  # another node was faster
            tokens.save(scene.db, "main", newer)
        return late

    monkeypatch.setattr("fanoutd.dispatcher.refresher.fetch", fetched)
    scene.check(after=7_000)
    assert scene.text() == "T-9"


def test_a_pause_for_a_token_ends_with_a_good_one_also_after_a_restart(scene: Scene) -> None:
    with scene.db.transaction():
        campaigns.move(scene.db, "c-1", "running", "paused", cause="token", reason="refused")
    scene.refresher = scene.start()
    assert scene.check() == 1 and scene.campaign() == ("running", None)


def test_what_else_a_campaign_waits_for_stays_said_when_a_token_comes(scene: Scene) -> None:
    with scene.db.transaction():
        reasons.explain(scene.db, "main", "quota", "tomorrow")
    scene.gate.answers = [good("T-2")]
    scene.check(after=6_911)
    assert scene.text() == "T-2" and scene.campaign() == ("running", "tomorrow")


def test_a_token_of_another_app_id_is_forgotten(scene: Scene) -> None:
    main = scene.config.accounts["main"]
    scene.start()
    assert scene.text() == "T-1"
    scene.config = replace(scene.config, accounts={"main": replace(main, app_id="wx-other")})
    scene.start()
    assert scene.token() is None


def test_forcing_is_refused_before_wechat_would_ignore_it_also_after_a_restart(scene: Scene) -> None:
    scene.gate.answers = [good("T-2", 100)]  # the old one is dead: a shorter life is no reason to keep it
    scene.refresher.refresh(scene.db, "main", force=True)
    assert scene.text() == "T-2" and scene.gate.asked[-1][2]["force_refresh"] is True
    scene.refresher, scene.at = scene.start(), scene.at + 12
    with pytest.raises(Refused, match="try again in 18 s"):
        scene.refresher.refresh(scene.db, "main", force=True)
    assert len(scene.gate.asked) == 2


def test_a_token_in_a_table_is_only_read_and_waited_for(
    tmp_path: Path, gate: TokenGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = table(tmp_path, "accesstoken", ("T-1",))
    more = f'token = {{ database = "{query.database}", query = "{query.query}" }}'
    s = Scene(tmp_path, gate, monkeypatch, more)
    s.check()
    assert s.text() == "T-1" and s.shown()["source"] == "database" and s.shown()["expires_in"] is None
    first = s.token()
    s.check(after=60)
    assert s.token() == first and len(s.renewed) == 1
    s.refused()
    state, reason = s.campaign()
    assert state == "running" and "nothing is sent until another one stands there" in (reason or "")
    assert not s.shown()["ok"] and s.later["main"] == pytest.approx(5, abs=0.1)
    s.check(after=5)
    assert not s.shown()["ok"]
    with pytest.raises(Refused, match="never fetched here"):
        s.refresher.refresh(s.db, "main", force=True)
    table(tmp_path, "accesstoken", ("T-2",))
    s.check(after=5)
    assert s.text() == "T-2" and s.campaign() == ("running", None) and s.shown()["ok"] and gate.asked == []


def test_doctor_knows_tokens_without_an_end() -> None:
    token = {"ok": True, "expires_in": None, "source": "database", "error": None}
    (found,) = doctor._accounts({"accounts": [{"name": "main", "token": token, "quota": None}]})
    assert (found.level, found.words) == ("ok", "good, its end is not known, from database")
