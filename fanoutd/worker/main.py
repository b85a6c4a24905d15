"""A worker's loop, and what the master says to it.

One thread runs this loop on one epoll: the master's socket, the recorder's eventfd and libcurl's
connections. An idle worker has neither store nor connections and sleeps until the master wakes it.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket

from fanoutd.child import READY, Child
from fanoutd.config import hooks
from fanoutd.figures_file import Meter, folder_of
from fanoutd.lines import LineBuffer, encode
from fanoutd.log import follow as follow_log
from fanoutd.process import die_with_parent
from fanoutd.store import history
from fanoutd.worker.display import Display
from fanoutd.worker.fatigue import Fatigue
from fanoutd.worker.recorder import Recorder
from fanoutd.worker.shift import Shift

log = logging.getLogger("fanoutd.worker")

#: Bytes read from the master at once.
_READ = 1 << 16


def run(child: Child) -> int:
    """Work until the master says stop or is gone; the exit code.

    Before it is first told anything a worker is a blocked read and no more: every page that it does not
    touch stays the mold's. Until then SIGTERM ends it at once, later when its work in hand is done.
    """
    try:
        child.sock.sendall(READY)
        first = child.sock.recv(_READ)
    except (BrokenPipeError, ConnectionResetError):  # the master is gone
        first = b""
    return Worker(child).run(first) if first else 0


class Worker:
    def __init__(self, child: Child) -> None:
        self._child = child
        self._epoll = select.epoll()
        self._sock = child.sock
        self._lines = LineBuffer()
        self._epoll.register(self._sock.fileno(), select.EPOLLIN)
        die_with_parent(signal.SIGTERM)
        self._term = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._term, select.EPOLLIN)
        signal.signal(signal.SIGTERM, lambda *_: os.eventfd_write(self._term, 1))
        self._recorder: Recorder | None = None
        self._meter: Meter | None = None
        self._shift: Shift | None = None
        self._halted: set[str] = set()  # campaigns of which nothing may be started
        self._stopping = self._quit = False
        self._display = Display(child)
        self._fatigue = Fatigue(child.config.workers)

    def run(self, first: bytes) -> int:
        """``first`` is what the master has said already."""
        self._heed(first)
        while not (self._quit or self._finished):
            self._turn(self._epoll.poll(self._shift.timeout() if self._shift else None))
        return 0

    @property
    def _finished(self) -> bool:
        return self._stopping and (self._shift is None or self._shift.finished)

    def _turn(self, events: list[tuple[int, int]]) -> None:
        on_wire = []
        for fd, mask in events:
            if fd == self._sock.fileno():
                self._listen()
            elif fd == self._term:
                os.eventfd_read(fd)
                self._stop()
            elif self._recorder and fd == self._recorder.inbox.wake_fd:
                os.eventfd_read(fd)
            else:
                on_wire.append((fd, mask))
        if self._shift and not self._quit:
            self._shift.turn(on_wire)

    def _listen(self) -> None:
        try:
            data = self._sock.recv(_READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._epoll.unregister(self._sock.fileno())
            self._stop()
        self._heed(data)

    def _heed(self, data: bytes) -> None:
        messages = self._lines.messages(data)
        if messages:
            self._display.show(self._recorder.late_since if self._recorder else 0.0)
        for message in messages:
            self._obey(message)

    def _obey(self, message: dict[str, str]) -> None:
        kind = message["t"]
        if kind == "work" and not self._stopping:
            self._wake()
        elif kind == "token" and self._shift:
            self._shift.read_token(message["account"])
        elif kind == "halt":
            self._halt(message["campaign"])
            self._say({"t": "halted", "n": message["n"]})
        elif kind == "unhalt":
            self._halted.discard(message["campaign"])
        elif kind == "logs":
            follow_log(message)
        elif kind == "stop":
            self._stop()
        elif kind == "quit":
            self._quit = True

    def _say(self, message: dict[str, object]) -> None:
        """Every word arrives: there is room for thousands, and a master that is stopped goes on reading later."""
        try:
            self._sock.sendall(encode(message))
        except (BrokenPipeError, ConnectionResetError):
            pass  # the master is gone; the end of file tells

    def _wake(self) -> None:
        if self._shift is None:
            self._shift = self._begin()
        if self._shift is not None:
            self._shift.wake()

    def _begin(self) -> Shift | None:
        """The first work; None: not now."""
        c = self._child
        history.speak_for(c.node)
        name = f"w{c.slot}-{os.getpid()}-{os.urandom(4).hex()}"
        journals = c.config.daemon.state_dir / "journals"
        if self._meter is None:
            self._meter = Meter(folder_of(c.config.daemon.state_dir), f"row-{c.row}")
        try:
            self._recorder = recorder = Recorder(
                c.config.store_url, journals, c.node, name, c.config.workers.concurrency, c.config.accounts,
                self._meter, hooks(c.config.audiences.values()),
            )  # fmt: skip
        except OSError as e:
            log.error("no journal can be begun: %s; nothing is sent until the disk has room", e.strerror)
            return None
        self._epoll.register(recorder.inbox.wake_fd, select.EPOLLIN)
        return Shift(
            c, self._epoll, recorder, self._meter, self._display, self._fatigue, self._halted, self._say
        )  # fmt: skip

    def _halt(self, campaign: str) -> None:
        """Start nothing more of it, neither of those in hand nor of those that the recorder has just claimed."""
        self._halted.add(campaign)
        if self._shift:
            self._shift.let_go(campaign)

    def _stop(self) -> None:
        """Start nothing more; what is on the wire ends, the rest is handed back."""
        if self._stopping:
            return
        self._stopping = True
        if self._shift:
            self._shift.stop()
