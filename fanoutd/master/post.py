"""What children say, and to whom it goes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from fanoutd.log import facts
from fanoutd.master.asks import Asks
from fanoutd.master.children import Children
from fanoutd.master.clock import Clock
from fanoutd.master.crew import Crew
from fanoutd.master.halts import Halts
from fanoutd.master.slots import Event, Slot, wake

_log = logging.getLogger(__name__)

Message = dict[str, Any]
Table = dict[str, Callable[[Slot, Message], None]]


class Post:
    """One method a message, in one table a role."""

    def __init__(self, crew: Crew, children: Children, asks: Asks, clock: Clock) -> None:
        self._crew = crew
        self._children = children
        self._asks = asks
        self._clock = clock
        self._owed = 0
        self._halts = Halts(children, lambda message: children.send(crew.dispatcher, message))
        common: Table = {"ready": self._ready, "dies": self._dies}
        self._tables: dict[str, Table] = {
            "mold": {**common, "broken": self._broken},
            "worker": {
                **common, "idle": self._turns, "busy": self._turns, "token_refused": self._to_dispatcher,
                "recycle": self._recycle, "halted": self._halted,
            },
            "dispatcher": {
                **common, "answer": self._answer, "job": self._job, "due": self._due, "work": self._work,
                "token": self._to_workers, "halt": self._halt, "unhalt": self._to_workers,
            },
        }

    def hear(self, slot: Slot, message: Message) -> None:
        """Raises KeyError and the like for what no child should say."""
        self._tables[slot.role][message["t"]](slot, message)

    def _ready(self, slot: Slot, _message: Message) -> None:
        now = time.monotonic()
        if not slot.heard(Event.READY, now):
            return
        took = round((now - slot.born) * 1000)
        about = facts(slot=slot.place, pid=slot.pid, generation=slot.generation, ms=took)
        _log.info("%s ready", slot.name, extra=about)
        self._crew.got_ready(slot)
        if slot.role == "worker" and (self._owed or slot.restarts):
            # Shards were free when nobody could be told, or its predecessor died with the news.
            self._owed = max(0, self._owed - 1)
            self._children.send(slot, {"t": "work"})

    def _dies(self, slot: Slot, message: Message) -> None:
        slot.last_words = str(message["error"])

    def _broken(self, slot: Slot, message: Message) -> None:
        """The mold cannot import its generation's code."""
        for generation in (self._crew.candidate, self._crew.current):
            if generation is not None and generation.mold is slot:
                generation.trouble = message["error"]

    def _recycle(self, slot: Slot, message: Message) -> None:
        slot.wants_out = message["why"]

    def _turns(self, slot: Slot, message: Message) -> None:
        slot.heard(Event(message["t"]), time.monotonic())

    def _work(self, _slot: Slot, message: Message) -> None:
        self._owed = wake(
            self._crew.workers, int(message["shards"]), lambda worker: self._children.send(worker, {"t": "work"})
        )

    def _halt(self, _slot: Slot, message: Message) -> None:
        self._halts.begin(message["n"], message["campaign"])

    def _halted(self, slot: Slot, message: Message) -> None:
        self._halts.obeyed(slot, message["n"])

    def ended(self, slot: Slot) -> None:
        """This child says nothing more."""
        if slot.role == "worker":
            self._halts.ended(slot)

    def _answer(self, _slot: Slot, message: Message) -> None:
        self._asks.answered(message)

    def _job(self, _slot: Slot, message: Message) -> None:
        self._clock.finished(message["n"], message.get("error"), message.get("said"))

    def _due(self, _slot: Slot, message: Message) -> None:
        """What a crontab plans was missed: only the store remembers when it was done last."""
        self._clock.soon(message["name"])

    def _to_dispatcher(self, _slot: Slot, message: Message) -> None:
        self._children.send(self._crew.dispatcher, message)

    def _to_workers(self, _slot: Slot, message: Message) -> None:
        self._crew.tell_workers(message)
