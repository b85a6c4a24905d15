"""Questions carried to the dispatcher, and who waits for their answers. Times are CLOCK_MONOTONIC."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

from fanoutd.master.rpc import INTERNAL_ERROR, NOT_NOW, RpcError

_log = logging.getLogger(__name__)

#: Seconds that a request waits for the store before it is told to try again.
PATIENCE = 5.0

#: How many may be open at once; beyond it one is refused at once rather than kept.
_MOST = 4096

Done = Callable[[Any, RpcError | None], None]
"""Called once: with the result, or with the error."""


@dataclass(frozen=True, slots=True)
class Ask:
    number: int
    method: str
    params: dict[str, Any]
    deadline: float
    done: Done

    def message(self) -> dict[str, Any]:
        """As the dispatcher reads it."""
        return {"t": "ask", "n": self.number, "method": self.method, "params": self.params}


class Asks:
    """``send`` takes a message to the dispatcher. It may fail: the next dispatcher is asked again."""

    def __init__(self, send: Callable[[dict[str, Any]], bool]) -> None:
        self._send = send
        self._numbers = count(time.monotonic_ns())  # none is given twice, even by another program in our place
        self._open: dict[int, Ask] = {}

    def __len__(self) -> int:
        return len(self._open)

    def put(self, method: str, params: dict[str, Any], deadline: float, done: Done) -> None:
        """Ask; ``done`` is called later, or at once when too many wait already."""
        if len(self._open) >= _MOST:
            done(None, RpcError(NOT_NOW, "too many requests wait for the store; try again"))
            return
        ask = Ask(next(self._numbers), method, params, deadline, done)
        self._open[ask.number] = ask
        self._send(ask.message())

    def answered(self, message: dict[str, Any]) -> None:
        """The dispatcher's ``answer``. One that comes too late is dropped."""
        ask = self._open.pop(message["n"], None)
        if ask is None:
            return
        error = message.get("error")
        _finish(ask, message.get("result"), None if error is None else _error(error))

    def again(self) -> None:
        """There is another dispatcher: it knows nothing of what the last one was asked."""
        for ask in list(self._open.values()):
            self._send(ask.message())

    def expire(self, now: float) -> None:
        """Give up those that have waited long enough."""
        for ask in [ask for ask in self._open.values() if ask.deadline <= now]:
            del self._open[ask.number]
            _finish(ask, None, RpcError(NOT_NOW, "the store did not answer in time; try again"))

    def deadlines(self) -> Iterable[float]:
        """When there is something to expire."""
        return (ask.deadline for ask in self._open.values())


def _finish(ask: Ask, value: Any, error: RpcError | None) -> None:
    """One client's matters must not keep the others from their answers."""
    try:
        ask.done(value, error)
    except Exception:
        _log.exception("the answer to %s was lost", ask.method)


def _error(said: Any) -> RpcError:
    if not isinstance(said, dict):
        return RpcError(INTERNAL_ERROR, str(said))
    error = RpcError(int(said.get("code", INTERNAL_ERROR)), str(said.get("message", "failed")))
    error.data = said.get("data")
    return error
