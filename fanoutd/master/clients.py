"""Clients of the socket: bytes in, lines out of them, answers back. What they mean is not known here."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import Any

from fanoutd.lines import encode
from fanoutd.master import rpc
from fanoutd.master.inbox import Inbox, Oversize
from fanoutd.master.interest import Interest
from fanoutd.master.listener import peer
from fanoutd.master.room import Held
from fanoutd.master.rpc import Elements
from fanoutd.master.takeover import Document, to_bytes, to_text

__all__ = ["BatchWork", "Client", "Oversize"]

#: Bytes read from one client a pass, and of answers that are written together.
_CHUNK = 1 << 16
#: A client that leaves so many bytes of answers unread is neither read from nor worked for.
_UNREAD = 1 << 18
#: Questions that one client may have open; the next ones wait in its own queue.
_OPEN_ASKS = 16
#: Seconds without a byte after which half a line, or answers that nobody reads, keep no place.
_STALLED = 5.0


class Client:
    """One connection. ``lines`` waits to be worked off; ``cost`` is the seconds it took since it had none.

    ``stirred`` is when the last byte came or went (CLOCK_MONOTONIC).
    """

    def __init__(
        self, sock: socket.socket, max_request: int, selector: BaseSelector, held: Held,
        stirs: Callable[[Client, int], None], ends: Callable[[Client], None],
    ) -> None:
        """``stirs`` is called with what the selector says, ``ends`` once it is closed.

        Raises OSError when the peer or the kernel's room for it cannot be had.
        """
        self._sock = sock
        self.pid, self.uid = peer(sock)
        self.lines = Inbox(max_request)
        self.batch: BatchWork | None = None
        self.asks = 0
        self.watches = 0
        self.cost = 0.0
        self.stirred = time.monotonic()
        self.closed = False
        self._out = bytearray()
        self._later = bytearray()
        self._array_open = False
        self._ended = False
        self._gone = False
        self._lingers = False
        self._paused = False
        self._held = held
        self._counted = 0
        self._ends = ends
        self._interest = Interest(selector, sock, partial(stirs, self))
        self._interest.want(EVENT_READ)

    def fileno(self) -> int:
        return self._sock.fileno()

    def ready(self, events: int) -> None:
        """The loop says that it can be read from or written to."""
        if self.closed:
            return
        if events & EVENT_READ and self._wants_reading():
            self._read()
        self.settle()

    @property
    def busy(self) -> bool:
        """Something is asked and not begun yet."""
        return bool(self.lines or self.batch)

    @property
    def workable(self) -> bool:
        """Something is asked, and there is room for its answer. A batch is answered before what follows it."""
        next_is_there = self.batch or (self.lines and not self._array_open)
        return bool(next_is_there) and len(self._out) < _UNREAD and self.asks < _OPEN_ASKS

    @property
    def gone(self) -> bool:
        """It has hung up for good: nobody reads what is said now."""
        return self._gone

    @property
    def held(self) -> int:
        """Bytes in its buffers."""
        batch = self.batch.held if self.batch else 0
        return self.lines.held + batch + len(self._out) + len(self._later)

    def idle(self) -> bool:
        """Nothing is outstanding, not even a byte that has come and was not read yet."""
        if self.busy or self.lines.half or self._owed():
            return False
        return not self._unheard()

    def stalled(self, now: float) -> bool:
        """It has left a line half written, or answers unread, and that for a while."""
        unread = bool(self._out) or self.busy  # what is asked waits for room, or it would have been begun
        return now - self.stirred > _STALLED and not self.asks and (unread or self.lines.half)

    def say(self, value: Any) -> None:
        """Queue one value as a line for it; ``settle`` writes what goes."""
        self.say_line(encode(value))

    def say_some(self, value: Any) -> None:
        """The same, where None is nothing to say."""
        if value is not None:
            self.say(value)

    def say_line(self, line: bytes) -> None:
        """The same for a line that is made already. One in the midst of a batch's answer comes after it."""
        if self._array_open:
            self._later += line
        else:
            self.say_part(line)

    def say_part(self, part: bytes) -> None:
        """Queue some bytes of a line."""
        if not (self._gone or self.closed):
            self._out += part
            if len(self._out) >= _CHUNK:
                self._flush()

    def open_array(self) -> None:
        """What is said from now on, but in parts, waits until the array is closed."""
        self._array_open = True

    def close_array(self) -> None:
        """Say what has waited for this."""
        self._array_open = False
        later, self._later = bytes(self._later), bytearray()
        self.say_part(later)

    def tell(self, campaign: dict[str, Any]) -> bool:
        """A notification, unless it is behind with its reading, or in the midst of a batch's answer."""
        if self._array_open or len(self._out) >= _UNREAD:
            return False
        self.say(rpc.notification("campaign.progress", campaign))
        self.settle()
        return True

    def seen_enough(self) -> None:
        """One of its watches has ended."""
        self.watches -= 1
        self.settle()

    def settle(self) -> None:
        """Write what goes, wait for what is needed next, or close when nothing is: called after every change."""
        if self.closed:
            return
        self._flush()
        if self._ended and not self.busy and (self._gone or not self._owed()):
            self.close()
            return
        read = EVENT_READ if self._wants_reading() else 0
        self._interest.want(read | (EVENT_WRITE if self._out else 0))
        self._count(self.held)

    def dismiss(self) -> None:
        """Read no more from it, and close after a while: at once might cost it what it was just told."""
        self._ended = self._lingers = True
        self._flush()
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
        """For the program that takes over."""
        return {
            "fd": self.fileno(), "lines": self.lines.bequeath(), "unsent": to_text(self._out),
            "ended": self._ended, "gone": self._gone, "lingers": self._lingers,
        }

    def inherit(self, left: Document) -> None:
        """Go on where the program before us left off."""
        self.lines.inherit(left["lines"])
        self._out += to_bytes(left["unsent"])
        self._ended, self._gone, self._lingers = left["ended"], left["gone"], left["lingers"]
        self.settle()

    def close(self) -> None:
        """What it was told last still goes, as far as it takes it at once."""
        if not self.closed:
            self._flush()
            self.closed = True
            self.lines.clear()
            self.batch = None
            self._interest.want(0)
            self._sock.close()
            self._count(0)
            self._ends(self)

    def _count(self, held: int) -> None:
        self._held.total += held - self._counted
        self._counted = held

    def _owed(self) -> bool:
        return bool(self._out or self._later or self.asks or self.watches)

    def _wants_reading(self) -> bool:
        return not (self._paused or self._ended or self.busy) and len(self._out) < _UNREAD

    def _unheard(self) -> bool:
        """Whether bytes of its wait in the kernel."""
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _read(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
            self._gone = True
        self.stirred = time.monotonic()
        if not data:
            self._ended = True
            self._gone = self._gone or _hung_up(self._sock)
        # End of file also ends a line: the simplest client writes an object and hangs up.
        self.lines.feed(data or b"\n")

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[:self._sock.send(self._out)]
                self.stirred = time.monotonic()
        except BlockingIOError:
            pass
        except OSError:  # EPIPE, ECONNRESET
            self._gone = self._ended = True
            self._out.clear()
            self._later.clear()


class BatchWork:
    """A batch that is worked off in pieces. Its answers go out as they are made, in one line.

    Gathered until the last one is there they could be any number of bytes.
    """

    def __init__(self, client: Client, values: Elements) -> None:
        self._client = client
        self._values = values
        self._open = 0
        self._begun = False
        client.open_array()

    @property
    def exhausted(self) -> bool:
        """Every request has been begun."""
        return self._values.exhausted

    @property
    def held(self) -> int:
        """Bytes kept for it."""
        return self._values.held

    def next(self) -> Any:
        """The next value to work on; ``add`` must follow, now or later, once for each."""
        self._open += 1
        return self._values.next()

    def add(self, answer: dict[str, Any] | None) -> None:
        """One is done; None for a notification."""
        self._open -= 1
        if answer is not None and not self._client.gone:
            self._client.say_part((b"," if self._begun else b"[") + encode(answer).rstrip())
            self._begun = True
        if self._values.exhausted and not self._open:
            if self._begun:
                self._client.say_part(b"]\n")
            self._client.close_array()


def _hung_up(sock: socket.socket) -> bool:
    """Whether the peer has closed both directions (poll(2), POLLHUP): end of file alone may be one."""
    poll = select.poll()
    poll.register(sock, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
