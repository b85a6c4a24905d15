"""[metrics] listen: a small HTTP server that gives Prometheus the metrics, in one thread of the dispatcher.

It knows GET and HEAD of ``/metrics`` and ``/``, answers each connection once and closes it. A client that says nothing,
says too much or reads nothing is dropped after a while; when there are many, the oldest makes room for the newest.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fanoutd.config import Metrics

log = logging.getLogger(__name__)

#: Connections at once, seconds that one has, and bytes of a request.
MOST, PATIENCE, LONGEST = 32, 10.0, 8192

#: Seconds between two tries for an address that cannot be had; before it is spoken of, the one before us may let it go.
RETRY, SILENT = 0.2, 3.0

_HINT = "fanoutd: metrics are at /metrics\n"
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_WORDS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}


@dataclass(slots=True, eq=False)
class _Client:
    sock: socket.socket
    until: float
    heard: bytearray = field(default_factory=bytearray)
    answer: memoryview | None = None
    """What is still to be sent."""


class Scrape:
    """``text`` makes the metrics; it is called by the server's thread, and may take its time."""

    def __init__(self, listen: Metrics, text: Callable[[], str]) -> None:
        self._listen, self._text = listen, text
        self._selector = selectors.DefaultSelector()
        self._clients: list[_Client] = []

    def start(self) -> None:
        """Serve as long as the process lives: its end lets the address go."""
        threading.Thread(target=self._run, name="metrics", daemon=True).start()

    def _run(self) -> None:
        try:
            listener = self._bind()
            self._selector.register(listener, selectors.EVENT_READ)
            while True:
                for key, _ in self._selector.select(1.0 if self._clients else None):
                    if key.data is None:
                        self._accept(listener)
                    elif key.data in self._clients:
                        self._serve(key.data)
                self._drop_late(time.monotonic())
        except Exception:
            log.exception("[metrics] listen: the server has failed; metrics are still to be had by `fanoutd metrics`")

    def _bind(self) -> socket.socket:
        """Wait for the address: the dispatcher before us may still have it. Whoever else has it is named once."""
        host, port = self._listen.host, self._listen.port
        began, said = time.monotonic(), False
        while True:
            try:
                listener = bound(host, port)
            except OSError as e:
                if not said and (e.errno != errno.EADDRINUSE or time.monotonic() - began > SILENT):
                    said = True
                    log.error("[metrics] listen %s: %s; metrics are not served until it can be had", where(host, port),
                              e.strerror)  # fmt: skip
                time.sleep(RETRY if not said else 10 * RETRY)
                continue
            log.info("metrics are served on http://%s/metrics", where(host, port))
            return listener

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError as e:  # gone again, or no descriptor is left
            if e.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM) and self._clients:
                self._close(self._clients[0])
            elif e.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                time.sleep(RETRY)
            return
        sock.setblocking(False)
        if len(self._clients) >= MOST:
            self._close(self._clients[0])
        client = _Client(sock, time.monotonic() + PATIENCE)
        self._clients.append(client)
        self._selector.register(sock, selectors.EVENT_READ, client)

    def _serve(self, client: _Client) -> None:
        try:
            if client.answer is None:
                self._hear(client)
            if client.answer is not None:
                client.answer = client.answer[client.sock.send(client.answer):]
                if not client.answer:
                    self._close(client)
        except BlockingIOError:
            pass
        except OSError:
            self._close(client)

    def _hear(self, client: _Client) -> None:
        data = client.sock.recv(4096)
        client.heard += data
        if not data or len(client.heard) > LONGEST:
            self._close(client)
        elif b"\r\n\r\n" in client.heard or b"\n\n" in client.heard:
            client.answer = memoryview(self._answer(bytes(client.heard)))
            client.until = time.monotonic() + PATIENCE
            self._selector.modify(client.sock, selectors.EVENT_WRITE, client)

    def _answer(self, request: bytes) -> bytes:
        words = request.split(b"\n", 1)[0].split()
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response(400, "this is no HTTP request\n")
        method, path = words[0], words[1].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _response(405, "only GET and HEAD\n")
        if path == b"/metrics":
            try:
                answer = _response(200, self._text())
            except Exception:
                log.exception("metrics cannot be made")
                answer = _response(500, "the daemon's log says more\n")
        else:
            answer = _response(200, _HINT) if path == b"/" else _response(404, _HINT)
        return answer if method == b"GET" else answer[: answer.index(b"\r\n\r\n") + 4]

    def _drop_late(self, at: float) -> None:
        for client in [each for each in self._clients if each.until < at]:
            self._close(client)

    def _close(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._selector.unregister(client.sock)
            client.sock.close()


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(64)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def where(host: str, port: int) -> str:
    """As in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _response(status: int, text: str) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status} {_WORDS[status]}\r\nContent-Type: {_CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
