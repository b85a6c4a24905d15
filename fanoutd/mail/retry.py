"""When what failed is tried again. Times are seconds of one clock."""

from __future__ import annotations

from dataclasses import dataclass

#: The first pause, and the longest.
_FIRST, _LONGEST = 5.0, 600.0


def pause(tries: int) -> float:
    """Seconds after so many failures in a row."""
    return min(_FIRST * 2.0 ** min(tries - 1, 20), _LONGEST)


@dataclass(slots=True)
class Retry:
    """How often in a row something failed, and when it is tried again."""

    tries: int = 0
    due: float = 0.0

    def failed(self, now: float) -> float:
        """The pause."""
        self.tries += 1
        self.due = now + pause(self.tries)
        return pause(self.tries)
