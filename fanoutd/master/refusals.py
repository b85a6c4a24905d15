"""Refused submissions, told in the log and by mail: whoever has hung up without reading would not know otherwise."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fanoutd import times
from fanoutd.master.loglimit import LogLimit

_log = logging.getLogger(__name__)

#: Of those that no dispatcher has taken yet: as many are kept, and of the others only how many they were.
_MOST = 50


class Refusals:
    """A line each, as far as they are not a flood. ``tell`` takes a message to the dispatcher, which mails them."""

    def __init__(self, tell: Callable[[dict[str, Any]], bool]) -> None:
        self._limit = LogLimit(_log, 50, 10.0, "%d more submissions refused")
        self._tell = tell
        self._untold: list[dict[str, Any]] = []
        self._more = 0

    def log(self, pid: int, uid: int, words: str) -> None:
        """One submission of this peer was refused."""
        self._limit.warning("submission refused pid=%d uid=%d: %s", pid, uid, words)
        if len(self._untold) < _MOST:
            self._untold.append({"at": times.wall_ms(), "pid": pid, "uid": uid, "error": words})
        else:
            self._more += 1

    def hand_over(self) -> None:
        """To the dispatcher, if there is one: ``refusals`` {refusals: [{at, pid, uid, error}], more}, once a pass."""
        if self._untold and self._tell({"t": "refusals", "refusals": self._untold, "more": self._more}):
            self._untold, self._more = [], 0
