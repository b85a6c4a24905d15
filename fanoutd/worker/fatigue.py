"""When a worker has had enough: it asks to be replaced, and works on until it is."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from fanoutd.config import Workers

_PAGE = os.sysconf("SC_PAGE_SIZE")
#: Seconds: who is too fat from the beginning is not replaced over and over at full speed.
_YOUNG = 10.0
#: Of max_messages, either way: workers of one age shall not all go at once.
_JITTER = 0.1


def resident_bytes() -> int:
    """Of this process now (proc(5), statm); never ru_maxrss, which is the peak."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


class Fatigue:
    """``max_memory`` in bytes and ``max_messages``, 0 for never, as in [workers]."""

    def __init__(self, limits: Workers) -> None:
        self._max_memory = limits.max_memory
        spread = 1 + _JITTER * (2 * random.random() - 1)
        self._max_messages = round(limits.max_messages * spread)
        self._born = time.monotonic()
        self.told = False

    def complaint(self, messages: int) -> str | None:
        """Why this worker should be replaced, after so many messages; told once."""
        if self.told or time.monotonic() - self._born < _YOUNG:
            return None
        why = None
        if self._max_messages and messages >= self._max_messages:
            why = f"{messages} messages"
        elif (size := resident_bytes()) > self._max_memory:
            why = f"{size >> 20} MiB of memory"
        self.told = why is not None
        return why
