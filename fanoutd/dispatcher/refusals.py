"""Refused submissions, which the master tells of: gathered for a moment, then mailed.

The first are told almost at once: should this process be killed, the log alone has those that it still gathers.
"""

from __future__ import annotations

import pwd
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from fanoutd.mail.event import Event
from fanoutd.report.refused import refused
from fanoutd.times import wall_ms

#: What comes within so many seconds is one event: the first, and each that follows soon after another.
_FIRST, _GATHER = 0.05, 1.0

#: As many are kept meanwhile; of the others only how many they were.
_MOST = 2000


class Refusals:
    """``tell`` has an event mailed, and never raises."""

    def __init__(self, tell: Callable[[Event], None], first: float = _FIRST) -> None:
        self._tell, self._first = tell, first
        self._told = float("-inf")
        self._lock = threading.Lock()
        self._kept: list[dict[str, Any]] = []
        self._more = 0
        self._timer: threading.Timer | None = None

    def take(self, message: dict[str, Any]) -> None:
        """A ``refusals`` message of the master."""
        with self._lock:
            room = _MOST - len(self._kept)
            self._kept += message["refusals"][:room]
            self._more += message["more"] + max(0, len(message["refusals"]) - room)
            if self._timer is None:
                wait = max(self._first, self._told + _GATHER - time.monotonic())
                self._timer = threading.Timer(wait, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def leave(self, messages: Iterable[dict[str, Any]]) -> None:
        """The process ends: take what is among these last messages of the master, and mail all of it."""
        for message in messages:
            if message["t"] == "refusals":
                self.take(message)
        self.flush()

    def flush(self) -> None:
        """Mail what was gathered."""
        with self._lock:
            kept, more, self._kept, self._more, self._timer = self._kept, self._more, [], 0, None
            self._told = time.monotonic()
        if not kept:
            return
        self._tell(refused(kept, more, f"refused-{uuid.uuid4().hex}", wall_ms(), _name))


def _name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
