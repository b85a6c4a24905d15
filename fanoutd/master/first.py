"""Whether the first generation boots at all: only if not does the daemon end by itself."""

from __future__ import annotations

_DEATHS = 5
_SECONDS = 30.0


class FirstGeneration:
    """Begun at ``now``, CLOCK_MONOTONIC."""

    def __init__(self, now: float) -> None:
        self._until = now + _SECONDS
        self._deaths = 0
        self._last = ""
        self.ready = False

    def got_ready(self) -> None:
        """A worker has booted: from here on the daemon never gives up."""
        self.ready = True

    def lost_one(self, how: str) -> None:
        """A worker has ended, ``how`` in words."""
        self._deaths += 1
        self._last = how

    def hopeless(self, now: float) -> str | None:
        """Why the daemon should end, in one line; None while there is hope."""
        if self.ready:
            return None
        if self._deaths >= _DEATHS:
            return f"no worker starts: {self._deaths} died, the last one with {self._last}; the log says why"
        if now >= self._until:
            return f"no worker was ready within {_SECONDS:g} s; the log says more"
        return None
