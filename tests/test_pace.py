"""The account's rate and the breaker: pure cores, with the time passed in."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import pytest

from fanoutd.bucket import Bucket, now
from fanoutd.outcome import MAX_TRIES, TABLE, Progress, State, Verdict, answered, classify, describe, next_channel
from fanoutd.pace import grant
from fanoutd.worker.breaker import IN_A_ROW, LONGEST_PAUSE, Breaker


@pytest.mark.parametrize("rate", [0.2, 1, 5, 19, 20, 100, 1000, 33.3])
def test_no_second_sees_more_than_110_percent_and_the_rate_is_reached(rate: float) -> None:
    due, times = 100.0, []
    span = max(10.0, 20 / rate)
    for step in range(int(span * 1000)):
        at = 100.0 + step / 1000
        granted, due = grant(due, at, rate, 64)
        times += [at] * granted
    assert len(times) >= rate * span * 0.98 - 1
    for first, at in enumerate(times):
        in_second = sum(1 for _ in itertools.takewhile(lambda t, at=at: t < at + 1, times[first:]))
        assert in_second <= max(1, rate * 1.1)


def test_a_bucket_that_nobody_asked_for_long_has_not_saved_up() -> None:
    granted, due = grant(0.0, 1000.0, 100, 64)
    assert granted == 3 and due > 1000.0


def test_two_hands_on_one_bucket_share_it_and_rest_together(tmp_path: Path) -> None:
    one, two = Bucket(tmp_path / "b", 1.0), Bucket(tmp_path / "b", 1.0)
    assert one.take(5)[0] == 1
    granted, wait = two.take(5)
    assert granted == 0 and 0.5 < wait <= 1.0
    one.rest()
    assert 59 < two.resting() <= 60 and two.take(1)[0] == 0
    one.close()
    two.close()


def test_values_of_another_boot_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(struct.pack("<dd", now() + 9e9, now() + 9e9))
    assert Bucket(tmp_path / "b", 10).take(1)[0] == 1


def test_the_breaker_opens_after_ten_in_a_row_and_lets_one_probe_through_at_a_time() -> None:
    breaker = Breaker()
    for _ in range(IN_A_ROW):
        assert breaker.allowed(0.0, 64) == 64
        breaker.started()
        breaker.failed(0.0)
    assert breaker.open and breaker.allowed(0.5, 64) == 0
    assert breaker.allowed(1.0, 64) == 1
    breaker.started()
    assert breaker.allowed(1.0, 64) == 0
    breaker.failed(1.0)
    assert breaker.allowed(2.9, 64) == 0 and breaker.allowed(3.0, 64) == 1
    breaker.started()
    breaker.answered()
    assert not breaker.open and breaker.allowed(3.0, 64) == 64


def test_the_breakers_pause_grows_to_a_minute_and_no_further() -> None:
    breaker, at = Breaker(), 0.0
    for _ in range(IN_A_ROW + 12):
        breaker.started()
        breaker.failed(at)
        at += breaker.wait(at) or 0.0
    breaker.started()
    breaker.failed(at)
    assert breaker.wait(at) == LONGEST_PAUSE


def test_the_breaker_opens_for_a_fifth_of_the_last_fifty() -> None:
    breaker = Breaker()
    for turn in range(46):  # the tenth failure is the last
        breaker.failed(0.0) if turn % 5 == 0 else breaker.answered()
    assert breaker.open


def test_only_a_definite_refusal_of_the_channel_leads_to_the_next_one() -> None:
    on_to_template = {code for code in TABLE if classify(code) is Verdict.NEXT_CHANNEL}
    assert on_to_template == {45015, 45047, 45087, 48001}
    after, verdict = answered(Progress(), 1, 45015, None, last_channel=False)
    assert verdict is Verdict.NEXT_CHANNEL and next_channel(after, (1, 2)) == 2
    after, verdict = answered(after, 2, 45015, None, last_channel=True)
    assert verdict is Verdict.FAILED and after.state is State.FAILED and after.attempts == 2


def test_busy_is_tried_five_times_and_a_token_does_not_count_as_a_try() -> None:
    progress, verdict = answered(Progress(), 1, 40001, None, last_channel=False)
    assert verdict is Verdict.TOKEN and progress.tries == 0
    for turn in range(1, MAX_TRIES + 1):
        progress, verdict = answered(progress, 1, -1, None, last_channel=False)
        assert verdict is (Verdict.FAILED if turn == MAX_TRIES else Verdict.RETRY)
    assert progress.attempts == MAX_TRIES + 1


def test_a_code_that_nobody_knows_fails_one_person_and_has_words() -> None:
    assert classify(99999) is Verdict.FAILED
    assert describe("99999") == "refused, errcode not listed"
    assert describe("render").startswith("the message could not be rendered")
