"""A worker's journal: what it is about to do, and what came of it, written as it happens.

One file a worker, locked with flock for the worker's life: a lock that can be taken says that
its worker is gone. Records are fixed in size and carry a checksum; they are written with
write(2) and not fsynced, so they outlive the process but not the machine. The boot id in the
header tells the two apart: after another boot silence proves nothing.

What it says is read in ``testimony``. When all of it is in the store it is kept for a while among
others like it, for whoever asks, and for the day on which the store comes back from a backup.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
import zlib
from pathlib import Path

from fanoutd.boot import boot_id, uptime_ms
from fanoutd.times import wall_ms

MAGIC = "fanoutd journal 2"
HEADER_SIZE = 4096
#: Space is taken from the disk in pieces of this size, so that a file that was cut off shows it.
CHUNK = 1 << 20
#: kind, channel, position, shard, token, errcode, value, who
RECORD = struct.Struct("<cBHIIiqI")
CRC = struct.Struct("<I")
#: It divides a page, and so no record lies in two: a kill inside write(2) cuts between pages.
RECORD_SIZE = RECORD.size + CRC.size

#: The folder, beside the journals in use, of those that are in the store.
KEPT = "kept"

#: A journal is made in a moment: one that has no name after so many seconds has no worker.
_UNFINISHED = 600.0

Attempt = tuple[int, int, int]
"""(shard, position, fencing token): one person in one lease."""


def tag(text: str) -> int:
    """A campaign's id or an openid in 32 bits: enough to tell that a place is somebody else's now."""
    return zlib.crc32(text.encode())


def checksum(record: bytes, header: int, at: int) -> int:
    """Of a record at its place in its own file: what was moved or copied from another file does not have it."""
    return zlib.crc32(record, header ^ at)


class Journal:
    """The writing side. Kinds of record: L a lease asked for, G one that the store has granted, S a request leaves,
    R its answer.

    The value of S is CLOCK_BOOTTIME in milliseconds, that of R WeChat's message id; ``who`` is the ``tag`` of
    the openid, or of the campaign for L and G. E closes a journal of which everything is in the store.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.path = folder / name
        hidden = folder / f".{name}"  # under its name only when locked: nobody may adopt it in between
        self._fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            header = f"{MAGIC}\n{boot_id()}\n{wall_ms() - uptime_ms()}\n".encode()
            os.pwrite(self._fd, header, 0)
            self._header = zlib.crc32(header)
            self._writing = threading.Lock()
            self._room = self._at = HEADER_SIZE
            self.reserve(1)
            os.rename(hidden, self.path)
        except BaseException:
            os.unlink(hidden)
            os.close(self._fd)
            raise

    @property
    def size(self) -> int:
        """Bytes in use."""
        return self._at

    def reserve(self, records: int) -> None:
        """Have room on disk for so many records more: a full disk is met here, before anything is sent.

        Raises OSError (ENOSPC) with nothing changed.
        """
        need = self._at + (records + 2) * RECORD_SIZE  # one for E; one stays empty, or the file was cut off
        if need > self._room:
            length = -(-(need - self._room) // CHUNK) * CHUNK
            os.posix_fallocate(self._fd, self._room, length)
            self._room += length

    def lease(self, shard: int, token: int, campaign: str) -> None:
        """Before the store has it: who dies in between must be able to say that nobody was sent to."""
        self._write(b"L", 0, 0, shard, token, 0, 0, tag(campaign))

    def granted(self, shard: int, token: int, campaign: str) -> None:
        """After the store has it: a transaction that was undone leaves its token to somebody else's lease."""
        self._write(b"G", 0, 0, shard, token, 0, 0, tag(campaign))

    def sending(self, attempt: Attempt, channel: int, who: int) -> None:
        """The first byte of the request's body is about to leave."""
        shard, position, token = attempt
        self._write(b"S", channel, position, shard, token, 0, uptime_ms(), who)

    def answer(self, attempt: Attempt, channel: int, who: int, errcode: int, msgid: int | None) -> None:
        shard, position, token = attempt
        self._write(b"R", channel, position, shard, token, errcode, msgid or 0, who)

    def _write(self, *fields: bytes | int) -> None:
        record = RECORD.pack(*fields)
        # The sending thread writes S and R, the recorder L: at one place they would overwrite each other.
        with self._writing:
            record += CRC.pack(checksum(record, self._header, self._at))
            if os.pwrite(self._fd, record, self._at) != RECORD_SIZE:
                raise OSError(f"journal {self.name}: short write")
            self._at += RECORD_SIZE

    def keep(self) -> None:
        """Everything in it is in the store: put it aside, let the lock go."""
        if self._at == HEADER_SIZE:
            os.unlink(self.path)
        else:
            self._write(b"E", 0, 0, 0, 0, 0, 0, 0)
            os.ftruncate(self._fd, self._at)
            _put_aside(self.path)
        os.close(self._fd)


class Orphan:
    """A journal whose worker is gone, held under its lock."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self.path = path
        self.name = path.name

    def data(self) -> bytes:
        """All of it."""
        return os.pread(self._fd, os.fstat(self._fd).st_size, 0)

    def keep(self) -> None:
        """Everything in it is in the store."""
        os.utime(self._fd)  # its age counts from here
        _put_aside(self.path)
        self.close()

    def close(self) -> None:
        """Let go of the lock: whoever comes next may take it. May be repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def worker_of(name: str) -> str:
    """The worker's name, of the name of one of its journals, which end with a number."""
    return name.rpartition("-")[0]


def _put_aside(path: Path) -> None:
    folder = path.parent / KEPT
    folder.mkdir(mode=0o700, exist_ok=True)
    os.rename(path, folder / path.name)


def adopt(path: Path) -> Orphan | None:
    """Take the lock of a journal whose worker is gone; None while the worker lives."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    if not os.path.exists(path):  # put aside by its worker between our open and our lock
        os.close(fd)
        return None
    return Orphan(fd, path)


def in_use(folder: Path) -> list[Path]:
    """Journals that are not all in the store, as far as anybody has looked: of living workers and of dead ones."""
    return sorted(path for path in folder.glob("[!.]*") if path.name != KEPT)


def discredit(folder: Path) -> None:
    """Take from journals in use the room behind their last record: what they tell is true, silence proves nothing.

    For copies of files that their workers may have gone on with.
    """
    for path in in_use(folder):
        with path.open("r+b") as journal:
            end = len(journal.read().rstrip(b"\0"))
            journal.truncate(HEADER_SIZE + -(-max(0, end - HEADER_SIZE) // RECORD_SIZE) * RECORD_SIZE)


def kept(folder: Path, since: float = 0.0) -> list[Path]:
    """Journals of which everything is in the store, oldest first; those put aside since then (seconds since 1970)."""
    found = sorted((put_aside, path) for path in (folder / KEPT).glob("*") if (put_aside := _time_of(path)) >= since)
    return [path for _, path in found]


def _time_of(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # it has just expired
        return -1.0


def expire(folder: Path, age: float) -> None:
    """Remove those that were put aside more than ``age`` seconds ago, and what dead workers had just begun to make."""
    now = time.time()
    for path in (folder / KEPT).glob("*"):
        if now - _time_of(path) > age:
            path.unlink(missing_ok=True)
    for path in folder.glob(".*"):
        if now - _time_of(path) > _UNFINISHED:
            path.unlink(missing_ok=True)
