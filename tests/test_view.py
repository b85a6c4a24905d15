"""What people see of the daemon's objects, and that nothing in them, or missing from them, spoils it."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from fanoutd.times import duration
from fanoutd.view import campaigns, progress, receipt, status, workers

CAMPAIGN: dict[str, Any] = {
    "id": "c-1", "account": "main", "message": "supply", "audience": "default", "reference": "r-1", "key": "k",
    "state": "running", "reason": None, "created_at": "2026-01-02T15:04:05.678+08:00", "send_at": None,
    "started_at": "2026-01-02T15:04:06.000+08:00", "finished_at": None, "total": 2500,
    "counts": {"pending": 1000, "sent_custom": 1200, "sent_template": 290, "failed": 7, "skipped": 2, "unknown": 1},
    "errors": {"43004": 4, "render": 2, "99999": 1}, "rate": 1234.5, "eta_seconds": 65,
}  # fmt: skip

NOW = 1_767_340_000_000  # 2026-01-02 15:46:40 in Shanghai

AGES = {None: "-", "2026-01-02T07:46:30+00:00": "10s", "2026-01-02T05:46:40+00:00": "2h", "2025-12-02T07:46:40Z": "31d",
        "2026-01-02T07:59:00+00:00": "0s"}  # fmt: skip

WORKER: dict[str, Any] = {
    "slot": 1, "pid": 4711, "role": "worker", "generation": 2, "state": "busy", "campaign": "c-1", "sent": 12345,
    "failed": 6, "rate": 99.6, "rss_bytes": 40 << 20, "cpu_percent": 1.5, "restarts": 3, "heartbeat_age": 0.1,
}  # fmt: skip

STATUS: dict[str, Any] = {
    "version": "0.1.0", "node": "n1", "pid": 4710, "started_at": "2026-01-02T15:04:05.678+08:00", "generation": 2,
    "state": "running", "promise": "exact", "store": {"kind": "sqlite", "ok": True, "latency_ms": 0.2},
    "accounts": [{"name": "main", "token": {"ok": True, "expires_in": 7000, "source": "stable", "error": None},
                  "rate": 100.0, "quota": None}],
    "spool": {"files": 3, "oldest_seconds": 1.5}, "shards": {"pending": 4, "leased": 2},
    "jobs": [{"name": "token_check", "next": "2026-01-02T15:05:05.678+08:00", "last": None, "result": "ok"}],
    "workers": [WORKER], "nodes": [{"node": "n1", "heartbeat_age": 0.1}],
    "reload": {"count": 0, "stage": "none", "error": None}, "upgrade": {"count": 0, "stage": "none", "error": None},
}  # fmt: skip


def plain(shown: RenderableType, width: int = 200) -> str:
    screen = Console(file=io.StringIO(), width=width, highlight=False)
    screen.print(shown)
    return str(screen.file.getvalue())  # type: ignore[attr-defined]


def campaign(**more: Any) -> dict[str, Any]:
    return {**copy.deepcopy(CAMPAIGN), **more}


def receipt_of(value: dict[str, Any], *events: dict[str, Any]) -> str:
    return "\n".join(text for text, _ in receipt.lines(value, list(events), "Asia/Shanghai", NOW))


def event(**more: Any) -> dict[str, Any]:
    return {"at": "2026-01-02T07:04:05.678+00:00", "action": "submitted", "node": "n1", "uid": 33, "user": "www-data",
            "pid": 812, "detail": None, **more}  # fmt: skip


def state(**more: Any) -> dict[str, Any]:
    return {**copy.deepcopy(STATUS), **more}


# ---- a campaign


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (3.25, "3.2 s"), (59.96, "1 min 00 s"), (65, "1 min 05 s"), (3599.6, "1 h 00 min"),
     (7800, "2 h 10 min"), (200_000, "2 d 7 h")],
)
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_campaign_in_one_line() -> None:
    assert progress.line(campaign()) == (
        "c-1 running: 1,500 of 2,500 (pending 1,000, sent_custom 1,200, sent_template 290, failed 7, skipped 2, "
        "unknown 1), 1,234/s, 1 min 05 s left"
    )
    nobody = dict.fromkeys(CAMPAIGN["counts"], 0)
    waiting = campaign(counts=nobody, total=0, rate=None, eta_seconds=None, reason="[x] y")
    assert progress.line(waiting) == "c-1 running: 0 of 0; [x] y"


def test_a_campaign_among_many() -> None:
    assert re.sub(" +", " ", campaigns.line(campaign(state="done"))) == (
        "c-1 done 2026-01-02T15:04:05 supply total=2500 "
        "pending=1000 sent_custom=1200 sent_template=290 failed=7 skipped=2 unknown=1"
    )


def test_the_table_fits_its_width_its_sums_add_up_and_the_reason_stands_below() -> None:
    reason = "weil  das\nneue 额度 " * 20
    many = [campaign(), campaign(id="k-" + "x" * 24, state="scheduled", total=12_000_000, reason=reason)]
    lines = list(campaigns.table(many, 80, NOW))
    assert lines[0].split() == ["ID", "STATE", "AGE", "PEOPLE", "SENT", "FAIL", "SKIP", "UNKN", "LEFT"]
    assert lines[1].split() == ["c-1", "running", "42m", "2500", "1490", "7", "2", "1", "1000"]
    assert all(cell_len(line) <= 80 for line in lines) and lines[3].endswith("…") and len(lines) == 4
    ages = [list(campaigns.table([campaign(created_at=at)], 80, NOW))[1].split()[2] for at in AGES]
    assert ages == list(AGES.values())


def test_a_receipt_adds_up_says_why_and_what_to_do_and_who_did_it() -> None:
    done = campaign(
        state="done", started_at="2026-01-02T15:04:05.678+08:00", finished_at="2026-01-02T15:08:05.678+08:00",
        rate=None, eta_seconds=None, errors={"43004": 4, "render": 2, "40037": 1},
    )  # fmt: skip
    done["counts"]["failed"] = 8
    done["total"] = 2501
    paper = receipt_of(done, event(), event(action="planned", uid=None, user=None, pid=None, detail="2,501 people"))
    sums = re.findall(r"^ +([\d,]+) +<? ?[\d.]+ %  ", paper, re.MULTILINE)
    assert sum(int(each.replace(",", "")) for each in sums) == 2501 and re.search(r"2,501 +people in all", paper)
    assert " 48.0 %  sent as customer-service message" in paper and "< 0.1 %  unknown" in paper
    assert "submitted 2026-01-02 15:04:05 CST" in paper
    assert "finished  2026-01-02 15:08:05 CST, after 4 min 00 s, 6.3 people a second" in paper
    assert "4  43004 · does not follow the account" in paper and "→ see whether the template is still" in paper
    assert "`fanoutd campaign export c-1 --state pending`" in paper
    assert "1  no errcode: by an operator's word or a receipt" in paper
    assert "15:04:05 CST  submitted by www-data (uid 33, pid 812) on n1" in paper
    assert "planned on n1: 2,501 people" in paper and "None" not in paper
    steps = " ".join(receipt.next_steps(done, [], None))
    assert "campaign resolve c-1 --sent" in steps and "campaign retry c-1 --failed" in steps and "resume" not in steps
    assert "to let it go on" in " ".join(receipt.next_steps({**done, "state": "paused"}, [], None)).lower()


def test_who_became_unknown_with_a_node_that_died_may_be_told_by_it() -> None:
    taken = event(action="taken over", detail="from node n2; unknown by its death: 1 person")
    assert "Node n2 died" in next(receipt.next_steps(campaign(), [taken], {"n1"}))
    for events, living in ([taken], {"n1", "n2"}), ([taken], None), ([event()], {"n1"}):
        assert "died" not in " ".join(receipt.next_steps(campaign(), events, living))


def test_how_many_are_through_and_how_many_were_reached() -> None:
    assert (progress.ended(campaign()), progress.reached(campaign())) == (1500, 1490)
    assert progress.reached(campaign(counts={**CAMPAIGN["counts"], "sent_pigeon": 10})) == 1500


def test_the_picture_has_every_outcome_and_each_refusal_in_words_the_most_frequent_first() -> None:
    shown = plain(progress.picture(campaign(reason="rests until 15:05 [45011]"), 80))
    for words in ("c-1  running", "1,500 of 2,500   1,234/s   1 min 05 s left",
                  "1,200  sent as customer-service message", "290  sent as template message",
                  "1  unknown: handed over, no answer seen",
                  "rests until 15:05 [45011]"):  # fmt: skip
        assert words in shown
    assert "waiting" not in shown
    assert re.findall(r"(\d+) +(\w+) ·", shown) == [("4", "43004"), ("2", "render"), ("1", "99999")]


@pytest.mark.parametrize("width", [1, 20, 80, 10_000])
def test_any_width_will_do(width: int) -> None:
    assert plain(progress.picture(campaign(), width), max(width, 1))


# ---- following it


def told(*objects: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from objects
    raise AssertionError("asked for more than there was to see")


def followed(*objects: dict[str, Any], terminal: bool = False) -> tuple[dict[str, Any], list[str]]:
    screen = Console(file=io.StringIO(), width=60, force_terminal=terminal)
    last = progress.follow(told(*objects), screen)
    return last, screen.file.getvalue().splitlines()  # type: ignore[attr-defined]


def at(ended: int, state: str = "running", **more: Any) -> dict[str, Any]:
    counts = {**dict.fromkeys(CAMPAIGN["counts"], 0), "pending": 1000 - ended, "sent_custom": ended}
    return campaign(total=1000, state=state, counts=counts, rate=None, eta_seconds=None, **more)


@pytest.mark.parametrize("terminal", [False, True])
def test_following_ends_with_a_pause_and_gives_back_the_last_object(terminal: bool) -> None:
    last, _ = followed(at(0), at(10), at(20, "paused", reason="why"), terminal=terminal)
    assert (last["state"], last["reason"]) == ("paused", "why")


def test_without_a_terminal_there_is_a_line_for_every_twentieth_and_none_for_the_end() -> None:
    last, lines = followed(*(at(n) for n in range(0, 1000, 10)), at(1000, "done"))
    assert [int(re.findall(r": (\d+) of", line)[0]) for line in lines] == list(range(0, 1000, 50))
    assert last["state"] == "done"


def test_a_long_line_is_not_folded_and_what_looks_like_markup_is_shown() -> None:
    reason = "[audience.default] query: no such table [/b] :smile: " + "x" * 100
    _, lines = followed(at(0, "planning", reason=reason), at(0, "failed", reason=reason))
    assert len(lines) == 1 and lines[0].endswith(reason)


def test_on_a_terminal_it_is_drawn_and_wiped_away() -> None:
    _, lines = followed(at(0), at(500), at(1000, "paused"), terminal=True)
    assert "\x1b[" in "".join(lines) and any("500 of 1,000" in line for line in lines)


# ---- the daemon


def test_the_status_in_words() -> None:
    shown = plain(status.picture(state()))
    for words in ("fanoutd 0.1.0  running  generation 2  node n1  pid 4710  since 2026-01-02T15:04:05.678+08:00",
                  "sqlite, 0.2 ms", "3 waiting", "4 waiting, 2 being sent",
                  "main, 100 calls a second, token good for 1 h 56 min"):  # fmt: skip
        assert words in shown
    row = next(line for line in shown.splitlines() if "4711" in line)
    assert row.split() == ["worker", "1", "4711", "busy", "12,345", "6", "100/s", "40M", "2%", "3", "0s", "c-1"]
    assert "refused" not in shown


def test_the_status_fits_80_columns_with_whole_ids_as_long_as_there_is_room() -> None:
    campaign_id = "c-06h1qdhjbb8g2u24"
    rows = [{**WORKER, "pid": 21297, "campaign": campaign_id}, {**WORKER, "role": "dispatcher", "slot": 0}]
    lines = plain(status.picture(state(workers=rows), 80), 80).splitlines()
    assert lines[:2] == ["fanoutd 0.1.0  running  generation 2  node n1  pid 4710",
                         "since 2026-01-02T15:04:05.678+08:00"]  # fmt: skip
    assert next(line for line in lines if "21297" in line).endswith(campaign_id)
    narrow = [line.plain for line in workers.table(rows, 60)]
    assert all(cell_len(line) <= 60 for line in narrow) and narrow[1].endswith("…bb8g2u24")
    assert narrow[0].split() == ["process", "pid", "state", "sent", "failed", "rate", "mem", "campaign"]


def test_the_jobs_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "local_ms", lambda: 1_767_337_500_000)  # 2026-01-02 07:05 UTC
    rows: list[dict[str, Any]] = [
        {"name": "token_check", "next": "2026-01-02T15:05:05.600+08:00", "last": None, "result": None,
         "duration_ms": None},
        {"name": "digest", "next": "2026-01-03T01:00:00.000+00:00", "last": "2026-01-02T01:00:01.000+00:00",
         "result": "handed to the mail", "duration_ms": 1234},
    ]  # fmt: skip
    lines = [" ".join(line.split()) for line in plain(status.picture(state(jobs=rows))).splitlines()]
    assert lines[-3:] == [
        "job next in took last", "token_check 5.6 s - not run yet", "digest 17 h 55 min 1,234 ms handed to the mail",
    ]  # fmt: skip


def test_what_is_wrong_is_said_as_it_is() -> None:
    token = {"ok": False, "expires_in": None, "source": "stable", "error": "[account.main] app_secret: 40125 [/x]"}
    why = {"count": 1, "stage": "refused", "error": "fanoutd.toml: [daemon] log_file: no"}
    shown = plain(status.picture(state(
        state="degraded", reload=why, store={"kind": "sqlite", "ok": False, "latency_ms": None},
        accounts=[{**STATUS["accounts"][0], "token": token}],
        jobs=[{"name": "token_check", "next": None, "last": None, "result": "error: [b]"}],
    )))  # fmt: skip
    for words in ("the last reload was refused: fanoutd.toml: [daemon] log_file: no", "sqlite, does not answer",
                  "no good token: [account.main] app_secret: 40125 [/x]",
                  "token_check        -     -  error: [b]"):  # fmt: skip
        assert words in shown


def test_a_token_out_of_a_database_has_no_end() -> None:
    token = {"ok": True, "expires_in": None, "source": "database", "error": None}
    shown = plain(status.picture(state(accounts=[{**STATUS["accounts"][0], "token": token}])))
    assert re.search(r"token good *$", shown, re.M)


# ---- what is not known


def holes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of each plain value, and of each object but the outermost's own and those in lists."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in pairs:
        if isinstance(each, dict | list):
            yield from holes(each, (*path, key))
        else:
            yield (*path, key)


def with_holes(value: dict[str, Any], *paths: tuple[Any, ...]) -> dict[str, Any]:
    made = copy.deepcopy(value)
    for *way, last in paths:
        place: Any = made
        for key in way:
            place = place[key]
        place[last] = None
    return made


def draw_campaign(value: dict[str, Any]) -> str:
    drawn = plain(progress.picture(value, 80)) + progress.line(value) + campaigns.line(value)
    drawn += "".join(campaigns.table([value], 80, NOW)) + receipt_of(value)
    drawn += "".join(receipt.next_steps(value, [], None))
    final, _ = followed(value, {**value, "state": "paused"})
    assert final["state"] == "paused"
    assert progress.reached(value) >= 0
    return drawn


def draw_status(value: dict[str, Any]) -> str:
    return plain(status.picture(value))


#: The codes that errors counts are not null, if they are there.
CAMPAIGN_HOLES = [path for path in holes(CAMPAIGN) if path[0] != "errors"]


@pytest.mark.parametrize("path", [*CAMPAIGN_HOLES, ("errors",)], ids=str)
def test_a_campaign_of_which_something_is_not_known_is_drawn(path: tuple[Any, ...]) -> None:
    assert "None" not in draw_campaign(with_holes(CAMPAIGN, path))


def test_nodes_are_drawn_where_there_are_several() -> None:
    two = [{"node": "n1", "heartbeat_age": 0.1, "leads": False}, {"node": "n2", "heartbeat_age": 41.4, "leads": True}]
    drawn = draw_status(state(nodes=two))
    assert "n1, heard of 0 s ago" in drawn and drawn.count("leads") == 1
    assert "n2, heard of 41 s ago, leads" in drawn and "heard of" not in draw_status(STATUS)


@pytest.mark.parametrize("path", [*holes(STATUS), ("reload",), ("upgrade",)], ids=str)
def test_a_status_of_which_something_is_not_known_is_drawn(path: tuple[Any, ...]) -> None:
    assert "None" not in draw_status(with_holes(STATUS, path))


def test_if_nothing_is_known_at_all_that_is_drawn_too() -> None:
    assert "None" not in draw_campaign(with_holes(CAMPAIGN, *CAMPAIGN_HOLES, ("errors",)))
    assert "None" not in draw_status(with_holes(STATUS, *holes(STATUS)))
    assert "None" not in draw_status(state(workers=[], jobs=[], accounts=[], nodes=[]))
