"""What this node can see of itself, as findings for health. Sizes are bytes, times seconds where nothing else is said.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from fanoutd.boot import uptime_ms
from fanoutd.config import Config, sqlite_path
from fanoutd.health.conditions import Key
from fanoutd.health.judge import Finding
from fanoutd.times import local_ms, span

#: The span over which deaths are counted, in milliseconds.
DEATHS_MS = 600_000

#: A worker may have so much more than [workers] max_memory: it is replaced after the work in hand.
_OVER = 1.25

#: Fewer files than this that may still be made are as bad as no room.
_FEW_FILES = 1000

Worker = Mapping[str, Any]
"""A row of the status's ``workers``."""


@dataclass(slots=True)
class Deaths:
    """How many of the daemon's processes died of late, from their restarts, which are counted from its start on.

    ``began``: that start, as the status has it. ``counts``: restarts by process. ``deaths``: (when, which process).
    """

    began: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    deaths: list[tuple[int, str]] = field(default_factory=list)

    def look(self, began: str, workers: Iterable[Worker], at: int) -> None:
        """``at`` in milliseconds since 1970."""
        if began != self.began:
            self.began, self.counts = began, {}
        counts = {name_of(each): int(each["restarts"]) for each in workers}
        for name, count in counts.items():
            new = count - self.counts.get(name, 0)
            self.deaths += [(at, name)] * min(max(0, new), 1000)
        self.counts = counts
        self.deaths = [each for each in self.deaths if 0 <= at - each[0] < DEATHS_MS][-10_000:]


def name_of(worker: Worker) -> str:
    return f"{worker['role']} {worker['slot']}" if worker["slot"] else str(worker["role"])


def workers(deaths: Deaths, rows: Iterable[Worker], most: int) -> Finding:
    """``most``: so many deaths are too many."""
    by_name: dict[str, int] = {}
    for _, name in deaths.deaths:
        by_name[name] = by_name.get(name, 0) + 1
    parts = []
    if deaths.deaths:
        worst = sorted(by_name.items(), key=lambda each: -each[1])[:5]
        many = "1 death" if len(deaths.deaths) == 1 else f"{len(deaths.deaths)} deaths"
        parts.append(f"{many} in the last 10 min ("
                     + ", ".join(f"{name}: {count}" for name, count in worst) + ")")  # fmt: skip
    if waiting := [name_of(each) for each in rows if each["state"] == "backoff"]:
        parts.append(f"{', '.join(waiting[:5])}: died young, and waits before it is tried again")
    return Finding(Key("workers"), len(deaths.deaths) >= most or bool(waiting), "; ".join(parts))


def memory(rows: Iterable[Worker], config: Config, available: int | None = None) -> Finding:
    """``available``: what the machine has left; asked for if it is not given."""
    left = int(psutil.virtual_memory().available) if available is None else available
    most = config.workers.max_memory * _OVER
    over = [each for each in rows if each["role"] == "worker" and (each["rss_bytes"] or 0) > most]
    parts = []
    if left < config.health.memory_left:
        parts.append(f"{size(left)} are left on this machine, {size(config.health.memory_left)} wanted")
    if over:
        parts.append(", ".join(f"{name_of(each)} uses {size(each['rss_bytes'])}" for each in over[:5])
                     + f" of [workers] max_memory {size(config.workers.max_memory)}")  # fmt: skip
    return Finding(Key("memory"), bool(parts), "; ".join(parts))


def disk(config: Config) -> Finding:
    folders = {config.daemon.state_dir}
    if (path := sqlite_path(config.store_url)) is not None:
        folders.add(path.parent)
    parts = []
    for folder in sorted(folders):
        try:
            if words := _room(folder, config.health.disk_left):
                parts.append(words)
        except OSError as e:
            parts.append(f"{folder}: {e.strerror}")
    return Finding(Key("disk"), bool(parts), "; ".join(parts))


def _room(folder: Path, wanted: int) -> str | None:
    there = os.statvfs(folder)
    left = there.f_bavail * there.f_frsize
    if left < wanted:
        return f"{size(left)} are left at {folder}, {size(wanted)} wanted"
    if there.f_files and there.f_favail < _FEW_FILES:
        return f"only {there.f_favail} more files can be made at {folder}"
    return None


def records_late(late: Mapping[int, float], rows: Iterable[Worker], most: float) -> Finding:
    """``late``: as ``Board.late``."""
    alive = {each["pid"] for each in rows if each["pid"]}
    ages = [time.monotonic() - since for pid, since in late.items() if pid in alive]
    oldest = max(ages, default=0.0)
    words = f"the oldest outcome of this node has waited {span(oldest * 1000)} for the store"
    return Finding(Key("records_late"), oldest > most, words if oldest > most else "")


def spool(ages: Mapping[str, float], unknown: Iterable[str], most: float) -> Finding:
    """``ages`` of what is in the spool; ``unknown``: what of it the store does not have."""
    waiting = [ages[each] for each in unknown if each in ages]
    oldest = max(waiting, default=0.0)
    words = f"{len(waiting):,} wait, the oldest for {span(oldest * 1000)}" if oldest > most else ""
    return Finding(Key("spool"), bool(words), words)


def reload(view: Mapping[str, Any]) -> Finding:
    return Finding(Key("reload"), bool(view["error"]), view["error"] or "")


class Clock:
    """Whether the machine's clock is right, as far as others' show it; and whether somebody has set it."""

    #: For so many looks it is told that the clock was set: else it would be over before it counts.
    _LOOKS = 2

    def __init__(self) -> None:
        self._offset: int | None = None
        self._set, self._looks = 0.0, 0

    def look(self, others: Mapping[str, float | None], most: float) -> Finding:
        """``others``: by their names how many seconds this clock is ahead of theirs, None where nobody knows."""
        offset = local_ms() - uptime_ms()
        if self._offset is not None and abs(offset - self._offset) > most * 1000:
            self._set, self._looks = (offset - self._offset) / 1000, self._LOOKS
        self._offset = offset
        parts = [f"it is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {name}"
                 for name, ahead in others.items() if ahead is not None and abs(ahead) > most]  # fmt: skip
        if self._looks:
            self._looks -= 1
            parts.append(f"it was set {'forward' if self._set > 0 else 'back'} by {span(abs(self._set) * 1000)}")
        return Finding(Key("clock"), bool(parts), "; ".join(parts))


def size(count: int) -> str:
    for unit, each in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= each:
            return f"{count / each:.3g} {unit}" if count < 1000 * each else f"{count // each} {unit}"
    return f"{count} bytes"
