"""Clients that behave badly, each kind a process of its own: what it costs it takes from nobody's Python.

Run as a module it is one of them, until it is killed: ``python -m support.abuse NAME SOCKET``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from support.master import Connection, MasterProcess, until

PING = b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping"}'
BARE = b'{"content":"x","flag":"0","phone":"110","message":"supply"}'
SUBMIT = (b'{"jsonrpc":"2.0","id":1,"method":"campaign.submit","params":'
          b'{"content":"x","page":0,"phone":"110","message":"supply"}}')
MAX_REQUEST = 1 << 20


class Abused(MasterProcess):
    """A master with the usual ``max_request``, started by ``prefix`` (a command that executes its arguments)."""

    def __init__(self, folder: Path, prefix: tuple[str, ...] = (), counted: bool = True, **config: str) -> None:
        """``counted``: coverage counts what it executes, when that is asked for."""
        self._prefix = prefix
        self._counted = counted
        super().__init__(folder, **config)

    def start(self) -> subprocess.Popen[str]:
        text = self.config_file.read_text().replace('max_request = "64KiB"', 'max_request = "1MiB"')
        self.config_file.write_text(text)
        environment = self._environment if self._counted else uncounted(self._environment)
        return subprocess.Popen(
            [*self._prefix, sys.executable, "-m", "support.master", str(self.config_file)], env=environment,
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def rss(self) -> int:
        """Bytes in memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def cpu(self) -> float:
        """Seconds spent, as user and in the kernel."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def uncounted(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what makes coverage count in a process."""
    return {name: value for name, value in environment.items() if not name.startswith("COVERAGE_")}


@contextlib.contextmanager
def abusing(name: str, path: Path) -> Iterator[None]:
    """While such a client is at it."""
    environment = uncounted({**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)})
    command = [sys.executable, "-m", "support.abuse", name, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"begun\n"
            yield
            assert process.poll() is None, "it has ended by itself"
        finally:
            process.kill()


def pings(master: MasterProcess, count: int) -> tuple[list[float], list[float]]:
    """Seconds that so many pings waited on one connection, and a twentieth as many on a new one each; in order."""
    with patient(master) as client:
        steady = sorted(_ping(client) for _ in range(count))
    fresh = []
    for _ in range(count // 20):
        begun = time.monotonic()
        with patient(master) as client:
            _ping(client)
        fresh.append(time.monotonic() - begun)
    return steady, sorted(fresh)


def _ping(client: Connection) -> float:
    begun = time.monotonic()
    assert client.ask("daemon.ping")["result"]
    return time.monotonic() - begun


def patient(master: MasterProcess) -> Connection:
    """A client that comes again at once when the queue of those who want to connect is full (EAGAIN)."""
    def try_it() -> Connection | None:
        with contextlib.suppress(BlockingIOError):
            return master.connect()
        return None

    return until(try_it, "a place in the queue")


# ---- what they do


def _connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return sock


def _begun() -> None:
    print("begun", flush=True)


def _hammer(data: bytes, reads: bool = True, connections: int = 3) -> Callable[[str], None]:
    """Write it again and again as fast as it is taken; come again when dropped."""
    def run(path: str) -> None:
        poll = select.poll()
        socks: dict[int, tuple[socket.socket, Iterator[memoryview]]] = {}
        for pieces in itertools.count():
            while len(socks) < connections:
                sock = _connected(path)
                sock.setblocking(False)
                socks[sock.fileno()] = sock, itertools.cycle(_pieces(data))
                poll.register(sock, select.POLLOUT | (select.POLLIN if reads else 0))
            if pieces == 10 * connections:
                _begun()
            for fd, events in poll.poll(100):
                sock, rest = socks[fd]
                try:
                    if events & select.POLLIN:
                        assert sock.recv(1 << 20)
                    if events & select.POLLOUT:
                        _send(sock, rest)
                except (OSError, AssertionError):
                    poll.unregister(fd)
                    socks.pop(fd)[0].close()

    return run


def _pieces(data: bytes) -> list[memoryview]:
    return [memoryview(data)[at:at + 60_000] for at in range(0, len(data), 60_000)]


def _send(sock: socket.socket, pieces: Iterator[memoryview]) -> None:
    """One piece, whole: what is cut off would be another line."""
    sock.setblocking(True)
    sock.settimeout(1)
    sock.sendall(next(pieces))
    sock.setblocking(False)


def _many(count: int, data: bytes) -> Callable[[str], None]:
    """So many connections that write this once and then nothing."""
    def run(path: str) -> None:
        socks = []
        for _ in range(count):
            socks.append(_connected(path))
            socks[-1].sendall(data)
        _begun()
        time.sleep(3600)

    return run


def _byte_writers(path: str) -> None:
    socks = [_connected(path) for _ in range(30)]
    _begun()
    for byte in itertools.cycle(PING + b"\n"):
        for sock in socks:
            sock.sendall(bytes([byte]))
            with contextlib.suppress(BlockingIOError):
                sock.recv(1 << 16, socket.MSG_DONTWAIT)


def _byte_readers(path: str) -> None:
    socks = [_connected(path) for _ in range(30)]
    for sock in socks:
        _fill(sock)
    _begun()
    while True:
        for sock in socks:
            sock.recv(1)
            _fill(sock)


def _deaf(path: str) -> None:
    """50,000 pings in a row on each of 40 connections, and no answer is ever read."""
    socks = [_connected(path) for _ in range(40)]
    for sock in socks:
        _fill(sock)
    _begun()
    while True:
        for sock in socks:
            _fill(sock)
        time.sleep(0.01)


def _fill(sock: socket.socket) -> None:
    """Write pings until nothing more is taken."""
    with contextlib.suppress(BlockingIOError):
        for _ in range(10):
            sock.send((PING + b"\n") * 5000, socket.MSG_DONTWAIT)


def _shut(path: str) -> None:
    """Half a line, the own side closed, and the other one left open."""
    socks: list[socket.socket] = []
    for n in itertools.count():
        sock = _connected(path)
        sock.sendall(PING[:-5])
        sock.shutdown(socket.SHUT_WR)
        socks.append(sock)
        if len(socks) > 200:
            socks.pop(0).close()
        if n == 300:
            _begun()


def _vanish(path: str) -> None:
    """Hang up in the middle of anything, with answers unread."""
    pieces = [b"", PING[:20], PING + b"\n", PING + b"\n" + PING[:9], b"[" + (PING + b",") * 3000, BARE[:-9] + b"\n",
              b"x" * 300_000, (PING + b"\n") * 4000]
    for n, data in enumerate(itertools.cycle(pieces)):
        with _connected(path) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(BlockingIOError):
                sock.send(data, socket.MSG_DONTWAIT)
        if n == 100:
            _begun()


def _connects(path: str) -> None:
    for n in itertools.count():
        _connected(path).close()
        if n == 2000:
            _begun()


def _crowd(path: str) -> None:
    """Ever more connections, which are kept open for as long as they last."""
    socks: list[socket.socket] = []
    for n in itertools.count():
        socks.append(_connected(path))
        if len(socks) > 3000:
            socks.pop(0).close()
        if n == 3500:
            _begun()


def _line(data: bytes) -> bytes:
    return data + b"\n"


_ROOM = MAX_REQUEST - 100
ABUSES: Mapping[str, Callable[[str], None]] = {
    "byte at a time writers": _byte_writers,
    "byte at a time readers": _byte_readers,
    "deaf": _deaf,
    "half a line and silence": _many(300, b'{"jsonrpc":"2.0","id":1,"meth' + b"o" * 50_000),
    "1,000 idle connections": _many(1000, b""),
    "own side shut": _shut,
    "hang up in the middle": _vanish,
    "connect and close": _connects,
    "a crowd": _crowd,
    "oversized lines": _hammer(_line(b"x" * (MAX_REQUEST + 10))),
    "an endless line": _hammer(b"x" * 600_000),
    "blank lines": _hammer(b"\n" * 600_000),
    "short lines": _hammer(b"5\n" * 300_000),
    "invalid UTF-8": _hammer(_line(b"\xff" * _ROOM)),
    "many broken lines": _hammer(_line(b"\xff\xfe")* 200_000),
    "NULs": _hammer(_line(b"\0" * _ROOM)),
    "deep nesting": _hammer(_line(b"[" * _ROOM)),
    "much nesting": _hammer(_line(b"[" + (b"[" * 900 + b"]" * 900 + b",") * 72 + b"1]")),
    "long numbers": _hammer(_line(b"[" + (b"9" * 4300 + b",") * (_ROOM // 4301) + b"1]")),
    "too long a number": _hammer(_line(b"9" * 5000)),
    "lone surrogates": _hammer(_line(b'{"content":"' + b"\\ud800" * (_ROOM // 6 - 10) + b'"}')),
    "surrogates beside objects": _hammer(_line(b"[" + b"{}," * 65_000 + b'"\\ud83d\\ude00"]')),
    "as many objects as may be": _hammer(_line(b"[" + b'{"key":0.5},' * 65_000 + b"{}]")),
    "too many objects": _hammer(_line(b"[" + b"{}," * (_ROOM // 3 - 10) + b"{}]")),
    "an object of keys": _hammer(_line(b"{" + b",".join(b'"%d":0' % n for n in range(_ROOM // 11)) + b"}")),
    "batches of 20,000 pings": _hammer(_line(b"[" + b",".join([PING] * 20_000) + b"]")),
    "deaf batches": _hammer(_line(b"[" + b",".join([PING] * 20_000) + b"]"), reads=False, connections=20),
    "empty batches": _hammer(_line(b"[]") * 100_000),
    "notifications": _hammer(_line(PING.replace(b'"id":1,', b"")) * 10_000),
    "a batch of notifications": _hammer(_line(b"[" + b",".join([PING.replace(b'"id":1,', b"")] * 20_000) + b"]")),
    "questions to the store": _hammer(_line(PING.replace(b"daemon.ping", b"daemon.status")) * 1000),
    "refused submissions": _hammer(_line(BARE.replace(b'"x"', b'""')) * 10_000),
    "submissions": _hammer(_line(BARE) * 1000),
    "a batch of submissions": _hammer(_line(b"[" + b",".join([SUBMIT] * 300) + b"]")),
}


def main() -> None:
    name, path = sys.argv[1:]
    try:
        ABUSES[name](path)
    except OSError:
        if os.path.exists(path):
            raise
        signal.pause()  # the daemon is stopping: nothing is left to do


if __name__ == "__main__":
    main()
