"""A whole daemon and a real mail server: each campaign is told of once, whoever is killed and whoever is down."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.bench import wait_for
from support.daemon import Daemon, follower
from support.smtp import MailServer, Received

OPENID = re.compile(r"oFOLLOW\d+")


class Mailing(Daemon):
    def __init__(self, folder: Path, server: MailServer) -> None:
        self.ACCOUNT = f"max_failures = 1\n{server.table()}"
        super().__init__(folder, 0, workers=2, concurrency=8)

    def submit(self, people: range, **more: object) -> str:
        openids = [follower(i) for i in people]
        campaign: str = self.call("campaign.submit", content="今天开饭", phone="1", openids=openids, **more)["campaign"]
        return campaign

    def kill_dispatcher(self) -> None:
        old = self.dispatcher()
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: self.dispatcher() != old, "another dispatcher")

    def outbox(self) -> list[str]:
        with closing(sqlite3.connect(self.folder / "state" / "fanoutd.db", timeout=10)) as link:
            return [row[0] for row in link.execute("SELECT name FROM fanout_outbox")]


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as made:
        yield made


@pytest.fixture
def daemon(tmp_path: Path, server: MailServer) -> Iterator[Mailing]:
    server.down()
    made = Mailing(tmp_path, server)
    yield made
    made.close()


def words(mail: Received) -> str:
    """What stands before the campaign's id, and after."""
    return mail.subject.partition("] ")[2]


def test_each_campaign_is_told_of_once(daemon: Mailing, server: MailServer, tmp_path: Path) -> None:
    d = daemon
    d.sandbox.script(follower(3), 43004)
    d.sandbox.script(follower(20), "drop_after")
    for i in range(100, 160):
        d.sandbox.script(follower(i), 45015)
        d.sandbox.script(follower(i), 47003, channel="template")
    done = d.submit(range(10), reference="春节<b>花")
    unknown = d.submit(range(20, 30))
    paused = d.submit(range(100, 160))
    ordered = d.submit(range(10), send_at="2099-01-01T00:00:00+08:00")
    d.call("campaign.submit", content="x", phone="1", test=follower(77))
    d.until(done), d.until(unknown), d.until(paused, "paused")
    d.kill_dispatcher()  # whatever it has told of by now: the outbox or the spool has it
    d.call("campaign.pause", campaign=ordered)
    d.call("campaign.cancel", campaign=ordered)
    wait_for(lambda: "campaign_mail" not in d.outbox(), "an outbox that is worked off")
    d.kill_dispatcher()
    server.up()
    for _ in range(1000):
        d.hang_up('{"content": "x", "message": "nonsense"}')
    server.wait_for(lambda mails: len({words(each) for each in mails}) >= 5)

    d.cli("campaign", "resolve", unknown, "--sent")
    d.sandbox.script(follower(40), 40164, 0)
    token = d.submit(range(40, 45))
    d.until(token, "paused")
    server.wait_for(lambda mails: any(f"{token} paused" in each.subject for each in mails))
    d.call("token.refresh", force=True)
    d.until(token)
    mails = server.wait_for(lambda mails: any(f"{token} done" in each.subject for each in mails)
                            and any("corrected" in each.subject for each in mails))  # fmt: skip
    by_words = {words(each): each for each in mails}
    assert len(by_words) == len(mails), [each.subject for each in mails]
    refused = next(each for each in mails if re.match(r"(a|[\d,]+) submissions? w", words(each)))
    reason = d.call("campaign.get", campaign=paused)["reason"]
    expected = [
        f"campaign {done} done: 9 of 10 sent, 1 failed", f"campaign {unknown} unknown: 1 of 10 waits for a decision",
        f"campaign {unknown} done: corrected, 10 of 10 sent",
        f"campaign {ordered} cancelled: 0 of 0 sent", f"campaign {token} done: 5 of 5 sent", words(refused),
    ]  # fmt: skip
    assert {each for each in by_words if " paused: " not in each} == set(expected)
    stopped = {each.split()[1]: each for each in by_words if " paused: " in each}
    assert stopped.keys() == {paused, token} and reason.startswith("message refused: ")
    assert "message refused: " in stopped[paused] and "40164" in stopped[token]

    report = by_words[expected[0]]
    for body in (report.text, report.html):
        for word in ("9 of 10 people were sent to, 1 failed.", "43004", "does not follow the account", "90.0 %",
                     "今天开饭", "10.0 %", f"fanoutd campaign retry {done} --failed"):  # fmt: skip
            assert word in body, word
    assert "春节<b>花" in report.text and "春节&lt;b&gt;花" in report.html
    assert f"(uid {os.getuid()}) on node" in report.text
    assert f"fanoutd campaign resolve {unknown} --sent" in by_words[expected[1]].text
    assert "in which 1 were unknown; now 0 are" in by_words[expected[2]].text
    lines = re.findall(r"^  [\d:]{8}  ([\d,]+|a) submissions? w", refused.text, re.MULTILINE)  # some events folded
    told = lines or re.findall(r"\A([\d,]+) submissions were", refused.text)
    assert sum(1 if each == "a" else int(each.replace(",", "")) for each in told) == 1000
    assert "nonsense" in refused.text
    assert f"uid {os.getuid()} (" in refused.text and "NOT accepted" in refused.text
    for mail in mails:
        assert not OPENID.search(mail.text + mail.html + mail.subject) and "a-secret-of" not in str(mail.message)

    shown = d.cli("campaign", "report", done)
    assert shown.returncode == 0 and "9 of 10 people were sent to, 1 failed." in shown.stdout
    file = tmp_path / "report.html"
    assert d.cli("campaign", "report", done, "--html", str(file)).returncode == 0
    page = file.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and "春节&lt;b&gt;花" in page and not OPENID.search(page)
    assert d.cli("campaign", "report", done, "--html", "-").stdout == page
    given = json.loads(d.cli("campaign", "report", done, "--json").stdout)
    assert given["campaign"] == d.call("campaign.get", campaign=done)
    assert sum(given["timeline"]["sent"]) == 9 and given["errors"][0]["errcode"] == "43004"
    assert d.cli("campaign", "report", "c-none").returncode == 65
    bad = d.cli("campaign", "report", done, "--html", str(tmp_path / "none" / "x"))
    assert bad.returncode == 1 and "No such file or directory; name a file" in bad.stderr
