"""The status object: the master's own part, and the dispatcher's where it answers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import psutil

from fanoutd import __version__, times
from fanoutd.board import Board
from fanoutd.master.children import Children
from fanoutd.master.clock import Clock
from fanoutd.master.crew import Crew
from fanoutd.master.orders import Orders
from fanoutd.master.slots import Slot
from fanoutd.spool import Spool

#: (resident bytes, percent), nulls for a process that is not there.
Use = tuple[int | None, float | None]

#: Seconds for which a look at a process, or at the spool, is good enough.
FRESH = 0.5

#: What stands in for the dispatcher's part when it does not answer.
_KEYS = ("promise", "store", "accounts", "shards", "nodes", "mail")


def without_dispatcher(store_url: str) -> dict[str, Any]:
    """The dispatcher's part as far as anybody knows it now."""
    kind = "mysql" if store_url.startswith("mysql:") else "sqlite"
    return {
        "promise": None,
        "store": {"kind": kind, "ok": False, "latency_ms": None, "error": None},
        "accounts": [],
        "shards": {"pending": None, "leased": None},
        "nodes": [],
        "conditions": [],
        "mail": None,
    }


class SpoolGauge:
    """(files, age of the oldest in seconds), looked at no oftener than is needed."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._measured: tuple[int | None, float | None] = (None, None)
        self._measured_at = float("-inf")

    def read(self) -> tuple[int | None, float | None]:
        """Nulls while the disk or the descriptors are in trouble: the status says what it can."""
        now = time.monotonic()
        if now - self._measured_at >= FRESH:
            self._measured_at = now
            try:
                self._measured = self._spool.measure(time.time())
            except OSError:
                self._measured = None, None
        return self._measured


class Gauge:
    """Memory and CPU by pid; CPU is the share of one core since the last look.

    Looked at no oftener than twice a second: a flood of questions must not cost one of processes.
    """

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process] = {}
        self._uses: dict[int, Use] = {}
        self._looked = 0.0

    def rows(self, slots: Iterable[Slot], board: Board) -> list[dict[str, Any]]:
        """One a child, or empty slot; the dispatcher's first."""
        slots = list(slots)
        now = time.monotonic()
        if now - self._looked >= FRESH:
            self._looked = now
            self._uses = {}
            alive = {slot.pid for slot in slots}
            self._processes = {pid: process for pid, process in self._processes.items() if pid in alive}
        return [self._row(slot, board, now) for slot in slots]

    def _row(self, slot: Slot, board: Board, now: float) -> dict[str, Any]:
        said = board.read(slot.row)
        if slot.pid is not None and slot.pid not in self._uses:
            self._uses[slot.pid] = self._use(slot.pid)
        rss, cpu = self._uses.get(slot.pid or 0, (None, None))
        return {
            "slot": slot.place, "pid": slot.pid, "role": slot.role,
            "generation": slot.generation, "state": slot.state.value,
            "campaign": said.campaign, "sent": said.sent, "failed": said.failed, "rate": round(said.rate, 1),
            "rss_bytes": rss, "cpu_percent": cpu, "restarts": slot.restarts,
            "heartbeat_age": round(max(0.0, now - said.heartbeat), 3) if said.heartbeat else None,
        }

    def _use(self, pid: int) -> Use:
        try:
            process = self._processes.get(pid) or psutil.Process(pid)
            self._processes[pid] = process
            with process.oneshot():
                return process.memory_info().rss, process.cpu_percent()
        except (psutil.Error, OSError):  # OSError: no descriptor left to open /proc with
            self._processes.pop(pid, None)
            return None, None


class Overview:
    """Puts the status object together. ``started_ms`` is the daemon's start, whatever program runs it now."""

    def __init__(
        self, node: str, started_ms: int, spool: Spool, crew: Crew, children: Children, clock: Clock
    ) -> None:
        self._node = node
        self._spool = SpoolGauge(spool)
        self._crew = crew
        self._children = children
        self._clock = clock
        self._gauge = Gauge()
        self.started_ms = started_ms

    def status(self, phase: str, theirs: dict[str, Any] | None, orders: Orders) -> dict[str, Any]:
        """The whole object, every key there. ``phase`` is starting, running or stopping; ``theirs`` the
        dispatcher's part, None when it does not answer."""
        theirs = theirs or without_dispatcher(self._crew.current.config.store_url)
        own = self.own(phase, orders)
        conditions = theirs.get("conditions") or []  # an older dispatcher, after USR2, has none
        well = theirs["store"]["ok"] and ("api", "broken") not in {(each["name"], each["state"]) for each in conditions}
        return {
            **own, "state": "degraded" if phase == "running" and not well else own["state"],
            **{key: theirs.get(key) for key in _KEYS}, "conditions": conditions,
        }  # fmt: skip

    def own(self, phase: str, orders: Orders) -> dict[str, Any]:
        """What the master knows by itself, with its own state."""
        crew = self._crew
        well = orders.well and not crew.troubled()
        files, oldest = self._spool.read()
        return {
            "version": __version__, "node": self._node, "pid": os.getpid(), "started_at": times.iso(self.started_ms),
            "generation": crew.current.number, "state": "degraded" if phase == "running" and not well else phase,
            "reload": orders.reload.view(), "upgrade": orders.upgrade.view(),
            "spool": {"files": files, "oldest_seconds": None if oldest is None else round(oldest, 3)},
            "jobs": [asdict(job) for job in self._clock.jobs()],
            "workers": self._gauge.rows(crew.slots, self._children.board),
        }
