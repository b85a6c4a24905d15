"""Times: out to people and databases, in from a command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanoutd import times

#: 2026-01-02 07:04:05.678 UTC
MOMENT = 1767337445678


def test_a_time_goes_out_with_its_offset_and_milliseconds() -> None:
    assert times.iso(MOMENT) == "2026-01-02T07:04:05.678+00:00"


@given(st.integers(min_value=0, max_value=253402300799999))
def test_what_goes_out_comes_in_again(ms: int) -> None:
    assert times.parse_when(times.iso(ms)) == ms


@pytest.mark.parametrize(
    "text", ["2026-01-02T15:04:05.678+08:00", "2026-01-02T07:04:05.678Z", " 2026-01-02 15:04:05.678+08:00 "]
)
def test_any_offset_means_the_same_moment(text: str) -> None:
    assert times.parse_when(text) == MOMENT


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-01-02T15:04:05", "no offset"),
        ("2026-01-02", "no offset"),
        ("tomorrow", "no ISO 8601 time"),
        ("", "no ISO 8601 time"),
        ("2026-02-30T00:00:00Z", "no ISO 8601 time"),
        ("9999-12-31T23:59:59-12:00", "out of range"),
        ("0001-01-01T00:00:00+12:00", "out of range"),
    ],
)
def test_a_time_that_cannot_be_used_is_answered_with_one_that_can(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        times.parse_when(text)
    assert "2026-01-02T15:04:05+08:00" in str(error.value)


def test_now_is_local_time_in_the_two_documented_forms() -> None:
    assert times.message_now(MOMENT, "Asia/Shanghai") == "2026年1月2日 15:04"
    assert times.sql_now(MOMENT, "Asia/Shanghai") == "2026-01-02 15:04:05"
    assert times.sql_now(MOMENT, "America/New_York") == "2026-01-02 02:04:05"


def test_the_wall_clock_counts_in_milliseconds() -> None:
    assert times.parse_when("2020-01-01T00:00Z") < times.wall_ms() < times.parse_when("2200-01-01T00:00Z")
