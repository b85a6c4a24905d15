"""What sending costs: one worker with store, journal and rate bucket, and libcurl alone, in turn."""

from __future__ import annotations

import json
import os
import select
import statistics
import sys
import tempfile
import time
from pathlib import Path

from fanoutd.dispatcher.refresher import fetch
from fanoutd.worker.wire import Wire
from support.bench import Bench, person, wait_for

ROUNDS = 3
CONCURRENCY = 64


def main(people: int) -> None:
    """Print medians over the rounds: messages a second, and CPU seconds per 1,000."""
    found: dict[str, list[tuple[float, float]]] = {"bare libcurl": [], "worker": []}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(Path(folder), concurrency=CONCURRENCY)
            try:
                found["bare libcurl"].append(_measured(lambda b=bench: _bare(b, people), people))
                found["worker"].append(_measured(lambda b=bench: _worker(b, people), people))
            finally:
                bench.close()
    for name, figures in found.items():
        speed, cpu = (statistics.median(each) for each in zip(*figures, strict=True))
        print(f"{name:<13} {speed:8,.0f} messages/s   {cpu:.4f} CPU s per 1,000   ({people:,} people, {ROUNDS} rounds)")
    ratios = [w[1] / b[1] for b, w in zip(found["bare libcurl"], found["worker"], strict=True)]
    print(f"ratio of CPU, median of rounds: {statistics.median(ratios):.2f}")


def _measured(run: object, people: int) -> tuple[float, float]:
    """In a child of our own, so that the kernel counts exactly what it spent."""
    assert callable(run)
    started, pid = time.perf_counter(), os.fork()
    if not pid:
        code = 1
        try:
            run()
            code = 0
        finally:
            os._exit(code)
    _, status, usage = os.wait4(pid, 0)
    assert status == 0, "a round failed"
    return people / (time.perf_counter() - started), (usage.ru_utime + usage.ru_stime) * 1000 / people


def _worker(bench: Bench, people: int) -> None:
    """Plan and send; the worker is this process's child, so that its CPU is counted with it."""
    bench.db = type(bench.db)(bench.db.path)
    bench.campaign(people, shard=2000)
    worker = bench.work()
    wait_for(lambda: time.sleep(0.05) or bench.state() == "done", "the end", 120)
    assert worker.stop() == 0


def _bare(bench: Bench, people: int) -> None:
    epoll = select.epoll()
    wire = Wire(epoll, CONCURRENCY)
    account = bench.config.accounts["main"]
    target = ("main", "custom", fetch(account).text)
    started = ended = 0
    while ended < people:
        while wire.free and started < people:
            message = {"touser": person(started), "msgtype": "text", "text": {"content": "hello"}}
            wire.start(target, account, json.dumps(message).encode(), None, _nothing)
            started += 1
        ended += len(wire.step(epoll.poll(wire.timeout())))


def _nothing() -> None:
    """No journal."""


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
