"""Figures of the supervisor with real workers: memory, CPU, replacement, boot loops. See ``scripts/figures``."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil

from support.daemon import Daemon

_IDLE_SECONDS = 30.0


def processes(d: Daemon) -> list[psutil.Process]:
    master = psutil.Process(d.process.pid)
    return [master, *master.children(recursive=True)]


def all_idle(d: Daemon, workers: int) -> None:
    while sum(row["state"] == "idle" for row in d.workers()) < workers:
        time.sleep(0.01)


def memory(d: Daemon) -> str:
    pss = [each.memory_full_info().pss / 2**20 for each in processes(d)]
    return f"{sum(pss):.0f} MiB PSS, the master {pss[0]:.0f}, a worker {statistics.median(pss):.1f}"


def idle_cpu(d: Daemon) -> str:
    def seconds() -> float:
        return sum(sum(each.cpu_times()[:2]) for each in everybody)

    everybody = processes(d)
    before = seconds()
    time.sleep(_IDLE_SECONDS)
    return f"{(seconds() - before) / _IDLE_SECONDS * 100:.3f} % of one core over {_IDLE_SECONDS:g} s"


def replaced(d: Daemon) -> str:
    """From the kill until the status shows the slot's new worker ready; the look itself is in it."""
    waits = []
    for i in range(50):
        row = d.workers()[i % len(d.workers())]
        begun = time.perf_counter()
        os.kill(row["pid"], signal.SIGKILL)
        while not any(each["slot"] == row["slot"] and each["pid"] != row["pid"] and each["state"] == "idle"
                      for each in d.workers()):  # fmt: skip
            pass
        waits.append((time.perf_counter() - begun) * 1000)
    return f"median {statistics.median(waits):.1f} ms, slowest {max(waits):.1f} ms, of 50"


def asked_to_ready(d: Daemon) -> str:
    took = [int(each) for each in re.findall(r"worker \d+ ready .*ms=(\d+)", (d.folder / "fanoutd.log").read_text())]
    return f"median {statistics.median(took[-50:]):.0f} ms of the last 50, by the log"


def reloads(d: Daemon) -> str:
    def figures() -> tuple[int, int, int]:
        return master.num_fds(), len(os.listdir(f"/proc/{master.pid}/task")), master.memory_info().rss

    master = psutil.Process(d.process.pid)
    d.call("daemon.reload")
    before, begun = figures(), time.perf_counter()
    for _ in range(50):
        d.call("daemon.reload")
    seconds = (time.perf_counter() - begun) / 50
    after = figures()
    return (f"{seconds:.2f} s each; descriptors {before[0]} -> {after[0]}, tasks {before[1]} -> {after[1]}, "
            f"RSS {before[2] >> 10} -> {after[2] >> 10} KiB")  # fmt: skip


def terms() -> str:
    command = [sys.executable, "-m", "support.molds", "300"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def show(what: str, figure: str) -> None:
    print(f"{what:<42} {figure}", flush=True)


def main(workers: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fanoutd-figures-"))
    d = Daemon(folder, workers=workers, concurrency=64)
    try:
        all_idle(d, workers)
        time.sleep(3)  # the first token, the first sweeps
        show(f"{workers} idle workers, memory in all", memory(d))
        show(f"{workers} idle workers, CPU in all", idle_cpu(d))
        show("killed -> replaced and ready", replaced(d))
        show("asked of the mold -> ready", asked_to_ready(d))
    finally:
        d.close()
    four = Path(tempfile.mkdtemp(prefix="fanoutd-figures-"))
    d = Daemon(four, workers=4)
    try:
        all_idle(d, 4)
        show("50 reloads of 4 workers", reloads(d))
    finally:
        d.close()
    show("SIGTERM 0, 0.3 and 1 ms after a fork", terms())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
