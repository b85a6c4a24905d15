"""`serve --daemonize`: who waits for it, what he is told, and what the daemon takes along."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fanoutd
from fanoutd.master import lock
from support.master import alive, until
from support.program import Program, program, status_of


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Program]:
    with program(tmp_path) as made:
        yield made


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A copy of the program, to be broken."""
    folder = tmp_path / "code"
    shutil.copytree(Path(fanoutd.__file__).parent, folder / "fanoutd", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def begin_worker_with(code: Path, line: str) -> None:
    file = code / "fanoutd" / "worker" / "main.py"
    head = "def run(child: Child) -> int:\n"
    text = file.read_text()
    assert head in text
    file.write_text(text.replace(head, f"{head}    {line}\n"))


def one_line(said: str) -> str:
    """It must be one."""
    [line] = said.splitlines()
    return line


def test_it_returns_when_a_worker_is_ready_and_holds_nothing_of_the_callers(daemon: Program) -> None:
    read, write = os.pipe()  # a lock or a pipe of whoever calls: a cron job, a package's script
    done = daemon.run("serve", "--daemonize", pass_fds=[write])
    os.close(write)
    assert (done.returncode, done.stdout) == (0, "")
    assert one_line(done.stderr) == f"the log goes to {daemon.folder}/state/fanoutd.log"
    assert os.read(read, 1) == b""  # its end is there, though the daemon lives
    os.close(read)
    pid = daemon.pid()
    assert pid is not None
    assert daemon.call("daemon.ping")["pid"] == pid
    assert "worker 1 ready" in daemon.log()
    assert os.getsid(pid) not in (os.getsid(0), pid)  # no leader: it can never be given a terminal
    assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3
    assert os.readlink(f"/proc/{pid}/cwd") == str(daemon.folder)
    assert daemon.run("stop").returncode == 0
    assert daemon.left() == []


def test_closed_standard_streams_harm_nobody(daemon: Program) -> None:
    shell = " ".join([*daemon.command, "serve", "--daemonize", "<&-", ">&-", "2>&-"])
    assert subprocess.run(["sh", "-c", shell], cwd=daemon.folder, timeout=60).returncode == 0
    assert daemon.answers()


def test_without_log_file_the_log_stays_where_it_is_after_a_reload_and_an_upgrade(daemon: Program) -> None:
    daemon.run("serve", "--daemonize")
    assert daemon.run("reload").returncode == 0
    assert daemon.run("upgrade").returncode == 0
    assert daemon.run("reload").returncode == 0
    os.rename(daemon.folder / "state" / "fanoutd.log", daemon.folder / "old.log")
    assert daemon.run("reopen-logs").returncode == 0
    until(lambda: "log opened anew" in daemon.log(), "a line in the new file")
    old = (daemon.folder / "old.log").read_text()
    assert "took over" in old
    assert "generation 3 is in force" in old
    assert daemon.run("stop").returncode == 0
    assert "stopped exit code 0" in daemon.log()


def test_refusals_are_those_of_the_foreground(daemon: Program) -> None:
    foreground = daemon.started()
    second = daemon.run("serve", "--daemonize")
    assert second.returncode == 75
    assert f"pid {foreground.pid}" in second.stderr.splitlines()[-1]
    assert daemon.pid() == foreground.pid
    foreground.terminate()
    assert foreground.wait(10) == 0
    for line, code, named in (("state_dir = '/proc/nope'", 77, "/proc/nope"), ("color = 1", 78, "color"),
                              (f"socket = '/{'x' * 101}'", 78, "socket"), ("allow_users = ['nemo-']", 78, "nemo-")):
        daemon.configure(f"log_file = '{daemon.folder}/f.log'\n{line}")
        for how in ([], ["--daemonize"]):
            done = daemon.run("serve", *how)
            assert (done.returncode, named in one_line(done.stderr)) == (code, True), done.stderr


def test_a_worker_that_cannot_boot_is_told_to_the_caller(tmp_path: Path, code: Path) -> None:
    begin_worker_with(code, "return 3")
    with program(tmp_path, f"log_file = '{tmp_path}/f.log'", code) as daemon:
        done = daemon.run("serve", "--daemonize")
        assert done.returncode == 1
        assert "no worker starts" in one_line(done.stderr)
        assert daemon.left() == []


@pytest.mark.parametrize(("number", "words"), [(signal.SIGKILL, "died while it started"),
                                               (signal.SIGINT, "stopped before a worker was ready")])
def test_a_daemon_that_ends_while_it_starts_is_a_failure(tmp_path: Path, code: Path, number: int, words: str) -> None:
    begin_worker_with(code, "import time; time.sleep(20)")
    with program(tmp_path, f"log_file = '{tmp_path}/f.log'", code) as daemon:
        caller = daemon.start("serve", "--daemonize")
        until(lambda: "worker 1 started" in daemon.log(), "a worker that boots")
        pid = daemon.pid()
        assert pid is not None
        os.kill(pid, number)
        _, said = caller.communicate(timeout=15)
        assert caller.returncode == 1
        assert words in one_line(said)
        until(lambda: not alive(pid), "its end")


def test_the_callers_end_does_not_end_the_daemon(tmp_path: Path, code: Path) -> None:
    begin_worker_with(code, f"import os, time\n    while not os.path.exists('{tmp_path}/go'): time.sleep(0.01)")
    with program(tmp_path, f"log_file = '{tmp_path}/f.log'", code) as daemon:
        caller = daemon.start(
            "serve", "--daemonize", start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # which nohup has ignored
        )  # fmt: skip
        until(lambda: "worker 1 started" in daemon.log(), "a worker that boots")
        os.killpg(caller.pid, signal.SIGHUP)  # as a terminal that is closed does
        assert caller.wait(10) == -signal.SIGHUP
        (tmp_path / "go").touch()
        until(lambda: "worker 1 ready" in daemon.log(), "a worker that is ready")
        assert daemon.answers()


def test_a_launcher_that_is_told_nothing_says_so() -> None:
    told = "launch.daemonize().fail(77, 'no such luck')"
    for action, code, words in (("launch.daemonize(); import os; os._exit(0)", 1, "died"), (told, 77, "no such luck"),
                                ("launch.daemonize().succeed()", 0, None)):
        done = subprocess.run(
            [sys.executable, "-c", f"from fanoutd.master import launch; {action}"], capture_output=True, text=True,
            timeout=20,
        )
        assert done.returncode == code
        assert done.stderr == "" if words is None else words in one_line(done.stderr)


def test_no_signal_is_lost_and_none_kills_while_the_program_loads(daemon: Program) -> None:
    orders = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)
    process = daemon.start()
    until(lambda: int(status_of(process.pid)["SigBlk"], 16), "the first line of the program")
    while not daemon.answers():
        assert process.poll() is None, f"ended with {process.returncode}"
        for number in orders:
            process.send_signal(number)
    until(lambda: daemon.call("daemon.status")["reload"]["count"], "the HUP that came before")
    process.terminate()
    assert process.wait(15) == 0
    assert daemon.left() == []


def test_a_stop_that_comes_while_the_program_loads_is_kept(daemon: Program) -> None:
    process = daemon.start()
    until(lambda: int(status_of(process.pid)["SigBlk"], 16), "the first line of the program")
    process.terminate()
    assert process.wait(15) == 0
    assert daemon.left() == []


def test_children_and_other_commands_have_no_signal_blocked(daemon: Program) -> None:
    daemon.started()
    for row in daemon.call("daemon.status")["workers"]:
        blocked = int(status_of(row["pid"])["SigBlk"], 16)
        term = 1 << (signal.SIGTERM - 1)  # the mold's children must not lose one that comes before their handlers
        assert blocked == (term if row["role"] == "mold" else 0), row["role"]


def test_root_signals_nobody_whom_the_daemons_user_named(tmp_path: Path) -> None:
    """The pidfile is the user's: it may bear any pid, under a lock that is held."""
    if os.geteuid() != 0:
        pytest.skip("only root can signal somebody else")
    with program(tmp_path) as daemon, subprocess.Popen(["sleep", "60"], user="nobody") as stranger:
        try:
            pidfile = daemon.config.daemon.pidfile
            pidfile.parent.mkdir(0o700)
            held = lock.Lock(pidfile)
            pidfile.write_text(str(stranger.pid))
            done = daemon.run("stop")
            assert done.returncode == 77
            assert f"pid {stranger.pid}" in one_line(done.stderr)
            held.close(unlink=True)
            os.mkfifo(pidfile)  # to read it would be to wait for a writer
            assert daemon.run("stop").returncode == 69
            assert stranger.poll() is None
        finally:
            stranger.kill()
