"""What the store bears: the transactions of planner, recorder and sweep, without anybody who sends.

Run as a module it is ``scripts/store-bench``. Each process has its own connection; every transaction is durable. A
recorder's transaction is the real one's: the outcomes of one window, the release of what is finished, the next window.
What counts quota, opt-outs and rests is left out: it is the same two or three reads whatever the store.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fanoutd.outcome import Progress, State
from fanoutd.store import (
    Database,
    StoreAway,
    campaigns,
    counters,
    finishing,
    free_shards,
    open_store,
    records,
    shard_leases,
    shards,
    windows,
)
from fanoutd.store.campaigns import Campaign
from fanoutd.store.database import StoreBusy
from fanoutd.store.deliveries import Person
from fanoutd.store.records import Attempt
from fanoutd.store.schema import migrate
from fanoutd.store.shard_leases import Lease
from fanoutd.store.shards import Planned
from fanoutd.store.windows import Window
from fanoutd.times import wall_ms
from support.bench import person
from support.mariadb import MariaDb

#: People in a shard: the size to which a plan's shards grow. They begin with 50.
SHARD = 2000

#: A server as it is set up for more than a test: the data of a phase fits.
SERVER = ("--innodb-buffer-pool-size=512M", "--innodb-log-file-size=256M", "--innodb-print-all-deadlocks=ON")

#: In the long run: planners rest when so many shards wait for each worker.
_AHEAD = 4

_DEFINITION = {"channels": ["custom", "template"], "bodies": {}, "too_long": "cut", "variables": [], "query": None,
               "content": "hello", "phone": None, "data": {}, "page": None, "page_size": 500}  # fmt: skip


@dataclass(slots=True)
class Figures:
    """What one process did. ``spans``: seconds of each transaction; ``busy`` were undone and repeated."""

    people: int = 0
    spans: list[float] = field(default_factory=list)
    busy: Counter[str] = field(default_factory=Counter)
    cpu: float = 0.0
    seconds: float = 0.0

    def add(self, other: Figures) -> None:
        self.people += other.people
        self.spans += other.spans
        self.busy.update(other.busy)
        self.cpu += other.cpu
        self.seconds = max(self.seconds, other.seconds)


@dataclass(frozen=True, slots=True)
class Sizes:
    processes: int
    windows: Sequence[int]
    """Of the processes in turn."""
    shard: int
    people: int
    """Where all planners together stop."""


class Actor:
    """A process's connection, and its transactions timed."""

    def __init__(self, url: str, number: int, sizes: Sizes) -> None:
        self.db = open_store(url)
        self.number, self.sizes, self.figures = number, sizes, Figures()
        self.window = sizes.windows[number % len(sizes.windows)]
        self.name = f"bench/w{number}"

    def timed(self, step: Callable[[], Any]) -> Any:
        """One transaction, repeated until it is through."""
        while True:
            began = time.perf_counter()
            try:
                with self.db.transaction():
                    found = step()
            except StoreBusy as e:
                self.figures.busy[f"{type(e.__cause__).__name__} {e.__cause__}"[:120]] += 1
            except StoreAway as e:  # SQLite: another one wrote for longer than we wait
                self.figures.busy[str(e)[-80:]] += 1
            else:
                self.figures.spans.append(time.perf_counter() - began)
                return found


# ---- plan


def plan(actor: Actor, ends: float) -> None:
    """Campaigns of our own until the time is over or enough people are in."""
    made, enough = 0, actor.sizes.people // actor.sizes.processes
    while time.monotonic() < ends and actor.figures.people < enough:
        plan_one(actor, f"plan-{actor.number}-{made}", 20, ends)
        made += 1


def plan_one(actor: Actor, name: str, size: int, ends: float) -> None:
    """A campaign of so many shards, released as they fill."""
    db, at = actor.db, wall_ms()
    row = Campaign(name, "main", "supply", None, None, None, "planning", None, None, at, None, at, None, False,
                   "bench", "list", dict(_DEFINITION))  # fmt: skip
    actor.timed(lambda: campaigns.insert(db, row))
    for idx in range(size):
        if time.monotonic() > ends:
            break
        shard = actor.sizes.shard
        new = [Planned(person(idx * shard + i)) for i in range(shard)]

        def release(idx: int = idx, new: list[Planned] = new) -> None:
            shards.add(db, name, idx, new)
            campaigns.move(db, name, "planning", "running", reason=None)

        actor.timed(release)
        actor.figures.people += shard
    actor.timed(lambda: db.execute("UPDATE fanout_campaign SET planned = 1 WHERE id = %s", name))
    actor.timed(lambda: finishing.finish(db, name))


# ---- claim and record


@dataclass(slots=True, eq=False)
class Held:
    """A shard in hand, and those of it who are claimed and not recorded."""

    lease: Lease
    people: list[Person]
    last: bool


class Recorder:
    """Round by round what a worker's recorder writes; everybody who is claimed has been sent to by the next round."""

    def __init__(self, actor: Actor, record: bool) -> None:
        self._actor, self._record = actor, record
        self._holds: list[Held] = []

    def round(self) -> int:
        """The people whom it claimed; 0 when it has nothing in hand any more either."""
        holds, freed = self._actor.timed(self._transaction)
        self._holds = holds
        if self._record:
            for campaign in {each.lease.campaign for each in freed}:
                self._actor.timed(lambda c=campaign: finishing.finish(self._actor.db, c))
        found = sum(len(each.people) for each in holds)
        self._actor.figures.people += found
        return found or len(freed)

    def _transaction(self) -> tuple[list[Held], list[Held]]:
        db, going = self._actor.db, [each for each in self._holds if not each.last]
        shards.lock(db, (each.lease.shard for each in self._holds))
        recording = records.ask_to_record(db, self._attempts())
        asked = {each: windows.ask(db, each.lease, self._actor.window) for each in going}
        free = free_shards.ask_free(db)
        assert not records.record_all(db, recording)
        freed = [each for each in self._holds if each.last]
        for each in freed if self._record else ():
            shard_leases.release(db, each.lease)
        room, holds = self._actor.window, list[Held]()
        for each in going:
            room -= self._claim(db, each.lease, room, asked[each], holds)
        for lease, _, window in free_shards.take(db, self._actor.name, room, free) if room > 0 else ():
            room -= self._claim(db, lease, room, window, holds)
        return holds, freed

    def _claim(self, db: Database, lease: Lease, room: int, window: Window, holds: list[Held]) -> int:
        people = (windows.claim(db, lease, room, window) or []) if room > 0 else []
        holds.append(Held(lease, people, room > 0 and len(people) < room))
        return len(people)

    def _attempts(self) -> list[Attempt]:
        return [
            Attempt(each.lease.shard, each.lease.token, [(person.pos, _outcome(person.pos)) for person in each.people])
            for each in self._holds if self._record and each.people
        ]  # fmt: skip


def _outcome(pos: int) -> Progress:
    """A custom message for most, a template with its msgid for one in five, a refusal for one in fifty."""
    if pos % 50 == 0:
        return Progress(State.FAILED, 2, 43004, None, 2, 2, 1)
    if pos % 5 == 0:
        return Progress(State.SENT, 2, 0, 3_000_000_000_000 + pos, 2, 2, 1)
    return Progress(State.SENT, 1, 0, None, 1, 1, 1)


def claim(actor: Actor, ends: float) -> None:
    """Take shards and windows of them, and write nothing down of anybody."""
    recorder = Recorder(actor, record=False)
    while time.monotonic() < ends and recorder.round():
        pass


def claim_and_record(actor: Actor, ends: float) -> None:
    recorder = Recorder(actor, record=True)
    while time.monotonic() < ends and recorder.round():
        pass


# ---- all of it together

#: Of the processes of the long run so many plan; the last one sweeps and gives orders, the rest work.
_PLANNERS = 2


def together(actor: Actor, ends: float) -> None:
    """Planners, workers, and what a dispatcher does beside them."""
    part = _plan_ahead if actor.number < _PLANNERS else _sweep if actor.number == actor.sizes.processes - 1 else _work
    part(actor, ends)


def _work(actor: Actor, ends: float) -> None:
    recorder = Recorder(actor, record=True)
    while time.monotonic() < ends:
        if not recorder.round():
            time.sleep(0.05)


def _plan_ahead(actor: Actor, ends: float) -> None:
    made = 0
    while time.monotonic() < ends:
        if free_shards.ready(actor.db) < _AHEAD * actor.sizes.processes:
            plan_one(actor, f"plan-{actor.number}-{made}", 10, ends)
            made += 1
        else:
            time.sleep(0.05)
    actor.figures.people = 0  # those whom the workers claim are the figure


def _sweep(actor: Actor, ends: float) -> None:
    """What a dispatcher does beside: the rescue sweep, questions, and an operator who pauses and lets go on."""
    db, turn = actor.db, 0
    while time.monotonic() < ends:
        for each in campaigns.in_states(db, "running"):
            actor.timed(lambda id=each.id: finishing.finish(db, id))
        running = campaigns.in_states(db, "running")
        free_shards.totals(db)
        shard_leases.expired(db, 30_000)
        if running:
            _orders(actor, running[turn % len(running)].id)
        turn += 1
        time.sleep(0.5)


def _orders(actor: Actor, campaign: str) -> None:
    db = actor.db
    counters.counts(db, campaign)
    actor.timed(lambda: campaigns.move(db, campaign, "running", "paused", cause=None, reason="a test"))
    time.sleep(0.1)
    actor.timed(lambda: shard_leases.park(db, campaign, wall_ms() + 100))
    actor.timed(lambda: campaigns.move(db, campaign, "paused", "running", cause=None, reason=None))
    actor.timed(lambda: shard_leases.unpark(db, "main"))


# ---- many processes

Part = Callable[[Actor, float], None]
"""What a process does until then, on the monotonic clock."""


def run(url: str, part: Part, sizes: Sizes, seconds: float) -> Figures:
    """All processes from the same moment on; their figures together."""
    context = multiprocessing.get_context("fork")
    said, start = context.Queue(), context.Barrier(sizes.processes)

    def child(number: int) -> None:
        found: Figures | str = "it failed"
        try:
            actor = Actor(url, number, sizes)
            start.wait(30)
            spent, began = time.process_time(), time.monotonic()
            part(actor, began + seconds)
            actor.figures.seconds, actor.figures.cpu = time.monotonic() - began, time.process_time() - spent
            found = actor.figures
        except BaseException as e:
            found = repr(e)
            raise
        finally:
            said.put(found)

    children = [context.Process(target=child, args=(number,)) for number in range(sizes.processes)]
    for each in children:
        each.start()
    total = Figures()
    for _ in children:
        heard = said.get(timeout=seconds + 120)
        assert isinstance(heard, Figures), heard
        total.add(heard)
    for each in children:
        each.join()
    return total


# ---- the two stores


class Sqlite:
    """New stores in files; no server, so that its processor time is in that of its users."""

    kind = "sqlite"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fanoutd-store-bench-"))
        self._serial = 0

    def new(self) -> str:
        """The URL of an empty store."""
        url = self._url()
        db = open_store(url)
        with db.closing():
            migrate(db)
        return url

    def _url(self) -> str:
        self._serial += 1
        return f"sqlite:///{self.folder}/{self._serial}.db"

    def cpu(self) -> float:
        """Seconds that the server has spent."""
        return 0.0

    def deadlocks(self) -> int:
        """By the server's own count."""
        return 0

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Mysql(Sqlite):
    """New databases on a server of our own."""

    kind = "mysql"

    def __init__(self) -> None:
        super().__init__()
        self._server = MariaDb(*SERVER)
        self.version = self._server.say("SELECT VERSION()")[0][0]

    def _url(self) -> str:
        return self._server.database()

    def cpu(self) -> float:
        fields = Path(f"/proc/{self._server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def deadlocks(self) -> int:
        return sum(int(value) for _, value in self._server.say("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'"))

    def close(self) -> None:
        if self.deadlocks():
            kept = shutil.copy(next(self._server.folder.glob("log*")), tempfile.mkstemp(prefix="fanoutd-deadlocks-")[1])
            print(f"the server's account of the deadlocks: {kept}", file=sys.stderr)
        self._server.close()
        super().close()


# ---- the script

_HEAD = (
    "| store | what | shard | window | people/s | transactions/s | p50 | p99 | worst | deadlocks "
    "| CPU s: ours, the server's | people a CPU s |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def measure(place: Sqlite, url: str, what: str, part: Part, sizes: Sizes, seconds: float) -> Figures:
    """One line of the table."""
    spent, dead = place.cpu(), place.deadlocks()
    found = run(url, part, sizes, seconds)
    spent = place.cpu() - spent
    spans = [span * 1000 for span in found.spans]
    cuts = statistics.quantiles(spans, n=100) if len(spans) > 1 else [0.0] * 99
    print(
        f"| {place.kind} | {what} | {sizes.shard} | {' '.join(map(str, sizes.windows))} "
        f"| {found.people / found.seconds:,.0f} | {len(spans) / found.seconds:,.0f} "
        f"| {cuts[49]:.1f} ms | {cuts[98]:.1f} ms | {max(spans):,.0f} ms "
        f"| {place.deadlocks() - dead} | {found.cpu:.1f}, {spent:.1f} "
        f"| {found.people / (found.cpu + spent):,.0f} |", flush=True,
    )  # fmt: skip
    for words, count in found.busy.most_common(5):
        print(f"  undone and repeated {count} times: {words}", file=sys.stderr, flush=True)
    return found


def phases(place: Sqlite, args: argparse.Namespace) -> None:
    """Plan; take all of it in windows; plan again; take and record. For each size of window."""
    for window in args.window:
        sizes = Sizes(args.processes, [window], args.shard, args.people)
        for what, part in (("claim", claim), ("claim and record", claim_and_record)):
            url = place.new()
            if what == "claim" and window == args.window[0]:
                measure(place, url, "plan", plan, sizes, args.seconds)
            else:
                run(url, plan, sizes, args.seconds)
            measure(place, url, what, part, sizes, args.seconds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/store-bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10, help="at most, of each phase (%(default)s)")
    parser.add_argument("--people", type=int, default=400_000, help="of each phase, at most (%(default)s)")
    parser.add_argument("--processes", type=int, default=8, help="at once (%(default)s)")
    parser.add_argument("--window", type=int, nargs="+", default=[64, 512], help="people a claim (%(default)s)")
    parser.add_argument("--shard", type=int, default=SHARD, help="people a shard (%(default)s)")
    parser.add_argument("--store", choices=("mysql", "sqlite"), help="only this one")
    parser.add_argument("--together", type=float, metavar="MINUTES", help="plan, work and sweep side by side instead")
    args = parser.parse_args()
    busy = 0
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} before; {args.processes} processes\n\n{_HEAD}")
    for kind in (Mysql, Sqlite):
        if args.store in (None, kind.kind):
            place = kind()
            try:
                if args.together:
                    sizes = Sizes(args.processes + 1, args.window, args.shard, args.people)
                    busy += measure(place, place.new(), "together", together, sizes, args.together * 60).busy.total()
                else:
                    phases(place, args)
            finally:
                place.close()
    print(f"\nload {os.getloadavg()[0]:.1f} after")
    return 1 if busy else 0


if __name__ == "__main__":
    sys.exit(main())
