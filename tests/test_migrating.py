"""The tables and the calls of an installation on a Swoole task server, unchanged, with the document's configuration."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from fanoutd.config import load
from support import mariadb
from support.bench import wait_for
from support.daemon import Daemon

DOCUMENT = Path(__file__).parent.parent / "docs" / "migrating.md"
URL = "mysql://site:password@db.example.com:3306/tp"

#: As such a site has them: in SQLite for a first look, and on its server, new or old.
TABLES = {
    "sqlite": """
CREATE TABLE tp_receiver (
    id INTEGER PRIMARY KEY AUTOINCREMENT, openid VARCHAR(64), expire_time DATETIME, send_status INT,
    receive_status INT);
CREATE TABLE tp_accesstoken (id INTEGER PRIMARY KEY AUTOINCREMENT, accesstoken VARCHAR(512), expire_time DATETIME);
CREATE TABLE task (
    id INTEGER PRIMARY KEY AUTOINCREMENT, flag INT, miaomu_id INT, status INT, createtime DATETIME, content TEXT)
""",
    "innodb": """
CREATE TABLE tp_receiver (
    id INT(11) NOT NULL AUTO_INCREMENT, openid VARCHAR(64) DEFAULT NULL, expire_time DATETIME, send_status TINYINT(1),
    receive_status TINYINT(1), PRIMARY KEY (id), KEY openid (openid)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE tp_accesstoken (
    id INT(11) NOT NULL AUTO_INCREMENT, accesstoken VARCHAR(512), expire_time DATETIME, PRIMARY KEY (id)) ENGINE=InnoDB;
CREATE TABLE task (
    id INT(11) NOT NULL AUTO_INCREMENT, flag INT, miaomu_id INT, status INT, createtime DATETIME, content TEXT,
    PRIMARY KEY (id)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
""",
    "myisam": """
CREATE TABLE tp_receiver (
    id INT(11) NOT NULL AUTO_INCREMENT, openid CHAR(64) DEFAULT NULL, expire_time INT(10) UNSIGNED NOT NULL DEFAULT 0,
    send_status TINYINT(1), receive_status TINYINT(1), PRIMARY KEY (id)) ENGINE=MyISAM DEFAULT CHARSET=utf8;
CREATE TABLE tp_accesstoken (
    id INT(11) NOT NULL AUTO_INCREMENT, accesstoken VARCHAR(512), expire_time INT(10) UNSIGNED, PRIMARY KEY (id)
    ) ENGINE=MyISAM DEFAULT CHARSET=utf8;
CREATE TABLE task (
    id INT(11) NOT NULL AUTO_INCREMENT, flag VARCHAR(9), miaomu_id VARCHAR(20), status CHAR(1), createtime INT(10),
    content VARCHAR(500), PRIMARY KEY (id)) ENGINE=MyISAM DEFAULT CHARSET=gbk
""",
}
#: What a table with times as numbers has.
SECONDS = {
    "2099-01-01 00:00:00": 4_070_908_800, "2001-01-01 00:00:00": 978_307_200, "2020-01-01 00:00:00": 1_577_836_800,
}  # fmt: skip

CONTENT = "求购香樟100棵，胸径12公分"


def receiver(i: int) -> str:
    return f"oRECEIVER{i:019d}"


#: Who is sent to: paid for, or for ever; and takes messages.
WANTED = [receiver(i) for i in range(1_200) if i % 10 not in (3, 7)]


def rows() -> Iterator[tuple[str, str, int, int]]:
    for i in range(1_200):
        paid, for_ever, takes = ("2099-01-01 00:00:00", 0, 1) if i % 2 else ("2001-01-01 00:00:00", 1, 1)
        if i % 10 == 3:
            takes = 0
        if i % 10 == 7:
            paid = "2020-01-01 00:00:00"
        yield receiver(i), paid, for_ever, takes
    yield receiver(1), "2099-01-01 00:00:00", 0, 1  # twice in the table, and on another page


class Tables:
    """The site's, as its owner works with them; ``url`` is what fanoutd is given."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self._file = kind, folder / "site.db"
        self.url = f"sqlite:///{self._file}"
        if kind != "sqlite":
            self._server = mariadb.server()
            self._name = self._server.database().rpartition("/")[2]
            self.url = self._granted()
        for statement in TABLES[kind].split(";"):
            self.say(statement)

    def _granted(self) -> str:
        """Of a user who may do what the document grants, and nothing else."""
        user = f"s{self._name[-20:]}"
        self.grants = block("sql").replace("'site'@'192.0.2.7'", f"{user}@'%'").replace("ON tp.", f"ON {self._name}.")
        assert self.grants.count(user) == self.grants.count(";") == 5
        return f"mysql://{user}:password@127.0.0.1:{self._server.port}/{self._name}"

    def grant(self) -> None:
        for statement in self.grants.strip().rstrip(";").split(";"):
            self._server.say(statement)

    def say(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self._file)) as link, link:
                return link.execute(sql, args).fetchall()
        with self._server.root(database=self._name) as link, link.cursor() as cursor:
            cursor.execute(sql.replace("?", "%s"), args)
            found: list[tuple[Any, ...]] = list(cursor.fetchall())
        return [tuple(str(each) if isinstance(each, datetime) else each for each in row) for row in found]

    def time(self, text: str) -> str | int:
        return SECONDS[text] if self.kind == "myisam" else text

    def rows(self) -> list[tuple[str, str | int, int, int]]:
        return [(openid, self.time(paid), *more) for openid, paid, *more in rows()]

    def fill(self, token: str) -> None:
        sql = "INSERT INTO tp_receiver (openid, expire_time, send_status, receive_status) VALUES "
        for some in range(0, len(self.rows()), 100):
            people = self.rows()[some:some + 100]
            self.say(sql + ", ".join(["(?, ?, ?, ?)"] * len(people)), *(value for row in people for value in row))
        self.say("INSERT INTO tp_accesstoken (accesstoken, expire_time) VALUES (?, ?)",
                 token, self.time("2099-01-01 00:00:00"))  # fmt: skip
        if self.kind != "sqlite":
            self.grant()


class Site(Daemon):
    """``fanoutd serve`` beside the site's tables."""

    def __init__(self, folder: Path, kind: str, more: str = "") -> None:
        self.tables, self._more = Tables(kind, folder), more
        super().__init__(folder, no_window=0.33)

    def serve(self, wait: bool = True) -> Any:
        self.tables.fill(self.other_job())
        self.config.write_text(configuration(self.tables, self.sandbox.url) + self._more)
        return super().serve(wait)

    def other_job(self) -> str:
        """The token that the site's own cron job fetches, and we never do."""
        found = requests.get(f"{self.sandbox.url}/cgi-bin/token", timeout=5, params={
            "grant_type": "client_credential", "appid": "wx0000000000000000", "secret": "known to the site's job only",
        }).json()["access_token"]  # fmt: skip
        self.token = str(found)
        return self.token

    def select(self, sql: str) -> list[tuple[Any, ...]]:
        return self.tables.say(sql)

    def notice(self, miaomu_id: int, flag: int) -> None:
        """What the site's action does first."""
        self.tables.say(
            "INSERT INTO task (flag, miaomu_id, status, createtime, content) VALUES (?, ?, 1, ?, ?)",
            flag, miaomu_id, self.tables.time("2020-01-01 00:00:00"), CONTENT,
        )  # fmt: skip


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def configuration(tables: Tables, api: str) -> str:
    """The document's, on these tables and on the sandbox."""
    text = block("toml")
    assert text.count(URL) == 3
    token = next(line for line in text.splitlines() if line.startswith("token ="))
    text = text.replace(token, f'{token}\napi_base = "{api}"')
    text = text.replace(URL, tables.url).replace("rate = 50\n", "rate = 5000\n")
    if tables.kind == "myisam":  # as the document says of times that are numbers
        assert text.count("expire_time > %(now)s") == 1
        text = text.replace("expire_time > %(now)s", "expire_time > UNIX_TIMESTAMP(%(now)s)")
    return "[daemon]\nlog_file = 'fanoutd.log'\n" + text


#: Replies that reach fanoutd by its callback: as the document says.
REPLIES = """
on_opt_out = "UPDATE tp_receiver SET receive_status = 0 WHERE openid = %(openid)s"
on_opt_in = "UPDATE tp_receiver SET receive_status = 1 WHERE openid = %(openid)s"
"""


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Site]:
    with closing(Site(tmp_path, "sqlite")) as d:
        yield d


@pytest.fixture(params=["sqlite", "innodb", "myisam"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with closing(Site(tmp_path, request.param)) as d:
        yield d


def untouched(site: Site) -> None:
    receivers = site.select("SELECT openid, expire_time, send_status, receive_status FROM tp_receiver ORDER BY id")
    assert receivers == site.tables.rows()
    assert site.select("SELECT accesstoken FROM tp_accesstoken") == [(site.token,)]
    assert site.sandbox.stats()["token_fetches"] == {"plain": 1, "stable": 0}


def test_three_calls_by_a_client_that_hangs_up_are_three_pages_and_the_task_table_hears_of_each(site: Site) -> None:
    for flag in range(3):
        site.notice(77, flag)
        site.hang_up(json.dumps({"content": CONTENT, "flag": str(flag), "phone": "13800000000"}))
    found = wait_for(lambda: campaigns if len(campaigns := site.campaigns()) == 3 else None, "three campaigns")
    totals = sorted(site.until(each["id"])["total"] for each in found)
    # 960 and the one who is in the table twice: pages are of the query's result
    assert totals == [0, 461, 500]
    assert site.accepted() == Counter({**dict.fromkeys(WANTED, 1), receiver(1): 2})
    wait_for(lambda: site.select("SELECT DISTINCT status + 0 FROM task") == [(2,)], "the task table")
    tasks = site.select("SELECT flag + 0, miaomu_id + 0, content FROM task ORDER BY id")
    assert tasks == [(k, 77, CONTENT) for k in range(3)]
    untouched(site)


def test_one_call_reaches_everybody_once_and_the_task_is_found_by_its_reference(site: Site) -> None:
    for other in (77, 78):
        site.notice(other, 9)
    notice = {"content": CONTENT, "phone": "13800000000", "reference": 77, "key": "task-77"}
    for _ in range(2):  # the answer was lost, and it is said again
        site.hang_up(json.dumps(notice) + "\n")
    (campaign,) = wait_for(site.campaigns, "the campaign")
    ended = site.until(campaign["id"])
    assert (ended["total"], ended["reference"]) == (len(WANTED), "77")
    assert ended["counts"]["sent_custom"] > 0 < ended["counts"]["sent_template"]
    assert site.accepted() == dict.fromkeys(WANTED, 1)
    wait_for(lambda: site.select("SELECT status + 0 FROM task ORDER BY id") == [(2,), (1,)], "the task table")
    assert len(site.campaigns()) == 1
    untouched(site)


def test_who_opts_out_is_marked_in_the_site_s_table_and_nobody_else(tmp_path: Path) -> None:
    with closing(Site(tmp_path, "innodb", REPLIES)) as site:
        out, back = WANTED[0], WANTED[1]
        for word, openid in ("out", out), ("out", back), ("in", back):
            site.call(f"subscriber.opt_{word}", openid=openid)
        wait_for(lambda: not site.select(f"SELECT 1 FROM tp_receiver WHERE openid = '{out}' AND receive_status = 1"),
                 "the site's table")  # fmt: skip
        campaign = site.call("campaign.submit", content=CONTENT, phone="1")["campaign"]
        assert site.until(campaign)["total"] == len(WANTED) - 1
        silent = [(openid,) for openid, _, _, takes in rows() if not takes or openid == out]
        query = "SELECT openid FROM tp_receiver WHERE receive_status = 0 ORDER BY id"
        wait_for(lambda: site.select(query) == silent, "the opt-in too")


def test_the_old_bodies_arrive_as_they_were(old: Site) -> None:
    site = old
    site.hang_up(json.dumps({"content": CONTENT, "phone": "13800000000", "page_size": 40, "flag": 0}))
    (campaign,) = wait_for(site.campaigns, "the campaign")
    site.until(campaign["id"])
    bodies = {row["channel"]: row["body"] for row in site.sandbox.ledger_rows()}
    custom, template = ({name: value for name, value in bodies[each].items() if name != "touser"}
                        for each in ("custom", "template"))  # fmt: skip
    lines = custom["text"]["content"].split("\n")
    assert (lines[0], lines[-1]) == (CONTENT, "回复0取消接收信息，回复1重新接收信息")
    assert "url" not in template  # an empty one opens nothing: left out, as WeChat wants it
    assert template["data"]["first"] == {"value": "您好，有新的供求信息", "color": "#173177"}
    assert template["data"]["keyword2"] == {"value": CONTENT}
    assert template["data"]["keyword3"] == {"value": "13800000000"}
    assert re.fullmatch(r"20\d\d年\d{1,2}月\d{1,2}日 \d\d:\d\d", template["data"]["keyword4"]["value"])
    assert template["data"]["remark"]["color"] == "#173177"


def test_the_document_s_configuration_is_one_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "fanoutd.toml"
    file.write_text(block("toml"))
    file.chmod(0o600)
    config = load(file, {})
    assert config.messages["notice"].on_finish is not None and config.accounts["main"].app_secret is None


def test_the_client_has_six_lines_and_says_what_the_protocol_knows() -> None:
    lines = block("php").strip().splitlines()
    assert len(lines) == 6
    assert set(re.findall(r"'(\w+)' =>", lines[1])) == {"content", "phone", "reference", "key"}
