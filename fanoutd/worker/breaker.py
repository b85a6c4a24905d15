"""When the API answers nothing that can be understood, nearly nothing more is sent to it."""

from __future__ import annotations

from collections import deque

#: Failures in a row, or among the last ``WINDOW``, that open the breaker.
IN_A_ROW = 10
AMONG_LAST = 10
WINDOW = 50

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


class Breaker:
    """Closed: all may start. Open: one probe at a time, 1 s apart at first, up to 60 s.

    Times are seconds on any clock that only goes forward.
    """

    def __init__(self) -> None:
        self._row = 0
        self._last: deque[bool] = deque(maxlen=WINDOW)
        self._pause = 0.0
        self._probe_at = 0.0
        self._probing = False

    @property
    def open(self) -> bool:
        return self._pause > 0

    def allowed(self, at: float, wanted: int) -> int:
        """How many requests may start now."""
        if not self.open:
            return wanted
        return 0 if self._probing or at < self._probe_at else min(wanted, 1)

    def wait(self, at: float) -> float | None:
        """Seconds until a probe may start; None while one is out or the breaker is closed."""
        return None if not self.open or self._probing else max(0.0, self._probe_at - at)

    def started(self) -> None:
        self._probing = self.open

    def answered(self) -> None:
        """An answer that could be understood, whatever it said."""
        self._row = 0
        self._probing = False
        if self.open:
            self._pause = 0.0
            self._last.clear()
        self._last.append(True)

    def failed(self, at: float) -> None:
        """No answer, or one that could not be understood."""
        self._row += 1
        self._last.append(False)
        if self.open:
            if self._probing:
                self._pause = min(self._pause * 2, LONGEST_PAUSE)
                self._probe_at = at + self._pause
            self._probing = False
        elif self._row >= IN_A_ROW or self._last.count(False) >= AMONG_LAST:
            self._pause = FIRST_PAUSE
            self._probe_at = at + self._pause
