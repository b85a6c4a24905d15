"""A campaign's report: what it says, that it sums, and that nothing in it can break a mail or a page."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanoutd.config import load
from fanoutd.dispatcher import reports
from fanoutd.errcodes import ANEW
from fanoutd.outcome import NEVER_HEARD, State
from fanoutd.report import timeline as over_time
from fanoutd.report.build import Report, all_reached, build
from fanoutd.report.mail_html import mail_html, widths
from fanoutd.report.page import page
from fanoutd.report.refused import refused
from fanoutd.report.text import text
from fanoutd.report.timeline import MOST, Timeline, step_for
from fanoutd.report.words import one_line, share, step, without_people
from fanoutd.store import Database, campaigns, counters, history, shards, timelines
from fanoutd.store.campaigns import Campaign
from fanoutd.store.shards import Planned
from fanoutd.times import duration, iso, parse_when
from support.stores import KINDS, opened

START = parse_when("2026-01-02T07:04:05+00:00")
NASTY = "<script>alert('花')</script> & \"春节\" \x07"

ANSWER: dict[str, Any] = {
    "campaign": {
        "id": "c-1", "account": "main", "message": "supply", "audience": "default", "reference": "r-1", "key": None,
        "state": "done", "reason": None, "created_at": iso(START - 1000), "send_at": None, "started_at": iso(START),
        "finished_at": iso(START + 300_000), "total": 1500,
        "counts": {"pending": 0, "sent_custom": 1200, "sent_template": 268, "sent_subscribe": 0, "failed": 20,
                   "skipped": 9, "unknown": 3},
        "errors": {"43004": 15, "render": 5}, "rate": None, "eta_seconds": None,
    },
    "cause": None,
    "timeline": {"start": iso(START), "step_ms": 5000, "sent": [25] * 58 + [18], "failed": [20] + [0] * 58,
                 "unknown": [0] * 58 + [3]},
    "first_at": iso(START + 100), "last_at": iso(START + 294_000), "later": 0,
    "errors": [{"errcode": "43004", "count": 15, "words": "does not follow the account", "mend": None},
               {"errcode": "render", "count": 5, "words": "cannot be rendered", "mend": "mend the text"}],
    "excerpt": "今天 12 点开饭", "submitted": {"who": "www-data", "uid": 33, "pid": 7, "node": "a"},
    "timezone": "Asia/Shanghai", "test": False, "away": {"count": 0, "nodes": []},
}  # fmt: skip


def answer(counts: dict[str, int] | None = None, **campaign: Any) -> dict[str, Any]:
    made = copy.deepcopy(ANSWER)
    made["campaign"].update(campaign)
    if counts is not None:
        made["campaign"]["counts"] = dict.fromkeys(made["campaign"]["counts"], 0) | counts
        made["campaign"]["total"] = sum(counts.values())
        made["errors"] = [] if not counts.get("failed") else made["errors"]
    return made


def commands(report: Report) -> list[str]:
    return [each.command for each in report.steps if each.command]


# ---- what it says


def test_the_receipt_sums_and_one_that_does_not_is_refused() -> None:
    report = build(ANSWER)
    assert sum(line.count for line in report.receipt) == report.total == 1500
    assert [(line.key, line.share) for line in report.receipt] == [
        ("sent_custom", "80.0 %"), ("sent_template", "17.9 %"), ("failed", "1.3 %"), ("skipped", "0.6 %"),
        ("unknown", "0.2 %"),
    ]  # fmt: skip
    broken = answer()
    broken["campaign"]["total"] = 1501
    with pytest.raises(ValueError, match="1500 people of 1501"):
        build(broken)


@pytest.mark.parametrize(("counts", "state", "headline", "subject", "tone"), [
    ({"sent_custom": 1500}, "done", "All 1,500 people were sent to.", "done: 1,500 of 1,500 sent", "good"),
    ({"sent_template": 1}, "done", "The one person was sent to.", "done: 1 of 1 sent", "good"),
    ({"sent_custom": 8, "skipped": 2}, "done", "All 8 people were sent to; 2 more were skipped.",
     "done: 8 of 10 sent, 2 skipped", "good"),
    ({"sent_custom": 8, "failed": 2}, "done", "8 of 10 people were sent to, 2 failed.",
     "done: 8 of 10 sent, 2 failed", "warn"),
    ({"failed": 2}, "done", "0 of 2 people were sent to, 2 failed.", "done: 0 of 2 sent, 2 failed", "bad"),
    ({"sent_custom": 8, "unknown": 1}, "done",
     "8 of 9 people were sent to, and of 1 nobody knows whether they have the message.",
     "unknown: 1 of 9 waits for a decision", "warn"),
    ({"sent_custom": 7, "unknown": 2}, "done",
     "7 of 9 people were sent to, and of 2 nobody knows whether they have the message.",
     "unknown: 2 of 9 wait for a decision", "warn"),
    ({}, "done", "Its audience was empty: nobody was sent to.", "done: 0 of 0 sent", "warn"),
    ({"skipped": 3}, "done", "All 3 people have opted out or are known to be gone, and were skipped.",
     "done: 0 of 3 sent, 3 skipped", "warn"),
    ({"sent_custom": 2, "pending": 8}, "cancelled",
     "It was cancelled when 2 of 10 people were through; the others were not tried.",
     "cancelled: 2 of 10 sent, 8 not tried", "warn"),
    ({"sent_custom": 2, "pending": 8}, "running", "It is running: 2 of 10 people are through.",
     "running: 2 of 10 sent, 8 not tried", "good"),
])  # fmt: skip
def test_headline_and_subject(counts: dict[str, int], state: str, headline: str, subject: str, tone: str) -> None:
    report = build(answer(counts, state=state))
    assert (report.headline, report.subject, report.tone) == (headline, f"campaign c-1 {subject}", tone)


@pytest.mark.parametrize(("counts", "state", "reached"), [
    ({"sent_custom": 2, "sent_template": 1, "skipped": 5}, "done", True), ({}, "done", True),
    ({"skipped": 5}, "done", False), ({"sent_custom": 2, "failed": 1}, "done", False),
    ({"sent_custom": 2, "unknown": 1}, "done", False), ({"sent_custom": 2}, "cancelled", False),
])  # fmt: skip
def test_what_is_no_problem(counts: dict[str, int], state: str, reached: bool) -> None:
    assert all_reached(answer(counts, state=state)["campaign"]) is reached


def test_a_pause_says_why_and_what_ends_it() -> None:
    given = answer({"sent_custom": 2, "pending": 8}, state="paused", reason="47003 x 20: 模板 refused " + "y" * 300)
    report = build(given)
    assert report.headline == "It paused itself when 2 of 10 people were through."
    assert report.subject.startswith("campaign c-1 paused: 47003 x 20: 模板 refused y") and len(report.subject) < 180
    assert commands(report) == ["fanoutd campaign resume c-1", "fanoutd campaign cancel c-1"]
    by_cause = {"token": "fanoutd token refresh", "past": "fanoutd campaign repair c-1"}
    for cause, command in by_cause.items():
        assert commands(build(given | {"cause": cause})) == [command, "fanoutd campaign cancel c-1"]
    anew = {"campaign": {**given["campaign"], "reason": f"WeChat refuses the message; {ANEW}"}}
    left = "fanoutd campaign export c-1 --state pending"
    assert commands(build(given | anew)) == ["fanoutd campaign cancel c-1", left]
    assert build(given | {"cause": "operator"}).headline.startswith("Somebody paused it")


def test_unknown_people_get_every_way_out_and_the_node_that_may_know() -> None:
    assert commands(build(answer({"sent_custom": 2, "unknown": 3}))) == [
        f"fanoutd campaign {each}" for each in
        ("export c-1 --state unknown", "resolve c-1 --sent", "resolve c-1 --failed", "retry c-1 --unknown")
    ]  # fmt: skip
    away = build(answer({"sent_custom": 2, "unknown": 3}) | {"away": {"count": 2, "nodes": ["b"]}})
    assert "2 of the unknown were in the hands of node b: when it is started again" in away.steps[0].words


def test_failures_are_retried_only_where_wechat_refused() -> None:
    assert "fanoutd campaign retry c-1 --failed" in commands(build(answer({"sent_custom": 1, "failed": 20})))
    ours = answer({"sent_custom": 1, "failed": 5}) | {"errors": ANSWER["errors"][1:]}
    assert commands(build(ours)) == ["fanoutd campaign export c-1 --state failed"]


def test_many_errcodes_are_cut_to_the_most_frequent() -> None:
    many = [{"errcode": str(40000 + i), "count": 20 - i, "words": f"w{i}", "mend": None} for i in range(12)]
    report = build(answer({"failed": 174}) | {"errors": many})
    assert [each.errcode for each in report.errors] == [str(40000 + i) for i in range(8)]
    assert report.more_errors == 12 + 11 + 10 + 9 and "42  for other reasons" in text(report)


def test_facts_have_duration_average_and_peak() -> None:
    facts = dict(build(ANSWER).facts)
    assert facts["submitted by"] == "www-data (uid 33) on node a"
    assert facts["submitted"] == "2026-01-02 15:04:04 Asia/Shanghai" and facts["took"] == "5 min 00 s"
    assert facts["average rate"] == "5.1 a second" and facts["peak rate"] == "9.0 a second, over 5 s"
    assert (facts["first outcome"], facts["last outcome"]) == ("2026-01-02 15:04:05", "2026-01-02 15:08:59")


# ---- how it looks


class _Checked(HTMLParser):
    """Every tag is closed, nothing is fetched, nothing runs."""

    VOID = frozenset({"meta", "br", "rect", "line"})

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(document)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "img", "link", "iframe", "object")
        assert not [name for name, _ in attributes if name in ("src", "href") or name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        assert tag in self.VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def test_all_three_say_the_same_and_survive_anything() -> None:
    given = answer(reason=NASTY, reference=NASTY)
    given["excerpt"] = given["errors"][1]["mend"] = given["errors"][0]["words"] = NASTY
    report = build(given)
    for document in (mail_html(report, NASTY), page(report, "made by fanoutd")):
        seen = " ".join(_Checked(document).words)
        for word in ("1,500", "1,200", "sent as template message", "17.9 %", "43004", "c-1", "5 min 00 s",
                     "<script>alert('花')</script> & \"春节\"", "fanoutd campaign resolve c-1 --failed"):  # fmt: skip
            assert word in seen, word
        assert "\x07" not in document
    for word in ("1,500", "17.9 %", "43004", "春节", "fanoutd campaign retry c-1 --unknown",
                 "Deliveries in steps of 15 s"):  # fmt: skip
        assert word in text(report), word
    assert "<svg" not in mail_html(report) and "<style" not in mail_html(report)
    assert "prefers-color-scheme:dark" in page(report, "") and "@media print" in page(report, "")


def test_the_charts_have_a_bar_for_whatever_there_is() -> None:
    report = build(ANSWER)
    drawn = re.findall(r"<title>(\d\d:\d\d:\d\d): ([^<]*)</title>", page(report, ""))
    assert len(drawn) == 59 and drawn[0] == ("15:04:05", "25 sent, 20 failed")
    assert drawn[-1] == ("15:08:55", "18 sent, 3 unknown")
    rows = re.findall(r'padding:1px 0">(\d\d:\d\d(?::\d\d)?)</td>', mail_html(report))
    assert 5 <= len(rows) <= 14 and rows[0] == "15:04:00"
    assert 'title="20 failed"' in mail_html(report) and 'title="3 unknown"' in mail_html(report)


def test_one_without_anybody_has_no_chart_and_no_bar() -> None:
    bare = answer({}) | {"timeline": None, "first_at": None, "last_at": None}
    report = build(bare)
    _Checked(mail_html(report)), _Checked(page(report, ""))
    assert "<svg" not in page(report, "") and "Deliveries" not in text(report)


def test_nobody_is_named() -> None:
    openid = "oABCDEFGHIJKLMNOPQRSTUVWXYZ0"
    assert without_people(f"openid {openid}: no, '{openid}'!") == "openid (openid): no, '(openid)'!"
    assert without_people("one of c-06h1q2sabpe5q38a, obviously") == "one of c-06h1q2sabpe5q38a, obviously"
    report = build(answer({"sent_custom": 1, "pending": 1}, state="paused", reason=f"40003 for {openid}"))
    assert openid not in report.subject + text(report) + mail_html(report) + page(report, "")


def test_words() -> None:
    assert [share(*each) for each in ((0, 5), (5, 5), (1, 1_000_000), (999_999, 1_000_000), (1, 3), (0, 0))] == [
        "0 %", "100 %", "< 0.1 %", "99.9 %", "33.3 %", "0 %"]  # fmt: skip
    assert [duration(each) for each in (0.25, 59.99, 3600, 200_000)] == ["0.2 s", "1 min 00 s", "1 h 00 min", "2 d 7 h"]
    assert [step(each) for each in (0.25, 5, 120, 7200, 86400)] == ["250 ms", "5 s", "2 min", "2 h", "1 d"]
    assert one_line("a\n b  c", 4) == "a b…" and one_line("花花", 2) == "花花"


@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=7))
def test_the_parts_of_a_bar_are_a_hundred_together(counts: list[int]) -> None:
    assert sum(widths(counts)) == 100 and min(widths(counts)) >= 1


# ---- the time line


@given(st.integers(0, 10 * 365 * 86_400_000))
def test_no_span_makes_too_many_steps(span: int) -> None:
    taken = step_for(span)
    assert span // taken + 1 <= MOST
    assert taken == 250 or span / taken > MOST / 8  # and not far too few


@given(st.integers(0, 10**6), st.sampled_from([250, 1000, 5000, 60_000]), st.integers(1, 40),
       st.lists(st.integers(0, 50), min_size=1, max_size=60))  # fmt: skip
def test_a_coarser_one_loses_nobody(start: int, length: int, most: int, sent: list[int]) -> None:
    zeros = (0,) * len(sent)
    fine = Timeline(start * length, length, {"sent": tuple(sent), "failed": zeros, "unknown": tuple(sent[::-1])})
    coarse = fine.coarser(most)
    assert len(coarse) <= most + 1 and coarse.start % coarse.step in (0, fine.start % coarse.step)
    for kind, values in fine.series.items():
        assert sum(coarse.series[kind]) == sum(values)
        running = 0  # each is counted in the step in which its own begins
        for i, count in enumerate(values):
            running += count
            at = (fine.start + i * length - coarse.start) // coarse.step
            assert running <= sum(coarse.series[kind][: at + 1])


def test_the_peak_is_over_a_second_at_least() -> None:
    line = Timeline(0, 250, {"sent": (0, 100, 0, 0, 0, 60, 60, 0, 0), "failed": (0,) * 9, "unknown": (0,) * 9})
    assert line.peak() == (120.0, 1.0)
    assert Timeline(0, 5000, {"sent": (10, 20)}).peak() == (4.0, 5.0)
    assert Timeline(0, 250, {"sent": (10, 20)}).peak() is None


def test_it_comes_back_as_it_went() -> None:
    line = Timeline(START, 250, {"sent": (1, 2), "failed": (0, 1), "unknown": (0, 0)})
    sent = json.loads(json.dumps(over_time.encode(line, iso)))
    assert over_time.decode(sent, parse_when) == line
    assert over_time.decode(over_time.encode(None, iso), parse_when) is None


# ---- from a store


@pytest.fixture(params=KINDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    made = opened(request.param, tmp_path)
    yield made
    made.close()


def stored(db: Database, states: list[tuple[State, int, int]]) -> Campaign:
    """A campaign whose people ended so: (state, errcode, milliseconds after START), a shard for every three."""
    row = Campaign("c-1", "main", "supply", None, None, None, "done", None, None, START, None, START, START + 60_000,
                   True, "a", "list", {"content": "  今天\n开饭 " + "x" * 100})  # fmt: skip
    with db.transaction():
        campaigns.insert(db, row)
        for at in range(0, len(states), 3):
            some = states[at : at + 3]
            shard = shards.add(db, "c-1", at, [Planned(f"oREPORT{at + i:020d}") for i in range(len(some))])
            for pos, (state, errcode, after) in enumerate(some):
                db.execute(
                    "UPDATE fanout_delivery SET state = %s, errcode = %s, channel = 1, updated_at = %s, since = %s "
                    "WHERE shard = %s AND pos = %s",
                    state, errcode, START + after, NEVER_HEARD if state is State.UNKNOWN else None, shard, pos,
                )  # fmt: skip
            counters.recount(db, shard)
    return row


def test_the_time_line_is_one_look_at_the_deliveries(db: Database) -> None:
    found = timelines.read(db, stored(db, [
        (State.SENT, 0, 100), (State.SENT, 0, 900), (State.FAILED, 43004, 2_500), (State.RESEND, 0, 2_600),
        (State.UNKNOWN, 0, 59_000), (State.SENT, 0, 59_999), (State.SENT, 0, 86_400_000), (State.PENDING, 0, 3_000),
    ]), START + 90_000_000)  # fmt: skip
    line = found.timeline
    assert line is not None and (line.start, line.step, len(line)) == (START - START % 2000, 2000, 31)
    assert {kind: [(i, n) for i, n in enumerate(values) if n] for kind, values in line.series.items()} == {
        "sent": [(0, 2), (30, 1)], "failed": [(1, 1)], "unknown": [(1, 1), (30, 1)]}  # fmt: skip
    assert (found.first, found.last) == (START + 100, START + 59_999)
    assert (found.later, found.given_up) == (1, 1)


def test_one_that_waited_for_long_is_looked_at_more_closely(db: Database) -> None:
    campaign = stored(db, [(State.SENT, 0, 50_000), (State.SENT, 0, 50_400), (State.SENT, 0, 51_000)])
    line = timelines.read(db, campaign, START).timeline
    assert line is not None and line.step == 250 and sum(line.totals()) == 3
    db.execute("UPDATE fanout_campaign SET started_at = 0, finished_at = NULL")  # for fifty years, and is not over
    found = campaigns.get(db, "c-1")
    assert found is not None
    line = timelines.read(db, found, START + 10**9).timeline
    assert line is not None and line.step == 250 and sum(line.totals()) == 3


def test_nobody_has_a_time_line_before_anything_happened(db: Database) -> None:
    found = timelines.read(db, stored(db, []), START)
    assert (found.timeline, found.first, found.later, found.given_up) == (None, None, 0, 0)


def test_the_answer_has_all_that_a_report_needs(db: Database, tmp_path: Path) -> None:
    file = tmp_path / "fanoutd.toml"
    file.write_text('[account.main]\napp_id = "wx1"\napp_secret = "s"\ntimezone = "UTC"\n[message.supply.custom]\n'
                    'msgtype = "text"\ntext.content = "x"\n')  # fmt: skip
    file.chmod(0o600)
    campaign = stored(db, [(State.SENT, 0, 0), (State.FAILED, 43004, 0), (State.FAILED, 45015, 0),
                           (State.FAILED, 43004, 0), (State.UNKNOWN, 0, 300)])  # fmt: skip
    if db.shared:
        db.execute("INSERT INTO fanout_node (node, secret, version, joined_at, heartbeat) VALUES "
                   "('b', 's', '0', 0, %s), ('long-ago', 's', '0', 0, %s)", START + 1, START - 1)  # fmt: skip
    assert reports.answer(db, load(file, {}), campaign)["submitted"] is None
    history.speak_for("a")
    with db.transaction():
        history.note(db, "c-1", "submitted", history.By(33, "www-data", 7))
    given = reports.answer(db, load(file, {}), campaign)
    assert given["submitted"] == {"who": "www-data", "uid": 33, "pid": 7, "node": "a"}
    assert [(each["errcode"], each["count"]) for each in given["errors"]] == [("43004", 2), ("45015", 1)]
    assert given["errors"][0]["words"] == "does not follow the account"
    assert given["timezone"] == "UTC" and given["excerpt"] == "今天 开饭 " + "x" * 73 + "…"
    assert given["away"] == {"count": 1, "nodes": ["b"] if db.shared else []}
    report = build(json.loads(json.dumps(given)))
    assert report.subject == "campaign c-1 unknown: 1 of 5 waits for a decision"


# ---- refusals


def test_a_thousand_refusals_are_one_event() -> None:
    openid = "oABCDEFGHIJKLMNOPQRSTUVWXYZ0"
    many = [{"at": START + i, "pid": 100 + i % 15, "uid": 33,
             "error": f"no message 'm{i % 12}' <b>" if i else f"{openid} is no openid"}
            for i in range(1000)]  # fmt: skip
    event = refused(many, 7, "refused-1", START, {33: "www-data"}.get)
    assert event.subject.startswith("1,007 submissions were refused: no message 'm") and event.kind == "refused"
    assert "1,007 submissions were refused, from 2026-01-02T07:04:05.000+00:00 to" in event.text
    assert event.text.count("× no message") == 10 and "and 3 other reasons" in event.text
    assert event.text.count("uid 33 (www-data), pid 1") == 10 and "and 5 other clients" in event.text
    assert "7 of which the reasons were not kept" in event.text and "NOT accepted" in event.text
    assert event.html is None and openid not in event.line + event.text
    one = refused(many[:1], 0, "refused-2", START, {}.get)
    assert one.subject == "a submission was refused: (openid) is no openid"
    assert "uid 33 (no user of this machine), pid 100" in one.line
