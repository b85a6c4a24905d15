"""Lines that somebody else's behaviour brings forth: none is dropped silently, no flood fills the disk."""

from __future__ import annotations

import logging
import time


class LogLimit:
    """At most ``lines`` warnings in ``seconds``; how many there were besides is said later.

    ``more`` says that, with one ``%d``.
    """

    def __init__(self, log: logging.Logger, lines: int, seconds: float, more: str) -> None:
        self._log = log
        self._lines = lines
        self._seconds = seconds
        self._more = more
        self._since = float("-inf")
        self._count = 0

    def warning(self, words: str, *args: object, traceback: bool = False) -> None:
        """As of a logger; ``traceback`` adds that of the exception at hand."""
        self.catch_up()
        if not self._count:
            self._since = time.monotonic()
        self._count += 1
        if self._count <= self._lines:
            self._log.warning(words, *args, exc_info=traceback)

    def catch_up(self) -> None:
        """Say how many were left out, once their time is over."""
        if self._count and time.monotonic() - self._since >= self._seconds:
            if self._count > self._lines:
                self._log.warning(self._more, self._count - self._lines)
            self._count = 0
