"""`fanoutd check` on real daemons, with a real mail server: what died in mid-campaign is back, nobody doubled."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fanoutd.checking.look import look
from fanoutd.checking.verdict import DEGRADED, OK, verdict
from fanoutd.config import load
from fanoutd.lines import LineBuffer, encode
from fanoutd.master import lock
from support.bench import wait_for
from support.daemon import Daemon
from support.master import alive
from support.program import program
from support.reach import as_nobody, reaching
from support.smtp import MailServer, Received
from test_view import STATUS


@pytest.fixture
def mails() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


def checks(daemon: Daemon, *each: str, count: int = 1) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of so many at the same moment."""
    command = [sys.executable, "-m", "fanoutd", "-c", str(daemon.config), "check", *each]
    started = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    said = [process.communicate(timeout=90) for process in started]
    return [(process.returncode, *each) for process, each in zip(started, said, strict=True)]


def one(daemon: Daemon, *each: str) -> tuple[int, str, str]:
    """Always one line on stdout, and nothing like a traceback."""
    [(code, said, warned)] = checks(daemon, *each)
    assert len(said.splitlines()) == 1, said
    assert "Traceback" not in warned
    assert said.startswith(("OK: ", "DEGRADED: ", "DOWN: ", "UNKNOWN: ")[code])
    return code, said, warned


def told(mails: MailServer) -> list[Received]:
    """What the check mailed: the daemon has mails of its own."""
    return [each for each in mails.received if "the daemon" in each.subject]


def subjects(mails: MailServer) -> list[str]:
    return [each.subject.partition("] ")[2].partition(", after ")[0] for each in told(mails)]


def kill(daemon: Daemon) -> None:
    """The master alone, wherever it came from."""
    pid = daemon.call("daemon.ping")["pid"]
    os.kill(pid, signal.SIGKILL)
    daemon.process.poll()
    wait_for(lambda: daemon.process.poll() is not None or not alive(pid), "the master's end")


def test_what_died_in_mid_campaign_is_started_by_one_of_two_and_nobody_is_doubled(
    tmp_path: Path, mails: MailServer
) -> None:
    daemon = Daemon(tmp_path, followers=1500, concurrency=16, latency="20ms")
    try:
        with daemon.config.open("a") as file:
            file.write(mails.table())
        start = shlex.join([sys.executable, "-m", "fanoutd", "-c", str(daemon.config), "serve", "--daemonize"])
        wait_for(lambda: one(daemon)[0] == 0, "an OK")  # with its token
        assert one(daemon, "--restart", start)[:1] == (0,)
        campaign = daemon.call("campaign.submit", content="hello", phone="110")["campaign"]
        wait_for(lambda: sum(daemon.accepted().values()) > 200, "some sent")
        kill(daemon)
        both = checks(daemon, "--restart", start, count=2)
        assert [code for code, *_ in both] == [0, 0], both
        assert [len(said.splitlines()) for _, said, _ in both] == [1, 1]
        log = (tmp_path / "fanoutd.log").read_text()
        assert log.count(" started socket=") == 2, log[-2000:]  # by the test, and by one of the two
        daemon.until(campaign)
        audit = daemon.audit(campaign)
        assert (audit.twice, audit.forgotten, audit.untrue) == ((), (), ()), audit
        assert audit.unknown <= 2 * 16
        mails.wait_for(lambda _: len(told(mails)) == 2)
        assert one(daemon, "--restart", start)[0] == 0
        assert subjects(mails) == ["ALERT: the daemon was down, restarted", "all clear: the daemon serves again"]
        node = daemon.call("daemon.status")["node"]
        assert all(each.subject.startswith(f"[fanoutd {node}] ") for each in told(mails))
        text = told(mails)[0].text
        assert "Found by `fanoutd check`: DOWN: the daemon died: pid " in text
        assert f"Run: {start}" in text
        assert "It ended with 0" in text
        assert "a-secret-of-the-tests" not in text

        # What was stopped on purpose is not started.
        assert daemon.cli("stop").returncode == 0
        code, said, _ = one(daemon, "--restart", start)
        assert (code, "what was stopped is not started by this" in said) == (2, True)
        assert not lock.is_held(tmp_path / "state" / "lock")
        assert len(told(mails)) == 2
    finally:
        daemon.cli("stop")
        daemon.close()


def test_changes_are_mailed_also_when_the_mail_server_was_away(tmp_path: Path, mails: MailServer) -> None:
    daemon = Daemon(tmp_path, workers=1)
    try:
        with daemon.config.open("a") as file:
            file.write(mails.table())
        wait_for(lambda: one(daemon, "--mail")[0] == 0, "an OK")
        for order in ("reload", "upgrade"):  # is never down for it
            with subprocess.Popen([sys.executable, "-m", "fanoutd", "-c", str(daemon.config), order]) as ordered:
                while ordered.poll() is None:
                    found = verdict(look(load(daemon.config, {}).daemon, 10))
                    assert found.code in (OK, DEGRADED), found.line()
            assert ordered.returncode == 0
        pid = daemon.process.pid
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        code, said, _ = one(daemon, "--timeout", "1")
        assert (code, f"pid {pid} was stopped by a signal" in said) == (2, True)
        assert time.monotonic() - began < 15
        os.kill(pid, signal.SIGCONT)
        assert one(daemon)[0] == 0
        mails.down()
        kill(daemon)
        code, said, warned = one(daemon, "--mail")
        assert (code, "the daemon died" in said) == (2, True)
        assert "1 mail waits for the next check: not mailed: 127.0.0.1" in warned
        assert checks(daemon, "--mail", "--quiet") == [(2, "", "")]
        mails.up()
        assert one(daemon, "--mail")[::2] == (2, "")
        assert one(daemon, "--mail")[::2] == (2, "")
        [alert] = told(mails)
        assert "ALERT: the daemon is down" in alert.subject
        assert "left its pidfile" in alert.text
        assert "`fanoutd doctor`" in alert.text
        daemon.serve()
        wait_for(lambda: one(daemon, "--mail")[0] == 0, "an OK")
        assert one(daemon, "--mail")[::2] == (0, "")
        assert subjects(mails) == ["ALERT: the daemon is down", "all clear: the daemon serves again"]
        # Nothing is started that cannot be, and that is mailed with its last words.
        kill(daemon)
        code, said, _ = one(daemon, "--restart", "sh -c 'echo no disk; exit 9'")
        assert (code, said.endswith("said: no disk\n")) == (2, True)
        assert subjects(mails)[-1] == "ALERT: the daemon is down and could not be started: no disk"
        # What the daemon's user cannot have written is not believed, and links lead nowhere.
        (tmp_path / "state" / "check.json").unlink()
        (tmp_path / "state" / "check.json").symlink_to(tmp_path / "tp.db")
        code, said, _ = one(daemon, "--mail")
        assert (code, "check.json" in said) == (3, True)
        daemon.config.write_text("[colour]\n")
        code, said, _ = one(daemon)
        assert (code, "colour: unknown table" in said) == (2, True)  # it died, as its pidfile tells
        (tmp_path / "state" / "fanoutd.pid").unlink()
        code, said, _ = one(daemon)
        assert (code, "colour: unknown table" in said) == (3, True)
        assert checks(daemon, "--quiet") == [(3, "", "")]
    finally:
        daemon.close()


class Answering(threading.Thread):
    """Something that answers on a socket as ``answer`` says, from the moment that it is started."""

    def __init__(self, path: Path, answer: Callable[[str], object]) -> None:
        super().__init__(daemon=True)
        self.path, self.answer = path, answer

    def run(self) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.path))
            listener.listen()
            while True:
                connection, _ = listener.accept()
                lines = LineBuffer()
                with connection, suppress(ConnectionError):  # who asked may not have waited
                    while data := connection.recv(1 << 16):
                        for asked in lines.messages(data):
                            result = self.answer(asked["method"])
                            connection.sendall(encode({"jsonrpc": "2.0", "id": asked["id"], "result": result}))


def test_one_that_is_just_starting_is_waited_for(tmp_path: Path) -> None:
    states = iter(["starting", "starting"])

    def answer(method: str) -> object:
        if method == "daemon.status":
            return {**STATUS, "state": next(states, "running")}
        return {"campaigns": []}

    with program(tmp_path) as daemon, (tmp_path / "held").open("w"):
        state_dir = daemon.config.daemon.state_dir
        state_dir.mkdir()
        with (state_dir / "lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            check = daemon.start("check", "--restart", "touch started", stdout=subprocess.PIPE)
            with pytest.raises(subprocess.TimeoutExpired):
                check.wait(1.5)
            Answering(daemon.config.daemon.socket, answer).start()
            said, _ = check.communicate(timeout=30)
            assert (check.returncode, said.startswith("OK: 1 of 1 workers ready")) == (0, True)
            assert not (tmp_path / "started").exists()


def test_what_speaks_otherwise_is_down_or_not_to_be_told_but_never_a_traceback(tmp_path: Path) -> None:
    answers: list[object] = ["words", {**STATUS, "workers": 5}]
    with program(tmp_path) as daemon:
        daemon.config.daemon.state_dir.mkdir()
        campaigns: dict[str, object] = {"campaigns": []}
        socket = daemon.config.daemon.socket
        Answering(socket, lambda method: answers[0] if method == "daemon.status" else campaigns).start()
        wait_for(socket.exists, "the socket")
        for code in (2, 3):
            done = daemon.run("check")
            assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (code, 1, ""), done.stdout
            answers.pop(0)


def test_a_configuration_that_is_being_edited_keeps_nobody_from_looking(tmp_path: Path) -> None:
    with program(tmp_path) as daemon:
        process = daemon.started()
        whole = daemon.file.read_text()
        daemon.file.write_text(f"{whole}\n[nonsense]\nx = 1\n")
        done = daemon.run("check", "--mail", "--restart", "touch " + str(tmp_path / "started"))
        assert (done.returncode in (0, 1), "nonsense" in done.stderr, len(done.stdout.splitlines())) == (True, True, 1)
        assert daemon.run("metrics").stdout.startswith("# HELP fanoutd_deliveries_total")
        assert "there is no [mail]" in daemon.run("mail", "test").stderr
        process.kill()
        process.wait()
        done = daemon.run("check", "--quiet", "--mail", "--restart", "touch " + str(tmp_path / "started"))
        assert (done.returncode, done.stderr) == (2, "")
        assert done.stdout.startswith("DOWN: the daemon died: ")
        assert "it cannot start: " in done.stdout
        (tmp_path / "state" / "fanoutd.pid").unlink()
        assert (daemon.run("check", "--quiet").returncode, daemon.run("check", "--quiet").stdout) == (3, "")
        assert not (tmp_path / "started").exists()


def test_whoever_says_that_he_is_well_is_not_down_because_a_figure_is_slow(tmp_path: Path) -> None:
    over = threading.Event()

    def answer(method: str) -> object:
        if method == "campaign.list":
            over.wait(60)
        return STATUS

    with program(tmp_path) as daemon:
        daemon.config.daemon.state_dir.mkdir()
        socket = daemon.config.daemon.socket
        Answering(socket, answer).start()
        wait_for(socket.exists, "the socket")
        done = daemon.run("check", "--timeout", "1", "--restart", "touch " + str(tmp_path / "started"))
        over.set()
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert " pending=" not in done.stdout
        assert not (tmp_path / "started").exists()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that everybody can pass through: pytest's own is root's alone."""
    made = Path(tempfile.mkdtemp(prefix="fanoutd-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_rights_nothing_can_be_told(open_folder: Path) -> None:
    with program(open_folder, f"socket = '{open_folder}/run/f.sock'\npidfile = '{open_folder}/run/f.pid'") as daemon:
        daemon.started()
        daemon.file.chmod(0o640)
        prefix = [*reaching(), *as_nobody()]
        for change, words in (
            (lambda: None, "Permission denied"),
            (lambda: os.chown(daemon.file, 65534, -1), "you may not use this socket"),
            (lambda: daemon.config.daemon.socket.chmod(0o666), "see allow_users"),
        ):
            change()
            daemon.prefix = prefix
            done = daemon.run("check")
            daemon.prefix = []
            assert (done.returncode, done.stdout.startswith("UNKNOWN: "), done.stderr) == (3, True, "")
            assert words in done.stdout, done.stdout
