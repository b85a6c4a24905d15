"""The operator's SQL, held against sqlite3 and against Python's own formatting, which PyMySQL uses."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanoutd import sqltext


def test_a_parameter_and_a_percent_reach_sqlite() -> None:
    query = "SELECT %(name)s WHERE %(name)s LIKE '5%%' AND 7 %% 4 = 3"
    link = sqlite3.connect(":memory:")
    assert link.execute(sqltext.to_sqlite(query), {"name": "50 % off"}).fetchall() == [("50 % off",)]


def test_the_names_are_those_of_the_parameters() -> None:
    query = "SELECT openid FROM t WHERE a > %(now)s AND b = %(城市)s OR c > %(now)s"
    assert sqltext.names(query) == {"now", "城市"}


def test_a_doubled_percent_hides_what_follows_it() -> None:
    assert sqltext.names("SELECT '%%(now)s'") == set()
    assert sqltext.to_sqlite("SELECT '%%(now)s'") == "SELECT '%(now)s'"


def test_the_text_around_may_span_lines_and_hold_anything_else() -> None:
    query = "SELECT '{x}', \":y\" -- ?\nFROM t\r\nWHERE a = 'ü'"
    assert sqltext.to_sqlite(query) == query


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT 'a%'", "stray percent"),
        ("SELECT %s", "stray percent"),
        ("SELECT %(now)d", "stray percent"),
        ("SELECT %(now", "stray percent"),
        ("SELECT 5 %", "stray percent"),
        ("SELECT %()s", "no parameter"),
        ("SELECT %(a b)s", "no parameter"),
        ("SELECT * FROM t WHERE a > '%(now)s' AND b", "quotes"),
    ],
)
def test_what_is_no_parameter_is_refused_in_words(query: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sqltext.names(query)


PIECES = st.lists(st.sampled_from(["%%", "%(now)s", "%(a1)s", "x", " ", "(", ")s", "=", "\n", ":", "'"]))


@given(PIECES)
def test_the_text_is_read_as_python_formatting_reads_it(pieces: list[str]) -> None:
    query = "".join(pieces)
    assert sqltext.to_sqlite(query) == query % {"now": ":now", "a1": ":a1"}
