"""Refused submissions in the log: whoever has hung up without reading would not know otherwise."""

from __future__ import annotations

import logging

from fanoutd.master.loglimit import LogLimit

_log = logging.getLogger(__name__)


class Refusals:
    """A line each, as far as they are not a flood."""

    def __init__(self) -> None:
        self._limit = LogLimit(_log, 50, 10.0, "%d more submissions refused")

    def log(self, pid: int, uid: int, words: str) -> None:
        """One submission of this peer was refused."""
        self._limit.warning("submission refused pid=%d uid=%d: %s", pid, uid, words)
