"""etc/init.d/fanoutd and etc/cron.d/fanoutd, called as `service` and cron call them, on real daemons."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.master import alive, until
from support.program import Program, program
from support.reach import as_nobody, reaching

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "etc" / "init.d" / "fanoutd"
LSB = "/lib/lsb/init-functions"

# From the LSB, "Init Script Actions".
WELL, FAILED, USAGE, NO_RIGHTS, NOT_INSTALLED, BAD_CONFIG, NOT_RUNNING = 0, 1, 2, 4, 5, 6, 7
RUNNING, DEAD, STOPPED, UNKNOWN = 0, 1, 3, 4


class Service:
    """``service fanoutd ACTION`` gives the exit code."""

    def __init__(self, daemon: Program, script: Path = SCRIPT, prefix: tuple[str, ...] = ()) -> None:
        self.daemon, self.script, self.prefix = daemon, script, list(prefix)
        self.said = ""
        self.installed = daemon.folder / "fanoutd"
        self.installed.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m fanoutd "$@"\n')
        self.installed.chmod(0o755)
        self.defaults = daemon.folder / "defaults"
        self.defaults.write_text(f'FANOUTD="{self.installed}"\nCONFIG="{daemon.file}"\n')

    @property
    def environment(self) -> dict[str, str]:
        """As poor as service(8) makes it."""
        return {"PATH": os.environ["PATH"], "TERM": "dumb", "FANOUTD_DEFAULTS": str(self.defaults)}

    def __call__(self, *arguments: str) -> int:
        return self.run([str(self.script), *arguments])

    def run(self, command: list[str]) -> int:
        done = subprocess.run(
            [*self.prefix, *command], env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=60, cwd="/tmp",
        )
        self.said = done.stdout
        return done.returncode

    def pid(self) -> int:
        pid = self.daemon.pid()
        assert pid is not None
        return pid

    def kill(self) -> None:
        """The master, as the kernel does when memory has run out."""
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid), "its end")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with program(tmp_path, f"log_file = '{tmp_path}/f.log'") as daemon:
        yield Service(daemon)


def test_each_action_does_what_it_says_and_again(service: Service) -> None:
    assert service("status") == STOPPED
    assert [service("stop"), service("stop")] == [WELL, WELL]
    assert service("start") == WELL
    first = service.pid()
    assert service.daemon.answers()
    assert os.readlink(f"/proc/{first}/cwd") == "/"
    assert [service("start"), service("status")] == [WELL, RUNNING]
    assert service.pid() == first
    assert service("restart") == WELL
    second = service.pid()
    assert second != first
    assert service("try-restart") == WELL
    assert service.pid() not in (first, second)
    assert [service("stop"), service("status"), service("stop")] == [WELL, STOPPED, WELL]
    assert service.daemon.left() == []
    assert service("restart") == WELL  # of one that is stopped: a start
    assert service("status") == RUNNING


def test_orders_reach_a_living_daemon_alone(service: Service) -> None:
    for action in ("reload", "force-reload", "reopen-logs"):
        assert service(action) == NOT_RUNNING
    assert [service("try-restart"), service("condrestart"), service("status")] == [WELL, WELL, STOPPED]
    service("start")
    pid = service.pid()
    assert [service("reload"), service("force-reload"), service("reopen-logs")] == [WELL, WELL, WELL]
    assert service.pid() == pid
    assert service.daemon.call("daemon.status")["generation"] == 3
    until(lambda: "log opened anew" in service.daemon.log(), "USR1")


def test_one_that_died_is_told_from_one_that_was_stopped(service: Service) -> None:
    service("start")
    service.kill()
    assert [service("status"), service("reload")] == [DEAD, NOT_RUNNING]
    assert [service("start"), service("status")] == [WELL, RUNNING]
    service.kill()
    assert [service("stop"), service("status")] == [WELL, STOPPED]


def test_the_locks_tell_not_the_pidfile(service: Service) -> None:
    pidfile = service.daemon.config.daemon.pidfile
    pidfile.parent.mkdir(0o700)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        pidfile.write_text(f"{stranger.pid}\n")
        assert [service("status"), service("stop"), service("status")] == [DEAD, WELL, STOPPED]
        assert stranger.poll() is None
        stranger.kill()
    service("start")
    pidfile.unlink()
    assert [service("status"), service("stop"), service("status")] == [RUNNING, WELL, STOPPED]


def test_a_bad_configuration_harms_no_living_daemon(service: Service) -> None:
    service("start")
    pid = service.pid()
    good = service.daemon.file.read_text()
    service.daemon.file.write_text(f"{good}\n[colour]\n")
    for action in ("start", "stop", "restart", "try-restart", "reload", "force-reload"):
        assert service(action) == BAD_CONFIG
        assert "colour: unknown table" in service.said
    assert service("status") == UNKNOWN
    service.daemon.file.write_text(good)
    assert service.pid() == pid
    service.daemon.file.rename(service.daemon.folder / "moved")
    assert service("start") == BAD_CONFIG
    (service.daemon.folder / "moved").rename(service.daemon.file)


def test_a_start_that_fails_says_why(service: Service) -> None:
    service.daemon.configure("state_dir = '/proc/nope'")
    assert service("start") == NO_RIGHTS
    assert "/proc/nope" in service.said


def test_wrong_words_are_usage_and_what_is_not_installed_does_not_run(service: Service) -> None:
    assert [service(), service("dance"), service("start", "now")] == [USAGE] * 3
    assert "reopen-logs" in service.said
    service.installed.unlink()
    assert [service("start"), service("stop"), service("status")] == [NOT_INSTALLED, WELL, UNKNOWN]


def test_it_works_without_the_lsb_functions(service: Service) -> None:
    service.script = service.daemon.folder / "script"
    text = SCRIPT.read_text()
    assert LSB in text
    service.script.write_text(text.replace(LSB, "/no/such/file"))
    service.script.chmod(0o755)
    assert [service("start"), service("status"), service("stop"), service("status")] == [WELL, RUNNING, WELL, STOPPED]
    assert "stopped" in service.said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_others_have_no_rights(service: Service) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fanoutd-test-"))
    folder.chmod(0o755)
    try:
        with program(folder, "state_dir = 'state'\npidfile = 'run/f.pid'", prefix=reaching()) as daemon:
            service = Service(daemon)
            assert service("start") == WELL
            service.prefix = [*daemon.prefix, *as_nobody()]
            for action in ("start", "stop", "restart", "reload", "status"):
                assert service(action) == NO_RIGHTS, service.said  # the configuration is root's
            os.chown(daemon.file, 65534, -1)
            daemon.file.chmod(0o640)
            for action in ("start", "stop", "restart", "reload", "status"):
                assert service(action) == NO_RIGHTS, service.said  # and so is the pidfile
            service.prefix = []
            assert service("status") == RUNNING
    finally:
        shutil.rmtree(folder)


def test_cron_starts_one_that_died_and_no_other_in_silence(service: Service) -> None:
    [line] = [line for line in (ROOT / "etc/cron.d/fanoutd").read_text().splitlines() if line.startswith("*")]
    found = re.fullmatch(r"\* \* \* \* \* root (.*)", line)
    assert found
    assert "%" not in found[1]  # a line's end, for cron
    script = service.daemon.folder / "the script"
    script.write_text(SCRIPT.read_text().replace("/run/systemd", "/no/such"))
    script.chmod(0o755)
    command = ["sh", "-c", found[1].replace("/etc/init.d/fanoutd", shlex.quote(str(script)))]
    down = 2
    assert (service.run(command), service.said, service("status")) == (down, "", STOPPED)
    service("start")
    pid = service.pid()
    assert (service.run(command) != down, service.said, service.pid()) == (True, "", pid)
    service.kill()
    assert service.run(command) != down
    assert "nothing is mailed: there is no [mail]" in service.said  # cron mails it
    assert service("status") == RUNNING
    pid = service.pid()
    assert (service.run(command) != down, service.said, service.pid()) == (True, "", pid)


def test_the_header_says_when_it_is_started() -> None:
    header = re.search(r"### BEGIN INIT INFO\n(.*)### END INIT INFO\n", SCRIPT.read_text(), re.DOTALL)
    assert header
    keys = dict(re.findall(r"^# ([A-Z][A-Za-z-]+): +(.+)$", header[1], re.MULTILINE))
    assert keys["Provides"] == "fanoutd"
    assert {"Required-Start", "Required-Stop", "Default-Start", "Default-Stop", "Short-Description"} <= set(keys)
    assert os.access(SCRIPT, os.X_OK)
