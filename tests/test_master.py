"""The master as a process, with real children that send nothing, real signals and real sockets."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fanoutd.errors import Unreachable
from fanoutd.ids import keyed_campaign_id
from fanoutd.master import lock
from support.master import Connection, MasterProcess, alive, running, until

BARE = b'{"content":"\xe4\xbe\x9b\xe5\xba\x94","flag":"0","phone":"110","message":"supply"}'

#: Seconds that a busy machine and the interpreter's own end add to the daemon's.
SLACK = 2.0


@pytest.fixture
def master(tmp_path: Path) -> Iterator[MasterProcess]:
    with running(tmp_path) as process:
        yield process


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MasterProcess]:
    """One for all tests that leave it alive."""
    with running(tmp_path_factory.mktemp("living")) as process:
        yield process


def submit(master: MasterProcess, **params: Any) -> Any:
    return master.result("campaign.submit", **{"content": "x", "message": "supply", **params})


def left(master: MasterProcess) -> list[str]:
    """What a daemon must not leave behind."""
    return [file.name for file in (master.socket, master.folder / "f.pid", master.folder / "state" / "lock")
            if file.exists()]


# ---- start


def test_ready_means_that_ping_answers(living: MasterProcess) -> None:
    assert living.result("daemon.ping") == {"pid": living.process.pid, "version": "0.1.0"}
    assert (living.folder / "f.pid").read_text() == f"{living.process.pid}\n"
    assert stat.S_IMODE(living.socket.stat().st_mode) == 0o660


def test_the_status_has_every_key(living: MasterProcess) -> None:
    status = living.status()
    assert set(status) == {
        "version", "node", "pid", "started_at", "generation", "state", "promise", "store", "accounts", "spool",
        "shards", "jobs", "workers", "nodes", "reload", "upgrade", "mail", "conditions",
    }
    assert (status["state"], status["generation"], status["promise"]) == ("running", 1, "exact")
    assert [(row["slot"], row["role"], row["state"], row["restarts"]) for row in status["workers"]] == [
        (0, "dispatcher", "idle", 0), (1, "worker", "idle", 0), (2, "worker", "idle", 0), (0, "mold", "idle", 0),
    ]
    second = status["workers"][2]
    assert (second["campaign"], second["sent"], second["rate"]) == ("c-1", 2, 1.5)
    assert second["rss_bytes"] > 1 << 20
    assert 0 <= second["heartbeat_age"] < 60
    jobs = {
        "health_check", "token_check", "spool_sweep", "rescue_sweep", "quota_check", "errands", "recurring",
        "retention",
    }  # fmt: skip
    assert {job["name"] for job in status["jobs"]} == jobs


def test_a_second_daemon_is_refused_and_the_first_unharmed(living: MasterProcess) -> None:
    second = living.start()
    _, said = second.communicate(timeout=10)
    assert second.returncode == 75
    assert said.splitlines() == [said.strip()]
    assert f"pid {living.process.pid}" in said
    assert living.result("daemon.ping")["pid"] == living.process.pid
    assert (living.folder / "f.pid").read_text() == f"{living.process.pid}\n"


def test_a_second_daemon_on_the_same_state_or_socket_is_refused_too(living: MasterProcess) -> None:
    text = living.config_file.read_text()
    for name, other in (("state", text.replace("f.pid", "g.pid").replace("f.sock", "g.sock")),
                        ("f.sock", text.replace("f.pid", "g.pid").replace("/state", "/state2"))):
        living.config_file.write_text(other)
        second = living.start()
        _, said = second.communicate(timeout=10)
        assert (second.returncode, name in said) == (75, True)
        assert not (living.folder / "g.pid").exists()
    living.config_file.write_text(text)
    assert living.result("daemon.ping")["pid"] == living.process.pid


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


def test_children_keep_nothing_of_the_masters(living: MasterProcess) -> None:
    with living.connect() as idle:
        idle.ask("daemon.ping")
        before = {slot: descriptors(living.pid_of(slot)) for slot in (0, 1, 2)}
        for slot in (1, 2, 0):
            pid = living.pid_of(slot)
            os.kill(pid, signal.SIGKILL)
            until(lambda slot=slot, pid=pid: living.pid_of(slot) not in (None, pid), "the next child")
        living.ready()
        after = {slot: descriptors(living.pid_of(slot)) for slot in (0, 1, 2)}
    for found in (*before.values(), *after.values()):
        assert found.count("socket") == 1
        assert not [name for name in found if name.endswith((".pid", "lock")) or "eventpoll" in name]
    assert after == before
    assert os.readlink(f"/proc/{living.pid_of(1)}/fd/0") == "/dev/null"


def test_the_master_has_one_thread_and_its_descriptors_stay_flat(living: MasterProcess) -> None:
    def count() -> tuple[int, int]:
        pid = living.process.pid
        return len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd"))

    with living.connect() as client:
        client.ask("daemon.ping")
        before = count()
        for _ in range(5):
            for _ in range(20):
                living.result("daemon.ping")
            pid = client.ask("daemon.status")["result"]["workers"][1]["pid"]
            if pid:
                os.kill(pid, signal.SIGKILL)
        living.ready()
        assert before[0] == 1
        until(lambda: count() == before, "as many descriptors as before")


def test_a_killed_worker_is_replaced_and_told_to_look_for_work(living: MasterProcess) -> None:
    pid = living.ready().pid_of(1)
    os.kill(pid, signal.SIGKILL)
    until(lambda: living.pid_of(1) not in (None, pid), "its replacement")
    row = living.ready().status()["workers"][1]
    assert row["restarts"] > 0
    until(lambda: living.events(t="dead", slot=1, pid=pid), "the dispatcher's notice")
    until(lambda: living.events(slot=1, t="work", pid=row["pid"]), "a wake-up")
    assert f"worker 1 died; replaced in 0.0 s slot=1 pid={pid} generation=1 reason=SIGKILL" in living.log()


def test_work_wakes_as_many_workers_as_there_are_shards(living: MasterProcess) -> None:
    before = len(living.events(t="work"))
    living.result("campaign.list", limit=1)
    until(lambda: len(living.events(t="work")) == before + 1, "one wake-up")
    living.result("campaign.list", limit=5)
    until(lambda: {event["slot"] for event in living.events(t="work")[before + 1:]} == {1, 2}, "both wake-ups")


def test_work_that_nobody_could_be_told_of_waits_for_those_who_boot(tmp_path: Path) -> None:
    with MasterProcess(tmp_path, worker="slow") as master:
        master.result("campaign.list", limit=2)
        assert master.events(t="work") == []
        until(lambda: {event["slot"] for event in master.events(t="work")} == {1, 2}, "both wake-ups")


def test_jobs_run_in_the_dispatcher_and_show_in_the_status(living: MasterProcess) -> None:
    until(lambda: len(living.events(t="job", name="token_check")) >= 2, "two runs")
    job = next(job for job in living.status()["jobs"] if job["name"] == "token_check")
    assert job["result"] == "ok"
    assert job["last"] < job["next"]


def test_an_open_question_is_answered_by_the_next_dispatcher(living: MasterProcess) -> None:
    pid = living.pid_of(0)
    assert living.result("campaign.get", campaign="kill-once") == {"id": "kill-once", "state": "done"}
    assert living.pid_of(0) != pid


def test_a_dispatcher_that_does_not_answer_keeps_nobody_waiting_for_ever(living: MasterProcess) -> None:
    pid = living.pid_of(0)
    os.kill(pid, signal.SIGSTOP)
    with living.connect() as one, living.connect() as other:
        begun = time.monotonic()
        one.begin("campaign.get", campaign="c-1")
        assert other.ask("daemon.ping")["result"]
        status = other.ask("daemon.status")["result"]
        assert time.monotonic() - begun < 3
        assert (status["state"], status["store"]["ok"], status["accounts"]) == ("degraded", False, [])
        assert one.line()["error"]["code"] == -32005
        assert 4.5 < time.monotonic() - begun < 6
    os.kill(pid, signal.SIGCONT)
    assert living.ready().status()["state"] == "running"


def test_a_strangers_child_is_reaped_and_forgotten(tmp_path: Path) -> None:
    with running(tmp_path, stray="yes") as master:
        until(lambda: "no child of ours" in master.log(), "its line in the log")
        assert len(master.children()) == 4  # mold, dispatcher and two workers


def test_descriptors_may_run_out_and_come_back(living: MasterProcess) -> None:
    master, child = living.process.pid, living.pid_of(1)
    soft, hard = resource.prlimit(master, resource.RLIMIT_NOFILE)
    # The last client's may be open for a moment yet: with one to spare nothing would run out.
    at_rest = min(len(os.listdir(f"/proc/{master}/fd")) for _ in range(20) if not time.sleep(0.01))
    resource.prlimit(master, resource.RLIMIT_NOFILE, (at_rest, hard))
    try:
        waiting = [Connection(living.socket) for _ in range(3)]
        os.kill(child, signal.SIGKILL)
        until(lambda: "cannot accept" in living.log() and "cannot be forked" in living.log(), "the want of both")
    finally:
        resource.prlimit(master, resource.RLIMIT_NOFILE, (soft, hard))
    for client in waiting:
        with client:
            assert client.ask("daemon.ping")["result"]
    assert living.ready().pid_of(1) != child
    assert living.log().count("cannot accept") == 1


# ---- submissions


def test_the_same_key_is_the_same_campaign_also_after_a_restart(master: MasterProcess) -> None:
    first = submit(master, key="order-1")
    assert first == {"campaign": keyed_campaign_id("main", "order-1"), "duplicate": False}
    assert submit(master, key="order-1", content="other") == {**first, "duplicate": True}
    (master.folder / "state" / "spool" / "new" / first["campaign"]).unlink()
    master.process.kill()
    master.restart()
    assert submit(master, key="order-1") == {**first, "duplicate": True}
    assert master.spooled() == {}


def test_a_full_spool_refuses_and_takes_again_when_there_is_room(living: MasterProcess) -> None:
    new, aside = living.folder / "state" / "spool" / "new", living.folder / "aside"
    new.rename(aside)
    assert living.error("campaign.submit", content="x", message="supply")["code"] == -32005
    assert list((living.folder / "state" / "spool" / "tmp").iterdir()) == []
    aside.rename(new)
    submit(living)


# ---- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_ends_everything_with_exit_status_0(master: MasterProcess, number: int) -> None:
    pids = master.children()
    begun = time.monotonic()
    master.process.send_signal(number)
    assert master.process.wait(10) == 0
    assert time.monotonic() - begun < 1 + SLACK
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
        assert client.ask("daemon.ping")
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
        assert 0.5 < time.monotonic() - begun <= 1 + SLACK
        assert [pid for pid in pids if alive(pid)] == []


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_stop_does_not_wait(tmp_path: Path, second: int) -> None:
    with running(tmp_path, worker="deaf", graceful="30s") as master:
        master.process.send_signal(signal.SIGTERM)
        until(lambda: not master.socket.exists(), "the first one's effect")
        begun = time.monotonic()
        master.process.send_signal(second)
        assert master.process.wait(10) == 0
        assert time.monotonic() - begun < 1 + SLACK


def test_a_stop_while_everything_boots_is_not_lost(tmp_path: Path) -> None:
    for pause in (0.0, 0.005, 0.02):
        with MasterProcess(tmp_path, worker="slow") as master:
            master.connect()
            time.sleep(pause)
            master.process.send_signal(signal.SIGTERM)
            assert master.process.wait(10) == 0
            assert left(master) == []


def test_signals_to_the_whole_group_reach_only_the_master(living: MasterProcess) -> None:
    pids = living.children()
    for pid in pids:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            os.kill(pid, number)
    assert living.result("campaign.get", campaign="c-1")
    assert living.children() == pids


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
    for words in ("started socket=", "worker 1 started slot=1 pid=", "worker 2 ready slot=2 pid=",
                  "stopping on SIGTERM", "dispatcher ended slot=0 pid=", "stopped exit code 0"):
        assert words in log
    assert (master.folder / "f.log").stat().st_mode & 0o777 == 0o640
    assert "s3cret" not in log
