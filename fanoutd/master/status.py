"""The status object: the master's own part, and the dispatcher's where it answers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import psutil

from fanoutd.board import Board
from fanoutd.master.clock import JobView
from fanoutd.master.slots import Slot
from fanoutd.spool import Spool

#: (resident bytes, percent), nulls for a process that is not there.
Use = tuple[int | None, float | None]

#: Seconds for which a look at a process, or at the spool, is good enough.
FRESH = 0.5

#: What stands in for the dispatcher's part when it does not answer.
_KEYS = ("promise", "store", "accounts", "shards", "nodes")


def without_dispatcher(store_url: str) -> dict[str, Any]:
    """The dispatcher's part as far as anybody knows it now."""
    kind = "mysql" if store_url.startswith("mysql:") else "sqlite"
    return {
        "promise": None,
        "store": {"kind": kind, "ok": False, "latency_ms": None},
        "accounts": [],
        "shards": {"pending": None, "leased": None},
        "nodes": [],
    }


def daemon_state(*, stopping: bool, begun: bool, well: bool) -> str:
    """``begun``: a worker has been ready once; ``well``: nothing is known that an operator should mend."""
    if stopping:
        return "stopping"
    if not begun:
        return "starting"
    return "running" if well else "degraded"


def compose(
    own: Mapping[str, Any], theirs: Mapping[str, Any], spool: tuple[int | None, float | None], jobs: Iterable[JobView],
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    """The whole object, every key there. ``own``: version, node, pid, started_at, generation, state, reload."""
    files, oldest = spool
    return {
        **own,
        **{key: theirs.get(key) for key in _KEYS},
        "spool": {"files": files, "oldest_seconds": None if oldest is None else round(oldest, 3)},
        "jobs": [asdict(job) for job in jobs],
        "workers": rows,
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
            "slot": 0 if slot.role == "mold" else slot.number, "pid": slot.pid, "role": slot.role,
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
