"""What children say, and to whom it goes."""

from __future__ import annotations

import logging
import time
from typing import Any

from fanoutd.master.asks import Asks
from fanoutd.master.clock import Clock
from fanoutd.master.crew import Crew
from fanoutd.master.slots import Event, Slot, wake

_log = logging.getLogger(__name__)

Message = dict[str, Any]


class Post:
    """One method a message, in one table a role."""

    def __init__(self, crew: Crew, asks: Asks, clock: Clock) -> None:
        self._crew = crew
        self._asks = asks
        self._clock = clock
        self._owed = 0
        common = {"ready": self._ready}
        self._tables = {
            "worker": {**common, "idle": self._turns, "busy": self._turns, "token_refused": self._to_dispatcher},
            "dispatcher": {
                **common, "answer": self._answer, "job": self._job, "work": self._work, "token": self._to_workers,
            },
        }

    def hear(self, slot: Slot, message: Message) -> None:
        """Raises KeyError and the like for what no child should say."""
        self._tables[slot.role][message["t"]](slot, message)

    def _ready(self, slot: Slot, _message: Message) -> None:
        now = time.monotonic()
        if not slot.heard(Event.READY, now):
            return
        took = (now - slot.born) * 1000
        _log.info("%s ready pid=%d generation=%d after %.0f ms", slot.name, slot.pid, slot.generation, took)
        if slot.role == "worker" and (self._owed or slot.restarts):
            # Shards were free when nobody could be told, or its predecessor died with the news.
            self._owed = max(0, self._owed - 1)
            self._crew.send(slot, {"t": "work"})

    def _turns(self, slot: Slot, message: Message) -> None:
        slot.heard(Event(message["t"]), time.monotonic())

    def _work(self, _slot: Slot, message: Message) -> None:
        self._owed = wake(
            self._crew.workers, int(message["shards"]), lambda worker: self._crew.send(worker, {"t": "work"})
        )

    def _answer(self, _slot: Slot, message: Message) -> None:
        self._asks.answered(message)

    def _job(self, _slot: Slot, message: Message) -> None:
        self._clock.finished(message["n"], message.get("error"))

    def _to_dispatcher(self, _slot: Slot, message: Message) -> None:
        self._crew.send(self._crew.dispatcher, message)

    def _to_workers(self, _slot: Slot, message: Message) -> None:
        for worker in self._crew.workers:
            self._crew.send(worker, message)
