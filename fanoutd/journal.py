"""A worker's journal: what it is about to do, and what came of it, written as it happens.

One file a worker, locked with flock for the worker's life: a lock that can be taken says that
its worker is gone. Records are fixed in size and carry a checksum; they are written with
write(2) and not fsynced, so they outlive the process but not the machine. The boot id in the
header tells the two apart: after another boot silence proves nothing.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from fanoutd.outcome import Progress, State, answered, unanswered

_MAGIC = b"fanoutd journal 1\n"
_HEADER = 4096
_CHUNK = 1 << 20
_RECORD = struct.Struct("<cBxxIqqiq")  # kind, channel, position, shard, token, errcode, msgid
_CRC = struct.Struct("<I")
RECORD_SIZE = _RECORD.size + _CRC.size
_ZERO = bytes(RECORD_SIZE)

Attempt = tuple[int, int, int]
"""(shard, position, fencing token): one person in one lease."""


def boot_id() -> str:
    """The kernel's id of this boot (proc(5), /proc/sys/kernel/random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Journal:
    """The writing side. Three kinds of record: L a lease taken, S a request leaves, R its answer."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.path = folder / name
        hidden = folder / f".{name}"  # under its name only when locked: nobody may adopt it in between
        self._fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        os.pwrite(self._fd, _MAGIC + boot_id().encode(), 0)
        self._writing = threading.Lock()
        self._room = _HEADER
        self._at = _HEADER
        self.reserve(1)
        os.rename(hidden, self.path)

    @property
    def size(self) -> int:
        """Bytes in use."""
        return self._at

    def reserve(self, records: int) -> None:
        """Have room on disk for so many records more: a full disk is met here, before anything is sent.

        Raises OSError (ENOSPC) with nothing changed.
        """
        need = self._at + records * RECORD_SIZE
        if need > self._room:
            length = max(_CHUNK, need - self._room)
            os.posix_fallocate(self._fd, self._room, length)
            self._room += length

    def lease(self, shard: int, token: int) -> None:
        self._write(b"L", 0, 0, shard, token, 0, 0)

    def sending(self, attempt: Attempt, channel: int) -> None:
        """The first byte of the request's body is about to leave."""
        shard, position, token = attempt
        self._write(b"S", channel, position, shard, token, 0, 0)

    def answer(self, attempt: Attempt, channel: int, errcode: int, msgid: int | None) -> None:
        shard, position, token = attempt
        self._write(b"R", channel, position, shard, token, errcode, msgid or 0)

    def _write(self, *fields: bytes | int) -> None:
        record = _RECORD.pack(*fields)
        record += _CRC.pack(zlib.crc32(record))
        # The sending thread writes S and R, the recorder L: at one place they would overwrite each other.
        with self._writing:
            if os.pwrite(self._fd, record, self._at) != RECORD_SIZE:
                raise OSError(f"journal {self.name}: short write")
            self._at += RECORD_SIZE

    def discard(self) -> None:
        """Everything in it is in the store: remove the file, let the lock go."""
        os.unlink(self.path)
        os.close(self._fd)


@dataclass(slots=True)
class Testimony:
    """What a dead worker's journal says. ``reliable`` is False after another boot or damage."""

    reliable: bool = True
    leases: set[tuple[int, int]] = field(default_factory=set)
    calls: dict[Attempt, list[tuple[int, int | None, int | None]]] = field(default_factory=dict)
    """Per attempt the calls in order: (channel, errcode or None while unanswered, msgid)."""

    def judge(self, before: Progress, attempt: Attempt, channels: tuple[int, ...]) -> Progress:
        """What became of a person who was claimed under ``attempt`` and never recorded."""
        after = before
        for channel, errcode, msgid in self.calls.get(attempt, ()):
            if errcode is None:
                after = unanswered(after, channel)
            else:
                after, _ = answered(after, channel, errcode, msgid, channel == channels[-1])
        if after.state is not State.PENDING:
            return after
        shard, _, token = attempt
        if self.reliable and (shard, token) in self.leases:
            return after
        return replace(after, state=State.UNKNOWN)


class Orphan:
    """The reading side: a journal whose worker is gone, held under its lock."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self.path = path
        self.name = path.name

    def read(self) -> Testimony:
        """Everything in it, in order. Damage never makes an exception, only an unreliable witness."""
        data = _slurp(self._fd)
        said = Testimony()
        magic = data[: len(_MAGIC)]
        boot = data[len(_MAGIC) : len(_MAGIC) + 36].decode("ascii", "replace")
        if magic != _MAGIC or boot != boot_id():
            said.reliable = False
        for record in _records(data):
            if record is None:
                said.reliable = False
            else:
                _note(said, record)
        return said

    def discard(self) -> None:
        os.unlink(self.path)
        self.close()

    def close(self) -> None:
        os.close(self._fd)


def _slurp(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    return os.pread(fd, size, 0)


def _records(data: bytes) -> Iterator[tuple[bytes, int, int, int, int, int, int] | None]:
    """Whole records up to the preallocated emptiness; None for each that is damaged."""
    for at in range(_HEADER, len(data) - RECORD_SIZE + 1, RECORD_SIZE):
        raw = data[at : at + RECORD_SIZE]
        if raw == _ZERO:
            if data[at:].strip(b"\0"):
                yield None
            return
        if _CRC.unpack_from(raw, _RECORD.size)[0] != zlib.crc32(raw[: _RECORD.size]):
            yield None
            continue
        yield _RECORD.unpack_from(raw)


def _note(said: Testimony, record: tuple[bytes, int, int, int, int, int, int]) -> None:
    kind, channel, position, shard, token, errcode, msgid = record
    if kind == b"L":
        said.leases.add((shard, token))
        return
    calls = said.calls.setdefault((shard, position, token), [])
    if kind == b"S":
        calls.append((channel, None, None))
    elif kind == b"R":
        if calls and calls[-1][1] is None:
            calls.pop()
        calls.append((channel, errcode, msgid or None))


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
    if not os.path.exists(path):  # discarded by its worker between our open and our lock
        os.close(fd)
        return None
    return Orphan(fd, path)
