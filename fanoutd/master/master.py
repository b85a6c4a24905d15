"""The master: one thread, one loop, that compares what is wanted with what there is."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from fanoutd import __version__, log, times
from fanoutd.config import Config, load
from fanoutd.errors import BadConfig, FanoutdError
from fanoutd.master import launch, signals, status
from fanoutd.master.asks import Asks
from fanoutd.master.children import Children, End
from fanoutd.master.clock import Clock, intervals_of
from fanoutd.master.crew import Crew
from fanoutd.master.first import FirstGeneration
from fanoutd.master.fixed import changed
from fanoutd.master.intake import Intake, admin_uids, allowed_uids
from fanoutd.master.listener import Listener
from fanoutd.master.lock import Lock
from fanoutd.master.notify import Notify
from fanoutd.master.post import Post
from fanoutd.master.reload import Reload, Told
from fanoutd.master.reload import Stage as ReloadStage
from fanoutd.master.service import Admin, Service
from fanoutd.master.signals import Signals
from fanoutd.master.slots import Slot, State
from fanoutd.master.takeover import Document, to_text
from fanoutd.master.upgrade import Upgrade
from fanoutd.spool import Spool

_log = logging.getLogger(__name__)

#: Seconds from INT to SIGKILL, and from that until the master ends whatever has not been reaped.
_QUIT, _GIVE_UP = 0.5, 0.3
#: The longest sleep: `waitpid` and the wall clock are looked at so often at least.
_SLEEP = 1.0
#: Later than planned by so much, a pass tells that this process itself was stopped.
_STOPPED = 1.0


class Phase(Enum):
    """What is wanted. It only ever moves down this list."""

    RUNNING = "running"
    STOPPING = "stopping"
    QUITTING = "quitting"


@dataclass(frozen=True, slots=True)
class Parts:
    """What there must be before a master can be. ``board`` is the descriptor of one that is there already."""

    locks: list[Lock]
    signals: Signals
    listener: Listener
    spool: Spool
    board: int | None = None


class Master:
    """``run`` lives until it is told to end, or until another program takes over."""

    def __init__(
        self, config: Config, node: str, entries: Mapping[str, str], parts: Parts, notify: Notify
    ) -> None:
        self._node = node
        self._parts = parts
        self._signals = parts.signals
        self._notify = notify
        self._spool_gauge = status.SpoolGauge(parts.spool)
        self._started_ms = times.wall_ms()
        self._phase = Phase.RUNNING
        self._kill_at = self._give_up_at = float("inf")
        self._failure: str | None = None
        self._gauge = status.Gauge()
        self._selector = DefaultSelector()
        self._selector.register(self._signals, EVENT_READ, lambda _events: None)
        now = time.monotonic()
        self._expected = now
        self._first = FirstGeneration(now)
        self._clock = Clock(intervals_of(config.schedule), now)
        self._asks = Asks(self._tell_dispatcher)
        self._children = Children(node, entries, self._selector, self._descriptors, self._hear, parts.board)
        self._crew = Crew(config, self._children, self._asks.again)
        self._reload = Reload(self._crew, self._load, self._apply, self._tell_of_reload)
        self._upgrade = Upgrade(self._signals, self.bequeath, self._settled, self._pause, self._children.expect)
        admin = Admin(admin_uids(config.daemon), self._begin_reload, self._scale)
        self._service = Service(config, parts.spool, self._asks, self._tell_dispatcher, self._status, admin)
        uids = allowed_uids(config.daemon)
        self._intake = Intake(config.daemon, uids, parts.listener, self._selector, self._service.work)
        self._post = Post(self._crew, self._children, self._asks, self._clock)

    @property
    def _config(self) -> Config:
        return self._crew.current.config

    def run(self) -> int:
        """The loop; returns the exit code. Raises FanoutdError when no worker ever got ready."""
        while not self._over():
            ready = self._selector.select(self._sleep(time.monotonic()))
            self._forgive(time.monotonic())
            self._heed(self._signals.take())
            for key, events in ready:
                key.data(events)
            self._intake.run(time.monotonic())
            self._reap()
            now = time.monotonic()
            self._forgive(now)
            self._tick(now)
            self._reconcile(now)
        if self._failure is not None:
            raise FanoutdError(self._failure)
        return 0

    def close(self) -> None:
        """Answer who still waits, and let go of everything but locks and signals."""
        self._asks.expire(float("inf"))
        self._intake.close()
        self._children.close()
        self._selector.close()

    # ---- the passes of the loop

    def _sleep(self, now: float) -> float:
        """Seconds until something is due that no descriptor tells of."""
        due = [
            now + _SLEEP, self._clock.deadline(), self._intake.deadline(now), *self._asks.deadlines(),
            *self._children.deadlines(), self._give_up_at, self._notify.deadline(),
        ]
        if self._upgrade.settling:
            due.append(self._upgrade.deadline())
        else:
            due += self._service.watches.deadlines()
            if self._phase is Phase.RUNNING:
                due += [self._crew.next_pass(now), self._reload.deadline(), self._upgrade.deadline()]
        self._expected = max(now, min(due))
        return self._expected - now

    def _forgive(self, now: float) -> None:
        """After a SIGSTOP, or on a machine that stood still, nobody is late but we."""
        late = now - self._expected
        if late > _STOPPED:
            _log.warning("this process was stopped for %.1f s", late)
            self._children.forgive(late)
            self._kill_at += late
            self._give_up_at += late
        self._expected = now  # a stop in the middle of a pass is noticed at its end

    def _heed(self, came: Counter[int]) -> None:
        """Signals only change what is wanted; of those that come together a stop wins."""
        names = came.keys()
        again = self._phase is not Phase.RUNNING or came[signal.SIGTERM] > 1
        if names & signals.QUIT or (again and names & signals.STOP):
            self._want(Phase.QUITTING, names & (signals.QUIT | signals.STOP))
        elif names & signals.STOP:
            self._want(Phase.STOPPING, names & signals.STOP)
        elif self._phase is Phase.RUNNING and names & signals.ORDERS:
            self._follow(came)

    def _follow(self, came: Counter[int]) -> None:
        more = came[signal.SIGTTIN] - came[signal.SIGTTOU]
        if more:
            self._scale(max(1, self._crew.count + more))
        if came[signal.SIGHUP]:
            self._reload.want()
        if came[signal.SIGUSR2]:
            self._upgrade.want()
        if came[signal.SIGUSR1]:
            log.reopen()
            self._children.tell_all({"t": "logs"})
            _log.info("log opened anew")

    def _reap(self) -> None:
        for end in self._children.reap():
            words = self._crew.trouble_of(end) or in_words(end.status)
            self._log_end(end, words)
            self._crew.ended(end)
            self._reload.ended(end, words, time.monotonic())
            if end.slot.role == "dispatcher":
                self._clock.lost("the dispatcher died", again=end.was is State.DRAINING)
            elif end.was is not State.DRAINING:
                self._first.lost_one(words)
            if end.slot.role == "worker":
                self._tell_dispatcher({"t": "dead", "slot": end.slot.number, "pid": end.pid})

    def _tick(self, now: float) -> None:
        self._notify.watchdog(now)
        self._asks.expire(now)
        if self._upgrade.settling:
            return
        self._service.watches.due(now)
        self._clock.poll(now)
        if self._phase is Phase.RUNNING and self._crew.dispatcher.ready:
            for due in self._clock.take():
                if not self._tell_dispatcher(due.message()):
                    self._clock.finished(due.number, "the dispatcher takes nothing")

    def _reconcile(self, now: float) -> None:
        if self._phase is Phase.RUNNING:
            self._upgrade.work(now, free=self._reload.stage is not ReloadStage.WORKING)
            if not self._upgrade.settling:
                self._reload.work(now)
                self._crew.work(now)
            hopeless = self._first.hopeless(now)
            if hopeless:
                self._failure = hopeless
                _log.error("%s", hopeless)
                self._want(Phase.QUITTING, frozenset())
        elif self._phase is Phase.STOPPING and not any(slot.role == "worker" for slot in self._children.alive):
            self._crew.stop_dispatcher(self._kill_at)
        self._children.enforce(now, self._config.workers.hang_timeout)

    # ---- another program in our place

    def _pause(self, on: bool) -> None:
        self._intake.pause(on)

    def _settled(self) -> bool:
        """Nobody waits for anything that we could not hand over."""
        return self._intake.settled and not len(self._asks) and self._clock.idle and self._crew.settled

    def bequeath(self) -> Document:
        """Everything that the next program must know, with the descriptors that stay open for it."""
        clients = [
            {**client.bequeath(), "watches": self._service.watches.of(client)}
            for client in self._intake.clients() if not (client.asks or client.batch)
        ]
        return {
            "config_path": str(self._config.path), "config_text": to_text(self._config.text),
            "started_ms": self._started_ms, "begun": self._first.ready,
            "locks": [{"fd": lock.fileno()} for lock in self._parts.locks],
            "listener": self._parts.listener.bequeath(), "board": {"fd": self._children.board.fileno()},
            "crew": self._crew.bequeath(), "clients": clients, "clock": self._clock.bequeath(),
            "reload": self._reload.bequeath(), "upgrade": self._upgrade.view(),
        }

    def inherit(self, left: Document) -> None:
        """Go on where the program before us left off."""
        self._started_ms = left["started_ms"]
        self._first.ready = left["begun"]
        self._crew.inherit(left["crew"])
        self._clock.inherit(left["clock"])
        self._reload.inherit(left["reload"], self._crew.current.number)
        self._upgrade.taken_over(left["upgrade"])
        for each in left["clients"]:
            client = self._intake.inherit(each)
            for campaign in each["watches"]:
                client.watches += 1
                self._service.watches.add(campaign, client, time.monotonic())
        self._signals.put_back(left["signals"])

    # ---- orders

    def _scale(self, count: int) -> int:
        if count != self._crew.count:
            _log.info("%d workers wanted, were %d", count, self._crew.count)
        self._crew.count = count
        return count

    def _begin_reload(self, told: Told) -> None:
        if self._phase is Phase.RUNNING:
            self._reload.want(told)
        else:
            told(self._crew.current.number, "the daemon is stopping")

    def _load(self) -> Config:
        """The configuration anew. Raises FanoutdError for one that cannot come into force here and now."""
        config = load(self._config.path)
        allowed_uids(config.daemon)
        fixed = changed(self._config, config)
        if fixed:
            raise BadConfig(f"{config.path}: {fixed} cannot change while the daemon runs; restart it for that")
        return config

    def _apply(self, config: Config) -> None:
        """A generation is in force: so is its configuration, in the master too."""
        for warning in config.warnings:
            _log.warning("%s", warning)
        try:
            log.change(launch.log_file(config.daemon), config.daemon.log_format, config.secrets())
        except OSError as e:
            _log.error("[daemon] log_file: %s: %s; the log stays where it is", config.daemon.log_file, e.strerror)
        self._clock.change(intervals_of(config.schedule))
        self._intake.adopt(config.daemon)
        self._service.adopt(config, admin_uids(config.daemon))

    def _tell_of_reload(self, began: bool, error: str | None) -> None:
        if began:
            self._notify.reloading()
        else:
            serves = f"generation {self._crew.current.number} serves"
            self._notify.ready(f"not reloaded: {error}; {serves}" if error else serves)

    # ---- ending

    def _want(self, phase: Phase, why: set[int] | frozenset[int]) -> None:
        """Go on to this phase."""
        if phase is self._phase:
            return
        now = time.monotonic()
        words = " ".join(signal.Signals(number).name for number in sorted(why))
        _log.info("%s%s", phase.value, f" on {words}" if words else "")
        self._phase = phase
        self._service.stopping = True
        self._notify.stopping()
        self._reload.abandon("the daemon is stopping")
        self._upgrade.abandon()
        self._intake.stop_accepting()
        if phase is Phase.STOPPING:
            patience = self._config.workers.graceful_timeout
            self._kill_at = now + patience - min(_QUIT, patience / 10)
            self._crew.stop_workers(self._kill_at)
        else:
            self._kill_at = now + _QUIT
            self._children.quit(self._kill_at)
        self._give_up_at = self._kill_at + _GIVE_UP

    def _over(self) -> bool:
        if self._phase is Phase.RUNNING:
            return False
        left = self._children.alive
        if left and time.monotonic() >= self._give_up_at:
            _log.error("left behind: %s", " ".join(f"{slot.name} pid={slot.pid}" for slot in left))
            return True
        return not left

    # ---- what the parts need of each other

    def _hear(self, slot: Slot, message: dict[str, Any]) -> None:
        self._post.hear(slot, message)
        if slot.role == "worker" and message["t"] == "ready" and not self._first.ready:
            self._first.got_ready()
            self._notify.ready(f"generation {self._crew.current.number} serves")

    def _tell_dispatcher(self, message: dict[str, Any]) -> bool:
        """To the one that is at work: another one asks for itself what there is to do."""
        dispatcher = self._crew.dispatcher
        at_work = dispatcher.ready or (self._phase is not Phase.RUNNING and dispatcher.state is not State.BOOTING)
        return at_work and self._children.send(dispatcher, message)

    def _descriptors(self) -> list[int]:
        """What a forked child closes, besides the other children's sockets."""
        locks = [lock.fileno() for lock in self._parts.locks]
        ears = [*self._signals.descriptors(), *self._intake.descriptors(), self._selector.fileno()]
        return [*locks, *ears, *self._notify.descriptors()]

    def _status(self, theirs: dict[str, Any] | None) -> dict[str, Any]:
        theirs = theirs or status.without_dispatcher(self._config.store_url)
        state = status.daemon_state(
            stopping=self._phase is not Phase.RUNNING, begun=self._first.ready,
            well=theirs["store"]["ok"] and not self._crew.troubled()
            and self._reload.error is None and self._upgrade.error is None,
        )
        own = {
            "version": __version__, "node": self._node, "pid": os.getpid(),
            "started_at": times.iso(self._started_ms), "generation": self._crew.current.number, "state": state,
            "reload": self._reload.view(), "upgrade": self._upgrade.view(),
        }
        rows = self._gauge.rows(self._crew.slots, self._children.board)
        return status.compose(own, theirs, self._spool_gauge.read(), self._clock.jobs(), rows)

    def _log_end(self, end: End, words: str) -> None:
        slot = end.slot
        about = log.facts(slot=slot.number, pid=end.pid, generation=slot.generation, reason=words)
        if end.was is State.DRAINING:
            _log.info("%s ended", slot.name, extra=about)
        elif end.pid is not None:
            wait = max(0.0, slot.not_before - time.monotonic())
            _log.warning("%s died; replaced in %.1f s", slot.name, wait, extra=about)


def in_words(wait_status: int | None) -> str:
    """``exit code 3``, ``SIGKILL``: how a process ended, from waitpid's status."""
    if wait_status is None:
        return "never forked"
    code = os.waitstatus_to_exitcode(wait_status)
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal {-code}"
