"""Which children there should be, and what is done about it, one pass at a time.

A generation is a number, a configuration and the mold that makes its children. The next one waits as
``candidate`` until its dispatcher and then a worker of it have booted; then old workers give way one by one, each when
its successor is ready. Slot 0 is the dispatcher's, 1 to N are workers'.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from fanoutd.config import Config
from fanoutd.log import facts
from fanoutd.master.children import Children, End, Message
from fanoutd.master.slots import Boots, Slot, State
from fanoutd.master.takeover import Document

_log = logging.getLogger(__name__)

#: Children asked for in one pass, and at most open at a mold: the loop stays awake, the queue is never full.
_A_PASS, _OPEN = 8, 32
#: Seconds before a mold that would not take a request is asked again.
_AGAIN = 0.02


@dataclass(slots=True, eq=False)
class Generation:
    """``trouble`` is why it cannot be, in words, None while that is not known."""

    number: int
    config: Config
    mold: Slot
    trouble: str | None = None


def generation(number: int, config: Config) -> Generation:
    return Generation(number, config, Slot(number, "mold"))


class Crew:
    """``current`` is the generation in force. Times are CLOCK_MONOTONIC."""

    def __init__(self, config: Config, children: Children, dispatcher_changed: Callable[[], None]) -> None:
        """``dispatcher_changed`` is called when there is another one, who knows nothing of what was asked."""
        self._children = children
        self._dispatcher_changed = dispatcher_changed
        self._boots = Boots()
        self._crowded_until = 0.0
        self.current = generation(1, config)
        self.candidate: Generation | None = None
        self.dispatcher = Slot(0, "dispatcher")
        self.standby: Slot | None = None
        self.workers = [Slot(1, "worker")]
        self.coming: Slot | None = None
        self.count = config.workers.count

    # ---- what there is

    @property
    def slots(self) -> list[Slot]:
        """Wanted ones first, empty or not; then all others that live, or are to be tried again."""
        wanted = [self.dispatcher, *self.workers]
        waiting = [self.standby] if self.standby and self.standby.state is State.BACKOFF else []
        return [*wanted, *(slot for slot in self._children.alive if slot not in wanted), *waiting]

    @property
    def leaving(self) -> list[Slot]:
        """Workers whose place is another's, or nobody's, already."""
        staying = {id(slot) for slot in (*self.workers, self.coming)}
        return [slot for slot in self._children.alive if slot.role == "worker" and id(slot) not in staying]

    @property
    def complete(self) -> bool:
        """Every wanted child is ready, and of the generation in force."""
        wanted = [self.dispatcher, *self.workers]
        fresh = all(slot.ready and slot.generation == self.current.number for slot in wanted)
        return fresh and len(self.workers) == self.count

    def troubled(self) -> bool:
        """Some wanted child, or the mold, waits to be tried again."""
        wanted = (*self.workers, self.dispatcher, self.current.mold, *([self.standby] if self.standby else []))
        return any(slot.state is State.BACKOFF for slot in wanted)

    def next_pass(self, now: float) -> float:
        """When there is something to do that no message tells of."""
        due = [each.mold.not_before for each in (self.current, self.candidate) if each and self._lacks_mold(each)]
        if self.current.mold.ready and self._unborn() < _OPEN:
            due += [self._when(slot) for slot in self._missing()]
        again = self.standby.not_before if self.standby else 0.0
        due += [each for each in (self._crowded_until, self._boots.not_before, again) if each > now]
        return min(due, default=float("inf"))

    def _when(self, slot: Slot) -> float:
        """When this empty slot's turn is, as far as time decides it. One tries out whether workers boot at all."""
        if slot.role == "worker" and not self._boots.proven:
            if self._booting():
                return float("inf")  # it speaks when it is ready, or is reaped
            return max(slot.not_before, self._boots.not_before)
        return max(slot.not_before, self._crowded_until)

    # ---- one pass

    def work(self, now: float) -> None:
        """Bring forth what is wanted and missing, let go of what is not."""
        self._fit()
        for each in (self.current, self.candidate):
            if each and self._lacks_mold(each) and each.mold.not_before <= now:
                self._children.fork_mold(each.mold, each.config, now)
        for slot in self._missing()[:_A_PASS]:
            if self._may_ask(slot, now):
                self._ask(slot, self.current, now)
        self._renew(now)

    def _fit(self) -> None:
        """As many places as are wanted."""
        while len(self.workers) < self.count:
            self.workers.append(Slot(len(self.workers) + 1, "worker"))
        while len(self.workers) > self.count:
            self._let_go(self.workers.pop())

    def _let_go(self, slot: Slot) -> None:
        self._children.stop(slot, time.monotonic() + self.current.config.workers.graceful_timeout)

    def _missing(self) -> list[Slot]:
        return [slot for slot in (self.dispatcher, *self.workers) if slot.empty]

    def _lacks_mold(self, each: Generation) -> bool:
        return each.mold.empty and each.trouble is None

    def _unborn(self) -> int:
        """Children asked for who have not spoken."""
        return sum(slot.pid is None for slot in self._children.alive)

    def _booting(self) -> int:
        return sum(slot.state is State.BOOTING for slot in self._children.alive if slot.role == "worker")

    def _may_ask(self, slot: Slot, now: float) -> bool:
        if slot.not_before > now or self._crowded_until > now:
            return False
        return slot.role != "worker" or self._boots.may(now, self._booting())

    def _ask(self, slot: Slot, of: Generation, now: float) -> bool:
        """Whether a child is on its way into the slot."""
        if not of.mold.ready or self._unborn() >= _OPEN:
            return False
        if not self._children.ask(of.mold, slot, now):
            self._crowded_until = now + _AGAIN
            return False
        return True

    # ---- one follows another

    def _renew(self, now: float) -> None:
        """Begin the successor of one child that has to go: replacement first, one at a time."""
        if self.candidate is None:
            if self._outdated(self.dispatcher):
                self._begin_standby(self.current, now)
            elif self.standby and self.standby.empty:
                self.standby = None  # the other one has gone: its place is filled like any other
        old = self._next_to_go()
        if old is not None and self._boots.may(now, self._booting()):
            self._begin_successor(old, self.current, now)

    def _begin_standby(self, of: Generation, now: float) -> None:
        """Its slot stays while it dies and is tried again: it knows for how long to wait."""
        if self.standby is None:
            self.standby = Slot(0, "dispatcher", restarts=self.dispatcher.restarts)
        if self.standby.empty and self.standby.not_before <= now:
            self._ask(self.standby, of, now)

    def _outdated(self, slot: Slot) -> bool:
        return slot.ready and slot.generation != self.current.number

    def _next_to_go(self) -> Slot | None:
        """Old generations first, then those who asked; never while half of all is leaving already."""
        if self.coming is not None or len(self.leaving) >= max(1, len(self.workers) // 2):
            return None
        old = [slot for slot in self.workers if self._outdated(slot)]
        return next(iter(old or [slot for slot in self.workers if slot.ready and slot.wants_out]), None)

    def _begin_successor(self, old: Slot, of: Generation, now: float) -> None:
        slot = Slot(old.number, "worker", restarts=old.restarts)
        if self._ask(slot, of, now):
            self.coming = slot

    def try_out(self, now: float) -> None:
        """Ask the candidate for its dispatcher and, when that has booted, for its first worker."""
        if self.candidate is None:
            return
        if not self._waits(self.candidate):
            self._begin_standby(self.candidate, now)
        elif self.coming is None:
            self._begin_successor(self.workers[0], self.candidate, now)

    def _waits(self, of: Generation) -> bool:
        """Whether a dispatcher of this generation has booted, and waits for its turn."""
        return self.standby is not None and self.standby.ready and self.standby.generation == of.number

    def got_ready(self, slot: Slot) -> None:
        """A child has booted: if it is somebody's successor, his place is its own now."""
        if slot.role == "worker":
            self._boots.succeeded()
        if slot is self.coming:
            self.coming = None
            self._succeed(slot)
        elif slot is self.standby:
            self._hand_over()
        elif slot is self.dispatcher:
            self._go()
        if self.candidate is not None and slot.generation == self.candidate.number and slot.role == "worker":
            self._adopt_candidate()

    def _succeed(self, slot: Slot) -> None:
        index = slot.number - 1
        if index >= len(self.workers):
            self._let_go(slot)  # its place was given up meanwhile
            return
        old, self.workers[index] = self.workers[index], slot
        if not old.empty:
            reason = old.wants_out or f"generation {slot.generation}"
            about = facts(slot=old.place, pid=old.pid, generation=old.generation, reason=reason)
            _log.info("%s gives way", old.name, extra=about)
            if old.state is State.BUSY or old.woken:
                self._children.send(slot, {"t": "work"})
            self._let_go(old)

    def ended(self, end: End) -> None:
        """A child has ended, or never came to be."""
        slot = end.slot
        if slot is self.coming:
            self.coming = None
        elif slot is self.dispatcher:
            self._hand_over()
        if slot.role == "worker" and end.was is State.BOOTING and slot.generation == self.current.number:
            self._boots.failed(time.monotonic(), random.random())

    def trouble_of(self, end: End) -> str | None:
        """What a mold said before it ended. Another try of the one in force may go better."""
        said = None
        for each in (self.current, self.candidate):
            if each is not None and end.slot is each.mold:
                said = each.trouble
        if end.slot is self.current.mold:
            self.current.trouble = None
        return said

    def _hand_over(self) -> None:
        """To the dispatcher of the generation in force, if it waits. There are never two at work: this one begins when
        the other has ended."""
        if self.standby is not None and self._waits(self.current):
            self._let_go(self.dispatcher)
            if self.dispatcher.empty:
                self.dispatcher, self.standby = self.standby, None
                self._go()

    def _go(self) -> None:
        self._children.send(self.dispatcher, {"t": "go"})
        self._dispatcher_changed()

    # ---- generations

    def begin(self, config: Config, number: int) -> None:
        """Try a new generation out; the one before the candidate was not good enough."""
        self.give_up_candidate()
        if self.standby and self.standby.empty:
            self.standby = None
        self.candidate = generation(number, config)

    def give_up_candidate(self) -> None:
        """The generation in force stays."""
        if self.candidate is None:
            return
        self._dismiss(self.candidate)
        if self.coming is not None and self.coming.generation == self.candidate.number:
            self._let_go(self.coming)
            self.coming = None
        if self.standby is not None and (self.standby.empty or self.standby.generation == self.candidate.number):
            self._let_go(self.standby)
            self.standby = None
        self.candidate = None

    def _adopt_candidate(self) -> None:
        """A worker of it has booted: it is in force now."""
        if self.candidate is None:
            return
        self._dismiss(self.current)
        self.current, self.candidate = self.candidate, None
        self.count = self.current.config.workers.count
        for slot in (self.dispatcher, *self.workers):
            slot.failures, slot.not_before = 0, 0.0
        if self.standby is not None and self.standby.generation != self.current.number:
            self._let_go(self.standby)
            self.standby = None
        self._hand_over()

    def _dismiss(self, of: Generation) -> None:
        self._children.dismiss(of.mold, time.monotonic() + of.config.workers.graceful_timeout)

    # ---- another program takes over

    @property
    def settled(self) -> bool:
        """Nobody is on the way: everyone alive has a place that can be written down."""
        booting = any(slot.state is State.BOOTING for slot in self._children.alive)
        return not (booting or self.candidate or self.coming or self.standby)

    def bequeath(self) -> Document:
        """For the program that takes over."""
        placed = [self.dispatcher, *self.workers, self.current.mold]
        carry = self._children.bequeath
        return {
            "generation": self.current.number, "count": self.count, "proven": self._boots.proven,
            "dispatcher": carry(self.dispatcher), "workers": [carry(slot) for slot in self.workers],
            "mold": carry(self.current.mold),
            "others": [carry(slot) for slot in self._children.alive if slot not in placed],
        }

    def inherit(self, document: Document) -> None:
        """Take over everybody."""
        take = self._children.inherit
        self.current = Generation(document["generation"], self.current.config, take(document["mold"]))
        self.count, self._boots.proven = document["count"], document["proven"]
        self.dispatcher = take(document["dispatcher"])
        self.workers = [take(each) for each in document["workers"]]
        for each in document["others"]:
            take(each)

    # ---- the end

    def stop_workers(self, kill_at: float) -> None:
        """Nobody is forked any more; the dispatcher stays, to answer."""
        self.give_up_candidate()
        self._children.dismiss(self.current.mold, kill_at)
        for slot in self._children.alive:
            if slot.role == "worker" or slot is self.standby:
                self._children.stop(slot, kill_at)

    def stop_dispatcher(self, kill_at: float) -> None:
        self._children.stop(self.dispatcher, kill_at, last=True)

    def tell_workers(self, message: Message) -> None:
        """All of them, those that give way too."""
        for slot in self._children.alive:
            if slot.role == "worker":
                self._children.send(slot, message)
