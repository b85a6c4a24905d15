"""What waits is handed in, tried again, delivered once: a clock of the test's, a real mail server, a real disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fanoutd.config.model import Mail
from fanoutd.mail import outgoing
from fanoutd.mail.event import Event
from fanoutd.mail.folding import pace
from fanoutd.mail.letter import Letterhead
from fanoutd.mail.outgoing import Outgoing
from fanoutd.mail.retry import pause
from fanoutd.mail.smtp import Patience
from fanoutd.mail.spool import MailSpool
from support.smtp import MailServer

DAY = 86_400.0
EVENT = Event("e-0", "", "campaign c-0 done: 5 of 5", "c-0 is done", "All have it.", None, 1_764_246_000_000)
ALERT = Event("a-0", "store", "ALERT: the store is away", "refused", "Nothing is sent.", None, 1_764_246_000_000)


class Rig:
    """Postmen one after another, on one spool. ``now`` is what their clock shows."""

    def __init__(self, folder: Path, server: MailServer) -> None:
        self.server, self.spool, self.now, self.wall = server, MailSpool(folder / "mail"), 1000.0, 0.0
        self.to = ["ops@example.com"]
        self.restart()

    def restart(self) -> None:
        """Another process, with the configuration as it is now."""
        mail = Mail(self.server.url(), "fanoutd@example.com", tuple(self.to))
        self.outgoing = Outgoing(
            self.spool, Letterhead("web1", mail), pace(60), Patience(), lambda: self.now, self._wall
        )
        self.outgoing.open()

    def _wall(self) -> float:
        return os.stat(self.spool.path).st_mtime + self.wall

    def put(self, *events: Event) -> None:
        for each in events:
            self.outgoing.put(each)

    def run(self, seconds: float) -> list[float]:
        """Rounds whenever one is wanted, for so long; when there was a connection, from the beginning on."""
        end, began, tries = self.now + seconds, self.now, []
        while True:
            before = self.outgoing._server.tries, self.server.connections
            wake = self.outgoing.round()
            if (self.outgoing._server.tries, self.server.connections) != before:
                tries.append(self.now - began)
            if wake > end:
                self.now = end
                return tries
            self.now = max(wake, self.now)

    def left(self) -> list[str]:
        return sorted(f"{folder}/{each}" for folder in ("new", "out", "tmp")
                      for each in os.listdir(self.spool.path / folder))  # fmt: skip

    def subjects(self) -> list[str]:
        return [each.subject.removeprefix("[fanoutd web1] ") for each in self.server.received]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with MailServer() as server:
        yield Rig(tmp_path, server)


def events(count: int, of: Event = EVENT) -> list[Event]:
    return [replace(of, id=f"{of.kind or 'e'}-{n}", subject=of.subject.replace("c-0", f"c-{n}")) for n in range(count)]


def test_a_server_that_is_down_is_tried_after_5_s_doubling_to_10_minutes_and_nothing_is_lost(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a thousand of them take their time
    rig.server.down()
    rig.put(*events(3), *events(1000, ALERT))
    tries = rig.run(3000)
    assert tries[:9] == [0, 5, 15, 35, 75, 155, 315, 635, 1235] and tries[9] == 1835
    assert [pause(n) for n in (1, 2, 8, 9, 100)] == [5, 10, 600, 600, 600]
    assert len(rig.outgoing) == 1003 and "Connection refused" in (rig.outgoing.last_error or "")
    rig.server.up()
    rig.run(600)
    assert sorted(rig.subjects()) == [
        "ALERT: the store is away (and 999 more)", *(f"campaign c-{n} done: 5 of 5" for n in range(3))]  # fmt: skip
    assert rig.left() == [] and len(rig.outgoing) == 0 and rig.outgoing.last_error is None
    assert rig.outgoing.last_sent is not None
    rig.put(*events(2), *events(1, ALERT))  # told again, by somebody who does not know that they were mailed
    rig.run(100)
    assert len(rig.subjects()) == 4


def test_what_waits_outlives_the_process_and_what_was_mailed_is_not_mailed_again(rig: Rig) -> None:
    rig.put(*events(2))
    rig.restart()
    rig.run(0)
    rig.restart()
    rig.run(100)
    assert sorted(rig.subjects()) == ["campaign c-0 done: 5 of 5", "campaign c-1 done: 5 of 5"]
    rig.spool.put(replace(EVENT, id="from-outside"))  # another process has put it there
    rig.run(31)
    assert len(rig.subjects()) == 3 and rig.left() == []


@pytest.mark.parametrize("answer", ["451 4.3.0 later", "554 5.7.1 not this one"])
def test_a_refused_mail_is_tried_again_and_holds_up_no_other(rig: Rig, answer: str) -> None:
    rig.server.faults.answers["DATA"] = [answer] * 3
    rig.put(EVENT)
    assert rig.run(6) == [0, 5]
    rig.put(replace(ALERT, at=ALERT.at + 1))
    rig.server.faults.answers["DATA"] = []
    rig.run(3)
    assert rig.subjects() == ["ALERT: the store is away"]  # the other one waits for its 10 s
    rig.put(*events(3, ALERT)[1:])
    rig.run(60)
    assert rig.subjects()[1:] == ["campaign c-0 done: 5 of 5", "ALERT: the store is away (and 1 more)"]
    assert rig.left() == []


def test_a_mail_that_the_server_may_have_comes_again_as_the_same_mail(rig: Rig) -> None:
    rig.server.faults.hang_up = "late"
    rig.put(*events(5, ALERT))
    rig.run(2)
    assert len(rig.server.received) == 1 and len(rig.outgoing) == 5
    rig.put(*events(8, ALERT)[5:], EVENT)  # of its kind: they wait until it is known; the other does not
    rig.server.faults.hang_up = None
    rig.run(0)
    assert rig.subjects()[1:] == ["campaign c-0 done: 5 of 5"]
    rig.restart()
    rig.run(0)
    first, _, second = rig.server.received
    assert first.message["Message-ID"] == second.message["Message-ID"] and first.subject == second.subject
    assert "5 events of one kind" in second.text
    rig.run(100)
    assert rig.subjects()[3:] == ["ALERT: the store is away (and 2 more)"] and rig.left() == []
    rig.server.faults.hang_up = "late"
    rig.put(replace(EVENT, id="e-9"))
    rig.run(0)
    rig.server.faults.hang_up = None
    rig.spool.drop(["e-9"])  # by hand
    rig.run(30)
    assert len(rig.server.received) == 5 and rig.left() == [] and len(rig.outgoing) == 0


@pytest.mark.parametrize("fault", ["early", "connect", "RCPT", "DATA"])
def test_a_server_that_hangs_up_or_falls_silent_gets_it_when_it_is_well(rig: Rig, fault: str) -> None:
    rig.server.faults.hang_up = "early" if fault == "early" else None
    rig.server.faults.silent = None if fault == "early" else fault
    rig.outgoing._patience = Patience(connect=5, answer=0.5, whole=20)
    rig.put(EVENT)
    rig.run(4)
    assert not rig.server.received and len(rig.outgoing) == 1
    rig.server.faults.hang_up = rig.server.faults.silent = None
    rig.outgoing._patience = Patience()
    rig.run(20)
    assert rig.subjects() == ["campaign c-0 done: 5 of 5"] and rig.left() == []


def test_who_was_refused_gets_it_later_and_the_others_only_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.to += ["gone@example.com"]
    rig.restart()
    rig.server.faults.refused = {"gone@example.com": "550 no such user"}
    rig.put(EVENT, replace(EVENT, id="e-1"))
    rig.run(20)
    assert [each.to for each in rig.server.received] == [["ops@example.com"]] * 2
    assert "some recipients were refused: gone@example.com: 550 no such user" in caplog.text
    assert len(rig.outgoing) == 2 and "550 no such user" in (rig.outgoing.last_error or "")
    rig.restart()
    rig.server.faults.refused = {}
    rig.run(0)
    assert [each.to for each in rig.server.received[2:]] == [["gone@example.com"]] * 2
    assert rig.left() == [] and rig.outgoing.last_error is None
    rig.server.faults.refused = {"gone@example.com": "550 no such user"}
    rig.put(replace(EVENT, id="e-2"))
    rig.run(0)
    rig.to = ["ops@example.com"]
    rig.restart()  # nobody is left who is to have it
    assert rig.left() == [] and len(rig.server.received) == 5


def test_a_new_configuration_is_tried_at_once_and_so_is_everything_after_a_test(rig: Rig) -> None:
    rig.server.down()
    rig.put(EVENT)
    rig.run(700)
    rig.server.up()
    rig.outgoing.nudged = True
    assert rig.run(0) == [0] and len(rig.subjects()) == 1
    rig.server.faults.answers["RCPT"] = ["550 relay denied"] * 9
    rig.put(replace(EVENT, id="e-1"))
    rig.run(700)
    rig.server.faults.answers["RCPT"] = []
    rig.to = ["b@example.com"]
    rig.restart()
    rig.run(0)
    assert rig.server.received[-1].to == ["b@example.com"]


def test_after_seven_days_it_is_given_up_with_an_error(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.server.faults.hang_up = "early"
    rig.put(ALERT)
    rig.run(10)
    rig.server.faults.hang_up = None
    rig.server.faults.answers["DATA"] = ["554 no"] * 99
    rig.put(EVENT)
    rig.run(60)
    rig.wall = 6.9 * DAY
    rig.run(60)
    assert len(rig.outgoing) == 2
    rig.wall = 7.1 * DAY
    rig.run(60)
    assert len(rig.outgoing) == 2  # the clock may have been set: we have tried for two minutes
    rig.run(3600)
    assert len(rig.outgoing) == 0 and rig.left() == []
    errors = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert len(errors) == 2 and all("not mailed within 7 days, and given up" in each for each in errors)
    assert "554 no" in errors[0] and "campaign c-0 done" in "".join(errors)


def test_a_clock_that_is_set_right_gives_nothing_up(rig: Rig) -> None:
    rig.put(ALERT, *events(1))
    rig.wall = 2000 * DAY
    rig.restart()
    rig.run(60)
    assert len(rig.subjects()) == 2 and rig.left() == []


def test_what_waits_while_the_server_is_away_for_days_has_bounds(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(outgoing, "_MOST", 150)
    rig.server.down()
    refused = replace(EVENT, kind="refused", text="x" * 60_000, line="12 submissions were refused")
    rig.put(*events(170, refused), *events(2, ALERT))
    new = rig.spool.path / "new"
    sizes = [(new / each).stat().st_size for each in os.listdir(new)]
    assert len(sizes) == len(rig.outgoing) == 152 and sum(size > 1000 for size in sizes) == 100
    assert caplog.text.count("150 mails wait, and this one is told only here: 12 submissions were refused") == 20
    rig.server.up()
    rig.run(100)
    assert rig.subjects() == ["ALERT: the store is away (and 1 more)", "campaign c-0 done: 5 of 5 (and 149 more)"]


def test_what_is_told_again_while_it_is_tried_for_one_recipient_is_not_sent_to_the_others(rig: Rig) -> None:
    rig.to = ["ops@example.com", "full@example.com"]
    rig.restart()
    rig.server.faults.refused = {"full@example.com": "452 mailbox full"}
    rig.put(EVENT)
    rig.run(0)
    rig.put(EVENT)  # by a dispatcher that does not know
    rig.run(200)
    assert [each.to for each in rig.server.received] == [["ops@example.com"]]
    rig.server.faults.refused = {}
    rig.run(700)
    assert [each.to for each in rig.server.received] == [["ops@example.com"], ["full@example.com"]]
    assert rig.left() == [] and len(rig.outgoing) == 0


def test_a_full_disk_keeps_no_alert_from_being_mailed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(MailSpool, "_write", full)
        rig.put(ALERT)
        rig.run(5)
    assert rig.subjects() == ["ALERT: the store is away"] and len(rig.outgoing) == 0
    assert "a-0 cannot be kept" in caplog.text and "No space left" in caplog.text


def test_a_spool_with_rubbish_in_it_is_read_all_the_same(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    for folder in ("new", "out"):
        (rig.spool.path / folder / "rubbish").write_bytes(b"{")
    rig.spool.put(EVENT)
    rig.restart()
    rig.run(0)
    assert rig.subjects() == ["campaign c-0 done: 5 of 5"] and rig.left() == []
    assert caplog.text.count("cannot be read, and is taken away") == 2
    rig.wall = 2 * DAY
    rig.now += 60
    rig.run(0)
    assert os.listdir(rig.spool.path / "sent") == []
