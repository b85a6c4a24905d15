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


def mysql(query: str, backslashes: bool = True) -> str:
    """What reaches the server, the driver's quoting done as it does it."""
    return sqltext.to_mysql(query, backslashes) % {"now": "'NOW'", "a1": "'it\\'s'"}


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("SELECT %(now)s LIKE '5%%' AND 7 %% 4", "SELECT 'NOW' LIKE '5%' AND 7 % 4"),
        ("SELECT 1 -- not %(now)s, 5%%\n, %(now)s", "SELECT 1 -- not %(now)s, 5%\n, 'NOW'"),
        ("SELECT 1 # it's %(a1)s", "SELECT 1 # it's %(a1)s"),
        ("SELECT /* \" %(a1)s */ %(a1)s", "SELECT /* \" %(a1)s */ 'it\\'s'"),
        ("SELECT /*!50000 %(now)s */ 1--2, %(now)s", "SELECT /*!50000 'NOW' */ 1--2, 'NOW'"),
        ("SELECT 'it''s', 'a\\'b', \"'\", `'`, %(now)s", "SELECT 'it''s', 'a\\'b', \"'\", `'`, 'NOW'"),
        ("SELECT '%%(now)s'", "SELECT '%(now)s'"),
    ],
)
def test_to_mysql_a_parameter_is_one_only_where_a_value_may_stand(query: str, sent: str) -> None:
    assert mysql(query) == sent


@pytest.mark.parametrize(
    "query", ["'a %(now)s b'", '"%(now)s"', "`%(now)s`", "'a\\' %(now)s'", "'never closed %(now)s"]
)
def test_to_mysql_a_parameter_within_quotes_is_refused(query: str) -> None:
    with pytest.raises(ValueError, match="quotes"):
        mysql(f"SELECT {query}")


def test_whether_a_backslash_ends_quotes_is_the_server_s_mode() -> None:
    query = "SELECT 'a\\', %(now)s, 'b'"
    assert mysql(query, backslashes=False) == "SELECT 'a\\', 'NOW', 'b'"
    with pytest.raises(ValueError, match="quotes"):
        mysql(query)


@pytest.mark.parametrize("query", [
    "SELECT 1", "  -- who\n(select 1) UNION (SELECT 2);", "WITH a AS (SELECT 1) SELECT * FROM a",
    "/* into */ SELECT 'into'", "SELECT into_date FROM t",
])  # fmt: skip
def test_a_query_that_reads_may_be_asked(query: str) -> None:
    sqltext.check_reads(query)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("UPDATE t SET a = 1", "begins with UPDATE"),
        ("-- SELECT\ndelete from t", "begins with DELETE"),
        ("", "begins with nothing"),
        ("/*!50000 DROP */ SELECT 1", "begins with DROP"),
        ("SELECT openid FROM t INTO OUTFILE '/tmp/x'", "INTO"),
        ("SELECT openid FROM t /*! into dumpfile 'x' */", "INTO"),
    ],
)
def test_a_query_that_does_more_is_refused_in_words(query: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sqltext.check_reads(query)


PIECES = st.lists(st.sampled_from(["%%", "%(now)s", "%(a1)s", "x", " ", "(", ")s", "=", "\n", ":", "'"]))


@given(PIECES)
def test_the_text_is_read_as_python_formatting_reads_it(pieces: list[str]) -> None:
    query = "".join(pieces)
    assert sqltext.to_sqlite(query) == query % {"now": ":now", "a1": ":a1"}


@given(st.lists(st.sampled_from(["%%", "%(now)s", "%(a1)s", "x", " ", "(", ")s", "=", "\n", ":", "/", "-1"])))
def test_to_mysql_a_text_without_quotes_and_comments_is_as_python_formats_it(pieces: list[str]) -> None:
    query = "".join(pieces)
    assert mysql(query) == query % {"now": "'NOW'", "a1": "'it\\'s'"}
