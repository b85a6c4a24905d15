"""What `fanoutd check` makes of what it sees, what it remembers and mails, and how it keeps that: without a daemon."""

from __future__ import annotations

import copy
import errno
import json
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fanoutd.checking import act, command, memory, place
from fanoutd.checking import look as looking
from fanoutd.checking.memory import Memory, Restart
from fanoutd.checking.verdict import (
    AGAIN,
    DEGRADED,
    DOWN,
    OK,
    SLOW,
    STARTING,
    UNKNOWN,
    Observed,
    Verdict,
    patience,
    verdict,
)
from fanoutd.mail.event import Event
from test_view import STATUS, WORKER

AT = 1_767_337_445_678 + 3_600_000
HOUR = 3_600_000


def told(**more: Any) -> dict[str, Any]:
    return {**copy.deepcopy(STATUS), **more}


def seen(**more: Any) -> Observed:
    known: dict[str, Any] = {"alive": True, "pid": 4710, "pidfile": True, "at_ms": AT, **more}
    if "status" in known:
        known = {"response_ms": 0.51, "pending": 1000, "started_ms": AT - HOUR, **known}
    return Observed(**known)


#: The dispatcher's part as the master stands in for it.
MUTE = told(
    state="degraded", promise=None, store={"kind": "sqlite", "ok": False, "latency_ms": None, "error": None},
    accounts=[], shards={"pending": None, "leased": None}, nodes=[],
)  # fmt: skip
BACKOFF = {**WORKER, "slot": 2, "state": "backoff", "pid": None, "rss_bytes": None}
TOKEN = {"ok": False, "expires_in": None, "source": "stable", "error": "40164: not in whitelist | 203.0.113.7\nrid"}

SERVING = seen(status=told())
DIED = seen(alive=False, silence="nobody listens")
STOPPED = seen(alive=False, pidfile=False, pid=None, silence="nobody listens")
SILENT = seen(silence="the daemon does not answer", waited=True)
SPEECHLESS = seen(status=MUTE)
#: It holds its lock, and does not listen any more.
ENDING = seen(silence="no daemon answers")


def test_the_figures_are_nagios_performance_data() -> None:
    line = verdict(SERVING).line()
    words, figures = line.split(" | ")
    assert words == "OK: 1 of 1 workers ready, generation 2, version 0.1.0"
    assert dict(each.split("=") for each in figures.split()) == {
        "uptime": "3600s", "response": "0.51ms", "workers_ready": "1", "workers_wanted": "1", "restarts": "3c",
        "sent": "12345c", "failed": "6c", "rate": "99.6", "pending": "1000", "shards": "4", "spool_files": "3",
        "spool_age": "1.5s", "store_latency": "0.2ms", "token_main_expires": "7000s", "memory": "41943040B",
    }  # fmt: skip


def test_labels_and_words_cannot_break_the_line() -> None:
    status = told(
        accounts=[{**STATUS["accounts"][0], "name": "my shop='1'"}], reload={"error": "a | b\nc\x1b[1m\u2028d"}
    )
    found = verdict(seen(status=status))
    assert "'token_my shop__1__expires'=7000s" in found.figures
    assert found.line().split(" | ")[0] == (
        "DEGRADED: the last reload was refused: a / b c [1m d; see `fanoutd status` and the log"
    )


@pytest.mark.parametrize(
    ("look", "code", "words"),
    [
        (Observed(error="f.toml: cannot be read"), UNKNOWN, "f.toml: cannot be read"),
        (seen(denied=True, silence="f.sock: you may not use this socket"), UNKNOWN, "you may not use this socket"),
        (STOPPED, DOWN, "no daemon runs: it was stopped, or never started"),
        (DIED, DOWN, "the daemon died: pid 4710 has left its pidfile"),
        (SILENT, DOWN, "pid 4710 lives, but the daemon does not answer"),
        (replace(SILENT, frozen=True), DOWN, "stopped by a signal and does not answer; `kill -CONT 4710`"),
        (replace(SILENT, alive=None), DOWN, "pid 4710 does not answer"),
        (replace(STOPPED, waited=True, silence="it is mute"), DOWN, "the daemon does not answer: it is mute"),
        (SERVING, OK, "1 of 1 workers ready"),
        (seen(status=told(conditions=[{"name": "disk", "account": None, "state": "ok", "words": None}])), OK, "1 of 1"),
        (seen(status=told(conditions=[
            {"name": "token", "account": "main", "state": "broken", "since": "", "words": "40164"},
            {"name": "clock", "account": None, "state": "unknown", "since": "", "words": None}])), DEGRADED,
         "token:main: 40164; see"),
        (SPEECHLESS, DEGRADED, "the dispatcher does not answer: nothing is planned, recorded or mailed"),
        (seen(status=told(state="starting")), DEGRADED, "it is starting"),
        (seen(status=told(store={"kind": "mysql", "ok": False, "latency_ms": None, "error": "2003 refused"})), DEGRADED,
         "store: 2003 refused"),
        (seen(status=told(reload={"error": "line 3"})), DEGRADED, "the last reload was refused: line 3"),
        (seen(status=told(state="degraded", workers=[WORKER, BACKOFF])), DEGRADED, "1 of 2 workers are ready"),
        (seen(status=told(workers=[BACKOFF])), DEGRADED, "none of 1 workers is ready"),
        (seen(status=told(accounts=[{**STATUS["accounts"][0], "token": TOKEN}])), DEGRADED, "token of main: 40164"),
        (seen(status=told(accounts=[{**STATUS["accounts"][0], "token": {**TOKEN, "error": None}}])), OK, "1 of 1"),
        (seen(status=told(workers=[WORKER, {**WORKER, "state": "draining", "generation": 1}])), OK, "1 of 1 workers"),
    ],
)  # fmt: skip
def test_what_is_seen_has_one_meaning(look: Observed, code: int, words: str) -> None:
    found = verdict(look)
    assert (found.code, found.line().splitlines()) == (code, [found.line()])
    assert words in found.words
    assert len(found.words) < 600


@pytest.mark.parametrize(
    ("look", "fresh", "supervised", "seconds"),
    [
        (SERVING, True, True, 0),
        (STOPPED, False, False, 0), (STOPPED, True, False, AGAIN),  # it may be a restart
        (DIED, True, False, 0), (DIED, True, True, AGAIN), (DIED, False, True, 0),
        (SILENT, True, True, 0),  # it was given all its time
        (seen(silence="refused"), False, False, STARTING),  # the lock is held, the socket is not there yet
        (seen(status=told(state="starting")), False, False, STARTING),
        (seen(status=told(state="stopping")), False, False, STARTING),
        (SPEECHLESS, False, False, SLOW),
        (seen(denied=True), True, True, 0),
    ],
)  # fmt: skip
def test_what_may_pass_by_itself_is_waited_for(look: Observed, fresh: bool, supervised: bool, seconds: float) -> None:
    assert patience(look, fresh, supervised) == seconds


class Clock:
    """Time that passes only while somebody sleeps."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("story", "graceful", "code", "seconds"),
    [
        ([(0, ENDING), (28, STOPPED), (31, SERVING)], 30, OK, 31),  # `restart`, and work in hand
        ([(0, ENDING), (28, STOPPED)], 30, DOWN, 28 + AGAIN),
        ([(0, ENDING)], 30, DOWN, 35),
        ([(0, ENDING)], 600, DOWN, 45),  # whoever asks does not wait for ever
        ([(0, ENDING), (9, SERVING)], 5, OK, 9),
        ([(at, (ENDING, STOPPED)[at % 2]) for at in range(90)], 30, DOWN, 50),
    ],
)  # fmt: skip
def test_one_that_stops_is_given_its_graceful_timeout(
    story: list[tuple[float, Observed]], graceful: float, code: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(looking, "time", clock)
    monkeypatch.setattr(looking, "supervised", lambda: False)
    monkeypatch.setattr(looking, "glance", lambda *_: [each for at, each in story if at <= clock.now + 0.001][-1])
    daemon: Any = None
    assert verdict(looking.look(daemon, 10, True, graceful)).code == code
    assert clock.now == pytest.approx(seconds, abs=0.3)


# ---- what is remembered, and mailed


def course(
    *looks: Observed | tuple[Observed, Restart], mailing: bool = True, minutes: int = 1, down_only: bool = False
) -> list[str]:
    """The subjects of the mails, look by look, with a minute between two."""
    known, subjects = Memory(), []
    for number, each in enumerate(looks):
        look, restart = each if isinstance(each, tuple) else (each, None)
        look = replace(look, at_ms=AT + number * minutes * 60_000)
        if restart:
            known = memory.begun(known, look)
        known = memory.step(known, look, verdict(look), mailing, restart, down_only)
        assert known == memory.decode(known.encode())
        subjects += [event.subject for event in known.waiting]
        for event in known.waiting:
            known = memory.sent(known, event)
        assert not known.waiting
    return subjects


RESTARTED = Restart("service fanoutd start", 0, "fanoutd is started")
IN_VAIN = Restart("service fanoutd start", 1, "starting\nno disk")
POORLY = seen(status=told(reload={"error": "x"}))
DIED_ALERT, BACK = "ALERT: the daemon is down", "all clear: the daemon serves again, after "


@pytest.mark.parametrize(
    ("looks", "subjects"),
    [
        ((SERVING, SERVING), []),
        ((SERVING, DIED, DIED, SERVING, SERVING), [DIED_ALERT, BACK + "2 min"]),
        ((DIED, SERVING), [DIED_ALERT, BACK + "1 min"]),
        ((STOPPED, STOPPED, SERVING), []),  # was never started
        ((SERVING, STOPPED, STOPPED, SERVING), ["ALERT: the daemon was stopped", BACK + "2 min"]),
        ((SERVING, STOPPED, DIED, SERVING), ["ALERT: the daemon was stopped", DIED_ALERT, BACK + "1 min"]),
        ((SERVING, DIED, STOPPED, SERVING), [DIED_ALERT, BACK + "2 min"]),
        ((SERVING, SILENT, seen(denied=True), SILENT, SERVING), [DIED_ALERT, BACK + "3 min"]),
        ((SERVING, POORLY, POORLY, SERVING),
         ["ALERT: the daemon is degraded: the last reload was refused: x; see `fanoutd status` and the log",
          "all clear: the daemon is healthy again, after 2 min"]),
        ((POORLY, DIED, POORLY),
         ["ALERT: the daemon is degraded: the last reload was refused: x; see `fanoutd status` and the log",
          DIED_ALERT, BACK + "1 min",
          "ALERT: the daemon is degraded: the last reload was refused: x; see `fanoutd status` and the log"]),
        ((SERVING, SPEECHLESS, SPEECHLESS, SERVING),
         ["ALERT: the daemon cannot tell of its trouble itself",
          "all clear: the daemon can tell of its trouble itself again, after 2 min"]),
        ((SPEECHLESS, DIED, SPEECHLESS, SERVING),
         ["ALERT: the daemon cannot tell of its trouble itself", DIED_ALERT, BACK + "1 min",
          "ALERT: the daemon cannot tell of its trouble itself",
          "all clear: the daemon can tell of its trouble itself again, after 1 min"]),
    ],
)  # fmt: skip
def test_a_change_is_mailed_once(looks: tuple[Observed, ...], subjects: list[str]) -> None:
    assert course(*looks) == subjects


def test_down_only_leaves_to_the_daemon_what_it_can_mail_itself() -> None:
    assert course(SERVING, POORLY, POORLY, SERVING, down_only=True) == []
    assert course(POORLY, DIED, POORLY, SERVING, down_only=True) == [DIED_ALERT, BACK + "1 min"]
    assert course(SERVING, SPEECHLESS, down_only=True) == ["ALERT: the daemon cannot tell of its trouble itself"]


def test_one_that_is_started_again_and_serves_poorly_is_told_of_all_the_same() -> None:
    told_of = ["ALERT: the daemon was down, restarted", BACK + "0 s"]
    assert course((POORLY, RESTARTED), mailing=False) == told_of
    assert course((POORLY, RESTARTED), down_only=True) == told_of
    assert course((POORLY, RESTARTED))[:2] == told_of and course((SPEECHLESS, RESTARTED))[:2] == told_of


def test_a_restart_is_mailed_whatever_else_is_and_its_all_clear() -> None:
    restarted = "ALERT: the daemon was down, restarted"
    assert course((SERVING, RESTARTED), SERVING, mailing=False) == [restarted, BACK + "0 s"]
    failed = "ALERT: the daemon is down and could not be started: no disk"
    assert course(SERVING, (DIED, IN_VAIN), (DIED, IN_VAIN), (SERVING, RESTARTED), mailing=False) == [
        failed, BACK + "2 min"
    ]  # fmt: skip
    assert course(SERVING, (DIED, IN_VAIN), SERVING, mailing=False) == [failed, BACK + "1 min"]
    assert course(SERVING, DIED, SERVING, STOPPED, mailing=False) == []


def test_a_check_that_was_killed_while_it_started_the_daemon_leaves_the_alert_to_the_next() -> None:
    known = memory.begun(Memory("OK", "n1"), DIED)
    later = replace(SERVING, at_ms=AT + 60_000)
    known = memory.step(known, later, verdict(later), False)
    assert [each.subject for each in known.waiting] == ["ALERT: the daemon was down", BACK + "1 min"]


def test_reminders_come_at_growing_intervals_and_none_of_what_was_stopped() -> None:
    day = course(SERVING, *[DIED] * (24 * 4), minutes=15)
    still = "ALERT: the daemon is still down, for "
    assert day == [DIED_ALERT, still + "1 h", still + "3 h", still + "7 h", still + "15 h"]
    assert course(SERVING, *[STOPPED] * (24 * 4), minutes=15) == ["ALERT: the daemon was stopped"]


def test_what_a_mail_says() -> None:
    known = memory.step(memory.begun(Memory("OK"), DIED), DIED, verdict(DIED), False, IN_VAIN)
    [event] = known.waiting
    assert "Found by `fanoutd check`: DOWN: the daemon died: pid 4710" in event.text
    assert "Run: service fanoutd start\nIt ended with 1, and said:\nstarting\nno disk" in event.text
    assert "nobody gets it twice" in event.text
    assert "To do: " in event.text


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"v":1}', b'{"state":1,"node":2,"trouble":[],"waiting":[1]}'])
def test_a_memory_that_cannot_be_read_is_none(data: bytes) -> None:
    assert memory.decode(data) == Memory()


# ---- mails that cannot be sent, commands, files


def test_what_cannot_be_sent_waits_and_without_mail_nothing_does(tmp_path: Path) -> None:
    kept = place.of(tmp_path)
    known = memory.step(Memory("OK"), DIED, verdict(DIED), True)
    known = memory.step(known, SERVING, verdict(SERVING), True)
    away = [True]
    went: list[tuple[str, str | None]] = []

    def post(event: Event, node: str | None) -> None:
        if away[0]:
            raise act.FanoutdError("not mailed:\nno answer")
        went.append((event.subject, node))

    found = Verdict(OK, "well")
    done = act._tell(kept, known, post, found, news=True)
    assert done.warnings == ("2 mails wait for the next check: not mailed: no answer",)
    away[0] = False
    assert act._tell(kept, known, post, found, news=False).warnings == ()
    assert went == [("ALERT: the daemon is down", "n1"), (BACK + "0 s", "n1")]
    assert memory.decode(kept.read("check.json")).waiting == ()
    assert act._tell(kept, known, None, found, news=True).warnings == (
        "nothing is mailed: there is no [mail] in the configuration",
    )


def test_on_a_full_disk_it_is_started_and_mailed_once_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state_dir, temporary = tmp_path / "state", tmp_path / "tmp"
    for each in (state_dir, temporary):
        each.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    fsync, full, went = os.fsync, [state_dir], list[str]()

    def no_room(fd: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{fd}")).parent in full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(fd)

    def post(event: Event, _: str | None) -> None:
        went.append(event.subject)

    def once(then: Observed) -> act.Done:
        monkeypatch.setattr(act, "look", lambda *_, **__: DIED)
        monkeypatch.setattr(act, "glance", lambda *_: then)
        daemon: Any = SimpleNamespace(state_dir=state_dir)
        return act.check(daemon, act.Wish(False, ("true",), 1), post)

    monkeypatch.setattr(os, "fsync", no_room)
    hopeless = replace(DIED, waited=True)
    assert [once(hopeless).verdict.code for _ in range(3)] == [DOWN] * 3
    assert (len(went), sorted(os.listdir(state_dir))) == (1, ["check.lock"])
    full.append(next(temporary.iterdir()))
    assert "nothing is mailed, since it cannot be remembered" in str(once(SERVING).warnings)
    assert len(went) == 1
    full.clear()
    assert once(SERVING).verdict.code == OK  # what it remembered aside is told, and is in its place again
    assert went[1:] == [BACK + "0 s"]
    assert memory.decode((state_dir / "check.json").read_bytes()).state == "OK"
    assert [sorted(os.listdir(each)) for each in temporary.iterdir()] == [[]]


def test_a_command_is_run_without_a_shell_and_not_for_ever(tmp_path: Path) -> None:
    argv = command.words("""printf '%s\\n' "a  b" '$HOME;' `x""")
    assert command.run(argv, lambda: False) == Restart("printf '%s\\n' 'a  b' '$HOME;' '`x'", 0, "a  b\n$HOME;\n`x")
    gone = command.run(("/no/such", "x"), lambda: False)
    assert gone == Restart("/no/such x", 127, "/no/such: No such file or directory")
    script = "for i in range(9999): print('\\33[1m', i)\nraise SystemExit(3)"
    long = command.run((sys.executable, "-c", script), lambda: False)
    assert (long.code, long.said.splitlines()[-1], len(long.said.splitlines())) == (3, "[1m 9998", 10)
    began = time.monotonic()
    done = command.run(("sh", "-c", "sleep 60 & wait"), lambda: False, patience=0.5)
    assert (done.code, time.monotonic() - began < 20) == (None, True)
    pid = tmp_path / "pid"
    stays = f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 60"
    assert command.run(("sh", "-c", stays), pid.exists, patience=60).code is None
    os.kill(int(pid.read_text()), 9)  # it was left alone: it is the daemon itself
    for text in ("", "   ", "'"):
        with pytest.raises(ValueError, match="--restart"):
            command.words(text)


def test_no_link_is_followed_and_one_acts_at_a_time(tmp_path: Path) -> None:
    folder, victim = tmp_path / "state", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("precious")
    kept = place.of(folder)
    for name in ("check.json", "check.lock", f"check.json.{os.getpid()}"):
        (folder / name).symlink_to(victim)
    with pytest.raises(OSError):
        kept.read("check.json")
    kept.write("check.json", b"{}")
    assert (kept.read("check.json"), victim.read_text()) == (b"{}", "precious")
    with pytest.raises(OSError), kept.locked("check.lock", 0):
        pass
    (folder / "check.lock").unlink()
    with kept.locked("check.lock", 0) as first, kept.locked("check.lock", 0.2) as second:
        assert (first, second) == (True, False)
        came = []

        def wait() -> None:
            with kept.locked("check.lock", 20) as third:
                came.append(third)

        thread = threading.Thread(target=wait)
        thread.start()
    thread.join(20)
    assert came == [True]


def test_who_may_not_write_the_state_directory_has_a_folder_of_his_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place.tempfile, "gettempdir", lambda: str(tmp_path))
    first, second = place.of(Path("/no/such/state")), place.of(Path("/no/other/state"))
    assert first.folder != second.folder
    assert first.folder.stat().st_mode & 0o777 == 0o700
    first.write("check.json", json.dumps({}).encode())
    first.folder.chmod(0o777)
    with pytest.raises(act.FanoutdError, match="somebody else"):
        place.of(Path("/no/such/state"))
