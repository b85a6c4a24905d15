"""Refused submissions in the log: none is dropped silently, and no flood of them fills the disk."""

from __future__ import annotations

import logging
import time

_log = logging.getLogger(__name__)

_LINES, _SECONDS = 50, 10.0


class Refusals:
    """At most so many lines in so many seconds; how many there were besides is said later."""

    def __init__(self) -> None:
        self._since = 0.0
        self._count = 0

    def log(self, pid: int, uid: int, words: str) -> None:
        """One submission of this peer was refused."""
        now = time.monotonic()
        if now - self._since >= _SECONDS:
            if self._count > _LINES:
                _log.warning("%d more submissions refused", self._count - _LINES)
            self._since, self._count = now, 0
        self._count += 1
        if self._count <= _LINES:
            _log.warning("submission refused pid=%d uid=%d: %s", pid, uid, words)
