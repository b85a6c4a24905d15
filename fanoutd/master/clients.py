"""Clients of the socket: bytes in, lines out of them, answers back. What they mean is not known here."""

from __future__ import annotations

import select
import socket
from collections import deque
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import Any

from fanoutd.lines import LineBuffer, encode
from fanoutd.master import rpc
from fanoutd.master.interest import Interest, Ready
from fanoutd.master.listener import peer
from fanoutd.master.takeover import Document, to_bytes, to_text

#: Bytes read from one client a pass.
_CHUNK = 1 << 16
#: A client that leaves so many bytes of answers unread is neither read from nor worked for.
_UNREAD = 1 << 18
#: Questions that one client may have open; the next ones wait in its own queue.
_OPEN_ASKS = 16
#: Bytes of answers that a batch may gather before the rest of it is turned away.
_BATCH_ANSWERS = 16 << 20


class Client:
    """One connection. ``lines`` waits to be worked off; ``cost`` is the seconds it took since it had none."""

    def __init__(self, sock: socket.socket, max_request: int, selector: BaseSelector, ready: Ready) -> None:
        """Raises OSError when the peer or the kernel's room for it cannot be had."""
        self._sock = sock
        self.pid, self.uid = peer(sock)
        self.lines: deque[bytes | Oversize] = deque()
        self.batch: BatchWork | None = None
        self.asks = 0
        self.watches = 0
        self.cost = 0.0
        self.closed = False
        self._max_request = max_request
        self._in = LineBuffer()
        self._out = bytearray()
        self._skipping = False
        self._ended = False
        self._gone = False
        self._lingers = False
        self._paused = False
        self._interest = Interest(selector, sock, ready)
        self._interest.want(EVENT_READ)

    def fileno(self) -> int:
        return self._sock.fileno()

    def ready(self, events: int) -> None:
        """The loop says that it can be read from or written to."""
        if self.closed:
            return
        if events & EVENT_WRITE:
            self._flush()
        if events & EVENT_READ and self._wants_reading():
            self._read()
        self.settle()

    @property
    def workable(self) -> bool:
        """Something is asked, and there is room for its answer."""
        return bool(self.lines or self.batch) and len(self._out) < _UNREAD and self.asks < _OPEN_ASKS

    @property
    def gone(self) -> bool:
        """It has hung up for good: nobody reads what is said now."""
        return self._gone

    def say(self, value: Any) -> None:
        """Queue one value as a line for it and write what goes."""
        self.say_line(encode(value))

    def say_some(self, value: Any) -> None:
        """The same, where None is nothing to say."""
        if value is not None:
            self.say(value)

    def say_line(self, line: bytes) -> None:
        """The same for a line that is made already."""
        if not (self._gone or self.closed):
            self._out += line
            self._flush()

    def tell(self, campaign: dict[str, Any]) -> bool:
        """A notification, unless it is behind with its reading."""
        if len(self._out) >= _UNREAD:
            return False
        self.say(rpc.notification("campaign.progress", campaign))
        return True

    def seen_enough(self) -> None:
        """One of its watches has ended."""
        self.watches -= 1
        self.settle()

    def settle(self) -> None:
        """Wait for what is needed next, or close when nothing is: called after every change."""
        if self.closed:
            return
        if self._ended and not (self.lines or self.batch) and (self._gone or not self._owed()):
            self.close()
            return
        read = EVENT_READ if self._wants_reading() else 0
        self._interest.want(read | (EVENT_WRITE if self._out else 0))

    def dismiss(self) -> None:
        """Read no more from it, and close after a while: at once might cost it what it was just told."""
        self._ended = self._lingers = True
        self._interest.want(0)

    def look_for_hangup(self) -> None:
        """Once in a while: one that closed only its own side may hang up for good, and no read tells it."""
        if self._lingers:
            self._lingers = False
        elif self._ended and not self.closed:
            self._gone = self._gone or _hung_up(self._sock)
            self.settle()

    def pause(self, on: bool) -> None:
        """Read nothing more, or read again: what it writes meanwhile waits in the kernel."""
        self._paused = on
        self.settle()

    @property
    def settled(self) -> bool:
        """It has been answered all that was read from it, as far as it takes answers."""
        return self.closed or not (self.asks or self.batch or self.workable)

    def bequeath(self) -> Document:
        """For the program that takes over. A line that was too long is an empty one."""
        lines = [to_text(line) if isinstance(line, bytes) else "" for line in self.lines]
        return {
            "fd": self.fileno(), "lines": lines, "half_read": to_text(self._in.peek()), "unsent": to_text(self._out),
            "skipping": self._skipping, "ended": self._ended, "gone": self._gone, "lingers": self._lingers,
        }

    def inherit(self, document: Document) -> None:
        """Go on where the program before us left off."""
        self.lines.extend(to_bytes(line) if line else Oversize() for line in document["lines"])
        self._in.feed(to_bytes(document["half_read"]))
        self._out += to_bytes(document["unsent"])
        self._skipping, self._ended = document["skipping"], document["ended"]
        self._gone, self._lingers = document["gone"], document["lingers"]
        self.settle()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.lines.clear()
            self.batch = None
            self._interest.want(0)
            self._sock.close()

    def _owed(self) -> bool:
        return bool(self._out or self.asks or self.watches)

    def _wants_reading(self) -> bool:
        return not (self._paused or self._ended or self.lines or self.batch) and len(self._out) < _UNREAD

    def _read(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
            self._gone = True
        if data:
            self._take(data)
        else:
            self._end()

    def _take(self, data: bytes) -> None:
        if self._skipping:
            _, newline, data = data.partition(b"\n")
            self._skipping = not newline
        self._keep(self._in.feed(data))
        if len(self._in) > self._max_request:  # told at once: it may be writing for hours
            self._in.rest()
            self._skipping = True
            self.lines.append(Oversize())

    def _end(self) -> None:
        """End of file also ends a line: the simplest client writes an object and hangs up."""
        self._ended = True
        self._gone = self._gone or _hung_up(self._sock)
        self._keep([self._in.rest()])

    def _keep(self, lines: list[bytes]) -> None:
        for line in lines:
            if line and not line.isspace():
                self.lines.append(line if len(line) <= self._max_request else Oversize())

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[:self._sock.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:  # EPIPE, ECONNRESET
            self._gone = self._ended = True
            self._out.clear()


class Oversize:
    """Stands for a line that was too long to be kept."""


class BatchWork:
    """A batch that is worked off in pieces; its answers go out together when the last one is there."""

    def __init__(self, client: Client, values: list[Any]) -> None:
        self._client = client
        self._values = deque(values)
        self._answers: list[bytes] = []
        self._bytes = 0
        self._open = 0

    @property
    def exhausted(self) -> bool:
        """Every request has been begun."""
        return not self._values

    @property
    def full(self) -> bool:
        """No more answers are gathered."""
        return self._bytes > _BATCH_ANSWERS

    def next(self) -> Any:
        """The next value to work on; ``add`` must follow, now or later, once for each."""
        self._open += 1
        return self._values.popleft()

    def add(self, answer: dict[str, Any] | None) -> None:
        """One is done; None for a notification."""
        self._open -= 1
        if answer is not None:
            self._answers.append(encode(answer).rstrip())
            self._bytes += len(self._answers[-1])
        if not (self._values or self._open) and self._answers:
            self._client.say_line(b"[" + b",".join(self._answers) + b"]\n")


def _hung_up(sock: socket.socket) -> bool:
    """Whether the peer has closed both directions (poll(2), POLLHUP): end of file alone may be one."""
    poll = select.poll()
    poll.register(sock, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
