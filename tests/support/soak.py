"""Rounds of bad days: a campaign of thousands while everything is being killed, then the five sums.

Run as a module it is ``scripts/soak``. A round is its seed: the same one draws the same bad day.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fanoutd.client import ClientError, TryAgain, Unreachable
from support import chaos, sums
from support.bench import wait_for
from support.chaos import Conductor, Tally
from support.daemon import Daemon, follower
from support.mariadb import MariaDb
from support.stores import KINDS

#: Seconds that an undisturbed campaign would take: it shall be under way while things befall it.
_LENGTH = 2.0

#: Seconds in which a campaign must come to its end when all is well again.
_PATIENCE = 60.0


class Subject(Daemon):
    """One that gives up early on an answer, and never on a campaign."""

    ACCOUNT = f'timeout = "{chaos.TIMEOUT}s"\nmax_failures = 1'


@dataclass(frozen=True, slots=True)
class Result:
    """One round. ``faulted`` requests got no proper answer; at most ``allowed`` people may be unknown."""

    seed: int
    seconds: float
    tally: Tally
    faulted: int
    allowed: int
    sums: sums.Sums
    violations: tuple[str, ...]

    def line(self) -> str:
        """For people who watch."""
        t = self.tally
        what = (_words(t.killed, "killed "), _words(t.stopped, "stopped "), _words(t.ordered))
        verdict = "ok" if not self.violations else "VIOLATED: " + "; ".join(self.violations)
        return (
            f"seed {self.seed}  {self.seconds:4.1f} s  {', '.join(filter(None, what)) or 'nothing befell it'}  "
            f"faults {self.faulted}  sent {self.sums.sent}  failed {self.sums.failed}  "
            f"unknown {self.sums.unknown} of {self.allowed} allowed  {verdict}"
        )


def _words(counts: Counter[str], before: str = "") -> str:
    words = " ".join(f"{name or 'other'} {count}" for name, count in sorted(counts.items()))
    return before + words if words else ""


@functools.cache
def _server() -> MariaDb:
    """One for all rounds; it is killed in some."""
    return MariaDb()


def play(seed: int, folder: Path, kind: str = "sqlite") -> Result:
    """One round in an empty folder, on a store of this kind; a server is killed with the others."""
    database = _server() if kind == "mariadb" else None
    store = database.database() if database else kind
    plan, begun = chaos.draw(seed), time.monotonic()
    daemon = Subject(
        folder, followers=plan.people, workers=plan.workers, concurrency=plan.concurrency,
        rate=int(plan.calls / _LENGTH), latency="20ms", spread=0.3, seed=seed, store=store, **plan.fates,
    )  # fmt: skip
    conductor = None
    try:
        wait_for(lambda: _all_ready(daemon), "workers that are ready")  # restarts meet them earlier often enough
        _patiently(lambda: daemon.call("campaign.list"))  # tables are there: else all is over before anybody is sent to
        campaign = daemon.call("campaign.submit", content="hello", phone="110")["campaign"]
        conductor = Conductor(daemon, campaign, database)
        conductor.perform(plan.events + (chaos.draw_database(seed) if database else ()))
        conductor.heal()
        last = _ended(daemon, conductor, campaign)
        rows = _patiently(lambda: daemon.rows(campaign))
        faulted = sum(daemon.sandbox.stats()["faults"].values())
        allowed = conductor.tally.lost * plan.concurrency + faulted
        audience = [follower(i) for i in range(plan.people)]
        found = sums.check(audience, daemon.sandbox.ledger, last, rows, allowed)
        violations = (*found.violations, *_orderly_end(daemon, conductor))
        return Result(seed, time.monotonic() - begun, conductor.tally, faulted, allowed, found, violations)
    finally:
        _leave(daemon, conductor)


def _all_ready(daemon: Daemon) -> bool:
    return {worker["state"] for worker in daemon.workers()} == {"idle"}


def _ended(daemon: Daemon, conductor: Conductor, campaign: str) -> dict[str, Any]:
    """The campaign, done; who finds it paused lets it go on, who finds no daemon starts it."""
    def look() -> dict[str, Any] | None:
        conductor.revive()
        try:
            seen: dict[str, Any] = daemon.call("campaign.get", campaign=campaign)
            if seen["state"] == "paused":
                daemon.call("campaign.resume", campaign=campaign)
        except (TryAgain, Unreachable):
            return None
        return seen if seen["state"] in ("done", "failed", "cancelled") else None

    found: dict[str, Any] = wait_for(look, f"the end of {campaign}", _PATIENCE)
    assert found["state"] == "done", found
    return found


def _patiently(ask: Callable[[], Any]) -> Any:
    """What it gives, as soon as the daemon answers."""
    def try_it() -> list[Any] | None:
        try:
            return [ask()]
        except (TryAgain, Unreachable):
            return None

    return wait_for(try_it, "an answer")[0]


def _orderly_end(daemon: Daemon, conductor: Conductor) -> list[str]:
    """What a stop has left undone, in words; nobody may have died of himself before."""
    daemon.process.terminate()
    found = []
    try:
        code = daemon.process.wait(20)
        if code:
            found.append(f"the stop ended with {code}")
    except subprocess.TimeoutExpired:
        found.append("the stop did not end")
    try:
        wait_for(lambda: not conductor.processes(), "the last process's end", 2)
    except AssertionError:
        found.append(f"processes left: {conductor.processes()}")
    state = daemon.folder / "state"
    for name in ("journals", "spool/new", "spool/tmp", "spool/bad"):
        # A journal whose worker was killed before it had its name tells of nobody.
        left = sorted(path.name for path in (state / name).glob("[!.]*") if path.is_file())
        if left:
            found.append(f"left in {name}: {', '.join(left)}")
    if "Traceback" in (daemon.folder / "fanoutd.log").read_text():
        found.append("a traceback in fanoutd.log")
    return found


def _leave(daemon: Daemon, conductor: Conductor | None) -> None:
    """Nothing of it lives afterwards, however it went."""
    if conductor:
        conductor.close()
        for pid in conductor.processes():
            os.kill(pid, 9)
    daemon.close()


# ---- without any fault


def clean(people: int, folder: Path) -> sums.Sums:
    """Everybody is sent to once, and nobody is unknown: nothing befalls this one."""
    daemon = Daemon(folder, followers=people, workers=2, concurrency=32)
    try:
        campaign = daemon.call("campaign.submit", content="hello", phone="110")["campaign"]
        last = daemon.until(campaign, seconds=30 + people / 300)
        audience = [follower(i) for i in range(people)]
        return sums.check(audience, daemon.sandbox.ledger, last, daemon.rows(campaign), 0)
    finally:
        daemon.close()


# ---- the script


@dataclass(slots=True)
class Total:
    """All rounds together."""

    rounds: int = 0
    tally: Tally = field(default_factory=Tally)
    faulted: int = 0
    allowed: int = 0
    people: int = 0
    sent: int = 0
    failed: int = 0
    unknown: int = 0
    unknown_accepted: int = 0

    def add(self, result: Result) -> None:
        self.rounds += 1
        for name in ("killed", "stopped", "ordered"):
            getattr(self.tally, name).update(getattr(result.tally, name))
        self.faulted += result.faulted
        self.allowed += result.allowed
        for name in ("people", "sent", "failed", "unknown", "unknown_accepted"):
            setattr(self, name, getattr(self, name) + getattr(result.sums, name))

    def table(self) -> str:
        """As Markdown."""
        t = self.tally
        rows = [
            ("rounds", f"{self.rounds:,}"),
            ("people", f"{self.people:,}"),
            ("killed with SIGKILL: workers, dispatchers, molds, masters", _figures(t.killed, chaos.WHO)),
            ("databases killed with SIGKILL", f"{t.killed['database']:,}"),
            ("stopped for up to 3 s: workers, dispatchers, molds, masters", _figures(t.stopped, chaos.WHO)),
            ("reloads, upgrades, pauses", _figures(t.ordered, ("HUP", "USR2", "pause"))),
            ("requests reset, dropped, hung, cut off or met by a 502", f"{self.faulted:,}"),
            ("sent", f"{self.sent:,}"),
            ("refused by the API, as it should", f"{self.failed:,}"),
            ("unknown (of them accepted by the API)", f"{self.unknown:,} ({self.unknown_accepted:,})"),
            ("unknown that kills and faults could explain", f"{self.allowed:,}"),
            ("sent to twice, forgotten, or told otherwise than the API has it", "0"),
        ]
        return "\n".join(["| | |", "|---|---:|", *(f"| {what} | {figure} |" for what, figure in rows)])


def _figures(counts: Counter[str], names: Sequence[str]) -> str:
    return ", ".join(f"{counts[name]:,}" for name in names)


def soak(rounds: int, first: int, kind: str = "sqlite") -> int:
    """So many rounds, from this seed on; 1 at the first violation, whose folder is kept."""
    how = "" if kind == "sqlite" else f" --store {kind}"
    total, begun = Total(), time.monotonic()
    for seed in range(first, first + rounds):
        folder = Path(tempfile.mkdtemp(prefix=f"fanoutd-soak-{seed}-"))
        try:
            result = play(seed, folder, kind)
            print(result.line(), flush=True)
            broken = bool(result.violations)
        except (AssertionError, ClientError, Unreachable) as error:
            print(f"seed {seed}  VIOLATED: {error}", flush=True)
            broken = True
        if broken:
            print(f"again with: scripts/soak --rounds 1 --seed {seed}{how}\nits files: {folder}", file=sys.stderr)
            return 1
        shutil.rmtree(folder)
        total.add(result)
    words = f"`scripts/soak --rounds {rounds} --seed {first}{how}`, {time.monotonic() - begun:,.0f} s"
    print(f"\n{words}:\n\n{total.table()}")
    return 0


def soak_clean(people: int) -> int:
    """1 when anybody is unknown, forgotten or sent to twice."""
    folder, begun = Path(tempfile.mkdtemp(prefix="fanoutd-soak-clean-")), time.monotonic()
    found = clean(people, folder)
    verdict, seconds = "; ".join(found.violations) or "ok", f"{time.monotonic() - begun:,.0f} s"
    print(f"{people:,} people without faults: sent {found.sent:,}, unknown {found.unknown}, {seconds}  {verdict}")
    if found.violations or found.sent != people:
        print(f"its files: {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, help="of the first round, the next ones count on (by chance)")
    parser.add_argument("--store", choices=KINDS, default="sqlite", help="what is kept where (%(default)s)")
    parser.add_argument("--clean", type=int, metavar="PEOPLE", help="one campaign of so many without any fault instead")
    args = parser.parse_args()
    if args.clean:
        return soak_clean(args.clean)
    return soak(args.rounds, int.from_bytes(os.urandom(3)) if args.seed is None else args.seed, args.store)


if __name__ == "__main__":
    sys.exit(main())
