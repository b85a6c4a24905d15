"""Figures on disk: a small file for each process that counts, in ``state_dir/figures``, added up by whoever reads.

A process has its file locked with flock as long as it lives. Whoever is given its place next goes on from what stands
there, and so no figure falls over a death, a reload or a restart. Nothing is fsynced: what a process wrote outlives it,
but maybe not the machine.

A file has two places of which one is written at a time, with a number and a checksum: a kill inside write(2) leaves the
other. Readers take the newest that is whole.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import threading
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

from fanoutd.figures import MOST_SETS, OTHER, Figures, Histogram
from fanoutd.outcome import Ended

log = logging.getLogger(__name__)

_MAGIC = 0x464F4647
#: magic, number, length and checksum of what follows
_HEAD = struct.Struct("<IQII")
#: Of the two places. Files are sparse: a place takes the pages that it fills.
_PLACE = 1 << 20
_TRIES = 4

#: Seconds between two writings when no delivery has ended.
_EVERY = 0.25


def folder_of(state_dir: Path) -> Path:
    return state_dir / "figures"


def read_all(folder: Path) -> Figures:
    """The node's figures: all files added up. One that cannot be read is left out."""
    total = Figures()
    try:
        names = sorted(each.name for each in os.scandir(folder))
    except FileNotFoundError:
        return total
    for name in names:
        try:
            fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as e:
            log.warning("%s: %s", folder / name, e.strerror)
            continue
        try:
            total.add(_read(fd)[1])
        finally:
            os.close(fd)
    return total


def _read(fd: int) -> tuple[int, Figures]:
    """(its number, figures) of the newest writing; (0, none) of a file that has none.

    A place that is not whole is looked at again: it may be written just now, and the other one is older.
    """
    for turn in range(_TRIES):
        places = [_look(fd, at) for at in (0, _PLACE)]
        if None not in places:
            break
        time.sleep(0.001 * turn)
    for number, data in sorted((place for place in places if place), reverse=True):
        try:
            return number, Figures.from_json(data)
        except ValueError:  # of another version
            continue
    return 0, Figures()


def _look(fd: int, at: int) -> tuple[int, bytes] | None:
    """A place's number, 0 for one that was never written, and what stands there; None when that is not whole."""
    head = os.pread(fd, _HEAD.size, at)
    if not head.strip(b"\0"):
        return 0, b""
    if len(head) == _HEAD.size:
        magic, number, length, checksum = _HEAD.unpack(head)
        if magic == _MAGIC and length <= _PLACE - _HEAD.size:
            data = os.pread(fd, length, at + _HEAD.size)
            if len(data) == length and zlib.crc32(data, number & 0xFFFFFFFF) == checksum:
                return number, data
    return None


@dataclass(slots=True)
class _Calls:
    """Those of one account and channel with one result; the histogram is that of all results of the channel."""

    count: int
    latency: Histogram


class Meter:
    """What one process counts, and its file. ``request`` is the sending thread's and takes no lock; the others may be
    called by several threads.

    Trouble with the disk is logged once and tried again with the next writing: nothing waits for the sake of figures.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """``name``: of the place that the process has, ``dispatcher`` or a worker's row on the board."""
        self._figures = Figures()
        self._lock = threading.Lock()
        self._calls: dict[tuple[str, str, int | str], _Calls] = {}
        self._written = (0, 0.0)  # requests, and when
        self._number, self._fd = 0, -1
        self._complained = False
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            self._fd = _take(folder, name)
            self._number, self._figures = _read(self._fd)
        except OSError as e:
            log.warning("%s: %s; what this process counts is not kept", folder, e.strerror)
        for (account, channel, result), count in self._figures.requests.items():
            self._calls[account, channel, result] = _Calls(count, self._histogram(account, channel))

    def request(self, account: str, channel: str, result: int | str, seconds: float | None) -> None:
        """A call has ended: with this errcode, or for this reason without one. ``seconds`` it took, if it left."""
        calls = self._calls.get((account, channel, result)) or self._begin(account, channel, result)
        calls.count += 1
        if seconds is not None:
            calls.latency.observe(seconds)

    def _begin(self, account: str, channel: str, result: int | str) -> _Calls:
        """One that has not been yet in this process."""
        key = account, channel, result if len(self._calls) < MOST_SETS else OTHER
        if key not in self._calls:
            self._calls[key] = _Calls(0, self._histogram(account, channel))
        return self._calls[key]

    def _histogram(self, account: str, channel: str) -> Histogram:
        return self._figures.latency.setdefault((account, channel), Histogram())

    def ended(self, account: str, ended: Ended) -> None:
        """Deliveries have come into a final state, and the store has it for good. Written down at once."""
        if ended:
            self.count(account, ended)
            self.write()

    def count(self, account: str, ended: Ended) -> None:
        """The same, of several accounts; ``write`` comes after the last."""
        with self._lock:
            self._figures.count(account, ended)

    def write_if_due(self, last: bool) -> None:
        """Now and then: requests may be many before one delivery ends. ``last``: nothing more comes for a while."""
        requests, at = self._written
        if (last or time.monotonic() - at >= _EVERY) and self._total() != requests:
            self.write()

    def _total(self) -> int:
        return sum(calls.count for calls in self._calls.copy().values())

    def write(self) -> None:
        with self._lock:
            if self._fd < 0:
                return
            self._written = self._total(), time.monotonic()
            self._figures.requests.clear()
            for (account, channel, result), calls in self._calls.copy().items():
                self._figures.requests[account, channel, str(result)] += calls.count
            try:
                self._put(self._number + 1, self._figures.as_json())
                self._number += 1
            except OSError as e:  # the place that was written last is whole: it is not touched before this one is
                if not self._complained:
                    log.warning("figures: %s; what this process counts is not kept until that is mended", e.strerror)
                self._complained = True

    def _put(self, number: int, data: bytes) -> None:
        if len(data) > _PLACE - _HEAD.size:
            raise OSError(0, "they have become too many")
        record = _HEAD.pack(_MAGIC, number, len(data), zlib.crc32(data, number & 0xFFFFFFFF)) + data
        if os.pwrite(self._fd, record, number % 2 * _PLACE) != len(record):
            raise OSError(0, "the disk is full")

    def close(self) -> None:
        """The last writing; whoever comes into this place next goes on from it."""
        self.write()
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def _take(folder: Path, name: str) -> int:
    """The place's file, or another one while somebody whom we replace still has it. Raises OSError."""
    turn = 0
    while True:
        fd = os.open(folder / (f"{name}.{turn}" if turn else name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            os.close(fd)
            turn += 1
        except BaseException:
            os.close(fd)
            raise
