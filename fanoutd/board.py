"""The board: what each child says of itself, in shared memory, one fixed row a child.

A child writes its row without a system call; the master reads at no cost to it. The memory is a
memfd, so that it can outlive an exec of the master. A row carries a checksum: the reader sees all
of a row or, after a few tries, an empty one, never half of each.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from dataclasses import dataclass

_ROW = struct.Struct("<40sqqdd")  # campaign, sent, failed, rate, heartbeat
_CRC = struct.Struct("<I")
_STRIDE = 128
#: Behind the row, where an earlier version leaves zeros: pid, and CLOCK_MONOTONIC of the oldest outcome in hand.
_LATE, _LATE_AT = struct.Struct("<qd"), 80
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Row:
    """``rate`` is deliveries a second, ``heartbeat`` CLOCK_MONOTONIC seconds, 0 for never."""

    campaign: str | None
    sent: int
    failed: int
    rate: float
    heartbeat: float


EMPTY = Row(None, 0, 0, 0.0, 0.0)


class Board:
    """Shared by all processes forked after it was made. Rows count from 0."""

    def __init__(self, rows: int, fd: int | None = None) -> None:
        """``fd``: the memory of a board that is there already, of as many rows."""
        self._fd = os.memfd_create("fanoutd-board", os.MFD_CLOEXEC) if fd is None else fd
        os.ftruncate(self._fd, rows * _STRIDE)
        self._map = mmap.mmap(self._fd, rows * _STRIDE)

    def fileno(self) -> int:
        """The memory's descriptor: it can outlive an exec."""
        return self._fd

    def write(
        self, row: int, *, campaign: str | None, sent: int, failed: int, rate: float, heartbeat: float
    ) -> None:
        """Replace the row. Only its own child writes it."""
        data = _ROW.pack((campaign or "").encode("ascii"), sent, failed, rate, heartbeat)
        at = row * _STRIDE
        self._map[at:at + _ROW.size + _CRC.size] = data + _CRC.pack(zlib.crc32(data))

    def read(self, row: int) -> Row:
        """The row as it was last written, EMPTY if never or if its writer died half-way, or for row -1."""
        if row < 0:
            return EMPTY
        at = row * _STRIDE
        for _ in range(_TRIES):
            data = self._map[at:at + _ROW.size + _CRC.size]
            said = data[:_ROW.size]
            if _CRC.unpack_from(data, _ROW.size)[0] == zlib.crc32(said):
                campaign, *figures = _ROW.unpack(said)
                return Row(campaign.rstrip(b"\0").decode("ascii") or None, *figures)
        return EMPTY

    def unrecorded(self, row: int, since: float) -> None:
        """The child has outcomes that the store does not have yet, the oldest since then; 0: none. The thread that
        brings them there says so, whether the child is busy or idle by then."""
        data = _LATE.pack(os.getpid(), since)
        at = row * _STRIDE + _LATE_AT
        self._map[at:at + _LATE.size + _CRC.size] = data + _CRC.pack(zlib.crc32(data))

    def late(self) -> dict[int, float]:
        """By pid of whoever said so, since when there are outcomes that the store does not have yet. Some may be of
        processes that are dead."""
        found = {}
        for at in range(_LATE_AT, len(self._map), _STRIDE):
            data = self._map[at:at + _LATE.size + _CRC.size]
            pid, since = _LATE.unpack_from(data)
            if since and _CRC.unpack_from(data, _LATE.size)[0] == zlib.crc32(data[:_LATE.size]):
                found[pid] = since
        return found

    def clear(self, row: int) -> None:
        """As if nobody had ever written it."""
        self._map[row * _STRIDE:(row + 1) * _STRIDE] = bytes(_STRIDE)

    def close(self) -> None:
        self._map.close()
        os.close(self._fd)
