"""The account's rate over all processes of this machine: a bucket in a small shared file.

Calls are spaced by the generic cell rate algorithm: the file holds the time at which the next
call is due. fcntl locks guard it, since the kernel lets go of them when a holder dies. A waiting
process never blocks on the lock: it tries again with its next turn of the loop.

The file also holds until when the whole account rests (errcode 45011).
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from pathlib import Path

_STATE = struct.Struct("<dd")  # when the next call is due, until when all rest: CLOCK_BOOTTIME seconds

#: The share of a second's calls that may leave at once. Any second sees at most rate × (1 + BURST).
BURST = 0.05

#: How soon to ask again when another process holds the lock, in seconds.
_CONTENDED = 0.001


def now() -> float:
    """CLOCK_BOOTTIME in seconds: it goes on while the machine sleeps, and nobody sets it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def grant(due: float, at: float, rate: float, wanted: int) -> tuple[int, float]:
    """Pure core: how many of ``wanted`` calls may start at ``at``, and when the next one is due.

    The burst is never less than one call, or a slow rate would send nothing at all.
    """
    gap = 1.0 / rate
    burst = max(1.0, rate * BURST)
    due = max(due, at - (burst - 1.0) * gap)
    granted = min(wanted, int((at - due) / gap + 1.0 + 1e-9)) if at >= due - 1e-9 else 0
    return granted, due + granted * gap


class Bucket:
    """One process's hand on the account's bucket."""

    def __init__(self, path: Path, rate: float) -> None:
        self._rate = rate
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self, wanted: int) -> tuple[int, float]:
        """(calls that may start now, seconds until it is worth asking again)."""
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # EACCES or EAGAIN: POSIX allows both
            return 0, _CONTENDED
        try:
            return self._take_locked(wanted)
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def _take_locked(self, wanted: int) -> tuple[int, float]:
        at = now()
        due, rest = self._read(at)
        if rest > at:
            return 0, rest - at
        granted, due = grant(due, at, self._rate, wanted)
        if granted:
            os.pwrite(self._fd, _STATE.pack(due, rest), 0)
        return granted, max(0.0, due - at)

    def rest(self, seconds: float) -> None:
        """Let nobody start a call for so long."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            at = now()
            due, rest = self._read(at)
            os.pwrite(self._fd, _STATE.pack(due, max(rest, at + seconds)), 0)
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def resting(self) -> float:
        """Seconds for which the account still rests."""
        at = now()
        return max(0.0, self._read(at)[1] - at)

    def _read(self, at: float) -> tuple[float, float]:
        data = os.pread(self._fd, _STATE.size, 0)
        if len(data) < _STATE.size:
            return at, 0.0
        due, rest = _STATE.unpack(data)
        far = at + 86400.0 * 2
        # Values of another boot: CLOCK_BOOTTIME began anew.
        return (due if due < far else at), (rest if rest < far else 0.0)

    def close(self) -> None:
        os.close(self._fd)


def bucket_path(state_dir: Path, account: str) -> Path:
    return state_dir / "rate" / f"{account}.bucket"
