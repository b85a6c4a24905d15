"""Something to be done once in a while, by name: setting an alarm again moves it."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Alarms:
    """``ring(name)`` is called in a thread of its own; it must not take long."""

    def __init__(self, ring: Callable[[str], object]) -> None:
        self._ring = ring
        self._lock = threading.Lock()
        self._timers: dict[str, threading.Timer] = {}

    def set(self, name: str, seconds: float) -> None:
        """Ring for ``name`` in so many seconds, and not at the time that was set before."""
        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._ring, (name,))
        timer.daemon = True  # nothing is lost with it: the next dispatcher looks for itself
        with self._lock:
            if before := self._timers.get(name):
                before.cancel()
            self._timers[name] = timer
        timer.start()
