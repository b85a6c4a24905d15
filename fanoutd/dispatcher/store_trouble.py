"""That the store is away, said in the log: when it goes, now and then while it is away, and when it is back."""

from __future__ import annotations

import logging
import threading
import time

from fanoutd.times import span

log = logging.getLogger(__name__)

#: Seconds after which it is said again: after the first time, and after each further one; the last again and again.
AGAIN = (60.0, 300.0, 900.0, 3600.0)
#: Different reasons of one absence that are said at once each.
_REASONS = 8


class StoreTrouble:
    """Of one dispatcher; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = self._again_at = 0.0
        self._said = 0
        self._reasons: set[str] = set()
        #: Why something at the store has failed since the last sweep that went well.
        self.words: str | None = None

    def away(self, words: str) -> None:
        """Something failed at the store."""
        at = time.monotonic()
        with self._lock:
            if self.words is None:
                self._since, self._said, self._again_at = at, 0, at
                self._reasons.clear()
            self.words = words
            news = words not in self._reasons and len(self._reasons) < _REASONS
            if at < self._again_at and not news:
                return
            self._reasons.add(words)
            self._again_at = at + AGAIN[min(self._said, len(AGAIN) - 1)]
            self._said += 1
            lasted = f"; it has been away for {span((at - self._since) * 1000)}" if self._said > 1 else ""
        log.warning("%s; trying again until it is there%s", words, lasted)

    def back(self) -> None:
        """A sweep went well."""
        with self._lock:
            was, self.words = self.words, None
            lasted = time.monotonic() - self._since
        if was is not None:
            log.info("the store can be used again, after %s", span(lasted * 1000))
