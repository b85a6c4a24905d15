"""Several daemons on one MariaDB, each with a state directory and a way to the database of its own, and one API.

What befalls one of them here befalls a whole machine: all its processes at once, or its network.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql

from fanoutd.client import TryAgain, Unreachable
from support import chaos, sums
from support.bench import wait_for
from support.daemon import Daemon, follower
from support.mariadb import MariaDb
from support.netns import Cable, Namespace
from support.sandbox import SandboxProcess
from support.wire import Wire

#: Seconds after which a request without an answer is given up, and so after which a stopped worker has lost it.
TIMEOUT = 2.0

#: Pause between two looks, in seconds.
_LOOK = 0.1


class Node(Daemon):
    """One of them. ``killed`` and ``stopped`` count the workers that may have left requests on the wire."""

    ACCOUNT = f'timeout = "{TIMEOUT}s"\nmax_failures = 1'

    def __init__(self, number: int, folder: Path, url: str, wire: Wire | Cable, **options: Any) -> None:
        self.number, self.name, self.wire = number, f"node {number}", wire
        self.killed = self.stopped = 0
        self.sessions: set[int] = set()
        self._frozen: list[int] = []
        folder.mkdir()
        super().__init__(folder, store=url, wait=False, **options)

    def serve(self, wait: bool = True) -> subprocess.Popen[bytes]:
        process = super().serve(wait)
        self.sessions.add(process.pid)
        return process

    def processes(self) -> dict[int, str]:
        """By pid, as chaos.processes has them."""
        return chaos.processes(self.sessions, self.process.pid)

    def kill(self) -> None:
        """Everything of it dies at once, as when its machine does."""
        self.killed += sum(role == "worker" for role in self.processes().values())
        while pids := self.processes():
            for pid in pids:  # the master is the first of them: nobody is replaced
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
        self._frozen.clear()

    def freeze(self, everything: bool) -> None:
        """SIGSTOP to all of it, or to one of its workers."""
        pids = self.processes()
        workers = [pid for pid, role in pids.items() if role == "worker"]
        chosen = list(pids) if everything else workers[:1]
        self.stopped += len(workers) if everything else 1
        for pid in chosen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        self._frozen += chosen

    def thaw(self) -> None:
        for pid in self._frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._frozen.clear()

    def reconnect(self) -> None:
        """The network is well again. Of the connections of before, keepalive has ended our side's by now."""
        self.wire.reset()
        self.wire.mend()

    def stop(self) -> int:
        """As its operator does; the exit code."""
        self.process.terminate()
        return self.process.wait(30)

    def runs(self) -> bool:
        return self.process.poll() is None

    def all_ready(self) -> bool:
        try:
            workers = self.workers()
        except (Unreachable, TryAgain):
            return False
        return bool(workers) and {worker["state"] for worker in workers} <= {"idle", "busy"}

    def patiently(self, ask: Callable[[], Any], seconds: float = 30) -> Any:
        """What it gives as soon as the node answers: a connection of before an outage costs an answer its time."""
        def try_it() -> list[Any] | None:
            with contextlib.suppress(TryAgain, Unreachable):
                return [ask()]
            time.sleep(_LOOK)
            return None

        return wait_for(try_it, f"an answer of {self.name}", seconds)[0]

    def log(self) -> str:
        file = self.folder / "fanoutd.log"
        return file.read_text() if file.exists() else ""

    def close(self) -> None:
        self.thaw()
        if self.runs():
            self.kill()
        super().close()
        self.wire.close()


class Cluster:
    """``people`` are sent to at ``rate`` calls a second; each of ``nodes`` has ``workers``. ``beyond``: the network of
    its own in which the server is, if it is."""

    def __init__(self, folder: Path, server: MariaDb, people: int, rate: int, nodes: int = 3, workers: int = 2,
                 concurrency: int = 16, beyond: Namespace | None = None, **sandbox: Any) -> None:  # fmt: skip
        self.folder, self.server, self.people = folder, server, people
        self.workers, self.concurrency, self.rate = workers, concurrency, rate
        self.database = server.database().rpartition("/")[2]
        self.sandbox = SandboxProcess(folder / "ledger.jsonl", **sandbox)
        self.nodes = []
        for n in range(1, nodes + 1):
            wire = beyond.cable(server) if beyond else Wire(server.port)
            url = server.url(self.database, wire.port, wire.host if isinstance(wire, Cable) else "127.0.0.1")
            self.nodes.append(Node(n, folder / f"node{n}", url, wire, followers=people, workers=workers,
                                   concurrency=concurrency, rate=rate, sandbox=self.sandbox))  # fmt: skip

    def ready(self, seconds: float = 30) -> None:
        wait_for(lambda: all(node.all_ready() for node in self.nodes), "all nodes", seconds)

    # ---- what the store says, asked beside every node

    def number(self, statement: str, otherwise: int = -1) -> int:
        """A query's one number; ``otherwise`` when nobody answers."""
        try:
            return int(self.server.say(statement.replace("fanout_", f"{self.database}.fanout_"))[0][0] or 0)
        except (pymysql.MySQLError, OSError):
            return otherwise

    def unknown(self) -> int:
        return self.number("SELECT SUM(unknown) FROM fanout_shard", 0)

    def open(self) -> int:
        """People who are pending, or to be sent to again."""
        return self.number("SELECT SUM(pending) + SUM(resend) FROM fanout_shard")

    def leased(self) -> int:
        return self.number("SELECT COUNT(*) FROM fanout_shard WHERE owner IS NOT NULL")

    def ask(self, method: str, seconds: float = 30, **params: Any) -> Any:
        """Of the first node that answers."""
        def try_them() -> list[Any] | None:
            for node in self.nodes:
                if node.runs():
                    with contextlib.suppress(Unreachable, TryAgain, TimeoutError):
                        return [node.call(method, **params)]
            time.sleep(_LOOK)
            return None

        return wait_for(try_them, f"an answer to {method}", seconds)[0]

    # ---- bounds

    @property
    def window(self) -> int:
        """People whom a worker claims at a time at most: worker/speed.py. A worker's share of the rate is less than
        the smallest window would be for."""
        return max(self.concurrency, 64, 2 * self.concurrency, self.rate // 2)

    def may_be_given_up(self, lost: int) -> int:
        """At most so many are unknown when so many workers have been taken over: two windows each."""
        return 2 * self.window * lost

    def may_stay_unknown(self) -> int:
        """At most so many when all has settled: what was on the wire of those who were killed or stopped."""
        return self.concurrency * sum(node.killed + node.stopped for node in self.nodes)

    # ---- the end

    def settled(self, campaign: str, seconds: float) -> dict[str, Any]:
        """The campaign, done, when nobody holds a lease any more and all nodes have had their say."""
        quiet = [time.monotonic(), -1]

        def look() -> bool:
            now = (self.open(), self.leased(), self.unknown())
            if now != quiet[1] or now[:2] != (0, 0):
                quiet[:] = [time.monotonic(), now]
            time.sleep(_LOOK)
            return time.monotonic() - quiet[0] > 8  # longer than any sweep's interval

        wait_for(look, f"all to be settled (open, leased, unknown: {quiet[1]})", seconds)
        return wait_for(lambda: self._done(campaign), f"{campaign} done", 30)

    def _done(self, campaign: str) -> dict[str, Any] | None:
        seen: dict[str, Any] = self.ask("campaign.get", campaign=campaign)
        assert seen["state"] in ("planning", "running", "done"), seen
        time.sleep(_LOOK)
        return seen if seen["state"] == "done" else None

    def audit(self, campaign: str, last: dict[str, Any]) -> sums.Sums:
        """Every node says the same, and it is what the API has."""
        told = []
        for node in self.nodes:
            rows = node.patiently(lambda node=node: node.rows(campaign))
            told.append(sums.check([follower(i) for i in range(self.people)], self.sandbox.ledger, last, rows,
                                   self.may_stay_unknown()))  # fmt: skip
        assert all(each == told[0] for each in told), f"the nodes do not agree: {told}"
        return told[0]

    def busiest(self, seconds: float) -> float:
        """Messages that the API took a second, in the busiest span of so many seconds."""
        times = sorted(line["t"] for lines in sums.accepted(self.sandbox.ledger).values() for line in lines)
        return max((bisect_left(times, at + seconds) - i for i, at in enumerate(times)), default=0) / seconds

    def orderly_end(self) -> list[str]:
        """What stops leave undone, in words."""
        found = []
        for node in self.nodes:
            try:
                if code := node.stop():
                    found.append(f"the stop of {node.name} ended with {code}")
            except subprocess.TimeoutExpired:
                found.append(f"the stop of {node.name} did not end")
            if left := node.processes():
                found.append(f"processes of {node.name} left: {left}")
            for name in ("journals", "spool/new", "spool/tmp", "spool/bad"):
                files = sorted(p.name for p in (node.folder / "state" / name).glob("[!.]*") if p.is_file())
                if files:
                    found.append(f"{node.name} left in {name}: {', '.join(files)}")
            if "Traceback" in node.log():
                found.append(f"a traceback in the log of {node.name}")
        return found

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.sandbox.close()
