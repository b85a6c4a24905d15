"""One clock for all nodes of a shared store: the database's.

Machines' clocks differ, and some are wrong by hours. Times that several nodes compare (when a token ends, when a
campaign is due, what day it is) would mean another thing on each.
"""

from __future__ import annotations

import logging

from fanoutd import times
from fanoutd.boot import uptime_ms
from fanoutd.store.database import Database

log = logging.getLogger(__name__)

#: How long one reading is good for, in milliseconds: two clocks drift by far less than a second in it.
_EVERY = 30_000

#: A difference that people are told of, in milliseconds.
_WORTH_A_WORD = 5_000

_read_at: int | None = None
_told: int = 0


def keep_up(db: Database) -> None:
    """Have ``times.wall_ms`` of this process show the database's clock, if the store is shared; costs one SELECT now
    and then. Raises StoreAway."""
    global _read_at, _told
    if not db.shared or (_read_at is not None and uptime_ms() - _read_at < _EVERY):
        return
    before = uptime_ms()
    shown = db.now_ms()
    _read_at = uptime_ms()
    times.follow(shown - (before + _read_at) // 2)
    ahead = times.local_ms() - times.wall_ms()
    if abs(ahead - _told) >= _WORTH_A_WORD:
        words = "as it does" if abs(ahead) < _WORTH_A_WORD else f"{abs(ahead) / 1000:.0f} s {_side(ahead)} it"
        log.warning("the store's clock counts for all nodes; this machine's shows the time %s", words)
        _told = ahead


def _side(ahead: int) -> str:
    return "ahead of" if ahead > 0 else "behind"
