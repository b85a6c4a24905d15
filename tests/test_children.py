"""What becomes of children that hang, tire, fail to boot or lose their mold."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.master import MasterProcess, alive, running, until


@pytest.fixture
def master(tmp_path: Path) -> Iterator[MasterProcess]:
    with running(tmp_path) as process:
        yield process


def give_work(master: MasterProcess, shards: int = 1) -> None:
    """The fake dispatcher says that there are so many shards."""
    master.result("campaign.list", limit=shards)


def test_a_hung_worker_writes_down_its_stack_and_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path, worker="hung", hang="1s") as master:
        give_work(master)
        hung = until(lambda: [row for row in master.workers() if row["state"] == "busy"], "a busy one")[0]
        until(lambda: not alive(hung["pid"]), "its end", 6)
        until(lambda: len({row["pid"] for row in master.ready().workers()} - {hung["pid"]}) == 2, "its replacement")
        log = master.log()
        assert f"worker {hung['slot']} no sign of life for 1." in log
        assert "in hang_here" in log and "Fatal Python error: Aborted" in log
        assert "reason=SIGABRT" in log


def test_one_that_cannot_even_be_aborted_is_killed(tmp_path: Path) -> None:
    with running(tmp_path, hang="1s") as master:
        pid = master.pid_of(1)
        os.kill(pid, signal.SIGSTOP)
        give_work(master, 2)
        until(lambda: not alive(pid), "its end", 8)
        assert "worker 1 has not ended in time: killed" in master.log()
        master.ready()


def test_a_dispatcher_that_hangs_is_replaced_and_its_question_answered(tmp_path: Path) -> None:
    with running(tmp_path, hang="1s") as master:
        pid = master.pid_of(0)
        os.kill(pid, signal.SIGSTOP)
        until(lambda: not alive(pid), "its end", 8)
        master.ready()
        assert master.status()["store"]["ok"]


def test_nobody_is_killed_because_the_master_was_stopped(tmp_path: Path) -> None:
    with running(tmp_path, worker="hung", hang="2s") as master:
        give_work(master)
        before = [row["pid"] for row in master.status()["workers"]]
        master.signal(signal.SIGSTOP)
        for pid in before:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2.5)  # the time itself is what is tested
        for pid in before:
            os.kill(pid, signal.SIGCONT)
        master.signal(signal.SIGCONT)
        until(lambda: "this process was stopped for" in master.log(), "its notice")
        assert [row["pid"] for row in master.status()["workers"]] == before
        assert "no sign of life" not in master.log()


def test_a_tired_worker_goes_when_its_successor_is_ready_one_at_a_time(tmp_path: Path) -> None:
    with running(tmp_path, worker="tired", count="3") as master:
        before = {row["pid"] for row in master.workers()}
        give_work(master, 3)
        until(lambda: not any(map(alive, before)), "three new ones")
        assert [row["restarts"] for row in master.ready().workers()] == [0, 0, 0]
        events = re.findall(r"worker \d (ready|gives way)", master.log())[3:]
        assert events == ["ready", "gives way"] * 3
        assert master.log().count('reason=enough') == 3


def test_an_error_in_a_worker_is_in_the_log_and_ends_it(tmp_path: Path) -> None:
    with running(tmp_path, worker="failing") as master:
        pid = master.pid_of(1)
        give_work(master, 2)
        until(lambda: not alive(pid), "its end")
        until(lambda: "RuntimeError: failing as it was told to" in master.log(), "its last words")
        assert f"worker 1[{pid}] error: dies of an error" in master.log()


def test_a_boot_loop_forks_at_most_ten_times_in_ten_seconds_and_ends_when_it_can(tmp_path: Path) -> None:
    with running(tmp_path, count="4") as master:
        (tmp_path / "state" / "no-boot").touch()
        for row in master.workers():
            os.kill(row["pid"], signal.SIGKILL)
        begun = len(re.findall(r"worker \d started", master.log()))
        time.sleep(10)  # the time itself is what is tested
        forks = len(re.findall(r"worker \d started", master.log())) - begun
        assert 3 <= forks <= 10
        assert master.status()["state"] == "degraded"
        assert "result" in master.ask("campaign.submit", content="x", openids=["o12345678"], message="fixed")
        (tmp_path / "state" / "no-boot").unlink()
        until(lambda: len(master.workers()) == 4 and master.status()["state"] == "running", "all back", 15)


def test_one_worker_that_does_not_come_back_takes_nobody_down(tmp_path: Path) -> None:
    with running(tmp_path, count="4") as master:
        others = [row["pid"] for row in master.workers()[1:]]
        (tmp_path / "state" / "no-boot").touch()
        os.kill(master.pid_of(1), signal.SIGKILL)
        until(lambda: master.log().count("exit code 3") >= 4, "four tries", 10)
        assert [row["pid"] for row in master.workers() if row["state"] == "idle"] == others
        assert master.process.poll() is None


def test_a_killed_mold_is_replaced_and_its_children_live(master: MasterProcess) -> None:
    for _ in range(10):
        mold, victim = master.mold(), master.pid_of(1)
        others = [row["pid"] for row in master.workers()[1:]]
        os.kill(mold, signal.SIGKILL)
        os.kill(victim, signal.SIGKILL)
        until(lambda mold=mold: not alive(mold), "its end")
        master.ready()
        assert [row["pid"] for row in master.workers()[1:]] == others
        assert master.mold() != mold
    assert len(master.children()) == 4


def test_a_mold_that_hangs_is_noticed_when_a_child_is_wanted(master: MasterProcess) -> None:
    mold, victim = master.mold(), master.pid_of(1)
    os.kill(mold, signal.SIGSTOP)
    os.kill(victim, signal.SIGKILL)
    until(lambda: not alive(mold), "its end", 15)
    master.ready()
    assert "not ready after 10 s" in master.log()


def test_fifty_killed_workers_are_replaced_at_once_and_leave_nothing_behind(master: MasterProcess) -> None:
    def count() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (master.process.pid, master.mold())]

    before, waits = count(), []
    for i in range(50):
        pid = master.pid_of(i % 2 + 1)
        begun = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: pid not in [row["pid"] for row in master.workers()], "his end")
        master.ready()
        waits.append(time.monotonic() - begun)
    assert sorted(waits)[25] < 0.25, waits  # a figure for a noisy machine; scripts/figures has the real one
    until(lambda: count() == before, "the same descriptors")
    assert len(master.children()) == 4
