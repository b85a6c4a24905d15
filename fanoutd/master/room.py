"""How many clients there may be, and who goes first when there are more."""

from __future__ import annotations

import resource
from dataclasses import dataclass

#: Descriptors kept from clients: a fixed part, and so many for each child.
_RESERVE, _RESERVE_EACH = 64, 8

#: An idle client costs a few KiB of memory.
_MOST = 10_000

#: Bytes that all clients together may have in buffers, as lines half written or answers unread.
MOST_HELD = 64 << 20


def most_clients(limit: int, slots: int) -> int:
    """How many clients a process may have that may open ``limit`` descriptors and has so many children.

    The rest is for what must not starve: the socketpair of a fork and the sockets of those who live,
    the files of the spool, a look into /proc, the log and the locks. Under a very low limit clients
    keep a quarter of it; however high it is they are 10,000 at most.
    """
    return min(_MOST, max(limit // 4, limit - _RESERVE - _RESERVE_EACH * slots))


def descriptor_limit() -> int:
    """The limit in force now (RLIMIT_NOFILE): whoever runs the daemon may change it at any time."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@dataclass(slots=True)
class Held:
    """Bytes in the buffers of all clients."""

    total: int = 0
