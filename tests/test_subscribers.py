"""What is known of a person and what follows from it: the rules, their storage, and the files that people come in."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanoutd.cli.people_files import people
from fanoutd.cli.subscriber import Report, batches
from fanoutd.config import Window
from fanoutd.dispatcher.followers import Refused, read_page
from fanoutd.errors import BadInput
from fanoutd.master.carried import CARRIED
from fanoutd.master.rpc import RpcError
from fanoutd.standing import (
    BELIEVED_MS,
    FOREVER,
    LESSONS,
    SPENT,
    Lesson,
    Standing,
    State,
    Turn,
    choice,
    happened,
    learnt,
    left,
    listed,
    opted_in,
    opted_out,
    turn,
    wrote,
)
from fanoutd.store import Database, open_store, outbox, subscribers
from fanoutd.store.schema import migrate
from support.stores import KINDS, opened

NOW = 1_800_000_000_000
WINDOWS = {"message": Window(5, 172_800), "menu": Window(3, 60), "subscribe": Window(3, 60), "pay": Window(0, 172_800)}
NEW = Standing(since=NOW - 1000)


def event(before: Standing, what: str, at: int = NOW, now: int | None = None) -> Standing:
    after = happened(before, what, at, at if now is None else now, WINDOWS)
    assert after is not None
    return after


# ---- rules


@pytest.mark.parametrize(("content", "word"), [
    ("0", "out"), ("1", "in"), (" 0\n", "out"), ("０", "out"), ("１", "in"), ("00", None), ("10", None), ("", None),
    (None, None), ("退订", None), ("0 ", "out"), ("O", None),
])
def test_nought_and_one_are_a_persons_word_in_any_width(content: str | None, word: str | None) -> None:
    assert choice(content) == word


def test_whoever_opted_out_stays_so_over_everything_but_their_own_word() -> None:
    out = opted_out(NEW, NOW)
    for what in ("unsubscribe", "subscribe", "message", "menu", "pay"):
        assert event(out, what).word(NOW) == "opted_out"
    assert listed(out, NOW).word(NOW) == listed(out, NOW, seen=NOW).word(NOW) == "opted_out"
    for lesson in Lesson:
        assert learnt(out, lesson, NOW).state is State.OPTED_OUT
    assert opted_in(out, NOW).takes(NOW)
    assert opted_out(out, NOW + 5) == out


def test_gone_by_unsubscribe_lasts_until_the_next_event_and_gone_by_an_errcode_for_a_day() -> None:
    gone = event(NEW, "unsubscribe")
    assert (gone.word(NOW + 10**12), gone.since) == ("gone", NOW)
    assert event(gone, "menu", NOW + 1000).takes(NOW + 1000)
    told = learnt(NEW, LESSONS[43004], NOW)
    words = [told.word(at) for at in (NOW, NOW + BELIEVED_MS - 1, NOW + BELIEVED_MS)]
    assert words == ["gone", "gone", "active"]
    assert event(told, "subscribe").takes(NOW)
    assert learnt(gone, LESSONS[43004], NOW).gone_until == FOREVER


@pytest.mark.parametrize(("errcode", "word", "hook"), [
    (43004, "gone", "on_gone"), (50005, "gone", "on_gone"), (46004, "gone", "on_gone"), (40003, "gone", None),
    (49003, "gone", None), (48002, "opted_out", "on_opt_out"), (43019, "blocked", None), (45047, "active", None),
    (45015, "active", None), (0, "active", None), (-1, "active", None),
])
def test_what_an_errcode_teaches(store: Database, errcode: int, word: str, hook: str | None) -> None:
    with store.transaction():
        for _ in range(2):  # the second time it is no news
            subscribers.learn(store, "main", {"oONE000": errcode}, {"on_gone", "on_opt_out"})
    found = subscribers.get(store, "main", "oONE000")
    assert (found.word(store.now_ms()) if found else "active") == word
    errands = outbox.due(store)
    assert [each.name for each in errands] == ([hook] if hook else [])
    assert all(each.payload == {"account": "main", "openid": "oONE000"} for each in errands)


def test_no_errand_is_left_for_a_statement_that_no_audience_has(store: Database) -> None:
    with store.transaction():
        subscribers.learn(store, "main", {"oONE000": 43004}, {"on_opt_out"})
    assert outbox.due(store) == []


def test_a_stale_event_changes_nothing() -> None:
    assert happened(NEW, "unsubscribe", NOW - 300_001, NOW, WINDOWS) is None
    assert happened(NEW, "unsubscribe", NOW - 299_000, NOW, WINDOWS) is not None
    later = event(NEW, "subscribe", NOW)
    assert happened(later, "unsubscribe", NOW - 1000, NOW, WINDOWS) is None
    # WeChat's times are whole seconds: what came in the same one is not older
    assert happened(later, "unsubscribe", NOW - NOW % 1000, NOW, WINDOWS) is not None


def test_a_clock_that_is_ahead_does_not_make_the_events_after_it_stale() -> None:
    early = event(NEW, "message", NOW + 60_000, now=NOW)
    assert early.event_at == NOW
    assert event(early, "unsubscribe", NOW + 2000).gone(NOW + 2000)


def test_windows_open_by_the_table_and_shut_by_time_and_number() -> None:
    assert not NEW.shut(NOW) and not NEW.open(NOW)  # nobody told us anything
    talking = event(NEW, "message")
    assert (talking.window_left, talking.open(NOW + 172_799_999), talking.shut(NOW + 172_800_000)) == (5, True, True)
    assert replace(talking, window_left=0).shut(NOW)
    paid = event(NEW, "pay")
    assert paid.window_left is None and paid.open(NOW)
    tapped = event(talking, "menu", NOW + 1000)  # the longer one goes on
    assert (tapped.window_kind, tapped.window_left) == ("message", 5)
    assert event(replace(talking, window_left=0), "menu", NOW + 1000).window_kind == "menu"
    assert event(NEW, "scan").window_kind is None  # not in this table
    assert wrote(NEW, NOW, WINDOWS).window_kind == "message" and wrote(NEW, NOW, WINDOWS).event_at is None


def test_used_up_lasts_until_the_next_event() -> None:
    spent = learnt(NEW, LESSONS[45047], NOW)
    assert spent.shut(NOW + 10**12) and spent.takes(NOW)
    assert event(spent, "menu", NOW + 1000).open(NOW + 1000)


CUSTOM, BOTH, TEMPLATE = ("custom",), ("custom", "template"), ("template", "custom")
SHUT = Standing(since=0, window_kind="menu", window_until=NOW - 1, window_left=3)
USED_UP = Standing(since=0, window_kind=SPENT, window_until=FOREVER, window_left=0)
OUT, OFF, GONE = Standing(0, State.OPTED_OUT), Standing(0, State.SWITCHED_OFF), Standing(0, gone_until=NOW + 1)


@pytest.mark.parametrize(("standing", "again", "channels", "expected"), [
    (Standing(0), False, BOTH, Turn.TRY), (OUT, False, BOTH, Turn.SKIP), (OFF, False, BOTH, Turn.SKIP),
    (GONE, False, BOTH, Turn.SKIP), (Standing(0, State.BLOCKED), False, BOTH, Turn.SKIP),
    (Standing(0, gone_until=NOW), False, BOTH, Turn.TRY),
    (OUT, True, BOTH, Turn.SKIP), (OFF, True, BOTH, Turn.TRY), (GONE, True, BOTH, Turn.TRY),
    (SHUT, False, BOTH, Turn.WITHOUT_CUSTOM), (SHUT, False, CUSTOM, Turn.TRY), (SHUT, False, TEMPLATE, Turn.TRY),
    (SHUT, True, BOTH, Turn.TRY), (USED_UP, False, BOTH, Turn.WITHOUT_CUSTOM), (USED_UP, False, CUSTOM, Turn.SKIP),
    (USED_UP, True, CUSTOM, Turn.TRY),
])
def test_whose_turn_comes_to_what(standing: Standing, again: bool, channels: tuple[str, ...], expected: Turn) -> None:
    assert turn(standing, NOW, again, channels) is expected


def test_wechats_list_proves_that_somebody_follows_unless_they_left_while_it_was_read() -> None:
    gone = event(NEW, "unsubscribe", NOW)
    assert listed(gone, NOW + 5000, seen=NOW + 1000).takes(NOW + 5000)
    assert listed(gone, NOW + 5000, seen=NOW - 1000).word(NOW + 5000) == "gone"
    assert listed(gone, NOW + 5000).word(NOW + 5000) == "gone"  # an import proves nothing
    off = left(replace(NEW, listed=True), NOW)
    assert (off.listed, off.word(NOW)) == (False, "gone")


_STEPS = st.one_of(
    st.sampled_from(["subscribe", "unsubscribe", "message", "menu"]).map(lambda each: ("event", each)),
    st.sampled_from(["0", "1", "hello"]).map(lambda each: ("reply", each)),
    st.sampled_from(list(Lesson)).map(lambda each: ("learnt", each)),
    st.just(("listed", None)), st.just(("synced", None)), st.just(("left", None)),
)


@given(st.lists(_STEPS, max_size=12))
def test_whatever_happens_the_last_word_holds(steps: list[tuple[str, Any]]) -> None:
    standing, at, word = Standing(since=NOW), NOW, None
    for kind, what in steps:
        at += 1000
        if kind == "event":
            standing = event(standing, what, at)
        elif kind == "reply":
            rule = {"out": opted_out, "in": opted_in}.get(choice(what) or "")
            standing = wrote(standing, at, WINDOWS)
            standing = rule(standing, at) if rule else standing
            word = choice(what) or word
            assert choice(what) != "in" or standing.takes(at)
        elif kind == "learnt":
            standing = learnt(standing, what, at)
            word = None if what is Lesson.SWITCHED_OFF and word != "out" else word
        elif kind == "left":
            standing = left(standing, at)
        else:
            standing = listed(standing, at, seen=at if kind == "synced" else None)
        assert word != "out" or standing.word(at) == "opted_out"
        assert standing.takes(at) == (standing.word(at) == "active")
        assert standing.since <= at


# ---- the store


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    db = opened(request.param, tmp_path)
    yield db
    db.close()


def test_everything_that_is_known_is_kept(store: Database) -> None:
    full = Standing(1, State.BLOCKED, True, 2, "menu", 3, 4, 5, 6, '{"city": "北京"}')
    bare = Standing(7)
    with store.transaction():
        changed = subscribers.change(store, "main", ["oFULL00", "oBARE00"], 7, lambda each: each)
        assert set(changed) == {"oFULL00", "oBARE00"}
        subscribers.change(store, "main", ["oFULL00"], 7, lambda _each: full)
        assert subscribers.change(store, "main", ["oFULL00"], 9, lambda each: each) == {}
        assert subscribers.change(store, "main", ["oFULL00"], 9, lambda _each: None) == {}
    assert subscribers.load(store, "main", ["oFULL00", "oBARE00", "oNONE00"]) == {"oFULL00": full, "oBARE00": bare}
    assert subscribers.get(store, "other", "oFULL00") is None
    assert subscribers.notable(store, "main", ["oFULL00", "oBARE00"]) == {"oFULL00": full}


def test_a_window_holds_one_less_for_each_message_and_never_less_than_none(store: Database) -> None:
    with store.transaction():
        subscribers.change(store, "main", ["oONE000"], NOW, lambda each: event(each, "menu"))
        for _ in range(5):
            subscribers.use(store, "main", ["oONE000", "oOTHER0"])
    found = subscribers.get(store, "main", "oONE000")
    assert found is not None and found.window_left == 0 and found.shut(NOW + 1)


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    db = open_store(f"sqlite:///{tmp_path_factory.mktemp('million')}/store.db")
    migrate(db)
    with db.transaction():
        db.execute(
            "INSERT INTO fanout_subscriber (account, openid, state, listed, since) "
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999999) "
            "SELECT 'main', printf('oTEST%023d', i), CASE WHEN i % 50 = 0 THEN 1 ELSE 0 END, 1, 0 FROM n"
        )
    yield db
    db.close()


def test_a_windows_look_at_a_million_subscribers_goes_by_the_key(million: Database) -> None:
    chosen = [f"oTEST{i:023d}" for i in random.Random(1).sample(range(1_000_000), 512)]
    plan = million.rows(
        "EXPLAIN QUERY PLAN SELECT openid FROM fanout_subscriber WHERE account = %s AND openid IN (%s, %s) "
        "AND (state <> 0 OR gone_until IS NOT NULL OR window_kind IS NOT NULL)", "main", *chosen[:2],
    )  # fmt: skip
    assert "SEARCH fanout_subscriber USING PRIMARY KEY (account=? AND openid=?)" in str(plan)
    took = []
    for _ in range(5):
        began = time.perf_counter()
        found = subscribers.notable(million, "main", chosen)
        took.append(time.perf_counter() - began)
    assert set(found) == {each for each in chosen if int(each[5:]) % 50 == 0} and found
    assert min(took) < 0.1  # some 5 ms; a scan takes half a second


def test_the_embedded_audience_is_streamed_and_leaves_out_who_takes_no_messages(million: Database) -> None:
    pages = subscribers.audience(million, "main")
    first = next(pages)
    assert len(first) == 980 and first[0] == (f"oTEST{1:023d}", None)
    assert len(first) + sum(len(page) for page in pages) == 980_000


# ---- parameters


@pytest.mark.parametrize(("method", "params", "field"), [
    ("reply", {"openid": "x", "content": "0"}, "openid"), ("reply", {"openid": "oONE000", "content": []}, "content"),
    ("reply", {"openid": "oONE000", "text": "0"}, "text"), ("event", {"openid": "oONE000", "event": "leave"}, "event"),
    ("import", {}, "rows"), ("import", {"rows": {}}, "rows"), ("import", {"rows": [[]]}, "rows[0]"),
    ("import", {"rows": [{"openid": "oONE000"}, {"openid": "no openid"}]}, "rows[1].openid"),
    ("import", {"rows": [{"openid": "oONE000", "a": {}}]}, "rows[0].a"), ("list", {"limit": 1001}, "limit"),
    ("import", {"rows": [{"openid": "oONE000", "a" * 65: "1"}]}, "rows[0]"), ("get", {}, "openid"),
    ("forget", {"openid": "oONE000", "reason": "x"}, "reason"), ("sync", {"tag": "red"}, "tag"),
    ("opt_in", {"openid": "oONE000", "account": 5}, "account"),
])
def test_what_is_refused_names_its_field(method: str, params: dict[str, Any], field: str) -> None:
    with pytest.raises(RpcError) as error:
        CARRIED[f"subscriber.{method}"](params)
    assert error.value.code == -32602
    assert error.value.data == {"field": field}


def test_parameters_arrive_complete() -> None:
    assert CARRIED["subscriber.list"]({}) == {"after": None, "limit": 1000, "account": None}
    assert CARRIED["subscriber.import"]({"rows": [{"openid": "oONE000", "n": 5, "none": None}]}) == {
        "rows": [{"openid": "oONE000", "n": "5"}], "account": None,
    }  # fmt: skip
    assert CARRIED["subscriber.import"]({"rows": []})["rows"] == []
    assert CARRIED["subscriber.reply"]({"openid": "oONE000", "content": 0})["content"] == "0"


# ---- files of people


def read(text: str | bytes) -> tuple[list[dict[str, Any]], list[int]]:
    bad: list[int] = []
    data = text.encode() if isinstance(text, str) else text
    return list(people(data.splitlines(keepends=True), lambda line, _why: bad.append(line))), bad


@pytest.mark.parametrize(("text", "found", "bad"), [
    ("oONE000\n\n\"oTWO000\"\r\noTHREE0", [{"openid": "oONE000"}, {"openid": "oTWO000"}, {"openid": "oTHREE0"}], []),
    ("oONE000\nx y\noTWO000\n", [{"openid": "oONE000"}, {"openid": "oTWO000"}], [2]),
    ("openid\noONE000\n", [{"openid": "oONE000"}], []),
    ("\ufeffOpenID,city\noONE000,北京\nshort\noTWO000,\"a\nb\"\nbad id,x\n",
     [{"openid": "oONE000", "city": "北京"}, {"openid": "oTWO000", "city": "a\nb"}], [3, 6]),
    ('{"openid": "oONE000", "n": 5}\n\n{"openid": 5}\n{nonsense\n{"openid": "oTWO000", "x": []}\n[1]\n'
     '{"openid": "oTHREE0", "x": "\\ud800"}\n{"openid": "oFOUR00", "x": NaN}\n{"openid": "oFIVE00", "x": null}\n',
     [{"openid": "oONE000", "n": 5}, {"openid": "oFIVE00", "x": None}], [3, 4, 5, 6, 7, 8]),
    (b"oONE000\n\xff\xfe\noTWO000\n", [{"openid": "oONE000"}, {"openid": "oTWO000"}], [2]),
    ("", [], []), ("\n \n", [], []),
])
def test_files_are_told_apart_and_their_bad_lines_named(text: str | bytes, found: list[Any], bad: list[int]) -> None:
    assert read(text) == (found, bad)


def test_a_header_without_openid_is_refused() -> None:
    with pytest.raises(BadInput, match="a header with a column openid"):
        read("name,city\nA,B\n")


@given(st.binary(max_size=300))
def test_no_file_is_an_exception(data: bytes) -> None:
    try:
        found, _ = read(data)
    except BadInput:
        return
    for each in found:
        CARRIED["subscriber.import"]({"rows": [each]})  # and nothing that the daemon would refuse


def test_batches_fit_into_one_request() -> None:
    report = Report("f")
    rows = [{"openid": f"oTEST{i:03d}", "x": "供" * 20} for i in range(100)]
    found = list(batches(rows, 1000, report))
    assert [row for batch in found for row in batch] == rows
    assert len(found) > 8 and all(len(str(batch).encode()) < 1000 for batch in found)
    assert list(batches([{"openid": "oONE000", "x": "y" * 2000}], 1000, report)) == [] and report.count == 1


# ---- pages of WeChat's list


@pytest.mark.parametrize(("answer", "openids", "following"), [
    ({"total": 2, "count": 2, "data": {"openid": ["oONE000", "oTWO000"]}, "next_openid": "oTWO000"},
     ["oONE000", "oTWO000"], "oTWO000"),
    ({"total": 2, "count": 0, "next_openid": ""}, [], ""), ({"total": 2, "count": 0, "next_openid": "oTWO000"}, [], ""),
    ({"count": 1, "data": {"openid": ["oONE000", 5, "no openid"]}}, ["oONE000"], ""),
    ({"count": 0, "data": None}, [], ""), ({"errcode": 0, "count": 0}, [], ""),
])
def test_the_quirks_of_pages(answer: dict[str, Any], openids: list[str], following: str) -> None:
    page = read_page(answer)
    assert (page.openids, page.following) == (openids, following)


@pytest.mark.parametrize("answer", [{}, [], None, "x", {"count": "2"}, {"errcode": 40001, "errmsg": "x", "count": 0}])
def test_what_is_no_page_is_none_and_never_an_empty_one(answer: Any) -> None:
    with pytest.raises(Refused):
        read_page(answer)
