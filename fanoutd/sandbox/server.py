"""The sandbox on a socket: one process, one loop, keep-alive connections."""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import cast

from fanoutd.sandbox.app import Sandbox
from fanoutd.sandbox.http import (
    CONTINUE,
    MAX_BODY,
    BadRequest,
    Ending,
    Parser,
    Reply,
    Request,
    encode,
    json_reply,
)

HOST = "127.0.0.1"

#: How soon a change of the idle time is noticed, in seconds.
_TICK = 0.5

#: How long a client that sends rubbish may take to read what it is told.
_LINGER = 2.0

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Door:
    """The listening socket, which can be shut for a while: whoever connects then is refused."""

    def __init__(self, make: Callable[[Door], asyncio.Protocol], port: int) -> None:
        """``make`` makes what serves one connection. Raises OSError when the port is taken."""
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._entering: set[asyncio.Task[object]] = set()
        self._opens: asyncio.TimerHandle | None = None
        # Bound and never listening: the port stays ours while nobody listens on it.
        self._holder = _bound(port)
        self.port: int = self._holder.getsockname()[1]
        self._sock: socket.socket | None = None
        self.open()

    @property
    def shut(self) -> bool:
        return self._sock is None

    def open(self) -> None:
        if self._sock is None:
            self._sock = _bound(self.port)
            self._sock.listen(1024)
            self._loop.add_reader(self._sock, self._let_in)

    def close(self) -> None:
        if self._sock:
            self._let_in()  # whoever has connected already would be reset, which is not refused
            self._loop.remove_reader(self._sock)
            self._sock.close()
            self._sock = None

    def shut_for(self, seconds: float) -> None:
        """From now on, whatever was said before; 0 opens it."""
        if self._opens:
            self._opens.cancel()
        if seconds:
            self.close()
            self._opens = self._loop.call_later(seconds, self.open)
        else:
            self.open()

    def _let_in(self) -> None:
        while self._sock:
            try:
                connection, _ = self._sock.accept()
            except OSError:  # nobody more, or no descriptor for him: he waits
                return
            task = self._loop.create_task(self._loop.connect_accepted_socket(lambda: self._make(self), connection))
            self._entering.add(task)
            task.add_done_callback(self._entering.discard)


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((HOST, port))
    return sock


class Connection(asyncio.Protocol):
    """One client. Answers its requests one after the other, pipelined ones too."""

    def __init__(self, sandbox: Sandbox, door: Door, everyone: set[Connection]) -> None:
        self._sandbox = sandbox
        self._door = door
        self._everyone = everyone
        self._loop = asyncio.get_running_loop()
        self._parser = Parser()
        self._answering: Request | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._quiet_since = 0.0
        self._clogged = self._deaf = self._eof = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._everyone.add(self)
        self._sandbox.stats.connections_total += 1
        self._sandbox.stats.connections_open += 1
        self._quiet_since = self._loop.time()
        self._watch_idleness()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._everyone.discard(self)
        self._sandbox.stats.connections_open -= 1
        if self._answering:
            self._sandbox.stats.in_flight -= 1
        for timer in self._timers.values():
            timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._quiet_since = self._loop.time()
        self._parser.feed(data)
        if len(self._parser) > 2 * MAX_BODY:
            self.abort()
            return
        self._advance()

    def eof_received(self) -> bool:
        """A client that has shut down its side still gets the answer that is under way."""
        self._eof = True
        return self._answering is not None and "answer" in self._timers

    def pause_writing(self) -> None:
        self._clogged = True

    def resume_writing(self) -> None:
        self._clogged = False
        self._advance()

    def abort(self) -> None:
        """End the connection with a reset."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def _advance(self) -> None:
        while not (self._answering or self._clogged or self._deaf or self._transport.is_closing()):
            try:
                request = self._parser.next()
            except BadRequest as error:
                self._send_off(error)
                return
            if request is None:
                self._wait_for_more()
                return
            self._begin(request)

    def _wait_for_more(self) -> None:
        if self._parser.take_continue():
            self._transport.write(CONTINUE)
        if self._eof:
            self._transport.close()

    def _begin(self, request: Request) -> None:
        self._answering = request
        self._sandbox.stats.begun()
        reply = self._sandbox.answer(request, time.time())
        if reply.delay > 0:
            self._timers["answer"] = self._loop.call_later(reply.delay, self._finish_late, request, reply)
        else:
            self._finish(request, reply)

    def _finish_late(self, request: Request, reply: Reply) -> None:
        del self._timers["answer"]
        self._finish(request, reply)
        self._advance()

    def _finish(self, request: Request, reply: Reply) -> None:
        if reply.ending is Ending.NEVER:
            if self._eof:
                self._transport.close()
            return
        self._answering = None
        self._sandbox.stats.in_flight -= 1
        self._quiet_since = self._loop.time()
        if reply.ending is Ending.RESET:
            self.abort()
            return
        keep = request.keep_alive and reply.ending is Ending.SENT and not self._door.shut
        if reply.ending is not Ending.DROPPED:
            self._transport.write(encode(reply, keep, head_only=request.method == "HEAD"))
        if not keep:
            self._transport.close()

    def _send_off(self, error: BadRequest) -> None:
        """Tell what is wrong and hang up, but not before it can be read: a reset would overtake it."""
        self._deaf = True
        self._transport.write(encode(json_reply({"error": str(error)}, error.status), keep_alive=False))
        self._transport.write_eof()
        self._timers["linger"] = self._loop.call_later(_LINGER, self._transport.close)

    def _watch_idleness(self) -> None:
        idle, now = self._sandbox.options.idle, self._loop.time()
        due = self._quiet_since + idle
        if idle and now >= due and not self._answering:
            self._sandbox.stats.closed_idle += 1
            self._transport.close()
            return
        soon = now + _TICK
        at = min(due, soon) if idle and due > now else soon
        self._timers["idle"] = self._loop.call_at(at, self._watch_idleness)


async def serve(sandbox: Sandbox, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. ``ready`` gets the URL. Raises OSError when the port is taken."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    everyone: set[Connection] = set()
    door = Door(lambda door: Connection(sandbox, door, everyone), port)
    sandbox.on_refuse = door.shut_for
    door.shut_for(sandbox.options.refuse)
    ready(f"http://{HOST}:{door.port}")
    await stop.wait()
    door.close()
    for connection in list(everyone):
        connection.abort()
