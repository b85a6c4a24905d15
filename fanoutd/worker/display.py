"""What the board and ps show of a worker."""

from __future__ import annotations

import time

from fanoutd.bucket import now
from fanoutd.child import Child
from fanoutd.outcome import Progress, State
from fanoutd.process import set_title
from fanoutd.worker.shares import Shares

#: How often the board is brought up to date while there is work, in seconds.
BOARD_EVERY = 0.5


class Figures:
    """What the board shows of this worker."""

    def __init__(self) -> None:
        self.sent = self.failed = self.ended = 0
        self.rate = 0.0
        self.campaign: str | None = None
        self._since = now()
        self._ended_before = 0

    def count(self, progress: Progress, campaign: str) -> None:
        self.campaign = campaign
        self.ended += 1
        self.sent += progress.state is State.SENT
        self.failed += progress.state is State.FAILED

    def due(self) -> bool:
        """Time to show them again; the rate is then that of the span since the last time."""
        span = now() - self._since
        if span < BOARD_EVERY:
            return False
        self.rate = (self.ended - self._ended_before) / span
        self._since, self._ended_before = now(), self.ended
        return True

    def rest(self) -> None:
        """There is no work."""
        self.rate, self.campaign = 0.0, None


class Display:
    def __init__(self, child: Child) -> None:
        self._child = child
        self._title = child.name
        self.figures = Figures()

    def show(self, late_since: float) -> None:
        """On the board; also the sign of life that the master looks for. ``late_since`` as the recorder has it."""
        f = self.figures
        self._child.board.write(
            self._child.row, campaign=f.campaign, sent=f.sent, failed=f.failed, rate=f.rate, heartbeat=time.monotonic()
        )
        self._child.board.unrecorded(self._child.row, late_since)

    def entitle(self, shares: Shares) -> None:
        """What ps shows: whose people these are, and how far the campaign is as this worker knows."""
        words, campaign = self._child.name, self.figures.campaign
        if campaign:
            share = shares.of(campaign)
            words += f" · campaign {campaign}" + (f" {share:.0%}" if share is not None else "")
        if words != self._title:
            self._title = words
            set_title(words)
