"""The status object: the master's own part, and the dispatcher's where it answers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import psutil

from fanoutd.board import Board
from fanoutd.master.clock import JobView
from fanoutd.master.slots import Slot, State

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


def daemon_state(slots: Iterable[Slot], *, stopping: bool, begun: bool, store_ok: bool) -> str:
    """``begun``: a worker and the dispatcher have been ready once."""
    if stopping:
        return "stopping"
    if not begun:
        return "starting"
    degraded = not store_ok or any(slot.state is State.BACKOFF for slot in slots)
    return "degraded" if degraded else "running"


def compose(
    own: Mapping[str, Any], theirs: Mapping[str, Any], spool: tuple[int | None, float | None], jobs: Iterable[JobView],
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    """The whole object, every key there. ``own``: version, node, pid, started_at, generation, state."""
    files, oldest = spool
    return {
        **own,
        **{key: theirs.get(key) for key in _KEYS},
        "spool": {"files": files, "oldest_seconds": None if oldest is None else round(oldest, 3)},
        "jobs": [asdict(job) for job in jobs],
        "workers": rows,
    }


class Gauge:
    """Memory and CPU by pid; CPU is the share of one core since the last look."""

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process] = {}

    def rows(self, slots: Iterable[Slot], board: Board) -> list[dict[str, Any]]:
        """One a slot, the dispatcher's first."""
        slots = list(slots)
        alive = {slot.pid for slot in slots}
        self._processes = {pid: process for pid, process in self._processes.items() if pid in alive}
        boottime = time.clock_gettime(time.CLOCK_BOOTTIME)
        return [self._row(slot, board, boottime) for slot in slots]

    def _row(self, slot: Slot, board: Board, boottime: float) -> dict[str, Any]:
        said = board.read(slot.number)
        rss, cpu = self._use(slot.pid)
        return {
            "slot": slot.number, "pid": slot.pid, "role": slot.role, "generation": slot.generation,
            "state": slot.state.value, "campaign": said.campaign, "sent": said.sent, "failed": said.failed,
            "rate": round(said.rate, 1), "rss_bytes": rss, "cpu_percent": cpu, "restarts": slot.restarts,
            "heartbeat_age": round(max(0.0, boottime - said.heartbeat), 3) if said.heartbeat else None,
        }

    def _use(self, pid: int | None) -> tuple[int | None, float | None]:
        """(resident bytes, percent), nulls for a process that is not there."""
        if pid is None:
            return None, None
        try:
            process = self._processes.get(pid) or psutil.Process(pid)
            self._processes[pid] = process
            with process.oneshot():
                return process.memory_info().rss, process.cpu_percent()
        except (psutil.Error, OSError):  # OSError: no descriptor left to open /proc with
            self._processes.pop(pid, None)
            return None, None
