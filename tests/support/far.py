"""How fast people are sent to when the database is near, and when it is 50 ms away, at the same time on one machine."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from support.bench import Bench, wait_for
from support.mariadb import MariaDb, server
from support.wire import Wire

#: Seconds each way.
FAR = 0.025


@dataclass(frozen=True)
class Speed:
    """Messages a second that the API has accepted: from the 10th to the 90th of 100, and from the first to the last."""

    sustained: float
    whole: float
    round_trips: float
    """For each transaction that was durable."""


class Site:
    """Workers of their own, an API of 100 ms, and a database with a wire to it."""

    def __init__(self, folder: Path, maria: MariaDb, delay: float, people: int, workers: int, rate: float) -> None:
        folder.mkdir(parents=True)
        self._people = people
        self._wire = Wire(maria.port)
        url = maria.url(maria.database().rpartition("/")[2], self._wire.port)
        self._bench = Bench(folder, concurrency=64, rate=rate, latency="100ms", store=url)
        self._bench.campaign(people, shard=200)
        self._wire.delay(delay)
        self._before = self._wire.requests(), self._wire.requests_with("COMMIT")
        for slot in range(workers):
            self._bench.work(slot + 1)

    def done(self) -> bool:
        return len(self._bench.sandbox.ledger.read_bytes().splitlines()) >= self._people

    def speed(self) -> Speed:
        at = sorted(datetime.fromisoformat(row["at"]).timestamp() for row in self._bench.sandbox.ledger_rows())
        assert len(at) == self._people == len(self._bench.accepted())
        first, last = at[self._people // 10], at[self._people * 9 // 10]
        trips, commits = self._wire.requests() - self._before[0], self._wire.requests_with("COMMIT") - self._before[1]
        return Speed(0.8 * self._people / (last - first), self._people / (at[-1] - at[0]), trips / commits)

    def close(self) -> None:
        self._bench.close()
        self._wire.close()


def compare(folder: Path, maria: MariaDb, people: int, workers: int, rate: float) -> tuple[Speed, Speed]:
    """Near and far, side by side, so that whatever else the machine does holds for both."""
    sites = [Site(folder / name, maria, delay, people, workers, rate) for name, delay in (("near", 0.0), ("far", FAR))]
    try:
        for each in sites:
            wait_for(each.done, "the end", 120)
        return sites[0].speed(), sites[1].speed()
    finally:
        for each in sites:
            each.close()


def _main() -> None:
    for people, workers, rate in ((8000, 4, 400.0), (16000, 4, 100_000.0), (8000, 1, 100_000.0)):
        with tempfile.TemporaryDirectory() as folder:
            near, far = compare(Path(folder) / "x", server(), people, workers, rate)
        print(
            f"{workers} workers, {people} people, {f'{rate:.0f} calls/s' if rate < 1e5 else 'unlimited'}: "
            f"near {near.sustained:.0f}/s (from first to last {near.whole:.0f}), far {far.sustained:.0f}/s "
            f"({far.whole:.0f}), ratio {far.sustained / near.sustained:.2f}; "
            f"round trips a transaction {near.round_trips:.1f}, {far.round_trips:.1f}", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(_main())
