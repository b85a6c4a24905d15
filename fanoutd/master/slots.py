"""Slots: places for children, and what the master knows of who is in them. No processes here.

    booting -> idle <-> busy -> draining -> dead         backoff: empty, to be filled again later
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
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
    **{(state, Event.FAILED): State.BACKOFF for state in _EMPTY},
    (State.BOOTING, Event.READY): State.IDLE,
    (State.IDLE, Event.BUSY): State.BUSY,
    (State.BUSY, Event.IDLE): State.IDLE,
    **{(state, Event.STOP): State.DRAINING for state in _ALIVE},
    **{(state, Event.EXIT): State.BACKOFF for state in _ALIVE},
    (State.DRAINING, Event.EXIT): State.DEAD,
}

#: Seconds. The first early death costs nothing, since the commonest one is an operator's kill.
BACKOFF_FIRST, BACKOFF_MOST = 0.1, 30.0
_PROVEN_AFTER = 10.0


def backoff(failures: int, chance: float) -> float:
    """Seconds until the next try after so many early deaths in a row; ``chance`` is from 0 to 1."""
    if failures < 2:
        return 0.0
    return float(min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(failures - 2, 30))) * (0.75 + chance / 2)


@dataclass(slots=True)
class Slot:
    """Times are CLOCK_MONOTONIC seconds. ``pid`` is None in an empty slot."""

    number: int
    role: str
    state: State = State.DEAD
    pid: int | None = None
    generation: int = 0
    restarts: int = 0
    born: float = 0.0
    idle_since: float = 0.0
    woken: bool = False
    worked: bool = False
    failures: int = 0
    not_before: float = 0.0
    kill_at: float | None = field(default=None)

    @property
    def name(self) -> str:
        """As in the log: ``dispatcher``, ``worker 3``."""
        return f"{self.role} {self.number}" if self.number else self.role

    @property
    def ready(self) -> bool:
        """It has booted and has not been asked to stop."""
        return self.state in (State.IDLE, State.BUSY)

    def take(self, event: Event) -> bool:
        """Go to the next state; whether it is another one."""
        before = self.state
        self.state = TRANSITIONS.get((before, event), before)
        return self.state is not before

    def forked(self, pid: int, generation: int, now: float) -> None:
        self.take(Event.FORK)
        self.pid, self.generation, self.born = pid, generation, now
        self.woken = self.worked = False
        self.kill_at = None

    def heard(self, event: Event, now: float) -> bool:
        """The child said ready, idle or busy; whether that changed its state."""
        changed = self.take(event)
        self.woken = False
        if event is Event.IDLE and changed:
            self.worked, self.failures = True, 0
        if self.state is State.IDLE:
            self.idle_since = now
        return changed

    def stop(self, kill_at: float) -> None:
        """It is asked to end by then."""
        self.take(Event.STOP)
        self.doom(kill_at)

    def doom(self, kill_at: float) -> None:
        """It is killed then, if it still lives; a nearer end that was set before stays."""
        self.kill_at = kill_at if self.kill_at is None else min(kill_at, self.kill_at)

    def gone(self, now: float, chance: float) -> None:
        """The child is dead. One that lived long or finished work is replaced at once."""
        self.take(Event.EXIT)
        self.pid, self.kill_at = None, None
        self.restarts += self.state is State.BACKOFF
        proven = self.worked or now - self.born >= _PROVEN_AFTER
        self._wait(0 if proven else self.failures + 1, now, chance)

    def failed(self, now: float, chance: float) -> None:
        """It could not even be forked."""
        self.take(Event.FAILED)
        self._wait(max(2, self.failures + 1), now, chance)

    def _wait(self, failures: int, now: float, chance: float) -> None:
        self.failures = failures
        self.not_before = now + backoff(failures, chance)


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
