"""Slots: places for children, and what the master knows of who is in them. No processes here.

    booting -> idle <-> busy -> draining -> dead         backoff: empty, to be filled again later
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    BOOTING = "booting"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    DEAD = "dead"
    BACKOFF = "backoff"


class Event(StrEnum):
    """What a child says, what is done to it, what becomes of it."""

    FORK = "fork"
    READY = "ready"
    IDLE = "idle"
    BUSY = "busy"
    STOP = "stop"
    FAILED = "failed"
    EXIT = "exit"


_ALIVE = (State.BOOTING, State.IDLE, State.BUSY, State.DRAINING)
_EMPTY = (State.DEAD, State.BACKOFF)

#: What is not here leaves the state as it is: a child that drains goes on saying idle and busy.
TRANSITIONS: dict[tuple[State, Event], State] = {
    **{(state, Event.FORK): State.BOOTING for state in _EMPTY},
    **{(state, Event.FAILED): State.BACKOFF for state in (*_EMPTY, State.BOOTING)},
    (State.BOOTING, Event.READY): State.IDLE,
    (State.IDLE, Event.BUSY): State.BUSY,
    (State.BUSY, Event.IDLE): State.IDLE,
    **{(state, Event.STOP): State.DRAINING for state in _ALIVE},
    **{(state, Event.EXIT): State.BACKOFF for state in _ALIVE},
    (State.DRAINING, Event.EXIT): State.DEAD,
    (State.DRAINING, Event.FAILED): State.DEAD,
}

#: Seconds. The first early death costs nothing, since the commonest one is an operator's kill.
BACKOFF_FIRST, BACKOFF_MOST = 0.1, 30.0
_PROVEN_AFTER = 10.0

#: Seconds until a child that was asked for has a pid, until it is ready, and from SIGABRT, at which it
#: writes down its stack, to SIGKILL.
BIRTH_TIMEOUT, BOOT_TIMEOUT, ABORT_GRACE = 10.0, 30.0, 2.0


def backoff(failures: int, chance: float) -> float:
    """Seconds until the next try after so many early deaths in a row; ``chance`` is from 0 to 1."""
    if failures < 2:
        return 0.0
    return float(min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(failures - 2, 30))) * (0.75 + chance / 2)


@dataclass(slots=True, eq=False)
class Slot:
    """Times are CLOCK_MONOTONIC seconds. ``row`` is the child's on the board, -1 in an empty slot. ``told_at``: when it
    was told what it has shown no sign of life after, as far as anybody looked; never later than it can have read it.
    ``excused``: nobody is blamed for a silence before then.

    ``pid`` is None in an empty slot, and in one whose child was asked of the mold and has not spoken. ``last_words``
    is the error that it died of, where it said so.
    """

    number: int
    role: str
    state: State = State.DEAD
    row: int = -1
    pid: int | None = None
    generation: int = 0
    restarts: int = 0
    born: float = 0.0
    idle_since: float = 0.0
    told_at: float | None = None
    busy_since: float = 0.0
    excused: float = 0.0
    woken: bool = False
    worked: bool = False
    failures: int = 0
    not_before: float = 0.0
    kill_at: float | None = None
    wants_out: str | None = None
    last_words: str | None = None

    @property
    def name(self) -> str:
        """As in the log: ``dispatcher``, ``worker 3``, ``mold 2``."""
        return f"{self.role} {self.number}" if self.number else self.role

    @property
    def place(self) -> int:
        """Its number as people see it: a mold has none."""
        return 0 if self.role == "mold" else self.number

    @property
    def empty(self) -> bool:
        return self.state in _EMPTY

    @property
    def ready(self) -> bool:
        """It has booted and has not been asked to stop."""
        return self.state in (State.IDLE, State.BUSY)

    def take(self, event: Event) -> bool:
        """Go to the next state; whether it is another one."""
        before = self.state
        self.state = TRANSITIONS.get((before, event), before)
        return self.state is not before

    def asked(self, row: int, generation: int, now: float) -> None:
        """A child is on its way into it."""
        self.take(Event.FORK)
        self.row, self.generation, self.born = row, generation, now
        self.woken = self.worked = False
        self.excused = 0.0
        self.kill_at = self.told_at = self.wants_out = self.last_words = None

    def heard(self, event: Event, now: float) -> bool:
        """The child said ready, idle or busy; whether that changed its state."""
        changed = self.take(event)
        self.woken = False
        if event is Event.IDLE and changed:
            self.worked, self.failures = True, 0
        if self.state is State.IDLE:
            self.idle_since = now
        elif event is Event.BUSY and changed:
            self.busy_since = now
        return changed

    def stop(self, kill_at: float) -> None:
        """It is asked to end by then."""
        self.take(Event.STOP)
        self.doom(kill_at)

    def doom(self, kill_at: float) -> None:
        """It is killed then, if it still lives; a nearer end that was set before stays."""
        self.kill_at = kill_at if self.kill_at is None else min(kill_at, self.kill_at)

    def gone(self, now: float, chance: float, innocent: bool = False) -> None:
        """The child is dead. One that lived long or finished work is replaced at once.

        ``innocent``: it was killed while it had nothing to do, which says nothing about its code.
        """
        self.take(Event.EXIT)
        self.row, self.pid, self.kill_at = -1, None, None
        self.restarts += self.state is State.BACKOFF
        proven = self.worked or now - self.born >= _PROVEN_AFTER
        self._wait(0 if proven else self.failures + (not innocent), now, chance)

    def failed(self, now: float, chance: float) -> None:
        """It could not even be forked."""
        self.take(Event.FAILED)
        self.row, self.pid, self.kill_at = -1, None, None
        self._wait(max(2, self.failures + 1), now, chance)

    def _wait(self, failures: int, now: float, chance: float) -> None:
        self.failures = failures
        self.not_before = now + backoff(failures, chance)

    def forgive(self, seconds: float, now: float) -> None:
        """Time in which the master itself was stopped counts for nobody. When somebody was told something, and when he
        showed a sign of life after it, stays as it was: who is idle shows no second one."""
        self.born += seconds
        self.excused = now
        self.kill_at = None if self.kill_at is None else self.kill_at + seconds

    def overdue(self, now: float, heartbeat: Callable[[], float], hang_timeout: float) -> str | None:
        """What it should have done long ago, in words: boot, or show that it is not hung.

        Who is busy shows it by himself; who is not shows it when he is told something.
        """
        if self.state is State.BOOTING:
            patience = BIRTH_TIMEOUT if self.pid is None else BOOT_TIMEOUT
            return f"not ready after {patience:g} s" if now - self.born >= patience else None
        if not self.ready or self.kill_at is not None:
            return None
        told = 0.0 if self.told_at is None else self.told_at
        busy = self.state is State.BUSY
        since = max(told, self.excused, self.busy_since if busy else 0.0)
        if not (busy or told) or now - since < hang_timeout:
            return None
        beat = heartbeat()
        if not busy and beat >= told:
            self.told_at = None
            return None
        silent = now - max(beat, since)
        return f"no sign of life for {silent:.1f} s" if silent >= hang_timeout else None


class Boots:
    """How many workers may boot at once: all of them, but after a failure to boot one to try it out.

    So a program that cannot boot is not tried in every slot. Times are CLOCK_MONOTONIC seconds.
    """

    def __init__(self) -> None:
        self.proven = False
        self.failures = 0
        self.not_before = 0.0

    def may(self, now: float, booting: int) -> bool:
        """Whether another one may be begun while so many boot."""
        return self.proven or (not booting and now >= self.not_before)

    def succeeded(self) -> None:
        self.proven, self.failures, self.not_before = True, 0, 0.0

    def failed(self, now: float, chance: float) -> None:
        self.proven = False
        self.failures += 1
        self.not_before = now + backoff(self.failures, chance)


class Pardons:
    """How many workers killed while idle are replaced at once: an operator's kills, not a loop of them.

    ``room`` of them, and one more each second.
    """

    def __init__(self, room: int = 60) -> None:
        self._room = self._left = float(room)
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Whether this one is."""
        self._left = min(self._room, self._left + now - self._at)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


Wake = Callable[[Slot], bool]


def wake(workers: Iterable[Slot], shards: int, send: Wake) -> int:
    """Tell workers that there is work, one a shard; return how many shards nobody could be told of.

    The most recently idle first: their connections are warm. When they do not suffice busy ones are
    told too, and look again before they go idle.
    """
    ready = [slot for slot in workers if slot.ready]
    idle = [slot for slot in ready if slot.state is State.IDLE and not slot.woken]
    busy = [slot for slot in ready if slot.state is not State.IDLE or slot.woken]
    idle.sort(key=lambda slot: slot.idle_since, reverse=True)
    left = shards
    for slot in (*idle, *busy):
        if left <= 0:
            break
        if send(slot):
            slot.woken = True
            left -= 1
    return max(0, left)
