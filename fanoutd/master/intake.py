"""Who may connect, whose turn it is, and that nobody's trouble becomes anybody else's."""

from __future__ import annotations

import logging
import os
import pwd
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial
from selectors import EVENT_READ, BaseSelector

from fanoutd.config import Daemon
from fanoutd.errors import BadConfig
from fanoutd.master import rpc
from fanoutd.master.clients import Client
from fanoutd.master.listener import Listener
from fanoutd.master.takeover import Document

_log = logging.getLogger(__name__)

_ACCEPTS = 64  # a pass
#: Seconds of a pass that go to clients, and of a turn that go to one of them.
_PASS, _TURN = 0.02, 0.005
#: Seconds to wait when descriptors have run out.
_PAUSE = 0.25
_SWEEP = 1.0

#: Works off one thing that the client asked for.
Work = Callable[[Client], None]


def allowed_uids(daemon: Daemon) -> frozenset[int]:
    """Who may use the socket: ``allow_users`` and whoever may do more. Raises BadConfig for an unknown user."""
    return admin_uids(daemon) | _uids(daemon.allow_users, "allow_users")


def admin_uids(daemon: Daemon) -> frozenset[int]:
    """Who may reload and scale: root, the daemon's own user and ``admin_users``. Raises BadConfig."""
    return frozenset({0, os.geteuid()}) | _uids(daemon.admin_users, "admin_users")


def _uids(names: Iterable[str], key: str) -> frozenset[int]:
    try:
        return frozenset(pwd.getpwnam(name).pw_uid for name in names)
    except KeyError as e:
        raise BadConfig(f"[daemon] {key}: {e.args[0]}; no such user on this machine") from None


class Intake:
    """The listener and its clients."""

    def __init__(
        self, daemon: Daemon, uids: frozenset[int], listener: Listener, selector: BaseSelector, work: Work
    ) -> None:
        self._max_request = daemon.max_request
        self._uids = uids
        self._listener: Listener | None = listener
        self._selector = selector
        self._work = work
        self._clients: dict[int, Client] = {}
        self._resume_at: float | None = None
        self._starved = False
        self._paused = False
        self._sweep_at = 0.0
        self._listen(True)

    def adopt(self, daemon: Daemon, uids: frozenset[int]) -> None:
        """As a new configuration says. Who is connected stays."""
        self._max_request, self._uids = daemon.max_request, uids

    def descriptors(self) -> list[int]:
        """What a forked child closes."""
        listening = [self._listener.fileno()] if self._listener else []
        return [*listening, *(fd for fd, client in self._clients.items() if not client.closed)]

    def deadline(self, now: float) -> float:
        """When it must be called again though nothing stirs."""
        if any(client.workable for client in self._clients.values()):
            return now
        return now + _SWEEP if self._resume_at is None else self._resume_at

    def run(self, now: float) -> None:
        """One pass: turns for those who asked something, until its time is over."""
        if self._resume_at is not None and now >= self._resume_at and not self._paused:
            self._listen(True)
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP
            self._guarded(self._clients.values(), Client.look_for_hangup)
        # Who took least of our time since he last had nothing to ask comes first: a flood waits for itself.
        waiting = sorted((c for c in self._clients.values() if c.workable), key=lambda client: client.cost)
        end = time.monotonic() + _PASS
        for client in waiting:
            if time.monotonic() >= end:
                break
            self._guarded([client], self._turn)
        self._forget_closed()

    def pause(self, on: bool) -> None:
        """Accept and read nothing more, or do so again: clients wait in the kernel's queues meanwhile."""
        self._paused = on
        if self._listener and self._resume_at is None:
            if on:
                self._selector.unregister(self._listener)
            else:
                self._selector.register(self._listener, EVENT_READ, self._accept)
        self._guarded(self._clients.values(), lambda client: client.pause(on))

    @property
    def settled(self) -> bool:
        """Everybody has been answered what was read from him."""
        return all(client.settled for client in self._clients.values())

    def clients(self) -> list[Client]:
        """Who is connected."""
        return [client for client in self._clients.values() if not client.closed]

    def inherit(self, document: Document) -> Client:
        """Take over a client from the program before us. Raises OSError."""
        sock = socket.socket(fileno=document["fd"])
        sock.set_inheritable(False)
        client = Client(sock, self._max_request, self._selector, partial(self._ready, sock.fileno()))
        self._clients[client.fileno()] = client
        client.inherit(document)
        return client

    def stop_accepting(self) -> None:
        """The socket's name goes away; who is connected stays, and who waits to be is let in first."""
        if self._listener:
            self._accept(EVENT_READ)
            if self._resume_at is None:
                self._selector.unregister(self._listener)
            self._resume_at = None
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        self.stop_accepting()
        self._guarded(self._clients.values(), Client.close)
        self._clients.clear()

    def _listen(self, on: bool) -> None:
        self._resume_at = None if on else time.monotonic() + _PAUSE
        if self._listener is None:
            return
        if on:
            self._selector.register(self._listener, EVENT_READ, self._accept)
        else:
            self._selector.unregister(self._listener)

    def _accept(self, _events: int) -> None:
        for _ in range(_ACCEPTS):
            try:
                sock = self._listener.accept() if self._listener else None
            except OSError as e:  # EMFILE, ENFILE, ENOBUFS, ENOMEM: they come back
                if not self._starved:
                    _log.warning("cannot accept: %s; trying every %g s", e.strerror, _PAUSE)
                self._starved = True
                self._listen(False)
                return
            if sock is None:
                return
            self._starved = False
            self._admit(sock)

    def _admit(self, sock: socket.socket) -> None:
        try:
            client = Client(sock, self._max_request, self._selector, partial(self._ready, sock.fileno()))
        except OSError as e:
            _log.warning("cannot admit a client: %s", e)
            sock.close()
            return
        if client.uid not in self._uids:
            _log.warning("uid %d (pid %d) may not use the socket; see allow_users", client.uid, client.pid)
            words = f"uid {client.uid} may not use this socket; ask for an entry in allow_users"
            client.say(rpc.failure(None, rpc.RpcError(rpc.NOT_PERMITTED, words)))
            client.dismiss()
        self._clients[client.fileno()] = client

    def _ready(self, fd: int, events: int) -> None:
        self._guarded([self._clients[fd]], lambda client: client.ready(events))

    def _turn(self, client: Client) -> None:
        """Work for one client for a moment."""
        begun = now = time.monotonic()
        while client.workable and now - begun < _TURN:
            self._work(client)
            now = time.monotonic()
        client.cost = client.cost + now - begun if client.lines or client.batch else 0.0
        client.settle()

    def _guarded(self, clients: Iterable[Client], act: Callable[[Client], None]) -> None:
        """The last line of defence: an error of ours in one client's matters is logged and costs him."""
        for client in list(clients):
            try:
                act(client)
            except Exception:
                _log.exception("client pid=%d uid=%d dropped", client.pid, client.uid)
                client.close()

    def _forget_closed(self) -> None:
        if any(client.closed for client in self._clients.values()):
            self._clients = {fd: client for fd, client in self._clients.items() if not client.closed}
