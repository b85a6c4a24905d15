"""HUP, TTIN, TTOU, scale: a new generation in force, or the old one as if nothing had been."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.master import MasterProcess, alive, running, until, write_config

HUP = signal.SIGHUP


@pytest.fixture
def master(tmp_path: Path) -> Iterator[MasterProcess]:
    with running(tmp_path) as process:
        yield process


def shown(master: MasterProcess) -> set[str]:
    """What the living workers' code shows."""
    return {row["campaign"] for row in master.workers()}


def test_new_code_and_a_new_configuration_are_in_force_after_a_reload(master: MasterProcess) -> None:
    old = {row["pid"] for row in master.status()["workers"]}
    master.write_code("c-2")
    write_config(master.folder, count="3", daemon='allow_users = ["nobody"]')
    master.signal(HUP)
    status = master.reloaded()
    assert (status["generation"], status["state"], status["reload"]["error"]) == (2, "running", None)
    until(lambda: len(master.workers()) == 3 and shown(master) == {"c-2"}, "three workers of the new code")
    until(lambda: not any(map(alive, old)), "the old generation's end, its mold's and dispatcher's too")
    assert {row["generation"] for row in master.status()["workers"]} == {2}
    assert "error" not in master.log()


def test_a_generation_stays_one_code_whatever_changes_on_disk(master: MasterProcess) -> None:
    master.write_code("c-2")
    pid = master.pid_of(1)
    os.kill(pid, signal.SIGKILL)
    until(lambda: master.pid_of(1) not in (None, pid), "its replacement")
    assert shown(master.ready()) == {"c-1"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
        ("def (", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()", "thread"),
        ("import os; os._exit(9)", "exit code 9"),
    ],
)
def test_code_that_cannot_be_loaded_is_refused_and_the_old_generation_goes_on(
    master: MasterProcess, more: str, said: str
) -> None:
    before = [row["pid"] for row in master.workers()]
    master.write_code("c-2", more)
    master.signal(HUP)
    status = master.reloaded()
    assert (status["generation"], status["state"], status["reload"]["stage"]) == (1, "degraded", "refused")
    assert said in status["reload"]["error"] and said in master.log()
    assert [row["pid"] for row in master.workers()] == before
    os.kill(before[0], signal.SIGKILL)
    until(lambda: len({*before, *(row["pid"] for row in master.workers())}) == 3, "a replacement of the old code")
    assert shown(master.ready()) == {"c-1"}
    master.write_code("c-3")
    master.signal(HUP)
    status = master.reloaded(2)
    assert (status["state"], status["reload"]["error"]) == ("running", None)
    assert status["generation"] == 3
    until(lambda: shown(master) == {"c-3"}, "the last of the old ones to leave")


def test_workers_that_do_not_boot_are_refused_after_three_canaries(master: MasterProcess) -> None:
    before = [row["pid"] for row in master.workers()]
    (master.folder / "state" / "no-boot").touch()
    master.signal(HUP)
    status = master.reloaded()
    assert status["reload"]["error"].startswith("workers of generation 2 do not boot: 3 died, the last one with exit")
    assert [row["pid"] for row in master.workers()] == before
    (master.folder / "state" / "no-boot").unlink()
    master.signal(HUP)
    assert master.reloaded(2)["generation"] == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("\n[nonsense\n", "TOML"),
        ("\n[daemon2]\n", "daemon2"),
        ('\n[store]\nurl = "sqlite:///elsewhere.db"\n', "[store] url cannot change"),
    ],
)
def test_a_configuration_that_cannot_come_into_force_changes_nothing(
    master: MasterProcess, change: str, said: str
) -> None:
    text = master.config_file.read_text()
    before = [row["pid"] for row in master.status()["workers"]]
    master.config_file.write_text(text + change)
    master.signal(HUP)
    status = master.reloaded()
    assert (status["generation"], status["state"]) == (1, "degraded")
    assert said in status["reload"]["error"]
    assert [row["pid"] for row in status["workers"]] == before
    master.config_file.write_text(text)
    assert master.result("daemon.reload") == {"generation": 2}
    assert master.status()["state"] == "running"


def test_a_place_that_changes_is_refused(master: MasterProcess) -> None:
    text = master.config_file.read_text()
    master.config_file.write_text(text.replace("/f.pid", "/g.pid"))
    error = master.error("daemon.reload")
    assert error["code"] == -32003
    assert "[daemon] pidfile cannot change while the daemon runs" in error["message"]


def test_of_two_reloads_at_once_the_last_one_counts_and_both_are_answered(tmp_path: Path) -> None:
    with running(tmp_path, worker="slow") as master, master.connect() as one, master.connect() as two:
        one.begin("daemon.reload")
        two.begin("daemon.reload")
        generations = {one.line()["result"]["generation"], two.line()["result"]["generation"]}
        assert len(generations) == 1 and generations <= {2, 3}
        assert {row["generation"] for row in master.ready().status()["workers"]} == generations


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_the_middle_of_a_reload_wins(tmp_path: Path, number: int) -> None:
    with running(tmp_path, worker="slow") as master:
        master.signal(HUP)
        until(lambda: "mold 2 ready" in master.log(), "the new mold")
        master.signal(number)
        assert master.process.wait(5) == 0
        assert not master.children() and not master.socket.exists()


def test_workers_come_and_go_as_they_are_wanted_until_the_next_reload(master: MasterProcess) -> None:
    for number, count in ((signal.SIGTTIN, 3), (signal.SIGTTOU, 2), (signal.SIGTTOU, 1), (signal.SIGTTOU, 1)):
        master.signal(number)
        until(lambda count=count: len(master.workers()) == count, f"{count} workers")
    assert master.result("daemon.scale", count=5) == {"count": 5}
    until(lambda: len(master.workers()) == 5, "five workers")
    for bad in (0, 1001, "many", None, True):
        assert master.error("daemon.scale", count=bad)["code"] == -32602
    master.signal(HUP)
    master.reloaded()
    until(lambda: len(master.workers()) == 2, "as many as the configuration says")


def test_fifty_reloads_leave_the_master_as_it_was(master: MasterProcess) -> None:
    def figures() -> tuple[int, int, int]:
        proc = Path(f"/proc/{master.process.pid}")
        resident = int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir())), resident

    for _ in range(5):  # what grows once is there
        master.result("daemon.reload")
    before = figures()
    for _ in range(50):
        master.result("daemon.reload")
    until(lambda: len(master.children()) == 4 and figures()[0] <= before[0], "the last ones to leave", 20)
    after = figures()
    assert after[0] <= before[0] and after[1] == 1, (before, after)
    assert after[2] - before[2] < 1 << 20, f"{before[2]} -> {after[2]} bytes"
    assert master.status()["generation"] == 56
