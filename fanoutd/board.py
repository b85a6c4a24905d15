"""The board: what each child says of itself, in shared memory, one fixed row a slot.

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
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Row:
    """``rate`` is deliveries a second, ``heartbeat`` CLOCK_BOOTTIME seconds, 0 for never."""

    campaign: str | None
    sent: int
    failed: int
    rate: float
    heartbeat: float


EMPTY = Row(None, 0, 0, 0.0, 0.0)


class Board:
    """Shared by all processes forked after it was made. Slots count from 0."""

    def __init__(self, slots: int) -> None:
        self._fd = os.memfd_create("fanoutd-board", os.MFD_CLOEXEC)
        os.ftruncate(self._fd, slots * _STRIDE)
        self._map = mmap.mmap(self._fd, slots * _STRIDE)

    def write(
        self, slot: int, *, campaign: str | None, sent: int, failed: int, rate: float, heartbeat: float
    ) -> None:
        """Replace the row. Only the slot's own child writes it, or the master while there is none."""
        row = _ROW.pack((campaign or "").encode("ascii"), sent, failed, rate, heartbeat)
        at = slot * _STRIDE
        self._map[at:at + _ROW.size + _CRC.size] = row + _CRC.pack(zlib.crc32(row))

    def read(self, slot: int) -> Row:
        """The row as it was last written, EMPTY if never or if its writer died half-way."""
        at = slot * _STRIDE
        for _ in range(_TRIES):
            data = self._map[at:at + _ROW.size + _CRC.size]
            row = data[:_ROW.size]
            if _CRC.unpack_from(data, _ROW.size)[0] == zlib.crc32(row):
                campaign, *figures = _ROW.unpack(row)
                return Row(campaign.rstrip(b"\0").decode("ascii") or None, *figures)
        return EMPTY

    def clear(self, slot: int) -> None:
        """As if nobody had ever written it."""
        self._map[slot * _STRIDE:(slot + 1) * _STRIDE] = bytes(_STRIDE)

    def close(self) -> None:
        self._map.close()
        os.close(self._fd)
