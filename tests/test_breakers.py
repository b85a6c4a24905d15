"""When a campaign stops by itself: the pure core, the beginnings with a few requests, and what processes share."""

from __future__ import annotations

import multiprocessing
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import pytest

from fanoutd.errcodes import Row, Verdict
from fanoutd.outcome import Progress, State
from fanoutd.worker.shut import AFTER, FOR, Shut
from fanoutd.worker.tallies import PLACES, Tallies, forget, tallies_path
from fanoutd.worker.trials import Key, Trials
from fanoutd.worker.verdicts import LIMITS, NO_ANSWER, WORDS, Tally, detail, for_everyone, in_a_row
from fanoutd.worker.watch import Watch

CUSTOM, TEMPLATE = 1, 2


def tally() -> Tally:
    return Tally([0] * WORDS)


@pytest.mark.parametrize(("row", "limit"), sorted(LIMITS.items()))
def test_alike_in_a_row_from_the_start_reach_their_limit_and_not_before(row: Row, limit: int) -> None:
    found = tally()
    assert [found.heard(TEMPLATE, row, "x") for _ in range(limit)] == [False] * (limit - 1) + [True]


@pytest.mark.parametrize(("row", "limit"), sorted(LIMITS.items()))
def test_one_good_answer_breaks_the_row_on_its_channel_alone(row: Row, limit: int) -> None:
    found = tally()
    for _ in range(limit - 1):
        found.heard(TEMPLATE, row)
    found.heard(CUSTOM, Row.NONE)
    assert not found.proven(TEMPLATE)
    found.heard(TEMPLATE, Row.NONE)
    assert found.proven(TEMPLATE)
    assert not any(found.heard(TEMPLATE, row) for _ in range(limit - 1))
    # later than at the start only what is about the account, not about people's data
    assert found.heard(TEMPLATE, row) is (row is not Row.FIELDS)


def test_refused_templates_must_be_alike_in_their_field() -> None:
    found = tally()
    assert not any(found.heard(TEMPLATE, Row.FIELDS, f"data.thing{i % 2}") for i in range(100))
    assert found.proven(TEMPLATE)


def test_the_field_is_named_and_a_request_id_is_nothing_that_differs() -> None:
    field = detail(Row.FIELDS, "argument invalid! data.thing3.value is emtpy rid: 6a0-1")
    assert field == "data.thing3"
    assert detail(Row.FIELDS, "argument invalid! rid: 6a0-1") == detail(Row.FIELDS, "argument invalid! rid: 6a0-2")
    reason = in_a_row(Row.FIELDS, 47003, "argument invalid! data.thing3.value is emtpy").reason
    assert reason.startswith("message refused: ") and "data.thing3" in reason
    assert "47003" in reason and "retry --failed" in reason


def test_reasons_say_what_is_wrong_and_what_to_do() -> None:
    assert "wrong account?" in in_a_row(Row.STRANGERS, 40003, "invalid openid").reason
    stop = for_everyone(Verdict.STOP_CAMPAIGN, 40037, "invalid template_id")
    assert stop.cause == "message"
    assert stop.reason.startswith("WeChat refuses the message: template_id unknown (40037 invalid template_id); ")
    assert for_everyone(Verdict.STOP_CAMPAIGN, 48004, "").reason.startswith("WeChat refuses the account: ")
    assert for_everyone(Verdict.STOP_ACCOUNT, 43106, "").cause == "account"


def test_too_many_failures_stop_only_once_fifty_have_ended() -> None:
    found = tally()
    assert found.ended([43004] * 49, 0.2) is None
    stop = found.ended([NO_ANSWER], 0.2)
    assert stop is not None and stop.cause == "failures"
    assert "50 of the last 50" in stop.reason and "43004 does not follow the account" in stop.reason


def test_the_share_is_that_of_the_last_five_hundred() -> None:
    found = tally()
    assert found.ended([0] * 5000, 0.2) is None
    assert found.ended([43004] * 100, 0.2) is None  # a fifth is not more than a fifth
    assert found.ended([43004], 0.2) is not None
    assert found.ended([0] * 500, 0.2) is None
    assert found.ended([43004] * 100 + [0] * 400, 0.2) is None
    assert found.ended([43004] * 100, 0.2) is None  # the hundred bad ones before are out of sight
    assert found.ended([-2] * 100, 0.2) is not None


def test_a_share_of_one_never_stops_and_of_nothing_at_the_first() -> None:
    assert tally().ended([43004] * 1000, 1.0) is None
    assert tally().ended([0] * 60, 0.0) is None
    assert tally().ended([0] * 60 + [43004], 0.0) is not None


def test_a_tripped_tally_counts_nothing_until_it_is_cleared() -> None:
    found = tally()
    found.ended([43004] * 49, 0.2)
    found.trip(7)
    assert found.tripped == 7
    assert not any(found.heard(CUSTOM, Row.STRANGERS) for _ in range(100))
    assert found.ended([43004] * 1000, 0.2) is None
    found.clear()
    assert found.ended([43004] * 49, 0.2) is None and found.ended([43004], 0.2) is not None


def test_the_room_before_the_first_good_answer_shrinks_with_the_refusals() -> None:
    found = tally()
    assert [found.room(TEMPLATE, workers) for workers in (1, 4, 60)] == [20, 5, 1]
    for _ in range(19):
        found.heard(TEMPLATE, Row.FIELDS, "x")
    assert (found.room(TEMPLATE, 1), found.room(TEMPLATE, 4)) == (1, 1)


@dataclass(eq=False)
class Goer:
    key: Key


def test_a_trial_lets_a_few_go_and_the_rest_when_it_is_over() -> None:
    room: dict[Key, int | None] = {("c", 1): 3}
    trials: Trials[Goer] = Trials(lambda key: room.get(key))
    people, others = [Goer(("c", 1)) for _ in range(10)], [Goer(("d", 1)) for _ in range(5)]
    ready: deque[Goer] = deque()
    trials.line_up([*people[:8], *others], ready)
    trials.sift(ready)
    assert list(ready) == [*people[:3], *others] and len(trials) == 5 and trials.stalled
    ready.popleft()
    trials.started(("c", 1))
    trials.line_up(people[8:], ready)
    trials.sift(ready)  # the account's rate let one go: nobody overtakes the other two
    assert list(ready) == [*people[1:3], *others] and len(trials) == 7 and not trials.stalled
    for _ in range(2):
        ready.popleft()
        trials.started(("c", 1))
    trials.sift(ready)
    assert list(ready) == others
    trials.ended(("c", 1))
    trials.sift(ready)
    assert list(ready) == [*others, people[3]]
    trials.keep(lambda goer: goer is not people[4])
    room.clear()
    trials.sift(ready)
    assert list(ready) == [*others, people[3], *people[5:]] and len(trials) == 0
    late = [Goer(("e", 1))]
    trials.line_up(late, ready)
    assert ready[-1] is late[0] and len(trials) == 0


def test_a_channel_that_is_barred_is_left_out_for_ten_minutes() -> None:
    shut = Shut()
    assert [shut.heard(CUSTOM, 5.0) for _ in range(AFTER + 1)] == [False] * (AFTER - 1) + [True, False]
    assert shut.remaining((CUSTOM, TEMPLATE)) == (TEMPLATE,) and shut.remaining((CUSTOM,)) == (CUSTOM,)
    shut.tick(5.0 + FOR - 1)
    assert shut.remaining((CUSTOM, TEMPLATE)) == (TEMPLATE,)
    shut.tick(5.0 + FOR)
    assert shut.remaining((CUSTOM, TEMPLATE)) == (CUSTOM, TEMPLATE)
    assert shut.heard(CUSTOM, 700.0)


FAILED = Progress(State.FAILED, CUSTOM, 43004, None, 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tallies_path(tmp_path)
    found.parent.mkdir()
    return found


def test_what_one_worker_hears_counts_for_the_others(path: Path, tmp_path: Path) -> None:
    one, two = Watch(path, 2), Watch(path, 2)
    key = ("c-1", TEMPLATE)
    stops = [
        (one, two)[i % 2].answered(key, 47003, "argument invalid! data.thing1.value invalid", Verdict.FAILED)
        for i in range(20)
    ]
    assert stops[:-1] == [None] * 19 and stops[-1] is not None
    two.stop("c-1")
    assert one.stopped("c-1") and not one.stopped("c-2")
    forget(tmp_path, "c-1")
    assert not one.stopped("c-1")
    assert one.room(key) == 10
    assert two.answered(key, 0, "ok", Verdict.SENT) is None
    assert one.room(key) is None


def test_failures_of_all_workers_are_counted_together(path: Path) -> None:
    watches = [Watch(path, 4) for _ in range(4)]
    stops = [watches[i % 4].ended("c-1", FAILED, 0.2) for i in range(50)]
    assert stops[:-1] == [None] * 49 and stops[-1] is not None


def test_refusals_that_are_not_about_anybody_make_and_break_no_row(path: Path) -> None:
    watch, key = Watch(path, 1), ("c-1", CUSTOM)
    for _ in range(49):
        assert watch.answered(key, 40003, "invalid openid", Verdict.FAILED) is None
        for errcode, verdict in ((-1, Verdict.RETRY), (-1, Verdict.FAILED), (40001, Verdict.TOKEN)):
            assert watch.answered(key, errcode, "", verdict) is None
    assert watch.answered(key, 40003, "invalid openid", Verdict.FAILED) is not None


def test_no_count_is_lost_between_processes(path: Path) -> None:
    tallies = Tallies(path)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_hear_many, args=(path,)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0] * 4
    stop = tallies.find("c-1").ended([], 0.5)
    assert stop is not None and "400 of the last 400" in stop.reason


def _hear_many(path: Path) -> None:
    tallies = Tallies(path)
    for _ in range(100):
        while True:
            try:
                tallies.locked(lambda: tallies.find("c-1").ended([43004], 1.0), must=False)
                break
            except BlockingIOError:
                pass


def test_when_all_places_are_taken_the_longest_unused_begins_anew(path: Path) -> None:
    tallies = Tallies(path)
    for i in range(PLACES):
        tallies.find(f"c-{i}").trip(1)
        tallies.touch(f"c-{i}")
    assert tallies.find("c-new").tripped == 0
    tallies.find("c-new").trip(2)
    assert tallies.find("c-new").tripped == 2
    assert [i for i in range(1, PLACES) if not tallies.find(f"c-{i}").tripped] == []
    assert tallies.find("c-0").tripped == 0
