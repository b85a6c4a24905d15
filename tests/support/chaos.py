"""Bad days for a daemon: what befalls it in a round, all of it drawn from a seed, and who makes it happen."""

from __future__ import annotations

import contextlib
import heapq
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Thread

import requests

from fanoutd.lines import encode
from fanoutd.sandbox.people import FAULTS
from support.daemon import Daemon
from support.mariadb import MariaDb

#: Seconds from the submission within which everything befalls it.
SPAN = 2.5

#: A request that is never answered is given up after so many seconds.
TIMEOUT = 2.0

CHILDREN = ("worker", "dispatcher", "mold")
WHO = (*CHILDREN, "master")

#: Pause before what could not be done just now is tried again, in seconds.
_AGAIN = 0.05


@dataclass(frozen=True, slots=True)
class Event:
    """``at`` seconds after the submission. ``pick``, 0 to 1, chooses among those that are ``who`` then."""

    at: float
    what: str
    who: str = ""
    pick: float = 0.0
    seconds: float = 0.0
    switches: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """A round. ``fates`` are shares of people that the sandbox answers in their own way."""

    people: int
    workers: int
    concurrency: int
    fates: Mapping[str, float]
    events: tuple[Event, ...]

    @property
    def calls(self) -> float:
        """About so many if nothing befell it."""
        return self.people * (1 + self.fates["no_window"] + self.fates["used_up"] + self.fates["busy"])


def draw(seed: int) -> Plan:
    """The round of this seed."""
    chance = Random(seed)
    fates = {"no_window": chance.uniform(0, 0.5), "used_up": chance.uniform(0, 0.03),
             "unfollowed": chance.uniform(0, 0.03), "busy": chance.uniform(0, 0.02)}  # fmt: skip
    people, workers, concurrency = chance.randint(2000, 3200), chance.randint(2, 4), chance.choice((16, 24, 32))
    return Plan(people, workers, concurrency, fates, tuple(_events(chance)))


def draw_database(seed: int) -> tuple[Event, ...]:
    """What befalls the store's server in this round besides: killed, and away for up to a second."""
    chance = Random(f"database {seed}")
    kills = chance.choice((0, 1, 1, 2))
    return tuple(Event(chance.uniform(0, SPAN), "database", seconds=chance.uniform(0, 1.0)) for _ in range(kills))


def _events(chance: Random) -> list[Event]:
    def at() -> float:
        return chance.uniform(0, SPAN)

    kills = [Event(at(), "kill", _who(chance), chance.random(), chance.uniform(0, 0.8))
             for _ in range(chance.randint(1, 5))]  # fmt: skip
    if chance.random() < 0.25:
        kills.append(Event(at(), "kill", "all", seconds=chance.uniform(0, 0.8)))
    stops = [_stop(chance) for _ in range(chance.randint(0, 3))]
    faults = [Event(chance.uniform(0, 1), "faults", seconds=chance.uniform(1.0, 2.5), switches=_faults(chance, 0.0))]
    faults += [Event(at(), "faults", seconds=chance.uniform(0.1, 0.6), switches=_faults(chance, 0.2))
               for _ in range(chance.randint(1, 3))]  # fmt: skip
    refusals = [Event(at(), "refuse", seconds=chance.uniform(0.1, 0.8))] if chance.random() < 0.4 else []
    orders = [Event(at(), what, seconds=chance.uniform(0.05, 1.0))
              for what, often in (("HUP", 0.3), ("USR2", 0.3), ("pause", 0.4)) if chance.random() < often]  # fmt: skip
    return kills + stops + faults + refusals + orders


def _stop(chance: Random) -> Event:
    """Long ones begin early, so that a round has its end."""
    seconds = chance.uniform(0.1, 3.0)
    return Event(chance.uniform(0, SPAN + 0.7 - seconds), "stop", _who(chance), chance.random(), seconds)


def _who(chance: Random) -> str:
    """Workers have the most to lose."""
    return chance.choices(WHO, (5, 2, 1, 2))[0]


def _faults(chance: Random, outage: float) -> dict[str, float]:
    """Some kinds at a small share, or, so often, one that befalls every call."""
    if chance.random() < outage:
        return {chance.choice([name for name in FAULTS if "hang" not in name]): 1.0}
    kinds = chance.sample(list(FAULTS), chance.randint(1, 4))
    return {name: round(chance.uniform(0.002, 0.01 if "hang" in name else 0.04), 4) for name in kinds}


@dataclass(slots=True)
class Tally:
    """What was done in a round, by kind. ``lost`` are the workers that left requests unanswered behind."""

    killed: Counter[str] = field(default_factory=Counter)
    stopped: Counter[str] = field(default_factory=Counter)
    ordered: Counter[str] = field(default_factory=Counter)
    lost: int = 0


class Conductor:
    """Makes a plan happen to a daemon with this campaign, and everything well again. ``database``: its store's."""

    def __init__(self, daemon: Daemon, campaign: str, database: MariaDb | None = None) -> None:
        self.tally = Tally()
        self._daemon, self._campaign, self._database = daemon, campaign, database
        self._starting: Thread | None = None
        self._sessions = {daemon.process.pid}
        self._frozen: set[int] = set()
        self._clients: list[socket.socket] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0

    # ---- the timetable

    def perform(self, events: tuple[Event, ...]) -> None:
        """All of it, by the clock."""
        begun = time.monotonic()
        for event in events:
            self._at(begun + event.at, lambda event=event: self._happen(event))
        while self._due:
            at, _, step = heapq.heappop(self._due)
            time.sleep(max(0.0, at - time.monotonic()))
            step()

    def heal(self) -> None:
        """Whatever is stopped goes on, the API is well, a master runs."""
        for pid in list(self._frozen):
            self._thaw(pid)
        self._faults(dict.fromkeys(FAULTS, 0.0))
        self.revive()
        self.perform(())  # the faults, if the API refused just now
        if self._starting is not None:
            self._starting.join()

    def revive(self) -> None:
        """What a cron job does: start the master when there is none."""
        if self._daemon.process.poll() is not None:
            self._daemon.serve(wait=False)
            self._sessions.add(self._daemon.process.pid)

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def _at(self, when: float, step: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._due, (when, self._serial, step))

    def _in(self, seconds: float, step: Callable[[], None]) -> None:
        self._at(time.monotonic() + seconds, step)

    def _happen(self, event: Event) -> None:
        if event.what == "kill":
            self._kill(event)
        elif event.what == "stop":
            self._freeze(event)
        elif event.what == "faults":
            self._faults(event.switches)
            self._in(event.seconds, lambda: self._faults(dict.fromkeys(event.switches, 0.0)))
        elif event.what == "database":
            self._kill_database(event.seconds)
        elif event.what == "refuse":
            self._faults({"refuse": event.seconds})
        elif event.what == "pause":
            self._order("campaign.pause")
            self._in(event.seconds, lambda: self._order("campaign.resume"))
        else:
            self._signal_master(event.what)

    # ---- the daemon's processes

    def processes(self) -> dict[int, str]:
        """Who of them lives, by pid: ``worker``, ``dispatcher``, ``mold``, ``master``, else empty."""
        return processes(self._sessions, self._daemon.process.pid)

    def _chosen(self, event: Event) -> list[tuple[int, str]]:
        those = sorted((pid, role) for pid, role in self.processes().items() if event.who in (role, "all"))
        return those if event.who == "all" or not those else [those[int(event.pick * len(those))]]

    def _kill(self, event: Event) -> None:
        for pid, role in self._chosen(event):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.tally.killed[role] += 1
                self.tally.lost += role == "worker"
                if role == "master":
                    self._daemon.process.wait()
                    self._in(event.seconds, self.revive)

    def _kill_database(self, seconds: float) -> None:
        if self._database is not None and (self._starting is None or not self._starting.is_alive()):
            self._database.kill()
            self.tally.killed["database"] += 1
            self._starting = Thread(target=self._database.start)
            self._in(seconds, self._starting.start)

    def _freeze(self, event: Event) -> None:
        for pid, role in self._chosen(event):
            if pid not in self._frozen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    self._frozen.add(pid)
                    self.tally.stopped[role] += 1
                    # Woken up it finds that what was on the wire has taken too long.
                    self.tally.lost += role == "worker" and event.seconds > TIMEOUT - 0.5
                    self._in(event.seconds, lambda pid=pid: self._thaw(pid))

    def _thaw(self, pid: int) -> None:
        self._frozen.discard(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def _signal_master(self, name: str) -> None:
        if self._daemon.process.poll() is None:
            self._daemon.process.send_signal(signal.Signals[f"SIG{name}"])
            self.tally.ordered[name] += 1

    # ---- words

    def _faults(self, switches: Mapping[str, float]) -> None:
        """Again and again when the API refuses connections just now."""
        try:
            self._daemon.sandbox.set_options(**switches)
        except requests.ConnectionError:
            self._in(_AGAIN, lambda: self._faults(switches))

    def _order(self, method: str) -> None:
        """Said and not waited for: who should answer may be stopped or dead."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(0.1)
        self._clients.append(client)
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"campaign": self._campaign}}
        with contextlib.suppress(OSError):
            client.connect(str(self._daemon.socket))
            client.sendall(encode(request))
            self.tally.ordered[method.removeprefix("campaign.")] += 1


def processes(sessions: Collection[int], master: int) -> dict[int, str]:
    """Who lives in these sessions, by pid: ``worker``, ``dispatcher``, ``mold``, ``master``, else empty."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.getsid(int(name)) in sessions and _lives(int(name)):
                    found[int(name)] = "master" if int(name) == master else _role(int(name))
    return found


def _role(pid: int) -> str:
    title = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
    words = title.removeprefix("fanoutd: ").split()
    return words[0] if words and words[0] in CHILDREN else ""


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
