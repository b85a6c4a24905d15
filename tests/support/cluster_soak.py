"""Rounds of bad days for several machines: one campaign of all nodes while they die, stop, and lose the database.

Run as a module it is ``scripts/cluster-soak``. A round is its seed: the same one draws the same bad day.
"""

from __future__ import annotations

import argparse
import heapq
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fanoutd.client import ClientError, Unreachable
from support import sums
from support.bench import wait_for
from support.cluster import Cluster, Node
from support.mariadb import MariaDb
from support.netns import Namespace

#: Another node takes over what a node had in hand so many seconds after it was heard of last, at the latest.
TAKEN_OVER = 60.0

#: Seconds in which all must have settled when everybody is back.
_PATIENCE = 180.0

#: A call may arrive so many seconds late on a machine that does other things: then a second has more in it, and five
#: seconds hardly any.
_LATE = 0.2

#: What befalls: how often it is drawn, and for how many seconds it lasts, from and to.
KINDS = {
    "kill": (3, 2.0, TAKEN_OVER + 20),
    "stop node": (2, 20.0, TAKEN_OVER + 20),
    "stop worker": (2, 20.0, TAKEN_OVER + 20),
    "cut off": (3, 10.0, TAKEN_OVER + 20),
    "database": (2, 0.5, 8.0),
    "restart": (1, 1.0, 5.0),
    "HUP": (1, 0.0, 0.0),
}

#: Those after which somebody else must have taken over, if they last.
_GONE = ("kill", "stop node", "stop worker", "cut off")


@dataclass(frozen=True, slots=True)
class Event:
    """``at`` seconds after the submission, and for how many. ``node`` counts from 0."""

    at: float
    what: str
    node: int
    seconds: float

    def __str__(self) -> str:
        where = "" if self.what == "database" else f" {self.node + 1}"
        return f"{self.what}{where} at {self.at:.0f}" + (f" for {self.seconds:.0f} s" if self.seconds else "")


def draw(seed: int, nodes: int, length: float) -> list[Event]:
    """Three to six of them while the campaign runs; nothing befalls a node that something befalls already."""
    chance, names = Random(seed), list(KINDS)
    chosen = chance.choices(names, [KINDS[name][0] for name in names], k=chance.randint(3, 6))
    return _timetable(chance, chosen, nodes, length, {name: KINDS[name][1:] for name in names})


def draw_all(seed: int, nodes: int, length: float) -> list[Event]:
    """Everything once, and what may be taken over lasts until it is."""
    lasting = {name: (TAKEN_OVER + 15, most) if name in _GONE else (least, most)
               for name, (_, least, most) in KINDS.items()}  # fmt: skip
    return _timetable(Random(seed), list(KINDS), nodes, length, lasting)


def _timetable(
    chance: Random, names: Sequence[str], nodes: int, length: float, lasting: Mapping[str, tuple[float, float]]
) -> list[Event]:
    """Tried until all find their place; in less and less of it, should that be impossible."""
    for turn in range(10_000):
        events: list[Event] = []
        for what in names[: max(1, len(names) - turn // 1000)]:
            seconds = chance.uniform(*lasting[what])
            new = Event(chance.uniform(2, length * 0.8), what, chance.randrange(nodes), seconds)
            if all(_apart(new, other) for other in events):
                events.append(new)
        if len(events) == len(names) - turn // 1000:
            break
    return sorted(events, key=lambda event: event.at)


def _apart(one: Event, other: Event) -> bool:
    """The database is one, and whatever befalls it befalls no node."""
    if (one.what == "database") != (other.what == "database") or (one.what != "database" and one.node != other.node):
        return True
    return one.at > other.at + other.seconds + 2 or one.at + one.seconds + 2 < other.at


class Director:
    """Makes it happen, and watches how many are unknown."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self.most_unknown = 0
        self.gone = 0
        """Workers that may have been taken over."""

    def perform(self, events: list[Event]) -> None:
        """All of it, by the clock, and every end of it."""
        begun = time.monotonic()
        for event in events:
            self._at(begun + event.at, lambda event=event: self._happen(event))
        while self._due:
            if time.monotonic() >= self._due[0][0]:
                heapq.heappop(self._due)[2]()
            else:
                time.sleep(min(0.2, max(0.0, self._due[0][0] - time.monotonic())))
                self.most_unknown = max(self.most_unknown, self._cluster.unknown())

    def _at(self, when: float, step: Callable[[], object]) -> None:
        self._serial += 1
        heapq.heappush(self._due, (when, self._serial, step))

    def _happen(self, event: Event) -> None:
        node = self._cluster.nodes[event.node]
        if event.what in _GONE:
            self.gone += 1 if event.what == "stop worker" else self._cluster.workers
        self._at(time.monotonic() + event.seconds, self._befall(event.what, node))

    def _befall(self, what: str, node: Node) -> Callable[[], object]:
        """Begin it; what ends it."""
        if what == "kill":
            node.kill()
            return lambda: node.serve(wait=False)
        if what.startswith("stop"):
            node.freeze(everything=what == "stop node")
            return node.thaw
        if what == "cut off":
            node.wire.silence()
            return node.reconnect
        if what == "database":
            self._cluster.server.kill()
            return self._cluster.server.start
        if what == "restart":
            node.stop()
            return lambda: node.serve(wait=False)
        node.process.send_signal(1)
        return lambda: None


@dataclass(frozen=True, slots=True)
class Result:
    """One round. ``before``: most unknown while something was wrong; ``after``: when all had settled."""

    seed: int
    seconds: float
    events: tuple[Event, ...]
    before: int
    allowed_before: int
    allowed_after: int
    sums: sums.Sums
    busiest: float
    busiest_five: float
    """Calls a second, in the busiest second and the busiest five."""
    rate: int
    violations: tuple[str, ...]

    def line(self) -> str:
        """A row of the table."""
        verdict = "ok" if not self.violations else "VIOLATED: " + "; ".join(self.violations)
        return (
            f"| {self.seed} | {'; '.join(map(str, self.events))} | {self.seconds:.0f} s | {self.sums.sent:,} "
            f"| {self.before} of {self.allowed_before} | {self.sums.unknown} of {self.allowed_after} "
            f"| {self.busiest:.0f}, {self.busiest_five:.0f} of {self.rate} | {verdict} |"
        )


HEAD = (
    "| seed | what befell it, in seconds | length | sent | unknown meanwhile, of allowed "
    "| unknown in the end, of allowed | calls a second, in the busiest one, over the busiest five, of the rate "
    "| |\n|---:|---|---:|---:|---:|---:|---:|---|"
)


def play(seed: int, events: list[Event], cluster: Cluster, timed: bool = True) -> Result:
    """One campaign of a new cluster. Not ``timed``: the machine does other things, and calls that left in time may
    arrive together."""
    begun = time.monotonic()
    cluster.ready()
    first = cluster.nodes[Random(seed).randrange(len(cluster.nodes))]
    campaign = first.call("campaign.submit", content="hello", phone="110", key=f"round {seed}")["campaign"]
    wait_for(lambda: cluster.open() > 0, "the first of them planned")
    director = Director(cluster)
    director.perform(events)
    last = cluster.settled(campaign, _PATIENCE + cluster.people / cluster.rate)
    busiest, five = cluster.busiest(1.0), cluster.busiest(5.0)
    found = cluster.audit(campaign, last)
    violations = [*found.violations, *cluster.orderly_end()]
    allowed = cluster.may_be_given_up(director.gone)
    if director.most_unknown > allowed:
        violations.append(f"{director.most_unknown} unknown at a time, where at most {allowed} can be explained")
    if timed and (five > cluster.rate * 1.1 or busiest > cluster.rate * (1.1 + _LATE)):
        violations.append(f"{busiest:.0f} calls in a second, {five:.0f} over five, where {cluster.rate} are allowed")
    return Result(seed, time.monotonic() - begun, tuple(events), director.most_unknown, allowed,
                  cluster.may_stay_unknown(), found, busiest, five, cluster.rate, tuple(violations))  # fmt: skip


def soak(args: argparse.Namespace) -> int:
    """So many rounds, from this seed on; 1 at the first violation, whose folder is kept."""
    beyond = Namespace(f"fanoutd-{os.getpid()}") if args.netns else None
    server = MariaDb("--bind-address=0.0.0.0", prefix=beyond.prefix) if beyond else MariaDb()
    print(HEAD, flush=True)
    try:
        for seed in range(args.seed, args.seed + args.rounds):
            folder = Path(tempfile.mkdtemp(prefix=f"fanoutd-cluster-{seed}-"))
            length = args.people / args.rate
            events = (draw_all if args.all else draw)(seed, args.nodes, length)
            options = {"latency": "200ms", "spread": 0.3, "seed": seed}
            cluster = Cluster(folder, server, args.people, args.rate, args.nodes, beyond=beyond, **options)
            try:
                result = play(seed, events, cluster)
                print(result.line(), flush=True)
                broken = bool(result.violations)
            except (AssertionError, ClientError, Unreachable) as error:
                print(f"| {seed} | {'; '.join(map(str, events))} | VIOLATED: {error}", flush=True)
                broken = True
            finally:
                cluster.close()
            if broken:
                more = "".join(f" --{name}" for name in ("all", "netns") if getattr(args, name))
                again = f"scripts/cluster-soak --rounds 1 --seed {seed} --people {args.people}{more}"
                print(f"again with: {again}\nits files: {folder}", file=sys.stderr)
                return 1
            shutil.rmtree(folder)
    finally:
        server.close()
        if beyond:
            beyond.close()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/cluster-soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, help="of the first round, the next ones count on (by chance)")
    parser.add_argument("--people", type=int, default=20_000, help="(%(default)s)")
    parser.add_argument("--nodes", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--rate", type=int, default=120, help="the account's, calls a second (%(default)s)")
    parser.add_argument("--all", action="store_true", help="everything once in each round")
    parser.add_argument("--netns", action="store_true", help="cables to a network namespace instead of proxies")
    args = parser.parse_args()
    args.seed = int.from_bytes(os.urandom(3)) if args.seed is None else args.seed
    return soak(args)


if __name__ == "__main__":
    sys.exit(main())
