"""The master's end of the socketpair to one child. Nothing here ever waits."""

from __future__ import annotations

import socket
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import Any

from fanoutd.lines import LineBuffer, encode
from fanoutd.master.interest import Interest, Ready
from fanoutd.master.takeover import Document, to_text

_CHUNK = 1 << 16
_CHUNKS = 16  # a pass: what a chatty child says must not starve the others
_OUT_LIMIT = 4 << 20


class Channel:
    """JSON objects to and from a child, with what it does not take yet kept until it does."""

    def __init__(
        self, sock: socket.socket, selector: BaseSelector, ready: Ready, half_read: bytes = b"", unsent: bytes = b""
    ) -> None:
        """``half_read`` and ``unsent``: from our predecessor at the same socket."""
        self._sock = sock
        self._in = LineBuffer()
        self._in.feed(half_read)
        self._out = bytearray(unsent)
        self._interest = Interest(selector, sock, ready)
        self.ended = False
        self._arm()

    def fileno(self) -> int:
        return self._sock.fileno()

    def bequeath(self) -> Document:
        """For the program that takes over."""
        return {"fd": self._sock.fileno(), "half_read": to_text(self._in.peek()), "unsent": to_text(self._out)}

    def send(self, message: dict[str, Any]) -> bool:
        """Queue and write what goes; False when it is gone, or so far behind that nothing more is kept."""
        if self.ended or len(self._out) > _OUT_LIMIT:
            return False
        self._out += encode(message)
        self.flush()
        return True

    def pass_on(self, message: dict[str, Any], sock: socket.socket) -> bool:
        """Send the message with the socket beside it (unix(7), SCM_RIGHTS); False when it does not go now."""
        if self.ended or self._out:
            return False
        try:
            socket.send_fds(self._sock, [encode(message)], [sock.fileno()])
        except OSError:  # full, or gone: the end of file says so
            return False
        return True

    def finish(self) -> None:
        """Say nothing more: the child reads what was sent, and then end of file."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone

    def flush(self) -> None:
        """Write what the child takes without waiting."""
        try:
            while self._out and not self.ended:
                del self._out[:self._sock.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:  # EPIPE: it is dying; what it still said is read before it is reaped
            self._out.clear()
        self._arm()

    def receive(self, chunks: int = _CHUNKS) -> list[dict[str, Any]]:
        """The messages that have come, out of at most so many chunks. Raises ValueError for no JSON."""
        messages: list[dict[str, Any]] = []
        for _ in range(chunks):
            data = self._chunk()
            if not data:
                break
            messages += self._in.messages(data)
        return messages

    def receive_all(self) -> list[dict[str, Any]]:
        """What a dead child has left; the kernel holds no more than a few chunks of it."""
        return self.receive(1 << 10)

    def _chunk(self) -> bytes:
        """What is there to read; nothing when there is nothing now, or will never be again."""
        if self.ended:
            return b""
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return b""
        except ConnectionResetError:  # it died with messages unread; Linux tells so after the last data
            data = b""
        if not data:
            self.ended = True
            self._arm()
        return data

    def _arm(self) -> None:
        self._interest.want(0 if self.ended else EVENT_READ | (EVENT_WRITE if self._out else 0))

    def close(self) -> None:
        self._interest.want(0)
        self._sock.close()
