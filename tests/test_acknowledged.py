"""Fifty clients submit while the master is killed and its disk filled: what was acknowledged is there, once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from fanoutd.client import Client, TryAgain, Unreachable
from support import disk
from support.bench import wait_for
from support.program import Program

CLIENTS, SUBMISSIONS = 50, 200

#: Whoever ends is started again, as by cron or systemd; the disk stays, since this shell holds it.
CRON = 'while :; do "$@"; sleep 0.05; done'

#: Room for all that is accepted, and little more.
DISK = "size=48m"

#: Nothing of it is due before the test is over: what is asked is whether it is there.
LATER = "2099-01-01T00:00:00+08:00"


class Host:
    """A daemon whose state directory is a small disk of its own, and that is always started again."""

    def __init__(self, folder: Path) -> None:
        self.socket, self._state = folder / "f.sock", folder / "state"
        program = Program(folder, f'socket = "{self.socket}"\nlog_file = "fanoutd.log"')
        command = [*disk.mounted(self._state, DISK), "sh", "-c", CRON, "sh", *program.command, "serve"]
        with (folder / "stderr").open("ab") as stderr:
            self._cron = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stderr=stderr)
        wait_for(self.master, "a daemon")

    def master(self) -> int | None:
        """The pid of one that answers."""
        with contextlib.suppress(Unreachable, TryAgain), Client(self.socket, timeout=2) as client:
            pid: int = client.call("daemon.ping")["pid"]
            return pid
        return None

    def kill(self) -> None:
        pid = wait_for(self.master, "a daemon")
        os.kill(pid, signal.SIGKILL)

    def fill(self, seconds: float) -> None:
        """Not a byte is free on the disk for so long."""
        filler = disk.seen_by(self._cron.pid, self._state) / "filler"
        end = time.monotonic() + seconds
        with filler.open("wb", buffering=0) as file:
            while time.monotonic() < end:
                try:
                    file.write(bytes(1 << 20))
                except OSError:
                    time.sleep(0.01)  # what others give back is taken too
        filler.unlink()

    def campaigns(self) -> list[dict[str, Any]]:
        """All of them, page by page."""
        found: list[dict[str, Any]] = []
        with Client(self.socket) as client:
            while True:
                before = {"before": found[-1]["id"]} if found else {}
                page = client.call("campaign.list", limit=1000, **before)["campaigns"]
                if not page:
                    return found
                found += page

    def waiting(self) -> int:
        """Submissions in the spool."""
        with contextlib.suppress(Unreachable, TryAgain), Client(self.socket) as client:
            return int(client.call("daemon.status")["spool"]["files"])
        return -1

    def close(self) -> None:
        living = psutil.Process(self._cron.pid).children(recursive=True)
        self._cron.kill()  # first, so that nobody is started again
        self._cron.wait()
        for each in living:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.terminate()
        for each in psutil.wait_procs(living, timeout=10)[1]:
            each.kill()


@dataclass(slots=True)
class Said:
    """What the clients were told of their submissions, by reference; ``acknowledged`` has the campaigns' ids."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    unanswered: set[str] = field(default_factory=set)


class Submitter(threading.Thread):
    """One client. Keyed, it repeats what was refused or not answered; else it goes on to the next one."""

    def __init__(self, socket: Path, name: str, keyed: bool, said: Said) -> None:
        super().__init__(name=name)
        self.references = [f"{name}-{nth}" for nth in range(SUBMISSIONS)]
        self._socket, self._keyed, self._said = socket, keyed, said
        self._client: Client | None = None

    def run(self) -> None:
        for reference in self.references:
            while not self._submit(reference) and self._keyed:
                time.sleep(0.02)
        self._connected().close()

    def _submit(self, reference: str) -> bool:
        """Whether it was acknowledged."""
        client = self._connected()
        try:
            key = reference if self._keyed else None
            answer = client.submit(content="x", reference=reference, key=key, send_at=LATER)
        except TryAgain:
            self._said.refused.add(reference)
            return False
        except Unreachable:
            self._said.unanswered.add(reference)
            client.close()
            self._client = None
            return False
        self._said.acknowledged[reference] = answer["campaign"]
        return True

    def _connected(self) -> Client:
        while self._client is None:
            try:
                self._client = Client(self._socket)
            except Unreachable:
                time.sleep(0.02)
        return self._client


#: What happens, one after the other, each after so many more acknowledgements: the keyed clients alone bring enough.
TROUBLE = ("kill", "fill", "kill", "kill", "fill", "kill", "fill", "kill")
EVERY = CLIENTS * SUBMISSIONS // 2 // (len(TROUBLE) + 1)


def trouble(host: Host, said: Said) -> None:
    chance = Random(1)
    for nth, what in enumerate(TROUBLE, 1):
        wait_for(lambda nth=nth: len(said.acknowledged) >= nth * EVERY, f"acknowledgement {nth * EVERY}", 60)
        if what == "kill":
            host.kill()
        else:
            host.fill(chance.uniform(0.3, 0.5))


@pytest.mark.alone
@pytest.mark.skipif(not disk.available(), reason="needs root or user namespaces for a disk of its own")
def test_each_of_ten_thousand_acknowledged_submissions_is_one_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)  # who is killed has not counted, and is back sooner
    host, said = Host(tmp_path), Said()
    try:
        clients = [Submitter(host.socket, f"client{n}", n % 2 == 0, said) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        trouble(host, said)
        wait_for(lambda: not any(client.is_alive() for client in clients), "the clients' end", 60)
        wait_for(lambda: host.waiting() == 0, "an empty spool", 30)
        found = host.campaigns()
    finally:
        host.close()
    print({name: len(getattr(said, name)) for name in ("acknowledged", "refused", "unanswered")})
    by_id = {row["id"]: row["reference"] for row in found}
    assert {campaign: by_id.get(campaign) for campaign in said.acknowledged.values()} == {
        campaign: reference for reference, campaign in said.acknowledged.items()
    }
    times = Counter(row["reference"] for row in found)
    assert set(times.values()) == {1}
    assert times.keys() <= {reference for client in clients for reference in client.references}
    assert len(said.acknowledged) > CLIENTS * SUBMISSIONS / 2
    assert said.refused and said.unanswered
