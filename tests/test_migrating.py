"""The tables and the calls of an installation on a Swoole task server, unchanged, with the document's configuration."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from fanoutd.config import load
from support.bench import wait_for
from support.daemon import Daemon

DOCUMENT = Path(__file__).parent.parent / "docs" / "migrating.md"
URL = "mysql://site:password@db.example.com:3306/tp"

TABLES = """
CREATE TABLE tp_receiver (
    id INTEGER PRIMARY KEY AUTOINCREMENT, openid VARCHAR(64), expire_time DATETIME, send_status INT,
    receive_status INT);
CREATE TABLE tp_accesstoken (id INTEGER PRIMARY KEY AUTOINCREMENT, accesstoken VARCHAR(512), expire_time DATETIME);
CREATE TABLE task (
    id INTEGER PRIMARY KEY AUTOINCREMENT, flag INT, miaomu_id INT, status INT, createtime DATETIME, content TEXT);
"""

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


class Site(Daemon):
    """``fanoutd serve`` beside the site's tables."""

    def serve(self, wait: bool = True) -> Any:
        self.tables = self.folder / "site.db"
        if not self.tables.exists():
            with closing(sqlite3.connect(self.tables)) as link, link:
                link.executescript(TABLES)
                link.executemany(
                    "INSERT INTO tp_receiver (openid, expire_time, send_status, receive_status) VALUES (?, ?, ?, ?)",
                    rows(),
                )
                link.execute("INSERT INTO tp_accesstoken (accesstoken, expire_time) VALUES (?, '2099-01-01 00:00:00')",
                             (self.other_job(),))  # fmt: skip
            self.config.write_text(configuration(self.tables, self.sandbox.url))
        return super().serve(wait)

    def other_job(self) -> str:
        """The token that the site's own cron job fetches, and we never do."""
        found = requests.get(f"{self.sandbox.url}/cgi-bin/token", timeout=5, params={
            "grant_type": "client_credential", "appid": "wx0000000000000000", "secret": "known to the site's job only",
        }).json()["access_token"]  # fmt: skip
        self.token = str(found)
        return self.token

    def select(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.tables)) as link:
            return link.execute(sql).fetchall()

    def notice(self, miaomu_id: int, flag: int) -> None:
        """What the site's action does first."""
        with closing(sqlite3.connect(self.tables)) as link, link:
            link.execute(
                "INSERT INTO task (flag, miaomu_id, status, createtime, content) "
                "VALUES (?, ?, 1, '2026-03-02 12:00:00', ?)",
                (flag, miaomu_id, CONTENT),
            )


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def configuration(tables: Path, api: str) -> str:
    """The document's, on SQLite and on the sandbox."""
    text = block("toml")
    assert text.count(URL) == 3
    token = next(line for line in text.splitlines() if line.startswith("token ="))
    text = text.replace(token, f'{token}\napi_base = "{api}"')
    text = text.replace(URL, f"sqlite:///{tables}").replace("rate = 50\n", "rate = 5000\n")
    return "[daemon]\nlog_file = 'fanoutd.log'\n" + text


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    d = Site(tmp_path, no_window=0.33)
    yield d
    d.close()


def untouched(site: Site) -> None:
    receivers = site.select("SELECT openid, expire_time, send_status, receive_status FROM tp_receiver ORDER BY id")
    assert receivers == list(rows())
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
    wait_for(lambda: site.select("SELECT DISTINCT status FROM task") == [(2,)], "the task table")
    assert site.select("SELECT flag, miaomu_id, content FROM task ORDER BY id") == [(k, 77, CONTENT) for k in range(3)]
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
    wait_for(lambda: site.select("SELECT status FROM task ORDER BY id") == [(2,), (1,)], "the task table")
    assert len(site.campaigns()) == 1
    untouched(site)


def test_the_old_bodies_arrive_as_they_were(site: Site) -> None:
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
