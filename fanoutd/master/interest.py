"""What the loop waits for on one socket."""

from __future__ import annotations

from collections.abc import Callable
from selectors import BaseSelector
from socket import socket

#: Called with the ready events (selectors.EVENT_READ, EVENT_WRITE).
Ready = Callable[[int], None]


class Interest:
    """A socket's place in the selector. With no events wanted it has none: a hang-up, which epoll
    always reports, would keep the loop spinning."""

    def __init__(self, selector: BaseSelector, sock: socket, ready: Ready) -> None:
        self._selector = selector
        self._sock = sock
        self._ready = ready
        self._events = 0

    def want(self, events: int) -> None:
        """From now on wait for these events. Raises OSError when the kernel has no room for it."""
        if events == self._events:
            return
        if not events:
            self._selector.unregister(self._sock)
        elif not self._events:
            self._selector.register(self._sock, events, self._ready)
        else:
            self._selector.modify(self._sock, events, self._ready)
        self._events = events
