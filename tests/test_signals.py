"""Every signal in every phase of a daemon's life: the exit status, what is left, and everybody's message.

FANOUTD_MATRIX=whole adds doubled and mixed signals; ``scripts/matrix`` runs that on every Python there is.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.bench import wait_for
from support.daemon import Daemon
from support.sandbox import SandboxProcess

ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
STAYING = {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU}
SIGNALS = sorted(ENDING | STAYING)
WHOLE = os.environ.get("FANOUTD_MATRIX") == "whole"
HOW = ("once", "twice", "mixed") if WHOLE else ("once",)

WORKERS, CONCURRENCY, FOLLOWERS = 2, 8, 240


@dataclass
class Cell:
    """One daemon on its way through one phase."""

    daemon: Daemon
    campaign: str | None = None
    ended: bool = False
    sent: list[int] = field(default_factory=list)

    def log(self) -> str:
        file = self.daemon.folder / "fanoutd.log"
        return file.read_text() if file.exists() else ""

    def until_logged(self, words: str) -> None:
        wait_for(lambda: words in self.log(), words)

    def signal(self, number: int) -> None:
        self.sent.append(number)
        if self.daemon.process.poll() is None:
            self.daemon.process.send_signal(number)

    def begin(self) -> None:
        """A campaign that is being sent."""
        self.campaign = self.daemon.call("campaign.submit", content="x", phone="1")["campaign"]
        before = len(self.daemon.accepted())
        wait_for(lambda: len(self.daemon.accepted()) > before, "the first message")


def booting(cell: Cell) -> None:
    """The master is there, no worker is."""
    cell.until_logged("mold 1 started")


def idle(cell: Cell) -> None:
    wait_for(cell.daemon.ready, "an answer")


def busy(cell: Cell) -> None:
    idle(cell)
    cell.begin()


def draining(cell: Cell) -> None:
    """It was told to stop, and finishes what is on the wire."""
    busy(cell)
    cell.signal(signal.SIGTERM)
    cell.until_logged("stopping on SIGTERM")


def reloading(cell: Cell) -> None:
    busy(cell)
    cell.signal(signal.SIGHUP)
    cell.until_logged("reloading generation=")


def stopping(cell: Cell) -> None:
    idle(cell)
    cell.signal(signal.SIGTERM)


PHASES: dict[str, Callable[[Cell], None]] = {
    each.__name__: each for each in (booting, idle, busy, draining, reloading, stopping)
}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    process = SandboxProcess(tmp_path_factory.mktemp("api") / "ledger.jsonl", latency="60ms")
    yield process
    process.close()


@pytest.fixture
def cell(tmp_path: Path, sandbox: SandboxProcess) -> Iterator[Cell]:
    daemon = Daemon(tmp_path, FOLLOWERS, WORKERS, CONCURRENCY, sandbox=sandbox, wait=False)
    yield Cell(daemon)
    daemon.close()


def follow(number: int, how: str) -> list[int]:
    """What is sent: it, it twice, or it with all the others that do not end the daemon."""
    return {"once": [number], "twice": [number, number], "mixed": [*sorted(STAYING), number, *sorted(STAYING)]}[how]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
def test_signal_by_phase(cell: Cell, number: int, phase: str, how: str) -> None:
    PHASES[phase](cell)
    for each in follow(number, how):
        cell.signal(each)
    if ENDING & set(cell.sent):
        hard = {signal.SIGINT, signal.SIGQUIT} & set(cell.sent) or cell.sent.count(signal.SIGTERM) > 1
        # INT and QUIT end it within a second; what this machine adds to that is not the daemon's.
        assert cell.daemon.process.wait(3 if hard else 10) == 0
    else:
        serves_on(cell)
        cell.daemon.process.terminate()
        assert cell.daemon.process.wait(10) == 0
        hard = False
    nothing_is_left(cell, killed=bool(hard))
    everybody_has_it(cell, unknown=WORKERS * 2 * CONCURRENCY if hard else 0)


def serves_on(cell: Cell) -> None:
    """Whatever was ordered is done in the end, and it takes and sends messages."""
    wait_for(cell.daemon.ready, "an answer")
    wait_for(lambda: settled(cell.daemon.call("daemon.status")), "everything ordered done")
    if cell.campaign is None:
        cell.begin()


def settled(status: dict[str, Any]) -> bool:
    under_way = {"working", "rehearsing", "settling"} & {status["reload"]["stage"], status["upgrade"]["stage"]}
    states = {row["state"] for row in status["workers"]}
    return not under_way and status["state"] == "running" and states <= {"idle", "busy"}


def nothing_is_left(cell: Cell, killed: bool) -> None:
    """No process, no socket, no lock, and nothing in the log that should not be. ``killed``: whoever did not
    end within half a second of INT may have been."""
    session = cell.daemon.process.pid
    assert processes_of(session) == []
    left = [name for name in ("fanoutd.sock", "fanoutd.pid", "lock") if (cell.daemon.folder / "state" / name).exists()]
    assert left == []
    bad = [line for line in cell.log().splitlines() if re.search(r"error|Traceback|killed|died", line)
           and not (killed and "has not ended in time" in line)]  # fmt: skip
    assert bad == []
    assert "stopped exit code 0" in cell.log()


def processes_of(session: int) -> list[str]:
    """The command lines of what lives in the session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[3]) == session:
                    found.append((entry / "cmdline").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def everybody_has_it(cell: Cell, unknown: int) -> None:
    """The next daemon finishes the campaign; the API's ledger agrees, person by person."""
    if cell.campaign is None:
        return
    cell.daemon.serve()
    counts = cell.daemon.until(cell.campaign)["counts"]
    assert counts["unknown"] <= unknown
    audit = cell.daemon.audit(cell.campaign)
    assert not audit.twice and not audit.forgotten and not audit.untrue


def test_a_late_signal_never_changes_the_exit_status(tmp_path: Path) -> None:
    """Up to the interpreter's last instruction: signals rain on a daemon that is told to stop."""
    from support.master import write_config

    config = write_config(tmp_path)
    for number in sorted(STAYING | {signal.SIGTERM}):
        process = subprocess.Popen(
            [sys.executable, "-m", "fanoutd", "-c", str(config), "serve"], stderr=subprocess.DEVNULL
        )
        wait_for((tmp_path / "f.sock").exists, "the socket")
        process.terminate()
        while process.poll() is None:
            process.send_signal(number)
        assert process.returncode == 0, signal.Signals(number).name
