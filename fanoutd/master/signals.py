"""Signals, brought into the loop as a set by the wake-up descriptor.

The handlers do nothing: the interpreter's C handler writes the signal's number to the descriptor, and
what it means is decided in the loop (signal.set_wakeup_fd; PEP 475: a handler that returns does not
interrupt select).
"""

from __future__ import annotations

import signal
import socket
from collections import Counter
from collections.abc import Iterable

STOP = frozenset({signal.SIGTERM})
QUIT = frozenset({signal.SIGINT, signal.SIGQUIT})
ORDERS = frozenset({signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU})
#: What a child must not inherit a handler for, and what is blocked while it is forked.
MANAGED = STOP | QUIT | ORDERS | {signal.SIGCHLD}


class Signals:
    """Takes over the MANAGED signals of this process."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in MANAGED:
            signal.signal(number, _nothing)
        # Held back while this program was loaded, or while it replaced another: they come now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, MANAGED)

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._read.fileno()

    def descriptors(self) -> tuple[int, int]:
        """What a forked child closes."""
        return self._read.fileno(), self._write.fileno()

    def take(self) -> Counter[int]:
        """The signals that came since the last call, and how often: the kernel may have made one of several."""
        try:
            return Counter(number for number in self._read.recv(4096) if number in MANAGED)
        except BlockingIOError:
            return Counter()

    def put_back(self, numbers: Iterable[int]) -> None:
        """They came, and are to be taken again."""
        data = bytes(numbers)
        if data:
            self._write.send(data)

    def close(self) -> None:
        """From here on they do nothing: one that comes late must not change the exit status."""
        for number in MANAGED - {signal.SIGCHLD}:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        self._read.close()
        self._write.close()


def _nothing(_number: int, _frame: object) -> None:
    return
