"""The command line: exit codes, data alone on stdout, words for people on stderr; and who may do what."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fanoutd.cli import COMMANDS, main
from fanoutd.client import Client, ClientError
from support.daemon import Daemon, follower
from support.master import MasterProcess, running, until, write_config
from support.program import Program, program
from support.reach import as_nobody, reaching


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Ten followers and one worker."""
    made = Daemon(tmp_path_factory.mktemp("daemon"), followers=10, workers=1)
    yield made
    made.close()


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Program]:
    """A configuration on which nothing runs yet."""
    with program(tmp_path) as made:
        yield made


def inside(config: Path, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """The same without a process of its own: for the many cases that differ in a word."""
    streams = [io.TextIOWrapper(io.BytesIO(given), encoding="utf-8") for given in (text.encode(), b"", b"")]
    with pytest.MonkeyPatch.context() as patch:
        for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as ended:
            main.main(["-c", str(config), *arguments], "fanoutd")
    said = []
    for stream in streams[1:]:
        stream.seek(0)
        said.append(stream.read())
    assert isinstance(ended.value.code, int)
    return subprocess.CompletedProcess(list(arguments), ended.value.code, *said)


def data(done: subprocess.CompletedProcess[str]) -> str:
    """What it printed, when all went well and nothing else was said."""
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One line on stderr, with these words, and no data."""
    [line] = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (code, ""), line
    assert line.startswith("fanoutd: ")
    assert not [word for word in words if word not in line], line


def done_campaign(daemon: Daemon, *arguments: str) -> str:
    return str(json.loads(daemon.cli("send", "hello", "--wait", "--json", *arguments).stdout)["campaign"])


# ---- send


def test_send_prints_the_id_and_nothing_else(daemon: Daemon) -> None:
    campaign = data(daemon.cli("send", "hello", "--phone", "110", "--reference", "r-1")).strip()
    found = daemon.until(campaign)
    assert (found["reference"], found["counts"]["sent_custom"], found["total"]) == ("r-1", 10, 10)


def test_a_key_sends_once_and_json_says_so(daemon: Daemon) -> None:
    first = json.loads(data(daemon.cli("send", "hello", "--key", "k1", "--json")))
    again = json.loads(data(daemon.cli("send", "hello", "--key", "k1", "--json")))
    assert set(first) == {"campaign", "duplicate"}
    assert (first["duplicate"], again) == (False, {**first, "duplicate": True})
    waited = json.loads(daemon.cli("send", "hello", "--key", "k1", "--json", "--wait").stdout)
    assert (waited["duplicate"], waited["id"], waited["state"]) == (True, first["campaign"], "done")


def test_wait_tells_of_its_progress_on_stderr(daemon: Daemon) -> None:
    done = daemon.cli("send", "hello", "--wait")
    assert (done.returncode, len(done.stdout.split())) == (0, 1)
    last = f"{done.stdout.strip()} done: 10 of 10 (sent_custom 10)"
    assert [line for line in done.stderr.splitlines() if "done" in line] == [last]


def test_a_document_from_stdin_and_options_that_say_otherwise(daemon: Daemon) -> None:
    document = json.dumps({"content": "from the document", "phone": "110", "data": [], "reference": "theirs"})
    answer = daemon.cli("send", "--file", "-", "--reference", "ours", "--wait", "--json", text=document)
    assert json.loads(answer.stdout)["reference"] == "ours"
    assert answer.returncode == 0


def test_a_list_of_people_with_a_head_and_a_byte_order_mark(daemon: Daemon) -> None:
    file = daemon.folder / "people.csv"
    file.write_bytes(f'\ufeffopenid,name\r\n"{follower(3)}",x\r\n\r\n{follower(4)}\r\n'.encode())
    campaign = done_campaign(daemon, "--openids", str(file))
    assert [row["openid"] for row in daemon.rows(campaign)] == [follower(3), follower(4)]


def test_a_scheduled_campaign_is_left_by_ctrl_c_and_goes_on(daemon: Daemon) -> None:
    # A shell ignores SIGINT for what it runs in the background, these tests perhaps; env(1) undoes that.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "fanoutd", "-c", str(daemon.config)]
    later = [*command, "send", "later", "--at", "2099-01-01T00:00:00+08:00", "--wait"]
    with subprocess.Popen(later, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stderr
            campaign = process.stdout.readline().strip()
            assert "scheduled" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode != 0 and "Traceback" not in said
    assert daemon.call("campaign.get", campaign=campaign)["state"] == "scheduled"


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        (("send",), "", "nothing to send"),
        (("send", "x", "--at", "soon"), "", "send_at"),
        (("send", "x", "--set", "colour"), "", "NAME=VALUE"),
        (("send", "x", "--set", "colour=red"), "", "colour"),
        (("send", "x", "--page", "0", "--openids", "-"), follower(1), "page"),
        (("send", "x", "--openids", "-"), "openid\n", "no openid"),
        (("send", "x", "--account", "nope"), "", "main"),
        (("send", os.fsdecode(b"\xff")), "", "UTF-8"),
        (("send", "--file", "-"), '{"content": "\\ud800"}', "UTF-8"),
        (("send", "--file", "-", "--set", "a=b"), '{"content": "x", "data": "y"}', "object"),
        (("send", "--file", "-"), '["x"]', "object"),
        (("send", "--file", "-"), "[" * 100_000, "JSON"),
        (("send", "--file", "-"), '{"content": "x", "colour": "red"}', "colour"),
        (("send", "--file", "-"), json.dumps({"content": "x" * (1 << 20)}), "max_request"),
        (("campaign", "list", "--state", "asleep"), "", "state"),
        (("campaign", "watch", "nope"), "", "nope"),
        (("campaign", "export", "nope", "--format", "jsonl"), "", "nope"),
    ],
)
def test_input_that_cannot_be_used_is_65_and_one_line(
    daemon: Daemon, arguments: tuple[str, ...], text: str, words: str
) -> None:
    refused(inside(daemon.config, *arguments, text=text), 65, words)


@pytest.mark.parametrize(
    "arguments",
    [("frobnicate",), ("send", "--colour"), ("scale",), ("scale", "0"), ("scale", "many"), ("campaign", "show"),
     ("campaign", "export", "x", "--format", "xml"), ("send", "a", "b")],
)  # fmt: skip
def test_wrong_usage_is_2_and_says_where_help_is(idle: Program, arguments: tuple[str, ...]) -> None:
    done = inside(idle.file, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--help" in done.stderr


# ---- campaign


def test_a_campaign_is_shown_listed_and_watched(daemon: Daemon) -> None:
    campaign = done_campaign(daemon)
    shown = data(daemon.cli("campaign", "show", campaign))
    assert campaign in shown and "sent as customer-service message" in shown and "\x1b" not in shown
    found = json.loads(data(daemon.cli("campaign", "show", "--json", campaign)))
    assert found == daemon.call("campaign.get", campaign=campaign)
    newest = data(daemon.cli("campaign", "list", "--limit", "1")).splitlines()
    assert len(newest) == 1 and newest[0].split()[:2] == [campaign, "done"] and "sent_custom=10" in newest[0]
    listed = data(daemon.cli("campaign", "list", "--state", "done", "--json")).splitlines()
    assert json.loads(listed[0]) == found
    watched = daemon.cli("campaign", "watch", campaign)
    assert (watched.returncode, watched.stdout) == (0, "") and "done" in watched.stderr


def test_an_export_has_the_same_rows_in_both_formats(daemon: Daemon) -> None:
    campaign = done_campaign(daemon)
    lines = data(daemon.cli("campaign", "export", campaign, "--format", "jsonl")).splitlines()
    assert [json.loads(line) for line in lines] == daemon.rows(campaign)
    table = data(daemon.cli("campaign", "export", campaign)).splitlines()
    assert [line.split(",")[0] for line in table[1:]] == [json.loads(line)["openid"] for line in lines]
    assert data(daemon.cli("campaign", "export", campaign, "--state", "failed")).splitlines() == table[:1]


def test_a_reader_who_has_seen_enough_ends_an_export_without_a_word(daemon: Daemon) -> None:
    campaign = done_campaign(daemon)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "fanoutd", "-c", str(daemon.config), "campaign", "export", campaign]
    with os.fdopen(write, "wb") as end:
        done = subprocess.run(command, stdout=end, stderr=subprocess.PIPE, timeout=20)
    assert done.stderr == b""


def test_every_command_is_in_the_help_in_words_that_fit_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"], terminal_width=80)
    lines = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == list(COMMANDS)
    assert all(line.endswith(".") and not line.endswith("...") and len(line) <= 80 for line in lines)


# ---- the daemon


def test_the_status_for_people_and_for_programs(daemon: Daemon) -> None:
    words = data(daemon.cli("status"))
    pid = daemon.process.pid
    started = daemon.call("daemon.status")["started_at"]
    assert f"pid {pid}  since {started}" in words  # in one line, though it is no terminal of 80 columns
    assert "running" in words and "sqlite" in words and "\x1b" not in words
    found = json.loads(data(daemon.cli("status", "--json")))
    assert (found["pid"], found["state"], found["workers"][0]["role"]) == (pid, "running", "dispatcher")


def test_orders_are_followed_with_words_on_stderr(daemon: Daemon) -> None:
    def ordered(*arguments: str) -> str:
        done = daemon.cli(*arguments)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        return done.stderr.strip()

    assert ordered("scale", "2") == "2 workers wanted"
    until(lambda: len(daemon.workers()) == 2, "two workers")
    generation = daemon.call("daemon.status")["generation"]
    assert ordered("reload") == f"generation {generation + 1} serves"
    until(lambda: len(daemon.workers()) == 1, "as many as the configuration says")
    log = daemon.folder / "fanoutd.log"
    log.rename(daemon.folder / "old.log")
    assert ordered("reopen-logs") == ""
    until(log.exists, "the new file")
    assert ordered("upgrade") == f"version {daemon.call('daemon.ping')['version']} serves"
    assert daemon.call("daemon.ping")["pid"] == daemon.process.pid


def test_a_reload_says_78_when_nothing_was_sent_and_1_when_it_was_refused(daemon: Daemon) -> None:
    text = daemon.config.read_text()
    before = daemon.call("daemon.status")
    try:
        daemon.config.write_text(text + "[nonsense]\n")
        refused(daemon.cli("reload"), 78, "nonsense")
        assert daemon.call("daemon.status")["reload"] == before["reload"]
        daemon.config.write_text(text.replace('log_file = "fanoutd.log"', 'log_file = "nowhere/f.log"'))
        refused(daemon.cli("reload"), 1, "not reloaded", "log_file", f"generation {before['generation']} goes on")
        assert daemon.call("daemon.status")["state"] == "degraded"
    finally:
        daemon.config.write_text(text)
    assert daemon.cli("reload").returncode == 0


def test_stop_returns_when_the_daemon_has_ended_and_then_there_is_none(idle: Program) -> None:
    process = idle.started()
    reaper = threading.Thread(target=process.wait)  # a zombie is not gone
    reaper.start()
    done = idle.run("stop")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert idle.left() == []
    reaper.join(10)
    for command in ("stop", "reload", "reopen-logs", "upgrade", "scale 2", "campaign show x", "campaign watch x",
                    "campaign export x", "status --json", "send x --wait"):  # fmt: skip
        refused(idle.run(*command.split()), 69)


# ---- config check, and what is the same for all


def test_a_configuration_is_checked_without_a_daemon(idle: Program) -> None:
    assert data(idle.run("config", "check")) == f"{idle.file}: ok\n"
    idle.file.write_text(idle.file.read_text() + '[metrics]\nlisten = "127.0.0.1:9464"\n')
    done = idle.run("config", "check")
    assert (done.returncode, done.stdout) == (0, f"{idle.file}: ok\n")
    assert all(line.startswith("warning: ") for line in done.stderr.splitlines())
    idle.file.write_text(idle.file.read_text() + "[nonsense]\n")
    for command in (("config", "check"), ("config", "show"), ("status",), ("send", "x"), ("serve",)):
        refused(idle.run(*command), 78, str(idle.file), "nonsense")


def test_a_traceback_is_shown_only_with_debug_and_the_exit_code_stays(idle: Program) -> None:
    for command in (["status"], ["campaign", "show", "x"]):
        refused(idle.run(*command), 69, "no daemon answers")
        done = subprocess.run(
            [sys.executable, "-m", "fanoutd", "--debug", "-c", str(idle.file), *command], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (69, "")
        assert done.stderr.startswith("Traceback") and done.stderr.splitlines()[-1].startswith("fanoutd: no daemon")


def test_a_mistake_of_ours_is_one_line_too(idle: Program) -> None:
    with answering(idle, lambda _: {"result": "no object"}):
        refused(idle.run("status"), 1, "mistake", "--debug")
    with answering(idle, lambda _: {"error": {"code": -32603, "message": "the log says more", "data": None}}):
        refused(idle.run("status"), 1, "the log says more")


@pytest.mark.parametrize(
    ("code", "exit_code"), [(-32001, 77), (-32002, 65), (-32003, 75), (-32004, 65), (-32005, 69), (-32602, 65)]
)
def test_each_of_the_daemons_refusals_has_its_exit_code(idle: Program, code: int, exit_code: int) -> None:
    with answering(idle, lambda _: {"error": {"code": code, "message": "for a reason", "data": None}}):
        refused(inside(idle.file, "send", "x"), exit_code, "for a reason")


def campaign_object(**more: Any) -> dict[str, Any]:
    names = ("pending", "sent_custom", "sent_template", "failed", "skipped", "unknown")
    return {
        "id": "c-1", "account": "main", "message": "m", "audience": None, "reference": None, "key": None,
        "state": "running", "reason": None, "created_at": "2026-01-02T15:04:05.678+08:00", "send_at": None,
        "started_at": None, "finished_at": None, "total": 0, "counts": dict.fromkeys(names, 0), "errors": {},
        "rate": None, "eta_seconds": None, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ends", "exit_code", "words"),
    [
        ({"state": "done"}, 0, "c-1 done: 0 of 0"),
        ({"state": "done", "total": 1, "counts": {"pending": 0, "failed": 1}}, 1, "nobody was reached"),
        ({"state": "paused", "reason": "[main] token refused (48001)"}, 75, "[main] token refused (48001)"),
        ({"state": "paused"}, 75, "no reason given"),
        ({"state": "cancelled"}, 1, "cancelled"),
        ({"state": "failed", "reason": "colour is not supplied"}, 1, "colour is not supplied"),
    ],
)
def test_wait_ends_as_the_campaign_does(idle: Program, ends: dict[str, Any], exit_code: int, words: str) -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        submitted = {"campaign": "c-1", "duplicate": False}
        return {"result": submitted if request["method"] == "campaign.submit" else campaign_object(**ends)}

    with answering(idle, answer):
        done = inside(idle.file, "send", "x", "--wait", "--json")
    assert (done.returncode, words in done.stderr.splitlines()[-1]) == (exit_code, True), done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {**campaign_object(**ends), "campaign": "c-1",
                                                        "duplicate": False}  # fmt: skip


class answering(ExitStack):
    """In a daemon's place: whatever is asked is given this answer."""

    def __init__(self, idle: Program, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        super().__init__()
        path = idle.config.daemon.socket
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        listener = self.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock, sock.makefile("rwb") as file:
                    for line in file:
                        request = json.loads(line)
                        file.write(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer(request)}).encode())
                        file.write(b"\n")
                        file.flush()

        thread = threading.Thread(target=serve)
        thread.start()
        self.callback(thread.join, 10)
        self.callback(listener.shutdown, socket.SHUT_RDWR)


# ---- who may do what

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

#: Becomes somebody else, then sends each line that it reads, and prints the answer; a blank line connects anew.
SOMEBODY = """
import os, pwd, socket, sys
user = pwd.getpwnam(sys.argv[2])
os.setgroups([])
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
for line in sys.stdin:
    if not line.strip():
        s = socket.socket(socket.AF_UNIX)
        s.connect(sys.argv[1])
        file = s.makefile("rw")
        continue
    try:
        file.write(line)
        file.flush()
    except ConnectionError:
        pass  # it may have been answered before
    print(file.readline().strip() or "null", flush=True)
"""


class Somebody:
    """A client that is another user's."""

    def __init__(self, master: MasterProcess, user: str) -> None:
        command = [sys.executable, "-c", SOMEBODY, str(master.socket), user]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.connect()

    def __enter__(self) -> Somebody:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _write(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def connect(self) -> Somebody:
        self._write("")
        return self

    def ask(self, method: str, **params: Any) -> Any:
        """The result, or the code of the refusal."""
        self._write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
        assert self._process.stdout
        answer = json.loads(self._process.stdout.readline())
        return answer["result"] if "result" in answer else answer["error"]["code"]


OPEN = 'socket_mode = "0666"'


@pytest.fixture
def guarded() -> Iterator[MasterProcess]:
    """Everybody may connect; nobody may use it, daemon may reload it, games may nothing."""
    lists = 'allow_users = ["nobody"]\nadmin_users = ["daemon"]'
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with running(Path(folder), daemon=f"{OPEN}\n{lists}", count="1") as master:
            yield master


@only_root
def test_allow_users_may_submit_and_ask_and_only_admin_users_may_reload_and_scale(guarded: MasterProcess) -> None:
    with Somebody(guarded, "nobody") as user, Somebody(guarded, "daemon") as admin, Somebody(guarded, "games") as none:
        for each in (user, admin):
            assert each.ask("campaign.submit", content="x", message="supply")["duplicate"] is False
            assert each.ask("daemon.status")["state"] == "running"
        assert [user.ask("daemon.scale", count=2), user.ask("daemon.reload")] == [-32001, -32001]
        assert len(guarded.workers()) == 1 and guarded.status()["reload"]["count"] == 0
        assert admin.ask("daemon.scale", count=2) == {"count": 2}
        assert admin.ask("daemon.reload") == {"generation": 2}
        before = len(guarded.spooled())
        assert none.ask("campaign.submit", content="x", message="supply") == -32001
        assert none.connect().ask("daemon.ping") == -32001
        assert len(guarded.spooled()) == before
    assert "may not use the socket; see allow_users" in guarded.log()


@only_root
def test_a_reload_changes_who_may_for_those_who_come_then(guarded: MasterProcess) -> None:
    with Somebody(guarded, "nobody") as user, Somebody(guarded, "games") as other:
        assert user.ask("daemon.ping")
        assert other.ask("daemon.ping") == -32001
        write_config(guarded.folder, daemon=f'{OPEN}\nadmin_users = ["games"]', count="1")
        guarded.signal(signal.SIGHUP)
        assert guarded.reloaded()["reload"]["error"] is None
        assert user.ask("daemon.ping")  # he was let in
        assert user.connect().ask("daemon.ping") == -32001
        assert other.connect().ask("daemon.ping")
        assert other.ask("daemon.scale", count=2) == {"count": 2}
        write_config(guarded.folder, daemon=f'{OPEN}\nallow_users = ["games"]', count="1")
        guarded.signal(signal.SIGHUP)
        guarded.reloaded(2)
        assert other.ask("daemon.scale", count=3) == -32001  # at once: this is asked each time
        write_config(guarded.folder, daemon=f'{OPEN}\nallow_users = ["nobody-of-this-name"]', count="1")
        guarded.signal(signal.SIGHUP)
        assert "nobody-of-this-name" in guarded.reloaded(3)["reload"]["error"]
        assert other.connect().ask("daemon.ping")


@only_root
def test_who_may_not_is_told_so_with_77() -> None:
    with tempfile.TemporaryDirectory() as folder, program(Path(folder), OPEN, prefix=reaching()) as daemon:
        Path(folder).chmod(0o755)
        os.chown(daemon.file, 0, 65534)
        daemon.file.chmod(0o640)
        daemon.environment = {name: value for name, value in daemon.environment.items() if "COVERAGE" not in name}
        daemon.started()
        daemon.prefix += as_nobody()
        state = daemon.config.daemon.state_dir
        assert state.stat().st_mode & 0o077 == 0
        refused(daemon.run("status"), 77, "allow_users")  # he does not get at the socket
        for command in ("stop", "reload", "reopen-logs", "upgrade"):
            refused(daemon.run(command), 77, str(state))
        state.chmod(0o755)
        for command in ("status", "scale 2", "send x"):
            refused(daemon.run(*command.split()), 77, "uid 65534 may not use this socket", "allow_users")
        for command in ("stop", "reopen-logs"):
            refused(daemon.run(command), 77)
        assert daemon.pid() is not None


# ---- orders to campaigns, and what became of a person


def test_a_campaign_is_paused_resumed_and_cancelled_by_name(daemon: Daemon) -> None:
    campaign = daemon.cli("send", "later", "--at", "2099-01-01T00:00:00+08:00").stdout.strip()
    for what, state in (("pause", "paused"), ("resume", "scheduled"), ("cancel", "cancelled")):
        assert daemon.cli("campaign", what, campaign).stdout == f"{campaign} {state}\n"
    done = daemon.cli("campaign", "pause", campaign)
    assert (done.returncode, done.stdout) == (75, "") and "cancelled" in done.stderr
    assert daemon.cli("campaign", "resume", "c-nobody").returncode == 65
    answer = daemon.cli("campaign", "cancel", campaign, "--json")
    assert json.loads(answer.stdout) == {"campaign": campaign, "state": "cancelled"}


def test_whoever_is_unknown_is_counted_listed_and_resolved(daemon: Daemon) -> None:
    daemon.sandbox.set_options(drop_after=0.3)
    try:
        campaign = daemon.cli("send", "x", "--wait").stdout.split()[0]
    finally:
        daemon.sandbox.set_options(drop_after=0)
    unknown = daemon.call("campaign.get", campaign=campaign)["counts"]["unknown"]
    assert unknown > 0
    shown = daemon.cli("campaign", "show", campaign)
    assert "unknown" in shown.stdout and f"campaign export {campaign} --state unknown" in shown.stderr
    listed = daemon.cli("campaign", "export", campaign, "--state", "unknown").stdout.splitlines()[1:]
    assert len(listed) == unknown
    assert daemon.cli("campaign", "retry", campaign).returncode == 2
    refused = daemon.cli("campaign", "retry", campaign, "--unknown")
    assert refused.returncode == 2 and "a second time" in refused.stderr and "--yes" in refused.stderr
    assert daemon.call("campaign.get", campaign=campaign)["counts"]["unknown"] == unknown
    one = listed[0].split(",")[0]
    assert daemon.cli("campaign", "resolve", campaign, "--sent", "--openids", "-", text=f"{one}\n").returncode == 0
    assert daemon.call("campaign.get", campaign=campaign)["counts"]["unknown"] == unknown - 1
    assert daemon.cli("campaign", "resolve", campaign).returncode == 2
    assert daemon.cli("campaign", "retry", campaign, "--unknown", "--yes").returncode == 0
    assert daemon.until(campaign)["counts"]["unknown"] == 0
    assert daemon.cli("campaign", "repair", campaign, "--yes").returncode == 75


def test_explain_tells_a_life_line_by_line(daemon: Daemon) -> None:
    campaign = daemon.cli("send", "x", "--openids", "-", text=f"{follower(1)}\n").stdout.strip()
    daemon.until(campaign)
    told = daemon.cli("explain", follower(1), "--campaign", campaign).stdout
    assert told.startswith(f"campaign {campaign}\n") and "taken into the campaign" in told
    assert "called, custom" in told and "sent as custom message" in told
    events = [json.loads(line) for line in daemon.cli("explain", follower(1), "--json").stdout.splitlines()]
    assert {"at", "campaign", "event", "channel", "errcode", "msgid", "attempt", "node", "detail"} == set(events[0])
    nobody = daemon.cli("explain", "oNOBODY")
    assert (nobody.returncode, nobody.stdout) == (0, "") and "is in no campaign" in nobody.stderr
    for wrong in (("x",), ("oNOBODY", "--campaign", "no")):
        assert daemon.cli("explain", *wrong).returncode == 65


def test_on_a_full_disk_a_command_says_so_and_a_check_has_its_exit_code_still(idle: Program) -> None:
    for command, code, words in (
        (("check",), 2, ""),  # no daemon runs
        (("config", "show"), 1, "fanoutd: what is printed cannot be written: No space left on device; make room\n"),
    ):
        with Path("/dev/full").open("w") as full:
            done = idle.run(*command, stdout=full)
        assert (done.returncode, done.stderr) == (code, words)


@pytest.mark.parametrize(
    ("method", "params", "code", "field"),
    [
        ("campaign.list", {"before": "nope"}, -32002, "before"),
        ("campaign.get", {"campaign": "nope"}, -32002, "campaign"),
        ("campaign.deliveries", {"after": "x"}, -32602, "after"),
        ("campaign.deliveries", {"after": f"{10**30}:1"}, -32602, "after"),
        ("campaign.deliveries", {"after": "0:-2"}, -32602, "after"),
        ("campaign.pause", {}, -32003, "campaign"),
    ],
)
def test_what_the_store_is_asked_in_vain_names_the_field(
    daemon: Daemon, method: str, params: dict[str, Any], code: int, field: str
) -> None:
    if method in ("campaign.deliveries", "campaign.pause"):
        done = daemon.call("campaign.submit", content="x", phone="1", key="once")["campaign"]
        daemon.until(done)
        params = {"campaign": done, **params}
    with Client(daemon.socket) as client, pytest.raises(ClientError) as refused:
        client.call(method, **params)
    assert (refused.value.code, refused.value.data) == (code, {"field": field})


def test_words_of_a_submission_steer_no_terminal(daemon: Daemon) -> None:
    campaign = daemon.call(
        "campaign.submit", content="one\x1b]0;mine\x07", phone="1", reference="r\x1b[2J\n  paid \x7f\u202e人",
        test="oTESTsomebody001",
    )["campaign"]  # fmt: skip
    daemon.until(campaign)
    for command in (("campaign", "show", campaign), ("campaign", "report", campaign)):
        said = data(daemon.cli(*command))
        assert not {each for each in said if each in "\x1b\x07\x7f\u202e"}
        assert "r?[2J paid ??人" in said
    assert json.loads(data(daemon.cli("campaign", "show", campaign, "--json")))["reference"].startswith("r\x1b[2J\n")
