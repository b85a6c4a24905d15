"""A whole installation whose store goes away in the middle of a campaign, and comes back."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fanoutd.client import TryAgain
from fanoutd.demo.audit import Audit, compare
from support.bench import wait_for
from support.daemon import Daemon, follower
from support.mariadb import MariaDb, server
from support.wire import Wire

FOLLOWERS, WORKERS = 2000, 2


@dataclass(frozen=True)
class Outage:
    """What was seen of it. Times in seconds."""

    ping_p99: float
    submit_longest: float
    sent_after: int
    """Calls that were made after it had begun."""
    said: dict[str, Any]
    """The status object of that time."""
    refusal: str
    """What a question got that needs the store."""
    back_after: float
    """From the store's return until it said so in its status."""
    done_after: float
    audit: Audit
    later: int
    """Campaigns that were submitted meanwhile; each has reached its person by now."""

    def show(self) -> str:
        return (
            f"ping p99 {self.ping_p99 * 1000:.1f} ms, longest submission {self.submit_longest * 1000:.0f} ms; "
            f"{self.sent_after} calls after it began; status {self.said['state']}; a question got "
            f"'{self.refusal}'; well again after {self.back_after:.1f} s, all sent after {self.done_after:.1f} s, "
            f"{'everybody once' if self.audit.good else self.audit}"
        )


def go_through(folder: Path, maria: MariaDb, begin: Callable[[Wire], None], seconds: float) -> Outage:
    """``begin`` breaks the wire to the store, which is mended after so many seconds."""
    with Wire(maria.port) as wire:
        url = maria.url(maria.database().rpartition("/")[2], wire.port)
        d = Daemon(folder, FOLLOWERS, WORKERS, concurrency=8, store=url, latency="20ms")
        try:
            campaign = d.call("campaign.submit", content="x", phone="1")["campaign"]
            wait_for(lambda: sum(d.accepted().values()) > 100, "a first part")
            begin(wire)
            before, end = sum(d.accepted().values()), time.monotonic() + seconds
            later: list[str] = []
            pings: list[float] = []
            submits: list[float] = []
            while time.monotonic() < end:
                pings += [_timed(lambda: d.call("daemon.ping")) for _ in range(50)]
                if len(later) < 5:
                    openid = f"oLATER{len(later):018d}"
                    submits.append(_timed(lambda o=openid: later.append(  # type: ignore[misc]
                        d.call("campaign.submit", content="y", phone="1", openids=[o])["campaign"])))
            said = wait_for(lambda: _not_ok(d), "the status to say so", 20)
            stopped = sum(d.accepted().values())
            try:
                refusal = str(d.call("campaign.get", campaign=campaign))
            except TryAgain as e:
                refusal = str(e)
            assert sum(d.accepted().values()) == stopped, "somebody was sent to whom nobody has claimed"
            wire.mend()
            began = time.monotonic()
            wait_for(lambda: d.call("daemon.status")["store"]["ok"], "all clear", 60)
            back = time.monotonic() - began
            d.until(campaign, seconds=90)
            done = time.monotonic() - began
            for each in later:
                d.until(each)
            times = d.accepted()
            assert [times.pop(openid) for openid in times.keys() - {follower(i) for i in range(FOLLOWERS)}] == [1] * 5
            return Outage(
                sorted(pings)[int(len(pings) * 0.99)], max(submits), stopped - before, said, refusal, back, done,
                compare(map(follower, range(FOLLOWERS)), d.rows(campaign), times), len(later),
            )  # fmt: skip
        finally:
            d.close()


def _not_ok(d: Daemon) -> dict[str, Any] | None:
    said: dict[str, Any] = d.call("daemon.status")
    return None if said["store"]["ok"] else said


def _timed(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def _main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 120.0
    well = True
    for name in ("refuse", "silence"):
        with tempfile.TemporaryDirectory() as folder:
            seen = go_through(Path(folder), server(), getattr(Wire, name), seconds)
            print(f"{name} for {seconds:.0f} s: {seen.show()}", flush=True)
            well &= seen.audit.good and seen.ping_p99 < 0.05
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(_main())
