"""A mold without a master: children asked for one after the other, each sent SIGTERM just after its birth.

``python -m support.molds 300`` prints how many of them ended, and the median milliseconds from asking to ready.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import statistics
import sys
import time
from types import SimpleNamespace

from fanoutd import process
from fanoutd.board import Board
from fanoutd.child import Recipe
from fanoutd.lines import LineBuffer, encode
from fanoutd.master.children import ENTRIES
from fanoutd.master.forking import fork_mold

#: Seconds after its birth at which a child is sent the signal.
MOMENTS = (0.0, 0.0003, 0.001)


class Mold:
    """The real worker's and dispatcher's code; nothing but the fork is looked at."""

    def __init__(self) -> None:
        process.adopt_orphans()
        master, board, config = os.getpid(), Board(4), SimpleNamespace(store_url="sqlite:////nowhere")
        self.pid, self.sock = fork_mold(
            lambda sock: Recipe(1, config, "node", ENTRIES, board, master, sock), lambda: ()  # type: ignore[arg-type]
        )
        self.sock.setblocking(True)
        assert json.loads(self.sock.recv(4096)) == {"t": "ready"}

    def ask(self) -> socket.socket:
        """Our end of a new worker's socket."""
        ours, theirs = socket.socketpair()
        with theirs:
            request = encode({"t": "fork", "role": "worker", "slot": 1, "row": 0})
            socket.send_fds(self.sock, [request], [theirs.fileno()])
        return ours

    def close(self) -> None:
        self.sock.close()
        os.waitpid(self.pid, 0)


def ended(pid: int, seconds: float = 2.0) -> bool:
    """Whether it ends in this time; it is reaped then."""
    fd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    over = bool(poll.poll(seconds * 1000))
    os.close(fd)
    if not over:
        os.kill(pid, signal.SIGKILL)
    while True:  # until it is ours: the process between it and the mold may live for a moment yet
        try:
            os.waitpid(pid, 0)
            return over
        except ChildProcessError:
            time.sleep(0.0001)


def main(rounds: int) -> None:
    mold = Mold()
    heard_of, waits = 0, []
    for i in range(rounds):
        begun = time.perf_counter()
        sock, lines = mold.ask(), LineBuffer()
        said = lines.messages(sock.recv(4096))
        time.sleep(MOMENTS[i % len(MOMENTS)])
        os.kill(said[0]["pid"], signal.SIGTERM)
        heard_of += ended(said[0]["pid"])
        sock.close()
        sock, lines = mold.ask(), LineBuffer()
        begun = time.perf_counter()
        said = []
        while len(said) < 2:
            said += lines.messages(sock.recv(4096))
        waits.append((time.perf_counter() - begun) * 1000)
        sock.close()
        assert ended(said[0]["pid"]), "a child whose master is gone lives on"
    mold.close()
    print(json.dumps({"sent": rounds, "ended": heard_of, "ready_ms": round(statistics.median(waits), 2)}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
