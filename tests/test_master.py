"""The master as a process, with real children that send nothing, real signals and real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.master import Connection, MasterProcess, alive, running, until

from fanoutd.errors import Unreachable
from fanoutd.ids import keyed_campaign_id
from fanoutd.master import lock

BARE = b'{"content":"\xe4\xbe\x9b\xe5\xba\x94","flag":"0","phone":"110","message":"supply"}'


@pytest.fixture
def master(tmp_path: Path) -> Iterator[MasterProcess]:
    with running(tmp_path) as process:
        yield process


def submit(master: MasterProcess, **params: Any) -> Any:
    return master.result("campaign.submit", **{"content": "x", "message": "supply", **params})


def left(master: MasterProcess) -> list[str]:
    """What a daemon must not leave behind."""
    return [file.name for file in (master.socket, master.folder / "f.pid", master.folder / "state" / "lock")
            if file.exists()]


# ---- start


def test_ready_means_that_ping_answers(master: MasterProcess) -> None:
    assert master.result("daemon.ping") == {"pid": master.process.pid, "version": "0.1.0"}
    assert (master.folder / "f.pid").read_text() == f"{master.process.pid}\n"
    assert stat.S_IMODE(master.socket.stat().st_mode) == 0o660


def test_the_status_has_every_key(master: MasterProcess) -> None:
    status = master.status()
    assert set(status) == {
        "version", "node", "pid", "started_at", "generation", "state", "promise", "store", "accounts", "spool",
        "shards", "jobs", "workers", "nodes",
    }
    assert (status["state"], status["generation"], status["promise"]) == ("running", 1, "exact")
    assert [(row["slot"], row["role"], row["state"], row["restarts"]) for row in status["workers"]] == [
        (0, "dispatcher", "idle", 0), (1, "worker", "idle", 0), (2, "worker", "idle", 0),
    ]
    second = status["workers"][2]
    assert (second["campaign"], second["sent"], second["rate"]) == ("c-1", 2, 1.5)
    assert second["rss_bytes"] > 1 << 20
    assert 0 <= second["heartbeat_age"] < 60
    assert {job["name"] for job in status["jobs"]} == {"token_check", "spool_sweep", "rescue_sweep"}


def test_a_second_daemon_is_refused_and_the_first_unharmed(master: MasterProcess) -> None:
    second = master.start()
    _, said = second.communicate(timeout=10)
    assert second.returncode == 75
    assert said.splitlines() == [said.strip()]
    assert f"pid {master.process.pid}" in said
    assert master.result("daemon.ping")["pid"] == master.process.pid
    assert (master.folder / "f.pid").read_text() == f"{master.process.pid}\n"


def test_a_second_daemon_on_the_same_state_or_socket_is_refused_too(master: MasterProcess) -> None:
    text = master.config_file.read_text()
    for name, other in (("state", text.replace("f.pid", "g.pid").replace("f.sock", "g.sock")),
                        ("f.sock", text.replace("f.pid", "g.pid").replace("/state", "/state2"))):
        master.config_file.write_text(other)
        second = master.start()
        _, said = second.communicate(timeout=10)
        assert (second.returncode, name in said) == (75, True)
        assert not (master.folder / "g.pid").exists()
    assert master.result("daemon.ping")["pid"] == master.process.pid


def test_somebody_who_listens_on_the_socket_is_left_alone(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "f.sock"))
        other.listen()
        with MasterProcess(tmp_path) as master:
            assert master.process.wait(10) == 75
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "f.sock"))


@pytest.mark.parametrize(("state_dir", "code"), [("/proc/nope", 77), ("fanoutd.toml/state", 77)])
def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path: Path, state_dir: str, code: int) -> None:
    with MasterProcess(tmp_path) as master:
        master.process.kill()
        text = master.config_file.read_text().replace(f"{tmp_path}/state", state_dir)
        master.config_file.write_text(text)
        master.restart()
        _, said = master.process.communicate(timeout=10)
        assert master.process.returncode == code
        assert len(said.splitlines()) == 1


def test_a_file_in_the_sockets_place_and_an_unknown_user_are_bad_configuration(tmp_path: Path) -> None:
    (tmp_path / "f.sock").write_text("mine")
    with MasterProcess(tmp_path) as master:
        assert master.process.wait(10) == 78
        assert (tmp_path / "f.sock").read_text() == "mine"
    with MasterProcess(tmp_path, daemon='allow_users = ["nobody-of-this-name"]') as master:
        assert master.process.wait(10) == 78


def test_the_daemon_ends_when_no_worker_can_boot(tmp_path: Path) -> None:
    with MasterProcess(tmp_path, worker="unbootable") as master:
        _, said = master.process.communicate(timeout=10)
        assert master.process.returncode == 1
        assert len(said.splitlines()) == 1
        assert "exit code 3" in said
        assert left(master) == []


# ---- children


def descriptors(pid: int) -> list[str]:
    return sorted(os.readlink(f"/proc/{pid}/fd/{fd}").split(":")[0] for fd in os.listdir(f"/proc/{pid}/fd"))


def test_children_keep_nothing_of_the_masters(master: MasterProcess) -> None:
    with master.connect() as idle:
        idle.ask("daemon.ping")
        before = {slot: descriptors(master.pid_of(slot)) for slot in (0, 1, 2)}
        for slot in (1, 2, 0):
            pid = master.pid_of(slot)
            os.kill(pid, signal.SIGKILL)
            until(lambda slot=slot, pid=pid: master.pid_of(slot) not in (None, pid), "the next child")
        master.ready()
        after = {slot: descriptors(master.pid_of(slot)) for slot in (0, 1, 2)}
    for found in (*before.values(), *after.values()):
        assert found.count("socket") == 1
        assert not [name for name in found if name.endswith((".pid", "lock")) or "eventpoll" in name]
    assert after == before
    assert os.readlink(f"/proc/{master.pid_of(1)}/fd/0") == "/dev/null"


def test_the_master_has_one_thread_and_its_descriptors_stay_flat(master: MasterProcess) -> None:
    def count() -> tuple[int, int]:
        pid = master.process.pid
        return len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd"))

    with master.connect() as client:
        client.ask("daemon.ping")
        before = count()
        for _ in range(5):
            for _ in range(20):
                master.result("daemon.ping")
            pid = client.ask("daemon.status")["result"]["workers"][1]["pid"]
            if pid:
                os.kill(pid, signal.SIGKILL)
        master.ready()
        assert before[0] == 1
        until(lambda: count() == before, "as many descriptors as before")


def test_a_killed_worker_is_replaced_and_told_to_look_for_work(master: MasterProcess) -> None:
    pid = master.pid_of(1)
    os.kill(pid, signal.SIGKILL)
    until(lambda: master.status()["workers"][1]["restarts"] == 1, "its replacement")
    row = master.ready().status()["workers"][1]
    assert row["pid"] != pid
    until(lambda: master.events(t="dead", slot=1, pid=pid), "the dispatcher's notice")
    assert until(lambda: master.events(slot=1, t="work"), "a wake-up")[0]["pid"] == row["pid"]
    assert "worker 1 died" in master.log()
    assert "SIGKILL" in master.log()


def test_work_wakes_as_many_workers_as_there_are_shards(master: MasterProcess) -> None:
    master.result("campaign.list", limit=1)
    until(lambda: len(master.events(t="work")) == 1, "one wake-up")
    master.result("campaign.list", limit=5)
    until(lambda: {event["slot"] for event in master.events(t="work")[1:]} == {1, 2}, "both wake-ups")


def test_work_that_nobody_could_be_told_of_waits_for_those_who_boot(tmp_path: Path) -> None:
    with MasterProcess(tmp_path, worker="slow") as master:
        master.result("campaign.list", limit=2)
        assert master.events(t="work") == []
        until(lambda: {event["slot"] for event in master.events(t="work")} == {1, 2}, "both wake-ups")


def test_jobs_run_in_the_dispatcher_and_show_in_the_status(master: MasterProcess) -> None:
    until(lambda: len(master.events(t="job", name="token_check")) >= 2, "two runs")
    job = next(job for job in master.status()["jobs"] if job["name"] == "token_check")
    assert job["result"] == "ok"
    assert job["last"] < job["next"]


def test_an_open_question_is_answered_by_the_next_dispatcher(master: MasterProcess) -> None:
    pid = master.pid_of(0)
    assert master.result("campaign.get", campaign="kill-once") == {"id": "kill-once", "state": "done"}
    assert master.pid_of(0) != pid


def test_a_store_that_does_not_answer_is_not_now(master: MasterProcess) -> None:
    with master.connect() as one, master.connect() as other:
        begun = time.monotonic()
        one.begin("campaign.get", campaign="silence")
        assert other.ask("daemon.ping")["result"]
        assert one.line()["error"]["code"] == -32005
        assert 4.5 < time.monotonic() - begun < 6


def test_the_status_comes_without_a_dispatcher_too(master: MasterProcess) -> None:
    pid = master.pid_of(0)
    os.kill(pid, signal.SIGSTOP)
    status = master.status()
    os.kill(pid, signal.SIGCONT)
    assert (status["state"], status["store"]["ok"], status["accounts"]) == ("degraded", False, [])
    assert master.ready().status()["state"] == "running"


def test_a_stray_child_is_reaped_and_forgotten(tmp_path: Path) -> None:
    with MasterProcess(tmp_path) as master:
        master.process.kill()
        master.restart()
        master.ready()
        assert "no child of ours" not in master.log()


# ---- submissions


def test_a_submission_is_on_disk_when_it_is_answered_and_the_dispatcher_told(master: MasterProcess) -> None:
    answer = submit(master, openids=["o12345"])
    assert answer["duplicate"] is False
    document = master.spooled()[answer["campaign"]]
    assert (document["openids"], document["uid"], document["pid"]) == (["o12345"], os.getuid(), os.getpid())
    until(lambda: master.events(t="spool", campaign=answer["campaign"]), "the dispatcher's notice")


def test_the_same_key_is_the_same_campaign_also_after_a_restart(master: MasterProcess) -> None:
    first = submit(master, key="order-1")
    assert first == {"campaign": keyed_campaign_id("main", "order-1"), "duplicate": False}
    assert submit(master, key="order-1", content="other") == {**first, "duplicate": True}
    (master.folder / "state" / "spool" / "new" / first["campaign"]).unlink()
    master.process.kill()
    master.restart()
    assert submit(master, key="order-1") == {**first, "duplicate": True}
    assert master.spooled() == {}


@pytest.mark.parametrize("end", [b"\n", b"", b"\r\n"])
def test_a_bare_object_is_answered_in_one_line(master: MasterProcess, end: bytes) -> None:
    with master.connect() as client:
        client.write(BARE + end)
        if not end:
            client.sock.shutdown(socket.SHUT_WR)
        answer = client.line()
        assert answer == {"ok": True, "campaign": answer["campaign"]}
        assert master.spooled()[answer["campaign"]]["page"] == 0
        if not end:
            assert client.line() is None


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_client_that_hangs_up_without_reading_is_served(master: MasterProcess, end: bytes) -> None:
    with master.connect() as client:
        client.write(BARE + end)
    until(lambda: len(master.spooled()) == 1, "the submission")


def test_a_refused_bare_object_is_answered_and_logged_though_its_client_is_gone(master: MasterProcess) -> None:
    with master.connect() as client:
        client.write(b'{"content":"","flag":"0","message":"supply"}\n')
        answer = client.line()
        assert (answer["ok"], "content" in answer["error"]) == (False, True)
    with master.connect() as client:
        client.write(b'{"content":"x","flag":"soon","message":"supply"}')
    until(lambda: "page must be a whole number" in master.log(), "its line in the log")
    with master.connect() as client:
        client.write(b'{"content":"half a line')
    until(lambda: "not one JSON value" in master.log(), "its line in the log")
    assert master.spooled() == {}


def test_a_full_spool_refuses_and_takes_again_when_there_is_room(master: MasterProcess) -> None:
    new, aside = master.folder / "state" / "spool" / "new", master.folder / "aside"
    new.rename(aside)
    assert master.error("campaign.submit", content="x", message="supply")["code"] == -32005
    assert list((master.folder / "state" / "spool" / "tmp").iterdir()) == []
    aside.rename(new)
    submit(master)


# ---- the protocol


@pytest.mark.parametrize(("line", "code"), [
    (b"{nonsense\n", -32700), (b"\xff\xfe\n", -32700), (b"[" * 50_000 + b"\n", -32700), (b"[]\n", -32600),
    (b"5\n", -32600), (b'{"jsonrpc":"2.0","id":1}\n', -32600), (b"x" * 65_537 + b"\n", -32004),
])
def test_a_line_that_is_no_request_is_answered_and_the_connection_goes_on(
    master: MasterProcess, line: bytes, code: int
) -> None:
    with master.connect() as client:
        client.write(line)
        answer = client.line()
        assert (answer["error"]["code"], answer["jsonrpc"]) == (code, "2.0")
        assert client.ask("daemon.ping")["result"]


def test_errors_have_their_codes(master: MasterProcess) -> None:
    assert master.error("no.such")["code"] == -32601
    assert master.error("campaign.get", campaign="nope")["code"] == -32002
    assert master.error("daemon.ping", loud=True) == {
        "code": -32602, "message": "loud is no parameter here; there is: none", "data": {"field": "loud"},
    }


def test_a_line_too_long_is_told_while_it_is_still_being_written(master: MasterProcess) -> None:
    with master.connect() as client:
        client.write(b"x" * 70_000)
        assert client.line()["error"]["code"] == -32004
        client.write(b"y" * 200_000 + b"\n")
        assert client.ask("daemon.ping")["result"]


def test_many_requests_on_one_connection_are_matched_by_id(master: MasterProcess) -> None:
    with master.connect() as client:
        request = '{"jsonrpc":"2.0","id":"r%d","method":"daemon.ping"}\n'
        client.write("".join(request % n for n in range(50)).encode())
        assert {client.line()["id"] for _ in range(50)} == {f"r{n}" for n in range(50)}


def test_a_batch_is_answered_in_one_line_without_its_notifications(master: MasterProcess) -> None:
    with master.connect() as client:
        client.write(json.dumps([
            {"jsonrpc": "2.0", "id": 1, "method": "campaign.get", "params": {"campaign": "c-1"}},
            {"jsonrpc": "2.0", "method": "daemon.ping"}, 5,
            {"jsonrpc": "2.0", "id": 2, "method": "daemon.ping"},
            {"jsonrpc": "2.0", "id": 3, "method": "campaign.submit", "params": {"content": "x", "message": "supply"}},
        ]).encode() + b"\n")
        answers = {answer["id"]: answer for answer in client.line()}
        assert set(answers) == {None, 1, 2, 3}
        assert answers[1]["result"]["id"] == "c-1"
        assert answers[None]["error"]["code"] == -32600
        assert answers[3]["result"]["campaign"] in master.spooled()
        client.write(b'[{"jsonrpc":"2.0","method":"daemon.ping"}]\n')
        assert client.ask("daemon.ping")["result"]


def test_a_watch_tells_of_each_change_and_ends_with_the_campaign(master: MasterProcess) -> None:
    file = master.folder / "state" / "campaign"
    file.write_text('{"state":"planning"}')
    with master.connect() as client:
        assert client.ask("campaign.watch", campaign="c-1")["result"]["state"] == "planning"
        begun = time.monotonic()
        for state in ("running", "done"):
            file.with_suffix(".new").write_text(json.dumps({"state": state}))
            file.with_suffix(".new").rename(file)
            told = client.line()
            assert told == {"jsonrpc": "2.0", "method": "campaign.progress", "params": {"id": "c-1", "state": state}}
        assert time.monotonic() - begun >= 0.3
        assert client.ask("daemon.ping")["result"]
        assert client.ask("campaign.watch", campaign="c-1")["result"]["state"] == "done"


def test_who_may_not_use_the_socket_is_told_so(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    tmp_path.chmod(0o755)
    with running(tmp_path) as master:
        for folder in tmp_path.parents:
            if folder.stat().st_uid == os.getuid() and folder != Path("/tmp") and folder != Path("/"):
                folder.chmod(0o755)
        master.socket.chmod(0o666)
        code = f"""
import os, socket
os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX); s.connect({str(master.socket)!r})
s.sendall(b'{{"jsonrpc":"2.0","id":1,"method":"daemon.ping"}}\\n')
print(s.makefile().read())
"""
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=10).stdout
        assert json.loads(said)["error"]["code"] == -32001


# ---- nobody's trouble is anybody else's


def flood(path: Path, line: bytes, until_set: threading.Event) -> None:
    """Write without ever reading, and come again when dropped."""
    while not until_set.is_set():
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(0.2)
            sock.connect(str(path))
            while not until_set.is_set():
                sock.sendall(line)


@pytest.mark.parametrize("line", [
    b"\xff{]garbage\n" * 1000, b"x" * 100_000, b"[" + b"{}," * 20_000 + b"{}]\n", BARE + b"\n",
    b'{"jsonrpc":"2.0","id":1,"method":"daemon.status"}\n' * 100, b"[" * 60_000 + b"\n",
])
def test_a_flood_is_not_felt_by_others(master: MasterProcess, line: bytes) -> None:
    over = threading.Event()
    floods = [threading.Thread(target=flood, args=(master.socket, line, over)) for _ in range(3)]
    for each in floods:
        each.start()
    try:
        with master.connect() as client:
            waits = []
            for _ in range(40):
                begun = time.monotonic()
                assert client.ask("daemon.ping")["result"]
                waits.append(time.monotonic() - begun)
    finally:
        over.set()
        for each in floods:
            each.join()
    assert sorted(waits)[-2] < 0.25
    assert "Traceback" not in master.log()


def test_idle_and_half_open_connections_cost_nobody_anything(master: MasterProcess) -> None:
    clients = [master.connect() for _ in range(300)]
    for client in clients[::2]:
        client.write(b'{"jsonrpc":"2.0","id":1,"meth')
    begun = time.monotonic()
    assert master.result("daemon.ping")
    assert time.monotonic() - begun < 0.25
    for client in clients:
        client.sock.close()


def test_a_client_that_does_not_read_is_not_read_from(master: MasterProcess) -> None:
    with master.connect() as deaf:
        deaf.sock.setblocking(False)
        request = b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping"}\n' * 100
        written, quiet = 0, 0.0
        while quiet < 0.5 and written < 50 << 20:
            _, room, _ = select.select([], [deaf.sock], [], 0.1)
            quiet = 0.0 if room else quiet + 0.1
            with contextlib.suppress(BlockingIOError):
                written += deaf.sock.send(request) if room else 0
        assert written < 8 << 20
        assert master.result("daemon.ping")


# ---- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_ends_everything_with_exit_status_0(master: MasterProcess, number: int) -> None:
    pids = master.children()
    begun = time.monotonic()
    master.process.send_signal(number)
    assert master.process.wait(10) == 0
    assert time.monotonic() - begun < 1
    assert [pid for pid in pids if alive(pid)] == []
    assert left(master) == []
    asked = "stop" if number == signal.SIGTERM else "quit"
    assert {event["slot"] for event in master.events(t=asked)} == {0, 1, 2}
    assert master.process.stderr
    assert master.process.stderr.read() == ""


def test_the_dispatcher_is_stopped_when_the_workers_have_ended(master: MasterProcess) -> None:
    master.process.send_signal(signal.SIGTERM)
    assert master.process.wait(10) == 0
    assert [event["role"] for event in master.events(t="stop")][-1] == "dispatcher"
    dead = [event["slot"] for event in master.events(t="dead")]
    assert sorted(dead) == [1, 2]


def test_while_it_stops_questions_are_answered_and_submissions_refused(tmp_path: Path) -> None:
    with running(tmp_path, worker="deaf", graceful="1s") as master, master.connect() as client:
        master.process.send_signal(signal.SIGTERM)
        until(lambda: not master.socket.exists(), "the socket's end")
        assert client.ask("campaign.submit", content="x", message="supply")["error"]["code"] == -32005
        assert client.ask("campaign.get", campaign="c-1")["result"]["state"] == "done"
        assert client.ask("daemon.status")["result"]["state"] == "stopping"
        assert master.process.wait(5) == 0


def test_a_worker_that_does_not_stop_is_killed_within_the_graceful_timeout(tmp_path: Path) -> None:
    with running(tmp_path, worker="deaf", graceful="1s") as master:
        pids = master.children()
        begun = time.monotonic()
        master.process.send_signal(signal.SIGTERM)
        assert master.process.wait(10) == 0
        assert 0.5 < time.monotonic() - begun <= 1.3
        assert [pid for pid in pids if alive(pid)] == []


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_stop_does_not_wait(tmp_path: Path, second: int) -> None:
    with running(tmp_path, worker="deaf", graceful="30s") as master:
        master.process.send_signal(signal.SIGTERM)
        until(lambda: not master.socket.exists(), "the first one's effect")
        begun = time.monotonic()
        master.process.send_signal(second)
        assert master.process.wait(10) == 0
        assert time.monotonic() - begun < 1


def test_a_stop_while_everything_boots_is_not_lost(tmp_path: Path) -> None:
    for pause in (0.0, 0.002, 0.005, 0.01, 0.02):
        with MasterProcess(tmp_path, worker="slow") as master:
            master.connect()
            time.sleep(pause)
            master.process.send_signal(signal.SIGTERM)
            assert master.process.wait(10) == 0
            assert left(master) == []


def test_signals_of_a_later_version_are_said_once_and_do_nothing(master: MasterProcess) -> None:
    for _ in range(2):
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU):
            master.process.send_signal(number)
    until(lambda: master.log().count("no effect in this version") == 5, "five lines")
    assert master.result("daemon.ping")["pid"] == master.process.pid
    assert len(master.children()) == 3


def test_signals_to_the_whole_group_reach_only_the_master(master: MasterProcess) -> None:
    pids = master.children()
    for pid in pids:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            os.kill(pid, number)
    assert master.result("campaign.get", campaign="c-1")
    assert master.children() == pids


def test_a_killed_master_leaves_no_orphans_and_starts_again_at_once(master: MasterProcess) -> None:
    pids = master.children()
    campaign = submit(master)["campaign"]
    master.process.kill()
    master.restart()
    assert master.ready().result("daemon.ping")["pid"] == master.process.pid
    until(lambda: not [pid for pid in pids if alive(pid)], "the old children's end")
    assert campaign in master.spooled()


def test_an_orphan_that_lives_on_does_not_keep_the_next_daemon_out(tmp_path: Path) -> None:
    with running(tmp_path, worker="deaf") as master:
        pids = master.children()
        master.process.kill()
        master.restart()
        master.ready()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_a_daemon_whose_socket_was_taken_away_does_not_take_the_next_ones(master: MasterProcess) -> None:
    master.socket.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(master.socket))
        other.listen()
        master.process.send_signal(signal.SIGTERM)
        assert master.process.wait(10) == 0
        assert master.socket.exists()


# ---- through the lock


def test_stop_finds_the_master_by_its_lock_and_returns_when_it_has_ended(master: MasterProcess) -> None:
    reaper = threading.Thread(target=master.process.wait)
    reaper.start()
    lock.stop_daemon(master.config.daemon, patience=10)
    reaper.join()
    assert master.process.returncode == 0
    with pytest.raises(Unreachable):
        lock.stop_daemon(master.config.daemon, patience=10)


def test_the_lock_speaks_though_the_pidfile_was_deleted_and_a_left_one_does_not(master: MasterProcess) -> None:
    (master.folder / "f.pid").unlink()
    found = lock.running(master.config.daemon)
    assert found is not None
    assert found.pid == master.process.pid
    found.close()
    master.process.kill()
    master.process.wait(10)
    (master.folder / "f.pid").write_text(f"{os.getpid()}\n")
    assert lock.running(master.config.daemon) is None


def test_clients_are_told_when_the_daemon_ends(master: MasterProcess) -> None:
    with master.connect() as client:
        client.begin("campaign.get", campaign="silence")
        until(lambda: master.events(t="ask"), "the question")
        master.process.send_signal(signal.SIGINT)
        assert client.line()["error"]["code"] == -32005
        assert client.line() is None


def test_the_log_has_a_line_for_each_change(master: MasterProcess) -> None:
    master.process.send_signal(signal.SIGTERM)
    master.process.wait(10)
    log = master.log()
    for words in ("started node=", "worker 1 started pid=", "worker 2 ready pid=", "stopping on SIGTERM",
                  "dispatcher ended pid=", "stopped exit code 0"):
        assert words in log
    assert (master.folder / "f.log").stat().st_mode & 0o777 == 0o640
    assert "s3cret" not in log


def test_a_connection_is_kept_by_nobody_after_a_hangup(master: MasterProcess) -> None:
    file = master.folder / "state" / "campaign"
    file.write_text('{"state":"running"}')
    before = len(os.listdir(f"/proc/{master.process.pid}/fd"))
    with Connection(master.socket) as client:
        client.ask("campaign.watch", campaign="c-1")
        client.sock.shutdown(socket.SHUT_WR)
        until(lambda: len(master.events(t="ask")) > 3, "a few looks")
    until(lambda: len(os.listdir(f"/proc/{master.process.pid}/fd")) == before, "the descriptor's end")
