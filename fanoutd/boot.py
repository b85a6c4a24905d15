"""This boot of the machine: its id, and the clock that runs from it whatever is done to the wall clock."""

from __future__ import annotations

import time
import zlib
from functools import cache
from pathlib import Path


@cache
def boot_id() -> str:
    """The kernel's id of this boot, 36 characters (proc(5), /proc/sys/kernel/random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def boot_tag() -> int:
    """The boot in 32 bits, to stand beside a time of its clock in the store."""
    return zlib.crc32(boot_id().encode())


def uptime_ms() -> int:
    """CLOCK_BOOTTIME in milliseconds: it goes on while the machine sleeps and is never set (clock_gettime(2))."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
