"""Who may connect, whose turn it is, and that nobody's trouble becomes anybody else's."""

from __future__ import annotations

import logging
import os
import pwd
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from selectors import EVENT_READ, BaseSelector

from fanoutd.config import Daemon
from fanoutd.errors import BadConfig
from fanoutd.master import rpc
from fanoutd.master.clients import Client
from fanoutd.master.listener import Listener
from fanoutd.master.loglimit import LogLimit
from fanoutd.master.room import MOST_HELD, Held, descriptor_limit, most_clients
from fanoutd.master.takeover import Document

_log = logging.getLogger(__name__)

#: Seconds of a pass that go to those who connect, as many to those who ask, and of a turn that go to one of them.
_PASS, _TURN = 0.01, 0.005
#: Passes for those who wait to be let in when the socket's name goes away: there may be no end of them.
_LAST_PASSES = 10
#: Seconds to wait when there is no room for another client.
_PAUSE = 0.25
_SWEEP = 1.0
#: What a process took of our time counts half a second later, and below so many seconds not at all.
_FORGOTTEN = 0.001
#: Strangers who have been told so and may still read it.
_LINGERING = 64
#: Children there may be as long as nobody says how many: the default configuration has five.
_SLOTS = 8

#: Works off one thing that the client asked for.
Work = Callable[[Client], None]


def allowed_uids(daemon: Daemon) -> frozenset[int]:
    """Who may use the socket: ``allow_users`` and whoever may do more. Raises BadConfig for an unknown user."""
    return admin_uids(daemon) | _uids(daemon.allow_users, "allow_users")


def admin_uids(daemon: Daemon) -> frozenset[int]:
    """Who may reload and scale: root, the daemon's own user and ``admin_users``. Raises BadConfig."""
    return frozenset({0, os.geteuid()}) | _uids(daemon.admin_users, "admin_users")


def _uids(names: Iterable[str], key: str) -> frozenset[int]:
    found = set()
    for name in names:
        try:
            found.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            raise BadConfig(f"[daemon] {key}: there is no user {name!r} on this machine") from None
    return frozenset(found)


class Intake:
    """The listener and its clients. ``slots`` is how many children there may be: they need descriptors too."""

    def __init__(
        self, daemon: Daemon, uids: frozenset[int], listener: Listener, selector: BaseSelector, work: Work
    ) -> None:
        self._max_request = daemon.max_request
        self._uids = uids
        self.slots = _SLOTS
        self._listener: Listener | None = listener
        self._selector = selector
        self._work = work
        self._clients: set[Client] = set()
        self._busy: set[Client] = set()
        self._newest: Client | None = None
        self._strangers: deque[Client] = deque()
        self._spent: dict[int, float] = {}
        self._held = Held()
        self._leaving: Iterator[Client] = iter(())
        self._resume_at: float | None = None
        self._paused = False
        self._sweep_at = 0.0
        self._full = LogLimit(_log, 1, 60.0, "clients had to wait %d times more")
        self._dropped = LogLimit(_log, 5, 60.0, "%d more clients dropped to make room")
        self._forbidden = LogLimit(_log, 10, 60.0, "%d more clients refused, see allow_users")
        self._broken = LogLimit(_log, 5, 60.0, "%d more clients dropped for an error of ours")
        self._listen(True)

    def adopt(self, daemon: Daemon) -> None:
        """As a new configuration says. Who is connected stays."""
        self._max_request, self._uids = daemon.max_request, allowed_uids(daemon)

    def pause(self, on: bool) -> None:
        """Accept and read nothing more, or do so again: clients wait in the kernel's queues meanwhile."""
        self._paused = on
        if self._listener and self._resume_at is None:
            self._arm(not on)
        self._guarded(self._clients, lambda client: client.pause(on))

    @property
    def settled(self) -> bool:
        """Everybody has been answered what was read from him."""
        return all(client.settled for client in self._clients)

    def clients(self) -> list[Client]:
        """Who is connected."""
        return list(self._clients)

    def inherit(self, left: Document) -> Client:
        """Take over a client from the program before us. Raises OSError."""
        sock = socket.socket(fileno=left["fd"])
        sock.set_inheritable(False)
        client = Client(sock, self._max_request, self._selector, self._held, self._stirs, self._forget)
        self._clients.add(client)
        client.inherit(left)
        if client.busy:
            self._busy.add(client)
        return client

    def descriptors(self) -> list[int]:
        """What a forked child closes."""
        listening = [self._listener.fileno()] if self._listener else []
        return [*listening, *(client.fileno() for client in self._clients)]

    def deadline(self, now: float) -> float:
        """When it must be called again though nothing stirs."""
        if any(client.workable for client in self._busy):
            return now
        if self._resume_at is not None and not self._paused:
            return self._resume_at
        return now + _SWEEP if self._clients else float("inf")

    def run(self, now: float) -> None:
        """One pass: turns for those who asked something, until its time is over."""
        if self._resume_at is not None and now >= self._resume_at and not self._paused:
            self._listen(True)
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP
            self._sweep()
        if self._held.total > self._most_held():
            self._relieve()
        waiting = sorted((client for client in self._busy if client.workable), key=self._rank)
        end = time.monotonic() + _PASS
        for client in waiting:
            if time.monotonic() >= end:
                break
            self._guarded([client], self._turn)

    def stop_accepting(self) -> None:
        """The socket's name goes away; who is connected stays, and who waits to be is let in first."""
        if self._listener:
            for _ in range(_LAST_PASSES):
                if self._resume_at is not None or not self._accept_some():
                    break
            if self._resume_at is None:
                self._selector.unregister(self._listener)
            self._resume_at = None
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        self.stop_accepting()
        self._guarded(self._clients, Client.close)

    # ---- who comes in

    def _listen(self, on: bool) -> None:
        self._resume_at = None if on else time.monotonic() + _PAUSE
        if self._listener is not None:
            self._arm(on)

    def _arm(self, on: bool) -> None:
        if self._listener is not None and on:
            self._selector.register(self._listener, EVENT_READ, lambda _events: self._accept_some())
        elif self._listener is not None:
            self._selector.unregister(self._listener)

    def _accept_some(self) -> bool:
        """As many as may come in a pass; whether there may be more."""
        self._leaving = self._droppable()
        end = time.monotonic() + _PASS
        while time.monotonic() < end:
            if len(self._clients) > self._most() and not self._drop_one():
                self._pause(f"all {len(self._clients)} connections are in use")
                return False
            try:
                sock = self._listener.accept() if self._listener else None
            except OSError as e:  # EMFILE, ENFILE, ENOBUFS, ENOMEM: they come back
                self._pause(e.strerror or str(e))
                return False
            if sock is None:
                return False
            self._admit(sock)
        return True

    def _pause(self, why: str) -> None:
        self._full.warning("cannot accept: %s; trying every %g s", why, _PAUSE)
        self._listen(False)

    def _admit(self, sock: socket.socket) -> None:
        try:
            client = Client(sock, self._max_request, self._selector, self._held, self._stirs, self._forget)
        except OSError as e:
            self._broken.warning("cannot admit a client: %s", e)
            sock.close()
            return
        self._clients.add(client)
        self._newest = client
        if client.uid not in self._uids:
            self._turn_away(client)
        else:  # most have written already: they need not wait for another pass
            self._stirs(client, EVENT_READ)

    def _turn_away(self, client: Client) -> None:
        self._forbidden.warning("uid %d (pid %d) may not use the socket; see allow_users", client.uid, client.pid)
        words = f"uid {client.uid} may not use this socket; ask for an entry in allow_users"
        client.say(rpc.failure(None, rpc.RpcError(rpc.NOT_PERMITTED, words)))
        client.dismiss()
        self._strangers.append(client)
        if len(self._strangers) > _LINGERING:
            self._strangers.popleft().close()

    # ---- who has to go

    def _most(self) -> int:
        return most_clients(descriptor_limit(), self.slots)

    def _most_held(self) -> int:
        return max(MOST_HELD, 4 * self._max_request)

    def _sweep(self) -> None:
        self._spent = {pid: spent / 2 for pid, spent in self._spent.items() if spent > _FORGOTTEN}
        self._guarded(self._clients, Client.look_for_hangup)
        self._leaving = self._droppable()
        while len(self._clients) > self._most() and self._drop_one():
            pass
        for limit in (self._full, self._dropped, self._forbidden, self._broken):
            limit.catch_up()

    def _droppable(self) -> Iterator[Client]:
        """Those with nothing outstanding, then those who left something by half; the longest silent first.

        Not the last who came, until it has had the time to write.
        """
        now = time.monotonic()
        spared = self._newest if self._newest and now - self._newest.stirred < _PAUSE else None
        silent = sorted(self._clients - {spared}, key=lambda client: client.stirred)
        yield from (client for client in silent if not client.closed and client.idle())
        yield from (client for client in silent if not client.closed and client.stalled(now))

    def _drop_one(self) -> bool:
        client = next(self._leaving, None)
        if client is None:  # all who were here when they were put in order have been looked at
            self._leaving = self._droppable()
            client = next(self._leaving, None)
        if client is None:
            return False
        self._drop(client, "this connection was idle and makes room for another; connect again")
        return True

    def _relieve(self) -> None:
        """Too much is kept for clients: those who keep a good deal and were silent longest lose it."""
        share = self._most_held() // max(1, len(self._clients))
        for client in sorted(self._clients, key=lambda client: client.stirred):
            if self._held.total <= self._most_held():
                return
            if client.held > share and not client.asks:
                self._drop(client, "too much is being written, or left unread, at once; try again")

    def _drop(self, client: Client, words: str) -> None:
        self._dropped.warning("client pid=%d uid=%d dropped: %s", client.pid, client.uid, words)
        client.say(rpc.failure(None, rpc.RpcError(rpc.NOT_NOW, words)))
        client.close()

    def _forget(self, client: Client) -> None:
        self._clients.discard(client)
        self._busy.discard(client)

    # ---- whose turn it is

    def _stirs(self, client: Client, events: int) -> None:
        self._guarded([client], lambda client: client.ready(events))
        if client.busy:
            self._busy.add(client)

    def _rank(self, client: Client) -> tuple[float, float, float]:
        """Whose process took least of our time of late comes first, then who took least since he last had
        nothing to ask, then who has waited longest: a flood waits for itself, over however many connections."""
        return self._spent.get(client.pid, 0.0), client.cost, client.stirred

    def _turn(self, client: Client) -> None:
        """Work for one client for a moment."""
        begun = now = time.monotonic()
        while client.workable and now - begun < _TURN:
            self._work(client)
            now = time.monotonic()
        self._spent[client.pid] = self._spent.get(client.pid, 0.0) + now - begun
        if client.busy:
            client.cost += now - begun
        else:
            client.cost = 0.0
            self._busy.discard(client)
        client.settle()

    def _guarded(self, clients: Iterable[Client], act: Callable[[Client], None]) -> None:
        """The last line of defence: an error of ours in one client's matters is logged and costs him."""
        for client in list(clients):
            try:
                act(client)
            except Exception:
                self._broken.warning("client pid=%d uid=%d dropped", client.pid, client.uid, traceback=True)
                client.close()
