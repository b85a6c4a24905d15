"""The account's rate over all processes of this machine: its pace in a small shared file.

Where other machines call for the account too, the file has this node's part of the rate, and until when it is good:
the dispatcher feeds it (``dispatcher/parts.py``). What is not fed permits nothing. In return the workers leave there
whether they have work, so that the parts can follow it.

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
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fanoutd.boot import boot_tag
from fanoutd.pace import TICK, Pace, configured, grant, in_force, reparted, rested, tallied, worth_asking

_STATE = struct.Struct("<I7dQQ")  # boot, the record's times and shares, the last answers in two halves
_CRC = struct.Struct("<I")
_FED = struct.Struct("<I3dQ")  # boot, until, asked, hungry, calls; behind the record, with a checksum of its own
_FED_AT = _STATE.size + _CRC.size
_HALF = (1 << 64) - 1

#: How soon to ask again when another process holds the lock, in seconds.
_CONTENDED = 0.001

#: Who finds nothing several times running comes later by so many ticks at most: the others take all there is.
_LATER_BY = 3

#: Without a part, or with a slow one, it is looked at again so soon, in seconds: it may have grown.
_NO_PART, _LOOK_AGAIN = 0.1, 0.5

#: Whoever could have made so many seconds' calls more is hungry. It is noted so often at most, in seconds.
_HUNGRY, _NOTED = 0.25, 0.1

#: How long the dispatcher tries for the lock: a process that is stopped may have it.
_TRIES, _PAUSE = 20, 0.005


@dataclass(frozen=True, slots=True)
class Fed:
    """Of a part of the rate. Times are CLOCK_BOOTTIME seconds."""

    until: float = 0.0
    """Nothing is called after it."""
    asked: float = 0.0
    """When a worker last had somebody to call."""
    hungry: float = 0.0
    """When a worker last could have made many more calls than it was permitted."""
    calls: int = 0
    """All that were permitted, ever."""


def now() -> float:
    """CLOCK_BOOTTIME in seconds: it goes on while the machine sleeps, and nobody sets it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Bucket:
    """One process's hand on the account's bucket.

    ``rate`` counts only where the file says nothing: else the file's rate is in force, which the dispatcher sets.
    ``shared``: other nodes call for the account too, and nothing is in force but what was fed.
    """

    def __init__(self, path: Path, rate: float, shared: bool = False) -> None:
        self._rate, self._shared = 0.0 if shared else rate, shared
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._answers = self._busy = 0
        self._refused = False  # 45011 was answered, and the file does not say so yet
        self._misses = 0
        self.starved_since: float | None = None
        """From when on nothing could be called, for the store has not confirmed this node's part in time."""

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
        fed = self._fed() if self._shared else None
        self.starved_since = (self.starved_since or at) if fed and at >= fed.until else None
        if fed and (at >= fed.until or not pace.rate):
            self._note(fed, at, 0, hungry=True)
            return 0, _NO_PART
        if pace.rest > at:
            if fed:
                self._note(fed, at, 0, hungry=False)
            return 0, pace.rest - at
        rate = in_force(pace, at)
        granted, due = grant(pace.due, at, rate, wanted)
        if fed:
            self._note(fed, at, granted, hungry=wanted - granted > rate * _HUNGRY)
        if granted:
            self._write(replace(pace, due=due))
        self._misses = 0 if granted else min(self._misses + 1, _LATER_BY + 1)
        later = TICK * max(0, self._misses - 1)
        wait = worth_asking(due, at, rate, wanted - granted or 1) + later
        return granted, min(wait, _LOOK_AGAIN) if fed else wait

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

    def feed(self, rate: float, until: float) -> bool:
        """This node's part, and until when it is good; False when another process has had the lock all the time."""
        return self._in_lock(lambda at: self._feed(at, rate, until))

    def _feed(self, at: float, rate: float, until: float) -> None:
        pace = self._read(at)
        if (after := reparted(pace, at, rate)) != pace:
            self._write(after)
        self._write_fed(replace(self._fed(), until=until))

    def adopt(self, change: Callable[[Pace, float], Pace]) -> bool:
        """What other nodes have been answered; False as with ``feed``."""
        return self._in_lock(lambda at: self._write(change(self._read(at), at)))

    def _in_lock(self, step: Callable[[float], None]) -> bool:
        for _ in range(_TRIES):
            if self._lock():
                try:
                    step(now())
                    return True
                finally:
                    fcntl.lockf(self._fd, fcntl.LOCK_UN)
            time.sleep(_PAUSE)
        return False

    def pace(self) -> Pace:
        """The record as it stands."""
        return self._read(now())

    def fed(self) -> Fed:
        """As it stands; nothing where nothing was fed."""
        return self._fed()

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

    def _fed(self) -> Fed:
        data = os.pread(self._fd, _FED.size + _CRC.size, _FED_AT)
        if len(data) == _FED.size + _CRC.size and _CRC.unpack_from(data, _FED.size)[0] == zlib.crc32(data[: _FED.size]):
            boot, *rest = _FED.unpack_from(data)
            if boot == boot_tag():
                return Fed(*rest)
        return Fed()

    def _write_fed(self, fed: Fed) -> None:
        data = _FED.pack(boot_tag(), fed.until, fed.asked, fed.hungry, fed.calls)
        os.pwrite(self._fd, data + _CRC.pack(zlib.crc32(data)), _FED_AT)

    def _note(self, fed: Fed, at: float, calls: int, hungry: bool) -> None:
        """For the dispatcher's next look."""
        if calls or at - fed.asked > _NOTED or (hungry and at - fed.hungry > _NOTED):
            since = at if hungry else fed.hungry
            self._write_fed(replace(fed, asked=at, hungry=since, calls=fed.calls + calls))

    def close(self) -> None:
        os.close(self._fd)


def _checksum(data: bytes) -> int:
    return zlib.crc32(data[: _STATE.size])


def bucket_path(state_dir: Path, account: str) -> Path:
    return state_dir / "rate" / f"{account}.bucket"
