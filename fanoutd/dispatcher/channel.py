"""The dispatcher's end of its socket to the master."""

from __future__ import annotations

import select
import socket
import threading
from typing import Any

from fanoutd.lines import LineBuffer, encode


class Channel:
    """``say`` is for every thread, ``hear`` for one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._saying = threading.Lock()
        self._lines = LineBuffer()

    def say(self, message: dict[str, Any]) -> None:
        """Send it whole. When the master is gone nothing happens: ``hear`` sees the end of file."""
        with self._saying:
            try:
                self._sock.sendall(encode(message))
            except OSError:
                pass

    def wait(self, patience: float | None) -> bool:
        """Whether there is something to hear, now or within so many seconds; None: however long it takes."""
        readable, _, _ = select.select([self._sock], [], [], patience)
        return bool(readable)

    def hear(self) -> list[dict[str, Any]] | None:
        """The messages that are complete now, perhaps none; None: the master is gone."""
        try:
            data = self._sock.recv(1 << 16)
        except ConnectionResetError:
            return None
        return self._lines.messages(data) if data else None
