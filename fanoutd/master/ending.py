"""How the daemon ends: what is wanted only ever moves on from running to stopping to quitting."""

from __future__ import annotations

import logging
import signal
from collections import Counter
from collections.abc import Callable
from enum import Enum

from fanoutd.master import signals
from fanoutd.master.children import Children
from fanoutd.master.crew import Crew

_log = logging.getLogger(__name__)

#: Seconds from INT to SIGKILL, and from that until the master ends whatever has not been reaped.
_QUIT, _GIVE_UP = 0.5, 0.3


class Phase(Enum):
    RUNNING = "running"
    STOPPING = "stopping"
    QUITTING = "quitting"


class Ending:
    """``begun`` is called once, when the daemon begins to end. Times are CLOCK_MONOTONIC seconds."""

    def __init__(self, crew: Crew, children: Children, begun: Callable[[], None]) -> None:
        self._crew = crew
        self._children = children
        self._begun = begun
        self._kill_at = self._give_up_at = float("inf")
        self.phase = Phase.RUNNING

    @property
    def running(self) -> bool:
        return self.phase is Phase.RUNNING

    def deadline(self) -> float:
        """When whatever lives is left behind."""
        return self._give_up_at

    def forgive(self, seconds: float) -> None:
        """The master was stopped for so long."""
        self._kill_at += seconds
        self._give_up_at += seconds

    def heed(self, came: Counter[int], now: float) -> None:
        """Of signals that come together a stop wins; a second TERM acts as INT."""
        hard, soft = came.keys() & signals.QUIT, came.keys() & signals.STOP
        if hard or (soft and (not self.running or came[signal.SIGTERM] > 1)):
            self.want(Phase.QUITTING, hard | soft, now)
        elif soft:
            self.want(Phase.STOPPING, soft, now)

    def want(self, phase: Phase, why: set[int], now: float) -> None:
        """Go on to this phase."""
        if phase is self.phase:
            return
        words = " ".join(signal.Signals(number).name for number in sorted(why))
        _log.info("%s%s", phase.value, f" on {words}" if words else "")
        first, self.phase = self.running, phase
        if first:
            self._begun()
        if phase is Phase.STOPPING:
            patience = self._crew.current.config.workers.graceful_timeout
            self._kill_at = now + patience - min(_QUIT, patience / 10)
            self._crew.stop_workers(self._kill_at)
        else:
            self._kill_at = now + _QUIT
            self._children.quit(self._kill_at)
        self._give_up_at = self._kill_at + _GIVE_UP

    def work(self) -> None:
        """One pass: the dispatcher is stopped when the workers have ended."""
        if self.phase is Phase.STOPPING and not any(slot.role == "worker" for slot in self._children.alive):
            self._crew.stop_dispatcher(self._kill_at)

    def over(self, now: float) -> bool:
        """Nobody is left, or nobody is waited for any more."""
        if self.running:
            return False
        left = self._children.alive
        if left and now >= self._give_up_at:
            _log.error("left behind: %s", " ".join(f"{slot.name} pid={slot.pid}" for slot in left))
            return True
        return not left
