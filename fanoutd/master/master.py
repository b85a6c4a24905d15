"""The master: one thread, one loop, that compares what is wanted with what there is."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Mapping
from enum import Enum
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from fanoutd import __version__, times
from fanoutd.config import Config
from fanoutd.errors import FanoutdError
from fanoutd.master import signals, status
from fanoutd.master.asks import Asks
from fanoutd.master.clock import Clock
from fanoutd.master.crew import Crew
from fanoutd.master.first import FirstGeneration
from fanoutd.master.intake import Intake
from fanoutd.master.listener import Listener
from fanoutd.master.lock import Lock
from fanoutd.master.post import Post
from fanoutd.master.service import Service
from fanoutd.master.signals import Signals
from fanoutd.master.slots import Slot, State
from fanoutd.spool import Spool

_log = logging.getLogger(__name__)

#: Seconds from INT to SIGKILL, and from that until the master ends whatever has not been reaped.
_QUIT, _GIVE_UP = 0.5, 0.3
#: The longest sleep: `waitpid` and the wall clock are looked at so often at least.
_SLEEP = 1.0

_SPOOL_SWEEP, _RESCUE_SWEEP = 30.0, 5.0


class Phase(Enum):
    """What is wanted. It only ever moves down this list."""

    RUNNING = "running"
    STOPPING = "stopping"
    QUITTING = "quitting"


class Master:
    """Made when lock, signals, listener and spool are there; ``run`` lives until it is told to end."""

    def __init__(
        self, config: Config, node: str, entries: Mapping[str, str], uids: frozenset[int], locks: list[Lock],
        signals_: Signals, listener: Listener, spool: Spool,
    ) -> None:
        self._config = config
        self._node = node
        self._locks = locks
        self._signals = signals_
        self._spool = spool
        self._started_ms = times.wall_ms()
        self._phase = Phase.RUNNING
        self._kill_at = self._give_up_at = float("inf")
        self._failure: str | None = None
        self._unheard_of: set[int] = set()
        self._gauge = status.Gauge()
        self._measured: tuple[int | None, float | None] = (None, None)
        self._measured_at = float("-inf")
        self._selector = DefaultSelector()
        self._selector.register(signals_, EVENT_READ, lambda _events: None)
        now = time.monotonic()
        self._first = FirstGeneration(now)
        jobs = {
            "token_check": config.schedule.token_check, "spool_sweep": _SPOOL_SWEEP,
            "rescue_sweep": _RESCUE_SWEEP,
        }
        self._clock = Clock(jobs, now)
        self._asks = Asks(self._tell_dispatcher)
        self._service = Service(config, spool, self._asks, self._tell_dispatcher, self._status)
        self._intake = Intake(config.daemon, uids, listener, self._selector, self._service.work)
        self._crew = Crew(config, node, entries, self._selector, self._descriptors, self._hear)
        self._post = Post(self._crew, self._asks, self._clock)

    def run(self) -> int:
        """The loop; returns the exit code. Raises FanoutdError when no worker ever got ready."""
        while not self._over():
            ready = self._selector.select(self._sleep(time.monotonic()))
            self._heed(self._signals.take())
            for key, events in ready:
                key.data(events)
            self._intake.run(time.monotonic())
            self._reap()
            now = time.monotonic()
            self._tick(now)
            self._reconcile(now)
        if self._failure is not None:
            raise FanoutdError(self._failure)
        return 0

    def close(self) -> None:
        """Answer who still waits, and let go of everything but locks and signals."""
        self._asks.expire(float("inf"))
        self._intake.close()
        self._crew.close()
        self._selector.close()

    # ---- the passes of the loop

    def _sleep(self, now: float) -> float:
        """Seconds until something is due that no descriptor tells of."""
        due = [
            now + _SLEEP, self._clock.deadline(), self._intake.deadline(now), *self._asks.deadlines(),
            *self._service.watches.deadlines(), *self._crew.deadlines(), self._give_up_at,
        ]
        fill = self._crew.next_fill() if self._phase is Phase.RUNNING else None
        return max(0.0, min(due if fill is None else [*due, fill]) - now)

    def _heed(self, came: frozenset[int]) -> None:
        """Signals only change what is wanted; of those that come together a stop wins."""
        again = self._phase is not Phase.RUNNING
        if came & signals.QUIT or (again and came & signals.STOP):
            self._want(Phase.QUITTING, came & (signals.QUIT | signals.STOP))
        elif came & signals.STOP:
            self._want(Phase.STOPPING, came & signals.STOP)
        elif self._phase is Phase.RUNNING:
            for number in sorted(came & signals.LATER - self._unheard_of):
                self._unheard_of.add(number)
                _log.warning("%s has no effect in this version yet", signal.Signals(number).name)

    def _reap(self) -> None:
        for slot, pid, wait_status in self._crew.reap():
            self._log_end(slot, pid, wait_status)
            if slot.role == "dispatcher":
                self._clock.lost("the dispatcher died")
            else:
                self._first.lost_one(_in_words(wait_status))
                self._tell_dispatcher({"t": "dead", "slot": slot.number, "pid": pid})

    def _tick(self, now: float) -> None:
        self._asks.expire(now)
        self._service.watches.due(now)
        self._clock.poll(now)
        if self._phase is Phase.RUNNING and self._crew.dispatcher.ready:
            for due in self._clock.take():
                if not self._tell_dispatcher(due.message()):
                    self._clock.finished(due.number, "the dispatcher takes nothing")

    def _reconcile(self, now: float) -> None:
        if self._phase is Phase.RUNNING:
            self._fill(now)
            hopeless = self._first.hopeless(now)
            if hopeless:
                self._failure = hopeless
                _log.error("%s", hopeless)
                self._want(Phase.QUITTING, frozenset())
        elif self._phase is Phase.STOPPING and not any(slot.pid for slot in self._crew.workers):
            self._crew.stop(self._crew.dispatcher, self._kill_at)
        self._crew.enforce(now)

    def _fill(self, now: float) -> None:
        slot = self._crew.fill(now)
        if slot is None:
            return
        _log.info("%s started pid=%s generation=%d", slot.name, slot.pid, slot.generation)
        if slot is self._crew.dispatcher:
            self._asks.again()

    # ---- ending

    def _want(self, phase: Phase, why: frozenset[int]) -> None:
        """Go on to this phase."""
        if phase is self._phase:
            return
        now = time.monotonic()
        words = " ".join(signal.Signals(number).name for number in sorted(why))
        _log.info("%s%s", phase.value, f" on {words}" if words else "")
        self._phase = phase
        self._service.stopping = True
        self._intake.stop_accepting()
        if phase is Phase.STOPPING:
            patience = self._config.workers.graceful_timeout
            self._kill_at = now + patience - min(_QUIT, patience / 10)
            for slot in self._crew.workers:
                self._crew.stop(slot, self._kill_at)
        else:
            self._kill_at = now + _QUIT
            self._crew.quit(self._kill_at)
        self._give_up_at = self._kill_at + _GIVE_UP

    def _over(self) -> bool:
        if self._phase is Phase.RUNNING:
            return False
        left = self._crew.alive
        if left and time.monotonic() >= self._give_up_at:
            _log.error("left behind: %s", " ".join(f"{slot.name} pid={slot.pid}" for slot in left))
            return True
        return not left

    # ---- what the parts need of each other

    def _hear(self, slot: Slot, message: dict[str, Any]) -> None:
        self._post.hear(slot, message)
        if slot.role == "worker" and message["t"] == "ready":
            self._first.got_ready()

    def _tell_dispatcher(self, message: dict[str, Any]) -> bool:
        return self._crew.send(self._crew.dispatcher, message)

    def _descriptors(self) -> list[int]:
        """What a forked child closes, besides the other children's sockets."""
        locks = [lock.fileno() for lock in self._locks]
        return [*locks, *self._signals.descriptors(), *self._intake.descriptors(), self._selector.fileno()]

    def _status(self, theirs: dict[str, Any] | None) -> dict[str, Any]:
        theirs = theirs or status.without_dispatcher(self._config.store_url)
        state = status.daemon_state(
            self._crew.slots, stopping=self._phase is not Phase.RUNNING, begun=self._first.ready,
            store_ok=bool(theirs["store"]["ok"]),
        )
        own = {
            "version": __version__, "node": self._node, "pid": os.getpid(),
            "started_at": times.iso(self._started_ms), "generation": self._crew.generation, "state": state,
        }
        rows = self._gauge.rows(self._crew.slots, self._crew.board)
        return status.compose(own, theirs, self._spooled(), self._clock.jobs(), rows)

    def _spooled(self) -> tuple[int | None, float | None]:
        """(files, age of the oldest), looked at no oftener than is needed."""
        now = time.monotonic()
        if now - self._measured_at >= status.FRESH:
            self._measured_at = now
            try:
                self._measured = self._spool.measure(time.time())
            except OSError:  # a disk's or descriptors' trouble; the status says what it can
                self._measured = None, None
        return self._measured

    def _log_end(self, slot: Slot, pid: int, wait_status: int) -> None:
        if slot.state is State.DEAD:
            _log.info("%s ended pid=%d %s", slot.name, pid, _in_words(wait_status))
            return
        wait = max(0.0, slot.not_before - time.monotonic())
        _log.warning("%s died pid=%d %s; replaced in %.1f s", slot.name, pid, _in_words(wait_status), wait)


def _in_words(wait_status: int) -> str:
    """``exit code 3``, ``SIGKILL``: how a process ended, from waitpid's status."""
    code = os.waitstatus_to_exitcode(wait_status)
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal {-code}"
