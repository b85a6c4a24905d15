"""The operator's own database is a MariaDB server: read as people write it, nothing changed, nobody lost or doubled."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pymysql
import pytest

from fanoutd.config import Account, Config, TokenQuery, load, mysql_url
from fanoutd.dispatcher import operator_mysql, statements
from fanoutd.dispatcher.audience import AudienceAway, excluded, stream
from fanoutd.dispatcher.operator_db import OperatorDatabaseAway, select
from fanoutd.dispatcher.planner import Planner
from fanoutd.dispatcher.token_sources import Refused, fetch
from fanoutd.spool import Spool
from fanoutd.store import Database, campaigns, open_store
from fanoutd.store.campaigns import Campaign
from fanoutd.store.schema import migrate
from fanoutd.times import wall_ms
from support.bench import wait_for
from support.daemon import Daemon
from support.mariadb import QUOTED, MariaDb, server

OPENID = "oPERSON0000000000000000000001"


class Site:
    """A database on the tests' server, as a site's: ``url`` is of a user who may read and change its tables."""

    def __init__(self, mariadb: MariaDb) -> None:
        self.mariadb = mariadb
        self.url = mariadb.database()
        self.name = self.url.rpartition("/")[2]
        self.place = f"mysql://127.0.0.1:{mariadb.port}/{self.name}"

    def say(self, statement: str) -> list[tuple[Any, ...]]:
        with self.mariadb.root(database=self.name) as link, link.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def select(self, query: str, **values: str | int | None) -> list[tuple[Any, ...]]:
        return list(select(self.url, query, values).rows)

    def threads(self) -> list[int]:
        """The server's threads that serve us."""
        return [row[0] for row in self.say(
            f"SELECT id FROM information_schema.processlist WHERE user = 'fanout' AND db = '{self.name}'"
        )]  # fmt: skip

    def idle(self) -> None:
        wait_for(lambda: not self.threads(), "the end of all connections")


@pytest.fixture
def site() -> Site:
    return Site(server())


# ---- what is read


def test_values_come_as_a_person_would_write_them(site: Site) -> None:
    site.say("""CREATE TABLE t (
        a DATETIME, b DATETIME(3), c DATE, d TIME, e DECIMAL(10,2), f INT, g BIGINT UNSIGNED, h DOUBLE, i BIT(9),
        j VARBINARY(64), k TINYINT(1), l YEAR, m TEXT, n VARCHAR(9) CHARACTER SET gbk, o VARCHAR(9)
        ) ENGINE=MyISAM DEFAULT CHARSET=utf8""")
    site.say("""INSERT INTO t VALUES ('2026-01-02 03:04:05', '2026-01-02 03:04:05.678', '2026-01-02', '-12:30:00',
        12.50, -7, 18446744073709551615, 0.1, 300, '张三', 1, 2026, '香樟\\n100', '香樟', NULL)""")
    assert site.select("SELECT *, f > 0 AS p, '' AS q FROM t") == [(
        "2026-01-02 03:04:05", "2026-01-02 03:04:05.678", "2026-01-02", "-12:30:00", "12.50", "-7",
        "18446744073709551615", "0.1", "300", "张三", "1", "2026", "香樟\n100", "香樟", None, "0", "",
    )]  # fmt: skip
    assert select(site.url, "SELECT f AS openid, m FROM t", {}).columns == ["openid", "m"]
    assert site.select("SELECT a FROM t WHERE 0") == []


def test_a_text_that_is_not_of_its_charset_stops_nothing(site: Site) -> None:
    site.say("CREATE TABLE t (id INT, name VARCHAR(20) CHARACTER SET latin1, raw VARBINARY(20))")
    site.say("INSERT INTO t VALUES (1, CONVERT(CAST('张' AS BINARY) USING latin1), 0xFF41), (2, 'b', 'c')")
    fixed = "CONVERT(CAST(CONVERT(name USING latin1) AS BINARY) USING utf8mb4)"  # as the document says
    assert site.select(f"SELECT {fixed}, raw FROM t ORDER BY id") == [("张", "\ufffdA"), ("b", "c")]
    for charset in ("latin1", "gbk"):
        rows = list(select(f"{site.url}?charset={charset}", "SELECT id, name FROM t ORDER BY id", {}).rows)
        assert rows[1] == ("2", "b") and rows[0][0] == "1"


def test_the_url_s_charset_is_that_of_the_query_and_its_values(site: Site) -> None:
    site.say("CREATE TABLE t (name VARCHAR(20)) DEFAULT CHARSET=gbk")
    site.say("INSERT INTO t VALUES ('香樟'), ('樟')")
    gbk = f"{site.url}?charset=gbk"
    query = "SELECT name, @@character_set_client FROM t WHERE name IN (%(a)s, 'x')"
    assert list(select(gbk, query, {"a": "香樟"}).rows) == [("香樟", "gbk")]
    with pytest.raises(OperatorDatabaseAway, match="its charset gbk lacks a character of the query or of its values"):
        select(gbk, "SELECT %(a)s", {"a": "🌲"})
    with pytest.raises(ValueError, match="charset"):
        mysql_url.parse("mysql://u:p@h/d?charset=utf-8")


NASTY = "5% '\"\\ ` -- # /* %(now)s 🌲\n\r\t;"


@pytest.mark.parametrize("mode", ["", "NO_BACKSLASH_ESCAPES,ANSI_QUOTES"])
def test_parameters_and_percents_arrive_as_they_are_written(site: Site, mode: str) -> None:
    """Whatever the values hold, and wherever the query has quotes and comments."""
    query = """SELECT %(a)s AS openid, '5%%', '%%(a)s', 'it''s', 7 %% 4, %(b)s IS NULL, %(n)s -- it's %(a)s
        # "%(a)s
        /* '%(a)s */ FROM (SELECT %(a)s AS x) y WHERE x LIKE '5%%' AND /*! x = %(a)s */"""
    real = operator_mysql._only_read

    def like_theirs(link: Any, patience: float) -> None:
        real(link, patience)
        with link.cursor() as cursor:
            cursor.execute("SET sql_mode = %s", (mode,))

    with mock.patch.object(operator_mysql, "_only_read", like_theirs):
        assert site.select(query, a=NASTY, b=None, n=3) == [(NASTY, "5%", "%(a)s", "it's", "3", "1", "3")]


def test_the_session_is_the_server_s_own(site: Site) -> None:
    (theirs,) = site.say("SELECT @@sql_mode, @@time_zone, @@tx_isolation")
    assert site.select("SELECT @@sql_mode, @@time_zone, @@tx_isolation") == [theirs]


def test_a_value_that_nothing_gives_is_named(site: Site) -> None:
    with pytest.raises(OperatorDatabaseAway, match=r"nothing gives a value for %\(city\)s"):
        select(site.url, "SELECT 1 WHERE 1 = %(city)s", {"now": "x"})


# ---- nothing is changed


def test_whatever_a_query_says_it_changes_nothing(site: Site, tmp_path: Path) -> None:
    for engine in ("InnoDB", "MyISAM"):
        site.say(f"CREATE TABLE {engine} (a INT) ENGINE={engine}")
        site.say(f"INSERT INTO {engine} VALUES (1)")
        site.say(f"CREATE FUNCTION f{engine}() RETURNS INT BEGIN INSERT INTO {engine} VALUES (2); RETURN 1; END")
    out = tmp_path / "out"
    writes = "the query writes, or locks what it reads; only a plain SELECT is due here"
    for query, words in (
        ("SELECT fInnoDB()", writes), ("SELECT fMyISAM()", writes), ("SELECT a FROM InnoDB FOR UPDATE", writes),
        ("WITH x AS (SELECT 1) DELETE FROM MyISAM", "syntax"),
        ("SELECT 1; DELETE FROM MyISAM", "syntax"),
        ("DELETE FROM MyISAM", "begins with DELETE"), ("DROP TABLE MyISAM", "begins with DROP"),
        (f"SELECT a FROM MyISAM INTO OUTFILE '{out}'", "INTO"),
    ):  # fmt: skip
        with pytest.raises(OperatorDatabaseAway, match=words) as refused:
            site.select(query)
        assert str(refused.value).startswith(f"{site.place}: ")
    with mock.patch("fanoutd.dispatcher.operator_mysql.check_reads"):  # and what this overlooks the server refuses
        for query in ("DELETE FROM MyISAM", "TRUNCATE TABLE InnoDB", "CREATE TABLE x (a INT)", "DROP TABLE MyISAM"):
            with pytest.raises(OperatorDatabaseAway, match=writes):
                site.select(query)
    assert site.say("SELECT a FROM InnoDB UNION ALL SELECT a FROM MyISAM") == [(1,), (1,)]
    assert not out.exists()
    site.idle()


class Old:
    """A server that does not know some words yet, as it answers to a connection's cursor."""

    def __init__(self, version: str, *unknown: str, code: int) -> None:
        self.said: list[str] = []
        self._version, self._unknown, self._code = version, unknown, code

    def cursor(self) -> Any:
        return nullcontext(self)

    def get_server_info(self) -> str:
        return self._version

    def execute(self, sql: str) -> None:
        if any(each in sql for each in self._unknown):
            raise pymysql.err.ProgrammingError(self._code, "what is this?")
        self.said.append(sql)


def test_a_server_without_read_only_transactions_gets_one_that_is_never_committed() -> None:
    old: Any = Old("5.1.73", "READ ONLY", code=1064)
    operator_mysql._only_read(old, 600)
    assert old.said == ["SET SESSION net_write_timeout = 600", "START TRANSACTION"]
    with pytest.raises(pymysql.err.ProgrammingError):  # any other refusal is one
        operator_mysql._only_read(cast(Any, Old("8.0.30", "READ ONLY", code=1227)), 600)


def test_a_server_is_given_the_limits_that_it_knows() -> None:
    new: Any = Old("10.11.6-MariaDB", code=1193)
    operator_mysql._bounded(new, 5)
    assert new.said == [
        "SET SESSION innodb_lock_wait_timeout = 4, SESSION lock_wait_timeout = 4, SESSION wait_timeout = 6, "
        "SESSION max_statement_time = 5"
    ]
    old: Any = Old("5.1.73", "innodb_lock", "max_statement", code=1193)
    operator_mysql._bounded(old, 5)
    assert old.said == ["SET SESSION lock_wait_timeout = 4", "SET SESSION wait_timeout = 6"]


# ---- rows as they come


def test_rows_take_no_memory_and_those_not_wanted_are_not_read(site: Site) -> None:
    rows = select(site.url, "SELECT CONCAT('o', LPAD(seq, 27, '0')), REPEAT('x', 100) FROM seq_1_to_50000000", {}).rows
    tracemalloc.start()
    try:
        assert sum(1 for _, _ in zip(range(20_000), rows, strict=False)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    (thread,) = site.threads()
    began = time.monotonic()
    rows.close()  # type: ignore[attr-defined]  # a generator, as dropping it does
    assert time.monotonic() - began < 5  # to read the rest takes a minute
    wait_for(lambda: thread not in site.threads(), "the server to see that nobody listens")
    del rows
    unread = select(site.url, "SELECT seq FROM seq_1_to_50000000", {})
    del unread
    site.idle()


def test_the_kernel_gives_up_a_silent_end_in_seconds_however_long_the_first_row_may_take(site: Site) -> None:
    seen: list[tuple[float, list[int]]] = []
    real = operator_mysql._only_read
    tcp, options = socket.IPPROTO_TCP, (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)

    def look(link: Any, patience: float) -> None:
        found = [link._sock.getsockopt(tcp, each) for each in (socket.TCP_USER_TIMEOUT, *options)]
        seen.append((link._read_timeout, [link._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *found]))
        real(link, patience)

    with mock.patch.object(operator_mysql, "_only_read", look):
        assert site.select("SELECT SLEEP(0.1)") == [("0",)]
    assert seen == [(600, [1, 10_000, 5, 2, 3])]
    with pytest.raises(OperatorDatabaseAway, match="timed out"):
        select(site.url, "SELECT SLEEP(3)", {}, patience=0.2)


# ---- what goes wrong, in words


@contextmanager
def answering(greeting: bytes) -> Iterator[int]:
    """A port whose every caller hears these bytes, and then nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        callers: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    callers.append(listener.accept()[0])
                except OSError:
                    return
                callers[-1].sendall(greeting)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in callers:
                each.close()


def packet(payload: bytes) -> bytes:
    return struct.pack("<I", len(payload)) + payload


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (packet(b"\xff\x10\x04#08004Too many connections"), "Too many connections (1040)"),
        (packet(b"\xff\x69\x04Host '10.0.0.9' is not allowed to connect"), "is not allowed to connect (1129)"),
        (b"HTTP/1.0 400 Bad Request\r\n\r\n" * 400, ""),
        (b"", "timed out"),
    ],
    ids=["too many", "not allowed", "http", "silence"],
)
def test_who_does_not_answer_as_mysql_does_is_named_and_nobody_else(greeting: bytes, words: str) -> None:
    with answering(greeting) as port, mock.patch("fanoutd.mysql.CONNECT_TIMEOUT", 0.3):
        url = f"mysql://site:hush@127.0.0.1:{port}/tp"
        with pytest.raises(OperatorDatabaseAway) as away:
            select(url, "SELECT 1", {})
        with pytest.raises(statements.NotRun, match=f"mysql://127.0.0.1:{port}/tp: "):
            statements.run(url, "UPDATE t SET a = 1", {})
    assert str(away.value).startswith(f"mysql://127.0.0.1:{port}/tp: ") and words in str(away.value)
    assert "hush" not in str(away.value) and "site" not in str(away.value) and "\n" not in str(away.value)


def test_no_error_names_the_user_or_the_password(site: Site) -> None:
    site.say("CREATE TABLE t (a INT)")
    user, password = f"u_{site.name}"[:32], "hush-hush"
    site.say(f"CREATE USER {user}@'%' IDENTIFIED BY '{password}' WITH MAX_USER_CONNECTIONS 1")
    place = f"127.0.0.1:{site.mariadb.port}"

    def said(name: str, word: str, database: str) -> str:
        with pytest.raises(OperatorDatabaseAway) as away:
            select(f"mysql://{name}:{word}@{place}/{database}", "SELECT * FROM t", {})
        words = str(away.value)
        assert words.startswith(f"mysql://{place}/{database}: ") and user not in words and password not in words
        return words

    assert "(1045)" in said(user, "wrong", site.name) and "(1044)" in said(user, password, site.name)
    site.say(f"GRANT INSERT ON {site.name}.t TO {user}@'%'")
    assert "command denied to user" in said(user, password, site.name)
    site.say(f"GRANT SELECT ON {site.name}.t TO {user}@'%'")
    url = f"mysql://{user}:{password}@{place}/{site.name}"
    site.say("INSERT INTO t SELECT seq FROM seq_1_to_200")
    slow = select(url, "SELECT REPEAT('x', 1000) FROM t a JOIN t b", {})
    assert "max_user_connections" in said(user, password, site.name)
    del slow
    wait_for(lambda: not site.say(f"SELECT 1 FROM information_schema.processlist WHERE user = '{user}'"), "its end")
    assert len(list(select(url, "SELECT * FROM t", {}).rows)) == 200


# ---- people


PEOPLE = 30_000
CONFIG = """
[account.main]
app_id = "wx0123456789abcdef"
app_secret = "a-secret-of-the-tests"
token = {{ database = "{url}", query = "SELECT * FROM tp_accesstoken" }}
[message.supply]
variables = ["name"]
[message.supply.custom]
msgtype = "text"
text.content = "{{name}}"
[audience.default]
database = "{url}"
query = "SELECT openid, name, REPEAT('x', 1000) AS unused FROM people WHERE id > 0"
exclude = "gone"
[audience.gone]
database = "{url}"
query = "SELECT openid FROM people WHERE id %% 100 = 0"
"""


def whom(i: int) -> str:
    return f"oPEOPLE{i:021d}"


@pytest.fixture
def config(site: Site, tmp_path: Path) -> Config:
    (tmp_path / "fanoutd.toml").write_text(CONFIG.format(url=site.url))
    (tmp_path / "fanoutd.toml").chmod(0o600)
    config = load(tmp_path / "fanoutd.toml")
    assert config.warnings == ()
    return config


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Database]:
    with closing(open_store(f"sqlite:///{tmp_path / 'store.db'}")) as db:
        migrate(db)
        yield db


def fill(site: Site, people: int) -> None:
    site.say("CREATE TABLE people (id INT PRIMARY KEY, openid VARCHAR(64), name VARCHAR(20)) DEFAULT CHARSET=utf8")
    site.say(f"INSERT INTO people SELECT seq, CONCAT('oPEOPLE', LPAD(seq, 21, '0')), '张三' FROM seq_1_to_{people}")
    site.say("INSERT INTO people VALUES (-1, 'oNOBODY00000000000000000000', '')")


def campaign(config: Config, db: Database, page: int | None = None) -> Campaign:
    kind, audience, gone = config.messages["supply"], config.audiences["default"], config.audiences["gone"]
    definition = {
        "channels": list(kind.channels), "bodies": dict(kind.bodies), "too_long": "cut", "variables": ["name"],
        "query": audience.query, "content": "x", "phone": None, "data": {}, "page": page, "page_size": 500,
        "exclude": {"audience": "gone", "query": gone.query, "source": None},
    }  # fmt: skip
    row = Campaign(f"c-{page or 0}", "main", "supply", "default", None, None, "planning", None, None, wall_ms(), None,
                   None, None, False, "node1", "query", definition)  # fmt: skip
    with db.transaction():
        campaigns.insert(db, row)
    return row


def test_a_stream_that_dies_is_begun_anew_and_nobody_is_lost_or_doubled(
    site: Site, config: Config, store: Database, tmp_path: Path
) -> None:
    fill(site, PEOPLE)
    row = campaign(config, store)
    planner = Planner(config, Spool(tmp_path / "spool"), "node1", lambda _count: None)
    planned = 0

    def cut(_count: int) -> None:
        nonlocal planned
        planned += 1
        if planned == 3:
            for thread in site.threads():
                site.say(f"KILL {thread}")

    def known() -> Campaign:
        found = campaigns.get(store, row.id)
        assert found is not None
        return found

    Planner(config, Spool(tmp_path / "spool"), "node1", cut).plan(store, row)
    assert 3 <= planned < 100 and not known().planned and known().state == "running"
    assert (known().reason or "").startswith(f"[audience.default] {site.place}: ")
    with site.mariadb.root(database=site.name) as link, link.cursor() as cursor:
        cursor.execute("RENAME TABLE people TO elsewhere")
        planner.plan(store, known())
        assert "people' doesn't exist (1146)" in (known().reason or "")
        cursor.execute("RENAME TABLE elsewhere TO people")
    planner.plan(store, known())
    assert known().planned and known().reason is None and known().cause is None
    people = store.rows("SELECT openid, person FROM fanout_delivery ORDER BY openid")
    assert [openid for openid, _ in people] == [whom(i) for i in range(1, PEOPLE + 1) if i % 100]
    assert {person for _, person in people} == {'{"name": "张三"}'}
    site.idle()


def test_a_page_reads_its_rows_and_no_more(site: Site, config: Config, store: Database, tmp_path: Path) -> None:
    fill(site, PEOPLE)
    began = campaign(config, store, page=2)
    people = list(stream(began, config, Spool(tmp_path / "spool")))
    assert [each.openid for each in people] == [whom(i) for i in range(1001, 1501)]
    assert list(excluded(began, config))[:2] == [whom(100), whom(200)]
    site.idle()
    away = replace(config.audiences["default"], database="mysql://u:hush@127.0.0.1:1/tp")
    with pytest.raises(AudienceAway, match=r"\[audience.default\] mysql://127.0.0.1:1/tp: .*refused"):
        stream(began, replace(config, audiences={"default": away}), Spool(tmp_path / "spool"))


# ---- statements


def run(site: Site, statement: str, **values: str | int | None) -> int:
    return statements.run(site.url, statement, values)


def test_a_statement_is_one_transaction_and_what_has_no_value_is_null(site: Site) -> None:
    site.say("CREATE TABLE t (openid VARCHAR(64) PRIMARY KEY, takes INT, note TEXT) DEFAULT CHARSET=utf8mb4")
    site.say(f"INSERT INTO t VALUES ('{OPENID}', 1, NULL), ('other', 1, NULL)")
    update = "UPDATE t SET takes = 0, note = CONCAT(%(content)s, '5%%') WHERE openid = %(openid)s -- %(openid)s"
    assert run(site, update, openid=OPENID, content=NASTY) == 1
    assert run(site, update, openid=OPENID, content=NASTY) == 1  # found, though there was nothing to change
    assert site.say("SELECT takes, note FROM t ORDER BY takes") == [(0, f"{NASTY}5%"), (1, None)]
    assert run(site, "UPDATE t SET note = %(phone)s") == 2
    assert site.say("SELECT DISTINCT note FROM t") == [(None,)]
    site.idle()


def test_a_statement_that_fails_changes_nothing_and_tells_no_openid(site: Site) -> None:
    site.say("CREATE TABLE t (openid VARCHAR(64) PRIMARY KEY) ENGINE=InnoDB")
    site.say(f"INSERT INTO t VALUES ('{OPENID}')")
    for statement in (
        "INSERT INTO t VALUES ('x'), (%(openid)s)", "UPDATE t SET nonsense %(openid)s",
        "UPDATE t SET oops " + "x" * 60 + " %(openid)s",
        "SELECT 1; DELETE FROM t WHERE openid = %(openid)s",
    ):  # fmt: skip
        with pytest.raises(statements.NotRun) as failed:
            run(site, statement, openid=OPENID)
        assert str(failed.value).startswith(f"{site.place}: ")
        assert OPENID[:8] not in str(failed.value) and "fanout'" not in str(failed.value)
    assert site.say("SELECT * FROM t") == [(OPENID,)]
    site.idle()


def test_a_lock_and_a_statement_without_end_are_given_up(site: Site) -> None:
    site.say("CREATE TABLE t (a INT) ENGINE=InnoDB")
    site.say("INSERT INTO t VALUES (1)")
    with mock.patch("fanoutd.dispatcher.statements.TIMEOUT", 2.0):
        with site.mariadb.root(database=site.name) as link, link.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT * FROM t FOR UPDATE")
            with pytest.raises(statements.NotRun, match="Lock wait timeout exceeded"):
                run(site, "UPDATE t SET a = 2")
            with pytest.raises(statements.NotRun, match="took longer than 2 s"):
                run(site, "INSERT INTO t SELECT 3 FROM seq_1_to_2 WHERE SLEEP(30)")
            cursor.execute("ROLLBACK")
        assert run(site, "UPDATE t SET a = 2") == 1
    assert site.say("SELECT a FROM t") == [(2,)]
    site.idle()


# ---- the token


TOKENS = "CREATE TABLE tp_accesstoken (accesstoken VARCHAR(512), {}) DEFAULT CHARSET=utf8"


@pytest.mark.parametrize(
    ("column", "value", "expires_at"),
    [
        ("expires_at DATETIME", "'2099-01-01 08:00:00'", 4_070_908_800_000),
        ("expires_at INT UNSIGNED", "4070908800", 4_070_908_800_000),
        ("expires_at DECIMAL(14,3)", "4070908800.5", 4_070_908_800_500),
        ("expires_at BIGINT", "4070908800000", 4_070_908_800_000),
        ("id INT", "1", None),
    ],
)
def test_the_token_s_end_as_old_tables_write_it(
    site: Site, config: Config, column: str, value: str, expires_at: int | None
) -> None:
    site.say(TOKENS.format(column))
    site.say(f"INSERT INTO tp_accesstoken VALUES ('T-1', {value})")
    token = fetch(config.accounts["main"])
    assert token.text == "T-1" and (token.expires_at == expires_at or (expires_at is None and token.expiry is None))
    site.idle()


def test_a_token_table_that_is_away_is_no_fatal_matter(site: Site, config: Config) -> None:
    account: Account = config.accounts["main"]
    with pytest.raises(Refused, match=r"^\[account.main.token\] mysql://127.*tp_accesstoken' doesn't exist") as refused:
        fetch(account)
    assert not refused.value.fatal and refused.value.wait is not None
    assert isinstance(account.token, TokenQuery)
    site.say(TOKENS.format("expires_at DATETIME"))
    with pytest.raises(Refused, match="it gives no row"):
        fetch(account)
    for end, words in ("0000-00-00 00:00:00", "expires_at is no time"), ("2001-01-01 00:00:00", "the token ended"):
        site.say("DELETE FROM tp_accesstoken")
        site.say(f"INSERT IGNORE INTO tp_accesstoken VALUES ('T-1', '{end}')")
        with pytest.raises(Refused, match=words):
            fetch(account)


# ---- the daemon


SITE = """
[message.supply.on_finish]
database = "{url}"
statement = "UPDATE task SET status = 2, sent = %(sent)s WHERE miaomu_id = %(reference)s"
[audience.site]
database = "{url}"
query = "SELECT openid FROM people"
on_opt_out = "DELETE FROM people WHERE openid = %(openid)s"
"""


class Beside(Daemon):
    """``fanoutd serve`` with the site's database."""

    def __init__(self, folder: Path, site: Site) -> None:
        self._more = SITE.format(url=site.url)
        super().__init__(folder, followers=1)

    def serve(self, wait: bool = True) -> subprocess.Popen[bytes]:
        self.config.write_text(self.config.read_text() + self._more)
        return super().serve(wait)


def test_a_server_that_comes_and_goes_keeps_campaigns_waiting_and_forgets_no_statement(tmp_path: Path) -> None:
    """Killed with -9 before a campaign is planned, and again when it has ended."""
    with closing(MariaDb()) as own:
        site = Site(own)
        fill(site, 500)
        site.say("CREATE TABLE task (miaomu_id INT, status INT, sent INT)")
        site.say("INSERT INTO task VALUES (77, 1, NULL), (78, 1, NULL)")
        with closing(Beside(tmp_path, site)) as d:
            own.kill()
            campaign = d.call("campaign.submit", content="x", phone="1", audience="site", reference=77)["campaign"]
            reason = wait_for(lambda: d.call("campaign.get", campaign=campaign)["reason"], "a reason")
            assert reason.startswith(f"[audience.site] {site.place}: ") and "refused" in reason
            d.call("subscriber.opt_out", openid=whom(7))
            d.call("campaign.pause", campaign=campaign)
            own.start()
            d.call("campaign.resume", campaign=campaign)
            done = d.until(campaign)
            assert done["total"] - done["counts"]["skipped"] in (499, 500) and done["reason"] is None
            own.kill()
            own.start()
            sent = done["counts"]["sent_custom"] + done["counts"]["sent_template"]
            wait_for(lambda: site.say("SELECT * FROM task WHERE miaomu_id = 77") == [(77, 2, sent)], "on_finish")
            wait_for(lambda: not site.say(f"SELECT 1 FROM people WHERE openid = '{whom(7)}'"), "on_opt_out", 40)
            assert set(d.accepted().values()) == {1}
            assert site.say("SELECT status FROM task WHERE miaomu_id = 78") == [(1,)]
            assert QUOTED not in (tmp_path / "fanoutd.log").read_text()
