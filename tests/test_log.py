"""The log: what a line looks like, what never gets into it, and that all processes write into the same file."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fanoutd import log
from fanoutd.errors import NotPermitted
from support.master import MasterProcess, running, until
from support.program import Program, program

Said = Callable[[], str]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """For a log of this process, which is put back as it was."""
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook)
    before = list(root.handlers), root.level
    yield tmp_path
    for handler in root.handlers:
        if handler not in before[0]:
            os.close(handler.fd)  # type: ignore[attr-defined]
    root.handlers[:], (sys.excepthook, threading.excepthook) = before[0], hooks
    root.setLevel(before[1])


def set_up(folder: Path, log_format: str = "text", *hidden: str) -> Said:
    file = folder / "f.log"
    log.set_up(file, log_format, hidden)
    return file.read_text


def info(words: str, *args: object, **facts: Any) -> None:
    logging.getLogger("test").info(words, *args, extra=log.facts(**facts))


def fail(words: str) -> None:
    """In the log, with a traceback."""
    try:
        raise RuntimeError(words)
    except RuntimeError:
        logging.getLogger("test").exception("it failed")


# ---- a line


def test_a_line_of_text_says_when_who_and_what(folder: Path) -> None:
    said = set_up(folder)
    info("worker %d ready", 3, pid=7, reason="two words", nothing=None, quote='"')
    logging.getLogger("test").warning("careful")
    first, second = said().splitlines()
    at, rest = first.split(" ", 1)
    assert datetime.fromisoformat(at).tzinfo
    assert rest == f'master[{os.getpid()}] worker 3 ready pid=7 reason="two words" quote="\\""'
    assert second.endswith(f"master[{os.getpid()}] warning: careful")
    assert (folder / "f.log").stat().st_mode & 0o777 == 0o640 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_line_of_json_has_the_same_as_keys(folder: Path) -> None:
    said = set_up(folder, "json")
    info("工人 %d ready", 3, slot=3, pid=7, share=0.5, path=folder, nothing=None)
    line = json.loads(said())
    assert datetime.fromisoformat(line.pop("at")).tzinfo
    assert line == {"process": "master", "pid": os.getpid(), "level": "info", "message": "工人 3 ready", "slot": 3,
                    "child": 7, "share": 0.5, "path": str(folder)}  # fmt: skip
    assert "工人" in said()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nobodys_text_makes_a_second_line_or_moves_the_cursor(folder: Path, log_format: str) -> None:
    said = set_up(folder, log_format)
    nasty = "".join(map(chr, (*range(32), *range(127, 160), 0x2028, 0x2029)))
    info(f"a{nasty}b", reason=f"c{nasty}d")
    assert len(said().splitlines()) == 1
    assert not set(nasty) & set(said()[:-1])
    if log_format == "json":
        assert json.loads(said())["message"] == f"a{nasty}b"


def test_an_exceptions_text_cannot_pass_for_a_line_of_the_logs_own(folder: Path) -> None:
    said = set_up(folder)
    fail("x\n2026-01-02T15:04:05.678+08:00 master[1] stopped\r\x1b[31m")
    first, *rest = said().splitlines()
    assert first.endswith("error: it failed")
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in said()


def test_in_json_a_traceback_is_a_key_of_its_line(folder: Path) -> None:
    said = set_up(folder, "json")
    fail("for a reason")
    line = json.loads(said())
    assert (line["level"], line["message"]) == ("error", "it failed")
    assert line["traceback"].startswith("Traceback") and line["traceback"].endswith("RuntimeError: for a reason")


def test_half_a_character_costs_no_line(folder: Path) -> None:
    said = set_up(folder)
    info("half \ud800 of it")
    assert "half ? of it" in said()


# ---- secrets


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("GET /cgi-bin/message?access_token=TELL&x=1", "access_token=***&x=1"),
        ("GET /cgi-bin/token?appid=wx1&secret=TELL", "appid=wx1&secret=***"),
        ('it said {"access_token":"TELL","expires_in":7200}', '"access_token":"***","expires_in":7200'),
        ("it said {'access_token': 'TELL'}", "'access_token': '***'"),
        ("no answer from mysql://me:TELL@db.example:3306/tp", "mysql://me:***@db.example:3306/tp"),
        ("no answer from mysql://me:TELL/half&TELL@db.example/tp", "mysql://me:***@db.example/tp"),
        ("the secret is TELL-IT-ALL.", "the secret is ***."),
        ("http://127.0.0.1:9464/metrics is not there", "http://127.0.0.1:9464/metrics is not there"),
    ],
)
def test_secrets_are_hidden_wherever_they_stand(folder: Path, log_format: str, words: str, shown: str) -> None:
    said = set_up(folder, log_format, "TELL-IT", "TELL-IT-ALL", "")
    info(words)
    info("in a fact", reason=words)
    info("in a fact of another kind", given=[words])
    fail(words)
    text = said()
    assert "TELL" not in text
    plain = [line["message"] for line in map(json.loads, text.splitlines())] if log_format == "json" else [text]
    assert shown in plain[0]
    assert len(re.findall("in a fact", text)) == 2


def test_the_secrets_of_a_new_configuration_are_hidden_too(folder: Path) -> None:
    said = set_up(folder, "text", "old-one")
    log.hide(["new-one"])
    info("it is new-one")
    assert said().endswith("it is ***\n")


# ---- one file


def test_a_renamed_file_is_left_when_it_is_opened_anew(folder: Path) -> None:
    said = set_up(folder)
    info("before")
    (folder / "f.log").rename(folder / "f.log.1")
    info("between")
    assert log.reopen()
    info("after")
    assert [line.split("] ")[1] for line in (folder / "f.log.1").read_text().splitlines()] == ["before", "between"]
    assert said().count("\n") == 1 and "after" in said()


def test_a_file_that_cannot_be_opened_keeps_the_old_one(folder: Path) -> None:
    set_up(folder)
    (folder / "f.log").rename(folder / "f.log.1")
    (folder / "f.log").mkdir()
    assert not log.reopen()
    with pytest.raises(IsADirectoryError):
        log.change(folder, "json")
    with pytest.raises(NotPermitted, match="log_file"):
        log.check(folder / "nowhere" / "f.log")
    info("still here")
    old = (folder / "f.log.1").read_text().splitlines()
    assert "cannot be opened anew" in old[0] and "Is a directory" in old[0]
    assert old[1].endswith("] still here")


def test_a_change_goes_on_under_the_same_descriptor(folder: Path) -> None:
    said = set_up(folder)
    number = log.fileno()
    assert not log.change(folder / "f.log", "text")
    assert log.change(folder / "g.log", "json")
    info("elsewhere")
    assert said() == ""
    assert json.loads((folder / "g.log").read_text())["message"] == "elsewhere"
    assert log.fileno() == number


def test_long_records_of_many_processes_stay_whole(folder: Path) -> None:
    """Tracebacks are longer than what a pipe takes at one go."""
    said = set_up(folder, "json")
    pids = []
    for n in range(4):
        pid = os.fork()
        if pid == 0:
            for _ in range(50):
                fail(str(n) * 20_000)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    assert len([json.loads(line) for line in said().splitlines()]) == 200


@pytest.mark.usefixtures("folder")
def test_a_pipe_that_nobody_reads_costs_lines_and_no_wait() -> None:
    read, write = os.pipe()
    kept = os.dup(2)
    os.dup2(write, 2)
    try:
        log.set_up(None)
        for _ in range(1000):
            info("x" * 1000)
    finally:
        os.dup2(kept, 2)
        for fd in (kept, write):
            os.close(fd)
    with os.fdopen(read, "rb") as end:
        os.set_blocking(read, False)
        assert len(end.read()) > 1 << 15


# ---- the daemon's


def processes(master: MasterProcess | Program) -> list[int]:
    return [master.process.pid, *master.children()] if isinstance(master, MasterProcess) else master.pids()


def open_in(pid: int) -> set[tuple[int, int]]:
    """(device, inode) of what the process has open; what is closed meanwhile is left out."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            status = os.stat(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        found.add((status.st_dev, status.st_ino))
    return found


def who_has(master: MasterProcess | Program, file: Path) -> set[int]:
    """Pids of those that have it open."""
    status = file.stat()
    return {pid for pid in processes(master) if (status.st_dev, status.st_ino) in open_in(pid)}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Program]:
    """With real children, two workers of them; ``f.log`` is its log."""
    with program(tmp_path) as made:
        configure(made, "f.log")
        made.started()
        yield made


def configure(daemon: Program, file: str, *lines: str, secret: str = "s3cret-of-the-tests") -> None:
    daemon.configure("\n".join([f"log_file = '{daemon.folder / file}'", *lines]))
    text = daemon.file.read_text().replace("count = 1", "count = 2").replace("s3cret-of-the-tests", secret)
    daemon.file.write_text(text)


def test_usr1_reaches_every_process(daemon: Program) -> None:
    old, new = daemon.folder / "f.log.1", daemon.folder / "f.log"
    assert who_has(daemon, new) == set(daemon.pids()) and len(daemon.pids()) == 5
    new.rename(old)
    os.kill(daemon.pids()[0], signal.SIGUSR1)
    until(lambda: not who_has(daemon, old), "everybody off the old file")
    assert who_has(daemon, new) == set(daemon.pids())
    size = old.stat().st_size
    os.kill(daemon.pids()[2], signal.SIGKILL)  # its successor comes out of a mold that was told too
    until(lambda: "worker 1 died" in daemon.log() and daemon.log().count("ready") == 1, "its successor")
    assert who_has(daemon, new) == set(daemon.pids())
    assert old.stat().st_size == size


def test_usr1_that_cannot_be_followed_is_said_in_the_old_file(tmp_path: Path) -> None:
    with running(tmp_path) as master:
        (tmp_path / "f.log").rename(tmp_path / "f.log.1")
        (tmp_path / "f.log").mkdir()
        master.signal(signal.SIGUSR1)
        old = tmp_path / "f.log.1"
        until(lambda: "cannot be opened anew" in old.read_text(), "the reason")
        (tmp_path / "f.log").rmdir()
        master.signal(signal.SIGUSR1)
        until(lambda: "log opened anew" in master.log(), "the new file")
        assert "log opened anew" not in old.read_text()


def test_an_upgrade_while_the_file_cannot_be_opened_goes_on_in_the_old_one(tmp_path: Path) -> None:
    with running(tmp_path) as master:
        old, pids = tmp_path / "f.log.1", master.children()
        (tmp_path / "f.log").rename(old)
        (tmp_path / "f.log").mkdir()
        master.signal(signal.SIGUSR2)
        until(lambda: "took over" in old.read_text(), "the new program")
        assert "log_file" in old.read_text() and "the log stays where it is" in old.read_text()
        (tmp_path / "f.log").rmdir()
        master.signal(signal.SIGUSR1)
        until(lambda: "log opened anew" in master.log(), "the new file")
        assert old.stat().st_ino not in {inode for _, inode in open_in(master.process.pid)}
        assert master.children() == pids


def test_a_reload_takes_every_process_to_another_file_and_format(daemon: Program) -> None:
    configure(daemon, "g.log", 'log_format = "json"', secret="another-secret")
    assert daemon.run("reload").returncode == 0
    old, new = daemon.folder / "f.log", daemon.folder / "g.log"
    until(lambda: not who_has(daemon, old), "everybody off the old file")
    assert who_has(daemon, new) == set(daemon.pids())
    os.kill(daemon.pids()[0], signal.SIGUSR1)
    until(lambda: "log opened anew" in daemon.log(), "its notice")
    lines = [json.loads(line) for line in daemon.log().splitlines()]
    assert {line["process"] for line in lines} >= {"master"}
    assert "generation 2 is in force" in {line["message"] for line in lines}
    assert daemon.run("stop").returncode == 0


def test_a_log_file_that_cannot_be_opened_makes_a_reload_refused(tmp_path: Path) -> None:
    with running(tmp_path) as master:
        text = master.config_file.read_text()
        master.config_file.write_text(text.replace("/f.log", "/nowhere/f.log"))
        error = master.error("daemon.reload")
        assert error["code"] == -32003 and "log_file" in error["message"]
        assert "not reloaded" in master.log()
        assert master.status()["generation"] == 1


def records(text: str) -> list[str]:
    """A line of the log with the indented ones below it."""
    return re.split(r"\n(?=\S)", text)


def test_an_error_that_nobody_caught_is_one_record_with_its_traceback(tmp_path: Path) -> None:
    with running(tmp_path, worker="failing") as master:
        pid = master.pid_of(1)
        master.result("campaign.list", limit=2)
        own = until(
            lambda: [each for each in records(master.log()) if f" worker 1[{pid}] " in each and "failing as" in each],
            "its last words",
        )
    first, *trace = own[0].splitlines()
    assert first.endswith("error: dies of an error")
    assert trace[0] == "    Traceback (most recent call last):"
    assert trace[-1] == "    RuntimeError: failing as it was told to"
    assert any("fake_worker.py" in line for line in trace)


def changes(master: MasterProcess, name: str) -> list[tuple[str, dict[str, str]]]:
    """The words and facts of the lines that the master wrote of this child."""
    found = re.findall(rf"^\S+ master\[\d+\] (?:\w+: )?{name} (.*?)((?: \w+=(?:\"[^\"]*\"|\S+))+)$", master.log(), re.M)
    return [(words, dict(re.findall(r"(\w+)=(\"[^\"]*\"|\S+)", facts))) for words, facts in found]


def test_each_change_in_a_childs_life_is_one_line_with_slot_pid_generation_and_reason(tmp_path: Path) -> None:
    with running(tmp_path, count="1") as master:
        first = master.pid_of(1)
        os.kill(first, signal.SIGKILL)
        until(lambda: master.pid_of(1) not in (None, first), "the second")
        second = master.ready().pid_of(1)
        master.result("daemon.reload")
        until(lambda: len(changes(master, "worker 1")) == 9, "nine lines")
        third = master.pid_of(1)
        found = changes(master, "worker 1")
        molds = changes(master, "mold 1")
        until(lambda: "mold 1 ended" in master.log(), "the first mold's end")
    assert [(words, facts["pid"], facts["generation"], facts["slot"]) for words, facts in found] == [
        ("started", str(first), "1", "1"), ("ready", str(first), "1", "1"),
        ("died; replaced in 0.0 s", str(first), "1", "1"),
        ("started", str(second), "1", "1"), ("ready", str(second), "1", "1"),
        ("started", str(third), "2", "1"), ("ready", str(third), "2", "1"),
        ("gives way", str(second), "1", "1"), ("ended", str(second), "1", "1"),
    ]  # fmt: skip
    assert [facts.get("reason") for _, facts in found] == [
        None, None, "SIGKILL", None, None, None, None, '"generation 2"', '"exit code 0"',
    ]
    assert [(words, facts["slot"], facts["generation"]) for words, facts in molds[:2]] == [
        ("started", "0", "1"), ("ready", "0", "1"),
    ]
