"""The master: one thread, one loop, that compares what is wanted with what there is."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from fanoutd import log, times
from fanoutd.config import Config
from fanoutd.errors import BadConfig, FanoutdError
from fanoutd.master import signals
from fanoutd.master.asks import Asks
from fanoutd.master.children import Children, End, in_words
from fanoutd.master.clock import Clock, timetable
from fanoutd.master.crew import Crew
from fanoutd.master.ending import Ending, Phase
from fanoutd.master.first import FirstGeneration
from fanoutd.master.intake import Intake, admin_uids, allowed_uids
from fanoutd.master.listener import Listener
from fanoutd.master.lock import Lock
from fanoutd.master.notify import Notify
from fanoutd.master.orders import Orders
from fanoutd.master.post import Post
from fanoutd.master.service import Admin, Service
from fanoutd.master.signals import Signals
from fanoutd.master.slots import Slot, State
from fanoutd.master.status import Overview
from fanoutd.master.takeover import Document, to_text
from fanoutd.master.upgrade import Upgrade
from fanoutd.spool import Spool

_log = logging.getLogger(__name__)

#: The longest sleep: `waitpid` and the wall clock are looked at so often at least.
_SLEEP = 2.0
#: Later than planned by so much, a pass tells that this process itself was stopped.
_STOPPED = 1.0


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

    def __init__(self, config: Config, node: str, entries: Mapping[str, str], parts: Parts, notify: Notify) -> None:
        now = self._expected = time.monotonic()
        self._parts = parts
        self._notify = notify
        self._failure: str | None = None
        self._refused: str | None = None  # why the store is not for this program
        self._selector = DefaultSelector()
        self._selector.register(parts.signals, EVENT_READ, lambda _events: None)
        self._first = FirstGeneration(now)
        self._clock = Clock(timetable(config), now)
        self._asks = Asks(self._tell_dispatcher)
        self._children = Children(node, entries, self._selector, self._descriptors, self._hear, parts.board)
        self._crew = Crew(config, self._children, self._asks.again)
        self._post = Post(self._crew, self._children, self._asks, self._clock)
        self._ending = Ending(self._crew, self._children, self._begin_to_end)
        upgrade = Upgrade(parts.signals, self.bequeath, self._settled, self._pause, self._children.expect)
        self._orders = Orders(self._crew, self._children, upgrade, notify)
        self._overview = Overview(node, times.wall_ms(), parts.spool, self._crew, self._children, self._clock)
        admin = Admin(admin_uids(config.daemon), self._orders.begin_reload, self._scale)
        self._service = Service(config, parts.spool, self._asks, self._tell_dispatcher, self._status, admin)
        self._intake = Intake(
            config.daemon, allowed_uids(config.daemon), parts.listener, self._selector, self._service.work
        )
        self._make_room()
        self._orders.adopters += [
            lambda new: self._clock.change(timetable(new)), lambda new: self._intake.adopt(new.daemon),
            lambda new: self._service.adopt(new, admin_uids(new.daemon)), lambda _new: self._make_room(),
        ]

    def run(self) -> int:
        """The loop; returns the exit code. Raises FanoutdError when no worker ever got ready."""
        while not self._ending.over(time.monotonic()):
            ready = self._selector.select(self._sleep(time.monotonic()))
            self._forgive(time.monotonic())
            self._heed()
            for key, events in ready:
                key.data(events)
            self._intake.run(time.monotonic())
            self._reap()
            now = time.monotonic()
            self._forgive(now)
            self._tick(now)
            self._reconcile(now)
        if self._refused is not None:
            raise BadConfig(self._refused)
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
            *self._children.deadlines(), self._ending.deadline(), self._notify.deadline(),
        ]
        if not self._orders.upgrade.settling:
            due += self._service.watches.deadlines()
        if self._ending.running:
            due.append(self._orders.next_pass(now))
        self._expected = max(now, min(due))
        return self._expected - now

    def _forgive(self, now: float) -> None:
        """After a SIGSTOP, or on a machine that stood still, nobody is late but we."""
        late = now - self._expected
        if late > _STOPPED:
            _log.warning("this process was stopped for %.1f s", late)
            self._children.forgive(late)
            self._ending.forgive(late)
        self._expected = now  # a stop in the middle of a pass is noticed at its end

    def _heed(self) -> None:
        """Signals only change what is wanted; of those that come together a stop wins."""
        came = self._parts.signals.take()
        self._ending.heed(came, time.monotonic())
        if self._ending.running and came.keys() & signals.ORDERS:
            self._orders.follow(came)
            self._make_room()

    def _reap(self) -> None:
        for end in self._children.reap():
            words = self._crew.trouble_of(end) or end.slot.last_words or in_words(end.status)
            _log_end(end, words)
            self._crew.ended(end)
            self._post.ended(end.slot)
            self._orders.reload.ended(end, words, time.monotonic())
            if end.slot.role == "dispatcher":
                self._clock.lost("the dispatcher died", again=end.was is State.DRAINING)
            elif end.was is not State.DRAINING:
                self._first.lost_one(words)
            if end.slot.role == "worker":
                self._tell_dispatcher({"t": "dead", "slot": end.slot.number, "pid": end.pid})

    def _tick(self, now: float) -> None:
        self._notify.watchdog(now)
        self._asks.expire(now)
        self._service.refusals.hand_over()
        if self._orders.upgrade.settling:
            return
        self._service.watches.due(now)
        self._clock.poll(now)
        if self._ending.running and self._crew.dispatcher.ready:
            for due in self._clock.take():
                if not self._tell_dispatcher(due.message()):
                    self._clock.finished(due.number, "the dispatcher takes nothing")

    def _reconcile(self, now: float) -> None:
        if self._ending.running:
            self._orders.work(now)
            self._failure = self._refused or self._first.hopeless(now)
            if self._failure is not None:
                _log.error("%s", self._failure)
                self._ending.want(Phase.QUITTING, set(), now)
        self._ending.work()
        self._children.enforce(now, self._crew.current.config.workers.hang_timeout)

    # ---- another program in our place

    def _pause(self, on: bool) -> None:
        self._intake.pause(on)

    def _settled(self) -> bool:
        """Nobody waits for anything that we could not hand over."""
        return self._intake.settled and not len(self._asks) and self._clock.idle and self._crew.settled

    def bequeath(self) -> Document:
        """Everything that the next program must know, with the descriptors that stay open for it."""
        config, watches = self._crew.current.config, self._service.watches
        return {
            "config_path": str(config.path), "config_text": to_text(config.text),
            "started_ms": self._overview.started_ms, "begun": self._first.ready,
            "locks": [{"fd": lock.fileno()} for lock in self._parts.locks],
            "listener": self._parts.listener.bequeath(), "board": {"fd": self._children.board.fileno()},
            "log": {"fd": log.fileno()},
            "crew": self._crew.bequeath(), "clock": self._clock.bequeath(),
            "reload": self._orders.reload.bequeath(), "upgrade": self._orders.upgrade.view(),
            "clients": [
                {**client.bequeath(), "watches": watches.of(client)} for client in self._intake.clients()
                if client.settled
            ],
        }

    def inherit(self, left: Document) -> None:
        """Go on where the program before us left off."""
        self._overview.started_ms = left["started_ms"]
        self._first.ready = left["begun"]
        self._crew.inherit(left["crew"])
        self._clock.inherit(left["clock"])
        self._orders.reload.inherit(left["reload"], self._crew.current.number)
        self._orders.upgrade.taken_over(left["upgrade"])
        for each in left["clients"]:
            client = self._intake.inherit(each)
            for campaign in each["watches"]:
                client.watches += 1
                self._service.watches.add(campaign, client, time.monotonic())
        self._make_room()
        self._parts.signals.put_back(left["signals"])

    # ---- what the parts need of each other

    def _begin_to_end(self) -> None:
        self._service.stopping = True
        self._notify.stopping()
        self._orders.abandon()
        self._intake.stop_accepting()

    def _hear(self, slot: Slot, message: dict[str, Any]) -> None:
        if slot.role == "dispatcher" and message["t"] == "refused":
            self._refused = str(message["error"])
            return
        if slot.role == "dispatcher" and message["t"] == "facts":
            self._children.send(slot, {**message, "facts": self._overview.own(self._phase, self._orders)})
            return
        self._post.hear(slot, message)
        if slot.role == "worker" and message["t"] == "ready" and not self._first.ready:
            self._first.got_ready()
            self._notify.ready(f"generation {self._crew.current.number} serves")

    def _tell_dispatcher(self, message: dict[str, Any]) -> bool:
        """To the one that is at work: another one asks for itself what there is to do."""
        dispatcher = self._crew.dispatcher
        at_work = dispatcher.ready or (not self._ending.running and dispatcher.state is not State.BOOTING)
        return at_work and self._children.send(dispatcher, message)

    def _descriptors(self) -> list[int]:
        """What a forked child closes, besides the other children's sockets."""
        locks = [lock.fileno() for lock in self._parts.locks]
        ears = [*self._parts.signals.descriptors(), *self._intake.descriptors(), self._selector.fileno()]
        return [*locks, *ears, *self._notify.descriptors()]

    def _scale(self, count: int) -> int:
        self._orders.scale(count)
        self._make_room()
        return count

    def _make_room(self) -> None:
        """While one generation follows another there are two of each child, and two molds."""
        self._intake.slots = 2 * (self._crew.count + 2)

    def _status(self, theirs: dict[str, Any] | None) -> dict[str, Any]:
        return self._overview.status(self._phase, theirs, self._orders)

    @property
    def _phase(self) -> str:
        return "stopping" if not self._ending.running else "starting" if not self._first.ready else "running"


def _log_end(end: End, words: str) -> None:
    slot = end.slot
    about = log.facts(slot=slot.place, pid=end.pid, generation=slot.generation, reason=words)
    if end.was is State.DRAINING:
        _log.info("%s ended", slot.name, extra=about)
    elif end.pid is not None:
        wait = max(0.0, slot.not_before - time.monotonic())
        _log.warning("%s died; replaced in %.1f s", slot.name, wait, extra=about)
