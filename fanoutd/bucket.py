"""The account's rate over all processes of this machine: its pace in a small shared file.

fcntl locks guard it, since the kernel lets go of them when a holder dies. A waiting process never blocks on the lock:
it tries again with its next turn of the loop. A record that is torn, or of another boot, is none: the bucket then
starts empty.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
import zlib
from dataclasses import replace
from pathlib import Path

from fanoutd.boot import boot_tag
from fanoutd.pace import TICK, Pace, configured, grant, in_force, rested, tallied, worth_asking

_STATE = struct.Struct("<I7dQQ")  # boot, the record's times and shares, the last answers in two halves
_CRC = struct.Struct("<I")
_HALF = (1 << 64) - 1

#: How soon to ask again when another process holds the lock, in seconds.
_CONTENDED = 0.001

#: Who finds nothing several times running comes later by so many ticks at most: the others take all there is.
_LATER_BY = 3


def now() -> float:
    """CLOCK_BOOTTIME in seconds: it goes on while the machine sleeps, and nobody sets it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Bucket:
    """One process's hand on the account's bucket.

    ``rate`` counts only where the file says nothing: else the file's rate is in force, which the dispatcher sets.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self._rate = rate
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._answers = self._busy = 0
        self._refused = False  # 45011 was answered, and the file does not say so yet
        self._misses = 0

    def take(self, wanted: int) -> tuple[int, float]:
        """(calls that may start now, seconds until it is worth asking again)."""
        if not self._lock():
            return 0, _CONTENDED
        try:
            return self._take_locked(wanted)
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def _take_locked(self, wanted: int) -> tuple[int, float]:
        at = now()
        pace = self._news(at)
        if pace.rest > at:
            return 0, pace.rest - at
        rate = in_force(pace, at)
        granted, due = grant(pace.due, at, rate, wanted)
        if granted:
            self._write(replace(pace, due=due))
        self._misses = 0 if granted else min(self._misses + 1, _LATER_BY + 1)
        later = TICK * max(0, self._misses - 1)
        return granted, worth_asking(due, at, rate, wanted - granted or 1) + later

    def tally(self, busy: bool) -> None:
        """An answer came; ``busy``: it was -1. Written down with the next call's permit."""
        self._answers += 1
        self._busy += busy

    def rest(self) -> None:
        """WeChat answered 45011: let nobody start a call for a minute, and all go slower after it."""
        self._refused = True
        if self._lock():
            self._news(now())
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def configure(self, rate: float) -> None:
        """Another configured rate is in force from here on, for all processes. May wait for the lock."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            at = now()
            self._write(configured(self._read(at), at, rate))
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def resting(self) -> float:
        """Seconds for which the account still rests."""
        at = now()
        return max(0.0, self._read(at).rest - at)

    def in_force(self) -> float:
        """The rate now, a rest aside: calls a second."""
        at = now()
        return in_force(self._read(at), at)

    def _lock(self) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # EACCES or EAGAIN: POSIX allows both
            return False
        return True

    def _news(self, at: float) -> Pace:
        """The record with what this process has heard since it last had the lock."""
        pace = had = self._read(at)
        if self._answers:
            pace = tallied(pace, at, self._answers, self._busy)
            self._answers = self._busy = 0
        if self._refused:
            pace = rested(pace, at)
            self._refused = False
        if pace != had:
            self._write(pace)
        return pace

    def _read(self, at: float) -> Pace:
        data = os.pread(self._fd, _STATE.size + _CRC.size, 0)
        if len(data) == _STATE.size + _CRC.size and _CRC.unpack_from(data, _STATE.size)[0] == _checksum(data):
            boot, rate, due, rest, halved, halved_at, slowed, slowed_at, high, low = _STATE.unpack_from(data)
            if boot == boot_tag():
                return Pace(rate, due, rest, halved, halved_at, slowed, slowed_at, high << 64 | low)
        return Pace(self._rate, at)

    def _write(self, pace: Pace) -> None:
        p = pace
        data = _STATE.pack(boot_tag(), p.rate, p.due, p.rest, p.halved, p.halved_at, p.slowed, p.slowed_at,
                           p.answers >> 64, p.answers & _HALF)  # fmt: skip
        os.pwrite(self._fd, data + _CRC.pack(_checksum(data)), 0)

    def close(self) -> None:
        os.close(self._fd)


def _checksum(data: bytes) -> int:
    return zlib.crc32(data[: _STATE.size])


def bucket_path(state_dir: Path, account: str) -> Path:
    return state_dir / "rate" / f"{account}.bucket"
