"""The tallies of the campaigns in hand, shared by all workers of a node in one small mapped file.

A place for each campaign; when all are taken, whoever was not counted for longest gives way and begins anew. Reading
takes no lock. A writer takes an fcntl lock, which the kernel lets go when its holder dies; while somebody else has it
a little is counted later, or, of answers that must not wait, without it: one too few is no harm.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from fanoutd.boot import uptime_ms
from fanoutd.worker.verdicts import WORDS, Tally

log = logging.getLogger(__name__)

#: Campaigns that are counted at once.
PLACES = 32

# In front of each tally: two words of the campaign's mark, and when it was last counted for.
_HEAD = 3
_PLACE = _HEAD + WORDS
_SIZE = PLACES * _PLACE * 8
_STARTS = range(0, PLACES * _PLACE, _PLACE)

#: How often to try for the lock before going on without it.
_TRIES = 20

T = TypeVar("T")


def tallies_path(state_dir: Path) -> Path:
    return state_dir / "rate" / "tallies"


def forget(state_dir: Path, campaign: str) -> None:
    """What came of it so far counts no more: an operator lets it go on."""
    path = tallies_path(state_dir)
    try:
        if path.exists():
            tallies = Tallies(path)
            tallies.locked(tallies.find(campaign).clear)
            tallies.close()
    except OSError as e:  # the workers find out after a few seconds that it runs
        log.warning("%s: %s", path, e.strerror)


class Tallies:
    """Times are CLOCK_BOOTTIME milliseconds. Without room on the disk each process counts for itself."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(self._fd, 0, _SIZE)  # a hole that cannot be filled would kill whoever writes there
            self._map = mmap.mmap(self._fd, _SIZE)
        except OSError as e:
            log.warning("%s: %s; this worker looks at its own answers only", path, e.strerror)
            self._map = mmap.mmap(-1, _SIZE)
        self._words = memoryview(self._map).cast("q")
        self._known: dict[str, tuple[int, tuple[int, int], Tally]] = {}

    def find(self, campaign: str) -> Tally:
        """The campaign's tally. Call it anew each time: its place may be another's by now."""
        known = self._known.get(campaign)
        if known is None or not self._is(known[0], known[1]):
            mark = _mark(campaign)
            at = next((p for p in _STARTS if self._is(p, mark)), None)
            if at is None:
                at = self.locked(lambda: self._settle(mark))
            known = self._known[campaign] = (at, mark, Tally(self._words[at + _HEAD : at + _PLACE]))
        return known[2]

    def touch(self, campaign: str) -> None:
        """It is still counted for."""
        self.find(campaign)
        self._words[self._known[campaign][0] + 2] = uptime_ms()

    def _settle(self, mark: tuple[int, int]) -> int:
        for at in _STARTS:
            if self._is(at, mark):
                return at
        at = min(_STARTS, key=lambda p: self._words[p + 2])
        for i in range(_HEAD, _PLACE):
            self._words[at + i] = 0
        self._words[at + 2] = uptime_ms()
        self._words[at], self._words[at + 1] = mark
        return at

    def _is(self, at: int, mark: tuple[int, int]) -> bool:
        return self._words[at] == mark[0] and self._words[at + 1] == mark[1]

    def locked(self, step: Callable[[], T], must: bool = True) -> T:
        """Do it with the lock; if it ``must`` be, then without when it cannot be had. Raises BlockingIOError."""
        for turn in range(_TRIES):
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:  # EACCES or EAGAIN: POSIX allows both
                if not must:
                    raise BlockingIOError from None
                time.sleep(0.0001 * turn)
        try:
            return step()
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        self._known.clear()
        self._words.release()
        self._map.close()
        os.close(self._fd)


def _mark(campaign: str) -> tuple[int, int]:
    digest = blake2b(campaign.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], signed=True), int.from_bytes(digest[8:], signed=True) | 1
