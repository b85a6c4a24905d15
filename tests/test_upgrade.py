"""USR2: another program in the master's place; clients and children notice nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fanoutd
from support.daemon import Daemon
from support.master import Connection, MasterProcess, running, until

USR2 = signal.SIGUSR2


@pytest.fixture
def master(tmp_path: Path) -> Iterator[MasterProcess]:
    """It runs from a copy of the program, which a test may change."""
    shutil.copytree(Path(fanoutd.__file__).parent, tmp_path / "fanoutd", ignore=shutil.ignore_patterns("__pycache__"))
    with running(tmp_path) as process:
        yield process


def change(master: MasterProcess, module: str, old: str, new: str) -> None:
    file = master.folder / "fanoutd" / module
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def upgraded(master: MasterProcess, count: int = 1) -> Any:
    """The status when so many upgrades have come to their end."""
    def settled() -> Any:
        status = master.status()
        done = status["upgrade"]["count"] >= count and status["upgrade"]["stage"] in ("done", "refused")
        return status if done else None

    return until(settled, f"upgrade {count} settled", 20)


def test_the_new_program_has_the_old_ones_pid_children_and_history(master: MasterProcess) -> None:
    before = master.status()
    change(master, "__init__.py", '__version__ = "', '__version__ = "9.')
    master.signal(USR2)
    after = upgraded(master)
    assert after["version"] == f"9.{before['version']}" == master.result("daemon.ping")["version"]
    for key in ("pid", "started_at", "generation", "node", "state"):
        assert after[key] == before[key]
    children = [[(row["role"], row["pid"], row["restarts"]) for row in each["workers"]] for each in (before, after)]
    assert children[0] == children[1]
    assert "error" not in master.log()


def test_a_worker_that_dies_after_it_is_replaced_and_a_reload_works(master: MasterProcess) -> None:
    master.signal(USR2)
    upgraded(master)
    pid = master.pid_of(1)
    os.kill(pid, signal.SIGKILL)
    until(lambda: master.pid_of(1) not in (None, pid), "its replacement")
    master.write_code("c-2")
    assert master.result("daemon.reload") == {"generation": 2}
    assert {row["campaign"] for row in master.ready().workers()} == {"c-2"}


def test_connections_outlive_it_with_all_that_is_half_said(master: MasterProcess) -> None:
    campaign = master.folder / "state" / "campaign"
    campaign.write_text(json.dumps({"state": "running", "counts": 1}))
    with master.connect() as idle, master.connect() as watcher, master.connect() as half:
        idle.ask("daemon.ping")
        watcher.ask("campaign.watch", campaign="c-7")
        request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "daemon.ping"}).encode()
        half.write(request[:20])
        master.signal(USR2)
        upgraded(master)
        half.write(request[20:] + b"\n")
        assert half.line()["result"]["pid"] == idle.ask("daemon.ping")["result"]["pid"] == master.process.pid
        campaign.write_text(json.dumps({"state": "done", "counts": 2}))
        assert watcher.line()["params"] == {"id": "c-7", "state": "done", "counts": 2}


def test_what_was_asked_before_it_is_answered(master: MasterProcess) -> None:
    with master.connect() as asker, master.connect() as silent:
        silent.begin("campaign.get", campaign="silence")
        requests = [{"jsonrpc": "2.0", "id": i, "method": "campaign.get", "params": {"campaign": "c-1"}}
                    for i in range(2000)]  # fmt: skip
        asker.write(b"".join(json.dumps(each).encode() + b"\n" for each in requests))
        master.signal(USR2)
        assert sorted(asker.line()["id"] for _ in requests) == list(range(2000))
        assert silent.line()["error"]["code"] == -32005
        upgraded(master)


def test_nobody_is_refused_while_it_happens_five_times(master: MasterProcess) -> None:
    pids: list[int] = []
    over = threading.Event()

    def hammer() -> None:
        while not over.is_set():
            with Connection(master.socket) as connection:
                pids.append(connection.ask("daemon.ping")["result"]["pid"])

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for count in range(1, 6):
        master.signal(USR2)
        upgraded(master, count)
    over.set()
    for thread in threads:
        thread.join(10)
    assert len(pids) > 100 and set(pids) == {master.process.pid}


@pytest.mark.parametrize(
    ("module", "old", "new", "said"),
    [
        ("master/crew.py", "class Crew:", "class Crew(:", "SyntaxError"),
        ("master/master.py", "import logging", "import nowhere_to_be_found", "nowhere_to_be_found"),
        ("master/takeover.py", "_FORMAT = 1", "_FORMAT = 2", "format 1, not 2"),
    ],
)
def test_a_program_that_cannot_take_over_is_refused_and_the_old_one_goes_on(
    master: MasterProcess, module: str, old: str, new: str, said: str
) -> None:
    before = [row["pid"] for row in master.status()["workers"]]
    change(master, module, old, new)
    master.signal(USR2)
    status = upgraded(master)
    assert (status["state"], status["upgrade"]["stage"]) == ("degraded", "refused")
    assert said in status["upgrade"]["error"] and said in master.log()
    assert [row["pid"] for row in status["workers"]] == before
    change(master, module, new, old)
    master.signal(USR2)
    assert upgraded(master, 2)["state"] == "running"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("when", ["at once", "while it replaces"])
def test_a_stop_wins(master: MasterProcess, number: int, when: str) -> None:
    master.signal(USR2)
    if when == "while it replaces":
        until(lambda: "replacing the program" in master.log(), "the exec")
    master.signal(number)
    assert master.process.wait(10) == 0
    assert not master.children() and not master.socket.exists() and not (master.folder / "f.pid").exists()


def test_a_second_daemon_is_refused_after_it_too(master: MasterProcess) -> None:
    master.signal(USR2)
    upgraded(master)
    second = master.start()
    assert second.wait(10) == 75
    assert second.stderr and f"pid {master.process.pid}" in second.stderr.read()
    second.stderr.close()
    master.ready()


def test_a_running_campaign_reaches_everybody_once_through_upgrades_and_reloads(tmp_path: Path) -> None:
    d = Daemon(tmp_path, followers=3000, workers=2, concurrency=16, latency="40ms")
    try:
        campaign = d.call("campaign.submit", content="x", phone="1")["campaign"]
        for command in ("upgrade", "reload", "upgrade"):
            done = d.cli(command)
            assert done.returncode == 0, done.stderr
        assert d.until(campaign)["counts"]["unknown"] == 0
        assert d.audit(campaign).good
        assert d.call("daemon.ping")["pid"] == d.process.pid
    finally:
        d.close()
