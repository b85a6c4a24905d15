"""``fanoutd top``: what it shows of any daemon in any terminal, and that it gives the terminal back."""

from __future__ import annotations

import codecs
import copy
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from fanoutd.view import top
from fanoutd.view.top import Seen
from support.daemon import Daemon

NOW = 1_767_340_000_000  # 2026-01-02 15:46:40 in Shanghai

CAMPAIGN: dict[str, Any] = {
    "id": "c-06h1qdhjc9d3960j", "account": "main", "message": "supply", "audience": "default", "reference": None,
    "key": None, "state": "running", "reason": None, "created_at": "2026-01-02T15:04:05.678+08:00", "send_at": None,
    "started_at": "2026-01-02T15:04:06.000+08:00", "finished_at": None, "total": 20_000,
    "counts": {"pending": 5000, "sent_custom": 14_000, "sent_template": 990, "failed": 7, "skipped": 2, "unknown": 1},
    "errors": {"43004": 7}, "rate": 123.4, "eta_seconds": 65,
}  # fmt: skip

DISPATCHER: dict[str, Any] = {
    "slot": 0, "pid": 4711, "role": "dispatcher", "generation": 2, "state": "idle", "campaign": None, "sent": 0,
    "failed": 0, "rate": 0.0, "rss_bytes": 50 << 20, "cpu_percent": 0.4, "restarts": 0, "heartbeat_age": 0.2,
}  # fmt: skip

EMPTY: dict[str, Any] = {
    "version": "0.1.0", "node": "n1", "pid": 4710, "started_at": "2026-01-02T13:36:40.000+08:00", "generation": 2,
    "state": "running", "promise": "exact", "store": {"kind": "sqlite", "ok": True, "latency_ms": 0.2, "error": None},
    "accounts": [{"name": "main", "token": {"ok": True, "expires_in": 7000, "source": "stable", "error": None},
                  "rate": 100.0, "quota": {"custom": {"limit": 500_000, "used": 1, "left": 499_999}}}],
    "spool": {"files": 0, "oldest_seconds": None}, "shards": {"pending": 0, "leased": 0}, "conditions": [],
    "mail": {"waiting": 2, "last_error": None, "last_sent": None},
    "jobs": [{"name": "token_check", "next": "2026-01-02T15:46:45.600+08:00", "last": None, "result": None},
             {"name": "digest", "next": None, "last": None, "result": "no\nanswer"}],
    "workers": [DISPATCHER], "nodes": [{"node": "n1", "heartbeat_age": 0.1, "leads": True}],
    "reload": {"count": 0, "stage": "none", "error": None}, "upgrade": {"count": 0, "stage": "none", "error": None},
}  # fmt: skip


def status(**more: Any) -> dict[str, Any]:
    return {**copy.deepcopy(EMPTY), **more}


def campaign(**more: Any) -> dict[str, Any]:
    return {**copy.deepcopy(CAMPAIGN), **more}


def crew(count: int, **more: Any) -> list[dict[str, Any]]:
    workers = [{**DISPATCHER, "role": "worker", "slot": n, "pid": 5000 + n, "state": "busy", "sent": 1234, "failed": 1,
                "rate": 2.5, "campaign": CAMPAIGN["id"]} for n in range(1, count + 1)]  # fmt: skip
    workers[-1] |= more
    return [DISPATCHER, *workers]


def shown(seen: Seen, width: int = 80, height: int | None = 24, live: bool = True) -> list[str]:
    return [line.plain.rstrip() for line in top.frame(seen, NOW, width, height, live)]


def styles(seen: Seen, words: str) -> str:
    line = next(line for line in top.frame(seen, NOW, 80, 24) if words in line.plain)
    return " ".join([str(line.style), *(str(span.style) for span in line.spans)])


# ---- the picture


def test_a_daemon_without_work_has_everything_on_80_by_24() -> None:
    lines = shown(Seen(status()))
    assert lines[0] == "fanoutd 0.1.0  running  up 2 h 10 min  generation 2  promise exact  node n1"
    assert lines[1].startswith("0/s now   0 people waiting   0 sent   0 failed by these workers")
    assert lines[1].endswith("q leaves") and len(lines[1]) == 80
    text = "\n".join(lines)
    for words in ("account  main, 100 calls a second, token good for 1 h 56 min",
                  "quota    main, calls today: custom 1 of 500,000",
                  "store    sqlite, 0.2 ms", "mail     2 events wait, last sent never", "spool    0 waiting",
                  "shards   0 waiting, 0 being sent", "jobs     digest: no answer; token_check in 5.6 s",
                  "no campaign runs, none is paused"):  # fmt: skip
        assert words in text
    row = next(line for line in lines if line.startswith("dispatcher"))
    assert row.split() == ["dispatcher", "4711", "idle", "0", "0", "0/s", "50M", "0%", "0", "0s", "-"]
    assert "None" not in text and "q leaves" not in "\n".join(shown(Seen(status()), live=False))


def test_sixty_workers_are_counted_where_they_find_no_room_and_who_is_in_trouble_is_seen() -> None:
    seen = Seen(status(workers=crew(60, state="backoff", pid=None, restarts=7, campaign=None)), [campaign()])
    lines = shown(seen)
    assert len(lines) == 24 and lines[1].startswith("150/s now   5,000 people waiting   74,040 sent   60 failed")
    heads = next(at for at, line in enumerate(lines) if line.startswith("process"))
    assert lines[heads + 1].split()[:3] == ["worker", "60", "-"] and "backoff" in lines[heads + 1]
    assert [line.split()[0] for line in lines[heads + 2:heads + 4]] == ["dispatcher", "worker"]
    rest = re.fullmatch(r"… and (\d+) more: (\d+) busy", lines[-1])
    assert rest and int(rest[1]) == int(rest[2]) == 61 - (len(lines) - heads - 2)
    assert len(shown(seen, height=200)) > 65 and "… and" not in "\n".join(shown(seen, height=None))


def test_campaigns_have_bars_a_rest_in_words_and_what_they_wait_for_in_any_script() -> None:
    waiting = campaign(
        id="c-06h1qdhjdl9t8f2g", state="paused", rate=None, eta_seconds=None, total=None,
        counts=dict.fromkeys(CAMPAIGN["counts"]), reference="十二月\x1b[2J通知\n停水", reason="paused by an operator",
    )  # fmt: skip
    seen = Seen(status(), [waiting, campaign()])
    lines = shown(seen)
    at = next(at for at, line in enumerate(lines) if line.startswith("campaign"))
    assert lines[at + 1].split() == ["c-06h1qdhjc9d3960j", "running", "━━━━━━──", "75", "%", "15,000", "of", "20,000",
                                     "123/s", "1", "min", "05", "s"]  # fmt: skip
    assert lines[at + 3] == "  十二月 [2J通知 停水; paused by an operator"
    assert "━" not in "\n".join(shown(seen, live=False)) and "75 %" in "\n".join(shown(seen, live=False))
    nearly = campaign(counts={**CAMPAIGN["counts"], "pending": 1}, total=20_000)
    assert "99 %" in "\n".join(shown(Seen(status(), [nearly])))
    many = shown(Seen(status(workers=crew(4)), [campaign() for _ in range(9)] + [waiting] * 3, more=True))
    rest = next(line for line in many if line.endswith("and others"))
    assert re.fullmatch(r"… and \d+ more: \d running, 3 paused, and others", rest) and len(many) == 24
    assert "45,000+ people waiting" in many[1]


def test_what_is_broken_is_red_and_on_top_and_whole() -> None:
    words = "account main: WeChat's API cannot be reached: " + "https://api.example.com " * 3 + "timed out"
    broken = {"name": "api", "account": "main", "state": "broken", "since": "2026-01-02T15:00:00+08:00", "words": words}
    fine = {"name": "disk", "account": None, "state": "ok", "since": "2026-01-02T15:00:00+08:00", "words": None}
    refused = {"count": 1, "stage": "refused", "error": "fanoutd.toml: [daemon] log_file: no"}
    seen = Seen(status(state="degraded", conditions=[broken, fine], reload=refused, promise="the disk lies"))
    lines = shown(seen)
    assert " ".join(lines[1:3]).startswith(words) and "(since 2026-01-02 " in " ".join(lines[1:3])
    assert lines[3:5] == ["the last reload was refused: fanoutd.toml: [daemon] log_file: no", "promise: the disk lies"]
    assert "red" in styles(seen, "cannot be reached") and "promise not exact" in lines[0]
    endless = shown(Seen(status(conditions=[{**broken, "words": "wort " * 200}] * 30, workers=crew(60))))
    assert len(endless) == 24 and endless[2].endswith("…") and any("process" in line for line in endless)
    assert any(re.fullmatch(r"… and 2\d more", line) for line in endless)


def test_without_the_store_or_the_daemon_there_is_what_was_seen_last() -> None:
    error = "cannot connect to db.example.com"
    away = status(state="degraded", store={"kind": "mysql", "ok": False, "latency_ms": None, "error": error},
                  accounts=[], nodes=[], promise=None, shards={"pending": None, "leased": None}, mail=None)  # fmt: skip
    seen = Seen(away, [campaign()], older="the store does not answer")
    text = "\n".join(shown(seen))
    assert "degraded" in text and f"mysql, {error}" in text and "75 %" in text and "None" not in text
    assert "campaigns  as they were: the store does not answer" in text and "red" in styles(seen, error)
    gone = Seen(status(), [campaign()], away="no daemon answers on /run/fanoutd.sock", away_ms=NOW - 65_000)
    lines = shown(gone)
    assert re.fullmatch(r"not reachable since \d\d:\d\d:\d\d \(1 min 05 s\): no daemon answers on /run/.*", lines[1])
    assert lines[0].startswith("fanoutd 0.1.0  away  generation 2") and "red" in styles(gone, "not reachable")
    assert "dim" in styles(gone, "store ") and "75 %" in "\n".join(lines)


@pytest.mark.parametrize("width", [1, 10, 33, 60, 79, 80, 120, 250])
def test_no_line_is_too_long_and_none_too_many(width: int) -> None:
    long = campaign(id="k-" + "x" * 24, reference="断" * 200, reason="w " * 200, total=12_000_000)
    accounts = [{**EMPTY["accounts"][0], "name": f"a{n}"} for n in range(20)]
    nodes = [{"node": f"n{n}", "heartbeat_age": 1.0, "leads": False} for n in range(9)]
    busy = status(workers=crew(60), accounts=accounts, nodes=nodes, node="n" * 90)
    for seen in Seen(busy, [long] * 9, away="x" * 300), Seen(status(), [long]), Seen(status(workers=[], jobs=[])):
        for height in range(1, 40):
            lines = top.frame(seen, NOW, width, height, True)
            assert len(lines) <= height and max(cell_len(line.plain) for line in lines) <= width
            assert not any("\n" in line.plain for line in lines)
        assert len(top.frame(seen, NOW, width, 24)) >= 10


def holes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(each, dict | list):
            yield from holes(each, (*path, key))
        else:
            yield (*path, key)


@pytest.mark.parametrize("path", [*holes(EMPTY), ("reload",), ("mail",)], ids=str)
def test_what_is_not_known_is_left_open(path: tuple[Any, ...]) -> None:
    holed = status()
    place: Any = holed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = None
    assert "None" not in "\n".join(shown(Seen(holed)))


# ---- the terminal


class Terminal:
    """One that `fanoutd top` runs in, which is its controlling terminal."""

    def __init__(self, d: Daemon, *arguments: str) -> None:
        self._ours, self._theirs = os.openpty()
        self.resize(24, 80)
        self.modes = termios.tcgetattr(self._theirs)
        environ = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            ["setsid", "-c", sys.executable, "-m", "fanoutd", "-c", str(d.config), "top", *arguments],
            stdin=self._theirs, stdout=self._theirs, stderr=self._theirs, env={**environ, "TERM": "xterm-256color"},
        )  # fmt: skip
        self.said = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # Ctrl-Z and Ctrl-C drop what was not read

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def frame(self) -> list[str]:
        """The last one that is complete, line by line."""
        frames = self.said.split("\x1b[H")
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frames[-2]).split("\r\n") if len(frames) > 2 else []

    def until(self, test: Callable[[list[str]], Any], what: str, seconds: float = 20) -> list[str]:
        end = time.monotonic() + seconds
        while not (self.frame() and test(self.frame())):
            assert time.monotonic() < end, f"{what} did not come: {self.frame()}"
            self._read()
        return self.frame()

    def _read(self) -> bool:
        ready = bool(select.select([self._ours], [], [], 0.05)[0])
        if ready:
            self.said += self._decoder.decode(os.read(self._ours, 1 << 16))
        return ready

    def left(self) -> int:
        """Its exit code, once the terminal is as it was."""
        end = time.monotonic() + 20
        while self.process.poll() is None:
            assert time.monotonic() < end, "it does not leave"
            self._read()
        self.is_given_back()
        assert "Traceback" not in self.said
        return self.process.returncode

    def is_given_back(self) -> None:
        """By a process that writes no more."""
        while self._read():
            pass
        assert self.said.endswith("\x1b[?25h\x1b[?1049l"), "cursor and screen are not back"
        assert termios.tcgetattr(self._theirs) == self.modes

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for each in self._ours, self._theirs:
            with suppress(OSError):
                os.close(each)


def test_on_a_terminal_it_lives_through_the_daemons_death_and_leaves_as_it_came(tmp_path: Path) -> None:
    d = Daemon(tmp_path, followers=2000, workers=1, concurrency=8, rate=50)
    screens: list[Terminal] = []
    try:
        d.call("campaign.submit", content="x", phone="1", reference="停水通知")
        held = d.call("campaign.submit", content="x", phone="2", send_at="2099-01-01T00:00:00+08:00")["campaign"]
        d.call("campaign.pause", campaign=held)

        screens += Terminal(d, "--interval", "0.2"), Terminal(d)
        screen, other = screens
        screen.until(lambda lines: any("2,000" in line and "━" in line for line in lines), "a bar")
        lines = screen.until(lambda lines: "停水通知" in "".join(lines) and "paused by" in "".join(lines), "campaigns")
        assert len(lines) == 24 and {cell_len(line) for line in lines} == {80}
        assert lines[0].startswith("fanoutd ") and "running" in lines[0] and "q leaves" in lines[1]
        pid = d.workers()[0]["pid"]
        screen.until(lambda lines: re.search(rf"^worker 1 +{pid} +busy", "\n".join(lines), re.M), "a worker at work")
        screen.resize(12, 50)
        screen.until(lambda lines: len(lines) == 12 and {cell_len(line) for line in lines} == {50}, "the new size")
        screen.resize(30, 100)

        other.until(lambda lines: lines[0].startswith("fanoutd "), "a frame")
        other.type(b"\x1a")  # Ctrl-Z: stopped, with the terminal given back
        os.waitid(os.P_PID, other.process.pid, os.WSTOPPED | os.WNOWAIT)
        other.is_given_back()
        other.said = ""
        other.process.send_signal(signal.SIGCONT)
        other.until(lambda lines: lines[0].startswith("fanoutd "), "a frame again")
        other.type(b"\x03")
        assert other.left() == 0

        d.kill_all()
        lines = screen.until(lambda lines: "not reachable since" in lines[1], "word of its death")
        assert "): no daemon answers (" in lines[1] and "停水通知" in "".join(lines)
        d.serve()
        lines = screen.until(lambda lines: "running" in lines[0] and "not reachable" not in lines[1], "its return")
        screen.type(b"q")
        assert screen.left() == 0

        piped = d.cli("top")
        assert (piped.returncode, piped.stderr) == (0, "") and "\x1b" not in piped.stdout
        for words in "fanoutd ", "promise", "停水通知", "paused by an operator", "worker 1", "jobs ":
            assert words in piped.stdout
        assert "━" not in piped.stdout and "q leaves" not in piped.stdout
        d.process.kill()
        d.process.wait()
        gone = d.cli("top")
        assert (gone.returncode, gone.stdout) == (69, "") and len(gone.stderr.splitlines()) == 1
    finally:
        for each in screens:
            each.close()
        d.close()
