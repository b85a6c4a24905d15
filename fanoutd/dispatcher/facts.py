"""What only the master knows of this node, asked for from any thread: its part of the status object."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

#: Seconds after which a master that says nothing is not waited for.
PATIENCE = 2.0


class Facts:
    """``say`` speaks to the master."""

    def __init__(self, say: Callable[[dict[str, Any]], None]) -> None:
        self._say = say
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[threading.Event, list[dict[str, Any]]]] = {}

    def ask(self, patience: float = PATIENCE) -> dict[str, Any] | None:
        """{version, node, pid, started_at, generation, state, reload, upgrade, spool, jobs, workers} as the protocol's
        status object has them; None when the master does not answer in so many seconds."""
        came, answer = threading.Event(), list[dict[str, Any]]()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = came, answer
        self._say({"t": "facts", "n": number})
        came.wait(patience)
        with self._lock:
            del self._waiting[number]
        return answer[0] if answer else None

    def told(self, message: dict[str, Any]) -> None:
        """The master's answer."""
        with self._lock:
            if waiting := self._waiting.get(message["n"]):
                waiting[1].append(message["facts"])
                waiting[0].set()
